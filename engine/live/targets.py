"""Target weights of a live run: from the oracle of a spec, from a weights file, or none at all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from engine.clock import HOUR, decision_instants, hourly_index, show
from engine.coin import dex_of
from engine.config import Execution, RunConfig
from engine.errors import DataError, LiveError, SpecError, WeightsError
from engine.live.demotion import Demotion
from engine.live.dex import DEX
from engine.live.journal import Journal
from engine.live.orders import AccountState, Market
from engine.live.risk_limits import Limits, refuse
from engine.live.schedule import scheduled, trade_instant
from engine.live.spec import StrategySpec, load_live_oracle, read_spec, spec_limits
from engine.oracles.base import Oracle, call_fetch_weights, oracle_errors, weight_matrix, with_universe
from engine.oracles.fixed_weights import FixedWeights
from engine.oracles.weights_file import off_hour
from engine.panel import Panel
from engine.simulation.backtest import check_schedule, decisions_of
from engine.simulation.overlays import describe_overlays, traded_weights
from engine.weights import check_any_value, check_gross, read_weights, validate_row, validate_weights

#: An alarm: from the entries of a journal, the instant of the run and the equity in USD (None where it is not certain)
#: to the demotion of the strategy, or None.
Watch = Callable[[Sequence[Mapping[str, Any]], pd.Timestamp, float | None], Demotion | None]


@dataclass(frozen=True)
class Account:
    """The account that targets are for, as it is when they are asked for.

    Attributes
    ----------
    dex : DEX
    state : AccountState
    markets : mapping of coin to Market
        What can be traded now.
    journal : Journal
        Of the strategy on the account.
    time : Timestamp
        Now.
    watches : mapping of str to callable
        Alarms of the specs of a book, as :attr:`engine.live.session.Session.watch` is one.
    """

    dex: DEX
    state: AccountState
    markets: Mapping[str, Market]
    journal: Journal
    time: pd.Timestamp
    watches: Mapping[str, Watch] = field(default_factory=dict)


class TargetProvider:
    """The target weights of an oracle, after the config's overlays.

    Parameters
    ----------
    oracle : Oracle
        Called once for each decision; of ``FixedWeights`` the rows are known beforehand.
    config : RunConfig
        Schedule, overlays and ``account.max_gross``.
    decisions_from : Timestamp, optional
        First decision of the run that was promoted, at which a path-dependent oracle starts. Default: the panel's
        first.

    Attributes
    ----------
    needs_panel : bool
        Whether market data are needed for the weights.
    closes_all : bool
        Whether every position is to be closed.
    named : tuple of str
        Coins that the config and given weights name, and patterns of them.
    parts : mapping
        What the journal's plan is to say of them beside the weights; empty but for a book of several specs.
    """

    def __init__(self, oracle: Oracle, config: RunConfig, decisions_from: pd.Timestamp | None = None) -> None:
        self.oracle, self.config, self.decisions_from = oracle, config, decisions_from
        self.parts: Mapping[str, Any] = {}
        self._fixed = oracle if isinstance(oracle, FixedWeights) else None
        self._path_dependent = oracle.path_dependent
        self.needs_panel = self._fixed is None or config.execution.target_volatility > 0.0
        given = () if self._fixed is None else map(str, self._fixed.frame.columns)
        self.named = (*config.data.selection, *given)
        self.closes_all = self._fixed is not None and self._fixed.frame.columns.empty

    def on(self, account: Account) -> TargetProvider:
        """The provider for an account; of one strategy it is the same for all, for its weights are fractions."""
        return self

    @property
    def execution(self) -> Execution:
        """Rules of sizing of the config; a way out is gone to its end."""
        execution = self.config.execution
        return replace(execution, trade_rate=1.0) if self.closes_all else execution

    def is_scheduled(self, instant: pd.Timestamp) -> bool:
        """Whether trading at `instant` is what was validated; given weights have no schedule of their own."""
        return self._fixed is not None or scheduled(instant, self.config)

    def weights(
        self, instant: pd.Timestamp, decision: pd.Timestamp, tradable: Iterable[str], panel: Panel | None
    ) -> dict[str, float]:
        """Weights to trade at `instant`.

        Parameters
        ----------
        instant, decision : Timestamp
            Of the trade, and of the weights; the trade is not earlier.
        tradable : iterable of str
            Coins that can be traded now.
        panel : Panel or None
            With a row at `decision`; later rows are not seen.

        Returns
        -------
        dict of coin to float
            Signed fractions of equity; NaN = hold, absent = 0.

        Raises
        ------
        DataError
            When the panel has no row at `decision`.
        LiveError
            Without a panel, for overlays or an oracle that need market data; for a path-dependent oracle on a panel
            that begins after its start.
        OracleError
            For whatever the oracle raises.
        WeightsError
            For weights that break the contract or the gross limit.
        """
        if panel is None:
            return self._without_panel(decision, tradable)
        known = panel.until(decision)
        if known.index[-1] != decision:
            raise DataError(
                f"The panel has no row at {show(decision)}; its last one before is {show(known.index[-1])}."
            )
        universe = tradable if decision == instant else np.array(known.coins)[known.tradable[-1]].tolist()
        if self.config.execution.tranches > 1 or self._path_dependent:
            decisions = self._schedule(known)
            seen = with_universe(known, universe)
            decisions, values = validate_weights(weight_matrix(self.oracle, seen, decisions), known)
        else:
            row = self._fetch(decision, universe, known.point_in_time())
            decisions, values = known.index[-1:], validate_row(row, known)
        traded = traded_weights(values, decisions, known, self.config)[-1:]
        check_gross(traded, decisions[-1:], self.config.account.max_gross, describe_overlays(self.config))
        return dict(zip(panel.coins, map(float, traded[0]), strict=True))

    def check_history(self, panel: Panel, decision: pd.Timestamp) -> None:
        """Refuse data that end before an earlier decision of a path-dependent oracle: it would not know what it held.

        Parameters
        ----------
        panel : Panel
            From the cache, without a row of live quotes.
        decision : Timestamp
            Of the weights that are wanted.

        Raises
        ------
        LiveError
            Naming the decision that is missing.
        """
        if not self._path_dependent:
            return
        execution, hours = self.config.execution, hourly_index(panel.index[-1] + HOUR, decision)
        decided = decision_instants(hours, execution.hour_utc, execution.every_days, execution.weekdays)
        missing = self._from_start(decided)
        missing = missing[missing < decision]
        if len(missing):
            raise LiveError(
                f"{type(self.oracle).__name__} follows from its decisions before, and the data end at "
                f"{show(panel.index[-1])}, before that of {show(missing[0])}. Bring the cache up to date: `hlbt data "
                "sync`."
            )

    def _schedule(self, known: Panel) -> pd.DatetimeIndex:
        """Every decision up to the last row of a panel, which is one; of a path-dependent oracle from its start."""
        earlier = self._fixed.decisions if self._fixed is not None else decisions_of(known, self.config)
        decision, start = known.index[-1], self.decisions_from
        if self._path_dependent and start is not None and known.index[0] > start:
            raise LiveError(
                f"{type(self.oracle).__name__} follows from its decisions since {show(start)}, the first of the run "
                f"that was promoted, but the data begin at {show(known.index[0])}. Sync the days before, or promote a "
                "run of the data that there are."
            )
        return self._from_start(earlier[earlier < decision].union(known.index[-1:]))

    def _from_start(self, decisions: pd.DatetimeIndex) -> pd.DatetimeIndex:
        start = self.decisions_from if self._path_dependent else None
        return decisions if start is None else decisions[decisions >= start]

    def _without_panel(self, decision: pd.Timestamp, tradable: Iterable[str]) -> dict[str, float]:
        if self._path_dependent:
            raise LiveError(
                f"{type(self.oracle).__name__} follows from its decisions before: that needs market data. Sync a cache."
            )
        weights = self._fetch(decision, tradable, None)
        if overlays := describe_overlays(self.config):
            execution, rows = self.config.execution, pd.DataFrame([weights], index=[decision], dtype=np.float64)
            if self._fixed is not None:
                rows = self._fixed.frame[:decision]
            if execution.target_volatility > 0.0 or (self._fixed is None and execution.tranches > 1):
                raise LiveError(f"The weights are changed{overlays}: that needs market data. Sync a cache.")
            instants, values = pd.DatetimeIndex(rows.index), rows.to_numpy(np.float64)
            # No panel is looked at without a volatility target.
            traded = traded_weights(values, instants, cast(Panel, None), self.config)
            weights = dict(zip(map(str, rows.columns), map(float, traded[-1]), strict=True))
        self.oracle.validate_weights(weights, self.config.account.max_gross)
        return weights

    def _fetch(self, decision: pd.Timestamp, tradable: Iterable[str], panel: Panel | None) -> dict[str, float]:
        """The oracle's weights for one decision; whatever it raises is an OracleError."""
        with oracle_errors(f"{type(self.oracle).__name__} failed at {show(decision)}"):
            return call_fetch_weights(self.oracle, decision, list(tradable), panel)


