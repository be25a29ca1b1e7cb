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

from engine.checks import Check, Measurement
from engine.data.holdout import Holdout
from engine.errors import ConfigError, DataError
from engine.lookahead.audit import audit
from engine.panel import Panel
from engine.promotion.candidate import Candidate, sweep_of
from engine.promotion.holdout import sealed_result
from engine.provenance import files_digest
from engine.simulation.backtest import trade_rows
from engine.simulation.capacity import capacity
from engine.sweeps.study import ORACLE, Study
from engine.sweeps.trials import TrialCount, count_trials, families_of
from engine.validation.checks import CHECK_TYPES, CheckType, Details, defined
from engine.validation.reruns import Rerun, attempt
from engine.validation.thresholds import Thresholds, check_name, numbers, read_tables
from engine.validation.validate import ValidationInputs, overfitting, trial_figures, walk_forwards
from engine.validation.verdict import check_to_json

#: A decision could be traded when coins that were tradable then carry this part of the gross.
COVERED = 0.9
#: The gate that is there only where days are sealed.
HOLDOUT = "holdout"


@dataclass(frozen=True)
class GateFile:
    """Content of ``gates.toml``.

    Attributes
    ----------
    thresholds : mapping
        Of every gate.
    limits : mapping
        Limits of the live account, ``engine.live.risk_limits``; ``"none"`` switches one off.
    digest : str
        SHA-256 of the file.
    """

    thresholds: Mapping[str, float]
    limits: Mapping[str, Any]
    digest: str


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
    """

    gates: tuple[Check, ...]
    trials: int
    sweep: str | None
    gross: float
    account_usd: float

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
        return ValidationInputs(study, row, self.panel, self.ledger, 0, Thresholds.read().confidence)

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

    def _sealed(self) -> Mapping[str, Any]:
        """What the sealed days gave."""
        if self.holdout is None:
            raise DataError("No days are sealed.")
        return sealed_result(self.candidate, self.holdout, self.ledger)

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
        return {"failed": len(audited.failed), "message": audited.message()}


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


def _days(details: Details) -> Measurement:
    value = details("run", "days")
    return Measurement(value, f"The run has {value:,} daily returns.")


def _price_coverage(details: Details) -> Measurement:
    value = details("run", "price_coverage")
    return Measurement(value, f"{value:.2%} of the hours of listed coins have a price.")


def _decision_coverage(details: Details) -> Measurement:
    tradable = details("run", "tradable")
    value = float(tradable.mean())
    summary = f"At {value:.1%} of {len(tradable):,} decisions at least {COVERED:.0%} of the gross could be traded."
    return Measurement(value, summary)


def _causal(details: Details) -> Measurement:
    return Measurement(details("causality", "failed"), details("causality", "message"))


def _drawdown(details: Details) -> Measurement:
    value = details("run", "max_drawdown")
    return Measurement(value, f"The account once stood {value:.1%} below its peak, by hourly marks.")


def _capacity(details: Details) -> Measurement:
    value, account = defined(details("capacity")["sharpe"]), details("capacity", "account_usd")
    return Measurement(value, f"With {account:,.0f} USD and the venue's price impact the Sharpe ratio is {value:.2f}.")


def _volume(details: Details) -> Measurement:
    why = "The panel has no volume, or there is no order to compare."
    value, account = defined(details("capacity")["volume_share_median"], why), details("capacity", "account_usd")
    return Measurement(
        value, f"With {account:,.0f} USD the median order takes {value:.2%} of its coin's hourly volume."
    )


def _sealed(details: Details) -> Measurement:
    result = details("holdout")
    low, high = result["expected"]["sharpe"]
    return Measurement(
        result["share_below"],
        f"On {result['sealed']['days']:,} sealed days the Sharpe ratio was {result['sealed']['sharpe']:.2f}, where the "
        f"days before let expect {low:.2f} to {high:.2f}.",
    )


#: In the order in which they are read; the last only where days are sealed.
GATES: Mapping[str, CheckType] = {
    "reproduced": CHECK_TYPES["reproduced"],
    "days": CheckType("days of the run", "data", "at least", _days),
    "price_coverage": CheckType("hours with a price", "data", "at least", _price_coverage),
    "decision_coverage": CheckType("decisions that could be traded", "data", "at least", _decision_coverage),
    "causality": CheckType("failed checks for look-ahead", "broken", "at most", _causal),
    **{name: CHECK_TYPES[name] for name in ("deflated_sharpe", "pbo", "walk_forward")},
    "max_drawdown": CheckType("deepest drawdown", "ruin", "at most", _drawdown),
    **{name: CHECK_TYPES[name] for name in ("cost_x2", "cost_x3", "delay_1h", "delay_24h")},
    "capacity": CheckType("Sharpe ratio at the account's size", "fragile", "at least", _capacity),
    "volume_share": CheckType("part of an hour's volume", "fragile", "at most", _volume),
    "liquidation": CHECK_TYPES["liquidation"],
    HOLDOUT: CheckType("part of what was expected that is worse than the sealed days", "luck", "at least", _sealed),
}


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
        Of every gate of :data:`GATES`.
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
    asked = {name: gate for name, gate in GATES.items() if name != HOLDOUT or holdout is not None}
    examined = _Examined(candidate, panel, account_usd, lambda what: report(len(gates), len(asked), what), holdout)
    report(0, len(asked), "running it again")
    base = examined.rerun.base
    for name, gate in asked.items():
        report(len(gates), len(asked), gate.label)
        gates.append(gate.check(name, examined.details, thresholds[name]))
    report(len(asked), len(asked), "done")
    rows, _ = trade_rows(pd.DatetimeIndex(base.weights.index), panel, candidate.config)
    study = None if isinstance(examined.sweep, dict) else examined.sweep[0]
    trials = max(examined.ledger.total, 1 if study is None else len(study))
    sweep = None if study is None else str(study.record["name"])
    return Examination(tuple(gates), trials, sweep, float(np.nanmax(base.ledger.gross[rows], initial=0.0)), account_usd)


def read_gates(path: Path) -> GateFile:
    """Read the tables ``[gates]``, a threshold for every gate, and ``[limits]`` of a gates file.

    Raises
    ------
    ConfigError
        For an unknown table or gate (the nearest is named), a missing gate, or a threshold that is not a number.
    """
    content = read_tables(path)
    thresholds = numbers(path, "gate", GATES, content.get("gates", {}))
    return GateFile(thresholds, content.get("limits", {}), files_digest([path]))


def check_gate(name: str, where: str) -> None:
    """Refuse an unknown gate, naming the nearest."""
    check_name("gate", name, GATES, where)


def gates_to_json(gates: tuple[Check, ...]) -> list[dict[str, Any]]:
    """Gates under the keys of a spec; one that could not be computed has not passed."""
    return [
        {key: value for key, value in {**check_to_json(gate), "passed": bool(gate.passed)}.items() if key != "group"}
        for gate in gates
    ]
