"""Sentences on what a run models and what it leaves out, from its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.clock import WEEKDAYS, every_days_in_words


def modelled(record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Sentences on what the run of this ``run.json`` models, and on what it does not."""
    execution, costs, account = (record["config"][name] for name in ("execution", "costs", "account"))
    delay = execution["delay_hours"]
    included = [
        f"{_schedule(execution)}, traded {f'{delay} h later' if delay else 'at that instant'}, on data known just "
        "before.",
        "Taker fills: the quoted bid or ask where the data have both, else mid plus or minus "
        f"{costs['half_spread_bps']:g} bps.",
        _fees(costs),
        f"Orders below {execution['min_notional_usd']:g} USD are not sent, full closes excepted; sizes are "
        + ("cut to the coin's lot where it is known." if execution["lots"] else "not cut to lots."),
        f"A held coin without a price for {execution['stale_hours']} hours is settled at its last price.",
        "A coin that cannot be traded keeps its position; its weight "
        + ("stays in cash." if execution["untradable"] == "cash" else "is spread over the coins that can."),
    ]
    excluded = [
        "Price impact: an order of any size fills at the quote." if costs["impact"] == "none" else "",
        "Partial fills, rejects and the queue of resting orders.",
        "Trading between decisions.",
        "Latency, outages of the venue and auto-deleveraging.",
        "Staged liquidation of large positions.",
    ]
    if costs["impact"] == "venue":
        included.append(
            "Price impact: linear up to the size of the venue's own impact prices, with the square root beyond; "
            f"{costs['impact_bps']:g} bps at that size where the data have no impact price."
        )
    # A run of a version before does not know the share.
    figures = record.get("metrics", {})
    share, paid = figures.get("funding_missing_frac", 0.0), figures.get("funding_usd", 0.0)
    alone = int(figures.get("isolated_liquidations", 0))
    settled = costs["funding"] and (share < 1.0 or paid != 0.0)
    (included if settled else excluded).append(_funding(costs, share, settled))
    (included if account["margin"] else excluded).append(
        "Margin: the book is liquidated when equity falls under the maintenance margin (where the coins' leverage is "
        "unknown, at zero)."
        if account["margin"]
        else "Margin calls and liquidation: equity may become negative."
    )
    if alone:
        included.append(f"Isolated margin, coin by coin: {alone:,} positions lost theirs and were liquidated.")
    included += _parts(execution)
    if costs.get("stress", 1.0) != 1.0:
        included.append(f"Stress test: fees, spread and impact cost {costs['stress']:g} times their model.")
    included += _overlays(execution)
    return included, [sentence for sentence in excluded if sentence]


def _schedule(execution: Mapping[str, Any]) -> str:
    text = "Decisions"
    if execution["every_days"] > 1:
        text += f" {every_days_in_words(execution['every_days'])}"
    text += f" at {execution['hour_utc']:02d}:00 UTC"
    if tuple(execution["weekdays"]) != WEEKDAYS:
        text += f" on {', '.join(execution['weekdays'])} only"
    return text


def _fees(costs: Mapping[str, Any]) -> str:
    text = "HyperLiquid's dated base rates" if costs["taker_bps"] == "schedule" else f"{costs['taker_bps']:g} bps"
    if costs["fee_tiers"]:
        text += ", by tiers of the account's own volume of 14 days"
    if costs["maker_share_frac"]:
        text += f"; {costs['maker_share_frac']:.0%} of every fill at the maker's rate"
    for name in ("staking", "referral"):
        if costs[f"{name}_discount_frac"]:
            text += f"; {costs[f'{name}_discount_frac']:.1%} off for {name}"
    return f"Taker fees: {text}."


def _funding(costs: Mapping[str, Any], share: float, settled: bool) -> str:
    if not settled:
        return "Funding: the data have no rate of any hour held." if costs["funding"] else "Funding."
    if share == 0.0:
        return "Funding, hourly, on the positions held."
    paid = "pay a mean rate" if costs["funding_missing"] == "mean" else "cost nothing"
    return f"Funding, hourly, where the data have a rate: {share:.2%} of the hours held have none and {paid}."


def _parts(execution: Mapping[str, Any]) -> list[str]:
    """Sentences on bands and on the part of the way that is traded; keys that a config leaves out have no effect."""
    band, by_coin = execution["no_trade_band_frac"], execution.get("no_trade_band_coins", ())
    edge, rate = execution.get("no_trade_band", "skip") == "to_edge", execution.get("trade_rate", 1.0)
    widths = [f"{band:.2%} of equity", *(f"{coin} {width:.2%}" for coin, width in by_coin)]
    sentences = []
    if band or any(width for _, width in by_coin):
        what = "Positions are traded to the edge of a band around their target" if edge else "Orders within a band"
        sentences.append(f"{what} of {', '.join(widths)}{'' if edge else ' are not sent'}, closes excepted.")
    if rate < 1.0:
        sentences.append(
            f"A decision trades {rate:.4g} of the way to the target; a close whose rest is small is whole."
        )
    return sentences


def _overlays(execution: Mapping[str, Any]) -> list[str]:
    sentences = []
    if execution["leverage"] != 1.0:
        sentences.append(f"Weights are multiplied by {execution['leverage']:g}.")
    if execution["target_volatility"]:
        risk = execution.get("volatility_model") == "risk"
        by = "as the risk model expects it" if risk else f"measured over {execution['volatility_days']} days before it"
        sentences.append(f"Each row is scaled to a volatility of {execution['target_volatility']:.0%} a year, {by}.")
    if execution["tranches"] > 1:
        sentences.append(f"A decision renews 1/{execution['tranches']} of the book.")
    if execution["gross_cap"]:
        sentences.append(f"Rows with a gross above {execution['gross_cap']:g} are scaled down to it.")
    return sentences
