"""hlbt: a research backtester for HyperLiquid perpetuals.

The public names are looked up on first use, so that ``import engine`` costs nothing. It makes sure, before numba is
imported, that compiled code can be kept. In the process of the command it answers Ctrl-C before all else.
"""

import os
import signal
import sys


def _stop(_number: int, _frame: object) -> None:
    """End the command at once: nothing has begun, or all has ended."""
    os.write(2, b"hlbt: interrupted.\n")
    os._exit(130)


if os.path.basename(getattr(sys, "argv", [""])[0]) == "hlbt" and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _stop)

# ruff: noqa: E402 - what is imported below takes a while
from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.caches import settle_caches

if TYPE_CHECKING:
    from engine.config import RunConfig as RunConfig
    from engine.data.panel_loader import load_panel as load_panel
    from engine.errors import ConfigError as ConfigError
    from engine.errors import DataError as DataError
    from engine.errors import DemotedError as DemotedError
    from engine.errors import HlbtError as HlbtError
    from engine.errors import IncompleteError as IncompleteError
    from engine.errors import InfeasibleError as InfeasibleError
    from engine.errors import InitialMarginError as InitialMarginError
    from engine.errors import LimitError as LimitError
    from engine.errors import LiveError as LiveError
    from engine.errors import OracleError as OracleError
    from engine.errors import PositionsError as PositionsError
    from engine.errors import PromotionError as PromotionError
    from engine.errors import SpecError as SpecError
    from engine.errors import UnreachableError as UnreachableError
    from engine.errors import WeightsError as WeightsError
    from engine.live.dex import DEX as DEX
    from engine.live.hyperliquid import HyperLiquidDEX as HyperLiquidDEX
    from engine.live.journal import Journal as Journal
    from engine.live.paper import PaperDEX as PaperDEX
    from engine.live.portfolio_manager import PortfolioManager as PortfolioManager
    from engine.monitoring.control_chart import cost_alarm as cost_alarm
    from engine.monitoring.edge_bands import edge_bands as edge_bands
    from engine.monitoring.fills import cost_days as cost_days
    from engine.monitoring.replay import plan_differences as plan_differences
    from engine.oracles.base import Oracle as Oracle
    from engine.oracles.base import ScoreOracle as ScoreOracle
    from engine.oracles.base import weight_matrix as weight_matrix
    from engine.panel import Coin as Coin
    from engine.panel import Panel as Panel
    from engine.reporting.views import compare as compare
    from engine.risk.model import RiskModel as RiskModel
    from engine.risk.model import book_risk as book_risk
    from engine.runs import Run as Run
    from engine.runs import backtest as backtest
    from engine.runs import load_run as load_run
    from engine.simulation.backtest import decisions_of as decisions_of
    from engine.simulation.batch import backtest_many as backtest_many
    from engine.simulation.result import Result as Result
    from engine.sweeps.executors import Ray as Ray
    from engine.sweeps.executors import Threads as Threads
    from engine.sweeps.study import Study as Study
    from engine.sweeps.study import load_study as load_study
    from engine.sweeps.sweep import sweep as sweep
    from engine.validation.validate import validate as validate
    from engine.validation.verdict import Verdict as Verdict
    from engine.weights import SparseWeights as SparseWeights
    from engine.weights import read_weights as read_weights

#: Public name -> the module that defines it.
_HOMES = {
    name: module
    for module, names in {
        "engine.config": "RunConfig",
        "engine.data.panel_loader": "load_panel",
        "engine.errors": "ConfigError DataError DemotedError HlbtError IncompleteError InfeasibleError "
        "InitialMarginError LimitError LiveError OracleError PositionsError PromotionError SpecError UnreachableError "
        "WeightsError",
        "engine.live.dex": "DEX",
        "engine.live.hyperliquid": "HyperLiquidDEX",
        "engine.live.journal": "Journal",
        "engine.live.paper": "PaperDEX",
        "engine.live.portfolio_manager": "PortfolioManager",
        "engine.monitoring.control_chart": "cost_alarm",
        "engine.monitoring.edge_bands": "edge_bands",
        "engine.monitoring.fills": "cost_days",
        "engine.monitoring.replay": "plan_differences",
        "engine.oracles.base": "Oracle ScoreOracle weight_matrix",
        "engine.panel": "Coin Panel",
        "engine.reporting.views": "compare",
        "engine.risk.model": "RiskModel book_risk",
        "engine.runs": "Run backtest load_run",
        "engine.simulation.backtest": "decisions_of",
        "engine.simulation.batch": "backtest_many",
        "engine.simulation.result": "Result",
        "engine.sweeps.executors": "Ray Threads",
        "engine.sweeps.study": "Study load_study",
        "engine.sweeps.sweep": "sweep",
        "engine.validation.validate": "validate",
        "engine.validation.verdict": "Verdict",
        "engine.weights": "SparseWeights read_weights",
    }.items()
    for name in names.split()
}
__all__ = sorted(_HOMES)
__version__ = "0.1.0"


if not TYPE_CHECKING:  # a type checker would accept any name as one of the package's

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if _message := settle_caches():
    from logging import getLogger

    getLogger("hlbt").warning("hlbt: %s", _message)
