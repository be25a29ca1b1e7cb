"""hlbt promote: which sweep a run came from, whether it still holds, the command, the spec, limits, overrides."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from engine import RunConfig, sweep
from engine.errors import ConfigError, DataError, HlbtError, PromotionError, SpecError
from engine.live.risk_limits import Limits
from engine.live.spec import load_live_oracle, read_spec
from engine.promotion.candidate import Candidate, check_current, read_candidate, sweep_of
from engine.promotion.promote import limits_of, save_spec
from engine.runs import load_run
from engine.sweeps.study import load_study
from engine.validation.checks import GATES
from engine.validation.thresholds import GateFile, installed_gates_file
from helpers.commands import Hlbt, Outcome, outcome
from helpers.promotion import ORACLE, World, build, entered, winner_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("promotion"))


@pytest.fixture
def home(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return entered(world, tmp_path, monkeypatch)


@pytest.fixture
def hlbt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hlbt:
    """Run a command in this process: exit code, standard output, standard error without its line breaks."""

    def run(*words: object) -> Outcome:
        monkeypatch.setenv("COLUMNS", "200")
        done = outcome(capsys, *words)
        return done._replace(err=" ".join(done.err.split()))

    return run


@pytest.fixture(scope="module")
def winner(world: World) -> Candidate:
    return winner_of(world)


# Which sweep, and whether it still holds ------------------------------------------------------------------------------


def test_what_has_changed_is_refused(winner: Candidate, world: World, home: Path) -> None:
    panel = world[2]
    check_current(winner, panel)
    with pytest.raises(PromotionError, match=r"the data differ .*now .*`hlbt backtest`"):
        check_current(winner, panel.until(panel.index[-2]))
    for name, words in (("code", "the engine's code differs"), ("oracle", "the oracle's code differs")):
        then = replace(winner, digests={**winner.digests, name: "abc"}, sweep=home)
        with pytest.raises(PromotionError, match=rf"{words} .abc, now .*`hlbt sweep`"):
            check_current(then, panel)


@pytest.mark.parametrize(("key", "words"), [("data", "the data differ"), ("code", "the engine's code differs")])
def test_a_stale_sweep_opens_no_gate(home: Path, world: World, hlbt: Hlbt, key: str, words: str) -> None:
    assert (
        hlbt("backtest", "--oracle", "trend.py:Trend", "--param", "hours=48", "--param", "n=2", "--no-report")[0] == 0
    )
    record = json.loads((home / "reports/grid/sweep.json").read_text(encoding="utf-8"))
    record["digests"][key] = "0" * 64
    (home / "reports/grid/sweep.json").write_text(json.dumps(record), encoding="utf-8")
    (run,) = home.glob("reports/trend-*")
    code, out, _ = hlbt("promote", run.name, "--name", "x", "--json")
    gates = {gate["name"]: gate for gate in json.loads(out)["gates"]}
    assert code == 7
    for name in ("familywise", "deflated_sharpe", "probability_of_loss", "walk_forward", "alpha"):
        assert not gates[name]["passed"] and gates[name]["value"] is None
        assert f"the sweep grid holds the set but is stale: {words} (000000000000" in gates[name]["says"]
        assert "`hlbt sweep` again" in gates[name]["says"]
    assert gates["cost_x2"]["passed"] and json.loads(out)["sweep"] is None


def test_the_set_is_found_whatever_shape_its_sweep_has(home: Path, world: World) -> None:
    """Axes of the config, lists as values, numbers that pandas made floats, several oracles, the widest first."""
    panel = world[2].until(world[2].index[24 * 30])
    (home / "twin.py").write_text(ORACLE.replace("Trend", "Twin"), encoding="utf-8")
    grid = {
        "oracle": ["trend.py:Trend", "twin.py:Twin"],
        "gross": [0.5, 1],
        "execution.weekdays": ["all", ["mon", "thu"]],
        "costs.taker_bps": ["schedule", 9.0],
    }
    study = sweep(
        panel, ["trend.py:Trend", "twin.py:Twin"], grid, RunConfig(), fixed={"hours": 24}, name="wide", reports="r"
    )
    sweep(panel, "trend.py:Trend", {"gross": [0.5, 1]}, RunConfig(), fixed={"hours": 24}, name="a-narrow", reports="r")
    config = RunConfig.from_dict({"execution": {"weekdays": "mon,thu"}, "costs": {"taker_bps": 9.0}})
    parameters = {"hours": 24, "n": 2, "gross": 1, "peek": 0, "weak": False}
    digests = {**study.record["digests"], "oracle": study.record["oracles"][0]["digest"]}
    one = Candidate("one", "trend.py:Trend", parameters, config, 1.0, "", "", digests, Path("r"), None)
    found, place = sweep_of(one)
    setting = found.parameter_set(place)
    assert found.record["name"] == "wide" and setting.oracle == "trend.py:Trend"
    assert setting.parameters["gross"] == 1 and setting.config == config
    assert sweep_of(replace(one, config=RunConfig()))[0].record["name"] == "wide"  # the most sets
    # A value of its grid that no config takes fails its own sets and hides no other.
    costs = {**grid, "costs.taker_bps": ["schedule", 9.0, -1e9], "costs.half_spread_bps": [2.0, 3.0]}
    sweep(panel, ["trend.py:Trend", "twin.py:Twin"], costs, RunConfig(), fixed={"hours": 24}, name="most", reports="r")
    assert sweep_of(one)[0].record["name"] == "most"
    shutil.rmtree(home / "r/most")
    assert sweep_of(replace(one, config=RunConfig(), sweep=home / "r/a-narrow"))[0].record["name"] == "a-narrow"
    for other in (
        replace(one, parameters={**parameters, "gross": 2}),
        replace(one, parameters={**parameters, "n": 3}),
        replace(one, config=RunConfig.from_dict({"costs": {"funding": False}})),
        replace(one, oracle="twin.py:Twin", parameters={**parameters, "weak": True}),
    ):
        with pytest.raises(DataError, match=r"No sweep in r holds this set .* --reports"):
            sweep_of(other)


# The command ----------------------------------------------------------------------------------------------------------


def test_a_sweep_is_promoted_and_what_is_changed_later_is_refused_live(home: Path, hlbt: Hlbt) -> None:
    code, out, err = hlbt("promote", "grid", "--name", "trend")
    path = Path("research/promoted/trend.json")
    assert code == 0, err
    assert "SYNTHETIC DATA" in out and f"Promoted: {path}" in out and "trend.py:Trend is a file" in out
    spec, study = read_spec(path), load_study(Path("reports/grid"))
    best = study.params(study.best())
    assert spec.oracle == "trend.py:Trend" and spec.trials == 12 and spec.account == {"equity_usd": 10_000.0}
    assert spec.parameters == {"gross": 1.0, "peek": 0, "weak": False, **best}
    assert spec.config == study.parameter_set(study.best()).config
    assert spec.limits == Limits(order_notional_usd=spec.limits.order_notional_usd)
    assert spec.limits.order_notional_usd is not None and 1e4 < spec.limits.order_notional_usd < 1e6
    assert (
        set(spec.digests) == {"data", "oracle", "engine", "gates"}
        and spec.digests["data"] == study.record["digests"]["data"]
    )
    assert [gate["name"] for gate in spec.gates["results"]] == list(GATES) and spec.gates["overrides"] == []
    assert spec.gates["run"]["synthetic"] is True and spec.gates["run"]["sweep"] == "grid"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.pop("digest") == spec.digest and content == spec.to_dict()
    assert str(home) not in path.read_text(encoding="utf-8")
    oracle, notes = load_live_oracle(spec)
    assert type(oracle).__name__ == "Trend" and notes == []
    code, out, err = hlbt("live", "plan", "trend", "--network", "paper", "--no-sync", "--now", "2025-09-16T22:59Z")
    assert code == 0 and "Nothing was sent." in out, err

    assert hlbt("promote", "grid", "--name", "trend")[0] == 7  # it is there already
    assert hlbt("promote", "grid", "--name", "trend", "--replace", "--account", "20000")[0] == 0
    assert read_spec(path).account == {"equity_usd": 20_000.0}

    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"daily_loss_frac": 0.15', '"daily_loss_frac": 0.95'), encoding="utf-8")
    code, _, err = hlbt("live", "plan", "trend", "--network", "paper")
    assert code == SpecError.exit_code and "after its promotion" in err
    path.write_text(text, encoding="utf-8")
    Path("trend.py").write_text(ORACLE.replace("0.5 * self.gross", "0.49 * self.gross"), encoding="utf-8")
    code, _, err = hlbt("live", "plan", "trend", "--network", "paper")
    assert code == SpecError.exit_code and "The code of trend.py:Trend has changed since 'trend' was promoted" in err
    code, _, err = hlbt("promote", "grid", "--name", "again")
    assert code == 7 and "the oracle's code differs" in err and not Path("research/promoted/again.json").exists()


def test_a_refusal_names_every_gate_and_overrides_are_on_record(home: Path, hlbt: Hlbt) -> None:
    alone = ("--param", "hours=30", "--out", "reports/alone", "--no-report")
    assert hlbt("backtest", "--oracle", "trend.py:Trend", *alone).code == 0
    words = ("promote", "reports/alone", "--name", "alone")
    code, out, err = hlbt(*words, "--dry-run")
    assert code == 7 and "OVERRIDDEN" not in out and out.count("FAILED") >= 3
    for text in (
        "deflated_sharpe not computed (at least 0.95)",
        "familywise not computed (at most 0.05)",
        "--grid ...",
    ):
        assert text in err
    assert err.count("No sweep in reports holds this set") == 1
    assert not Path("research").exists()

    code, out, _ = hlbt(*words, "--json")
    said = json.loads(out)
    failed = [gate["name"] for gate in said["gates"] if not gate["passed"]]
    assert code == 7 and said["promoted"] is False and all(name in said["refusal"] for name in failed)
    pairs = [part for name in failed for part in ("--override", name, "--reason", f"known: {name}")]
    code, out, _ = hlbt(*words, *pairs, "--dry-run")
    assert code == 0 and "dry run" in out and "OVERRIDDEN" in out and not Path("research").exists()
    code, out, _ = hlbt(*words, *pairs, "--json")
    said = json.loads(out)
    spec = read_spec(Path(said["path"]))
    assert code == 0 and said["promoted"] and said["spec"]["digest"] == spec.digest
    assert spec.gates["overrides"] == [{"gate": name, "reason": f"known: {name}"} for name in failed]
    assert spec.trials == 13 and spec.gates["run"]["sweep"] is None  # the sweep's twelve, and this one
    code, _, err = hlbt(*words, *pairs, "--override", "days", "--reason", "short", "--replace")
    assert code == 7 and "Cannot override gates that passed: days 258 (at least 180)" in err


def test_a_run_below_a_sweep_has_the_sweep(home: Path, hlbt: Hlbt) -> None:
    assert hlbt("validate", "grid", "--top", "1")[0] == 0
    (run,) = Path("reports/grid/top").iterdir()
    read = read_candidate(run)
    assert read.sweep == (home / "reports/grid").resolve() and read.reports == Path("reports")
    assert sweep_of(read)[1] == load_study(Path("reports/grid")).best()
    assert read.parameters == read_candidate(Path("reports/grid")).parameters
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["metrics"]["sharpe"] += 1e-3
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    code, _, err = hlbt("promote", str(run), "--name", "x")
    assert code == 7 and f"Refused by 1 of {len(GATES)} gates: reproduced 0.001 (at most 1e-06)" in err
    del record["origin"]["parameters"]
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    code, _, err = hlbt("promote", str(run), "--name", "x")
    assert code == 1 and "is damaged" in err and "parameters" in err and "Run the backtest again." in err


def test_a_weights_file_has_nothing_to_promote(home: Path, hlbt: Hlbt, world: World) -> None:
    pd.DataFrame({"time": ["2025-02-01T23:00Z"], "BTC": [0.5]}).to_csv("w.csv", index=False)
    assert hlbt("backtest", "--weights", "w.csv", "--out", "reports/w", "--no-report")[0] == 0
    assert load_run(Path("reports/w")).record["origin"]["kind"] == "weights"
    code, _, err = hlbt("promote", "w", "--name", "x")
    assert code == 7 and "the weights file w.csv" in err and "hlbt live rebalance --weights" in err


REFUSALS = [
    (("grid", "--name", "a/b"), "--name 'a/b' is not accepted"),
    (("grid", "--name", ".."), "is not accepted"),
    (("grid", "--name", "x.json"), "is not accepted"),
    (("nowhere", "--name", "x"), "is neither a run nor a sweep"),
    (("grid", "--name", "x", "--override", "alfa", "--reason", "r"), "unknown gate 'alfa'. Did you mean 'alpha'?"),
    (("grid", "--name", "x", "--override", "alpha"), "--override alpha, but --reason (none): each"),
    (("grid", "--name", "x", "--override", "alpha", "--reason", "  "), "--override alpha, but --reason"),
    (("grid", "--name", "x", "--reason", "r"), "--override (none), but --reason 'r': each"),
    (("grid", "--name", "x", *("--override", "alpha", "--reason", "r") * 2), "--override alpha is given twice"),
    (("grid", "--name", "x", "--limit", "gros=2"), "Unknown limit 'gros'. Did you mean 'gross'?"),
    (("grid", "--name", "x", "--limit", "gross"), "is not name=value"),
    (("grid", "--name", "x", "--set", "costs.taker_bps=1"), "only data.cache can be set"),
    (("grid", "--name", "x", "--set", "data.cache=nothing-here"), "nothing-here"),
    (("grid", "--name", "x", "--account", "-5"), "--account -5 is not accepted"),
    (("grid", "--name", "x", "--gates", "none.toml"), "Gates file none.toml cannot be read"),
]


@pytest.mark.parametrize(("words", "message"), REFUSALS)
def test_the_command_refuses(home: Path, hlbt: Hlbt, words: tuple[str, ...], message: str) -> None:
    code, _, err = hlbt("promote", *words)
    assert code != 0 and message in err and not Path("research").exists()


# Gates file and limits ------------------------------------------------------------------------------------------------


def test_the_gates_file_says_all_and_nothing_else(tmp_path: Path) -> None:
    text = installed_gates_file().read_text(encoding="utf-8")
    assert Limits.from_dict(GateFile.read().limits) == Limits()
    file = tmp_path / "gates.toml"
    for old, new, message in (
        ("alpha = 0.05", "alfa = 0.05", "unknown gate 'alfa'. Did you mean 'alpha'"),
        ("alpha = 0.05", "", "lacks the gate alpha"),
        ("alpha = 0.05", "alpha = true", "alpha = True is not accepted: it must be a finite number"),
        ("alpha = 0.05", "alpha = nan", "alpha = nan is not accepted"),
        ("[limits]", "[limit]", "'limit' is not accepted. Did you mean 'limits'"),
        ("[gates]", "[[gates]]", "'gates' is not accepted"),
        ("[gates]", "[gates", "is not TOML"),
    ):
        verdict, start, gates = text.partition("\n[gates]")
        assert old in start + gates
        file.write_text(verdict + (start + gates).replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ConfigError) as refusal:
            GateFile.read(file)
        assert message in str(refusal.value)


def test_a_spec_that_cannot_be_written_is_said(home: Path, hlbt: Hlbt) -> None:
    assert hlbt("promote", "grid", "--name", "trend")[0] == 0
    spec = read_spec(Path("research/promoted/trend.json"))
    Path("taken").write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match=r"taken/trend\.json cannot be written: "):
        save_spec(spec, Path("taken/trend.json"))


def test_limits_leave_room_for_the_run() -> None:
    assert limits_of({}, [], 1.0) == (Limits(), [])
    raised, notes = limits_of({"gross": 1.1}, ["coin_weight=0.4"], 2.0)
    assert raised == Limits(gross=2.2, coin_weight=0.4) and "raised from 1.1 to 2.2" in notes[0]
    assert limits_of({"daily_loss_frac": "none"}, ["gross=none"], 9.0)[0] == Limits(gross=None, daily_loss_frac=None)
    for off in ("none", "off", "OFF", '"none"'):  # the same word in a file, in promote and in rebalance
        assert limits_of({"gross": off.strip('"')}, [], 9.0)[0] == Limits(gross=None)
        assert limits_of({}, [f" gross = {off}"], 9.0)[0] == Limits(gross=None)
        assert Limits.assigned([f"gross={off}"], 1.0) == Limits(gross=None)
    for wrong in ("gross", "=1", ""):
        with pytest.raises(ConfigError, match=r"--limit .* is not name=value, for example --limit gross=1\.2"):
            limits_of({}, [wrong], 1.0)
        with pytest.raises(ConfigError, match=r"--limit .* is not name=value, for example --limit gross=1\.2"):
            Limits.assigned([wrong], 1.0)
    with pytest.raises(ConfigError, match=r"gross=1.5 is below the run's own gross of 2.000"):
        limits_of({}, ["gross=1.5"], 2.0)
    with pytest.raises(HlbtError, match="is not accepted"):
        limits_of({"gross": "much"}, [], 1.0)


def test_a_gates_file_counts_where_it_is_named_and_nowhere_else(
    home: Path, hlbt: Hlbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in a folder of the name that Python would import `research` from."""
    installed = installed_gates_file()
    assert installed.is_absolute() and installed.is_file()
    text = installed.read_text(encoding="utf-8")
    Path("research").mkdir()
    Path("research/__init__.py").write_text("", encoding="utf-8")
    lax = text.replace("familywise = 0.05", "familywise = -1.0")
    Path("research/gates.toml").write_text(lax, encoding="utf-8")
    monkeypatch.syspath_prepend(str(home))
    assert installed_gates_file() == installed and GateFile.read().verdict["familywise"] == 0.05
    assert hlbt("promote", "grid", "--name", "x", "--dry-run").code == 0
    code, _, err = hlbt("promote", "grid", "--name", "x", "--gates", "research/gates.toml", "--dry-run")
    assert code == 7 and "familywise" in err and "(at most -1)" in err
    strict = ("validate", "grid", "--strict", "--top", "0")
    assert hlbt(*strict).code == 0
    assert hlbt(*strict, "--gates", "research/gates.toml").code == 2
    Path("research/gates.toml").write_text(text.replace("alpha", "alfa", 1), encoding="utf-8")
    code, _, err = hlbt(*strict, "--gates", "research/gates.toml")
    assert code == 1 and "unknown threshold 'alfa'. Did you mean 'alpha'?" in err
