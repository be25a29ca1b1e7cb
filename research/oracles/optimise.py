"""The book that is best for its expected return after risk and costs, within limits."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine import Panel, RunConfig, ScoreOracle
from engine.clock import show
from engine.config import Costs
from engine.errors import InfeasibleError, OracleError, did_you_mean, join_first
from engine.oracles.base import shares_scores
from engine.risk.characteristics import CHARACTERISTICS, means_of_last, volume_of_a_day
from engine.risk.model import RiskModel, book_risk
from engine.risk.solver import BookProblem
from engine.simulation.costs import fill_costs
from research.oracles.construction import Ranking
from research.oracles.parameters import check_positive, is_number
from research.oracles.wrappers import Wrapper, inner_weights

#: Hours without a price after which a coin that is held is gone, as in the ledger by default.
_GONE_HOURS = 24
#: Hours over which the volume of a day is measured, for ``volume_share``, and score's deviations at which it is cut.
_VOLUME_HOURS, _CLIP = 168, 3.0
_NEUTRAL = ("dollars", "beta", *CHARACTERISTICS)


@dataclass(frozen=True)
class Optimise(Wrapper):
    """Trades the oracle inside only as far as it pays: ``max a'w - g/2 w'Sw - k c'abs(w - w0)`` at each decision.

    All of it is of a day. ``S`` is the covariance of the risk model (docs/concepts/risk-model.md), ``c`` what a fill
    costs by the ledger's own fees and spreads, ``w0`` the book of the decision before, moved by prices since. The
    expected return of a coin is ``a = skill * z * sigma``: `z` is the z-score of the oracle's score, cut at three, or
    its weight over the root mean square of its weights other than 0, where it has no scores; `sigma` the coin's own
    volatility in the model.

    A coin without a score, or with a weight of 0, can only be reduced. A coin that is held and not tradable, or that
    the oracle holds (NaN), stays as it is (NaN), and counts in every limit; where the oracle holds all, all is held. A
    coin without a price for 24 hours is gone. Flat until the model knows a covariance, some 50 days.

    Parameters
    ----------
    risk_aversion : float
        ``g``: at 5, a book of 2 % a day has to be expected to make 10 basis points a day more.
    cost_aversion : float
        ``k``: 1 counts the costs of a trade in full against a single day, 0.1 spreads them over ten.
    neutral : sequence of str
        What the book has none of: ``"dollars"``, ``"beta"``, or a factor of the risk model.
    cap : float
        Largest ``abs(weight)`` of a coin.
    gross : float
        Largest ``sum(abs(weight))``.
    skill : float
        Correlation of the score with next day's returns.
    volume_share : float
        Largest position as a share of the coin's mean volume of a day over 168 hours, where `account_usd` is the
        account; 0 is no such limit, and a coin whose volume is not known then gets none.
    account_usd : float
        Size of the account, for `volume_share`.
    costs : mapping, optional
        Keys of the section ``[costs]`` of a config, by default its defaults; give those of the run. Impact is not
        among them, and fees are those of the base tier.
    on_infeasible : {"error", "hold"}
        What to do where no book is within the limits, because of what is stuck: stop, or hold everything (NaN) and
        say when.
    """

    risk_aversion: float = 5.0
    cost_aversion: float = 1.0
    neutral: Any = ("dollars", "beta")
    cap: float = 0.1
    gross: float = 1.0
    skill: float = 0.05
    volume_share: float = 0.0
    account_usd: float = 10_000.0
    costs: Any = None
    on_infeasible: str = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cap", "gross", "skill", "account_usd"):
            check_positive(name, getattr(self, name))
        for name in ("risk_aversion", "cost_aversion", "volume_share"):
            if not is_number(value := getattr(self, name), 0.0):
                raise OracleError(f"{name} = {value!r} is not accepted: it must be a number, at least 0.")
        given = [self.neutral] if isinstance(self.neutral, str) else self.neutral
        if not isinstance(given, Sequence):
            raise OracleError(f"neutral = {given!r} is not accepted: write a list, for example ['dollars', 'beta'].")
        for name in given:
            if name not in _NEUTRAL and not str(name).startswith("market "):
                raise OracleError(
                    f"neutral = {name!r} is not accepted: choose from {', '.join(_NEUTRAL)}."
                    f"{did_you_mean(str(name), _NEUTRAL)}"
                )
        object.__setattr__(self, "neutral", tuple(given))
        if self.on_infeasible not in ("error", "hold"):
            raise OracleError(f"on_infeasible = {self.on_infeasible!r} is not accepted: choose error or hold.")
        if self._costs.impact != "none":
            raise OracleError(
                f"costs.impact = {self._costs.impact!r} is not accepted: Optimise counts fees and spreads, no impact. "
                "Limit the size of a position with volume_share."
            )

    @property
    def _costs(self) -> Costs:
        if not isinstance(self.costs, Mapping | None):
            raise OracleError(
                f"costs = {self.costs!r} is not accepted: write a table of keys of [costs], as {{taker_bps = 4.5}}."
            )
        return RunConfig.from_dict({"costs": self.costs or {}}).costs

    @property
    def path_dependent(self) -> bool:
        """True: the book before decides what a trade costs."""
        return True

    def changed(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """See :meth:`Wrapper.changed`."""
        values, notes = _Books(self, panel, decisions).made()
        object.__setattr__(self, "_told", (_call(panel, decisions), notes))
        return values

    def notes(self, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[str, ...]:
        """Those of the oracle inside; since when there is a book, what was stuck, and where none was feasible."""
        if vars(self).get("_told", ("", ()))[0] != _call(panel, decisions):
            self.weight_matrix(panel, decisions)
        return (*super().notes(panel, decisions), *vars(self)["_told"][1])

    def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame | None:
        """The expected volatility of the book and its exposures to factors (:func:`engine.risk.model.book_risk`)."""
        return book_risk(panel, weights)


def _call(panel: Panel, decisions: pd.DatetimeIndex) -> tuple[int, ...]:
    """What tells one call from another."""
    parts = (panel.index.asi8, panel.values("mid"), panel.tradable, decisions.asi8)
    return tuple(zlib.crc32(np.ascontiguousarray(part).data) for part in parts)


class _Books:
    """The books of an oracle, one decision after the other."""

    def __init__(self, oracle: Optimise, panel: Panel, decisions: pd.DatetimeIndex) -> None:
        self.oracle, self.panel, self.decisions = oracle, panel, decisions
        self.rows = panel.rows(decisions)
        self.model = RiskModel.fit(panel, decisions)
        self.scores, self.held, self.universe = _signal(oracle, panel, decisions)
        self.buy, self.sell = (
            oracle.cost_aversion * np.maximum(side, 0.0) for side in fill_costs(panel, self.rows, oracle._costs)
        )
        self.prices = pd.DataFrame(panel.values("mid")).ffill().to_numpy()[self.rows]
        known = ~np.isnan(panel.values("mid"))
        last = np.maximum.accumulate(np.where(known, np.arange(len(known))[:, None], -_GONE_HOURS), axis=0)
        self.gone = self.rows[:, None] - last[self.rows] >= _GONE_HOURS
        self.limit = np.full(self.scores.shape, oracle.cap)
        if oracle.volume_share > 0.0:
            volumes = means_of_last(volume_of_a_day(panel), self.rows, _VOLUME_HOURS)
            self.limit = np.minimum(self.limit, oracle.volume_share / oracle.account_usd * np.nan_to_num(volumes))

    def made(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Weights, (D, N), and what is to be said of them."""
        values = np.zeros(self.scores.shape)
        book = np.zeros(len(self.panel.coins))
        stuck: dict[str, int] = {}
        infeasible: list[int] = []
        waiting = 0
        for d, _ in enumerate(self.rows):
            book = self._moved(book, d) if d else book
            if np.isnan(self.model.factor_covariance[d]).any():
                waiting, book = d + 1, np.zeros_like(book)
                continue
            if self.held[d].all():
                values[d] = np.nan
                continue
            fixed = self.held[d] | ((book != 0.0) & ~self.panel.tradable[self.rows[d]])
            for column in np.flatnonzero(fixed & (book != 0.0) & ~self.held[d]):
                stuck[self.panel.coins[column]] = stuck.get(self.panel.coins[column], 0) + 1
            try:
                book = self._problem(d, book, fixed).solve()
                values[d] = np.where(fixed & ((book != 0.0) | self.held[d]), np.nan, book)
            except InfeasibleError as error:
                if self.oracle.on_infeasible == "error":
                    raise self._infeasible(d, book, fixed, error) from error
                infeasible.append(d)
                values[d] = np.where(book != 0.0, np.nan, 0.0)
            except OracleError as error:
                raise OracleError(f"Optimise at {show(self.decisions[d])}: {error}") from error
        return values, self._notes(waiting, stuck, infeasible)

    def _moved(self, book: np.ndarray, d: int) -> np.ndarray:
        """The book of the decision before as it stands now: its positions at today's prices, over its equity."""
        moves = np.where(book != 0.0, self.prices[d] / self.prices[d - 1] - 1.0, 0.0)
        equity = 1.0 + (book * moves).sum()
        if not equity > 0.0:
            return np.zeros_like(book)  # the account is gone, and so are its positions
        return np.where(self.gone[d], 0.0, book * (1.0 + moves) / equity)

    def _problem(self, d: int, book: np.ndarray, fixed: np.ndarray) -> BookProblem:
        exposures, specific = self.model.exposures[d], self.model.specific_variance[d]
        blind = np.isnan(exposures).any(axis=1)
        exposures = np.where(blind[:, None], 0.0, exposures)
        common = ((exposures @ self.model.factor_covariance[d]) * exposures).sum(axis=1)
        expected = self.oracle.skill * self.scores[d] * np.sqrt(common + specific)
        open_to = self.universe[d] & ~blind & self.panel.tradable[self.rows[d]]
        lower = np.where(open_to, -self.limit[d], np.clip(book, -self.limit[d], 0.0))
        upper = np.where(open_to, self.limit[d], np.clip(book, 0.0, self.limit[d]))
        return BookProblem(
            np.where(open_to, expected, 0.0),
            exposures,
            self.model.factor_covariance[d],
            specific,
            self.oracle.risk_aversion,
            np.nan_to_num(self.buy[d]),
            np.nan_to_num(self.sell[d]),
            book,
            np.where(fixed, book, lower),
            np.where(fixed, book, upper),
            self.oracle.gross,
            self._neutral(exposures),
        )

    def _neutral(self, exposures: np.ndarray) -> np.ndarray:
        rows = []
        for name in self.oracle.neutral:
            if name == "dollars":
                rows.append(np.ones(len(exposures)))
                continue
            markets = [k for k, own in enumerate(self.model.names) if own.startswith("market")]
            columns = (
                markets if name in ("beta", "market") else [k for k, o in enumerate(self.model.names) if o == name]
            )
            if not columns:
                raise OracleError(
                    f"neutral = {name!r} is not accepted: choose dollars, beta, or a factor of the risk model here: "
                    f"{', '.join(self.model.names)}."
                )
            rows += [exposures[:, k] for k in columns]
        return np.array(rows).reshape(-1, len(exposures))

    def _infeasible(self, d: int, book: np.ndarray, fixed: np.ndarray, error: InfeasibleError) -> InfeasibleError:
        coins = join_first(f"{self.panel.coins[k]} {book[k]:+.3f}" for k in np.flatnonzero(fixed & (book != 0.0)))
        limits = f"gross = {self.oracle.gross:g}, neutral = {', '.join(self.oracle.neutral) or 'nothing'}"
        return InfeasibleError(
            f"Optimise at {show(self.decisions[d])}: {error} Stuck, as not tradable or held: {coins or 'nothing'}; "
            f"{limits}. Widen a limit, or hold on such days with on_infeasible = 'hold'."
        )

    def _notes(self, waiting: int, stuck: Mapping[str, int], infeasible: Sequence[int]) -> tuple[str, ...]:
        notes, count = [], len(self.decisions)
        if waiting:
            until = f"up to {show(self.decisions[waiting - 1])}" if waiting < count else "at all"
            notes.append(
                f"Optimise is flat at {waiting} of {count} decisions, for its risk model knew no covariance {until}."
            )
        if stuck:
            named = join_first(f"{coin} ({times} times)" for coin, times in sorted(stuck.items()))
            notes.append(f"Coins that Optimise held and could not trade at a decision stayed as they were: {named}.")
        if infeasible:
            days = join_first(show(self.decisions[d]) for d in infeasible)
            notes.append(
                f"No book was within the limits at {len(infeasible)} of {count} decisions, and all was held: {days}."
            )
        return tuple(notes)


def _signal(oracle: Optimise, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores in deviations, which coins the oracle inside holds, and which it is open to, (D, N) each."""
    inner = oracle.inner
    if isinstance(inner, ScoreOracle) and shares_scores(type(inner)):
        scores = inner.scores(panel, decisions)
        return (
            np.clip(Ranking(scores).deviations, -_CLIP, _CLIP),
            np.zeros(scores.shape, dtype=np.bool_),
            ~np.isnan(scores),
        )
    weights = inner_weights(inner, panel, decisions)
    held = np.isnan(weights)
    weights[held] = 0.0
    count = np.maximum((weights != 0.0).sum(axis=1, keepdims=True), 1)
    size = np.sqrt((weights**2).sum(axis=1, keepdims=True) / count)
    return np.divide(weights, size, out=np.zeros_like(weights), where=size > 0.0), held, weights != 0.0
