"""What a user can get wrong, command by command, and what is answered: what, where, cure; never a traceback.

This table is the list of user mistakes. That the rules behind them are right is for the tests of their modules.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine import cli
from helpers.commands import NOBODY, exit_code

pytestmark = pytest.mark.slow

MOMENTUM = "research.oracles.momentum:Momentum"


def write_text(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")


def world(cache: Path) -> None:
    """Fill the current folder with what the table below names."""
    write_text("torn.toml", "[costs\ntaker_bps = 1")
    write_text("typo.toml", "[cost]\ntaker_bps = 1")
    write_text("flat.toml", "costs = 3")
    write_text("empty.csv", "")
    write_text("no_time.csv", "date,BTC\n2024-03-01T23:00Z,0.1\n")
    write_text("words.csv", "time,BTC\n2024-03-01T23:00Z,much\n")
    write_text("twice.csv", "time,BTC,BTC\n2024-03-01T23:00Z,0.1,0.2\n")
    write_text("off_hour.csv", "time,BTC\n2024-03-01T23:30Z,0.1\n")
    for name, header, row in (
        ("midnight", "time,BTC", "2024-03-01T00:00Z,0.5"),
        ("percent", "time,BTC", "2024-03-01T23:00Z,50"),
        ("sign", "time,BTC", "2024-03-01T23:00Z,50%"),
        ("semicolons", "time;BTC;ETH", "2024-03-01T23:00Z;0,5;0,5"),
        ("decimal", "time,BTC", '2024-03-01T23:00Z,"0,5"'),
        ("decimals", "time,BTC", "2024-03-01T23:00Z,0,5"),
        ("long", "time,coin,weight", "2024-03-01T23:00Z,BTC,0.5"),
        ("header", "time,BTC", ""),
        ("ccxt", "time,BTC/USDC:USDC", "2024-03-01T23:00Z,0.5"),
        ("perp", "time,ETH-PERP", "2024-03-01T23:00Z,0.5"),
        ("later", "time,BTC", "2031-03-01T23:00Z,0.5"),
    ):
        write_text(f"{name}.csv", f"{header}\n{row}\n")
    write_text("torn.parquet", "PAR1 and no more")
    write_text("weights.txt", "time,BTC\n")
    write_text("syntax.py", "class Mine(Oracle:\n")
    write_text("raises.py", "import no_such_library\n")
    write_text(
        "mine.py",
        "import pandas as pd\nfrom engine import Oracle\nclass Plain:\n    pass\n"
        "class Leaky(Oracle):\n    def weight_matrix(self, panel, decisions):\n"
        "        ahead = panel.frame('mid').pct_change(24, fill_method=None).shift(-24).loc[decisions]\n"
        "        return (ahead.rank(axis=1, pct=True) > 0.9) / 40.0\n"
        "class Needs(Oracle):\n    def __init__(self, days):\n        self.days = days\n"
        "    def weight_matrix(self, panel, decisions):\n        raise RuntimeError('first line\\nsecond line')\n"
        "class Half(Oracle):\n    pass\n",
    )
    write_text("study.toml", f'oracle = "{MOMENTUM}"\n[grid]\nn = [3]\n')
    write_text("study_typo.toml", f'oracel = "{MOMENTUM}"\n[grid]\nn = [3]\n')
    write_text("study_torn.toml", "oracle = [\n")
    write_text("study_sets.toml", f'oracle = "{MOMENTUM}"\n[[sets]]\nn = 3\n')
    write_text("other.html", "<title>mine</title>")
    write_text("taken", "a file where a folder is wanted")
    write_text("meta_torn.json", '{"universe": [')
    write_text("meta_other.json", '{"coins": []}')
    write_text("meta.json", json.dumps({"universe": [{"name": "BTC", "szDecimals": 5, "maxLeverage": 40}]}))
    Path("empty-folder").mkdir()
    shutil.copytree(cache, "torn-cache")
    write_text("torn-cache/manifest.json", "{")
    Path("newer-cache").mkdir()
    state = json.loads((cache / "manifest.json").read_text())
    write_text("newer-cache/manifest.json", json.dumps({**state, "schema": 999}))
    write_text("older-cache/manifest.json", json.dumps({**state, "schema": 0}))
    shutil.copytree(cache, "torn-seal")
    write_text("torn-seal/holdout.jsonl", "{\n")
    shutil.copytree(cache, "holed-cache")
    next(Path("holed-cache/hourly").glob("2024-03*")).unlink()


def runs() -> None:
    """A run and a sweep, whole and damaged in the ways that disks and editors have."""
    month = "--set data.start=2024-01-01 --set data.end=2024-02-15"
    hlbt(f"backtest --oracle {MOMENTUM} --param lookback_hours=72 {month} --out reports/run --no-report")
    hlbt(f"sweep --oracle {MOMENTUM} --grid n=3,4 --param lookback_hours=72 {month} --name grid --no-verdict")
    for name in ("torn", "lost", "newer"):
        shutil.copytree("reports/run", f"runs/{name}")
    write_text("runs/torn/run.json", "{")
    Path("runs/lost/equity.parquet").unlink()
    record = json.loads(Path("runs/newer/run.json").read_text())
    write_text("runs/newer/run.json", json.dumps({**record, "schema": 99}))
    for name, changed in (
        ("words", {"metrics": {**record["metrics"], "total_return": "much"}}),
        ("nobody", {"origin": None}),
        ("flat", {"config": {"costs": 3}}),
        ("dear", {"config": {**record["config"], "costs": {**record["config"]["costs"], "taker_bps": 9.0}}}),
    ):
        shutil.copytree("reports/run", f"runs/{name}")
        write_text(f"runs/{name}/run.json", json.dumps({**record, **changed}))
    for name in ("torn", "lost"):
        shutil.copytree("reports/grid", f"sweeps/{name}")
    shutil.copytree("reports/grid", "sweeps/empty")
    swept = json.loads(Path("reports/grid/sweep.json").read_text())
    write_text("sweeps/empty/sweep.json", json.dumps({**swept, "oracles": []}))
    write_text("nested.json", "[" * 100_000)
    write_text("sweeps/torn/sweep.json", "{")
    next(Path("sweeps/lost").glob("*.parquet")).unlink()


BACKTEST = f"backtest --oracle {MOMENTUM}"
SWEEP = f"sweep --oracle {MOMENTUM} --grid n=3,4"
OPTIMISE = f"backtest --oracle research.oracles.optimise:Optimise --param inner={MOMENTUM}"
NEW = "--set data.cache=new"
CONFIG = "taker_bps, half_spread_bps"
FILL = ("`hlbt data sync --source api`", "`hlbt demo`", "HLBT_DATA_CACHE")
HOLE = ("hourly/2024-03", "is missing")

#: (what is typed, what the answer must say: what is wrong, where, the cure)
MISTAKES: tuple[tuple[str, ...], ...] = (
    ("config --set costs.taker=3", "Unknown config key costs.taker", "Did you mean 'taker_bps'?"),
    (
        "config --set execution.volatility_model=rsk",
        "execution.volatility_model = 'rsk'",
        "Did you mean 'risk'?",
    ),
    (f"{OPTIMISE} --param neutral=dollar", "neutral = 'dollar' is not accepted", "Did you mean 'dollars'?"),
    (f"{OPTIMISE} --param cap=0", "cap = 0 is not accepted", "a positive number"),
    (f"{OPTIMISE} --param on_infeasible=relax", "on_infeasible = 'relax' is not accepted", "choose error or hold"),
    (f"{OPTIMISE} --param 'costs={{impact = \"venue\"}}'", "costs.impact = 'venue'", "volume_share"),
    (f"{OPTIMISE} --param 'costs={{taker = 1}}'", "Unknown config key costs.taker", "Did you mean 'taker_bps'?"),
    # --- data: the cache
    ("data status --set data.cache=nowhere", "The data cache nowhere does not exist", *FILL),
    ("data status --set data.cache=empty-folder", "The data cache empty-folder is empty", *FILL),
    ("data status --set data.cache=taken", "The data cache taken is a file and no folder", *FILL),
    ("data status --set data.cache=torn-cache", "torn-cache/manifest.json is damaged", "hlbt data rebuild"),
    ("data status --set data.cache=newer-cache", "schema version 999", "Upgrade hlbt"),
    ("data status --set data.cache=older-cache", "schema version 0, of an older hlbt", "hlbt data rebuild"),
    ("data status --set data.cache=holed-cache", *HOLE, "hlbt data rebuild"),
    (
        "data status --out taken/page.html",
        "--out taken/page.html",
        "taken is no folder",
        "Make it, or name a file elsewhere",
    ),
    ("data status --out mine.py", "--out mine.py is no page", "ends in .html"),
    ("data status --out other.html", "other.html is there and is no data status page", "Name another file"),
    ("data verify --set data.cache=nowhere", "The data cache nowhere does not exist", *FILL),
    ("data verify --set data.cache=torn-cache", "torn-cache/manifest.json is damaged", "Do not delete"),
    (f"data rebuild {NEW}", "no file of a cache", "nothing to rebuild"),
    ("data verify --set data.cache=holed-cache", "The cache holed-cache is damaged", *HOLE, "hlbt data rebuild"),
    # --- data: files
    (f"data import freqtrade nowhere {NEW}", "nowhere is not a folder", "user_data/data/hyperliquid"),
    (f"data import freqtrade taken {NEW}", "taken is not a folder", "user_data/data/hyperliquid"),
    (f"data import freqtrade empty-folder {NEW}", "empty-folder has no HyperLiquid file", "1h-futures.feather"),
    (f"data import table nowhere {NEW}", "nowhere does not exist", "Name a file or a folder"),
    (f"data import table mine.py {NEW}", "mine.py is no table: its name ends in none of", ".parquet"),
    (f"data import table meta.json --stamp opne {NEW}", "--stamp is 'opne'", "Did you mean 'open'?"),
    (f"data import meta nowhere.json {NEW}", "nowhere.json: cannot be read", "Name a saved response"),
    (f"data import meta meta_torn.json {NEW}", "meta_torn.json: not JSON", "POST /info"),
    (f"data import meta meta_other.json {NEW}", "no 'universe'", "an object with coins", "POST /info"),
    (f"data import meta meta.json --as-of yesterday {NEW}", "as_of: 'yesterday' is not a date", "2024-10-01T23:00Z"),
    ("data import meta meta.json --as-of 2025-01-01", "synthetic data and these are real", "Use another folder"),
    (
        "data import meta meta.json --as-of 2025-01-01 --set data.cache=taken",
        "taken cannot be written",
        "data.cache=DIR",
    ),
    # --- data: HyperLiquid and its archive (what servers do wrong is in test_sync_api_faults.py and test_s3.py)
    ("data sync --source s4", "--source is 's4'", "s3 or api"),
    ("data sync --source api --quotes l2book", "--quotes has no meaning with --source api", "Leave it out"),
    (f"data sync --source s3 --base-url {NOBODY}", "--base-url has no meaning with --source s3", "Leave it out"),
    ("data sync --source s3 --quotes book", "--quotes is 'book'", "l2book"),
    ("data sync --source s3 --hours 25", "--hours is '25'", "0 to 23"),
    ("data sync --source s3 --jobs 0", "--jobs is 0", "1 or more"),
    (
        f"data sync --source s3 {NEW} --endpoint-url {NOBODY} --timeout 1",
        "hyperliquid-archive at",
        "needs an AWS account",
        "AWS_ACCESS_KEY_ID",
        "--source api`, which needs none",
    ),
    (
        f"data sync --source api --base-url {NOBODY} {NEW} --set data.start=2024-02-01 --set data.end=2024-01-01",
        "the range is empty",
        "2024-02-01 00:00 UTC to 2024-01-01",
        "Set data.start and data.end",
    ),
    *(
        (
            f"{command} {option} {address}",
            f"{option} is not an addr",
            "write http:// or https://",
            "may hold a token",
        )
        for command, option in (
            (f"data sync --source api {NEW}", "--base-url"),
            (f"data cost {NEW}", "--endpoint-url"),
            ("live flatten book", "--base-url"),
            ("doctor", "--base-url"),
        )
        for address in (
            "api.example.com",
            "ftp://example.com",
            "http://[::1",
            "http://a:99999",
            "http://me:pw@a",
            "http://a?k=1",
        )
    ),
    (f"data cost {NEW} --hours noon", "--hours is 'noon'", "0 to 23"),
    (f"data cost {NEW} --endpoint-url {NOBODY}", "needs an AWS account", "AWS_ACCESS_KEY_ID"),
    # --- what is run
    ("backtest", "Name what to run", "--oracle PATH:CLASS or --weights FILE"),
    (f"{BACKTEST} --weights empty.csv", "Name what to run", "either --oracle PATH:CLASS or --weights FILE"),
    ("backtest --oracle momentum", "'momentum' does not name an oracle", "research.oracles.momentum:Momentum"),
    ("backtest --oracle research.oracles.momentun:Momentum", "momentun cannot be imported", "Write a module that"),
    ("backtest --oracle research.oracles.momentum:Momentun", "has no oracle 'Momentun'", "Did you mean 'Momentum'?"),
    ("backtest --oracle nowhere.py:Mine", "Oracle file nowhere.py does not exist in", "Write its path"),
    ("backtest --oracle syntax.py:Mine", "syntax.py cannot be imported", "line 1", "Correct it"),
    ("backtest --oracle raises.py:Mine", "raises.py cannot be imported", "no_such_library", "Install what is absent"),
    ("backtest --oracle mine.py:Plain", "'Plain' is no oracle", "inherits from engine.Oracle", "It has: Leaky, Needs"),
    ("backtest --oracle mine.py:Half", "mine.py:Half is abstract", "write its weight_matrix"),
    ("backtest --oracle mine.py:Needs", "Needs needs days", "--param days=VALUE"),
    (
        "backtest --oracle mine.py:Needs --param days=3",
        "Needs failed over 366 decisions from 2024-01-01 23:00 UTC",
        "RuntimeError: first line second line (mine.py line 13)",
        "Correct the oracle or its parameters; HLBT_TRACEBACK=1",
    ),
    (f"{BACKTEST} --param n", "--param 'n' is not k=v", "--param lookback_hours=168"),
    (f"{BACKTEST} --param lookback=3", "no parameter 'lookback'", "Did you mean 'lookback_hours'?", "Parameters: "),
    (f"{BACKTEST} --param n=0", "n = 0 is not accepted", "at least 1"),
    (f"{BACKTEST} --param n=three", "n = 'three' is not accepted", "a whole number"),
    (f"{BACKTEST} --param construction=z_scores", "'z_scores' is not accepted", "Did you mean 'z_score'?"),
    (
        f"{BACKTEST} --param gross=3",
        "Gross weight 3.00 on 2024-01-08 23:00 UTC exceeds 1.00 (account.max_gross)",
        "Scale the weights or raise the limit",
    ),
    # --- settings, of every command
    (f"{BACKTEST} --config nowhere.toml", "nowhere.toml cannot be read", "Name a TOML file"),
    (f"{BACKTEST} --config empty-folder", "empty-folder cannot be read", "Is a directory"),
    (f"{BACKTEST} --config torn.toml", "torn.toml is not TOML", "line 1"),
    (f"{BACKTEST} --config typo.toml", "Unknown config section [cost]", "Did you mean 'costs'?"),
    (f"{BACKTEST} --config flat.toml", "[costs] is a table of keys, not 3"),
    (f"{BACKTEST} --set costs", "--set 'costs' is not section.key=value", "--set costs.taker_bps=4.5"),
    (f"{BACKTEST} --set cost.taker_bps=3", "Unknown config section [cost]", "Did you mean 'costs'?"),
    (f"{BACKTEST} --set costs.taker_bps=cheap", "costs.taker_bps = 'cheap'", "'schedule' or a number"),
    (
        f"{BACKTEST} --set costs.taker_bps=0.00045",
        "costs.taker_bps = 0.00045 is not accepted",
        "basis points",
        "Was a fraction meant? 0.00045 of the notional is 4.5",
    ),
    (f"{SWEEP} --grid costs.taker_bps=4.5,0.00045", "costs.taker_bps = 0.00045 is not accepted", "fraction meant?"),
    (f"{BACKTEST} --set data.coins=EHT", "does not know EHT", "Did you mean 'ETH'?"),
    (f"{BACKTEST} --set costs.stress=-1", "costs.stress = -1", "between 0 and 100"),
    (f"{BACKTEST} --set costs.impact=some", "costs.impact = 'some'", "none, venue"),
    (
        f"{BACKTEST} --set costs.fee_tiers=true --set costs.taker_bps=3 --set costs.maker_bps=1",
        "costs.fee_tiers = true needs",
        "fixed rates have no tiers",
    ),
    (f"{BACKTEST} --set execution.hour_utc=24", "execution.hour_utc = 24", "between 0 and 23"),
    (f"{BACKTEST} --set execution.weekdays=monday", "weekdays = 'monday'", "Did you mean 'mon'?"),
    (f"{BACKTEST} --set execution.lots=maybe", "execution.lots = 'maybe'", "true or false"),
    (f"{BACKTEST} --set account.initial_equity_usd=0", "initial_equity_usd = 0", "at least"),
    (f"{BACKTEST} --set data.start=soon", "data.start: 'soon' is not a date", "Write 2024-10-01"),
    (f"{BACKTEST} --set data.start=2024-02-01T10:00", "no zone", "2024-02-01T10:00Z"),
    (f"{BACKTEST} --set data.start=2024-02-01T10:30Z", "not on the hour"),
    (f"{BACKTEST} --set data.start=2024-06-01 --set data.end=2024-05-01", "The range is empty", "lies after"),
    (f"{BACKTEST} --set data.start=2030-01-01", "has nothing from 2030", "its prices run from 2024-01-01"),
    (f"{BACKTEST} --set data.coins=btc", "does not know btc", "Did you mean 'BTC'?"),
    (f"{BACKTEST} --set data.coins=[]", "data.coins = [] is not accepted", "['BTC', 'ETH']"),
    *(
        (f"{command} --set costs.taker_bp=3", "Unknown config key costs.taker_bp", "Did you mean 'taker_bps'?", CONFIG)
        for command in (
            "data status",
            "data verify",
            "data import freqtrade empty-folder",
            "data import table meta.json",
            "data import meta meta.json",
            "data sync --source api",
            "data cost",
            BACKTEST,
            SWEEP,
            "validate grid",
            f"oracle check {MOMENTUM}",
            f"oracle report {MOMENTUM}",
            f"capacity --oracle {MOMENTUM}",
            "report run",
            "index",
            "demo",
            "doctor",
        )
    ),
    *(
        (f"{command} --set data.cache=nowhere", "The data cache nowhere does not exist", *FILL)
        for command in (
            BACKTEST,
            SWEEP,
            "validate grid",
            f"oracle check {MOMENTUM}",
            f"oracle report {MOMENTUM}",
            f"capacity --oracle {MOMENTUM}",
        )
    ),
    (f"{BACKTEST} --set data.cache=holed-cache", *HOLE, "hlbt data rebuild"),
    # --- where it goes
    (f"{BACKTEST} --out taken", "taken is a file", "Name a folder with --out"),
    (f"{BACKTEST} --out torn-cache", "torn-cache holds files that are not of a run", "Name another folder"),
    (f"{BACKTEST} --out taken/run", "taken/", "cannot be written", "Mend the folder", "or name another"),
    # --- weights
    ("backtest --weights nowhere.csv", "nowhere.csv cannot be read", "Name a whole .csv"),
    ("backtest --weights empty.csv", "empty.csv cannot be read", "No columns"),
    ("backtest --weights empty-folder", "empty-folder is a folder", "Name the .csv or .parquet file"),
    ("backtest --weights weights.txt", "weights.txt is neither .csv nor .parquet", "Save it as one of them"),
    ("backtest --weights torn.parquet", "torn.parquet cannot be read", "Name a whole .csv or .parquet"),
    ("backtest --weights no_time.csv", "the first column must be 'time'; it is 'date'", "one column a coin"),
    ("backtest --weights words.csv", "BTC at 2024-03-01T23:00Z is 'much'", "0 to be flat"),
    ("backtest --weights twice.csv", "twice.csv has two columns for BTC", "Keep one"),
    (
        "backtest --weights off_hour.csv",
        "off_hour.csv: 1 of 1 rows are off execution.hour_utc = 23",
        "2024-03-01 23:30 UTC",
        "write the instant from which it was",
        "--any-hour",
    ),
    ("backtest --weights off_hour.csv --any-hour", "the first 2024-03-01 23:30 UTC", "Move them to the hour"),
    (f"{BACKTEST} --any-hour", "--any-hour is for a weights file", "Leave it out"),
    ("backtest --weights midnight.csv", "2024-03-01 00:00 UTC", "2024-03-02T23:00Z", "--set execution.hour_utc=0"),
    ("backtest --weights percent.csv", "Gross weight 50.00", "divide them by 100 if they are percent"),
    ("backtest --weights sign.csv", "BTC at 2024-03-01T23:00Z is '50%'", "write 0.5 for 50 %"),
    ("backtest --weights semicolons.csv", "separated by semicolons", "Write commas", "decimal=','"),
    ("backtest --weights decimal.csv", "is '0,5'", "Write a decimal point: 0.5"),
    ("backtest --weights decimals.csv", "decimals.csv cannot be read", "decimals have a point"),
    ("backtest --weights long.csv", "long.csv is in long format", "'coin' names the coins", "frame.pivot("),
    ("backtest --weights header.csv", "no row below its header", "2024-10-01T23:00Z,0.5"),
    ("backtest --weights ccxt.csv", "the panel lacks: BTC/USDC:USDC", "Did you mean 'BTC'?", "HyperLiquid's"),
    ("backtest --weights perp.csv", "the panel lacks: ETH-PERP", "Did you mean 'ETH'?", "case-sensitive"),
    ("backtest --weights later.csv", "has nothing from 2031-03-01 23:00", "its prices run from"),
    ("backtest --weights empty.csv --param n=3", "--param n=3 is for an oracle"),
    # --- sweep
    ("sweep", "Name what to sweep", "a STUDY.toml with an oracle, or --oracle PATH:CLASS"),
    ("sweep --grid n=3,4", "Name what to sweep", "--oracle PATH:CLASS"),
    (f"sweep --oracle {MOMENTUM}", "The grid is empty", "--grid k=a,b,c"),
    (f"sweep --oracle {MOMENTUM} --grid n", "--grid 'n' is not k=a,b,c", "--grid lookback_hours=24,72,168"),
    (f"sweep --oracle {MOMENTUM} --grid n=", "--grid 'n=' is not k=a,b,c", "--grid lookback_hours=24,72,168"),
    (f"sweep --oracle {MOMENTUM} --grid n=3:10", "--grid 'n=3:10' is no range", "START:STOP:STEP", "--grid n=3:10:1"),
    (f"sweep --oracle {MOMENTUM} --grid m=1,2", "'m' is neither a parameter", "Parameters: lookback_hours"),
    (
        f"sweep --oracle {MOMENTUM} --grid cost.taker_bps=1,2",
        "nor a key of",
        "Did you mean 'costs.taker_bps'?",
    ),
    (f"sweep --oracle {MOMENTUM} --grid n=5:1:1", "'start': 5, 'stop': 1", "stop (included, not below start)"),
    (f"sweep --oracle {MOMENTUM} --grid n=1:5:0", "'step': 0", "step (above 0)"),
    (f"sweep --oracle {MOMENTUM} --grid n=3,3", "n has the value 3 twice", "Each set is run once"),
    (f"sweep --oracle {MOMENTUM} --grid data.start=2024-01-01,2024-02-01", "one panel", "Make one sweep for each"),
    (f"{SWEEP} --param n=5", "n is both fixed and in the grid", "Leave one out"),
    (f"{SWEEP} --param m=5", "'m' is neither a parameter", "Parameters: lookback_hours"),
    (f"{SWEEP} --where 'n <'", "The constraint 'n <' cannot be read", "Write an expression over n"),
    (f"{SWEEP} --where 'm < 3'", "name 'm' is not defined", "Write an expression over n"),
    (f"{SWEEP} --where 'n > 100'", "its constraints exclude every one"),
    (f"{SWEEP} --where 'print(n)'", "cannot be read", "not a supported function", "Write an expression over n"),
    (f"{SWEEP} --sample 0", "sample = 0 is not accepted", "from 1 to 20,000,000"),
    (f"{SWEEP} --seed 3", "--seed needs a random draw", "add --sample"),
    (f"{SWEEP} --sampler tpe", "--sampler 'tpe' is not accepted", "choose one of random, optuna"),
    (f"{SWEEP} --sampler optuna", "needs the number of sets", "add --sample SETS"),
    (f"{SWEEP} --executor dask", "'dask' is not accepted", "choose one of threads, ray"),
    (f"{SWEEP} --address 127.0.0.1:1", "--address is for a Ray cluster", "add --executor ray"),
    (f"{SWEEP} --name ../elsewhere", "'../elsewhere' of the sweep is not a folder name", "without slashes"),
    (f"{SWEEP} --name run", "reports/run holds what is not of a sweep", "Name the sweep otherwise"),
    (f"{SWEEP} --reports taken", "Sweep taken/", "cannot be written", "name another with --reports"),
    ("sweep nowhere.toml", "Study file nowhere.toml cannot be read", "No such file"),
    ("sweep study_torn.toml", "study_torn.toml is not TOML"),
    ("sweep study_typo.toml", "study_typo.toml: unknown key 'oracel'", "Did you mean 'oracle'?"),
    ("sweep study_sets.toml --grid n=3", "[[sets]]", "Leave one out"),
    # --- validate
    ("validate nowhere", "reports/nowhere is not a sweep folder", "`hlbt sweep` makes one"),
    ("validate reports/run", "reports/run is not a sweep folder", "`hlbt sweep` makes one"),
    ("validate sweeps/torn", "Sweep sweeps/torn is damaged", "Run the sweep again"),
    ("validate sweeps/lost", "sweeps/lost/table.parquet is missing", "Run the sweep again"),
    ("validate grid --set costs.stress=2", "only data.cache can be set", "Run the sweep again"),
    # --- study
    ("study init --holdout soon", "--holdout: 'soon' is not a date", "Write 2024-10-01"),
    ("study init --holdout 2023-01-01", "2023-01-01 00:00 UTC would leave nothing", "Give a later date"),
    ("study init --holdout 2024-03-01 --set data.cache=nowhere", "The data cache nowhere does not exist", *FILL),
    ("study status --set data.cache=torn-seal", "torn-seal/holdout.jsonl: entry 1 is damaged", "Restore the file"),
    ("backtest --weights percent.csv --set data.cache=torn-seal", "torn-seal/holdout.jsonl", "seal the days again"),
    ("study open --candidate nowhere", "reports/nowhere is neither a run nor a sweep", "`hlbt backtest`"),
    ("study open --candidate grid", "Nothing of", "is sealed", "`hlbt study init --holdout DATE`"),
    ("study open --candidate grid --set costs.stress=2", "only data.cache can be set", "--set data.cache=DIR"),
    # --- oracle
    ("oracle check momentum", "'momentum' does not name an oracle", "write module:Class"),
    (f"oracle check {MOMENTUM} --param m=1", "no parameter 'm'", "Parameters: lookback_hours"),
    (f"oracle check {MOMENTUM} --cuts 0", "cuts = 0 is not accepted", "at least one"),
    (
        "oracle check mine.py:Leaky --set data.end=2024-02-15",
        "Leaky fails the check 'the past alone gives the same weights'",
        "2024-01-01 23:00 UTC",
    ),
    (f"oracle report {MOMENTUM} --horizon 0", "horizon_days = 0", "at least 1"),
    (f"oracle report {MOMENTUM} --quantiles 1", "quantiles = 1", "at least 1 and 2"),
    (f"oracle report {MOMENTUM} --out mine.py", "--out mine.py is no page", "ends in .html"),
    (f"oracle report {MOMENTUM} --out taken/page.html", "taken is no folder", "Make it, or name a file elsewhere"),
    ("oracle report mine.py:Needs --param days=3", "RuntimeError: first line second line", "Correct the oracle"),
    # --- capacity
    ("capacity", "Name what to run", "--oracle PATH:CLASS or --weights FILE"),
    (f"capacity --oracle {MOMENTUM} --sizes 1e4,many", "'1e4,many' is not a list of USD", "--sizes 1e4,1e5,1e6"),
    (f"capacity --oracle {MOMENTUM} --sizes 1e6,1e4", "[1e+06, 10000] are not accepted", "ascending order"),
    (f"capacity --oracle {MOMENTUM} --sizes -5", "[-5] are not accepted", "positive USD"),
    (f"capacity --oracle {MOMENTUM} --out mine.py", "--out mine.py is no page", "ends in .html"),
    (f"capacity --oracle {MOMENTUM} --out taken/page.html", "taken is no folder", "Make it, or name a file elsewhere"),
    # --- report, index
    ("report nowhere", "reports/nowhere is no run folder", "`hlbt backtest` makes one"),
    ("report reports/grid", "reports/grid is no run folder", "`hlbt backtest` makes one"),
    ("report runs/torn", "runs/torn/run.json is damaged", "Run the backtest again"),
    ("report runs/lost", "equity.parquet is missing", "Run the backtest again"),
    ("report runs/words", "runs/words/run.json is damaged: metrics.total_return = 'much' is no number"),
    ("backtest --like runs/nobody", "runs/nobody/run.json is damaged: origin is no table"),
    ("compare run runs/flat", "runs/flat/run.json is damaged: config holds no tables"),
    ("oracle report sweeps/empty", "sweeps/empty is damaged", "names no oracle"),
    ("live status nested.json", "nested deeper"),
    ("report runs/newer", "schema 99", "Run the backtest again"),
    ("index nowhere", "nowhere is no folder of runs", "name another folder"),
    ("index taken", "taken is no folder of runs", "name another folder"),
    ("index reports/run", "reports/run is one run", "Name the folder above it"),
    # --- demo
    ("demo --set data.cache=taken", "The cache taken cannot be written to", "data.cache=DIR"),
    ("demo --set data.cache=demo --reports taken", "taken/", "cannot be written", "name another"),
    ("runs --reports nowhere", "nowhere is no folder of runs", "name another folder"),
    ("note nowhere words", "reports/nowhere is neither a run nor a sweep", "it has no run.json"),
    ("compare nowhere there", "reports/nowhere is no run folder", "`hlbt backtest` makes one"),
    ("export nowhere --to csv", "reports/nowhere is no run folder", "`hlbt backtest` makes one"),
    ("mv nowhere there", "reports/nowhere is neither a run nor a sweep", "Nothing is touched"),
    ("rm nowhere", "reports/nowhere is neither a run nor a sweep", "Nothing is touched"),
    ("demo --set data.cache=demo --set data.end=2023-01-01", "has nothing from", "its prices run from 2024-01-01"),
)

#: What typer answers, in a box below the usage, with exit code 2.
WORDS = (
    ("backtset", "No such command 'backtset'", "backtest"),
    ("data", "Usage: hlbt data", "status"),
    ("data statsu", "No such command 'statsu'", "status"),
    ("data import", "Usage: hlbt data import", "freqtrade"),
    ("data import freqtrade", "Missing argument 'DIR'"),
    ("data import meta", "Missing argument 'FILE'"),
    ("data sync", "Missing option '--source'"),
    ("data sync --source s3 --jobs many", "Invalid value for '--jobs'"),
    ("data verify now", "unexpected extra argument"),
    ("oracle check", "Missing argument 'PATH:CLASS'"),
    ("oracle report", "Missing argument 'PATH:CLASS'"),
    ("validate", "Missing argument 'SWEEP'"),
    ("validate grid --top 51", "Invalid value for '--top'"),
    (f"{SWEEP} --workers 0", "Invalid value for '--workers'"),
    (f"{BACKTEST} --params n=3", "No such option: --params", "--param"),
    (f"{BACKTEST} --set", "Option '--set' requires an argument"),
    ("report", "Missing argument 'RUN'"),
    ("capacity here there", "unexpected extra argument"),
    ("index here there", "unexpected extra argument"),
    ("demo --orcale x", "No such option: --orcale"),
    ("doctor --verbose", "No such option: --verbose"),
)


def hlbt(line: str) -> int:
    """Exit code of a command line."""
    return exit_code(*shlex.split(line))


@pytest.fixture(scope="module")
def built(sample_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HLBT_DATA_CACHE", str(sample_cache))
        world(sample_cache)
        runs()
    return folder


@pytest.fixture
def here(built: Path, sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the table, on a machine without credentials."""
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    monkeypatch.setenv("HOME", str(built / "empty-folder"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(built)
    return built


def files(folder: Path) -> dict[str, int]:
    """Files that a mistake could have spoilt: not caches, and not the ledger, which counts what was tried."""
    made = ("new/", "demo/", "__pycache__", ".cache/", ".lock", ".trials/")
    found = {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }
    return {name: time for name, time in found.items() if not any(part in name for part in made)}


@pytest.mark.parametrize(
    ("line", "says"), [(line, says) for line, *says in MISTAKES], ids=lambda value: str(value)[:70]
)
def test_a_mistake_is_answered_in_one_paragraph(
    here: Path, line: str, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(here)
    code = hlbt(line)
    answer = capsys.readouterr()
    assert code == 1
    assert answer.err.startswith("hlbt: ") and answer.err.endswith("\n"), answer.err
    assert answer.err.count("\n") == 1 and "  " not in answer.err, answer.err
    for fragment in says:
        assert fragment in answer.err, (fragment, answer.err)
    assert len(answer.err) < 700 and "Traceback" not in answer.err + answer.out
    assert answer.out == "" or line.startswith("oracle check")  # its table shows what else was looked at
    assert files(here) == before, "a mistake leaves everything as it was"


@pytest.mark.parametrize(("line", "says"), [(line, says) for line, *says in WORDS], ids=lambda value: str(value)[:70])
def test_words_that_are_no_command(here: Path, line: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert hlbt(line) == 2
    answer = capsys.readouterr()
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", answer.out + answer.err).split())
    for fragment in says:
        assert fragment in shown, (fragment, shown)
    assert "Traceback" not in shown and "python" not in shown


#: Mistakes on the way to an account have exit codes of their own: 5 for a spec that is refused.
LIVE: tuple[tuple[Any, ...], ...] = (
    ("promote nowhere --name x", 1, "reports/nowhere is neither a run nor a sweep", "`hlbt backtest`"),
    ("promote nowhere --name x/y", 1, "--name 'x/y' is not accepted", "for example --name momentum-168h"),
    ("promote nowhere --name x --limit gross", 1, "--limit 'gross' is not name=value", "--limit gross=1.2"),
    ("promote nowhere --name x --limit gros=1", 5, "Unknown limit 'gros'", "Did you mean 'gross'?"),
    ("live rebalance --weights a.csv --limit gross", 1, "--limit 'gross' is not name=value", "--limit gross=1.2"),
    ("live rebalance --weights a.csv --limit gros=1", 5, "Unknown limit 'gros'", "Did you mean 'gross'?"),
    ("live rebalance --weights a.csv --limit gross=much", 5, "limits.gross = 'much'", "none to switch it off"),
    ("live plan nowhere.json", 5, "Spec nowhere.json cannot be read", "`hlbt promote` writes one"),
    ("live plan nowhere.toml", 5, "Book nowhere.toml cannot be read", "Name a TOML file that is there"),
    ("live plan percent.csv", 5, "is a weights file and no spec", "`hlbt live rebalance --weights percent.csv`"),
    ("live plan meta_other.json", 5, "is no strategy spec", "`hlbt promote` writes one"),
    ("live plan nowhere.json --set costs.taker_bps=1", 5, "only data.cache can be set", "Promote it anew"),
    ("live run nowhere.json --execute", 5, "Spec nowhere.json cannot be read", "`hlbt promote` writes one"),
    ("live rebalance --weights nowhere.csv", 1, "Weights file nowhere.csv cannot be read", "No such file"),
    ("live flatten nowhere --network moon", 1, "--network 'moon' is none of", "testnet, mainnet, paper"),
    ("live rebalance --weights twice.csv", 1, "twice.csv has two columns for BTC", "Keep one"),
    ("live reinstate book --network paper --reason x", 1, "'book' is not demoted on this account", "Check the name"),
    ("live reinstate book --network paper --reason ' '", 1, "--reason is empty", "it stays on record"),
    ("live run nowhere --heartbeat http://a/b", 1, "--heartbeat is for --daily", "add --daily"),
    ("live run nowhere --daily --heartbeat ftp://a", 1, "--heartbeat is no http or https address", "https://host/path"),
    ("live accept-equity book --credentials nowhere.json", 1, "nowhere.json does not exist", "HYPERLIQUID_SECRET_KEY"),
    ("live paper nowhere", 5, "Spec research/promoted/nowhere.json cannot be read", "`hlbt promote` writes one"),
    ("live paper runs", 1, "runs has neither specs nor a run", "`hlbt promote` writes specs"),
    ("live paper book --journal book.jsonl", 1, "book.jsonl is one file: each track has a journal", "Name a folder"),
    ("live paper book --daily --now 2024-01-01", 1, "--daily waits for the clock", "Remove one of the two"),
    ("live calibrate nowhere.json", 1, "reports/live has no journal of 'nowhere'", "`hlbt live run` with --execute"),
    ("live log nowhere --network moon", 1, "--network 'moon' is none of", "testnet, mainnet, paper"),
    ("live log nowhere", 1, "reports/live has no journal of 'nowhere'", "`hlbt live run` with --execute"),
    ("live status book --out other.html", 1, "other.html is there and is no live status page", "Name another file"),
    ("live status nowhere.json", 1, "reports/live has no journal of 'nowhere'", "`hlbt live run` with --execute"),
)


@pytest.mark.parametrize(("line", "exit_code", "says"), [(line, code, says) for line, code, *says in LIVE])
def test_a_mistake_on_the_way_to_an_account(
    here: Path, line: str, exit_code: int, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(here)
    assert hlbt(line) == exit_code
    answer = capsys.readouterr()
    assert answer.err.startswith("hlbt: ") and answer.err.count("\n") == 1 and answer.out == ""
    assert all(fragment in answer.err for fragment in says), answer.err
    assert files(here) == before


@pytest.mark.parametrize(
    "line",
    [
        *("runs", "compare run runs/dear", "data status", "doctor --base-url http://127.0.0.1:9", "study status"),
        *("capacity run --sizes 1e4,1e8", "oracle report run", f"oracle check {MOMENTUM} --cuts 1 --budget 1"),
        *("validate grid", f"{SWEEP} --no-verdict --set data.end=2024-02-15", "promote run --name x --dry-run"),
        *(f"{BACKTEST} --no-report --set data.end=2024-02-15", "index", "export run --out tables"),
    ],
)
def test_tables_fit_80_columns(
    here: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line of a table is wider, and none is cut: a figure that lost its last digits is another figure."""
    monkeypatch.setenv("COLUMNS", "80")
    hlbt(line)
    shown = [part for part in capsys.readouterr().out.splitlines() if part[:1] in set("┏┃┡│├└╭╰")]
    assert shown or line in ("index", "study status", "export run --out tables", "oracle report run"), line
    assert all(len(part) <= 80 and "…" not in part for part in shown)


def test_a_capacity_table_of_great_figures_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.commands.progress import show_all
    from engine.commands.tables import capacity_table

    monkeypatch.setenv("COLUMNS", "80")
    costs = {f"{cost}_yearly": 3.7681 for cost in ("fee", "spread", "impact", "funding")}
    row = {"refused": "", "equity_usd": 1e8, "sharpe": -12.345, "cagr": 14.0623, **costs, "liquidated_at": None}
    show_all(capacity_table(pd.DataFrame([{**row, "volume_share_median": 0.15123}]), "Mine", False))
    shown = capsys.readouterr().out
    cells = ("100,000,000", "-12.35", "+1406%", "-377%", "15.12%")
    assert all(cell in shown for cell in cells) and max(map(len, shown.splitlines()[1:-1])) <= 80, shown


def test_every_command_is_in_the_table() -> None:
    import typer

    command = typer.main.get_command(cli.app)

    def paths(node: object, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        inner = getattr(node, "commands", None)
        return [words] if inner is None else [path for name in inner for path in paths(inner[name], (*words, name))]

    lines = [tuple(line.split()) for line, *_ in (*MISTAKES, *LIVE)]
    absent = [path for path in paths(command) if not any(words[: len(path)] == path for words in lines)]
    assert not absent
