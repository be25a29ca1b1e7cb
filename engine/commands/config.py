"""``hlbt config``: the settings that a command would use, every key that there is, and the schema for editors."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.options import ConfigOption, JsonOption, SetOption, config_of
from engine.commands.progress import print_json, show_all

if TYPE_CHECKING:
    from engine.config import RunConfig


def config_command(
    config: ConfigOption = None,
    settings: SetOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a config, for editors, and nothing else.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the settings that a command in this folder would use, as the TOML file that would make them.

    Every key is there with its meaning; one that is not set is behind a #. `hlbt config > hlbt.toml` begins a file.

    Example: hlbt config --set costs.taker_bps=4.5
    """
    if schema:
        print_json(json_schema())
        return
    settled = config_of(config, settings)
    print_json(asdict(settled)) if as_json else show_all(toml(settled))


def meanings(kind: type) -> dict[str, str]:
    """Key -> what it is, of a section, from the docstring of its class."""
    text = f"{kind.__doc__}\n".partition("----------\n")[2].replace(":mod:", "").replace("``", "`")
    entries = re.findall(r"^    (\w[\w, ]*) : .*\n((?:        .*\n)+)", text, flags=re.MULTILINE)
    return {name: " ".join(said.split()) for names, said in entries for name in names.split(", ")}


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what :meth:`engine.RunConfig.from_dict` accepts."""
    from engine.config import SECTIONS
    from engine.config_values import FRACTIONS

    sections: dict[str, Any] = {}
    for section, kind in SECTIONS.items():
        said, keys = meanings(kind), {}
        for key in fields(kind):
            accepts = dict(key.metadata["read"].accepts)
            if key.name.endswith("_bps"):
                accepts["not"] = FRACTIONS
            if key.default is None:
                accepts = {"anyOf": [accepts, {"type": "null"}]}
            default = list(key.default) if isinstance(key.default, tuple) else key.default
            keys[key.name] = {"description": said[key.name], "default": default, **accepts}
        about = (kind.__doc__ or "").splitlines()[0]
        sections[section] = {
            "description": about,
            "type": "object",
            "properties": keys,
            "additionalProperties": False,
        }
    fixed = {name: {"type": "number"} for name in ("taker_bps", "maker_bps")}
    sections["costs"]["not"] = {
        "description": "Fixed rates have no tiers.",
        "properties": {"fee_tiers": {"const": True}, **fixed},
        "required": ["fee_tiers", *fixed],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of hlbt",
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
    }


def toml(config: RunConfig) -> str:
    """A config as a TOML file: every key below its meaning, those that are as they come behind a #."""
    from engine.config import SECTIONS

    lines: list[str] = []
    for section, kind in SECTIONS.items():
        said = meanings(kind)
        lines += [f"# {(kind.__doc__ or '').splitlines()[0]}", f"[{section}]"]
        for key in fields(kind):
            value = getattr(getattr(config, section), key.name)
            own = "" if value != key.default else "# "
            written = "(none)" if value is None else json.dumps(value, ensure_ascii=False)
            lines += [
                *textwrap.wrap(f"# {said[key.name]}", 118, subsequent_indent="# "),
                f"{own}{key.name} = {written}",
            ]
        lines.append("")
    return "\n".join(lines).rstrip()
