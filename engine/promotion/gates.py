"""The gates of a promotion: what a run must reach before it may trade, by the thresholds of ``research/gates.toml``.

A gate that cannot be computed has not passed. All is computed anew, from the panel and from the daily returns of the
sweep: no figure is taken from ``run.json`` or ``verdict.json`` but the Sharpe ratio that must come out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.checks import Check
from engine.config import RunConfig
from engine.data.holdout import Holdout
from engine.errors import ConfigError, DataError
from engine.live.spec import StrategySpec
from engine.lookahead.audit import audit
from engine.panel import Panel
from engine.promotion.candidate import Candidate, sweep_of
from engine.promotion.holdout import sealed_result
from engine.simulation.backtest import trade_rows
from engine.simulation.capacity import capacity
from engine.sweeps.study import ORACLE, Study
from engine.sweeps.trials import TrialCount, count_trials, families_of
from engine.validation.checks import CHECKS, COVERED, GATES, Details, checks_of
from engine.validation.evidence import (
    ValidationInputs,
    alpha,
    familywise,
    overfitting,
    trial_figures,
    walk_forwards,
)
from engine.validation.reruns import Rerun, attempt

#: Gates that other costs alone can open or close, without the search that the set was chosen from.
COST_GATES = ("cost_x2", "cost_x3", "delay_1h", "delay_24h", "capacity", "max_drawdown")


@dataclass(frozen=True)
class Examination:
    """The outcome of every gate.

    Attributes
    ----------
    gates : tuple of Check
    trials : int
        Parameter sets that were ever tried for the idea: the ledger's, at least those of the sweep.
    sweep : str or None
        Name of the sweep that the set was chosen from.
    gross : float
        Highest ``sum(abs(position value)) / equity`` right after a trade of the run.
    account_usd : float
        Size at which capacity is computed.
    order_usd : float
        Largest order of the run at that size.
    hour_volume_usd : float
        Median over its orders of the coin's volume in that hour; NaN where it is not known.
    daily_returns : ndarray, (days,)
        Of the run, from the first decision on that asks for something.
    """

    gates: tuple[Check, ...]
    trials: int
    sweep: str | None
    gross: float
    account_usd: float
    order_usd: float
    hour_volume_usd: float
    daily_returns: np.ndarray

    @property
    def failed(self) -> tuple[Check, ...]:
        """Gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)


