"""Oracles that wrap another oracle: smoothed, neutral, scaled, long alone, limited, restricted to liquid coins.

Each computes the weights of the oracle inside and changes them. A NaN of the oracle inside (hold) stays NaN and counts
as 0 in every sum, unless the class says otherwise. `inner` is an oracle, its path ``module:Class``, or a table
``{oracle = "module:Class", n = 5}``; on the command line and in sweeps ``inner.n`` is its parameter `n`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from engine import Oracle, Panel
from engine.clock import HOUR
from engine.errors import OracleError, WeightsError
from engine.oracles.loading import as_oracle
from engine.oracles.sharing import shared
from engine.risk.characteristics import BENCHMARK, betas, dex_members, volume_of_a_day
from engine.weights import align_coins
from research.oracles.cross_section import mean_of_known
from research.oracles.limits import group_sums, limit_factors
from research.oracles.parameters import check_choice, check_count, check_dex, check_positive, of_dex
from research.oracles.sectors import check_sectors, read_sectors, sector_notes

#: A remainder smaller than this share of a row's gross is rounding, not a position.
_DUST = 1e-9


def inner_weights(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
    """Weights of an oracle in the columns of the panel, (D, N), a new array; a coin that it leaves out is 0."""
    frame = shared("weights", oracle, panel, decisions, lambda: oracle.weight_matrix(panel, decisions))
    if not isinstance(frame, pd.DataFrame) or not frame.index.equals(decisions):
        raise OracleError(f"{type(oracle).__name__}.weight_matrix must return a frame with one row for each decision.")
    try:
        return align_coins(frame, panel)
    except WeightsError as error:
        raise OracleError(f"{type(oracle).__name__}: {error}") from error


@dataclass(frozen=True)
class Wrapper(Oracle):
    """Changes the weights of the oracle `inner`."""

    inner: Any

    oracle_parameters: ClassVar[tuple[str, ...]] = ("inner",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", as_oracle(self.inner, "inner"))

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        """See :meth:`engine.Oracle.weight_matrix`."""
        values = self.changed(panel.point_in_time(), decisions)
        return pd.DataFrame(values, index=decisions, columns=pd.Index(panel.coins, name="coin"))

    @abstractmethod
    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """Weights (D, N), each row from panel rows up to its decision; `panel` is as known."""


@dataclass(frozen=True)
class Smooth(Wrapper):
    """Mean of the weights that the oracle gives at this hour of the last `days` days, today included.

    Days before the panel's first row, and NaN, are left out of the mean; of a path-dependent oracle days before the
    first decision, too. A coin that is not tradable now gets 0.

    Parameters
    ----------
    days : int
        1 changes nothing.
    """

    days: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("days", self.days)

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        past = [decisions - 24 * age * HOUR for age in range(self.days)]
        every = pd.DatetimeIndex(past[0].append(past[1:]).unique().sort_values())
        every = every[panel.rows(every) >= 0]
        if self.path_dependent:  # it starts at the first decision, and not days before
            every = every[every >= decisions[0]]
        values = inner_weights(self.inner, panel, every)
        total = np.zeros((len(decisions), len(panel.coins)))
        count = np.zeros_like(total)
        for instants in past:
            position = every.get_indexer(instants)
            row = np.where((position >= 0)[:, None], values[position], np.nan)
            known = ~np.isnan(row)
            total += np.where(known, row, 0.0)
            count += known
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return np.where(panel.tradable[panel.rows(decisions)] | np.isnan(mean), mean, 0.0)


@dataclass(frozen=True)
class Neutralise(Wrapper):
    """Removes a book's exposure to the dollar or to the market of each asset class, then scales it back to its gross.

    Over the coins that are held, ``w - b * sum(b * w) / sum(b * b)`` with ``b = 1`` for dollars and the beta for
    ``"beta"``, so that ``sum(b * w)`` becomes 0; the result is scaled to the gross of the row as it was. A row of which
    nothing is left (one coin, or equal weights against the dollar) is flat. A coin whose beta is not known gets 0.

    For ``"beta"`` an asset class is a dex, and each is made neutral, and scaled, for itself: the stocks of ``xyz`` have
    no beta to bitcoin that would hedge them.

    Parameters
    ----------
    to : {"dollars", "beta"}
        The exposure that is removed.
    lookback_hours : int
        Hours of the beta: the slope of the coin's hourly returns on BTC's, of a builder's dex on the mean of all coins
        of the dex. At least half of them must be known.
    """

    to: str = "dollars"
    lookback_hours: int = 720

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("to", self.to, ("dollars", "beta"))
        check_count("lookback_hours", self.lookback_hours, 2)

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        values = inner_weights(self.inner, panel, decisions)
        classes = list(dex_members(panel).values())
        if self.to == "dollars":
            classes = [np.ones(len(panel.coins), dtype=np.bool_)]
        exposures = np.ones_like(values)
        if self.to == "beta":
            if BENCHMARK not in panel.coins and not all(coin.dex for coin in panel.table):
                raise OracleError(f"to = 'beta' needs {BENCHMARK} among the coins of the data. Add it to data.coins.")
            exposures = betas(panel, panel.rows(decisions), self.lookback_hours)
        for book, exposure in zip(values, exposures, strict=True):
            for members in classes:
                held = ~np.isnan(book) & (book != 0.0) & members
                used = held & ~np.isnan(exposure)
                weights, b = book[used], exposure[used]
                square = (b * b).sum()
                rest = weights - b * ((b * weights).sum() / square) if square > 0.0 else weights
                gross = np.abs(book[held]).sum()
                book[held] = 0.0
                book[used] = _to_gross(rest, gross)
        return values


@dataclass(frozen=True)
class InverseVolatility(Wrapper):
    """Divides each weight by the coin's own volatility and scales the row to the gross that it had.

    Volatility is the root mean square of hourly returns. A coin whose volatility is not known, or is 0, gets 0.

    Parameters
    ----------
    lookback_hours : int
        Hours of the volatility; at least half of them must be known.
    """

    lookback_hours: int = 720

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("lookback_hours", self.lookback_hours, 2)

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        values = inner_weights(self.inner, panel, decisions)
        for number, row in enumerate(panel.rows(decisions)):
            returns = _hourly_returns(panel, int(row), self.lookback_hours)
            enough = (~np.isnan(returns)).sum(axis=0) >= self.lookback_hours / 2.0
            volatility = np.sqrt(np.where(enough, mean_of_known(returns**2, least=0.0), np.nan))
            book = values[number]
            held = ~np.isnan(book) & (book != 0.0)
            scaled = np.divide(book, volatility, out=np.zeros_like(book), where=held & (volatility > 0.0))
            book[held] = _to_gross(scaled[held], np.abs(book[held]).sum())
        return values


@dataclass(frozen=True)
class Cap(Wrapper):
    """Cuts every weight to at most `cap` on either side; what is cut stays in cash.

    Parameters
    ----------
    cap : float
        Largest ``abs(weight)``.
    """

    cap: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("cap", self.cap)

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        return np.clip(inner_weights(self.inner, panel, decisions), -self.cap, self.cap)


@dataclass(frozen=True)
class LongOnly(Wrapper):
    """Keeps the long side of a book: every negative weight becomes 0.

    A row without a positive weight is flat.

    Parameters
    ----------
    scale : {"gross", "cash"}
        ``"gross"`` multiplies what is left to the gross that the row had, ``"cash"`` leaves it as it is.
    """

    scale: str = "gross"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("scale", self.scale, ("gross", "cash"))

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        values = inner_weights(self.inner, panel, decisions)
        kept = np.maximum(values, 0.0)
        if self.scale == "cash":
            return kept
        before, after = (np.nansum(np.abs(book), axis=1, keepdims=True) for book in (values, kept))
        return kept * np.divide(before, after, out=np.zeros_like(after), where=after > _DUST * before)


@dataclass(frozen=True)
class Limit(Wrapper):
    """Limits what a group of coins may have of the equity.

    A group whose gross, ``sum(abs(weight))``, is above `gross` is scaled to it. Where its net, ``sum(weight)``, is then
    beyond `net` on either side, the side that is too large is scaled until the net is at the limit. With
    ``rest="spread"`` the gross that was cut goes to the groups that were not cut: they are multiplied by one number,
    each until it reaches a limit of its own, until the row has the gross that it had or every group is at a limit.

    Parameters
    ----------
    by : {"coin", "dex", "sector", "book"}
        What a group is; ``"book"`` is all coins.
    gross, net : float, optional
        Largest gross, and largest absolute net, of a group; at least one of them.
    rest : {"cash", "spread"}
        Where what is cut goes.
    sectors : mapping or str, optional
        For ``"sector"``: a table of coin and sector, or a file of one, TOML (``BTC = "majors"``) or CSV (columns
        ``coin`` and ``sector``). Coins that it does not name are one more group, and a note names them.
    """

    by: str = "coin"
    gross: float | None = None
    net: float | None = None
    rest: str = "cash"
    sectors: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("by", self.by, ("coin", "dex", "sector", "book"))
        check_choice("rest", self.rest, ("cash", "spread"))
        if self.gross is None and self.net is None:
            raise OracleError("Limit has nothing to hold a group to: give gross=0.3, net=0.1, or both.")
        for name in ("gross", "net"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if (self.by == "sector") != (self.sectors is not None):
            raise OracleError("by = 'sector' and sectors go together: give both, or neither.")
        if self.sectors is not None:
            check_sectors(self.sectors)

    def files(self) -> tuple[Path, ...]:
        """See :meth:`engine.Oracle.files`."""
        return (Path(self.sectors),) if isinstance(self.sectors, str) else ()

    def constant_files(self) -> tuple[Path, ...]:
        """See :meth:`engine.Oracle.constant_files`: a sector has no date."""
        return (*super().constant_files(), *self.files())

    def notes(self, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[str, ...]:
        """See :meth:`engine.Oracle.notes`."""
        own = () if self.sectors is None else sector_notes(read_sectors(self.sectors), panel.coins)
        return (*super().notes(panel, decisions), *own)

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        values = inner_weights(self.inner, panel, decisions)
        _, groups = np.unique(self._groups(panel), return_inverse=True)
        long, short = group_sums(values, groups)
        up, down = limit_factors(long, short, self.gross, self.net, self.rest == "spread")
        return values * np.where(values > 0.0, up[:, groups], down[:, groups])

    def _groups(self, panel: Panel) -> list[str]:
        """The name of each coin's group, (N,)."""
        if self.by == "coin":
            return list(panel.coins)
        if self.by == "dex":
            return [coin.dex for coin in panel.table]
        sectors = {} if self.by == "book" else read_sectors(self.sectors)
        return [sectors.get(coin, "") for coin in panel.coins]


