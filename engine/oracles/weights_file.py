"""A weights file as the source of a run: its rows at the decision hour, and the days that it covers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from engine.clock import HOUR, iso_minute, show
from engine.config import RunConfig
from engine.data.coin_names import dexes_of
from engine.errors import WeightsError
from engine.provenance import Origin, files_digest
from engine.risk.characteristics import RiskParameters
from engine.weights import read_weights, validate_frame

_DAY: Final = pd.Timedelta(days=1)


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A weights file, read for a run.

    Attributes
    ----------
    frame : DataFrame, (D, coins)
        Its rows, by ascending decision instant.
    config : RunConfig
        That of the run; without dates it has those of the file.
    origin : Origin
        Name and digest of the file.
    notes : tuple of str
        What the reader of the run must know.
    """

    frame: pd.DataFrame
    config: RunConfig
    origin: Origin
    notes: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, config: RunConfig, any_hour: bool = False) -> WeightsFile:
        """Read a file for a run of `config`.

        Parameters
        ----------
        path : Path
            ``.csv`` or ``.parquet``, as :func:`engine.weights.read_weights` reads it.
        config : RunConfig
            Where it has neither ``data.start`` nor ``data.end``, the run covers the file's own days: from the first
            row until the last has been held for as long as rows are apart (their median; of one row, a day).
        any_hour : bool
            Trade rows off ``execution.hour_utc`` at the instants that they are stamped with.

        Raises
        ------
        WeightsError
            For what no backtest takes, and for rows off ``execution.hour_utc``.
        """
        try:
            frame = validate_frame(read_weights(path))
        except WeightsError as error:
            raise WeightsError(str(error) if str(path) in str(error) else f"Weights file {path}: {error}") from error
        decisions = pd.DatetimeIndex(frame.index)
        off = off_hour(decisions, config)
        notes: tuple[str, ...] = ()
        # Other names with a colon, as ccxt's, are no coins of a dex: the panel lacks them, and that is said.
        dexes = [dex for dex in dexes_of(frame.columns) if f"x{dex}".isalnum() and dex == dex.lower()]
        if config.data.coins is None and not set(dexes) <= {*config.data.dexes}:
            config = replace(config, data=replace(config.data, dexes=(*config.data.dexes, *dexes)))
            notes = (f"{path.name} names coins of other dexes: data.dexes = {list(config.data.dexes)}.",)
        if len(off) and not any_hour:
            raise _off_hour_error(path, off, decisions, config)
        if len(off):
            notes = (
                *notes,
                f"{len(off)} of {len(decisions)} rows of {path.name} are off execution.hour_utc = "
                f"{config.execution.hour_utc}, the first at {show(off[0])}: each is traded at the instant that it is "
                "stamped with (--any-hour).",
            )
        if config.data.start is None and config.data.end is None:
            config, span = _with_own_days(decisions, config)
            notes = (*notes, span)
        return cls(frame, config, Origin(path.stem, "weights", path.name, {}, files_digest([path])), notes)


def off_hour(decisions: pd.DatetimeIndex, config: RunConfig) -> pd.DatetimeIndex:
    """The decisions that are not at ``execution.hour_utc``, on the hour."""
    return decisions[(decisions.hour != config.execution.hour_utc) | (decisions != decisions.floor(HOUR))]


def _off_hour_error(path: Path, off: pd.DatetimeIndex, decisions: pd.DatetimeIndex, config: RunConfig) -> WeightsError:
    hours = np.unique(off.hour)
    uniform = len(off) == len(decisions) and len(hours) == 1 and bool((off == off.floor(HOUR)).all())
    as_stamped = f"--set execution.hour_utc={hours[0]}" if uniform else "--any-hour"
    hour = config.execution.hour_utc
    known = off[0].floor(_DAY) + _DAY + hour * HOUR  # the first decision after that day
    return WeightsError(
        f"Weights file {path}: {len(off)} of {len(decisions)} rows are off execution.hour_utc = {hour}, the first at "
        f"{show(off[0])}. If a stamp names the day whose data the row holds, the row was known only after them: write "
        f"the instant from which it was, for example {iso_minute(known)}. If it is the instant of the trade, say so: "
        f"{as_stamped}."
    )


def _with_own_days(decisions: pd.DatetimeIndex, config: RunConfig) -> tuple[RunConfig, str]:
    """The config with the dates of the file, and a note on them."""
    execution = config.execution
    step = _DAY if len(decisions) == 1 else pd.Timedelta(np.median(np.diff(decisions.as_unit("ns").asi8)), unit="ns")
    # A volatility target looks back from the first row.
    days = RiskParameters().warm_up_days if execution.volatility_model == "risk" else execution.volatility_days
    before = days * _DAY if execution.target_volatility > 0.0 else pd.Timedelta(0)
    start = (decisions[0] - before).floor(HOUR)
    end = (decisions[-1] + execution.delay_hours * HOUR + step).ceil(HOUR)
    data = replace(config.data, start=iso_minute(start), end=iso_minute(end))
    note = (
        f"Without data.start and data.end the run covers the days of the weights file: {show(decisions[0])} to "
        f"{show(end)}."
    )
    return replace(config, data=data), note
