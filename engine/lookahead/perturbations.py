"""Perturb a panel only where an oracle must not look.

Every function takes a panel and returns a new one; made-up values are plausible (positive prices, a bid below mid and
an ask above it, some gaps, some prices where there were gaps), so that a causal oracle has no reason to fail.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from engine.coin import Coin, FeeTerms
from engine.panel import PRICES, Panel

#: Coins that are added before the first and after the last one of a panel.
NEWCOMERS = ("0-NEWCOMER", "zz-NEWCOMER")


#: Range of each price as a factor of the perturbed mid, so that no side of a quote crosses another.
_SPREAD = {
    "impact_bid": (0.98, 0.99),
    "bid": (0.99, 1.0),
    "mid": (1.0, 1.0),
    "ask": (1.0, 1.01),
    "impact_ask": (1.01, 1.02),
    "mark": (0.99, 1.01),
    "oracle": (0.99, 1.01),
    "high": (1.0, 1.02),
    "low": (0.98, 1.0),
}


def changed_after(panel: Panel, row: int, rng: np.random.Generator) -> Panel:
    """The panel with everything made up that is not known at `row`.

    That is later rows, the funding settled at `row`, and lots, leverage and tiers that became known later.

    Parameters
    ----------
    panel : Panel
        Itself or as known; as known, the funding of `row` is that of an hour before and stays.
    row : int
        Last row that stays.
    rng : Generator
        For the made-up values.
    """
    fields = {}
    seed = int(rng.integers(2**32))
    for name in panel.fields:
        first = row if name == "funding" and not panel.as_known else row + 1
        fields[name] = _replaced(panel, name, slice(first, None), rng, seed)
    tradable = panel.tradable.copy()
    tradable[row + 1 :] ^= rng.random(tradable[row + 1 :].shape) < 0.3
    later = panel.index[row + 1] if row + 1 < len(panel.index) else None
    table = tuple(_other_terms(coin, panel.index[row], panel.index[-1], later, rng) for coin in panel.table)
    return replace(panel, fields=fields, tradable=tradable, table=table)


def _other_terms(
    coin: Coin, instant: pd.Timestamp, end: pd.Timestamp, later: pd.Timestamp | None, rng: np.random.Generator
) -> Coin:
    """The coin as known at `instant`, and other terms of trading where its own were not known by then.

    They are known from the same instant as its own, or from `later` where that lies after the `end` of the data.
    """
    known = coin.as_of(instant)
    unseen = [one for one in coin.fee_terms if one not in known.fee_terms]
    if unseen and later is not None:
        seen = unseen[0].seen
        other = FeeTerms(later if seen is None or seen > end else seen, rng.uniform(0.0, 3.0), not unseen[0].growth)
        known = replace(known, fee_terms=(*known.fee_terms, other))
    if not coin.has_terms or known.has_terms:
        return known
    leverage, lot = coin.max_leverage, coin.sz_decimals
    return replace(
        known,
        sz_decimals=None if lot is None else (lot + int(rng.integers(1, 4))) % 7,
        max_leverage=None if leverage is None else float(rng.choice((2, 3, 5) if leverage >= 10 else (20, 40, 50))),
        margin_tiers=((0.0, 5.0), (1e4, 3.0)) if coin.margin_tiers else (),
        collateral=coin.collateral and ("USDH" if coin.collateral == "USDC" else "USDC"),
        margin_mode=coin.margin_mode and ("cross" if coin.isolated else "isolated"),
        terms_from=later if coin.terms_from is None or coin.terms_from > end else coin.terms_from,
    )


def changed_at(panel: Panel, row: int, rng: np.random.Generator, names: tuple[str, ...] | None = None) -> Panel:
    """The panel with one row made up: all fields and ``tradable``, or only the fields in `names`."""
    seed = int(rng.integers(2**32))
    fields = {name: _replaced(panel, name, slice(row, row + 1), rng, seed) for name in names or panel.fields}
    tradable = panel.tradable
    if names is None:
        tradable = tradable.copy()
        tradable[row] ^= rng.random(len(panel.coins)) < 0.3
    return replace(panel, fields={**panel.fields, **fields}, tradable=tradable)


def with_newcomers(panel: Panel, row: int, rng: np.random.Generator) -> Panel:
    """The panel with :data:`NEWCOMERS` as first and last column: no data up to `row`, then soaring prices."""
    hours = len(panel.index) - row - 1
    walks = [100.0 * np.exp(np.cumsum(rng.normal(0.002, 0.01, hours))) for _ in NEWCOMERS]

    def column_of(name: str, walk: np.ndarray) -> np.ndarray:
        column = np.full(len(panel.index), np.nan)
        if name in PRICES:
            column[row + 1 :] = walk * rng.uniform(*_SPREAD[name], hours)
        else:
            known = panel.fields[name][~np.isnan(panel.fields[name])]
            column[row + 1 :] = 2.0 * rng.choice(known, hours) if len(known) else np.nan
        return column

    listed = panel.index[row + 1] if hours else None
    # Lots and leverage of an existing coin: an oracle may read them of every coin.
    first, last = (replace(panel.table[0], name=name, listed=listed, delisted=None) for name in NEWCOMERS)
    trades = np.arange(len(panel.index)) > row
    return replace(
        panel,
        coins=(first.name, *panel.coins, last.name),
        fields={
            name: np.column_stack([column_of(name, walks[0]), values, column_of(name, walks[1])])
            for name, values in panel.fields.items()
        },
        tradable=np.column_stack([trades, panel.tradable, trades]),
        table=(first, *panel.table, last),
    )


def _replaced(panel: Panel, name: str, rows: slice, rng: np.random.Generator, seed: int) -> np.ndarray:
    """A field with other numbers in `rows`: a tenth of them removed, and a fifth of what was missing there filled.

    Prices of one `seed` move together, and none is filled beside a mid, so that none crosses another.
    """
    changed = panel.fields[name].copy()
    block = changed[rows]
    filled = np.isnan(block) & np.isnan(panel.values("mid")[rows] if name in PRICES else block)
    draws = np.random.default_rng(seed) if name in PRICES else rng
    factor, level = draws.lognormal(0.0, 0.5, block.shape), draws.lognormal(0.0, 1.0, block.shape)
    filled &= draws.random(block.shape) < 0.2
    if name in PRICES:
        distance = rng.uniform(*_SPREAD[name], block.shape)
        factor, level = factor * distance, level * distance
    if name == "funding":
        factor = factor * rng.choice([-1.0, 1.0], block.shape)
    block *= factor
    block[rng.random(block.shape) < 0.1] = np.nan
    block[filled] = (1e-4 if name == "funding" else 100.0) * level[filled]
    return changed
