"""Renew a spec after a change of code alone: the gates run again, and the spec is written anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import HlbtError, PromotionError
from engine.live.spec import StrategySpec, read_spec
from engine.oracles.loading import bound_parameters, oracle_class
from engine.panel import Panel
from engine.promotion.candidate import Candidate, changes, digests_now, read_candidate
from engine.promotion.gates import Examination
from engine.promotion.promote import Override, check_overrides, spec_of
from engine.provenance import as_json
from engine.sweeps.results import TOP
from engine.validation.thresholds import GateFile

_PROMOTE_ANEW = "Promote a run anew: hlbt promote RUN --name NAME --replace."


@dataclass(frozen=True)
class Renewal:
    """A spec and the run that it was promoted from.

    Attributes
    ----------
    old : StrategySpec
    candidate : Candidate
        The run, with its digests as they were.
    file : GateFile
    """

    old: StrategySpec
    candidate: Candidate
    file: GateFile

    @property
    def overrides(self) -> tuple[Override, ...]:
        """Those of the spec."""
        return tuple(Override(**override) for override in self.old.gates["overrides"])

    @property
    def account_usd(self) -> float:
        """Size of the account, as in the spec."""
        return float(self.old.account["equity_usd"])

    def is_current(self, candidate: Candidate) -> bool:
        """Whether nothing has changed; a spec that is older than the bands of the edge is made anew for them."""
        return candidate.earlier[0] == candidate.digests and self.old.bands is not None

    @property
    def _history(self) -> list[dict[str, Any]]:
        """The spec and those it was renewed from, the newest first: digest, instant, digests of code and data."""
        own = {"digest": self.old.digest, "created": self.old.created, "digests": dict(self.old.digests)}
        return [own, *self.old.gates.get("renewed_from", [])]

    def current(self, panel: Panel) -> Candidate:
        """The candidate with the digests of today's code.

        Raises
        ------
        PromotionError
            Naming all that differs beside the code: data, oracle, parameters, config, thresholds. A parameter that the
            code has new keeps its default.
        """
        old, run = self.old, self.candidate
        try:
            now = digests_now(old.oracle, old.parameters, panel)
            bound = as_json(bound_parameters(oracle_class(old.oracle), dict(old.parameters)))
        except HlbtError as error:
            raise PromotionError(
                f"{old.name} cannot be renewed, for its oracle cannot be built: {error} {_PROMOTE_ANEW}"
            ) from error
        earlier = tuple(_digests(item["digests"]) for item in self._history)
        differences = changes({**now, "data": old.digests["data"]}, now)
        differences += [
            f"the run is neither of the spec's code and data nor of today's: {difference}"
            for difference in changes(run.digests, now, *earlier)
        ]
        differences += _differing("oracle", {"path": old.oracle}, {"path": run.oracle})
        # A parameter that the code has new leaves weights as they were by its default; the gates see it.
        new = {name: value for name, value in bound.items() if name not in old.parameters}
        differences += _differing("parameter", {**new, **old.parameters}, bound)
        differences += _differing("parameter", bound, {**new, **run.parameters})
        differences += _differing("config key", _flat(old.config.to_dict()), _flat(run.config.to_dict()))
        thresholds = {gate["name"]: gate["threshold"] for gate in old.gates["results"]}
        differences += _differing("threshold of the gate", thresholds, self.file.gates)
        if differences:
            listed = "; ".join(dict.fromkeys(differences))
            raise PromotionError(
                f"{old.name} cannot be renewed, for more than its code differs: {listed}. {_PROMOTE_ANEW}"
            )
        return replace(run, parameters=bound, digests=now, earlier=earlier)

    def spec(
        self, candidate: Candidate, panel: Panel, examination: Examination, created: str
    ) -> tuple[StrategySpec, list[str]]:
        """The spec anew, with the limits and the account of the old one, and notes on what has changed.

        Parameters
        ----------
        candidate : Candidate
            As :meth:`current` gave it.
        panel : Panel
            What it was examined on.
        examination : Examination
            Its gates.
        created : str
            ISO 8601 instant of the renewal, from the caller.

        Raises
        ------
        PromotionError
            Naming the gates that fail now and are not overridden in the spec.
        """
        failed = {gate.name for gate in examination.failed}
        overrides = tuple(override for override in self.overrides if override.gate in failed)
        check_overrides(examination, overrides)
        old = self.old
        spec = spec_of(candidate, panel, examination, overrides, old.limits, self.file, old.name, created)
        notes = changes(candidate.earlier[0], candidate.digests)
        notes += [
            f"the override of {item.gate} is gone: it passes now" for item in self.overrides if item not in overrides
        ]
        notes += _differing("parameter", old.parameters, candidate.parameters)
        notes += _differing("version of", old.versions, spec.versions)
        return replace(spec, gates={**spec.gates, "renewed_from": self._history}), notes


def read_renewal(path: Path, reports: Path, file: GateFile) -> Renewal:
    """Read a spec and the run that it was promoted from.

    Parameters
    ----------
    path : Path
        Of the spec.
    reports : Path
        Folder of the run, the sweeps and the ledger of trials.
    file : GateFile
        Thresholds of the gates.

    Raises
    ------
    SpecError
        When the spec cannot be read, or was edited.
    PromotionError
        When the run is not below `reports`.
    """
    spec = read_spec(path)
    run = spec.gates["run"]
    folders = [reports / run["name"], *([reports / run["sweep"] / TOP / run["name"]] if run["sweep"] else [])]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise PromotionError(
            f"{path} was promoted from {run['name']}, which is not in {reports}: what it recorded cannot be compared. "
            "Name the folder that holds it: --reports DIR; or promote another run in its place, with --replace."
        )
    return Renewal(spec, read_candidate(folder, reports), file)


def _digests(digests: Mapping[str, str]) -> dict[str, str]:
    """Digests of a spec under the names of a run's."""
    return {"data": digests["data"], "oracle": digests["oracle"], "code": digests["engine"]}


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Keys of a config as ``section.key``, without the path of the cache."""
    flat = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {key: value for key, value in flat.items() if key != "data.cache"}


def _differing(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Entries that differ, a phrase each."""
    return [
        f"{kind} {name} differs ({old.get(name, 'absent')!r}, now {new.get(name, 'absent')!r})"
        for name in dict.fromkeys([*old, *new])
        if name not in old or name not in new or old[name] != new[name]
    ]
