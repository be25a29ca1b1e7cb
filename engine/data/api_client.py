"""Requests to HyperLiquid's API through the official SDK: rate limit, time limit, failures as one exception.

What the responses mean is in :mod:`engine.data.api_records`, what is requested in :mod:`engine.data.sync_api`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd

from engine.clock import parse_http_date
from engine.coin import dex_of
from engine.data.api_records import CANDLES, REQUEST_WEIGHT, HistoryType, Page
from engine.data.coin_table import CoinMeta
from engine.data.meta import MAIN_COLLATERAL, amount, parse_meta
from engine.data.rate_limit import RateLimiter
from engine.data.schema import EARLIEST, HOUR_MS
from engine.errors import DataError, did_you_mean, join_first, truncate
from engine.retries import DEADLINE, RequestFailed, RetryPolicy, retry, within
from engine.urls import base_address, without_path

RETRY_POLICY: Final = RetryPolicy((1.0, 2.0, 4.0, 8.0), (10.0, 20.0, 40.0, 60.0), 300.0)


class _RateLimited(Exception):
    """HTTP 429; `seconds` are the server's ``Retry-After``, 0 without one."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


def install_429_hook(api: Any) -> None:
    """Notice "too many requests" before the SDK, which cannot read every form of it; `api` is an object of the SDK."""

    def check_status(response: Any, *_: Any, **__: Any) -> None:
        if response.status_code == 429:
            response.close()
            retry_after = response.headers.get("Retry-After", "")
            raise _RateLimited(float(retry_after) if retry_after.isdecimal() else 0.0)

    api.session.hooks["response"].append(check_status)


def note_dates(api: Any, clock: Callable[[], int], note: Callable[[str, int, int, float], object]) -> None:
    """Call `note` with the ``Date`` of each response, the times of `clock` around its request, and its seconds.

    The seconds are of a clock that nobody sets: two times of `clock` may be the same, or out of order.

    A hook would know how long the request took, but not when: a busy machine calls it later.
    """
    from requests.adapters import HTTPAdapter

    class Dated(HTTPAdapter):
        def send(self, *arguments: Any, **options: Any) -> Any:
            before, start = clock(), time.monotonic()
            response = super().send(*arguments, **options)
            note(response.headers.get("Date", ""), before, clock(), time.monotonic() - start)
            return response

    for scheme in ("http://", "https://"):
        api.session.mount(scheme, Dated())


def sdk_request(call: Callable[[], Any], response_type: type | tuple[type, ...], api: Any, policy: RetryPolicy) -> Any:
    """Send one request through the SDK.

    Parameters
    ----------
    call : callable
        Sends the request with `api`.
    response_type : type or tuple of type
        Of the parsed response.
    api : hyperliquid.api.API
        One on which :func:`install_429_hook` was called. Its time limit is for each read; the whole request may take
        :data:`engine.retries.DEADLINE` times that.
    policy : RetryPolicy
        How long to wait before the request may be sent again.

    Raises
    ------
    RequestFailed
        Whatever went wrong.
    """
    from hyperliquid.utils.error import ClientError, ServerError

    def quoted(value: object) -> str:
        return truncate(without_path(value, api.base_url))

    try:
        response = within(DEADLINE * api.timeout, call)
    except _RateLimited as error:
        waits = [max(wait, min(error.seconds, policy.longest_retry_after)) for wait in policy.when_rate_limited]
        raise RequestFailed("too many requests (HTTP 429)", waits, certain=True) from error
    except ClientError as error:
        raise RequestFailed(
            f"refused with HTTP {error.status_code}: {quoted(error.error_message)}", certain=True
        ) from error
    except ServerError as error:
        raise RequestFailed(f"HTTP {error.status_code}: {quoted(error.message)}", policy.after_failure) from error
    except OSError as error:  # what `requests` raises is one
        if type(error) is TimeoutError:
            late = f"no whole answer within {DEADLINE * api.timeout:g} s"
            raise RequestFailed(late, policy.after_failure) from error
        if "Timeout" in type(error).__name__:
            raise RequestFailed(f"no answer within {api.timeout:g} s", policy.after_failure) from error
        raise RequestFailed(f"no connection ({quoted(error)})", policy.after_failure) from error
    except ValueError as error:  # the SDK's own check of a number, before anything is sent
        raise RequestFailed(f"cannot be sent: {error}", certain=True) from error
    except (KeyError, TypeError, AttributeError) as error:
        # The SDK fails on a refusal that is JSON, but not of the form that it expects.
        raise RequestFailed(f"refused, in a form that the SDK cannot read ({error!r})", policy.after_failure) from error
    if not isinstance(response, response_type) or (isinstance(response, dict) and set(response) == {"error"}):
        raise RequestFailed(f"an unexpected response: {quoted(response)}", policy.after_failure)
    return response