class _Examined:
    """A candidate under examination; every part is computed once, when a gate first needs it."""

    def __init__(
        self,
        candidate: Candidate,
        panel: Panel,
        account_usd: float,
        report: Callable[[str], object],
        holdout: Holdout | None = None,
    ) -> None:
        self.candidate, self.panel, self.account_usd, self.report = candidate, panel, account_usd, report
        self.holdout = holdout
        # A study of the one set, so that it is run again by the same code as the winner of a sweep.
        record = {
            "oracles": [{"path": candidate.oracle}],
            "fixed": dict(candidate.parameters),
            "grid": {},
            "config": candidate.config.to_dict(),
        }
        table = pd.DataFrame(index=pd.Index([candidate.oracle], name=ORACLE))
        self.rerun = Rerun(Study(record, table, None), 0, panel)
        #: Under the keys of a verdict's details where a part is one of a verdict's, too.
        self.details = Details(
            {
                "winner": self._winner,
                "trials": lambda: trial_figures(self._inputs),
                "familywise": lambda: familywise(self._inputs),
                "alpha": lambda: alpha(self._inputs),
                "null_books": lambda: self.rerun.null_books(0),
                "pbo": lambda: overfitting(self._inputs),
                "walk_forward": lambda: walk_forwards(self._inputs),
                "cost_stress": self.rerun.costs,
                "delay_stress": self.rerun.delays,
                "capacity": self._capacity,
                "run": self._run,
                "causality": self._causality,
                "holdout": self._sealed,
            }
        )

    @cached_property
    def sweep(self) -> Any:
        """Study and row of the set, or ``{"why": ...}``."""
        return attempt(lambda: sweep_of(self.candidate))

    @cached_property
    def ledger(self) -> TrialCount:
        """Every trial of the oracles of the run and its sweep, and of the oracles inside them."""
        own = self.rerun.study.record
        records = [own] if isinstance(self.sweep, dict) else [own, self.sweep[0].record]
        since = None if isinstance(self.sweep, dict) else self.sweep[0].record.get("ledger")
        paths = [path for record in records for path in families_of(record)]
        return count_trials(self.candidate.reports, paths, since)

    @cached_property
    def _inputs(self) -> ValidationInputs:
        """The set in its sweep."""
        if isinstance(self.sweep, dict):
            raise DataError(self.sweep["why"])
        study, row = self.sweep
        return ValidationInputs(study, row, self.panel, self.ledger)

    def _winner(self) -> dict[str, Any]:
        metrics = self.rerun.base.metrics
        recorded = {"sharpe": self.candidate.sharpe, "liquidated_at": metrics["liquidated_at"]}
        return {"metrics": recorded, "rerun": metrics}

    def _run(self) -> dict[str, Any]:
        """Figures of the run alone."""
        metrics, priced = self.rerun.base.metrics, ~np.isnan(self.panel.values("mid"))
        listed = _listed(self.panel)
        return {
            "days": int(metrics["days"]),
            "max_drawdown": -float(metrics["max_drawdown"]),
            "price_coverage": float((priced & listed).sum() / listed.sum()) if listed.any() else None,
            "funding": self.candidate.config.costs.funding,
            "funding_missing": float(metrics["funding_missing_frac"]),
            "tradable": self._tradable(listed),
        }

    def _tradable(self, listed: np.ndarray) -> np.ndarray:
        """Whether each decision could be traded, (D,); one without any weight needs half of the market."""
        weights, tradable = self.rerun.base.weights, self.panel.tradable
        rows, inside = trade_rows(pd.DatetimeIndex(weights.index), self.panel, self.candidate.config)
        wanted = np.abs(np.nan_to_num(weights.to_numpy()[inside]))
        could = (wanted * tradable[rows]).sum(axis=1) >= COVERED * wanted.sum(axis=1)
        # An oracle that weighs nothing where nothing can be traded must not look well served.
        market = tradable[rows].sum(axis=1) >= 0.5 * np.maximum(listed[rows].sum(axis=1), 1)
        return np.where(wanted.any(axis=1), could, market)

    def _sealed(self) -> Any:
        """What the sealed days gave; True where none are sealed."""
        return True if self.holdout is None else sealed_result(self.candidate, self.holdout, self.ledger)

    def _capacity(self) -> dict[str, Any]:
        """Figures of the account at its stated size, with the venue's impact."""
        config = self.candidate.config
        costly = replace(config, costs=replace(config.costs, impact="venue"))
        sizes = capacity(self.panel, self.rerun.weights, costly, [self.account_usd])
        return {**{str(name): value for name, value in sizes.iloc[0].items()}, "account_usd": self.account_usd}

    def _causality(self) -> dict[str, Any]:
        candidate = self.candidate
        audited = audit(
            candidate.oracle,
            self.panel,
            pd.DatetimeIndex(self.rerun.weights.index),
            candidate.config,
            parameters=candidate.parameters,
            step=lambda done, total, what: self.report(f"look-ahead: {what}, {done} of {total}"),
        )
        message = f"{audited.message()} {audited.strength_text()}"
        return {"failed": len(audited.failed), "message": message, "strength": audited.strength}


def _listed(panel: Panel) -> np.ndarray:
    """Hours at which each coin is a market, (T, N): from its listing, else its first price, to its delisting."""
    priced = ~np.isnan(panel.values("mid"))
    listed = np.cumsum(priced, axis=0) > 0
    for column, coin in enumerate(panel.table):
        if coin.listed is not None:
            listed[:, column] = panel.index >= coin.listed
        if coin.delisted is not None:
            listed[:, column] &= panel.index <= coin.delisted
    return listed


