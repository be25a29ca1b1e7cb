"""Weights of an oracle at some decisions of a schedule; of a path-dependent one the decisions before count, too."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import pandas as pd

from engine.clock import show
from engine.oracles.base import Oracle, ScoreOracle, oracle_errors, same_environment, shares_scores, weight_matrix
from engine.panel import Panel
from engine.weights import align_coins


def weights_of(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """An oracle's weights in the panel's shape, (D, N)."""
    weights = weight_matrix(oracle, panel, decisions, may_hold=True)
    return align_coins(weights, panel)


def path_of_scores(oracle: Oracle) -> TypeGuard[ScoreOracle]:
    """Whether only the construction depends on the path: then scores can be computed for a decision alone."""
    return shares_scores(type(oracle)) and not any(part.path_dependent for part in oracle.parts())


def weights_along(
    oracle: Oracle, panel: Panel, schedule: pd.DatetimeIndex, rows: np.ndarray, scores: pd.DataFrame | None = None
) -> np.ndarray:
    """Weights of a path-dependent oracle at some decisions, from the first of its schedule on.

    Parameters
    ----------
    oracle : Oracle
    panel : Panel
        With every decision up to the last of `rows`.
    schedule : DatetimeIndex, (D,)
        Every decision, ascending.
    rows : ndarray of int, (R,)
        Which of them are wanted, ascending.
    scores : DataFrame, (D, coins), optional
        Scores that are known already, where only the construction depends on the path: those of `rows` alone are
        computed on this panel. A coin of the panel that it lacks had none.

    Returns
    -------
    ndarray, (R, N)

    Raises
    ------
    OracleError, WeightsError
        When the oracle fails, or its weights are not valid.
    """
    so_far = schedule[: int(rows[-1]) + 1]
    if scores is None or not path_of_scores(oracle):
        return weights_of(oracle, panel, so_far)[rows]
    path = scores.iloc[: len(so_far)].reindex(columns=list(panel.coins))
    path.iloc[rows] = scores_of(oracle, panel, schedule[rows])
    return constructed(oracle, panel, path)[rows]


def scores_of(oracle: ScoreOracle, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """Scores of an oracle, (D, N); what it raises is an OracleError."""
    with oracle_errors(f"scores failed over {len(decisions)} decisions from {show(decisions[0])}"), same_environment():
        return oracle.scores(panel.point_in_time(), decisions)


def constructed(oracle: ScoreOracle, panel: Panel, scores: pd.DataFrame) -> np.ndarray:
    """Weights of scores, (D, coins), in the panel's shape, (D, N); what the oracle raises is an OracleError."""
    with oracle_errors(f"construct failed over {len(scores)} decisions"), same_environment():
        weights = oracle.construct(scores.to_numpy(dtype=np.float64))
    return align_coins(pd.DataFrame(weights, index=scores.index, columns=scores.columns), panel)
