"""Build an oracle from its dotted path and parameters, and list the files that its weights depend on.

Parameters of an oracle inside an oracle are flat names with dots: ``inner.n`` is the parameter `n` of `inner`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import HlbtError, OracleError, did_you_mean, join_first
from engine.oracles.base import Oracle, arguments_of, oracle_errors, path_of
from engine.oracles.fingerprint import code_files, import_code, interactive_code_digest
from engine.provenance import Origin, files_digest

#: Key of a table of parameters that holds the path of the oracle.
ORACLE = "oracle"


def load_oracle(path: str, parameters: Mapping[str, Any]) -> Oracle:
    """Build the oracle that ``module:Class`` or ``file.py:Class`` names, with parameters as :func:`build_oracle`.

    Raises
    ------
    OracleError
        When the module, the class or a parameter does not exist (the nearest name is suggested), or a value is not
        accepted.
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
        classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Oracle)]
        names = [value.__name__ for value in classes if not inspect.isabstract(value)]
        problem = (
            f"{module_name} has no oracle {class_name!r}.{did_you_mean(class_name, names)}"
            if kind is None
            else f"In {module_name} {class_name!r} is no oracle: it must be a class that inherits from engine.Oracle."
        )
        raise OracleError(f"{problem} It has: {join_first(names) or 'none'}.")
    if inspect.isabstract(kind):
        raise OracleError(f"{path} is abstract: write its {join_first(sorted(kind.__abstractmethods__))}.")
    return kind


def build_oracle(kind: type[Oracle], parameters: Mapping[str, Any]) -> Oracle:
    """Build an oracle of a class; ``inner.n`` is the parameter `n` of its parameter `inner`.

    Raises
    ------
    OracleError
        For a parameter that it does not have or needs, or a value that it does not accept.
    """
    accepted = accepted_parameters(kind)
    given = folded(parameters, kind.oracle_parameters)
    for name in given:
        if name not in accepted and None not in accepted:
            names = [known for known in accepted if known is not None]
            raise OracleError(
                f"{kind.__name__} has no parameter {name!r}.{did_you_mean(name, names)} Parameters: "
                f"{', '.join(names) or 'none'}."
            )
    if missing := [name for name in _needed_parameters(kind) if name not in given]:
        raise OracleError(f"{kind.__name__} needs {join_first(missing)}: give it with --param {missing[0]}=VALUE.")
    call = f"{kind.__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
    with oracle_errors(f"{call} failed"):
        return kind(**given)


@cache
def accepted_parameters(kind: type[Oracle]) -> Mapping[str | None, Any]:
    """Constructor arguments of an oracle and their defaults; the key None stands for ``**keywords``."""
    return {
        None if item.kind is inspect.Parameter.VAR_KEYWORD else name: item.default
        for name, item in inspect.signature(kind).parameters.items()
    }


@cache
def _needed_parameters(kind: type[Oracle]) -> tuple[str, ...]:
    """Constructor arguments that have no default and can be named."""
    return tuple(
        name
        for name, item in inspect.signature(kind).parameters.items()
        if item.default is item.empty and item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
    )


def as_oracle(value: Any, name: str) -> Oracle:
    """An oracle from the value of a parameter: an oracle, ``module:Class``, or a table of that and its parameters.

    Parameters
    ----------
    value : Oracle, str or mapping
    name : str
        Of the parameter, for the error message.
    """
    if isinstance(value, Oracle):
        return value
    _, kind, given = _resolve(value, name)
    return build_oracle(kind, given)


def _resolve(value: Any, name: str) -> tuple[str, type[Oracle], dict[str, Any]]:
    """Path, class and parameters of a value that :func:`as_oracle` accepts."""
    if isinstance(value, str):
        return value, oracle_class(value), {}
    if isinstance(value, Oracle):
        return path_of(type(value)), type(value), arguments_of(value)
    if isinstance(value, Mapping) and ORACLE in value:
        path, kind, base = _resolve(value[ORACLE], name)
        return path, kind, base | {key: item for key, item in value.items() if key != ORACLE}
    raise OracleError(
        f"{name} = {value!r} is no oracle: write module:Class, or a table with the key {ORACLE} and its parameters."
    )


