"""A HyperLiquid on loopback: the transport (:class:`LoopbackServer`) and the answers of its `/info` (:class:`Venue`).

A later path is one more entry of the server's `handlers`. Faults are put in front of a handler with :meth:`fail`.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from helpers.waiting import LONG_SECONDS, wait_until

HOUR_MS = 3_600_000
Handler = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Reply:
    """A raw answer: body as it is, after a silence; or no answer but a connection reset."""

    body: str
    status: int = 200
    silence_seconds: float = 0.0
    reset: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    dated: bool = True  # whether the server adds its own date


#: What the exchange is known to say when it does not answer.
TOO_MANY = Reply("null", 429)
BAD_GATEWAY = Reply("<html><body><h1>502 Bad Gateway</h1></body></html>", 502)
NOT_JSON = Reply("<html>We are upgrading</html>")
REFUSED = Reply("Failed to deserialize the JSON body into the target type", 422)


@dataclass
class Fault:
    """Answers of this to `times` requests that match.

    With `change`, the request takes effect first, not before `arrives` is set, and its answer goes through it.
    """

    match: Callable[[dict[str, Any]], bool]
    reply: Reply
    times: int = 1
    change: Callable[[Reply], Reply] | None = None
    arrives: threading.Event | None = None
    arrived: threading.Event = field(default_factory=threading.Event)

    @property
    def met(self) -> bool:
        """Whether all the requests have come that it is for."""
        return self.times == 0

    def arrive(self) -> None:
        """Let a late request take effect once it has come, and wait until it has."""
        assert self.arrives is not None
        wait_until(lambda: self.met)
        self.arrives.set()
        wait_until(self.arrived.is_set)


class LoopbackServer:
    """POST by path to handlers that map a payload to JSON (or a :class:`Reply`); remembers the requests.

    Use it as a context; `url` is its address. Requests are served concurrently.
    """

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self.handlers = handlers
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._groups: list[threading.Barrier] = []  # of the next requests, one each
        self._closing = threading.Event()
        self.date_offset_seconds = 0.0  # of the dates of the answers: a machine whose clock is wrong by minus that
        owner = self

        class Connection(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet, and no packet held back:
            disable_nagle_algorithm = True  # else every answer waits 40 ms for an acknowledgement

            def do_POST(self) -> None:  # the name that http.server wants
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = owner.answer(self.path, payload)
                owner._closing.wait(reply.silence_seconds)
                body = reply.body.encode()
                try:
                    if reply.reset:
                        # Linger 0: the kernel sends RST, not FIN.
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        self.close_connection = True
                        self.connection.close()
                        return
                    self.send_response_only(reply.status)
                    if reply.dated:
                        self.send_header("Date", self.date_time_string())
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    for name, value in reply.headers:
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                    self.wfile.flush()
                except OSError:
                    self.close_connection = True  # the client is gone: killed, or tired of waiting

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(time.time() + owner.date_offset_seconds)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that was killed in the middle of a request

        self._http = Quiet(("127.0.0.1", 0), Connection)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def fail(self, reply: Reply, times: int = 1, **fields: Any) -> None:
        """Give `reply` to the next `times` requests whose payload (or its `req`) has these fields."""

        def match(payload: dict[str, Any]) -> bool:
            flat = {**payload, **payload.get("req", {})}
            return all(flat.get(name) == value for name, value in fields.items())

        self.faults.append(Fault(match, reply, times))

    def answer(self, path: str, payload: dict[str, Any]) -> Reply:
        hit = None
        with self._lock:
            self.requests.append((path, payload))
            group = self._groups.pop(0) if self._groups else None
        if group is not None:
            group.wait(LONG_SECONDS)
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.match(payload):
                    fault.times -= 1
                    if fault.change is None:
                        return fault.reply
                    hit = fault
                    break
        if path not in self.handlers:
            return Reply("", 404)
        while hit is not None and hit.arrives is not None and not (hit.arrives.wait(0.02) or self._closing.is_set()):
            pass
        answer = self.handlers[path](payload)
        reply = answer if isinstance(answer, Reply) else Reply(json.dumps(answer))
        if hit is None or hit.change is None:
            return reply
        hit.arrived.set()
        return hit.change(reply)

    @contextmanager
    def side_by_side(self, *sizes: int) -> Iterator[None]:
        """The requests within come in groups of these sizes: none is answered before all of its group have come."""
        groups, asked = [threading.Barrier(size) for size in sizes], len(self.requests)
        self._groups = [group for group in groups for _ in range(group.parties)]
        yield
        came = len(self.requests) - asked
        assert came == sum(sizes) and not any(group.broken for group in groups), f"{came} requests for groups {sizes}"

    def asked(self, kind: str) -> list[dict[str, Any]]:
        """Payloads of one type, in order."""
        return [payload for _, payload in self.requests if payload.get("type") == kind]

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@dataclass
class Listing:
    """A perpetual with a made-up history, the same for the same name.

    Times are hour numbers. A candle per hour that traded (a share of `sparse` did not); a rate per hour since `listed`.
    """

    name: str
    listed: int
    gone: int | None = None
    sparse: float = 0.0
    terms: dict[str, Any] = field(default_factory=dict)
    candles: dict[int, dict[str, Any]] = field(default_factory=dict)
    rates: dict[int, dict[str, Any]] = field(default_factory=dict)

    def grow(self, now_hour: int) -> None:
        """Make the history up to the candle that opens at `now_hour`; what is there stays."""
        for hour in range(self.listed, min(now_hour, self.gone if self.gone is not None else now_hour) + 1):
            if hour in self.rates:
                continue
            chance = random.Random(f"{self.name} {hour}")
            price, late = 100.0 * (1.0 + chance.random()), chance.choice((0, 3, 48, 731, 90_000))
            self.rates[hour] = {
                "coin": self.name,
                "fundingRate": f"{chance.uniform(-1e-4, 1e-4):.8f}",
                "premium": f"{chance.uniform(-1e-3, 1e-3):.8f}",
                "time": hour * HOUR_MS + late,
            }
            if chance.random() >= self.sparse:
                volume = 0.0 if chance.random() < 0.05 else round(chance.uniform(1, 1e4), 1)
                opened = hour * HOUR_MS
                high, low = price * (1.0 + chance.uniform(0, 0.02)), price * (1.0 - chance.uniform(0, 0.02))
                self.candles[hour] = {
                    **{"t": opened, "T": opened + HOUR_MS - 1, "s": self.name, "i": "1h", "n": int(volume)},
                    **{"o": f"{low:.3f}", "c": f"{price:.3f}", "h": f"{high:.3f}", "l": f"{low:.3f}", "v": str(volume)},
                }


class Venue:
    """Answers of `/info` from :class:`Listing` histories, with the caps of the real exchange.

    Parameters
    ----------
    listings : sequence of Listing
        The universe; ``xyz:TSLA`` is of a builder's dex.
    now_ms : int
        Time at the exchange, in milliseconds; the candle of this hour is unfinished.
    """

    candle_cap = 5000
    funding_cap = 500

    def __init__(self, listings: list[Listing], now_ms: int) -> None:
        self.listings = {listing.name: listing for listing in listings}
        #: Builders' dexes and what `perpDexs` says of them, their collateral tokens, and the names of tokens.
        self.dexes: dict[str, dict[str, Any]] = {dex: {} for name in self.listings if (dex := name.rpartition(":")[0])}
        self.collateral: dict[str, int] = {}
        self.tokens: dict[int, str] = {}
        self.move(now_ms)

    def move(self, now_ms: int) -> None:
        self.now_ms = now_ms
        for listing in self.listings.values():
            listing.grow(now_ms // HOUR_MS)

    def __call__(self, payload: dict[str, Any]) -> Any:
        if payload["type"] == "meta":
            return self._meta(payload.get("dex", ""))
        if payload["type"] == "metaAndAssetCtxs":
            meta = self._meta(payload.get("dex", ""))
            return meta if isinstance(meta, Reply) else [meta, [{"dayNtlVlm": "1.0"} for _ in meta["universe"]]]
        if payload["type"] == "perpDexs":
            return [None, *({"name": dex, "fullName": dex, **self.dexes[dex]} for dex in self.dexes)]
        if payload["type"] == "spotMeta" and self.tokens:
            return {"tokens": [{"name": name, "index": index} for index, name in self.tokens.items()], "universe": []}
        if payload["type"] == "candleSnapshot":
            request = payload["req"]
            assert request["interval"] == "1h"
            held = list(self.listings[request["coin"]].candles.values())[-self.candle_cap :]
            # As recorded: a candle is returned when any part of it lies in the range.
            return [row for row in held if row["T"] >= request["startTime"] and row["t"] <= request["endTime"]]
        if payload["type"] == "fundingHistory":
            rates = self.listings[payload["coin"]].rates.values()
            end = payload.get("endTime", self.now_ms)
            wanted = [row for row in rates if payload["startTime"] <= row["time"] <= min(end, self.now_ms)]
            return wanted[: self.funding_cap]
        return REFUSED

    def _meta(self, dex: str) -> Any:
        if dex and dex not in self.dexes:
            return Reply("null", 500)
        own = [listing for listing in self.listings.values() if listing.name.rpartition(":")[0] == dex]
        token = {"collateralToken": self.collateral[dex]} if dex in self.collateral else {}
        return {"universe": [self._entry(listing) for listing in own], "marginTables": [], **token}

    @staticmethod
    def _entry(listing: Listing) -> dict[str, Any]:
        entry = {"szDecimals": 2, "name": listing.name, "maxLeverage": 10, "marginTableId": 10, **listing.terms}
        return entry | ({"isDelisted": True} if listing.gone is not None else {})


class Recorded:
    """Answers of `/info` from recorded rows, cut to the range of the request; other types are refused."""

    dexes = ()

    def __init__(
        self, meta: dict[str, Any], candles: list[Any] | None = None, funding: list[Any] | None = None
    ) -> None:
        self.meta, self.candles, self.funding = meta, candles or [], funding or []

    def __call__(self, payload: dict[str, Any]) -> Any:
        if payload["type"] == "meta":
            return self.meta
        if payload["type"] == "candleSnapshot":
            request = payload["req"]
            return [row for row in self.candles if row["s"] == request["coin"] and row["T"] >= request["startTime"]]
        if payload["type"] == "fundingHistory":
            return [row for row in self.funding if payload["startTime"] <= row["time"] <= payload["endTime"]]
        return REFUSED
