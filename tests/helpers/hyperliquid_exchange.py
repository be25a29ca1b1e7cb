"""A HyperLiquid on loopback: `/info` and `/exchange` as the documentation describes them, for the real SDK.

Written from HyperLiquid's documentation and recorded answers, with no knowledge of the project's own executor::

    with HyperLiquidExchange(["BTC", "ETH"]) as exchange:
        exchange.fund(wallet.address, 10_000)
        exchange.set_book("BTC", bid=99_990, ask=100_010, size=0.5)
        sdk = Exchange(wallet, exchange.url)

The clock (`now`, ms) runs with the wall until it is set; :meth:`HyperLiquidExchange.advance` moves it and pays funding.
Nonces and `expiresAfter` are judged by `signing_clock`, the wall, because the SDK signs with the wall's time.
"""

from __future__ import annotations

import copy
import math
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from helpers.hyperliquid_actions import Actions
from helpers.hyperliquid_answers import Answers
from helpers.hyperliquid_faults import (
    REJECTS,
    Event,
    Lag,
    Nudge,
    Refusal,
    assets_of,
    kind_of,
    transport_fault,
    weight_of,
)
from helpers.hyperliquid_info import HOUR_MS, REFUSED, TOO_MANY, Fault, Listing, LoopbackServer, Reply, Venue
from helpers.hyperliquid_ledger import Ledger
from helpers.hyperliquid_records import TOKENS, Account, Coin, Fill, Order, number

SAMPLE_MS = 15 * 60_000  # of `portfolio`

FAMILIAR = {
    "BTC": Coin("BTC", 100_000.0, 5, 40, tiers=((150e6, 20),)),
    "ETH": Coin("ETH", 4_000.0, 4, 25, tiers=((100e6, 15),)),
    "SOL": Coin("SOL", 200.0, 2, 20, tiers=((70e6, 10),)),
}


def wall_ms() -> int:
    return int(time.time() * 1000)


@cache
def chance(*of: object) -> float:
    """A number in [0, 1) that is always the same for the same arguments; quicker to make than a `Random`."""
    return zlib.crc32(repr(of).encode()) / 2**32


def coin_of(name: str, seed: int) -> Coin:
    """A coin with a plausible price, lot and leverage, the same for the same name and seed."""
    if name in FAMILIAR:
        known = FAMILIAR[name]
        return Coin(name, known.price, known.sz_decimals, known.max_leverage, tiers=known.tiers)
    price = float(f"{10 ** (6 * chance(name, seed) - 3):.4g}")
    leverage = (3, 5, 10)[int(3 * chance(name, seed, "leverage"))]
    return Coin(name, price, min(5, max(0, round(math.log10(price)) + 1)), leverage)


@dataclass
class Walk(Listing):
    """A listing with a smooth history that ends at `price` in the hour `anchor`; `rate` replaces the later rates."""

    price: float = 100.0
    anchor: int = 0
    rate: Decimal | None = None

    def level(self, hour: int) -> float:
        """Logarithm of the price, up to a constant."""
        period, phase = 40 + 160 * chance(self.name), math.tau * chance(self.name, "phase")
        return 0.1 * math.sin(math.tau * hour / period + phase) + 0.008 * chance(self.name, hour)

    def grow(self, now_hour: int) -> None:
        base = self.level(self.anchor)
        last = min(now_hour, self.gone if self.gone is not None else now_hour)
        for hour in range(next(reversed(self.rates), self.listed - 1) + 1, last + 1):
            opened, closed = (self.price * math.exp(self.level(at) - base) for at in (hour, hour + 1))
            rate = self.rate
            if rate is None:
                rate = number(f"{-2e-5 + 7e-5 * chance(self.name, 'rate', hour):.10f}")
            stamp = {"coin": self.name, "fundingRate": f"{rate:f}", "premium": "0.0001"}
            self.rates[hour] = stamp | {"time": hour * HOUR_MS + 12}
            self.candles[hour] = {
                **{"t": hour * HOUR_MS, "T": (hour + 1) * HOUR_MS - 1, "s": self.name, "i": "1h", "n": 100},
                **{"o": f"{opened:.6g}", "c": f"{closed:.6g}", "v": f"{2e6 / closed:.6g}"},
                **{"h": f"{max(opened, closed):.6g}", "l": f"{min(opened, closed):.6g}"},
            }


