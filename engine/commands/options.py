"""Options that the commands share, and their values: config, parameters, folders, cache, clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import DataError, HlbtError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from engine.config import RunConfig
    from engine.data.cache import Store
    from engine.panel import Panel

REPORTS = Path("reports")
#: Default config of every command but those of accounts, where the working directory has it.
PROJECT = Path("hlbt.toml")

_CLASS = re.compile(r"^class ([A-Z]\w*)\((?:\w*Oracle|Wrapper|CrossSection)\)", re.MULTILINE)
#: Classes that others are derived from.
_ABSTRACT = frozenset({"CrossSection", "Wrapper", "PublishedOracle", "DownloadedOracle"})


# Completion: what cannot be read completes to nothing ----------------------------------------------------------------


def complete_oracles(incomplete: str) -> list[str]:
    """The bundled oracles, and those of files in this folder."""
    return [name for name in _oracles() if name.startswith(incomplete)]


def _oracles() -> Iterator[str]:
    # Beside this package, whose lower layer must not import them.
    for file in sorted((Path(__file__).parents[2] / "research" / "oracles").glob("*.py")):
        yield from (f"research.oracles.{file.stem}:{name}" for name in _classes(file))
    for file in sorted(Path().glob("*.py")):
        yield from (f"{file.name}:{name}" for name in _classes(file))


def _classes(file: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return [name for name in _CLASS.findall(file.read_text(encoding="utf-8")) if name not in _ABSTRACT]
    return []


def complete_runs(incomplete: str) -> list[str]:
    """Runs and sweeps below reports/."""
    names = sorted({path.parent.name for record in ("run", "sweep") for path in REPORTS.glob(f"[!.]*/{record}.json")})
    return [name for name in names if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """The keys of a config; after ``data.coins=`` the coins of the cache."""
    from dataclasses import fields

    from engine.config import SECTIONS

    key, equals, value = incomplete.partition("=")
    if not equals:
        keys = [f"{section}.{item.name}=" for section, kind in SECTIONS.items() for item in fields(kind)]
        return [name for name in keys if name.startswith(incomplete)]
    *before, last = value.split(",")
    if key != "data.coins":
        return []
    return [f"{key}={','.join([*before, coin])}" for coin in _coins() if coin.startswith(last) and coin not in before]


def complete_parameters(context: typer.Context, incomplete: str) -> list[str]:
    """The parameters of the oracle that is named; after ``inner=`` or ``oracles=`` oracles."""
    key, equals, value = incomplete.partition("=")
    if equals:
        *before, last = value.split(",")
        oracles = complete_oracles(last) if last or key in ("inner", "oracles") else []
        return [f"{key}={','.join([*before, name])}" for name in oracles]
    named = context.params.get("oracle") or ()
    names: list[str] = []
    for path in [named] if isinstance(named, str) else named:
        with suppress(HlbtError, OSError):
            from engine.oracles.loading import accepted_parameters, oracle_class

            names += [f"{name}=" for name in accepted_parameters(oracle_class(path)) if name is not None]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def complete_grid(context: typer.Context, incomplete: str) -> list[str]:
    """What a grid may have: parameters of the oracle, and keys of the config that one panel serves."""
    keys = [] if "=" in incomplete else complete_settings(incomplete)
    return complete_parameters(context, incomplete) + [key for key in keys if not key.startswith(("data.", "report."))]


def _coins() -> list[str]:
    with suppress(HlbtError, OSError):
        return list(store_of(config_of(None, None)).require().coins)
    return []


# Options --------------------------------------------------------------------------------------------------------------

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings, over hlbt.toml in this folder.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Set one config key; may be repeated.",
        autocompletion=complete_settings,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
OracleOption = Annotated[
    str | None,
    typer.Option(
        "--oracle",
        metavar="PATH:CLASS",
        help="For example research.oracles.momentum:Momentum.",
        autocompletion=complete_oracles,
    ),
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        metavar="K=V",
        help="A parameter of the oracle, a,b for a list; may be repeated.",
        autocompletion=complete_parameters,
    ),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=VALUE", help="A limit of the account; none or off switches it off."),
]
RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of a run or sweep, or its name.", autocompletion=complete_runs),
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Let new values replace cached ones that differ.")]


def config_of(
    path: Path | None, settings: list[str] | None, study: Mapping[str, Mapping[str, Any]] | None = None
) -> RunConfig:
    """The config of ``hlbt.toml`` in this folder, over it ``--config``, the sections of a study, and ``--set``."""
    from engine.config import RunConfig

    return RunConfig.load(path, settings or (), study, PROJECT if PROJECT.exists() else None)


def typed_config(path: Path | None, settings: list[str] | None) -> RunConfig:
    """The config of ``--config`` and ``--set`` alone: nothing that lies in a folder changes what an account trades."""
    from engine.config import RunConfig

    return RunConfig.load(path, settings or ())


def cache_alone(path: Path | None, settings: list[str] | None, refusal: HlbtError) -> str | None:
    """The cache's folder as ``--config`` and ``--set`` name it; `refusal` is raised when they set anything else."""
    from dataclasses import replace

    from engine.config import RunConfig

    config = typed_config(path, settings)
    if replace(config, data=replace(config.data, cache=None)) != RunConfig():
        raise refusal
    return config.data.cache


