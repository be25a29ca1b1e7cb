"""What the reference says of names whose code has no docstring of their own: metrics, files and their columns."""

from __future__ import annotations

#: Metric -> unit, and how it is made. The rest are functions of `engine/simulation/metrics.py`, whose docstrings are
#: the formulas. Of each that ends in `_calendar` the same is said once, on the page.
METRICS = {
    "equity_start_usd": ("USD", "`account.initial_equity_usd`"),
    "equity_end_usd": ("USD", "equity after everything that happened at the last row"),
    "days": ("days", "daily returns from the first decision that asks for something"),
    "turnover_daily": ("fraction a day", "sum of traded notional over equity, by the days of 24 hours that have begun"),
    "turnover_decision": ("fraction", "traded notional over equity, mean over decisions"),
    "gross_mean": ("fraction", "gross exposure over equity right after the trade, mean over decisions"),
    "net_mean": ("fraction", "longs less shorts over equity right after the trade, mean over decisions"),
    "untradable_weight": (
        "fraction",
        "sum of abs(weight) of coins that could not be traded, mean over decisions",
    ),
    "decisions": ("count", "decisions whose row lies within the panel"),
    "trades": ("count", "fills, those of delistings and liquidations included"),
    "skipped_min_notional": (
        "count",
        "orders not sent: under `execution.min_notional_usd`, or cut to no lot",
    ),
    "skipped_band": ("count", "orders not sent: inside the no-trade band"),
    "untradable_orders": ("count", "coins with a weight or a position that could not be traded at a decision"),
    "delistings": ("count", "positions that were settled because the coin had no price any more"),
    "isolated_liquidations": ("count", "positions of isolated margin that were liquidated, each for itself"),
    "funding_missing_frac": ("fraction", "held coin-hours without a funding rate, of all held coin-hours"),
    "liquidated_at": ("ISO 8601", "instant at which equity was under the maintenance margin; empty where it never was"),
    "price_pnl_usd": ("USD", "sum of units times change of price"),
    "spread_usd": ("USD, a cost", "sum of signed size times fill less mid, without impact"),
    "impact_usd": ("USD, a cost", "sum of what `costs.impact` adds to the fill"),
    "fee_usd": ("USD, a cost", "sum of fee rate times notional of the fill"),
    "funding_usd": (
        "USD, a cost",
        "sum of units times price times funding rate (rules, step 3)",
    ),
}
#: Unit and symbol of the metrics that are functions.
FUNCTIONS = {
    "total_return": "fraction",
    "cagr": "fraction a year",
    "volatility": "fraction a year",
    "sharpe": "ratio, annual",
    "sortino": "ratio, annual",
    "max_drawdown": "fraction, 0 or negative",
    "calmar": "ratio",
}
#: Figures of pages and summaries beside the metrics.
OTHERS = {
    "alpha, beta": ("fraction a year, ratio", "alpha_beta"),
    "drawdown": ("fraction, 0 or negative", "drawdown"),
    "daily return": ("fraction", "daily_returns"),
}
#: Column of a sweep's table beside metrics and parameters -> what it is.
SWEEP = {
    "set.NAME": ("number of a value", "which value of the grid the set has for the parameter or key `NAME`"),
    "key": ("hash", "what the set is known by: oracle, parameters, config, data and engine"),
    "error": ("text", "why the set failed; empty where it did not"),
}
#: File of a run folder -> what it is, and its columns with units. `COIN` stands for a column a coin.
RUN = {
    "run.json": ("the record: config, digests, versions, metrics, attribution, notes", {}),
    "equity.parquet": (
        "a row an hour",
        {
            "time": "instant, UTC",
            "equity_usd": "USD, after everything that happened at the instant",
            "price_pnl_usd": "USD, from prices",
            "spread_usd": "USD, a cost is positive",
            "impact_usd": "USD, a cost is positive",
            "fee_usd": "USD, a cost is positive",
            "funding_usd": "USD, paid is positive",
        },
    ),
    "trades.parquet": (
        "a row a change of a position",
        {
            "time": "instant, UTC",
            "coin": "name",
            "units": "coins, signed: bought is positive",
            "price": "USD a coin, of the fill",
            "notional_usd": "USD, size times fill",
            "fee_usd": "USD, a rebate is negative",
            "spread_usd": "USD against mid, better than mid is negative",
            "reason": "open, increase, reduce, flip, close, delisting or liquidation",
        },
    ),
    "round_trips.parquet": (
        "a row a position from flat to flat",
        {
            "coin": "name",
            "side": "long or short",
            "opened": "instant, UTC",
            "closed": "instant, UTC; empty while it is held",
            "ended": "close, flip, delisting, liquidation or open",
            "hours": "hours",
            "fills": "count",
            "entry_usd": "USD at mid, of the fills that opened or increased it",
            "price_pnl_usd": "USD, between mids",
            "spread_usd": "USD, a cost is positive",
            "impact_usd": "USD, a cost is positive",
            "fee_usd": "USD, a cost is positive",
            "funding_usd": "USD, paid is positive",
            "net_usd": "USD, price profit less the four costs",
        },
    ),
    "weights.parquet": (
        "a row a decision: the oracle's weights",
        {"time": "instant of the decision, UTC", "COIN": "fraction of equity, signed; empty holds"},
    ),
    "hourly.parquet": (
        "a row an hour",
        {
            "time": "instant, UTC",
            "gross_frac": "fraction of equity, after the trade",
            "net_frac": "fraction of equity, after the trade",
            "benchmark_usd": "USD, price of `report.benchmark`; absent where there is none",
        },
    ),
}
#: Files of a run folder that are there only where something made them.
RUN_OTHERS = {
    "factors.parquet": "parts of each daily return by factor of the risk model, and the residual; where it is known",
    "risk.parquet": "exposures in the oracle's own terms, a row a decision; where the oracle has some",
    "tearsheet.html": "the page: `hlbt report RUN` makes it again from the files",
    "capacity.html": "net Sharpe ratio against the size of the account: `hlbt capacity RUN`",
    "notes.json": "`hlbt note RUN`; stays, as any file of yours does, when the run is made again",
}
#: File of a sweep's folder -> what it is.
SWEEP_FILES = {
    "sweep.json": "the record: grid, config, digests, versions, how many sets",
    "table.parquet": "a row a set: the columns below",
    "returns.parquet": "a row a set, in the order of the table; a column a day, its daily return",
    "verdict.json": "the verdict with its evidence: `hlbt validate`",
    "index.html": "the page",
    "top/": "run folders of the best sets",
}
#: Key of a promoted strategy's file -> what it is.
PROMOTED_FILES = {
    "research/promoted/NAME.json": "the spec: oracle, parameters, config, limits, gates and evidence, with its digest",
    "research/promoted/NAME.toml": "a book of specs with shares of one account: guide/several-strategies.md",
    "reports/live/": "paper accounts, and links to the journals of live ones; not safe to delete",
    "reports/.trials/": "every set and run ever tried, by oracle; verdicts count them; not safe to delete",
}
#: Exit code -> what it means, of those that are no :class:`engine.HlbtError`'s alone.
EXIT_CODES = {
    0: "done",
    1: "an error; `hlbt oracle check`: a leak; `hlbt data verify`: a damaged file; `hlbt doctor`: no backtest can run",
    2: "`hlbt validate --strict`: not passed; also an unknown option",
    3: "live: a limit or the kill switch stopped it, no order sent",
    4: "live: incomplete book",
    5: "live: refused spec",
    6: "live: exchange unreachable before an order",
    7: "`hlbt promote`: refused; `hlbt study open`: the holdout is spent, or the candidate is stale",
    8: "live: the strategy is demoted, so only reductions were ordered",
    130: "Ctrl-C; what was finished is kept",
}
#: Source of data -> what it is, as the page of panel fields has it.
SOURCES = {
    "api": "HyperLiquid's API: hourly candles, and settled funding",
    "s3": "the archive `asset_ctxs`, or its files in a folder (`--source dir`): the last minute before the hour",
    "l2book": "books of the archive at the hours asked for: `--quotes l2book`",
    "freqtrade": "freqtrade's candles, mark candles and funding",
    "table": "tables of any other program: what their columns are",
    "sample": "the synthetic sample of `hlbt demo`",
}
#: Variable of the environment -> what it is.
ENVIRONMENT = {
    "HLBT_DATA_CACHE": "folder of the cache",
    "HLBT_STATE": "folder of the locks and journals of live accounts",
    "HLBT_TRACEBACK": "show the trace behind an error message",
    "HYPERLIQUID_SECRET_KEY": "key of a live account",
    "HYPERLIQUID_ACCOUNT_ADDRESS": "address of a live account",
    "HYPERLIQUID_VAULT_ADDRESS": "vault or sub-account that is traded",
    "CROWDCENT_API_KEY": "CrowdCent's downloads",
}
