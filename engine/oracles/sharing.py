"""What the sets of a sweep share of the oracles inside theirs: scores and weights that were computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import pandas as pd

from engine.errors import OracleError
from engine.oracles.base import Oracle, arguments_of
from engine.panel import Panel
from engine.provenance import to_json

Made = TypeVar("Made")
#: What keeps a result: a function of its key, and of what makes it.
Keep = Callable[[Hashable, Callable[[], Any]], Any]
#: The panel as known of the sweep that runs in this thread, and what keeps results for it. Outside a sweep there is
#: none: an audit, or a live book, sees what the code does and not what was kept.
_SWEEP: ContextVar[tuple[Panel, Keep] | None] = ContextVar("sweep", default=None)


@contextmanager
def sharing(panel: Panel, keep: Keep) -> Iterator[None]:
    """In the context, what :func:`shared` is asked for on `panel` is kept by `keep`, a function of key and maker."""
    token = _SWEEP.set((panel, keep))
    try:
        yield
    finally:
        _SWEEP.reset(token)


def shared(what: str, oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex, make: Callable[[], Made]) -> Made:
    """What `make` computes of an oracle, in a sweep once for all oracles of the class and the arguments.

    It is not to be changed by who asks. Shared is only what was computed on the sweep's own panel, by an oracle whose
    arguments are plain values.
    """
    sweep = _SWEEP.get()
    if sweep is None or panel is not sweep[0]:
        return make()
    try:
        arguments = to_json(arguments_of(oracle))
    except OracleError:
        return make()
    made: Made = sweep[1]((what, type(oracle), arguments, decisions.asi8.tobytes()), make)
    return made
