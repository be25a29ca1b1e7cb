"""``hlbt oracle``: is an oracle free of look-ahead, and what is its signal worth."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli_options import ConfigOption, JsonOption, ParamOption, SetOption, config_of, parameters_of
from engine.terminal import audit_table, print_json, progress, show_all

PathArgument = Annotated[
    str, typer.Argument(metavar="PATH:CLASS", help="For example research.oracles.momentum:Momentum.")
]

oracle_app = typer.Typer(help="Examine an oracle: look-ahead, signal.", no_args_is_help=True)


@oracle_app.command("check")
def check_command(
    path: PathArgument,
    param: ParamOption = None,
    cuts: Annotated[
        int | None,
        typer.Option("--cuts", metavar="N", help="Instants at which the data are cut; default all while they are few."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit an oracle for look-ahead; the exit code is not 0 when it fails a check.

    Example: hlbt oracle check research.oracles.momentum:Momentum --param lookback_hours=72
    """
    from engine.causality import audit
    from engine.data.load import load_panel
    from engine.oracle import bound_parameters, load_oracle
    from engine.simulate import decisions_of

    settled, parameters = config_of(config, settings), parameters_of(param)
    kind = type(load_oracle(path, parameters))  # before the data are read
    with progress() as step:
        step(0, 1, "loading the panel")
        panel = load_panel(settled.data.cache, settled.start, settled.end, settled.data.coins)
        found = audit(path, panel, decisions_of(panel, settled), settled, parameters=parameters, cuts=cuts, step=step)
    if as_json:
        print_json(
            {
                "path": path,
                "parameters": bound_parameters(kind, parameters),
                "synthetic": panel.synthetic,
                "start": panel.index[0].isoformat(),
                "end": panel.index[-1].isoformat(),
                "coins": len(panel.coins),
                **found.to_dict(),
            }
        )
    else:
        show_all(audit_table(found, panel.synthetic))
    found.raise_for_failure()
    if not as_json:
        show_all(found.message())
