"""``hlbt live calibrate``: costs as the fills show them, and what they make of the promoted run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.options import REPORTS, research_panel
from engine.commands.progress import print_json, show_all, waiting

if TYPE_CHECKING:
    from rich.table import Table

    from engine.checks import Check
    from engine.config import RunConfig
    from engine.live.spec import StrategySpec
    from engine.monitoring.calibration import Calibration
    from engine.panel import Panel

#: Metrics that are shown under both costs.
METRICS = ("sharpe", "cagr", "max_drawdown", "turnover_daily", "fees_usd", "spread_usd", "impact_usd", "equity_end_usd")


def calibrate_spec(path: Path, cache: str | None, journal: Path, gates: Path | None, as_json: bool) -> None:
    """Fit the costs of a spec to the fills of its journal; show its run and its gates under both.

    Parameters
    ----------
    path : Path
        Of the spec.
    cache : str or None
        Another cache than the spec's.
    journal : Path
        Of the strategy on the account.
    gates : Path or None
        Thresholds; default: the installed file.
    as_json : bool
        Print plain values.
    """
    from dataclasses import asdict, replace

    from engine.live.journal import Journal
    from engine.live.spec import read_spec
    from engine.monitoring.account_replay import traded_hours
    from engine.monitoring.calibration import calibrate
    from engine.validation.thresholds import GateFile

    file, spec = GateFile.read(gates), read_spec(path)
    config = replace(spec.config, data=replace(spec.config.data, cache=cache or spec.config.data.cache))
    entries = Journal(journal).entries
    with waiting("Fitting the fills ..."):
        found = calibrate(entries, config, traded_hours(entries, config))
    own, other = config, found.config(config)
    with waiting("Running the promoted run under both costs ..."):
        panel = _run_panel(spec, config)
        outcomes = [_outcome(costs, spec, panel, file.gates) for costs in ([own, other] if found.suggested else [own])]
    content = {
        "journal": str(journal),
        **asdict(found),
        "costs": {"own": asdict(own.costs), "suggested": asdict(other.costs)},
        "runs": {
            name: {"metrics": metrics, "gates": [gate.to_json() for gate in checks]}
            for name, (checks, metrics) in zip(("own", "suggested"), (outcomes[0], outcomes[-1]), strict=True)
        },
    }
    if as_json:
        print_json(content)
    else:
        show_all(_terms_table(found), *_lines(found, own), *_tables(outcomes))


def _run_panel(spec: StrategySpec, config: RunConfig) -> Panel:
    """The panel of the promoted run; what is sealed stays sealed."""
    from dataclasses import replace

    run = spec.gates.get("run") or {}  # a spec of before runs were recorded has the span of its config
    data = replace(config.data, start=run.get("start", config.data.start), end=run.get("end", config.data.end))
    return research_panel(replace(config, data=data), REPORTS)


def _outcome(
    config: RunConfig, spec: StrategySpec, panel: Panel, thresholds: Any
) -> tuple[tuple[Check, ...], dict[str, Any]]:
    from engine.promotion.gates import cost_gates
    from engine.provenance import as_json

    checks, metrics = cost_gates(config, spec, panel, thresholds)
    return checks, as_json({name: metrics[name] for name in METRICS if name in metrics})


def _terms_table(found: Calibration) -> Table:
    from rich.table import Table

    table = Table(title=f"Slippage of {found.orders} orders on {found.days} days", title_justify="left")
    for name in ("", "fitted", "90 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    units = {
        "constant": "constant, bps",
        "half_spread": "by bp of half spread",
        "size": "by hour's volume, bps",
        "slippage": "mean by notional, bps",
    }
    for term in (*found.terms, found.slippage):
        table.add_row(units[term.name], f"{term.value:+.3f}", f"{term.low:+.3f} to {term.high:+.3f}")
    return table


def _lines(found: Calibration, config: RunConfig) -> list[str]:
    from dataclasses import asdict

    own = asdict(config.costs)
    changed = ", ".join(f"costs.{name} = {value} (was {own[name]})" for name, value in found.suggested.items())
    return [
        f"Modelled: {found.model_bps:.3f} bps",
        f"Suggested: {changed}" if changed else "Suggested: nothing, the model's slippage lies in the interval",
        f"For 1 bp to either side it takes about {found.days_needed} days of trading",
    ]


def _tables(outcomes: list[tuple[tuple[Check, ...], dict[str, Any]]]) -> list[Table]:
    """The run and its gates under the spec's costs and, where they differ, the suggested ones."""
    from rich.table import Table

    heads = ["costs of the spec", "suggested costs"][: len(outcomes)]
    figures, gates = Table(title="The promoted run", title_justify="left"), Table(title="Gates", title_justify="left")
    for table, first in ((figures, ["metric"]), (gates, ["gate", "required"])):
        for name in [*first, *heads]:
            table.add_column(name, justify="left" if name in ("metric", "gate") else "right")
    for name in outcomes[0][1]:
        values = [metrics[name] for _, metrics in outcomes]
        figures.add_row(name, *("n/a" if value is None else f"{value:,.4g}" for value in values))
    for checks in zip(*(checks for checks, _ in outcomes), strict=True):
        gates.add_row(checks[0].name, checks[0].required, *(f"{check.value_text} {check.outcome}" for check in checks))
    return [figures, gates]