def oracle_code(oracle: Oracle) -> list[Path]:
    """Files of code that the weights depend on: of the oracle's classes, of all that they import, and of its parts."""
    own = code_files(kind.__module__ for kind in type(oracle).__mro__)
    return list(dict.fromkeys([*own, *(file for part in oracle.parts() for file in oracle_code(part))]))


def data_files(oracle: Oracle) -> list[Path]:
    """Data files that an oracle and its parts read."""
    return [*oracle.files(), *(file for part in oracle.parts() for file in data_files(part))]


def kinds_in(oracle: Oracle) -> list[type]:
    """Classes of an oracle and of its parts, with all that they inherit from."""
    return [*type(oracle).__mro__, *(kind for part in oracle.parts() for kind in kinds_in(part))]


def origin_of(
    oracle: Oracle, path: str | None = None, parameters: Mapping[str, Any] | None = None
) -> tuple[Origin, tuple[str, ...]]:
    """Where the weights of an oracle come from, and what is to be said of that.

    Parameters
    ----------
    oracle : Oracle
        As built.
    path : str, optional
        Default: that of its class.
    parameters : mapping, optional
        What it was built with. Default: :func:`engine.oracles.base.arguments_of`.

    Returns
    -------
    origin : Origin
    notes : tuple of str
        That the code, or the parameters, cannot be known, which gives every run of it a name of its own.
    """
    kind = type(oracle)
    loose = interactive_code_digest(dict.fromkeys(kinds_in(oracle)))
    notes = []
    if loose and loose != interactive_code_digest(dict.fromkeys(kinds_in(oracle))):
        notes.append(
            f"The code of {kind.__name__} refers to an object that cannot be compared (pickled), so no other run "
            "counts as a run of the same code, and this one has a name of its own."
        )
    bound = None
    with suppress(HlbtError, TypeError, AttributeError):
        bound = bound_parameters(kind, arguments_of(oracle) if parameters is None else parameters)
    if bound is None:
        bound = {"not known": os.urandom(8).hex()}  # no other run is the same trial
        notes.append(
            f"The parameters of {kind.__name__} are not known: they are no plain values, or it was changed after it "
            "was built."
        )
    files = oracle_code(oracle)
    code, digest = (files_digest(list(dict.fromkeys(read)), loose) for read in (files, files + data_files(oracle)))
    return Origin(kind.__name__, "oracle", path or path_of(kind), bound, digest, code), tuple(notes)


def bound_parameters(kind: type[Oracle], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` and the defaults of those not given; parameters of inner oracles as flat names with dots."""
    bound = inspect.signature(kind).bind(**folded(parameters, kind.oracle_parameters))
    bound.apply_defaults()
    keywords = {item.name for item in bound.signature.parameters.values() if item.kind is item.VAR_KEYWORD}
    flat: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if name in keywords:
            flat |= value
            continue
        flat |= _flattened(name, value) if name in kind.oracle_parameters else {name: value}
    return flat


def _flattened(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list | tuple):
        tables = [_flattened(f"{name}.{index}", item) for index, item in enumerate(value)]
        paths = [table.pop(f"{name}.{index}") for index, table in enumerate(tables)]
        return {name: paths, **{key: item for table in tables for key, item in table.items()}}
    path, kind, given = _resolve(value, name)
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
        When the name before a dot is not that of an oracle, or is not given.
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
            index, _, rest = rest.partition(".")
            if not index.isdigit() or int(index) >= len(base) or not rest:
                raise OracleError(
                    f"{name} = {value!r} is not accepted: {head} has {len(base)} oracles, so write {head}.0.n to "
                    f"{head}.{len(base) - 1}.n for the parameter n of one."
                )
            items = list(base)
            items[int(index)] = _with(items[int(index)], rest, value)
            plain[head] = items
        else:
            plain[head] = _with(base, rest, value)
    return plain


def _with(base: Any, name: str, value: Any) -> dict[str, Any]:
    return {**base, name: value} if isinstance(base, Mapping) else {ORACLE: base, name: value}
