"""From a candidate that passed its gates to a strategy spec; one that did not is refused with the gates named."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from engine.clock import decision_instants, hourly_index
from engine.errors import ConfigError, DataError, PromotionError, join_first
from engine.live.risk_limits import Limits, parse_limits
from engine.live.spec import StrategySpec, write_spec
from engine.monitoring.edge import bands_of
from engine.monitoring.edge_bands import edge_bands
from engine.panel import Panel
from engine.promotion.candidate import Candidate, check_current, read_candidate
from engine.promotion.gates import Examination, gates_to_json
from engine.provenance import code_digest, versions
from engine.simulation.backtest import decisions_of
from engine.validation.checks import GATES
from engine.validation.thresholds import GateFile, check_name

#: Room of the gross limit over the run's own gross, where the limit would be below that.
HEADROOM = 1.1


@dataclass(frozen=True)
class Override:
    """A gate that someone lets a strategy through, and why; both stay on record."""

    gate: str
    reason: str


def overrides_of(gates: Sequence[str], reasons: Sequence[str]) -> tuple[Override, ...]:
    """Pairs of ``--override`` and ``--reason``, in the order in which they were given.

    Raises
    ------
    ConfigError
        For an unknown gate (the nearest is named), one named twice, or one without a reason.
    """
    for name in gates:
        check_name("gate", name, GATES, "--override: ")
    twice = sorted({name for name in gates if gates.count(name) > 1})
    if twice:
        raise ConfigError(f"--override {twice[0]} is given twice. Give one reason that says all.")
    if len(gates) != len(reasons) or not all(reason.strip() for reason in reasons):
        raise ConfigError(
            f"--override {join_first(gates) or '(none)'}, but --reason "
            f"{join_first(repr(reason) for reason in reasons) or '(none)'}: each gate that is overridden needs a "
            "reason, which stays in the spec. Write --override GATE --reason '...' for each one."
        )
    return tuple(Override(gate, reason.strip()) for gate, reason in zip(gates, reasons, strict=True))


def check_overrides(examination: Examination, overrides: Sequence[Override]) -> None:
    """Refuse a candidate with a gate that failed and is not overridden, and the override of a gate that passed.

    Raises
    ------
    PromotionError
        Naming every such gate with its value and its threshold.
    """
    named = {override.gate for override in overrides}
    needless = [gate for gate in examination.gates if gate.passed and gate.name in named]
    if needless:
        raise PromotionError(
            f"Cannot override gates that passed: {'; '.join(gate.comparison for gate in needless)}. Remove --override "
            f"{needless[0].name}, so that the record names only what was waived."
        )
    closed = [gate for gate in examination.failed if gate.name not in named]
    if closed:
        # What no figure tells: why a gate was not computed, and where an oracle looks ahead.
        reasons = dict.fromkeys(gate.summary for gate in closed if gate.value is None or gate.name == "causality")
        listed = "; ".join(gate.comparison for gate in closed)
        raise PromotionError(
            f"Refused by {len(closed)} of {len(examination.gates)} gates: {listed}. "
            f"{''.join(f'{reason} ' for reason in reasons)}Nothing was written. Improve the strategy, or let a gate "
            f"pass on record: --override {closed[0].name} --reason '...'."
        )


def limits_of(defaults: Mapping[str, Any], assignments: Sequence[str], gross: float) -> tuple[Limits, list[str]]:
    """Limits of the live account.

    Parameters
    ----------
    defaults : mapping
        ``[limits]`` of the gates file; ``"none"`` or ``"off"`` switches one off.
    assignments : sequence of str
        ``name=value`` of the command line, which go before it.
    gross : float
        The run's own, right after its trades.

    Returns
    -------
    limits : Limits
    notes : list of str
        What was raised, and why.

    Raises
    ------
    ConfigError
        For an assignment that is not name=value, or a gross below the run's own.
    SpecError
        For an unknown limit, or a value that is not a number.
    """
    given = parse_limits(assignments)
    values = {**defaults, **given}
    limits = Limits.from_dict(values)
    if limits.gross is None or limits.gross >= gross:
        return limits, []
    if "gross" in given:
        raise ConfigError(
            f"--limit gross={limits.gross:g} is below the run's own gross of {gross:.3f}: it would stop the strategy "
            "at its work. Give a higher one, or promote a run with less."
        )
    raised = math.ceil(round(HEADROOM * gross * 100.0, 6)) / 100.0
    note = f"limit gross: raised from {limits.gross:g} to {raised:g}, for the run's own gross is {gross:.3f}"
    return Limits.from_dict({**values, "gross": raised}), [note]


def order_limit(examination: Examination) -> float | None:
    """The largest order that the gates of a spec cover, USD, two figures; None where nothing is known of orders.

    The share of the hour's volume that the gate allows, of the median volume; never less than the largest order of an
    account at its largest (``equity_multiple`` times the one of the gates).
    """
    share = next(gate.threshold for gate in examination.gates if gate.name == "volume_share")
    orders = [(Limits().equity_multiple or 1.0) * examination.order_usd, (share or 0.0) * examination.hour_volume_usd]
    largest = max((usd for usd in orders if usd > 0.0), default=None)
    return None if largest is None else float(f"{1.05 * largest:.1e}")


def check_spec_name(name: str) -> None:
    """Refuse a name that is not a plain file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name.endswith((".json", ".")):
        raise ConfigError(
            f"--name {name!r} is not accepted: write letters, digits, dots, dashes and underscores, for example "
            "--name momentum-168h. It names the file NAME.json."
        )


def spec_path(folder: Path, name: str, replace: bool) -> Path:
    """Where the spec goes; an existing one is refused unless it is to be replaced."""
    check_spec_name(name)
    path = folder / f"{name}.json"
    if path.exists() and not replace:
        raise PromotionError(f"{path} is promoted already. Choose another --name, or put this in its place: --replace.")
    return path


