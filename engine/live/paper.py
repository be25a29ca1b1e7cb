"""PaperDEX: a simulated account that fills orders on a panel's prices.

Between two calls it is at an instant *after* the mark and *before* the trade. Orders are filled there;
:meth:`PaperDEX.advance` then runs the simulation's own step, so a paper account that is driven with the weights of a
backtest has that backtest's equity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from engine.simulation.backtest import check_config, check_panel, kernel_inputs, new_book
from engine.simulation.result import REASONS
from engine.simulation.sizing import round_lot

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
    """A simulated account on a panel.

    Parameters
    ----------
    panel : Panel
        Market data; to trade on live quotes, a panel whose last row holds them (:mod:`engine.live.live_panel`).
    config : RunConfig, optional
        Costs, lots, stale hours, initial equity and margin.
    state : str or Path, optional
        File that keeps the account between processes; read when it exists, written after every change.
    start : Timestamp, optional
        Instant at which a new account starts. Default: the panel's first row.
    keep : bool
        Write the file; a plan, which changes nothing, does not.
    """

    network = "paper"
    always_lots: ClassVar[bool] = False

    def __init__(
        self,
        panel: Panel,
        config: RunConfig | None = None,
        state: str | Path | None = None,
        start: pd.Timestamp | None = None,
        keep: bool = True,
    ) -> None:
        check_panel(panel, "PaperDEX")
        self.panel, self.config, self.state = panel, check_config(config), None if state is None else Path(state)
        self.keep = keep
        self.min_notional_usd = self.config.execution.min_notional_usd
        self.book, self.ledger = new_book(panel, self.config)
        self.trades: list[PaperTrade] = []
        self.liquidated: pd.Timestamp | None = None
        self._results: dict[str, OrderResult] = {}
        self._filled: dict[tuple[int, bool], float] = {}  # units of an instant by coin and side
        self._other_volume: dict[int, float] = {}  # USD of the days that the panel lacks
        self._first_day = int(utc_days(panel.index[:1])[0])
        self.row = self._row(panel.index[0] if start is None else start)
        if self.state is not None and self.state.is_file():
            self._read(self.state)
        self._start = self.row

    # The ledger -------------------------------------------------------------------------------------------------------

    def advance(self, instant: pd.Timestamp) -> None:
        """Settle the current row, then go on hour by hour to `instant`, up to its mark.

        Raises
        ------
        LiveError
            When `instant` lies before the account's own.
        """
        row = self._row(instant)
        if row < self.row:
            raise self._no_way_back(self.instant, instant)
        if row > self.row:
            self._step(row)
            self.row = row
            self._filled.clear()
        self._save()

    def _no_way_back(self, at: pd.Timestamp, instant: pd.Timestamp) -> LiveError:
        cure = f"Name an instant from {show(at)} on (live: --now, or leave it out once that time has come)"
        if self.state:
            cure += f", or delete {self.state} and the journal beside it to start a new account"
        return LiveError(
            f"The paper account is at {show(at)}, where it ran last, and cannot go back to {show(instant)}: the hours "
            f"between are settled. {cure}."
        )

    def finish(self) -> pd.Series:
        """Go to the panel's last row and settle it too; equity of every row that this object settled."""
        self.advance(self.panel.index[-1])
        self._step(len(self.panel.index))
        return pd.Series(self.ledger.equity, self.panel.index, name="equity_usd").iloc[self._start :]

    @property
    def instant(self) -> pd.Timestamp:
        """Instant of the account."""
        return self.panel.index[self.row]

    @property
    def cash(self) -> float:
        """Cash, USD: equity without the value of the positions."""
        return float(self.book.cash[0])

    def _step(self, last: int) -> None:
        """Steps 3 to 5 of the row, then every step but trades up to the mark of row `last`."""
        from engine.simulation.kernel import LIQUIDATED_ROW, step_nb

        step_nb(*self._inputs, self.book, self.ledger, self.ledger.trades, self.row, last)
        self._collect()
        row = int(self.ledger.counters[LIQUIDATED_ROW])
        if row >= 0:
            self.liquidated = self.panel.index[row]

    def _execute(self, i: int, order: float, mid: float) -> tuple[float, float, float, float, float]:
        """Fill price of the instant's orders of that coin and side; price, fee, spread and impact that this one adds.

        Impact grows with size, so two halves of an order cost what the whole does.
        """
        from engine.simulation.kernel import FLOW_COLUMNS, book_rate_nb, execute_nb

        market, fees, coin_params, sim_params = self._inputs
        rate, unused = book_rate_nb(fees, self.book, self.row), np.zeros(FLOW_COLUMNS)

        def execute(units: float) -> tuple[float, float, float, float]:
            return execute_nb(
                units, mid, market, True, self.row, i, fees, rate, coin_params, sim_params, unused, unused
            )

        before = self._filled.get((i, order > 0.0), 0.0)
        self._filled[i, order > 0.0] = before + order
        if before == 0.0:
            return execute(order)[0], *execute(order)
        first, both = execute(before), execute(before + order)
        price = ((before + order) * both[0] - before * first[0]) / order
        return both[0], price, both[1] - first[1], both[2] - first[2], both[3] - first[3]

    def _collect(self, cloid: str | None = None) -> None:
        """Move the trades that the kernel wrote to :attr:`trades`."""
        for trade in self.ledger.trades[: self.book.trade_count[0]]:
            row, coin, units, price, fee, spread, _, reason = trade.tolist()
            self.trades.append(
                PaperTrade(
                    self.panel.index[int(row)],
                    self.panel.coins[int(coin)],
                    units,
                    price,
                    fee,
                    spread,
                    REASONS[int(reason)],
                    cloid,
                )
            )
        self.book.trade_count[0] = 0

    def _alone(self, i: int | np.integer) -> bool:
        """Whether a coin's positions have margin of their own."""
        isolated = self._inputs[2].isolated
        return bool(len(isolated) and isolated[i] > 0.0)

    def _held(self) -> list[int]:
        return np.flatnonzero(self.book.units).tolist()

    def _row(self, instant: pd.Timestamp) -> int:
        row = int(self.panel.rows(pd.DatetimeIndex([instant]))[0])
        if row < 0:
            index = self.panel.index
            raise DataError(
                f"The paper account's panel has no row at {show(instant)}; it runs from {show(index[0])} to "
                f"{show(index[-1])}. Sync the cache."
            )
        return row

    @cached_property
    def _inputs(self) -> tuple[MarketData, Fees, CoinParams, SimParams]:
        return kernel_inputs(self.panel, self.config)

    # The exchange -----------------------------------------------------------------------------------------------------

    def account(self) -> AccountState:
        """Equity at last known prices, and positions."""
        units = {self.panel.coins[i]: float(self.book.units[i]) for i in self._held()}
        prices = {self.panel.coins[i]: float(self.book.price[i]) for i in self._held()}
        equity = sum((held * prices[coin] for coin, held in units.items()), start=self.cash)
        book, coins = self.book, self.panel.coins
        own = {
            coins[i]: float(book.own_cash[i] + book.units[i] * book.price[i]) for i in self._held() if self._alone(i)
        }
        return AccountState(equity, units, self.instant, prices, isolated_usd=own)

    def markets(self) -> Mapping[str, Market]:
        """The coins tradable at the row; none after a liquidation."""
        if self.liquidated is not None:
            return {}
        panel, t = self.panel, self.row
        quoted = "bid" in panel.fields and "ask" in panel.fields
        lots = self.config.execution.lots
        markets = {}
        for i in np.flatnonzero(panel.tradable[t]).tolist():
            coin = panel.table[i]
            bid, ask = (panel.values(name)[t, i] for name in ("bid", "ask")) if quoted else (np.nan, np.nan)
            both = not (np.isnan(bid) or np.isnan(ask))
            fees = coin.as_of(self.instant, terms=False).fee_terms if coin.fee_terms else ()
            markets[coin.name] = Market(
                coin.name,
                float(panel.values("mid")[t, i]),
                float(bid) if both else None,
                float(ask) if both else None,
                _known(panel.values("oracle")[t, i]) if "oracle" in panel.fields else None,
                coin.sz_decimals if lots else None,
                coin.max_leverage,
                not self._alone(i),
                coin.margin_tiers,
                fees[-1] if fees else None,
            )
        return markets

    def clock_ms(self) -> int:
        """The instant: nothing expires here."""
        return int(self.instant.timestamp() * 1000)

    def send(self, orders: Sequence[OrderRequest], expires_ms: int) -> list[OrderResult]:
        """Fill or reject each order; a cloid that was seen before is rejected."""
        results = [self._send(order) for order in orders]
        self._save()
        return results

    def _send(self, order: OrderRequest) -> OrderResult:
        reason = self._refusal(order)
        result = OrderResult(order.cloid, "rejected", reason=reason) if reason else self._fill(order)
        self._results.setdefault(order.cloid, result)
        return result

    def _refusal(self, order: OrderRequest) -> str:
        """The exchange's words for an order that it refuses before looking at the book."""
        market = self.markets().get(order.coin)
        if order.cloid in self._results:
            return "Duplicate cloid."
        if market is None:
            return "Order has invalid price."
        held = self.book.units[self.panel.coins.index(order.coin)]
        if order.reduce_only and (held * order.units >= 0.0 or abs(order.units) > abs(held) * (1 + SIZE_TOLERANCE)):
            return "Reduce only order would increase position."
        if market.sz_decimals is not None and not order.reduce_only:
            dust = abs(order.units - round_lot(order.units, market.sz_decimals))
            if dust > 1e-6 * 10.0**-market.sz_decimals + SIZE_TOLERANCE * abs(order.units):
                return "Order has invalid size."
        if not order.reduce_only and abs(order.units) * market.mid < self.min_notional_usd:
            return f"Order must have minimum value of ${self.min_notional_usd:g}."
        return ""

    def _fill(self, order: OrderRequest) -> OrderResult:
        from engine.simulation.kernel import book_fill_nb, own_cash_nb, reason_nb, round_lot_nb

        _, fees, coin_params, sim_params = self._inputs
        market = self.markets()[order.coin]
        touch = market.fill_price(order.units, sim_params.half_spread_frac)
        if (order.limit_price - touch) * order.units < 0.0:
            reason = "Order could not immediately match against any resting orders."
            return OrderResult(order.cloid, "rejected", reason=reason)
        i = self.panel.coins.index(order.coin)
        before = self.book.units[i]
        after = round_lot_nb(before + order.units, coin_params.lot_scale[i])
        if order.reduce_only and abs(after) <= SIZE_TOLERANCE * abs(before):
            after = 0.0
        mean, fill, *costs = self._execute(i, order.units, market.mid)
        reason, trades, size = reason_nb(before, after), self.ledger.trades, order.units
        book_fill_nb(self.book, trades, fees, coin_params, self.row, i, size, after, market.mid, fill, *costs, reason)
        if self._alone(i) and before == 0.0:  # the second half of a flip has margin by the fill of both
            tiers = coin_params.margin_floor_usd[i], coin_params.margin_step[i]
            self.book.own_cash[i] = own_cash_nb(0.0, 0.0, after, mean, coin_params.isolated[i], *tiers)
        self._collect(order.cloid)
        return OrderResult(order.cloid, "filled", order.units, fill)

    def find_order(self, order: OrderRequest) -> OrderResult:
        """Result of the order: filled or rejected at once, never pending."""
        return self._results.get(order.cloid) or OrderResult(order.cloid, "rejected", reason="not placed")

    def fills(self, since: pd.Timestamp) -> list[Fill]:
        """The account's orders that were filled."""
        return [
            Fill(trade.cloid, trade.coin, trade.units, trade.price, trade.fee_usd, trade.time)
            for trade in self.trades
            if trade.cloid is not None and trade.time >= since
        ]

    def impact_usd(self, market: Market, units: float) -> float:
        """Impact of an order of the instant, by the simulation's rule."""
        from engine.simulation.kernel import fill_nb

        data, fees, coin_params, sim_params = self._inputs
        i = self.panel.coins.index(market.coin)
        where = data, True, self.row, i, fees, 0.0, coin_params, sim_params
        return float(fill_nb(units, market.mid, *where)[3])

    def funding_paid(self, since: pd.Timestamp, until: pd.Timestamp) -> float | None:
        """Funding of the rows that this object settled; None where it did not settle them all."""
        from engine.simulation.kernel import FUNDING_COST

        first, last = (int(row) for row in self.panel.index.searchsorted(pd.DatetimeIndex([since, until])))
        if first < self._start or last > self.row or self.panel.index[first] != since:
            return None
        return float(self.ledger.flows[first:last, FUNDING_COST].sum())

    # The file ---------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.state is None or not self.keep:
            return
        coins, book = self.panel.coins, self.book
        held = {
            coins[i]: {"units": book.units[i], "price": book.price[i], "missing": int(book.missing[i])}
            | ({"own_cash_usd": book.own_cash[i]} if book.own_cash[i] else {})
            for i in self._held()
        }
        volume = self._other_volume | {
            self._first_day + int(day): float(book.volume[day]) for day in np.flatnonzero(book.volume)
        }
        content = {
            "schema": _SCHEMA,
            "instant": self.instant.isoformat(),
            "cash_usd": self.cash,
            "positions": held,
            "done": [[coins[i], buy, units] for (i, buy), units in self._filled.items()],
            "volume_usd": {str(day): usd for day, usd in volume.items()},
            "total_volume_usd": float(book.total_volume[0]),
            "liquidated": None if self.liquidated is None else self.liquidated.isoformat(),
            "answers": {
                cloid: [result.fate, result.units, result.price, result.reason]
                for cloid, result in list(self._results.items())[-2000:]
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
        at = parse_instant(content["instant"], "instant")
        if at > self.panel.index[-1]:
            raise self._no_way_back(at, self.panel.index[-1])
        self.row = self._row(at)
        column = {coin: i for i, coin in enumerate(self.panel.coins)}
        unknown = [coin for coin in content["positions"] if coin not in column]
        if unknown:
            raise LiveError(f"The paper account holds {unknown[0]}, which the panel lacks. Load its coins too.")
        book = self.book
        book.cash[0] = float(content["cash_usd"])  # an array would take None for NaN
        book.total_volume[0] = float(content["total_volume_usd"])
        for coin, held in content["positions"].items():
            i = column[coin]
            book.units[i], book.price[i] = float(held["units"]), float(held["price"])
            book.missing[i] = int(held["missing"])
            book.own_cash[i] = float(held.get("own_cash_usd", 0.0))
        self._filled = {(column[coin], buy): units for coin, buy, units in content["done"]}
        for number, usd in content["volume_usd"].items():
            day = int(number) - self._first_day
            if 0 <= day < len(book.volume):
                book.volume[day] = float(usd)
            else:
                self._other_volume[int(number)] = float(usd)
        if content["liquidated"] is not None:
            self.liquidated = pd.Timestamp(content["liquidated"])
        self._results = {
            cloid: OrderResult(cloid, fate, units, price, reason)
            for cloid, (fate, units, price, reason) in content["answers"].items()
        }
        self.trades = [PaperTrade(**{**trade, "time": pd.Timestamp(trade["time"])}) for trade in content["trades"]]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
