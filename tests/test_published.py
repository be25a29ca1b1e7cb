"""Oracles over published scores: the publication rule written out again, slowly, from the text; bad files; the run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Panel, RunConfig, backtest
from engine.errors import OracleError
from engine.oracle import Oracle, check_causal, weight_matrix
from engine.oracles.build import load_oracle, oracle_sources
from engine.oracles.risk import NET, risk_of
from engine.pages.run import block
from engine.panel import Coin
from engine.runs import load_run
from engine.simulate import decisions_of
from panels import random_panel
from research.oracles.blend import Blend
from research.oracles.compose import Cap, Smooth
from research.oracles.crowdcent import CrowdCentOracle
from research.oracles.file import FileOracle
from research.oracles.momentum import Momentum
from research.oracles.names import ALIASES, Names
from research.oracles.numerai import NumeraiTBNOracle
from research.oracles.publication import schedule_of
from research.oracles.table import Published

NUMERAI = "research.oracles.numerai:NumeraiTBNOracle"
COINS = ("BTC", "ETH", "SOL", "kPEPE", "DOGE", "XRP", "AVAX")
SYMBOLS = ("BTC", "ETH", "SOL", "PEPE", "DOGE", "XRP", "AVAX", "NOTHL", "OTHER")


def panel_of(coins: tuple[str, ...] = COINS, days: int = 40, start: str = "2024-11-01", seed: int = 3) -> Panel:
    made = random_panel(seed, 24 * days, len(coins), quotes=False, oracle=False)
    index = made.index + (pd.Timestamp(start, tz="UTC") - made.index[0])
    frames = {name: made.frame(name).set_axis(list(coins), axis=1).set_axis(index, axis=0) for name in made.fields}
    return Panel.from_frames(table=[Coin(name) for name in coins], **frames)


def rows_of(
    first: str, last: str, symbols: tuple[str, ...] = SYMBOLS, seed: int = 1, weekend: bool = False
) -> pd.DataFrame:
    """Rows of the shape of Numerai's file, made up."""
    days = [day for day in pd.date_range(first, last) if weekend or day.day_of_week < 5]
    rng = np.random.default_rng(seed)
    rows = [(f"{day:%Y-%m-%d}", symbol, round(rng.random(), 3)) for day in days for symbol in symbols]
    return pd.DataFrame(rows, columns=["date", "symbol", "meta_model"])


def numerai_file(folder: Path, rows: pd.DataFrame, name: str = "mm.csv") -> str:
    rows.to_csv(folder / name, index=False)
    return str(folder / name)


# The rule, again -----------------------------------------------------------------------------------------------------


def out_at(day: date) -> datetime:
    """FACTS 8.1: D + 1 at 18:00 UTC; Friday's row on Monday 18:00, since 2026-04-06 on Sunday 18:00."""
    later = 1
    if day.weekday() == 4:
        later = 3 if day < date(2026, 4, 6) else 2
    return datetime(day.year, day.month, day.day, 18, tzinfo=UTC) + timedelta(days=later)


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    """FACTS 8.1: Tue to Fri the day before; Sat Thursday; Sun Thursday, now Friday; Mon Friday."""
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


@pytest.mark.parametrize(
    "value", ["numerei", -1, float("nan"), True, [], [["2024-01-01"]], [["2024-01-01", [1, 2]]], [["yesterday", 3]],
              [["2025-01-01", 1], ["2024-01-01", 1]], {"a": 1}],
)  # fmt: skip
def test_schedules_that_are_refused(value: Any) -> None:
    with pytest.raises(OracleError, match="publication"):
        schedule_of(value)


# Causality ------------------------------------------------------------------------------------------------------------


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
    assert oracle.fetch_portfolio_weights(decisions[-1], panel.coins, panel.known()) is not None
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


# Names ----------------------------------------------------------------------------------------------------------------


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
    scores = oracle.scores(panel.known(), decisions[-1:])[0]
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


# What is told ---------------------------------------------------------------------------------------------------------


