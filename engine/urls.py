"""Server addresses that a user gives: validation, and texts that hide a token in their path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from engine.errors import ConfigError

#: A path that every library sends, and quotes in its errors, unchanged.
_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/*")


def web_address(url: str) -> SplitResult | None:
    """The parts of an http or https address with a host; None where `url` is not one."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        return parts if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:  # an open bracket, a port that is not a number, a host that is not a name
        return None


def base_address(url: str, option: str) -> str:
    """`url` as others can append their paths to it: without a slash at its end.

    Parameters
    ----------
    url : str
        ``scheme://host[:port][/path]``.
    option : str
        Where it was given, for the message.

    Raises
    ------
    ConfigError
        When it has another form. The message does not show the value, which may hold a token anywhere.
    """
    parts = web_address(url)
    if parts is None or parts.query or parts.fragment or "@" in parts.netloc or not _PATH.fullmatch(parts.path):
        raise ConfigError(
            f"{option} is not an address to which paths can be appended: write http:// or https://, the host, and "
            "where needed a port and a path of plain letters, nothing else (its value is not shown: it may hold a "
            "token)."
        )
    return url.rstrip("/")


def without_path(value: object, url: str | None) -> str:
    """The text of `value` with ``/...`` for the path of the base address `url`, which may be somebody's token."""
    path = urlsplit(url).path if url else ""
    return str(value).replace(path, "/...") if path.strip("/") else str(value)
