"""Calls of an oracle's code: for one instant or many, errors in one paragraph, environment variables put back."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.clock import show
from engine.errors import HlbtError, OracleError, did_you_mean, join_first
from engine.panel import Panel


@contextmanager
def oracle_errors(call: str) -> Iterator[None]:
    """Raise whatever the code of an oracle raises as an OracleError: the `call` that failed, where, and the cure.

    Our own errors stay as they are.

    Raises
    ------
    OracleError
        In place of any error that is no :class:`engine.errors.HlbtError`.
    """
    try:
        yield
    except HlbtError:
        raise
    except (Exception, SystemExit) as error:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)  # without the sources, which take seconds to find
        raise OracleError(
            f"{call}: {type(error).__name__}: {error} ({Path(frame.f_code.co_filename).name} line {line}). Correct the "
            "oracle or its parameters; HLBT_TRACEBACK=1 shows the whole trace."
        ) from error


@contextmanager
def same_environment() -> Iterator[None]:
    """Undo what is done to environment variables in the context: no later run, nor process, sees it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def call_fetch_weights(
    oracle: Any, instant: pd.Timestamp, universe: Iterable[str], panel: Panel | None
) -> dict[str, float]:
    """Call ``fetch_portfolio_weights`` for one instant, with `panel` unless it has the predecessor's signature."""
    fetch = oracle.fetch_portfolio_weights
    takes_panel = any(
        item.name == "panel" or item.kind is item.VAR_KEYWORD for item in inspect.signature(fetch).parameters.values()
    )
    return dict(fetch(instant, universe, panel=panel) if takes_panel else fetch(instant, universe))


def matrix_of_instants(self: Any, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
    """``weight_matrix`` of a class with only ``fetch_portfolio_weights``; a coin that it leaves out is 0."""
    rows = []
    for instant in decisions:
        known = panel.until(instant)
        universe = [coin for coin, trades in zip(known.coins, known.tradable[-1], strict=True) if trades]
        rows.append(call_fetch_weights(self, instant, universe, known))
        if unknown := [coin for coin in rows[-1] if coin not in known.coins]:
            raise OracleError(
                f"{type(self).__name__}.fetch_portfolio_weights names coins at {show(instant)} that the panel lacks: "
                f"{join_first(unknown)}.{did_you_mean(str(unknown[0]), known.coins)} Choose from tradable_universe."
            )
    values = [[row.get(coin, 0.0) for coin in panel.coins] for row in rows]
    return pd.DataFrame(values, index=decisions, columns=pd.Index(panel.coins, name="coin"), dtype=np.float64)


def with_universe(panel: Panel, tradable: Iterable[str]) -> Panel:
    """The panel, in whose last row the coins of `tradable` can be traded, and no others.

    Raises
    ------
    OracleError
        For a text instead of a list of coins.
    """
    if isinstance(tradable, str):
        raise OracleError(f"tradable_universe is the text {tradable!r}; a list of coins is needed.")
    universe = set(tradable)
    last = np.array([coin in universe for coin in panel.coins], dtype=np.bool_)
    if np.array_equal(last, panel.tradable[-1]):
        return panel
    return replace(panel, tradable=np.vstack([panel.tradable[:-1], last]))
