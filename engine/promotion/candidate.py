"""A run that is to be promoted: what it recorded, whether that still holds, and the sweep its set was chosen from.

A candidate comes from a run folder, a run below a sweep (``<sweep>/top/<run>``) or a sweep: its winner.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import RunConfig
from engine.errors import DataError, HlbtError, PromotionError
from engine.oracles.loading import bound_parameters, load_oracle, oracle_class, oracle_code
from engine.panel import Panel
from engine.provenance import as_json, code_digest, files_digest
from engine.runs import load_run
from engine.sweeps.results import TOP
from engine.sweeps.study import ORACLE, RECORD, Study, codes_of, load_study


@dataclass(frozen=True)
class Candidate:
    """The record of a run that is to be promoted.

    Attributes
    ----------
    name : str
        Of the run, or of the sweep whose winner it is.
    oracle : str
        Dotted path, ``module:Class``.
    parameters : mapping
        Constructor arguments, all of them, as JSON keeps them.
    config : RunConfig
    sharpe : float or None
        Annual, as it was recorded.
    start, end : str
        First and last instant of its panel, ISO 8601.
    digests : mapping
        SHA-256 of ``data``, ``oracle`` and ``code`` (the engine's) when it ran.
    reports : Path
        Folder in which sweeps and the ledger of trials are looked for.
    sweep : Path or None
        The sweep that it lies in or stands for.
    earlier : tuple of mapping
        Digests before each renewal of its spec, which its sweep may still have; empty for a promotion.
    """

    name: str
    oracle: str
    parameters: Mapping[str, Any]
    config: RunConfig
    sharpe: float | None
    start: str
    end: str
    digests: Mapping[str, str]
    reports: Path
    sweep: Path | None
    earlier: tuple[Mapping[str, str], ...] = ()

    @property
    def as_run(self) -> RunConfig:
        """The config with the span that the run had, so that a cache that has grown since gives its panel."""
        return replace(self.config, data=replace(self.config.data, start=self.start, end=self.end))


def read_candidate(folder: Path, reports: Path | None = None) -> Candidate:
    """Read a run folder or a sweep folder.

    Parameters
    ----------
    folder : Path
        Of the run, or of the sweep whose winner is meant.
    reports : Path, optional
        Default: the folder that the run, or the sweep it belongs to, lies in.

    Raises
    ------
    DataError
        When it is neither, or is damaged.
    PromotionError
        For a run of a weights file, which has no oracle.
    """
    is_sweep = (folder / RECORD).is_file()
    if not is_sweep and not (folder / "run.json").is_file():
        raise DataError(
            f"{folder} is neither a run nor a sweep: it has no run.json and no {RECORD}. `hlbt backtest` and `hlbt "
            "sweep` make them below reports/."
        )
    try:
        return _of_sweep(folder, reports) if is_sweep else _of_run(folder, reports)
    except (KeyError, TypeError, StopIteration) as error:
        raise DataError(
            f"The record of {folder} is damaged: it lacks {error}. Run the {'sweep' if is_sweep else 'backtest'} again."
        ) from error


def _of_run(folder: Path, reports: Path | None) -> Candidate:
    """A run of an oracle."""
    record = load_run(folder).record
    origin, resolved = record["origin"], folder.resolve()
    if origin["kind"] != "oracle":
        raise PromotionError(
            f"Run {folder.name} traded the weights file {origin['path']}: it has no oracle to compute "
            "the weights of tomorrow, so there is nothing to promote. Write the idea as an oracle, or trade the file "
            "itself with `hlbt live rebalance --weights FILE`."
        )
    above = resolved.parent.parent
    sweep = above if resolved.parent.name == TOP and (above / RECORD).is_file() else None
    return Candidate(
        str(record["name"]),
        origin["path"],
        origin["parameters"],
        RunConfig.from_dict(record["config"]),
        record["metrics"]["sharpe"],
        record["span"]["start"],
        record["span"]["end"],
        {"data": record["digests"]["data"], "oracle": origin["code"], "code": record["digests"]["code"]},
        reports or _beside(resolved if sweep is None else sweep),
        sweep,
    )


def _of_sweep(folder: Path, reports: Path | None) -> Candidate:
    """The winner of a sweep."""
    study, resolved = load_study(folder, returns=False), folder.resolve()
    best = study.best("sharpe")
    chosen, record = study.parameter_set(best), study.record
    return Candidate(
        str(record["name"]),
        chosen.oracle,
        as_json(bound_parameters(oracle_class(chosen.oracle), dict(chosen.parameters))),
        chosen.config,
        float(study["sharpe"].iloc[best]),
        record["span"]["start"],
        record["span"]["end"],
        {
            "data": record["digests"]["data"],
            "oracle": _digest_of(record, chosen.oracle, chosen.parameters),
            "code": record["digests"]["code"],
        },
        reports or _beside(resolved),
        resolved,
    )


def check_current(candidate: Candidate, panel: Panel) -> None:
    """Refuse a candidate that was made from other data or by other code than there is now.

    Raises
    ------
    PromotionError
        Naming all that has changed, and how to renew the run.
    """
    if changed := changes(candidate.digests, digests_now(candidate.oracle, candidate.parameters, panel)):
        command = "Run `hlbt sweep`" if candidate.sweep else "Run `hlbt backtest`, and the sweep that holds its set,"
        raise PromotionError(
            f"{candidate.name} is stale: {' and '.join(changed)}. What was validated is not what would be traded. "
            f"{' '.join([*panel.notes, command])} again with the same settings, then promote."
        )


def digests_now(oracle: str, parameters: Mapping[str, Any], panel: Panel) -> dict[str, str]:
    """Digests of the data, the oracle's code and the engine's as they are now."""
    return {"data": panel.digest, "oracle": code_of(oracle, parameters), "code": code_digest()}


def sweep_of(candidate: Candidate) -> tuple[Study, int]:
    """The sweep that holds exactly the candidate's set, over the same data and by the same code; row of the set.

    The sweep that the candidate lies in comes first, then the one with most sets: the widest of the searches that led
    here says most of how much was chosen.

    Raises
    ------
    DataError
        When there is none; sweeps that hold the set but are stale are named.
    """
    stale = []
    for folder in _sweeps(candidate):
        try:
            study = load_study(folder, returns=False)
            row = row_of(study, candidate)
        except HlbtError as error:
            stale.append(str(error).rstrip("."))
            continue
        if row is None:
            continue
        digests = {
            **study.record["digests"],
            "oracle": _digest_of(study.record, candidate.oracle, candidate.parameters),
        }
        changed = changes(digests, candidate.digests, *candidate.earlier)
        if not changed:
            return load_study(folder), row
        stale.append(f"the sweep {folder.name} holds the set but is stale: {' and '.join(changed)}")
    if stale:
        raise DataError(f"{'; '.join(stale)}. Run `hlbt sweep` again with the same settings, then promote.")
    raise DataError(
        f"No sweep in {candidate.reports} holds this set (oracle, parameters, config and data), so nobody can tell "
        f"how much was chosen. Run `hlbt sweep --oracle {candidate.oracle} --grid ...` with a grid that has it, or "
        "name the folder of its sweep with --reports."
    )


def row_of(study: Study, candidate: Candidate) -> int | None:
    """Row of the study that is the candidate's set; None where it has none. The data's digest tells dates and coins."""
    if candidate.oracle not in [item["path"] for item in study.record["oracles"]]:
        return None
    config = _rules(candidate.config)
    codes, levels = codes_of(study.table.index)
    rows = np.ones(len(study), dtype=bool)
    for column, (key, values) in enumerate(zip(study.table.index.names, levels, strict=True)):
        fitting = [code for code, value in enumerate(values) if _fits(str(key), value, candidate, config)]
        rows &= np.isin(codes[:, column], fitting)
    kind = oracle_class(candidate.oracle)
    for row in np.flatnonzero(rows):
        parameter_set = study.parameter_set(int(row))
        bound = as_json(bound_parameters(kind, dict(parameter_set.parameters)))
        if (parameter_set.oracle, bound, _rules(parameter_set.config)) == (
            candidate.oracle,
            candidate.parameters,
            config,
        ):
            return int(row)
    return None


def _fits(key: str, value: Any, candidate: Candidate, config: Mapping[str, Any]) -> bool:
    """Whether a value of a grid is the candidate's."""
    section, dot, name = key.partition(".")
    value = value.item() if isinstance(value, np.generic) else value
    if key == ORACLE:
        return bool(value == candidate.oracle)
    if dot and section in config:
        try:
            rules = RunConfig.from_dict({**config, section: {**config[section], name: value}}).to_dict()
        except HlbtError:  # its sets failed
            return False
        return bool(rules[section][name] == config[section][name])
    if dot:  # of a part; compared with the others once they are put together
        return True
    return key in candidate.parameters and bool(as_json(value) == candidate.parameters[key])


def _sweeps(candidate: Candidate) -> Iterator[Path]:
    """Folders of sweeps of the candidate's oracle: its own, then by the number of sets."""
    folders = []
    for path in sorted(candidate.reports.glob(f"*/{RECORD}")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            sets = record["sets"]
            total = int(sets["total"] if isinstance(sets, Mapping) else sets)
            if candidate.oracle in [item["path"] for item in record["oracles"]]:
                folders.append((-total, path.parent.resolve()))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not a sweep that could say anything
    if candidate.sweep is not None:
        yield candidate.sweep
    yield from (folder for _, folder in sorted(folders) if folder != candidate.sweep)


def _beside(folder: Path) -> Path:
    """The folder that `folder` lies in, as it is called here: a spec shall not name the folders of a machine."""
    return Path(os.path.relpath(folder.parent))


def changes(then: Mapping[str, Any], *now: Mapping[str, Any]) -> list[str]:
    """Which digests differ from all of the given ones, a phrase each, with the first of them."""
    parts = {"data": "the data differ", "oracle": "the oracle's code differs", "code": "the engine's code differs"}
    return [
        f"{phrase} ({str(then[name])[:12]}, now {str(now[0][name])[:12]})"
        for name, phrase in parts.items()
        if then[name] not in [digests[name] for digests in now]
    ]


def code_of(path: str, parameters: Mapping[str, Any]) -> str:
    """Digest of the code of an oracle and its parts, as a live run checks it."""
    return files_digest(oracle_code(load_oracle(path, parameters)))


def _digest_of(record: Mapping[str, Any], path: str, parameters: Mapping[str, Any]) -> str:
    if oracle_class(path).oracle_parameters:
        # A sweep records the code of its oracle, not of parts, which may differ by set; running it again tells.
        return code_of(path, parameters)
    return str(next(item["digest"] for item in record["oracles"] if item["path"] == path))


def _rules(config: RunConfig) -> dict[str, Any]:
    """A config without its data, which have a digest of their own."""
    return {section: keys for section, keys in config.to_dict().items() if section != "data"}
