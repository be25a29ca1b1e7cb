"""The former name of :mod:`research.oracles.symbols`, for imports of before."""

from research.oracles.symbols import *  # noqa: F403
