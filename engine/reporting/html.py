"""Shared by all pages: the template environment, numbers as text, and writing the file."""

from __future__ import annotations

import math
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from engine.atomic_io import replacing
from engine.clock import WEEKDAYS, show
from engine.errors import DataError
from engine.reporting.canvas import css_colour

INDEX = "index.html"


@cache
def templates() -> jinja2.Environment:
    """The environment of the pages' templates; every inserted value is escaped."""
    folder = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        bytecode_cache=_kept(folder / "__pycache__"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(usd=usd, percent=percent, ratio=ratio, bps=bps, plain=plain, exact=exact)
    environment.filters.update(moment=moment, css_colour=css_colour, coded=coded, in_class=in_class)
    return environment


def _kept(folder: Path) -> jinja2.BytecodeCache | None:
    """Compiled templates, as Python keeps modules; None where nothing can be written."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return jinja2.FileSystemBytecodeCache(str(folder)) if os.access(folder, os.W_OK) else None


def render(template: str, **values: Any) -> str:
    """A page, or a part of one, from its template and the values that it names."""
    return templates().get_template(template).render(**values)


def index_link(page: Path) -> str:
    """Link from a page to the index of the sweep, or the reports, that it lies in; empty where it lies in neither."""
    folder, up = page.absolute().parent, ""
    for _ in range(3):
        if folder / INDEX != page.absolute() and has_index(folder):
            return up + INDEX
        folder, up = folder.parent, up + "../"
    return ""


def has_index(folder: Path) -> bool:
    """Whether a folder has an index of hlbt, or is to have one: a sweep, or reports, which have a ledger of trials."""
    return any((folder / name).exists() for name in ("sweep.json", ".trials")) or _is_page(folder / INDEX, "index")


def _is_page(path: Path, kind: str) -> bool:
    """Whether a file is a page of hlbt of this `kind`, as its head says."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return f'<meta name="generator" content="hlbt {kind}">' in file.read(1000)


def write_page(path: Path, page: str) -> Path:
    """Write a page atomically, with a link back to the index where there is one.

    Raises
    ------
    DataError
        When it cannot be written.
    """
    if link := index_link(path):
        top = '<div class="hlbt">' if '<div class="hlbt">' in page else "<body>"
        page = page.replace(top, f'{top}\n<nav class="back"><a href="{link}">&larr; index</a></nav>', 1)
    try:
        with replacing(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"Page {path} cannot be written: {error.strerror or error}. Check folder and disk.") from error
    return path


def check_page(path: Path, kind: str) -> None:
    """Refuse a path of ``--out`` where a file other than an hlbt page of this `kind` lies; its head names the kind."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"--out {path} is no page: name a file that ends in .html.")
    if path.is_dir():
        raise DataError(f"--out {path} is a folder: name a file that ends in .html.")
    if not path.parent.is_dir():
        raise DataError(f"--out {path}: {path.parent} is no folder. Make it, or name a file elsewhere.")
    if path.is_file() and not _is_page(path, kind):
        raise DataError(f"{path} is there and is no {kind} page. Name another file with --out.")


def usd(value: float, digits: int = 2) -> str:
    """``-1,234.50``; n/a for NaN; what rounds to zero has no sign."""
    return _number(value, f",.{digits}f")


def percent(value: float, digits: int = 2) -> str:
    """``12.30%`` of 0.123."""
    text = _number(value * 100.0, f",.{digits}f")
    return text if text == "n/a" else text + "%"


def bps(value: float) -> str:
    """``1.50`` of 0.00015."""
    return _number(value * 1e4, ",.2f")


def ratio(value: float) -> str:
    """Two decimals."""
    return _number(value, ",.2f")


def coded(text: str) -> Markup:
    """The text, escaped, with what stands in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def in_class(svg: Markup, name: str) -> Markup:
    """A chart with a class of the style sheet."""
    return Markup(str(svg).replace("<svg", f'<svg class="{name}"', 1))


def exact(value: float | None) -> str:
    """The recorded number, for programs that read the page."""
    return "" if value is None or math.isnan(value) else repr(float(value))


def plain(value: Any) -> str:
    """A configuration value, nearly as TOML writes it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        if tuple(value) == WEEKDAYS:
            return "all"
        return ", ".join(plain(item) for item in value)
    return str(value)


def moment(value: object) -> str:
    """An ISO 8601 instant to the minute, for people; other text is returned unchanged."""
    try:
        return show(pd.Timestamp(str(value)).tz_convert("UTC"))
    except (ValueError, TypeError):
        return str(value)


def brief(error: Exception) -> str:
    """The message of an error on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200]


def span(start: object, end: object) -> str:
    """Two instants as ``2024-10-01 00:00 UTC to 2025-03-31 23:00 UTC``."""
    return f"{moment(start)} to {moment(end)}"


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return "n/a"
    text = format(value, form)
    return text.removeprefix("-") if not any(digit in text for digit in "123456789") else text
