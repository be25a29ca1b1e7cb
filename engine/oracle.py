"""The oracle interface: what was known at an instant -> portfolio weights."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from engine.clock import UNIT, show
from engine.errors import HlbtError, OracleError, WeightsError, nearest, some
from engine.panel import Panel
from engine.sparse import SparseWeights

#: Slack of the gross limit, for weights that sum to it but for rounding: 32-bit floats, or six digits in a file.
GROSS_TOLERANCE = 1e-5


class Oracle(ABC):
    """Turns what was known at an instant into portfolio weights.

    Parameters are constructor arguments, so that ``--param`` and sweeps can name them. Weights are signed fractions of
    equity; NaN = hold what there is, 0 = flat. The panel that an oracle is handed is the panel as known
    (:meth:`engine.Panel.known`): row ``t`` holds what could be seen just before ``t``, so ``funding`` there is the
    last settled rate.
    """

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
            Decision instants x ``panel.coins``. Row ``d`` uses panel rows up to ``decisions[d]`` and no later one.
        """

    def fetch_portfolio_weights(
        self,
        timestamp: pd.Timestamp,
        tradable_universe: Iterable[str],
        panel: Panel | None = None,
    ) -> dict[str, float]:
        """The row of :meth:`weight_matrix` for one instant.

        Parameters
        ----------
        timestamp : Timestamp
            Decision instant, UTC.
        tradable_universe : iterable of str
            The coins that can be traded at `timestamp`; it takes the place of ``panel.tradable`` at that row.
        panel : Panel, optional
            Made as known, and cut off after `timestamp`, before the oracle sees it.

        Returns
        -------
        dict of str to float
            Weight of every coin of the panel; NaN = hold.

        Raises
        ------
        OracleError
            Without a panel, for an oracle that needs one, or when `timestamp` is not in it.
        """
        if panel is None:
            raise OracleError(f"{type(self).__name__} reads market data: pass panel= to fetch_portfolio_weights.")
        instant = pd.Timestamp(timestamp)
        if instant.tzinfo is None:
            raise OracleError(f"Timestamp {instant} is naive; instants are timezone-aware UTC.")
        known = panel.known().until(instant)
        if known.index[-1] != instant:
            raise OracleError(
                f"The panel has no row at {show(instant)}; its last one before is {show(known.index[-1])}."
            )
        universe = set(tradable_universe)
        tradable = known.tradable.copy()
        tradable[-1] = [coin in universe for coin in known.coins]
        weights = self.weight_matrix(replace(known, tradable=tradable), known.index[-1:])
        return {str(coin): float(weight) for coin, weight in weights.iloc[0].items()}

    def validate_weights(self, weights: Mapping[str, float] | pd.DataFrame, max_gross: float = 1.0) -> None:
        """Check one row (a mapping) or many (a frame): finite or NaN, gross ``sum(abs(weight))`` within the limit.

        Raises
        ------
        WeightsError
            Naming the first coin and instant that break the contract.
        """
        rows = weights if isinstance(weights, pd.DataFrame) else pd.DataFrame([dict(weights)], index=["weights"])
        values = rows.to_numpy(dtype=np.float64)
        _check_finite(values, [str(coin) for coin in rows.columns], rows.index)
        check_gross(values, rows.index, max_gross)


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
        """Weights (D, N) from scores (D, N), each row from its own scores alone; NaN scores get 0."""

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


