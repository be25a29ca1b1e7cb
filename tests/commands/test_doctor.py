"""``hlbt doctor``: every fault it is there to find, and no secret in what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest

from engine.commands import machine_checks as doctor
from engine.commands.machine_checks import (
    Finding,
    check_aws,
    check_cache,
    check_clock,
    check_crowdcent,
    check_hyperliquid,
    check_reports,
)
from helpers.commands import Hlbt

NOW = pd.Timestamp("2025-01-02 00:30", tz="UTC")
KEY, ADDRESS = "0x" + "5ec2e7" * 10 + "abcd", "0x" + "ad" * 20


@contextmanager
def exchange(ahead_seconds: float, date: str | None = "") -> Iterator[str]:
    """A server whose clock is ahead of this machine's; its address. `date` replaces what it says (None: nothing)."""

    class Connection(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(405)
            said = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_seconds), usegmt=True)
            if date is not None:
                self.send_header("Date", date or said)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def now() -> pd.Timestamp:
    return pd.Timestamp(datetime.now(UTC))


# --------------------------------------------------------------------------------------------------------------- clock


@pytest.mark.parametrize(
    ("ahead", "state", "says", "skew"),
    [
        (0, "ok", "agrees with", 0),
        (3, "ok", "agrees with", -3),
        (60, "warning", "behind", -60),
        (-90, "warning", "ahead of", 90),
        (-86400 * 3, "warning", "ahead of", 86400 * 3),
    ],
)
def test_the_clock_is_compared_with_the_exchange(ahead: float, state: str, says: str, skew: float) -> None:
    with exchange(ahead) as url:
        found = check_clock(url, now)
    assert (found.state, found.figures["reachable"]) == (state, True) and says in found.says
    # The header has whole seconds, and the least skew that explains it is what is told.
    assert skew - 1 - 0.5 <= found.figures["skew_seconds"] <= skew + 1 + 0.5
    assert ("timedatectl" in found.cure) == (state == "warning")


def test_an_exchange_out_of_reach_is_said_and_is_no_problem() -> None:
    with exchange(0) as url:
        pass  # nobody listens there any more
    found = check_clock(url, now)
    assert found.state == "warning" and "not reachable (Connection refused)" in found.says
    assert found.figures == {"reachable": False}
    for date in (None, "yesterday"):
        with exchange(0, date) as url:
            found = check_clock(url, now)
        assert found.state == "warning" and "answers without a date" in found.says


@pytest.mark.parametrize("zone", ["", " -0000"])
def test_a_date_without_a_zone_is_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        with exchange(0, f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S}{zone}") as url:
            found = check_clock(url, now)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found.state == "ok" and abs(found.figures["skew_seconds"]) < 3


def test_a_silent_exchange_is_waited_for_no_longer_than_said() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        found = check_clock(f"http://127.0.0.1:{mute.getsockname()[1]}", now, timeout_seconds=0.2)
    assert found.state == "warning" and "not reachable (timed out)" in found.says


# --------------------------------------------------------------------------------------------------------- credentials


