"""``hlbt doctor``: every fault that it finds, and no secret in its output."""

from __future__ import annotations

import json
import shutil
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
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from engine.checks import Check
from engine.commands import doctor
from engine.commands.doctor import check_cache, check_clock, check_credentials, check_reports, check_versions
from helpers.commands import NOBODY, Hlbt

NOW = pd.Timestamp("2025-01-02 00:30", tz="UTC")
KEY, ADDRESS = "0x" + "5ec2e7" * 10 + "abcd", "0x" + "ad" * 20


@contextmanager
def exchange(ahead_seconds: float, date: str | None = "") -> Iterator[str]:
    """A server whose clock is ahead of this machine's; its address. `date` replaces its own (None: no header)."""

    class Connection(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(405)
            own = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_seconds), usegmt=True)
            if date is not None:
                self.send_header("Date", date or own)
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
    ("ahead", "outcome", "summary", "skew"),
    [
        (0, "passed", "agrees with", 0),
        (3, "passed", "agrees with", -3),
        (60, "warning", "behind", -60),
        (-90, "warning", "ahead of", 90),
        (-86400 * 3, "warning", "ahead of", 86400 * 3),
    ],
)
def test_the_clock_is_compared_with_the_exchange(ahead: float, outcome: str, summary: str, skew: float) -> None:
    with exchange(ahead) as url:
        check = check_clock(url, now)
    assert check.outcome == outcome and summary in check.summary
    # The header has whole seconds, and the least skew that explains it counts.
    assert skew - 1 - 0.5 <= check.details["skew_seconds"] <= skew + 1 + 0.5
    assert ("timedatectl" in check.cure) == (outcome == "warning")


def test_an_exchange_out_of_reach_is_a_warning() -> None:
    check = check_clock(NOBODY, now)
    assert check.outcome == "warning" and "not reachable (Connection refused)" in check.summary
    assert check.details == {}
    for date in (None, "yesterday"):
        with exchange(0, date) as url:
            check = check_clock(url, now)
        assert check.outcome == "warning" and "answers without a date" in check.summary


@pytest.mark.parametrize("zone", ["", " -0000"])
def test_a_date_without_a_zone_is_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        with exchange(0, f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S}{zone}") as url:
            check = check_clock(url, now)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert check.outcome == "passed" and abs(check.details["skew_seconds"]) < 3


def test_a_silent_exchange_is_waited_for_no_longer_than_the_timeout() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        check = check_clock(f"http://127.0.0.1:{mute.getsockname()[1]}", now, timeout_seconds=0.2)
    assert check.outcome == "warning" and "not reachable (timed out)" in check.summary


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
                        assert "hyperliquid" in out.lower()
                        for value in (*secrets.values(), "inthefile"):
                            assert value not in out + err and value.removeprefix("0x") not in out + err


KEYS = {"HYPERLIQUID_SECRET_KEY": KEY, "HYPERLIQUID_ACCOUNT_ADDRESS": ADDRESS}
FILE = {"secret_key": KEY, "account_address": ADDRESS}


@pytest.mark.parametrize(
    ("environment", "content", "mode", "outcome", "summary"),
    [
        ({}, None, 0, "passed", "no credentials; only live trading"),
        (KEYS, None, 0, "passed", "credentials are set"),
        ({}, FILE, 0o600, "passed", "credentials are set"),
        ({**KEYS, "HYPERLIQUID_SECRET_KEY": KEY[:-1]}, None, 0, "warning", "secret_key is no private key"),
        ({}, FILE, 0o640, "warning", "read by others (mode 640)"),
        (KEYS, FILE, 0o604, "warning", "read by others (mode 604)"),
        ({}, '{"secret_key": "' + KEY, 0o600, "warning", "is not JSON"),
    ],
)
def test_hyperliquid_credentials_are_those_that_live_commands_would_take(
    environment: dict[str, str], content: Any, mode: int, outcome: str, summary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HYPERLIQUID_SECRET_KEY", "HYPERLIQUID_ACCOUNT_ADDRESS", "HYPERLIQUID_VAULT_ADDRESS"):
        monkeypatch.setenv(name, environment.get(name, ""))
    if content is not None:
        Path("hyperliquid_config.json").write_text(content if isinstance(content, str) else json.dumps(content))
        Path("hyperliquid_config.json").chmod(mode)
    check = check_credentials(environment)[-1]
    assert check.outcome == outcome and summary in check.summary
    assert check.details["present"] == bool(environment or content) and KEY[2:-1] not in str(check)


def test_aws_and_crowdcent_credentials_are_only_looked_for(tmp_path: Path) -> None:
    def present(**environment: str) -> list[bool]:
        return [check.details["present"] for check in check_credentials({"HOME": str(tmp_path), **environment})[:2]]

    assert present() == [False, False]
    assert present(AWS_ACCESS_KEY_ID="a") == present(AWS_PROFILE="mine") == [True, False]
    assert present(CROWDCENT_API_KEY="k") == [False, True]
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]")
    assert present() == [True, False]


# ------------------------------------------------------------------------------------------------- cache, reports, disk


@pytest.mark.slow
def test_a_cache_is_described(sample_cache: Path) -> None:
    check = check_cache(sample_cache, NOW)
    assert check.outcome == "passed" and "SYNTHETIC" in check.summary and "every digest is right" in check.summary
    newest = pd.read_parquet(sample_cache / "hourly", columns=["time"])["time"].max()
    assert check.details["age_hours"] == (NOW - newest) / pd.Timedelta(hours=1)
    assert check.details["coins"] == 47


