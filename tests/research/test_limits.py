"""LongOnly and Limit: by hand, laws on nasty books, sectors from files, audited, swept, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, backtest, sweep
from engine.errors import HlbtError, OracleError
from engine.lookahead.audit import audit
from engine.oracles.base import weight_matrix
from engine.oracles.loading import data_files, load_oracle
from engine.simulation.backtest import decisions_of
from helpers.audits import statuses
from helpers.effort import some
from helpers.panels import random_panel
from research.oracles.limits import group_sums, limit_factors
from research.oracles.momentum import Momentum
from research.oracles.wrappers import Cap, Limit, LongOnly

NAN = np.nan
TABLE = {"A": "x", "B": "x", "C": "y", "D": "y"}


class Said(Oracle):
    """The same weights at every decision."""

    def __init__(self, row: list[float]) -> None:
        self.row = row

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        return pd.DataFrame([self.row] * len(decisions), index=decisions, columns=list(panel.coins))


def row_of(oracle: Oracle, coins: str | list[str] = "ABCD") -> list[float]:
    index = pd.date_range("2024-10-01", periods=24, freq="h", tz="UTC")
    panel = Panel.from_frames(mid=pd.DataFrame(100.0, index=index, columns=list(coins)))
    return weight_matrix(oracle, panel, decisions_of(panel, RunConfig())).iloc[0].tolist()


def test_long_only_by_hand() -> None:
    told = Said([0.3, -0.5, 0.1, NAN])
    # gross 0.9, of which 0.4 is long
    assert row_of(LongOnly(told)) == pytest.approx([0.675, 0.0, 0.225, NAN], nan_ok=True)
    assert row_of(LongOnly(told, scale="cash")) == pytest.approx([0.3, 0.0, 0.1, NAN], nan_ok=True)
    assert row_of(LongOnly(Said([-0.3, -0.5, 0.0, NAN]))) == pytest.approx([0, 0, 0, NAN], nan_ok=True)


@pytest.mark.parametrize(
    ("given", "row", "expected"),
    [
        # x has 0.6 + 0.2 of gross and is cut to 0.4, by half
        ({"gross": 0.4}, [0.6, -0.2, 0.1, NAN], [0.3, -0.1, 0.1, NAN]),
        # x has 0.4 of net and keeps 0.1: its longs go to 0.3
        ({"net": 0.1}, [0.6, -0.2, 0.1, NAN], [0.3, -0.2, 0.1, NAN]),
        ({"net": 0.1}, [-0.6, 0.2, 0.1, 0.0], [-0.3, 0.2, 0.1, 0.0]),
        # first the gross (0.3, -0.1), then the net: 0.2 is too much by 0.1
        ({"gross": 0.4, "net": 0.1}, [0.6, -0.2, 0.1, 0.0], [0.2, -0.1, 0.1, 0.0]),
        # the 0.4 that are cut go to y, as far as its own limit: 0.1 becomes 0.4, and 0.1 stays in cash
        ({"gross": 0.4, "rest": "spread"}, [0.6, -0.2, 0.1, 0.0], [0.3, -0.1, 0.4, 0.0]),
        ({"gross": 0.6, "rest": "spread"}, [0.5, 0.3, 0.1, -0.1], [0.375, 0.225, 0.2, -0.2]),
        # nothing to spread it to
        ({"gross": 0.4, "rest": "spread"}, [0.6, -0.2, 0.0, NAN], [0.3, -0.1, 0.0, NAN]),
        ({"by": "book", "sectors": None, "net": 0.1}, [0.4, 0.2, -0.1, 0.0], [0.4 / 3, 0.2 / 3, -0.1, 0.0]),
    ],
)
def test_limit_by_hand(given: dict[str, Any], row: list[float], expected: list[float]) -> None:
    oracle = Limit(Said(row), **{"by": "sector", "sectors": TABLE} | given)
    assert row_of(oracle) == pytest.approx(expected, abs=1e-15, nan_ok=True)


def test_what_was_cut_is_spread_in_proportion_until_each_group_is_full() -> None:
    # A is cut by 0.4; B reaches 0.2 on the way, C and D share what is left in proportion.
    row = row_of(Limit(Said([0.6, 0.15, -0.05, 0.02]), gross=0.2, rest="spread"))
    assert row == pytest.approx([0.2, 0.2, -0.2, 0.2])
    row = row_of(Limit(Said([0.6, 0.15, -0.05, 0.02]), gross=0.3, rest="spread"))
    assert row == pytest.approx([0.3, 0.3, -0.22 * 5 / 7, 0.22 * 2 / 7])
    row = row_of(Limit(Said([0.6, 0.15, -0.05, 0.02]), gross=0.35, rest="spread"))
    assert row == pytest.approx([0.35, 0.15 * 0.47 / 0.22, -0.05 * 0.47 / 0.22, 0.02 * 0.47 / 0.22])


def test_by_dex_and_by_coin() -> None:
    coins = ["A", "xyz:B", "xyz:C", "flx:D"]
    assert row_of(Limit(Said([0.4, 0.2, -0.2, 0.2]), by="dex", gross=0.2), coins) == pytest.approx(
        [0.2, 0.1, -0.1, 0.2]
    )
    told = Said([0.4, -0.3, 0.05, NAN])
    assert row_of(Limit(told, gross=0.1)) == pytest.approx(row_of(Cap(told, cap=0.1)), nan_ok=True)


def nasty(rng: np.random.Generator, rows: int, coins: int) -> np.ndarray:
    """Books with holds, zeros, dust, and coins that have all."""
    book = rng.normal(size=(rows, coins)) * rng.choice([0.0, 1e-300, 1e-12, 1e-6, 1.0, 1.0, 50.0], size=(rows, coins))
    book[rng.random(book.shape) < 0.1] = NAN
    gross = np.nansum(np.abs(book), axis=1, keepdims=True)
    return book * np.divide(rng.choice([0.5, 1.0, 3.0]), gross, out=np.ones_like(gross), where=gross > 0)


def test_limits_hold_and_what_is_spread_never_exceeds_what_was_cut() -> None:
    for seed in range(some(400, 5_000)):
        rng = np.random.default_rng(seed)
        book = nasty(rng, 3, int(rng.integers(1, 14)))
        groups = np.unique(rng.integers(0, rng.integers(1, 6), book.shape[1]), return_inverse=True)[1]
        gross = [None, 0.01, 0.2, 0.7][seed % 4]
        net = [0.05, None, 0.3][seed % 3] if gross is not None else 0.1
        before = group_sums(book, groups)
        for spread in (False, True):
            up, down = limit_factors(*before, gross, net, spread)
            after = book * np.where(book > 0, up[:, groups], down[:, groups])
            long, short = group_sums(after, groups)
            assert (long + short <= (np.inf if gross is None else gross) + 1e-12).all()
            assert (np.abs(long - short) <= (np.inf if net is None else net) + 1e-12).all()
            np.testing.assert_array_equal(np.isnan(after), np.isnan(book))
            assert (np.sign(after) == np.sign(book))[(np.abs(book) > 1e-200) & (after != 0)].all()
            had, has = np.nansum(np.abs(book), axis=1), np.nansum(np.abs(after), axis=1)
            assert (has <= had * (1 + 1e-12)).all()
            again = limit_factors(long, short, gross, net, False)
            np.testing.assert_allclose(np.stack(again), 1.0, atol=1e-9)  # limiting twice is limiting once
            if not spread:
                assert (np.abs(after) <= np.abs(book))[~np.isnan(book)].all()
                continue
            full = np.zeros(long.shape, dtype=bool)
            full |= False if gross is None else long + short >= gross - 1e-9
            full |= False if net is None else np.abs(long - short) >= net - 1e-9
            dust = sum(before) <= 1e-9 * had[:, None]
            assert ((has >= had * (1 - 1e-9)) | (full | dust).all(axis=1)).all()


def test_scale_laws() -> None:
    rng = np.random.default_rng(7)
    book = nasty(rng, 50, 9)
    groups = np.arange(9) % 3
    for spread in (False, True):
        one = limit_factors(*group_sums(book, groups), 0.3, 0.1, spread)
        ten = limit_factors(*group_sums(10 * book, groups), 3.0, 1.0, spread)
        turned = limit_factors(*group_sums(-book, groups), 0.3, 0.1, spread)
        np.testing.assert_allclose(one, ten, rtol=1e-9)
        np.testing.assert_allclose(one, turned[::-1], rtol=1e-9)
    for scale in ("gross", "cash"):
        twice = row_of(LongOnly(LongOnly(Said([0.3, -0.5, 0.1, NAN]), scale=scale), scale=scale))
        assert twice == pytest.approx(row_of(LongOnly(Said([0.3, -0.5, 0.1, NAN]), scale=scale)), nan_ok=True)


# Sectors --------------------------------------------------------------------------------------------------------------


def test_sectors_from_a_file_are_those_of_the_table_and_decide_the_digest(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('A = "x"\nB = "x"\n"xyz:C" = "y"\n')
    (tmp_path / "s.csv").write_text("coin,sector,remark\nA,x,\nB, x,?\nxyz:C,y,\n")
    told, coins = Said([0.6, 0.2, 0.1, -0.1]), ["A", "B", "xyz:C", "D"]
    rows = [
        row_of(Limit(told, by="sector", gross=0.4, sectors=given), coins)
        for given in ({"A": "x", "B": "x", "xyz:C": "y"}, str(tmp_path / "s.toml"), str(tmp_path / "s.csv"))
    ]
    assert rows[0] == rows[1] == rows[2] == pytest.approx([0.3, 0.1, 0.1, -0.1])
    oracle = Cap(Limit(told, by="sector", gross=0.4, sectors=str(tmp_path / "s.csv")))
    assert data_files(oracle) == [tmp_path / "s.csv"] == list(oracle.constant_files())


def test_coins_without_a_sector_are_one_more_group_and_are_named() -> None:
    oracle = Limit(Said([0.3, 0.3, 0.2, 0.2]), by="sector", gross=0.2, sectors={"A": "x", "btc": "x"})
    assert row_of(oracle) == pytest.approx([0.2, *(np.array([0.3, 0.2, 0.2]) * 0.2 / 0.7)])
    panel = random_panel(1, 24, 2)
    missing, unknown = Limit(Momentum(), by="sector", net=1, sectors={panel.coins[0]: "x", "nope": "y"}).notes(
        panel, panel.index[-1:]
    )
    assert f"No sector is known of {panel.coins[1]}" in missing
    assert "Sectors are given for coins that the data lack: nope" in unknown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give gross=0.3, net=0.1, or both"),
        ({"gross": 0}, "gross = 0 is not accepted"),
        ({"net": -0.1}, "net = -0.1 is not accepted"),
        ({"by": "sektor", "gross": 1}, "Did you mean 'sector'"),
        ({"rest": "spred", "gross": 1}, "Did you mean 'spread'"),
        ({"by": "sector", "gross": 1}, "go together"),
        ({"sectors": {"A": "x"}, "gross": 1}, "go together"),
        ({"by": "sector", "gross": 1, "sectors": 3}, "give a table of coin and sector"),
        ({"by": "sector", "gross": 1, "sectors": "list.txt"}, "neither a .toml nor a .csv"),
        ({"by": "sector", "gross": 1, "sectors": {}}, "names no coin"),
        ({"by": "sector", "gross": 1, "sectors": {"A": 3}}, "the sector of 'A' is 3"),
        ({"by": "sector", "gross": 1, "sectors": "absent.csv"}, "absent.csv cannot be read"),
        (
            {"by": "sector", "gross": 1, "sectors": "latin.csv"},
            r"latin.csv cannot be read: .* Save it as text \(UTF-8\)",
        ),
        ({"by": "sector", "gross": 1, "sectors": "absent.toml"}, "absent.toml cannot be read"),
        ({"by": "sector", "gross": 1, "sectors": "twice.csv"}, "two sectors for A: x and y"),
        ({"by": "sector", "gross": 1, "sectors": "columns.csv"}, "no column 'coin'. It has: token, sector"),
        ({"by": "sector", "gross": 1, "sectors": "broken.toml"}, "is not TOML"),
        ({"by": "sector", "gross": 1, "sectors": "nested.toml"}, "the sector of 'sectors' is"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    Path("twice.csv").write_text("coin,sector\nA,x\nA,y\n")
    Path("latin.csv").write_bytes("coin,sector\nA,B\u00f6rse\n".encode("latin-1"))
    Path("columns.csv").write_text("token,sector\nA,x\n")
    Path("broken.toml").write_text("A = x\n")
    Path("nested.toml").write_text('[sectors]\nA = "x"\n')
    with pytest.raises(HlbtError, match=message):
        row_of(Limit(Said([0.1] * 4), **given))
    with pytest.raises(OracleError, match="scale = 'none' is not accepted: choose gross or cash"):
        LongOnly(Momentum(), scale="none")


def test_a_file_of_sectors_passes_the_audit_as_a_constant_and_predictions_beside_it_do_not(tmp_path: Path) -> None:
    panel = random_panel(3, 24 * 6, 6)
    (tmp_path / "s.csv").write_text("coin,sector\n" + "".join(f"{coin},x\n" for coin in panel.coins[:3]))
    path = "research.oracles.wrappers:Limit"
    given = {"inner": "research.oracles.momentum:Momentum", "inner.lookback_hours": 30, "inner.n": 2}
    given |= {"by": "sector", "gross": 0.4, "sectors": str(tmp_path / "s.csv")}
    decisions = decisions_of(panel, RunConfig())
    found = audit(path, panel, decisions, parameters=given, cuts=3)
    assert found.passed, found.message()
    (published,) = (check for check in found.checks if check.name == "published")
    assert published.summary.endswith("s.csv taken for constant") and statuses(found)["published"] == "pass"


def test_swept_and_from_the_command_line(hlbt: Any, sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = random_panel(4, 24 * 12, 6)
    path, inner = "research.oracles.wrappers:Limit", "research.oracles.momentum:Momentum"
    fixed = {"inner": inner, "inner.n": 2, "by": "sector", "sectors": dict.fromkeys(panel.coins[:3], "x")}
    grid = {"gross": [0.1, 0.4], "inner.lookback_hours": [24, 48], "rest": ["cash", "spread"]}
    study = sweep(panel, path, grid | {name: [value] for name, value in fixed.items()})
    for row in study.reset_index().to_dict("records"):
        oracle = load_oracle(path, fixed | {name: row[name] for name in grid})
        assert row["sharpe"] == pytest.approx(backtest(panel, oracle).metrics["sharpe"], rel=1e-9)
    assert len(set(study["sharpe"])) == 6  # at 0.1 both groups are full, and there is nothing to spread to
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    words = ["backtest", "--oracle", path, "--param", f"inner={inner}", "--param", "by=sector", "--param", "gross=0.3"]
    words += [
        "--param",
        'sectors={BTC="majors", ETH="majors"}',
        "--set",
        "data.end=2024-03-01",
        "--no-report",
        "--json",
    ]
    done = hlbt(*words)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["origin"]["parameters"]["sectors"] == {"BTC": "majors", "ETH": "majors"}
    assert any("No sector is known of" in note for note in record["notes"])