@pytest.mark.slow
def test_credentials_are_seen_and_never_shown(monkeypatch: pytest.MonkeyPatch, hlbt: Hlbt, tmp_path: Path) -> None:
    secrets = {
        "HYPERLIQUID_SECRET_KEY": KEY,
        "HYPERLIQUID_ACCOUNT_ADDRESS": ADDRESS,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLEABC",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIxyz",
        "AWS_SESSION_TOKEN": "tokentokentoken",
        "CROWDCENT_API_KEY": "crowdkeycrowdkey",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_secret_access_key = inthefile\n")
    for mode in (0o600, 0o644):
        (tmp_path / ".aws" / "credentials").chmod(mode)
        for config in (json.dumps({"secret_key": "s" + KEY, "account_address": ADDRESS}), '{"secret_key": "' + KEY):
            Path("hyperliquid_config.json").write_text(config)
            Path("hyperliquid_config.json").chmod(mode)
            for kept in (True, False):  # with and without the environment's own
                with monkeypatch.context() as here:
                    if not kept:
                        here.delenv("HYPERLIQUID_SECRET_KEY")
                        here.delenv("HYPERLIQUID_ACCOUNT_ADDRESS")
                    for words in ((), ("--json",)):
                        code, out, err = hlbt("doctor", "--base-url", "http://127.0.0.1:9", *words)
                        assert code == 0
                        assert (
                            "HYPERLIQUID_SECRET_KEY" in out or "hyperliquid_config.json" in out or "HyperLiquid" in out
                        )
                        for value in (*secrets.values(), "inthefile"):
                            assert value not in out + err and value.removeprefix("0x") not in out + err


BOTH = {"HYPERLIQUID_SECRET_KEY": KEY, "HYPERLIQUID_ACCOUNT_ADDRESS": ADDRESS}
FILE = {"secret_key": KEY, "account_address": ADDRESS}


@pytest.mark.parametrize(
    ("environment", "content", "mode", "state", "says"),
    [
        ({}, None, 0, "ok", "no credentials; only live trading"),
        (BOTH, None, 0, "ok", "by the environment"),
        ({"HYPERLIQUID_SECRET_KEY": KEY}, None, 0, "ok", "by the environment; no account is named"),
        ({"HYPERLIQUID_ACCOUNT_ADDRESS": ADDRESS}, None, 0, "warning", "hyperliquid_config.json does not exist"),
        # Without a key in the environment the file is what counts, as a whole.
        ({"HYPERLIQUID_ACCOUNT_ADDRESS": ADDRESS}, FILE, 0o600, "ok", "by hyperliquid_config.json"),
        ({**BOTH, "HYPERLIQUID_SECRET_KEY": KEY[:-1]}, None, 0, "warning", "secret_key is no private key"),
        ({"HYPERLIQUID_SECRET_KEY": ADDRESS, "HYPERLIQUID_ACCOUNT_ADDRESS": KEY}, None, 0, "warning", "no private key"),
        ({**BOTH, "HYPERLIQUID_VAULT_ADDRESS": "x"}, None, 0, "warning", "vault_address is no address"),
        ({}, FILE, 0o600, "ok", "by hyperliquid_config.json"),
        ({}, FILE, 0o640, "warning", "read by others (mode 640)"),
        (BOTH, FILE, 0o604, "warning", "read by others (mode 604)"),
        ({}, {"secret_key": KEY}, 0o600, "ok", "so it is the key's own address"),
        ({}, {**FILE, "secret_key": 5}, 0o600, "warning", "secret_key is no private key"),
        ({}, {**FILE, "multi_sig": {"authorized_users": [FILE]}}, 0o600, "warning", "multi_sig accounts are not"),
        ({}, {**FILE, "secretkey": 1}, 0o600, "warning", "has an unknown key"),
        ({}, [KEY], 0o600, "warning", "not a JSON object"),
        ({}, '{"secret_key": "' + KEY, 0o600, "warning", "is not JSON"),
    ],
)
def test_hyperliquid_credentials_are_those_that_live_commands_would_take(
    environment: dict[str, str], content: object, mode: int, state: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HYPERLIQUID_SECRET_KEY", "HYPERLIQUID_ACCOUNT_ADDRESS", "HYPERLIQUID_VAULT_ADDRESS"):
        monkeypatch.setenv(name, environment.get(name, ""))
    if content is not None:
        Path("hyperliquid_config.json").write_text(content if isinstance(content, str) else json.dumps(content))
        Path("hyperliquid_config.json").chmod(mode)
    found = check_hyperliquid()
    assert found.state == state and says in found.says
    assert found.figures["present"] == bool(environment or content) and KEY[2:-1] not in str(found)


def test_aws_and_crowdcent(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert check_aws(home).figures == {"present": False, "given_by": []}
    both = {**home, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert check_aws(both).state == "ok" and check_aws(both).figures["present"]
    half = check_aws({**home, "AWS_SECRET_ACCESS_KEY": "b"})
    assert half.state == "warning" and half.cure == "Set AWS_ACCESS_KEY_ID too."
    (tmp_path / ".aws").mkdir()
    file = tmp_path / ".aws" / "credentials"
    file.write_text("[default]")
    file.chmod(0o600)
    assert check_aws(home).state == "ok" and str(file) in check_aws(home).says
    file.chmod(0o644)
    assert check_aws(home).cure == f"chmod 600 {file}"
    assert not check_crowdcent({}).figures["present"] and check_crowdcent({}).state == "ok"
    given = check_crowdcent({"CROWDCENT_API_KEY": "k"})
    assert given.figures["present"] and (given.state == "ok") == (given.figures["client"] is not None)


# ------------------------------------------------------------------------------------------------- cache, reports, disk


@pytest.mark.slow
def test_a_cache_is_described(sample_cache: Path) -> None:
    found = check_cache(sample_cache, NOW)
    assert found.state == "ok" and "SYNTHETIC" in found.says and "every digest is right" in found.says
    hours = pd.read_parquet(sample_cache / "hourly", columns=["time", "coin", "mid"]).dropna()
    groups = hours.groupby("coin", observed=True)["time"]
    spans = (groups.max() - groups.min()) / pd.Timedelta(hours=1) + 1
    assert found.figures["coverage"] == pytest.approx(len(hours) / spans.sum(), abs=1e-12)
    assert found.figures["age_hours"] == (NOW - hours["time"].max()) / pd.Timedelta(hours=1)
    assert (found.figures["coins"], found.figures["gaps"]) == (40, 1)


@pytest.mark.slow
def test_an_old_cache_is_told_how_to_catch_up(real_cache: Path) -> None:
    end = pd.Timestamp("2025-04-01T00:00Z")
    assert check_cache(real_cache, end + pd.Timedelta(hours=24)).state == "ok"
    old = check_cache(real_cache, end + pd.Timedelta(days=30))
    assert old.state == "warning" and "30 days old" in old.says and "--source s3" not in old.cure
    assert "--source s3" in check_cache(real_cache, end + pd.Timedelta(days=300)).cure


def test_a_cache_that_is_not_there_or_not_whole(sample_cache: Path, tmp_path: Path) -> None:
    none = check_cache(tmp_path / "none", NOW)
    assert none.state == "warning" and "hlbt demo" in none.cure
    copy = tmp_path / "copy"
    shutil.copytree(sample_cache, copy)
    file = sorted((copy / "hourly").glob("*.parquet"))[3]
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert check_cache(copy, NOW).state == "problem"
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert check_cache(copy, NOW).state == "problem"
    file.unlink()
    assert check_cache(copy, NOW).state == "problem" and "missing" in check_cache(copy, NOW).says
    manifest = copy / "manifest.json"
    state = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**state, "schema": state["schema"] + 1}))
    assert "Upgrade hlbt" in check_cache(copy, NOW).says
    manifest.write_text("{")
    assert check_cache(copy, NOW).state == "problem" and "damaged" in check_cache(copy, NOW).says


def test_reports_are_counted(tmp_path: Path) -> None:
    import numpy as np

    from engine.sweeps.trials import FOLDER, record_trials

    reports = tmp_path / "reports"
    assert check_reports(reports).state == "ok" and not reports.exists()
    for name in ("one", "two", ".hidden"):
        (reports / name).mkdir(parents=True)
        (reports / name / "run.json").write_text("{}")
    (reports / "grid").mkdir()
    (reports / "grid" / "sweep.json").write_text("{}")
    record_trials(reports, "mine:A", "grid", np.arange(5), np.zeros(5))
    record_trials(reports, "mine:A", "one", np.arange(3, 7), np.zeros(4))
    record_trials(reports, "mine:B", "two", np.arange(7, 9), np.zeros(2))
    found = check_reports(reports)
    assert found.figures == {"path": str(reports), "runs": 2, "sweeps": 1, "trials": 9}
    next((reports / FOLDER).glob("*/grid.parquet")).write_bytes(b"")
    damaged = check_reports(reports)
    assert damaged.state == "warning" and "damaged" in damaged.says
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert check_reports(taken).state == "problem"


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, state in ((10**6, "problem"), (10**9, "warning"), (10**12, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _place, free=free: type("Usage", (), {"free": free}))
        found = list(doctor.check_disk(tmp_path / "no" / "cache", tmp_path))
        assert [(one.state, one.figures["free_bytes"]) for one in found] == [(state, free)]  # one disk, one line


# ------------------------------------------------------------------------------------------------------------ software


def test_libraries_too_old_or_absent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=99", "pandas>=1", "no-such-library>=2", "ray>=99; extra == 'cluster'"]
    monkeypatch.setattr(doctor, "requires", lambda _name: wanted)
    found = {one.about: one for one in doctor.check_versions()}
    assert set(found) == {"hlbt", "Python", "numpy", "no-such-library", "libraries"}
    assert found["numpy"].state == "problem" and metadata.version("numpy") in found["numpy"].says
    assert "is not installed" in found["no-such-library"].says and "make setup" in found["no-such-library"].cure
    assert set(found["libraries"].figures["versions"]) == {"numpy", "pandas"}
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 2))
    old = {one.about: one for one in doctor.check_versions()}["Python"]
    assert (old.state, old.says) == ("problem", "3.10.2")


