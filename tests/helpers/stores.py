"""The content of a cache, and tables to merge into one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from engine.data.cache import Store
from engine.data.merge import rank
from engine.panel import FIELDS

START = "2024-01-31T20:00Z"


def table(coins: dict[str, Any], start: str = START, **fields: Any) -> pa.Table:
    """Rows of some coins from `start` on: ``table({"BTC": [1.0, 2.0]}, funding={"BTC": [...]})``."""
    frames = []
    for coin, mid in coins.items():
        time = pd.date_range(start, periods=len(mid), freq="h", unit="ms")
        columns = {name: np.asarray(values[coin], dtype=float) for name, values in fields.items()}
        frames.append(pd.DataFrame({"time": time, "coin": coin, "mid": np.asarray(mid, dtype=float), **columns}))
    return pa.Table.from_pandas(pd.concat(frames), preserve_index=False).replace_schema_metadata(None)


def content(folder: Path) -> dict[str, str]:
    """Digest of every file of a cache."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cells(store: Store) -> dict[tuple[str, str, int], float]:
    """Every observed cell of a cache, read file by file, the most trusted last: (coin, field, hour number) to value."""
    observed = {}
    for name in FIELDS:
        entries = [entry for entry in store.require().files.values() if name in entry.fields]
        for entry in sorted(entries, key=lambda entry: rank(name, entry.source)):
            rows = store.read(entry, [name])
            for code, hour, value in zip(rows.codes, rows.hours, rows.fields[name], strict=True):
                if value == value:
                    observed[rows.coins[code], name, int(hour)] = float(value)
    return observed
