"""The trial ledger: every set ever run for an idea, so that the best of them is judged by how many were tried.

One folder an oracle family (its dotted path) below ``reports/.trials/``, one parquet file a source (a sweep or a single
run). A trial is what was tried: oracle, code, parameters, and config, with the start and coins of the data that it has;
a later end of the data, or another version of the engine, is the same trial seen again. What was tried of a wrapper was
tried of the oracle inside it, too, and lies in the ledgers of both.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.atomic_io import replacing
from engine.errors import DataError
from engine.oracles.base import Oracle
from engine.oracles.fingerprint import RENAMED_MODULES

#: Dotted, so that clearing the reports does not clear the count.
FOLDER = ".trials"
#: ``module:Class`` or ``file.py:Class``; what looks like one and is none has no trials.
_PATH = re.compile(r"[^\s:]{1,150}:[^\W\d]\w{0,80}")


@dataclass(frozen=True)
class TrialCount:
    """What is known of the trials of an idea.

    Attributes
    ----------
    total : int
        Distinct trials.
    sharpe_sd_daily : float
        Standard deviation, ddof=1, of their daily Sharpe ratios; NaN for fewer than two.
    """

    total: int
    sharpe_sd_daily: float


def digest_of(*parts: Any) -> int:
    """64 bits of what is given; two of a million differ but for a chance of 3e-8."""
    state = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str).encode()
    return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "big", signed=True)


def trial_key(path: str, code: str, parameters: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Identity of a trial: oracle, digest of its code, all its parameters, and :meth:`engine.RunConfig.to_dict`."""
    return digest_of(family_of(path), code, state_of(parameters), trial_config(config))


def family_of(path: str) -> str:
    """The oracle's dotted path, a renamed module by its new name; a file as seen from the current folder."""
    file, colon, name = path.rpartition(":")
    if file.endswith(".py"):
        file = Path(os.path.relpath(file)).as_posix()
    return f"{RENAMED_MODULES.get(file, file)}{colon}{name}"


def state_of(parameters: Mapping[str, Any]) -> str:
    """Parameters as text that does not depend on their order."""
    return json.dumps(parameters, sort_keys=True, default=str)


def trial_config(config: Mapping[str, Any]) -> int:
    """What of a config makes a trial another one: all but where the data lie and when they end."""
    data = {key: value for key, value in config["data"].items() if key not in ("cache", "end")}
    return digest_of({**config, "data": data})


def record_trials(reports: Path, family: str, source: str, keys: np.ndarray, sharpe_daily: np.ndarray) -> None:
    """Write the trials of one source, replacing those it wrote before; those it no longer names are kept.

    Parameters
    ----------
    reports : Path
        Folder of the reports.
    family : str
        Dotted path of the oracle.
    source : str
        Name of the sweep or run.
    keys : ndarray, (P,) int64
        :func:`digest_of` of each trial.
    sharpe_daily : ndarray, (P,)
        Daily Sharpe ratio, NaN where there is none.
    """
    family = family_of(family)
    path = _folder(reports, family) / f"{_slug(source)}.parquet"
    table = pd.DataFrame({"key": keys.astype(np.int64), "sharpe_daily": sharpe_daily.astype(np.float64)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "family.txt").write_text(family + "\n", encoding="utf-8")
        if path.is_file():
            table = pd.concat([pd.read_parquet(path), table], ignore_index=True)
        with replacing(path) as made:
            table.drop_duplicates("key", keep="last").to_parquet(made, index=False)
    except (OSError, ValueError) as error:
        raise DataError(f"The trial ledger {path} cannot be written: {str(error).splitlines()[0]}.") from error


def count_trials(reports: Path, families: Sequence[str]) -> TrialCount:
    """Distinct trials of all sources of these families, and the spread of their Sharpe ratios.

    Raises
    ------
    DataError
        When a ledger is damaged: a count that leaves trials out would flatter.
    """
    tables = []
    for family in dict.fromkeys(map(family_of, families)):
        for path in sorted(path for name in _names_of(family) for path in _folder(reports, name).glob("*.parquet")):
            try:
                tables.append(pd.read_parquet(path))
            except (OSError, ValueError) as error:
                raise DataError(
                    f"The trial ledger {path} is damaged: {str(error).splitlines()[0]}. Restore it, or delete it and "
                    "run its sweep again."
                ) from error
    if not tables:
        return TrialCount(0, float("nan"))
    trials = pd.concat(tables, ignore_index=True).drop_duplicates("key", keep="last")
    sharpe = trials["sharpe_daily"].to_numpy()
    sharpe = sharpe[np.isfinite(sharpe)]
    return TrialCount(len(trials), float(np.std(sharpe, ddof=1)) if len(sharpe) > 1 else float("nan"))


def families_of(record: Mapping[str, Any]) -> list[str]:
    """Families by whose trials a sweep is judged: its oracles', and those of the oracles inside them.

    A wrapper is no new idea: what was tried of the oracle inside was tried of this one.
    """
    named = paths_in([*record["fixed"].values(), *record["grid"].values()])
    return list(dict.fromkeys([*(oracle["path"] for oracle in record["oracles"]), *record.get("inner", ()), *named]))


def paths_in(values: Iterable[Any]) -> list[str]:
    """Texts among the values, and in the lists and tables among them, that read like the path of an oracle."""
    paths: list[str] = []
    for value in values:
        if isinstance(value, Mapping):
            paths += paths_in(value.values())
        elif isinstance(value, list | tuple):
            paths += paths_in(value)
        elif isinstance(value, str) and _PATH.fullmatch(value):
            paths.append(value)
    return paths


def inner_paths(kind: type[Oracle], parameters: Mapping[str, Any]) -> list[str]:
    """Paths of the oracles inside one, of its parameters as ``bound_parameters`` has them."""
    return paths_in(value for name, value in parameters.items() if name.partition(".")[0] in kind.oracle_parameters)


def families_below(reports: Path) -> list[str]:
    """Every oracle family with a ledger below `reports`, ascending."""
    return sorted(file.read_text(encoding="utf-8").strip() for file in (reports / FOLDER).glob("*/family.txt"))


def _names_of(family: str) -> list[str]:
    """A family and what it was called before its module was renamed: its older trials lie in a folder of that name."""
    module, colon, name = family.rpartition(":")
    return [family, *(f"{old}{colon}{name}" for old, new in RENAMED_MODULES.items() if new == module)]


def _folder(reports: Path, family: str) -> Path:
    return reports / FOLDER / f"{_slug(family)}-{hashlib.sha256(family.encode()).hexdigest()[:6]}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.").lower() or "unnamed"
