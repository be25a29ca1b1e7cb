"""What a run is compared with: a coin of the cache, nothing, or a file of returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.config import RunConfig
from engine.data.panel_loader import load_panel
from engine.errors import ConfigError
from engine.reporting import run_page as pages
from engine.runs import Run
from engine.simulation.backtest import backtest, decisions_of
from helpers.made_runs import saved


def test_a_benchmark_of_the_cache_that_the_run_leaves_out(sample_cache: Path, tmp_path: Path) -> None:
    settings = {"data": {"cache": str(sample_cache), "coins": ["ETH", "SOL"], "end": "2024-02-10"}}
    panel = load_panel(sample_cache, end="2024-02-10", coins=["ETH", "SOL"])
    whole = load_panel(sample_cache, end="2024-02-10", coins=["BTC", "DOGE"])

    def compared(name: str) -> Run:
        config = RunConfig.from_dict({**settings, "report": {"benchmark": name}})
        weights = pd.DataFrame(0.5, decisions_of(panel, config), panel.coins)
        return saved(backtest(panel, weights, config), tmp_path / Path(name).stem)

    for name in ("BTC", "DOGE"):
        made = compared(name)
        assert pages.benchmark_name(made) == name
        np.testing.assert_array_equal(made.hourly["benchmark_usd"].to_numpy(), whole.frame("mid")[name].to_numpy())
        assert made.record["digests"]["config"] == RunConfig.from_dict(settings).digest
    none = compared("none")
    assert pages.benchmark_name(none) is None
    with pytest.raises(ConfigError, match=r"report\.benchmark = 'DOGGE' is no coin of the data"):
        compared("DOGGE")
    returns = pd.Series(0.001, pd.date_range("2024-01-02", "2024-02-10", freq="D"), name="theirs").rename_axis("date")
    returns.to_csv(tmp_path / "index.csv")
    of_file = pages.benchmark_returns(compared(str(tmp_path / "index.csv")))
    assert of_file is not None and of_file.name == "index"
    np.testing.assert_allclose(of_file.to_numpy(), 0.001, rtol=1e-9)
    for text, words in (
        ("date,r\n2024-01-02,5\n", "a loss of 1 % as -0.01"),
        ("date,r,s\n2024-01-02,0,0\n", "2 columns"),
    ):
        (tmp_path / "wrong.csv").write_text(text)
        with pytest.raises(ConfigError, match=words):
            compared(str(tmp_path / "wrong.csv"))
    with pytest.raises(ConfigError, match=r"absent\.csv' cannot be read"):
        compared(str(tmp_path / "absent.csv"))
