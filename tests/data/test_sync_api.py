"""The API source, through the real SDK, against a HyperLiquid on loopback: what it brings and asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.data.api_records import CANDLES, FUNDING
from engine.data.cache import Store
from engine.data.missing_hours import runs
from engine.data.panel_loader import load_panel
from engine.data.rate_limit import RateLimiter
from engine.data.schema import hour_number, instant_of
from helpers.api_world import HOUR, NOW, Clock, expected, listings, rows_table, sync
from helpers.commands import Hlbt
from helpers.hyperliquid_info import HOUR_MS, REFUSED, TOO_MANY, Listing, LoopbackServer, Recorded, Reply, Venue
from helpers.shared_data import GO, SDK, recorded
from helpers.stores import cells, content


@pytest.fixture
def venue() -> Venue:
    return Venue(listings(), int(NOW.timestamp() * 1000))


@pytest.fixture
def server(venue: Venue) -> Iterator[LoopbackServer]:
    with LoopbackServer({"/info": venue}) as running:
        yield running


# --- what it brings -------------------------------------------------------------------------------------------------


def test_every_row_of_the_range_arrives_and_nothing_else(server: LoopbackServer, venue: Venue, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    report = sync(store, server)
    assert not report.problems
    held = cells(store)
    assert held == pytest.approx(expected(venue, HOUR - 60 * 24, HOUR), rel=1e-12)
    assert ("BTC", "mid", HOUR) in held and ("BTC", "mid", HOUR + 1) not in held  # the candle of this hour is open
    assert held["BTC", "mid", HOUR] == float(venue.listings["BTC"].candles[HOUR - 1]["c"])
    assert 0.0 in [value for (_, name, _), value in held.items() if name == "volume_usd"]
    assert 0.5 < sum(key[:2] == ("kPEPE", "mid") for key in held) / (60 * 24) < 0.7
    assert report.counts["funding"] == sum(key[1] == "funding" for key in held)
    assert report.counts["candles"] == sum(key[1] == "mid" for key in held)
    record = store.require().coins["xyz:OLD"]
    assert record.is_delisted and record.last_funding == instant_of(HOUR - 20 * 24)
    assert (record.origin, record.as_of, record.sz_decimals) == ("api", NOW, 2)
    assert {entry.source for entry in store.require().files.values()} == {"api"}


def test_the_range_and_the_coins_are_kept_to(server: LoopbackServer, venue: Venue, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    first, last = HOUR - 900, HOUR - 100
    sync(store, server, start=instant_of(first), end=instant_of(last), coins=["kPEPE"])
    kept = {key: value for key, value in expected(venue, first, last).items() if key[0] == "kPEPE"}
    assert cells(store) == pytest.approx(kept, rel=1e-12)
    assert set(store.require().coins) == {"BTC", "kPEPE"}  # the coin table of the dex is whole


def test_what_the_archive_estimated_is_settled_and_its_mids_stay(
    server: LoopbackServer, venue: Venue, tmp_path: Path
) -> None:
    """The archive first, then the API: estimated rates are requested and replaced, quotes outrank candles."""
    store = Store(tmp_path / "cache")
    hours = list(range(HOUR - 48, HOUR - 24))
    store.merge([rows_table({"mid": dict.fromkeys(hours, 7.0), "funding": dict.fromkeys(hours, 9e-4)})], "s3")
    report = sync(store, server, coins=["BTC"])
    assert not report.problems
    assert (report.merge.changed, report.merge.upgraded, report.merge.superseded) == (0, 24, 24)
    summary = report.summary()
    assert "Sources differ: funding: api over s3 in 24 cells, of which 24 differ by more than 0.1%" in summary
    assert "Sources differ: mid: s3 over api in 24 cells, of which 24 differ" in summary
    held, settled = cells(store), expected(venue, HOUR - 60 * 24, HOUR)
    for hour in hours:
        assert held["BTC", "funding", hour] == settled["BTC", "funding", hour] != 9e-4
        assert held["BTC", "mid", hour] == 7.0
        assert held["BTC", "volume_usd", hour] == settled["BTC", "volume_usd", hour]
    server.requests.clear()
    sync(store, server, coins=["BTC"])
    # Nothing is requested twice but the hour before the first candle: a response that is cut short looks like that.
    assert [payload["type"] for _, payload in server.requests] == ["meta", "candleSnapshot"]


def test_funding_is_paged_by_500_and_no_hour_is_asked_for_twice(server: LoopbackServer, tmp_path: Path) -> None:
    sync(Store(tmp_path / "cache"), server, coins=["BTC"])
    starts = [payload["startTime"] // HOUR_MS for payload in server.asked("fundingHistory")]
    first = HOUR - 60 * 24
    assert starts == [first, first + 500, first + 1000]


def test_answers_cut_shorter_than_documented_are_followed_to_their_end(
    server: LoopbackServer, venue: Venue, tmp_path: Path
) -> None:
    venue.funding_cap = 120
    store = Store(tmp_path / "cache")
    assert not sync(store, server).problems
    assert cells(store) == pytest.approx(expected(venue, HOUR - 60 * 24, HOUR), rel=1e-12)


def test_a_full_answer_without_a_row_of_the_range_is_a_fault(
    server: LoopbackServer, venue: Venue, tmp_path: Path
) -> None:
    def stuck(payload: dict[str, Any]) -> Any:
        """Whatever is requested, the first rows again."""
        if payload["type"] == "fundingHistory":
            payload = {**payload, "startTime": (HOUR - 60 * 24) * HOUR_MS}
        return venue(payload)

    server.handlers["/info"] = stuck
    store = Store(tmp_path / "cache")
    (problem,) = sync(store, server, coins=["BTC"]).problems
    assert (
        problem
        == f"BTC funding cannot be had: a full response without a row after {instant_of(HOUR - 940):%Y-%m-%d %H:%M} UTC"
    )
    server.handlers["/info"] = venue
    assert not sync(store, server, coins=["BTC"]).problems
    assert ("BTC", "funding", HOUR) in cells(store)


def test_of_candles_only_the_last_5000_exist_and_the_report_says_so(tmp_path: Path) -> None:
    venue = Venue([Listing("BTC", HOUR - 5300)], int(NOW.timestamp() * 1000))
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": venue}) as server:
        report = sync(store, server, start=instant_of(HOUR - 5300))
        held = cells(store)
        prices = [hour for _, name, hour in held if name == "mid"]
        assert (min(prices), max(prices), len(prices)) == (HOUR - 4998, HOUR, 4999)  # one of the 5,000 is unfinished
        assert min(hour for _, name, hour in held if name == "funding") == HOUR - 5300
        assert str(instant_of(HOUR - 4998))[:16] in report.summary() and "--source s3" in report.summary()
        server.requests.clear()
        again = sync(store, server, start=instant_of(HOUR - 5300))
        assert (len(server.requests), again.merge.added) == (2, 0)  # meta, and what lay before the first candle
        default = sync(Store(tmp_path / "other"), server, start=None)
        assert default.details["first"] == instant_of(HOUR - 4998) and not default.notes
        assert default.counts["candles"] == 4999


# --- what it does not ask for ---------------------------------------------------------------------------------------


def test_hours_without_a_row_are_asked_for_again_until_two_days_later_and_then_no_more(
    server: LoopbackServer, venue: Venue, tmp_path: Path
) -> None:
    store = Store(tmp_path / "cache")
    sync(store, server)

    def asked_at(now: pd.Timestamp, **options: Any) -> dict[str, list[tuple[str, int, int]]]:
        """What a sync requests: coin, first and last row, counted from `HOUR`; what it must have is checked."""
        venue.move(int(now.timestamp() * 1000))
        server.requests.clear()
        sync(store, server, now=now, **options)
        assert cells(store) == pytest.approx(expected(venue, HOUR - 60 * 24, hour_number(now)), rel=1e-12)
        candles = [payload["req"] for payload in server.asked("candleSnapshot")]
        return {
            "candles": [
                (ask["coin"], ask["startTime"] // HOUR_MS + 1 - HOUR, ask["endTime"] // HOUR_MS + 1 - HOUR)
                for ask in candles
            ],
            "funding": [
                (ask["coin"], ask["startTime"] // HOUR_MS - HOUR, ask["endTime"] // HOUR_MS - HOUR)
                for ask in server.asked("fundingHistory")
            ],
        }

    # Before the listings, after the delisting, in the last two days of the sparse coin: a response cut short, or a
    # candle that appears late, would look like that.
    before = content(store.path)
    again = asked_at(NOW)
    assert dict.fromkeys(coin for coin, _, _ in again["candles"]) == dict.fromkeys(
        ["BTC", "kPEPE", "xyz:NEW", "xyz:OLD"]
    )
    assert ("xyz:NEW", -1440, -720) in again["candles"] and again["candles"][-1][2] == 0
    assert {coin for coin, _, _ in again["funding"]} == {"xyz:NEW", "xyz:OLD"}
    assert content(store.path) == before
    # Two days later the response is the same, and final; only new hours are requested after that.
    asked_at(NOW + pd.Timedelta(days=2))
    asked_at(NOW + pd.Timedelta(days=4))
    settled = asked_at(NOW + pd.Timedelta(days=5))
    assert [coin for coin, _, _ in settled["funding"]] == ["BTC", "kPEPE", "xyz:NEW"]
    assert all(first == 97 for _, first, _ in settled["funding"])
    assert [coin for coin, _, _ in settled["candles"]] == ["BTC", "kPEPE", "xyz:NEW"]
    asked = store.require().asked
    assert asked["funding"]["xyz:NEW"][0][:1] + asked["funding"]["xyz:NEW"][0][2:] == (HOUR - 1440, 0)
    # Unless the user wants it.
    again = asked_at(NOW + pd.Timedelta(days=5), ask_again=True)
    assert ("xyz:NEW", -1440, -720) in again["candles"] and "xyz:OLD" in {coin for coin, _, _ in again["funding"]}


@pytest.mark.parametrize("lost", ["all", "the first half", "the last rows", "one"])
@pytest.mark.parametrize("kind", ["candleSnapshot", "fundingHistory"])
def test_what_an_outage_or_a_short_response_left_out_comes_with_the_next_sync(
    kind: str, lost: str, server: LoopbackServer, venue: Venue, tmp_path: Path
) -> None:
    def cut(payload: dict[str, Any]) -> Any:
        rows = venue(payload)
        if payload["type"] != kind:
            return rows
        if lost == "one":  # a candle published late
            return [row for row in rows if row.get("t", row.get("time")) // HOUR_MS != HOUR - 30]
        return {"all": [], "the first half": rows[len(rows) // 2 :], "the last rows": rows[:20]}[lost]

    server.handlers["/info"] = cut
    store = Store(tmp_path / "cache")
    assert not sync(store, server).problems
    server.handlers["/info"] = venue
    later = NOW + pd.Timedelta(hours=30)
    venue.move(int(later.timestamp() * 1000))
    assert not sync(store, server, now=later).problems
    assert cells(store) == pytest.approx(expected(venue, HOUR - 60 * 24, HOUR + 30), rel=1e-12)


def test_holes_and_a_tail_of_another_source_are_no_resume_point(
    server: LoopbackServer, venue: Venue, tmp_path: Path
) -> None:
    """Only the end of BTC is in the cache, and a stretch in the middle: the rest is requested, and not those."""
    store = Store(tmp_path / "cache")
    truth = expected(venue, HOUR - 60 * 24, HOUR)
    held = [*range(HOUR - 300, HOUR + 1), *range(HOUR - 1000, HOUR - 590)]
    store.merge(
        [
            rows_table({name: {hour: truth["BTC", name, hour] for hour in held}})
            for name in (*CANDLES.fields, *FUNDING.fields)
        ],
        "freqtrade",
    )
    sync(store, server, coins=["BTC"])
    wanted = {key: value for key, value in truth.items() if key[0] == "BTC"}
    assert cells(store) == pytest.approx(wanted, rel=1e-12)
    ranges = [
        (payload["startTime"] // HOUR_MS, payload["endTime"] // HOUR_MS) for payload in server.asked("fundingHistory")
    ]
    assert ranges == [(HOUR - 1440, HOUR - 1001), (HOUR - 590, HOUR - 301)]
    # A second candle request would cost more than the 410 candles that the cache has already.
    [candles] = server.asked("candleSnapshot")
    assert (candles["req"]["startTime"], candles["req"]["endTime"]) == ((HOUR - 1441) * HOUR_MS, (HOUR - 302) * HOUR_MS)


def test_a_price_without_a_volume_is_no_candle(server: LoopbackServer, venue: Venue, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    truth = expected(venue, HOUR - 60 * 24, HOUR)
    store.merge([rows_table({"mid": {hour: truth["BTC", "mid", hour] for hour in range(HOUR - 99, HOUR + 1)}})], "s3")
    sync(store, server, coins=["BTC"])
    assert ("BTC", "volume_usd", HOUR) in cells(store)


def test_silence_of_a_living_coin_is_not_remembered(server: LoopbackServer, venue: Venue, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    server.fail(Reply("[]"), type="fundingHistory", coin="BTC")
    first = sync(store, server)
    assert not first.problems and not any(key[:2] == ("BTC", "funding") for key in cells(store))
    sync(store, server)
    assert cells(store) == pytest.approx(expected(venue, HOUR - 60 * 24, HOUR), rel=1e-12)


def test_a_coin_that_is_gone_today_has_its_whole_life_in_a_range_asked_for_bit_by_bit(tmp_path: Path) -> None:
    """The first range ends before the listing: its empty hours say nothing of what came after them."""
    gone = Listing("xyz:OLD", HOUR - 30 * 24, gone=HOUR - 20 * 24)
    venue = Venue([Listing("BTC", HOUR - 60 * 24), gone], int(NOW.timestamp() * 1000))
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": venue}) as server:
        sync(store, server, end=instant_of(HOUR - 40 * 24))
        sync(store, server)
        assert cells(store) == pytest.approx(expected(venue, HOUR - 60 * 24, HOUR), rel=1e-12)
        server.requests.clear()
        for days in (2, 4, 5):
            server.requests.clear()
            later = NOW + pd.Timedelta(days=days)
            venue.move(int(later.timestamp() * 1000))
            sync(store, server, now=later)
        assert not any(payload.get("coin") == "xyz:OLD" for payload in server.asked("fundingHistory"))


def test_a_coin_that_is_listed_again_is_asked_for_again(server: LoopbackServer, venue: Venue, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    sync(store, server)
    venue.listings["xyz:OLD"].gone = None
    venue.listings["xyz:OLD"].listed = HOUR + 5
    later = NOW + pd.Timedelta(days=3)
    venue.move(int(later.timestamp() * 1000))
    sync(store, server, now=later)
    assert cells(store) == pytest.approx(expected(venue, HOUR - 60 * 24, HOUR + 72), rel=1e-12)


# --- pace -----------------------------------------------------------------------------------------------------------


def most_in_a_minute(times: list[float], weights: list[int]) -> int:
    """Largest weight in any window of 60 s, by brute force."""
    return max(
        sum(weight for at, weight in zip(times, weights, strict=True) if begin <= at <= begin + 60.0) for begin in times
    )


@pytest.mark.slow
def test_no_minute_of_a_sync_weighs_more_than_the_limit(tmp_path: Path) -> None:
    coins = [Listing(f"{'xyz:' * (place % 2)}C{place:02d}", HOUR - 1300) for place in range(25)]
    venue = Venue(coins, int(NOW.timestamp() * 1000))
    clock = Clock()
    times, weights = [], []

    def weighed(payload: dict[str, Any]) -> Any:
        """The exchange's own books: weight by its documentation, at the moment of the answer."""
        clock.seconds += 0.2
        answer = venue(payload)
        per_item = {"candleSnapshot": 1 / 60, "fundingHistory": 1 / 20}.get(payload["type"], 0.0)
        times.append(clock.seconds)
        weights.append(20 + int(per_item * len(answer)))
        return answer

    with LoopbackServer({"/info": weighed}) as server:
        server.fail(TOO_MANY, 3, type="fundingHistory")
        report = sync(Store(tmp_path / "cache"), server, clock, start=instant_of(HOUR - 1300))
    assert not report.problems
    assert most_in_a_minute(times, weights) <= 1200
    assert sum(weights) <= report.counts["weight"] <= sum(weights) * 1.05 + 3 * 45  # and not much is left unused
    assert clock.seconds <= report.counts["weight"] / 1200 * 60 + 80


