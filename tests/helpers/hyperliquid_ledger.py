"""The books of a HyperLiquid on loopback: coins, order books, accounts, orders, fills, funding; no HTTP, no signatures.

Amounts are `Decimal`: what a test compares is exact. Everything happens in the order of the calls; nothing is random.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Any

from helpers.hyperliquid_faults import OrderFaults, Rejection
from helpers.hyperliquid_records import MICRO, TIFS, ZERO, Account, Coin, Fill, Order, Position, number, text


class Ledger:
    """Matching, positions and money of every account."""

    def __init__(self, coins: list[Coin]) -> None:
        self.coins = {coin.name: coin for coin in coins}
        self.dexes = {"": "USDC"}  # perp dex -> its collateral token, in the order of `perpDexs`
        self.accounts: dict[str, Account] = {}
        self.orders: list[Order] = []  # that rested or were filled
        self.rejected: list[Order] = []
        self.fills: list[Fill] = []
        self.order_faults = OrderFaults()
        self.minimum_usd = Decimal(10)
        self.reduce_only_exempt = True
        self.refuse_duplicate_cloids = True
        self.post_only_period = False
        self.prevalidated: set[str] = set()  # rejects, as "Tick", for which the whole batch is refused
        self._oid = 1_000_000

    # Dexes ------------------------------------------------------------------------------------------------------------

    def universe(self, dex: str) -> list[Coin]:
        """The coins of a dex in their order; KeyError for one that does not exist."""
        if dex not in self.dexes:
            raise KeyError(dex)
        return [coin for coin in self.coins.values() if coin.dex == dex]

    def asset(self, coin: Coin) -> int:
        """Asset id: the index in the universe, of other dexes than the main one from 100,000 + 10,000 a place."""
        index = self.universe(coin.dex).index(coin)
        return index if not coin.dex else 100_000 + 10_000 * list(self.dexes).index(coin.dex) + index

    def pool(self, account: Account, dex: str) -> str:
        """What margins the positions of a dex, a key of `Account.balances`."""
        token = self.dexes[dex]
        return dex if not account.unified else "" if token == "USDC" else token

    def held(self, account: Account, pool: str = "") -> dict[str, Position]:
        """Positions that a pool margins."""
        at = account.positions.items()
        return {name: held for name, held in at if self.pool(account, self.coins[name].dex) == pool}

    # Money ------------------------------------------------------------------------------------------------------------

    def leverage(self, account: Account, coin: Coin) -> tuple[int, bool]:
        """(value, cross); before it is set: the highest, at most 20 (undocumented)."""
        return account.leverage.get(coin.name, (min(20, coin.max_leverage), coin.margin_mode is None))

    def notional(self, name: str, size: Decimal) -> Decimal:
        return abs(size) * self.coins[name].mark

    def gain(self, name: str, at: Position) -> Decimal:
        """Unrealised profit of a position at the mark price."""
        return at.size * (self.coins[name].mark - at.entry)

    def unrealised(self, account: Account, pool: str = "") -> Decimal:
        return sum((self.gain(name, at) for name, at in self.held(account, pool).items()), start=ZERO)

    def equity(self, account: Account, pool: str = "") -> Decimal:
        """Balance and unrealised profit at the mark price."""
        return account.balances.get(pool, ZERO) + self.unrealised(account, pool)

    def worth(self, account: Account) -> Decimal:
        """All pools and the spot holdings, every token at a dollar: what `portfolio` shows."""
        pools = {*account.balances, *(self.pool(account, self.coins[name].dex) for name in account.positions)}
        spot = sum(account.tokens.values(), start=account.spot_usd)
        return sum((self.equity(account, pool) for pool in pools), start=spot)

    def position_margin(self, account: Account, name: str, size: Decimal) -> Decimal:
        """Initial margin `|size| mark / leverage`; of an isolated position what was set aside, and its profit."""
        value, cross = self.leverage(account, self.coins[name])
        at = account.positions.get(name)
        if cross or at is None or at.size != size:
            return self.notional(name, size) / value
        return abs(size) * at.entry / value + self.gain(name, at)

    def margin_used(self, account: Account, sizes: dict[str, Decimal] | None = None, pool: str = "") -> Decimal:
        """Margin of the positions; `sizes` replaces some of them."""
        held = {name: position.size for name, position in self.held(account, pool).items()} | (sizes or {})
        return sum((self.position_margin(account, name, size) for name, size in held.items()), start=ZERO)

    def isolated_margin(self, account: Account, pool: str = "") -> Decimal:
        """What isolated positions hold of a pool, with their profit."""
        held = {name: at for name, at in self.held(account, pool).items() if not self._cross(account, name)}
        return sum((self.position_margin(account, name, at.size) for name, at in held.items()), start=ZERO)

    def _cross(self, account: Account, name: str) -> bool:
        return self.leverage(account, self.coins[name])[1]

    def maintenance(
        self, account: Account, pool: str = "", dex: str | None = None, cross_only: bool = False
    ) -> Decimal:
        """Half of the initial margin at the highest leverage, of a pool's positions (on one dex)."""
        return sum(
            (
                self.notional(name, at.size) / (2 * self.coins[name].max_leverage)
                for name, at in self.held(account, pool).items()
                if dex in (None, self.coins[name].dex) and (not cross_only or self._cross(account, name))
            ),
            start=ZERO,
        )

    def resting_margin(self, account: Account, pool: str = "") -> Decimal:
        return sum(
            (
                order.remaining * order.limit / self.leverage(account, self.coins[order.coin])[0]
                for order in self.open_orders(account.address)
                if not order.reduce_only and self.pool(account, self.coins[order.coin].dex) == pool
            ),
            start=ZERO,
        )

    # Orders -----------------------------------------------------------------------------------------------------------

    def open_orders(self, user: str | None = None, coin: str | None = None) -> list[Order]:
        return [
            order
            for order in self.orders
            if order.status == "open" and user in (None, order.user) and coin in (None, order.coin)
        ]

    def find(self, user: str, key: int | str) -> Order | None:
        """The newest order of `user` with this oid or cloid."""
        held = [*self.rejected, *self.orders]
        mine = [order for order in held if order.user == user and key in (order.oid, order.cloid)]
        return max(mine, key=lambda order: order.oid, default=None)

    def _order(self, user: str, coin: Coin, wire: dict[str, Any], now: int) -> Order:
        self._oid += 1
        return Order(
            oid=self._oid,
            user=user,
            coin=coin.name,
            buy=wire["b"],
            limit=number(wire["p"]),
            size=number(wire["s"]),
            tif=wire["t"]["limit"]["tif"],
            reduce_only=wire["r"],
            cloid=wire.get("c"),
            time=now,
            remaining=number(wire["s"]),
            status_time=now,
        )

    def prevalidate(self, coin: Coin, wire: dict[str, Any]) -> str | None:
        """Name of the reject for which a batch with this order is refused as a whole."""
        try:
            self._check_form(self._order("", coin, wire, 0), coin)
        except Rejection as rejection:
            return rejection.name if rejection.name in self.prevalidated else None
        return None

    def place(self, account: Account, coin: Coin, wire: dict[str, Any], now: int) -> dict[str, Any]:
        """One order of a batch, from its wire form, to its entry in `statuses`."""
        order = self._order(account.address, coin, wire, now)
        nudge = self.order_faults.take(coin.name, order.cloid)
        try:
            if nudge is not None and nudge.reject is not None:
                raise Rejection(nudge.reject, bbo=self.bbo(coin))
            self._check_form(order, coin)
            self._check_state(order, account, coin)
            share = None if nudge is None else nudge.fill_share
            return self._execute(order, coin, share)
        except Rejection as rejection:
            order.status = rejection.status
            self.rejected.append(order)
            return {"error": f"{rejection} asset={self.asset(coin)}"}

    def _check_form(self, order: Order, coin: Coin) -> None:
        """What the order alone shows: delisting, size, price, minimum."""
        if coin.delisted:
            raise Rejection("Delisted")
        if order.size == 0:
            raise Rejection("ZeroSize")
        if order.size < 0 or order.size != coin.lots(order.size):
            raise Rejection("InvalidSize")
        if order.limit <= 0:
            raise Rejection("InvalidPrice")
        if not coin.valid_price(order.limit):
            raise Rejection("Tick")
        if abs(order.limit / coin.mark - 1) > Decimal("0.8"):
            raise Rejection("ReferencePrice")
        if abs(order.limit / coin.oracle - 1) > coin.oracle_band:
            raise Rejection("Oracle")
        if order.size * order.limit < self.minimum_usd and not (order.reduce_only and self.reduce_only_exempt):
            raise Rejection("MinTradeNtl")

    def _check_state(self, order: Order, account: Account, coin: Coin) -> None:
        """What depends on the account and the market; a reduce-only order is cut to the position."""
        if self.post_only_period and order.tif != "Alo":
            raise Rejection("PostOnlyPeriod")
        if order.cloid is not None and self.refuse_duplicate_cloids:
            if any(other.cloid == order.cloid and other.user == order.user for other in self.orders):
                raise Rejection("DuplicateCloid")
        held = account.positions.get(coin.name, Position()).size
        signed = order.size if order.buy else -order.size
        if order.reduce_only:
            if held * signed >= 0:
                raise Rejection("ReduceOnly")
            if coin.open_interest_capped and (order.limit - coin.oracle) * signed > 0:
                raise Rejection("TooAggressiveAtOpenInterestCap")
            order.size = order.remaining = min(order.size, abs(held))
            return
        after = held + signed
        if abs(after) > abs(held) or held * after < 0:
            if coin.open_interest_capped:
                flip = held * after < 0
                raise Rejection("PositionFlipAtOpenInterestCap" if flip else "PositionIncreaseAtOpenInterestCap")
            if self.leverage(account, coin)[0] > coin.tier_leverage(abs(after) * coin.mark):
                raise Rejection("PerpMaxPosition")
            pool = self.pool(account, coin.dex)
            needed = self.margin_used(account, {coin.name: after}, pool) + self.resting_margin(account, pool)
            if needed > self.equity(account, pool):
                raise Rejection("PerpMargin")

    def bbo(self, coin: Coin) -> str:
        """Best bid and offer as the post-only refusal prints them."""
        best = [levels[0][0] if levels else ZERO for levels in (coin.bids, coin.asks)]
        return "@".join(f"{price.normalize():f}" for price in best)

    def _execute(self, order: Order, coin: Coin, share: float | None) -> dict[str, Any]:
        offers = self._offers(order, coin)
        if order.tif == "Alo" and offers:
            raise Rejection("BadAloPx", bbo=self.bbo(coin))
        wanted = order.remaining if share is None else coin.lots(order.size * number(share))
        taken: list[tuple[Decimal, Decimal, Order | None]] = []
        for price, level, maker in offers:
            if wanted == 0:
                break
            if maker is not None and maker.user == order.user:
                self._close(maker, "selfTradeCanceled", order.time)
                continue
            size = min(wanted, level[1])
            wanted -= size
            level[1] -= size
            taken.append((price, size, maker))
        immediate = order.tif in ("Ioc", "FrontendMarket")
        if immediate and not taken:
            raise Rejection("IocCancel" if order.tif == "Ioc" else "MarketOrderNoLiquidity")
        self.orders.append(order)
        for price, size, maker in taken:
            self._fill(order, price, size, order.time, crossed=True)
            if maker is not None:
                self._fill(maker, price, size, order.time, crossed=False)
        self._settle_book(coin)
        if not taken:
            return {"resting": {"oid": order.oid} | ({"cloid": order.cloid} if order.cloid else {})}
        if immediate and order.remaining:
            order.status = "canceled"
        done = sum((size for _, size, _ in taken), start=ZERO)
        average = coin.average(sum((price * size for price, size, _ in taken), start=ZERO) / done)
        answer = {"totalSz": text(done), "avgPx": text(average), "oid": order.oid}
        return {"filled": answer | ({"cloid": order.cloid} if order.cloid else {})}

    def _offers(self, order: Order, coin: Coin) -> list[tuple[Decimal, list[Decimal], Order | None]]:
        """(price, level, resting order or None) within the limit of an order, best first."""
        sign = 1 if order.buy else -1
        found: list[tuple[int, list[Decimal], Order | None]] = [
            (0, level, None) for level in (coin.asks if order.buy else coin.bids) if level[1] > 0
        ]
        for maker in self.open_orders(coin=coin.name):
            if maker.buy != order.buy:
                found.append((maker.oid, [maker.limit, maker.remaining], maker))
        found.sort(key=lambda offer: (sign * offer[1][0], offer[0]))
        return [(level[0], level, maker) for _, level, maker in found if sign * level[0] <= sign * order.limit]

    def _settle_book(self, coin: Coin) -> None:
        """Drop empty levels, or put the book back if it refills."""
        if coin.refill is not None:
            coin.bids, coin.asks = ([list(level) for level in side] for side in coin.refill)
        coin.bids = [level for level in coin.bids if level[1] > 0]
        coin.asks = [level for level in coin.asks if level[1] > 0]

    def _close(self, order: Order, status: str, now: int) -> None:
        order.status, order.status_time = status, now

    def cancel(self, user: str, coin: str, key: int | str, now: int) -> bool:
        for order in self.open_orders(user, coin):
            if key in (order.oid, order.cloid):
                self._close(order, "canceled", now)
                return True
        return False

    def cancel_all(self, status: str, now: int, user: str | None = None, coin: str | None = None) -> None:
        for order in self.open_orders(user, coin):
            self._close(order, status, now)

    # Fills ------------------------------------------------------------------------------------------------------------

    def _fill(
        self, order: Order, price: Decimal, size: Decimal, now: int, crossed: bool, rate: Decimal | None = None
    ) -> None:
        account, coin = self.accounts[order.user], self.coins[order.coin]
        held = account.positions.setdefault(order.coin, Position())
        start, signed = held.size, size if order.buy else -size
        closed = min(abs(start), size) if start * signed < 0 else ZERO
        pnl = closed * (price - held.entry) * (1 if start > 0 else -1)
        after = start + signed
        if start * after < 0 or start == 0:
            held.entry, held.funding = price, ZERO
        elif abs(after) > abs(start):
            held.entry = (abs(start) * held.entry + size * price) / abs(after)
        held.size = after
        if after == 0:
            del account.positions[order.coin]
        if rate is None:
            rate = (account.taker_rate if crossed else account.maker_rate) * coin.fee_factor
        fee = (price * size * rate).quantize(MICRO, ROUND_DOWN)
        account.pay(self.pool(account, coin.dex), pnl - fee)
        account.volume += price * size
        coin.day_volume += price * size
        order.remaining -= size
        if order.remaining == 0:
            self._close(order, "filled", now)
        self.fills.append(
            Fill(
                user=order.user,
                coin=order.coin,
                buy=order.buy,
                price=price,
                size=size,
                time=now,
                start_position=start,
                direction=order.tif if order.tif not in TIFS else _direction(start, after, order.buy),
                closed_pnl=pnl,
                oid=order.oid,
                cloid=order.cloid,
                crossed=crossed,
                fee=fee,
                tid=len(self.fills) + 1,
            )
        )
        for other in self.open_orders(order.user, order.coin):
            if other.reduce_only and (after == 0 or (after > 0) == other.buy):
                self._close(other, "reduceOnlyCanceled", now)

    def cross_resting(self, coin: Coin, now: int) -> None:
        """Fill resting orders that the other side of a new book reaches, at their own price, as makers."""
        for order in self.open_orders(coin=coin.name):
            levels = coin.asks if order.buy else coin.bids
            for level in levels:
                if order.status != "open" or (level[0] > order.limit if order.buy else level[0] < order.limit):
                    break
                size = min(level[1], order.remaining)
                if size > 0:
                    level[1] -= size
                    self._fill(order, order.limit, size, now, crossed=False)
        self._settle_book(coin)

    def settle(self, coin: Coin, price: Decimal, now: int) -> None:
        """Delist: cancel the coin's orders and close every position at `price` without a fee."""
        self.cancel_all("delistedCanceled", now, coin=coin.name)
        coin.mark = coin.oracle = price
        for account in list(self.accounts.values()):
            if coin.name in account.positions:
                self.force_close(account, coin, price, Decimal(1), "Settlement", now)
        coin.delisted, coin.bids, coin.asks, coin.refill = True, [], [], None

    def force_close(self, account: Account, coin: Coin, price: Decimal, share: Decimal, why: str, now: int) -> None:
        """Close a share of a position without a fee; `why` is the direction of the fill."""
        held = account.positions[coin.name].size
        size = abs(held) if share == 1 else coin.lots(abs(held) * share)
        wire = {"p": price, "s": size, "b": held < 0, "r": True, "t": {"limit": {"tif": why}}}
        self._fill(self._order(account.address, coin, wire, now), price, size, now, crossed=True, rate=ZERO)

    def liquidate(self, now: int) -> None:
        """Close at the mark what is under its maintenance margin: an isolated position, or the others of a pool."""
        for account in self.accounts.values():
            for name, held in list(account.positions.items()):
                margin = self.position_margin(account, name, held.size)
                least = self.notional(name, held.size) / (2 * self.coins[name].max_leverage)
                if not self._cross(account, name) and margin < least:
                    self._liquidate(account, name, now)
            for pool in {self.pool(account, self.coins[name].dex) for name in account.positions}:
                cross = [name for name in self.held(account, pool) if self._cross(account, name)]
                free = self.equity(account, pool) - self.isolated_margin(account, pool)
                if cross and free < self.maintenance(account, pool, cross_only=True):
                    self.cancel_all("liquidatedCanceled", now, account.address)
                    for name in cross:
                        self._liquidate(account, name, now)

    def _liquidate(self, account: Account, name: str, now: int) -> None:
        held, coin = account.positions[name], self.coins[name]
        cross = "Cross" if self._cross(account, name) else "Isolated"
        why = f"Liquidated {cross} {'Long' if held.size > 0 else 'Short'}"
        self.force_close(account, coin, coin.mark, Decimal(1), why, now)

    def pay_funding(self, coin: Coin, rate: Decimal, now: int) -> None:
        """`balance -= size * oracle * rate`: longs pay when the rate is positive."""
        for account in self.accounts.values():
            held = account.positions.get(coin.name)
            if held is None:
                continue
            paid = held.size * coin.oracle * rate
            account.pay(self.pool(account, coin.dex), -paid)
            held.funding += paid
            delta = {"type": "funding", "coin": coin.name, "usdc": text(-paid), "szi": text(held.size)}
            account.funding.append(
                {"time": now, "hash": "0x" + "0" * 64, "delta": delta | {"fundingRate": text(rate), "nSamples": None}}
            )


def _direction(start: Decimal, after: Decimal, buy: bool) -> str:
    if start * after < 0:
        return "Long > Short" if start > 0 else "Short > Long"
    side = "Long" if (start or after) > 0 else "Short"
    return ("Open " if (side == "Long") == buy else "Close ") + side