def weight_matrix(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
    """Ask an oracle for its weights, handing it the panel as known.

    Raises
    ------
    OracleError
        When there is no decision, the oracle raises, returns anything but a frame of the decisions, or has no weight
        at any decision.
    """
    name = type(oracle).__name__
    if len(decisions) == 0:
        raise OracleError(
            f"No decision instant between {show(panel.index[0])} and {show(panel.index[-1])}. "
            "Widen data.start and data.end, or change execution.hour_utc, every_days or weekdays."
        )
    try:
        weights = oracle.weight_matrix(panel.known(), decisions)
    except HlbtError:
        raise
    except (Exception, SystemExit) as error:
        place = inspect.trace()[-1]
        raise OracleError(
            f"{name} failed over {len(decisions)} decisions from {show(decisions[0])}: {type(error).__name__}: {error} "
            f"({Path(place.filename).name} line {place.lineno}). Correct the oracle; HLBT_TRACEBACK=1 shows the "
            "whole trace."
        ) from error
    if not isinstance(weights, pd.DataFrame):
        raise OracleError(
            f"{name}.weight_matrix returned {type(weights).__name__}; a DataFrame (decisions x coins) is needed."
        )
    if not weights.index.equals(decisions):
        strange = [str(instant) for instant in weights.index.symmetric_difference(decisions)]
        first = f"; the first that differs is {strange[0]}" if strange else ""
        raise OracleError(
            f"{name}.weight_matrix must return one row for each of the {len(decisions)} decisions, in their order; it "
            f"returned {len(weights)} rows{first}. Index the frame with the decisions that it is given."
        )
    try:
        values = weights.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OracleError(f"{name}.weight_matrix returned a weight that is no number: {error}.") from error
    if not np.isfinite(values).any():
        raise OracleError(
            f"{name} returned no weight at any of {len(weights)} decisions: every value is NaN, which means "
            "'hold', and there is nothing to hold. A warm-up longer than the data is the usual cause."
        )
    return weights


def validate_decisions(index: pd.Index, panel: Panel) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Check the instants of weights against a panel.

    Returns
    -------
    decisions : DatetimeIndex, shape (D,)
        Ascending, UTC, all in ``panel.index``.
    order : ndarray, shape (D,), int64
        Place in `index` of each decision.

    Raises
    ------
    WeightsError
        For naive, repeated or unknown instants.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise WeightsError(f"The index of the weights is {index.dtype}; timezone-aware decision instants are needed.")
    if len(index) == 0:
        raise WeightsError("The weights have no row.")
    if index.tz is None:
        raise WeightsError(
            f"The instants of the weights are naive, the first is {index[0]}. Say that they are UTC: "
            "weights.tz_localize('UTC'), or 2024-10-01T23:00Z in a file."
        )
    decisions = index.tz_convert("UTC").as_unit(UNIT)
    if decisions.hasnans:
        raise WeightsError("The weights have a row without an instant.")
    if decisions.has_duplicates:
        repeated = decisions[decisions.duplicated()][0]
        raise WeightsError(f"The weights have two rows for {show(repeated)}. Keep one.")
    order = np.argsort(decisions.asi8, kind="stable")
    decisions = pd.DatetimeIndex(decisions[order], name="time")
    outside = decisions[panel.rows(decisions) < 0]
    if len(outside):
        raise WeightsError(
            f"The weights have {len(outside)} instants that the panel lacks, the first {show(outside[0])}; "
            f"the panel has every hour from {show(panel.index[0])} to {show(panel.index[-1])}. Move them to the hour "
            "or widen data.start and data.end."
        )
    return decisions, order


def validate_weights(weights: pd.DataFrame, panel: Panel) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Check a weight frame against a panel and bring it into the panel's shape.

    The gross is for :func:`check_gross`, for it is limited where it is traded, not where it is asked.

    Returns
    -------
    decisions : DatetimeIndex, shape (D,)
        Ascending, all in ``panel.index``.
    values : ndarray, shape (D, N)
        C-ordered float64 in the order of ``panel.coins``; NaN = hold; a coin that the frame lacks = 0.

    Raises
    ------
    WeightsError
        For naive, repeated or unknown instants, unknown or repeated coins, infinities.
    """
    if not isinstance(weights, pd.DataFrame):
        raise WeightsError(f"Weights are {type(weights).__name__}; a DataFrame (decision instants x coins) is needed.")
    decisions, order = validate_decisions(weights.index, panel)
    coins = [str(coin) for coin in weights.columns]
    if len(set(coins)) != len(coins):
        twice = [coin for coin in dict.fromkeys(coins) if coins.count(coin) > 1]
        raise WeightsError(f"The weights have two columns for {some(twice)}. Keep one.")
    place = {coin: column for column, coin in enumerate(panel.coins)}
    strange = [coin for coin in coins if coin not in place]
    if strange:
        raise WeightsError(
            f"The weights name coins that the panel lacks: {some(strange)}.{nearest(strange[0], place)} "
            "Names are HyperLiquid's and case-sensitive; the panel has those that data.coins and the dates leave."
        )
    try:
        given = weights.to_numpy(dtype=np.float64)[order]
    except (TypeError, ValueError) as error:
        raise WeightsError(f"The weights have a value that is no number: {error}.") from error
    if not (~np.isnan(given)).any():
        raise WeightsError("The weights have no value: every cell is empty or NaN, which means 'hold'.")
    _check_finite(given, coins, decisions)
    values = np.zeros((len(decisions), len(panel.coins)))
    values[:, [place[coin] for coin in coins]] = given
    return decisions, values


def excess(gross: float, limit: float) -> tuple[str, str]:
    """A gross and the limit that it exceeds, with as many digits as it takes to see it."""
    digits = 2 if f"{gross:.2f}" != f"{limit:.2f}" else 6
    return f"{gross:.{digits}f}", f"{limit:.{digits}f}"


def check_gross(values: np.ndarray, index: pd.Index, max_gross: float, cause: str = "") -> None:
    """Refuse rows, (D, N), whose ``sum(abs(weight))`` exceeds the limit; `cause` says what made it of what was asked.

    Raises
    ------
    WeightsError
        Naming the row with the highest gross.
    """
    gross = np.nansum(np.abs(values), axis=1)
    above = np.flatnonzero(~(gross <= max_gross * (1.0 + GROSS_TOLERANCE)))
    if len(above):
        worst = int(above[np.argmax(gross[above])])
        shown, allowed = excess(float(gross[worst]), max_gross)
        raise WeightsError(
            f"Gross weight {shown}{cause} {_where(index[worst])} exceeds {allowed} (account.max_gross), and so do "
            f"{len(above)} of {len(values)} rows. Scale the weights or raise the limit."
        )


def _check_finite(values: np.ndarray, coins: list[str], index: pd.Index) -> None:
    if np.isinf(values).any():
        row, column = (int(place[0]) for place in np.nonzero(np.isinf(values)))
        raise WeightsError(
            f"The weight of {coins[column]} {_where(index[row])} is {values[row, column]}. Weights are finite, or NaN "
            "for 'hold'."
        )


def _where(label: object) -> str:
    return f"on {show(label)}" if isinstance(label, pd.Timestamp) else f"of {label}"


def check_causal(oracle: Oracle, panel: Panel, decisions: pd.DatetimeIndex) -> None:
    """Check that no row of the weights depends on what came after it.

    For every decision the weights on the panel cut off there are compared, bit for bit, with those of the full panel.
    An
    oracle that reads something else than the panel is beyond this check.

    Raises
    ------
    OracleError
        Naming the first instant and coin at which they differ.
    """
    coins = list(panel.coins)
    full = weight_matrix(oracle, panel, decisions).reindex(columns=coins).to_numpy(dtype=np.float64)
    for number, instant in enumerate(decisions):
        rows = oracle.weight_matrix(panel.known().until(instant), decisions[: number + 1])
        cut = rows.reindex(index=decisions[: number + 1], columns=coins).to_numpy(dtype=np.float64)
        differs = ~((cut == full[: number + 1]) | (np.isnan(cut) & np.isnan(full[: number + 1])))
        if differs.any():
            row, column = (int(place[0]) for place in np.nonzero(differs))
            raise OracleError(
                f"{type(oracle).__name__} looks ahead: the weight of {coins[column]} at {show(decisions[row])} is "
                f"{cut[row, column]:.6g} on the data up to {show(instant)} and {full[row, column]:.6g} on all data."
            )


def load_oracle(path: str, parameters: Mapping[str, Any]) -> Oracle:
    """Build the oracle that ``module:Class`` or ``file.py:Class`` names.

    Raises
    ------
    OracleError
        When the module, the class or a parameter is not there (the nearest name is suggested), or it refuses its
        values.
    """
    return build_oracle(oracle_class(path), parameters)


def oracle_class(path: str) -> type[Oracle]:
    """The class that ``module:Class`` or ``file.py:Class`` names; see :func:`load_oracle`."""
    module_name, colon, class_name = path.partition(":")
    if not colon or not module_name or not class_name:
        raise OracleError(
            f"{path!r} does not name an oracle: write module:Class, for example research.oracles.momentum:Momentum."
        )
    module = _import(module_name)
    kind = getattr(module, class_name, None)
    if not (inspect.isclass(kind) and issubclass(kind, Oracle)):
        found = [name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, Oracle)]
        raise OracleError(
            f"{module_name} has no oracle {class_name!r}.{nearest(class_name, found)} It has: {some(found) or 'none'}."
        )
    if inspect.isabstract(kind):
        raise OracleError(f"{path} is abstract: {some(sorted(kind.__abstractmethods__))} is not written.")
    return kind


def build_oracle(kind: type[Oracle], parameters: Mapping[str, Any]) -> Oracle:
    """An oracle of the class `kind`; see :func:`load_oracle`."""
    accepted = accepted_parameters(kind)
    for name in parameters:
        if name not in accepted and None not in accepted:
            raise OracleError(
                f"{kind.__name__} has no parameter {name!r}.{nearest(name, _named(accepted))} Parameters: "
                f"{', '.join(_named(accepted)) or 'none'}."
            )
    try:
        return kind(**parameters)
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"{kind.__name__}({_call(parameters)}) failed: {type(error).__name__}: {error}.") from error


@cache
def accepted_parameters(kind: type[Oracle]) -> Mapping[str | None, Any]:
    """Constructor arguments of an oracle and their defaults; a key None says that it takes any."""
    return {
        None if item.kind is inspect.Parameter.VAR_KEYWORD else name: item.default
        for name, item in inspect.signature(kind).parameters.items()
    }


def _named(accepted: Iterable[str | None]) -> list[str]:
    return [name for name in accepted if name is not None]


def oracle_sources(oracle: Oracle) -> list[Path]:
    """Files whose code decides the weights, for a digest: the modules of the oracle's classes and all they import.

    Left out are ``engine``, which has a digest of its own, the standard library and installed packages, whose
    versions a
    run records.
    """
    return sources_of(type(oracle))


def sources_of(kind: type[Oracle]) -> list[Path]:
    """See :func:`oracle_sources`; of a class."""
    waiting = [base.__module__ for base in kind.__mro__]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
        if name in found or file.suffix != ".py" or name.partition(".")[0] == "engine" or _is_installed(file):
            continue
        found[name] = file
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = name.rsplit(".", node.level)[0] + "." if node.level else ""
                origin = (package + (node.module or "")).strip(".")
                waiting += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [found[name] for name in sorted(found)]


def _is_installed(file: Path) -> bool:
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(file.is_relative_to(place) for place in places if place)


def _import(name: str) -> ModuleType:
    try:
        if name.endswith(".py"):
            file = Path(name).resolve()
            if not file.is_file():
                raise OracleError(f"Oracle file {name} does not exist.")
            spec = importlib.util.spec_from_file_location(f"hlbt_oracle_{file.stem}", file)
            if spec is None or spec.loader is None:
                raise OracleError(f"Oracle file {name} cannot be imported.")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            _look_in(file.parent)
            spec.loader.exec_module(module)
            return module
        _look_in(Path.cwd())
        return importlib.import_module(name)
    except HlbtError:
        raise
    except Exception as error:
        raise OracleError(f"Oracle module {name} cannot be imported: {type(error).__name__}: {error}.") from error


def _look_in(folder: Path) -> None:
    """Let an oracle import its neighbours, as Python does for a script."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _call(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items())


def bound_parameters(kind: type[Oracle], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` and the defaults of all that were not given, as the constructor sees them."""
    bound = inspect.signature(kind).bind(**parameters)
    bound.apply_defaults()
    return dict(bound.arguments)
