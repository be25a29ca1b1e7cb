"""Scores from a CSV or parquet file of the user's, which says when each was known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from engine.errors import OracleError
from research.oracles.construction import Constructed, check_construction
from research.oracles.parameters import is_number
from research.oracles.publication_schedule import schedule_of
from research.oracles.published_scores import PublishedOracle, check_published
from research.oracles.score_file import Layout


@dataclass(frozen=True)
class FileOracle(Constructed, PublishedOracle):
    """Ranks coins by the newest score that was known, or by the mean of the last `lags`.

    A decision sees the scores known strictly before it. A score may be given again with a later `available_at`: each
    decision sees what was known then.

    Parameters
    ----------
    file : str
        ``.csv`` or ``.parquet``, a row a date and coin; coins under HyperLiquid's names, or tickers of
        :mod:`research.oracles.symbols`.
    date, coin, score : str
        Names of the columns.
    available_at : str
        Column with the instant from which the row was known. Not used when `delay_hours` is given.
    delay_hours : float, optional
        Hours after the date at which every row was known, where the file has no such column.
    timezone : str
        Zone of times without one, for example ``America/New_York``. Without it such times of day are refused, and
        bare dates are their 00:00 UTC.
    lags : int
        Dates that are averaged, where a coin has them.
    max_age_days : float
        Oldest date that a decision may rest on.
    low, high : float, optional
        Range that scores must keep to.
    construction, n, power, clip, gross, hold_rank
        See :class:`research.oracles.cross_section.CrossSection`.
    """

    file: str
    date: str = "date"
    coin: str = "coin"
    score: str = "score"
    available_at: str = "available_at"
    delay_hours: float | None = None
    timezone: str = ""
    lags: int = 1
    max_age_days: float = 5.0
    low: float | None = None
    high: float | None = None
    construction: str = "top_bottom"
    n: int = 5
    power: float = 1.0
    clip: float = 3.0
    gross: float = 1.0
    hold_rank: int = field(default=0, kw_only=True)

    score_parameters: ClassVar[tuple[str, ...]] = (
        "file",
        "date",
        "coin",
        "score",
        "available_at",
        "delay_hours",
        "timezone",
        "lags",
        "max_age_days",
        "low",
        "high",
    )

    def __post_init__(self) -> None:
        check_published(self)
        check_construction(self.construction, self.n, self.power, self.clip, self.gross, self.hold_rank)
        if self.delay_hours is not None and not is_number(self.delay_hours, least=0.0):
            raise OracleError(f"delay_hours = {self.delay_hours!r} is not accepted: it must be a number, at least 0.")
        for name in ("low", "high"):
            if getattr(self, name) is not None and not is_number(getattr(self, name)):
                raise OracleError(f"{name} = {getattr(self, name)!r} is not accepted: it must be a number.")
        for name in ("file", "date", "coin", "score", "available_at", "timezone"):
            if not isinstance(getattr(self, name), str):
                raise OracleError(f"{name} = {getattr(self, name)!r} is not accepted: it must be text.")
        self.layout()

    def layout(self) -> Layout:
        """See :meth:`PublishedOracle.layout`."""
        delay = self.delay_hours
        if delay is None and not self.available_at:
            raise OracleError(
                "Say when a row was known: available_at=COLUMN, or delay_hours=HOURS after its date (0 = at it)."
            )
        return Layout(
            self.date,
            self.coin,
            self.score,
            available_at=self.available_at if delay is None else "",
            schedule=() if delay is None else schedule_of(float(delay)),
            timezone=self.timezone,
            low=-np.inf if self.low is None else float(self.low),
            high=np.inf if self.high is None else float(self.high),
        )

    def file_for(self, until: pd.Timestamp) -> Path:
        """See :meth:`PublishedOracle.file_for`."""
        return Path(self.file)

    def files(self) -> tuple[Path, ...]:
        """See :meth:`engine.Oracle.files`."""
        return (Path(self.file),)
