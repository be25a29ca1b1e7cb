from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine import ConfigError, RunConfig
from engine.commands.config import json_schema, meanings, toml
from engine.config import SECTIONS
from helpers.commands import Hlbt

KEYS = [(section, key.name) for section, kind in SECTIONS.items() for key in fields(kind)]
#: What a key may be given: of every type, at and beyond every limit.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 7.0, 2.5, 23, 24, -1, -10, 100, 100.5, 1000, 1001, 5001, 1e-9, 1e-10, 1e15, 2e15),
    *(
        "",
        " ",
        "all",
        "none",
        "schedule",
        "cash",
        "renormalise",
        "venue",
        "mean",
        "close",
        "extreme",
        "to_edge",
        "risk",
        "BTC",
        "BTC, ETH",
    ),
    *("mon", "mon,thu", '["mon", "thu"]', "mon,", "monday", "2024-10-01", "2024-10-01T23:00Z", "20241001", "yesterday"),
    *("BTC=0.01", "BTC=.5, *=1", "BTC=2", "BTC=x", {"BTC": 0.5}, {"BTC": 1.5}, [["BTC", 0.01]], [["BTC", "x"]]),
    *([], ["mon"], ["mon", "frob"], ["BTC", "ETH"], [""], [1], {}, {"a": 1}, 1_000_001),
]


def accepted(sections: Any) -> bool:
    try:
        RunConfig.from_dict(sections)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(("section", "key"), KEYS, ids=".".join)
def test_the_schema_accepts_what_a_config_does(section: str, key: str) -> None:
    validator = Draft202012Validator(json_schema())
    config = [accepted({section: {key: value}}) for value in VALUES]
    schema = [validator.is_valid({section: {key: value}}) for value in VALUES]
    assert [value for value, one, other in zip(VALUES, config, schema, strict=True) if one != other] == []
    assert any(config) and not all(config)


def test_the_schema_is_one_and_knows_keys_and_what_goes_together() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid({}) and validator.is_valid(json.loads(json.dumps(asdict(RunConfig()))))
    for wrong in ({"cost": {}}, {"costs": {"taker": 1}}, {"costs": 3}, []):
        assert not validator.is_valid(wrong) and not accepted(wrong)
    for rates in ((1, 2), (1, "schedule"), ("schedule", 2)):
        config = {"costs": {"fee_tiers": True, "taker_bps": rates[0], "maker_bps": rates[1]}}
        assert validator.is_valid(config) == accepted(config) == ("schedule" in rates)


def test_every_key_has_a_meaning_and_the_file_makes_the_config(hlbt: Hlbt) -> None:
    for kind in SECTIONS.values():
        assert list(meanings(kind)) == [key.name for key in fields(kind)]
    code, shown, err = hlbt("config", "--set", "costs.taker_bps=4.5", "--set", "data.coins=BTC,ETH")
    assert (code, err) == (0, "")
    config = RunConfig.from_dict({"costs": {"taker_bps": 4.5}, "data": {"coins": ["BTC", "ETH"]}})
    assert shown == f"{toml(config)}\n" and max(map(len, shown.splitlines())) <= 120
    set_here = {section: keys for section, keys in tomllib.loads(shown).items() if keys}
    assert set_here == {"costs": {"taker_bps": 4.5}, "data": {"coins": ["BTC", "ETH"]}}
    Path("hlbt.toml").write_text(shown, encoding="utf-8")
    assert RunConfig.from_dict(hlbt("config", "--json").json) == config
    assert hlbt("config", "--schema").json == json.loads(json.dumps(json_schema()))


def test_a_line_without_its_sign_sets_the_key_to_what_it_is() -> None:
    lines = [line.removeprefix("# ") for line in toml(RunConfig()).splitlines()]
    settings = [line for line in lines if line.split(" = ")[0] in {key for _, key in KEYS} or line.startswith("[")]
    text = "\n".join(line for line in settings if not line.endswith("(none)"))
    assert len(settings) == len(KEYS) + len(SECTIONS) and RunConfig.from_dict(tomllib.loads(text)) == RunConfig()
