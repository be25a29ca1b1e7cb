"""The gates of a promotion: what a run is asked, what it answers, and what ``research/gates.toml`` asks for.

A gate that cannot be computed has not passed. All is computed anew, from the panel and from the daily returns of the
sweep: no figure is taken from ``run.json`` or ``verdict.json`` but the Sharpe ratio that must come out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import read_toml
from engine.errors import ConfigError, DataError, HlbtError, did_you_mean, join_first
from engine.lookahead.audit import Audit, audit
from engine.panel import Panel
from engine.promotion.candidate import Candidate, sweep_of
from engine.provenance import files_digest
from engine.simulation.backtest import trade_rows
from engine.simulation.capacity import capacity
from engine.sweeps.study import ORACLE, Study
from engine.sweeps.trials import TrialCount, count_trials, families_of
from engine.validation.reruns import Rerun, attempt
from engine.validation.validate import ValidationInputs, overfitting, trial_figures, walk_forwards
from engine.validation.verdict import Rule, Thresholds

#: A decision could be traded when coins that were tradable then carry this part of the gross that was asked for.
COVERED = 0.9


@dataclass(frozen=True)
class Gate:
    """One gate and what came of it.

    Attributes
    ----------
    name : str
        As in ``gates.toml``.
    label : str
        The same for people.
    value : float or None
        None: could not be computed, which does not pass.
    threshold : float
    rule : {"at least", "at most"}
        What the value must be of the threshold.
    passed : bool
    says : str
        One sentence.
    """

    name: str
    label: str
    value: float | None
    threshold: float
    rule: Rule
    passed: bool
    says: str

    @property
    def short(self) -> str:
        """``pbo 0.61 (at most 0.2)``; a value that rounds to its threshold is shown in full."""
        if self.value is None:
            return f"{self.name} not computed ({self.rule} {self.threshold:g})"
        shown = f"{self.value:.4g}"
        shown = shown if float(shown) != self.threshold else repr(self.value)
        return f"{self.name} {shown} ({self.rule} {self.threshold:g})"


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
    """What the gates found.

    Attributes
    ----------
    gates : tuple of Gate
    trials : int
        Parameter sets that were ever tried for the idea: the ledger's, at least those of the sweep.
    sweep : str or None
        Name of the sweep that the set was chosen from.
    gross : float
        Highest ``sum(abs(position value)) / equity`` right after a trade of the run.
    account_usd : float
        Size at which capacity was asked.
    """

    gates: tuple[Gate, ...]
    trials: int
    sweep: str | None
    gross: float
    account_usd: float

    @property
    def failed(self) -> tuple[Gate, ...]:
        """Gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)


