"""The archive's records to hourly rows, slow and obvious."""

from __future__ import annotations

import io

import pandas as pd

from engine.data.asset_ctxs import COLUMNS


def naive(text: str, day: str = "2025-01-01") -> pd.DataFrame:
    """The same, slowly: whatever the last line of a coin in an hour says."""
    frame = pd.read_csv(io.StringIO(text), na_values=["null", ""], keep_default_na=False)
    frame["time"] = pd.to_datetime(frame["time"], utc=True, format="ISO8601").dt.as_unit("ms")
    frame = frame[frame["time"].dt.strftime("%Y-%m-%d") == day]
    frame = frame.sort_values("time", kind="stable")
    frame["row"] = frame["time"].dt.floor("h") + pd.Timedelta(hours=1)
    old = frame["row"] - frame["time"] > pd.Timedelta(minutes=5)
    frame.loc[old, ["impact_bid_px", "impact_ask_px"]] = float("nan")
    last = frame.groupby(["coin", "row"]).tail(1).rename(columns=dict(COLUMNS))
    last = last[["row", "coin", *COLUMNS.values()]].rename(columns={"row": "time"})
    return last.sort_values(["coin", "time"]).reset_index(drop=True).astype({"coin": str})
