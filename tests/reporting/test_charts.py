"""Our charts: round ticks, nothing outside the picture, and the values that were drawn for the pointer."""

from __future__ import annotations

import html
import json
import re
from datetime import datetime
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from engine.reporting import charts, ticks

NUMBER = r"-?\d+(?:\.\d+)?"


@pytest.mark.parametrize("seed", range(40))
def test_ticks_of_numbers_are_round_and_say_their_value(seed: int) -> None:
    generator = np.random.default_rng(seed)
    low, high = np.sort(generator.normal(size=2) * 10.0 ** generator.integers(-6, 12))
    for most in (3, 5, 6):
        found = ticks.of_numbers(low, high, most, "%")
        assert 2 <= len(found) <= most + 1
        places = np.array([place for place, _ in found])
        step = np.diff(places)[0]
        assert low - step * 1e-6 <= places[0] and places[-1] <= high + step * 1e-6
        np.testing.assert_allclose(np.diff(places), step, rtol=1e-6)
        mantissa = step / 10.0 ** np.floor(np.log10(step) + 1e-9)
        assert np.abs(np.array([1.0, 2.0, 2.5, 5.0]) - mantissa).min() < 1e-6
        for place, text in found:
            assert float(text.removesuffix("%").replace(",", "")) == pytest.approx(place, rel=1e-8, abs=step * 1e-6)


@pytest.mark.parametrize("hours", [3, 11, 30, 80, 200, 700, 1500, 2600, 5000, 8784, 15_000, 30_000, 60_000, 350_000])
@pytest.mark.parametrize("start", ["2024-01-01T00:00", "2023-11-29T17:00", "2024-02-29T23:00"])
def test_ticks_of_time_are_round_instants_that_say_their_year_once(start: str, hours: int) -> None:
    first = np.datetime64(start).astype("datetime64[s]").astype(np.int64) / 3600.0
    found = ticks.of_time(first, first + hours)
    assert 2 <= len(found) <= 7
    places = np.array([place for place, _ in found])
    assert places[0] >= first and places[-1] <= first + hours and (np.diff(places) > 0).all()
    moments = [datetime.fromisoformat(str(np.datetime64(round(place * 3600.0), "s"))) for place in places]
    for moment, (_, text) in zip(moments, found, strict=True):
        assert f"{moment:%H:%M}" in text if moment.hour else str(moment.year) in text or f"{moment:%b}" in text
    if hours > 200:
        assert all(moment.hour == 0 for moment in moments)
        said = [re.search(r"\d{4}", text) for _, text in found]
        years = [moment.year for moment in moments]
        assert [bool(year) for year in said] == [
            year != before for before, year in zip([0, *years], years, strict=False)
        ]


def nasty(kind: str) -> np.ndarray:
    """Values of a chart as a run may have them."""
    walk = np.random.default_rng(4).normal(size=4000).cumsum()
    gaps = walk.copy()
    gaps[[0, 1, 50, 51, 52, 1000, 3999]] = [np.nan, np.inf, np.nan, -np.inf, np.nan, 1e6, np.nan]
    return {
        "walk": walk,
        "gaps": gaps,
        "short": np.array([1.0, np.nan, 3.0]),
        "one": np.array([7.0]),
        "none": np.zeros(0),
        "lost": np.full(30, np.nan),
        "zero": np.zeros(30),
        "same": np.full(30, 12345.678),
        "huge": walk * 1e14,
        "tiny": walk * 1e-9,
        "negative": -np.abs(walk),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["walk", "gaps", "short", "one", "none", "lost", "zero", "same", "huge", "tiny", "negative"]
)
def test_whatever_is_drawn_lies_in_the_picture_and_the_pointer_is_told_it(kind: str) -> None:
    values = nasty(kind)
    index = pd.date_range("2024-11-20T05:00Z", periods=len(values), freq="h")
    one, sizes = pd.Series(values, index), 10.0 ** np.arange(3, 3 + min(len(values), 5))
    few = pd.Series(values[: len(sizes)])
    drawn = [
        charts.lines("a <b> & c", {"x & <y>": one, "half": one / 2.0}, ["#348dc1", "#e08e45"], percent=True),
        charts.lines("filled", {"x": one}, ["#348dc1"], fill=0.0),
        charts.lines("to the edge", {"x": one, "y": -one}, ["#348dc1", "#e08e45"], fill=-np.inf, dashed=("y",)),
        charts.equity({"equity": one, "BTC held": one}, one, charts.SMALL, ["#348dc1", "#8a8a8a"]),
        charts.stems("turnover", one.abs(), 0.5),
        charts.bars("bars", [str(number) for number in range(min(len(values), 40))], values[:40], np.abs(values[:40])),
        charts.by_size("sizes", sizes, {"a": few, "b": few}, ["#348dc1", "#e08e45"]),
        charts.by_size("sizes", sizes, {"a": few, "b": few}, ["#348dc1", "#e08e45"], percent=True, log=True),
    ]
    if len(values):
        drawn.append(
            charts.waterfall([(str(at), value) for at, value in enumerate(np.nan_to_num(values[:5], posinf=1))])
        )
    for chart in drawn:
        root = ElementTree.fromstring(chart)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for path in root.iter("path"):
            assert re.fullmatch(rf"(?:[MLHVhv]{NUMBER}(?: {NUMBER})?|Z)*", path.attrib["d"]), path.attrib["d"][:200]
            corners = re.findall(rf"[ML]({NUMBER}) ({NUMBER})", path.attrib["d"])
            assert all(-1 <= float(x) <= width + 1 and -1 <= float(y) <= height + 1 for x, y in corners)
        for text in root.iter("text"):
            assert 0 <= float(text.attrib["x"]) <= width and 0 <= float(text.attrib["y"]) <= height
            assert "nan" not in str(text.text) and "inf" not in str(text.text)
    told = json.loads(html.unescape(ElementTree.fromstring(drawn[1]).attrib["data-hover"]))[0]
    (line,) = told["series"]
    hours = np.cumsum(line["x"])
    rows = charts.thin(values)
    np.testing.assert_array_equal(hours, index.as_unit("s").asi8[rows] // 3600)
    expected = np.where(np.isfinite(values[rows]), values[rows], np.nan)
    np.testing.assert_allclose(np.array(line["y"], dtype=float), expected, atol=10.0 ** -line["digits"])
    left, _, across, _ = told["box"]
    path = next(
        each
        for each in ElementTree.fromstring(drawn[1]).iter("path")
        if "stroke: var(--c348dc1" in each.attrib["style"]
    )
    at = [float(x) for x in re.findall(rf"[ML]({NUMBER}) ", path.attrib["d"])]
    place = left + across * (hours[np.isfinite(expected)] - told["lim"][0]) / (told["lim"][1] - told["lim"][0])
    np.testing.assert_allclose(at, place, atol=0.11)


def test_thinning_is_that_of_a_loop_over_the_buckets() -> None:
    generator = np.random.default_rng(9)
    for count, points in ((4001, 1200), (1300, 600), (8784, 1200), (601, 600)):
        values = generator.integers(0, 20, count).astype(np.float64)  # with equal extremes, of which the first counts
        values[generator.random(count) < 0.3] = np.nan
        values[100:160] = np.nan
        edges = np.linspace(0, count, (points - 2) // 2 + 1).astype(np.int64)
        rows = {0, count - 1}
        for start, stop in pairwise(edges):
            if not np.isnan(values[start:stop]).all():
                rows |= {start + np.nanargmin(values[start:stop]), start + np.nanargmax(values[start:stop])}
        assert charts.thin(values, points).tolist() == sorted(rows)
