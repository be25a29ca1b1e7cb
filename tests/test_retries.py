"""The one loop of retries."""

from __future__ import annotations

import pytest

from engine.retries import RequestFailed, retry


def failing(*failures: RequestFailed) -> tuple[list[RequestFailed], list[float]]:
    return list(failures), []


def run(failures: list[RequestFailed], slept: list[float]) -> str:
    def call() -> str:
        if failures:
            raise failures.pop(0)
        return "response"

    return retry(call, slept.append)


def test_it_waits_as_each_failure_says_and_returns_the_first_response() -> None:
    failures, slept = failing(RequestFailed("502", (1.0, 2.0)), RequestFailed("429", (10.0, 20.0)))
    assert run(failures, slept) == "response" and slept == [1.0, 20.0]


def test_the_last_failure_is_raised_with_the_number_of_attempts() -> None:
    failures, slept = failing(*[RequestFailed("HTTP 502", (0.5, 1.0), certain=True)] * 3)
    with pytest.raises(RequestFailed, match=r"^HTTP 502 \(3 attempts\)$") as error:
        run(failures, slept)
    assert slept == [0.5, 1.0] and error.value.certain


def test_a_pointless_attempt_is_not_made() -> None:
    failures, slept = failing(RequestFailed("refused"), RequestFailed("never reached"))
    with pytest.raises(RequestFailed, match=r"^refused$") as error:
        run(failures, slept)
    assert not slept and len(failures) == 1 and not error.value.certain


def test_another_error_is_not_retried() -> None:
    slept: list[float] = []
    with pytest.raises(ZeroDivisionError):
        retry(lambda: 1 / 0, slept.append)
    assert not slept
