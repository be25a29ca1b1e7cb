"""Oracles made of oracles: causal, one instant = whole matrix, by hand, as flat parameters, from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, load_panel
from engine.errors import HlbtError, OracleError
from engine.lookahead.audit import check_causal
from engine.oracles.base import weight_matrix
from engine.oracles.loading import bound_parameters, build_oracle, data_files, load_oracle, oracle_code
from engine.panel import Coin
from engine.simulation.backtest import decisions_of
from helpers.panels import random_panel
from research.oracles.blend import Blend, RankBlend
from research.oracles.carry import Carry
from research.oracles.equal_weight import EqualWeight
from research.oracles.momentum import Momentum
from research.oracles.wrappers import Cap, InverseVolatility, Limit, Liquid, LongOnly, Neutralise, OneDex, Smooth

pytestmark = pytest.mark.slow

PATH = "research.oracles.momentum:Momentum"
INNER = Momentum(lookback_hours=30, n=2)
COMPOSED: list[Oracle] = [
    Smooth(INNER, days=3),
    Neutralise(INNER),
    Neutralise(INNER, to="beta", lookback_hours=48),
    InverseVolatility(INNER, lookback_hours=48),
    Cap(INNER, cap=0.15),
    Liquid(INNER, top=6, lookback_hours=24),
    Liquid(INNER, minimum_usd=4e6, lookback_hours=24),
    Blend([INNER, Carry(lookback_hours=24, n=3)], shares=[2, 1]),
    RankBlend([INNER, Carry(lookback_hours=24), EqualWeight()], n=2),
    Cap(Neutralise(InverseVolatility(Smooth(Liquid(INNER, top=7), days=2), lookback_hours=24)), cap=0.2),
    Liquid(Smooth(INNER, days=3), top=4),
    OneDex(INNER),
    LongOnly(INNER),
    Limit(
        INNER, by="sector", gross=0.4, net=0.1, rest="spread", sectors={"BTC": "x", "C01": "x", "C02": "y", "C03": "y"}
    ),
    Limit(LongOnly(Limit(Smooth(INNER), gross=0.2)), by="book", net=0.7),
    Cap(LongOnly(Neutralise(INNER), scale="cash"), cap=0.3),
]


@pytest.fixture(scope="module")
def panel() -> Panel:
    made = random_panel(11, 24 * 9, 9)
    fields = {name: made.frame(name) for name in made.fields}
    names = ["BTC", *made.coins[1:]]
    frames = {name: frame.set_axis(names, axis=1) for name, frame in fields.items()}
    return Panel.from_frames(table=[Coin(name) for name in names], **frames)


@pytest.mark.parametrize("oracle", COMPOSED, ids=lambda oracle: f"{type(oracle).__name__}")
def test_causal_and_one_instant_is_the_whole_matrix(oracle: Oracle, panel: Panel) -> None:
    decisions = decisions_of(panel, RunConfig())
    check_causal(oracle, panel, decisions)
    matrix = weight_matrix(oracle, panel, decisions)
    assert matrix.iloc[-1].abs().sum() > 0.2
    assert (matrix.abs().sum(axis=1) <= 1 + 1e-12).all()
    tradable = panel.frame("tradable")
    assert (matrix.to_numpy()[~tradable.loc[decisions].to_numpy()] == 0).all()
    for instant in decisions:
        universe = [coin for coin in panel.coins if tradable.loc[instant, coin]]
        assert oracle.fetch_portfolio_weights(instant, universe, panel) == matrix.loc[instant].to_dict(), instant


def flat_panel(days: int, coins: str = "ABCD", **frames: Any) -> Panel:
    index = pd.date_range("2024-10-01", periods=24 * days, freq="h", tz="UTC")
    mid = pd.DataFrame(100.0, index=index, columns=list(coins))
    return Panel.from_frames(
        mid=mid, **{name: pd.DataFrame(v, index=index, columns=list(coins)) for name, v in frames.items()}
    )


class Told(Oracle):
    """Says what it is told, one row a day of the panel."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        day = (decisions.normalize() - panel.index[0].normalize()).days
        return pd.DataFrame(np.array(self.rows)[day], index=decisions, columns=list(panel.coins))


def row_of(oracle: Oracle, panel: Panel, number: int = -1) -> list[float]:
    return weight_matrix(oracle, panel, decisions_of(panel, RunConfig())).iloc[number].tolist()