@dataclass(frozen=True)
class Strategy:
    """What is traded.

    Attributes
    ----------
    name : str
        Part of the journal's name.
    key : str
        Digest that client order ids are made of.
    targets : TargetProvider
    limits : Limits
    notes : tuple of str
        For people.
    promoted_usd : float or None
        Account size at which it passed its gates; None where it passed none.
    spec : StrategySpec or None
        That it was promoted as; None for given weights.
    """

    name: str
    key: str
    targets: TargetProvider
    limits: Limits
    notes: tuple[str, ...] = ()
    promoted_usd: float | None = None
    spec: StrategySpec | None = None

    @property
    def config(self) -> RunConfig:
        """Sizing, schedule and overlays."""
        return self.targets.config

    @property
    def leverages(self) -> tuple[int, float]:
        """Leverage with cross margin, twice the gross, rounded up; that with isolated margin, 0 the coin's highest."""
        return math.ceil(2.0 * self.config.account.max_gross), self.config.execution.isolated_leverage

    @property
    def dexes(self) -> frozenset[str]:
        """Perp dexes of the coins that the config and given weights mean."""
        return frozenset(map(dex_of, self.targets.named))


def from_spec(path: Path, cache: str | None) -> Strategy:
    """The strategy of a promoted spec, checked as :func:`strategy_of` does; `cache` replaces the folder of its data."""
    spec = read_spec(path)
    size, limits, notes = spec_limits(path, spec)
    return strategy_of(spec, cache, limits, notes, size)


