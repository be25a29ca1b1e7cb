"""The command line as a user meets it: the main job on real data and on the sample, and every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import RunConfig, decisions_of, load_panel
from engine.commands.options import cache_alone, typed_config
from engine.errors import HlbtError
from engine.reporting import assumptions
from helpers.commands import Hlbt
from helpers.promotion import write_cache

pytestmark = pytest.mark.slow

HLBT = Path(sys.executable).parent / "hlbt"
MOMENTUM = ("--oracle", "research.oracles.momentum:Momentum")


@pytest.fixture
def cache(sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    return sample_cache


@pytest.fixture
def real(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(real_cache))
    return real_cache


def read(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("equity", "trades", "weights")}


def test_the_main_job_on_real_data(hlbt: Hlbt, real: Path) -> None:
    dates = ("--set", "data.start=2024-10-01", "--set", "data.end=2025-03-31")
    done = hlbt("backtest", *MOMENTUM, "--param", "lookback_hours=168", *dates, "--no-report", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    folder = Path(record["folder"])
    assert folder.parent == Path("reports") and {item.name for item in folder.iterdir()} == {
        "run.json",
        "equity.parquet",
        "trades.parquet",
        "weights.parquet",
        "hourly.parquet",
        "factors.parquet",
        "round_trips.parquet",
    }
    assert record["synthetic"] is False
    assert record["span"] == {
        "start": "2024-10-01T00:00:00+00:00",
        "end": "2025-03-31T00:00:00+00:00",
        "hours": 4345,
        "coins": 172,
    }
    assert record["origin"]["parameters"]["lookback_hours"] == 168 and record["origin"]["parameters"]["n"] == 5
    frames = read(folder)
    equity = frames["equity"]
    assert list(equity.columns) == [
        "time",
        "equity_usd",
        "price_pnl_usd",
        "spread_usd",
        "impact_usd",
        "fee_usd",
        "funding_usd",
    ]
    assert list(frames["trades"].columns) == [
        "time",
        "coin",
        "units",
        "price",
        "notional_usd",
        "fee_usd",
        "spread_usd",
        "reason",
    ]
    figures, sums = record["metrics"], equity.drop(columns=["time", "equity_usd"]).sum()
    gained = sums["price_pnl_usd"] - sums[["spread_usd", "impact_usd", "fee_usd", "funding_usd"]].sum()
    assert figures["equity_end_usd"] - 10_000 == pytest.approx(gained, rel=1e-9)
    daily = equity.set_index("time")["equity_usd"]
    returns = daily[daily.index.hour == 23].pct_change().dropna()
    book = returns[returns.index > frames["trades"]["time"].min()]
    for name, days in (("sharpe", book), ("sharpe_calendar", returns)):
        assert figures[name] == pytest.approx(days.mean() / days.std() * np.sqrt(365), rel=1e-9)
    assert figures["days"] == len(book) < figures["days_calendar"] == len(returns)
    assert frames["trades"]["fee_usd"].to_numpy() == pytest.approx(3.5e-4 * frames["trades"]["notional_usd"].to_numpy())
    assert (frames["trades"]["time"].dt.hour == 23).all()
    contract = (
        "equity_start_usd equity_end_usd total_return cagr volatility sharpe sortino max_drawdown calmar "
        "turnover_daily gross_mean "
        "net_mean trades skipped_min_notional untradable_weight funding_missing_frac delistings "
        "liquidated_at price_pnl_usd spread_usd "
        "impact_usd "
        "fee_usd funding_usd"
    )
    assert set(contract.split()) <= set(figures)


#: Hours kept, return, share and coin-hours without a rate, the note, the sentence among the assumptions.
UNRATED: dict[str, tuple[int | None, float, float, int, str, str]] = {
    "complete": (1, -0.0680, 0.0002, 3, "", "have a rate: 0.02% of the hours held have none and cost nothing."),
    "every eighth": (
        8,
        0.0097,
        0.8750,
        13_140,
        "87.5% of the hours in which a coin was held have no funding rate and cost nothing",
        "Funding, hourly, where the data have a rate: 87.51% of the hours held have none and cost nothing.",
    ),
    "none": (
        None,
        0.0216,
        1.0,
        15_015,
        "No hour in which a coin was held has a funding rate",
        "Funding: the data have no rate of any hour held.",
    ),
}


@pytest.mark.parametrize("name", UNRATED)
def test_hours_without_a_rate_are_said_wherever_a_run_is_shown(
    name: str, hlbt: Hlbt, real_cache: Path, tmp_path: Path
) -> None:
    """Three real coins, equal weights, seven months: rates that are lost turn the loss into a gain."""
    step, returned, missing, gap_hours, note, sentence = UNRATED[name]
    whole, cache, weights = load_panel(real_cache, coins=["BTC", "ETH", "SOL"]), tmp_path / "cache", tmp_path / "w.csv"
    rates = np.full(whole.values("funding").shape, np.nan)
    if step:
        kept = whole.index.hour % step == 0
        rates[kept] = whole.values("funding")[kept]
    write_cache(replace(whole, fields={**whole.fields, "funding": rates}), cache)
    frame = pd.DataFrame(1 / 3, decisions_of(whole), list(whole.coins))
    frame.loc["2024-09-04T23Z":].rename_axis("time").to_csv(weights)
    report = () if name == "every eighth" else ("--no-report",)
    ran = hlbt("backtest", "--weights", weights, "--set", f"data.cache={cache}", "--out", tmp_path / "run", *report)
    assert ran.code == 0, ran.err
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["metrics"]["total_return"] == pytest.approx(returned, abs=6e-5)
    assert record["metrics"]["funding_missing_frac"] == pytest.approx(missing, abs=6e-5)
    texts = [" ".join(record["notes"]), " ".join(ran.out.split())]
    texts += [] if report else [(tmp_path / "run" / "tearsheet.html").read_text(encoding="utf-8")]
    assert all(note in text for text in texts)
    assert any(sentence in text for texts in assumptions.modelled(record) for text in texts)
    assert report or sentence in texts[-1]
    gaps = hlbt("data", "status", "--json", "--set", f"data.cache={cache}").json["funding_gaps"]
    assert sum(gap["hours"] for gap in gaps) == gap_hours


def test_a_run_again_is_the_same_run(hlbt: Hlbt, cache: Path) -> None:
    month = ("--set", "data.end=2024-03-01", "--no-report", "--json")
    first = json.loads(hlbt("backtest", *MOMENTUM, *month).out)
    again = json.loads(hlbt("backtest", *MOMENTUM, *month).out)
    assert {**first, "created": None} == {**again, "created": None}
    assert first["synthetic"] is True
    other = json.loads(hlbt("backtest", *MOMENTUM, "--param", "n=4", *month).out)
    assert other["folder"] != first["folder"] and len(list(Path("reports").glob("[!.]*/run.json"))) == 2


def test_weights_of_an_oracle_are_the_oracle(hlbt: Hlbt, cache: Path, tmp_path: Path) -> None:
    month = ("--set", "data.end=2024-03-01", "--no-report", "--json")
    oracle = json.loads(hlbt("backtest", *MOMENTUM, *month).out)
    weights = pd.read_parquet(Path(oracle["folder"]) / "weights.parquet")
    weights.to_csv(tmp_path / "w.csv", index=False)
    weights.to_parquet(tmp_path / "w.parquet")
    for name in ("w.csv", "w.parquet"):
        filed = json.loads(
            hlbt("backtest", "--weights", str(tmp_path / name), "--out", str(tmp_path / "run"), *month).out
        )
        assert filed["metrics"] == oracle["metrics"]
        assert filed["origin"]["kind"] == "weights" and filed["folder"] == str(tmp_path / "run")


def test_tearsheet_report_and_index(hlbt: Hlbt, cache: Path) -> None:
    done = hlbt("backtest", *MOMENTUM, "--set", "data.end=2024-04-01")
    assert done.code == 0, done.err
    folder = Path(re.search(r"Run folder: (\S+)", done.out)[1])  # type: ignore[index]
    page = (folder / "tearsheet.html").read_text(encoding="utf-8")
    assert "SYNTHETIC" in page and "Momentum" in page
    (folder / "tearsheet.html").unlink()
    assert hlbt("report", folder.name).code == 0  # by its name below reports/
    assert (folder / "tearsheet.html").read_text(encoding="utf-8") == page
    assert hlbt("index").code == 0
    assert f'{folder.name}/tearsheet.html"' in Path("reports/index.html").read_text(encoding="utf-8")


def test_the_demo_says_where_to_look_next() -> None:
    """The whole command, as `make demo` runs it."""
    own_cache = {**os.environ, "HLBT_DATA_CACHE": "demo-cache"}
    done = subprocess.run([HLBT, "demo"], capture_output=True, text=True, check=False, env=own_cache)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "SYNTHETIC" in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= 30 and lines[0].startswith("First page: reports/momentum-")  # while the rest is made
    pages = sorted(Path("reports").glob("*/tearsheet.html"))
    assert len(list(Path("reports/demo-sweep/top").glob("*/tearsheet.html"))) == 1
    assert len(pages) == 3 and Path("reports/index.html").is_file()
    for page in pages:
        assert "SYNTHETIC" in page.read_text(encoding="utf-8")
    assert "SYNTHETIC" in Path("reports/index.html").read_text(encoding="utf-8")
    sizes = {str(page): page.stat().st_size for page in Path("reports").rglob("*.html")}
    assert len(sizes) == 6 and max(sizes.values()) <= 2_000_000, sizes
    for place in ("reports/index.html", "hlbt data import freqtrade", "--weights FILE"):
        assert place in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "either --oracle PATH:CLASS or --weights FILE"),
        ((*MOMENTUM, "--weights", "w.csv"), "either --oracle PATH:CLASS or --weights FILE"),
        (("--weights", "w.csv", "--param", "n=3"), "a weights file has no parameters"),
        ((*MOMENTUM, "--param", "n"), "is not k=v"),
        ((*MOMENTUM, "--param", "lookback=3"), "Did you mean 'lookback_hours'"),
        ((*MOMENTUM, "--set", "costs.taker_bp=3"), "Did you mean 'taker_bps'"),
        ((*MOMENTUM, "--config", "absent.toml"), "absent.toml cannot be read"),
        ((*MOMENTUM, "--set", "data.coins=BTC,kpepe"), "Did you mean 'kPEPE'"),
        ((*MOMENTUM, "--set", "data.start=2026-01-01"), "its prices run from 2024-01-01"),
        ((*MOMENTUM, "--set", "data.start=2024-06-01", "--set", "data.end=2024-05-01"), "range is empty"),
        (
            (*MOMENTUM, "--set", "data.start=2024-06-01T01:00Z", "--set", "data.end=2024-06-01T05:00Z"),
            "No decision instant",
        ),
        ((*MOMENTUM, "--set", "data.cache=nowhere"), "nowhere does not exist. Fill it with"),
        ((*MOMENTUM, "--param", "gross=3"), "Gross weight 3.00 on .* exceeds 1.00"),
        (("--oracle", "research.oracles.momentum:Momentun"), "Did you mean 'Momentum'"),
        (("--weights", "absent.csv"), "absent.csv cannot be read"),
    ],
)
def test_bad_input_of_a_backtest(hlbt: Hlbt, cache: Path, words: tuple[str, ...], message: str) -> None:
    done = hlbt("backtest", *words)
    assert done.code == 1 and done.out == ""
    assert re.match(r"hlbt: ", done.err) and re.search(message, done.err), done.err
    assert done.err.count("\n") == 1, "one paragraph"
    assert not Path("reports").exists()


@pytest.mark.parametrize(
    ("columns", "times", "value", "message"),
    [
        (["BTC", "XYZ"], ["2024-03-01T23:00Z"], 0.1, "coins that the panel lacks: XYZ"),
        (["BTC"], ["2024-03-01T23:00Z"], 1.5, "Gross weight 1.50 on 2024-03-01 23:00 UTC exceeds 1.00"),
        (["BTC"], ["2024-03-01T23:00Z"], np.inf, "The weight of BTC on 2024-03-01 23:00 UTC is inf"),
        (["BTC"], ["2031-03-01T23:00Z"], 0.1, "has nothing from 2031-03-01 23:00 UTC"),
        (["BTC"], ["2024-03-01T23:00Z"] * 2, 0.1, "two rows for 2024-03-01 23:00 UTC"),
        (["BTC"], ["2024-03-01 23:00"], 0.1, "have no zone"),
    ],
)
def test_bad_weights_files(hlbt: Hlbt, cache: Path, columns, times, value, message) -> None:
    frame = pd.DataFrame(value, index=pd.Index(times, name="time"), columns=columns)
    frame.to_csv("w.csv")
    done = hlbt("backtest", "--weights", "w.csv")
    assert done.code == 1 and message in done.err and done.err.count("\n") == 1
    assert not Path("reports").exists()


def test_an_oracle_that_raises_or_knows_nothing(hlbt: Hlbt, cache: Path) -> None:
    Path("mine.py").write_text(
        "import pandas as pd\nfrom engine import Oracle\n"
        "class Raises(Oracle):\n    def weight_matrix(self, panel, decisions):\n        return 1 / 0\n"
        "class Knows(Oracle):\n    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame(float('nan'), index=decisions, columns=list(panel.coins))\n"
    )
    done = hlbt("backtest", "--oracle", "mine.py:Raises")
    assert (
        done.code == 1
        and "Raises failed over" in done.err
        and "ZeroDivisionError: division by zero (mine.py line 5)" in done.err
    )
    done = hlbt("backtest", "--oracle", "mine.py:Knows")
    assert done.code == 1 and "no weight at any of" in done.err


def test_a_folder_that_is_no_run_is_never_overwritten(hlbt: Hlbt, cache: Path) -> None:
    Path("precious").mkdir()
    Path("precious/thesis.txt").write_text("years")
    done = hlbt("backtest", *MOMENTUM, "--out", "precious", "--no-report")
    assert done.code == 1 and "precious holds files that are not of a run: thesis.txt" in done.err
    assert Path("precious/thesis.txt").read_text() == "years"
    done = hlbt("backtest", *MOMENTUM, "--out", "run", "--no-report", "--set", "data.end=2024-02-01")
    assert done.code == 0
    Path("run/NOTES.md").write_text("mine")
    done = hlbt("backtest", *MOMENTUM, "--out", "run", "--no-report", "--set", "data.end=2024-02-01")
    assert done.code == 0 and Path("run/NOTES.md").read_text() == "mine"


@pytest.mark.parametrize("words", ["report", "validate", "index", "live status", "backtest --weights"])
def test_a_path_that_the_system_refuses(hlbt: Hlbt, cache: Path, words: str) -> None:
    """A name that is too long stands for a folder of another user, which a test as root cannot have."""
    code, out, err = hlbt(*words.split(), "a" * 300)
    assert (code, out) == (1, "") and err.startswith("hlbt: ") and "too long" in err and err.count("\n") == 1


def test_data_commands(hlbt: Hlbt, cache: Path) -> None:
    done = hlbt("data", "status")
    assert done.code == 0 and "SYNTHETIC" in done.out and "Delisted: 1" in done.out and "Gaps: 1" in done.out
    assert 'href="index.html"' in Path("reports/status.html").read_text(), "it links back, with no run yet"
    assert 'href="status.html"' in Path("reports/index.html").read_text()
    status = json.loads(hlbt("data", "status", "--json").out)
    assert status["coins"] == 47 and status["synthetic"] is True and len(status["months"]) == 13
    assert json.loads(hlbt("data", "verify", "--json").out)["ok"] is True


def test_a_damaged_cache_fails_to_verify(hlbt: Hlbt, sample_cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sample_cache, copy)
    file = sorted((copy / "hourly").glob("*.parquet"))[3]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    done = hlbt("data", "verify", "--set", f"data.cache={copy}")
    assert done.code == 1 and file.name in done.err and "has changed" in done.err
    file.unlink()
    done = hlbt("data", "verify", "--set", f"data.cache={copy}")
    assert done.code == 1 and "is missing" in done.err


def test_import_of_a_folder_with_a_truncated_file(hlbt: Hlbt, freqtrade_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for coin in ("BTC", "ETH", "SOL"):
        for file in freqtrade_folder.glob(f"{coin}_USDC*"):
            shutil.copy(file, source)
    truncated = source / "ETH_USDC_USDC-1h-futures.feather"
    truncated.write_bytes(truncated.read_bytes()[:1000])
    where = ("--set", f"data.cache={tmp_path / 'cache'}")
    done = hlbt("data", "import", "freqtrade", str(source), *where)
    assert done.code == 1 and truncated.name in done.err and "Everything else was saved" in done.err
    assert json.loads(hlbt("data", "status", "--json", *where).out)["coins"] == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    done = hlbt("data", "import", "freqtrade", str(empty), *where)
    assert done.code == 1 and "feather" in done.err
    done = hlbt("data", "import", "freqtrade", str(tmp_path / "absent"), *where)
    assert done.code == 1 and "absent" in done.err


def test_a_candle_file_that_contradicts_the_cache(hlbt: Hlbt, freqtrade_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for coin in ("BTC", "ETH"):
        for file in freqtrade_folder.glob(f"{coin}_USDC*"):
            shutil.copy(file, source)
    where = ("--set", f"data.cache={tmp_path / 'cache'}")
    assert hlbt("data", "import", "freqtrade", str(source), *where).code == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "cache" / "hourly").iterdir()}
    candles = pd.read_feather(source / "BTC_USDC_USDC-1h-futures.feather")
    candles.loc[100:109, ["open", "high", "low", "close"]] *= 1.01
    candles.to_feather(source / "BTC_USDC_USDC-1h-futures.feather")
    done = hlbt("data", "import", "freqtrade", str(source), *where)
    assert done.code == 1 and "BTC mid" in done.err and "--replace" in done.err, done.err
    assert {file.name: file.read_bytes() for file in (tmp_path / "cache" / "hourly").iterdir()} == before
    done = hlbt("data", "import", "freqtrade", str(source), "--replace", *where)
    assert done.code == 0 and " 40 replaced" in done.out, done.out  # ten closes, highs, lows and volumes in USD


def test_a_conflict_is_told_beside_a_truncated_file(hlbt: Hlbt, freqtrade_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for coin in ("BTC", "ETH"):
        for file in freqtrade_folder.glob(f"{coin}_USDC*"):
            shutil.copy(file, source)
    where = ("--set", f"data.cache={tmp_path / 'cache'}")
    assert hlbt("data", "import", "freqtrade", str(source), *where).code == 0
    candles = pd.read_feather(source / "BTC_USDC_USDC-1h-futures.feather")
    candles.loc[100:109, "close"] *= 1.01
    candles.to_feather(source / "BTC_USDC_USDC-1h-futures.feather")
    (source / "ETH_USDC_USDC-1h-futures.feather").write_bytes(b"cut")
    done = hlbt("data", "import", "freqtrade", str(source), "--json", *where)
    assert done.code == 1 and "ETH_USDC" in done.err and "BTC mid" in done.err and "--replace" in done.err
    assert json.loads(done.out)["conflicts"][0]["first"].startswith("20")


def test_parameters_that_json_does_not_know(hlbt: Hlbt, cache: Path) -> None:
    Path("mine.py").write_text(
        "import pandas as pd\nfrom engine import Oracle\n"
        "class Mine(Oracle):\n    def __init__(self, day, names=frozenset(['b', 'a'])):\n        self.day = day\n"
        "    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame(0.01, index=decisions, columns=list(panel.coins))\n"
    )
    done = hlbt("backtest", "--oracle", "mine.py:Mine", "--param", "day=2024-01-01", "--no-report", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["origin"]["parameters"] == {"day": "2024-01-01", "names": ["a", "b"]}


def test_code_that_an_oracle_imports_makes_another_run(hlbt: Hlbt, cache: Path) -> None:
    Path("sub").mkdir()
    Path("sub/mine_too.py").write_text(
        "import pandas as pd\nfrom engine import Oracle\nfrom mine_helper import SIZE\n"
        "class Mine(Oracle):\n    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame(SIZE, index=decisions, columns=list(panel.coins))\n"
    )
    month = ("--set", "data.end=2024-02-01", "--no-report", "--json")
    folders = set()
    for size in (0.001, 0.0025):
        Path("sub/mine_helper.py").write_text(f"SIZE = {size}\n")
        sys.modules.pop("mine_helper", None)
        done = hlbt("backtest", "--oracle", "sub/mine_too.py:Mine", *month)
        assert done.code == 0, done.err
        folders.add(json.loads(done.out)["folder"])
    assert len(folders) == 2


def test_an_oracle_that_answers_for_other_instants_is_refused(hlbt: Hlbt, cache: Path) -> None:
    Path("mine.py").write_text(
        "import pandas as pd\nfrom engine import Oracle\n"
        "class Early(Oracle):\n    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame(0.01, index=decisions - pd.Timedelta(hours=1), columns=list(panel.coins))\n"
        "class Text(Oracle):\n    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame('x', index=decisions, columns=list(panel.coins))\n"
    )
    done = hlbt("backtest", "--oracle", "mine.py:Early", "--no-report")
    assert done.code == 1 and "one row for each of the" in done.err
    assert "the first that differs is 2024-01-01 22:00" in done.err
    done = hlbt("backtest", "--oracle", "mine.py:Text", "--no-report")
    assert done.code == 1 and "a weight that is no number" in done.err


def test_nothing_of_the_user_is_replaced(hlbt: Hlbt, cache: Path) -> None:
    Path("exp").mkdir()
    mine = pd.DataFrame({"BTC": [0.5]}, index=pd.DatetimeIndex(["2024-03-01T23:00Z"], name="time"))
    mine.to_parquet("exp/weights.parquet")
    before = Path("exp/weights.parquet").read_bytes()
    done = hlbt("backtest", "--weights", "exp/weights.parquet", "--out", "exp", "--no-report")
    assert done.code == 1 and Path("exp/weights.parquet").read_bytes() == before
    assert hlbt("backtest", "--weights", "exp/weights.parquet", "--out", "run", "--no-report").code == 0
    done = hlbt("backtest", "--weights", "run/weights.parquet", "--out", "run", "--no-report")
    assert done.code == 1 and "lies in the folder that --out would replace" in done.err
    assert hlbt("backtest", *MOMENTUM, "--out", ".", "--no-report").code == 1
    done = hlbt("index", "run")
    assert done.code == 1 and "is one run" in done.err and not Path("run/index.html").exists()


def test_a_rerun_without_a_page_keeps_the_page_of_the_same_run(hlbt: Hlbt, cache: Path) -> None:
    month = ("--set", "data.end=2024-02-01", "--out", "run")
    assert hlbt("backtest", *MOMENTUM, *month).code == 0
    page = Path("run/tearsheet.html").read_bytes()
    assert hlbt("backtest", *MOMENTUM, *month, "--no-report").code == 0
    assert Path("run/tearsheet.html").read_bytes() == page
    assert hlbt("backtest", *MOMENTUM, "--param", "n=3", *month, "--no-report").code == 0
    assert not Path("run/tearsheet.html").exists()  # the page of another run would be a lie
    assert [item.name for item in Path().iterdir() if item.name.startswith(".run")] == []


def test_a_panel_shorter_than_what_was_asked_is_said(hlbt: Hlbt, cache: Path) -> None:
    done = hlbt("backtest", *MOMENTUM, "--set", "data.start=2023-06-01", "--set", "data.end=2024-02-01", "--no-report")
    assert "NOTE: the data start at 2024-01-01 00:00 UTC, not at 2023-06-01 00:00 UTC" in done.out


def test_the_project_file_is_the_default_of_every_command(hlbt: Hlbt, cache: Path) -> None:
    """Under --config, and --set over both; doctor shows it, run.json has it, and accounts do not read it."""
    Path("hlbt.toml").write_text("[costs]\ntaker_bps = 7.0\nhalf_spread_bps = 3.0\n[data]\nend = '2024-02-01'\n")
    Path("own.toml").write_text("[costs]\nhalf_spread_bps = 1.0\n")
    words = ("--config", "own.toml", "--set", "costs.impact_bps=9", "--no-report", "--json")
    done = hlbt("backtest", *MOMENTUM, *words)
    assert done.code == 0, done.err
    settled = done.json["config"]
    costs = settled["costs"]
    assert (costs["taker_bps"], costs["half_spread_bps"], costs["impact_bps"]) == (7.0, 1.0, 9.0)
    assert settled["data"]["end"] == "2024-02-01" and done.json["span"]["end"].startswith("2024-02-01")
    assert typed_config(None, None) == RunConfig()
    assert cache_alone(None, None, HlbtError("refused")) is None
    shown = hlbt("doctor", "--base-url", "http://127.0.0.1:9", "--json").json["findings"][0]
    assert "hlbt.toml sets costs.taker_bps = 7.0" in shown["says"]
    Path("hlbt.toml").write_text("[cost]\n")
    done = hlbt("index")
    assert done.code == 1 and "Project file hlbt.toml: Unknown config section [cost]" in done.err


def test_the_status_of_a_cache_where_nothing_can_be_written(hlbt: Hlbt, cache: Path) -> None:
    Path("reports").write_text("a file, as good as a folder that is read-only")
    done = hlbt("data", "status")
    assert done.code == 0 and "47 coins" in done.out and "No page: Folder reports cannot be made" in done.out, done
