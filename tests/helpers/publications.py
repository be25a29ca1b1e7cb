"""Made-up files of published scores, of the shapes that Numerai, CrowdCent and users have, and a panel beside them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from engine import Panel
from engine.panel import Coin
from helpers.panels import random_panel

COINS = ("BTC", "ETH", "SOL", "kPEPE", "DOGE", "XRP", "AVAX")


SYMBOLS = ("BTC", "ETH", "SOL", "PEPE", "DOGE", "XRP", "AVAX", "NOTHL", "OTHER")


def panel_of(coins: tuple[str, ...] = COINS, days: int = 40, start: str = "2024-11-01", seed: int = 3) -> Panel:
    made = random_panel(seed, 24 * days, len(coins), quotes=False, oracle=False)
    index = made.index + (pd.Timestamp(start, tz="UTC") - made.index[0])
    frames = {name: made.frame(name).set_axis(list(coins), axis=1).set_axis(index, axis=0) for name in made.fields}
    return Panel.from_frames(table=[Coin(name) for name in coins], **frames)


def rows_of(
    first: str, last: str, symbols: tuple[str, ...] = SYMBOLS, seed: int = 1, weekend: bool = False
) -> pd.DataFrame:
    """Rows of the shape of Numerai's file, made up."""
    days = [day for day in pd.date_range(first, last) if weekend or day.day_of_week < 5]
    rng = np.random.default_rng(seed)
    rows = [(f"{day:%Y-%m-%d}", symbol, round(rng.random(), 3)) for day in days for symbol in symbols]
    return pd.DataFrame(rows, columns=["date", "symbol", "meta_model"])


def numerai_file(folder: Path, rows: pd.DataFrame, name: str = "mm.csv") -> str:
    rows.to_csv(folder / name, index=False)
    return str(folder / name)


def own_file(folder: Path, text: str) -> str:
    (folder / "own.csv").write_text(text)
    return str(folder / "own.csv")


def out_at(day: date) -> datetime:
    """D + 1 at 18:00 UTC; Friday's row on Monday 18:00, since 2026-04-06 on Sunday 18:00."""
    later = 1
    if day.weekday() == 4:
        later = 3 if day < date(2026, 4, 6) else 2
    return datetime(day.year, day.month, day.day, 18, tzinfo=UTC) + timedelta(days=later)
