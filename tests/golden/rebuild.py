"""The golden runs: what they are, and the only way to change their numbers.

    python tests/golden/rebuild.py --date 2025-01-31 --reason "why the new numbers are more right than the old ones"

A number of ``golden.json`` or ``equity.csv`` that moves is a result of every user that moves. It is rebuilt only by
someone who says why the new one is more right; the reason goes into ``REASONS.md``, with the figures that moved.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

from engine import Coin, Panel, Result, RunConfig, backtest, decisions_of, load_panel, weight_matrix  # noqa: E402
from engine.coin import FeeTerms  # noqa: E402
from research.oracles.carry import Carry  # noqa: E402
from research.oracles.low_volatility import LowVolatility  # noqa: E402
from research.oracles.momentum import Momentum  # noqa: E402

GOLDEN = HERE / "golden.json"
EQUITY = HERE / "equity.csv"
REASONS = HERE / "REASONS.md"
LEAST_WORDS = 8
#: Name -> oracle and settings; all over the whole synthetic sample.
RUNS: dict[str, tuple[Any, dict[str, dict[str, Any]]]] = {
    "momentum top_bottom, all defaults": (Momentum(), {}),
    "carry rank_power, weekly, band, delay": (
        Carry(construction="rank_power", power=2.0),
        {"execution": {"weekdays": ["mon"], "no_trade_band_frac": 0.005, "delay_hours": 1}},
    ),
    "low volatility, leverage 3, tranches 3": (
        LowVolatility(),
        {"execution": {"leverage": 3.0, "tranches": 3}, "account": {"max_gross": 3.0}},
    ),
    "momentum, half of the coins a builder's": (
        Momentum(),
        {"execution": {"leverage": 2.0, "isolated_leverage": 5}, "account": {"max_gross": 2.0}},
    ),
}


def run(name: str, panel: Panel) -> Result:
    """One golden run."""
    oracle, settings = RUNS[name]
    config = RunConfig.from_dict(settings)
    if name.endswith("a builder's"):
        panel = replace(panel, table=tuple(map(as_builders, panel.table, range(len(panel.coins)))))
    return backtest(panel, weight_matrix(oracle, panel, decisions_of(panel, config)), config)


def as_builders(coin: Coin, place: int) -> Coin:
    """Every second coin, with fees that change once in the sample and margin of its own."""
    if place % 2:
        return coin
    first = FeeTerms(pd.Timestamp("2024-03-01T00:00Z"), (0.0, 0.5, 1.0, 3.0)[place // 2 % 4], False)
    later = FeeTerms(pd.Timestamp("2024-08-01T00:00Z"), 1.0, place % 4 == 0)
    return replace(coin, margin_mode="isolated", collateral="USDC", fee_terms=(first, later))


def metrics(result: Result) -> dict[str, Any]:
    """The metrics as JSON keeps them."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in result.metrics.items()
    }


def daily_equity(results: dict[str, Result]) -> pd.DataFrame:
    """Equity in USD at every decision hour, a column a run.

    The values themselves and no digest of them: processors differ in the 15th digit, and among a thousand rounded
    values one would now and then fall on the other side.
    """
    return pd.DataFrame({name: result.equity[result.panel.index.hour == 23] for name, result in results.items()})


def moved(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Figures that are not what they were, in words."""
    lines = []
    for name in RUNS:
        before = old.get(name, {})
        for key, value in new[name].items():
            if before.get(key, "absent") != value:
                lines.append(f"{name}: {key} {before.get(key, 'absent')} -> {value}")
    return lines


def main() -> None:
    """Rebuild, when there is something to rebuild and a reason to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reason", required=True, help="why the new numbers are more right")
    parser.add_argument("--date", required=True, type=date.fromisoformat, help="today, YYYY-MM-DD")
    given = parser.parse_args()
    if len(given.reason.split()) < LEAST_WORDS:
        parser.error(f"--reason has {len(given.reason.split())} words: argue, in at least {LEAST_WORDS}.")
    from engine.commands.sample import write_sample
    from engine.data.cache import Store

    with tempfile.TemporaryDirectory() as folder:
        write_sample(Store(Path(folder)))
        panel = load_panel(folder)
        results = {name: run(name, panel) for name in RUNS}
    new = {name: metrics(result) for name, result in results.items()}
    equity = daily_equity(results).to_csv(float_format="%.12g", lineterminator="\n")
    old = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if old == new and EQUITY.exists() and EQUITY.read_text(encoding="utf-8") == equity:
        parser.exit(message="Every figure is what it was; nothing is written.\n")
    lines = moved(old, new) or ["the daily equity alone"]
    EQUITY.write_text(equity, encoding="utf-8")
    GOLDEN.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with REASONS.open("a", encoding="utf-8") as file:
        shown = [f"- {line}" for line in lines[:12]] + ([f"- and {len(lines) - 12} more"] if len(lines) > 12 else [])
        file.write(f"\n## {given.date}\n{given.reason}\n\n" + "\n".join(shown) + "\n")
    parser.exit(message=f"{len(lines)} figures moved; {GOLDEN.name}, {EQUITY.name} and {REASONS.name} are written.\n")


if __name__ == "__main__":
    main()
