"""Tables and lines of ``hlbt live``: plans, orders, the status of an account."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from engine.live.orders import Outcome, Plan


def plan_tables(plan: Plan) -> list[Any]:
    """A plan: the account, the orders, the targets that are skipped and why."""
    from rich.table import Table

    from engine.clock import show

    head = Table(title=f"Plan for {show(plan.instant)}", title_justify="left", show_header=False)
    if math.isnan(plan.equity_usd):
        head.add_row("Equity, USD", "not known")
    else:
        head.add_row("Equity, USD", f"{plan.equity_usd:,.2f}")
        head.add_row("Gross before, after", f"{plan.gross_before:.3f}, {plan.gross_after:.3f}")
        head.add_row("Net before, after", f"{plan.net_before:+z.3f}, {plan.net_after:+z.3f}")
    head.add_row("Targets", f"{len(plan.weights)} coins")
    head.add_row("Expected costs, USD, paid -", f"{-plan.cost_usd:z,.2f}")
    orders = Table(title=f"{len(plan.orders)} orders", title_justify="left")
    for name in ("coin", "", "units", "mid", "USD", "target", "costs, paid -"):
        orders.add_column(name, justify="left" if name in ("coin", "") else "right", no_wrap=True)
    for order in sorted(plan.orders, key=lambda order: -order.notional_usd):
        weight = plan.weights.get(order.coin, 0.0)
        orders.add_row(
            order.coin,
            order.action,
            f"{order.units:+,.8g}",
            f"{order.mid:,.6g}",
            f"{order.notional_usd:,.2f}",
            f"{weight:+.2%}",
            f"{-order.spread_usd - order.impact_usd - order.fee_usd:z,.2f}",
        )
    no_order = f"without a quote: {', '.join(plan.unreachable)}" if plan.unreachable else "the book is at its target"
    tables: list[Any] = [head, orders] if plan.orders else [head, f"No order: {no_order}."]
    if plan.parts:
        tables.insert(1, parts_table(plan.parts))
    if plan.skips:
        skips: Table = Table(title=f"{len(plan.skips)} skipped", title_justify="left")
        for name in ("coin", "target", "held", "why"):
            skips.add_column(name)
        for skip in plan.skips:
            skips.add_row(skip.coin, f"{skip.target_weight:+.2%}", f"{skip.units:+,.8g}", skip.reason)
        tables.append(skips)
    return tables


def parts_table(parts: Mapping[str, Any]) -> Table:
    """What each spec of a book wants."""
    from rich.table import Table

    table = Table(title=f"{len(parts['shares'])} specs", title_justify="left")
    for name in ("spec", "share", "equity, USD", "", "wants, USD", "saved by netting"):
        table.add_column(name, justify="left" if name in ("spec", "") else "right", no_wrap=True)
    for name, part in sorted(parts["specs"].items(), key=lambda item: (item[0] not in parts["shares"], item[0])):
        wants = math.fsum(abs(units) * parts["mids"][coin] for coin, units in part["wanted"].items())
        if name in parts["shares"] or part["equity_usd"] or wants:
            share = f"{part['share']:.0%}" if part["share"] else ""
            row = f"{part['equity_usd']:,.2f}", part["state"], f"{wants:,.2f}", f"{part['saved_usd']:,.2f}"
            table.add_row(name, share, *row)
    return table


def book_table(book: Mapping[str, Any]) -> Table:
    """What each spec of a book owns, and what it came from."""
    from rich.table import Table

    table = Table(title=f"Book of {book['equity_usd']:,.2f} USD", title_justify="left")
    for name in ("spec", "share", "now", "equity, USD", "prices", "costs, paid -", "saved"):
        table.add_column(name, justify="left" if name == "spec" else "right", no_wrap=True)
    for row in book["specs"]:
        now = "" if row["share_now"] is None else f"{row['share_now']:.1%}"
        costs = math.fsum((row["slippage_usd"], row["fee_usd"], row["funding_usd"]))
        money = f"{row['equity_usd']:,.2f}", f"{row['price_pnl_usd']:+z,.2f}", f"{-costs:+z,.2f}"
        share = f"{row['share']:.0%}" if row["share"] else ""
        table.add_row(row["name"], share, now, *money, f"{row['saved_usd']:,.2f}")
    return table


def orders_table(outcome: Outcome) -> Table | str:
    """The orders that were sent, with their results."""
    from rich.table import Table

    if not outcome.results:
        return "No order was sent."
    table = Table(title=f"{len(outcome.results)} orders sent", title_justify="left")
    for name in ("coin", "units", "limit", "filled", "price", "status"):
        table.add_column(name, justify="left" if name in ("coin", "status") else "right")
    for order, result in outcome.results:
        price = "" if result.price is None else f"{result.price:,.6g}"
        status = result.fate + (f": {result.reason}" if result.reason else "")
        table.add_row(
            order.coin, f"{order.units:+,.8g}", f"{order.limit_price:,.6g}", f"{result.units:+,.8g}", price, status
        )
    return table


def status_lines(status: dict[str, Any]) -> list[str]:
    """The status of a journal, and of the account where it was read, in a few lines."""
    costs, drift = status["costs"], status["drift"]

    def bps(name: str) -> str:
        return "n/a" if costs[name] is None else f"{-costs[name]:+z.2f}"

    lines = [*answer_lines(status)] if "answers" in status else []
    lines += [
        f"{status['journal']}: rebalances: {len(status['runs'])}, orders filled: {costs['orders']}, "
        f"{costs['notional_usd']:,.0f} USD",
        f"Received +, paid -: slippage {bps('slippage_bps')} bps (model {bps('model_slippage_bps')}), fee "
        f"{bps('fee_bps')} bps (model {bps('model_fee_bps')})",
        f"Drift {drift['rows'][-1]['drift_frac']:+z.3%}" if drift["rows"] else f"Drift n/a: {drift['reason']}",
        f"Missed orders: {len(status['missed'])}",
    ]
    if status["unresolved"]:
        lines.append(f"Orders of unknown status: {len(status['unresolved'])}; the next run looks them up.")
    if status["next_instant"]:
        lines.append(f"Next orders belong to {status['next_instant']}")
    if account := status.get("account"):
        lines.append(
            f"Account {account['label']}: {account['equity_usd']:,.2f} USD, {len(account['positions'])} positions"
        )
        from engine.live.orders import dex_text

        lines += [f"  {usd:,.2f} USD on {dex_text(dex)}" for dex, usd in account["funds_usd"].items()]
        for coin, held in account["positions"].items():
            weight = "" if held["weight"] is None else f", {held['weight']:+.2%}"
            lines.append(f"  {coin}: {held['units']:+,.8g} at {held['price']:,.6g} USD{weight}")
        lines += [
            f"  NOT EXPLAINED by any journal: {coin}: journal {pair['journal']:g}, account {pair['account']:g}"
            for coin, pair in account["unexplained"].items()
        ]
        lines += [f"  {note}" for note in account["notes"]]
    return lines


def answer_lines(status: dict[str, Any]) -> list[str]:
    """The three answers, a line each, after the demotion that stands."""
    answers = status["answers"]
    lines = [] if status["demotion"] is None else [status["demotion"]["says"]]
    for name, part in (("Plan = replay", "plan"), ("Costs", "costs"), ("Edge", "edge")):
        lines.append(f"{name} {answers[part]['state'].upper()}: {answers[part]['text']}")
    track = status["track"]
    if track is not None and (track["caught_up"] or track["missed"]):
        late, missed = len(track["caught_up"]), len(track["missed"])
        lines.append(f"Instants traded: {track['days']}, {late} of them afterwards; missed: {missed}")
    return lines


def log_lines(orders: list[dict[str, Any]]) -> list[str]:
    """The orders of a journal, a line each."""
    lines = []
    for order in orders:
        side, size = ("buy" if order["units"] > 0.0 else "sell"), abs(order["units"])
        line = f"{order['time'][:19]}  {order['coin']}  {side} {size:,.8g}, limit {order['limit_price']:,.6g}"
        line += f": {order['status']}"
        if order["status"] == "filled":
            price = "" if order["price"] is None else f" at {order['price']:,.6g} USD"
            fee = "" if order["fee_usd"] is None else f", fee {order['fee_usd']:,.4f} USD"
            line += f" {abs(order['filled_units']):,.8g}{price}{fee}"
        lines.append(line + (f" ({order['reason']})" if order["reason"] else ""))
    return lines