def test_unknown_symbols_duplicates_weekends_and_staleness_are_told(tmp_path: Path) -> None:
    panel = panel_of(days=12)  # 2024-11-01 to 12
    rows = rows_of("2024-09-01", "2024-11-04")
    again = rows[(rows["symbol"] == "ETH") & (rows["date"] == "2024-11-01")]
    other = rows[(rows["symbol"] == "SOL") & (rows["date"].isin(["2024-10-31", "2024-11-01"]))].copy()
    other["meta_model"] = (other["meta_model"] + 0.5) % 1
    weekend = pd.DataFrame({"date": ["2024-10-26"], "symbol": ["BTC"], "meta_model": [0.3]})
    file = numerai_file(tmp_path, pd.concat([rows, again, other, weekend]))
    oracle = NumeraiTBNOracle(tb=2, file=file)
    decisions = decisions_of(panel, RunConfig())
    said = oracle.notes(panel.known(), decisions)
    assert len(said) == 5
    assert "1 rows dated on a Saturday or Sunday (Sat 2024-10-26)" in said[0]
    assert "repeats 1 rows of ETH with the same score; each counts once" in said[1]
    assert "two scores for one symbol and date 2 times, of SOL" in said[2]
    assert "2 of the 9 symbols in mm.csv name no coin of these data and are left out: NOTHL, OTHER" in said[3]
    # The row of 2024-11-04 is five days old on the 9th at 00:00, and older at 23:00.
    assert "Flat at 4 of 12 decisions, the first 2024-11-09 23:00 UTC" in said[4] and "max_age_days" in said[4]
    matrix = weight_matrix(oracle, panel, decisions)
    assert (matrix.abs().sum(axis=1) > 0).tolist() == [True] * 8 + [False] * 4
    assert (matrix.iloc[-4:] == 0).all().all()
    assert oracle.unknown_symbols(panel) == ("NOTHL", "OTHER")
    with pytest.raises(
        OracleError, match=r"no row recent enough at 2024-11-09 23:00 UTC: .* dated 2024-11-04 00:00 UTC, 6\.0 days"
    ):
        oracle.fetch_portfolio_weights(decisions[8], COINS)
    for composed in (Smooth(oracle, days=2), Blend([Momentum(lookback_hours=24), oracle])):
        with pytest.raises(OracleError, match="A backtest is flat at such instants; a live book is left as it is"):
            composed.fetch_portfolio_weights(decisions[8], COINS, panel)
        assert set(said) == set(composed.notes(panel.known(), decisions))
    with pytest.raises(OracleError, match="no row was published before it"):
        oracle.fetch_portfolio_weights(pd.Timestamp("2024-08-01T23:00Z"), COINS)
    # A symbol with two scores: neither counts, so the newest value of SOL is that of the row before.
    assert "SOL" not in oracle.get_risk_for_date(decisions[3], COINS)["meta_model"]


