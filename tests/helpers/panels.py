"""Made-up panels, weights and configs for tests: plausible ones by seed, and nasty ones as hypothesis strategies.

A strategy draws one seed and a few knobs, and numpy does the rest: a case costs a handful of draws however many floats
it holds, and shrinking turns the knobs off one by one. Prices move every row, so that an order is not a rounding error
of 0 by construction: whether such an order is one would depend on the order of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from engine.clock import decision_instants, hourly_index
from engine.coin import FeeTerms
from engine.config import RunConfig
from engine.panel import Coin, Panel

START = pd.Timestamp("2024-10-01T00:00Z")
STYLES = ("dense", "sparse", "holds", "zero", "flip", "tiny", "huge", "idle")


# Plausible ------------------------------------------------------------------------------------------------------------


def random_panel(
    seed: int,
    hours: int,
    coins: int,
    *,
    quotes: bool = True,
    funding: bool = True,
    oracle: bool = True,
    table: bool = True,
    volume: bool = True,
    impact: bool = False,
    tiers: bool = False,
    extremes: bool = False,
) -> Panel:
    """A random walk without holes in its prices; the switches say which fields it has.

    Prices start between 1e-4 and 1e5. Funding has both signs and 2 % NaN, 3 % of the hours are without volume, `oracle`
    brings ``mark`` too, with 2 % NaN in each, and `table` gives every coin a lot and a leverage, with `tiers` half of
    them margin tiers. `impact` brings impact prices 0.1 to 20 bps beyond the quote, with 2 % NaN in each, and names
    the first two coins BTC and ETH. `extremes` brings the high and low of the hour, with 2 % NaN in each.
    """
    rng = np.random.default_rng(seed)
    shape = (hours, coins)
    mid = _walk(rng, shape, volatility=0.01)
    frames = {"mid": mid}
    if quotes:
        half = rng.uniform(0.5e-4, 10e-4, shape)
        frames |= {"bid": mid * (1 - half), "ask": mid * (1 + half)}
    if funding:
        frames["funding"] = _holes(rng, rng.normal(1e-5, 5e-5, shape), 0.02)
    if oracle:
        frames["oracle"] = _holes(rng, mid * rng.normal(1, 5e-4, shape), 0.02)
        frames["mark"] = _holes(rng, mid * rng.normal(1, 5e-4, shape), 0.02)
    if volume:
        frames["volume_usd"] = rng.lognormal(12, 1, shape) * (rng.random(shape) >= 0.03)
    names = _names(coins)
    if impact:
        names[:2] = ["BTC", "ETH"][:coins]
    rows = [_coin(rng, name) for name in names] if table else None
    if impact:
        beyond = rng.uniform(0.1e-4, 20e-4, shape)
        frames["impact_bid"] = _holes(rng, frames.get("bid", mid) * (1 - beyond), 0.02)
        frames["impact_ask"] = _holes(rng, frames.get("ask", mid) * (1 + beyond), 0.02)
    if extremes:
        frames["high"], frames["low"] = (_holes(rng, values, 0.02) for values in _extremes(rng, mid, 0.01))
    if rows and tiers:
        rows = [_tiered(rng, coin) if rng.random() < 0.5 else coin for coin in rows]
    return Panel.from_frames(table=rows, **_framed(frames, names))


def random_weights(
    seed: int, panel: Panel, *, gross: float = 1.0, styles: Sequence[str] = STYLES, every_days: int = 1
) -> pd.DataFrame:
    """One row a decision instant (23:00) of `panel`, each of a random style, with ``sum(abs)`` under `gross`."""
    decisions = decision_instants(panel.index, every_days=every_days)
    values = _weight_rows(np.random.default_rng(seed), len(decisions), len(panel.coins), gross, styles)
    return pd.DataFrame(values, index=decisions, columns=list(panel.coins))


def _weight_rows(rng: np.random.Generator, rows: int, coins: int, gross: float, styles: Sequence[str]) -> np.ndarray:
    values = np.zeros((rows, coins))
    for d in range(rows):
        style = str(rng.choice(styles))
        limit = gross * rng.uniform(0.2, 0.999)
        row = rng.normal(size=coins)
        if style == "sparse":  # top and bottom of a ranking
            order, side = rng.permutation(coins), max(1, coins // 4)
            row = np.zeros(coins)
            row[order[:side]], row[order[-side:]] = 1.0, -1.0
        elif style == "huge":  # all of the limit in one coin
            row = np.zeros(coins)
            row[rng.integers(coins)] = rng.choice([-1.0, 1.0])
        elif style == "tiny":  # under 10 USD for an equity of 10,000
            limit = min(limit, 1e-3 * coins)
        row *= limit / np.abs(row).sum()
        if style == "holds":
            row[rng.random(coins) < 0.4] = np.nan
        elif style == "zero":
            row[:] = 0.0
        elif style == "flip" and d > 0:
            row = -values[d - 1]
        elif style == "idle":
            row[:] = np.nan
        values[d] = row
    return values


def _walk(rng: np.random.Generator, shape: tuple[int, int], volatility: float) -> np.ndarray:
    start = 10 ** rng.uniform(-4, 5, shape[1])
    return start * np.exp(np.cumsum(rng.normal(0, volatility, shape), axis=0))


def _extremes(rng: np.random.Generator, price: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """High and low of the hour that ends at each price, mostly within `size` of it and of the price before."""
    before = np.vstack([price[:1], price[:-1]])
    beyond = rng.exponential(size / 2, (2, *price.shape))
    return np.fmax(price, before) * (1 + beyond[0]), np.fmin(price, before) / (1 + beyond[1])


def _holes(rng: np.random.Generator, values: np.ndarray, share: float) -> np.ndarray:
    return np.where(rng.random(values.shape) < share, np.nan, values)


def _names(coins: int) -> list[str]:
    return [f"C{number:02d}" for number in range(coins)]


def _coin(rng: np.random.Generator, name: str, unknown: float = 0.0) -> Coin:
    lot = None if rng.random() < unknown else int(rng.integers(0, 6))
    leverage = None if rng.random() < unknown else float(rng.choice([3, 5, 10, 20, 25, 40, 50]))
    return Coin(name, sz_decimals=lot, max_leverage=leverage)


def _tiered(rng: np.random.Generator, coin: Coin) -> Coin:
    """The coin with two or three margin tiers: half the leverage from a few thousand USD on, a quarter from more on."""
    if coin.max_leverage is None:
        return coin
    starts = [0.0, *np.sort(rng.uniform(1_000, 20_000, rng.integers(1, 3))).tolist()]
    return replace(coin, margin_tiers=tuple((start, coin.max_leverage / 2**tier) for tier, start in enumerate(starts)))


def _framed(frames: dict[str, np.ndarray], names: list[str]) -> dict[str, pd.DataFrame]:
    index = hourly_index(START, START + pd.Timedelta(hours=len(frames["mid"]) - 1))
    return {name: pd.DataFrame(values, index=index, columns=names) for name, values in frames.items()}


# Nasty ----------------------------------------------------------------------------------------------------------------


@st.composite
def nasty_panels(draw: st.DrawFn) -> Panel:
    """Small panels with everything that a venue does to a book.

    Prices that stop for 1 to 40 hours or for good, late listings, jumps by x0.05 or x20, quotes that are missing,
    one-sided, off the mid or there without a mid, impact prices with holes or inside the quote, hours without volume,
    funding of +-4 % or NaN and still stamped after the price has gone, a coin table that is absent, partly known or
    full, with margin tiers or none, highs and lows with holes, of hours without a mid, or of another source than the
    mid, ``tradable`` by rule or at random.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="panel seed"))
    shape = (draw(st.integers(30, 120), label="hours"), draw(st.integers(2, 6), label="coins"))
    price = _walk(rng, shape, draw(st.sampled_from([0.005, 0.02, 0.08]), label="volatility"))
    for _ in range(draw(st.integers(0, 6), label="jumps")):
        price[rng.integers(shape[0]) :, rng.integers(shape[1])] *= rng.choice([0.05, 20.0])
    mid, last = _interrupted(draw, rng, price)
    frames = {"mid": mid} | _quotes(draw, rng, last, mid) | _impact_prices(draw, rng, last) | _stamps(draw, rng, last)
    frames |= _ranges(draw, rng, last, mid)
    if draw(st.booleans(), label="volume"):
        empty = draw(st.sampled_from([0.0, 0.05, 0.4]), label="hours without volume")
        frames["volume_usd"] = rng.lognormal(12, 1, shape) * (rng.random(shape) >= empty)
    names = _names(shape[1])
    if draw(st.booleans(), label="BTC and ETH"):
        places = rng.permutation(shape[1])
        names[places[0]], names[places[1]] = "BTC", "ETH"
    framed = _framed(frames, names)
    unknown = draw(st.sampled_from([None, 0.0, 0.5]), label="coin table")  # share of unknown entries; None: no table
    table = None if unknown is None else [_coin(rng, name, unknown) for name in names if rng.random() >= unknown / 2]
    if table and draw(st.booleans(), label="margin tiers"):
        table = [_tiered(rng, coin) if rng.random() < 0.7 else coin for coin in table]
    if draw(st.booleans(), label="tradable at random"):
        executable = rng.random(shape) < draw(st.sampled_from([0.5, 0.9]), label="tradable share")
        framed["tradable"] = pd.DataFrame(executable, index=framed["mid"].index, columns=names)
    return Panel.from_frames(table=table, **framed)


