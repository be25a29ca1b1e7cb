"""hlbt promote --renew: a spec of which only the code changed passes its gates again; anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import PromotionError
from engine.live.spec import StrategySpec, load_live_oracle, read_spec, write_spec
from engine.promotion.candidate import code_of
from engine.provenance import code_digest
from helpers.commands import Hlbt, Outcome, outcome
from helpers.promotion import ORACLE, World, build, entered

pytestmark = pytest.mark.slow
SPEC = Path("research/promoted/trend.json")
BEFORE = "0" * 64


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The folder with a spec of the sweep's winner in it."""
    home, cache, panel = build(tmp_path_factory.mktemp("renewal"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("HLBT_DATA_CACHE", str(cache))
        from engine.commands.promote import promote_command

        promote_command(Path("grid"), "trend", out=Path("research/promoted"))
    return home, cache, panel


@pytest.fixture
def home(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in which spec and sweep are of the code of before."""
    folder = entered(world, tmp_path, monkeypatch)
    edit(lambda spec: replace(spec, digests={**spec.digests, "engine": BEFORE, "oracle": BEFORE}))
    path = Path("reports/grid/sweep.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    record["digests"]["code"] = record["oracles"][0]["digest"] = BEFORE
    path.write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.fixture
def hlbt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hlbt:
    def run(*words: object) -> Outcome:
        monkeypatch.setenv("COLUMNS", "200")
        done = outcome(capsys, *words)
        return done._replace(err=" ".join(done.err.split()))

    return run


def edit(change: Callable[[StrategySpec], StrategySpec]) -> None:
    """Put a spec in the place of the one there, as if it had been promoted so."""
    write_spec(change(read_spec(SPEC)), SPEC)


def test_only_the_code_changed(home: Path, hlbt: Hlbt) -> None:
    """The gates run again, on the sweep of before; what live commands refused, they take; then nothing is to do."""
    old = read_spec(SPEC)
    code, _, err = hlbt("live", "plan", "trend", "--network", "paper", "--no-sync", "--now", "2025-09-16T22:59Z")
    assert code == 5 and "has changed since 'trend' was promoted" in err and "`hlbt promote --renew trend`" in err
    code, out, err = hlbt("promote", "--renew", SPEC, "--dry-run")
    assert code == 0 and "dry run" in out and read_spec(SPEC) == old, err
    code, out, err = hlbt("promote", "--renew", "trend", "--json")
    assert code == 0, err
    printed, new = json.loads(out), read_spec(SPEC)
    assert printed["promoted"] and printed["spec"]["digest"] == new.digest != old.digest
    assert "the engine's code differs (000000000000, now " in printed["notes"][0] + printed["notes"][1]
    assert new.digests["engine"] == code_digest() and load_live_oracle(new)[1] == []
    former = {"digest": old.digest, "created": old.created, "digests": dict(old.digests)}
    assert new.gates["renewed_from"] == [former]
    for name in ("oracle", "parameters", "config", "limits", "account", "name", "trials"):
        assert getattr(new, name) == getattr(old, name), name
    assert new.gates["run"] == old.gates["run"] and new.digests["data"] == old.digests["data"]
    values = {gate["name"]: (gate["value"], gate["passed"]) for gate in old.gates["results"]}
    assert {gate["name"]: (gate["value"], gate["passed"]) for gate in new.gates["results"]} == values
    code, out, _ = hlbt("promote", "--renew", "trend")
    assert code == 0 and "is current" in out and read_spec(SPEC) == new
    # A spec of before the bands of the edge gets them, though nothing else has changed.
    assert new.bands is not None and new.bands == old.bands
    edit(lambda spec: replace(spec, bands=None))
    code, out, err = hlbt("promote", "--renew", "trend")
    assert code == 0 and "Edge: bands over 365 days" in out and read_spec(SPEC).bands == new.bands, err
    edit(lambda spec: new)
    # Another change of code: the run and its sweep are those of the spec's first promotion still.
    edit(lambda spec: replace(spec, digests={**spec.digests, "engine": "1" * 64}))
    code, _, err = hlbt("promote", "--renew", "trend")
    assert code == 0 and [item["digest"] for item in read_spec(SPEC).gates["renewed_from"]][1:] == [old.digest], err


def test_a_journal_of_before_is_read(home: Path, hlbt: Hlbt) -> None:
    """A paper account that traded under the spec of before goes on under the renewed one, in the same journal."""
    spec, path = read_spec(SPEC), Path("reports/grid/sweep.json")
    code_now = code_of(spec.oracle, spec.parameters)
    edit(lambda spec: replace(spec, digests={**spec.digests, "oracle": code_now}))
    record = json.loads(path.read_text(encoding="utf-8"))
    record["oracles"][0]["digest"] = code_now
    path.write_text(json.dumps(record), encoding="utf-8")
    words = ("live", "run", "trend", "--network", "paper", "--execute", "--no-sync")
    code, _, err = hlbt(*words, "--now", "2025-09-15T22:59Z")
    assert code == 0, err
    (journal,) = Path("reports/live").glob("trend-paper*.jsonl")
    before = journal.read_text(encoding="utf-8")
    code, _, err = hlbt("promote", "--renew", "trend")
    assert code == 0, err
    code, _, err = hlbt(*words, "--now", "2025-09-16T22:59Z")
    assert code == 0, err
    after = journal.read_text(encoding="utf-8")
    assert after.startswith(before) and len(after) > len(before)
    code, out, err = hlbt("live", "status", "trend", "--network", "paper", "--json", "--now", "2025-09-16T23:30Z")
    assert code == 0 and len(json.loads(out)["runs"]) == 2, err


def limits(spec: StrategySpec) -> StrategySpec:
    results = [{**gate, "threshold": 0.5} if gate["name"] == "alpha" else gate for gate in spec.gates["results"]]
    return replace(spec, gates={**spec.gates, "results": results})


def config(spec: StrategySpec) -> StrategySpec:
    return replace(spec, config=replace(spec.config, costs=replace(spec.config.costs, half_spread_bps=7.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: replace(spec, digests={**spec.digests, "data": BEFORE}), "the data differ (000000000000, now "),
        (lambda spec: replace(spec, parameters={**spec.parameters, "n": 3}), "parameter n differs (3, now "),
        (
            lambda spec: replace(spec, parameters={**spec.parameters, "old": 3}),
            "Trend has no parameter 'old'",
        ),
        (config, "config key costs.half_spread_bps differs (7.0, now "),
        (limits, "threshold of the gate alpha differs (0.5, now 0.05)"),
    ],
)
def test_whatever_else_differs_is_refused_by_name(home: Path, hlbt: Hlbt, change: Any, message: str) -> None:
    edit(change)
    text = SPEC.read_text(encoding="utf-8")
    code, _, err = hlbt("promote", "--renew", SPEC)
    assert code == PromotionError.exit_code and "trend cannot be renewed" in err and message in err, err
    assert "hlbt promote RUN --name NAME --replace" in err and SPEC.read_text(encoding="utf-8") == text


def test_a_parameter_that_the_code_has_new_keeps_its_default(home: Path, hlbt: Hlbt) -> None:
    edit(lambda spec: replace(spec, parameters={name: spec.parameters[name] for name in ("hours", "n", "gross")}))
    code, out, err = hlbt("promote", "--renew", SPEC, "--json")
    assert code == 0, err
    notes, spec = json.loads(out)["notes"], read_spec(SPEC)
    assert "parameter peek differs ('absent', now 0)" in notes and spec.parameters["weak"] is False
    assert spec.decisions_from == f"{spec.gates['run']['start'][:10]}T23:00:00+00:00"


def test_code_that_gives_other_weights_is_refused_by_the_gates(home: Path, hlbt: Hlbt) -> None:
    text = SPEC.read_text(encoding="utf-8")
    Path("trend.py").write_text(ORACLE.replace("row - self.hours]", "row - self.hours + 1]"), encoding="utf-8")
    code, _, err = hlbt("promote", "--renew", SPEC)
    assert code == 7 and "reproduced" in err and SPEC.read_text(encoding="utf-8") == text


def test_a_sweep_of_neither_code_opens_no_gate(home: Path, hlbt: Hlbt) -> None:
    path = Path("reports/grid/sweep.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    record["digests"]["code"] = "1" * 64
    path.write_text(json.dumps(record), encoding="utf-8")
    code, _, err = hlbt("promote", "--renew", SPEC)
    assert code == 7 and "neither of the spec's code and data nor of today's" in err


def test_overrides_are_kept_while_they_are_needed(home: Path, hlbt: Hlbt) -> None:
    named = [{"gate": "alpha", "reason": "known"}]
    edit(lambda spec: replace(spec, gates={**spec.gates, "overrides": named}))
    code, out, err = hlbt("promote", "--renew", SPEC)
    assert code == 0 and "the override of alpha is gone" in out, err
    assert read_spec(SPEC).gates["overrides"] == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--renew", SPEC, "--name", "x"), 1, "takes all of a spec but its code as it is"),
        (("grid", "--renew", SPEC), 1, "Leave out RUN, --name"),
        (("--renew", SPEC, "--limit", "gross=2"), 1, "Leave out"),
        (("--renew", "none"), 5, "Spec research/promoted/none.json cannot be read"),
        (("--renew", SPEC, "--reports", "elsewhere"), 7, "which is not in elsewhere"),
        (("--renew", SPEC, "--set", "costs.taker_bps=1"), 1, "only data.cache can be set"),
        (("grid",), 2, "or a spec to renew"),
        ((), 2, "RUN --name NAME"),
    ],
)
def test_the_command_refuses(home: Path, hlbt: Hlbt, words: tuple[object, ...], code: int, message: str) -> None:
    done = hlbt("promote", *words)
    assert done.code == code and message in done.err, done.err
