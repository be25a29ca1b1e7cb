"""Oracles by name and parameters: building one, what it was built from, and the files that decide its weights.

Parameters of an oracle inside an oracle, as flat names with dots: ``inner.n`` is the parameter `n` of `inner`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import HlbtError, OracleError, did_you_mean, join_first
from engine.oracles.base import Oracle
from engine.oracles.fingerprint import code_files, import_code

#: Key under which a table of parameters says which oracle it is of.
ORACLE = "oracle"


def load_oracle(path: str, parameters: Mapping[str, Any]) -> Oracle:
    """Build the oracle that ``module:Class`` or ``file.py:Class`` names, with parameters as :func:`build_oracle`.

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
    module = import_code(module_name)
    kind = getattr(module, class_name, None)
    if not (inspect.isclass(kind) and issubclass(kind, Oracle)):
        oracles = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Oracle)]
        found = [value.__name__ for value in oracles if not inspect.isabstract(value)]
        what = f"{class_name!r} is no oracle: it must be a class that inherits from engine.Oracle."
        raise OracleError(
            f"{module_name} has no oracle {class_name!r}.{did_you_mean(class_name, found)} It has: "
            f"{join_first(found) or 'none'}."
            if kind is None
            else f"In {module_name} {what} It has: {join_first(found) or 'none'}."
        )
    if inspect.isabstract(kind):
        raise OracleError(f"{path} is abstract: write its {join_first(sorted(kind.__abstractmethods__))}.")
    return kind


def build_oracle(kind: type[Oracle], parameters: Mapping[str, Any]) -> Oracle:
    """An oracle of a class; ``inner.n`` is parameter `n` of its parameter `inner` (:mod:`engine.oracles.loading`)."""
    accepted = accepted_parameters(kind)
    given = folded(parameters, kind.oracle_parameters)
    for name in given:
        if name not in accepted and None not in accepted:
            names = [known for known in accepted if known is not None]
            raise OracleError(
                f"{kind.__name__} has no parameter {name!r}.{did_you_mean(name, names)} Parameters: "
                f"{', '.join(names) or 'none'}."
            )
    lacking = [
        name
        for name, item in inspect.signature(kind).parameters.items()
        if item.default is item.empty and item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
        if name not in given
    ]
    if lacking:
        raise OracleError(f"{kind.__name__} needs {join_first(lacking)}: give it with --param {lacking[0]}=VALUE.")
    try:
        return kind(**given)
    except HlbtError:
        raise
    except Exception as error:
        called = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise OracleError(f"{kind.__name__}({called}) failed: {type(error).__name__}: {error}.") from error


@cache
def accepted_parameters(kind: type[Oracle]) -> Mapping[str | None, Any]:
    """Constructor arguments of an oracle and their defaults; a key None says that it takes any."""
    return {
        None if item.kind is inspect.Parameter.VAR_KEYWORD else name: item.default
        for name, item in inspect.signature(kind).parameters.items()
    }


def as_oracle(value: Any, name: str) -> Oracle:
    """An oracle from what the parameter `name` may hold: one, ``module:Class``, or that and parameters as a table."""
    if isinstance(value, Oracle):
        return value
    _, kind, given = _named(value, name)
    return build_oracle(kind, given)


def _named(value: Any, name: str) -> tuple[str, type[Oracle], dict[str, Any]]:
    """Path, class and parameters of a value that :func:`as_oracle` accepts."""
    if isinstance(value, str):
        return value, oracle_class(value), {}
    if isinstance(value, Oracle):
        held: list[str] = [item.name for item in fields(value) if item.init] if is_dataclass(value) else []
        own = {name: getattr(value, name) for name in held}
        return f"{type(value).__module__}:{type(value).__qualname__}", type(value), own
    if isinstance(value, Mapping) and ORACLE in value:
        path, kind, base = _named(value[ORACLE], name)
        return path, kind, base | {key: item for key, item in value.items() if key != ORACLE}
    raise OracleError(
        f"{name} = {value!r} is no oracle: write module:Class, or a table with the key {ORACLE} and its parameters."
    )


