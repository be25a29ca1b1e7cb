"""What an account on HyperLiquid is worth and what it holds, read from the exchange's responses.

Each perp dex has a state of its own. In the standard mode each has collateral of its own, too; a unified account has
one balance a token, in its spot account, for all dexes of that collateral. By most evidence that total holds the
unrealised profit already; where it matters, it is compared with another figure of the exchange before anything is
ordered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pandas as pd

from engine.clock import show
from engine.errors import LiveError, join_first
from engine.live.hyperliquid_dexes import USDC, PerpDexes, query_of
from engine.live.hyperliquid_format import instant_of, number
from engine.live.orders import AccountState, dex_text

#: Modes in which each dex has collateral of its own; the last is that of an account that never chose one.
STANDARD: Final = ("disabled", "default", "dexAbstraction", "None")
UNIFIED: Final = "unifiedAccount"
#: Unrealised profit up to this fraction of a unified total is no matter: equity is wrong by no more.
MATTERS_FRAC: Final = 0.01
#: How far the value of positions may have moved in a quarter of an hour, a fraction; it grows with the root of time.
MOVE_FRAC: Final = 0.03
#: Samples of the account's value are taken every 15 minutes; one older than this says nothing.
OLDEST_SAMPLE: Final = pd.Timedelta(hours=1)


@dataclass(frozen=True)
class Position:
    """A position: signed units, USD; what cannot be read is NaN, or None. ``margin_usd`` is 0 with cross margin."""

    coin: str
    units: float
    price: float
    profit_usd: float
    margin_usd: float
    leverage: int | None = None
    cross: bool = True

    @property
    def value_usd(self) -> float:
        """Signed value."""
        return self.units * self.price


@dataclass(frozen=True)
class DexState:
    """A ``clearinghouseState``: the account on one perp dex, ``""`` being the main one."""

    dex: str
    value_usd: float
    maintenance_usd: float
    positions: tuple[Position, ...]
    time: pd.Timestamp


@dataclass(frozen=True)
class SpotState:
    """A ``spotClearinghouseState``: totals by token index and their names, and what is free after maintenance."""

    totals: Mapping[int, float]
    names: Mapping[int, str]
    available: Mapping[int, float]


@dataclass(frozen=True)
class Sample:
    """The exchange's own figure of what an account was worth at an instant, USD."""

    time: pd.Timestamp
    value_usd: float


def _needed(value: Any) -> float:
    figure = number(value)
    if math.isnan(figure):
        raise ValueError(f"{value!r} is no number")
    return figure


def check_role(own: str, master: str, role: Mapping[str, Any]) -> None:
    """Refuse a key whose ``userRole`` is not that of an agent of the account."""
    data = role.get("data")
    masters = {str(value).lower() for value in data.values()} if isinstance(data, dict) else set()
    if role.get("role") != "agent" or master not in masters:
        raise LiveError(
            f"The key of the credentials is that of {own[:10]}, no agent of account_address {master[:10]}: its "
            "orders would trade another account than the one that is read. Correct account_address (a vault or "
            "sub-account is vault_address), or approve the agent (again, if it has expired)."
        )


def resting_orders(orders: Sequence[Mapping[str, Any]]) -> list[str]:
    """That there are ``openOrders``: a run's own never rest."""
    coins = sorted({str(order["coin"]) for order in orders})
    text = f"{len(orders)} orders of somebody else rest on the account, for {join_first(coins)}: a run's own never rest"
    return [f"{text}, and one that fills moves the book"] if orders else []


def expiring_agent(own: str, now_ms: int, agents: Sequence[Mapping[str, Any]]) -> list[str]:
    """That the agent of this key, one of ``extraAgents``, expires within two weeks."""
    ends = (float(agent.get("validUntil") or math.inf) for agent in agents if str(agent["address"]).lower() == own)
    days = ((end - now_ms) / 86_400_000 for end in ends)
    return [f"the agent wallet expires in {left:.1f} days: approve a new one" for left in days if left < 14]


def read_dex_state(dex: str, response: Mapping[str, Any]) -> DexState:
    """Read a ``clearinghouseState``; LookupError, TypeError or ValueError where something needed cannot be read."""
    positions = []
    for item in response["assetPositions"]:
        entry = item["position"]
        units = _needed(entry["szi"])
        if units == 0.0:
            continue
        leverage = entry["leverage"] if isinstance(entry.get("leverage"), dict) else {}
        isolated, times = leverage.get("type") == "isolated", number(leverage.get("value"))
        positions.append(
            Position(
                str(entry["coin"]),
                units,
                abs(number(entry.get("positionValue")) / units),
                number(entry.get("unrealizedPnl")),
                number(entry.get("marginUsed")) if isolated else 0.0,
                None if math.isnan(times) else int(times),
                not isolated,
            )
        )
    return DexState(
        dex,
        _needed(response["marginSummary"]["accountValue"]),
        number(response.get("crossMaintenanceMarginUsed")),
        tuple(positions),
        instant_of(response["time"]),
    )


