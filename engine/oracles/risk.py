"""The risk of a book in the terms of the oracle that made it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.errors import OracleError
from engine.oracle import Oracle
from engine.panel import Panel

#: The column that every risk frame ends with: ``sum(weight)``, long less short, as a fraction of equity.
NET = "net dollar exposure"


def risk_of(oracle: Oracle, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame | None:
    """Ask an oracle for the risks of a book (:meth:`engine.Oracle.risk`) and add its net dollar exposure.

    Parameters
    ----------
    oracle : Oracle
        Whose book it is.
    panel : Panel
        The market; the oracle is handed it as known.
    weights : DataFrame, (D, N)
        Weights asked; NaN = hold, which counts as the weight of the row before (0 at the start).

    Returns
    -------
    DataFrame, (D, K + 1), or None
        Float64, indexed by decision; None where the oracle has no risk to tell.

    Raises
    ------
    OracleError
        For anything but one finite number or NaN a decision and column.
    """
    name = type(oracle).__name__
    held = weights.ffill().fillna(0.0)
    frame = oracle.risk(panel.known(), held)
    if frame is None:
        return None
    if not isinstance(frame, pd.DataFrame) or not frame.index.equals(weights.index):
        raise OracleError(f"{name}.risk must return None or a frame with one row for each of {len(weights)} decisions.")
    try:
        values = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OracleError(f"{name}.risk returned a value that is no number: {error}.") from error
    if np.isinf(values).any():
        raise OracleError(f"{name}.risk returned an infinite exposure. Use NaN where it cannot be told.")
    columns = [str(column) for column in frame.columns if column != NET]
    risk = pd.DataFrame(values, index=weights.index, columns=[str(column) for column in frame.columns])[columns]
    return risk.assign(**{NET: held.sum(axis=1)}).rename_axis("time")
