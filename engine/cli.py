"""The ``hlbt`` command: puts the commands together. Heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from copy import copy
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from engine.commands.backtest import backtest_command, capacity_command, index_command, report_command
from engine.commands.config import config_command
from engine.commands.data import data_app
from engine.commands.demo import demo_command
from engine.commands.doctor import doctor_command
from engine.commands.export import export_command
from engine.commands.live import live_app
from engine.commands.oracle import oracle_app
from engine.commands.promote import promote_command
from engine.commands.runs import compare_command, mv_command, note_command, rm_command, runs_command
from engine.commands.study import study_app
from engine.commands.sweep import sweep_command
from engine.commands.validate import validate_command
from engine.errors import HlbtError

#: Exit code of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130
#: What the system refuses whatever the command: no permission, a full or read-only disk, a name that is too long.
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG})
#: Commands in the order in which a project uses them.
ORDER = (
    *("demo", "doctor", "config", "data", "backtest", "report", "capacity", "oracle", "sweep", "validate"),
    *("runs", "compare", "note", "mv", "rm", "export", "index", "study", "promote", "live"),
)


class InOrder(typer.core.TyperGroup):
    """Lists commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, those of :data:`ORDER` first."""
        return sorted(super().list_commands(ctx), key=lambda name: (*ORDER, name).index(name))


app = typer.Typer(
    name="hlbt",
    cls=InOrder,
    help="Research backtester for systematic portfolios of HyperLiquid perpetuals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.command("sweep")(sweep_command)
app.command("validate")(validate_command)
app.add_typer(study_app, name="study")
app.command("promote")(promote_command)
app.add_typer(oracle_app, name="oracle")
app.add_typer(live_app, name="live")
app.command("doctor")(doctor_command)
app.command("config")(config_command)
app.command("backtest")(backtest_command)
app.command("capacity")(capacity_command)
app.command("report")(report_command)
app.command("index")(index_command)
app.command("runs")(runs_command)
app.command("compare")(compare_command)
app.command("note")(note_command)
app.command("export")(export_command)
app.command("mv")(mv_command)
app.command("rm")(rm_command)
app.command("demo")(demo_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hlbt {version('hlbt')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@cache
def _called(word: str) -> typer.Typer:
    """The application with the command of this name alone, or whole where there is none.

    typer builds all options of all commands, which takes longer than most commands.
    """
    alone = copy(app)
    alone.registered_commands = [command for command in app.registered_commands if command.name == word]
    alone.registered_groups = [group for group in app.registered_groups if group.name == word]
    return alone if alone.registered_commands or alone.registered_groups else app


def main() -> None:
    """Run the command line: a user's mistake is one paragraph and a non-zero exit code, never a traceback."""
    # No command opens a window; without this matplotlib would load a desktop's backend.
    os.environ.setdefault("MPLBACKEND", "agg")
    try:
        _called(sys.argv[1] if len(sys.argv) > 1 else "")(prog_name="hlbt")
    except HlbtError as error:
        if os.environ.get("HLBT_TRACEBACK"):
            raise
        # One paragraph, whatever the message of a quoted exception contains.
        sys.stderr.write(f"hlbt: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        # typer turns Ctrl-C into this exit code without a message.
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        sys.stderr.write("hlbt: interrupted. Finished work is kept; run the command again to continue.\n")
        sys.exit(INTERRUPTED)
    except RecursionError as error:
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        if not {"json", "tomllib"} & set(Path(where).parts) or os.environ.get("HLBT_TRACEBACK"):
            raise
        sys.stderr.write("hlbt: a file that was named is nested deeper than any that hlbt writes. Name another.\n")
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in REFUSED or not error.filename or os.environ.get("HLBT_TRACEBACK"):
            raise
        sys.stderr.write(f"hlbt: {error.filename}: {error.strerror}. Mend what holds it, or name another.\n")
        sys.exit(1)
