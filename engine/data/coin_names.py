"""The names that other programs give to HyperLiquid's perpetuals, as the exchange's own.

The exchange's names are case-sensitive: ``kPEPE`` is a thousand PEPE, which others call KPEPE or 1000PEPE. A name that
could also be of another market (``BTCUSDT``, the spot pair ``HYPE/USDC``) is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from engine.data.table_files import UnusableFile
from engine.errors import join_first

#: Perpetuals of a thousand coins.
THOUSANDS = ("kPEPE", "kSHIB", "kBONK", "kLUNC", "kFLOKI", "kNEIRO", "kDOGS")
#: Currencies in which perpetuals are settled.
_SETTLED = "USDC|USDH|USDE|USDT0"
_PERPETUAL = re.compile(rf"(.+?)(?:[/_-](?:USD|{_SETTLED})[:_](?:{_SETTLED})|(?:[/_-]USDC?)?[-_]PERP)", re.IGNORECASE)
_OTHER = re.compile(r".+?([/_-]?(USDT|USDC|USD|BUSD)|[/_-](EUR|BTC|ETH))(:.+)?", re.IGNORECASE)
_VENUE = re.compile(r"k?[A-Z0-9]+|[a-z0-9]+:[A-Za-z0-9]+")


class CoinNames:
    """Names of files as the exchange's.

    Parameters
    ----------
    known : iterable of str
        Coins of the cache.
    mapped : mapping of str to str
        Name -> name of the exchange, on the user's word; each may have one ``*``, for the same text. None where the
        user cannot say it.

    Attributes
    ----------
    found : dict of str to str
        The names that were asked for, and those of the exchange.
    """

    def __init__(self, known: Iterable[str], mapped: Mapping[str, str] | None = None) -> None:
        self.found: dict[str, str] = {}
        self.used: set[str] = set()
        self._known = {*known, *THOUSANDS}
        self._mapped = dict(mapped or {})
        self._can_map = mapped is not None

    def venue_name(self, name: str) -> str:
        """The exchange's name of a coin.

        Raises
        ------
        UnusableFile
            Where it is not clear.
        """
        if name not in self.found:
            self.found[name] = self._ordered(name) or self._named(name)
        return self.found[name]

    def notes(self) -> list[str]:
        """Say which names were changed."""
        changed = [f"{name} is {own}" for name, own in sorted(self.found.items()) if name != own]
        return [f"Names of the exchange: {join_first(changed, 12)}."] if changed else []

    def _ordered(self, name: str) -> str:
        """The name by the user's word; empty without one."""
        for pattern, own in self._mapped.items():
            if fnmatchcase(name, re.sub(r"([\[?])", r"[\1]", pattern)):
                self.used.add(pattern)
                head, _, tail = pattern.partition("*")
                return own.replace("*", name[len(head) : len(name) - len(tail)])
        return ""

    def _named(self, name: str) -> str:
        if name in self._known:
            return name
        pair = _PERPETUAL.fullmatch(name)
        base = pair[1] if pair else name
        own = self._spelled(base, name)
        if own:
            return own
        cure = f"; where it is the perpetual, --map {name}=COIN says which" if self._can_map else ""
        if name.startswith(("@", "#")) or re.fullmatch(rf".+/({_SETTLED})", name):
            raise UnusableFile(f"is a spot market and no perpetual{cure}")
        if pair is None and _OTHER.fullmatch(name):
            raise UnusableFile(f"is not a perpetual in USDC by its name, but of another market or exchange{cure}")
        if base == base.lower() and _VENUE.fullmatch(base.upper()):
            return base.upper()
        if not _VENUE.fullmatch(base):
            raise UnusableFile(f"is no name of a perpetual of the exchange{cure}")
        return base

    def _spelled(self, base: str, name: str) -> str:
        """The known coin that is spelled like `base`; empty when none is."""
        if base in self._known:
            return base
        plain = base.lower().replace(":", "-")
        alike = sorted(coin for coin in self._known if coin.lower().replace(":", "-") == plain)
        if len(alike) > 1:
            raise UnusableFile(f"may be {' or '.join(alike)}")
        if not alike and base.startswith("1000"):
            alike = sorted(coin for coin in self._known if coin == f"k{base[4:].upper()}")
        if alike:
            return alike[0]
        if f"k{base.upper()}" in self._known:
            raise UnusableFile(
                f"is traded in thousands, as k{base.upper()}: multiply its prices by 1,000, divide its volume by 1,000 "
                f"and call it k{base.upper()}"
            )
        return ""
