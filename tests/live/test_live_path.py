"""Live targets of a path-dependent oracle: those of the matrix from the recorded start on, or a refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Panel, RunConfig, decisions_of, weight_matrix
from engine.errors import LiveError, SpecError
from engine.live.risk_limits import Limits
from engine.live.spec import StrategySpec, read_spec, write_spec
from engine.live.targets import TargetProvider, from_spec
from engine.oracles.base import Oracle
from engine.oracles.loading import load_oracle, oracle_code
from engine.provenance import code_digest, files_digest
from helpers.panels import holed_panel
from helpers.paths import Sticky, StickyScore

STICKY = "helpers.paths:Sticky"


@pytest.fixture(scope="module")
def panel() -> Panel:
    return holed_panel()


@pytest.mark.parametrize("delay", [0, 2])
@pytest.mark.parametrize("first", [None, 4])
def test_targets_are_the_rows_of_the_matrix(panel: Panel, delay: int, first: int | None) -> None:
    """From the panel's first decision, or from the recorded one, though the panel reaches further back."""
    config = RunConfig.from_dict({"execution": {"delay_hours": delay}})
    decisions = decisions_of(panel, config)
    start, decisions = (None, decisions) if first is None else (decisions[first], decisions[first:])
    for oracle in (Sticky(), StickyScore()):
        matrix = weight_matrix(oracle, panel, decisions)
        targets = TargetProvider(oracle, config, start)
        for decision, (_, row) in zip(decisions, matrix.iterrows(), strict=True):
            tradable = np.array(panel.coins)[panel.tradable[panel.rows(pd.DatetimeIndex([decision]))[0]]]
            instant = decision + pd.Timedelta(hours=delay)
            seen = panel.until(min(instant, panel.index[-1]))
            assert targets.weights(instant, decision, tradable.tolist(), seen) == row.to_dict()


def test_a_coin_without_a_market_now_is_not_chosen(panel: Panel) -> None:
    oracle, decisions = Sticky(), decisions_of(panel, RunConfig())
    chosen = weight_matrix(oracle, panel, decisions).iloc[-1]
    held = chosen.index[chosen > 0.0]
    others = [coin for coin in panel.coins if coin != held[0]]
    weights = TargetProvider(oracle, RunConfig()).weights(decisions[-1], decisions[-1], others, panel)
    assert weights[held[0]] == 0.0 and sum(weights.values()) == pytest.approx(1.0)


def test_data_that_lack_a_decision_are_refused(panel: Panel) -> None:
    decisions = decisions_of(panel, RunConfig())
    targets = TargetProvider(Sticky(), RunConfig(), decisions[2])
    late = replace(
        panel,
        index=panel.index[72:],
        fields={name: values[72:] for name, values in panel.fields.items()},
        tradable=panel.tradable[72:],
    )
    with pytest.raises(LiveError, match="since 2024-10-03 23:00 UTC, the first of the run that was promoted"):
        targets.weights(decisions[-1], decisions[-1], panel.coins, late)
    with pytest.raises(LiveError, match="needs market data"):
        targets.weights(decisions[-1], decisions[-1], panel.coins, None)
    ended = panel.until(decisions[-3])
    targets.check_history(ended, decisions[-2])  # the decision itself is the row of live quotes
    with pytest.raises(LiveError, match="the data end at 2024-10-14 23:00 UTC, before that of 2024-10-15 23:00 UTC"):
        targets.check_history(ended, decisions[-1])
    TargetProvider(PlainSticky(), RunConfig()).check_history(ended, decisions[-1])


class PlainSticky(Sticky):
    """One that does not depend on the path."""

    path_dependent = False  # type: ignore[assignment, unused-ignore]


def spec_of(oracle: str, start: str | None) -> StrategySpec:
    return StrategySpec(
        name="path",
        created="2026-01-01T00:00:00+00:00",
        oracle=oracle,
        parameters={},
        config=RunConfig(),
        limits=Limits(),
        gates={"results": {}, "overrides": {}},
        digests={"data": "0" * 64, "oracle": code_of(load_oracle(oracle, {})), "engine": code_digest()},
        versions={},
        trials=1,
        account={},
        decisions_from=start,
    )


def code_of(oracle: Oracle) -> str:
    return files_digest(oracle_code(oracle))


def test_the_start_is_in_the_spec(tmp_path: Path) -> None:
    """A spec of before has none, keeps its digest and trades; a path-dependent oracle without a start is refused."""
    path = tmp_path / "path.json"
    for oracle, start in ((STICKY, "2024-10-03T23:00:00+00:00"), ("research.oracles.momentum:Momentum", None)):
        spec = spec_of(oracle, start)
        write_spec(spec, path)
        assert ("decisions_from" in json.loads(path.read_text())) == (start is not None)
        again, strategy = read_spec(path), from_spec(path, None)
        assert again == spec and again.digest == spec.digest == strategy.key
        assert strategy.targets.decisions_from == (None if start is None else pd.Timestamp(start))
    write_spec(spec_of(STICKY, None), path)
    with pytest.raises(SpecError, match="the spec does not say from which on"):
        from_spec(path, None)
