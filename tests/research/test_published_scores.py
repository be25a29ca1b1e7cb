"""Oracles over published scores: the publication rule again, slowly, from the text; no look-ahead; names."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Panel, RunConfig
from engine.errors import OracleError
from engine.lookahead.audit import audit, check_causal
from engine.oracles.base import weight_matrix
from engine.oracles.loading import load_oracle
from engine.simulation.backtest import decisions_of
from helpers.effort import some
from helpers.publications import COINS, numerai_file, out_at, panel_of, rows_of
from research.oracles.blend import Blend
from research.oracles.crowdcent import CrowdCentOracle
from research.oracles.file import FileOracle
from research.oracles.momentum import Momentum
from research.oracles.numerai import NumeraiTBNOracle
from research.oracles.publication_schedule import newest_expected, schedule_of
from research.oracles.score_file import Published
from research.oracles.symbols import ALIASES, SymbolMap
from research.oracles.wrappers import Cap, Smooth

pytestmark = pytest.mark.slow


def slow_numerai(
    rows: pd.DataFrame, panel: Panel, instant: pd.Timestamp, tb: int, lags: int, max_age: float = 5
) -> dict[str, float]:
    weights = dict.fromkeys(panel.coins, 0.0)
    days = sorted({date.fromisoformat(text) for text in rows["date"]})
    seen = [day for day in days if out_at(day) < instant][-lags:]
    if not seen or instant - pd.Timestamp(seen[-1], tz="UTC") > pd.Timedelta(days=max_age):
        return weights
    values = {(row.date, row.symbol): row.meta_model for row in rows.itertuples()}
    tradable = panel.frame("tradable").loc[instant]
    liked = []
    for column, coin in enumerate(panel.coins):
        symbol = "PEPE" if coin == "kPEPE" else coin
        each = [values.get((day.isoformat(), symbol)) for day in seen]
        if tradable[coin] and any(value is not None for value in each):
            liked.append((sum(0.5 if value is None else value for value in each), column, coin))
    side = min(tb, len(liked) // 2)
    longs = sorted(liked, key=lambda item: (-item[0], item[1]))[:side]
    shorts = sorted((item for item in liked if item not in longs), key=lambda item: (item[0], item[1]))[:side]
    for sign, chosen in ((1, longs), (-1, shorts)):
        for *_, coin in chosen:
            weights[coin] = sign * 0.5 / side
    return weights


@settings(max_examples=some(10, 25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    tb=st.integers(1, 5),
    lags=st.sampled_from([1, 2, 5, 30]),
    start=st.sampled_from(["2024-11-01", "2026-03-25", "2025-12-20"]),
    holes=st.sampled_from([0.0, 0.3]),
    hour=st.sampled_from([23, 17, 18, 19]),
)
def test_numerai_against_the_text(
    tmp_path: Path, seed: int, tb: int, lags: int, start: str, holes: float, hour: int
) -> None:
    rng = np.random.default_rng(seed)
    panel = panel_of(start=start, days=20, seed=seed)
    first = pd.Timestamp(start) - pd.Timedelta(days=int(rng.integers(-3, 12)))
    rows = rows_of(str(first.date()), str((pd.Timestamp(start) + pd.Timedelta(days=25)).date()), seed=seed)
    rows = rows[rng.random(len(rows)) >= holes]
    rows = rows[~rows["date"].isin(rng.choice(rows["date"].unique(), int(rng.integers(0, 4))))]
    if rng.random() < 0.3:
        rows["meta_model"] = rows["meta_model"].round(0)  # ties
    decisions = decisions_of(panel, RunConfig.from_dict({"execution": {"hour_utc": hour}}))
    oracle = NumeraiTBNOracle(tb=tb, lags=lags, file=numerai_file(tmp_path, rows.sample(frac=1, random_state=seed)))
    matrix = weight_matrix(oracle, panel, decisions)
    for instant in decisions:
        assert matrix.loc[instant].to_dict() == pytest.approx(slow_numerai(rows, panel, instant, tb, lags)), instant


def test_what_each_weekday_sees_at_23_utc(tmp_path: Path) -> None:
    """Tue to Fri the day before; Sat Thursday; Sun Thursday, now Friday; Mon Friday."""
    for monday, sunday in (("2024-11-04", "Thu"), ("2026-04-20", "Fri")):
        start = pd.Timestamp(monday)
        rows = rows_of(str((start - pd.Timedelta(days=14)).date()), str((start + pd.Timedelta(days=9)).date()))
        oracle = NumeraiTBNOracle(file=numerai_file(tmp_path, rows))
        newest = []
        for day in range(7):
            instant = start.tz_localize("UTC") + pd.Timedelta(days=day, hours=23)
            newest.append(oracle.published(instant).window(instant, 1)[0][-1].strftime("%a"))
        assert newest == ["Fri", "Mon", "Tue", "Wed", "Thu", "Thu", sunday]
    # The first Friday row under the new rule is that of 2026-04-10; that of 2026-04-03 was out on Monday the 6th.
    rows = rows_of("2026-03-23", "2026-04-20")
    table = NumeraiTBNOracle(file=numerai_file(tmp_path, rows)).published(pd.Timestamp("2026-05-01", tz="UTC"))
    out = dict(zip(table.dates.strftime("%m-%d"), table.available.strftime("%m-%d %H"), strict=True))
    assert out["04-03"] == "04-06 18" and out["04-10"] == "04-12 18" and out["04-09"] == "04-10 18"


def test_the_predecessors_look_ahead_is_what_the_schedule_takes_away(tmp_path: Path) -> None:
    rows = rows_of("2024-10-01", "2024-12-20")
    file, instant = numerai_file(tmp_path, rows), pd.Timestamp("2024-12-18T23:00Z")
    honest = NumeraiTBNOracle(file=file).published(instant).window(instant, 1)[0][-1]
    early = NumeraiTBNOracle(file=file, publication=0).published(instant).window(instant, 1)[0][-1]
    assert f"{honest:%m-%d}" == "12-17" and f"{early:%m-%d}" == "12-18"
    noon = NumeraiTBNOracle(file=file, publication=[["2020-01-01", 42], ["2024-12-16", [36] * 7]])
    assert f"{noon.published(instant).window(pd.Timestamp('2024-12-18T12:01Z'), 1)[0][-1]:%m-%d}" == "12-17"


def oracles(folder: Path, rows: pd.DataFrame) -> list[Any]:
    crowd = rows.rename(columns={"date": "release_date", "symbol": "id", "meta_model": "pred_10d"})
    crowd = crowd.assign(pred_30d=1 - crowd["pred_10d"], id=crowd["id"].replace("PEPE", "kPEPE"))
    crowd.to_parquet(folder / "crowd.parquet")
    own = rows.rename(columns={"symbol": "coin", "meta_model": "score"})
    known = pd.to_datetime(own["date"], utc=True) + pd.to_timedelta(np.arange(len(own)) % 50, unit="h")
    own.assign(available_at=known.astype(str)).to_csv(folder / "own.csv", index=False)
    return [
        NumeraiTBNOracle(tb=2, lags=5, file=numerai_file(folder, rows)),
        CrowdCentOracle(n=2, column="pred_30d", file=str(folder / "crowd.parquet"), lags=2),
        FileOracle(str(folder / "own.csv"), n=2, lags=3),
        FileOracle(str(folder / "own.csv"), n=2, delay_hours=30, construction="z_score"),
    ]


def available(oracle: Any, table: pd.DataFrame) -> pd.Series:
    """When each row of the file is known, from the text."""
    if isinstance(oracle, NumeraiTBNOracle):
        return table["date"].map(lambda text: pd.Timestamp(out_at(date.fromisoformat(text))))
    if isinstance(oracle, CrowdCentOracle):
        return pd.to_datetime(table["release_date"], utc=True) + pd.Timedelta(hours=18)
    if oracle.delay_hours is not None:
        return pd.to_datetime(table["date"], utc=True) + pd.Timedelta(hours=oracle.delay_hours)
    return pd.to_datetime(table["available_at"], utc=True)


@pytest.mark.parametrize("number", range(4))
def test_no_look_ahead_in_the_panel_or_in_the_file(tmp_path: Path, number: int) -> None:
    panel = panel_of(days=16)
    oracle = oracles(tmp_path, rows_of("2024-10-20", "2024-11-30", weekend=number > 0))[number]
    decisions = decisions_of(panel, RunConfig())
    check_causal(oracle, panel, decisions)
    full = weight_matrix(oracle, panel, decisions)
    assert (full.abs().sum(axis=1) > 0.9).all()
    assert oracle.fetch_portfolio_weights(decisions[-1], panel.coins, panel.point_in_time()) is not None
    source = Path(oracle.file)
    read = pd.read_parquet(source) if source.suffix == ".parquet" else pd.read_csv(source)
    known = available(oracle, read)
    for place in (0, 5, 9, len(decisions) - 1):
        instant = decisions[place]
        for what in ("removed", "changed"):
            later = read.copy()
            hidden = known > instant
            assert hidden.any()
            score = later.columns[later.dtypes == np.float64]
            later.loc[hidden, score] = 1 - later.loc[hidden, score]
            later = later if what == "changed" else later[~hidden]
            other = tmp_path / f"other{source.suffix}"
            later.to_parquet(other) if source.suffix == ".parquet" else later.to_csv(other, index=False)
            oracle_then = load_oracle(
                f"{type(oracle).__module__}:{type(oracle).__name__}", {**vars(oracle), "file": str(other)}
            )
            then = weight_matrix(oracle_then, panel.until(instant), decisions[: place + 1])
            pd.testing.assert_frame_equal(then, full.iloc[: place + 1], check_exact=True)
            universe = panel.frame("tradable").loc[instant]
            live = oracle_then.fetch_portfolio_weights(instant, universe[universe].index, panel)
            assert live == full.loc[instant].to_dict()
        if place < len(decisions) - 1:
            assert not weight_matrix(oracle_then, panel, decisions).equals(full), (
                "the rows that were hidden matter later"
            )


def test_live_needs_no_panel_and_the_predecessors_names_work(tmp_path: Path) -> None:
    rows = rows_of("2024-09-01", "2024-12-20")
    oracle = NumeraiTBNOracle(tb=3, file=numerai_file(tmp_path, rows))
    assert NumeraiTBNOracle(3) == NumeraiTBNOracle(tb=3)
    instant = pd.Timestamp("2024-11-20T23:00Z")
    alone = oracle.fetch_portfolio_weights(instant, list(COINS))
    ordered = panel_of(tuple(sorted(COINS)))
    assert alone == oracle.fetch_portfolio_weights(instant, COINS, ordered)
    assert sum(map(abs, alone.values())) == pytest.approx(1) and oracle.validate_weights(alone) is True
    short = oracle.fetch_portfolio_weights(instant, list(COINS), 2)  # as the predecessor: lags in third place
    assert short == oracle.fetch_portfolio_weights(instant, list(COINS), lags=2) != alone
    assert short == NumeraiTBNOracle(tb=3, lags=2, file=oracle.file).fetch_portfolio_weights(instant, list(COINS))
    newest = rows[rows["date"] == "2024-11-19"].set_index("symbol")["meta_model"].rename({"PEPE": "kPEPE"})
    assert oracle.get_risk_for_date(instant, list(COINS)) == {"meta_model": newest[sorted(COINS)].to_dict()}
    with pytest.raises(OracleError, match="naive"):
        oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-20T23:00"), COINS)


def test_every_alias_names_the_k_coins_and_renames_follow_the_market(tmp_path: Path) -> None:
    named = {alias.symbol: alias.coin for alias in ALIASES}
    for symbol in ("PEPE", "SHIB", "BONK", "FLOKI", "LUNC", "NEIRO", "DOGS"):
        assert named[symbol] == f"k{symbol}"
    assert {("MATIC", "POL"), ("RNDR", "RENDER"), ("FTM", "S"), ("MKR", "SKY"), ("OM", "MANTRA")} <= {
        (alias.symbol, alias.coin) for alias in ALIASES
    }
    panel = panel_of(("MATIC", "POL", "BTC"), start="2024-09-01", days=30)
    renamed = pd.Timestamp("2024-09-17T07:00Z")
    trades = panel.frame("mid").notna()
    trades.loc[trades.index >= renamed, "MATIC"] = False
    trades.loc[trades.index < renamed, "POL"] = False
    panel = Panel.from_frames(mid=panel.frame("mid"), tradable=trades)
    rows = rows_of("2024-08-01", "2024-09-30", ("MATIC", "BTC"))
    rows.loc[rows["symbol"] == "MATIC", "meta_model"] = 0.9
    rows.loc[rows["symbol"] == "BTC", "meta_model"] = 0.2
    rows.loc[(rows["symbol"] == "MATIC") & (rows["date"] >= "2024-09-23"), "symbol"] = "POL"
    oracle = NumeraiTBNOracle(tb=1, lags=30, file=numerai_file(tmp_path, rows))
    decisions = decisions_of(panel, RunConfig())
    matrix = weight_matrix(oracle, panel, decisions)
    before, after = matrix.index < renamed, matrix.index >= renamed
    assert (matrix.loc[before, "MATIC"] == 0.5).all() and (matrix.loc[before, "POL"] == 0).all()
    assert (matrix.loc[after, "POL"] == 0.5).all() and (matrix.loc[after, "MATIC"] == 0).all()
    scores = oracle.scores(panel.point_in_time(), decisions[-1:])[0]
    assert scores[1] == pytest.approx(27)  # thirty rows of 0.9, those under the old name with them
    check_causal(oracle, panel, decisions)


def test_a_symbol_of_the_coins_own_name_comes_first(tmp_path: Path) -> None:
    panel = panel_of(("kPEPE", "BTC"))
    rows = rows_of("2024-10-01", "2024-12-20", ("PEPE", "kPEPE", "1000PEPE", "BTC"))
    instant = pd.Timestamp("2024-11-20T23:00Z")
    newest = rows[rows["date"] == "2024-11-19"].set_index("symbol")["meta_model"]
    for left_out, chosen in (((), "kPEPE"), (("kPEPE",), "PEPE"), (("kPEPE", "PEPE"), "1000PEPE")):
        kept = rows[~rows["symbol"].isin(left_out)]
        oracle = NumeraiTBNOracle(file=numerai_file(tmp_path, kept, f"{chosen}.csv"))
        assert oracle.get_risk_for_date(instant, panel.coins)["meta_model"]["kPEPE"] == newest[chosen]


def test_a_coin_that_still_trades_lends_its_rows_to_nobody(tmp_path: Path) -> None:
    rows = rows_of("2024-12-01", "2025-02-20", ("FTM", "BTC"))
    oracle = NumeraiTBNOracle(file=numerai_file(tmp_path, rows))
    after, before = pd.Timestamp("2025-01-20T23:00Z"), pd.Timestamp("2024-12-17T23:00Z")
    assert set(oracle.latest(after, ["FTM", "S", "BTC"])) == {"FTM", "BTC"}
    assert set(oracle.latest(after, ["S", "BTC"])) == {"S", "BTC"}
    assert set(oracle.latest(before, ["S", "BTC"])) == {"BTC"}  # Sonic was not there yet


def test_a_look_ahead_into_the_file_is_caught(tmp_path: Path) -> None:
    panel, file = panel_of(days=12), numerai_file(tmp_path, rows_of("2024-10-01", "2024-11-30"))
    decisions = decisions_of(panel, RunConfig())

    class WholeFile(NumeraiTBNOracle):
        """Ranks against each symbol's mean over the whole file."""

        def combine(self, window: np.ndarray) -> np.ndarray:
            table = self.published(decisions[-1])
            level = SymbolMap(table.symbols, panel.coins).to_coins(
                np.nanmean(table.values, axis=0)[None], decisions[0], np.ones(len(panel.coins), dtype=np.bool_)
            )
            return window[-1] - level[0]

    class Tomorrow(NumeraiTBNOracle):
        """Takes the newest row of the file, whenever it came."""

        def published(self, until: pd.Timestamp) -> Published:
            table = super().published(until)
            return replace(table, available=table.available - pd.Timedelta(days=1))

    for kind in (WholeFile, Tomorrow):
        oracle = kind(tb=2, lags=1, file=file)
        for asked in (oracle, Smooth(oracle, days=2), Blend([Momentum(lookback_hours=24), Cap(oracle)])):
            with pytest.raises(OracleError, match=f"{type(asked).__name__} looks ahead"):
                check_causal(asked, panel, decisions)
    fine = NumeraiTBNOracle(tb=2, lags=1, file=file)
    check_causal(Blend([Momentum(lookback_hours=24), Cap(Smooth(fine, days=2))]), panel, decisions)
    assert fine.as_of(decisions[0]) == fine and not hasattr(fine, "_cut"), "the oracle itself is left as it is"


