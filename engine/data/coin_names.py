"""The names that other programs give to HyperLiquid's perpetuals, as the exchange's own.

The exchange's names are case-sensitive: ``kPEPE`` is a thousand PEPE, which others call KPEPE or 1000PEPE. A name that
could also be of another market (``BTCUSDT``, the spot pair ``HYPE/USDC``) is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from engine.coin import dex_of
from engine.data.table_files import UnusableFile
from engine.errors import join_first

#: Perpetuals of a thousand coins.
THOUSANDS = ("kPEPE", "kSHIB", "kBONK", "kLUNC", "kFLOKI", "kNEIRO", "kDOGS")
#: Tokens in which perpetuals are settled, as other programs write them, and as the exchange does.
COLLATERAL = {"USDC": "USDC", "USDH": "USDH", "USDE": "USDe", "USDT0": "USDT0"}
_SETTLED = "|".join(COLLATERAL)
_PERPETUAL = re.compile(rf"(.+?)(?:[/_-](?:USD|{_SETTLED})[:_]({_SETTLED})|(?:[/_-]USDC?)?[-_]PERP)", re.IGNORECASE)
_OTHER = re.compile(r".+?([/_-]?(USDT|USDC|USD|BUSD)|[/_-](EUR|BTC|ETH))(:.+)?", re.IGNORECASE)
_VENUE = re.compile(r"k?[A-Z0-9]+|[a-z0-9]+:[A-Za-z0-9]+")


#: Every coin of the main dex, as a pattern.
MAIN_DEX = ("*",)


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern of several coins."""
    return "*" in name


def dexes_of(names: Iterable[str]) -> tuple[str, ...]:
    """The dexes of names and patterns, each once, in their order."""
    return tuple(dict.fromkeys(map(dex_of, names)))


def select_coins(wanted: Sequence[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """Coins by name and by pattern.

    Parameters
    ----------
    wanted : sequence of str
        Names, and patterns of one dex: ``*`` is any text, so ``*`` is the main dex and ``xyz:*`` is all of ``xyz``.
    known : collection of str
        Names of all coins.

    Returns
    -------
    coins : list of str
        Those that are wanted, each once: in the order of `wanted`, and of a pattern in that of `known`.
    unknown : list of str
        Names and patterns of no coin.
    """
    coins: dict[str, None] = {}
    unknown = []
    for name in wanted:
        own = [coin for coin in known if _matches(coin, name)] if is_pattern(name) else [name] * (name in known)
        coins |= dict.fromkeys(own)
        unknown += [] if own else [name]
    return list(coins), unknown


def _matches(name: str, pattern: str) -> bool:
    return dex_of(name) == dex_of(pattern) and fnmatchcase(name, _literal(pattern))


def _literal(pattern: str) -> str:
    """A pattern of :mod:`fnmatch` in which ``*`` alone has a meaning."""
    return re.sub(r"([\[?])", r"[\1]", pattern)


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

    def venue_name(self, name: str, perpetual: bool = False) -> str:
        """The exchange's name of a coin; a `perpetual` by its file's name may be one of a dex, as ``XYZ-TSLA``.

        Raises
        ------
        UnusableFile
            Where it is not clear.
        """
        if name not in self.found:
            self.found[name] = self._ordered(name) or self._named(name, perpetual)
        return self.found[name]

    def notes(self) -> list[str]:
        """Say which names were changed."""
        changed = [f"{name} is {own}" for name, own in sorted(self.found.items()) if name != own]
        return [f"Names of the exchange: {join_first(changed, 12)}."] if changed else []

    def _ordered(self, name: str) -> str:
        """The name by the user's word; empty without one."""
        for pattern, own in self._mapped.items():
            if fnmatchcase(name, _literal(pattern)):
                self.used.add(pattern)
                head, _, tail = pattern.partition("*")
                return own.replace("*", name[len(head) : len(name) - len(tail)])
        return ""

    def _named(self, name: str, perpetual: bool) -> str:
        if name in self._known:
            return name
        pair = _PERPETUAL.fullmatch(name)
        base = pair[1] if pair else name
        own = self._spelled(base)
        if own:
            return own
        dex, dash, coin = base.partition("-")
        if dash and (perpetual or (pair and pair[2])) and re.fullmatch(r"[A-Za-z0-9]+", coin):
            # ccxt writes xyz:TSLA as XYZ-TSLA/USDC:USDC.
            return f"{dex.lower()}:{next((own for own in THOUSANDS if own.upper() == coin.upper()), coin)}"
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

    def _spelled(self, base: str) -> str:
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
