"""Paper tracks: many strategies on one reading of the market, instants traded afterwards, failures that stay alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine import RunConfig
from engine.live.journal import Journal
from engine.live.paper_tracks import due_instants, track_record
from engine.live.risk_limits import Limits
from engine.live.state_folder import single_instance
from helpers.live_world import MOMENTUM, Run, World, daily, killed_after, momentum_spec

pytestmark = pytest.mark.slow

DAY = pd.Timedelta(days=1)
AT = pd.Timestamp("2024-08-01T23:00Z")


def words(folder: Path, *named: object, now: object = AT - pd.Timedelta(seconds=30)) -> list[str]:
    where = ["--json", "--journal", str(folder / "live"), "--now", str(now)]
    return ["live", "paper", *map(str, named), *where]


def accounts(folder: Path) -> dict[str, Any]:
    """The paper accounts, without the ids of orders: a run that goes on sends an order that was lost under another."""
    found = {path.name: json.loads(path.read_text()) for path in sorted((folder / "live").glob("*-paper.json"))}
    for account in found.values():
        del account["answers"]
        account["trades"] = [{**trade, "cloid": None} for trade in account["trades"]]
    return found


@pytest.fixture
def specs(tmp_path: Path, sample_cache: Path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    momentum_spec(folder, sample_cache)
    momentum_spec(folder, sample_cache, name="fridays", execution={"weekdays": ["fri"]})
    return folder


def test_a_folder_is_traded_in_one_go_and_a_run_again_changes_nothing(run: Run, specs: Path, tmp_path: Path) -> None:
    done = run(words(tmp_path, specs, specs / "momentum.json"))  # named twice, traded once
    assert done.code == 0, done.err
    assert [track["name"] for track in done.json["tracks"]] == ["fridays", "momentum"]
    late, in_time = done.json["tracks"]
    # A new track begins with the newest instant of its schedule, here the Friday before.
    assert late["traded_now"] == late["caught_up"] == ["2024-07-26T23:00:00+00:00"]
    assert in_time["traded_now"] == [AT.isoformat()] and in_time["caught_up"] == []
    before = accounts(tmp_path)
    again = run(words(tmp_path, specs, now=AT + pd.Timedelta(minutes=20)))
    assert again.code == 0 and accounts(tmp_path) == before
    assert [track["traded_now"] for track in again.json["tracks"]] == [[], []]
    pages = {path.name for path in (tmp_path / "live").glob("*.html")}
    assert pages == {"fridays-paper.html", "momentum-paper.html", "tracks.html"}
    listed = (tmp_path / "live" / "tracks.html").read_text()
    assert 'href="momentum-paper.html"' in listed and 'href="fridays-paper.html"' in listed
    assert "SYNTHETIC DATA: these accounts" in listed and all(track["synthetic"] for track in done.json["tracks"])
    assert "makes all of them again" in listed
    # Closing the book by hand is no change of the spec.
    where = ["--network", "paper", "--journal", tmp_path / "live", "--now", AT + pd.Timedelta(hours=1)]
    assert run(["live", "flatten", str(specs / "momentum.json"), *map(str, where), "--execute"]).code == 0
    after = run(words(tmp_path, specs, now=AT + DAY - pd.Timedelta(seconds=30)))
    assert after.code == 0 and after.json["tracks"][1]["traded_now"] and "another spec" not in after.out


def test_one_that_fails_does_not_stop_the_others_and_is_named(run: Run, specs: Path, tmp_path: Path) -> None:
    broken = specs / "broken.json"
    broken.write_text((specs / "momentum.json").read_text().replace('"n": 1', '"n": 2'))
    with single_instance(tmp_path / "live" / ".fridays-paper.lock"):
        done = run(words(tmp_path, specs))
    assert done.code == 1 and "2 of 3" in done.err and "broken: " in done.err and "fridays: " in done.err
    traded = {track["name"]: track["traded_now"] for track in done.json["tracks"]}
    assert traded == {"broken": [], "fridays": [], "momentum": [AT.isoformat()]}
    assert all(track["errors"] for track in done.json["tracks"] if track["name"] != "momentum")
    # Where all that fail have one exit code, it is that of the command.
    assert run(words(tmp_path, specs)).code == 5


def test_a_kill_switch_stops_every_track_and_the_days_are_traded_afterwards(
    run: Run, specs: Path, tmp_path: Path
) -> None:
    assert run(words(tmp_path, specs / "momentum.json")).code == 0
    before = accounts(tmp_path)
    (tmp_path / "live" / "KILL").touch()
    done = run(words(tmp_path, specs, now=AT + 2 * DAY))
    assert done.code == 3 and "KILL" in done.err and accounts(tmp_path) == before
    (tmp_path / "live" / "KILL").unlink()
    [track] = run(words(tmp_path, specs / "momentum.json", now=AT + 3.5 * DAY)).json["tracks"]
    assert track["caught_up"] == [(AT + number * DAY).isoformat() for number in (1, 2, 3)]
    assert track["missed"] == [] and track["days"] == 4


@pytest.mark.parametrize("kind", ["caught_up", "plan", "intent", "done"])
def test_a_catch_up_that_is_killed_goes_on_where_it_was(run: Run, specs: Path, tmp_path: Path, kind: str) -> None:
    """Whatever was on the disk last, the account ends where the one that was never killed does."""
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        assert run(words(folder, specs / "momentum.json")).code == 0
    late = AT + 3.2 * DAY
    with killed_after(kind):
        assert run(words(tmp_path / "killed", specs / "momentum.json", now=late)).code == 130
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        done = run(words(folder, specs / "momentum.json", now=late))
        assert done.code == 0, done.err
        [track] = done.json["tracks"]
        assert track["days"] == 4 and len(track["caught_up"]) == 3 and track["missed"] == []
    assert accounts(tmp_path / "whole") == accounts(tmp_path / "killed")


def test_one_sync_and_one_reading_of_quotes_serve_all_tracks(world: World, run: Run) -> None:
    folder = world.folder / "specs"
    folder.mkdir()
    now = world.half_past_two().floor("D") + pd.Timedelta(hours=22, minutes=59, seconds=30)
    world.server.now = int(now.timestamp() * 1000)
    asked = {}
    for number in (1, 3):
        momentum_spec(folder, world.folder / "cache", name=f"m{number}")
        momentum_spec(folder, world.folder / "cache", name=f"n{number}")
        before = {kind: len(world.server.asked(kind)) for kind in ("metaAndAssetCtxs", "meta", "candleSnapshot")}
        base = ["live", "paper", str(folder), "--base-url", world.server.url, "--journal", str(world.journals)]
        done = run([*base, "--json", "--now", now.isoformat()])
        assert done.code == 0, done.err
        asked[number] = {kind: len(world.server.asked(kind)) - count for kind, count in before.items()}
        assert all(track["days"] == 1 and not track["caught_up"] for track in done.json["tracks"])
    assert asked[1]["metaAndAssetCtxs"] == asked[3]["metaAndAssetCtxs"] == 1
    assert not world.server.asked("order")


def test_daily_waits_for_the_first_instant_of_any_track(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.folder / "specs"
    folder.mkdir()
    momentum_spec(folder, world.folder / "cache", limits=Limits.none())
    momentum_spec(folder, world.folder / "cache", "early", Limits.none(), execution={"hour_utc": 20})
    waited = daily(world, monkeypatch, waits=5)
    base = ["live", "paper", str(folder), "--base-url", world.server.url, "--journal", str(world.journals)]
    done = run([*base, "--daily"])
    assert done.code == 130
    assert waited == ["19:40", "19:59", "22:40", "22:59", "19:40"]
    # At 20:00 the other one, which is new, begins with the evening before.
    for name, plans, late in (("early", 1, 0), ("momentum", 2, 1)):
        kinds = [entry["kind"] for entry in Journal(world.journals / f"{name}-paper.jsonl").entries]
        assert (kinds.count("plan"), kinds.count("caught_up")) == (plans, late)


def test_a_candidate_is_on_paper_under_a_name_that_no_spec_has(
    run: Run, sample_cache: Path, specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    dates = ["--set", "data.start=2024-02-01", "--set", "data.end=2024-02-20"]
    parameters = ["--param", "n=1", "--param", "lookback_hours=24"]
    for name in ("momentum", "other"):
        out = ["--out", f"reports/{name}", "--no-report"]
        assert run(["backtest", "--oracle", MOMENTUM, *parameters, *dates, *out]).code == 0
    (tmp_path / "reports" / "other" / "run.json").write_text(
        json.dumps(
            (record := json.loads(Path("reports/other/run.json").read_text()))
            | {"origin": record["origin"] | {"code": "0" * 64}}
        )
    )
    done = run(words(tmp_path, "reports/momentum", specs / "momentum.json", "reports/other"))
    assert done.code == 5 and "reports/other is stale" in done.err and "hlbt backtest" in done.err
    ours, promoted, _ = done.json["tracks"]
    assert (ours["name"], ours["candidate"]) == ("candidate-momentum", True)
    assert "A candidate has no bands" in ours["answers"]["edge"]["text"]  # there is no spec to renew
    assert (promoted["name"], promoted["candidate"]) == ("momentum", False)
    made = accounts(tmp_path)
    one, other = made["candidate-momentum-paper.json"], made["momentum-paper.json"]
    assert one["positions"] == other["positions"] != {}  # the same strategy, whose account is its own
    status = run(["live", "status", "reports/momentum", "--network", "paper", "--journal", "live", "--json"])
    assert status.code == 0, status.err
    assert status.json["journal"].endswith("candidate-momentum-paper.jsonl")
    by_name = run(["live", "status", "candidate-momentum", "--network", "paper", "--journal", "live", "--json"])
    assert by_name.json["answers"]["plan"] == status.json["answers"]["plan"]  # whichever of its names it is given


def test_due_instants_and_gaps_by_hand() -> None:
    def plan(day: int, done: bool = True) -> list[dict[str, Any]]:
        instant = (AT + day * DAY).isoformat()
        made = [{"kind": "plan", "instant": instant, "equity_usd": 100.0 + day}]
        return made + [{"kind": "done", "instant": instant, "complete": True}] * done

    config, minute = RunConfig(), pd.Timedelta(minutes=1)
    assert due_instants([], config, AT - 2 * minute) == [AT - DAY]
    assert due_instants([], config, AT - minute) == [AT]
    assert due_instants(plan(0), config, AT + minute) == []
    assert due_instants(plan(0, done=False), config, AT + minute) == [AT]  # killed
    assert due_instants(plan(0), config, AT + 2 * DAY) == [AT + DAY, AT + 2 * DAY]
    assert due_instants(plan(0, done=False), config, AT + DAY) == [AT, AT + DAY]
    refused = [*plan(0), {"kind": "refused", "instant": (AT + DAY).isoformat()}]
    assert due_instants(refused, config, AT + DAY + minute) == [AT + DAY]  # within its hour it is tried again
    assert due_instants(refused, config, AT + DAY + 61 * minute) == []
    late = {"kind": "caught_up", "instant": (AT + 3 * DAY).isoformat()}
    record = track_record([*plan(0), *refused[-1:], late, *plan(3)], config)
    assert record.days == 2 and record.caught_up == (AT + 3 * DAY,)
    assert record.missed == (AT + DAY, AT + 2 * DAY)  # refused, and not there
    assert record.return_frac == pytest.approx(0.03)
    assert track_record([], config).return_frac is None
