"""What a command runs: an oracle, a file of weights, or what a run or sweep ran, with its dates and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.options import folder_of, parameters_of, research_panel
from engine.errors import OracleError

if TYPE_CHECKING:
    import pandas as pd

    from engine.config import RunConfig
    from engine.oracles.weights_file import WeightsFile
    from engine.panel import Panel
    from engine.provenance import Origin
    from engine.simulation.result import Result


@dataclass(frozen=True, eq=False)
class Source:
    """What to run.

    Attributes
    ----------
    config : RunConfig
        The rules of the run.
    panel_config : RunConfig
        The same with the dates that its panel has.
    oracle : str or None
        Dotted path; None for weights.
    parameters : mapping
        Constructor arguments.
    weights : WeightsFile, DataFrame or None
        A file, or the weights of a run of a file, (D, N).
    origin : Origin or None
        Of the weights of a run.
    counted_as : RunConfig or None
        The rules under which the ledger of trials has it already; None: what is run is a trial of its own.
    folder : Path or None
        The run or sweep that it is taken from.
    """

    config: RunConfig
    panel_config: RunConfig
    oracle: str | None
    parameters: Mapping[str, Any]
    weights: WeightsFile | pd.DataFrame | None = None
    origin: Origin | None = None
    counted_as: RunConfig | None = None
    folder: Path | None = None

    def panel(self) -> Panel:
        """The panel, as research may load it."""
        return research_panel(self.panel_config)

    def run(self, panel: Panel, config: RunConfig) -> tuple[Result, Origin]:
        """The backtest under `config`."""
        from engine.oracles.weights_file import WeightsFile
        from engine.runs import run_source
        from engine.simulation.backtest import backtest

        if self.origin is not None:
            assert not isinstance(self.weights, WeightsFile) and self.weights is not None
            return backtest(panel, self.weights, config), self.origin
        assert self.weights is None or isinstance(self.weights, WeightsFile)
        return run_source(panel, config, self.oracle, dict(self.parameters), self.weights)


def source_of(
    oracle: str | None,
    param: list[str] | None,
    weights: Path | None,
    run: Path | None,
    config: Path | None,
    settings: list[str] | None,
    name: str = "RUN",
    any_hour: bool = False,
) -> Source:
    """What the options of a command name; `run` is a run or a sweep, whose best set it stands for.

    Raises
    ------
    OracleError
        Unless exactly one of the three is named.
    """
    from engine.commands.options import config_of
    from engine.oracles.weights_file import WeightsFile

    if sum(named is not None for named in (oracle, weights, run)) != 1:
        raise OracleError(
            f"Name what to run: either --oracle PATH:CLASS or --weights FILE, or {name}; only one of them."
        )
    if weights is not None and param:
        raise OracleError(f"--param {param[0]} is for an oracle; a weights file has no parameters.")
    if any_hour and weights is None:
        raise OracleError("--any-hour is for a weights file; an oracle decides at execution.hour_utc. Leave it out.")
    if run is not None:
        return source_like(folder_of(run), param, config, settings)
    settled = config_of(config, settings)
    file = None
    if weights is not None:
        file = WeightsFile.open(weights, settled, any_hour)
        settled = file.config
    return Source(settled, settled, oracle, parameters_of(param), file)


def source_like(folder: Path, param: list[str] | None, config: Path | None, settings: list[str] | None) -> Source:
    """What a run, or the best set of a sweep, ran, with its dates, under its rules with `settings` over them.

    It is a trial of its own where parameters, ``execution``, coins or the start of the data are others: other costs,
    accounts and a later end are more of the same trial.
    """
    from engine.config import RunConfig, read_toml
    from engine.promotion.candidate import read_candidate
    from engine.provenance import Origin
    from engine.run_folders import RUN, read_record
    from engine.runs import load_run

    record = read_record(folder) if (folder / RUN).is_file() else None
    given = parameters_of(param)
    if record is not None and record["origin"]["kind"] != "oracle":
        if given:
            raise OracleError(f"--param is for an oracle; {folder} ran a weights file, which has no parameters.")
        run = load_run(folder)
        own, span = RunConfig.from_dict(record["config"]), record["span"]
        weights, origin = run.weights, Origin(**record["origin"])
        oracle, before = None, {}
        start, end = str(span["start"]), str(span["end"])
    else:
        chosen = read_candidate(folder)
        own, start, end = chosen.config, chosen.start, chosen.end
        weights, origin, oracle, before = None, None, chosen.oracle, dict(chosen.parameters)
    sections = own.to_dict()
    for section, keys in ({} if config is None else read_toml(config, "Config file")).items():
        sections[section] = {**sections.get(section, {}), **keys} if isinstance(keys, dict) else keys
    settled = RunConfig.load(None, settings or (), sections)
    parameters = {**before, **given}
    data = replace(
        settled.data,
        start=start if settled.data.start == own.data.start else settled.data.start,
        end=end if settled.data.end == own.data.end else settled.data.end,
    )
    ideas = [(rules.execution, rules.data.start, rules.data.selection, rules.data.hours) for rules in (own, settled)]
    counted = own if ideas[0] == ideas[1] and parameters == before else None
    return Source(settled, replace(settled, data=data), oracle, parameters, weights, origin, counted, folder)