def strategy_of(
    spec: StrategySpec, cache: str | None, limits: Limits, notes: Iterable[str] = (), promoted_usd: float | None = None
) -> Strategy:
    """The strategy of a spec, whose oracle is checked; the rest as in :class:`Strategy`.

    Raises
    ------
    SpecError
        When its code is not what was validated, or the start of a path-dependent oracle is not recorded.
    """
    oracle, of_code = load_live_oracle(spec)
    data = replace(spec.config.data, cache=cache or spec.config.data.cache, end=None)
    if oracle.path_dependent and spec.decisions_from is None:
        raise SpecError(
            f"Spec {spec.name!r}: {spec.oracle} follows from its decisions before, and the spec does not say from "
            f"which on: it is older than that record. Promote its run again: hlbt promote RUN --name {spec.name} "
            "--replace."
        )
    start = None if spec.decisions_from is None else pd.Timestamp(spec.decisions_from)
    targets = TargetProvider(oracle, replace(spec.config, data=data), start)
    return Strategy(spec.name, spec.digest, targets, limits, (*of_code, *notes), promoted_usd, spec)


def from_weights(path: Path, config: RunConfig, limits: Limits, now: pd.Timestamp) -> Strategy:
    """The newest row of a weights file that is not later than the decision of `now`.

    The whole file must be one that a backtest takes.

    Raises
    ------
    LimitError
        When the row is older than ``limits.weights_age_hours``.
    WeightsError
        When there is none, or for what a backtest refuses.
    """
    try:
        oracle = FixedWeights(read_weights(path))
        check_any_value(oracle.frame)
        check_schedule(oracle.decisions, config)
        if config.execution.target_volatility == 0.0:  # else it takes market data, and the row that is traded counts
            traded = traded_weights(oracle.frame.to_numpy(), oracle.decisions, cast(Panel, None), config)
            check_gross(traded, oracle.decisions, config.account.max_gross, describe_overlays(config))
    except WeightsError as error:
        raise WeightsError(str(error) if str(path) in str(error) else f"Weights file {path}: {error}") from error
    decision = trade_instant(now, config) - config.execution.delay_hours * HOUR
    rows = oracle.decisions[oracle.decisions <= decision]
    if not len(rows):
        raise WeightsError(f"Weights file {path} has no row at or before {show(decision)}.")
    values = oracle.fetch_portfolio_weights(decision, ())
    # A new limit is a new plan; and an order id is the account's, so two files of the same weights need two.
    text = f"{path.stem}|{rows[-1].isoformat()}{sorted(values.items())}{config.digest}{limits}"
    key = hashlib.sha256(text.encode()).hexdigest()
    age, most = (now - rows[-1]) / HOUR, limits.weights_age_hours
    if most is not None and age > most:
        text = f"its newest row, of {show(rows[-1])}, is {age:,.1f} hours old; the limit is {most:g}"
        refuse([f"weights_age_hours: {text}"], f"Weights file {path}")
    notes = [f"the row of {show(rows[-1])} is traded, {max(0.0, age):,.1f} hours old"]
    if len(off_hour(rows[-1:], config)):
        notes.append(f"that is off execution.hour_utc = {config.execution.hour_utc}; a backtest asks for --any-hour")
    if later := len(oracle.decisions) - len(rows):
        notes.append(f"{later} later {'row is' if later == 1 else 'rows are'} not")
    return Strategy(path.stem, key, TargetProvider(oracle, config), limits, tuple(notes))


def flat_key(name: str) -> str:
    """Key of the plans that close every position of a strategy."""
    return hashlib.sha256(f"flatten|{name}".encode()).hexdigest()


def flat(name: str, config: RunConfig | None = None) -> Strategy:
    """Every position closed, without limits; needs no spec, so that one that is refused can be left."""
    targets = TargetProvider(FixedWeights.of({}), config or RunConfig())
    return Strategy(name, flat_key(name), targets, Limits.none(), ("every position is to be closed",))
