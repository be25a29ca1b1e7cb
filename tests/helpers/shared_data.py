"""The shared data: real files, tested on where they are; where they are not, a test is skipped and says so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("HLBT_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
#: The one genuine book of HyperLiquid's archive: BTC, 2024-01-01 12:00 to 13:00 UTC.
BOOK = SHARED / "s3" / "hyperliquid-archive" / "market_data" / "20240101" / "12" / "l2Book" / "BTC.lz4"
#: Folders of recorded answers.
GO = ("go-hyperliquid", "testdata")
SDK = ("hyperliquid-python-sdk", "tests", "cassettes", "info_test")


def shared(*path: str | Path) -> Path:
    """A file or folder of the shared data."""
    found = SHARED.joinpath(*path)
    if not found.exists():
        pytest.skip(f"the shared data are not at {SHARED} (HLBT_SHARED_DATA moves them)")
    return found


def recorded(*path: str) -> Any:
    """A recorded answer's JSON: of a file, or a cassette's list of (request, answer)."""
    import yaml

    text = shared("api", *path).read_text(encoding="utf-8")
    if path[-1].endswith(".json"):
        return json.loads(text)
    pairs = []
    for exchange in yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["interactions"]:
        body = exchange["response"]["body"]
        answer = body["string"] if isinstance(body, dict) else body
        pairs.append((json.loads(exchange["request"]["body"]), json.loads(answer)))
    return pairs
