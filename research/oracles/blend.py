"""Oracles made of several oracles: the weighted mean of their weights, or of their ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from engine import Oracle, Panel, ScoreOracle
from engine.errors import OracleError
from engine.oracles.loading import as_oracle
from engine.oracles.sharing import shared
from research.oracles.construction import Constructed, check_construction
from research.oracles.parameters import check_positive
from research.oracles.wrappers import inner_weights


@dataclass(frozen=True)
class Blend(Oracle):
    """Weighted mean of the weights of several oracles.

    A NaN (hold) of one oracle counts as 0 beside the others; where all have NaN the blend has it too.

    Parameters
    ----------
    oracles : sequence
        Oracles, paths ``module:Class`` or tables, as `inner` in :mod:`research.oracles.wrappers`; on the command line
        ``oracles.0.n`` is the parameter `n` of the first.
    shares : sequence of float, optional
        A positive number an oracle; they are divided by their sum. Default: equal.
    """

    oracles: Any
    shares: Any = None

    oracle_parameters: ClassVar[tuple[str, ...]] = ("oracles",)

    def __post_init__(self) -> None:
        _set_oracles(self)

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        """See :meth:`engine.Oracle.weight_matrix`."""
        panel = panel.point_in_time()
        books = [inner_weights(oracle, panel, decisions) for oracle in self.oracles]
        total = np.zeros_like(books[0])
        for share, book in zip(_fractions(self.shares), books, strict=True):
            total += share * np.where(np.isnan(book), 0.0, book)
        total[np.all([np.isnan(book) for book in books], axis=0)] = np.nan
        return pd.DataFrame(total, index=decisions, columns=pd.Index(panel.coins, name="coin"))


@dataclass(frozen=True)
class RankBlend(Constructed):
    """Weighted mean of the ranks that several oracles give, then a construction.

    At each decision the coins are ranked that every oracle has a score for (its weights where it has no scores, at the
    tradable coins), from 0 to 1 in equal steps, ties sharing the mean. Where one oracle has no score at all, the blend
    is flat.

    Parameters
    ----------
    oracles, shares
        See :class:`Blend`.
    construction, n, power, clip, gross, hold_rank
        See :class:`research.oracles.cross_section.CrossSection`.
    """

    oracles: Any
    shares: Any = None
    construction: str = "top_bottom"
    n: int = 5
    power: float = 1.0
    clip: float = 3.0
    gross: float = 1.0
    hold_rank: int = field(default=0, kw_only=True)

    oracle_parameters: ClassVar[tuple[str, ...]] = ("oracles",)
    score_parameters: ClassVar[tuple[str, ...]] = ("oracles", "shares")

    def __post_init__(self) -> None:
        _set_oracles(self)
        check_construction(self.construction, self.n, self.power, self.clip, self.gross, self.hold_rank)

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`engine.ScoreOracle.scores`."""
        from scipy.stats import rankdata

        inner = common_scores(self.oracles, panel.point_in_time(), decisions)
        total = np.zeros(inner.shape[1:])
        for share, scores in zip(_fractions(self.shares), inner, strict=True):
            count = np.maximum((~np.isnan(scores)).sum(axis=1, keepdims=True) - 1, 1)
            total += share * (rankdata(scores, axis=1, nan_policy="omit") - 1.0) / count
        return np.where(np.isnan(inner[0]), np.nan, total)


def common_scores(oracles: Sequence[Oracle], panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """Scores of K oracles, a new array (K, D, N), of the coins that every one of them has a score for; NaN elsewhere.

    Of an oracle without scores they are its weights, of the tradable coins.
    """
    inner = np.stack([_scores_of(oracle, panel, decisions) for oracle in oracles])
    inner[:, np.isnan(inner).any(axis=0)] = np.nan
    return inner


def _scores_of(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    if isinstance(oracle, ScoreOracle):
        return shared("scores", oracle, panel, decisions, lambda: oracle.scores(panel, decisions))
    return np.where(panel.tradable[panel.rows(decisions)], inner_weights(oracle, panel, decisions), np.nan)


def inner_oracles(values: Any) -> tuple[Oracle, ...]:
    """The oracles that the parameter `oracles` names, built.

    Raises
    ------
    OracleError
        Unless it is a list of what :func:`engine.oracles.loading.as_oracle` accepts.
    """
    if isinstance(values, str | Oracle) or not isinstance(values, Sequence) or not values:
        raise OracleError(
            f"oracles = {values!r} is not accepted: give a list of oracles, on the command line "
            """--param 'oracles=["module:Class", "module:Class"]'."""
        )
    return tuple(as_oracle(value, f"oracles.{number}") for number, value in enumerate(values))


def _set_oracles(blend: Any) -> None:
    """Build the oracles of a blend and check the shares."""
    oracles = inner_oracles(blend.oracles)
    shares = (1.0,) * len(oracles) if blend.shares is None else blend.shares
    if isinstance(shares, str) or not isinstance(shares, Sequence) or len(shares) != len(oracles):
        raise OracleError(f"shares = {shares!r} is not accepted: give a list of {len(oracles)} numbers, one an oracle.")
    for number, share in enumerate(shares):
        check_positive(f"shares.{number}", share)
    object.__setattr__(blend, "oracles", oracles)
    object.__setattr__(blend, "shares", tuple(float(share) for share in shares))


def _fractions(shares: tuple[float, ...]) -> list[float]:
    return [share / sum(shares) for share in shares]
