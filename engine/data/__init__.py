"""The data layer: sources, the hourly schema, the cache with its manifest, and the way from there to a panel."""

from engine.data.cache import Store, VerifyReport
from engine.data.cache_status import status
from engine.data.coin_table import CoinMeta, CoinRecord
from engine.data.freqtrade import import_freqtrade
from engine.data.merge_report import Conflict, Disagreement, MergeReport
from engine.data.meta import MetaReport, import_meta
from engine.data.panel_loader import cache_path, load_panel
from engine.data.sync_report import SkippedItem, SyncReport

__all__ = [
    "CoinMeta",
    "CoinRecord",
    "Conflict",
    "Disagreement",
    "MergeReport",
    "MetaReport",
    "SkippedItem",
    "Store",
    "SyncReport",
    "VerifyReport",
    "cache_path",
    "import_freqtrade",
    "import_meta",
    "load_panel",
    "status",
]
