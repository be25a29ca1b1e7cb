"""The former name of :mod:`research.oracles.score_file`, for imports of before."""

from research.oracles.score_file import *  # noqa: F403
