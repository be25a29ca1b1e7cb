"""The spec of a promoted strategy: one JSON file with all that a live run needs, and a digest of itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from engine.atomic_io import sync_folder, write_durable
from engine.config import RunConfig
from engine.errors import HlbtError, OracleError, SpecError, did_you_mean, join_first
from engine.live.risk_limits import Limits
from engine.oracles.base import Oracle
from engine.oracles.loading import load_oracle, oracle_code
from engine.provenance import code_digest, files_digest

SCHEMA: Final = 1


@dataclass(frozen=True)
class StrategySpec:
    """A promoted strategy.

    Attributes
    ----------
    name : str
        Also the file's name.
    created : str
        ISO 8601 instant of the promotion.
    oracle : str
        Dotted path, ``module:Class``.
    parameters : mapping
        Constructor arguments of the oracle, all of them.
    config : RunConfig
        Config of the run that was validated.
    limits : Limits
        What stops a live run.
    gates : mapping
        ``results`` of the promotion's gates, and ``overrides`` with their reasons.
    digests : mapping
        SHA-256 of ``data`` (the panel), ``oracle`` (its code) and ``engine`` (this package's code).
    versions : mapping
        Of hlbt, Python and libraries.
    trials : int
        Parameter sets tried for the idea.
    account : mapping
        The owner's notes on the account it is meant for; no secret.
    bands : mapping or None
        What its live returns are held against (:class:`engine.monitoring.edge_bands.EdgeBands`), or ``why`` there are
        none; None in a spec that is older.
    decisions_from : str or None
        ISO 8601 instant of the first decision of the run, at which a path-dependent oracle starts, live too; None in
        specs of before it was recorded.
    """

    name: str
    created: str
    oracle: str
    parameters: Mapping[str, Any]
    config: RunConfig
    limits: Limits
    gates: Mapping[str, Any]
    digests: Mapping[str, str]
    versions: Mapping[str, str]
    trials: int
    account: Mapping[str, Any]
    decisions_from: str | None = None
    bands: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the schema and without the digest; a later field that is not set is left out.

        So a spec that is older than a field keeps its digest, and its client order ids.
        """
        plain = {**asdict(self), "config": self.config.to_dict(), "limits": self.limits.to_dict(), "schema": SCHEMA}
        plain = {name: value for name, value in plain.items() if name not in _LATER or value is not None}
        values: dict[str, Any] = json.loads(canonical(plain))
        return values

    @property
    def synthetic(self) -> bool:
        """Whether it was validated on synthetic data."""
        run = self.gates.get("run")
        return bool(run.get("synthetic")) if isinstance(run, Mapping) else False

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form: the spec's identity, and part of its client order ids."""
        return hashlib.sha256(canonical(self.to_dict()).encode()).hexdigest()


#: Fields that were added later: a spec may lack them.
_LATER: Final = frozenset(item.name for item in fields(StrategySpec) if item.default is not MISSING)


def canonical(value: Any) -> str:
    """The canonical JSON of a value: sorted keys, no spaces, no NaN.

    Raises
    ------
    SpecError
        For a value that JSON cannot represent.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise SpecError(f"A spec holds plain finite values only: {error}.") from error


def write_spec(spec: StrategySpec, path: Path) -> None:
    """Write a spec atomically, with its digest, indented for review.

    Raises
    ------
    SpecError
        For a name that is not the file's, or values that are not plain.
    """
    if path.stem != spec.name or path.suffix != ".json":
        raise SpecError(f"The spec {spec.name!r} must be written to {spec.name}.json, not to {path.name}.")
    content = {**spec.to_dict(), "digest": spec.digest}
    text = json.dumps(content, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durable(path, text.encode())
    sync_folder(path.parent)


def read_spec(path: Path) -> StrategySpec:
    """Read a spec and check that it is what was promoted.

    Raises
    ------
    SpecError
        When it cannot be read, has been edited by hand (its digest does not fit), lacks a field or has one too many.
    """
    if path.suffix in (".csv", ".parquet"):
        raise SpecError(f"{path} is a weights file and no spec. `hlbt live rebalance --weights {path}` trades it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise SpecError(f"Spec {path} cannot be read: {error.strerror}. `hlbt promote` writes one.") from error
    except ValueError as error:
        raise SpecError(f"Spec {path} is not JSON: {error}. Promote the run again.") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise SpecError(f"{path} is no strategy spec of schema {SCHEMA}. `hlbt promote` writes one.")
    recorded = content.pop("digest", None)
    digest = hashlib.sha256(canonical(content).encode()).hexdigest()
    if recorded != digest:
        raise SpecError(
            f"Spec {path} was edited after its promotion: its digest is {str(recorded)[:12]}, its content gives "
            f"{digest[:12]}. A change is a new promotion: restore the file from git, or promote again."
        )
    names = {item.name for item in fields(StrategySpec)}
    missing, extra = names - _LATER - set(content), set(content) - names - {"schema"}
    if missing or extra:
        hint = did_you_mean(next(iter(extra)), names) if extra else ""
        raise SpecError(
            f"Spec {path}: missing {join_first(sorted(missing)) or 'nothing'}, unknown "
            f"{join_first(sorted(extra))}.{hint}"
        )
    del content["schema"]
    try:
        config, limits = RunConfig.from_dict(content.pop("config")), Limits.from_dict(content.pop("limits"))
    except HlbtError as error:
        raise SpecError(f"Spec {path}: {error}") from error
    spec = StrategySpec(config=config, limits=limits, **content)
    if spec.name != path.stem:
        raise SpecError(f"{path} holds the spec {spec.name!r}. Rename the file to {spec.name}.json.")
    return spec


def spec_limits(path: Path, spec: StrategySpec) -> tuple[float, Limits, list[str]]:
    """The account size of a spec, and its limits; of one that is older than a limit, what is used, and notes on it."""
    account, own = spec.account.get("equity_usd"), json.loads(path.read_text(encoding="utf-8"))["limits"]
    size, limits, notes = float(account or spec.config.account.initial_equity_usd), spec.limits, []
    if account is None:
        notes.append(f"the spec says no account size: {size:,.0f} USD, its run's, is used")
    if "equity_multiple" not in own and limits.order_notional_usd is None:
        # What was not set was off, then.
        largest = (limits.equity_multiple or 1.0) * (limits.gross or 1.0) * size
        limits = replace(limits, order_notional_usd=largest)
        notes.append(f"the spec is older than the limit order_notional_usd: {largest:,.0f} USD is used")
    later = [f"{name} {value:g}" for name, value in limits.to_dict().items() if name not in own and value is not None]
    if later:
        notes.append(f"the spec is older than limits whose defaults are used: {', '.join(later)}")
    return size, limits, notes


def load_live_oracle(spec: StrategySpec) -> tuple[Oracle, list[str]]:
    """The oracle of a spec, if its code is what was validated.

    Returns
    -------
    oracle : Oracle
    notes : list of str
        What has changed without changing the weights' code: the engine.

    Raises
    ------
    SpecError
        When the oracle's code has changed since the promotion.
    """
    oracle = load_oracle(spec.oracle, spec.parameters)
    try:
        digest = files_digest(oracle_code(oracle))
    except OracleError as error:
        # A file that was edited after it was imported: what would run is not what the file says.
        raise SpecError(f"The code of {spec.oracle} has changed since {spec.name!r} was promoted: {error}") from error
    promoted = spec.digests.get("oracle")
    if digest != promoted:
        raise SpecError(
            f"The code of {spec.oracle} has changed since {spec.name!r} was promoted: its digest is {digest[:12]}, "
            f"promoted was {str(promoted)[:12]}. What was validated is not what would trade: run the gates again "
            f"with `hlbt promote --renew {spec.name}`, or go back to that code."
        )
    engine = spec.digests.get("engine")
    if engine == code_digest():
        return oracle, []
    return oracle, [f"the engine's code is not that of the promotion ({str(engine)[:12]}): check it with a dry run"]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON" if math.isnan(float(name)) else f"{name} is not finite")