def test_smooth_by_hand() -> None:
    nan = np.nan
    panel = flat_panel(3, "AB")
    told = Told([[1.0, nan], [0.0, 0.5], [0.5, -1.0]])
    assert row_of(Smooth(told, days=2), panel, 0) == pytest.approx([1.0, nan], nan_ok=True)
    assert row_of(Smooth(told, days=2), panel, 1) == [0.5, 0.5]
    assert row_of(Smooth(told, days=2), panel, 2) == [0.25, -0.25]
    assert row_of(Smooth(told, days=3), panel) == [0.5, -0.25]
    weekly = RunConfig.from_dict({"execution": {"every_days": 2}})
    matrix = weight_matrix(Smooth(told, days=2), panel, decisions_of(panel, weekly))
    assert matrix.loc["2024-10-02 23:00"].tolist() == [0.5, 0.5]  # yesterday counts, though nothing was decided then


def test_neutral_to_dollars_by_hand() -> None:
    panel = flat_panel(1, "ABCD")
    # mean of the held is 0.2: 0.4, -0.4, 0, and 0.8 of gross becomes 1.0
    assert row_of(Neutralise(Told([[0.6, -0.2, 0.2, 0.0]])), panel) == pytest.approx([0.5, -0.5, 0.0, 0.0])
    assert row_of(Neutralise(Told([[0.25, 0.25, 0.25, 0.25]])), panel) == [0, 0, 0, 0]
    assert row_of(Neutralise(Told([[1.0, 0.0, 0.0, 0.0]])), panel) == [0, 0, 0, 0]
    held = row_of(Neutralise(Told([[0.6, np.nan, 0.2, 0.0]])), panel)
    assert held == pytest.approx([0.4, np.nan, -0.4, 0.0], nan_ok=True)


def test_neutral_to_beta_against_a_regression(panel: Panel) -> None:
    decisions = decisions_of(panel, RunConfig())
    weights = weight_matrix(Neutralise(INNER, to="beta", lookback_hours=48), panel, decisions)
    asked = weight_matrix(INNER, panel, decisions)
    mid = panel.frame("mid")
    for instant in decisions[2:]:
        returns = mid.loc[:instant].pct_change().iloc[-48:]
        beta = [np.polyfit(returns["BTC"], returns[coin], 1)[0] for coin in panel.coins]
        row = weights.loc[instant].to_numpy()
        assert (row * beta).sum() == pytest.approx(0, abs=1e-12)
        assert np.abs(row).sum() == pytest.approx(asked.loc[instant].abs().sum())
        assert set(np.flatnonzero(row)) <= set(np.flatnonzero(asked.loc[instant]))
    early = weight_matrix(Neutralise(EqualWeight(), to="beta", lookback_hours=48), panel, decisions).iloc[0]
    assert (early == 0).all()  # 23 of 48 hours are not enough to tell a beta
    with pytest.raises(OracleError, match="needs BTC"):
        row_of(Neutralise(EqualWeight(), to="beta"), flat_panel(1))


@pytest.fixture(scope="module")
def two_dexes(panel: Panel) -> Panel:
    """The last four coins are of a dex."""
    names = [*panel.coins[:5], *(f"xyz:{coin}" for coin in panel.coins[5:])]
    return replace(panel, coins=tuple(names), table=tuple(Coin(name) for name in names))


def test_neutral_to_beta_within_each_dex(panel: Panel, two_dexes: Panel) -> None:
    decisions = decisions_of(two_dexes, RunConfig())
    oracle = Neutralise(INNER, to="beta", lookback_hours=48)
    weights, asked = (weight_matrix(one, two_dexes, decisions) for one in (oracle, INNER))
    mid = two_dexes.frame("mid")
    for instant in decisions[2:]:
        returns = mid.loc[:instant].pct_change(fill_method=None).iloc[-48:]
        for own, market in ((slice(0, 5), returns["BTC"]), (slice(5, 9), returns.iloc[:, 5:].mean(axis=1))):
            row, before = weights.loc[instant].iloc[own], asked.loc[instant].iloc[own]
            beta = [np.polyfit(market, returns[coin], 1)[0] for coin in row.index]
            assert (row.to_numpy() * beta).sum() == pytest.approx(0, abs=1e-12)
            gross = before.abs().sum() if (before != 0).sum() > 1 else 0.0
            assert row.abs().sum() == pytest.approx(gross)
    # The main dex is what it is without the other one, and a dex needs no BTC.
    names = list(two_dexes.coins)
    for kept in (names[:5], names[5:]):
        part = Panel.from_frames(**{name: two_dexes.frame(name)[kept] for name in two_dexes.fields})
        told = Neutralise(EqualWeight(), to="beta", lookback_hours=48)
        alone, both = (weight_matrix(told, one, decisions).iloc[-1][kept] for one in (part, two_dexes))
        np.testing.assert_allclose(both / max(both.abs().sum(), 1e-9), alone / max(alone.abs().sum(), 1e-9), atol=1e-12)


