"""Asking HyperLiquid's `/info` through the official SDK: paced, with a time limit, with bounded retries.

What the answers mean is in :mod:`engine.data.api_records`, what is asked for in :mod:`engine.data.sync_api`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine.data.api_records import CANDLES, REQUEST_WEIGHT, HistoryType, Page
from engine.data.coin_table import CoinMeta
from engine.data.meta import parse_meta
from engine.data.rate_limit import RateLimiter
from engine.errors import DataError, truncate
from engine.urls import base_address, without_path

_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds to wait before the second, third, ... attempt.

    Attributes
    ----------
    usual : tuple of float
        After most faults.
    crowded : tuple of float
        After "too many requests".
    longest : float
        The longest wait that a ``Retry-After`` is granted.
    """

    usual: tuple[float, ...]
    crowded: tuple[float, ...]
    longest: float


PATIENCE: Final = RetryPolicy((1.0, 2.0, 4.0, 8.0), (10.0, 20.0, 40.0, 60.0), 300.0)


class RequestFailed(Exception):
    """A request that failed; the message is the reason.

    Parameters
    ----------
    reason : str
        For people.
    waits : sequence of float
        Seconds to wait before each further attempt; empty when another one is pointless.
    certain : bool
        It surely had no effect. An order that failed in another way may have been executed.
    """

    def __init__(self, reason: str, waits: Sequence[float] = (), certain: bool = False) -> None:
        super().__init__(reason)
        self.waits, self.certain = waits, certain


