"""The former name of :mod:`research.oracles.published_scores`, for imports of before."""

from research.oracles.published_scores import *  # noqa: F403
