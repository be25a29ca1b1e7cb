"""Grids: which sets are run, drawn and left out, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.sweeps.grid import check_keys, make_grid, parse_grid, read_study_file
from research.oracles.momentum import Momentum
from research.oracles.reversal import Reversal

KINDS = {"m": Momentum, "r": Reversal}


def test_a_product_in_the_order_of_itertools() -> None:
    asked = {"n": [3, 5], "construction": ["top_bottom", "z_score"], "costs.taker_bps": ["schedule", 4.5, 2]}
    grid = make_grid(asked, {})
    expected = [dict(zip(asked, values, strict=True)) for values in itertools.product(*asked.values())]
    assert [grid.params(place) for place in range(len(grid))] == expected
    assert list(grid.index) == [tuple(one.values()) for one in expected]
    assert grid.index.names == list(asked)


def test_one_key_gives_a_plain_index() -> None:
    index = make_grid({"n": [3, 5]}, {}).index
    assert index.names == ["n"] and list(index) == [3, 5] and index.nlevels == 1


def test_ranges_include_both_ends() -> None:
    assert make_grid({"n": {"start": 24, "stop": 72, "step": 24}}, {}).values["n"] == [24, 48, 72]
    assert make_grid({"n": {"start": 24, "stop": 71, "step": 24}}, {}).values["n"] == [24, 48]
    assert make_grid({"x": {"start": 0.1, "stop": 0.3, "step": 0.1}}, {}).values["x"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    "where",
    ["skip_hours < lookback_hours", lambda one: one["skip_hours"] < one["lookback_hours"]],
    ids=["expression", "function"],
)
def test_constraints(where: object) -> None:
    grid = make_grid({"lookback_hours": [6, 12], "skip_hours": [0, 6, 12]}, {}, [where])  # type: ignore[list-item]
    assert list(grid.index) == [(6, 0), (12, 0), (12, 6)]


def test_constraints_over_names_with_dots_and_texts() -> None:
    grid = make_grid(
        {"construction": ["top_bottom", "z_score"], "costs.taker_bps": [1.0, 2.0]},
        {},
        ["construction == 'z_score' or `costs.taker_bps` > 1"],
    )
    assert list(grid.index) == [("top_bottom", 2.0), ("z_score", 1.0), ("z_score", 2.0)]


@pytest.mark.parametrize("listed", [1, 1_000_000])
def test_every_set_is_drawn_as_often_and_none_twice(listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the product is listed or drawn from: 40 of 120 sets, 300 times; a count has a standard error of 8.2."""
    monkeypatch.setattr("engine.sweeps.grid.LISTED_SETS", listed)
    counts = np.zeros((10, 12), dtype=int)
    for seed in range(-10, 290):
        codes = make_grid({"a": list(range(10)), "b": list(range(12))}, {}, sample=40, seed=seed).codes
        assert len(np.unique(codes, axis=0)) == 40
        counts[codes[:, 0], codes[:, 1]] += 1
    assert counts.sum() == 300 * 40 and np.abs(counts - 100).max() < 35


def test_a_draw_from_a_product_too_large_to_hold() -> None:
    asked = {f"p{k}": list(range(1000)) for k in range(6)}  # 10 ** 18 sets
    grid = make_grid(asked, {}, ["p0 < p1"], sample=400, seed=3)
    assert len(grid) == len(np.unique(grid.codes, axis=0)) == 400
    assert (grid.codes[:, 0] < grid.codes[:, 1]).all()
    assert (grid.codes == make_grid(asked, {}, ["p0 < p1"], sample=400, seed=3).codes).all()
    assert not np.array_equal(grid.codes, make_grid(asked, {}, ["p0 < p1"], sample=400, seed=4).codes)
    # Spread over the whole product: the mean of 400 draws of p2 has a standard error of 14.
    assert abs(grid.codes[:, 2].mean() - 499.5) < 70


def test_a_draw_larger_than_what_there_is_takes_all() -> None:
    grid = make_grid({"a": [1, 2, 3], "b": [1, 2, 3]}, {}, ["a < b"], sample=50)
    assert list(grid.index) == [(1, 2), (1, 3), (2, 3)]


def test_a_list_of_sets_fills_in_defaults() -> None:
    grid = make_grid([{"n": 3}, {"n": 5, "execution.weekdays": ["mon"]}], {"execution.weekdays": ("tue",)})
    assert [grid.params(place) for place in (0, 1)] == [
        {"n": 3, "execution.weekdays": ["tue"]},
        {"n": 5, "execution.weekdays": ["mon"]},
    ]


