"""What paper accounts stand on: the hours of the cache, then one row of live quotes, each read once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from engine.clock import HOUR, show
from engine.config import Data, RunConfig
from engine.data.panel_loader import load_whole_panel
from engine.errors import DataError
from engine.live.dex import DEX
from engine.live.live_panel import with_live_row
from engine.live.paper import PaperDEX
from engine.live.targets import Strategy
from engine.panel import Panel


@dataclass
class PaperMarket:
    """One reading of the market, for any number of paper accounts.

    Attributes
    ----------
    quotes : DEX
        Asked once, and only where the cache does not reach the instant.
    """

    quotes: DEX
    _panels: dict[tuple[Data, pd.Timestamp], Panel] = field(default_factory=dict)

    def panel(self, config: RunConfig, instant: pd.Timestamp) -> Panel:
        """The panel of a config up to `instant`, whose row holds the cache's quotes, else those of now.

        Raises
        ------
        DataError
            When the cache ends more than an hour before.
        """
        data = config.data
        if (data, instant) not in self._panels:
            panel = load_whole_panel(data.cache, config.start, instant, data.selection, data.hours)
            if panel.index[-1] < instant:
                if instant - panel.index[-1] > HOUR:
                    # The account would miss the funding of these hours, and take a missing price for a delisting.
                    raise DataError(
                        f"The paper account cannot be brought to {show(instant)}: the cache ends at "
                        f"{show(panel.index[-1])}, and the hours between are not known. Leave --no-sync out, or sync."
                    )
                panel = with_live_row(panel, instant, self._live_row, data.in_session_only)
            self._panels[data, instant] = panel
        return self._panels[data, instant]

    @cached_property
    def _live_row(self) -> Mapping[str, Mapping[str, float]]:
        return self.quotes.live_row()


def paper_account(strategy: Strategy, panel: Panel, folder: Path, instant: pd.Timestamp, keep: bool = True) -> PaperDEX:
    """The paper account of a strategy, of the size that it was promoted for; a new one starts at `instant`.

    Parameters
    ----------
    strategy : Strategy
    panel : Panel
        As :meth:`PaperMarket.panel` gives it.
    folder : Path
        In which the account's file is.
    instant : Timestamp
    keep : bool
        Write the file; a plan, which changes nothing, does not.
    """
    account = strategy.config.account
    size = account.initial_equity_usd if strategy.promoted_usd is None else strategy.promoted_usd
    config = replace(strategy.config, account=replace(account, initial_equity_usd=size))
    return PaperDEX(panel, config, folder / f"{strategy.name}-paper.json", start=instant, keep=keep)
