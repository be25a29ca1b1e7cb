"""Verdict: what validation found about the best set of a study, as checks with thresholds, kept as ``verdict.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from engine.atomic_io import sync_folder, write_durable
from engine.errors import ConfigError, DataError, did_you_mean
from engine.provenance import to_json
from engine.sweeps.study import VERDICT

SCHEMA = 1
Rule = Literal["at least", "at most"]
#: What a failure says about the winner, by the group of the check.
_MEANINGS = {
    "luck": "the winner is not distinguishable from luck",
    "unseen": "choosing by the past did not pay on the days that followed",
    "fragile": "the result does not survive small changes of costs, timing or parameters",
    "ruin": "the account was liquidated",
    "broken": "the winner's figures are not those that its sweep recorded",
}


@dataclass(frozen=True)
class Thresholds:
    """What a verdict asks for.

    Attributes
    ----------
    deflated_sharpe : float
        Least probability that the true Sharpe ratio is above what the best of all trials without skill would show.
    pbo : float
        Highest probability of backtest overfitting. Pure noise gives 0.37 to 0.66, so 0.5 would be no gate.
    superiority_p : float
        Highest consistent p-value of Hansen's test, against zero and against BTC.
    walk_forward_sharpe : float
        Least annual Sharpe ratio of the stitched out-of-sample curves.
    bootstrap_sharpe : float
        Least lower bound of the bootstrap interval of the annual Sharpe ratio.
    confidence : float
        Of that interval, and of the track record.
    cost_sharpe : float
        Least annual Sharpe ratio with costs two and three times what they are.
    delay_kept_frac : float
        Part of the Sharpe ratio that must be left when every trade is an hour late.
    day_delay_sharpe : float
        Least annual Sharpe ratio when every trade is 24 hours late.
    hours_kept_frac : float
        Part of the Sharpe ratio that must be left at the median hour of decision.
    start_sharpe : float
        Least annual Sharpe ratio of an account that starts later.
    plateau_kept_frac : float
        Part of the Sharpe ratio that the median neighbour in the grid must have.
    reproduction_difference : float
        How far the winner's Sharpe ratio, run again, may be from that of the sweep.
    liquidations : float
        How many liquidations are accepted, of the winner itself and under the stresses.
    """

    deflated_sharpe: float = 0.95
    pbo: float = 0.2
    superiority_p: float = 0.05
    walk_forward_sharpe: float = 0.0
    bootstrap_sharpe: float = 0.0
    confidence: float = 0.95
    cost_sharpe: float = 0.0
    delay_kept_frac: float = 0.5
    day_delay_sharpe: float = 0.0
    hours_kept_frac: float = 0.5
    start_sharpe: float = 0.0
    plateau_kept_frac: float = 0.5
    reproduction_difference: float = 1e-6
    liquidations: float = 0.0

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1.0:
            raise ConfigError(f"Threshold confidence = {self.confidence!r} is not accepted: write a number like 0.95.")

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> Self:
        """Thresholds by name; those that are absent are the defaults.

        Raises
        ------
        ConfigError
            For an unknown name.
        """
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"Unknown threshold {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}."
                )
        return cls(**values)


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    Attributes
    ----------
    name : str
        ``deflated_sharpe``, ``cost_x2``, ...
    label : str
        The same for people.
    value, threshold : float or None
        None: could not be computed.
    rule : {"at least", "at most"}
        What the value must be of the threshold.
    passed : bool or None
        None: could not be computed, which no verdict passes.
    says : str
        One sentence.
    group : str
        What a failure means: ``luck``, ``unseen``, ``fragile``, ``ruin`` or ``broken``.
    """

    name: str
    label: str
    value: float | None
    threshold: float | None
    rule: Rule
    passed: bool | None
    says: str
    group: str = "luck"


@dataclass(frozen=True, eq=False)
class Verdict:
    """The outcome of :func:`engine.validation.validate.validate`.

    Attributes
    ----------
    study : str
        Name of the study.
    checks : tuple of Check
    details : mapping
        What the checks were made from, as JSON keeps it; ARCHITECTURE.md lists the keys. A part that could not be
        computed is ``{"why": ...}``.
    digests : mapping
        ``study`` (of its record), ``data`` (what the sweep ran on), ``panel`` (what the winner ran on again, or None),
        ``code`` of the engine.
    thresholds : Thresholds
    """

    study: str
    checks: tuple[Check, ...]
    details: Mapping[str, Any]
    digests: Mapping[str, str | None] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def passed(self) -> bool:
        """Whether there are checks and each one passed; one that could not be computed did not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def says(self) -> str:
        """The verdict in a sentence."""
        failed = [check for check in self.checks if check.passed is False]
        unknown = [check for check in self.checks if check.passed is None]
        count = len(self.checks)
        if self.passed:
            return f"All {count} checks passed: nothing here says that the winner is luck."
        parts = []
        if failed:
            groups = [_MEANINGS[group] for group in _MEANINGS if any(check.group == group for check in failed)]
            parts.append(f"{len(failed)} of {count} checks failed: {'; '.join(groups)}")
        if unknown:
            labels = ", ".join(check.label for check in unknown)
            parts.append(f"{len(unknown)} of {count} checks could not be computed ({labels})")
        return ". ".join(parts) + "."

    def table(self) -> pd.DataFrame:
        """The checks, a row each, by name."""
        return pd.DataFrame([asdict(check) for check in self.checks], columns=[item.name for item in fields(Check)])

    def to_dict(self) -> dict[str, Any]:
        """Content of ``verdict.json``; numbers that are not finite are None."""
        whole = {
            "schema": SCHEMA,
            "study": self.study,
            "passed": self.passed,
            "says": self.says,
            "checks": [asdict(check) for check in self.checks],
            "thresholds": asdict(self.thresholds),
            "digests": dict(self.digests),
            "details": self.details,
        }
        plain: dict[str, Any] = json.loads(to_json(whole))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        DataError
            When it is no verdict, or of another schema.
        """
        try:
            if values["schema"] != SCHEMA:
                raise DataError(
                    f"A verdict has schema {values['schema']}; this version reads {SCHEMA}. Run `hlbt validate` again."
                )
            verdict = cls(
                values["study"],
                tuple(Check(**check) for check in values["checks"]),
                values["details"],
                values["digests"],
                Thresholds.from_dict(values["thresholds"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"This is no verdict: {error}. Run `hlbt validate` again.") from error
        if verdict.passed != values.get("passed"):
            raise DataError("A verdict says that it passed, or not, while its checks say otherwise: it was edited.")
        return verdict

    def save(self, folder: Path) -> Path:
        """Write ``verdict.json`` into a sweep folder, whole or not at all."""
        path = folder / VERDICT
        try:
            write_durable(path, to_json(self.to_dict()).encode())
            sync_folder(folder)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
        return path


def load_verdict(folder: Path) -> Verdict:
    """Read the verdict of a sweep folder.

    Raises
    ------
    DataError
        When there is none, or it is damaged.
    """
    path = folder / VERDICT
    if not path.is_file():
        raise DataError(f"{folder} has no {VERDICT}. `hlbt validate {folder}` makes it.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {str(error).splitlines()[0]}. Run `hlbt validate` again.") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is no verdict. Run `hlbt validate` again.")
    return Verdict.from_dict(values)
