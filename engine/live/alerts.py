"""Alerts and heartbeats to a web address: a JSON POST that never stops a run."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

from engine.errors import LiveError
from engine.urls import web_address


def check_webhook(url: str, option: str = "--webhook") -> None:
    """Refuse an address that is not http or https; `option` named it.

    Raises
    ------
    LiveError
        Without the address in its message: it may hold a token.
    """
    if web_address(url) is None:
        raise LiveError(f"{option} is no http or https address. Write one like https://host/path.")


def send_alert(url: str, what: str, message: Mapping[str, Any], timeout_seconds: float = 5.0) -> str:
    """POST `message`, an ``alert`` or a ``heartbeat``; returns what went wrong, or an empty text.

    The address is in no text that is returned: it may hold a token.

    The body has a sentence as ``text`` and ``content`` too, which Slack and Discord show; Discord takes 2,000 letters.
    """
    sentence = _sentence(message)
    body = json.dumps({**message, "text": sentence, "content": sentence[:2000]}, default=str).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=timeout_seconds):
            return ""
    except Exception as error:
        return f"the webhook did not accept the {what} ({type(error).__name__})"


def _sentence(message: Mapping[str, Any]) -> str:
    run = f"hlbt: {message.get('strategy')} on {message.get('network')}"
    if "error" in message:
        return f"{run} ended with exit code {message.get('code')}: {message['error']}"
    if "heartbeat" in message:
        return f"{run} is alive after {message['heartbeat']}, exit code {message.get('code')}"
    orders, equity = message.get("orders"), message.get("equity_usd")
    worth = "not known" if equity is None else f"{equity:,.2f} USD"
    return f"{run} is at its target for {message.get('instant')}: {orders} orders, equity {worth}"
