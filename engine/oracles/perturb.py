"""Panels that differ from a given one only where an oracle has no business to look: what the audit disturbs.

Every function takes a panel and returns a new one; made-up values are plausible (positive prices, some holes, some
prices where there were holes), so that an honest oracle has no reason to stumble over them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.panel import PRICES, Coin, Panel

#: Coins that are put before the first and after the last one of a panel.
NEWCOMERS = ("0-NEWCOMER", "zz-NEWCOMER")


def changed_after(panel: Panel, row: int, rng: np.random.Generator) -> Panel:
    """Everything that is not known at `row` made up: all later rows, and the funding that is settled at `row` itself.

    Parameters
    ----------
    panel : Panel
        Itself or as known; as known, the funding of `row` is that of an hour before and stays.
    row : int
        Last row that stays.
    rng : Generator
        Of what is made up.
    """
    fields = {}
    for name, values in panel.fields.items():
        first = row if name == "funding" and not panel.as_known else row + 1
        fields[name] = _replaced(values, slice(first, None), name, rng)
    tradable = panel.tradable.copy()
    tradable[row + 1 :] ^= rng.random(tradable[row + 1 :].shape) < 0.3
    # The table of a panel that ends here: later listings and delistings are not known.
    table = panel.until(panel.index[row]).table
    return replace(panel, fields=fields, tradable=tradable, table=table)


def changed_at(panel: Panel, row: int, rng: np.random.Generator, names: tuple[str, ...] | None = None) -> Panel:
    """One row made up: of all fields, or of those named."""
    chosen = panel.fields if names is None else {name: panel.fields[name] for name in names}
    fields = {name: _replaced(values, slice(row, row + 1), name, rng) for name, values in chosen.items()}
    tradable = panel.tradable
    if names is None:
        tradable = tradable.copy()
        tradable[row] ^= rng.random(len(panel.coins)) < 0.3
    return replace(panel, fields={**panel.fields, **fields}, tradable=tradable)


def with_coins(panel: Panel, kept: np.ndarray) -> Panel:
    """The columns `kept`, (N,) bool."""
    return replace(
        panel,
        coins=tuple(coin for coin, stays in zip(panel.coins, kept, strict=True) if stays),
        fields={name: values[:, kept] for name, values in panel.fields.items()},
        tradable=panel.tradable[:, kept],
        table=tuple(coin for coin, stays in zip(panel.table, kept, strict=True) if stays),
    )


def with_newcomers(panel: Panel, row: int, rng: np.random.Generator) -> Panel:
    """The panel with :data:`NEWCOMERS` as first and last column: nothing up to `row`, then soaring prices."""
    hours = len(panel.index) - row - 1

    def around(values: np.ndarray, column: Callable[[], np.ndarray]) -> np.ndarray:
        return np.column_stack([column(), values, column()])

    def coming(name: str) -> np.ndarray:
        column = np.full(len(panel.index), np.nan)
        if name in PRICES:
            column[row + 1 :] = 100.0 * np.exp(np.cumsum(rng.normal(0.002, 0.01, hours)))
        else:
            known = panel.fields[name][~np.isnan(panel.fields[name])]
            column[row + 1 :] = 2.0 * rng.choice(known, hours) if len(known) else np.nan
        return column

    listed = panel.index[row + 1] if hours else None
    first, last = (Coin(name, listed) for name in NEWCOMERS)
    return replace(
        panel,
        coins=(first.name, *panel.coins, last.name),
        fields={name: around(values, lambda name=name: coming(name)) for name, values in panel.fields.items()},  # type: ignore[misc]
        tradable=around(panel.tradable, lambda: np.arange(len(panel.index)) > row),
        table=(first, *panel.table, last),
    )


def _replaced(values: np.ndarray, rows: slice, name: str, rng: np.random.Generator) -> np.ndarray:
    """A copy with other numbers in `rows`; a tenth of them lost, and a fifth of what was missing there filled."""
    made = values.copy()
    block = made[rows]
    factor = rng.lognormal(0.0, 0.5, block.shape)
    block *= factor * rng.choice([-1.0, 1.0], block.shape) if name == "funding" else factor
    filled = np.isnan(block) & (rng.random(block.shape) < 0.2)
    block[rng.random(block.shape) < 0.1] = np.nan
    level = 1e-4 if name == "funding" else 100.0
    block[filled] = level * rng.lognormal(0.0, 1.0, int(filled.sum()))
    return made
