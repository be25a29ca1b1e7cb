"""Buckets on loopback: of S3 in this process, of Google in one of its own, for pyarrow's client keeps the GIL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.archive_server import ACCOUNT, client, s3_server

_GOOGLE = """
import sys
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="results")
server.start()
print(server._api._httpd.server_port, flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def s3_bucket(name: str = "results") -> Iterator[str]:
    """An empty bucket of S3; yields the address of a prefix in it."""
    with s3_server() as url, pytest.MonkeyPatch.context() as environment:
        for variable, value in ACCOUNT.items():
            environment.setenv(variable, value)
        client(url).create_bucket(Bucket=name)
        yield f"s3://{name}/mine?region=us-east-1&scheme=http&endpoint_override={url.partition('//')[2]}"


@contextmanager
def google_bucket() -> Iterator[str]:
    """An empty bucket of Google's storage; yields the address of a prefix in it."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    command = [sys.executable, "-c", _GOOGLE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        port = int(process.stdout.readline())
        options = f"scheme=http&endpoint_override=127.0.0.1:{port}&retry_limit_seconds=2"
        yield f"gs://anonymous@results/mine?{options}"
        process.stdin.close()