BAD = [
    ("date,symbol,value\n2024-11-01,BTC,0.5\n", {}, r"no column 'meta_model'.* It has: date, symbol, value"),
    ("date,symbol,meta_modle\n2024-11-01,BTC,0.5\n", {}, "Did you mean 'meta_modle'"),
    ("date,symbol,meta_model\n2024-11-01,BTC,0.5\n2024-11-01,ETH,1.5\n", {}, r"ETH on 2024-11-01 .* row 2\) is 1.5"),
    ("date,symbol,meta_model\n2024-11-01,BTC,-0.1\n", {}, "between 0 and 1"),
    ("date,symbol,meta_model\n2024-11-01,BTC,high\n", {}, "is 'high', which is no number"),
    ("date,symbol,meta_model\n2024-11-01,BTC,inf\n", {}, "is inf"),
    ("date,symbol,meta_model\n01/11/2024,BTC,0.5\n", {}, "date in data row 1 is '01/11/2024', no date"),
    ("date,symbol,meta_model\n2024-11-01,,0.5\n", {}, "data row 1 has no name"),
    ("date,symbol,meta_model\n", {}, "has no row"),
    ("", {}, "cannot be read"),
    ("date,symbol,meta_model\n2024-11-01,BTC,\n", {}, "has no score in its 1 rows"),
    (None, {}, "No such file"),
    ("x", {"lags": 0}, "lags = 0 is not accepted"),
    ("x", {"tb": 0}, "n = 0 is not accepted"),
    ("x", {"max_age_days": 0}, "max_age_days = 0 is not accepted"),
    ("x", {"missing_score": 2}, "missing_score = 2 is not accepted"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parameters", "message"), BAD)
def test_bad_numerai_files(tmp_path: Path, text: str | None, parameters: dict[str, Any], message: str) -> None:
    file = tmp_path / "mm.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(OracleError, match=message):
        oracle = NumeraiTBNOracle(file=str(file), **parameters)
        oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-03T23:00Z"), COINS)


def test_crowdcent_by_hand(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "id": ["BTC", "ETH", "SOL", "kPEPE"] * 2,
            "pred_10d": [0.9, 0.1, 0.5, 0.4, 0.1, 0.9, 0.5, 0.4],
            "pred_30d": [0.5, 0.4, 0.9, 0.1] * 2,
            "release_date": ["2024-11-02"] * 4 + ["2024-11-03"] * 4,
        }
    )
    rows.to_parquet(tmp_path / "cc.parquet")
    oracle = CrowdCentOracle(n=1, file=str(tmp_path / "cc.parquet"))
    coins = ("BTC", "ETH", "SOL", "kPEPE")
    early, late = pd.Timestamp("2024-11-03T18:00Z"), pd.Timestamp("2024-11-03T23:00Z")
    assert oracle.fetch_portfolio_weights(early, coins) == {"BTC": 0.5, "ETH": -0.5, "SOL": 0, "kPEPE": 0}
    assert oracle.fetch_portfolio_weights(late, coins) == {"BTC": -0.5, "ETH": 0.5, "SOL": 0, "kPEPE": 0}
    month = CrowdCentOracle(n=1, column="pred_30d", file=str(tmp_path / "cc.parquet"))
    assert month.fetch_portfolio_weights(late, coins) == {"BTC": 0, "ETH": 0, "SOL": 0.5, "kPEPE": -0.5}
    both = CrowdCentOracle(construction="rank_power", lags=2, file=str(tmp_path / "cc.parquet"))
    assert both.fetch_portfolio_weights(late, coins)["kPEPE"] == pytest.approx(-0.5)
    rows.assign(pred_10d=rows["pred_10d"] + 0.2).to_parquet(tmp_path / "cc.parquet")
    with pytest.raises(OracleError, match=r"pred_10d of BTC on 2024-11-02 00:00 UTC \(data row 1\) is 1.1"):
        oracle.fetch_portfolio_weights(late, coins)
    with pytest.raises(OracleError, match="choose one of pred_10d, pred_30d"):
        CrowdCentOracle(column="pred_5d")


def own_file(folder: Path, text: str) -> str:
    (folder / "own.csv").write_text(text)
    return str(folder / "own.csv")


def test_a_file_in_another_zone(tmp_path: Path) -> None:
    text = "when,coin,score\n2024-11-02 16:00,BTC,1\n2024-11-02 16:00,ETH,0\n"
    text += "2024-11-05 16:00,BTC,0\n2024-11-05 16:00,ETH,1\n"
    file = own_file(tmp_path, text)
    with pytest.raises(OracleError, match=r"when has times without a zone, as 2024-11-02 16:00.*timezone="):
        FileOracle(file, date="when", delay_hours=0).fetch_portfolio_weights(
            pd.Timestamp("2024-11-06T23:00Z"), ["BTC", "ETH"]
        )
    oracle = FileOracle(file, date="when", delay_hours=0, timezone="America/New_York", n=1)
    # 16:00 in New York is 20:00 UTC in summer, 21:00 in winter; clocks went back on 2024-11-03.
    sides = {hour: oracle.fetch_portfolio_weights(pd.Timestamp(f"2024-11-0{hour}Z"), ["BTC", "ETH"])["BTC"] for hour in
             ("2T20:01", "5T21:00", "5T21:01")}  # fmt: skip
    assert sides == {"2T20:01": 0.5, "5T21:00": 0.5, "5T21:01": -0.5}
    offset = own_file(tmp_path, text.replace(" 16:00", "T16:00-05:00"))
    oracle = FileOracle(offset, date="when", delay_hours=1.5, n=1)
    assert oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-05T22:30Z"), ["BTC", "ETH"])["BTC"] == 0.5
    assert oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-05T22:31Z"), ["BTC", "ETH"])["BTC"] == -0.5
    for hour, message in (("2024-11-03 01:30", "Cannot infer dst time"), ("2024-03-10 02:30", "is a nonexistent time")):
        unclear = own_file(tmp_path, f"when,coin,score\n{hour},BTC,1\n")
        oracle = FileOracle(unclear, date="when", delay_hours=0, timezone="America/New_York")
        with pytest.raises(OracleError, match=f"is not clear in America/New_York: .*{message}.*Write it with its zone"):
            oracle.latest(pd.Timestamp("2024-11-06T23:00Z"), ["BTC"])
    with pytest.raises(OracleError, match="timezone = 'Mars/Olympus' is not accepted"):
        FileOracle(own_file(tmp_path, text), date="when", delay_hours=0, timezone="Mars/Olympus").latest(
            pd.Timestamp("2024-11-06T23:00Z"), ["BTC"]
        )


def test_a_score_given_again_is_the_one_known_then(tmp_path: Path) -> None:
    text = (
        "date,coin,score,available_at\n2024-11-02,BTC,1,2024-11-02T18:00Z\n2024-11-02,ETH,0,2024-11-02T18:00Z\n"
        "2024-11-02,BTC,-1,2024-11-03T18:00+02:00\n"
    )
    oracle = FileOracle(own_file(tmp_path, text), n=1)
    for instant, side in (("02T18:01", 0.5), ("03T16:00", 0.5), ("03T16:01", -0.5)):
        assert oracle.fetch_portfolio_weights(pd.Timestamp(f"2024-11-{instant}Z"), ["BTC", "ETH"])["BTC"] == side
    with pytest.raises(OracleError, match="no row was published"):
        oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-02T18:00Z"), ["BTC", "ETH"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"no column 'available_at'.*It has: date, coin, score"),
        ({"available_at": ""}, "Say when a row was known"),
        ({"available_at": "date"}, "date has times without a zone"),
        ({"delay_hours": -1}, "delay_hours = -1 is not accepted"),
        ({"delay_hours": 1, "score": "alpha"}, "no column 'alpha'"),
        ({"delay_hours": 1, "low": 0.0, "high": 1.0}, r"score of ETH .*\(data row 2\) is 3.*between 0 and 1"),
        ({"delay_hours": 1, "low": "x"}, "low = 'x' is not accepted"),
    ],
)
def test_files_and_parameters_that_are_refused(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    file = own_file(tmp_path, "date,coin,score\n2024-11-02,BTC,1\n2024-11-02,ETH,3\n")
    with pytest.raises(OracleError, match=message):
        FileOracle(file, **parameters).latest(pd.Timestamp("2024-11-04T23:00Z"), ["BTC"])


def test_a_changed_file_is_read_again_and_is_in_the_digest(tmp_path: Path) -> None:
    file = own_file(tmp_path, "date,coin,score\n2024-11-02,BTC,1\n")
    oracle = Smooth(FileOracle(file, delay_hours=1), days=1)
    assert Path(file) in oracle_sources(oracle)
    instant = pd.Timestamp("2024-11-04T23:00Z")
    assert oracle.inner.latest(instant, ["BTC"]) == {"BTC": 1}
    own_file(tmp_path, "date,coin,score\n2024-11-02,BTC,2.5\n")
    assert oracle.inner.latest(instant, ["BTC"]) == {"BTC": 2.5}


# Risk, the run, the page ----------------------------------------------------------------------------------------------


def test_risk_is_the_sum_of_weight_times_centred_value(tmp_path: Path) -> None:
    panel, rows = panel_of(days=12), rows_of("2024-09-01", "2024-11-04")
    oracle = NumeraiTBNOracle(tb=2, file=numerai_file(tmp_path, rows))
    decisions = decisions_of(panel, RunConfig())
    book = pd.DataFrame(np.random.default_rng(0).normal(0, 0.1, (12, 7)), index=decisions, columns=list(COINS))
    book.iloc[3, 2] = np.nan  # held as it was
    risk = risk_of(oracle, panel, book)
    assert risk is not None and list(risk.columns) == ["meta-model exposure", NET]
    held = book.ffill()
    for instant in decisions:
        newest = [day for day in sorted(set(rows["date"])) if out_at(date.fromisoformat(day)) < instant][-1]
        assert risk.loc[instant, NET] == pytest.approx(held.loc[instant].sum())
        if instant > decisions[7]:
            assert np.isnan(risk.loc[instant, "meta-model exposure"])
            continue
        row = rows[rows["date"] == newest].set_index("symbol")["meta_model"]
        row = (row - row.mean()).rename({"PEPE": "kPEPE"})
        assert risk.loc[instant, "meta-model exposure"] == pytest.approx((held.loc[instant] * row[list(COINS)]).sum())
    assert risk_of(Momentum(), panel, book) is None
    composed = risk_of(Smooth(Blend([Momentum(), oracle]), days=2), panel, book)
    pd.testing.assert_frame_equal(composed, risk)


def test_a_risk_that_breaks_the_contract_is_refused(tmp_path: Path) -> None:
    class Wrong(Momentum):
        def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"x": [np.inf] * len(weights)}, index=weights.index)

    class Short(Momentum):
        def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame:
            return pd.DataFrame({"x": [1.0]})

    panel = panel_of(days=3)
    weights = weight_matrix(Momentum(lookback_hours=24), panel, decisions_of(panel, RunConfig()))
    for kind, message in ((Wrong, "infinite"), (Short, "one row for each of 3 decisions")):
        with pytest.raises(OracleError, match=message):
            risk_of(kind(), panel, weights)


