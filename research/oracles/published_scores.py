"""Base class of oracles over a file of published scores: which row a decision sees, staleness, risk, notes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from engine import Panel, ScoreOracle
from engine.clock import show
from engine.errors import OracleError, join_first
from engine.oracles.base import utc_instant
from research.oracles.cross_section import mean_of_known
from research.oracles.parameters import check_count, check_positive
from research.oracles.publication_schedule import Rule, published_at
from research.oracles.score_file import Layout, Published, read_published
from research.oracles.symbols import SymbolMap

_LISTED = 30


class PublishedOracle(ScoreOracle):
    """Ranks coins by scores that somebody published.

    A decision at ``t`` sees the rows published strictly before ``t``, and of those the last `lags` dates. When the
    newest of them is dated more than `max_age_days` before ``t``, or there is none, the oracle has no score: a backtest
    is flat there, with a note, and a live book gets an error. A subclass is a frozen dataclass with the fields below.

    Attributes
    ----------
    lags : int
        Dates that the score is made of.
    max_age_days : float
        Oldest date, in days before the decision, that a decision may rest on.
    """

    lags: int
    max_age_days: float
    #: The service's real schedule, with which the oracle's own is compared; empty = only the user knows it.
    service_schedule: ClassVar[tuple[Rule, ...]] = ()
    #: Name of the column of :meth:`risk`.
    exposure: ClassVar[str] = "score exposure"

    @abstractmethod
    def file_for(self, until: pd.Timestamp) -> Path:
        """The file with every row published before `until`; that of a service is downloaded here, not earlier."""

    @abstractmethod
    def layout(self) -> Layout:
        """How to read the file."""

    def combine(self, window: np.ndarray) -> np.ndarray:
        """One score a coin, (N,), from its published values, (L, N), oldest first; NaN where there is none.

        Here the mean of the values that are known.
        """
        return mean_of_known(window, least=0.0)

    def published(self, until: pd.Timestamp) -> Published:
        """The scores, read."""
        table = read_published(self.file_for(until), self.layout())
        cut = vars(self).get("_cut")
        return table if cut is None else table.as_of(cut, self.service_schedule)

    def as_of(self, instant: pd.Timestamp) -> PublishedOracle:
        """See :meth:`engine.Oracle.as_of`: rows published after `instant` are left out.

        The later of the oracle's own schedule and the service's counts, so that the audit finds an oracle that is
        configured to use rows before they are published.
        """
        cut = copy(self)
        object.__setattr__(cut, "_cut", instant)
        return cut

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`engine.ScoreOracle.scores`; NaN for untradable coins and where nothing recent is published."""
        scores = np.full((len(decisions), len(panel.coins)), np.nan)
        table = self.published(decisions[-1])
        names = _symbol_map(table.symbols, panel.coins)
        for number, (instant, row) in enumerate(zip(decisions, panel.rows(decisions), strict=True)):
            scores[number] = self._score(table, names, instant, panel.tradable[row])
        return scores

    def _score(self, table: Published, names: SymbolMap, instant: pd.Timestamp, tradable: np.ndarray) -> np.ndarray:
        dates, values = table.window(instant, self.lags)
        if self._stale(dates, instant):
            return np.full(len(tradable), np.nan)
        return np.where(tradable, self.combine(names.to_coins(values, instant, tradable)), np.nan)

    def _stale(self, dates: pd.DatetimeIndex, instant: pd.Timestamp) -> bool:
        return len(dates) == 0 or (instant - dates[-1]) > pd.Timedelta(days=self.max_age_days)

    def require_fresh(self, timestamp: pd.Timestamp) -> None:
        """Raise an OracleError when no row published before `timestamp` is recent enough for a live book."""
        table = self.published(timestamp)
        dates, _ = table.window(timestamp, 1)
        if self._stale(dates, timestamp):
            newest = (
                f"the newest row published before it is dated {show(dates[-1])}, "
                f"{(timestamp - dates[-1]) / pd.Timedelta(days=1):.1f} days earlier"
                if len(dates)
                else "no row was published before it"
            )
            raise OracleError(
                f"{type(self).__name__} has no row recent enough at {show(timestamp)}: {newest} ({table.where.name}), "
                f"and max_age_days = {self.max_age_days:g}. Fetch a newer file. A backtest is flat at such instants; a "
                "live book is left as it is."
            )

    def fetch_portfolio_weights(
        self,
        timestamp: pd.Timestamp,
        tradable_universe: Iterable[str],
        panel: Panel | int | None = None,
        lags: int | None = None,
    ) -> dict[str, float]:
        """See :meth:`engine.Oracle.fetch_portfolio_weights`; these oracles need no panel.

        Parameters
        ----------
        timestamp : Timestamp
            Decision instant, UTC.
        tradable_universe : iterable of str
            HyperLiquid's names. Without a panel they are the columns too, in alphabetical order, which decides ties.
        panel : Panel, optional
            Its coins are the columns. An int is taken for `lags`, the predecessor's third argument.
        lags : int, optional
            Instead of the oracle's own.

        Raises
        ------
        OracleError
            When no published row is recent enough; without a panel, where weights follow from earlier decisions.
        """
        if isinstance(panel, int):
            panel, lags = None, panel
        if lags is not None:
            return replace(self, lags=lags).fetch_portfolio_weights(timestamp, tradable_universe, panel)  # type: ignore[type-var]
        if panel is not None:
            return super().fetch_portfolio_weights(timestamp, tradable_universe, panel)
        if self.path_dependent:
            raise OracleError(
                f"{type(self).__name__} follows from its decisions before (hold_rank): pass panel= to "
                "fetch_portfolio_weights."
            )
        instant = utc_instant(timestamp)
        self.require_fresh(instant)
        coins = tuple(sorted(set(tradable_universe)))
        table = self.published(instant)
        scores = self._score(table, _symbol_map(table.symbols, coins), instant, np.ones(len(coins), dtype=np.bool_))
        weights = self.construct(scores[None])[0]
        return {coin: float(weight) for coin, weight in zip(coins, weights, strict=True)}

    def latest(self, timestamp: pd.Timestamp, tradable_universe: Iterable[str]) -> dict[str, float]:
        """The newest value of each coin of a universe published before `timestamp`; coins without one are left out."""
        instant = utc_instant(timestamp)
        coins = tuple(sorted(set(tradable_universe)))
        table = self.published(instant)
        _, values = table.window(instant, 1)
        if not len(values):
            return {}
        row = _symbol_map(table.symbols, coins).to_coins(values, instant, np.ones(len(coins), dtype=np.bool_))[0]
        return {coin: float(value) for coin, value in zip(coins, row, strict=True) if not np.isnan(value)}

    def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
        """Exposure of a book to the newest published scores, (D, 1).

        ``sum(weight * (value - mean))`` over the coins with a value, `mean` being that of the whole published row, so a
        long book is not exposed by the level of the scores alone. NaN where no row is recent enough.
        """
        decisions = pd.DatetimeIndex(weights.index)
        table = self.published(decisions[-1])
        names = _symbol_map(table.symbols, panel.coins)
        held = weights.reindex(columns=list(panel.coins)).to_numpy(dtype=np.float64)
        exposure = np.full((len(decisions), 1), np.nan)
        for number, (instant, row) in enumerate(zip(decisions, panel.rows(decisions), strict=True)):
            dates, values = table.window(instant, 1)
            if not self._stale(dates, instant):
                centred = names.to_coins(values - np.nanmean(values), instant, panel.tradable[row])[0]
                exposure[number, 0] = np.where(np.isnan(centred), 0.0, held[number] * centred).sum()
        return pd.DataFrame(exposure, index=weights.index, columns=[self.exposure])

    def notes(self, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[str, ...]:
        """See :meth:`engine.Oracle.notes`.

        Rows used before they were published, duplicates, symbols without a coin, and decisions that were flat because
        no row was recent enough.
        """
        table = self.published(decisions[-1])
        names = _symbol_map(table.symbols, panel.coins)
        notes = [*table.notes]
        early = published_at(table.dates, self.service_schedule) > table.available if self.service_schedule else ()
        if np.any(early):
            notes.insert(
                0,
                f"LOOK-AHEAD: the publication schedule of this run has {np.sum(early)} of {len(table.dates)} rows "
                "known before they are published. Nobody could have earned what it earned.",
            )
        if names.shared:
            shared = [f"{coin} ({', '.join(symbols)})" for coin, symbols in names.shared]
            notes.append(
                f"Several symbols in {table.where.name} mean one coin; on each date the first of them with a value "
                f"counts: {join_first(shared, _LISTED)}."
            )
        unknown = names.unknown
        if unknown:
            notes.append(
                f"{len(unknown)} of the {len(table.symbols)} symbols in {table.where.name} name no coin of these data "
                f"and are left out: {join_first(unknown, _LISTED)}."
            )
        stale = [instant for instant in decisions if self._stale(table.window(instant, 1)[0], instant)]
        if stale:
            notes.append(
                f"Flat at {len(stale)} of {len(decisions)} decisions, the first {show(stale[0])}, the last "
                f"{show(stale[-1])}: {table.where.name} has no row published before them and at most "
                f"{self.max_age_days:g} days old (max_age_days). A live book would get an error there."
            )
        return tuple(notes)


def check_published(oracle: PublishedOracle) -> None:
    """Raise an OracleError for a value that is not accepted of a field that every such oracle has."""
    check_count("lags", oracle.lags, unit="dates")
    check_positive("max_age_days", oracle.max_age_days)


@lru_cache(maxsize=8)
def _symbol_map(symbols: tuple[str, ...], coins: tuple[str, ...]) -> SymbolMap:
    return SymbolMap(symbols, coins)