def examine(
    candidate: Candidate,
    panel: Panel,
    thresholds: Mapping[str, float],
    account_usd: float,
    progress: Callable[[int, int, str], object] | None = None,
    holdout: Holdout | None = None,
) -> Examination:
    """Put a candidate before every gate.

    Parameters
    ----------
    candidate : Candidate
        What is examined.
    panel : Panel
        What the candidate ran on; :func:`engine.promotion.candidate.check_current` has seen to that.
    thresholds : mapping
        Of every gate, :data:`engine.validation.checks.GATES`.
    account_usd : float
        Size of the account it is meant for.
    progress : callable, optional
        Called with (done, total, what is being done).
    holdout : Holdout, optional
        Days that are sealed; without any there is no gate for them.

    Raises
    ------
    OracleError, WeightsError
        When the oracle has no weights at all, or they cannot be traded.
    """
    if not (math.isfinite(account_usd) and account_usd > 0.0):
        raise ConfigError(f"--account {account_usd:g} is not accepted: write USD above 0.")
    gates: list[Check] = []
    report = progress or (lambda *_: None)
    examined = _Examined(candidate, panel, account_usd, lambda what: report(len(gates), len(GATES), what), holdout)
    report(0, len(GATES), "running it again")
    base = examined.rerun.base
    for name in GATES:
        report(len(gates), len(GATES), CHECKS[name].label)
        gates += checks_of([name], examined.details, thresholds)
    report(len(GATES), len(GATES), "done")
    rows, _ = trade_rows(pd.DatetimeIndex(base.weights.index), panel, candidate.config)
    study = None if isinstance(examined.sweep, dict) else examined.sweep[0]
    trials = max(examined.ledger.total, 1 if study is None else len(study))
    sweep = None if study is None else str(study.record["name"])
    gross, size = float(np.nanmax(base.ledger.gross[rows], initial=0.0)), attempt(lambda: examined.details("capacity"))
    order, volume = (float(size.get(name, math.nan)) for name in ("order_usd_max", "hour_volume_usd_median"))
    daily = base.daily_returns.to_numpy()
    return Examination(tuple(gates), trials, sweep, gross, account_usd, order, volume, daily)


def cost_gates(
    config: RunConfig, spec: StrategySpec, panel: Panel, thresholds: Mapping[str, float]
) -> tuple[tuple[Check, ...], Mapping[str, Any]]:
    """The gates of a spec that its costs alone can open or close, under other costs, and the metrics of the run.

    Parameters
    ----------
    config : RunConfig
        The spec's, perhaps with other costs.
    spec : StrategySpec
    panel : Panel
        Of the promoted run.
    thresholds : mapping
        Of every gate.

    Returns
    -------
    gates : tuple of Check
        Of :data:`COST_GATES`; those of the search are not among them, for it is not run again.
    metrics : mapping
    """
    span = panel.span
    digests = {"data": spec.digests["data"], "oracle": spec.digests["oracle"], "code": spec.digests["engine"]}
    which = (spec.name, spec.oracle, spec.parameters, config, None, str(span["start"]), str(span["end"]), digests)
    size = float(spec.account.get("equity_usd") or config.account.initial_equity_usd)
    examined = _Examined(Candidate(*which, Path(), None), panel, size, lambda _: None)
    return tuple(checks_of(COST_GATES, examined.details, thresholds)), examined.rerun.base.metrics


def gates_to_json(gates: tuple[Check, ...]) -> list[dict[str, Any]]:
    """Gates under the keys of a spec; one that could not be computed has not passed."""
    return [
        {key: value for key, value in {**gate.to_json(), "passed": bool(gate.passed)}.items() if key != "group"}
        for gate in gates
    ]
