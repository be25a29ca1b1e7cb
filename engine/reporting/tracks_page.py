"""The page that lists paper tracks, and links to the page of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from engine.reporting.html import render, write_page

TRACKS = "tracks.html"


def write_tracks_page(path: Path, rows: Sequence[Mapping[str, Any]], now: pd.Timestamp) -> Path:
    """Write the page of the tracks of one ``hlbt live paper``.

    Parameters
    ----------
    path : Path
    rows : sequence of mapping
        A track each, as ``--json`` has it.
    now : Timestamp
        Of the run.

    Raises
    ------
    DataError
        When the file cannot be written.
    """
    links = [{**row, "link": Path(row["page"]).name if row["page"] else None} for row in rows]
    return write_page(path, render("tracks.html", rows=links, now=now))
