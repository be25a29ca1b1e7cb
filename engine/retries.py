"""Retries of requests: the one loop, how a request fails, how long one may take, and when it is sent again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

Result = TypeVar("Result")
#: The whole of a request, or of a part of a download, may take so many times the longest silence of the server.
DEADLINE: Final = 3.0


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds to wait before the second, third, ... attempt.

    Attributes
    ----------
    after_failure : tuple of float
        After most failures.
    when_rate_limited : tuple of float
        After "too many requests".
    longest_retry_after : float
        The longest wait that a ``Retry-After`` is granted.
    """

    after_failure: tuple[float, ...]
    when_rate_limited: tuple[float, ...]
    longest_retry_after: float


class RequestFailed(Exception):
    """A request that failed; the message is the reason.

    Parameters
    ----------
    reason : str
        For people.
    waits : sequence of float
        Seconds to wait before each further attempt; empty when another one is pointless.
    certain : bool
        The request certainly had no effect. An order that failed in another way may have been executed.
    """

    def __init__(self, reason: str, waits: Sequence[float] = (), certain: bool = False) -> None:
        super().__init__(reason)
        self.waits, self.certain = waits, certain


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what a call returns, unless it takes longer than so many seconds.

    The time limits of HTTP libraries are for each read: a server that sends a byte now and then keeps a request open
    for ever. A call that is late goes on in a thread of its own, and what comes of it is dropped.

    Raises
    ------
    TimeoutError
        When it takes longer.
    Exception
        Whatever the call raises.
    """
    outcome: list[tuple[Result | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    result, error = outcome[0]
    if error is not None:
        raise error
    return cast(Result, result)


def retry(call: Callable[[], Result], sleep: Callable[[float], None]) -> Result:
    """Send a request until it succeeds or no attempt is left.

    Only for requests that do no harm when they are executed twice: never for an order.

    Parameters
    ----------
    call : callable
        Sends the request once; raises RequestFailed, whose `waits` say whether and when to send it again.
    sleep : callable
        Waits so many seconds.

    Raises
    ------
    RequestFailed
        The last failure, with the number of attempts in its message when there were several.
    """
    attempts = 0
    while True:
        attempts += 1
        try:
            return call()
        except RequestFailed as failure:
            if attempts > len(failure.waits):
                tried = f" ({attempts} attempts)" if attempts > 1 else ""
                raise RequestFailed(f"{failure}{tried}", certain=failure.certain) from failure
            wait = failure.waits[attempts - 1]
        sleep(wait)