def oracle_code(oracle: Oracle) -> list[Path]:
    """Files whose code decides the weights: that of the oracle's classes, of all they import, and of its parts."""
    found = code_files(kind.__module__ for kind in type(oracle).__mro__)
    return list(dict.fromkeys([*found, *(file for part in oracle.parts() for file in oracle_code(part))]))


def oracle_sources(oracle: Oracle) -> list[Path]:
    """Files that decide the weights, for a digest: the code of the oracle and its parts, then the data they read."""
    return list(dict.fromkeys([*oracle_code(oracle), *data_files(oracle)]))


def data_files(oracle: Oracle) -> list[Path]:
    """Data files that an oracle and its parts read."""
    return [*oracle.files(), *(file for part in oracle.parts() for file in data_files(part))]


def bound_parameters(kind: type[Oracle], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` and the defaults of all that were not given; those of inner oracles as flat names with dots."""
    bound = inspect.signature(kind).bind(**folded(parameters, kind.oracle_parameters))
    bound.apply_defaults()
    named = {item.name for item in bound.signature.parameters.values() if item.kind is item.VAR_KEYWORD}
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if name in named:
            flat |= value
            continue
        flat |= _spelt(name, value) if name in kind.oracle_parameters else {name: value}
    return flat


def _spelt(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list | tuple):
        each = [_spelt(f"{name}.{place}", item) for place, item in enumerate(value)]
        paths = [spelt.pop(f"{name}.{place}") for place, spelt in enumerate(each)]
        return {name: paths, **{key: item for spelt in each for key, item in spelt.items()}}
    path, kind, given = _named(value, name)
    return {name: path, **{f"{name}.{key}": item for key, item in bound_parameters(kind, given).items()}}


def folded(parameters: Mapping[str, Any], inner: Sequence[str]) -> dict[str, Any]:
    """Fold names with dots into the parameter before the first dot.

    Parameters
    ----------
    parameters : mapping
        For example ``{"inner": "module:Class", "inner.n": 5}``, or with a list, ``{"oracles": ["a:A", "b:B"],
        "oracles.1.n": 5}``.
    inner : sequence of str
        The parameters that are oracles.

    Returns
    -------
    dict
        ``{"inner": {"oracle": "module:Class", "n": 5}}``; deeper dots stay for the oracle that they belong to.

    Raises
    ------
    OracleError
        For a name before a dot that is no oracle, or is not given.
    """
    plain = {name: value for name, value in parameters.items() if "." not in name}
    for name, value in parameters.items():
        head, dot, rest = name.partition(".")
        if not dot:
            continue
        if head not in inner:
            raise OracleError(
                f"{name} = {value!r} is not accepted: {head!r} is no parameter that is an oracle itself."
                f"{did_you_mean(head, inner)} Such parameters here: {', '.join(inner) or 'none'}."
            )
        if head not in plain:
            raise OracleError(
                f"{name} = {value!r} is a parameter of {head}, and {head} is not given. Add {head}=module:Class."
            )
        base = plain[head]
        if isinstance(base, list | tuple):
            place, _, rest = rest.partition(".")
            if not place.isdigit() or int(place) >= len(base) or not rest:
                raise OracleError(
                    f"{name} = {value!r} is not accepted: {head} has {len(base)} oracles, so write {head}.0.n to "
                    f"{head}.{len(base) - 1}.n for the parameter n of one."
                )
            items = list(base)
            items[int(place)] = _with(items[int(place)], rest, value)
            plain[head] = items
        else:
            plain[head] = _with(base, rest, value)
    return plain


def _with(base: Any, name: str, value: Any) -> dict[str, Any]:
    return {**base, name: value} if isinstance(base, Mapping) else {ORACLE: base, name: value}
