"""The former name of :mod:`research.oracles.publication_schedule`, for imports of before."""

from research.oracles.publication_schedule import *  # noqa: F403
