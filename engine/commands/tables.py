"""Tables of the command line. rich is imported when something is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import pandas as pd
    from rich.table import Table
    from rich.text import Text

    from engine.checks import Check
    from engine.provenance import Origin
    from engine.simulation.result import Result
    from engine.sweeps.study import Study


def _usd(value: float) -> str:
    return f"{round(value, 2) + 0.0:,.2f}"  # + 0.0 turns -0.0 into 0.0


def _percent(value: float) -> str:
    """With its sign; what rounds to zero has none."""
    return "n/a" if value != value else f"{value:+.2%}" if round(value, 4) else "0.00%"


def _share(value: float) -> str:
    return "n/a" if value != value else f"{value:.1%}"


def _short(value: float, decimals: int = 1, sign: str = "-") -> str:
    """A share without decimals from 100 % on, so that a row of them fits a terminal."""
    return "n/a" if value != value else f"{value:{sign}.{0 if abs(value) >= 1.0 else decimals}%}"


def _ratio(value: float) -> str:
    return "n/a" if value != value else f"{value:z.2f}"  # z: no -0.00


def result_tables(result: Result, origin: Origin) -> list[Table | str]:
    """One run: its figures, and its profit by cause."""
    from rich.table import Table

    from engine.clock import show

    figures, index = result.metrics, result.panel.index
    title = f"{origin.name}: {show(index[0])} to {show(index[-1])}, {len(result.panel.coins)} coins"
    if result.panel.synthetic:
        title += "  [SYNTHETIC DATA]"
    numbers = Table(title=title, title_justify="left", show_header=False)
    # Figures count from the first decision that asks for something; where that is later, what the calendar gives, too.
    calendar = []
    if figures["days"] < figures["days_calendar"]:
        first = "never" if result.first_decision is None else f"{result.first_decision:%Y-%m-%d}"
        calendar.append(("First book, days counted", f"{first}, {figures['days']:,} of {figures['days_calendar']:,}"))
        calendar.append(("Over all days: Sharpe", _ratio(figures["sharpe_calendar"])))
    rows = (
        ("End equity, USD", _usd(figures["equity_end_usd"])),
        ("Total return", _percent(figures["total_return"])),
        ("CAGR", _percent(figures["cagr"])),
        ("Sharpe (365 days)", _ratio(figures["sharpe"])),
        *calendar,
        ("Max drawdown (hourly)", _percent(figures["max_drawdown"])),
        ("Turnover a decision", f"{figures['turnover_decision']:.1%} of equity"),
        ("Gross, net exposure", f"{figures['gross_mean']:.2f}, {round(figures['net_mean'], 2) + 0.0:+.2f}"),
        ("Decisions, trades", f"{figures['decisions']:,}, {figures['trades']:,}"),
        ("Skipped: under minimum, in band", f"{figures['skipped_min_notional']:,}, {figures['skipped_band']:,}"),
        ("Untradable orders, delistings", f"{figures['untradable_orders']:,}, {figures['delistings']:,}"),
        ("Held hours without a funding rate", _percent(figures["funding_missing_frac"])),
    )
    for row in rows:
        numbers.add_row(*row)
    notes = [
        f"NOTE: the data {verb} at {show(held)}, not at {show(wanted)} as set."
        for verb, wanted, held in (("start", result.config.start, index[0]), ("end", result.config.end, index[-1]))
        if wanted is not None and wanted != held
    ]
    if not figures["trades"]:
        notes.append("NOTE: no trade was made: every weight is 0, NaN, untradable or under the minimum.")
    if figures["isolated_liquidations"]:
        numbers.add_row("ISOLATED POSITIONS LIQUIDATED", f"{figures['isolated_liquidations']:,}")
    if figures["liquidated_at"]:
        numbers.add_row("LIQUIDATED AT", f"{figures['liquidated_at']}: {result.liquidation}")
    causes = Table(title="Profit by cause: received +, paid -", title_justify="left")
    for heading in ("", "USD", "of initial equity"):
        causes.add_column(heading, justify="right" if heading else "left")
    start = figures["equity_start_usd"]
    signed = {
        "Price": figures["price_pnl_usd"],
        **{name.capitalize(): -figures[f"{name}_usd"] for name in ("spread", "impact", "fee", "funding")},
    }
    for name, value in signed.items():
        causes.add_row(name, _usd(value), _percent(value / start))
    causes.add_row("Net", _usd(figures["equity_end_usd"] - start), _percent(figures["total_return"]), style="bold")
    return [numbers, causes, *notes]


def demo_table(made: list[tuple[Result, Origin, Path]]) -> Table:
    """The runs of the demo, a row each."""
    from rich.table import Table

    panel = made[0][0].panel
    span = f"{panel.index[0]:%Y-%m-%d} to {panel.index[-1]:%Y-%m-%d}"
    table = Table(
        title=f"SYNTHETIC SAMPLE: {len(panel.coins)} coins, {span}",
        title_justify="left",
        caption="Costs and funding: received +, paid -.",
        caption_justify="left",
    )
    for heading in ("oracle", "end USD", "return", "Sharpe", "max DD", "costs USD", "funding USD"):
        table.add_column(heading, justify="left" if heading == "oracle" else "right", no_wrap=True)
    for result, origin, _ in made:
        figures = result.metrics
        table.add_row(
            origin.name,
            f"{figures['equity_end_usd']:,.0f}",
            _percent(figures["total_return"]),
            _ratio(figures["sharpe"]),
            _percent(figures["max_drawdown"]),
            f"{-figures['fee_usd'] - figures['spread_usd'] - figures['impact_usd']:,.0f}",
            f"{-figures['funding_usd']:+,.0f}",
        )
    return table


def capacity_table(sizes: pd.DataFrame, name: str, synthetic: bool) -> Table:
    """Results by account size, a row each."""
    from rich.table import Table

    label = "  [SYNTHETIC DATA]" if synthetic else ""
    table = Table(
        title=f"Capacity of {name}{label}",
        title_justify="left",
        caption="A year, over mean equity: received +, paid -. Share of the hour's volume: median order.",
        caption_justify="left",
    )
    for heading in ("USD", "Sharpe", "CAGR", "fees", "spread", "impact", "funding", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sizes.to_dict("records"):
        if row["refused"]:
            table.add_row(f"{row['equity_usd']:,.0f}", "REFUSED")
            continue
        table.add_row(
            f"{row['equity_usd']:,.0f}",
            _ratio(row["sharpe"]),
            _short(row["cagr"], 2, "+"),
            *(_short(-row[f"{cost}_yearly"] + 0.0) for cost in ("fee", "spread", "impact", "funding")),
            _short(row["volume_share_median"], 2),
        )
        if row["liquidated_at"]:
            table.add_row("LIQUIDATED", row["liquidated_at"][:10])
    return table


#: Headings of the columns of :func:`checks_table`.
CHECK_COLUMNS = ("check", "meaning", "value", "required", "outcome", "result")


def checks_table(
    checks: Iterable[Check],
    title: str = "",
    columns: Collection[str] = CHECK_COLUMNS,
    words: Mapping[str, str] | None = None,
    overridden: Collection[str] = (),
) -> Table:
    """A check a row.

    Parameters
    ----------
    checks : iterable of Check
        In the order in which they are shown.
    title : str
        Shown as it is, without markup.
    columns : collection of str
        Of :data:`CHECK_COLUMNS`: ``check`` is the name, ``meaning`` the label, ``result`` the summary and the cure.
    words : mapping, optional
        Other words for outcomes: ``{"not computed": "skipped"}``.
    overridden : collection of str
        Names of the checks that may fail.

    Returns
    -------
    Table
        Checks that answer a question stand under it.
    """
    from rich.table import Table
    from rich.text import Text

    from engine.checks import QUESTIONS

    table = Table(title=Text(title) if title else None, title_justify="left")
    shown = [heading for heading in CHECK_COLUMNS if heading in columns]
    for heading in shown:
        folded = heading in ("meaning", "result")
        table.add_column(
            heading if heading != "outcome" else "",
            justify="right" if heading in ("value", "required") else "left",
            no_wrap=not folded,
            overflow="fold" if folded else "ellipsis",
        )
    group = ""
    styles = {"passed": "green", "failed": "bold red", "warning": "yellow", "not computed": "dim", "not asked": "dim"}
    for check in checks:
        outcome, style = check.outcome, styles[check.outcome]
        word = {"failed": "FAILED", **(words or {})}.get(outcome, outcome)
        if check.name in overridden and not check.passed:
            word, style = "OVERRIDDEN", "yellow"
        if check.group in QUESTIONS and check.group != group:
            group = check.group
            table.add_section()
            under = "meaning" if "meaning" in columns else "result"
            table.add_row(*(QUESTIONS[group] if heading == under else "" for heading in shown), style="bold")
        table.add_row(*(_cell(check, heading, word, style) for heading in shown))
    return table


def _cell(check: Check, heading: str, word: str, style: str) -> Text:
    """One cell of a check: of the column of that heading."""
    from rich.text import Text

    if heading == "outcome":
        return Text(word, style=style)
    if heading == "result":
        return Text(f"{check.summary}\n-> {check.cure}" if check.cure and not check.passed else check.summary)
    names = {"check": "name", "meaning": "label", "value": "value_text"}
    return Text(getattr(check, names.get(heading, heading)))


def status_tables(content: dict[str, Any]) -> list[Any]:
    """Contents of the cache: coverage by month, gaps, listings, delistings and renames."""
    label = "  [SYNTHETIC DATA]" if content["synthetic"] else ""
    head = (
        f"{content['path']}: {content['coins']} coins, {content['start']} to {content['end']}, "
        f"{content['rows']:,} rows, {content['bytes'] / 1e6:.1f} MB{label}"
    )
    tables = [_coverage(content, content["fields"][first : first + 6]) for first in range(0, len(content["fields"]), 6)]
    return [
        head,
        *tables,
        *(
            _first(title, [f"{gap['coin']} {gap['hours']} h from {gap['first']}" for gap in content[key]])
            for title, key in (("Gaps", "gaps"), ("Funding gaps", "funding_gaps"))
        ),
        _first(
            "Objects that end early",
            [
                f"{item['key']} at {item['last']}, {item['hours_without_price']} h without a price"
                for item in content["short_objects"]
            ],
        ),
        _first(
            "Odd prices (a jump over a hole, or a spike that came back)",
            [
                f"{move['coin']} {move['kind']} x{move['ratio']:.4g}, {move['from']} to {move['to']}"
                for move in content["odd_moves"]
            ],
        ),
        _first("Listed", [f"{event['coin']} {event['time']}" for event in content["listings"]]),
        _first("Delisted", [f"{event['coin']} {event['time']}" for event in content["delistings"]]),
        _first("Possibly renamed", [f"{pair['from']} to {pair['to']} {pair['time']}" for pair in content["renames"]]),
    ]


def _coverage(content: dict[str, Any], names: list[str]) -> Table:
    """Coverage by month of some fields, as many as fit on a narrow terminal."""
    from rich.table import Table

    months = Table(title="Coverage: share of the listed coins' hours that hold a value", title_justify="left")
    months.add_column("month", no_wrap=True)
    for name in names:
        months.add_column(name, justify="right", overflow="fold")
    for month in content["months"]:
        shares = (month["coverage"].get(name) for name in names)
        months.add_row(month["month"], *("-" if share is None else f"{share:.1%}" for share in shares))
    return months


def _first(title: str, lines: list[str], limit: int = 12) -> str:
    """A titled list of at most `limit` lines."""
    if not lines:
        return f"{title}: none"
    more = f"\n  ... and {len(lines) - limit} more (--json lists them)" if len(lines) > limit else ""
    return f"{title}: {len(lines)}\n  " + "\n  ".join(lines[:limit]) + more


def cost_table(plan: dict[str, Any]) -> Table:
    """Cost of a range of the archive, a dataset a row."""
    from rich.table import Table

    table = Table(
        title=f"Transfer out of AWS at {plan['usd_per_gb']:g} USD per GB (1e9 bytes), requests included",
        title_justify="left",
    )
    for heading in ("dataset", "objects", "GB", "new", "GB", "USD"):
        table.add_column(heading, justify="left" if heading == "dataset" else "right")
    for name, bill in plan["datasets"].items():
        table.add_row(
            name,
            f"{bill['objects']:,}",
            f"{bill['bytes'] / 1e9:,.3f}",
            f"{bill['new_objects']:,}",
            f"{bill['new_bytes'] / 1e9:,.3f}",
            f"{bill['usd']:,.4f}",
        )
    table.add_row("listings", f"{plan['listings']:,}", "", "", "", "")
    table.add_row("all", "", "", "", "", f"{plan['usd']:,.4f}", style="bold")
    return table


def sweep_table(study: Study, rows: int = 10) -> Table:
    """The best sets of a study by Sharpe ratio, a parameter a column."""
    from rich.table import Table

    sets = study.record["sets"]
    title = f"{study.record['name']}: {len(study):,} sets, {sets['reused']:,} reused"
    if study.record["synthetic"]:
        title += "  [SYNTHETIC DATA]"
    table = Table(title=title, title_justify="left")
    ranking = study.ranking()[:rows]
    best_sets = [(study.params(int(row)), study.table.iloc[row]) for row in ranking]
    # Where sets do not trade on the same days they are ranked by the days on which all do.
    joint, apart = [_ratio(value) for value in study.sharpe_joint[ranking]], study.joint_differs
    for chosen, _ in best_sets:
        if "oracle" in chosen:
            chosen["oracle"] = str(chosen["oracle"]).rpartition(":")[2]
    for name in best_sets[0][0]:
        values = [chosen[name] for chosen, _ in best_sets]
        words = any(isinstance(value, str) for value in values)
        # On a narrow terminal names and texts are folded, numbers never.
        width = None if words else max(len(str(value)) for value in values)
        heading = name.rpartition(".")[2]
        table.add_column(heading, justify="left" if words else "right", overflow="fold", min_width=width)
    for name in (*(["joint Sharpe"] if apart else []), "Sharpe", "CAGR", "drawdown", "turnover"):
        table.add_column(name, justify="right", no_wrap=True)
    for (chosen, row), ratio in zip(best_sets, joint, strict=True):
        table.add_row(
            *map(str, chosen.values()),
            *([ratio] if apart else []),
            _ratio(row["sharpe"]),
            _percent(row["cagr"]),
            _percent(row["max_drawdown"]),
            _share(row["turnover_daily"]),
        )
    return table
