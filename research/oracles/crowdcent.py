"""CrowdCent's hyperliquid-ranking meta-model: ranks of HyperLiquid's coins, daily."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from engine.data.panel_loader import cache_path
from engine.errors import OracleError
from research.oracles.construction import Constructed, check_construction
from research.oracles.download import DownloadedOracle, fetch_file
from research.oracles.publication_schedule import CROWDCENT, Rule, schedule_of
from research.oracles.published_scores import check_published
from research.oracles.score_file import Layout

STEM = "crowdcent_meta_model"
KEY = "CROWDCENT_API_KEY"
CHALLENGE = "hyperliquid-ranking"
COLUMNS = ("pred_10d", "pred_30d")


@dataclass(frozen=True)
class CrowdCentOracle(Constructed, DownloadedOracle):
    """Ranks coins by the newest published prediction, or by the mean of the last `lags`.

    A row counts from 18:00 UTC of its ``release_date``. Names are HyperLiquid's.

    Parameters
    ----------
    column : {"pred_10d", "pred_30d"}
        Which horizon.
    file : str, optional
        CSV or parquet with the columns ``id``, ``pred_10d``, ``pred_30d``, ``release_date``. Without it the newest file
        of `folder` is used if it has every row published before the last decision, and is downloaded otherwise, with
        the key in the environment variable ``CROWDCENT_API_KEY``. Accounts without the needed tier get rows 90 days
        late.
    lags : int
        Published rows that are averaged.
    publication : str, float or list
        See :func:`research.oracles.publication_schedule.schedule_of`.
    max_age_days : float
        Oldest row that a decision may rest on.
    folder : str, optional
        Where downloads lie; default ``crowdcent`` in the data cache (``HLBT_DATA_CACHE``).
    construction, n, power, clip, gross, hold_rank
        See :class:`research.oracles.cross_section.CrossSection`.
    """

    column: str = "pred_10d"
    file: str | None = None
    lags: int = 1
    publication: Any = "crowdcent"
    max_age_days: float = 3.0
    folder: str | None = None
    construction: str = "top_bottom"
    n: int = 5
    power: float = 1.0
    clip: float = 3.0
    gross: float = 1.0
    hold_rank: int = field(default=0, kw_only=True)

    score_parameters: ClassVar[tuple[str, ...]] = ("column", "file", "lags", "publication", "max_age_days", "folder")
    service_schedule: ClassVar[tuple[Rule, ...]] = CROWDCENT
    exposure: ClassVar[str] = "meta-model exposure"
    stem: ClassVar[str] = STEM
    service: ClassVar[str] = "crowdcent"

    def __post_init__(self) -> None:
        if self.column not in COLUMNS:
            raise OracleError(f"column = {self.column!r} is not accepted: choose one of {', '.join(COLUMNS)}.")
        check_published(self)
        check_construction(self.construction, self.n, self.power, self.clip, self.gross, self.hold_rank)
        schedule_of(self.publication)

    def layout(self) -> Layout:
        """See :meth:`PublishedOracle.layout`."""
        return Layout(
            "release_date",
            "id",
            self.column,
            schedule=schedule_of(self.publication),
            timezone="UTC",
            low=0.0,
            high=1.0,
        )

    @staticmethod
    def download(folder: Path | None = None) -> Path:
        """Download the meta-model with the package crowdcent-challenge into a new file, named by its newest row.

        Raises
        ------
        OracleError
            Without the package or the key, or when CrowdCent does not answer; then no file is left behind.
        """
        goal = cache_path() / "crowdcent" if folder is None else Path(folder)
        return fetch_file(goal, STEM, "CrowdCent's meta-model", _fetch, CrowdCentOracle().layout())


def _fetch(folder: Path) -> Path:
    """Download CrowdCent's meta-model into `folder`. The key comes from the environment and appears in no message."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise OracleError(
            f"CrowdCent's meta-model needs a key: set the environment variable {KEY}, or give a file that you have: "
            "file=PATH.parquet."
        )
    try:
        from crowdcent_challenge import ChallengeClient  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise OracleError(
            "CrowdCent's meta-model is downloaded with a package that hlbt does not bring: pip install "
            "crowdcent-challenge. Or give a file that you have: file=PATH.parquet."
        ) from error
    try:
        target = folder / f"{STEM}.parquet"
        ChallengeClient(challenge_slug=CHALLENGE, api_key=key).download_meta_model(str(target))
        return target
    except Exception as error:
        reason = " ".join(str(error).split()).replace(key, "(the key)")
        # From None: the client's own error may hold the request with its headers.
        raise OracleError(
            f"CrowdCent's meta-model cannot be downloaded: {type(error).__name__}: {reason[:300]}. Check the key in "
            f"{KEY} and the network, or give a file that you have: file=PATH.parquet."
        ) from None
