"""What the site needs of a page that Markdown alone does not give: includes, and names of files beside the manual.

A line ``--8<-- "ARCHITECTURE.md"`` is replaced by that file of the checkout. A link to a file of the checkout that is
no page (``../../research/gates.toml``) becomes its path as code: a site on a disk has no checkout beside it. A link
that leads nowhere stays, and the strict build refuses it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
INCLUDE = re.compile(r'^--8<-- "([\w./-]+)"$', flags=re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The text of a page, complete."""
    here = Path("docs", page.file.src_uri)

    def included(match: re.Match[str]) -> str:
        text = (ROOT / match[1]).read_text(encoding="utf-8")
        return _links(re.sub(r"\A# .*\n", "", text), Path(match[1]), here)

    return INCLUDE.sub(included, _links(markdown, here, here))


def on_page_content(html: str, **_: Any) -> str:
    """The page without the roles of docstrings: ``:class:`` and so on, of which mkdocstrings knows nothing."""
    return re.sub(r":(?:mod|func|class|data|meth|attr|exc):(?=<code>)", "", html)


def _links(text: str, written_for: Path, here: Path) -> str:
    """Links of a text that was written for one file, as another file needs them."""

    def link(match: re.Match[str]) -> str:
        mark, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        path = Path(os.path.normpath(written_for.parent / target))
        if path.parts[0] != "docs" and (ROOT / path).exists():
            return f"{label.strip('`')} (`{path}`)" if label.strip("`") != str(path) else f"`{path}`"
        return f"{mark}[{label}]({os.path.relpath(path, here.parent)}{anchor})"

    return LINK.sub(link, text)