class HyperLiquidExchange(LoopbackServer):
    """The server. Use it as a context; `url` is its address.

    Parameters
    ----------
    coins : sequence of str or Coin
        The universe, in its order (the asset ids).
    seed : int
        Of prices, lots and leverages of coins given by name.
    now_ms : int, optional
        Time at the exchange; without it the wall clock.
    network : {"testnet", "mainnet"}
        The SDK signs for mainnet only at the address of mainnet, so at a loopback address always for testnet.
    """

    def __init__(
        self,
        coins: Sequence[str | Coin] = ("BTC", "ETH", "SOL"),
        seed: int = 0,
        now_ms: int | None = None,
        network: str = "testnet",
    ) -> None:
        super().__init__({"/info": self._info, "/exchange": self._exchange})
        self.lock = threading.RLock()
        self.weight_limit: int | None = None  # of all requests together; further ones get 429
        self.read_lag = 0  # answers that `clearinghouseState` is behind, though it is stamped new
        self._states: dict[tuple[str, ...], list[Any]] = {}  # its answers by user and dex, oldest first
        self._lags: dict[str, Lag] = {}
        self._past: list[Answers] = []  # before each action, oldest first; kept once there is a lag
        self._events: list[Event] = []
        self._frozen, self._offset = now_ms, 0
        self.ledger = Ledger([])
        self.venue = Venue([], self.now)
        self.answers = Answers(self.ledger, {})
        self.actions = Actions(self.ledger, self.answers, lambda: self.now)
        self.actions.mainnet = network == "mainnet"
        self.signing_clock = wall_ms
        for coin in coins:
            self.list_coin(coin if isinstance(coin, Coin) else coin_of(coin, seed))

    def __enter__(self) -> HyperLiquidExchange:
        super().__enter__()
        return self

    # Clock ------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Time at the exchange in ms. Setting it stops the clock there, and pays no funding."""
        return self._frozen if self._frozen is not None else wall_ms() + self._offset

    @now.setter
    def now(self, value: int) -> None:
        with self.lock:
            self._frozen = value
            self._scheduled_cancels()

    @property
    def signing_clock(self) -> Callable[[], int]:
        """What nonces, `expiresAfter` and the validity of agents are compared with (ms); the wall unless set."""
        return self.actions.signing_clock

    @signing_clock.setter
    def signing_clock(self, clock: Callable[[], int]) -> None:
        self.actions.signing_clock = clock

    def _move(self, target: int) -> None:
        if self._frozen is not None:
            self._frozen = target
        else:
            self._offset += target - self.now

    def advance(self, hours: float) -> None:
        """Move the clock; on every full hour passed, funding is paid at the rate that `fundingHistory` shows."""
        with self.lock:
            end = self.now + round(hours * HOUR_MS)
            instant = (self.now // HOUR_MS + 1) * HOUR_MS
            while instant <= end:
                self._move(instant)
                self._sample()
                self._scheduled_cancels()
                self.venue.move(instant)
                for coin in self.ledger.coins.values():
                    rate = self.venue.listings[coin.name].rates.get(instant // HOUR_MS)
                    if rate is not None:
                        self.ledger.pay_funding(coin, number(rate["fundingRate"]), instant)
                self.ledger.liquidate(instant)
                instant += HOUR_MS
            self._move(end)
            self._scheduled_cancels()

    def _scheduled_cancels(self) -> None:
        for account in self.ledger.accounts.values():
            if account.cancel_at is not None and account.cancel_at <= self.now:
                account.cancel_triggers.append(account.cancel_at)
                account.cancel_at = None
                self.ledger.cancel_all("scheduledCancel", self.now, account.address)

    # The world --------------------------------------------------------------------------------------------------------

    def add_dex(self, name: str, token: str = "USDC", coins: Sequence[Coin] = ()) -> None:
        """A builder's perp dex with its collateral token; its coins are named `name:COIN`."""
        with self.lock:
            assert token in TOKENS, f"{token} is not one of {list(TOKENS)}"
            self.ledger.dexes[name] = token
            for coin in coins:
                assert coin.dex == name, coin.name
                self.list_coin(coin)

    def list_coin(self, coin: Coin) -> None:
        """Add a coin at the end of its universe, with a deep book 2 basis points wide around its price."""
        with self.lock:
            assert coin.dex in self.ledger.dexes, coin.name
            self.ledger.coins[coin.name] = coin
            hour = self.now // HOUR_MS
            gone = hour if coin.delisted else None
            self.venue.listings[coin.name] = Walk(
                coin.name, hour - coin.listed_hours, gone, price=coin.price, anchor=hour
            )
            self.venue.move(self.now)
            if not coin.delisted:
                self.set_book(coin.name, bid=coin.price * (1 - 1e-4), ask=coin.price * (1 + 1e-4))

    def set_book(
        self,
        coin: str,
        bid: float | None = None,
        ask: float | None = None,
        size: float | None = None,
        levels: int = 1,
        oracle: float | None = None,
        mark: float | None = None,
        bids: Sequence[tuple[float, float]] | None = None,
        asks: Sequence[tuple[float, float]] | None = None,
        refill: bool = False,
    ) -> None:
        """Replace the book of a coin; prices are put on the tick, outward; resting orders that it reaches are filled.

        `size` is that of each of `levels` levels a side, one tick apart (very deep, if None); or give `bids` and `asks`
        as (price, size), best first. A side without a price is empty. With `refill` the book is back after every
        order, else fills use it up. Mark and oracle become the middle unless they are given. Without any price the
        coin has no quote: mid and impact prices are null, and orders find nothing.
        """
        with self.lock:
            self._sample()
            market = self.ledger.coins[coin]
            market.bids = market.side(bid, size, levels, bids, down=True)
            market.asks = market.side(ask, size, levels, asks, down=False)
            market.refill = ([*map(list, market.bids)], [*map(list, market.asks)]) if refill else None
            middle = market.mid
            market.mark = number(mark) if mark is not None else middle or market.mark
            market.oracle = number(oracle) if oracle is not None else middle or market.oracle
            self.ledger.cross_resting(market, self.now)
            self.ledger.liquidate(self.now)

    def set_funding(self, coin: str, rate: float) -> None:
        """Rate per hour from the next hour on; positive: longs pay."""
        with self.lock:
            self.venue.listings[coin].rate = number(f"{rate:.10f}")  # type: ignore[attr-defined]

    def delist(self, coin: str, price: float | None = None) -> None:
        """Cancel the coin's orders, settle its positions at `price` (else the oracle), keep its entry in `meta`."""
        with self.lock:
            market = self.ledger.coins[coin]
            self.ledger.settle(market, market.oracle if price is None else number(price), self.now)
            self.venue.listings[coin].gone = self.now // HOUR_MS

    def deleverage(self, address: str, coin: str, price: float | None = None, share: float = 1.0) -> None:
        """Take a position, or a share of it, away at `price` (else the mark), as in the ADL of 2025-10-10."""
        with self.lock:
            market = self.ledger.coins[coin]
            at = market.mark if price is None else number(price)
            self.ledger.force_close(self.account(address), market, at, number(share), "Auto-Deleveraging", self.now)

    def fund(self, address: str, usd: float, mode: str | None = None, dex: str = "") -> Account:
        """Deposit (or withdraw) dollars; `mode` is disabled (classic, the first default), unifiedAccount, ...

        With `dex` it is that dex's collateral: on the dex itself, or the token of a unified account.
        """
        with self.lock:
            account = self.ledger.accounts.setdefault(address.lower(), Account(address.lower()))
            account.mode = mode or account.mode
            account.pay(self.ledger.pool(account, dex), number(usd))
            account.deposited = account.deposited or usd > 0
            account.samples.append((self.now, self.ledger.worth(account)))
            return account

    def _sample(self) -> None:
        """Note the worth of every account that has no sample since the last quarter of an hour."""
        quarter = self.now // SAMPLE_MS * SAMPLE_MS
        for account in self.ledger.accounts.values():
            if not account.samples or account.samples[-1][0] < quarter:
                account.samples.append((quarter, self.ledger.worth(account)))

    def account(self, address: str) -> Account:
        return self.ledger.accounts[address.lower()]

    def approve_agent(self, master: str, agent: str, name: str = "", valid_until: int | None = None) -> None:
        """Let the key of `agent` sign for `master`; an agent of the same name is replaced."""
        with self.lock:
            self.actions.approve(master, agent, name, valid_until)

    def create_vault(self, leader: str, usd: float = 0.0, role: str = "vault") -> str:
        """A vault (or, with `role="subAccount"`, a sub-account) that `leader` trades; returns its address."""
        with self.lock:
            address = f"0x{len(self.ledger.accounts) + 1:03x}{role.encode().hex():0<37}"
            self.ledger.accounts[address] = Account(address, role=role, master=leader.lower(), deposited=True)
            self.fund(address, usd)
            return address

    @property
    def orders(self) -> list[Order]:
        """Orders that rested or were filled, oldest first."""
        return list(self.ledger.orders)

    @property
    def rejected(self) -> list[Order]:
        return list(self.ledger.rejected)

    @property
    def fills(self) -> list[Fill]:
        return list(self.ledger.fills)

    def positions(self, address: str) -> dict[str, float]:
        """Signed units by coin."""
        with self.lock:
            return {name: float(at.size) for name, at in self.account(address).positions.items()}

    def equity(self, address: str) -> float:
        """Balance and unrealised profit at the mark prices, whatever the mode."""
        with self.lock:
            return float(self.ledger.equity(self.account(address)))

    # Faults -----------------------------------------------------------------------------------------------------------

    def inject(self, kind: str, **options: Any) -> Fault:
        """A fault of the transport, see :func:`hyperliquid_faults.transport_fault`; set its `times` to 0 to end it."""
        fault = transport_fault(kind, **options)
        self.faults.append(fault)
        return fault

    def reject(self, name: str, coin: str | None = None, cloid: str | None = None, times: int = 1) -> None:
        """Refuse the next orders (of a coin, of a cloid) by a name of :data:`hyperliquid_faults.REJECTS`."""
        assert name in REJECTS, f"{name} is not one of {list(REJECTS)}"
        self.ledger.order_faults.nudges.append(Nudge(reject=name, coin=coin, cloid=cloid, times=times))

    def fill_share(self, share: float, coin: str | None = None, cloid: str | None = None, times: int = 1) -> None:
        """Only this share of the next orders' size finds a counterpart."""
        self.ledger.order_faults.nudges.append(Nudge(fill_share=share, coin=coin, cloid=cloid, times=times))

    def refuse(self, text: str, on: str = "order", times: int = 1, coin: str | None = None) -> None:
        """Refuse the next actions (with that coin in them) as a whole: `{"status": "err", "response": text}`."""

        def match(payload: dict[str, Any]) -> bool:
            return coin is None or self.ledger.asset(self.ledger.coins[coin]) in assets_of(payload)

        self.inject("outage", after=False, times=times, on=on, text=text, match=match)

    def when(self, on: str | Sequence[str], do: Callable[[], Any], nth: int = 1, every: bool = False) -> None:
        """Call `do` before the `nth` request from now on of a type (or of several) is answered.

        With `every`, before each later one too: a quote that goes away, a price that falls, a date that is wrong.
        """
        self._events.append(Event((on,) if isinstance(on, str) else tuple(on), do, nth, every))

    def lag(self, on: str, actions: int = 1, times: int | None = None) -> None:
        """Answer reads of a type (`times` of them) as it was before the last actions, stamped with the time of now.

        Actions count from the first call on. Zero of them ends it.
        """
        with self.lock:
            self._lags[on] = Lag(actions, times)

    def asked(self, kind: str) -> list[dict[str, Any]]:
        """Payloads of one type of question or action, in order."""
        return [payload for path, payload in list(self.requests) if kind_of(path, payload) == kind]

    @property
    def weight(self) -> int:
        """Weight of every request so far against the 1200 a minute of an address on the internet."""
        return sum(weight_of(path, payload) for path, payload in list(self.requests))

    def answer(self, path: str, payload: dict[str, Any]) -> Reply:
        if self.weight_limit is not None and self.weight + weight_of(path, payload) > self.weight_limit:
            return TOO_MANY
        kind = kind_of(path, payload)
        for event in list(self._events):
            event.notice(kind)
        return super().answer(path, payload)

    # Requests ---------------------------------------------------------------------------------------------------------

    def _exchange(self, payload: dict[str, Any]) -> Any:
        with self.lock:
            self._scheduled_cancels()
            self._sample()
            if self._lags:
                self._past.append(copy.copy(self.answers))
                self._past[-1].ledger = copy.deepcopy(self.ledger)
            try:
                return self.actions(payload)
            except Refusal as refusal:
                return {"status": "err", "response": str(refusal)}
            except (KeyError, TypeError, ValueError, ArithmeticError):
                return REFUSED

    def _info(self, payload: dict[str, Any]) -> Any:
        with self.lock:
            self._scheduled_cancels()
            self._sample()
            try:
                return self._answer(payload)
            except (KeyError, TypeError, ValueError):
                return REFUSED

    def _answer(self, payload: dict[str, Any]) -> Any:
        kind, dex = payload["type"], payload.get("dex") or ""
        behind = self._lags[kind].use() if kind in self._lags and self._past else 0
        answers = self._past[max(0, len(self._past) - behind)] if behind else self.answers
        coins, of_dex = answers.ledger.coins, (dex,) if dex else ()
        if kind in ("candleSnapshot", "fundingHistory"):
            self.venue.move(self.now)
            return self.venue(payload)
        markets: dict[str, Callable[[], Any]] = {
            "meta": lambda: answers.meta(dex),
            "metaAndAssetCtxs": lambda: [
                answers.meta(dex),
                [answers.context(coin, self._rate(coin)) for coin in answers.ledger.universe(dex)],
            ],
            "allPerpMetas": lambda: [answers.meta(name) for name in answers.ledger.dexes],
            "spotMeta": lambda: answers.spot_meta,
            "spotMetaAndAssetCtxs": lambda: [answers.spot_meta, []],
            "allMids": lambda: answers.all_mids(dex),
            "l2Book": lambda: answers.book(coins[payload["coin"]], self.now),
            "perpDexs": answers.perp_dexs,
            "perpsAtOpenInterestCap": lambda: [coin.name for coin in coins.values() if coin.open_interest_capped],
            "exchangeStatus": lambda: {"time": self.now, "specialStatuses": None},
        }
        if kind in markets:
            return markets[kind]()
        user = payload["user"].lower()
        if len(bytes.fromhex(user.removeprefix("0x"))) != 20:
            raise ValueError(user)
        start, end = payload.get("startTime", 0), payload.get("endTime")
        accounts: dict[str, Callable[[], Any]] = {
            "clearinghouseState": lambda: self._state(answers, user, of_dex),
            "portfolio": lambda: answers.portfolio(user, self.now),
            "spotClearinghouseState": lambda: answers.spot_state(user),
            "userAbstraction": lambda: answers.account(user).mode,
            "activeAssetData": lambda: answers.active(user, coins[payload["coin"]]),
            "userFees": lambda: answers.fees(user),
            "userRateLimit": lambda: answers.rate_limit(user),
            "extraAgents": lambda: answers.extra_agents(user),
            "userRole": lambda: answers.role(user),
            "openOrders": lambda: answers.open_orders(user, *of_dex),
            "frontendOpenOrders": lambda: answers.frontend_open_orders(user, *of_dex),
            "orderStatus": lambda: answers.order_status(user, payload["oid"]),
            "historicalOrders": lambda: answers.history(user),
            "userFills": lambda: answers.fills(user),
            "userFillsByTime": lambda: answers.fills_by_time(user, start, end),
            "userFunding": lambda: answers.funding(user, start, end),
            "subAccounts": lambda: answers.sub_accounts(user, self.now),
            "userNonFundingLedgerUpdates": lambda: [],
        }
        return accounts[kind]()

    def _state(self, answers: Answers, user: str, dex: tuple[str, ...]) -> Any:
        """The answer of `read_lag` answers ago, with the time of now: a node that lags behind."""
        states = self._states.setdefault((user, *dex), [])
        states.append(answers.state(user, self.now, *dex))
        return {**states[max(0, len(states) - 1 - self.read_lag)], "time": self.now}

    def _rate(self, coin: Coin) -> Decimal:
        """The running estimate: what the next hour will settle, if it was set; else the last settled rate."""
        listing = self.venue.listings[coin.name]
        if isinstance(listing, Walk) and listing.rate is not None:
            return listing.rate
        rates = list(listing.rates.values())
        return number(rates[-1]["fundingRate"]) if rates and not coin.delisted else Decimal(0)
