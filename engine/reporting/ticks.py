"""Round places along an axis, and what is written beside them."""

from __future__ import annotations

import math

import numpy as np

#: A place along the axis and its text; one without room for a text of its own has none.
Tick = tuple[float, str]
_FACTORS = (1.0, 2.0, 2.5, 5.0, 10.0)
#: Distances of ticks in time, ascending: a unit of numpy, and every how many of it.
_DISTANCES = (
    *(("h", count) for count in (1, 2, 3, 6, 12)),
    *(("D", count) for count in (1, 2, 4, 7, 14)),
    *(("M", count) for count in (1, 2, 3, 6)),
    *(("Y", count) for count in (1, 2, 5, 10, 20, 50, 100)),
)
_LEAST_DECADES = 2


def of_numbers(low: float, high: float, most: int, unit: str = "") -> list[Tick]:
    """At most `most` + 1 round numbers from `low` to `high`, and two where there are as many, with `unit`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * scale for scale in (power / 10.0, power) for factor in _FACTORS]
    finer = [step for step in steps if step < rough * (1.0 - 1e-9)]
    for step in [next(step for step in steps if step >= rough * (1.0 - 1e-9)), *reversed(finer)]:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last > first:
            break
    return [(number * step, f"{number * step:,.10g}{unit}") for number in range(first, last + 1)]


def of_decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten from ``10**low`` to ``10**high``, as their logarithms; of few the doubles and halves, too."""
    step = max(1, math.ceil((high - low) / most))
    decades = [float(power) for power in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
    if len(decades) >= _LEAST_DECADES:
        return [power for power in decades if power % step == 0] if step > 1 else decades
    between = [
        power + math.log10(factor) for power in range(math.floor(low), math.ceil(high) + 1) for factor in (1, 2, 5)
    ]
    return [place for place in between if low - 1e-9 <= place <= high + 1e-9] or [(low + high) / 2.0]


def of_time(low: float, high: float, most: int = 7) -> list[Tick]:
    """At most so many round instants between two, all in hours since 1970; the first, and each of a new year, says it.

    What is coarser than the distance of the ticks is written once: 00:00 as its day, 1 January as its year.
    """
    start, stop = (np.datetime64(round(hour * 3600.0), "s") for hour in (low, high))
    for unit, count in _DISTANCES:
        if (high - low) / (most + 1) > count * {"h": 1, "D": 24, "M": 28 * 24, "Y": 365 * 24}[unit]:
            continue
        instants = _instants(start, stop, unit, count)
        if len(instants) <= most:
            break
    ticks: list[Tick] = []
    year = None
    for instant in instants:
        moment = instant.astype("datetime64[s]").item()
        if unit == "h" and moment.hour:
            text = f"{moment:%H:%M}" if ticks else f"{moment:%b} {moment.day} {moment:%H:%M}"
        elif unit in "hD":
            text = f"{moment:%b} {moment.day}" + (f" {moment:%Y}" if unit == "D" and moment.year != year else "")
        elif unit == "M" and moment.month > 1:
            text = f"{moment:%b}" if moment.year == year else f"{moment:%b %Y}"
        else:
            text = f"{moment:%Y}"
        year = moment.year
        ticks.append((float(instant.astype("datetime64[s]").astype(np.int64)) / 3600.0, text))
    return ticks


def _instants(start: np.datetime64, stop: np.datetime64, unit: str, count: int) -> np.ndarray:
    """Instants from `start` to `stop` at every `count` of a unit; days begin anew with each month."""
    instants = np.arange(start.astype(f"datetime64[{unit}]"), stop.astype(f"datetime64[{unit}]") + 1)
    if unit == "D":
        day = (instants - instants.astype("datetime64[M]")).astype(np.int64)
        kept = (day % count == 0) & (day <= 31 - count)  # not the last before the first of the next
    else:
        of = {"h": "D", "M": "Y", "Y": None}[unit]
        number = instants.astype(np.int64) + 1970 if of is None else (instants - instants.astype(f"datetime64[{of}]"))
        kept = number.astype(np.int64) % count == 0
    instants = instants[kept]
    return instants[(instants >= start) & (instants <= stop)]
