"""The verdict on the best set of a study: checks with thresholds, kept as ``verdict.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from engine.atomic_io import sync_folder, write_durable
from engine.checks import JSON_KEYS, Check
from engine.errors import DataError
from engine.provenance import as_json, to_json
from engine.sweeps.study import VERDICT
from engine.validation.checks import CHECKS

SCHEMA = 2
Word = Literal["passed", "refuted", "luck cannot be excluded yet", "fragile"]
#: Groups of checks that only more days can decide, and where nothing is known until one is computed.
_EVIDENCE = ("luck", "choice", "market", "skill", "broken")
_MEANINGS: Mapping[Word, str] = {
    "passed": "Nothing here says that the winner is luck, and it survives what is changed about it.",
    "refuted": "The figures speak against the winner: more days of the same would not help it.",
    "luck cannot be excluded yet": "A winner as good as this can come from luck alone; only more days can tell.",
    "fragile": "The winner is more than luck, but does not survive small changes.",
}


@dataclass(frozen=True, eq=False)
class Verdict:
    """The outcome of :func:`engine.validation.validate.validate`.

    Attributes
    ----------
    study : str
        Name of the study.
    checks : tuple of Check
    details : mapping
        What the checks were made from, as JSON keeps it. A part that could not be
        computed is ``{"why": ...}``.
    digests : mapping
        ``study`` (of its record), ``data`` (what the sweep ran on), ``panel`` (what the winner ran on again, or None),
        ``code`` of the engine.
    """

    study: str
    checks: tuple[Check, ...]
    details: Mapping[str, Any]
    digests: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there are checks and each one passed; one that could not be computed did not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def word(self) -> Word:
        """The verdict in a word: refuted before not yet, not yet before fragile."""
        if self.passed:
            return "passed"
        if any(check.name in CHECKS and CHECKS[check.name].refutes(check) for check in self.checks):
            return "refuted"
        if not self.checks or any(check.group in _EVIDENCE and not check.passed for check in self.checks):
            return "luck cannot be excluded yet"
        return "fragile"

    @property
    def summary(self) -> str:
        """The verdict in a few sentences: what its word means, what failed, what could not be computed."""
        parts = [_MEANINGS[self.word]]
        for which, verb in ((False, "failed"), (None, "could not be computed")):
            labels = [check.label for check in self.checks if check.passed is which]
            if labels:
                parts.append(f"{len(labels)} of {len(self.checks)} checks {verb}: {'; '.join(labels)}.")
        return " ".join(parts)

    @property
    def remarks(self) -> list[str]:
        """What is shown beside the checks: what the days can tell, what the market explains, PBO; a sentence each."""
        names = ("power", "alpha", "null_books", "pbo")
        power, alpha, nulls, pbo = (self.details.get(name) or {} for name in names)
        parts = [power["says"]] if "says" in power else []
        if "beta" in alpha:
            parts.append(
                f"Beta to BTC {alpha['beta']:.2f}, correlation {alpha['correlation']:.2f}; what BTC does not explain "
                f"is {alpha['alpha_annual']:+.0%} a year."
            )
        if "flipped" in nulls:
            parts.append(
                f"Books without skill that cost as much: exchanged coins p {nulls['p_permuted']:.3f}, moved in time p "
                f"{nulls['p_rolled']:.3f}; with every sign turned the Sharpe ratio is {nulls['flipped']:.2f}."
            )
        if "pbo" in pbo:
            parts.append(
                f"PBO is {pbo['pbo']:.2f} and no check: where all sets are alike it is near one half, as for noise."
            )
        return parts

    def table(self) -> pd.DataFrame:
        """The checks, a row each, by name."""
        return pd.DataFrame([{name: getattr(check, name) for name in JSON_KEYS} for check in self.checks])

    def to_dict(self) -> dict[str, Any]:
        """Content of ``verdict.json``; numbers that are not finite are None."""
        whole = {
            "schema": SCHEMA,
            "study": self.study,
            "passed": self.passed,
            "word": self.word,
            "says": self.summary,
            "remarks": self.remarks,
            "checks": [check.to_json() for check in self.checks],
            "digests": dict(self.digests),
            "details": self.details,
        }
        return dict(as_json(whole))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        DataError
            When it is not a verdict, or of another schema.
        """
        try:
            if values["schema"] != SCHEMA:
                raise DataError(
                    f"This verdict is of another version of hlbt (schema {values['schema']}, here {SCHEMA}), with "
                    "other checks. Run `hlbt validate` again."
                )
            verdict = cls(
                values["study"],
                tuple(Check.from_json(check) for check in values["checks"]),
                values["details"],
                values["digests"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"This is not a verdict: {error}. Run `hlbt validate` again.") from error
        if verdict.passed != values.get("passed"):
            raise DataError(
                "The verdict's `passed` contradicts its checks: the file was edited. Run `hlbt validate` again."
            )
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
