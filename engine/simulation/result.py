"""Result of one backtest: the kernel's ledger as frames, and its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.errors import DataError
from engine.panel import Panel
from engine.provenance import Origin
from engine.simulation import metrics

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import vectorbt

    from engine.simulation.factor_attribution import FactorAttribution
    from engine.simulation.kernel import Ledger

#: Columns of the attribution; the last four are costs, positive when they lower equity.
FLOWS = ("price_pnl_usd", "spread_usd", "impact_usd", "fee_usd", "funding_usd")
#: What a method compares with unless a benchmark is named: the one of the config, ``report.benchmark``.
REPORTED = "report.benchmark"
#: By number; the last is of one isolated position, the one before of the account.
REASONS = ("open", "increase", "reduce", "flip", "close", "delisting", "liquidation", "liquidation")
TRADE_FIELDS = ("time", "coin", "units", "price", "notional_usd", "fee_usd", "spread_usd", "reason")


@dataclass(frozen=True, eq=False)
class Result:
    """One backtest.

    Attributes
    ----------
    panel : Panel
        Market data of the run.
    config : RunConfig
        Rules and costs of the run.
    weights : DataFrame, (D, N)
        Target weights, decision instants x ``panel.coins``; NaN = hold.
    ledger : Ledger
        The kernel's arrays.
    risk : DataFrame, (D, K), or None
        Exposures of the book in the oracle's own terms (:func:`engine.oracles.base.risk_of`).
    notes : tuple of str
        What a reader must know of the data: those of the panel, then those of the oracle (:meth:`engine.Oracle.notes`).
    origin : Origin or None
        The oracle that the weights are from; None for weights of one's own.
    """

    panel: Panel
    config: RunConfig
    weights: pd.DataFrame
    ledger: Ledger
    risk: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    origin: Origin | None = None

    def __repr__(self) -> str:
        equity = self.ledger.equity
        start, end = self.config.account.initial_equity_usd, equity[-1] if len(equity) else float("nan")
        return f"Result(equity {start:,.2f} -> {end:,.2f} USD, {len(self.ledger.trades):,} trades, {self.panel!r})"

    @cached_property
    def equity(self) -> pd.Series:
        """Equity in USD after everything that happened at the instant, (T,)."""
        return pd.Series(self.ledger.equity, index=self.panel.index, name="equity_usd")

    @cached_property
    def attribution(self) -> pd.DataFrame:
        """USD of each row by cause, (T, 5): :data:`FLOWS`.

        ``equity.diff() = price_pnl - spread - impact - fee - funding``, and the first row's against the initial equity.
        """
        return pd.DataFrame(self.ledger.flows, index=self.panel.index, columns=list(FLOWS))

    @cached_property
    def coin_attribution(self) -> pd.DataFrame:
        """USD of the whole run by coin and cause, (N, 5)."""
        return pd.DataFrame(self.ledger.coin_flows, index=pd.Index(self.panel.coins, name="coin"), columns=list(FLOWS))

    @cached_property
    def exposure(self) -> pd.DataFrame:
        """Gross and net exposure as a fraction of equity, after the trade, (T, 2)."""
        return pd.DataFrame({"gross_frac": self.ledger.gross, "net_frac": self.ledger.net}, index=self.panel.index)

    @cached_property
    def trades(self) -> pd.DataFrame:
        """Every change of a position, (M, 8): :data:`TRADE_FIELDS`.

        ``units`` is signed; ``price`` and ``notional_usd`` are those of the fill; ``reason`` is one of :data:`REASONS`.
        """
        from engine.simulation import kernel

        trades = self.ledger.trades
        coins = np.array(self.panel.coins, dtype=object)
        units, price = trades[:, kernel.UNITS], trades[:, kernel.PRICE]
        return pd.DataFrame(
            {
                "time": self.panel.index[trades[:, kernel.ROW].astype(np.int64)],
                "coin": pd.Series(coins[trades[:, kernel.COIN].astype(np.int64)], dtype="str"),
                "units": units,
                "price": price,
                "notional_usd": np.abs(units) * price,
                "fee_usd": trades[:, kernel.FEE],
                "spread_usd": trades[:, kernel.SPREAD],
                "reason": pd.Series(
                    np.array(REASONS, dtype=object)[trades[:, kernel.REASON].astype(np.int64)], dtype="str"
                ),
            },
            columns=list(TRADE_FIELDS),
        )

    @cached_property
    def daily_returns(self) -> pd.Series:
        """Equity at ``execution.hour_utc`` over that of the day before, minus 1; labelled with the later instant.

        From the first decision that asks for something on, as the metrics; :attr:`daily_returns_calendar` has all.
        """
        daily, first = self.daily_returns_calendar, self.first_decision
        if first is None:
            return daily[:0]
        ends = self.panel.index.hour == self.config.execution.hour_utc
        return daily[int(metrics.first_days(ends, self.panel.rows(pd.DatetimeIndex([first])))[0]) :]

    @cached_property
    def daily_returns_calendar(self) -> pd.Series:
        """:attr:`daily_returns` from the panel's first day on."""
        daily = self.equity[self.panel.index.hour == self.config.execution.hour_utc]
        returns = metrics.daily_returns(daily.to_numpy())
        return pd.Series(returns, index=daily.index[1:], name="return")

    @cached_property
    def first_decision(self) -> pd.Timestamp | None:
        """Instant of the first decision that asks for something, if one does: metrics count from it."""
        from engine.simulation import kernel

        first = int(self.ledger.counters[kernel.FIRST_ASKING])
        return None if first < 0 else self.weights.index[first]

    @cached_property
    def liquidated_at(self) -> pd.Timestamp | None:
        """Instant at which the book was liquidated, if it was."""
        from engine.simulation import kernel

        row = int(self.ledger.counters[kernel.LIQUIDATED_ROW])
        return None if row < 0 else self.panel.index[row]

    @cached_property
    def liquidation(self) -> str | None:
        """Reason of the liquidation as text, if there was one."""
        equity, maintenance = self.ledger.margin_call
        if self.liquidated_at is None:
            return None
        return f"equity of {equity:,.2f} USD was under the maintenance margin of {maintenance:,.2f} USD"

    @cached_property
    def funding_missing_frac(self) -> float:
        """Share of the held coin-hours without a funding rate (docs/concepts/rules.md)."""
        from engine.simulation import kernel

        if not self.config.costs.funding or not len(self.ledger.trades):
            return 0.0
        if "funding" not in self.panel.fields:
            return 1.0
        held, unrated = kernel.held_hours_nb(
            self.ledger.trades, self.panel.values("funding"), self.ledger.counters[kernel.WITHIN_HOUR]
        )
        return unrated / held

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the run; one that is not defined is NaN, ``liquidated_at`` is None or ISO 8601."""
        from engine.simulation import kernel

        ledger, counters = self.ledger, self.ledger.counters
        made, first = int(counters[kernel.DECISIONS]), int(counters[kernel.FIRST_ASKING])
        start = self.config.account.initial_equity_usd
        own, calendar = self.daily_returns.to_numpy(), self.daily_returns_calendar.to_numpy()
        rows = self.panel.rows(pd.DatetimeIndex(self.weights.index[:made])) + self.config.execution.delay_hours
        per_decision = (ledger.turnover[:made], ledger.gross[rows], ledger.net[rows], ledger.untradable_weight[:made])
        return metrics.figures(
            start,
            float(ledger.equity[-1]),
            metrics.max_drawdown(ledger.equity, start),
            (len(own), len(calendar)),
            [[getattr(metrics, name)(returns) for name in metrics.ANNUAL_FIGURES] for returns in (own, calendar)],
            [float(values.sum()) for values in per_decision],
            (made - first if first >= 0 else 0, made),
            [metrics.days_begun(rows[k], len(self.panel.index)) if 0 <= k < made else 0 for k in (first, 0)],
            {
                "decisions": made,
                "trades": len(ledger.trades),
                "skipped_min_notional": int(counters[kernel.SKIPPED_MINIMUM]),
                "skipped_band": int(counters[kernel.SKIPPED_BAND]),
                "untradable_orders": int(counters[kernel.UNTRADABLE_ORDERS]),
                "delistings": int(counters[kernel.DELISTINGS]),
                "isolated_liquidations": int(counters[kernel.ISOLATED_LIQUIDATIONS]),
                "funding_missing_frac": self.funding_missing_frac,
                "liquidated_at": None if self.liquidated_at is None else self.liquidated_at.isoformat(),
                **dict(zip(FLOWS, map(float, ledger.flows.sum(axis=0)), strict=True)),
            },
        )

    @cached_property
    def traded_equity(self) -> pd.Series:
        """:attr:`equity` from the first decision that asks for something on; empty where none does."""
        first = self.first_decision
        return self.equity[:0] if first is None else self.equity[first:]

    @cached_property
    def round_trips(self) -> pd.DataFrame:
        """Every position from flat to flat, (K, 14): :func:`engine.simulation.tables.round_trips`."""
        from engine.simulation import tables

        return tables.round_trips(self)

    def summary(self, benchmark: str | None = REPORTED) -> pd.DataFrame:
        """Key figures, a row each.

        Parameters
        ----------
        benchmark : str, optional
            For alpha and beta: a coin of the panel or of the cache, or a file of returns; None for none. Default: the
            config's ``report.benchmark``, and none where the data lack BTC and no other was named.

        Returns
        -------
        DataFrame, (figures, 3)
            ``value``, ``unit`` and ``meaning``. Money received is positive and money paid negative, as the unit says;
            :attr:`metrics` has costs as positive numbers.

        Raises
        ------
        ConfigError
            For a benchmark that was named and is not there.
        """
        from engine.reporting.views import summary

        return summary(self, benchmark)

    def plot(self, benchmark: str | None = REPORTED) -> go.Figure:
        """Equity beside the benchmark's, drawdown, exposure and cumulative costs, as a plotly figure.

        Parameters
        ----------
        benchmark : str, optional
            As for :meth:`summary`; held from the first decision that asks for something on.

        Returns
        -------
        plotly.graph_objects.Figure
        """
        from engine.reporting.views import plot

        return plot(self, benchmark)

    def _repr_html_(self) -> str:
        from engine.reporting.views import result_card

        return result_card(self)

    def monthly(self) -> pd.DataFrame:
        """Return of every month and year: :func:`engine.simulation.tables.monthly`."""
        from engine.simulation import tables

        return tables.monthly(self.traded_equity, self._start_usd, self.config.execution.hour_utc)

    def yearly(self) -> pd.DataFrame:
        """Figures of every year: :func:`engine.simulation.tables.yearly`."""
        from engine.simulation import tables

        return tables.yearly(self.traded_equity, self._start_usd, self.config.execution.hour_utc)

    def trades_summary(self) -> pd.DataFrame:
        """Round trips summed up, by side and by coin: :func:`engine.simulation.tables.trades_summary`."""
        from engine.simulation import tables

        return tables.trades_summary(self.round_trips)

    def long_short(self) -> pd.DataFrame:
        """What longs and shorts brought, apart: :func:`engine.simulation.tables.long_short`."""
        from engine.simulation import tables

        exposure = self.exposure.loc[self.traded_equity.index]
        return tables.long_short(self.round_trips, exposure, self._start_usd)

    @cached_property
    def _factors(self) -> FactorAttribution:
        from engine.simulation.factor_attribution import factor_attribution

        return factor_attribution(self.panel, self.daily_returns, self.ledger.equity, self.ledger.trades)

    def factor_attribution(self) -> FactorAttribution:
        """Daily returns by factor of the risk model, and what is left: :class:`FactorAttribution`.

        ``.table`` has the mean a year and t of each, ``.daily`` the days; the mean of the residual is the alpha.
        """
        return self._factors

    def save(
        self,
        folder: Path | str | None = None,
        *,
        reports: Path | str | None = None,
        created: str = "",
        tearsheet: bool = True,
    ) -> Path:
        """Keep the run, as ``hlbt backtest`` does.

        Parameters
        ----------
        folder : path, optional
            The run folder. Default: below `reports`, named after the oracle, its code and parameters, the data and the
            config, with a number behind it where something else has that name.
        reports : path, optional
            Folder of the reports, in whose ledger the run counts as a trial. Default: ``reports``, where no `folder` is
            named; else it counts nowhere, and says so.
        created : str
            ISO 8601 instant.
        tearsheet : bool
            Whether to make the page.

        Returns
        -------
        Path
            The run folder.

        Raises
        ------
        DataError
            When `folder` holds anything else than this run.
        """
        from engine.reporting.tearsheet import write_tearsheet
        from engine.runs import keep

        return keep(self, folder, reports, created, write_tearsheet if tearsheet else None)

    def tearsheet(self, path: Path | str = "tearsheet.html") -> Path:
        """Write the page of the run, and nothing else; an HTML file of that name is replaced.

        Raises
        ------
        DataError
            When `path` is no HTML file, or cannot be written.
        """
        from engine.reporting.tearsheet import tearsheet_of

        return tearsheet_of(self, Path(path))

    @property
    def _start_usd(self) -> float:
        return self.config.account.initial_equity_usd

    def to_vectorbt(self) -> vectorbt.Portfolio:
        """The same fills in a vectorbt portfolio, to use its charts and to check ours.

        vectorbt has no margin account and no funding, so it is given ample cash and the positions of this run as
        ``size_type="targetamount"`` at this run's fill prices. ``portfolio.value() - portfolio.init_cash`` is this
        run's equity minus the initial equity, plus the funding paid so far.

        Raises
        ------
        DataError
            For a book that trades a coin and is liquidated in the same row: vectorbt takes one order a cell.
        """
        import vectorbt

        from engine.simulation import kernel

        shape = (len(self.panel.index), len(self.panel.coins))
        trades = self.ledger.trades
        rows, columns = trades[:, kernel.ROW].astype(np.int64), trades[:, kernel.COIN].astype(np.int64)
        sizes, prices, fees = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
        held = np.zeros(shape[1])
        if len(np.unique(rows * shape[1] + columns)) < len(rows):
            raise DataError(
                f"vectorbt takes one order a coin and hour, but this book was liquidated at {self.liquidated_at}, in "
                "the very row in which it had traded. Its own frames hold both fills: result.trades."
            )
        for row, column, trade in zip(rows, columns, trades, strict=True):
            held[column] += trade[kernel.UNITS]
            sizes[row, column] = 0.0 if trade[kernel.REASON] in kernel.ENDS else held[column]
            prices[row, column] = trade[kernel.PRICE]
            fees[row, column] = trade[kernel.FEE] / (abs(trade[kernel.UNITS]) * trade[kernel.PRICE])
        close = self.panel.frame("mid").ffill().bfill()
        gross = float(np.nansum(np.abs(self.ledger.gross * self.ledger.equity)))
        return vectorbt.Portfolio.from_orders(
            close,
            size=sizes,
            size_type="targetamount",
            price=np.where(np.isnan(prices), close.to_numpy(), prices),
            fees=fees,
            init_cash=100.0 * (self.config.account.initial_equity_usd + gross),
            cash_sharing=True,
            group_by=True,
            freq="1h",
        )
