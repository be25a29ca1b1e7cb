"""Set datetime, time and pd.Timestamp to a past instant, so that an oracle cannot depend on today's date."""

from __future__ import annotations

import copyreg
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pandas as pd


@contextmanager
def clock_at(instant: pd.Timestamp) -> Iterator[Callable[[pd.Timestamp], None]]:
    """Set the clock that modules imported in this context see to `instant`, from where it runs on.

    The context is a function that sets it to another instant.

    It covers ``datetime``, ``time`` and ``pandas.Timestamp``; it does not cover ``numpy.datetime64("now")``,
    ``pandas.Period.now`` and modules that were imported before.
    """
    offset = 0.0

    def set_clock(to: pd.Timestamp) -> None:
        nonlocal offset
        offset = float(to.timestamp()) - time.monotonic()

    def seconds() -> float:
        return offset + time.monotonic()

    set_clock(instant)

    stamp, reducers = pd.Timestamp, copyreg.dispatch_table
    own_reducers: dict[type, Any] = dict.fromkeys((datetime.date, datetime.datetime), _reduced)
    replaced_reducers = {kind: reducers[kind] for kind in own_reducers if kind in reducers}
    stamp_methods = {name: stamp.__dict__[name] for name in ("now", "today", "utcnow")}
    modules = {"datetime": _datetime_module(seconds), "time": _time_module(seconds)}
    real_modules = {name: sys.modules[name] for name in modules}
    try:
        sys.modules |= modules
        reducers.update(own_reducers)
        for name in stamp_methods:
            zone = "UTC" if name == "utcnow" else None
            setattr(stamp, name, classmethod(lambda cls, tz=zone: cls(seconds(), unit="s", tz="UTC").tz_convert(tz)))
        yield set_clock
    finally:
        sys.modules |= real_modules
        for kind in own_reducers:
            del reducers[kind]
        reducers.update(replaced_reducers)
        for name, method in stamp_methods.items():
            setattr(stamp, name, method)


def _reduced(value: datetime.date) -> tuple[Any, ...]:
    """Reduce a real date for pickling: by its name, pickle would find the class that replaces its own."""
    return _real, (type(value).__name__, *value.__reduce_ex__(4)[1])


def _real(name: str, *state: Any) -> Any:
    return getattr(datetime, name)(*state)


class _Substitute(type):
    """Metaclass of a class that replaces another, its ``real``: instances of that one count as its own."""

    def __instancecheck__(cls, value: object) -> bool:
        real: type | None = cls.__dict__.get("real")
        return type.__instancecheck__(cls, value) if real is None else isinstance(value, real)

    def __subclasscheck__(cls, other: type) -> bool:
        real: type | None = cls.__dict__.get("real")
        return type.__subclasscheck__(cls, other) if real is None else issubclass(other, real)


def _datetime_module(seconds: Callable[[], float]) -> ModuleType:
    """The module datetime with another current time; its classes create instances of the real ones."""

    class Date(datetime.date, metaclass=_Substitute):
        real = datetime.date

        def __new__(cls, *args: Any, **named: Any) -> Any:
            return cls.real(*args, **named) if cls is Date else super().__new__(cls, *args, **named)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(seconds())

    class Datetime(datetime.datetime, metaclass=_Substitute):
        real = datetime.datetime

        def __new__(cls, *args: Any, **named: Any) -> Any:
            return cls.real(*args, **named) if cls is Datetime else super().__new__(cls, *args, **named)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(seconds(), tz)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(seconds())

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(seconds(), datetime.UTC).replace(tzinfo=None)

    return _copy_of(datetime, {"date": Date, "datetime": Datetime})


def _time_module(seconds: Callable[[], float]) -> ModuleType:
    """The module time with another current time."""

    def at_seconds(name: str) -> Callable[..., Any]:
        real = getattr(time, name)
        return lambda when=None: real(seconds() if when is None else when)

    functions: dict[str, Any] = {name: at_seconds(name) for name in ("localtime", "gmtime", "ctime")}
    functions["strftime"] = lambda form, when=None: time.strftime(
        form, functions["localtime"]() if when is None else when
    )
    return _copy_of(time, {**functions, "time": seconds, "time_ns": lambda: int(1e9 * seconds())})


def _copy_of(module: ModuleType, changed: dict[str, Any]) -> ModuleType:
    copy = ModuleType(module.__name__, module.__doc__)
    copy.__dict__.update({**vars(module), **changed})
    return copy
