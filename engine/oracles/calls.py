"""Around a call of an oracle's code: its errors are told in one paragraph, its environment variables are put back."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import HlbtError, OracleError


@contextmanager
def oracle_errors(call: str) -> Iterator[None]:
    """Raise whatever the code of an oracle raises as an OracleError: the `call` that failed, where, and the cure.

    Our own errors stay as they are.

    Raises
    ------
    OracleError
        In place of any error that is no :class:`engine.errors.HlbtError`.
    """
    try:
        yield
    except HlbtError:
        raise
    except (Exception, SystemExit) as error:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)  # without the sources, which take seconds to find
        raise OracleError(
            f"{call}: {type(error).__name__}: {error} ({Path(frame.f_code.co_filename).name} line {line}). Correct the "
            "oracle or its parameters; HLBT_TRACEBACK=1 shows the whole trace."
        ) from error


@contextmanager
def same_environment() -> Iterator[None]:
    """Undo what is done to environment variables in the context: no later run, nor process, sees it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})
