"""`/exchange` of a HyperLiquid on loopback: whose signature it is, whether it may, and what the action does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hyperliquid.utils.signing import (
    USER_SET_ABSTRACTION_SIGN_TYPES,
    recover_agent_or_user_from_l1_action,
    recover_user_from_user_signed_action,
)

from helpers import hyperliquid_faults as faults
from helpers.hyperliquid_answers import Answers
from helpers.hyperliquid_faults import REJECTS, Refusal
from helpers.hyperliquid_info import HOUR_MS
from helpers.hyperliquid_ledger import Ledger
from helpers.hyperliquid_records import Account, Agent, Coin, number

DAY_MS = 24 * HOUR_MS
AGENT_DAYS = 180
NAMED_AGENTS = 3
NONCES_KEPT = 100
CANCEL_VOLUME = 1_000_000
CANCEL_TRIGGERS = 10
STALE_COST = 5
OK: dict[str, Any] = {"status": "ok", "response": {"type": "default"}}
MODES = {"i": "disabled", "u": "unifiedAccount", "p": "portfolioMargin"}
USER_SIGNED: dict[str, tuple[str, list[dict[str, str]]]] = {
    "approveAgent": (
        "HyperliquidTransaction:ApproveAgent",
        [
            {"name": "hyperliquidChain", "type": "string"},
            {"name": "agentAddress", "type": "address"},
            {"name": "agentName", "type": "string"},
            {"name": "nonce", "type": "uint64"},
        ],
    ),
    "userSetAbstraction": ("HyperliquidTransaction:UserSetAbstraction", USER_SET_ABSTRACTION_SIGN_TYPES),
}


def canonical(action: dict[str, Any]) -> dict[str, Any]:
    """The action as the exchange prints it again before hashing: who signed other words signed another action."""
    action = copy.deepcopy(action)
    for order in action.get("orders", []):
        for key in ("p", "s"):
            order[key] = f"{Decimal(order[key]).normalize():f}"
        if "c" in order:
            order["c"] = "0x" + order["c"].lower().removeprefix("0x")
    return action


def signer_of(payload: dict[str, Any], mainnet: bool) -> str:
    """Address, in lower case, of the key that signed; some other address if anything signed differs."""
    action, signature = canonical(payload["action"]), payload["signature"]
    try:
        return _recover(action, signature, payload, mainnet)
    except Exception as error:  # the libraries below have a tree of their own
        raise ValueError(f"not a signature: {signature}") from error


def _recover(action: dict[str, Any], signature: Any, payload: dict[str, Any], mainnet: bool) -> str:
    if action["type"] in USER_SIGNED:
        primary, types = USER_SIGNED[action["type"]]
        if action["type"] == "approveAgent":
            action.setdefault("agentName", "")  # signed as empty, and left out of the payload
        signer = recover_user_from_user_signed_action(action, signature, types, primary, mainnet)
    else:
        vault, expires = payload.get("vaultAddress"), payload.get("expiresAfter")
        signer = recover_agent_or_user_from_l1_action(action, signature, vault, payload["nonce"], expires, mainnet)
    return str(signer).lower()


class Actions:
    """Checks and carries out one signed action at a time.

    `now` is the exchange's time, `signing_clock` the one that nonces and `expiresAfter` are compared with (both ms).
    """

    def __init__(self, ledger: Ledger, answers: Answers, now: Callable[[], int]) -> None:
        self.ledger, self.answers, self.now = ledger, answers, now
        self.signing_clock: Callable[[], int] = now
        self.mainnet = False
        self._nonces: dict[str, set[int]] = {}

    def __call__(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The answer; raises `Refusal`, or KeyError, TypeError, ValueError for a malformed payload."""
        action, nonce = payload["action"], int(payload["nonce"])
        carry_out = getattr(self, f"_{action['type']}", None)
        if carry_out is None:
            raise KeyError(action["type"])
        signer = signer_of(payload, self.mainnet)
        user = self._principal(signer)
        self._spend_nonce(signer, nonce)
        expires, clock = payload.get("expiresAfter"), self.signing_clock()
        stale = expires is not None and clock > expires
        account = self._acting(user, payload.get("vaultAddress"))
        self._count(account, action, STALE_COST if stale else 1)
        if stale:
            raise Refusal(faults.EXPIRED.format(expires=expires))
        answer: dict[str, Any] = carry_out(account, action)
        return answer

    # Who --------------------------------------------------------------------------------------------------------------

    def _principal(self, signer: str) -> str:
        """The user that a key speaks for."""
        agent = self.answers.agents.get(signer)
        if agent is not None and agent.valid_until > self.signing_clock():
            return agent.master
        account = self.ledger.accounts.get(signer)
        if account is None or account.role != "user":
            raise Refusal(faults.NO_WALLET.format(address=signer))
        return signer

    def _spend_nonce(self, signer: str, nonce: int) -> None:
        """The 100 highest of a signer are kept: a new one is above the lowest of them, and not among them."""
        clock, kept = self.signing_clock(), self._nonces.setdefault(signer, set())
        if not clock - 2 * DAY_MS < nonce < clock + DAY_MS:
            raise Refusal(faults.NONCE_WINDOW.format(nonce=nonce))
        if nonce in kept:
            raise Refusal(faults.DUPLICATE_NONCE.format(nonce=nonce))
        if len(kept) == NONCES_KEPT:
            if nonce < min(kept):
                raise Refusal(faults.LOW_NONCE.format(nonce=nonce))
            kept.remove(min(kept))
        kept.add(nonce)

    def _acting(self, user: str, vault: str | None) -> Account:
        account = self.ledger.accounts[user]
        if not account.deposited:
            raise Refusal(faults.NO_DEPOSIT.format(address=user))
        if vault is None:
            return account
        acting = self.ledger.accounts.get(vault.lower())
        if acting is None or acting.role not in ("vault", "subAccount"):
            raise Refusal(faults.NO_VAULT.format(address=vault))
        if acting.master != user:
            raise Refusal(faults.NOT_LEADER.format(address=user))
        return acting

    def _count(self, account: Account, action: dict[str, Any], cost: int) -> None:
        """Address limit: a request per dollar traded and an initial buffer; a batch of n counts n."""
        batch = action.get("orders") or action.get("cancels") or [action]
        cap = self.answers.request_cap(account)
        account.requests += len(batch) * cost
        if "cancels" in action:
            cap = min(cap + 100_000, 2 * cap)
        if account.requests > cap:
            volume = float(account.volume)
            raise Refusal(faults.TOO_MANY_REQUESTS.format(used=account.requests, cap=cap, volume=volume))

    def _coin(self, asset: int) -> Coin:
        place, index = divmod(asset - 100_000, 10_000) if asset >= 100_000 else (0, asset)
        dexes = list(self.ledger.dexes)
        coins = self.ledger.universe(dexes[place]) if place < len(dexes) else []
        if not 0 <= index < len(coins):
            raise Refusal(faults.NO_ASSET.format(asset=asset))
        return coins[index]

    # What -------------------------------------------------------------------------------------------------------------

    def _order(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        orders = action["orders"]
        if not orders:
            raise Refusal(faults.EMPTY_BATCH)
        coins = [self._coin(order["a"]) for order in orders]
        for order in orders:
            number(order["p"]), number(order["s"])
            if "limit" not in order["t"]:
                raise Refusal(faults.TRIGGER_NOT_REDUCING)  # TP/SL are not modelled: all are refused so
            if order["t"]["limit"]["tif"] not in ("Alo", "Ioc", "Gtc", "FrontendMarket"):
                raise ValueError(order["t"])
        now, pairs = self.now(), list(zip(coins, orders, strict=True))
        for coin, order in pairs:
            name = self.ledger.prevalidate(coin, order)
            if name is not None:
                raise Refusal(REJECTS[name][0])
        statuses = [self.ledger.place(account, coin, order, now) for coin, order in pairs]
        return {"status": "ok", "response": {"type": "order", "data": {"statuses": statuses}}}

    def _cancels(self, account: Account, action: dict[str, Any], asset: str, key: str) -> dict[str, Any]:
        statuses: list[Any] = []
        for wanted in action["cancels"]:
            coin = self._coin(wanted[asset])
            done = self.ledger.cancel(account.address, coin.name, wanted[key], self.now())
            statuses.append("success" if done else {"error": f"{faults.NO_ORDER} asset={wanted[asset]}"})
        return {"status": "ok", "response": {"type": "cancel", "data": {"statuses": statuses}}}

    def _cancel(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        return self._cancels(account, action, "a", "o")

    def _cancelByCloid(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        return self._cancels(account, action, "asset", "cloid")

    def _updateLeverage(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        coin, value, cross = self._coin(action["asset"]), action["leverage"], action["isCross"]
        if not 1 <= value <= coin.max_leverage:
            raise Refusal(faults.BAD_LEVERAGE)
        if cross and coin.margin_mode is not None:
            raise Refusal(faults.NO_CROSS)
        before = self.ledger.leverage(account, coin)
        if coin.name in account.positions:
            if before[1] != cross:
                raise Refusal(faults.LEVERAGE_TYPE)
            account.leverage[coin.name] = (value, cross)
            pool = self.ledger.pool(account, coin.dex)
            if value < before[0] and self.ledger.margin_used(account, None, pool) > self.ledger.equity(account, pool):
                account.leverage[coin.name] = before
                raise Refusal(faults.LEVERAGE_MARGIN)
        account.leverage[coin.name] = (value, cross)
        return OK

    def _scheduleCancel(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        at, now = action.get("time"), self.now()
        if account.volume < CANCEL_VOLUME:
            raise Refusal(faults.NO_SCHEDULE.format(volume=float(account.volume)))
        if at is not None and at < now + 5_000:
            raise Refusal(faults.SCHEDULE_EARLY)
        if at is not None and sum(t // DAY_MS == now // DAY_MS for t in account.cancel_triggers) >= CANCEL_TRIGGERS:
            raise Refusal(faults.SCHEDULE_MANY)
        account.cancel_at = at
        return OK

    def _approveAgent(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        name, _, until = action.get("agentName", "").partition(" valid_until ")
        mine = [agent for agent in self.answers.agents.values() if agent.master == account.address and agent.name]
        if name and name not in {agent.name for agent in mine} and len(mine) >= NAMED_AGENTS:
            raise Refusal("Too many agents.")
        self.approve(account.address, action["agentAddress"], name, int(until) if until else None)
        return OK

    def approve(self, master: str, address: str, name: str, valid_until: int | None) -> None:
        """Register an agent, at most 180 days; one of the same name is replaced."""
        latest = self.signing_clock() + AGENT_DAYS * DAY_MS
        for known in list(self.answers.agents.values()):
            if known.master == master.lower() and known.name == name:
                del self.answers.agents[known.address]
        until = latest if valid_until is None else min(valid_until, latest)
        self.answers.agents[address.lower()] = Agent(address.lower(), master.lower(), name, until)

    def _userSetAbstraction(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        account.mode = action["abstraction"]
        return OK

    def _agentSetAbstraction(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        account.mode = MODES[action["abstraction"]]
        return OK

    def _noop(self, account: Account, action: dict[str, Any]) -> dict[str, Any]:
        return OK
