"""Credentials of an account: read from a file or the environment, and never shown."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engine.errors import LiveError, did_you_mean

CONFIG: Final = Path("hyperliquid_config.json")
_KEYS: Final = ("secret_key", "account_address", "multi_sig", "vault_address")
#: Keys of the SDK's own example, which the predecessor's users have.
_IGNORED: Final = ("comments", "keystore_path")
_KEY: Final = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True)
class Credentials:
    """Who trades. Its ``repr`` leaves the key out.

    Attributes
    ----------
    secret_key : str
        Private key of the account, or of an agent wallet that the account has approved.
    account_address : str or None
        The master account; None = the address of the key.
    vault_address : str or None
        A vault or sub-account that the account trades for.
    """

    secret_key: str = field(repr=False)
    account_address: str | None = None
    vault_address: str | None = None


def read_credentials(path: str | Path | None = None) -> Credentials:
    """Credentials from `path`, else from the environment, else from ``hyperliquid_config.json``.

    The environment is ``HYPERLIQUID_SECRET_KEY``, ``HYPERLIQUID_ACCOUNT_ADDRESS`` and ``HYPERLIQUID_VAULT_ADDRESS``.
    The template is ``engine/live/hyperliquid_config.template.json``.

    Raises
    ------
    LiveError
        When there are none, the file can be read by others, or a value is malformed; no message quotes the file.
    """
    if path is None and os.environ.get("HYPERLIQUID_SECRET_KEY"):
        names = ("secret_key", "account_address", "vault_address")
        values = {name: os.environ.get(f"HYPERLIQUID_{name.upper()}") for name in names}
        return _checked(values, "the environment (HYPERLIQUID_SECRET_KEY, ...)")
    file = Path(path or CONFIG)
    return _checked(_read(file), str(file))


def _read(file: Path) -> dict[str, Any]:
    try:
        mode = file.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise LiveError(
                f"{file} can be read by others (mode {stat.S_IMODE(mode):o}); a private key must not be. Run chmod 600 "
                f"{file}, and treat the key as leaked."
            )
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LiveError(
            f"No credentials: {file} does not exist. Copy engine/live/hyperliquid_config.template.json, fill "
            "it in and chmod 600 it, or set HYPERLIQUID_SECRET_KEY and HYPERLIQUID_ACCOUNT_ADDRESS."
        ) from error
    except OSError as error:
        raise LiveError(f"{file} cannot be read: {error.strerror}. Name a file of your own.") from error
    except ValueError:
        # Without the cause: a JSON error quotes the text.
        raise LiveError(f"{file} is not JSON. The template is engine/live/hyperliquid_config.template.json.") from None
    if not isinstance(values, dict):
        raise LiveError(f"{file} is not a JSON object of {', '.join(_KEYS)}.")
    for name in values:
        if name not in _KEYS and name not in _IGNORED:
            raise LiveError(f"{file} has an unknown key.{did_you_mean(str(name), _KEYS)} Keys: {', '.join(_KEYS)}.")
    return values


def _checked(values: dict[str, Any], where: str) -> Credentials:
    multi = values.get("multi_sig")
    if isinstance(multi, dict):  # the SDK's example lists users without a key
        multi = any(
            not isinstance(user, dict) or user.get("secret_key") for user in multi.get("authorized_users") or ()
        )
    if multi:
        raise LiveError(
            f"{where}: multi_sig accounts are not supported. Set multi_sig to null and use an agent wallet."
        )
    key = values.get("secret_key")
    if not isinstance(key, str) or not _KEY.fullmatch(key.strip()):
        raise LiveError(f"{where}: secret_key is no private key; it must be 64 hexadecimal digits, with or without 0x.")
    for name in ("account_address", "vault_address"):
        address = values.get(name)
        if address and (not isinstance(address, str) or not _ADDRESS.fullmatch(address.strip())):
            raise LiveError(f"{where}: {name} is no address; it must be 0x and 40 hexadecimal digits.")
    account, vault = (values.get(name) or None for name in ("account_address", "vault_address"))
    return Credentials(key.strip(), account and account.strip(), vault and vault.strip())