class _RateLimited(Exception):
    """HTTP 429; `seconds` are the server's ``Retry-After``, 0 without one."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


def install_429_hook(api: Any) -> None:
    """Notice "too many requests" before the SDK, which cannot read every form of it; `api` is an object of the SDK."""

    def look(response: Any, *_: Any, **__: Any) -> None:
        if response.status_code == 429:
            asked = response.headers.get("Retry-After", "")
            raise _RateLimited(float(asked) if asked.isdecimal() else 0.0)

    api.session.hooks["response"].append(look)


def attempt(call: Callable[[], Any], wanted: type | tuple[type, ...], api: Any, patience: RetryPolicy) -> Any:
    """One request through the SDK.

    Parameters
    ----------
    call : callable
        Makes the request with `api`.
    wanted : type or tuple of type
        Of the answer.
    api : hyperliquid.api.API
        One that :func:`install_429_hook` has seen.
    patience : RetryPolicy
        Of the fault that is raised.

    Raises
    ------
    Fault
        Whatever went wrong.
    """
    from hyperliquid.utils.error import ClientError, ServerError

    def told(value: object) -> str:
        return truncate(without_path(value, api.base_url))

    try:
        answer = call()
    except _RateLimited as error:
        waits = [max(wait, min(error.seconds, patience.longest)) for wait in patience.crowded]
        raise RequestFailed("too many requests (HTTP 429)", waits, certain=True) from error
    except ClientError as error:
        raise RequestFailed(
            f"refused with HTTP {error.status_code}: {told(error.error_message)}", certain=True
        ) from error
    except ServerError as error:
        raise RequestFailed(f"HTTP {error.status_code}: {told(error.message)}", patience.usual) from error
    except OSError as error:  # what `requests` raises is one
        if "Timeout" in type(error).__name__:
            raise RequestFailed(f"no answer within {api.timeout:g} s", patience.usual) from error
        raise RequestFailed(f"no connection ({told(error)})", patience.usual) from error
    except ValueError as error:  # the SDK's own check of a number, before anything is sent
        raise RequestFailed(f"cannot be sent: {error}", certain=True) from error
    except (KeyError, TypeError, AttributeError) as error:
        # The SDK trips over a refusal that is JSON, but not of its own form.
        raise RequestFailed(f"refused, in a form that the SDK cannot read ({error!r})", patience.usual) from error
    if not isinstance(answer, wanted) or (isinstance(answer, dict) and set(answer) == {"error"}):
        raise RequestFailed(f"not the answer that was asked for but {told(answer)}", patience.usual)
    return answer


class Exchange:
    """The SDK's ``Info``: paced, with a time limit, with bounded retries, and with every failure a ``RequestFailed``.

    Parameters
    ----------
    base_url : str or None
        None is the main network.
    timeout_seconds : float
        Longest silence of the server.
    pacer : RateLimiter
        Keeps the request budget.
    """

    def __init__(self, base_url: str | None, timeout_seconds: float, pacer: RateLimiter) -> None:
        from hyperliquid.api import API

        self.pacer = pacer
        self.timeout_seconds = timeout_seconds
        # Not Info yet: without `meta` and `spot_meta` its constructor asks for both, and a broken spot market kills it.
        self._api = API(base_address(base_url, "--base-url") if base_url else None, timeout=timeout_seconds)
        install_429_hook(self._api)
        self.base_url = str(self._api.base_url)
        #: The address for people.
        self.shown = without_path(self.base_url, self.base_url)

    def metas(self) -> tuple[CoinMeta, ...]:
        """The coins of the exchange, delisted ones too.

        Raises
        ------
        DataError
            When there is no usable answer.
        """
        from hyperliquid.info import Info

        try:
            answer = self._ask(
                lambda: self._api.post("/info", {"type": "meta"}), dict, REQUEST_WEIGHT, lambda _: REQUEST_WEIGHT
            )
        except RequestFailed as fault:
            raise DataError(
                f"{self.shown} gives no list of coins: {fault}. Nothing was synced. Check the network and the "
                "address (--base-url), or try later; the exchange reports outages on its status page."
            ) from fault
        metas = parse_meta(answer, f"meta of {self.shown}")
        self._info = Info(
            self.base_url,
            skip_ws=True,
            meta=answer,
            spot_meta={"universe": [], "tokens": []},
            timeout=self.timeout_seconds,
        )
        install_429_hook(self._info)
        return metas

    def page(self, kind: HistoryType, coin: str, first: int, last: int) -> Page:
        """One answer for the rows `first` to `last`, hour numbers."""
        if kind is CANDLES:
            # A candle's row is the hour after its open; the one that opens at `last` is not finished.
            span = ((first - 1) * _HOUR_MS, (last - 1) * _HOUR_MS)
            answer = self._ask(
                lambda: self._info.candles_snapshot(coin, "1h", *span), list, *self._cost(kind, last - first + 1)
            )
        else:
            # Rates are stamped after their hour, once 24 minutes after it.
            span = (first * _HOUR_MS, (last + 1) * _HOUR_MS - 1)
            answer = self._ask(
                lambda: self._info.funding_history(coin, *span), list, *self._cost(kind, last - first + 1)
            )
        return kind.read(answer, coin, first, last)

    def _cost(self, kind: HistoryType, hours: int) -> tuple[int, Callable[[Any], int]]:
        return kind.weight(min(hours, kind.cap)), lambda answer: kind.weight(len(answer))

    def _ask(self, call: Callable[[], Any], wanted: type, most: int, cost: Callable[[Any], int]) -> Any:
        """Ask until there is an answer of the type `wanted`, or the attempts are used up."""
        failed = 0
        while True:
            self.pacer.reserve(most)
            # A request that failed is charged at most for its answer: it counts as if it had come.
            weight = most
            try:
                answer = attempt(call, wanted, self._api, PATIENCE)
                weight = cost(answer)
                return answer
            except RequestFailed as fault:
                if failed == len(fault.waits):
                    tried = f" ({failed + 1} attempts)" if failed else ""
                    raise RequestFailed(f"{fault}{tried}") from fault
                wait = fault.waits[failed]
            finally:
                self.pacer.settle(weight)
            failed += 1
            self.pacer.sleep(wait)
