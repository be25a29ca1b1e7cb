"""A rate limiter: at most so much request weight in any window of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

#: HyperLiquid's limit: so much weight a minute and address (docs: rate-limits-and-user-limits).
BUDGET: Final = 1200
WINDOW_SECONDS: Final = 60.0


class RateLimiter:
    """A budget of weight in any `window_seconds`, kept by waiting before a request.

    What a request costs may be known only from its response: :meth:`reserve` the most that it can cost, send it, then
    :meth:`settle` what it did cost. The exchange books a request somewhere between the two, so it counts from the
    reservation until a whole window after the settlement.

    Parameters
    ----------
    clock : callable
        Seconds of a monotonic clock.
    sleep : callable
        Waits so many seconds.
    budget : int
        Weight allowed in any window.
    window_seconds : float
        Length of the window.

    Attributes
    ----------
    requests, spent : int
        Requests settled so far, and their weight.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        budget: int = BUDGET,
        window_seconds: float = WINDOW_SECONDS,
    ) -> None:
        self.sleep = sleep
        self.budget = budget
        self.window_seconds = window_seconds
        self.requests = self.spent = 0
        self._clock = clock
        self._recent: deque[tuple[float, int]] = deque()

    def reserve(self, weight: int) -> None:
        """Wait until `weight` more fits into the window that ends now."""
        while (used := self._used()) and used + weight > self.budget:
            # A little more than needed, so that rounding never leaves a wait of zero.
            self.sleep(max(0.0, self._recent[0][0] + self.window_seconds - self._clock()) + 0.01)

    def settle(self, weight: int) -> None:
        """Record the weight of a request that just succeeded or failed."""
        self._recent.append((self._clock(), weight))
        self.requests += 1
        self.spent += weight

    def seconds(self, weight: int) -> float:
        """How long requests of `weight` take at the limit."""
        return weight / self.budget * self.window_seconds

    def _used(self) -> int:
        oldest = self._clock() - self.window_seconds
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()
        return sum(weight for _, weight in self._recent)
