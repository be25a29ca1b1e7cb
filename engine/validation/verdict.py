"""The verdict on the best set of a study: checks with thresholds, kept as ``verdict.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pandas as pd

from engine.atomic_io import sync_folder, write_durable
from engine.checks import Check
from engine.errors import DataError
from engine.provenance import as_json, to_json
from engine.sweeps.study import VERDICT
from engine.validation.thresholds import Thresholds

SCHEMA = 1
#: Columns of a table of checks, and their keys in ``verdict.json``, where the summary is ``says``.
_COLUMNS = ("name", "label", "value", "threshold", "rule", "passed", "summary", "group")
#: What a failure means for the winner, by the group of the check.
_MEANINGS = {
    "luck": "the winner is not distinguishable from luck",
    "unseen": "choosing by the past did not pay on the days that followed",
    "fragile": "the result does not survive small changes of costs, timing or parameters",
    "ruin": "the account was liquidated",
    "broken": "the winner's figures are not those that its sweep recorded",
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
    thresholds : Thresholds
    """

    study: str
    checks: tuple[Check, ...]
    details: Mapping[str, Any]
    digests: Mapping[str, str | None] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds.read)

    @property
    def passed(self) -> bool:
        """Whether there are checks and each one passed; one that could not be computed did not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def summary(self) -> str:
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
        return pd.DataFrame([{name: getattr(check, name) for name in _COLUMNS} for check in self.checks])

    def to_dict(self) -> dict[str, Any]:
        """Content of ``verdict.json``; numbers that are not finite are None."""
        whole = {
            "schema": SCHEMA,
            "study": self.study,
            "passed": self.passed,
            "says": self.summary,
            "checks": [check_to_json(check) for check in self.checks],
            "thresholds": asdict(self.thresholds),
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
                    f"A verdict has schema {values['schema']}; this version reads {SCHEMA}. Run `hlbt validate` again."
                )
            verdict = cls(
                values["study"],
                tuple(_check_from_json(check) for check in values["checks"]),
                values["details"],
                values["digests"],
                Thresholds.from_dict(values["thresholds"]),
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


def check_to_json(check: Check) -> dict[str, Any]:
    """A check under the keys of ``verdict.json`` and of specs."""
    return {"says" if name == "summary" else name: getattr(check, name) for name in _COLUMNS}


def _check_from_json(values: Mapping[str, Any]) -> Check:
    return Check(**{"summary" if name == "says" else name: value for name, value in values.items()})


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
        raise DataError(f"{path} is not a verdict. Run `hlbt validate` again.")
    return Verdict.from_dict(values)
