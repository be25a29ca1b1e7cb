"""HyperLiquidDEX: the real exchange, or its test network, through the official SDK.

Every request has a time limit. Reads are repeated a few times; orders are not: an order without a response has an
unknown status, which the caller has to look up. The coin table is read anew with the markets. Nonces follow the SDK's
clock; expiry times follow the exchange's, as the ``Date`` headers of its responses show it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import pandas as pd

from engine.clock import CLOCK_SECONDS, clock_error_bounds, least_error
from engine.coin import dex_of
from engine.data.api_client import install_429_hook, note_dates, sdk_request
from engine.data.meta import margin_tables
from engine.errors import DataError, LiveError, UnreachableError
from engine.live.credentials import Credentials, read_credentials
from engine.live.dex import DEX
from engine.live.hyperliquid_account import (
    AccountReader,
    check_role,
    expiring_agent,
    positions_alone,
    resting_orders,
)
from engine.live.hyperliquid_dexes import Pair, PerpDexes, query_of
from engine.live.hyperliquid_format import (
    best_quotes,
    observed,
    parse_results,
    read_fills,
    read_funding,
    read_market,
    read_status,
    refusal_text,
    tick_price,
    why_no_quote,
)
from engine.live.hyperliquid_leverage import active_leverage, send_signed, sign_leverages
from engine.live.orders import AccountState, Fill, Market, OrderRequest, OrderResult, OrderStatus
from engine.live.predecessor import PredecessorDEX
from engine.retries import RequestFailed, RetryPolicy, retry
from engine.urls import base_address, without_path

#: Waits before a read is repeated.
PATIENCE: Final = RetryPolicy((0.5, 1.0, 2.0), (5.0, 10.0, 20.0), 60.0)
#: A response with fewer rows holds the whole of its time range (pages have 500 or 2,000 rows).
PAGE_ROWS: Final = 500
#: Requests that are sent side by side at most.
_TOGETHER: Final = 10  # as many connections as a session of the SDK keeps
_T = TypeVar("_T")
_NO_SPOT: Final[dict[str, list[Any]]] = {"universe": [], "tokens": []}


class HyperLiquidDEX(PredecessorDEX):
    """An account on HyperLiquid.

    Parameters
    ----------
    network : {"testnet", "mainnet"}
        The exchange.
    base_url : str, optional
        Address of another host. The SDK signs for the main network at its own address, and only there.
    credentials : Credentials, str or Path, optional
        Default: :func:`engine.live.credentials.read_credentials`, called when an account is first needed.
    timeout_seconds : float
        Longest silence of the server.
    sleep : callable
        Waits between attempts.
    dexes : iterable of str
        Perp dexes whose coins are traded, ``""`` being the main one; their collateral must be USDC.
    """

    def __init__(
        self,
        network: str = "testnet",
        *,
        base_url: str | None = None,
        credentials: Credentials | str | Path | None = None,
        timeout_seconds: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
        dexes: Iterable[str] = ("",),
    ) -> None:
        if network not in ("testnet", "mainnet"):
            raise LiveError(f"Unknown network {network!r}: it must be 'testnet' or 'mainnet'.")
        self.network = network
        self.base_url = _other_host(network, base_url)
        self.timeout_seconds, self._sleep = timeout_seconds, sleep
        self._credentials = credentials
        self._api: Any = None
        self._sdk: Any = None
        self._dexes = PerpDexes(network, self._read, self._together)
        self._dexes.use(dexes)
        self._account: AccountReader | None = None
        self._unread: LiveError | None = None  # why a run that closes everything knows no more than some positions
        self._closing = False
        self._no_quotes: dict[str, str] = {}
        self._clock_lock = threading.Lock()
        self._clock_bounds = (-math.inf, math.inf)
        self._round_trip_seconds = 0.2

    def __repr__(self) -> str:
        return f"HyperLiquidDEX({self.network!r}, base_url={self.base_url and self._host()!r})"

    # Identity ---------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The account that is traded: the vault or sub-account, else the master; never the agent's."""
        credentials = self._load_credentials()
        if credentials.vault_address:
            return credentials.vault_address
        return credentials.account_address or str(self._wallet().address)

    @property
    def label(self) -> str:
        """Network and the first digits of the account's address."""
        return f"{self.network}-{self.address[:10].lower()}"

    def warnings(self) -> list[str]:
        """That this machine's clock is wrong, orders rest, or that an agent wallet expires within two weeks."""
        warnings = []
        if abs(error := self.clock_error_seconds()) > CLOCK_SECONDS:
            warnings.append(
                f"this machine's clock is {abs(error):,.0f} s {'ahead of' if error > 0 else 'behind'} the exchange's: "
                "let it follow a time server"
            )
        orders = partial(self._read, "openOrders", list, list, user=self.address)
        rows = self._together(*(partial(orders, **query_of(dex)) for dex in self._dexes.used))
        warnings += resting_orders([row for of_dex in rows for row in of_dex])
        credentials, own = self._load_credentials(), self._own_address()
        if not credentials.account_address or credentials.account_address.lower() == own:
            return warnings
        # The one agent without a name is not listed.
        expiring = partial(expiring_agent, own, self.clock_ms())
        return warnings + self._read("extraAgents", list, expiring, user=credentials.account_address)

    def feed(self) -> DEX:
        """The main network: prices of the test network mean nothing. Another host is its own feed."""
        if self.network == "mainnet" or self.base_url is not None:
            return self
        dexes = self._dexes.used
        return HyperLiquidDEX("mainnet", timeout_seconds=self.timeout_seconds, sleep=self._sleep, dexes=dexes)

    def use_dexes(self, names: Iterable[str]) -> None:
        """Trade the coins of these perp dexes, and of no others."""
        self._dexes.use(names)

    def _load_credentials(self) -> Credentials:
        if not isinstance(self._credentials, Credentials):
            self._credentials = read_credentials(self._credentials)
        return self._credentials

    def _own_address(self) -> str:
        return str(self._wallet().address).lower()

    def _check_key(self) -> None:
        """Refuse a key whose orders would trade another account than the one that is read.

        An order trades the account of its signature: the key's own, or its master's. Positions are read from
        ``account_address``, and the exchange does not compare the two. (With a vault it does.)
        """
        credentials, own = self._load_credentials(), self._own_address()
        master = (credentials.account_address or own).lower()
        if credentials.vault_address or master == own:
            return
        self._read("userRole", dict, partial(check_role, own, master), user=own)

    def _wallet(self) -> Any:
        from eth_account import Account

        try:
            return Account.from_key(self._load_credentials().secret_key)
        except Exception:
            # Without the cause: libraries quote the key that they reject.
            raise LiveError("The secret_key of the credentials is no valid private key.") from None

    # Reads ------------------------------------------------------------------------------------------------------------

    def account(self) -> AccountState:
        """Equity and positions: of the dexes that are traded, with what the others and the spot account hold.

        Raises
        ------
        LiveError
            For a key that is not the account's, for an account mode that is not supported, and for a dex that does not
            exist or has another collateral.
        UnreachableError
            When the exchange does not answer for one of the dexes.
        """
        state = self._reader().state()
        if state.doubt:  # figures that were read one after the other, while prices moved, or from a node that lags
            self._sleep(PATIENCE.after_failure[0])
            state = self._reader().state()
        return state

    def _reader(self) -> AccountReader:
        if self._account is None:
            reader = AccountReader(self.address, self._read, self._together, self._dexes)
            self._together(self._check_key, reader.start)
            self._account = reader
        return self._account

    def closing_account(self) -> AccountState:
        """The account; of the dexes that are traded and answer alone, without equity, once not all can be read."""
        self._closing = True
        if self._unread is None:
            try:
                return self.account()
            except LiveError as error:
                self._check_key()
                self._unread = error
        reader = AccountReader(self.address, self._read, self._together, self._dexes)
        states = self._dexes.of_each(reader.dex_state, closing=True)
        unread = [dex for dex in self._dexes.used if dex not in states]
        return positions_alone(list(states.values()), unread, self._unread)

    def markets(self) -> Mapping[str, Market]:
        """Coins that are listed and have a mid; one whose figures cannot be read is left out, whatever the others."""
        pairs = self._contexts()
        self._no_quotes = {entry["name"]: why_no_quote(entry, context) for entry, context in pairs}
        tables = {dex: _margin_tables(meta) for dex, meta in self._dexes.metas.items()}
        markets = (read_market(entry, context, tables[dex_of(entry["name"])]) for entry, context in pairs)
        return {market.coin: market for market in markets if market is not None}

    def why_no_quote(self, coin: str) -> str:
        """By the coin table and the state of its market."""
        return self._no_quotes.get(coin) or self._dexes.why_lost(coin) or "it is not in the exchange's coin table"

    def unlisted(self, coins: Iterable[str]) -> list[str]:
        """Names without an entry in the coin table; the test network's table differs, so there none is known."""
        if self.network != "mainnet":
            return []
        known = {entry["name"] for entry, _ in self._contexts()}
        return [coin for coin in coins if coin not in known]

    def quoted(self, market: Market) -> Market:
        """`market` with the best level of each side of its book."""
        bid, ask = self._read("l2Book", dict, best_quotes, coin=market.coin)
        return replace(market, bid=bid, ask=ask) if bid and ask else replace(market, bid=None, ask=None)

    def live_row(self) -> Mapping[str, Mapping[str, float]]:
        """Mid, mark, oracle, open interest, impact prices and the day's volume of every coin; NaN where not known."""
        row: dict[str, dict[str, float]] = {}
        for entry, context in self._contexts():
            if not entry.get("isDelisted"):
                for name, value in observed(context).items():
                    row.setdefault(name, {})[entry["name"]] = value
        return row

    def fills(self, since: pd.Timestamp) -> list[Fill]:
        """Fills of the account, oldest first, from as many pages as it takes."""
        start, fills = int(since.timestamp() * 1000), dict[tuple[int, int], Fill]()
        while True:
            page = self._read("userFillsByTime", list, read_fills, user=self.address, startTime=start)
            fills.update((key, fill) for key, _, fill in page)
            if len(page) < PAGE_ROWS:
                return sorted(fills.values(), key=lambda fill: fill.time)
            # From the last millisecond again: the page may have cut it.
            start = max(start + 1, *(time_ms for _, time_ms, _ in page))

    def funding_paid(self, since: pd.Timestamp, until: pd.Timestamp) -> float | None:
        """``userFunding`` of the hours, from as many pages as it takes; a rate is stamped just after its hour."""
        start, end = (int(instant.timestamp() * 1000) for instant in (since, until))
        paid = dict[tuple[int, str], float]()
        while True:
            of_page = dict(user=self.address, startTime=start, endTime=end - 1)
            page = self._read("userFunding", list, read_funding, **of_page)
            new = {key: usd for key, usd in page if key not in paid}
            paid.update(new)
            if len(page) < PAGE_ROWS or not new:
                return math.fsum(paid.values())
            start = max(time_ms for time_ms, _ in paid)

    def find_order(self, order: OrderRequest) -> OrderResult | None:
        """``orderStatus`` by client order id; an order that rests is cancelled, and stays unknown until it is gone."""
        result = self._read("orderStatus", dict, partial(read_status, order), user=self.address, oid=order.cloid)
        if result is not None and result.fate == "unknown":
            self._cancel(order)
        return result

    def _contexts(self) -> list[Pair]:
        """Coin tables and state of the markets, and the SDK's own table brought up to date."""
        pairs = self._dexes.contexts(self._closing)
        if self._sdk is not None:
            self._name_assets()
        return pairs

    def _name_assets(self) -> None:
        """What the SDK's `perp_dexs` does, without its requests, which have no time limit of ours and no retries."""
        for dex, meta in self._dexes.metas.items():
            self._sdk.info.set_perp_meta(meta, self._dexes.first_id(dex))

    # Actions ----------------------------------------------------------------------------------------------------------

    def clock_ms(self) -> int:
        """The exchange's time: that of this machine, less its error."""
        return _wall_ms() - round(1000.0 * self.clock_error_seconds())

    def clock_error_seconds(self) -> float:
        """The least error that explains the dates of all responses so far; positive: this machine is ahead."""
        return least_error(*self._clock_bounds)

    def _note_date(self, date: str, before_ms: int, after_ms: int, seconds: float) -> None:
        """Narrow the bounds of this machine's clock error."""
        self._round_trip_seconds = seconds
        before, after = before_ms / 1000.0, after_ms / 1000.0
        try:
            low, high = clock_error_bounds(date, before, after)
        except ValueError:
            return
        with self._clock_lock:
            both = max(low, self._clock_bounds[0]), min(high, self._clock_bounds[1])
            self._clock_bounds = both if both[0] <= both[1] else (low, high)  # the clock was set meanwhile

    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
        """One signed request; whatever goes wrong after it was sent makes the status unknown."""
        from hyperliquid.utils.types import Cloid

        sdk = self._exchange()
        requests = [
            {
                "coin": order.coin,
                "is_buy": order.units > 0.0,
                "sz": abs(order.units),
                "limit_px": order.limit_price,
                "order_type": {"limit": {"tif": "Ioc"}},
                "reduce_only": order.reduce_only,
                "cloid": Cloid.from_str(order.cloid),
            }
            for order in orders
        ]
        sdk.set_expires_after(expires_ms)
        try:
            response = sdk_request(lambda: sdk.bulk_orders(requests), dict, sdk, PATIENCE)
        except RequestFailed as fault:
            status: OrderStatus = "rejected" if fault.certain else "unknown"
            return [OrderResult(order.cloid, status, reason=str(fault)) for order in orders]
        finally:
            sdk.set_expires_after(None)
        return parse_results(response, orders)

    def _cancel(self, order: OrderRequest) -> None:
        """Cancel by client order id; an order that is gone already is no error."""
        from hyperliquid.utils.types import Cloid

        sdk = self._exchange()
        self._repeated(sdk, lambda: sdk.cancel_by_cloid(order.coin, Cloid.from_str(order.cloid)), dict, "cancelByCloid")

    def leverages(self, markets: Sequence[Market]) -> Mapping[str, int]:
        """``activeAssetData`` side by side; a coin of the other margin mode is left out, to be set."""
        read = partial(self._read, "activeAssetData", dict, user=self.address)
        values = self._together(*(partial(read, partial(active_leverage, at.cross), coin=at.coin) for at in markets))
        return {at.coin: value for at, value in zip(markets, values, strict=True) if value}

    def set_leverages(self, wanted: Sequence[tuple[Market, int]]) -> list[str]:
        """``updateLeverage`` side by side; what has no response is sent again, by itself, which does no harm."""
        sdk = self._exchange()
        with ThreadPoolExecutor(_TOGETHER) as pool:
            sent = [pool.submit(send_signed, sdk, action, PATIENCE) for action in sign_leverages(sdk, wanted)]
            responses = [future.result() for future in sent]
        for at, (market, leverage) in enumerate(wanted):
            if responses[at] is None:
                again = partial(sdk.update_leverage, leverage, market.coin, market.cross)
                responses[at] = self._repeated(self._exchange(), again, dict, "updateLeverage")
        return [refusal_text(response) for response in responses]

    def leverage_seconds(self, count: int) -> float:
        """By the time that the last response took."""
        return math.ceil(count / _TOGETHER) * self._round_trip_seconds

    def round_price(self, market: Market, price: float, buy: bool) -> float:
        """The nearest price on the grid of :func:`tick_price` that is no worse for the account."""
        return tick_price(price, market.sz_decimals or 0, down=buy)

    def _exchange(self) -> Any:
        """The SDK's ``Exchange``, built without a request."""
        from hyperliquid.exchange import Exchange

        if self._sdk is None:
            if not self._dexes.metas.keys() >= set(self._dexes.used):
                self._contexts()
            credentials = self._load_credentials()
            self._sdk = Exchange(
                self._wallet(),
                self._url(),
                meta={"universe": []},
                vault_address=credentials.vault_address,
                account_address=self.address,
                spot_meta=_NO_SPOT,
                timeout=self.timeout_seconds,
            )
            note_dates(self._sdk, _wall_ms, self._note_date)
            install_429_hook(self._sdk)
            self._name_assets()
        # A nonce is a millisecond: two actions in one would be one.
        time.sleep(0.002)
        return self._sdk

    # Requests ---------------------------------------------------------------------------------------------------------

    def _url(self) -> str:
        from hyperliquid.utils.constants import MAINNET_API_URL, TESTNET_API_URL

        return self.base_url or str(MAINNET_API_URL if self.network == "mainnet" else TESTNET_API_URL)

    def _host(self) -> str:
        """The address as messages show it: without its path, which may hold a token."""
        return without_path(self._url(), self._url())

    def _connect(self) -> Any:
        from hyperliquid.api import API

        if self._api is None:
            # Not Info: without `meta` and `spot_meta` its constructor requests both, and fails with the spot market.
            self._api = API(self._url(), timeout=self.timeout_seconds)
            note_dates(self._api, _wall_ms, self._note_date)
            install_429_hook(self._api)
        return self._api

    def _together(self, *reads: Callable[[], Any]) -> list[Any]:
        """Results of reads that are sent side by side, in their order; the first failure is raised once all ended."""
        if len(reads) < 2:
            return [read() for read in reads]
        self._connect()
        with ThreadPoolExecutor(min(_TOGETHER, len(reads))) as pool:
            return [future.result() for future in [pool.submit(read) for read in reads]]

    def _repeated(self, api: Any, call: Callable[[], Any], wanted: type | tuple[type, ...], what: str) -> Any:
        """The response of `call`, which is of type `wanted`, after a few attempts."""
        try:
            return retry(lambda: sdk_request(call, wanted, api, PATIENCE), self._sleep)
        except RequestFailed as fault:
            raise UnreachableError(
                f"{self._host()} does not answer {what}: {fault}. Check the network and the exchange's status page, "
                "then run the command again: it continues where it stopped."
            ) from fault

    def _read(self, kind: str, wanted: type | tuple[type, ...], parse: Callable[[Any], _T], **query: Any) -> _T:
        """The response to a query, parsed; whatever is wrong with its form is one error for the user."""
        api = self._connect()
        what = f"{kind} of the perp dex {query['dex']}" if "dex" in query else kind
        response = self._repeated(api, lambda: api.post("/info", {"type": kind, **query}), wanted, what)
        try:
            return parse(response)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise UnreachableError(
                f"{self._host()} answers {kind} in a form that is not known ({error!r}). Nothing is traded on a "
                "response that cannot be read: update hlbt."
            ) from error


def _other_host(network: str, base_url: str | None) -> str | None:
    """`base_url`, or None where it is the network's own; the other network's, never confirmed, is refused."""
    from hyperliquid.utils.constants import MAINNET_API_URL, TESTNET_API_URL

    if not base_url:
        return None
    base_url = base_address(base_url, "--base-url")
    for name, own in (("mainnet", MAINNET_API_URL), ("testnet", TESTNET_API_URL)):
        if urlsplit(base_url).hostname == (host := urlsplit(own).hostname):
            if name != network:
                raise LiveError(f"{host} is the address of {name}, not of {network}. Remove --base-url, set --network.")
            return None
    return base_url


def _margin_tables(meta: Mapping[str, Any]) -> Mapping[int, tuple[tuple[float, float], ...]]:
    try:
        return margin_tables(meta.get("marginTables"), "metaAndAssetCtxs")
    except DataError:  # the exchange refuses what is too large all the same; a close must not wait for a table
        return {}


def _wall_ms() -> int:
    """The SDK's clock, with which it stamps nonces."""
    from hyperliquid.utils.signing import get_timestamp_ms

    return int(get_timestamp_ms())
