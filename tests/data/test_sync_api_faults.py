"""The API source when the exchange fails, lies or goes silent, and when the sync is interrupted or killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.data.api_records import CANDLES
from engine.data.cache import Store
from engine.data.schema import instant_of
from engine.data.sync_api import sync_api
from engine.errors import DataError
from helpers.api_world import HOUR, NOW, Clock, expected, listings, rows_table, sync
from helpers.commands import NOBODY
from helpers.effort import some
from helpers.hyperliquid_info import BAD_GATEWAY, HOUR_MS, NOT_JSON, REFUSED, TOO_MANY, LoopbackServer, Reply, Venue
from helpers.stores import cells, content

HANG = Reply("[]", silence_seconds=60.0)  # ended early when the server closes


@pytest.fixture
def venue() -> Venue:
    return Venue(listings(), int(NOW.timestamp() * 1000))


@pytest.fixture
def server(venue: Venue) -> Iterator[LoopbackServer]:
    with LoopbackServer({"/info": venue}) as running:
        yield running


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def undisturbed(server: LoopbackServer, tmp_path: Path) -> dict[str, bytes]:
    sync(Store(tmp_path / "undisturbed"), server)
    server.requests.clear()
    return content(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "times", "waits"),
    [
        (TOO_MANY, 3, [10.0, 20.0, 40.0]),
        (BAD_GATEWAY, 3, [1.0, 2.0, 4.0]),
        (NOT_JSON, 2, [1.0, 2.0]),
        (Reply("null"), 1, [1.0]),
        (HANG, 1, [1.0]),
        (Reply('{"status": "busy"}', 429), 2, [10.0, 20.0]),  # the SDK itself fails on this one
        (Reply("null", 429, headers=(("Retry-After", "15"),)), 3, [15.0, 20.0, 40.0]),
        (Reply("null", 429, headers=(("Retry-After", "99999"),)), 1, [300.0]),
        (Reply("null", 429, headers=(("Retry-After", "Sun, 15 Jun 2025 10:21:00 GMT"),)), 1, [10.0]),
    ],
    ids=["429", "502", "not json", "null", "hang", "429 json", "429 for 15 s", "429 for long", "429 until a date"],
)
def test_a_passing_fault_leaves_no_trace(
    reply: Reply, times: int, waits: list[float], server: LoopbackServer, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    server.fail(reply, times, type="fundingHistory", coin="xyz:NEW")
    server.fail(reply, 1, type="meta")
    clock = Clock()
    report = sync(Store(tmp_path / "cache"), server, clock, timeout_seconds=1.0 if reply is HANG else 10.0)
    assert not report.problems and content(tmp_path / "cache") == undisturbed
    assert clock.slept[:1] == waits[:1]  # meta
    assert [wait for wait in clock.slept if wait in waits][1:] == waits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "attempts", "reason"),
    [
        (TOO_MANY, 5, "too many requests (HTTP 429) (5 attempts)"),
        (BAD_GATEWAY, 5, "HTTP 502: <html><body><h1>502 Bad Gateway"),
        (NOT_JSON, 5, "Could not parse JSON: <html>We are upgrading"),
        (HANG, 5, "no answer within 0.4 s (5 attempts)"),
        (REFUSED, 1, "refused with HTTP 422: Failed to deserialize"),
    ],
    ids=["429", "502", "not json", "hang", "422"],
)
def test_a_lasting_fault_is_named_the_rest_goes_on_and_the_next_sync_repairs(
    reply: Reply,
    attempts: int,
    reason: str,
    server: LoopbackServer,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    venue: Venue,
) -> None:
    store = Store(tmp_path / "cache")
    server.fail(reply, 99, type="candleSnapshot", coin="kPEPE")
    report = sync(store, server, timeout_seconds=0.4 if reply is HANG else 10.0)
    [problem] = report.problems
    assert problem.startswith("kPEPE candles cannot be had: ") and reason in problem
    assert sum(payload["req"]["coin"] == "kPEPE" for payload in server.asked("candleSnapshot")) == attempts
    there = {key: value for key, value in cells(store).items()}
    missing = set(expected(venue, HOUR - 60 * 24, HOUR)) - set(there)
    assert {key[:2] for key in missing} == {("kPEPE", name) for name in CANDLES.fields}
    server.faults.clear()
    assert not sync(store, server).problems and content(store.path) == undisturbed


def test_an_exchange_out_of_reach_is_not_asked_for_every_coin(
    server: LoopbackServer, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    server.fail(REFUSED, 99, type="candleSnapshot")
    report = sync(Store(tmp_path / "cache"), server)
    assert len(report.problems) == 4 and len(server.asked("candleSnapshot")) == 3
    assert report.problems[3].startswith("xyz:OLD candles, BTC funding, ")
    assert report.problems[3].endswith("not requested, since 3 coins in a row failed")
    server.faults.clear()
    assert not sync(Store(tmp_path / "cache"), server).problems
    assert content(tmp_path / "cache") == undisturbed


def spoil(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("candleSnapshot", {"l": "-1.0"}, "the close c, high h and low l must be positive"),
        ("candleSnapshot", {"v": "nan"}, "'nan' is not finite"),
        ("candleSnapshot", {"v": 10**400}, "int too large to convert to float"),
        ("candleSnapshot", {"v": "1e308"}, "inf is not finite"),
        ("candleSnapshot", {"c": None}, "no 'c'"),
        ("candleSnapshot", {"t": (HOUR - 100) * HOUR_MS + 1}, "not on the hour"),
        ("candleSnapshot", {"s": "ETH"}, "an hourly candle of BTC was requested"),
        ("candleSnapshot", {"i": "1d"}, "an hourly candle of BTC was requested"),
        ("fundingHistory", {"fundingRate": True}, "True is not a number"),
        ("fundingHistory", {"fundingRate": "lots"}, "could not convert"),
        ("fundingHistory", {"time": HOUR * 3600}, "not a time in milliseconds"),
        ("fundingHistory", {"coin": "ETH"}, "a rate of BTC was requested"),
        ("fundingHistory", {"time": (HOUR - 101) * HOUR_MS}, "two different items"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_a_malformed_item_is_named_and_left_out_and_the_next_sync_repairs(
    kind: str,
    changes: dict[str, Any],
    reason: str,
    server: LoopbackServer,
    venue: Venue,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "cache")

    def spoiled(payload: dict[str, Any]) -> Any:
        answer = venue(payload)
        if payload["type"] == kind and payload.get("req", payload)["coin"] == "BTC":
            stamp = "t" if kind == "candleSnapshot" else "time"
            answer = [spoil(row, **changes) if row[stamp] // HOUR_MS == HOUR - 100 else row for row in answer]
        return answer

    server.handlers["/info"] = spoiled
    [problem] = sync(store, server).problems
    assert problem.startswith("BTC ") and "1 of " in problem and reason in problem
    lost = set(expected(venue, HOUR - 60 * 24, HOUR)) - set(cells(store))
    rows = {("BTC", "funding", HOUR - 100)} if kind == "fundingHistory" else {("BTC", "mid", HOUR - 99)}
    rows |= {("BTC", "funding", HOUR - 101)} if "two different" in reason else set()
    assert {key for key in lost if key[1] in ("mid", "funding")} == rows
    server.handlers["/info"] = venue
    assert not sync(store, server).problems and content(store.path) == undisturbed


def test_a_candle_is_finished_only_some_seconds_after_its_close(tmp_path: Path) -> None:
    """Our clock is ahead: it is 11:00:03 here and 10:59:58 there, where the candle of 10:00 still trades."""
    venue = Venue(listings(), int(pd.Timestamp("2025-06-15T10:59:58Z").timestamp() * 1000))
    venue.listings["BTC"].candles[HOUR] |= dict.fromkeys("ohlc", "1.0")  # not what it will close at
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": venue}) as server:
        sync(store, server, now=pd.Timestamp("2025-06-15T11:00:03Z"), coins=["BTC"])
        assert max(hour for _, name, hour in cells(store) if name == "mid") == HOUR
        venue.listings["BTC"].candles[HOUR] |= dict.fromkeys("ohlc", "104.0")
        sync(store, server, now=pd.Timestamp("2025-06-15T11:00:11Z"), coins=["BTC"])
    assert cells(store)["BTC", "mid", HOUR + 1] == 104.0


class Dated(LoopbackServer):
    """An exchange whose responses have the given text as their Date; None leaves the header out."""

    date: str | None = None

    def answer(self, path: str, payload: dict[str, Any]) -> Reply:
        reply = super().answer(path, payload)
        return replace(reply, headers=() if self.date is None else (("Date", self.date),), dated=False)


def clock_ahead(venue: Venue, minutes: int) -> pd.Timestamp:
    return pd.Timestamp(venue.now_ms, unit="ms", tz="UTC") + pd.Timedelta(minutes=minutes)


@pytest.mark.parametrize("minutes", [25, 41, 100, 3 * 24 * 60])
def test_a_clock_ahead_of_the_exchange_stores_no_running_candle(tmp_path: Path, minutes: int) -> None:
    venue = Venue(listings(), int(pd.Timestamp("2025-06-15T10:40:00Z").timestamp() * 1000))
    venue.listings["BTC"].candles[HOUR]["c"] = venue.listings["BTC"].candles[HOUR]["l"]  # not what it will close at
    store = Store(tmp_path / "cache")
    with Dated({"/info": venue}) as server:
        server.date = "Sun, 15 Jun 2025 10:40:00 GMT"
        report = sync(store, server, now=clock_ahead(venue, minutes), coins=["BTC"])
    assert max(hour for _, name, hour in cells(store) if name == "mid") == HOUR
    assert not report.problems and f"clock is {minutes:,} min ahead" in report.notes[0]
    # Nor is any hour final that the exchange has not reached yet.
    assert all(
        last <= HOUR for spans in store.require().asked.values() for span in spans.values() for _, last, _ in span
    )


@pytest.mark.parametrize("date", [None, "yesterday", "Thu, 01 Jan 1970 00:00:00 GMT", "Sun, 99 Jun 2025 10:40:00 GMT"])
def test_without_a_date_of_the_exchange_the_newest_hour_waits(tmp_path: Path, date: str | None) -> None:
    venue = Venue(listings(), int(pd.Timestamp("2025-06-15T10:40:00Z").timestamp() * 1000))
    store = Store(tmp_path / "cache")
    with Dated({"/info": venue}) as server:
        server.date = date
        report = sync(store, server, now=clock_ahead(venue, 25), coins=["BTC"])
        assert max(hour for _, name, hour in cells(store) if name == "mid") == HOUR
        assert not report.problems and "the newest hour is left to the next sync" in report.notes[0]
        venue.move(venue.now_ms + 2 * HOUR_MS)
        sync(store, server, now=clock_ahead(venue, 0), coins=["BTC"])
    wanted = {
        key: value for key, value in expected(venue, 0, HOUR + 1).items() if key[0] == "BTC" and key[2] > HOUR - 99
    }
    assert {key: value for key, value in cells(store).items() if key in wanted} == pytest.approx(wanted, rel=1e-12)


def test_a_candle_that_was_stored_while_it_ran_is_mended_and_older_ones_are_not(tmp_path: Path) -> None:
    """As a cache of before has them: two syncs of a clock that was ahead, each with a running candle at its end."""
    venue = Venue(listings(), int(pd.Timestamp("2025-06-15T14:20:00Z").timestamp() * 1000))
    truth = expected(venue, HOUR - 60 * 24, HOUR + 4)
    store = Store(tmp_path / "cache")
    stored = {name: {} for name in CANDLES.fields}
    for hour in range(HOUR - 50, HOUR + 1):
        for name in stored:
            stored[name][hour] = truth["BTC", name, hour]
        if hour in (HOUR - 20, HOUR - 1, HOUR):  # where it stood some minutes before its close
            stored["mid"][hour] = truth["BTC", "low", hour]
            stored["volume_usd"][hour] += 1e4
    store.merge([rows_table(stored)], "api")
    with LoopbackServer({"/info": venue}) as server:
        report = sync(store, server, now=pd.Timestamp("2025-06-15T14:20Z"), coins=["BTC"])
        assert report.merge.changed == 2 * 2
        assert {(conflict.first, conflict.cells) for conflict in report.conflicts} == {(instant_of(HOUR - 20), 1)}
        held = cells(store)
        differs = {key[2] for key, value in truth.items() if key[0] == "BTC" and held[key] != pytest.approx(value)}
        assert differs == {HOUR - 20}
        server.requests.clear()
        assert not sync(store, server, now=pd.Timestamp("2025-06-15T14:20Z"), coins=["BTC"]).merge.wrote
        # Nothing is missing at the end, so the last hours are not requested for their own sake.
        assert all(asked["req"]["endTime"] < (HOUR - 60) * HOUR_MS for asked in server.asked("candleSnapshot"))


def test_values_that_contradict_the_cache_are_reported_and_the_others_taken(
    server: LoopbackServer, venue: Venue, tmp_path: Path
) -> None:
    store = Store(tmp_path / "cache")
    truth = expected(venue, HOUR - 60 * 24, HOUR)
    wrong = {hour: 2 * truth["BTC", "funding", hour] for hour in range(HOUR - 99, HOUR - 49)}
    store.merge([rows_table({"funding": wrong})], "api")  # the same source: no precedence decides
    report = sync(store, server, coins=["BTC"])
    assert [(conflict.coin, conflict.field, conflict.cells) for conflict in report.conflicts] == [
        ("BTC", "funding", 50)
    ]
    assert "BTC funding: 50 cells differ" in report.problems[0]
    assert report.to_dict()["conflicts"][0]["first"] == instant_of(HOUR - 99)
    held = cells(store)
    other = {key for key, value in truth.items() if key[0] == "BTC" and held.get(key) != pytest.approx(value)}
    assert other == {("BTC", "funding", hour) for hour in wrong}
    assert not sync(store, server, coins=["BTC"]).problems  # not requested again for ever
    report = sync(store, server, coins=["BTC"], replace=True)
    assert (report.merge.changed, report.problems) == (50, [])
    assert cells(store) == pytest.approx({key: value for key, value in truth.items() if key[0] == "BTC"}, rel=1e-12)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (BAD_GATEWAY, "gives no list of coins: HTTP 502"),
        (NOT_JSON, "gives no list of coins: an unexpected response"),
        (Reply("[]"), "gives no list of coins: an unexpected response: []"),
        (Reply('{"universe": []}'), "no 'universe' of coins in it"),
        (Reply('{"universe": [{"name": "BTC"}]}'), "szDecimals of BTC is None"),
    ],
    ids=["502", "not json", "list", "empty", "no szDecimals"],
)
def test_without_a_list_of_coins_nothing_is_written(
    reply: Reply, reason: str, server: LoopbackServer, tmp_path: Path
) -> None:
    server.fail(reply, 99, type="meta")
    with pytest.raises(DataError) as error:
        sync(Store(tmp_path / "cache"), server, coins=None)
    assert reason in str(error.value) and server.url in str(error.value)
    assert not (tmp_path / "cache").exists()


ENTRY = '{"name": "BTC", "szDecimals": 5, "maxLeverage": 40}'


@pytest.mark.parametrize(
    ("kind", "reply", "reason"),
    [
        ("perpDexs", BAD_GATEWAY, "gives no list of coins: HTTP 502"),
        ("metaAndAssetCtxs", REFUSED, "gives no list of coins: refused with HTTP 422"),
        ("metaAndAssetCtxs", Reply('{"universe": []}'), "gives no list of coins: an unexpected response"),
        ("metaAndAssetCtxs", Reply("[]"), "gives no list of coins: meta of"),
        ("metaAndAssetCtxs", Reply('[{"universe": [{"name": "xyz:A"}]}]'), "szDecimals of xyz:A is None"),
        # A proxy that leaves out the dex of the request.
        ("metaAndAssetCtxs", Reply(f'[{{"universe": [{ENTRY}]}}, []]'), "(dex xyz): BTC in it, of another dex"),
        ("metaAndAssetCtxs", Reply('[{"universe": [{"na'), "gives no list of coins: "),
        ("meta", BAD_GATEWAY, "The dex '' gives no list of coins: HTTP 502"),
    ],
    ids=["perpDexs", "422", "meta alone", "empty", "no szDecimals", "another's", "half of it", "the main dex"],
)
def test_a_dex_without_a_list_is_named_the_other_goes_on_and_the_next_sync_repairs(
    kind: str, reply: Reply, reason: str, server: LoopbackServer, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    store = Store(tmp_path / "cache")
    server.fail(reply, 99, type=kind)
    [problem] = sync(store, server).problems
    assert reason in problem and problem.startswith("The dex ")
    assert {name.startswith("xyz:") for name in store.require().coins} == {kind == "meta"}
    server.faults.clear()
    assert not sync(store, server).problems and content(store.path) == undisturbed


def test_a_dex_that_is_gone_does_not_hold_up_the_others(server: LoopbackServer, venue: Venue, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    sync(store, server, end=NOW - pd.Timedelta(days=2))
    before = store.require().coins["xyz:NEW"]
    terms = venue.dexes.pop("xyz")
    report = sync(store, server, coins=["*", "xyz:*"])
    assert report.problems == ["The dex 'xyz' gives no list of coins: the exchange no longer has it"]
    assert store.require().coins["xyz:NEW"] == before and store.require().coins["BTC"].last_price == NOW.floor("h")
    with pytest.raises(DataError, match="gives no list of coins: the exchange no longer has it"):
        sync(store, server, coins=["xyz:*"])
    venue.dexes["xyz"] = terms
    assert not sync(store, server).problems and store.require().coins["xyz:NEW"].last_price == NOW.floor("h")


def test_a_dex_that_the_exchange_does_not_have_is_refused_before_anything_is_written(
    server: LoopbackServer, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"has no dex 'xzy'. Did you mean 'xyz'\? It has: xyz\."):
        sync(Store(tmp_path / "cache"), server, coins=["BTC", "xzy:TSLA"])
    with pytest.raises(DataError, match=r"no perpetual 'xyz:new'. Did you mean 'xyz:NEW'"):
        sync(Store(tmp_path / "cache"), server, coins=["xyz:new"])
    assert not (tmp_path / "cache").exists() and not server.asked("candleSnapshot")


def test_an_address_where_nothing_listens_is_an_error_with_a_cure(tmp_path: Path) -> None:
    clock = Clock()
    with pytest.raises(DataError, match=r"gives no list of coins: no connection .*Check the network and the address"):
        sync_api(
            Store(tmp_path), start=None, end=None, coins=None, now=NOW, base_url=NOBODY, clock=clock, sleep=clock.sleep
        )
    assert clock.slept == [1.0, 2.0, 4.0, 8.0]


@pytest.fixture
def trickle() -> Iterator[str]:
    """An address that answers every request with a byte each 50 ms, for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
            while not ended.wait(0.05):
                connection.sendall(b" ")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    ended.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_server_that_sends_a_byte_now_and_then_does_not_hang_a_sync_or_an_account(
    trickle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes long before the limit of a silence, however busy the machine is."""
    from engine.errors import LiveError
    from engine.live.hyperliquid import HyperLiquidDEX

    monkeypatch.setattr("engine.data.api_client.DEADLINE", 0.05)
    clock = Clock()
    options = {"base_url": trickle, "timeout_seconds": 6.0, "clock": clock, "sleep": clock.sleep}
    with pytest.raises(DataError, match=r"no whole answer within 0.3 s \(5 attempts\)"):
        sync_api(Store(tmp_path), start=None, end=None, coins=None, now=NOW, **options)  # type: ignore[arg-type]
    account = HyperLiquidDEX("mainnet", base_url=trickle, timeout_seconds=6.0, sleep=clock.sleep)
    with pytest.raises(LiveError, match=r"no whole answer within 0.3 s"):
        account.markets()


def test_an_unknown_coin_and_an_empty_range_are_refused_before_anything_is_written(
    server: LoopbackServer, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no perpetual 'KPEPE'. Did you mean 'kPEPE'\? .*case-sensitive"):
        sync(Store(tmp_path / "cache"), server, coins=["BTC", "KPEPE"])
    with pytest.raises(DataError, match=r"the range is empty \(it is 2025-06-15 10:20 UTC now"):
        sync(Store(tmp_path / "cache"), server, start=NOW + pd.Timedelta(hours=1))
    assert not (tmp_path / "cache").exists()


def test_the_spot_market_is_never_asked_for(server: LoopbackServer, tmp_path: Path) -> None:
    """A broken spotMeta has stopped every program built on the SDK's defaults for an hour."""
    sync(Store(tmp_path / "cache"), server, coins=["BTC"])
    assert {payload["type"] for _, payload in server.requests} == {"meta", "candleSnapshot", "fundingHistory"}


# --- interruptions --------------------------------------------------------------------------------------------------


def test_an_interrupt_commits_what_was_received(
    server: LoopbackServer, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    store = Store(tmp_path / "cache")

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("xyz:NEW candles"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(store, server, progress=stop)
    assert {coin for coin, _, _ in cells(store)} == {"BTC", "kPEPE"}
    sync(store, server)
    assert content(store.path) == undisturbed


@pytest.mark.slow
def test_a_batch_is_committed_in_the_middle_of_a_coin(
    server: LoopbackServer, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """The third page of BTC's funding fails: the first two are in the cache, and only the third is requested again."""
    store = Store(tmp_path / "cache")
    server.fail(REFUSED, 1, type="fundingHistory", startTime=(HOUR - 440) * HOUR_MS)
    assert len(sync(store, server, batch_requests=1).problems) == 1
    rates = [hour for coin, name, hour in cells(store) if (coin, name) == ("BTC", "funding")]
    assert max(rates) == HOUR - 441
    server.requests.clear()
    sync(store, server)
    starts = [payload["startTime"] for payload in server.asked("fundingHistory") if payload["coin"] == "BTC"]
    assert starts == [(HOUR - 440) * HOUR_MS]
    assert content(store.path) == undisturbed


def test_a_crash_loses_no_more_than_a_batch(
    server: LoopbackServer, venue: Venue, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Six candle requests and six of funding are answered, in batches of eleven, when the process dies."""
    store = Store(tmp_path / "cache")

    def crash(done: int, total: int, what: str) -> None:
        if len(server.asked("fundingHistory")) == 6:
            raise MemoryError

    with pytest.raises(MemoryError):
        sync(store, server, progress=crash, batch_requests=11)
    rates = [hour for coin, name, hour in cells(store) if (coin, name) == ("kPEPE", "funding")]
    assert len(rates) == 500  # the twelfth request, for its second window, is lost
    server.requests.clear()
    sync(store, server)
    starts = [payload["startTime"] for payload in server.asked("fundingHistory") if payload["coin"] == "kPEPE"]
    assert starts == [(HOUR - 940) * HOUR_MS, (HOUR - 440) * HOUR_MS]
    assert content(store.path) == undisturbed


#: Imports once, then forks a process a line of standard input: that one syncs and is killed.
NURSERY = """
import os, sys
import pandas as pd
import hyperliquid.info
from engine.data.sync_api import sync_api
from engine.data.cache import Store
import pyarrow.parquet

url, start, now = sys.argv[1], pd.Timestamp(sys.argv[2]), pd.Timestamp(sys.argv[3])

class Clock:
    seconds = 0.0
    def read(self): return self.seconds
    def sleep(self, seconds): self.seconds += seconds

while line := sys.stdin.readline():
    child = os.fork()
    if not child:
        clock = Clock()
        report = sync_api(
            Store(line.strip()), start=start, end=None, coins=None, now=now, base_url=url, clock=clock.read,
            sleep=clock.sleep, batch_requests=2,
        )
        os._exit(len(report.problems))
    print(child, flush=True)
    sys.stdin.readline()  # not waited for before it was killed: until then the id is its own
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_the_cache_is_the_undisturbed_one(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = NOW.floor("h") - pd.Timedelta(days=60)
    nursery = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(NURSERY), server.url, start.isoformat(), NOW.isoformat()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert nursery.stdin and nursery.stdout
    stdin, stdout = nursery.stdin, nursery.stdout

    chance, answer = random.Random(7), server.answer
    sent, due = [0, 0], threading.Event()  # requests so far; the one that is waited for

    def counted(path: str, payload: dict[str, Any]) -> Reply:
        sent[0] += 1
        if sent[0] == sent[1]:
            due.set()
        return answer(path, payload)

    monkeypatch.setattr(server, "answer", counted)

    def run(cache: Path, request: int = 0) -> int:
        """Sync, killed some milliseconds after a request; how the process ended."""
        sent[:] = 0, request
        due.clear()
        stdin.write(f"{cache}\n")
        stdin.flush()
        child = int(stdout.readline())
        if request:
            assert due.wait(120)
            time.sleep(chance.choice([0.0, 0.002, 0.01]))
            os.kill(child, signal.SIGKILL)
        stdin.write("\n")
        stdin.flush()
        return int(stdout.readline())

    with nursery:
        assert run(tmp_path / "undisturbed") == 0
        requests, undisturbed, killed = sent[0], content(tmp_path / "undisturbed"), 0
        for place in range(some(4, 12)):
            cache, request = tmp_path / f"killed{place}", chance.randrange(1, requests)
            killed += run(cache, request) == signal.SIGKILL
            # A cache that was killed before has less left to do, but all that was not sent yet.
            killed += run(cache, chance.randint(1, requests - request)) == signal.SIGKILL
            assert run(cache) == 0
            assert content(cache) == undisturbed
        stdin.close()
    assert killed >= some(4, 12)