@dataclass(frozen=True)
class Promotion:
    """A request for a promotion.

    Attributes
    ----------
    candidate : Candidate
    name : str
        Of the spec and its file.
    file : GateFile
        Thresholds and limits.
    overrides : tuple of Override
        Of gates that may fail.
    assignments : tuple of str
        Limits as ``name=value``, which go before those of the file.
    account_usd : float
        Size of the account it is meant for.
    """

    candidate: Candidate
    name: str
    file: GateFile
    overrides: tuple[Override, ...]
    assignments: tuple[str, ...]
    account_usd: float

    def current(self, panel: Panel) -> Candidate:
        """The candidate, if data and code are what they were; see :func:`engine.promotion.candidate.check_current`."""
        check_current(self.candidate, panel)
        return self.candidate

    def is_current(self, candidate: Candidate) -> bool:
        """Never: a promotion is new."""
        return False

    def spec(
        self, candidate: Candidate, panel: Panel, examination: Examination, created: str
    ) -> tuple[StrategySpec, list[str]]:
        """The spec of a candidate that passed, and notes on it.

        Parameters
        ----------
        candidate : Candidate
            As :meth:`current` gave it.
        panel : Panel
            What it was examined on.
        examination : Examination
            Its gates.
        created : str
            ISO 8601 instant of the promotion, from the caller, for nothing here reads the clock.

        Raises
        ------
        PromotionError
            Naming the gates that failed, or were overridden without need.
        """
        check_overrides(examination, self.overrides)
        defaults = {"order_notional_usd": order_limit(examination), **self.file.limits}
        limits, notes = limits_of(defaults, self.assignments, examination.gross)
        return spec_of(candidate, panel, examination, self.overrides, limits, self.file, self.name, created), notes


def read_promotion(
    folder: Path,
    reports: Path | None,
    name: str,
    file: GateFile,
    overrides: tuple[Sequence[str], Sequence[str]],
    assignments: Sequence[str],
    account_usd: float | None,
) -> Promotion:
    """Read the run of a promotion, after everything that can be refused without it.

    Parameters
    ----------
    folder, reports : Path
        As :func:`engine.promotion.candidate.read_candidate` takes them.
    name, file : str, GateFile
        As in :class:`Promotion`.
    overrides : tuple
        Gates and reasons, as :func:`overrides_of` takes them.
    assignments : sequence of str
        Limits, as :func:`limits_of` takes them.
    account_usd : float or None
        Default: the initial equity of the run.
    """
    waived = overrides_of(*overrides)
    limits_of(file.limits, assignments, 0.0)
    candidate = read_candidate(folder, reports)
    size = candidate.config.account.initial_equity_usd if account_usd is None else account_usd
    return Promotion(candidate, name, file, waived, tuple(assignments), size)


def spec_of(
    candidate: Candidate,
    panel: Panel,
    examination: Examination,
    overrides: Sequence[Override],
    limits: Limits,
    file: GateFile,
    name: str,
    created: str,
) -> StrategySpec:
    """The spec of a candidate whose gates have passed or are overridden; its parts as in :class:`Promotion`."""
    gates = {
        "results": gates_to_json(examination.gates),
        "overrides": [asdict(override) for override in overrides],
        "run": {
            "name": candidate.name,
            "sweep": examination.sweep,
            "start": candidate.start,
            "end": candidate.end,
            "coins": len(panel.coins),
            "gross": examination.gross,
            "synthetic": panel.synthetic,
        },
    }
    digests = {
        "data": panel.digest,
        "oracle": candidate.digests["oracle"],
        "engine": code_digest(),
        "gates": file.digest,
    }
    return StrategySpec(
        name=name,
        created=created,
        oracle=candidate.oracle,
        parameters=candidate.parameters,
        config=candidate.config,
        limits=limits,
        gates=gates,
        digests=digests,
        versions=versions(),
        trials=examination.trials,
        account={"equity_usd": examination.account_usd},
        decisions_from=decisions_of(panel, candidate.config)[0].isoformat(),
        bands=_bands(examination),
    )


def _bands(examination: Examination) -> dict[str, Any]:
    """The bands of a run, as a spec keeps them; why there are none, where they cannot be made."""
    try:
        return edge_bands(examination.daily_returns).to_dict()
    except DataError as error:
        return {"why": str(error)}


def bands_text(spec: StrategySpec) -> str:
    """What the bands of a spec can tell, for the one who promotes."""
    bands = bands_of(spec)
    why = (spec.bands or {}).get("why", "the spec is older than they are")
    return bands.text() if bands else f"Edge: no bands, so nobody will be told when it is gone: {why}"


def candidate_spec(candidate: Candidate, name: str) -> StrategySpec:
    """What a candidate would trade, as a spec that no gate has passed: for paper alone, and never written."""
    digests = {"data": candidate.digests["data"], "oracle": candidate.digests["oracle"]}
    execution = candidate.config.execution
    hours = hourly_index(pd.Timestamp(candidate.start), pd.Timestamp(candidate.end))
    decisions = decision_instants(hours, execution.hour_utc, execution.every_days, execution.weekdays)
    return StrategySpec(
        name=name,
        created="",
        oracle=candidate.oracle,
        parameters=candidate.parameters,
        config=candidate.config,
        limits=Limits.none(),
        gates={"results": {}, "overrides": []},
        digests={**digests, "engine": candidate.digests["code"]},
        versions={},
        trials=0,
        account={},
        decisions_from=decisions[0].isoformat(),
    )


def save_spec(spec: StrategySpec, path: Path) -> None:
    """Write a spec, whole or not at all."""
    try:
        write_spec(spec, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