class _Subject:
    """A candidate under examination; everything is computed once."""

    def __init__(self, candidate: Candidate, panel: Panel, account_usd: float, step: Callable[[str], object]) -> None:
        self.candidate, self.panel, self.account_usd, self.step = candidate, panel, account_usd, step
        # A study of the one set, so that it is run again by the same code as the winner of a sweep.
        record = {
            "oracles": [{"path": candidate.oracle}],
            "fixed": dict(candidate.parameters),
            "grid": {},
            "config": candidate.config.to_dict(),
        }
        table = pd.DataFrame(index=pd.Index([candidate.oracle], name=ORACLE))
        self.rerun = Rerun(Study(record, table, None), 0, panel)

    @property
    def sharpe(self) -> float:
        """The run's own, run again; annual."""
        return _defined(self.rerun.base.metrics["sharpe"], "The run has no Sharpe ratio: it never traded.")

    @cached_property
    def found(self) -> Any:
        """Study and row, or ``{"why": ...}``."""
        return attempt(lambda: sweep_of(self.candidate))

    @cached_property
    def case(self) -> Any:
        """The set in its sweep, or ``{"why": ...}``."""
        if isinstance(self.found, dict):
            return self.found
        study, place = self.found
        return ValidationInputs(study, place, self.panel, self.ledger, 0, Thresholds().confidence)

    @cached_property
    def ledger(self) -> TrialCount:
        """Every trial of the oracles of the run and its sweep, and of the oracles inside them."""
        own = self.rerun.study.record
        records = [own] if isinstance(self.found, dict) else [own, self.found[0].record]
        return count_trials(self.candidate.reports, [path for record in records for path in families_of(record)])

    @cached_property
    def trials(self) -> dict[str, Any]:
        return trial_figures(_known(self.case))

    @cached_property
    def costs(self) -> Any:
        return attempt(self.rerun.costs)

    @cached_property
    def delays(self) -> Any:
        return attempt(self.rerun.delays)

    @cached_property
    def capacity(self) -> Any:
        """Figures of the account at its stated size, with the venue's impact, or ``{"why": ...}``."""
        config = self.candidate.config
        costly = replace(config, costs=replace(config.costs, impact="venue"))
        found = attempt(lambda: capacity(self.panel, self.rerun.weights, costly, [self.account_usd]))
        return found if isinstance(found, dict) else found.iloc[0].to_dict()

    @cached_property
    def audit(self) -> Audit:
        candidate = self.candidate

        def step(done: int, total: int, what: str) -> None:
            self.step(f"look-ahead: {what}, {done} of {total}")

        return audit(
            candidate.oracle,
            self.panel,
            pd.DatetimeIndex(self.rerun.weights.index),
            candidate.config,
            parameters=candidate.parameters,
            step=step,
        )


def _known(part: Any) -> Any:
    """The part, unless it says why it could not be computed."""
    if isinstance(part, dict) and "why" in part:
        raise DataError(str(part["why"]))
    return part


def _defined(value: Any, why: str) -> float:
    if value is None or math.isnan(value):
        raise DataError(why)
    return float(value)


Answer = tuple[float, str]


def _deflated(subject: _Subject) -> Answer:
    figures = subject.trials
    value = _defined(_known(figures["deflated_sharpe"]), "It is not defined for these trials: they do not differ.")
    best = figures["expected_max_sharpe_annual"]
    return value, (
        f"With {value:.1%} probability the true Sharpe ratio is above the {best:.2f} that the best of "
        f"{figures['judged']:,} trials without any skill would show."
    )


def _pbo(subject: _Subject) -> Answer:
    found = overfitting(_known(subject.case))
    return float(found["pbo"]), (
        f"In {found['pbo']:.1%} of {found['splits']:,} splits the best set of the sweep on one half of the days was in "
        "the lower half on the other."
    )


def _walk_forward(subject: _Subject) -> Answer:
    found = walk_forwards(_known(subject.case))
    low = min(_defined(found[kind]["sharpe"], "It has no Sharpe ratio.") for kind in ("anchored", "rolling"))
    return low, f"Sets chosen by the past alone had a Sharpe ratio of {low:.2f} or more on the days that followed."


def _drawdown(subject: _Subject) -> Answer:
    value = -float(subject.rerun.base.metrics["max_drawdown"])
    return value, f"The account once stood {value:.1%} below its peak, by hourly marks."


def _costs(factor: float, words: str) -> Callable[[_Subject], Answer]:
    def ask(subject: _Subject) -> Answer:
        row = next(row for row in _known(subject.costs) if row["factor"] == factor)
        value = _defined(row["sharpe"], "The account has no Sharpe ratio.")
        return (
            value,
            f"At {words} the fees, spreads and impact the Sharpe ratio is {value:.2f}.",
        )

    return ask


def _late(subject: _Subject, hours: int) -> float:
    row = next(row for row in _known(subject.delays) if row["hours"] == hours)
    return _defined(row["sharpe"], "The account has no Sharpe ratio.")


def _hour_late(subject: _Subject) -> Answer:
    late = _late(subject, 1)
    if subject.sharpe <= 0.0:
        raise DataError(f"The run's own Sharpe ratio is {subject.sharpe:.2f}: nothing is there to be kept.")
    return late / subject.sharpe, f"Traded an hour later the Sharpe ratio is {late:.2f}, of {subject.sharpe:.2f}."


