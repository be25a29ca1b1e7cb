"""A clock that stands at an instant: an oracle of the past has no business to know what day it is today."""

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
def clock_at(instant: pd.Timestamp) -> Iterator[None]:
    """Let modules that are imported from here on believe that it is `instant`, from where time goes on.

    What they get of ``datetime``, ``time`` and ``pandas.Timestamp`` tells that time; ``numpy.datetime64("now")``,
    ``pandas.Period.now`` and modules that were imported before, are not deceived.
    """
    begun = time.monotonic()

    def seconds() -> float:
        return float(instant.timestamp()) + time.monotonic() - begun

    stamp = pd.Timestamp
    pickled: dict[type, Any] = dict.fromkeys((datetime.date, datetime.datetime), _reduced)
    reducers = copyreg.dispatch_table
    before = {kind: reducers[kind] for kind in pickled if kind in reducers}
    true = {name: stamp.__dict__[name] for name in ("now", "today", "utcnow")}
    modules = {"datetime": _dates(seconds), "time": _times(seconds)}
    kept = {name: sys.modules[name] for name in modules}
    try:
        sys.modules |= modules
        reducers.update(pickled)
        for name in true:
            zone = "UTC" if name == "utcnow" else None
            setattr(stamp, name, classmethod(lambda cls, tz=zone: cls(seconds(), unit="s", tz="UTC").tz_convert(tz)))
        yield
    finally:
        sys.modules |= kept
        for kind in pickled:
            del reducers[kind]
        reducers.update(before)
        for name, method in true.items():
            setattr(stamp, name, method)


def _reduced(value: datetime.date) -> tuple[Any, ...]:
    """How a real date is pickled meanwhile: by name, its class would be the one that stands for it."""
    return _real, (type(value).__name__, *value.__reduce_ex__(4)[1])


def _real(name: str, *state: Any) -> Any:
    return getattr(datetime, name)(*state)


class _Kind(type):
    """Of a class that stands for another: what is an instance of that one is one of it."""

    def __instancecheck__(cls, value: object) -> bool:
        real: type | None = cls.__dict__.get("real")
        return type.__instancecheck__(cls, value) if real is None else isinstance(value, real)

    def __subclasscheck__(cls, other: type) -> bool:
        real: type | None = cls.__dict__.get("real")
        return type.__subclasscheck__(cls, other) if real is None else issubclass(other, real)


def _dates(seconds: Callable[[], float]) -> ModuleType:
    """The module datetime at another time; what its classes make are instances of the real ones."""

    class Date(datetime.date, metaclass=_Kind):
        real = datetime.date

        def __new__(cls, *args: Any, **named: Any) -> Any:
            return cls.real(*args, **named) if cls is Date else super().__new__(cls, *args, **named)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(seconds())

    class Datetime(datetime.datetime, metaclass=_Kind):
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

    return _like(datetime, {"date": Date, "datetime": Datetime})


def _times(seconds: Callable[[], float]) -> ModuleType:
    """The module time at another time."""

    def of(name: str) -> Callable[..., Any]:
        real = getattr(time, name)
        return lambda when=None: real(seconds() if when is None else when)

    told: dict[str, Any] = {name: of(name) for name in ("localtime", "gmtime", "ctime")}
    told["strftime"] = lambda form, when=None: time.strftime(form, told["localtime"]() if when is None else when)
    return _like(time, {**told, "time": seconds, "time_ns": lambda: int(1e9 * seconds())})


def _like(module: ModuleType, changed: dict[str, Any]) -> ModuleType:
    made = ModuleType(module.__name__, module.__doc__)
    made.__dict__.update({**vars(module), **changed})
    return made
