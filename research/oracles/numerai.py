"""Numerai Crypto's meta-model: long the coins with the highest predictions, short those with the lowest."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from engine import Panel
from engine.data.panel_loader import cache_path
from engine.errors import OracleError, join_first
from research.oracles.construction import Constructed, check_construction
from research.oracles.download import DownloadedOracle, fetch_file
from research.oracles.publication_schedule import NUMERAI, Rule, schedule_of
from research.oracles.published_scores import check_published
from research.oracles.score_file import Layout

STEM = "historical_meta_models"


@dataclass(frozen=True)
class NumeraiTBNOracle(Constructed, DownloadedOracle):
    """Top and bottom `tb` coins by the sum of the last `lags` published meta-model rows; equal weights.

    When a row was published is part of the oracle (:data:`research.oracles.publication_schedule.NUMERAI`): row `D`
    counts from ``D + 1`` 18:00 UTC; the Friday row from Monday 18:00, since 2026-04-06 from Sunday 18:00. Only coins
    that are tradable at the decision are ranked, under HyperLiquid's names (:mod:`research.oracles.symbols`). Ties go
    to the coin that comes first in column order, the longs choosing first; in a universe of fewer than ``2 tb`` coins
    the sides shrink, so that they never overlap.

    Parameters
    ----------
    tb : int
        Coins a side.
    lags : int
        Published rows that are summed; where fewer are published, all of them.
    file : str, optional
        CSV or parquet with the columns ``date``, ``symbol``, ``meta_model``. Without it the newest file of `folder` is
        used if it has every row published before the last decision, and is downloaded otherwise.
    publication : str, float or list
        See :func:`research.oracles.publication_schedule.schedule_of`.
    max_age_days : float
        Oldest row that a decision may rest on. With the default a weekend is bridged, two missing weekdays are not.
    missing_score : float
        Score of a coin in a row that lacks it, where another row of the window has it. 0.5 is neutral, and what Numerai
        itself uses for a missing prediction; with 0 every newly covered coin would rank low.
    folder : str, optional
        Where downloads lie; default ``numerai`` in the data cache (``HLBT_DATA_CACHE``).
    gross : float
        ``sum(abs(weight))`` of a row.
    hold_rank : int
        A coin that is held stays while it is among so many on its side; 0 = no such buffer, else at least `tb`.
    """

    tb: int = 3
    lags: int = 30
    file: str | None = None
    publication: Any = "numerai"
    max_age_days: float = 5.0
    missing_score: float = 0.5
    folder: str | None = None
    gross: float = 1.0
    hold_rank: int = field(default=0, kw_only=True)

    construction: ClassVar[str] = "top_bottom"  # type: ignore[misc]
    power: ClassVar[float] = 1.0  # type: ignore[misc]
    clip: ClassVar[float] = 1.0  # type: ignore[misc]
    score_parameters: ClassVar[tuple[str, ...]] = (
        "lags",
        "file",
        "publication",
        "max_age_days",
        "missing_score",
        "folder",
    )
    service_schedule: ClassVar[tuple[Rule, ...]] = NUMERAI
    exposure: ClassVar[str] = "meta-model exposure"
    stem: ClassVar[str] = STEM
    service: ClassVar[str] = "numerai"
    weekdays: ClassVar[Sequence[int]] = range(5)

    def __post_init__(self) -> None:
        check_construction("top_bottom", self.tb, 1.0, 1.0, self.gross, self.hold_rank, count_name="tb")
        check_published(self)
        schedule_of(self.publication)
        if isinstance(self.missing_score, bool) or not 0 <= self.missing_score <= 1:
            raise OracleError(f"missing_score = {self.missing_score!r} is not accepted: it must be from 0 to 1.")

    @property
    def n(self) -> int:  # type: ignore[override]
        """`tb`, as constructions call it."""
        return self.tb

    def layout(self) -> Layout:
        """See :meth:`PublishedOracle.layout`."""
        return Layout(
            "date", "symbol", "meta_model", schedule=schedule_of(self.publication), timezone="UTC", low=0.0, high=1.0
        )

    @staticmethod
    def download(folder: Path | None = None) -> Path:
        """Download the meta-model through numerapi into a new file, named by its newest row; no key is needed.

        Raises
        ------
        OracleError
            When Numerai does not answer or the file is not as expected; then no file is left behind.
        """
        goal = cache_path() / "numerai" if folder is None else Path(folder)
        return fetch_file(goal, STEM, "Numerai's meta-model", _fetch, NumeraiTBNOracle().layout())

    def combine(self, window: np.ndarray) -> np.ndarray:
        """Sum of the window, a missing value counting `missing_score`."""
        known = ~np.isnan(window)
        total = np.where(known, window, self.missing_score).sum(axis=0)
        return np.where(known.any(axis=0), total, np.nan)

    def get_risk_for_date(
        self, timestamp: pd.Timestamp, tradable_universe: Iterable[str]
    ) -> dict[str, dict[str, float]]:
        """``{"meta_model": {coin: value}}`` of the newest row published before `timestamp`, as the predecessor had it.

        The exposure of a book to it over time is :meth:`risk`.
        """
        return {"meta_model": self.latest(timestamp, tradable_universe)}

    def notes(self, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[str, ...]:
        """See :meth:`PublishedOracle.notes`; and rows dated on a weekend, which are not expected."""
        table = self.published(decisions[-1])
        days = table.dates.unique()
        weekend = days[days.day_of_week > 4]
        if not len(weekend):
            return super().notes(panel, decisions)
        examples = join_first([f"{day:%a %Y-%m-%d}" for day in weekend], 3)
        return (
            f"{table.where.name} has {len(weekend)} rows dated on a Saturday or Sunday ({examples}). Rows are expected "
            "from Monday to Friday only, so what `date` means may have changed: check the publication schedule.",
            *super().notes(panel, decisions),
        )


def _fetch(folder: Path) -> Path:
    """Numerai's newest file of meta-models, put into `folder`."""
    from numerapi import CryptoAPI

    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        # Its constructor sets up the caller's logging, and it logs what this function raises.
        api = CryptoAPI(verbosity="CRITICAL", show_progress_bars=sys.stderr.isatty())
        listed = _call(api.list_datasets)
        names = sorted(name for name in listed if Path(name).stem == STEM and name.endswith((".parquet", ".csv")))
        if not names:
            raise OracleError(
                f"Numerai lists no {STEM}.parquet or .csv, but: {join_first(sorted(listed), 10) or 'nothing'}."
            )
        # The newest version, and of that parquet before csv.
        name = max(names, key=lambda item: (str(Path(item).parent), item.endswith(".parquet")))
        target = folder / Path(name).name
        _call(lambda: api.download_dataset(name, str(target)))
        return target
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def _call(request: Callable[[], Any]) -> Any:
    """The result of a request through numerapi, which fails on its own empty result, having logged the reason."""
    try:
        return request()
    except (KeyError, TypeError) as error:
        raise ConnectionError("Numerai gave no answer, or none that numerapi understands") from error
