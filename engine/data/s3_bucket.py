"""Listing a requester-pays S3 bucket and downloading from it; the only module that imports boto3.

What the objects are is in :mod:`engine.data.s3_archive`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.atomic_io import replacing
from engine.data.s3_archive import MD5, ArchiveObject, FetchError, ListedObject
from engine.errors import DataError
from engine.retries import DEADLINE, RequestFailed, retry, within
from engine.urls import base_address, without_path

_CHUNK = 1 << 18
#: Error codes that concern every object of the bucket.
_FATAL = {
    "NoSuchBucket": "There is no bucket of that name.",
    "InvalidAccessKeyId": "AWS does not know the access key.",
    "SignatureDoesNotMatch": "The secret key does not belong to the access key.",
    "ExpiredToken": "The session token has expired: log in again (`aws sso login`, or whatever made it).",
    "InvalidToken": "The session token is not valid.",
    "RequestTimeTooSkewed": "This machine's clock is wrong by more than 15 minutes.",
}


class Bucket:
    """A requester-pays bucket. The constructor sends no request.

    Parameters
    ----------
    name : str
        The bucket.
    endpoint_url : str, optional
        Another host that speaks S3. Default: AWS.
    jobs : int
        Most connections at once.
    timeout_seconds : float
        Longest silence of the host.
    """

    def __init__(self, name: str, endpoint_url: str | None = None, *, jobs: int = 8, timeout_seconds: float = 60):
        self.name = name
        self.where = "the archive"
        self.endpoint_url = base_address(endpoint_url, "--endpoint-url") if endpoint_url else None
        self.requests = 0
        self._jobs = jobs
        self._timeout = timeout_seconds
        self._connected: Any = None

    def notes(self) -> tuple[str, ...]:
        """Say nothing: what else is in the bucket is not listed."""
        return ()

    def objects(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
        """Every object under `prefix`, by key.

        Raises
        ------
        DataError
            When the bucket cannot be listed.
        """
        after = {"StartAfter": start_after} if start_after else {}
        for page in self._pages(Prefix=prefix, **after):
            for entry in page.get("Contents", ()):
                yield ListedObject(entry["Key"], entry["ETag"].strip('"'), int(entry["Size"]))

    def folders(self, prefix: str) -> list[str]:
        """Names one level below `prefix`."""
        pages = self._pages(Prefix=prefix, Delimiter="/")
        prefixes = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
        return [name.removeprefix(prefix).rstrip("/") for name in prefixes]

    def fetch(self, item: ArchiveObject, path: Path, step: Callable[[int], None]) -> str:
        """Download an object to `path`, completely or not at all; returns its SHA-256.

        Parameters
        ----------
        item : ArchiveObject
            The object, with the ETag that it had when it was listed; another content is refused.
        path : Path
            The file to write, in an existing folder.
        step : callable
            Called with the bytes received; with a negative number when they are to be received again.

        Raises
        ------
        FetchError
            When this object cannot be downloaded.
        DataError
            When none can.
        """
        with replacing(path) as temporary:
            try:
                return retry(lambda: self._download(item, temporary, step), time.sleep)
            except RequestFailed as failure:
                raise FetchError(str(failure)) from failure

    def _download(self, item: ArchiveObject, temporary: Path, step: Callable[[int], None]) -> str:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        received = 0
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            body = self._client().get_object(
                Bucket=self.name, Key=item.key, IfMatch=f'"{item.etag}"', RequestPayer="requester"
            )["Body"]
            with temporary.open("wb") as file:
                while chunk := within(DEADLINE * self._timeout, lambda: body.read(_CHUNK)):
                    file.write(chunk)
                    sha256.update(chunk)
                    md5.update(chunk)
                    received += len(chunk)
                    step(len(chunk))
        except ClientError as error:
            self._raise_if_fatal(error)
            raise FetchError(self._reason(error)) from error
        except (BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
            self._raise_if_fatal(error)
            problem = f"broke off after {received:,} of {item.size:,} bytes ({type(error).__name__})"
        else:
            problem = _damage(item, received, md5.hexdigest())
            if not problem:
                return sha256.hexdigest()
        step(-received)
        # boto3 has waited between its own attempts.
        raise RequestFailed(problem, waits=(0.0, 0.0))

    def _pages(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        paginator = self._client().get_paginator("list_objects_v2")
        try:
            for page in paginator.paginate(Bucket=self.name, RequestPayer="requester", **arguments):
                self.requests += 1
                yield page
        except (BotoCoreError, ClientError) as error:
            self._raise_if_fatal(error)
            raise DataError(f"{self._where()} cannot be listed: it {self._reason(error)}. {_RIGHTS}") from error

    def _client(self) -> Any:
        """The client for the bucket's own region, which S3 returns."""
        if self._connected is None:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError

            config = Config(
                # Where AWS_MAX_ATTEMPTS is set, botocore reads it itself.
                retries={"mode": "standard"} | ({} if "AWS_MAX_ATTEMPTS" in os.environ else {"total_max_attempts": 6}),
                connect_timeout=min(self._timeout, 10),
                read_timeout=self._timeout,
                max_pool_connections=self._jobs,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
            try:
                session = boto3.session.Session()
                region = session.region_name or "us-east-1"  # any region can be asked for that of the bucket
                client = session.client("s3", region_name=region, endpoint_url=self.endpoint_url, config=config)
                own = self._region(client)
                if own not in (None, region):
                    client = session.client("s3", region_name=own, endpoint_url=self.endpoint_url, config=config)
            except (BotoCoreError, ClientError, ValueError) as error:
                self._raise_if_fatal(error)
                raise DataError(f"{self._where()} cannot be reached: {self._shown(error)}.") from error
            self._connected = client
        return self._connected

    def _region(self, client: Any) -> str | None:
        """Region of the bucket; S3 returns it even when it refuses the request."""
        from botocore.exceptions import ClientError

        try:
            response = client.head_bucket(Bucket=self.name)
        except ClientError as error:
            if error.response["ResponseMetadata"].get("HTTPStatusCode") == 404:
                raise DataError(f"{self._where()}: {_FATAL['NoSuchBucket']}") from error
            response = error.response
        region = response["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region")
        return str(region) if region else None

    def _raise_if_fatal(self, error: Exception) -> None:
        """Raise when the error concerns every object and not only one."""
        from botocore import exceptions as boto

        credentials = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
        if isinstance(error, (*credentials, boto.ProfileNotFound, boto.TokenRetrievalError)):
            raise DataError(
                f"{self._where()} is requester-pays and needs an AWS account: {self._shown(error)}. Give credentials "
                "in any way that AWS tools read (`aws configure`, AWS_PROFILE, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY), or use a mirror (`hlbt data sync --source dir DIR`) or `hlbt data sync "
                "--source api`, which needs none."
            ) from error
        if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError)):
            raise DataError(
                f"{self._where()} cannot be reached: {self._shown(error)}. Check the network and --endpoint-url; what "
                "was downloaded is kept, and the same command continues from there."
            ) from error
        if isinstance(error, boto.ClientError) and (code := error.response["Error"].get("Code")) in _FATAL:
            raise DataError(f"{self._where()}: {_FATAL[code]} (S3 answered {code}.)") from error

    def _where(self) -> str:
        return f"The bucket {self.name}" + (f" at {self._shown(self.endpoint_url)}" if self.endpoint_url else "")

    def _reason(self, error: Exception) -> str:
        """Why a request failed, in a few words."""
        response = getattr(error, "response", None)
        if not response:
            return f"failed ({type(error).__name__}: {self._shown(error)})"
        code = response["Error"].get("Code", "?")
        if code in ("PreconditionFailed", "412"):
            return "was replaced while the sync ran; sync again"
        tries = response["ResponseMetadata"].get("RetryAttempts", 0)
        return f"was refused with {code}" + (f", {tries + 1} times" if tries else "")

    def _shown(self, value: object) -> str:
        return without_path(value, self.endpoint_url)


_RIGHTS = "The account needs s3:ListBucket and s3:GetObject on it, as requester."


def _damage(item: ArchiveObject, received: int, md5: str) -> str:
    """What is wrong with a download; empty when nothing is."""
    if received != item.size:
        return f"is incomplete: {received:,} of {item.size:,} bytes"
    if MD5.fullmatch(item.etag) and md5 != item.etag:
        return f"is damaged: its MD5 is {md5}, not the listed {item.etag}"
    return ""
