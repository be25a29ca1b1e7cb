"""Arithmetic of limits on groups of coins: how much each side of a group is cut, and where what was cut goes."""

from __future__ import annotations

import numpy as np

#: A group smaller than this share of its row's gross is rounding: nothing is spread to it.
_DUST = 1e-9


def group_sums(weights: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the positive weights, and of the negative ones with their sign turned, of each group.

    Parameters
    ----------
    weights : ndarray, (D, N)
        NaN counts as 0.
    groups : ndarray, (N,) integer
        Group of each coin, from 0.

    Returns
    -------
    long, short : ndarray, (D, G)
        At least 0.
    """
    long, short = np.zeros((2, len(weights), int(groups.max(initial=-1)) + 1))
    book = np.nan_to_num(weights)
    # Coin by coin, so that a row's sums do not depend on how many rows there are, as those of a matrix product do.
    np.add.at(long.T, groups, np.maximum(book, 0.0).T)
    np.add.at(short.T, groups, np.maximum(-book, 0.0).T)
    return long, short


def limit_factors(
    long: np.ndarray, short: np.ndarray, gross: float | None, net: float | None, spread: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What the long and the short weights of each group are multiplied by, (D, G) each.

    Parameters
    ----------
    long, short : ndarray, (D, G)
        As :func:`group_sums` gives them.
    gross, net : float or None
        Largest ``long + short``, and largest ``abs(long - short)``, of a group.
    spread : bool
        Whether the gross that is cut goes to the groups that are not: times one number a row, each group until it is
        at a limit.
    """
    total, surplus = long + short, np.abs(long - short)
    most = np.inf if gross is None else gross
    scale = _ratio(most, total)
    cut = np.minimum(scale, 1.0)
    large = cut * np.maximum(long, short)
    bound = cut * np.minimum(long, short) + (np.inf if net is None else net)
    one_side = np.minimum(_ratio(bound, large), 1.0)
    up, down = np.where(long > short, cut * one_side, cut), np.where(short > long, cut * one_side, cut)
    if spread:
        free = (cut == 1.0) & (one_side == 1.0) & (total > _DUST * total.sum(axis=1, keepdims=True))
        room = np.where(free, np.minimum(scale, _ratio(np.inf if net is None else net, surplus)), 1.0)
        kept = np.where(free, 0.0, up * long + down * short).sum(axis=1)
        more = _filled(np.where(free, total, 0.0), room, total.sum(axis=1) - kept)
        up, down = up * np.where(free, more, 1.0), down * np.where(free, more, 1.0)
    return up, down


def _ratio(limit: float | np.ndarray, size: np.ndarray) -> np.ndarray:
    """``limit / size``, infinite where `size` is 0."""
    return np.divide(limit, size, out=np.full_like(size, np.inf), where=size > 0.0)


def _filled(sizes: np.ndarray, room: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Factors, (D, G), at least 1: one number a row but at most `room`, so that ``sum(factor * size)`` is `wanted`.

    Where all the room is not enough every factor is its room.
    """
    # No factor is above the one with which a group would be all of the row.
    room = np.minimum(room, np.maximum(_ratio(wanted[:, None], sizes), 1.0))
    room = np.where(sizes > 0.0, room, 1.0)
    order = np.argsort(room, axis=1, kind="stable")
    ascending, size = np.take_along_axis(room, order, axis=1), np.take_along_axis(sizes, order, axis=1)
    full = ascending * size
    before = np.cumsum(full, axis=1) - full
    after = np.cumsum(size[:, ::-1], axis=1)[:, ::-1]
    level = _ratio(wanted[:, None] - before, after)  # the number where all groups before are full and none from here on
    enough = level <= ascending
    first = np.argmax(enough, axis=1)[:, None]
    number = np.where(enough.any(axis=1, keepdims=True), np.take_along_axis(level, first, axis=1), np.inf)
    return np.clip(number, 1.0, room)