@pytest.mark.parametrize("dex", ["", "xyz"])
def test_the_dex_of_an_oracle(two_dexes: Panel, dex: str) -> None:
    decisions = decisions_of(two_dexes, RunConfig())
    own = [coin for coin in two_dexes.coins if Coin(coin).dex == dex]
    part = Panel.from_frames(**{name: two_dexes.frame(name)[own] for name in two_dexes.fields})
    for kind, parameters in ((Momentum, {"lookback_hours": 30, "n": 2}), (EqualWeight, {})):
        weights = weight_matrix(kind(dex=dex, **parameters), two_dexes, decisions)
        pd.testing.assert_frame_equal(
            weights[own], weight_matrix(kind(**parameters), part, decisions), check_freq=False
        )
        assert (weights.drop(columns=own) == 0).all(axis=None)
        pd.testing.assert_frame_equal(weights, weight_matrix(OneDex(kind(**parameters), dex=dex), two_dexes, decisions))
    assert "dex" in Momentum.score_parameters and check_causal(Momentum(30, dex=dex), two_dexes, decisions) is None


def test_a_dex_that_is_not_there(two_dexes: Panel, panel: Panel) -> None:
    for oracle in (Momentum(dex="flx"), EqualWeight(dex="flx"), OneDex(INNER, dex="flx")):
        with pytest.raises(OracleError, match=r"dex = 'flx': the data have no coin of it, but of '', 'xyz'"):
            weight_matrix(oracle, two_dexes, decisions_of(two_dexes, RunConfig()))
    with pytest.raises(OracleError, match=r"dex = 'XYZ' is not accepted"):
        Momentum(dex="XYZ")


def test_inverse_volatility_by_hand() -> None:
    index = pd.date_range("2024-10-01", periods=48, freq="h", tz="UTC")
    swing = np.where(np.arange(48) % 2, 1.0, 0.0)
    mid = pd.DataFrame({"A": 100 * 1.01**swing, "B": 100 * 1.03**swing, "C": 100.0}, index=index)
    panel = Panel.from_frames(mid=mid)
    up, down = np.array([0.01, 0.03]), 1 / np.array([1.01, 1.03]) - 1
    sigma = np.sqrt((up**2 + down**2) / 2)  # 24 ups and 24 downs in 48 returns; row 47 has 47: 24 up, 23 down
    sigma = np.sqrt((24 * up**2 + 23 * down**2) / 47)
    expected = np.array([0.4, -0.4]) / sigma
    expected = expected / np.abs(expected).sum()
    row = row_of(InverseVolatility(Told([[0.4, -0.4, 0.2]] * 2), lookback_hours=47), panel)
    assert row == pytest.approx([*expected, 0.0])  # C does not move: no volatility, no weight
    assert row_of(InverseVolatility(Told([[0.4, -0.4, 0.2]] * 2), lookback_hours=200), panel) == [0, 0, 0]


def test_cap_and_blend_by_hand() -> None:
    panel = flat_panel(1, "ABC")
    assert row_of(Cap(Told([[0.6, -0.3, np.nan]]), cap=0.4), panel) == pytest.approx([0.4, -0.3, np.nan], nan_ok=True)
    first, second = Told([[0.6, np.nan, np.nan]]), Told([[-0.3, 0.3, np.nan]])
    assert row_of(Blend([first, second], shares=[2, 1]), panel) == pytest.approx([0.3, 0.1, np.nan], nan_ok=True)
    assert row_of(Blend([first, second]), panel) == pytest.approx([0.15, 0.15, np.nan], nan_ok=True)


def test_rank_blend_by_hand() -> None:
    panel = flat_panel(1, "ABCD", volume_usd=[[1.0, 1.0, 1.0, 0.0]] * 24)  # D is not tradable
    first, second = Told([[0.9, 0.0, -0.1, 5.0]]), Told([[0.1, 0.2, 0.2, -5.0]])
    scores = RankBlend([first, second], shares=[3, 1], n=1).scores(panel, decisions_of(panel, RunConfig()))
    # ranks 1, 1/2, 0 and 0, 3/4, 3/4
    assert scores[0] == pytest.approx([0.75, 0.375 + 0.1875, 0.1875, np.nan], nan_ok=True)
    assert row_of(RankBlend([first, second], shares=[3, 1], n=1), panel) == [0.5, 0, -0.5, 0]


