"""Map tickers of other venues to HyperLiquid's coins, with the dates from which one may mean the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Alias:
    """A ticker that may mean a coin of another name.

    Attributes
    ----------
    symbol, coin : str
        The ticker elsewhere; HyperLiquid's name.
    since : Timestamp or None
        First instant from which it may.
    """

    symbol: str
    coin: str
    since: pd.Timestamp | None = None


def _date(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


#: Coins that HyperLiquid quotes in thousands. Source: the venue's `meta` of 2025-08-22 and 2026-02-06.
_THOUSANDS = ("PEPE", "SHIB", "BONK", "FLOKI", "LUNC", "NEIRO", "DOGS")

#: In order of preference. A coin of the symbol's own name comes before all of these while it is tradable.
ALIASES = (
    *(Alias(symbol, f"k{symbol}") for symbol in _THOUSANDS),
    # Other venues' names of the same thousands, and the name with its k in capitals.
    *(Alias(f"{prefix}{symbol}", f"k{symbol}") for symbol in _THOUSANDS for prefix in ("1000", "K")),
    # Polygon's migration of 2024-09-04; POL has paid funding on the venue since 2024-09-17 07:00 UTC. MATIC until then.
    Alias("MATIC", "POL", _date("2024-09-04")),
    Alias("POL", "MATIC", _date("2024-09-04")),
    # Renamed in July 2024; RENDER has funding on the venue before 2024-09-01 (freqtrade's files).
    Alias("RNDR", "RENDER", _date("2024-07-01")),
    Alias("RENDER", "RNDR"),
    # Sonic's main net of 2024-12-18; S has paid funding on the venue since 2025-01-17 08:00 UTC.
    Alias("FTM", "S", _date("2024-12-18")),
    Alias("S", "FTM", _date("2024-12-18")),
    # SKY is not in `meta` of 2025-08-22. One MKR is many SKY: fine for a score, which has no unit of the coin.
    Alias("MKR", "SKY", _date("2025-08-23")),
    # The delisting vote of OM, 2026-02-23.
    Alias("OM", "MANTRA", _date("2026-02-23")),
    Alias("MANTRA", "OM"),
    Alias("JELLYJELLY", "JELLY"),
)


class SymbolMap:
    """Maps the columns of a file, one a symbol, to the columns of a panel, one a coin."""

    def __init__(self, symbols: Sequence[str], coins: Sequence[str]) -> None:
        target = {coin: column for column, coin in enumerate(coins)}
        source = {symbol: column for column, symbol in enumerate(symbols)}
        self._coins = len(coins)
        own = [(source[symbol], target[symbol]) for symbol in symbols if symbol in target]
        self._own = np.array(own, dtype=np.int64).reshape(-1, 2)
        self._aliases = [
            (source[alias.symbol], target[alias.coin], target.get(alias.symbol, -1), alias.since)
            for alias in ALIASES
            if alias.symbol in source and alias.coin in target
        ]
        known = {int(column) for column in self._own[:, 0]} | {column for column, *_ in self._aliases}
        #: Symbols that name no coin of the panel, in the order of the file.
        self.unknown = tuple(symbol for column, symbol in enumerate(symbols) if column not in known)

        symbols_of: dict[str, list[str]] = {coin: [coin] for coin in coins if coin in source}
        for source_column, coin_column, *_ in self._aliases:
            symbols_of.setdefault(coins[coin_column], []).append(symbols[source_column])
        #: Coins that several symbols may name, and those symbols in the order in which they count.
        self.shared = tuple((coin, tuple(named)) for coin, named in symbols_of.items() if len(named) > 1)

    def to_coins(self, values: np.ndarray, instant: pd.Timestamp, tradable: np.ndarray) -> np.ndarray:
        """Values (L, K) by symbol -> (L, N) by coin, NaN where there is none, with the names in force at `instant`.

        A coin takes the values of its own name. Where those are NaN it takes those of an alias, the first in the order
        of :data:`ALIASES`, unless the alias is itself a coin that is tradable. So the rows of MATIC are MATIC's while
        it trades and the history of POL afterwards.
        """
        mapped = np.full((len(values), self._coins), np.nan)
        mapped[:, self._own[:, 1]] = values[:, self._own[:, 0]]
        for source, target, itself, since in self._aliases:
            if (itself < 0 or not tradable[itself]) and (since is None or instant >= since):
                mapped[:, target] = np.where(np.isnan(mapped[:, target]), values[:, source], mapped[:, target])
        return mapped