def read_spot_state(response: Mapping[str, Any]) -> SpotState:
    """Read a ``spotClearinghouseState``; errors as above."""
    totals, names = {}, {}
    for row in response["balances"]:
        token = USDC if row["coin"] == "USDC" else int(row["token"])
        total = number(row.get("total"))
        totals[token], names[token] = _needed(row["total"]) if token == USDC else total, str(row["coin"])
    pairs = response.get("tokenToAvailableAfterMaintenance")
    available = {int(token): number(amount) for token, amount in pairs} if isinstance(pairs, list) else {}
    return SpotState(totals, names, available)


def read_sample(response: Sequence[Any]) -> Sample | None:
    """The newest account value of the day in a ``portfolio``; None without one. Errors as above."""
    rows = dict((str(name), period) for name, period in response)["day"]["accountValueHistory"]
    return Sample(instant_of(rows[-1][0]), _needed(rows[-1][1])) if rows else None


class AccountReader:
    """Reads one account: its mode once, and all perp dexes side by side each time.

    Parameters
    ----------
    user : str
        Address of the account.
    read : callable
        Sends a query of a type, and gives what a function makes of the response, of a class.
    together : callable
        Results of several reads that are sent side by side, in their order.
    dexes : PerpDexes
        Which there are, and which of them are traded.
    """

    def __init__(
        self, user: str, read: Callable[..., Any], together: Callable[..., list[Any]], dexes: PerpDexes
    ) -> None:
        self._user_read, self._together, self._dexes = partial(read, user=user), together, dexes
        self._mode = ""

    def start(self) -> None:
        """Read the mode, while the dexes are read.

        Raises
        ------
        LiveError
            For portfolio margin, and for a mode that is new: equity is not known to be read correctly there.
        """
        read_mode = partial(self._user_read, "userAbstraction", (str, type(None)), str)
        mode, _ = self._together(read_mode, self._dexes.places)
        if mode not in (UNIFIED, *STANDARD):
            name = "portfolio margin (portfolioMargin)" if mode == "portfolioMargin" else repr(mode)
            raise LiveError(
                f"The account is in the mode {name}, whose equity hlbt cannot read: other tokens are collateral there, "
                "and USDC may be borrowed. Switch the account to the unified or the standard mode at the exchange, and "
                "run the command again."
            )
        self._mode = mode

    def state(self) -> AccountState:
        """The account now."""
        self._dexes.check()
        names, used = list(self._dexes.places()), self._dexes.used
        unified = self._mode == UNIFIED
        *states, spot = self._together(*(partial(self.dex_state, name) for name in names), self._spot_or_none(unified))
        # Most have nothing on most dexes: their collateral need not be known.
        others = [state for state in states if state.dex not in used and (state.positions or state.value_usd)]
        tokens = self._dexes.tokens([state.dex for state in others])
        traded = [state for state in states if state.dex in used]
        pairs = [(state, tokens[state.dex]) for state in others]
        if unified:
            return unified_state(traded, pairs, spot, partial(self._user_read, "portfolio", list, read_sample))
        empty = sum(state.value_usd for state in traded) <= 0.0 and not any(state.positions for state in traded)
        return standard_state(traded, pairs, self._spot_or_none(empty)())

    def dex_state(self, dex: str) -> DexState:
        """The account on one dex."""
        read = partial(read_dex_state, dex)
        state: DexState = self._user_read("clearinghouseState", dict, read, **query_of(dex))
        return state

    def _spot_or_none(self, wanted: bool) -> Callable[[], SpotState | None]:
        read = partial(self._user_read, "spotClearinghouseState", dict, read_spot_state)
        return read if wanted else lambda: None


def standard_state(
    traded: Sequence[DexState], others: Sequence[tuple[DexState, int]], spot: SpotState | None
) -> AccountState:
    """The account on the dexes that are traded, each with USDC of its own; what lies on others is no part of it.

    Parameters
    ----------
    traded : sequence of DexState
        Their values add up to the equity.
    others : sequence of (DexState, int)
        Further dexes on which the account has something, and their collateral token.
    spot : SpotState or None
        Read where the dexes that are traded are empty.
    """
    left = [
        f"{state.value_usd:,.2f} {_token(token, {})} on {dex_text(state.dex)} are not counted in the equity"
        for state, token in others
        if state.value_usd
    ]
    equity = math.fsum(state.value_usd for state in traded)
    idle = 0.0 if spot is None else spot.totals.get(USDC, 0.0)
    doubt = ""
    if idle > 0.0:
        doubt = (
            f"the perp account has {equity:,.2f} USD, and {idle:,.2f} USDC lie in the spot account, which are "
            "no collateral in the standard mode. Move USDC from spot to perp, or switch to the unified mode"
        )
    funds = {state.dex: state.value_usd for state in traded} if len(traded) > 1 else {}
    return replace(_state(equity, traded, others, left, doubt), funds=funds)