def test_liquid_by_hand() -> None:
    volume = np.zeros((48, 4))
    volume[:] = [10.0, 30.0, 20.0, 0.0]
    volume[24:] = [40.0, 30.0, 20.0, 50.0]  # from the second day
    panel = flat_panel(2, "ABCD", volume_usd=volume)
    assert row_of(Liquid(EqualWeight(), top=2, lookback_hours=24), panel, 0) == [0, 0.5, 0.5, 0]
    assert row_of(Liquid(EqualWeight(), top=2, lookback_hours=24), panel, 1) == [0.5, 0, 0, 0.5]
    # means of both days, an hour: A 25, B 30, C 20, D 25
    row = row_of(Liquid(EqualWeight(), minimum_usd=24 * 24.5, lookback_hours=48), panel, 1)
    assert row == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    own = flat_panel(2, "ABCD", volume_24h_usd=24 * volume)
    assert row_of(Liquid(EqualWeight(), top=2, lookback_hours=24), own, 1) == [0.5, 0, 0, 0.5]
    # A day of the archive, which has the venue's own figure alone, then a day of candles: each has what it knows.
    candles, venue = np.where(np.arange(48)[:, None] < 24, np.nan, volume), 24 * volume
    venue[24:] = np.nan
    mixed = flat_panel(2, "ABCD", volume_usd=candles, volume_24h_usd=venue)
    for day in (0, 1):
        assert row_of(Liquid(EqualWeight(), top=2, lookback_hours=24), mixed, day) == (
            [0, 0.5, 0.5, 0] if day == 0 else [0.5, 0, 0, 0.5]
        )
    row = row_of(Liquid(EqualWeight(), minimum_usd=24 * 24.5, lookback_hours=48), mixed, 1)
    assert row == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    # Where nobody knows any volume, no coin is liquid: the first by name would be chosen for its name.
    unknown = flat_panel(2, "ABCD", volume_usd=candles)
    assert unknown.tradable[23].all()
    assert row_of(Liquid(EqualWeight(), top=2, lookback_hours=24), unknown, 0) == [0, 0, 0, 0]
    with pytest.raises(OracleError, match="volume_24h_usd"):
        try:
            row_of(Liquid(EqualWeight(), top=2), flat_panel(1))
        except HlbtError as error:
            raise OracleError(str(error)) from error


class Awry(Oracle):
    """Answers with other rows, or of other coins, than it was asked for."""

    def __init__(self, how: str) -> None:
        self.how = how

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        late = decisions + pd.Timedelta(hours=int(self.how == "rows"))
        return pd.DataFrame(0.1, index=late, columns=["NOPE" if self.how == "coins" else panel.coins[0]])


def test_an_inner_oracle_that_answers_something_else_is_named() -> None:
    panel = flat_panel(2)
    for how, message in (("rows", "Awry.weight_matrix must return a frame with one row"), ("coins", "lacks: NOPE")):
        for kind in (Cap, lambda inner: Blend([EqualWeight(), inner])):
            with pytest.raises(OracleError, match=message):
                row_of(kind(Awry(how)), panel)
    assert row_of(Cap(Awry("fine")), panel) == [0.1, 0, 0, 0]  # a coin that it leaves out is 0


# Parameters with dots -------------------------------------------------------------------------------------------------


