"""The account against its own replay: its equity beside a backtest of the same weights, instant by instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.config import Execution, RunConfig
from engine.errors import DataError, HlbtError, InitialMarginError, WeightsError
from engine.panel import Panel

#: A plan that was made further from its instant traded at other prices than the hour's that its replay has.
FAR: Final = pd.Timedelta(minutes=15)


def drift(plans: Sequence[Mapping[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Live equity against a backtest of the same weights over the cache, at each instant before its trade.

    Returns
    -------
    dict
        ``rows`` (instant, live_usd, backtest_usd, drift_frac), ``reason`` (why there are none) and ``synthetic``
        (whether the cache holds synthetic data).
    """
    newest, synthetic = _newest_of_each(plans), _synthetic(config)
    if len(newest) < 2:
        return {"rows": [], "reason": "It takes two rebalances.", "synthetic": synthetic}
    try:
        rows = _drift(newest, config, _cached(newest, config))
    except HlbtError as error:
        return {"rows": [], "reason": str(error), "synthetic": synthetic}
    return {"rows": rows, "reason": "", "synthetic": synthetic}


def _synthetic(config: RunConfig) -> bool:
    """Whether the cache holds synthetic data; one that cannot be read has none (``reason`` names it)."""
    from engine.data.cache import Store
    from engine.data.panel_loader import cache_path

    try:
        manifest = Store(cache_path(config.data.cache)).manifest()
    except HlbtError:
        return False
    return manifest is not None and manifest.synthetic


def account_differences(entries: Sequence[Mapping[str, Any]], config: RunConfig, panel: Panel) -> pd.Series:
    """By how much less an account made than its replay, since the instant before, in basis points of equity.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal; where equity was accepted, after a deposit say, another account begins.
    config : RunConfig
        Of the strategy.
    panel : Panel
        From the cache.

    Returns
    -------
    Series
        By trade instant; those without a certain equity, or that the panel lacks, are left out. So are those that
        compare prices of different minutes: after a flatten, and before and after a plan that was made more than
        :data:`FAR` from its instant, for the cache has the prices of whole hours alone.
    """
    groups: list[list[Mapping[str, Any]]] = [[]]
    for entry in entries:
        if entry["kind"] == "plan":
            groups[-1].append(entry)
        elif entry["kind"] == "equity_accepted":
            groups.append([])
    parts = []
    for plans in map(_newest_of_each, groups):
        with suppress(DataError, WeightsError, InitialMarginError):  # fewer than two instants, or of another cache
            rows = _drift(plans, config, panel)
            ratio = pd.Series(
                [np.log1p(row["drift_frac"]) for row in rows],
                pd.DatetimeIndex([pd.Timestamp(row["instant"]) for row in rows]),
            )
            before, after = _not_comparable(plans)
            values = -1e4 * ratio.diff()
            parts.append(values[~(ratio.index.isin(before) | (ratio.index.to_series().shift().isin(after)))].dropna())
    kept = [part for part in parts if len(part)]
    return pd.concat(kept) if kept else pd.Series(dtype=np.float64, index=pd.DatetimeIndex([], tz="UTC"))


def traded_hours(entries: Sequence[Mapping[str, Any]], config: RunConfig) -> Panel | None:
    """The cached hours from the first plan of a journal to its newest; None without a plan, or where none is cached."""
    plans = [entry for entry in entries if entry["kind"] == "plan"]
    with suppress(DataError):
        return _cached(plans, config) if plans else None
    return None


def _not_comparable(plans: Sequence[Mapping[str, Any]]) -> tuple[list[pd.Timestamp], list[pd.Timestamp]]:
    """Instants up to which, and those from which on, an account cannot be compared with its replay."""
    before, after = [], []
    for plan in plans:
        instant = pd.Timestamp(plan["instant"])
        far = abs(pd.Timestamp(plan["time"]) - instant) > FAR
        before += [instant] if far else []
        after += [instant] if far or plan.get("inputs", {}).get("closes_all") else []
    return before, after


def _newest_of_each(plans: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of several plans of an instant the last has the weights, and the first the equity before any trade."""
    newest: dict[str, Mapping[str, Any]] = {}
    for plan in plans:
        newest[plan["instant"]] = {**plan, "equity_usd": newest.get(plan["instant"], plan)["equity_usd"]}
    return list(newest.values())


def _cached(plans: Sequence[Mapping[str, Any]], config: RunConfig) -> Panel:
    from engine.data.panel_loader import load_whole_panel

    instants = [pd.Timestamp(plan["instant"]) for plan in plans]
    return load_whole_panel(config.data.cache, min(instants), max(instants), config.data.selection, config.data.hours)


def _drift(plans: Sequence[Mapping[str, Any]], config: RunConfig, panel: Panel) -> list[dict[str, Any]]:
    from engine.simulation.backtest import backtest

    instants = pd.DatetimeIndex([pd.Timestamp(plan["instant"]) for plan in plans])
    inside = instants.isin(panel.index)
    if inside.sum() < 2:
        raise DataError("The cache has fewer than two of the instants that were traded: it ends before the newest.")
    covered = [plan for plan, known in zip(plans, inside, strict=True) if known]
    if covered[0]["equity_usd"] is None:
        raise DataError("The equity of the first instant of the cache that was traded is not known.")
    targets = [_traded_weights(plan) for plan in covered]
    # A coin that a row does not name is 0, null is a hold.
    coins = sorted({coin for row in targets for coin in row if coin in panel.coins})
    rows_of = [[np.nan if (weight := row.get(coin, 0.0)) is None else weight for coin in coins] for row in targets]
    held = pd.DataFrame(rows_of, index=instants[inside], columns=coins, dtype=np.float64)
    default = Execution()
    execution = replace(
        config.execution,
        leverage=1.0,
        target_volatility=0.0,
        tranches=1,
        gross_cap=0.0,
        delay_hours=0,
        every_days=default.every_days,
        weekdays=default.weekdays,
    )
    start = covered[0]["equity_usd"]
    account = replace(config.account, initial_equity_usd=start, max_gross=100.0, initial_margin=False)
    result = backtest(panel, held, replace(config, execution=execution, account=account))
    flows = result.attribution.drop(columns="price_pnl_usd").sum(axis=1)
    before = (result.equity + flows).reindex(held.index)
    return [
        {
            "instant": instant.isoformat(),
            "live_usd": plan["equity_usd"],
            "backtest_usd": float(model),
            "drift_frac": plan["equity_usd"] / float(model) - 1.0,
        }
        for instant, plan, model in zip(held.index, covered, before, strict=True)
        if plan["equity_usd"] is not None  # everything was closed while it was not known
    ]


def _traded_weights(entry: Mapping[str, Any]) -> Mapping[str, float | None]:
    """The weights that a plan traded, null = hold: those of a demoted strategy only where they are reductions."""
    plan = entry["plan"]
    if not entry.get("reduces_only"):
        return dict.fromkeys(plan["positions"]) if entry.get("holds") else plan["weights"]
    traded: dict[str, float | None] = {}
    for coin, units in plan["positions"].items():
        weight, price = plan["weights"].get(coin, 0.0), plan["prices"].get(coin)
        if weight is None or price is None:
            traded[coin] = None
        elif weight * units <= 0.0:
            traded[coin] = 0.0  # a flip is a close
        else:
            smaller = abs(weight) * plan["equity_usd"] < abs(units) * price
            traded[coin] = weight if smaller else None
    return traded
