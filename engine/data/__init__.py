"""The data layer: sources, the hourly schema, the cache with its manifest, and the way from there to a panel."""

from engine.data.coins import CoinMeta, CoinRecord, MetaReport, import_meta
from engine.data.freqtrade import ImportReport, SetAside, import_freqtrade
from engine.data.load import cache_path, load_panel
from engine.data.report import Conflict, Disagreement, MergeReport
from engine.data.sample import write_sample
from engine.data.status import status
from engine.data.store import Store, VerifyReport

__all__ = [
    "CoinMeta",
    "CoinRecord",
    "Conflict",
    "Disagreement",
    "ImportReport",
    "MergeReport",
    "MetaReport",
    "SetAside",
    "Store",
    "VerifyReport",
    "cache_path",
    "import_freqtrade",
    "import_meta",
    "load_panel",
    "status",
    "write_sample",
]