def parameters_of(assignments: list[str] | None) -> dict[str, Any]:
    """The parameters of ``--param k=v``: values read as TOML, and ``a,b`` as a list."""
    from engine.config import parse_value, split_assignment

    pairs = [split_assignment("--param", given, "k=v", "lookback_hours=168") for given in assignments or ()]
    return {name: _items(text) if parse_value(text) == text else parse_value(text) for name, text in pairs}


def _items(text: str) -> list[Any] | str:
    """A bare text, or the items of a list that is written like one."""
    from engine.config import parse_value
    from engine.config_values import split_list

    is_list = "," in text or (text.startswith("[") and text.endswith("]"))
    return [parse_value(item) for item in split_list(text)] if is_list else text


def folder_of(named: Path) -> Path:
    """Folder of a run or a sweep: the path as given, or below reports/ for a name that is neither in this folder."""
    below = REPORTS / named
    complete = any((named / record).is_file() for record in ("run.json", "sweep.json"))
    return named if complete or len(named.parts) > 1 or (named.exists() and not below.is_dir()) else below


def reports_folder() -> Path:
    """The folder of all reports; made if it does not exist."""
    try:
        REPORTS.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"Folder {REPORTS} cannot be made: {error.strerror or error}. Use --out FILE.") from error
    return REPORTS


def research_panel(config: RunConfig, reports: Path = REPORTS, cache: str | Path | None = None) -> Panel:
    """The panel of a config for research: it ends before what the cache, or the ledger of trials, says is sealed.

    Parameters
    ----------
    config : RunConfig
        Its section data.
    reports : Path
        Folder of the ledger.
    cache : path, optional
        Another cache than the config's.
    """
    from engine.data.panel_loader import load_open_panel
    from engine.sweeps.trials import ledger_holdout

    data = config.data
    return load_open_panel(
        data.cache if cache is None else cache,
        config.start,
        config.end,
        data.selection,
        ledger_holdout(reports),
        data.hours,
    )


def cache_of(config: RunConfig) -> Path:
    """The cache's folder for a config."""
    from engine.data.panel_loader import cache_path

    return cache_path(config.data.cache)


def store_of(config: RunConfig, strict: bool = False) -> Store:
    """The cache for a config; a `strict` one takes no table with an impossible price."""
    from engine.data.cache import Store

    return Store(cache_of(config), strict)


def clock() -> pd.Timestamp:
    """The present moment, to the millisecond."""
    from datetime import UTC, datetime

    import pandas as pd

    return pd.Timestamp(datetime.now(UTC)).as_unit("ms")
