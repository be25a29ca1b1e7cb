"""Parameters of an oracle inside an oracle, as flat names with dots: ``inner.n`` is the parameter `n` of `inner`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import OracleError, nearest

#: Key under which a table of parameters says which oracle it is of.
ORACLE = "oracle"


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
                f"{nearest(head, inner)} Such parameters here: {', '.join(inner) or 'none'}."
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
