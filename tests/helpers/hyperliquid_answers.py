"""Answers of `/info` about markets and accounts, from a :class:`Ledger`; shapes as recorded, numbers of its own."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from helpers.hyperliquid_ledger import Ledger
from helpers.hyperliquid_records import TOKENS, ZERO, Account, Agent, Coin, Fill, Order, text

ROWS_CAP = 500  # of funding rows; userFills and historicalOrders give 2000
FILLS_CAP = 2000

DAY_MS = 86_400_000
PERIODS = {"day": 1, "week": 7, "month": 30, "allTime": 100_000}  # of `portfolio`, in days

#: Tokens, and one pair, so that the SDK has something to index.
SPOT_META: dict[str, Any] = {
    "universe": [{"tokens": [1, 0], "name": "PURR/USDC", "index": 0, "isCanonical": True}],
    "tokens": [
        {"name": name, "szDecimals": decimals, "weiDecimals": wei, "index": index, "tokenId": f"0x{index:032x}"}
        | {"isCanonical": True, "evmContract": None, "fullName": None}
        for name, index in TOKENS.items()
        for decimals, wei in [(0, 5) if name == "PURR" else (8, 8)]
    ],
}


class Answers:
    """One method a question; `user` is an address in lower case, `now` the exchange's time in ms."""

    def __init__(self, ledger: Ledger, agents: dict[str, Agent]) -> None:
        self.ledger, self.agents = ledger, agents
        self.spot_meta: dict[str, Any] = SPOT_META
        self.request_buffer = 10_000
        self.total_is_marked = True  # whether a unified `total` holds the unrealised profit
        self.shows_available = True  # whether unified accounts have `tokenToAvailableAfterMaintenance`
        self.changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}  # by coin: of its entry, of its context

    def account(self, user: str) -> Account:
        """The account, or an empty one: the exchange answers about any address."""
        return self.ledger.accounts.get(user, Account(user))

    # Markets ----------------------------------------------------------------------------------------------------------

    def perp_dexs(self) -> list[dict[str, Any] | None]:
        """The main dex is null."""
        empty = {"assetToStreamingOiCap": [], "assetToFundingMultiplier": [], "assetToFundingInterestRate": []}
        return [
            {"name": name, "fullName": name.upper(), "deployer": "0x" + "5" * 40, "oracleUpdater": None}
            | {"feeRecipient": None, "assetToFundingClamp": [], **empty}
            if name
            else None
            for name in self.ledger.dexes
        ]

    def meta(self, dex: str = "") -> dict[str, Any]:
        universe, tables = [], {}
        for index, coin in enumerate(self.ledger.universe(dex)):
            tiers = [(0.0, coin.max_leverage), *coin.tiers]
            table = 51 + index if coin.tiers else coin.max_leverage
            rows = [{"lowerBound": str(float(bound)), "maxLeverage": leverage} for bound, leverage in tiers]
            tables[table] = {"description": "tiered" if coin.tiers else "", "marginTiers": rows}
            entry: dict[str, Any] = {
                **{"szDecimals": coin.sz_decimals, "name": coin.name},
                **{"maxLeverage": coin.max_leverage, "marginTableId": table},
            }
            if coin.margin_mode is not None:
                entry |= {"onlyIsolated": True, "marginMode": coin.margin_mode}
            if coin.delisted:
                entry["isDelisted"] = True
            if coin.dex:
                entry |= {"deployerFeeScale": str(coin.fee_scale)} | ({"growthMode": "enabled"} if coin.growth else {})
            universe.append(self._changed(entry, coin, 0))
        token = TOKENS[self.ledger.dexes[dex]]
        return {"universe": universe, "marginTables": [list(item) for item in tables.items()], "collateralToken": token}

    def _changed(self, entry: dict[str, Any], coin: Coin, part: int) -> dict[str, Any]:
        """An entry of a coin with its `changes`: a value replaces, `...` leaves the field out."""
        changed = entry | self.changes.get(coin.name, ({}, {}))[part]
        return {key: value for key, value in changed.items() if value is not ...}

    def context(self, coin: Coin, rate: Decimal) -> dict[str, Any]:
        """One entry of the second part of `metaAndAssetCtxs`."""
        held = [account.positions.get(coin.name) for account in self.ledger.accounts.values()]
        open_interest = sum((abs(position.size) for position in held if position is not None), start=ZERO)
        mid = coin.mid
        context = {
            **{"funding": text(rate), "openInterest": text(ZERO if coin.delisted else open_interest)},
            **{"prevDayPx": text(coin.mark), "dayNtlVlm": text(coin.day_volume)},
            "premium": None if mid is None else text((mid / coin.oracle - 1).quantize(Decimal("1e-10"))),
            **{"oraclePx": text(coin.oracle), "markPx": text(coin.mark)},
            "midPx": None if mid is None else text(mid),
            "impactPxs": None if mid is None else [text(coin.bids[0][0]), text(coin.asks[0][0])],
            "dayBaseVlm": text((coin.day_volume / coin.mark).quantize(Decimal("1e-8"))),
        }
        return self._changed(context, coin, 1)

    def all_mids(self, dex: str = "") -> dict[str, str]:
        mids = {coin.name: coin.mid or coin.mark for coin in self.ledger.universe(dex) if not coin.delisted}
        return {name: text(mid) for name, mid in mids.items()}

    def book(self, coin: Coin, now: int) -> dict[str, Any]:
        """20 levels a side; resting orders of accounts are in it."""
        sides = []
        for buy, levels in ((True, coin.bids), (False, coin.asks)):
            total: dict[Decimal, tuple[Decimal, int]] = {price: (size, 1) for price, size in levels}
            for order in self.ledger.open_orders(coin=coin.name):
                if order.buy == buy:
                    size, count = total.get(order.limit, (ZERO, 0))
                    total[order.limit] = (size + order.remaining, count + 1)
            best = sorted(total.items(), reverse=buy)[:20]
            sides.append([{"px": text(px), "sz": text(size), "n": count} for px, (size, count) in best])
        spread = {"spread": text(coin.asks[0][0] - coin.bids[0][0])} if coin.mid is not None else {}
        return {"coin": coin.name, "time": now, "levels": sides} | spread

    # Accounts ---------------------------------------------------------------------------------------------------------

    def state(self, user: str, now: int, dex: str = "") -> dict[str, Any]:
        """`clearinghouseState` of one dex: without meaning for a unified account but for its positions."""
        account, ledger = self.account(user), self.ledger
        names = [name for name in account.positions if ledger.coins[name].dex == dex]
        pool = ledger.pool(account, dex)
        equity, used = ledger.equity(account, pool), ledger.margin_used(account, None, pool)
        signed = sum((account.positions[name].size * ledger.coins[name].mark for name in names), start=ZERO)
        gross = sum((ledger.notional(name, account.positions[name].size) for name in names), start=ZERO)
        isolated = ledger.isolated_margin(account, pool)

        def summary(value: Decimal, margin: Decimal) -> dict[str, str]:
            if account.unified:
                value, margin = ZERO, ZERO
            return {
                **{"accountValue": text(value), "totalNtlPos": text(gross)},
                **{"totalRawUsd": text(value - signed if not account.unified else ZERO)},
                "totalMarginUsed": text(margin),
            }

        free = max(ZERO, equity - max(used, gross / 10) - ledger.resting_margin(account, pool))
        return {
            "marginSummary": summary(equity, used),
            "crossMarginSummary": summary(equity - isolated, used - isolated),
            "crossMaintenanceMarginUsed": text(ledger.maintenance(account, pool, dex, cross_only=True)),
            "withdrawable": text(ZERO if account.unified else free),
            "assetPositions": [self._position(account, ledger.coins[name]) for name in names],
            "time": now,
        }

    def _position(self, account: Account, coin: Coin) -> dict[str, Any]:
        at = account.positions[coin.name]
        value, cross = self.ledger.leverage(account, coin)
        worth = abs(at.size) * coin.mark
        gain = at.size * (coin.mark - at.entry)
        paid = text(at.funding)
        position = {
            **{"coin": coin.name, "szi": text(at.size)},
            "leverage": {"type": "cross", "value": value} if cross else self._isolated(at.entry, at.size, value),
            **{"entryPx": text(coin.average(at.entry)), "positionValue": text(worth), "unrealizedPnl": text(gain)},
            "returnOnEquity": text((gain / (abs(at.size) * at.entry / value)).quantize(Decimal("1e-10"))),
            "liquidationPx": self._liquidation(account, coin),
            "marginUsed": text(self.ledger.position_margin(account, coin.name, at.size)),
            "maxLeverage": coin.max_leverage,
            "cumFunding": {"allTime": paid, "sinceOpen": paid, "sinceChange": paid},
        }
        return {"type": "oneWay", "position": position}

    @staticmethod
    def _isolated(entry: Decimal, size: Decimal, value: int) -> dict[str, Any]:
        return {"type": "isolated", "value": value, "rawUsd": text(abs(size) * entry / value - size * entry)}

    def _liquidation(self, account: Account, coin: Coin) -> str | None:
        """`price - side * (equity - maintenance) / size / (1 - l * side)`, l = half of 1 / the highest leverage."""
        at = account.positions[coin.name]
        side = 1 if at.size > 0 else -1
        share = Decimal(1) / (2 * coin.max_leverage)
        pool = self.ledger.pool(account, coin.dex)
        free = self.ledger.equity(account, pool) - self.ledger.maintenance(account, pool)
        price = coin.mark - side * free / abs(at.size) / (1 - share * side)
        return text(price.quantize(Decimal("1e-10"))) if price > 0 else None

    def spot_state(self, user: str) -> dict[str, Any]:
        """Balances; a unified account's collateral is marked to market, and the margin in use is its hold.

        `tokenToAvailableAfterMaintenance` is the collateral less isolated margin and cross maintenance.
        """
        account, ledger = self.account(user), self.ledger
        amounts = {name: (amount, ZERO) for name, amount in account.tokens.items()}
        available: list[list[Any]] = []
        if not account.unified:
            amounts["USDC"] = (account.spot_usd, ZERO)
        for token in dict.fromkeys(ledger.dexes.values()) if account.unified else ():
            pool = "" if token == "USDC" else token
            equity = ledger.equity(account, pool)
            total = equity if self.total_is_marked else account.balances.get(pool, ZERO)
            hold = ledger.margin_used(account, None, pool) + ledger.resting_margin(account, pool)
            amounts[token] = (total, hold)
            used = ledger.isolated_margin(account, pool) + ledger.maintenance(account, pool, cross_only=True)
            if total or used:
                available.append([TOKENS[token], text(equity - used)])
        balances = [
            {"coin": name, "token": TOKENS[name], "total": text(total), "hold": text(hold), "entryNtl": "0.0"}
            for name, (total, hold) in sorted(amounts.items(), key=lambda item: TOKENS[item[0]])
            if total
        ]
        shown = account.unified and self.shows_available
        return {"balances": balances} | ({"tokenToAvailableAfterMaintenance": available} if shown else {})

    def portfolio(self, user: str, now: int) -> list[Any]:
        """Account value with unrealised profit, every 15 minutes and at deposits, by period."""
        samples = self.account(user).samples
        periods = []
        for prefix in ("", "perp"):
            for name, days in PERIODS.items():
                rows = [[at, text(value)] for at, value in samples if at > now - days * DAY_MS]
                key = prefix + name[0].upper() + name[1:] if prefix else name
                periods.append([key, {"accountValueHistory": rows, "pnlHistory": [], "vlm": "0.0"}])
        return periods

    def active(self, user: str, coin: Coin) -> dict[str, Any]:
        account = self.account(user)
        value, cross = self.ledger.leverage(account, coin)
        pool = self.ledger.pool(account, coin.dex)
        used = self.ledger.margin_used(account, None, pool) + self.ledger.resting_margin(account, pool)
        free = max(ZERO, self.ledger.equity(account, pool) - used)
        sizes = coin.lots(free * value / coin.mark)
        leverage = {"type": "cross" if cross else "isolated", "value": value}
        return {
            **{"user": user, "coin": coin.name, "leverage": leverage if cross else leverage | {"rawUsd": "0.0"}},
            **{"maxTradeSzs": [text(sizes)] * 2, "availableToTrade": [text(free)] * 2, "markPx": text(coin.mark)},
        }

    def fees(self, user: str) -> dict[str, Any]:
        account = self.account(user)
        tiers: dict[str, list[Any]] = {"vip": [], "mm": []}
        base = {"cross": "0.00045", "add": "0.00015", "spotCross": "0.0007", "spotAdd": "0.0004"}
        return {
            "dailyUserVlm": [],
            "feeSchedule": base | {"tiers": tiers, "referralDiscount": "0.04", "stakingDiscountTiers": []},
            **{"userCrossRate": f"{account.taker_rate:f}", "userAddRate": f"{account.maker_rate:f}"},
            **{"userSpotCrossRate": "0.0007", "userSpotAddRate": "0.0004", "activeReferralDiscount": "0.0"},
            **{"trial": None, "feeTrialReward": "0.0", "nextTrialAvailableTimestamp": None, "stakingLink": None},
            "activeStakingDiscount": {"bpsOfMaxSupply": "0.0", "discount": "0.0"},
        }

    def request_cap(self, account: Account) -> int:
        return self.request_buffer + int(account.volume)

    def rate_limit(self, user: str) -> dict[str, Any]:
        account = self.account(user)
        used = {"nRequestsUsed": account.requests, "nRequestsCap": self.request_cap(account)}
        return {"cumVlm": text(account.volume), **used, "nRequestsSurplus": 0}

    def extra_agents(self, user: str) -> list[dict[str, Any]]:
        """The named agents; the unnamed one is not an extra."""
        mine = [agent for agent in self.agents.values() if agent.master == user and agent.name]
        return [{"name": agent.name, "address": agent.address, "validUntil": agent.valid_until} for agent in mine]

    def role(self, user: str) -> dict[str, Any]:
        if user in self.agents:
            return {"role": "agent", "data": {"user": self.agents[user].master}}
        account = self.ledger.accounts.get(user)
        if account is None:
            return {"role": "missing"}
        return {"role": account.role} | ({"data": {"master": account.master}} if account.role == "subAccount" else {})

    def sub_accounts(self, user: str, now: int) -> list[dict[str, Any]] | None:
        """None, as recorded, for a user without any."""
        mine = [at for at in self.ledger.accounts.values() if at.role == "subAccount" and at.master == user]
        return [
            {"name": at.address[:8], "subAccountUser": at.address, "master": user}
            | {"clearinghouseState": self.state(at.address, now), "spotState": self.spot_state(at.address)}
            for at in mine
        ] or None

    # Orders and fills -------------------------------------------------------------------------------------------------

    @staticmethod
    def frontend(order: Order) -> dict[str, Any]:
        """An order in the form of `frontendOpenOrders` and `orderStatus`."""
        market = order.tif == "FrontendMarket"
        return {
            **{"coin": order.coin, "side": "B" if order.buy else "A", "limitPx": text(order.limit)},
            **{"sz": text(order.remaining), "oid": order.oid, "timestamp": order.time, "triggerCondition": "N/A"},
            **{"isTrigger": False, "triggerPx": "0.0", "children": [], "isPositionTpsl": False},
            **{"reduceOnly": order.reduce_only, "orderType": "Market" if market else "Limit"},
            **{"origSz": text(order.size), "tif": order.tif, "cloid": order.cloid},
        }

    def open_orders(self, user: str, dex: str = "") -> list[dict[str, Any]]:
        keys = ("coin", "limitPx", "oid", "side", "sz", "timestamp", "origSz", "cloid", "reduceOnly")
        rows = self.frontend_open_orders(user, dex)
        return [{key: row[key] for key in keys if row[key] not in (None, False)} for row in rows]

    def frontend_open_orders(self, user: str, dex: str = "") -> list[dict[str, Any]]:
        """Of one dex, newest first."""
        names = {coin.name for coin in self.ledger.universe(dex)}
        return [self.frontend(order) for order in self.ledger.open_orders(user) if order.coin in names][::-1]

    def with_status(self, order: Order) -> dict[str, Any]:
        return {"order": self.frontend(order), "status": order.status, "statusTimestamp": order.status_time}

    def order_status(self, user: str, key: int | str) -> dict[str, Any]:
        order = self.ledger.find(user, key)
        return {"status": "unknownOid"} if order is None else {"status": "order", "order": self.with_status(order)}

    def history(self, user: str) -> list[dict[str, Any]]:
        everything = [*self.ledger.orders, *self.ledger.rejected]
        mine = sorted((order for order in everything if order.user == user), key=lambda order: -order.oid)
        return [self.with_status(order) for order in mine[:FILLS_CAP]]

    @staticmethod
    def fill(fill: Fill) -> dict[str, Any]:
        return {
            **{"coin": fill.coin, "px": text(fill.price), "sz": text(fill.size), "side": "B" if fill.buy else "A"},
            **{"time": fill.time, "startPosition": text(fill.start_position), "dir": fill.direction},
            **{"closedPnl": text(fill.closed_pnl), "hash": f"0x{fill.tid:064x}", "oid": fill.oid},
            **{"crossed": fill.crossed, "fee": text(fill.fee), "tid": fill.tid, "feeToken": "USDC", "twapId": None},
        } | ({"cloid": fill.cloid} if fill.cloid else {})

    def fills(self, user: str) -> list[dict[str, Any]]:
        """Newest first."""
        mine = [self.fill(fill) for fill in self.ledger.fills if fill.user == user]
        return mine[::-1][:FILLS_CAP]

    def fills_by_time(self, user: str, start: int, end: int | None) -> list[dict[str, Any]]:
        """Oldest first, the first 2000 of the range."""
        mine = [self.fill(fill) for fill in self.ledger.fills if fill.user == user]
        return [row for row in mine if start <= row["time"] and (end is None or row["time"] <= end)][:FILLS_CAP]

    def funding(self, user: str, start: int, end: int | None) -> list[dict[str, Any]]:
        rows = self.account(user).funding
        return [row for row in rows if start <= row["time"] and (end is None or row["time"] <= end)][:ROWS_CAP]
