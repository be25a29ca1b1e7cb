"""The published fee schedule, written down a second time."""

from __future__ import annotations

from engine import Panel, RunConfig
from engine.simulation import costs as fees
from helpers import naive

#: (growth mode, the deployer's scale, factor on a fee), from the venue's fee page.
FACTORS = [
    (False, 0.0, 1.0),
    (False, 0.5, 1.5),
    (False, 1.0, 2.0),
    (False, 3.0, 6.0),
    (True, 0.0, 0.1),
    (True, 0.5, 0.15),
    (True, 1.0, 0.2),
    (True, 3.01, 0.602),
    (True, 9.99, 1.998),
]


def published_fees(panel: Panel, config: RunConfig) -> naive.Fees:
    """The tables of simulation/costs.py, which test_ledger.py checks; tiers and discounts are the ledger's own work."""
    costs = config.costs
    taker = fees.scheduled_rates(panel.index, costs.taker_bps, maker=False, tiers=costs.fee_tiers)
    maker = fees.scheduled_rates(panel.index, costs.maker_bps, maker=True, tiers=costs.fee_tiers)
    return naive.Fees(taker.tolist(), maker.tolist(), [tier[0] for tier in fees.TIERS] if costs.fee_tiers else [0.0])
