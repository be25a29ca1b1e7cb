"""Write the pages of docs/reference/ from the code; `make reference` runs it, and a test compares.

What has a docstring, a help text or a table in the code is taken from there; the rest is in `meanings.py`.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import meanings
import typer
import typer.core

import engine
from engine import cli, errors
from engine.checks import QUESTIONS
from engine.commands.config import meanings as config_meanings
from engine.commands.sample import sample_fields
from engine.config import SECTIONS
from engine.data import api_records, asset_ctxs, l2book
from engine.data.merge import OTHERWISE, PRECEDENCE
from engine.panel import FIELDS
from engine.simulation import metrics
from engine.simulation.metrics import CALENDAR
from engine.validation.checks import CHECKS, GATES, VERDICT
from engine.validation.thresholds import installed_gates_file

FOLDER = Path(__file__).parents[1] / "reference"
GENERATED = "<!-- Made by docs/scripts/reference.py (make reference): edit the code that it is made from. -->"
#: What a value is called where the command does not name it.
TYPES = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "Path": "PATH"}
#: Options that nearly every command has; said once.
COMMON = ("--config", "--set", "--json")
#: Public names by subject, in the order in which they are used.
SUBJECTS: Mapping[str, Sequence[str]] = {
    "Data and settings": ("RunConfig", "load_panel", "Panel", "Coin"),
    "Oracles and weights": ("Oracle", "ScoreOracle", "weight_matrix", "decisions_of", "read_weights", "SparseWeights"),
    "Backtests": ("backtest", "backtest_many", "Result", "Run", "load_run", "compare"),
    "Sweeps and verdicts": ("sweep", "Study", "load_study", "Threads", "Ray", "validate", "Verdict"),
    "Risk": ("RiskModel", "book_risk"),
    "Live": ("DEX", "HyperLiquidDEX", "PaperDEX", "PortfolioManager", "Journal"),
    "Live against the model": ("plan_differences", "cost_days", "cost_alarm", "edge_bands"),
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line("---" for _ in head), *map(line, rows)])


def code(text: object) -> str:
    """A text in code letters; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def plain(text: str) -> str:
    """A docstring's text as Markdown: no double backticks and no roles."""
    return " ".join(re.sub(r":(?:mod|func|class|data|meth|attr):", "", text).replace("``", "`").split())


# Commands -------------------------------------------------------------------------------------------------------------


def leaves(node: Any, words: tuple[str, ...] = ("hlbt",)) -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it, in the order of the help."""
    inside = getattr(node, "commands", None)
    if inside is None:
        yield " ".join(words), node
    else:
        for name in node.list_commands(None):
            yield from leaves(inside[name], (*words, name))


def command_line() -> str:
    """Every command with its arguments, options and defaults."""
    commands = dict(leaves(typer.main.get_command(cli.app)))
    parts = [
        "# Command line",
        "`hlbt COMMAND --help` shows the same in the terminal, and `hlbt --install-completion` completes commands, "
        "options, oracles, runs, config keys and coins. What a command ends with is in "
        "[Errors and exit codes](errors.md#exit-codes).",
        table(
            ("command", "what it does"),
            ((f"[`{name}`](#{anchor(name)})", first_sentence(command)) for name, command in commands.items()),
        ),
        "## Options of every command",
        options(parameter for parameter in commands["hlbt backtest"].params if parameter.opts[0] in COMMON)
        + "\n\nThe precedence of settings is in [Config](config.md). The tables below leave these three out.",
    ]
    for name, command in commands.items():
        said = inspect.cleandoc(command.help)
        about, _, example = said.partition("Example: ")
        own = [parameter for parameter in command.params if parameter.opts[0] not in COMMON]
        parts += [f"## {name}", paragraphs(about), f"```text\n{' '.join(example.split())}\n```"]
        parts += [options(own)] if own else []
    return page(parts)


def anchor(heading: str) -> str:
    """The anchor of a heading."""
    return heading.lower().replace(" ", "-")


def first_sentence(command: Any) -> str:
    """What a command does, in a sentence."""
    return " ".join(inspect.cleandoc(command.help).split("\n\n")[0].split())


def paragraphs(text: str) -> str:
    """Paragraphs, each on a line of its own; lists stay."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


def options(parameters: Iterable[Any]) -> str:
    """A table of arguments and options."""
    return table(("option", "value", "default", "meaning"), map(option, parameters))