def _interrupted(draw: st.DrawFn, rng: np.random.Generator, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take prices out: `mid`, and the last price known at each row (NaN before the listing)."""
    hours, coins = price.shape
    mid = price.copy()
    for _ in range(draw(st.integers(0, 1), label="late listings")):
        mid[: rng.integers(1, hours), rng.integers(coins)] = np.nan
    for _ in range(draw(st.integers(0, 5), label="stops")):
        stop = rng.integers(1, hours)
        mid[stop : stop + rng.integers(1, 41), rng.integers(coins)] = np.nan
    for _ in range(draw(st.integers(0, 2), label="delistings")):
        mid[rng.integers(hours // 4, hours) :, rng.integers(coins)] = np.nan
    return mid, pd.DataFrame(mid).ffill().to_numpy()


def _quotes(draw: st.DrawFn, rng: np.random.Generator, last: np.ndarray, mid: np.ndarray) -> dict[str, np.ndarray]:
    kind = draw(st.sampled_from(["none", "tight", "holes", "off the mid", "without a mid"]), label="quotes")
    if kind == "none":
        return {}
    half = rng.uniform(0, 50e-4, mid.shape)
    centre = last if kind == "without a mid" else mid
    if kind == "off the mid":  # the mid is a candle's close, and the quote has moved on
        centre = centre * rng.normal(1, 50e-4, mid.shape)
    bid, ask = centre * (1 - half), centre * (1 + half)
    if kind != "tight":
        missing = rng.random(mid.shape)
        bid[missing < 0.15] = np.nan  # 5 % lack both sides, 10 % each lack one
        ask[(missing < 0.05) | (missing > 0.9)] = np.nan
    return {"bid": bid, "ask": ask}


def _impact_prices(draw: st.DrawFn, rng: np.random.Generator, last: np.ndarray) -> dict[str, np.ndarray]:
    """Prices up to 1 % off, some of them inside the quote; they do not stop where the mid does."""
    kind = draw(st.sampled_from(["none", "full", "holes", "crossed"]), label="impact prices")
    if kind == "none":
        return {}
    least = -50e-4 if kind == "crossed" else 0.0  # crossed: the bid may be above the mid and above the ask
    prices = {"impact_bid": last * (1 - rng.uniform(least, 100e-4, last.shape))}
    prices["impact_ask"] = last * (1 + rng.uniform(least, 100e-4, last.shape))
    return prices if kind == "full" else {name: _holes(rng, values, 0.15) for name, values in prices.items()}


def _ranges(draw: st.DrawFn, rng: np.random.Generator, last: np.ndarray, mid: np.ndarray) -> dict[str, np.ndarray]:
    """High and low; "off the mid": of candles, where the mid is of a book and may lie outside them."""
    kind = draw(st.sampled_from(["none", "full", "holes", "without a mid", "off the mid", "one"]), label="extremes")
    if kind == "none":
        return {}
    centre = mid if kind in ("full", "holes") else last
    if kind == "off the mid":
        centre = centre * rng.normal(1, 50e-4, mid.shape)
    high, low = _extremes(rng, centre, draw(st.sampled_from([0.005, 0.05, 0.5]), label="range of an hour"))
    frames = {"high": high} if kind == "one" else {"high": high, "low": low}
    return {name: _holes(rng, values, 0.0 if kind == "full" else 0.1) for name, values in frames.items()}


def _stamps(draw: st.DrawFn, rng: np.random.Generator, last: np.ndarray) -> dict[str, np.ndarray]:
    """Funding and the prices it is paid on; none of them stops where the mid does."""
    frames = {}
    size = draw(st.sampled_from([None, 1e-4, 0.04]), label="funding")
    if size is not None:
        share = draw(st.sampled_from([0.0, 0.2]), label="funding NaN")
        frames["funding"] = _holes(rng, rng.uniform(-size, size, last.shape), share)
    for name in ("oracle", "mark"):
        share = draw(st.sampled_from([None, 0.0, 0.3]), label=f"{name} NaN")
        if share is not None:
            frames[name] = _holes(rng, last * rng.normal(1, 0.01, last.shape), share)
    return frames


def basis_points(low: float, high: float) -> st.SearchStrategy[float]:
    """Costs that a config takes: next to nothing is refused there, because it is a fraction by mistake."""
    return st.floats(low, high).map(lambda value: 0.0 if abs(value) < 0.01 else value)


@st.composite
def nasty_configs(draw: st.DrawFn) -> RunConfig:
    """Every setting of a run that moves a number, but the decision calendar and the fee schedule.

    Half of the configs are plain: weights trade as they are, at taker rates without discount or impact. In the others
    each of these settings is off every second time.
    """
    plain = draw(st.sampled_from([True, False]), label="plain")

    def seldom(off: float | str, values: st.SearchStrategy[Any]) -> Any:
        return off if plain or not draw(st.booleans()) else draw(values)

    sections: dict[str, dict[str, Any]] = {
        "execution": {
            "delay_hours": draw(st.integers(0, 5)),
            "min_notional_usd": draw(st.sampled_from([0.0, 10.0, 500.0])),
            "lots": draw(st.booleans()),
            "no_trade_band_frac": draw(st.just(0.0) | st.floats(0, 0.2)),
            "no_trade_band": draw(st.sampled_from(["skip", "to_edge"])),
            "trade_rate": seldom(1.0, st.sampled_from([0.001, 0.5]) | st.floats(0.05, 1.0)),
            "untradable": draw(st.sampled_from(["cash", "renormalise"])),
            "stale_hours": draw(st.integers(1, 30)),
            "leverage": seldom(1.0, st.floats(0.2, 3)),
            "target_volatility": seldom(0.0, st.floats(0.2, 2)),
            "volatility_days": seldom(2, st.integers(2, 10)),
            "volatility_model": seldom("book", st.just("risk")),
            "tranches": seldom(1, st.integers(2, 4)),
            "gross_cap": seldom(0.0, st.floats(0.5, 3)),
        },
        "costs": {
            "taker_bps": draw(basis_points(-1, 50)),
            "half_spread_bps": draw(basis_points(0, 100)),
            "funding": draw(st.booleans()),
            "funding_missing": draw(st.sampled_from(["none", "mean"])),
            "impact": seldom("none", st.just("venue")),
            "impact_bps": seldom(0.0, basis_points(0, 50)),
            "stress": seldom(1.0, st.sampled_from([0.0, 2.0, 3.0, 40.0])),
            "maker_bps": seldom(0.0, basis_points(-5, 20)),
            "maker_share_frac": seldom(0.0, st.floats(0, 1)),
            "staking_discount_frac": seldom(0.0, st.sampled_from([0.05, 0.4, 1.0])),
            "referral_discount_frac": seldom(0.0, st.sampled_from([0.04, 0.5])),
        },
        "account": {
            "initial_equity_usd": draw(st.sampled_from([10_000.0, 300.0, 1e6])),
            "max_gross": draw(st.sampled_from([1.0, 2.5, 5.0, 5.0])),
            "margin": draw(st.sampled_from([True, True, False])),
            "initial_margin": draw(st.sampled_from([False, False, True])),
        },
    }
    return RunConfig.from_dict(sections)


@st.composite
def nasty_cases(draw: st.DrawFn) -> tuple[Panel, pd.DataFrame, RunConfig]:
    """Panel, weights and config; decisions at irregular hours, often the first and last row and the jumps with them."""
    panel, config = draw(nasty_panels()), draw(nasty_configs())
    if {"high", "low"} <= panel.fields.keys() and draw(st.booleans(), label="margin within the hour"):
        config = replace(config, account=replace(config.account, margin_prices="extreme"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="weights seed"))
    hours = len(panel.index)
    chosen = set(rng.choice(hours, draw(st.integers(1, 20), label="decisions"), replace=False).tolist())
    if draw(st.booleans(), label="first row decides"):
        chosen.add(0)
    if draw(st.booleans(), label="last row decides"):
        chosen.add(hours - 1)
    if draw(st.booleans(), label="jumps are traded"):  # a book can be bankrupt at a decision, before its margin is read
        moves = np.abs(np.diff(np.log(panel.values("mid")), axis=0, prepend=np.nan))
        jumps = np.flatnonzero((moves > 1).any(axis=1)) - config.execution.delay_hours
        chosen |= set(jumps[jumps >= 0].tolist())
    instants = panel.index[sorted(chosen)]
    styles = draw(
        st.sampled_from([STYLES, ("dense",), ("dense", "flip", "holds"), ("huge", "sparse", "tiny")]), label="styles"
    )
    execution, limit = config.execution, config.account.max_gross
    if not 0 < execution.gross_cap <= limit:  # nothing cuts a gross above `max_gross`, so none may arise
        limit /= max(execution.leverage, 1.0)
        if execution.tranches > 1:  # a NaN keeps the coin's weight in a row whose other weights are new
            styles = [style for style in styles if style != "holds"]
    values = _weight_rows(rng, len(instants), len(panel.coins), limit, styles)
    weights = pd.DataFrame(values, index=instants, columns=list(panel.coins))
    absent = draw(st.integers(0, 1), label="absent coins")
    if draw(st.booleans(), label="bands by coin"):
        config = with_bands(config, panel, rng)
    return panel, weights.iloc[:, rng.permutation(len(panel.coins))[absent:]], config


def with_bands(config: RunConfig, panel: Panel, rng: np.random.Generator) -> RunConfig:
    """No-trade bands of single coins and of all of the main dex, some without any."""
    chosen = rng.choice(panel.coins, int(rng.integers(1, len(panel.coins) + 1)))
    bands = [("*", 0.01)] * int(rng.integers(2)) + [(str(coin), float(rng.choice([0.0, 0.02, 0.3]))) for coin in chosen]
    return replace(config, execution=replace(config.execution, no_trade_band_coins=tuple(bands)))


Case = tuple[Panel, pd.DataFrame, RunConfig]


def with_builders_coins(case: Case, seed: int) -> Case:
    """The case with most of its coins on a builder's dex: their fees have dated factors, and they are isolated.

    Some of them have fees of before the panel, some of after it, some of an unknown time; some are cross.
    """
    panel, weights, config = case
    rng = np.random.default_rng([seed, 22])
    names = {coin: f"xyz:{coin}" for coin in panel.coins if rng.random() < 0.7}
    table = []
    for coin in panel.table:
        if coin.name in names:
            hours = np.unique(rng.integers(-48, len(panel.index) + 24, rng.integers(0, 4)))
            seen = [panel.index[0] + pd.Timedelta(hours=int(hour)) for hour in hours]
            if rng.random() < 0.3:
                seen = [None, *seen]
            scales = rng.choice([0.0, 0.5, 1.0, 3.01, 9.99], len(seen))
            terms = tuple(FeeTerms(at, scale, rng.random() < 0.5) for at, scale in zip(seen, scales, strict=True))
            mode = str(rng.choice(["isolated", "isolated", "strictIsolated", "cross"]))
            coin = replace(coin, name=names[coin.name], margin_mode=mode, collateral="USDC", fee_terms=terms)
        table.append(coin)
    panel = replace(panel, coins=tuple(coin.name for coin in table), table=tuple(table))
    leverage = float(rng.choice([0, 0, 1, 2, 5, 20, 50]))
    bands = tuple((names.get(coin, coin), width) for coin, width in config.execution.no_trade_band_coins if coin != "*")
    execution = replace(config.execution, isolated_leverage=leverage, no_trade_band_coins=bands)
    config = replace(config, execution=execution)
    return panel, weights.rename(columns=names), config


def tiny_case(seed: int) -> tuple[Panel, pd.DataFrame, RunConfig]:
    """1 to 29 hours of 1 to 3 coins, wild prices with holes, decisions at any row, up to three times the equity."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 30)), int(rng.integers(1, 4)))
    names = ["BTC", "ETH", "C"][: shape[1]]
    mid = _holes(rng, 100 * np.exp(np.cumsum(rng.normal(0, 0.3, shape), axis=0)), rng.choice([0.0, 0.3]))
    frames = {"mid": mid}
    for more in ({"bid": mid * 0.99, "ask": mid * 1.02}, {"impact_bid": mid * 0.5, "impact_ask": mid * 1.3}):
        frames |= more if rng.random() < 0.5 else {}
    if rng.random() < 0.5:
        frames["funding"] = rng.normal(0, 0.01, shape)
    if extreme := rng.random() < 0.5:
        frames |= {
            "low": _holes(rng, mid * rng.uniform(0.7, 1.0, shape), 0.2),
            "high": mid * rng.uniform(1.0, 1.3, shape),
        }
    table = [_tiered(rng, _coin(rng, name)) for name in names] if rng.random() < 0.5 else None
    panel = Panel.from_frames(table=table, **_framed(frames, names))
    rows = np.sort(rng.choice(shape[0], int(rng.integers(1, shape[0] + 1)), replace=False))
    values = rng.normal(size=(len(rows), shape[1]))
    values *= rng.uniform(0.1, 3) / np.abs(values).sum(axis=1, keepdims=True)
    values = np.where(rng.random(values.shape) < 0.2, 0.0, _holes(rng, values, 0.2))
    part, in_part = np.random.default_rng([seed, 24]), seed % 3 == 0
    sections = {
        "execution": {
            "no_trade_band_frac": part.choice([0.0, 0.01, 0.3]) if in_part else 0.0,
            "no_trade_band": str(part.choice(["skip", "to_edge"])),
            "trade_rate": part.choice([1.0, 0.5, 0.07]) if in_part else 1.0,
            "hour_utc": rng.integers(24),
            "stale_hours": rng.integers(1, 4),
            "delay_hours": rng.integers(3),
            "untradable": str(rng.choice(["cash", "renormalise"])),
        },
        "costs": {
            "impact": str(rng.choice(["none", "venue"])),
            "stress": rng.choice([1.0, 5.0, 40.0]),
            "taker_bps": 5.0,
            "half_spread_bps": rng.choice([2.0, 4000.0]),
        },
        "account": {
            "max_gross": 3.0,
            "margin": rng.random() < 0.6,
            "initial_equity_usd": rng.choice([1e4, 1e7]),
            "initial_margin": rng.random() < 0.3,
            "margin_prices": "extreme" if extreme else "close",
        },
    }
    config = RunConfig.from_dict(sections)
    config = with_bands(config, panel, part) if in_part and part.random() < 0.5 else config
    return panel, pd.DataFrame(values, index=panel.index[rows], columns=names), config


def holed_panel() -> Panel:
    """16 days, 8 coins: one lists on day 7, one leaves on day 11, and prices have holes."""
    made = random_panel(7, 24 * 16, 8)
    fields = {name: values.copy() for name, values in made.fields.items()}
    tradable = made.tradable.copy()
    gone = np.random.default_rng(1).random(fields["mid"].shape) < 0.02
    for rows, column in ((slice(0, 24 * 7), 2), (slice(24 * 11, None), 5)):
        gone[rows, column] = True
    gone[23::24] &= gone[22::24]  # most decisions have prices
    for values in fields.values():
        values[gone] = np.nan
    table = tuple(
        replace(coin, delisted=made.index[24 * 11 - 1]) if place == 5 else coin for place, coin in enumerate(made.table)
    )
    return replace(made, fields=fields, tradable=tradable & ~gone, table=table)
