"""The page of ``hlbt capacity``: net Sharpe ratio and costs by account size, and the assumptions of the model."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from engine.config import RunConfig
from engine.errors import join_first
from engine.panel import Panel
from engine.provenance import Origin
from engine.reporting import charts
from engine.reporting.html import ratio, render, span, usd, write_page
from engine.simulation.capacity import COSTS, LARGE_SHARE, Limits, limits

#: Cost -> its name on the page; colours are those of the tearsheet.
_NAMES = {"fee": "fees", "spread": "spread", "impact": "impact", "funding": "funding"}


def write_capacity(path: Path, table: pd.DataFrame, panel: Panel, config: RunConfig, origin: Origin) -> Path:
    """Write the page of a table of :func:`engine.simulation.capacity.capacity`.

    Raises
    ------
    DataError
        When it cannot be written.
    """
    index = panel.index
    page = render(
        "capacity.html",
        origin=origin,
        synthetic=panel.synthetic,
        notes=panel.notes,
        span=span(index[0], index[-1]),
        coins=len(panel.coins),
        config=config,
        rows=table.to_dict("records"),
        conclusions=conclusions(table, limits(table)),
        charts=_drawings(table),
        model=impact_model(panel, config),
        assumed=config.costs.impact == "venue" and not _published(panel),
        large=LARGE_SHARE,
        volume=bool(table["volume_share_median"].notna().any()),
    )
    return write_page(path, page)


def conclusions(table: pd.DataFrame, reached: Limits) -> list[tuple[str, str]]:
    """Labels and texts of the results; the first is the headline: how large an account the market can take."""
    refused = table["refused"].notna() if "refused" in table else pd.Series(False, table.index)
    sizes = table["equity_usd"]
    beyond = f"not reached up to {usd(sizes[~refused].iloc[-1], 0)} USD"
    rows = []
    if table["volume_share_median"].notna().any():
        rows.append(
            (f"median order takes {LARGE_SHARE:.0%} of the hour's volume", _account(reached.volume_usd, beyond))
        )
    if math.isnan(reached.best_sharpe):
        rows += [("net Sharpe", "not defined at any size: nothing was traded, or all daily returns are equal")]
    elif reached.best_sharpe <= 0.0:
        rows += [("highest net Sharpe", f"{ratio(reached.best_sharpe)}: it is positive at no size")]
    else:
        rows += [
            ("highest net Sharpe", f"{ratio(reached.best_sharpe)} with {usd(reached.best_usd, 0)} USD"),
            ("net Sharpe halves", _account(reached.halves_usd, beyond)),
            ("net Sharpe falls below 0", _account(reached.below_zero_usd, beyond)),
        ]
    if refused.any():
        listed = join_first(map(charts.short_usd, sizes[refused]), 3)
        rows += [("needs more initial margin than it has", f"an account of {listed} USD")]
    return rows


def _account(size: float, beyond: str) -> str:
    return beyond if math.isnan(size) else f"at about {charts.short_usd(float(f'{size:.2g}'))} USD"


def impact_model(panel: Panel, config: RunConfig) -> list[str]:
    """How the cost of size is modelled in this run, in sentences."""
    costs = config.costs
    if costs.impact == "none":
        return [
            "Price impact is off (costs.impact = none): an order of any size fills at the quote, so nothing on this "
            "page but lots, minimum orders and fee tiers depends on the size of the account."
        ]
    fixed = f"by costs.impact_bps = {costs.impact_bps:g} bps"
    return [
        "HyperLiquid publishes impact prices: the average fill of an order of 20,000 USD in BTC and ETH and of 6,000 "
        "USD in every other coin. How far that price lies beyond the quote is the impact of an order of that size.",
        "A smaller order pays in proportion to its size; a larger one with the square root of its size, four times the "
        "order twice the impact. That is an extrapolation: large accounts trade far beyond what the venue publishes.",
        f"Where a row has no impact price, an order of that size is taken to move the price {fixed}."
        if _published(panel)
        else f"These data have no impact prices: every order of that size is taken to move the price {fixed}. "
        "The result depends on that number; set it to your own estimate.",
        "Not modelled: an impact that lasts beyond the order, an order spread over hours, a limit on the share of the "
        "volume. Where the share of the hour's volume is large, read the figures as too good.",
    ]


def _published(panel: Panel) -> bool:
    return "impact_ask" in panel.fields and "impact_bid" in panel.fields


def _drawings(table: pd.DataFrame) -> dict[str, Markup]:
    sizes = table["equity_usd"].to_numpy()
    costs = {_NAMES[cost]: -table[f"{cost}_yearly"] for cost in COSTS}
    shares = {"median order": table["volume_share_median"], "95th percentile": table["volume_share_p95"]}
    colours = charts.COLOURS
    return {
        "sharpe": charts.by_size(
            "Net Sharpe by account size", sizes, {"net Sharpe": table["sharpe"]}, [colours["net"]]
        ),
        "costs": charts.by_size(
            "Costs a year by account size",
            sizes,
            {**costs, "all": -table["cost_yearly"]},
            [*(colours[name] for name in costs), colours["net"]],
            percent=True,
        ),
        "shares": charts.by_size(
            "Share of the hour's volume by account size",
            sizes,
            shares,
            [colours["price"], colours["spread"]],
            percent=True,
            log=True,
        ),
    }
