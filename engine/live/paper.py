"""PaperDEX: an account that trades on a panel, hour by hour, by the rules of an instant.

It stands at an instant *after* the mark and *before* the trade: orders are filled there, and :meth:`PaperDEX.advance`
then settles the funding and the margin of that row and goes on. Fills, fees and margins are the kernel's own functions,
so a paper account that is driven with the weights of a backtest has that backtest's equity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import pandas as pd

from engine.atomic_io import sync_folder, write_durable
from engine.clock import parse_instant, show, utc_days
from engine.config import RunConfig
from engine.errors import DataError, LiveError
from engine.live.orders import SIZE_TOLERANCE, AccountState, Fill, Market, OrderRequest, OrderResult
from engine.live.predecessor import PredecessorDEX
from engine.panel import Panel
from engine.simulation.backtest import check_config, check_panel, kernel_inputs
from engine.simulation.result import REASONS

if TYPE_CHECKING:
    from engine.simulation.kernel import CoinParams, Fees, MarketData, SimParams

_SCHEMA: Final = 1


@dataclass(frozen=True)
class PaperTrade:
    """A change of a paper position; fields as in ``Result.trades``."""

    time: pd.Timestamp
    coin: str
    units: float
    price: float
    fee_usd: float
    spread_usd: float
    reason: str
    cloid: str | None = None


class PaperDEX(PredecessorDEX):
    """A made-up account on a panel.

    Parameters
    ----------
    panel : Panel
        Market data; to trade on live quotes, a panel whose last row holds them (:mod:`engine.live.live_panel`).
    config : RunConfig, optional
        Costs, lots, stale hours, initial equity and margin.
    state : str or Path, optional
        File that keeps the account between processes; read when it is there, written after every change.
    start : Timestamp, optional
        Where a new account stands. Default: the panel's first row.
    """

    network = "paper"
    always_lots: ClassVar[bool] = False

    def __init__(
        self,
        panel: Panel,
        config: RunConfig | None = None,
        state: str | Path | None = None,
        start: pd.Timestamp | None = None,
    ) -> None:
        check_panel(panel, "PaperDEX")
        self.panel, self.config, self.state = panel, check_config(config), None if state is None else Path(state)
        self.min_notional_usd = self.config.execution.min_notional_usd
        self._inputs: tuple[MarketData, Fees, CoinParams, SimParams] | None = None
        coins = len(panel.coins)
        self.cash = self.config.account.initial_equity_usd
        self.units = np.zeros(coins)
        self.price = np.full(coins, np.nan)
        self.missing = np.zeros(coins, dtype=np.int64)
        self.volume: dict[int, float] = {}
        self.total_volume = 0.0
        self.trades: list[PaperTrade] = []
        self.liquidated: pd.Timestamp | None = None
        self.equities: dict[pd.Timestamp, float] = {}
        self._answers: dict[str, OrderResult] = {}
        self._done: dict[tuple[int, bool], float] = {}
        self.row = self._row(panel.index[0] if start is None else start)
        if self.state is not None and self.state.is_file():
            self._read(self.state)

    # The ledger -------------------------------------------------------------------------------------------------------

    def advance(self, instant: pd.Timestamp) -> None:
        """Settle the current row, then go hour by hour to `instant` and stand there, marked.

        Raises
        ------
        LiveError
            When `instant` lies before the account's own.
        """
        target = self._row(instant)
        if target < self.row:
            raise LiveError(f"The paper account stands at {show(self.instant)} and cannot go back to {show(instant)}.")
        while self.row < target:
            self._settle()
            self.row += 1
            self._done.clear()
            self._mark()
        self._save()

    def finish(self) -> pd.Series:
        """Go to the panel's last row and settle it too; equity after every row that was settled."""
        self.advance(self.panel.index[-1])
        self._settle()
        return pd.Series(self.equities, name="equity_usd")

    @property
    def instant(self) -> pd.Timestamp:
        """Where the account stands."""
        return self.panel.index[self.row]

    def _mark(self) -> None:
        """Step 1: last known prices; a coin without a price for too long is settled at its last."""
        _, _, _, rules = self._kernel()
        mid = self.panel.values("mid")[self.row]
        for i in self._held():
            if np.isnan(mid[i]):
                self.missing[i] += 1
            else:
                self.missing[i] = 0
                self.price[i] = mid[i]
            if self.missing[i] >= rules.stale_hours:
                self.cash += self.units[i] * self.price[i]
                self._book(i, -self.units[i], self.price[i], 0.0, 0.0, "delisting")
                self.units[i] = 0.0

    def _settle(self) -> None:
        """Steps 3 to 5: funding on the book held, margin, record."""
        from engine.simulation.kernel import maintenance_nb

        tape, _, table, rules = self._kernel()
        t = self.row
        if tape.funding.shape[0]:
            for i in self._held():
                if not np.isnan(tape.funding[t, i]):
                    base = tape.funding_price[t, i]
                    self.cash -= self.units[i] * (self.price[i] if np.isnan(base) else base) * tape.funding[t, i]
        equity, gross, maintenance = self.cash, 0.0, 0.0
        for i in self._held():
            value = self.units[i] * self.price[i]
            equity += value
            gross += abs(value)
            maintenance += maintenance_nb(abs(value), table.margin_floor_usd[i], table.margin_step[i])
        if rules.margin and gross > 0.0 and (equity <= 0.0 or equity < maintenance):
            for i in self._held():
                fill, fee, spread = self._execute(i, -self.units[i], self.price[i])
                self.cash -= -self.units[i] * fill + fee
                self._book(i, -self.units[i], fill, fee, spread, "liquidation")
                self.units[i] = 0.0
            self.liquidated, equity = self.instant, self.cash
        self.equities[self.instant] = float(equity)

    def _execute(self, i: int, order: float, mid: float) -> tuple[float, float, float]:
        """Fill price, fee and spread of an order; what an instant's orders of a coin and side move adds up."""
        from engine.simulation.kernel import FLOW_COLUMNS, execute_nb, fee_rate_nb

        tape, fees, table, rules = self._kernel()
        unused = np.zeros(FLOW_COLUMNS)
        day = int(fees.day[self.row])
        first = int(utc_days(self.panel.index[:1])[0])
        volume = np.zeros(day + 1)
        for number, traded in self.volume.items():
            if 0 <= number - first <= day:
                volume[number - first] = traded
        rate = fee_rate_nb(fees.rate[self.row], fees.thresholds_usd, fees.referral_frac, volume, day, self.total_volume)

        def filled(size: float) -> tuple[float, float, float]:
            if size == 0.0:
                return 0.0, 0.0, 0.0
            price, fee, spread, _ = execute_nb(size, mid, tape, self.row, i, rate, table, rules, unused, unused)
            return size * price, fee, spread

        key = (i, order > 0.0)
        done = self._done.get(key, 0.0)
        if done == 0.0:
            price, fee, spread, _ = execute_nb(order, mid, tape, self.row, i, rate, table, rules, unused, unused)
        else:
            before, after = filled(done), filled(done + order)
            price, fee, spread = (after[0] - before[0]) / order, after[1] - before[1], after[2] - before[2]
        self._done[key] = done + order
        number = first + day
        self.volume[number] = self.volume.get(number, 0.0) + abs(order) * price
        self.total_volume += abs(order) * price
        return float(price), float(fee), float(spread)

    def _book(
        self, i: int, units: float, price: float, fee: float, spread: float, reason: str, cloid: str | None = None
    ) -> None:
        coin = self.panel.coins[i]
        self.trades.append(
            PaperTrade(self.instant, coin, float(units), float(price), float(fee), float(spread), reason, cloid)
        )

    def _held(self) -> list[int]:
        return [int(i) for i in np.flatnonzero(self.units)]

    def _row(self, instant: pd.Timestamp) -> int:
        row = int(self.panel.rows(pd.DatetimeIndex([instant]))[0])
        if row < 0:
            index = self.panel.index
            raise DataError(
                f"The paper account's panel has no row at {show(instant)}; it runs from {show(index[0])} to "
                f"{show(index[-1])}. Sync the cache."
            )
        return row

    def _kernel(self) -> tuple[MarketData, Fees, CoinParams, SimParams]:
        if self._inputs is None:
            self._inputs = kernel_inputs(self.panel, self.config)
        return self._inputs

    # The exchange -----------------------------------------------------------------------------------------------------

    def account(self) -> AccountState:
        """Equity at last known prices, and positions."""
        equity = self.cash
        for i in self._held():
            equity += self.units[i] * self.price[i]
        units = {self.panel.coins[i]: float(self.units[i]) for i in self._held()}
        prices = {self.panel.coins[i]: float(self.price[i]) for i in self._held()}
        return AccountState(float(equity), units, self.instant, prices)

    def markets(self) -> Mapping[str, Market]:
        """The coins tradable at the row; none after a liquidation."""
        if self.liquidated is not None:
            return {}
        panel, t = self.panel, self.row
        quoted = "bid" in panel.fields and "ask" in panel.fields
        lots = self.config.execution.lots
        found = {}
        for i in np.flatnonzero(panel.tradable[t]):
            coin = panel.coins[i]
            bid, ask = (panel.values(name)[t, i] for name in ("bid", "ask")) if quoted else (np.nan, np.nan)
            both = not (np.isnan(bid) or np.isnan(ask))
            found[coin] = Market(
                coin,
                float(panel.values("mid")[t, i]),
                float(bid) if both else None,
                float(ask) if both else None,
                _known(panel.values("oracle")[t, i]) if "oracle" in panel.fields else None,
                panel.table[i].sz_decimals if lots else None,
                panel.table[i].max_leverage,
            )
        return found

    def clock_ms(self) -> int:
        """The instant: nothing expires here."""
        return int(self.instant.timestamp() * 1000)

    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
        """Fill or reject each order; a cloid that was seen before is rejected."""
        answers = [self._answer(order) for order in orders]
        self._save()
        return answers

    def _answer(self, order: OrderRequest) -> OrderResult:
        reason = self._refusal(order)
        if reason:
            answer = OrderResult(order.cloid, "rejected", reason=reason)
        else:
            answer = self._fill(order)
        self._answers.setdefault(order.cloid, answer)
        return answer

    def _refusal(self, order: OrderRequest) -> str:
        """The exchange's words for an order that it refuses before looking at the book."""
        market = self.markets().get(order.coin)
        if order.cloid in self._answers:
            return "Duplicate cloid."
        if market is None:
            return "Order has invalid price."
        held = self.units[self.panel.coins.index(order.coin)]
        if order.reduce_only and (held * order.units >= 0.0 or abs(order.units) > abs(held) * (1 + SIZE_TOLERANCE)):
            return "Reduce only order would increase position."
        if market.sz_decimals is not None and not order.reduce_only:
            lots = abs(order.units) * 10.0**market.sz_decimals
            if abs(lots - round(lots)) > 1e-6 + 1e-9 * lots:
                return "Order has invalid size."
        if not order.reduce_only and abs(order.units) * market.mid < self.min_notional_usd:
            return f"Order must have minimum value of ${self.min_notional_usd:g}."
        return ""

    def _fill(self, order: OrderRequest) -> OrderResult:
        from engine.simulation.kernel import fill_price_nb, reason_nb

        _, _, table, rules = self._kernel()
        market = self.markets()[order.coin]
        touch = fill_price_nb(
            order.units,
            market.mid,
            np.nan if market.bid is None else market.bid,
            np.nan if market.ask is None else market.ask,
            rules.half_spread_frac,
        )
        if (order.limit_price - touch) * order.units < 0.0:
            reason = "Order could not immediately match against any resting orders."
            return OrderResult(order.cloid, "rejected", reason=reason)
        i = self.panel.coins.index(order.coin)
        price, fee, spread = self._execute(i, order.units, market.mid)
        before = self.units[i]
        after = before + order.units
        if table.lot_scale[i] > 0.0:
            after = np.round(after * table.lot_scale[i]) / table.lot_scale[i]
        if order.reduce_only and abs(after) <= SIZE_TOLERANCE * abs(before):
            after = 0.0
        self.cash -= order.units * price + fee
        self.units[i], self.price[i], self.missing[i] = after, market.mid, 0
        self._book(i, order.units, price, fee, spread, REASONS[reason_nb(before, after)], order.cloid)
        return OrderResult(order.cloid, "filled", order.units, price)

    def find_order(self, order: OrderRequest) -> OrderResult:
        """What was answered to the order; nothing is ever under way here."""
        return self._answers.get(order.cloid) or OrderResult(order.cloid, "rejected", reason="not placed")

    def fills(self, since: pd.Timestamp) -> list[Fill]:
        """The account's orders that were filled."""
        return [
            Fill(trade.cloid, trade.coin, trade.units, trade.price, trade.fee_usd, trade.time)
            for trade in self.trades
            if trade.cloid is not None and trade.time >= since
        ]

    # The file ---------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.state is None:
            return
        coins = self.panel.coins
        held = {
            coins[i]: {"units": self.units[i], "price": self.price[i], "missing": int(self.missing[i])}
            for i in self._held()
        }
        content = {
            "schema": _SCHEMA,
            "instant": self.instant.isoformat(),
            "cash_usd": self.cash,
            "positions": held,
            "done": [[coins[i], buy, units] for (i, buy), units in self._done.items()],
            "volume_usd": {str(day): usd for day, usd in self.volume.items()},
            "total_volume_usd": self.total_volume,
            "liquidated": None if self.liquidated is None else self.liquidated.isoformat(),
            "answers": {
                cloid: [answer.fate, answer.units, answer.price, answer.reason]
                for cloid, answer in list(self._answers.items())[-2000:]
            },
            "trades": [{**vars(trade), "time": trade.time.isoformat()} for trade in self.trades],
        }
        self.state.parent.mkdir(parents=True, exist_ok=True)
        write_durable(self.state, (json.dumps(content, sort_keys=True, indent=1) + "\n").encode())
        sync_folder(self.state.parent)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ValueError(f"schema {content['schema']}")
            self._restore(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LiveError(
                f"The paper account {path} cannot be read: {type(error).__name__}: {error}. Delete it to start anew."
            ) from error

    def _restore(self, content: Mapping[str, Any]) -> None:
        self.row = self._row(parse_instant(content["instant"], "instant"))
        place = {coin: i for i, coin in enumerate(self.panel.coins)}
        strange = [coin for coin in content["positions"] if coin not in place]
        if strange:
            raise LiveError(f"The paper account holds {strange[0]}, which the panel lacks. Load its coins too.")
        self.cash = float(content["cash_usd"])
        for coin, held in content["positions"].items():
            self.units[place[coin]] = held["units"]
            self.price[place[coin]] = held["price"]
            self.missing[place[coin]] = held["missing"]
        self._done = {(place[coin], buy): units for coin, buy, units in content["done"]}
        self.volume = {int(day): float(usd) for day, usd in content["volume_usd"].items()}
        self.total_volume = float(content["total_volume_usd"])
        gone = content["liquidated"]
        self.liquidated = None if gone is None else pd.Timestamp(gone)
        self._answers = {
            cloid: OrderResult(cloid, fate, units, price, reason)
            for cloid, (fate, units, price, reason) in content["answers"].items()
        }
        self.trades = [PaperTrade(**{**trade, "time": pd.Timestamp(trade["time"])}) for trade in content["trades"]]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