def _day_late(subject: _Subject) -> Answer:
    value = _late(subject, 24)
    return value, f"Traded a day later the Sharpe ratio is {value:.2f}."


def _capacity(subject: _Subject) -> Answer:
    value = _defined(_known(subject.capacity)["sharpe"], "The account has no Sharpe ratio.")
    return value, f"With {subject.account_usd:,.0f} USD and the venue's price impact the Sharpe ratio is {value:.2f}."


def _volume(subject: _Subject) -> Answer:
    value = _defined(
        _known(subject.capacity)["volume_share_median"], "The panel has no volume, or there is no order to compare."
    )
    return value, f"With {subject.account_usd:,.0f} USD the median order takes {value:.2%} of its coin's hourly volume."


def _causality(subject: _Subject) -> Answer:
    found = subject.audit
    return float(len(found.failed)), found.message()


def _days(subject: _Subject) -> Answer:
    value = int(subject.rerun.base.metrics["days"])
    return float(value), f"The run has {value:,} daily returns."


def _prices(subject: _Subject) -> Answer:
    priced = ~np.isnan(subject.panel.values("mid"))
    listed = _listed(subject.panel)
    if not listed.any():
        raise DataError("No coin is listed within the panel.")
    value = float((priced & listed).sum() / listed.sum())
    return value, f"{value:.2%} of the hours of listed coins have a price."


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


def _decisions(subject: _Subject) -> Answer:
    """Part of the decisions that could be traded as asked; one that asks for nothing needs half of the market."""
    weights, tradable = subject.rerun.base.weights, subject.panel.tradable
    rows, inside = trade_rows(pd.DatetimeIndex(weights.index), subject.panel, subject.candidate.config)
    asked = np.abs(np.nan_to_num(weights.to_numpy()[inside]))
    could = (asked * tradable[rows]).sum(axis=1) >= COVERED * asked.sum(axis=1)
    # An oracle that weighs nothing where nothing can be traded must not look well served.
    market = tradable[rows].sum(axis=1) >= 0.5 * np.maximum(_listed(subject.panel)[rows].sum(axis=1), 1)
    covered = np.where(asked.any(axis=1), could, market)
    value = float(covered.mean())
    return value, (
        f"At {value:.1%} of {len(covered):,} decisions at least {COVERED:.0%} of the gross asked for could be traded."
    )


def _liquidations(subject: _Subject) -> Answer:
    rows = [subject.rerun.base.metrics, *_known(subject.costs), *_known(subject.delays), _known(subject.capacity)]
    count = sum(1 for row in rows if isinstance(row["liquidated_at"], str))
    return float(count), f"{count} of {len(rows)} accounts, the run's and those under stress, were liquidated."


def _reproduced(subject: _Subject) -> Answer:
    then = _defined(subject.candidate.sharpe, "The run recorded no Sharpe ratio: it never traded.")
    value = abs(subject.sharpe - then)
    return value, f"Run again, the Sharpe ratio is {subject.sharpe:.6f}; {then:.6f} was recorded."


#: Name -> (label, rule, question), in the order in which they are read.
GATES: Mapping[str, tuple[str, Rule, Callable[[_Subject], Answer]]] = {
    "reproduced": ("run again as recorded", "at most", _reproduced),
    "days": ("days of the run", "at least", _days),
    "price_coverage": ("hours with a price", "at least", _prices),
    "decision_coverage": ("decisions that could be traded", "at least", _decisions),
    "causality": ("failed checks for look-ahead", "at most", _causality),
    "deflated_sharpe": ("deflated Sharpe ratio", "at least", _deflated),
    "pbo": ("probability of overfitting", "at most", _pbo),
    "walk_forward": ("walk-forward Sharpe ratio", "at least", _walk_forward),
    "max_drawdown": ("deepest drawdown", "at most", _drawdown),
    "cost_x2": ("Sharpe ratio at twice the costs", "at least", _costs(2.0, "twice")),
    "cost_x3": ("Sharpe ratio at three times the costs", "at least", _costs(3.0, "three times")),
    "delay_1h": ("part of it kept an hour late", "at least", _hour_late),
    "delay_24h": ("Sharpe ratio a day late", "at least", _day_late),
    "capacity": ("Sharpe ratio at the account's size", "at least", _capacity),
    "volume_share": ("part of an hour's volume", "at most", _volume),
    "liquidation": ("liquidations", "at most", _liquidations),
}


