"""``hlbt live status``: what an account did, and, when it is asked, what it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands.options import config_of
from engine.commands.terminal import print_json, show_all, waiting
from engine.commands.terminal_live import status_lines

if TYPE_CHECKING:
    import pandas as pd

    from engine.live.session import Venue


def status(path: Path, cache: str | None, venue: Venue, now: pd.Timestamp, out: Path | None, as_json: bool) -> None:
    """Show the journal of the strategy at `path` and, where `venue` names a host or credentials, its account.

    `cache` is the folder of the data in the place of the spec's own; the page goes to `out`.
    """
    from engine.live.dex import DEX
    from engine.live.hyperliquid import HyperLiquidDEX
    from engine.live.journal import Journal
    from engine.live.performance import account_status, find_journal, live_status
    from engine.live.session import ORDER_LEAD, next_run
    from engine.live.spec import read_spec
    from engine.reporting.html import check_page
    from engine.reporting.live_page import write_live_page

    if out is not None:
        check_page(out, "live status")
    # A journal of a weights file has no spec: then the config is the defaults, and nothing is scheduled.
    promoted = path.suffix == ".json" and path.is_file()
    config = read_spec(path).config if promoted else config_of(None, None)
    data = replace(config.data, cache=cache or config.data.cache, end=None)
    dex: DEX | None = None
    if venue.network != "paper" and (venue.credentials or venue.base_url):
        dex = HyperLiquidDEX(
            venue.network,
            base_url=venue.base_url,
            credentials=venue.credentials,
            timeout_seconds=venue.timeout_seconds,
        )
        file = venue.folder / f"{path.stem}-{dex.label}.jsonl"
    else:
        file = find_journal(venue.folder, path.stem, venue.network)
    found = live_status(Journal(file), replace(config, data=data))
    found["next_instant"] = (next_run(now, config)[1] + ORDER_LEAD).isoformat() if promoted else None
    if dex is not None:
        with waiting("Asking the exchange ..."):
            found["account"] = account_status(dex)
    page = out or (file.with_suffix(".html") if file.is_file() and not as_json else None)
    if page is not None:
        write_live_page(found, path.stem, venue.network, page)
    if as_json:
        print_json(found)
    else:
        show_all(*status_lines(found), f"Page: {page}" if page else f"There is no journal {file}: nothing has run yet.")
