"""How much of a test is run: `make check` the quick tests, `make test` every behaviour, `make test-full` every seed.

``pytest --quick`` and ``pytest --full`` ask for the first and the last; conftest.py hands it on in the environment, to
the workers of pytest-xdist and to a test that starts a pytest of its own.
"""

from __future__ import annotations

import os

#: The variable of the environment that asks for every seed and every kill point.
VARIABLE = "HLBT_TESTS_FULL"


def some(usual: int, full: int) -> int:
    """How many seeds or examples: `usual` in ``make test``, `full` in ``make test-full``."""
    return full if os.environ.get(VARIABLE) == "1" else usual