def positions_alone(traded: Sequence[DexState], unread: Sequence[str], error: LiveError | str) -> AccountState:
    """What the dexes that answer show of an account, when all is closed; its equity is not known.

    Parameters
    ----------
    traded : sequence of DexState
        Of the dexes that are traded.
    unread : sequence of str
        Those of which nothing is known.
    error : LiveError or str
        Why no more is.
    """
    names = join_first(dex_text(state.dex) for state in traded)
    doubt = f"only what {names} shows is closed; equity and positions on other perp dexes are not known: {error}"
    return replace(_state(math.nan, traded, (), [], doubt), unread=tuple(unread))


def unified_state(
    traded: Sequence[DexState],
    others: Sequence[tuple[DexState, int]],
    spot: SpotState,
    sample: Callable[[], Sample | None],
) -> AccountState:
    """The account whose USDC is shared by all dexes of that collateral.

    Parameters
    ----------
    traded : sequence of DexState
        Their collateral is USDC.
    others : sequence of (DexState, int)
        Further dexes on which the account has something, and their collateral token.
    spot : SpotState
        Its USDC total is the equity.
    sample : callable
        Reads the exchange's own figure; called where nothing else tells the two readings of the total apart.
    """
    total = spot.totals.get(USDC, 0.0)
    left = [
        f"{amount:,.8g} {_token(token, spot.names)} are not counted in the equity, which is USDC"
        for token, amount in spot.totals.items()
        if token != USDC and amount != 0.0
    ]
    sharing = [*traded, *(state for state, token in others if token == USDC)]
    doubt = _doubt(total, sharing, spot, sample)
    return _state(total, traded, others, left, doubt)


def _state(
    equity: float, traded: Sequence[DexState], others: Sequence[tuple[DexState, int]], left: list[str], doubt: str
) -> AccountState:
    own = [position for state in traded for position in state.positions]
    foreign = [position for state, _ in others for position in state.positions]
    held = [
        f"{position.coin}: {position.units:+g}, {position.value_usd:+,.2f} USD, on another perp dex: it counts in the "
        "gross and is never traded"
        for position in foreign
    ]
    state = AccountState(
        equity,
        {position.coin: position.units for position in own},
        max(state.time for state in traded),
        {position.coin: position.price for position in own},
        {position.coin: position.value_usd for position in foreign},
        (*held, *left),
        doubt,
        {position.coin: (position.leverage, position.cross) for position in own if position.leverage},
    )
    margins = {position.coin: position.margin_usd for position in own if not position.cross}
    return replace(state, isolated_usd={coin: usd for coin, usd in margins.items() if not math.isnan(usd)})


def _token(token: int, names: Mapping[int, str]) -> str:
    return "USDC" if token == USDC else names.get(token, f"of token {token}")


def _doubt(total: float, sharing: Sequence[DexState], spot: SpotState, sample: Callable[[], Sample | None]) -> str:
    """Why it is not certain that the total of a unified account holds the profit; ``""`` where it is, or no matter."""
    positions = [position for state in sharing for position in state.positions]
    profit = math.fsum(position.profit_usd for position in positions)
    if abs(profit) <= MATTERS_FRAC * abs(total):
        return ""
    with_profit = total + profit
    figures: tuple[float, ...] = ()
    if not math.isnan(free := spot.available.get(USDC, math.nan)):
        cross = free + math.fsum(state.maintenance_usd for state in sharing)
        # It is not documented whether what isolated positions hold is still in it.
        figures = cross, cross + math.fsum(position.margin_usd for position in positions)
        within, source = min(MATTERS_FRAC * abs(total), abs(profit) / 4.0), "what is free after maintenance makes it"
        apart = within / 4.0
    elif (seen := sample()) is not None and abs(age := sharing[0].time - seen.time) <= OLDEST_SAMPLE:
        gross = math.fsum(abs(position.value_usd) for position in positions)
        # Other dollar tokens may be part of the exchange's figure.
        dollars = [spot.totals[token] for token, name in spot.names.items() if token != USDC and name[:3] == "USD"]
        figures = seen.value_usd, seen.value_usd - math.fsum(dollars)
        quarters = max(abs(age), pd.Timedelta(minutes=5)) / pd.Timedelta(minutes=15)
        within = apart = gross * MOVE_FRAC * math.sqrt(quarters) + MATTERS_FRAC / 10.0 * abs(total)
        source = f"the exchange's own figure of {show(seen.time)} (prices may have moved it by {within:,.2f}) is"
    else:
        within, apart, source = 0.0, 0.0, "the exchange gives no figure of its own of the last hour"
    near, near_with = (min((abs(figure - at) for figure in figures), default=math.inf) for at in (total, with_profit))
    if near <= within and near_with > max(4.0 * near, apart):
        return ""
    given = f"{source} {join_first(f'{figure:,.2f}' for figure in dict.fromkeys(figures))}".rstrip()
    return (
        f"the equity of the unified account is not certain: its USDC total is {total:,.2f}, with the unrealised profit "
        f"of {profit:+,.2f} it would be {with_profit:,.2f}; {given}. The profit matters, being more than "
        f"{MATTERS_FRAC:.0%} of the total. Run the command again after the exchange's next figure (every 15 minutes), "
        "or use the standard mode; `hlbt live flatten` closes the book as it is"
    )
