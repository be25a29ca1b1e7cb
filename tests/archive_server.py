"""A loopback S3 server that looks like HyperLiquid's archive, and the generated days that fill it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pandas as pd

from conftest import SHARED

BUCKET = "hyperliquid-archive"
HEADER = "time,coin,funding,open_interest,prev_day_px,day_ntl_vlm,premium,oracle_px,mark_px,mid_px,impact_bid_px,impact_ask_px"
#: The server asks for no particular account, and nothing here may look for a real one.
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
BOOK = SHARED / "s3" / "hyperliquid-archive" / "market_data" / "20240101" / "12" / "l2Book" / "BTC.lz4"


def day_text(
    day: str, coins: dict[str, tuple[int, int]] | None = None, *, z: bool = True, null: str = "", seed: int = 0
) -> str:
    """A day of `asset_ctxs`: every coin from its first to before its last minute, minute by minute.

    About one record in fifty has no mid, premium and impact prices, as `null` spells it.
    """
    coins = coins or {"BTC": (0, 1440), "ETH": (0, 1440), "kPEPE": (0, 1440)}
    start = pd.Timestamp(day)
    generator = np.random.default_rng([seed, int(start.timestamp())])
    price = {coin: 10.0 ** (4 - place) for place, coin in enumerate(coins)}
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


@contextmanager
def s3_server() -> Iterator[str]:
    """A moto server on a free port; yields its address."""
    from moto.server import ThreadedMotoServer

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


def fill(endpoint: str, objects: dict[str, bytes]) -> None:
    """A fresh bucket with these objects."""
    s3 = client(endpoint)
    s3.create_bucket(Bucket=BUCKET)
    for key, content in objects.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=content)


def write(folder: Path, text: str) -> Path:
    path = folder / "day.csv"
    path.write_text(text)
    return path
