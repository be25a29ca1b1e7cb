"""The perp dexes of HyperLiquid: which of them are traded, their ids, their collateral and their markets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from engine.coin import dex_of
from engine.errors import LiveError, UnreachableError, did_you_mean, join_first
from engine.live.hyperliquid_format import read_contexts
from engine.live.orders import dex_text

#: Index of USDC, the collateral of the main dex and the currency of equity.
USDC: Final = 0
#: Asset ids of a dex other than the main one start here, and at so many more a place in ``perpDexs``.
_FIRST_ID, _IDS = 100_000, 10_000

#: Entry of the coin table, and state of the market.
Pair = tuple[dict[str, Any], dict[str, Any]]


class PerpDexes:
    """The dexes of which coins are traded, and what the exchange says of them; nothing is read of the main one alone.

    Parameters
    ----------
    network : str
        For messages.
    read : callable
        Sends a query of a type, and gives what a function makes of the response, of a class.
    together : callable
        Results of several reads that are sent side by side, in their order.

    Attributes
    ----------
    used : tuple of str
        Those that are traded, the main one, ``""``, first.
    metas : dict of str to dict
        Coin table of each, as last read.
    lost : dict of str to str
        Those that could not be read when all is closed, and why.
    """

    def __init__(self, network: str, read: Callable[..., Any], together: Callable[..., list[Any]]) -> None:
        self._network, self._read, self._together = network, read, together
        self.used: tuple[str, ...] = ("",)
        self.metas: dict[str, dict[str, Any]] = {}
        self.lost: dict[str, str] = {}
        self._places: dict[str, int] | None = None
        self._tokens = {"": USDC}
        self._checked: set[str] = {""}

    def use(self, names: Iterable[str]) -> None:
        """Trade coins of these dexes, and of no others."""
        self.used = tuple(sorted(set(names)))

    def places(self) -> Mapping[str, int]:
        """Place of every dex in ``perpDexs``, the main one first; read once."""
        if self._places is None:
            self._places = self._read("perpDexs", list, _places)
        return self._places

    def first_id(self, dex: str) -> int:
        """Asset id of the first coin of a dex."""
        return _FIRST_ID + _IDS * self.places()[dex] if dex else 0

    def tokens(self, dexes: Sequence[str]) -> dict[str, int]:
        """Index of the collateral token of dexes, which never changes."""
        unknown = [dex for dex in dexes if dex not in self._tokens]
        values = self._together(*(partial(self._read, "meta", dict, _token, dex=dex) for dex in unknown))
        self._tokens.update(zip(unknown, values, strict=True))
        return {dex: self._tokens[dex] for dex in dexes}

    def check(self) -> None:
        """Refuse dexes that do not exist, and those whose collateral is not USDC, by which books are sized.

        Raises
        ------
        LiveError
            For one of them.
        UnreachableError
            When the exchange does not answer.
        """
        new = [dex for dex in self.used if dex not in self._checked]
        if not new:
            return
        for dex in new:
            if dex not in self.places():
                raise LiveError(
                    f"{self._network} has no perp dex {dex!r}, of which coins are traded or held. It has "
                    f"{join_first(map(repr, self.places()))}.{did_you_mean(dex, self.places())} Correct data.dexes or "
                    "the names of the coins, which are DEX:COIN."
                )
        for dex, token in self.tokens(new).items():
            if token != USDC:
                raise LiveError(
                    f"The collateral of the perp dex {dex} is {self._name(token)}. Equity is counted, and books are "
                    f"sized, in USDC alone, so coins of {dex} cannot be traded yet: leave them out of the weights and "
                    f"{dex} out of data.dexes."
                )
        self._checked.update(new)

    def _name(self, token: int) -> str:
        try:
            names = self._read(
                "spotMeta", dict, lambda meta: {row["index"]: str(row["name"]) for row in meta["tokens"]}
            )
        except UnreachableError:
            names = {}
        return f"{names[token]} (token {token})" if token in names else f"token {token}"

    def contexts(self, closing: bool = False) -> list[Pair]:
        """Entry and context of every coin of the dexes that are traded.

        With `closing`, those of the dexes that can be read, if any can.
        """
        if not closing:
            self.check()
        results = self.of_each(self._contexts_of, closing)
        self.metas |= {dex: meta for dex, (meta, _) in results.items()}
        return [pair for _, pairs in results.values() for pair in pairs]

    def _contexts_of(self, dex: str) -> tuple[dict[str, Any], list[Pair]]:
        if dex and dex not in self.places():  # without its place there is no id to order by
            raise UnreachableError(f"{self._network} has no perp dex {dex!r}.")
        contexts: tuple[dict[str, Any], list[Pair]] = self._read(
            "metaAndAssetCtxs", list, read_contexts, **query_of(dex)
        )
        return contexts

    def of_each(self, read: Callable[[str], Any], closing: bool) -> dict[str, Any]:
        """What a read gives for each dex that is traded, side by side; with `closing`, of those that answer."""
        if not closing:
            return dict(zip(self.used, self._together(*(partial(read, dex) for dex in self.used)), strict=True))
        results, failures = dict[str, Any](), list[UnreachableError]()

        def attempt(dex: str) -> None:
            try:
                results[dex] = read(dex)
                self.lost.pop(dex, None)
            except UnreachableError as error:
                failures.append(error)
                self.lost[dex] = str(error)

        self._together(*(partial(attempt, dex) for dex in self.used))
        if not results:
            raise failures[0]
        return {dex: results[dex] for dex in self.used if dex in results}

    def why_lost(self, coin: str) -> str:
        """Why the dex of a coin is not traded, a phrase; ``""`` where it is."""
        dex = dex_of(coin)
        if dex in self.lost:
            return self.lost[dex]
        return "" if dex in self.used else f"{dex_text(dex)} is not among those that are traded (data.dexes)"


def query_of(dex: str) -> dict[str, str]:
    """The part of a query that names a dex; the main one needs none."""
    return {"dex": dex} if dex else {}


def _places(response: Sequence[Any]) -> dict[str, int]:
    # The main dex is null, and one that is gone may be, too: its place is kept.
    return {"": 0} | {str(dex["name"]): place for place, dex in enumerate(response) if dex}


def _token(meta: Mapping[str, Any]) -> int:
    return int(meta["collateralToken"])


def _token_name(token: int, meta: Mapping[str, Any]) -> str:
    return next(str(row["name"]) for row in meta["tokens"] if row["index"] == token)
