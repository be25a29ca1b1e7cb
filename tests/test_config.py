from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import RunConfig
from engine.config import Costs, Execution, parse_value
from engine.errors import ConfigError


def test_defaults_are_those_of_the_contract() -> None:
    assert RunConfig().to_dict() == {
        "data": {"cache": None, "start": None, "end": None, "coins": None},
        "execution": {
            "hour_utc": 23,
            "every_days": 1,
            "weekdays": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
            "delay_hours": 0,
            "min_notional_usd": 10.0,
            "lots": True,
            "no_trade_band_frac": 0.0,
            "untradable": "cash",
            "stale_hours": 24,
            "leverage": 1.0,
            "target_volatility": 0.0,
            "volatility_days": 30,
            "tranches": 1,
            "gross_cap": 0.0,
        },
        "costs": {
            "taker_bps": "schedule",
            "half_spread_bps": 2.0,
            "impact": "none",
            "funding": True,
            "funding_missing": "none",
            "fee_tiers": False,
            "maker_bps": "schedule",
            "maker_share_frac": 0.0,
            "staking_discount_frac": 0.0,
            "referral_discount_frac": 0.0,
            "impact_bps": 5.0,
            "stress": 1.0,
        },
        "account": {
            "initial_equity_usd": 10000.0,
            "max_gross": 1.0,
            "margin": True,
            "margin_prices": "close",
            "initial_margin": True,
        },
    }


@pytest.mark.parametrize("value", [0.00045, -0.00001, np.float32(0.0005), np.float64(0.009)])
def test_a_fraction_for_basis_points_is_asked_about(value: float) -> None:
    with pytest.raises(ConfigError, match="Was a fraction meant"):
        RunConfig.from_dict({"costs": {"half_spread_bps": value}})
    assert RunConfig.from_dict({"costs": {"half_spread_bps": 0, "maker_bps": -0.1}}).costs.maker_bps == -0.1


def test_a_key_that_was_added_leaves_old_digests_as_they_were() -> None:
    assert RunConfig().digest == "d97debf745df84831c1f14c8fead20f6f369181d64087fc0494c496c5f2e1db6"
    set_to = RunConfig.from_dict({"execution": {"isolated_leverage": 3}})
    assert set_to.to_dict()["execution"]["isolated_leverage"] == 3.0 and set_to.digest != RunConfig().digest
    assert RunConfig.from_dict(set_to.to_dict()) == set_to
    with pytest.raises(ConfigError, match=r"isolated_leverage = 2.5 is not accepted: the exchange takes whole numbers"):
        RunConfig.from_dict({"execution": {"isolated_leverage": 2.5}})


