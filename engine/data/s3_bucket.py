"""The S3 protocol: listing a requester-pays bucket and downloading from it. The only file that knows boto3.

Nothing here knows what the objects mean (:mod:`engine.data.s3_archive` does).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.atomic_io import replacing
from engine.data.s3_archive import FetchError, Item, Listed
from engine.errors import DataError
from engine.urls import base_address, without_path

_CHUNK = 1 << 18
_MD5 = re.compile(r"[0-9a-f]{32}")
#: Answers that no other object of the bucket will get around.
_FATAL = {
    "NoSuchBucket": "There is no bucket of that name there.",
    "InvalidAccessKeyId": "AWS does not know the access key.",
    "SignatureDoesNotMatch": "The secret key does not belong to the access key.",
    "ExpiredToken": "The session token has expired: log in again (`aws sso login`, or whatever made it).",
    "InvalidToken": "The session token is not valid.",
    "RequestTimeTooSkewed": "This machine's clock is wrong by more than 15 minutes.",
}


class Bucket:
    """A requester-pays bucket. Making one reaches nothing.

    Parameters
    ----------
    name : str
        The bucket.
    endpoint_url : str, optional
        Another host that speaks S3. Default: AWS.
    jobs : int
        Connections at once.
    timeout_seconds : float
        Longest silence of the host.
    """

    def __init__(self, name: str, endpoint_url: str | None = None, *, jobs: int = 8, timeout_seconds: float = 60):
        self.name = name
        self.endpoint_url = base_address(endpoint_url, "--endpoint-url") if endpoint_url else None
        self.requests = 0
        self._jobs = jobs
        self._timeout = timeout_seconds
        self._connected: Any = None

    def objects(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        """Every object under `prefix`, by key.

        Raises
        ------
        DataError
            When the bucket cannot be listed.
        """
        after = {"StartAfter": start_after} if start_after else {}
        for page in self._pages(Prefix=prefix, **after):
            for entry in page.get("Contents", ()):
                yield Listed(entry["Key"], entry["ETag"].strip('"'), int(entry["Size"]))

    def folders(self, prefix: str) -> list[str]:
        """Names one level below `prefix`."""
        pages = self._pages(Prefix=prefix, Delimiter="/")
        found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
        return [name.removeprefix(prefix).rstrip("/") for name in found]

    def fetch(self, item: Item, path: Path, step: Callable[[int], None]) -> str:
        """Download an object to `path`, whole or not at all; returns its SHA-256.

        Parameters
        ----------
        item : Item
            The object, with the ETag that it had when it was listed; another content is refused.
        path : Path
            Where it goes, in a folder that is there.
        step : callable
            Called with the bytes that came; with a negative number when they are to come again.

        Raises
        ------
        FetchError
            When this object cannot be had.
        DataError
            When none can.
        """
        with replacing(path) as temporary:
            return self._fetch(item, temporary, step)

    def _fetch(self, item: Item, temporary: Path, step: Callable[[int], None]) -> str:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        problem = ""
        for _ in range(3):
            came = 0
            try:
                body = self._client().get_object(
                    Bucket=self.name, Key=item.key, IfMatch=f'"{item.etag}"', RequestPayer="requester"
                )["Body"]
                sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
                with temporary.open("wb") as file:
                    while chunk := body.read(_CHUNK):
                        file.write(chunk)
                        for digest in sums:
                            digest.update(chunk)
                        came += len(chunk)
                        step(len(chunk))
                problem = _wrong(item, came, sums[1].hexdigest())
                if not problem:
                    return sums[0].hexdigest()
            except ClientError as error:
                self._refuse(error)
                raise FetchError(self._answer(error)) from error
            except (BotoCoreError, HTTPError, ConnectionError) as error:
                self._refuse(error)
                problem = f"broke off after {came:,} of {item.size:,} bytes ({type(error).__name__})"
            step(-came)
        raise FetchError(f"{problem}, three times")

    def _pages(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        paginator = self._client().get_paginator("list_objects_v2")
        try:
            for page in paginator.paginate(Bucket=self.name, RequestPayer="requester", **arguments):
                self.requests += 1
                yield page
        except (BotoCoreError, ClientError) as error:
            self._refuse(error)
            raise DataError(f"{self._where()} cannot be listed: it {self._answer(error)}. {_RIGHTS}") from error

    def _client(self) -> Any:
        """The client of the bucket's own region, which the bucket itself names."""
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
                region = session.region_name or "us-east-1"  # where to ask, not where the bucket is assumed to be
                client = session.client("s3", region_name=region, endpoint_url=self.endpoint_url, config=config)
                own = self._region(client)
                if own not in (None, region):
                    client = session.client("s3", region_name=own, endpoint_url=self.endpoint_url, config=config)
            except (BotoCoreError, ClientError, ValueError) as error:
                self._refuse(error)
                raise DataError(f"{self._where()} cannot be reached: {self._say(error)}.") from error
            self._connected = client
        return self._connected

    def _region(self, client: Any) -> str | None:
        """Region of the bucket; S3 names it even where it refuses the request."""
        from botocore.exceptions import ClientError

        try:
            answer = client.head_bucket(Bucket=self.name)
        except ClientError as error:
            if error.response["ResponseMetadata"].get("HTTPStatusCode") == 404:
                raise DataError(f"{self._where()}: {_FATAL['NoSuchBucket']}") from error
            answer = error.response
        region = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region")
        return str(region) if region else None

    def _refuse(self, error: Exception) -> None:
        """Raise when the error concerns every object and not only one."""
        from botocore import exceptions as boto

        credentials = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
        if isinstance(error, (*credentials, boto.ProfileNotFound, boto.TokenRetrievalError)):
            raise DataError(
                f"{self._where()} is requester-pays and needs an AWS account: {self._say(error)}. Give credentials in "
                "any way that AWS tools read (`aws configure`, AWS_PROFILE, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY), or use `hlbt data sync --source api`, which needs none."
            ) from error
        if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError)):
            raise DataError(
                f"{self._where()} cannot be reached: {self._say(error)}. Check the network and --endpoint-url; what "
                "was downloaded is kept, and the same command goes on from there."
            ) from error
        if isinstance(error, boto.ClientError) and (code := error.response["Error"].get("Code")) in _FATAL:
            raise DataError(f"{self._where()}: {_FATAL[code]} (S3 answered {code}.)") from error

    def _where(self) -> str:
        return f"The bucket {self.name}" + (f" at {self._say(self.endpoint_url)}" if self.endpoint_url else "")

    def _answer(self, error: Exception) -> str:
        """What the host said, in a few words."""
        response = getattr(error, "response", None)
        if not response:
            return f"failed ({type(error).__name__}: {self._say(error)})"
        code = response["Error"].get("Code", "?")
        if code in ("PreconditionFailed", "412"):
            return "was replaced while the sync ran; sync again"
        tries = response["ResponseMetadata"].get("RetryAttempts", 0)
        return f"was refused with {code}" + (f", {tries + 1} times" if tries else "")

    def _say(self, value: object) -> str:
        return without_path(value, self.endpoint_url)


_RIGHTS = "The account needs s3:ListBucket and s3:GetObject on it, as requester."


def _wrong(item: Item, came: int, md5: str) -> str:
    if came != item.size:
        return f"came short: {came:,} of {item.size:,} bytes"
    if _MD5.fullmatch(item.etag) and md5 != item.etag:
        return f"came damaged: its MD5 is {md5}, not the listed {item.etag}"
    return ""
