"""The oracle interface: from what was known at an instant to portfolio weights, and the risks of a book."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeGuard
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd

from engine.clock import decision_instants, show
from engine.errors import OracleError, WeightsError
from engine.oracles.calls import call_fetch_weights as call_fetch_weights
from engine.oracles.calls import matrix_of_instants as matrix_of_instants
from engine.oracles.calls import oracle_errors as oracle_errors
from engine.oracles.calls import same_environment as same_environment
from engine.oracles.calls import with_universe as with_universe
from engine.oracles.fingerprint import FILE_MODULE
from engine.panel import Panel
from engine.weights import SparseWeights, as_floats, check_finite, check_gross

#: The column that every risk frame ends with: ``sum(weight)``, long less short, as a fraction of equity.
NET = "net dollar exposure"
#: Where a weight matrix says which oracle it is from.
_SIGNATURE = "oracle"
#: Attribute of an oracle with a constructor of its own: its arguments, and what it was when it had been built.
_BUILT = "_built_with"
#: Classes that have signed weights, by id: one of a notebook or a function has no path that leads to it.
_SIGNERS: WeakValueDictionary[int, type] = WeakValueDictionary()


class Oracle(ABC):
    """Turns what was known at an instant into portfolio weights.

    A subclass defines :meth:`weight_matrix`, or only :meth:`fetch_portfolio_weights` as in the predecessor: then the
    matrix is made of its rows, one instant after the other. Parameters are constructor arguments, so that ``--param``
    and sweeps can name them. Weights are signed fractions of equity; NaN = hold the position, 0 = flat. The panel that
    an oracle is given is the panel as known (:meth:`engine.Panel.known`): row ``t`` holds what could be seen just
    before ``t``, so ``funding`` there is the last settled rate.
    """

    #: Names of the constructor arguments that are oracles themselves, or sequences of them.
    oracle_parameters: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        # as_of and its former name are one method, whichever of the two a class overrides.
        for base in cls.__mro__:
            if defined := {"as_of", "until"} & vars(base).keys():
                for other in {"as_of", "until"} - defined:
                    setattr(cls, other, vars(base)[min(defined)])
                break
        own = cls.fetch_portfolio_weights is not Oracle.fetch_portfolio_weights
        if own and cls.weight_matrix is Oracle.weight_matrix:
            cls.weight_matrix = matrix_of_instants  # type: ignore[method-assign]
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]

    @abstractmethod
    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        """Weights at every decision instant at once.

        Parameters
        ----------
        panel : Panel
            As known.
        decisions : DatetimeIndex, shape (D,)
            Instants of ``panel.index``.

        Returns
        -------
        DataFrame, (D, N)
            Decision instants x ``panel.coins``. Row ``d`` uses panel rows up to ``decisions[d]`` and no later one. It
            depends on no other decision, unless the oracle is :attr:`path_dependent`.
        """

    @property
    def path_dependent(self) -> bool:
        """Whether weights depend on decisions before, as of a buffer that keeps what is held; by default as the parts.

        Such an oracle starts without a state at ``decisions[0]``, and row ``d`` of its matrix depends on
        ``decisions[:d + 1]`` alone, never on what an account holds. Whoever needs one row calls for the whole schedule
        up to it and takes the last: a live run from the first decision of the run that was promoted.
        """
        return any(part.path_dependent for part in self.parts())

    def fetch_portfolio_weights(
        self, timestamp: pd.Timestamp, tradable_universe: Iterable[str], panel: Panel | None = None
    ) -> dict[str, float]:
        """The row of :meth:`weight_matrix` for one instant.

        A :attr:`path_dependent` oracle is called without a schedule here: it decides at the same hour of every day of
        the panel up to `timestamp`, 24 hours apart, from the panel's first.

        Parameters
        ----------
        timestamp : Timestamp
            Decision instant, UTC.
        tradable_universe : iterable of str
            The coins that can be traded at `timestamp`; it replaces ``panel.tradable`` at that row.
        panel : Panel, optional
            Cut off after `timestamp` and made as known before the oracle sees it.

        Returns
        -------
        dict of str to float
            Weight of every coin of the panel; NaN = hold.

        Raises
        ------
        OracleError
            Without a panel where one is needed, when it lacks `timestamp`, or for stale data (:meth:`require_fresh`).
        """
        if panel is None:
            raise OracleError(f"{type(self).__name__} reads market data: pass panel= to fetch_portfolio_weights.")
        instant = utc_instant(timestamp)
        self.require_fresh(instant)
        known = panel.as_of(instant)
        if known.index[-1] != instant:
            raise OracleError(
                f"The panel has no row at {show(instant)}; its last one before is {show(known.index[-1])}."
            )
        known = with_universe(known, tradable_universe)
        decisions = decision_instants(known.index, instant.hour) if self.path_dependent else known.index[-1:]
        weights = self.weight_matrix(known, decisions)
        return {str(coin): float(weight) for coin, weight in weights.iloc[-1].items()}

    def validate_weights(self, weights: Mapping[str, float] | pd.DataFrame, max_gross: float = 1.0) -> bool:
        """Check one row (a mapping) or many (a frame): finite or NaN, gross ``sum(abs(weight))`` within the limit.

        Returns
        -------
        bool
            Always True: weights that break the contract raise.

        Raises
        ------
        WeightsError
            Naming the first coin and instant that break the contract.
        """
        if not isinstance(weights, pd.DataFrame | Mapping):
            raise WeightsError(
                f"Weights are {type(weights).__name__}; a frame or a mapping of coin to weight is needed."
            )
        rows = weights if isinstance(weights, pd.DataFrame) else pd.DataFrame([dict(weights)], index=["weights"])
        values = as_floats(rows)
        check_finite(values, [str(coin) for coin in rows.columns], rows.index)
        check_gross(values, rows.index, max_gross)
        return True

    def parts(self) -> tuple[Oracle, ...]:
        """The oracles that this one is made of (``oracle_parameters``)."""
        values = [getattr(self, name) for name in self.oracle_parameters]
        return tuple(part for value in values for part in ([value] if isinstance(value, Oracle) else value))

    def files(self) -> tuple[Path, ...]:
        """Data files that the weights depend on, without those of parts; their contents are part of a run's digest."""
        return ()

    def constant_files(self) -> tuple[Path, ...]:
        """Those of :meth:`files` that hold for every instant, as a table of sectors does; with those of the parts.

        They are parameters in a file: the look-ahead audit asks for no :meth:`as_of` of them, and names them.
        """
        return tuple(file for part in self.parts() for file in part.constant_files())

    def notes(self, panel: Panel, decisions: pd.DatetimeIndex) -> tuple[str, ...]:
        """Remarks on the data behind the weights, a sentence each; by default those of the parts.

        They are shown in ``run.json``, on the command line and on the tearsheet.
        """
        return tuple(dict.fromkeys(note for part in self.parts() for note in part.notes(panel, decisions)))

    def require_fresh(self, timestamp: pd.Timestamp) -> None:
        """Raise an OracleError when data of the oracle's own are too old for a live book at `timestamp`."""
        for part in self.parts():
            part.require_fresh(timestamp)

    def as_of(self, instant: pd.Timestamp) -> Oracle:
        """The oracle with data of its own cut off after `instant`, as :meth:`Panel.until` cuts a panel.

        By default its parts are cut; an oracle that reads data of its own overrides it, so that the look-ahead audit
        can tell what it knew. ``until`` is the same method under its former name, overridden or not.
        """
        cut = copy(self)
        for name in self.oracle_parameters:
            value = getattr(self, name)
            parts = value.as_of(instant) if isinstance(value, Oracle) else tuple(part.as_of(instant) for part in value)
            object.__setattr__(cut, name, parts)
        return cut

    until = as_of

    def risk(self, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame | None:
        """Risk of a book in the oracle's own terms, for the tearsheet; by default that of the parts, else None.

        Parameters
        ----------
        panel : Panel
            As known.
        weights : DataFrame, (D, N)
            The book after each decision, no NaN; not always of this oracle's making.

        Returns
        -------
        DataFrame, (D, K), or None
            A named exposure a column, NaN where it is not known. Row ``d`` uses what was known at its decision.
        """
        columns: dict[str, pd.Series] = {}
        for part in self.parts():
            frame = part.risk(panel, weights)
            for name, values in () if frame is None else frame.items():
                columns.setdefault(str(name), values)
        return pd.DataFrame(columns, index=weights.index) if columns else None


class ScoreOracle(Oracle):
    """An oracle in two steps, a score and a construction, so that a sweep computes each score once.

    A subclass lists in ``score_parameters`` the constructor arguments its score depends on; all others belong to the
    construction.
    """

    #: Names of the constructor arguments that the score depends on.
    score_parameters: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def scores(self, panel: Panel, decisions: pd.DatetimeIndex) -> np.ndarray:
        """How much each coin is liked, (D, N) float64; NaN = not in the universe. Causal, as :meth:`weight_matrix`."""

    @abstractmethod
    def construct(self, scores: np.ndarray) -> np.ndarray:
        """Weights (D, N) from scores (D, N); NaN scores get 0.

        Each row is made from its own scores alone; of a :attr:`path_dependent` oracle from those up to it.
        """

    @classmethod
    def construct_many(cls, oracles: Sequence[Self], scores: np.ndarray) -> SparseWeights:
        """Weights of several oracles over the same scores, a book each, equal to those of :meth:`construct`.

        A subclass may override it to do once what its constructions share.
        """
        return SparseWeights.joined([SparseWeights.from_dense(oracle.construct(scores)[None]) for oracle in oracles])

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        """Construction of the scores; see :meth:`Oracle.weight_matrix`."""
        weights = self.construct(self.scores(panel, decisions))
        return pd.DataFrame(weights, index=decisions, columns=pd.Index(panel.coins, name="coin"))


def utc_instant(timestamp: object) -> pd.Timestamp:
    """The instant, UTC, that a caller gives; an OracleError when it is none, or has no timezone."""
    try:
        instant = pd.Timestamp(timestamp)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise OracleError(f"Timestamp {timestamp!r} is no instant: {error}.") from error
    if instant.tzinfo is None:
        raise OracleError(f"Timestamp {instant} is naive; instants are timezone-aware UTC.")
    return instant.tz_convert("UTC")


def shares_scores(kind: type[Oracle]) -> TypeGuard[type[ScoreOracle]]:
    """Whether the class computes its weights by constructing its scores, and in no other way."""
    return issubclass(kind, ScoreOracle) and kind.weight_matrix is ScoreOracle.weight_matrix


def weight_matrix(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex, *, may_hold: bool = False) -> pd.DataFrame:
    """Weights of an oracle, which is given the panel as known, at `decisions`, (D,).

    Parameters
    ----------
    oracle : Oracle
    panel : Panel
    decisions : DatetimeIndex, (D,)
        Instants of the panel.
    may_hold : bool
        Whether a matrix that is NaN (hold) throughout is accepted.

    Returns
    -------
    DataFrame, (D, coins)
        As the oracle returns it: any coins, in any order.

    Raises
    ------
    OracleError
        When there is no decision, the oracle raises, returns anything but a frame of the decisions, or holds at every
        one of them and may not.
    """
    if isinstance(oracle, type):
        raise OracleError(f"{oracle.__name__} is a class. Build the oracle first: {oracle.__name__}(...).")
    name = type(oracle).__name__
    if len(decisions) == 0:
        raise OracleError(
            f"No decision instant between {show(panel.index[0])} and {show(panel.index[-1])}. "
            "Widen data.start and data.end, or change execution.hour_utc, every_days or weekdays."
        )
    call = f"{name} failed over {len(decisions)} decisions from {show(decisions[0])}"
    with oracle_errors(call), same_environment():
        weights = oracle.weight_matrix(panel.point_in_time(), decisions)
    values = _values_of(name, weights, decisions)
    if not may_hold and not np.isfinite(values).any():
        raise OracleError(
            f"{name} returned no weight at any of {len(weights)} decisions: every value is NaN, which means "
            "'hold', and there is nothing to hold. Either it looks ahead (shift(-24) has no value at the end of the "
            "data: `hlbt oracle check` tells), or its warm-up is longer than the data."
        )
    _SIGNERS[id(type(oracle))] = type(oracle)
    weights.attrs[_SIGNATURE] = {
        "families": [path_of(type(item)) for item in _with_parts(oracle)],
        "kind": id(type(oracle)),
        "parameters": _arguments_of(oracle),
        "check": _check_of(weights, values),
    }
    return weights


def _values_of(name: str, weights: object, decisions: pd.DatetimeIndex) -> np.ndarray:
    """Numbers, (D, coins), of what the oracle `name` returned; an OracleError unless it is a frame of `decisions`."""
    if not isinstance(weights, pd.DataFrame):
        raise OracleError(
            f"{name}.weight_matrix returned {type(weights).__name__}; a DataFrame (decisions x coins) is needed."
        )
    if not weights.index.equals(decisions):
        differing = [str(instant) for instant in weights.index.symmetric_difference(decisions)]
        first = f"; the first that differs is {differing[0]}" if differing else ""
        raise OracleError(
            f"{name}.weight_matrix must return one row for each of the {len(decisions)} decisions, in their order; it "
            f"returned {len(weights)} rows{first}. Index the frame with the decisions that it is given."
        )
    try:
        return as_floats(weights, f"{name}.weight_matrix returned a weight")
    except WeightsError as error:
        raise OracleError(str(error)) from error


def made_by(weights: pd.DataFrame) -> tuple[list[str], type[Oracle] | None, dict[str, Any]]:
    """Which oracle the weights are from, as :func:`weight_matrix` signed them.

    Returns
    -------
    families : list of str
        Paths of the oracle and of those inside it; empty where nothing is known.
    kind : type or None
        Class of the oracle, where these are its weights as it gave them and its parameters are known.
    parameters : dict
        Its constructor arguments; an oracle inside is a table of its path and its own.
    """
    signature = weights.attrs.get(_SIGNATURE)
    if not isinstance(signature, dict):
        return [], None, {}
    families, kind = list(signature["families"]), _SIGNERS.get(signature["kind"])
    known = kind is not None and path_of(kind) == families[0] and signature["parameters"]
    if known and signature["check"] == _check_of(weights, weights.to_numpy(dtype=np.float64)):
        return families, kind, json.loads(signature["parameters"])
    return families, None, {}


def path_of(kind: type[Oracle]) -> str:
    """``module:Class`` of a class, or ``file.py:Class`` of one that was loaded from a file."""
    module = kind.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.startswith(FILE_MODULE) and file:
        module = Path(os.path.relpath(file)).as_posix()
    return f"{module}:{kind.__qualname__}"


def _with_parts(oracle: Oracle) -> list[Oracle]:
    return [oracle, *(item for part in oracle.parts() for item in _with_parts(part))]


def _arguments_of(oracle: Oracle) -> str:
    """Constructor arguments as JSON; empty where they cannot be told, as of an oracle that was changed since."""
    if _BUILT in vars(oracle):
        text, state = vars(oracle)[_BUILT]
        return text if state == _state_of(oracle) else ""
    if is_dataclass(oracle):
        return _arguments_text({item.name: getattr(oracle, item.name) for item in fields(oracle) if item.init})
    return "{}"


def arguments_of(oracle: Oracle) -> dict[str, Any]:
    """Constructor arguments of an oracle, an oracle inside as a table.

    Raises
    ------
    OracleError
        Where they cannot be told.
    """
    if not (text := _arguments_of(oracle)):
        raise OracleError(f"The arguments of {type(oracle).__name__} are no plain values, or it was changed since.")
    return dict(json.loads(text))


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor, and the oracle knows its arguments: by them a trial is one, by whatever door it comes."""

    @functools.wraps(init)
    def build(self: Oracle, *arguments: Any, **keywords: Any) -> None:
        init(self, *arguments, **keywords)
        if type(self).__init__ is build:  # not that of a base
            bound = inspect.signature(init).bind(self, *arguments, **keywords)
            bound.apply_defaults()
            given, kinds = bound.arguments, {item.kind: item.name for item in bound.signature.parameters.values()}
            given.pop(next(iter(given)))  # self
            given |= given.pop(kinds.get(inspect.Parameter.VAR_KEYWORD, ""), {})
            unnamed = given.pop(kinds.get(inspect.Parameter.VAR_POSITIONAL, ""), ())
            vars(self)[_BUILT] = "" if unnamed else _arguments_text(given), _state_of(self)

    return build


def _arguments_text(arguments: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | Path):
            return str(value) if isinstance(value, Path) else value.item()
        if isinstance(value, Oracle) and (own := _arguments_of(value)):
            return {"oracle": path_of(type(value)), **json.loads(own)}
        raise TypeError(type(value))

    try:
        return json.dumps(arguments, sort_keys=True, default=plain)
    except (TypeError, ValueError):
        return ""


def _state_of(oracle: Oracle) -> dict[str, Any]:
    """The oracle's attributes that are numbers or texts."""
    return {name: item for name, item in vars(oracle).items() if isinstance(item, int | float | str | None)}


def _check_of(weights: pd.DataFrame, values: np.ndarray) -> int:
    """A checksum that tells whether weights are still those that an oracle gave."""
    instants = pd.DatetimeIndex(weights.index).as_unit("ms").asi8.tobytes()
    state = zlib.crc32(repr(list(weights.columns)).encode(), zlib.crc32(instants))
    return zlib.crc32(values.tobytes(), state)


def risk_of(oracle: Oracle, panel: Panel, weights: pd.DataFrame) -> pd.DataFrame | None:
    """Risks of a book in the oracle's terms (:meth:`engine.Oracle.risk`), and its net dollar exposure.

    Parameters
    ----------
    oracle : Oracle
        The oracle of the book.
    panel : Panel
        The market; the oracle is given it as known.
    weights : DataFrame, (D, N)
        Target weights; NaN = hold, which counts as the weight of the row before (0 at the start).

    Returns
    -------
    DataFrame, (D, K + 1), or None
        Float64, indexed by decision; None where the oracle defines no risk.

    Raises
    ------
    OracleError
        For anything but one finite number or NaN a decision and column.
    """
    name = type(oracle).__name__
    held = weights.ffill().fillna(0.0)
    frame = oracle.risk(panel.point_in_time(), held)
    if frame is None:
        return None
    if not isinstance(frame, pd.DataFrame) or not frame.index.equals(weights.index):
        raise OracleError(f"{name}.risk must return None or a frame with one row for each of {len(weights)} decisions.")
    try:
        values = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OracleError(f"{name}.risk returned a value that is no number: {error}.") from error
    if np.isinf(values).any():
        raise OracleError(f"{name}.risk returned an infinite exposure. Use NaN where it is not known.")
    columns = [str(column) for column in frame.columns if column != NET]
    risk = pd.DataFrame(values, index=weights.index, columns=[str(column) for column in frame.columns])[columns]
    return risk.assign(**{NET: held.sum(axis=1)}).rename_axis("time")