def option(parameter: Any) -> tuple[str, str, str, str]:
    """A row of such a table."""
    names = [*parameter.opts, *parameter.secondary_opts]
    flag = getattr(parameter, "is_flag", False)
    kind = parameter.metavar or ("" if flag else TYPES[parameter.bare_type().strip("<>")])
    if parameter.param_type_name == "argument":
        names, kind = [(parameter.metavar or parameter.name.upper()).strip("[]")], ""
    repeated = " ..." if parameter.multiple or parameter.nargs == -1 else ""
    if parameter.required:
        default = "required"
    elif parameter.default is None or (parameter.default is False and not parameter.secondary_opts):
        default = ""
    elif isinstance(parameter.default, bool):
        default = code(parameter.opts[0] if parameter.default else parameter.secondary_opts[0])
    else:
        default = code(parameter.default)
    return ", ".join(map(code, names)), code(f"{kind}{repeated}".strip()), default, parameter.help or ""


# Config ---------------------------------------------------------------------------------------------------------------


def config() -> str:
    """Every key of a config, and the variables of the environment."""
    parts = [
        "# Config",
        "A config is a TOML file of five sections, or a nested mapping for `RunConfig.from_dict`. Every command takes "
        "`--config FILE` and, over it, `--set section.key=value`; `hlbt.toml` in the working directory, of the same "
        "form, is the default of both: defaults < `hlbt.toml` < `--config` < the sections of a study file < `--set`. "
        "`hlbt live`, `hlbt promote`, `hlbt validate` and `--like`, which have the settings of a spec or a run, do not "
        'read `hlbt.toml`. Lists are `a,b` or `["a", "b"]`. Unknown keys are refused and the nearest name is '
        "suggested. Every key can be swept. The digest of a config covers every key but `data.cache` and those of "
        "`[report]`.",
        "```console\n$ hlbt config --set costs.taker_bps=4.5 > hlbt.toml   # every key with its meaning; edit it\n"
        "$ hlbt config --schema > hlbt.schema.json\n```",
        "`#:schema ./hlbt.schema.json` as the first line of `hlbt.toml` lets an editor that knows TOML (Even Better "
        "TOML, taplo) complete keys and mark wrong values.",
    ]
    for section, kind in SECTIONS.items():
        said = config_meanings(kind)
        rows = [(code(key.name), code(literal(key.default)), accepted(key), said[key.name]) for key in fields(kind)]
        parts += [
            f"## [{section}]",
            first_line(kind),
            table(("key", "default", "accepts", "meaning"), rows),
        ]
    parts += [
        "## Environment",
        table(("variable", "meaning"), ((code(name), said) for name, said in meanings.ENVIRONMENT.items())),
    ]
    return page(parts)


def first_line(kind: Any) -> str:
    """First line of a docstring."""
    return plain(inspect.getdoc(kind).split("\n\n")[0])  # type: ignore[union-attr]


def literal(value: Any) -> str:
    """A default as TOML writes it; a config without the key says the same as none."""
    if value == SECTIONS["execution"]().weekdays:
        return '"all"'
    return "none" if value is None else json.dumps(value)


def accepted(key: Any) -> str:
    """What a key accepts, in words."""
    return in_words(key.metadata["read"].accepts)


