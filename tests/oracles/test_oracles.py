"""Every oracle in research/oracles: causal, one instant = whole matrix, within the limits; and the interface."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import research.oracles
from engine import Oracle, Panel, RunConfig, backtest, load_panel
from engine.errors import OracleError, WeightsError
from engine.lookahead.audit import check_causal
from engine.oracles.base import weight_matrix
from engine.oracles.fingerprint import code_files
from engine.oracles.loading import bound_parameters, build_oracle, load_oracle, oracle_code
from engine.simulation.backtest import decisions_of
from engine.weights import check_gross, validate_weights
from helpers.panels import random_panel
from research.oracles.construction import CONSTRUCTIONS, Ranking, rank_power, top_bottom, z_score
from research.oracles.cross_section import CrossSection
from research.oracles.momentum import Momentum
from research.oracles.published_scores import PublishedOracle
from research.oracles.wrappers import Cap


def concrete() -> list[type[Oracle]]:
    found = set()
    for module in pkgutil.iter_modules(research.oracles.__path__, "research.oracles."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, Oracle) and not inspect.isabstract(value):
                found.add(value)
    # Oracles over files and over other oracles: test_published_scores.py, test_wrappers.py.
    found -= {kind for kind in found if kind.oracle_parameters or issubclass(kind, PublishedOracle)}
    return sorted(found, key=lambda kind: kind.__name__)


VARIANTS = [
    pytest.param(
        kind,
        {"construction": construction, "lookback_hours": 30} if construction else {},
        id=f"{kind.__name__}-{construction}",
    )
    for kind in concrete()
    for construction in (CONSTRUCTIONS if issubclass(kind, CrossSection) else (None,))
]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(7, 24 * 12, 9, quotes=True, funding=True, oracle=True, table=True, volume=True)


def test_all_five_ideas_are_here() -> None:
    names = {kind.__name__ for kind in concrete()}
    assert {"Momentum", "Reversal", "Carry", "LowVolatility", "EqualWeight"} <= names


@pytest.mark.parametrize(("kind", "parameters"), VARIANTS)
def test_one_instant_and_the_whole_matrix_agree(
    kind: type[Oracle], parameters: dict[str, object], panel: Panel
) -> None:
    oracle = kind(**parameters)
    decisions = decisions_of(panel, RunConfig())
    matrix = weight_matrix(oracle, panel, decisions)
    assert list(matrix.columns) == list(panel.coins) and matrix.index.equals(decisions)
    tradable = panel.frame("tradable")
    for instant in decisions:
        universe = [coin for coin in panel.coins if tradable.loc[instant, coin]]
        row = oracle.fetch_portfolio_weights(instant, universe, panel.point_in_time())
        assert row == matrix.loc[instant].to_dict(), instant
        assert row == oracle.fetch_portfolio_weights(instant, universe, panel), "the panel itself is made as known"
    pd.testing.assert_frame_equal(oracle.weight_matrix(panel, decisions), matrix, check_exact=True)


@pytest.mark.parametrize(("kind", "parameters"), VARIANTS)
def test_no_look_ahead(kind: type[Oracle], parameters: dict[str, object], panel: Panel) -> None:
    oracle, decisions = kind(**parameters), decisions_of(panel, RunConfig())
    check_causal(oracle, panel, decisions)
    # whatever comes after a decision may be anything
    middle = decisions[5]
    after = panel.index > middle
    fields = {name: np.where(after[:, None], values * 7.0, values) for name, values in panel.fields.items()}
    other = Panel(panel.index, panel.coins, fields, panel.tradable ^ after[:, None], panel.table)
    pd.testing.assert_frame_equal(
        weight_matrix(oracle, other, decisions).loc[:middle],
        weight_matrix(oracle, panel, decisions).loc[:middle],
        check_exact=True,
    )


@pytest.mark.parametrize(("kind", "parameters"), VARIANTS)
def test_weights_keep_to_the_gross_and_to_tradable_coins(
    kind: type[Oracle], parameters: dict[str, object], panel: Panel
) -> None:
    decisions = decisions_of(panel, RunConfig())
    weights = weight_matrix(kind(**parameters, gross=0.8), panel, decisions)
    _, values = validate_weights(weights, panel)
    check_gross(values, decisions, 0.8)
    gross = np.abs(values).sum(axis=1)
    assert gross[-5:] == pytest.approx(0.8, rel=1e-12)
    assert (values[~panel.tradable[panel.rows(decisions)]] == 0.0).all()
    if issubclass(kind, CrossSection):
        assert np.abs(values.sum(axis=1)).max() < 0.8  # two sides
        assert gross[0] == 0.0  # the first decision comes before a full lookback


def test_momentum_by_hand() -> None:
    index = pd.date_range("2024-10-01", periods=48, freq="h", tz="UTC")
    mid = pd.DataFrame(100.0, index=index, columns=list("ABCD"))
    mid.loc[index[30] :, "C"] = 110.0  # the winner
    mid.loc[index[40] :, "A"] = 95.0  # the loser
    panel = Panel.from_frames(mid=mid)
    row = Momentum(lookback_hours=24, n=1).fetch_portfolio_weights(index[47], list("ABCD"), panel.point_in_time())
    assert row == {"A": -0.5, "B": 0.0, "C": 0.5, "D": 0.0}
    skipped = Momentum(lookback_hours=24, skip_hours=10, n=1).fetch_portfolio_weights(
        index[47], list("ABCD"), panel.point_in_time()
    )
    assert skipped["C"] == 0.5 and skipped["A"] != 0.5  # the fall at hour 40 is inside the skipped hours
    narrowed = Momentum(lookback_hours=24, n=1).fetch_portfolio_weights(index[47], ["A", "B"], panel.point_in_time())
    assert narrowed == {"A": -0.5, "B": 0.5, "C": 0.0, "D": 0.0}


def test_carry_sells_what_pays_and_sees_only_settled_rates() -> None:
    from research.oracles.carry import Carry

    index = pd.date_range("2024-10-01", periods=30, freq="h", tz="UTC")
    funding = pd.DataFrame(0.0, index=index, columns=list("AB"))
    funding.loc[index[:24], "A"] = 1e-4
    panel = Panel.from_frames(mid=pd.DataFrame(100.0, index=index, columns=list("AB")), funding=funding)
    decision = index[23:24]
    assert weight_matrix(Carry(lookback_hours=5, n=1), panel, decision).iloc[0].to_dict() == {"A": -0.5, "B": 0.5}
    moved = funding.copy()
    moved.loc[index[23]] = [-1.0, 1.0]  # settled at 23:00, after the trade of 23:00
    other = Panel.from_frames(mid=panel.frame("mid"), funding=moved)
    assert weight_matrix(Carry(lookback_hours=5, n=1), other, decision).iloc[0].to_dict() == {"A": -0.5, "B": 0.5}


def test_constructions_by_hand() -> None:
    scores = np.array(
        [[3.0, 1.0, np.nan, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0, np.nan], [5.0, np.nan, np.nan, np.nan, np.nan]]
    )
    assert top_bottom(scores, 1).tolist() == [[0.5, 0, 0, 0, -0.5], [0.5, -0.5, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert top_bottom(scores, 9)[0].tolist() == [0.25, -0.25, 0.0, 0.25, -0.25]  # sides shrink, never overlap
    ranks = rank_power(scores, 1.0)
    assert ranks[0] == pytest.approx([3 / 8, -1 / 8, 0, 1 / 8, -3 / 8])
    assert ranks[1].tolist() == [0.0] * 5 and ranks[2].tolist() == [0.0] * 5
    assert z_score(scores)[0] == pytest.approx([3 / 8, -1 / 8, 0, 1 / 8, -3 / 8])
    assert np.isfinite(z_score(scores)).all()


def test_a_planted_look_ahead_is_caught(panel: Panel) -> None:
    class Peeks(Momentum):
        def score(self, panel: Panel, row: int) -> np.ndarray:
            mid = panel.values("mid")
            return mid[min(row + 1, len(mid) - 1)] / mid[row]

    class FullSample(Momentum):
        def score(self, panel: Panel, row: int) -> np.ndarray:
            mid = panel.values("mid")
            return mid[row] / np.nanmean(mid, axis=0)

    for kind in (Peeks, FullSample):
        with pytest.raises(OracleError, match=rf"{kind.__name__} looks ahead: the weight of C"):
            check_causal(kind(lookback_hours=30), panel, decisions_of(panel, RunConfig()))


def test_an_oracle_gets_the_panel_as_known(panel: Panel) -> None:
    seen = {}

    class Looks(Oracle):
        def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
            seen["panel"] = panel
            return pd.DataFrame(0.0, index=decisions, columns=list(panel.coins))

    weight_matrix(Looks(), panel, decisions_of(panel, RunConfig()))
    known = seen["panel"].values("funding")
    np.testing.assert_array_equal(known[1:], panel.values("funding")[:-1])
    assert np.isnan(known[0]).all()
    np.testing.assert_array_equal(seen["panel"].values("mid"), panel.values("mid"))
    with pytest.raises(ValueError, match="read-only"):
        seen["panel"].values("mid")[0, 0] = 1.0


class Broken(Oracle):
    """Fails in the way it is told."""

    def __init__(self, how: str = "raise") -> None:
        self.how = how

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        if self.how == "raise":
            raise KeyError("meta_model")
        if self.how == "array":
            return np.zeros((len(decisions), len(panel.coins)))  # type: ignore[return-value]
        return pd.DataFrame(np.nan, index=decisions, columns=list(panel.coins))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", r"Broken failed over 12 decisions from .*: KeyError: 'meta_model' \(test_oracles.py line \d+\)"),
        ("array", "returned ndarray; a DataFrame"),
        ("nan", "no weight at any of 12 decisions"),
    ],
)
def test_an_oracle_that_fails_is_named(how: str, message: str, panel: Panel) -> None:
    with pytest.raises(OracleError, match=message):
        weight_matrix(Broken(how), panel, decisions_of(panel, RunConfig()))


@pytest.mark.parametrize(
    ("path", "parameters", "message"),
    [
        ("research.oracles.momentum", {}, "write module:Class"),
        ("research.oracles.momentun:Momentum", {}, "cannot be imported: ModuleNotFoundError"),
        ("research.oracles.momentum:Momentun", {}, "Did you mean 'Momentum'"),
        ("research.oracles.cross_section:CrossSection", {}, "is abstract: write its score"),
        ("research.oracles.momentum:Momentum", {"lookback_hour": 3}, "Did you mean 'lookback_hours'"),
        ("research.oracles.momentum:Momentum", {"lookback_hours": 0}, "lookback_hours = 0 is not accepted"),
        ("research.oracles.momentum:Momentum", {"lookback_hours": "a"}, "lookback_hours = 'a' is not accepted"),
        ("research.oracles.momentum:Momentum", {"skip_hours": 500}, "skip_hours = 500 is not accepted"),
        ("research.oracles.momentum:Momentum", {"n": 0}, "n = 0 is not accepted"),
        ("research.oracles.momentum:Momentum", {"gross": -1}, "gross = -1 is not accepted"),
        ("research.oracles.momentum:Momentum", {"construction": "topbottom"}, "Did you mean 'top_bottom'"),
        ("absent.py:Momentum", {}, "absent.py does not exist"),
    ],
)
def test_oracles_that_cannot_be_built(path: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(OracleError, match=message):
        load_oracle(path, parameters)


def test_an_oracle_from_a_file(tmp_path: Path, panel: Panel) -> None:
    (tmp_path / "mine.py").write_text(
        "import pandas as pd\nfrom engine import Oracle\n\n"
        "class Mine(Oracle):\n"
        "    def __init__(self, coin):\n        self.coin = coin\n"
        "    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame({self.coin: 1.0}, index=decisions)\n"
    )
    oracle = load_oracle(f"{tmp_path / 'mine.py'}:Mine", {"coin": panel.coins[0]})
    result = backtest(panel, weight_matrix(oracle, panel, decisions_of(panel, RunConfig())))
    assert set(result.trades["coin"]) == {panel.coins[0]}
    assert oracle_code(oracle) == [tmp_path / "mine.py"]
    with pytest.raises(OracleError, match="Mine needs coin: give it with --param coin=VALUE"):
        load_oracle(f"{tmp_path / 'mine.py'}:Mine", {})


def test_sources_and_parameters_of_an_oracle() -> None:
    assert [file.name for file in oracle_code(Momentum())] == [
        "construction.py",
        "cross_section.py",
        "momentum.py",
        "parameters.py",
    ]
    assert bound_parameters(Momentum, {"n": 3})["lookback_hours"] == 168


def test_an_oracle_that_takes_any_parameter_is_built_again_from_what_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "free.py").write_text(
        "import pandas as pd\nfrom engine import Oracle\n\n"
        "class Free(Oracle):\n"
        "    def __init__(self, size=1.0, **named):\n        self.size, self.named = size, named\n"
        "    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame({panel.coins[0]: self.size}, index=decisions)\n"
    )
    first = load_oracle(f"{tmp_path / 'free.py'}:Free", {"window": 3, "decay": 0.5})
    recorded = bound_parameters(type(first), {"window": 3, "decay": 0.5})
    assert recorded == {"size": 1.0, "window": 3, "decay": 0.5}
    assert vars(build_oracle(type(first), recorded)) == vars(first)


def test_an_oracle_that_refuses_by_any_error_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from engine import Oracle\nclass Odd(Oracle):\n    def __init__(self, n): self.n = 1 / n\n"
        "    def weight_matrix(self, panel, decisions): ...\n"
    )
    with pytest.raises(OracleError, match=r"Odd\(n=0\) failed: ZeroDivisionError: "):
        load_oracle(f"{tmp_path / 'odd.py'}:Odd", {"n": 0})


def test_code_of_packages_inside_packages_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``from .thing import Thing`` in a package means its own module, in a module that of the package around it."""
    inner = tmp_path / "outer_package" / "inner"
    (inner / "deep").mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("")
    (inner.parent / "above.py").write_text("Y = 1\n")
    (inner / "__init__.py").write_text("from .thing import Thing\nfrom . import other\nfrom ..above import Y\n")
    (inner / "thing.py").write_text("from .deep import Z\nclass Thing: pass\n")
    (inner / "other.py").write_text("X = 1\n")
    (inner / "deep" / "__init__.py").write_text("from ..other import X as Z\nfrom .base import B\n")
    (inner / "deep" / "base.py").write_text("B = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("outer_package.inner")
    found = {str(file.relative_to(tmp_path / "outer_package")) for file in code_files(["outer_package.inner"])}
    wanted = {"__init__.py", "thing.py", "other.py", "deep/__init__.py", "deep/base.py"}
    assert found - {"__init__.py"} == {f"inner/{name}" for name in wanted} | {"above.py"}


def test_validate_weights_takes_the_absolute_value() -> None:
    oracle = Momentum()
    oracle.validate_weights({"BTC": 0.5, "ETH": -0.5})
    with pytest.raises(WeightsError, match=r"Gross weight 1\.20"):
        oracle.validate_weights({"BTC": 0.6, "ETH": -0.6})
    with pytest.raises(WeightsError, match="The weight of BTC of weights is inf"):
        oracle.validate_weights({"BTC": float("inf")})
    with pytest.raises(WeightsError, match="a value that is no number"):
        oracle.validate_weights({"BTC": "half"})  # type: ignore[dict-item]
    with pytest.raises(WeightsError, match="Weights are list; a frame or a mapping"):
        oracle.validate_weights([0.5])  # type: ignore[arg-type]


def test_one_instant_errors(panel: Panel) -> None:
    with pytest.raises(OracleError, match="pass panel="):
        Momentum().fetch_portfolio_weights(panel.index[0], panel.coins)
    with pytest.raises(OracleError, match="is naive"):
        Momentum().fetch_portfolio_weights(pd.Timestamp("2024-10-01"), panel.coins, panel.point_in_time())
    with pytest.raises(OracleError, match="Timestamp 'soon' is no instant"):
        Momentum().fetch_portfolio_weights("soon", panel.coins, panel.point_in_time())  # type: ignore[arg-type]
    with pytest.raises(OracleError, match="tradable_universe is the text 'BTC'; a list of coins is needed"):
        Momentum().fetch_portfolio_weights(panel.index[0], "BTC", panel.point_in_time())
    with pytest.raises(OracleError, match=r"Momentum is a class. Build the oracle first: Momentum\("):
        weight_matrix(Momentum, panel, panel.index[:1])  # type: ignore[arg-type]
    with pytest.raises(OracleError, match="has no row at"):
        Momentum().fetch_portfolio_weights(panel.index[-1] + pd.Timedelta(hours=2), panel.coins, panel.point_in_time())


def test_oracles_on_real_data_never_trade_what_is_not_listed(real_cache: Path) -> None:
    """XLM, MORPHO and SPX have weeks of moving index prices before their listing: momentum must not buy them there."""
    panel = load_panel(real_cache)
    listed = {coin.name: coin.listed for coin in panel.table}
    mid = panel.frame("mid")
    for coin in ("XLM", "MORPHO", "SPX"):
        assert mid.loc[: listed[coin] - pd.Timedelta(hours=1), coin].notna().sum() > 500
    result = backtest(panel, weight_matrix(Momentum(lookback_hours=72, n=30), panel, decisions_of(panel, RunConfig())))
    first = result.trades.groupby("coin")["time"].min()
    assert {"XLM", "MORPHO", "SPX"} <= set(first.index)
    assert all(instant >= listed[coin] for coin, instant in first.items())


class Cut(Momentum):
    """Cuts its own data under the former name of ``as_of``."""

    def until(self, instant: pd.Timestamp) -> Oracle:
        return replace(super().until(instant), n=1)  # type: ignore[type-var]


class Renamed(Cut):
    def as_of(self, instant: pd.Timestamp) -> Oracle:
        return replace(super().as_of(instant), lookback_hours=7)  # type: ignore[type-var]


class Mixin:
    def until(self, instant: pd.Timestamp) -> str:
        return f"mixin {instant:%d}"


class Mixed(Mixin, Momentum):  # type: ignore[misc]
    pass


def test_as_of_and_its_former_name_are_one_method() -> None:
    instant = pd.Timestamp("2024-10-02", tz="UTC")
    assert Oracle.until is Oracle.as_of and Momentum.until is Momentum.as_of
    for method in ("as_of", "until"):
        assert getattr(Momentum(), method)(instant) == Momentum()
        assert getattr(Cut(), method)(instant) == Cut(n=1)
        assert getattr(Renamed(), method)(instant) == Renamed(n=1, lookback_hours=7)
        assert getattr(Mixed(), method)(instant) == "mixin 02"
        wrapped = getattr(Cap(Cut(), 0.2), method)(instant)
        assert wrapped == Cap(Cut(n=1), 0.2), "an oracle made of oracles cuts its parts"


@pytest.mark.parametrize("seed", range(60))
def test_both_orders_are_sorts_of_their_own(seed: int) -> None:
    """Ties by column in both, coins without a score last: one order read backwards has neither."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rng.integers(1, 9), rng.integers(1, 12)))
    scores = np.round(scores) if seed % 3 == 0 else scores
    for value, step in ((np.nan, 4), (np.inf, 5), (-0.0, 7)):
        scores[(rng.random(scores.shape) < 0.3) & (seed % step == 0)] = value
    scores[0] = np.nan if seed % 11 == 0 else scores[0]
    ranking = Ranking(scores)
    np.testing.assert_array_equal(ranking.ascending, np.argsort(scores, axis=1, kind="stable"))
    np.testing.assert_array_equal(ranking.descending, np.argsort(-scores, axis=1, kind="stable"))