def sample_file(folder: Path) -> str:
    coins = ("BTC", "ETH", "SOL", "PEPE", "DOGE", "XRP", "AVAX", "NOTHL")
    return numerai_file(folder, rows_of("2023-12-01", "2024-03-15", coins))


def test_numerai_from_the_command_line(
    hlbt: Any, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    file = sample_file(tmp_path)
    words = (
        "backtest",
        "--oracle",
        NUMERAI,
        "--param",
        "tb=2",
        "--param",
        f"file={file}",
        "--set",
        "data.end=2024-04-01",
    )
    done = hlbt(*words, "--out", "run")
    assert done.code == 0, done.err
    assert "Note: 1 of the 8 symbols in mm.csv name no coin" in done.out and "Note: Flat at" in done.out
    run = load_run(Path("run"))
    assert run.risk is not None and list(run.risk.columns) == ["meta-model exposure", NET]
    assert len(run.record["notes"]) == 2
    page = Path("run/tearsheet.html").read_text(encoding="utf-8")
    assert "Risk in the oracle" in page and "meta-model exposure" in page and "name no coin of these data" in page
    again = json.loads(hlbt(*words, "--no-report", "--json").out)
    rows = pd.read_csv(file)
    rows.loc[0, "meta_model"] = 0.123
    rows.to_csv(file, index=False)
    other = json.loads(hlbt(*words, "--no-report", "--json").out)
    assert other["folder"] != again["folder"], "another file is another run"
    done = hlbt("backtest", "--oracle", NUMERAI, "--param", "file=absent.csv")
    assert done.code == 1 and "Scores absent.csv cannot be read" in done.err and done.err.count("\n") == 1
    # A folder of a version without risk and notes still reads.
    shutil.copytree("run", "old")
    Path("old/risk.parquet").unlink()
    record = json.loads(Path("old/run.json").read_text())
    del record["notes"]
    Path("old/run.json").write_text(json.dumps(record))
    old = load_run(Path("old"))
    assert old.risk is None
    assert "Risk in the oracle" in block(run, ()) and "Risk in the oracle" not in block(old, ())


def test_file_and_crowdcent_from_the_command_line(
    hlbt: Any, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    rows = pd.read_csv(sample_file(tmp_path))
    rows.to_csv("own.csv", index=False)
    month = ("--set", "data.end=2024-02-01", "--no-report", "--json")
    parameters = ("file=own.csv", "coin=symbol", "score=meta_model", "delay_hours=42", "n=2")
    words = [word for parameter in parameters for word in ("--param", parameter)]
    done = hlbt("backtest", "--oracle", "research.oracles.file:FileOracle", *words, *month)
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["trades"] > 20
    rows["pred_30d"] = rows["meta_model"]
    rows.set_axis(["release_date", "id", "pred_10d", "pred_30d"], axis=1).to_csv("cc.csv", index=False)
    done = hlbt("backtest", "--oracle", "research.oracles.crowdcent:CrowdCentOracle", "--param", "file=cc.csv", *month)
    assert done.code == 0, done.err
    assert json.loads(done.out)["metrics"]["trades"] > 20
    done = hlbt("backtest", "--oracle", "research.oracles.file:FileOracle", "--param", "file=own.csv")
    assert done.code == 1 and "no column 'coin'" in done.err and "It has: date, symbol, meta_model" in done.err


def test_notes_and_risk_of_an_oracle_without_any(tmp_path: Path) -> None:
    panel = panel_of(days=3)
    assert Momentum().notes(panel, panel.index) == () and Momentum().files() == () and Momentum().parts() == ()
    result = backtest(panel, weight_matrix(Momentum(lookback_hours=24), panel, decisions_of(panel, RunConfig())))
    assert result.risk is None and result.notes == ()
    assert isinstance(Momentum(), Oracle)


def test_a_coin_that_still_trades_lends_its_rows_to_nobody(tmp_path: Path) -> None:
    rows = rows_of("2024-12-01", "2025-02-20", ("FTM", "BTC"))
    oracle = NumeraiTBNOracle(file=numerai_file(tmp_path, rows))
    after, before = pd.Timestamp("2025-01-20T23:00Z"), pd.Timestamp("2024-12-17T23:00Z")
    assert set(oracle.latest(after, ["FTM", "S", "BTC"])) == {"FTM", "BTC"}
    assert set(oracle.latest(after, ["S", "BTC"])) == {"S", "BTC"}
    assert set(oracle.latest(before, ["S", "BTC"])) == {"BTC"}  # Sonic was not there yet


def test_a_schedule_that_looks_ahead_and_shared_names_are_told(tmp_path: Path) -> None:
    panel, rows = panel_of(days=5), rows_of("2024-10-01", "2024-11-10", ("BTC", "ETH", "PEPE", "kPEPE", "1000PEPE"))
    decisions = decisions_of(panel, RunConfig())
    file = numerai_file(tmp_path, rows)
    (shared,) = NumeraiTBNOracle(file=file).notes(panel, decisions)
    assert "Several symbols in mm.csv stand for one coin" in shared and "kPEPE (kPEPE, PEPE, 1000PEPE)" in shared
    days = len(set(rows["date"]))
    for publication, count in (
        (0, days),
        (41, days),
        (42, sum(pd.Timestamp(day).day_of_week == 4 for day in set(rows["date"]))),
    ):
        first = NumeraiTBNOracle(file=file, publication=publication).notes(panel, decisions)[0]
        assert f"LOOK-AHEAD: the publication schedule of this run has {count} of {days} rows" in first
    assert len(NumeraiTBNOracle(file=file, publication=90).notes(panel, decisions)) == 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), lags=st.integers(1, 4))
