"""A loopback S3 server that looks like HyperLiquid's archive, and the generated days that fill it."""

from __future__ import annotations

import http.client
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import lz4.frame
import numpy as np
import pandas as pd

BUCKET = "hyperliquid-archive"
HEADER = "time,coin,funding,open_interest,prev_day_px,day_ntl_vlm,premium,oracle_px,mark_px,mid_px,"
HEADER += "impact_bid_px,impact_ask_px"
#: The server asks for no particular account, and nothing here may look for a real one.
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def day_text(
    day: str, coins: dict[str, tuple[int, int]] | None = None, *, z: bool = True, null: str = "", seed: int = 0
) -> str:
    """A day of `asset_ctxs`: every coin from its first to before its last minute, minute by minute.

    About one record in fifty has no mid, premium and impact prices, as `null` spells it.
    """
    coins = coins or {"BTC": (0, 1440), "ETH": (0, 1440), "kPEPE": (0, 1440)}
    start = pd.Timestamp(day)
    generator = np.random.default_rng([seed, int(start.timestamp())])
    price = {coin: 10.0 ** (4 - place % 9) for place, coin in enumerate(coins)}
    lines = [HEADER]
    for minute in range(1440):
        stamp = start + pd.Timedelta(minutes=minute)
        time = f"{stamp:%Y-%m-%dT%H:%M:%SZ}" if z else f"{stamp:%Y-%m-%d %H:%M:%S}"
        for coin, (first, stop) in coins.items():
            if not first <= minute < stop:
                continue
            price[coin] *= float(np.exp(generator.normal(0, 1e-3)))
            px, rate = price[coin], generator.normal(1e-5, 1e-5)
            quotes = [null] * 3 if generator.random() < 0.02 else [f"{px * part:.7g}" for part in (1, 0.999, 1.001)]
            premium = null if quotes[0] == null else "0.0003"
            lines.append(
                f"{time},{coin},{rate:.8f},{1e6 / px:.3f},{px:.6g},{1e7 * generator.random():.4f},{premium},"
                f"{px * 1.0002:.7g},{px * 1.0001:.7g},{','.join(quotes)}"
            )
    return "\n".join(lines) + "\n"


def packed(text: str) -> bytes:
    return lz4.frame.compress(text.encode())


def key_of(day: str) -> str:
    return f"asset_ctxs/{pd.Timestamp(day):%Y%m%d}.csv.lz4"


@cache
def _one_loader() -> Callable[..., Any]:
    from botocore.loaders import create_loader

    return cache(create_loader)


@contextmanager
def s3_server() -> Iterator[str]:
    """A moto server on a free port; yields its address."""
    import botocore.session
    from moto.server import ThreadedMotoServer

    # A process of a user makes a client or two, those of the tests hundreds: the descriptions of S3 are read once.
    botocore.session.create_loader = _one_loader()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


def fill(endpoint: str, objects: dict[str, bytes], bucket: str = BUCKET) -> None:
    """A bucket with these objects. All servers of one process share their buckets."""
    s3 = client(endpoint)
    s3.create_bucket(Bucket=bucket)
    for key, content in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=content)


class Proxy:
    """Stands before the server: notes every request, and does to some objects what a network does.

    Attributes
    ----------
    faults : dict of str to list of str
        Key -> what happens to its next GETs, in order: an S3 error code (``"SlowDown"`` is a 503, others a 403),
        ``"short"`` (the connection breaks half-way), ``"less"`` (a shorter body that claims to be whole), ``"flip"``
        (a wrong byte), ``"slow"`` (byte by byte). The last one of a list that ends in ``"always"`` goes on for ever.
    requests : list of (str, str, str)
        Method, path with query, and who pays.
    """

    def __init__(self, upstream: str, latency: float = 0.0, on_request: Callable[[], None] = lambda: None) -> None:
        self.faults: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.upstream, self.latency, self.on_request = urlsplit(upstream).netloc, latency, on_request
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_GET

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Nothing is said of a client that was killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def gets(self) -> list[str]:
        """Keys of the objects that were asked for."""
        return [self._key(path) for method, path, _ in self.requests if method == "GET" and "list-type" not in path]

    def _key(self, path: str) -> str:
        return unquote(urlsplit(path).path).partition(f"/{BUCKET}/")[2]

    def _fault(self, path: str) -> str:
        with self._lock:
            waiting = self.faults.get(self._key(path), [])
            if waiting[1:] == ["always"]:
                return waiting[0]
            return waiting.pop(0) if waiting else ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.on_request()
        payer = request.headers.get("x-amz-request-payer", "")
        self.requests.append((request.command, request.path, payer))
        time.sleep(self.latency)
        fault = self._fault(request.path) if request.command == "GET" else ""
        if fault and fault not in ("short", "less", "flip", "slow"):
            status = 503 if fault == "SlowDown" else 403
            body = f"<Error><Code>{fault}</Code><Message>no</Message></Error>".encode()
            self._send(request, status, {"Content-Type": "application/xml"}, body, len(body))
            return
        upstream = http.client.HTTPConnection(self.upstream)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        upstream.request(request.command, request.path, headers=headers)
        response = upstream.getresponse()
        body = response.read()
        upstream.close()
        kept = {
            name: value
            for name, value in response.getheaders()
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server")
        }
        size = int(response.getheader("Content-Length") or len(body))
        if fault == "flip":
            body = body[:-9] + bytes([body[-9] ^ 1]) + body[-8:]
        if fault in ("short", "less"):
            body = body[: len(body) // 2]
        self._send(request, response.status, kept, body, len(body) if fault == "less" else size, fault == "slow")
        if fault == "short":
            request.close_connection = True

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes,
        size: int,
        slow: bool = False,
    ) -> None:
        try:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(size))
            request.end_headers()
            if request.command == "GET":
                for place in range(len(body) if slow else 0):
                    request.wfile.write(body[place : place + 1])
                    time.sleep(0.02)
                request.wfile.write(b"" if slow else body)
        except (BrokenPipeError, ConnectionResetError):
            request.close_connection = True  # the client was killed