class InfoClient:
    """The SDK's ``Info``: within the rate limit, with a time limit, with retries; every failure is a ``RequestFailed``.

    Parameters
    ----------
    base_url : str or None
        None is the main network.
    timeout_seconds : float
        Longest silence of the server.
    rate_limiter : RateLimiter
        Keeps the request budget.
    """

    def __init__(self, base_url: str | None, timeout_seconds: float, rate_limiter: RateLimiter) -> None:
        from hyperliquid.api import API

        self.rate_limiter = rate_limiter
        self.timeout_seconds = timeout_seconds
        # Not Info yet: without `meta` and `spot_meta` its constructor requests both, and fails when the spot market
        # is broken.
        self._api = API(base_address(base_url, "--base-url") if base_url else None, timeout=timeout_seconds)
        install_429_hook(self._api)
        self._api.session.hooks["response"].append(self._note_date)
        self.base_url = str(self._api.base_url)
        #: The exchange's time by the ``Date`` of its last response to `metas`; None where that has none, or nonsense.
        self.server_time: pd.Timestamp | None = None
        #: What cannot be read of the exchange's lists of coins, and why.
        self.unreadable: list[str] = []
        #: Dexes without a usable list of coins, and why.
        self.failed: dict[str, str] = {}
        #: The address for messages.
        self.shown_url = without_path(self.base_url, self.base_url)

    def _note_date(self, response: Any, *_: Any, **__: Any) -> None:
        try:
            date = parse_http_date(response.headers.get("Date", ""))
        except (ValueError, OverflowError):
            date = EARLIEST
        self.server_time = date if date > EARLIEST else None

    def metas(self, dexes: Sequence[str] = ("",), known: Collection[str] = ()) -> tuple[CoinMeta, ...]:
        """The coins of some dexes of the exchange, delisted ones too.

        A dex that gives no usable list is in `failed`, while another one does; so is one of `known`, which the exchange
        had before, when it is gone.

        Raises
        ------
        DataError
            When none gives one, or the exchange has no dex of that name.
        """
        from hyperliquid.info import Info

        responses, multipliers = self._lists(dexes, known)
        tokens = self._tokens(responses.values())
        metas: list[CoinMeta] = []
        for dex, response in responses.items():
            where = f"meta of {self.shown_url}" + (f" (dex {dex})" if dex else "")
            try:
                own = parse_meta(response, where, self.unreadable, tokens)
                if foreign := [meta.name for meta in own if dex_of(meta.name) != dex]:
                    raise DataError(f"{where}: {join_first(foreign)} in it, of another dex")
                metas += [replace(meta, funding_multiplier=multipliers.get(meta.name)) for meta in own]
            except DataError as error:
                self.failed[dex] = str(error)
        if not metas and responses:
            raise DataError(next(iter(self.failed.values())))
        if not metas:
            raise DataError(
                f"{self.shown_url} gives no list of coins: {next(iter(self.failed.values()))}. Nothing was synced. "
                "Check the network and the address (--base-url), or try later; the exchange reports outages on its "
                "status page."
            )
        self._info = Info(
            self.base_url,
            skip_ws=True,
            # The SDK reads the lots of every coin, and fails where one lacks them; history is requested by name.
            meta={"universe": [{"name": meta.name, "szDecimals": meta.sz_decimals} for meta in metas]},
            spot_meta={"universe": [], "tokens": []},
            timeout=self.timeout_seconds,
        )
        install_429_hook(self._info)
        return tuple(metas)

    def _info_request(self, payload: dict[str, str], response_type: type) -> Any:
        """An info request of the plain weight."""
        return self._request(
            lambda: self._api.post("/info", payload), response_type, REQUEST_WEIGHT, lambda _: REQUEST_WEIGHT
        )

    def _lists(self, dexes: Sequence[str], known: Collection[str]) -> tuple[dict[str, Any], dict[str, float]]:
        """The lists of coins by dex, and what builders multiply funding with by coin; `failed` has the other dexes."""
        responses: dict[str, Any] = {}
        multipliers: dict[str, float] = {}
        self.failed = {}
        try:
            if any(dexes):
                multipliers = self._multipliers(dexes, known)
        except RequestFailed as failure:
            self.failed |= {dex: str(failure) for dex in dexes if dex}
        for dex in dexes:
            try:
                if dex not in self.failed:
                    payload = {"type": "metaAndAssetCtxs", "dex": dex} if dex else {"type": "meta"}
                    responses[dex] = self._info_request(payload, list if dex else dict)
            except RequestFailed as failure:
                self.failed[dex] = str(failure)
        return responses, multipliers

    def _multipliers(self, dexes: Sequence[str], known: Collection[str]) -> dict[str, float]:
        """What builders multiply funding with, by coin; refuses a dex that the exchange does not have and never had."""
        listed = [one for one in self._info_request({"type": "perpDexs"}, list) if isinstance(one, dict)]
        names = [str(one.get("name")) for one in listed]
        absent = [dex for dex in dexes if dex and dex not in names]
        self.failed = {dex: "the exchange no longer has it" for dex in absent if dex in known}
        if unknown := [dex for dex in absent if dex not in known]:
            raise DataError(
                f"{self.shown_url} has no dex {unknown[0]!r}.{did_you_mean(unknown[0], names)} It has: "
                f"{join_first(names)}. Names are case-sensitive; '' is the main one."
            )
        multipliers: dict[str, float] = {}
        for one in listed:
            try:
                pairs = dict(one.get("assetToFundingMultiplier") or ()) if one["name"] in dexes else {}
            except (TypeError, ValueError):
                self.unreadable.append(f"the funding multipliers of {one['name']}")
                continue
            known = {coin: amount(text) for coin, text in pairs.items()}
            multipliers |= {str(coin): value for coin, value in known.items() if value is not None and value >= 0.0}
        return multipliers

    def _tokens(self, responses: Iterable[Any]) -> Mapping[int, str]:
        """Names of collateral tokens; the spot market is asked only where a dex is not settled in USDC."""
        bodies = [response[0] if isinstance(response, list) and response else response for response in responses]
        numbers = {body.get("collateralToken", 0) for body in bodies if isinstance(body, dict)}
        if numbers <= {*MAIN_COLLATERAL}:
            return MAIN_COLLATERAL
        try:
            tokens = self._info_request({"type": "spotMeta"}, dict)["tokens"]
            return {**{int(token["index"]): str(token["name"]) for token in tokens}, **MAIN_COLLATERAL}
        except (RequestFailed, KeyError, TypeError, ValueError) as error:
            self.unreadable.append(f"the names of collateral tokens ({error})")
            return MAIN_COLLATERAL

    def page(self, history: HistoryType, coin: str, first: int, last: int) -> Page:
        """The response for the rows `first` to `last`, hour numbers."""
        if history is CANDLES:
            # A candle's row is the hour after its open; the one that opens at `last` is not finished.
            span = ((first - 1) * HOUR_MS, (last - 1) * HOUR_MS)
            response = self._history(history, lambda: self._info.candles_snapshot(coin, "1h", *span), last - first + 1)
        else:
            # Rates are stamped after their hour, once 24 minutes after it.
            span = (first * HOUR_MS, (last + 1) * HOUR_MS - 1)
            response = self._history(history, lambda: self._info.funding_history(coin, *span), last - first + 1)
        return history.read(response, coin, first, last)

    def _history(self, history: HistoryType, call: Callable[[], Any], hours: int) -> Any:
        most = history.weight(min(hours, history.max_items))
        return self._request(call, list, most, lambda response: history.weight(len(response)))

    def _request(self, call: Callable[[], Any], response_type: type, most: int, weigh: Callable[[Any], int]) -> Any:
        """Send a request that weighs at most `most`, again where it fails."""

        def once() -> Any:
            self.rate_limiter.reserve(most)
            # A request that failed is charged at most for its response: it counts as if that had come.
            weight = most
            try:
                response = sdk_request(call, response_type, self._api, RETRY_POLICY)
                weight = weigh(response)
                return response
            finally:
                self.rate_limiter.settle(weight)

        return retry(once, self.rate_limiter.sleep)