def test_pacer_counts_a_request_from_its_reservation_to_a_minute_after_its_answer() -> None:
    clock = Clock()
    pacer = RateLimiter(clock, clock.sleep, budget=100)
    pacer.reserve(60)
    clock.seconds = 50.0  # a slow answer
    pacer.settle(60)
    pacer.reserve(40)
    assert clock.seconds == 50.0
    pacer.settle(40)
    pacer.reserve(1)
    assert clock.seconds == pytest.approx(110.0, abs=0.1)
    pacer.settle(1)
    assert (pacer.requests, pacer.spent) == (3, 101)
    pacer.reserve(500)  # more than the budget ever allows: alone, it goes
    assert clock.seconds == pytest.approx(170.0, abs=0.2)


def test_progress_is_in_weight_names_the_coin_and_ends_full(server: LoopbackServer, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    said: list[str] = []

    def announce(text: str) -> None:
        assert not calls
        said.append(text)

    report = sync(Store(tmp_path / "cache"), server, progress=lambda *call: calls.append(call), announce=announce)
    # 60 days of 4 coins: candles 20 + 1,441 / 60, funding 2 full windows of 45 and the rest, OLD its own.
    (text,) = said
    total = calls[-1][1]
    assert text.startswith("2025-04-16 10:00 UTC to 2025-06-15 10:00 UTC: candles or funding of 4 coins are missing")
    assert f"at most {total:,} in weight, less than a minute at the exchange's limit of 1,200 a minute" in text
    assert total == 4 * (45 + 2 * 45 + 43)
    done = [call[0] for call in calls]
    assert done == sorted(done) and done[0] == 0 and calls[-1][0] == calls[-1][1] >= report.counts["weight"] - 20
    assert len(calls) > 2 * 8  # a line a page, not only a coin
    assert calls[0][2].startswith("BTC candles (about ") and any(
        call[2].startswith("xyz:OLD funding") for call in calls
    )


def test_the_command_and_its_replace(tmp_path: Path, hlbt: Hlbt, monkeypatch: pytest.MonkeyPatch) -> None:
    now = pd.Timestamp.now("UTC").floor("ms")
    monkeypatch.setattr("engine.commands.data.clock", lambda: now)  # no hour begins meanwhile
    hour = hour_number(now)
    venue = Venue([Listing("BTC", hour - 48)], int(now.timestamp() * 1000))
    store = Store(tmp_path / "cache")
    store.merge([rows_table({"funding": {hour - 10: 0.03}})], "api")
    with LoopbackServer({"/info": venue}) as server:
        words = ("data", "sync", "--source", "api", "--base-url", server.url, "--set", f"data.cache={store.path}")
        done = hlbt(*words)
        assert done.code == 1 and "1 coins, 0 delisted" in done.out
        assert "1 problems: BTC funding: 1 cells differ" in done.err and "--replace takes the new ones" in done.err
        assert "candles or funding of 1 coins are missing" in done.err
        done = hlbt(*words, "--replace", "--json")
        assert (done.code, done.json["changed"], done.json["problems"]) == (0, 1, [])
    held = cells(store)
    assert held["BTC", "funding", hour - 10] == float(venue.listings["BTC"].rates[hour - 10]["fundingRate"])
    assert ("BTC", "mid", hour - 1) in held and ("BTC", "mid", hour + 1) not in held


def test_the_report_is_json_with_its_problems(server: LoopbackServer, tmp_path: Path) -> None:
    from engine.provenance import to_json

    server.fail(REFUSED, 99, type="candleSnapshot", coin="xyz:NEW")
    report = sync(Store(tmp_path / "cache"), server)
    state = json.loads(to_json(report.to_dict()))
    assert state["problems"] == report.problems and state["coins"] == 4 and state["delisted"] == 1
    assert state["last"] == "2025-06-15T10:00:00+00:00"
    assert state["funding"] == report.counts["funding"] > 0 and state["months"] == ["2025-04", "2025-05", "2025-06"]


# --- recorded answers -----------------------------------------------------------------------------------------------


def test_recorded_candles(tmp_path: Path) -> None:
    (_, meta), (_, candles) = recorded(*SDK, "test_get_candles_snapshot.yaml")
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": Recorded(meta, candles=candles)}) as server:
        now = pd.Timestamp(candles[-1]["T"], unit="ms", tz="UTC")  # one millisecond before the last one closes
        report = sync(store, server, coins=["kPEPE"], start=pd.Timestamp("2023-05-21T21:00Z"), now=now)
    assert not report.problems and report.counts["candles"] == len(candles) - 1 == 23
    held = cells(store)
    assert held["kPEPE", "mid", hour_number(pd.Timestamp("2023-05-21T21:00Z"))] == 0.001604
    assert held["kPEPE", "volume_usd", hour_number(pd.Timestamp("2023-05-21T21:00Z"))] == 520665683.0 * 0.001604
    assert held["kPEPE", "high", hour_number(pd.Timestamp("2023-05-21T21:00Z"))] == float(candles[0]["h"])
    assert len(held) == 23 * 4 and len(store.require().coins) == len(meta["universe"])


def test_recorded_funding(tmp_path: Path) -> None:
    """Paid every 8 hours at first, once 24 minutes late, and 1,038 rows in one answer: the cap came later."""
    (_, meta), (_, rates) = recorded(*SDK, "test_get_funding_history[None].yaml")
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": Recorded(meta, funding=rates)}) as server:
        now = pd.Timestamp(rates[-1]["time"], unit="ms", tz="UTC") + pd.Timedelta(minutes=1)
        report = sync(store, server, coins=["BTC"], start=pd.Timestamp("2023-05-01T00:00Z"), now=now)
        assert not report.problems and len(server.asked("fundingHistory")) == 1
        for days in (2, 3):
            server.requests.clear()
            later = now + pd.Timedelta(days=days)
            end = pd.Timestamp("2023-07-01T00:00Z")
            sync(store, server, coins=["BTC"], start=pd.Timestamp("2023-05-01T00:00Z"), end=end, now=later)
        assert not server.asked("fundingHistory")  # the hours in between are known to be empty
    wanted = {("BTC", "funding", row["time"] // HOUR_MS): float(row["fundingRate"]) for row in rates}
    assert cells(store) == wanted and len(wanted) == 1038


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "wanted", "coins", "delisted"),
    [
        ("Meta.yaml", {"type": "meta"}, 203, 32),
        ("MetaAndAssetCtxs.yaml", {"dex": "", "type": "metaAndAssetCtxs"}, 228, 38),
    ],
    ids=["2025-08-22", "2026-02-06"],
)
def test_recorded_universe(file: str, wanted: dict[str, str], coins: int, delisted: int, tmp_path: Path) -> None:
    """Every coin of a real `meta` gets into the coin table, also those without any history."""
    [answer, *_] = [answer for request, answer in recorded(*GO, file) if request == wanted]
    meta = answer[0] if isinstance(answer, list) else answer
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": Recorded(meta)}) as server:
        report = sync(store, server)
    assert (report.counts["coins"], report.counts["delisted"]) == (coins, delisted) and not report.problems
    manifest = store.manifest()
    assert manifest is not None and len(manifest.coins) == coins
    assert manifest.coins["MATIC"].is_delisted and manifest.coins["BTC"].max_leverage == 40


def test_runs_bridges_short_holes() -> None:
    hours = np.array([3, 4, 6, 10, 11])
    assert runs(hours) == [(3, 4), (6, 6), (10, 11)]
    assert runs(hours, 1) == [(3, 6), (10, 11)]
    assert runs(hours, 3) == [(3, 11)]
    assert runs(hours[:0]) == []


TERMS = {"deployerFeeScale": "1.0", "growthMode": "enabled", "marginMode": "strictIsolated"}


def test_terms_of_a_builders_coin_are_kept_with_the_dates_at_which_they_were_seen(tmp_path: Path) -> None:
    venue = Venue([Listing("xyz:TSLA", HOUR - 48, terms=dict(TERMS))], int(NOW.timestamp() * 1000))
    venue.dexes["xyz"] = {"assetToFundingMultiplier": [["xyz:TSLA", "0.5"]]}
    venue.collateral, venue.tokens = {"xyz": 360}, {360: "USDH"}
    store = Store(tmp_path / "cache")
    days = [NOW + pd.Timedelta(days=day) for day in range(4)]
    with LoopbackServer({"/info": venue}) as server:
        for day, now in enumerate(days):
            if day == 2:
                venue.listings["xyz:TSLA"].terms = {"deployerFeeScale": "0.5"}
                venue.dexes["xyz"] = {"assetToFundingMultiplier": [["xyz:TSLA", "1.0"]]}
            venue.move(int(now.timestamp() * 1000))
            report = sync(store, server, start=NOW - pd.Timedelta(hours=40), now=now, coins=["xyz:*"])
            assert not report.problems
    notes = [note for note in report.notes if note.startswith("Dex xyz: 1 coins, settled in USDH, 0 in growth mode")]
    assert len(notes) == 1
    record = store.require().coins["xyz:TSLA"]
    first, second = record.seen  # of the first two syncs, which saw the same, and of the last two
    assert [(seen.first, seen.last) for seen in record.seen] == [(days[0], days[1]), (days[2], days[3])]
    assert (first.fee_scale, first.growth, first.margin_mode, first.funding_multiplier) == (1.0, True, "isolated", 0.5)
    assert (second.fee_scale, second.growth, second.margin_mode) == (0.5, False, "cross")
    coin = load_panel(store.path, coins=["xyz:*"]).table[0]
    assert [(terms.seen, terms.factor) for terms in coin.fee_terms] == [(days[0], 0.2), (days[2], 1.5)]
    assert (coin.collateral, coin.margin_mode) == ("USDH", None)
    early = load_panel(store.path, end="2025-06-16T00:00Z", coins=["xyz:TSLA"]).table[0]
    assert [terms.scale for terms in early.fee_terms] == [1.0]


@pytest.mark.parametrize("answer", [Reply("null", 422), Reply('{"tokens": [{}]}')], ids=["refused", "malformed"])
def test_a_collateral_that_cannot_be_named_is_not_guessed(answer: Reply, tmp_path: Path) -> None:
    venue = Venue([Listing("xyz:TSLA", HOUR - 48)], int(NOW.timestamp() * 1000))
    venue.collateral, venue.tokens = {"xyz": 235}, {235: "USDE"}
    store = Store(tmp_path / "cache")
    with LoopbackServer({"/info": venue}) as server:
        server.fail(answer, 9, type="spotMeta")
        [problem] = sync(store, server, coins=["xyz:*"]).problems
        assert "the names of collateral tokens" in problem and store.require().coins["xyz:TSLA"].collateral is None
        server.faults.clear()
        assert not sync(store, server, coins=["xyz:*"]).problems
    assert store.require().coins["xyz:TSLA"].collateral == "USDE"