@pytest.mark.slow
def test_an_old_cache_is_a_warning(real_cache: Path) -> None:
    end = pd.Timestamp("2025-04-01T00:00Z")
    assert check_cache(real_cache, end + pd.Timedelta(hours=24)).outcome == "passed"
    old = check_cache(real_cache, end + pd.Timedelta(days=30))
    assert old.outcome == "warning" and "30.0 days old" in old.summary and "hlbt data sync" in old.cure


def test_a_cache_that_is_empty_or_damaged(sample_cache: Path, tmp_path: Path) -> None:
    empty = check_cache(tmp_path / "none", NOW)
    assert empty.outcome == "warning" and "hlbt demo" in empty.cure
    copy = tmp_path / "copy"
    shutil.copytree(sample_cache, copy)
    file = sorted((copy / "hourly").glob("*.parquet"))[3]
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert check_cache(copy, NOW).outcome == "failed" and file.name in check_cache(copy, NOW).summary
    file.unlink()
    assert check_cache(copy, NOW).outcome == "failed" and "missing" in check_cache(copy, NOW).summary
    (copy / "manifest.json").write_text("{")
    assert check_cache(copy, NOW).outcome == "failed" and "damaged" in check_cache(copy, NOW).summary


def test_reports_are_counted(tmp_path: Path) -> None:
    import numpy as np

    from engine.sweeps.trials import FOLDER, LEDGER, record_trials

    reports = tmp_path / "reports"
    assert check_reports(reports).outcome == "passed" and not reports.exists()
    for name in ("one", "two", ".hidden"):
        (reports / name).mkdir(parents=True)
        (reports / name / "run.json").write_text("{}")
    (reports / "grid").mkdir()
    (reports / "grid" / "sweep.json").write_text("{}")
    record_trials(reports, "mine:A", "grid", np.arange(5), np.zeros(5))
    record_trials(reports, "mine:A", "one", np.arange(3, 7), np.zeros(4))
    record_trials(reports, "mine:B", "two", np.arange(7, 9), np.zeros(2))
    check = check_reports(reports)
    assert check.details == {"runs": 2, "sweeps": 1, "trials": 9}
    (reports / FOLDER / LEDGER).write_bytes(b"")
    damaged = check_reports(reports)
    assert damaged.outcome == "warning" and "The ledger of trials is broken" in damaged.summary
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert check_reports(taken).outcome == "failed"


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, outcome in ((10**6, "failed"), (10**9, "warning"), (10**12, "passed")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder, free=free: type("Usage", (), {"free": free}))
        check = doctor.check_disk(tmp_path / "no" / "cache", tmp_path)
        assert (check.outcome, check.details["free_bytes"]) == (outcome, free)


# ------------------------------------------------------------------------------------------------------------ software


def test_libraries_too_old_or_absent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_versions().outcome == "passed" and metadata.version("numpy") in check_versions().summary
    required = ["numpy>=99", "pandas>=1", "no-such-library>=2", "ray>=99; extra == 'cluster'"]
    monkeypatch.setattr(metadata, "requires", lambda _name: required)
    check = check_versions()
    assert check.outcome == "failed" and "make setup" in check.cure
    numpy = f"numpy {metadata.version('numpy')} is not >=99"
    assert check.summary == f"{numpy}; no-such-library>=2 is not installed"
    assert set(check.details["versions"]) == {"hlbt", "Python", "numpy", "pandas"}


def test_a_compiler_that_does_not_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor.check_compiler().outcome == "passed"

    def replaced(fill_price_nb: Any) -> Check:
        fill_price_nb.stats = SimpleNamespace(cache_path=str(tmp_path))
        monkeypatch.setitem(sys.modules, "engine.simulation.kernel", SimpleNamespace(fill_price_nb=fill_price_nb))
        return doctor.check_compiler()

    def refuse(*_: float) -> float:
        raise RuntimeError("cannot cache function\nsecond line")

    refused = replaced(refuse)
    assert refused.outcome == "failed" and refused.summary.endswith("RuntimeError: cannot cache function")
    assert replaced(lambda *_: 100.0).outcome == "failed"
    forgetful = replaced(lambda *_: 101.0)
    assert forgetful.outcome == "warning" and f"keeps nothing in {tmp_path}" in forgetful.summary


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
    expected = {"versions", "numba", "data cache", "reports", "disk", "AWS", "CrowdCent", "HyperLiquid", "clock"}
    assert set(states) == expected
    assert states["clock"] == states["data cache"] == states["numba"] == "ok"


def test_only_a_problem_is_a_failure(monkeypatch: pytest.MonkeyPatch, hlbt: Hlbt) -> None:
    checks = {
        "ok": Check("one", "one", True, "fine"),
        "warning": Check("two", "two", False, "bad", cure="mend [it]", severity="warning"),
        "problem": Check("three", "three", False, "broken", cure="replace it"),
    }
    for states, code in ((("ok", "warning"), 0), (("ok", "problem", "warning"), 1)):
        monkeypatch.setattr(doctor, "examine", lambda *_, states=states, **__: [checks[state] for state in states])
        exit_code, out, err = hlbt("doctor")
        assert exit_code == code and err == "" and "-> mend [it]" in out
        assert ("No backtest can be run" in out) == bool(code)