def in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema of a value in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(in_words, schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(code(json.dumps(choice)) for choice in schema["enum"])
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    kind = schema["type"]
    if kind == "array":
        if "prefixItems" in schema["items"]:
            return "list of pairs"
        inner = in_words(schema["items"])
        return f"list of {inner}" if "`" in inner else "list of texts"
    if kind in ("number", "integer"):
        word = "number" if kind == "number" else "whole number"
        low, high = (f"{schema[end]:,.15g}" for end in ("minimum", "maximum"))
        return f"{word}, at least {low}" if schema["maximum"] >= 1e15 else f"{word} from {low} to {high}"
    if kind == "object":
        inner = in_words(schema["additionalProperties"])
        return "table of texts" if inner == "text" else f"table, each a {inner}"
    return {"boolean": "true or false", "string": "text"}[kind]


# Panel fields ---------------------------------------------------------------------------------------------------------

#: Source -> fields that it has. `table` has what its columns are.
FIELDS_OF: Mapping[str, Sequence[str]] = {
    "api": (*api_records.CANDLES.fields, *api_records.FUNDING.fields),
    "s3": tuple(asset_ctxs.COLUMNS.values()),
    "l2book": l2book.FIELDS,
    "freqtrade": ("mid", "high", "low", "volume_usd", "mark", "funding"),
    "table": tuple(name for name in FIELDS if name != "in_session"),  # which is computed, from data.sessions
    "sample": tuple(sample_fields()),
}


def panel_fields() -> str:
    """Every field of a panel, its unit, and which source has it."""
    rows = [
        (code(name), said, *("yes" if name in FIELDS_OF[source] else "" for source in FIELDS_OF))
        for name, said in FIELDS.items()
    ]
    prevailing = [(code(name), ", ".join(order)) for name, order in PRECEDENCE.items()]
    return page(
        [
            "# Panel fields",
            "Row `t` of a field holds what was known just before instant `t`; `funding` of row `t` is settled at `t`, "
            'after the trade, so an oracle sees the rate of `t - 1 h`. NaN is "not observed", and a field that no '
            'source of yours has is absent: `panel.frame("NAME")` then names those that are there. Beside the fields '
            "below `tradable` says where an order could have been filled. Only `mid` is always there.",
            table(("field", "unit and meaning", *FIELDS_OF), rows),
            "## Sources",
            table(("source", "what it is"), ((code(name), said) for name, said in meanings.SOURCES.items())),
            "## Which source prevails",
            "Where several sources have a cell, one value is taken and none averaged: that of the first in this order.",
            table(("field", "sources, the most trusted first"), [*prevailing, ("every other", ", ".join(OTHERWISE))]),
            "An archive's `funding` is the running estimate of a minute before, and gives way to the settled rate.",
        ]
    )


# Files, metrics, checks, errors ---------------------------------------------------------------------------------------


def files() -> str:
    """What lies in the folders of runs, sweeps and promoted strategies."""
    parts = [
        "# Files",
        "All tables are Parquet, times are UTC, money is USD. Files keep costs as positive numbers; pages and the "
        "terminal show money received as positive.",
        "## A run: reports/NAME/",
    ]
    for name, (said, columns) in meanings.RUN.items():
        parts += [f"### {name}", f"{said[0].upper()}{said[1:]}."]
        parts += [table(("column", "unit and meaning"), ((code(key), unit) for key, unit in columns.items()))] * bool(
            columns
        )
    parts += [
        "### Others",
        table(("file", "what it is"), ((code(name), said) for name, said in meanings.RUN_OTHERS.items())),
        "## A sweep: reports/NAME/",
        table(("file", "what it is"), ((code(name), said) for name, said in meanings.SWEEP_FILES.items())),
        "Columns of `table.parquet` are these and every [metric](metrics.md):",
        table(("column", "unit", "meaning"), ((code(name), *said) for name, said in meanings.SWEEP.items())),
        "## Promoted strategies, accounts, trials",
        table(("file", "what it is"), ((code(name), said) for name, said in meanings.PROMOTED_FILES.items())),
    ]
    return page(parts)


def metric_rows() -> dict[str, tuple[str, str]]:
    """Metric -> unit and definition; those whose formula is a function have its docstring."""
    rows = {}
    for name in meanings.FUNCTIONS:
        rows[name] = (meanings.FUNCTIONS[name], first_line(getattr(metrics, name)))
    return {**rows, **meanings.METRICS}


def metrics_page() -> str:
    """Every metric with its formula."""
    rows = [(code(name), *said) for name, said in metric_rows().items()]
    others = [
        (name, unit, first_line(getattr(metrics, function))) for name, (unit, function) in meanings.OTHERS.items()
    ]
    return page(
        [
            "# Metrics",
            "`Result.metrics`, `run.json` and the columns of a sweep's table have these names. Figures of returns are "
            "QuantStats' formulas (0.0.86, 365 days a year, risk-free rate 0), with which tests compare them; `r` are "
            "simple daily returns at `execution.hour_utc`. They count from the first decision that asks for something. "
            f"A name that ends in `{CALENDAR}` is the same figure over every day and decision of the panel. One that "
            "is not defined (a Sharpe ratio of constant returns) is NaN, never 0. Costs are positive when they lower "
            "equity. What each counts, to the letter: [the rules](../concepts/rules.md).",
            table(("metric", "unit", "how it is made"), rows),
            "## Beside them",
            table(("figure", "unit", "how it is made"), others),
        ]
    )


def thresholds() -> dict[str, dict[str, tuple[str, str]]]:
    """Table of `research/gates.toml` -> name -> value and reason."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for line in installed_gates_file().read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line.strip()):
            found[match[1]] = {}
        elif match := re.match(r"(\w+) = (\S+)\s*# (.*)", line):
            found[list(found)[-1]][match[1]] = (match[2], match[3])
    return found


def checks() -> str:
    """Every check of the verdict, every gate and every limit, with thresholds and reasons."""
    given = thresholds()

    def rows(names: Sequence[str], values: Mapping[str, tuple[str, str]]) -> Iterator[Sequence[str]]:
        for name in names:
            value, reason = values[name]
            reason = re.sub(r"^at (?:most|least): ", "", reason)
            yield code(name), QUESTIONS[CHECKS[name].group], f"{CHECKS[name].rule} {value}", reason

    head = ("check", "question", "threshold", "what is measured, and why so much")
    limits = [(code(name), value, reason) for name, (value, reason) in given["limits"].items()]
    return page(
        [
            "# Checks, gates and limits",
            "Thresholds are those of `research/gates.toml`, one file: a change of it changes what passes, and every "
            "verdict and spec records the file's digest. A check that cannot be computed has not passed.",
            "## The verdict",
            "`hlbt sweep` and `hlbt validate` judge the best set of a sweep by these.",
            table(head, rows(VERDICT, given["verdict"])),
            "With `hlbt validate --search-nulls 200` the whole search is run again over exchanged coins, and the check "
            "`null_search` has the threshold of `null_books`.",
            "## The gates",
            "`hlbt promote` asks these before a strategy may trade.",
            table(head, rows(GATES, given["gates"])),
            "## Limits of a live account",
            "`--limit NAME=VALUE` of `hlbt promote` goes before these; `none` switches one off.",
            table(("limit", "default", "meaning"), limits),
            limit_without_default(),
        ]
    )


def limit_without_default() -> str:
    """What the gates file says of the limit that it gives no number for."""
    text = installed_gates_file().read_text(encoding="utf-8")
    name, said = re.findall(r"^# (order_notional_usd) (.*)$", text, flags=re.MULTILINE)[0]
    return f"{code(name)} {said}."


def errors_page() -> str:
    """Every exception and every exit code."""
    kinds = [
        (kind, name)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.HlbtError)
    ]
    rows = [(code(name), code(kind.__bases__[0].__name__), kind.exit_code, first_line(kind)) for kind, name in kinds]
    codes = sorted({kind.exit_code for kind, _ in kinds} | set(meanings.EXIT_CODES))
    return page(
        [
            "# Errors and exit codes",
            "What a user caused is an `HlbtError`: one paragraph with what, where, value and cure. The command line "
            "prints it and ends with its exit code. Any other exception is a defect of hlbt: please report it, with "
            "the trace that `HLBT_TRACEBACK=1` shows.",
            "## Exit codes",
            table(("code", "meaning"), ((number, meanings.EXIT_CODES[number]) for number in codes)),
            "## Exceptions",
            table(("exception", "derived from", "exit code", "when"), rows),
        ]
    )


def python() -> str:
    """Every public name, for mkdocstrings."""
    named = [name for names in SUBJECTS.values() for name in names]
    left = [name for name in engine.__all__ if name not in named and not name.endswith("Error")]
    assert not left, f"names without a subject in reference.py: {left}"
    parts = ["# Python", "`from engine import ...` has these names and no others; their types are checked by mypy."]
    for subject, names in SUBJECTS.items():
        parts += [f"## {subject}", *(f"::: {engine._HOMES[name]}.{name}" for name in names)]
    return page([*parts, "## Errors", "All are `HlbtError`s: [Errors and exit codes](errors.md)."])


def page(parts: Iterable[str]) -> str:
    """A page of parts."""
    first, *rest = parts
    return "\n\n".join([first, GENERATED, *rest]) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "python.md": python,
    "command-line.md": command_line,
    "config.md": config,
    "panel-fields.md": panel_fields,
    "files.md": files,
    "metrics.md": metrics_page,
    "checks.md": checks,
    "errors.md": errors_page,
}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}\n")
