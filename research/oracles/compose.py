"""The former name of :mod:`research.oracles.wrappers`, for imports of before."""

from research.oracles.wrappers import *  # noqa: F403
