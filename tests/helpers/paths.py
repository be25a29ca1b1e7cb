"""Path-dependent oracles, honest and not: what they hold follows from their decisions before."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from engine import Oracle, Panel, ScoreOracle


class Sticky(Oracle):
    """Buys the `enter` coins that rose most in 20 hours, and sells them beyond the place `leave`."""

    path_dependent = True  # type: ignore[assignment, unused-ignore]

    def __init__(self, enter: int = 2, leave: int = 4) -> None:
        self.enter, self.leave = enter, leave
        self.held: np.ndarray | None = None

    def seen(self, panel: Panel, row: int) -> int:
        """Panel row that a decision at `row` looks at."""
        return row

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        mid, rows = panel.values("mid"), []
        held = self.start(panel)
        for row in panel.rows(decisions):
            at = self.seen(panel, int(row))
            rose = mid[at] / mid[at - 20] - 1.0 if at >= 20 else np.full(len(panel.coins), np.nan)
            rose = np.where(panel.tradable[row], rose, np.nan)
            place = np.argsort(np.argsort(-np.nan_to_num(rose, nan=-np.inf), kind="stable"), kind="stable")
            held = ~np.isnan(rose) & ((place < self.enter) | (held & (place < self.leave)))
            rows.append(held / max(held.sum(), 1))
        self.held = held
        return pd.DataFrame(np.array(rows), index=decisions, columns=list(panel.coins))

    def start(self, panel: Panel) -> np.ndarray:
        """Coins that are held before the first decision."""
        return np.zeros(len(panel.coins), dtype=np.bool_)


class Unsaid(Sticky):
    """Does not say that its weights follow from earlier decisions."""

    path_dependent = False  # type: ignore[assignment, unused-ignore]


class Ahead(Sticky):
    """Knows the prices of the day after."""

    def seen(self, panel: Panel, row: int) -> int:
        return min(row + 24, len(panel.index) - 1)


class Remembering(Sticky):
    """Starts from what it held at the end of the call before."""

    def start(self, panel: Panel) -> np.ndarray:
        return super().start(panel) if self.held is None or len(self.held) != len(panel.coins) else self.held


class StickyScore(ScoreOracle):
    """The same with a score, whose construction alone depends on the path."""

    path_dependent = True  # type: ignore[assignment, unused-ignore]
    score_parameters: ClassVar[tuple[str, ...]] = ("hours",)
    calls: ClassVar[int] = 0

    def __init__(self, hours: int = 20, enter: int = 2, leave: int = 4) -> None:
        self.hours, self.enter, self.leave = hours, enter, leave

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        type(self).calls += len(decisions)
        mid, rows = panel.values("mid"), panel.rows(decisions)
        scores = np.full((len(rows), len(panel.coins)), np.nan)
        late = rows >= self.hours
        scores[late] = mid[rows[late]] / mid[rows[late] - self.hours] - 1.0
        return np.where(panel.tradable[rows], scores, np.nan)

    def construct(self, scores: np.ndarray) -> np.ndarray:
        held, rows = np.zeros(scores.shape[1], dtype=np.bool_), []
        for row in self.ordered(scores):
            place = np.argsort(np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable"), kind="stable")
            held = ~np.isnan(row) & ((place < self.enter) | (held & (place < self.leave)))
            rows.append(held / max(held.sum(), 1))
        return np.array(rows)

    def ordered(self, scores: np.ndarray) -> np.ndarray:
        """Scores by which coins are placed."""
        return scores


class ConstructsAhead(StickyScore):
    """Honest scores; each row is constructed from the scores of the day after."""

    def ordered(self, scores: np.ndarray) -> np.ndarray:
        return np.vstack([scores[1:], scores[-1:]])


class ScoresAhead(StickyScore):
    """Scores of prices a day later; an honest construction."""

    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        later = np.minimum(panel.rows(decisions) + 24, len(panel.index) - 1)
        return super().scores(panel, panel.index[later])
