"""The published fee schedule, written down a second time."""

from __future__ import annotations

from engine import Panel, RunConfig
from engine.simulation import costs as fees
from helpers import naive


def published_fees(panel: Panel, config: RunConfig) -> naive.Fees:
    """The tables of simulation/costs.py, which test_ledger.py checks; tiers and discounts are the ledger's own work."""
    costs = config.costs
    taker = fees.scheduled_rates(panel.index, costs.taker_bps, maker=False, tiers=costs.fee_tiers)
    maker = fees.scheduled_rates(panel.index, costs.maker_bps, maker=True, tiers=costs.fee_tiers)
    return naive.Fees(taker.tolist(), maker.tolist(), [tier[0] for tier in fees.TIERS] if costs.fee_tiers else [0.0])
