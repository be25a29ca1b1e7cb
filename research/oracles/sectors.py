"""Sectors of coins: from a table, a TOML file or a CSV file, and which coins have none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from engine.config import read_toml
from engine.errors import OracleError, did_you_mean, join_first

_EXAMPLE = 'BTC = "majors" in a .toml file, or the columns coin and sector of a .csv file'


def check_sectors(sectors: Any) -> None:
    """Raise an OracleError unless the parameter is a table of coin and sector, or the name of a file of one."""
    if isinstance(sectors, str):
        if Path(sectors).suffix.lower() not in (".toml", ".csv"):
            raise OracleError(f"sectors = {sectors!r} is neither a .toml nor a .csv file. Write {_EXAMPLE}.")
    elif isinstance(sectors, Mapping):
        _checked(sectors.items(), "sectors")
    else:
        raise OracleError(
            f'sectors = {sectors!r} is not accepted: give a table of coin and sector, {{BTC = "majors"}}, or a file: '
            f"{_EXAMPLE}."
        )


def read_sectors(sectors: Mapping[str, str] | str) -> dict[str, str]:
    """Sector of each coin that is named.

    Parameters
    ----------
    sectors : mapping of str to str, or str
        The table itself, or a file of it; see :func:`check_sectors`.

    Raises
    ------
    OracleError, ConfigError
        For a file that cannot be read, has no coin, or names a coin twice or without a sector.
    """
    if not isinstance(sectors, str):
        return dict(sectors)
    file, where = Path(sectors), f"Sectors {sectors}"
    if file.suffix.lower() == ".toml":
        return _checked(read_toml(file, "Sectors").items(), where)
    try:
        # A coin may be called NA or NULL: no cell means "missing".
        frame = pd.read_csv(file, dtype="str", keep_default_na=False, skipinitialspace=True)
    except OSError as error:
        raise OracleError(f"{where} cannot be read: {error.strerror or error}. Name a file that is there.") from error
    except ValueError as error:
        raise OracleError(
            f"{where} cannot be read: {(str(error).splitlines() or ['damaged'])[0]}. Save it as "
            "text (UTF-8) with a comma between its columns coin and sector."
        ) from error
    for name in ("coin", "sector"):
        if name not in frame.columns:
            raise OracleError(
                f"{where} has no column {name!r}.{did_you_mean(name, frame.columns)} It has: "
                f"{join_first(frame.columns, 20)}."
            )
    return _checked(zip(frame["coin"].str.strip(), frame["sector"].str.strip(), strict=True), where)


def _checked(pairs: Iterable[tuple[Any, Any]], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for coin, sector in pairs:
        if not isinstance(coin, str) or not coin or not isinstance(sector, str) or not sector.strip():
            raise OracleError(f"{where}: the sector of {coin!r} is {sector!r}; two names are needed: {_EXAMPLE}.")
        if found.setdefault(coin, sector) != sector:
            raise OracleError(f"{where} has two sectors for {coin}: {found[coin]} and {sector}. Keep one.")
    if not found:
        raise OracleError(f"{where} names no coin. Write {_EXAMPLE}.")
    return found


def sector_notes(sectors: Mapping[str, str], coins: Sequence[str]) -> tuple[str, ...]:
    """What does not fit together: coins of the data without a sector, and coins with one that the data lack."""
    notes = []
    if missing := [coin for coin in coins if coin not in sectors]:
        notes.append(f"No sector is known of {join_first(missing, 10)}: these coins are limited together, as one more.")
    if unknown := [coin for coin in sectors if coin not in coins]:
        hint = did_you_mean(unknown[0], coins)
        notes.append(f"Sectors are given for coins that the data lack: {join_first(unknown, 10)}.{hint}")
    return tuple(notes)
