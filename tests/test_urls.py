"""Addresses that a user gives: which are usable, and that the token in one is in no word that is printed or kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from engine.data.cache import Store
from engine.data.sync_api import sync_api
from engine.errors import ConfigError, DataError
from engine.live.hyperliquid import HyperLiquidDEX
from engine.live.venue import Venue
from engine.urls import base_address, web_address, without_path
from helpers.api_world import Clock
from helpers.commands import Hlbt
from helpers.hyperliquid_info import Fault, Reply
from helpers.live_world import World

TOKEN = "q1w2e3r4t5"
NOBODY = f"http://127.0.0.1:9/{TOKEN}"


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """A host that knows no path and says which it was asked for, as many do."""

    class Connection(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server wants
            self.rfile.read(int(self.headers["Content-Length"]))
            body = f"Cannot POST {self.path} at {'x' * 200}".encode()
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{TOKEN}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("http://127.0.0.1:3001/", "http://127.0.0.1:3001"),
        ("https://host/a/b//", "https://host/a/b"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
    ],
)
def test_an_address_that_paths_can_be_appended_to(url: str, base: str) -> None:
    assert base_address(url, "--base-url") == base


@pytest.mark.parametrize(
    "url", ["", "host", "host:80", "ftp://h", "http://", "http:///a", "http://[::1", "http://h:x", "http://a..b"]
)
def test_what_is_no_address(url: str) -> None:
    assert web_address(url) is None
    with pytest.raises(ConfigError, match="--base-url is no address"):
        base_address(url, "--base-url")


@pytest.mark.parametrize("path", [f"/{TOKEN} b", f"/{TOKEN}é", f"/a/../{TOKEN}", f"/./{TOKEN}", f"/%41{TOKEN}"])
def test_a_path_that_libraries_write_in_another_way_is_refused(path: str) -> None:
    """What an error quotes would not be what was given, and not be found in it."""
    assert web_address(f"http://h{path}") is not None
    with pytest.raises(ConfigError, match="plain letters") as refusal:
        base_address(f"http://h{path}", "--base-url")
    assert TOKEN not in str(refusal.value)


@pytest.mark.parametrize(
    "url", [f"http://me:{TOKEN}@h", f"http://h?key={TOKEN}", f"http://h#{TOKEN}", f"ftp://h/{TOKEN}"]
)
def test_a_refusal_does_not_repeat_the_address(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        base_address(url, "--base-url")
    assert TOKEN not in str(refusal.value)


def test_the_path_alone_is_left_out() -> None:
    said = f"http://h:1/{TOKEN} failed: url /{TOKEN}/info"
    assert without_path(said, f"http://h:1/{TOKEN}") == "http://h:1/... failed: url /.../info"
    assert without_path("http://h: a/b", "http://h") == without_path("http://h: a/b", None) == "http://h: a/b"


def test_a_data_sync_keeps_the_token_to_itself(echo: str, hlbt: Hlbt, tmp_path: Path) -> None:
    done = hlbt("data", "sync", "--source", "api", "--base-url", echo, "--set", f"data.cache={tmp_path / 'cache'}")
    assert done.code == 1 and "HTTP 404: Cannot POST /.../info" in done.err and TOKEN[:4] not in done.out + done.err
    clock = Clock()
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/\.\.\. gives no list of coins: no connection") as error:
        sync_api(
            Store(tmp_path / "cache"), start=None, end=None, coins=None, now=pd.Timestamp("2025-06-15", tz="UTC"),
            base_url=NOBODY, clock=clock, sleep=clock.sleep,
        )  # fmt: skip
    assert TOKEN[:4] not in str(error.value)


def test_an_archive_sync_keeps_the_token_to_itself(hlbt: Hlbt, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = hlbt("data", "cost", "--endpoint-url", NOBODY)
    assert done.code == 1 and "at http://127.0.0.1:9/... cannot be reached" in done.err
    assert TOKEN not in done.out + done.err


@pytest.mark.slow
def test_doctor_keeps_the_token_to_itself(hlbt: Hlbt) -> None:
    done = hlbt("doctor", "--base-url", NOBODY, "--json")
    assert "http://127.0.0.1:9/... is not reachable" in done.out and TOKEN not in done.out + done.err


def test_live_commands_keep_the_token_to_themselves(echo: str, world: World, hlbt: Hlbt) -> None:
    words = world.rebalance({"BTC": 0.5})
    words[words.index("--base-url") + 1] = echo
    done = hlbt(*words)
    assert done.code == 6 and "HTTP 404: Cannot POST /.../info" in done.err and TOKEN[:4] not in done.out + done.err
    for path in world.journals.glob("*") if world.journals.exists() else ():
        assert TOKEN[:4] not in path.read_text()
    dex = HyperLiquidDEX(base_url=echo)
    assert dex.base_url == echo and "127.0.0.1" in repr(dex) and TOKEN not in repr(dex) + repr(Venue(base_url=echo))


@pytest.mark.slow
def test_an_order_that_is_refused_by_such_a_host_is_journalled_without_the_token(world: World, hlbt: Hlbt) -> None:
    host = world.server.url
    for path in ("/info", "/exchange"):
        world.server.handlers[f"/{TOKEN}{path}"] = world.server.handlers[path]
    refusal = Reply(f"Cannot POST /{TOKEN}/exchange", 404)
    world.server.faults.append(Fault(lambda asked: asked.get("action", {}).get("type") == "order", refusal, times=1))
    words = world.rebalance({"BTC": 0.5})
    words[words.index("--base-url") + 1] = f"{host}/{TOKEN}"
    done = hlbt(*words)
    kept = "".join(path.read_text() for path in world.journals.glob("*.jsonl"))
    assert done.code == 0, "it is sent once more"
    assert "Cannot POST /.../exchange" in kept and TOKEN not in done.out + done.err + kept
