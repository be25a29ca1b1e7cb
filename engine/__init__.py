"""hlbt: a research backtester for HyperLiquid perpetuals.

The public names are looked up on first use, so that ``import engine`` costs nothing. It looks, before numba is
imported, whether compiled code can be kept.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.caches import settle_caches

if TYPE_CHECKING:
    from engine.config import RunConfig as RunConfig
    from engine.data.panel_loader import load_panel as load_panel
    from engine.errors import HlbtError as HlbtError
    from engine.live.dex import DEX as DEX
    from engine.live.hyperliquid import HyperLiquidDEX as HyperLiquidDEX
    from engine.live.paper import PaperDEX as PaperDEX
    from engine.live.portfolio_manager import PortfolioManager as PortfolioManager
    from engine.oracles.base import Oracle as Oracle
    from engine.oracles.base import ScoreOracle as ScoreOracle
    from engine.oracles.base import weight_matrix as weight_matrix
    from engine.panel import Coin as Coin
    from engine.panel import Panel as Panel
    from engine.simulation.backtest import backtest as backtest
    from engine.simulation.backtest import decisions_of as decisions_of
    from engine.simulation.batch import backtest_many as backtest_many
    from engine.simulation.result import Result as Result
    from engine.sweeps.study import Study as Study
    from engine.sweeps.study import load_study as load_study
    from engine.sweeps.sweep import sweep as sweep
    from engine.weights import SparseWeights as SparseWeights

_HOMES = {
    "Coin": "engine.panel",
    "DEX": "engine.live.dex",
    "HlbtError": "engine.errors",
    "HyperLiquidDEX": "engine.live.hyperliquid",
    "Oracle": "engine.oracles.base",
    "Panel": "engine.panel",
    "PaperDEX": "engine.live.paper",
    "PortfolioManager": "engine.live.portfolio_manager",
    "Result": "engine.simulation.result",
    "RunConfig": "engine.config",
    "ScoreOracle": "engine.oracles.base",
    "SparseWeights": "engine.weights",
    "Study": "engine.sweeps.study",
    "backtest": "engine.simulation.backtest",
    "backtest_many": "engine.simulation.batch",
    "decisions_of": "engine.simulation.backtest",
    "load_panel": "engine.data.panel_loader",
    "load_study": "engine.sweeps.study",
    "sweep": "engine.sweeps.sweep",
    "weight_matrix": "engine.oracles.base",
}
__all__ = sorted(_HOMES)
__version__ = "0.1.0"


if not TYPE_CHECKING:  # a type checker would take any name for one of the package's

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if _said := settle_caches():
    from logging import getLogger

    getLogger("hlbt").warning("hlbt: %s", _said)