def examine(
    candidate: Candidate,
    panel: Panel,
    thresholds: Mapping[str, float],
    account_usd: float,
    progress: Callable[[int, int, str], object] | None = None,
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

    Raises
    ------
    OracleError, WeightsError
        When the oracle cannot be asked, or its weights cannot be traded, at all.
    """
    if not (math.isfinite(account_usd) and account_usd > 0.0):
        raise ConfigError(f"--account {account_usd:g} is not accepted: write USD above 0.")
    done: list[Gate] = []
    report = progress or (lambda *_: None)
    subject = _Subject(candidate, panel, account_usd, lambda what: report(len(done), len(GATES), what))
    report(0, len(GATES), "running it again")
    base = subject.rerun.base
    for name, (label, rule, ask) in GATES.items():
        report(len(done), len(GATES), label)
        done.append(gate_of(name, label, rule, thresholds[name], lambda ask=ask: ask(subject)))  # type: ignore[misc]
    report(len(GATES), len(GATES), "done")
    rows, _ = trade_rows(pd.DatetimeIndex(base.weights.index), panel, candidate.config)
    study = None if isinstance(subject.found, dict) else subject.found[0]
    trials = max(subject.ledger.total, 1 if study is None else len(study))
    sweep = None if study is None else str(study.record["name"])
    return Examination(tuple(done), trials, sweep, float(np.nanmax(base.ledger.gross[rows], initial=0.0)), account_usd)


def gate_of(name: str, label: str, rule: Rule, threshold: float, ask: Callable[[], Answer]) -> Gate:
    """One gate: its question asked, its answer held against the threshold; without an answer it is closed."""
    try:
        value, says = ask()
        if not math.isfinite(value):
            raise DataError("It is not defined for this run.")
    except HlbtError as error:
        return Gate(name, label, None, threshold, rule, False, f"Not computed. {error}")
    passed = value >= threshold if rule == "at least" else value <= threshold
    return Gate(name, label, float(value), threshold, rule, bool(passed), says)


def read_gates(path: Path) -> GateFile:
    """Read ``gates.toml``: a threshold for every gate in ``[gates]``, and ``[limits]``.

    Raises
    ------
    ConfigError
        For an unknown section or gate (the nearest is named), a gate that is missing, or a threshold that is no number.
    """
    content = read_toml(path, "Gates file")
    for section, values in content.items():
        if section not in ("gates", "limits") or not isinstance(values, dict):
            hint = did_you_mean(section, ("gates", "limits"))
            raise ConfigError(f"{path}: {section!r} is not accepted.{hint} There are the tables [gates] and [limits].")
    thresholds = content.get("gates", {})
    for name, value in thresholds.items():
        check_gate(name, f"{path}: ")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{path}: the threshold {name} = {value!r} is no number.")
    missing = [name for name in GATES if name not in thresholds]
    if missing:
        raise ConfigError(
            f"{path} lacks the gate {join_first(missing)}. A gate that is left out would be open: write its threshold, "
            "or override it in a promotion, with a reason."
        )
    found = {name: float(thresholds[name]) for name in GATES}
    return GateFile(found, content.get("limits", {}), files_digest([path]))


def check_gate(name: str, where: str) -> None:
    """Refuse what is no gate, naming the nearest."""
    if name not in GATES:
        raise ConfigError(f"{where}unknown gate {name!r}.{did_you_mean(name, GATES)} Gates: {', '.join(GATES)}.")


def plain_gates(gates: tuple[Gate, ...]) -> list[dict[str, Any]]:
    """Gates as plain values."""
    return [asdict(gate) for gate in gates]
