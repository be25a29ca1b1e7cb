"""Public functions take a path as text too, and refuse anything that is no config."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import HyperLiquidDEX, PaperDEX, PortfolioManager, RunConfig, load_study, sweep
from engine.errors import ConfigError, LiveError
from engine.live.journal import Journal
from engine.oracles.fixed_weights import FixedWeights
from engine.runs import load_run
from engine.weights import read_weights
from helpers.made_runs import saved, simulated
from helpers.panels import random_panel
from research.oracles.momentum import Momentum

PANEL = random_panel(1, 24 * 5, 4)


def test_a_sweep_and_a_run(tmp_path: Path) -> None:
    sweep(PANEL, Momentum, {"lookback_hours": [24], "n": [1]}, name="one", reports=str(tmp_path))
    assert len(load_study(f"{tmp_path}/one").table) == 1
    assert load_run(str(saved(simulated(), tmp_path / "run").folder)).record["name"]


def test_a_config_and_weights(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[costs]\ntaker_bps = 1.5\n")
    assert RunConfig.load(f"{tmp_path}/config.toml").costs.taker_bps == 1.5
    (tmp_path / "book.csv").write_text("time,A\n2024-01-01T23:00Z,0.5\n")
    assert read_weights(f"{tmp_path}/book.csv").loc["2024-01-01T23:00Z", "A"] == 0.5


def test_an_account(tmp_path: Path) -> None:
    weights = FixedWeights.of({PANEL.coins[0]: 0.5})
    dex = PaperDEX(PANEL, state=f"{tmp_path}/paper.json", start=PANEL.index[23])
    manager = PortfolioManager(
        weights, dex, panel=PANEL, journal=Journal(f"{tmp_path}/a.jsonl"), kill_switch=f"{tmp_path}/K"
    )
    assert manager.manage_portfolio().complete and (tmp_path / "a.jsonl").is_file()
    assert (tmp_path / "paper.json").is_file()
    with pytest.raises(LiveError, match=r"none\.json"):
        HyperLiquidDEX(credentials=f"{tmp_path}/none.json").address  # noqa: B018 - asking is what reads the file
    with pytest.raises(ConfigError, match="config is dict"):
        PaperDEX(PANEL, {})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="config is dict"):
        PortfolioManager(weights, dex, {})  # type: ignore[arg-type]
