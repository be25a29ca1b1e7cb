"""Asking HyperLiquid's `/info` through the official SDK: paced, with a time limit, with bounded retries.

What the answers mean is in :mod:`engine.data.answers`, what is asked for in :mod:`engine.data.api`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from engine.addresses import base_address, without_path
from engine.data.answers import CANDLES, REQUEST_WEIGHT, Kind, Page
from engine.data.coins import CoinMeta, parse_meta
from engine.data.pacing import Pacer
from engine.errors import DataError, short

#: Waits before the second, third, ... attempt, in seconds: after most faults; after "too many requests".
BACKOFF_SECONDS: Final = (1.0, 2.0, 4.0, 8.0)
CROWDED_SECONDS: Final = (10.0, 20.0, 40.0, 60.0)
#: The longest wait that a server's Retry-After is granted.
LONGEST_WAIT_SECONDS: Final = 300.0
_HOUR_MS = 3_600_000


class Fault(Exception):
    """A request that failed; the message is the reason.

    Parameters
    ----------
    reason : str
        For people.
    waits : sequence of float
        Seconds to wait before each further attempt; empty when another one is pointless.
    """

    def __init__(self, reason: str, waits: Sequence[float] = BACKOFF_SECONDS) -> None:
        super().__init__(reason)
        self.waits = waits


class Exchange:
    """The SDK's ``Info``: paced, with a time limit, with bounded retries, and with every failure a :class:`Fault`.

    Parameters
    ----------
    base_url : str or None
        None is the main network.
    timeout_seconds : float
        Longest silence of the server.
    pacer : Pacer
        Keeps the request budget.
    """

    def __init__(self, base_url: str | None, timeout_seconds: float, pacer: Pacer) -> None:
        from hyperliquid.api import API

        self.pacer = pacer
        self.timeout_seconds = timeout_seconds
        # Not Info yet: without `meta` and `spot_meta` its constructor asks for both, and a broken spot market kills it.
        self._api = API(base_address(base_url, "--base-url") if base_url else None, timeout=timeout_seconds)
        self._api.session.hooks["response"].append(_turn_away)
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
        except Fault as fault:
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
        self._info.session.hooks["response"].append(_turn_away)
        return metas

    def page(self, kind: Kind, coin: str, first: int, last: int) -> Page:
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

    def _cost(self, kind: Kind, hours: int) -> tuple[int, Callable[[Any], int]]:
        return kind.weight(min(hours, kind.cap)), lambda answer: kind.weight(len(answer))

    def _ask(self, call: Callable[[], Any], wanted: type, most: int, cost: Callable[[Any], int]) -> Any:
        """Ask until there is an answer of the type `wanted`, or the attempts are used up."""
        attempt = 0
        while True:
            self.pacer.reserve(most)
            # A request that failed is charged at most for its answer: it counts as if it had come.
            weight = most
            try:
                answer = self._call(call, wanted)
                weight = cost(answer)
                return answer
            except Fault as fault:
                if attempt == len(fault.waits):
                    tried = f" ({attempt + 1} attempts)" if attempt else ""
                    raise Fault(f"{fault}{tried}") from fault
                wait = fault.waits[attempt]
            finally:
                self.pacer.settle(weight)
            attempt += 1
            self.pacer.sleep(wait)

    def _call(self, call: Callable[[], Any], wanted: type) -> Any:
        """One attempt."""
        from hyperliquid.utils.error import ClientError, ServerError

        try:
            answer = call()
        except ClientError as error:
            raise Fault(f"refused with HTTP {error.status_code}: {self._say(error.error_message)}", ()) from error
        except ServerError as error:
            raise Fault(f"HTTP {error.status_code}: {self._say(error.message)}") from error
        except OSError as error:  # what `requests` raises is one
            if "Timeout" in type(error).__name__:
                raise Fault(f"no answer within {self.timeout_seconds:g} s") from error
            raise Fault(f"no connection ({self._say(error)})") from error
        except (KeyError, TypeError, AttributeError) as error:
            # The SDK trips over a refusal that is JSON, but not of its own form.
            raise Fault(f"refused, in a form that the SDK cannot read ({error!r})") from error
        if not isinstance(answer, wanted) or (isinstance(answer, dict) and set(answer) == {"error"}):
            raise Fault(f"not the answer that was asked for but {self._say(answer)}")
        return answer

    def _say(self, value: object) -> str:
        return short(without_path(value, self.base_url))


def _turn_away(response: Any, *_: Any, **__: Any) -> None:
    """Fault "too many requests" before the SDK, which cannot read every form of it; wait as long as the server asks."""
    if response.status_code == 429:
        asked = response.headers.get("Retry-After", "")
        least = min(float(asked), LONGEST_WAIT_SECONDS) if asked.isdecimal() else 0.0
        raise Fault("too many requests (HTTP 429)", [max(wait, least) for wait in CROWDED_SECONDS])