def test_a_schedule_before_the_services_is_a_look_ahead_that_the_audit_names(tmp_path: Path) -> None:
    """The oracle's own word on when rows were out is not taken where the service's schedule is known."""
    panel, file = panel_of(days=12), numerai_file(tmp_path, rows_of("2024-10-01", "2024-11-30"))
    decisions = decisions_of(panel, RunConfig())
    crowd = rows_of("2024-10-01", "2024-11-30", COINS, weekend=True)
    crowd = crowd.set_axis(["release_date", "id", "pred_10d"], axis=1).assign(pred_30d=0.5)
    crowd.to_csv(tmp_path / "crowd.csv", index=False)
    found = audit(lambda: NumeraiTBNOracle(tb=2, lags=1, file=file, publication=0), panel, decisions, cuts=4)
    assert [check.name for check in found.failed] == ["published"], found
    assert "with the rows published by" in found.message()
    check_causal(NumeraiTBNOracle(tb=2, lags=1, file=file, publication=90), panel, decisions)  # later is allowed
    early = CrowdCentOracle(n=2, file=str(tmp_path / "crowd.csv"), publication=0)
    check_causal(early, panel, decisions)  # at 23:00 the row of the day is out, whichever hour of it was meant
    for oracle, hour in ((early, 12), (NumeraiTBNOracle(tb=2, lags=1, file=file, publication=39), 17)):
        at = decisions_of(panel, RunConfig.from_dict({"execution": {"hour_utc": hour}}))
        with pytest.raises(OracleError, match="looks ahead"):
            check_causal(oracle, panel, at)


@pytest.mark.parametrize("hours", [0, 30, 1000])
def test_the_newest_row_that_is_out(hours: int) -> None:
    """By counting back day by day, for a service that is slow by hours or by weeks."""
    schedule = schedule_of(hours)
    for until in pd.date_range("2024-11-01T00:00Z", periods=12, freq="17h"):
        day = until.normalize()
        while day.day_of_week > 4 or day + pd.Timedelta(hours=hours) >= until:
            day -= pd.Timedelta(days=1)
        assert newest_expected(until, schedule, range(5)) == day