def test_restated_and_scattered_scores_against_a_slow_reference(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lags: int
) -> None:
    """Any row at any time: the last dates of which something was known, each coin's newest value known then."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-11-01", tz="UTC")
    records = {}
    for _ in range(int(rng.integers(1, 40))):
        day, hour, coin = int(rng.integers(0, 5)), int(rng.integers(0, 150)), str(rng.choice(["A", "B", "C"]))
        records[(day, hour, coin)] = float(rng.integers(0, 9))
    table = pd.DataFrame(
        [(start + pd.Timedelta(days=day), start + pd.Timedelta(hours=hour), coin, value)
         for (day, hour, coin), value in records.items()],
        columns=["date", "available_at", "coin", "score"],
    )  # fmt: skip
    file = tmp_path_factory.mktemp("own") / "own.parquet"
    table.to_parquet(file)
    published = FileOracle(str(file)).published(start)
    for hour in (0, 30, 75, 150):
        instant = start + pd.Timedelta(hours=hour)
        seen = {key: value for key, value in records.items() if key[1] < hour}
        days = sorted({day for day, *_ in seen})[-lags:]
        dates, values = published.window(instant, lags)
        assert [(date - start).days for date in dates] == days
        for place, day in enumerate(days):
            for column, coin in enumerate(published.symbols):
                known = [(at, value) for (of, at, name), value in seen.items() if of == day and name == coin]
                expected = max(known)[1] if known else np.nan
                assert values[place, column] == pytest.approx(expected, nan_ok=True)


def test_a_look_ahead_into_the_file_is_caught(tmp_path: Path) -> None:
    panel, file = panel_of(days=12), numerai_file(tmp_path, rows_of("2024-10-01", "2024-11-30"))
    decisions = decisions_of(panel, RunConfig())

    class WholeFile(NumeraiTBNOracle):
        """Ranks against each symbol's mean over the whole file."""

        def combine(self, window: np.ndarray) -> np.ndarray:
            table = self.published(decisions[-1])
            level = Names(table.symbols, panel.coins).to_coins(
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
    assert fine.until(decisions[0]) == fine and not hasattr(fine, "_cut"), "the oracle itself is left as it is"