def test_round_trip_and_digest() -> None:
    config = RunConfig.from_dict({"costs": {"taker_bps": 4.5}, "execution": {"weekdays": ["fri", "mon"]}})
    assert RunConfig.from_dict(config.to_dict()) == config
    assert config.digest == RunConfig.from_dict(config.to_dict()).digest != RunConfig().digest
    assert RunConfig.from_dict({"data": {"cache": "elsewhere"}}).digest == RunConfig().digest
    assert hash(config) == hash(RunConfig.from_dict(config.to_dict()))
    with pytest.raises(AttributeError):
        config.costs.taker_bps = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"cost": {}}, r"Unknown config section \[cost\]. Did you mean 'costs'\?"),
        ({"costs": {"taker_bp": 4.5}}, r"Unknown config key costs.taker_bp. Did you mean 'taker_bps'\?"),
        ({"costs": {"taker_bps": "cheap"}}, "write 'schedule' or a number"),
        ({"costs": {"half_spread_bps": -1}}, "costs.half_spread_bps = -1 is not accepted"),
        ({"costs": {"half_spread_bps": float("nan")}}, "must be a number"),
        ({"costs": {"impact": "square"}}, "choose one of none, venue"),
        ({"costs": {"funding": "yes"}}, "write true or false"),
        ({"execution": {"hour_utc": 24}}, "between 0 and 23"),
        ({"execution": {"hour_utc": 2.5}}, "whole number"),
        ({"execution": {"every_days": 0}}, "between 1 and 1,000,000"),
        ({"execution": {"stale_hours": 10**30}}, "between 1 and 1,000,000"),
        ({"account": {"initial_equity_usd": 10**400}}, "must be a number at least"),
        ({"data": {"start": "01/12/2024"}}, "is not a date"),
        ({"data": {"start": 20241001}}, "is not a date"),
        ({"data": {"start": "now"}}, "is not a date"),
        ({"data": {"cache": ""}}, "write the name of a folder"),
        ({"execution": {"weekdays": ["mon", "tues"]}}, "Did you mean 'tue'"),
        ({"execution": {"weekdays": []}}, "write 'all' or a list"),
        ({"execution": {"untradable": "renormalize"}}, "Did you mean 'renormalise'"),
        ({"execution": {"min_notional_usd": True}}, "must be a number"),
        ({"account": {"initial_equity_usd": 0}}, "at least"),
        ({"data": {"start": "yesterday"}}, "is not a date"),
        ({"data": {"start": "2024-10-01T05:00"}}, "Append Z for UTC"),
        ({"data": {"start": "2024-10-01T05:30Z"}}, "not on the hour"),
        ({"data": {"coins": []}}, "write a list of names"),
        ({"data": 3}, r"\[data\] is a table of keys"),
        (None, "a table of sections, not NoneType"),
        ({"data": {"start": "2024-13-01"}}, "'2024-13-01' is not a date"),
        ({"data": {"end": pd.NaT}}, "NaT is not a date"),
        ({"data": {"coins": {"BTC"}}}, "write a list of names"),
        ({"costs": {"impact": ["none"]}}, r"costs.impact = \['none'\] is not accepted: choose one of none, venue"),
        ({"costs": {"impact": np.array(["none", "venue"])}}, "choose one of none, venue"),
        ({"costs": {"taker_bps": np.array([1.0, 2.0])}}, "must be a number between -10 and 1,000"),
        ({"costs": {"taker_bps": "4.5"}}, "write 'schedule' or a number"),
        ({"costs": {"taker_bps": None}}, "must be a number"),
        ({"costs": {"fee_tiers": True, "taker_bps": 1, "maker_bps": 1}}, "fixed rates have no tiers"),
        ({"account": {"initial_equity_usd": float("inf")}}, "must be a number at least"),
        ({"execution": {"weekdays": {"mon"}}}, "write 'all' or a list"),
        ({"execution": {"weekdays": [1]}}, "choose one of mon, tue"),
    ],
)
def test_what_is_not_accepted_is_named_with_its_cure(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_dict(sections)


def test_numbers_of_numpy_are_numbers() -> None:
    """Grids are often np.arange; the config is that of plain numbers, digest included."""
    given = {"delay_hours": np.int64(3), "leverage": np.float32(1.5), "lots": np.bool_(False)}
    config = RunConfig.from_dict({"execution": given})
    plain = RunConfig.from_dict({"execution": {"delay_hours": 3, "leverage": 1.5, "lots": False}})
    assert config == plain and config.digest == plain.digest
    assert type(config.execution.delay_hours) is int and type(config.execution.lots) is bool
    with pytest.raises(ConfigError, match="must be a number"):
        RunConfig.from_dict({"execution": {"leverage": np.bool_(True)}})


def test_a_section_of_another_kind_is_refused() -> None:
    assert RunConfig(costs=Costs(taker_bps=3.0)).costs.taker_bps == 3.0
    for wrong in ({"taker_bps": 3.0}, Execution(), Costs):
        with pytest.raises(ConfigError, match=r"RunConfig\(costs=\.{3}\) is \w+; Costs\(\.{3}\) is needed.*from_dict"):
            RunConfig(costs=wrong)  # type: ignore[arg-type]


def test_a_study_lies_over_the_file_and_under_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[costs]\ntaker_bps = 3.0\nhalf_spread_bps = 1.0\nimpact_bps = 7.0\n")
    study = {"costs": {"half_spread_bps": 4.0, "impact_bps": 8.0}, "account": {"max_gross": 2.0}}
    config = RunConfig.load(file, ["costs.impact_bps=9"], study)
    assert (config.costs.taker_bps, config.costs.half_spread_bps, config.costs.impact_bps) == (3.0, 4.0, 9.0)
    assert config.account.max_gross == 2.0
    with pytest.raises(ConfigError, match=r"\[costs\] is a table of keys, not 3"):
        RunConfig.load(file, (), {"costs": 3})  # type: ignore[dict-item]
    file.write_text("costs = 3\n")
    with pytest.raises(ConfigError, match=r"\[costs\] is a table of keys, not 3"):
        RunConfig.load(file, ["costs.taker_bps=1"])


def test_instants_are_normalised() -> None:
    data = RunConfig.from_dict({"data": {"start": "2024-10-01", "end": "2024-10-02T01:00+02:00"}}).data
    assert (data.start, data.end) == ("2024-10-01", "2024-10-01T23:00Z")


def test_file_and_assignments(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[costs]\ntaker_bps = 3.0\n[data]\ncoins = ["BTC", "ETH"]\nstart = 2024-10-01\n')
    config = RunConfig.load(file, ["costs.taker_bps=4.5", "execution.weekdays=mon,thu", "costs.funding=false"])
    assert config.costs.taker_bps == 4.5
    assert config.costs.funding is False
    assert config.data.coins == ("BTC", "ETH") and config.data.start == "2024-10-01"
    assert config.execution.weekdays == ("mon", "thu")
    assert RunConfig.load(None, ["data.coins=kPEPE"]).data.coins == ("kPEPE",)
    with pytest.raises(ConfigError, match="is not TOML"):
        file.write_text("[costs\n")
        RunConfig.load(file)
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        RunConfig.load(None, ["taker_bps=4.5"])
    with pytest.raises(ConfigError, match="cannot be read"):
        RunConfig.load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("4.5", 4.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("top_bottom", "top_bottom"),
        ("'3'", "3"),
        (".5", 0.5),
        ("-1.", -1.0),
        (".", "."),
        ("05", "05"),
        ("1.2.", "1.2."),
    ],
)
def test_values_typed_on_the_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value