@dataclass(frozen=True)
class OneDex(Wrapper):
    """Restricts the oracle to the coins of one dex: to it, no other coin is tradable, and weights of others are 0.

    Parameters
    ----------
    dex : str
        ``"xyz"``, or empty for the main one.
    """

    dex: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dex(self.dex)

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        own = of_dex(panel, self.dex)
        values = inner_weights(self.inner, replace(panel, tradable=panel.tradable & own), decisions)
        return np.where(own | np.isnan(values), values, 0.0)


@dataclass(frozen=True)
class Liquid(Wrapper):
    """Restricts the oracle to liquid coins: to it, no other coin is tradable.

    A coin's volume is the mean of a day in USD over the last `lookback_hours`: of each hour ``24 * volume_usd`` or,
    where that is not known, the venue's own figure ``volume_24h_usd``; an hour without either counts 0, and a coin
    without any is not liquid. Weights of coins that are not liquid at the decision are 0. Ties at the edge go to the
    coin that comes first in column order.

    Parameters
    ----------
    top : int
        The coins of the largest volume; 0 = no such limit.
    minimum_usd : float
        Least volume of a day, USD.
    lookback_hours : int
        At the start of the panel, the hours since its first row.
    """

    top: int = 0
    minimum_usd: float = 0.0
    lookback_hours: int = 168

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("top", self.top, 0)
        check_count("lookback_hours", self.lookback_hours)
        if self.minimum_usd != 0.0:
            check_positive("minimum_usd", self.minimum_usd)

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        liquid = self._liquid(panel)
        values = inner_weights(self.inner, replace(panel, tradable=panel.tradable & liquid), decisions)
        return np.where(liquid[panel.rows(decisions)] | np.isnan(values), values, 0.0)

    def _liquid(self, panel: Panel) -> np.ndarray:
        """Where a coin is liquid and tradable, (T, N): at every row, for the oracle inside may read earlier ones."""
        if "volume_usd" not in panel.fields:
            panel.values("volume_24h_usd")  # an error where the panel has neither
        traded = volume_of_a_day(panel)
        volume = _sum_of_last(np.nan_to_num(traded), self.lookback_hours)
        volume /= np.minimum(np.arange(1, len(traded) + 1), self.lookback_hours)[:, None]
        seen = _sum_of_last(~np.isnan(traded), self.lookback_hours) > 0
        liquid = panel.tradable & seen & (volume >= self.minimum_usd)
        if self.top:
            order = np.argsort(np.where(liquid, -volume, np.inf), axis=1, kind="stable")
            best = np.zeros_like(liquid)
            np.put_along_axis(best, order[:, : self.top], True, axis=1)
            liquid &= best
        return liquid


def _sum_of_last(values: np.ndarray, rows: int) -> np.ndarray:
    """Sum of each row and the ``rows - 1`` before it, (T, N); at the start of all rows so far."""
    total = np.cumsum(values, axis=0, dtype=np.float64)
    total[rows:] -= total[:-rows].copy()
    return total


def _hourly_returns(panel: Panel, row: int, hours: int) -> np.ndarray:
    """Simple returns of the last `hours` hours up to `row`, (at most `hours`, N)."""
    mid = panel.values("mid")[max(0, row - hours) : row + 1]
    return mid[1:] / mid[:-1] - 1.0


def _to_gross(weights: np.ndarray, gross: float) -> np.ndarray:
    total = np.abs(weights).sum()
    return weights * (gross / total) if total > _DUST * gross else np.zeros_like(weights)