@pytest.mark.slow
def test_machine_code_that_cannot_be_kept(tmp_path: Path) -> None:
    """In a process of its own, for numba chooses its folder when the kernel is imported."""
    here = Path(doctor.__file__).parents[1]
    shutil.copytree(here, tmp_path / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "engine" / "simulation" / "__pycache__").write_text("a file, so that no folder can be made")
    look = "from engine.commands.machine_checks import check_compiler as c; f = c(); print(f.state, f.says, f.cure)"
    for variables, said in (
        ({"HOME": "/dev/null"}, "problem the kernel does not compile: RuntimeError: cannot cache function"),
        ({"HOME": "/dev/null", "NUMBA_CACHE_DIR": str(tmp_path / "fine")}, "ok compiles; machine code is kept in"),
    ):
        environment = {"PATH": "", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        # As where not even a temporary folder can be had: importing the engine would name one.
        unsettled = (
            "import os, engine; os.environ.pop('XDG_CACHE_HOME', 0); os.environ.pop('NUMBA_CACHE_DIR', 0); "
            f"os.environ.update({variables!r}); "
        )
        words = [sys.executable, "-c", unsettled + look]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.startswith(said), done.stdout


# ------------------------------------------------------------------------------------------------------------- command


@pytest.mark.slow
def test_the_command(sample_cache: Path, monkeypatch: pytest.MonkeyPatch, hlbt: Hlbt, tmp_path: Path) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    monkeypatch.setenv("HOME", str(tmp_path))
    with exchange(0) as url:
        code, out, _ = hlbt("doctor", "--base-url", url)
        assert code == 0 and "Fit for backtests. Problems: 0" in out
        code, out, _ = hlbt("doctor", "--base-url", url, "--json")
    assert code == 0
    read = json.loads(out)
    assert read["fit"] is True
    states = {finding["about"]: finding["state"] for finding in read["findings"]}
    expected = {"hlbt", "Python", "libraries", "numba", "data cache", "reports", "disk", "AWS", "CrowdCent"}
    assert set(states) == expected | {"HyperLiquid", "clock"}
    assert states["clock"] == states["data cache"] == states["numba"] == "ok"


def test_only_a_problem_is_a_failure(monkeypatch: pytest.MonkeyPatch, hlbt: Hlbt) -> None:
    lines = {
        "ok": Finding("one", "ok", "fine"),
        "warning": Finding("two", "warning", "bad", "mend [it]"),
        "problem": Finding("three", "problem", "broken", "replace it"),
    }
    for states, code in ((("ok", "warning"), 0), (("ok", "problem", "warning"), 1)):
        monkeypatch.setattr(doctor, "examine", lambda *_, states=states, **__: [lines[state] for state in states])
        left, out, err = hlbt("doctor")
        assert left == code and err == "" and "-> mend [it]" in out
        assert ("No backtest can be run" in out) == bool(code)