@pytest.mark.parametrize(
    ("asked", "where", "words"),
    [
        ({}, [], "no set"),
        ([], [], "no set"),
        ({"n": []}, [], "n has no value"),
        ({"n": [3, 5, 3]}, [], "value 3 twice"),
        ({"n": "3,5"}, [], "give a list"),
        ({"n": {"start": 1, "stop": 5}}, [], "start, stop .included, not below start. and step"),
        ({"n": {"start": 5, "stop": 1, "step": 1}}, [], "range"),
        ({"n": [3, 5]}, ["n > 9"], "constraints exclude every one"),
        ({"n": [3, 5]}, ["m > 9"], "cannot be read"),
        ({"n": [3, 5]}, ["n + 1"], "not true or false"),
        ([{"n": 3}, {"m": 3}], [], "has no m"),
        ([{"n": 3}, {"n": 3}], [], "twice"),
        ({"n": [*range(2000), 0]}, [], "value 0 twice"),
        ({"n": {"start": float("nan"), "stop": 1, "step": 1}}, [], "range"),
        ({"n": {"start": 0, "stop": 1, "step": float("inf")}}, [], "range"),
        ({"n": [{1: 2, "a": 3}]}, [], "is not accepted"),
        ({f"p{k}": list(range(100)) for k in range(5)}, [], "10,000,000,000 sets"),
    ],
)
def test_grids_that_are_refused(asked: object, where: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_grid(asked, {}, where)  # type: ignore[arg-type]


@pytest.mark.parametrize("sample", [0, -1, 1.5, True])
@pytest.mark.parametrize("asked", [{"n": [1, 2]}, [{"n": 1}, {"n": 2}]], ids=["product", "list"])
def test_draws_that_are_refused(asked: object, sample: object) -> None:
    with pytest.raises(ConfigError, match="must be a whole number from 1"):
        make_grid(asked, {}, sample=sample)  # type: ignore[arg-type]


def test_a_draw_that_the_constraints_hardly_allow_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sweeps.grid.MOST_SETS", 100_000)
    asked = {f"p{k}": list(range(1000)) for k in range(4)}
    with pytest.raises(ConfigError, match=r"sets drawn the constraints keep 0; 5 are wanted"):
        make_grid(asked, {}, ["p0 < 0"], sample=5)
    assert len(make_grid(asked, {}, ["p0 < 2"], sample=5)) == 5  # two of a thousand


def test_a_function_sees_the_values_as_they_are() -> None:
    seen: list[object] = []
    make_grid({"n": [1, None], "w": [[1, 2]]}, {}, [lambda one: seen.append((one["n"], one["w"])) is None])
    assert seen == [(1, [1, 2]), (None, [1, 2])] and type(seen[0][0]) is int  # type: ignore[index]


def test_a_list_of_many_sets_takes_no_time_that_grows_with_their_square() -> None:
    grid = make_grid([{"x": k / 7, "y": k % 3} for k in range(20_000)], {})
    assert grid.params(19_999) == {"x": 19_999 / 7, "y": 1} and len(grid.values["y"]) == 3


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lookback", "Did you mean 'lookback_hours'"),
        ("skip_hours", "neither a parameter of r"),
        ("cost.taker_bps", "Did you mean 'costs.taker_bps'"),
        ("costs.taker", "Did you mean 'costs.taker_bps'"),
        ("data.start", "one panel"),
        ("n", "both fixed and in the grid"),
    ],
)
def test_keys_that_are_refused(key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_keys([key], KINDS, {"n": 3})


def test_keys_that_are_taken() -> None:
    check_keys(["lookback_hours", "oracle", "execution.delay_hours", "account.max_gross"], KINDS, {})


def test_the_flags_of_a_grid() -> None:
    parsed = parse_grid(["n=3,5", "lookback_hours=24:72:24", "costs.taker_bps=schedule,4.5", 'w=[["mon"], ["tue"]]'])
    assert parsed == {
        "n": [3, 5],
        "lookback_hours": {"start": 24, "stop": 72, "step": 24},
        "costs.taker_bps": ["schedule", 4.5],
        "w": [["mon"], ["tue"]],
    }
    for wrong in ("n", "n=", "=3"):
        with pytest.raises(ConfigError, match="is not k=a,b,c"):
            parse_grid([wrong])
    with pytest.raises(ConfigError, match="twice"):
        parse_grid(["n=3", "n=5"])


def test_a_study_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'oracle = ["a:A", "b:B"]\nwhere = "n < 5"\nsample = 40\n[params]\ngross = 0.5\n'
        '[grid]\nn = [3, 5]\ncosts.taker_bps = [1, 2]\n"execution.hour_utc" = { start = 20, stop = 23, step = 1 }\n'
        '[data]\nstart = "2024-10-01"\n'
    )
    study = read_study_file(file)
    assert study.oracles == ("a:A", "b:B") and study.where == ("n < 5",) and study.sample == 40
    assert study.fixed == {"gross": 0.5} and study.name == "mine"
    assert study.sections == {"data": {"start": "2024-10-01"}}
    assert study.grid == {
        "n": [3, 5],
        "costs.taker_bps": [1, 2],
        "execution.hour_utc": {"start": 20, "stop": 23, "step": 1},
    }


def test_keys_of_sets_may_have_dots_as_those_of_a_grid(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[[sets]]\nn = 3\ncosts.taker_bps = 4\n[[sets]]\nn = 5\n'costs.taker_bps' = 5\n")
    assert read_study_file(file).grid == [{"n": 3, "costs.taker_bps": 4}, {"n": 5, "costs.taker_bps": 5}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oracel = 'a:A'", "Did you mean 'oracle'"),
        ("oracle = 3", "write a string or a list"),
        ("grid = 3", "must be a table"),
        ("[grid]\nn = [1]\n[[sets]]\nn = 1", "both"),
        ("sample = true", "whole number"),
        ("sets = [1, 2]", "list of tables"),
        ("oracle = ", "is not TOML"),
    ],
)
def test_study_files_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_study_file(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_study_file(tmp_path / "absent.toml")
