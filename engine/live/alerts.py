"""Alerts to a webhook: a JSON POST that never stops a run."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from engine.errors import LiveError


def check_webhook(url: str) -> None:
    """Refuse an address that no alert could reach."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise LiveError("--webhook is no http or https address.")


def send_alert(url: str, message: Mapping[str, Any], timeout_seconds: float = 5.0) -> str:
    """POST `message`; returns what went wrong, or an empty text. The address, which may hold a token, is never in it."""
    body = json.dumps(message, default=str).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=timeout_seconds):
            return ""
    except Exception as error:
        return f"the webhook took no alert ({type(error).__name__})"