def test_nested_parameters() -> None:
    flat = {"inner": PATH, "inner.n": 4, "inner.lookback_hours": 50, "days": 2}
    oracle = load_oracle("research.oracles.wrappers:Smooth", flat)
    assert oracle == Smooth(Momentum(lookback_hours=50, n=4), days=2)
    assert oracle == Smooth({"oracle": PATH, "n": 4, "lookback_hours": 50}, days=2)
    assert build_oracle(Smooth, {"inner": Momentum(lookback_hours=50), "inner.n": 4, "days": 2}) == oracle
    assert load_oracle(
        "research.oracles.wrappers:Cap",
        {"inner": "research.oracles.wrappers:Smooth", "inner.inner": PATH, "inner.inner.n": 4},
    ) == Cap(Smooth(Momentum(n=4)))
    shown = bound_parameters(Smooth, flat)
    assert shown["inner"] == PATH and shown["inner.n"] == 4 and shown["inner.skip_hours"] == 0 and shown["days"] == 2
    assert bound_parameters(Smooth, {"inner": Momentum(lookback_hours=50, n=4), "days": 2}) == shown
    assert load_oracle("research.oracles.wrappers:Smooth", shown) == oracle  # what a run records builds it again
    json.dumps(shown)
    both = {"oracles": [PATH, "research.oracles.carry:Carry"], "oracles.1.n": 2, "shares": [1, 3]}
    blend = load_oracle("research.oracles.blend:Blend", both)
    assert blend == Blend([Momentum(), Carry(n=2)], [1, 3])
    shown = bound_parameters(Blend, both)
    assert shown["oracles"] == both["oracles"] and shown["oracles.1.n"] == 2 and shown["oracles.0.n"] == 5
    assert load_oracle("research.oracles.blend:Blend", shown) == blend


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        ("wrappers:Smooth", {}, "Smooth needs inner: give it with --param inner=VALUE"),
        ("wrappers:Smooth", {"inner.n": 3}, "inner is not given. Add inner=module:Class"),
        (
            "wrappers:Smooth",
            {"inner": PATH, "iner.n": 3},
            "'iner' is no parameter that is an oracle.*Did you mean 'inner'",
        ),
        ("wrappers:Smooth", {"inner": PATH, "inner.m": 3}, "Momentum has no parameter 'm'"),
        ("wrappers:Smooth", {"inner": PATH, "inner.n": 0}, "n = 0 is not accepted"),
        ("wrappers:Smooth", {"inner": "momentum"}, "write module:Class"),
        ("wrappers:Smooth", {"inner": 3}, "inner = 3 is no oracle"),
        ("wrappers:Smooth", {"inner": PATH, "days": 0}, "days = 0 is not accepted"),
        ("wrappers:Neutralise", {"inner": PATH, "to": "dolars"}, "Did you mean 'dollars'"),
        ("wrappers:Cap", {"inner": PATH, "cap": -1}, "cap = -1 is not accepted"),
        ("wrappers:Liquid", {"inner": PATH, "top": 2.5}, "top = 2.5 is not accepted"),
        ("blend:Blend", {"oracles": PATH}, "give a list of oracles"),
        ("blend:Blend", {"oracles": [PATH], "oracles.1.n": 2}, "write oracles.0.n"),
        ("blend:Blend", {"oracles": [PATH, PATH], "shares": [1]}, "a list of 2 numbers"),
        ("blend:Blend", {"oracles": [PATH, PATH], "shares": [1, 0]}, "shares.1 = 0 is not accepted"),
        ("momentum:Momentum", {"inner.n": 2}, "Such parameters here: none"),
    ],
)
def test_compositions_that_cannot_be_built(path: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(OracleError, match=message):
        load_oracle(f"research.oracles.{path}", parameters)


def test_code_of_inner_oracles_is_in_the_digest(tmp_path: Path) -> None:
    (tmp_path / "hidden.py").write_text(
        "from research.oracles.equal_weight import EqualWeight\nclass Mine(EqualWeight):\n    pass\n"
    )
    oracle = load_oracle("research.oracles.wrappers:Cap", {"inner": f"{tmp_path / 'hidden.py'}:Mine"})
    names = {file.name for file in oracle_code(oracle) + data_files(oracle)}
    assert {"hidden.py", "equal_weight.py", "wrappers.py"} <= names


def test_a_composition_from_the_command_line(hlbt: Any, sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    parameters = ["inner=research.oracles.wrappers:Liquid", f"inner.inner={PATH}", "inner.inner.n=3", "inner.top=20"]
    words = ["backtest", "--oracle", "research.oracles.wrappers:Neutralise", "--param", "to=beta"]
    words += [word for parameter in parameters for word in ("--param", parameter)]
    done = hlbt(*words, "--set", "data.end=2024-04-01", "--no-report", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["origin"]["parameters"]["inner.inner.n"] == 3 and record["origin"]["parameters"]["inner.top"] == 20
    weights = pd.read_parquet(Path(record["folder"]) / "weights.parquet").set_index("time")
    panel = load_panel(sample_cache, end="2024-04-01")
    oracle = Neutralise(Liquid(Momentum(n=3), top=20), to="beta")
    expected = weight_matrix(oracle, panel, decisions_of(panel, RunConfig()))
    np.testing.assert_array_equal(weights.to_numpy(), expected.to_numpy())
    done = hlbt(*words, "--param", "inner.inner.m=3", "--no-report")
    assert done.code == 1 and "Momentum has no parameter 'm'" in done.err
