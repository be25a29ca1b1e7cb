"""``hlbt export``: a run as tables for other programs, or as a run of MLflow."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from engine.commands.options import ConfigOption, JsonOption, RunArgument, SetOption, config_of, folder_of
from engine.commands.progress import print_json, show_all, waiting
from engine.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from engine.runs import Run

FORMATS = ("csv", "parquet", "mlflow")
#: MLflow takes no more parameters or tags at once.
_BATCH = 100


def export_command(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="csv, parquet or mlflow.")] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: exports/<run>, made if absent.")
    ] = None,
    tracking: Annotated[
        str | None,
        typer.Option("--tracking", metavar="URI", help="Of MLflow: a server, sqlite:///FILE or a folder."),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Of MLflow; default hlbt.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write trades, equity, weights and metrics of a run as tables, or log the run to MLflow.

    MLflow gets settings and parameters, metrics, digests, verdict and notes, and the run folder as artifacts; a run
    that it has already is brought up to date. Without --tracking it decides itself where its runs are kept.

    Example: hlbt export momentum-20241001-20250331-1a2b3c4d --to parquet
    """
    from engine.runs import load_run

    config_of(config, settings)  # refuses what is wrong in it
    if to not in FORMATS:
        raise ConfigError(
            f"--to {to!r} is not accepted: choose one of {', '.join(FORMATS)}.{did_you_mean(to, FORMATS)}"
        )
    foreign = {"--out": out} if to == "mlflow" else {"--tracking": tracking, "--experiment": experiment}
    if named := [option for option, value in foreign.items() if value is not None]:
        raise ConfigError(f"{named[0]} means nothing with --to {to}. Leave it out.")
    loaded = load_run(folder_of(run))
    if to == "mlflow":
        with waiting("logging to MLflow"):
            logged = _log(loaded, tracking, experiment or "hlbt")
        print_json(logged) if as_json else show_all(
            f"MLflow run {logged['mlflow_run']} in experiment {logged['experiment']}: {logged['tracking']}"
        )
        return
    files = _write(loaded, to, out)
    if as_json:
        print_json({"run": str(loaded.folder), "files": files})
    else:
        show_all(*(f"{name}: {file}" for name, file in files.items()))


def _write(run: Run, to: str, out: Path | None) -> dict[str, str]:
    """The tables of a run as files: table, path."""
    from engine.atomic_io import replacing

    folder = out or Path("exports") / run.folder.resolve().name
    files, tables = {}, _tables(run)
    if out is not None and (taken := [name for name in tables if (out / f"{name}.{to}").exists()]):
        raise DataError(f"{out / taken[0]}.{to} exists. Nothing is overwritten: name another folder with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in tables.items():
            file = folder / f"{name}.{to}"
            with replacing(file) as made:
                frame.to_csv(made, index=False) if to == "csv" else frame.to_parquet(made, index=False)
            files[name] = str(file)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}. Name another with --out.") from error
    return files


def _tables(run: Run) -> dict[str, pd.DataFrame]:
    """What is exported of a run, times in UTC as a column."""
    import pandas as pd

    metrics = pd.DataFrame({"metric": list(run.record["metrics"]), "value": list(run.record["metrics"].values())})
    return {
        "trades": run.trades,
        "equity": run.equity.reset_index(),
        "weights": run.weights.reset_index(),
        "metrics": metrics.astype({"value": str}),
    }


def _log(run: Run, tracking: str | None, experiment: str) -> dict[str, str]:
    """Log a run to MLflow: what was logged, and where.

    Raises
    ------
    ConfigError
        When MLflow is not installed, or what its database needs.
    DataError
        When it refuses or does not answer. No message shows a password or the path of a server, which may be a token.
    """
    # It reports its use to its makers unless told otherwise, and waits for minutes for a server that is not there. A
    # folder is still a store for who asks for one.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    uri = tracking if tracking is not None else os.environ.get("MLFLOW_TRACKING_URI")
    where = _shown(uri)
    try:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        where = _shown(client.tracking_uri)
        number = _send(client, run, experiment)
    except ImportError as error:
        raise ConfigError(
            f"--to mlflow needs {error.name}, which is not installed: pip install 'hlbt[mlflow]'."
        ) from error
    except Exception as error:  # of MLflow, of its database, of the network, of a disk
        reason = type(error).__name__
        if where == uri or uri is None:
            reason += f": {' '.join(str(error).split())[:300]}"
        raise DataError(
            f"The run cannot be logged to MLflow at {where} ({reason}). Name a server that answers, sqlite:///FILE or "
            "a folder with --tracking."
        ) from error
    return {"run": str(run.folder), "tracking": where, "experiment": experiment, "mlflow_run": number}


def _shown(uri: str | None) -> str:
    """The address of a tracking store without what may be secret: user, password, path and query of a server."""
    if uri is None:
        return "its default store"
    try:
        parts = urlsplit(uri)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else uri
    except ValueError:
        return "--tracking"


def _send(client: Any, run: Run, experiment: str) -> str:
    """Log a run, or once more what MLflow already has of it; its number there."""
    from mlflow.entities import Metric, Param, RunTag

    params, metrics, tags = _content(run)
    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known is not None else client.create_experiment(experiment)
    name, created = tags["hlbt.run"].replace("'", ""), tags["hlbt.created"]
    chosen = f"tags.`hlbt.run` = '{name}' and tags.`hlbt.created` = '{created}'"
    before = client.search_runs([place], chosen, max_results=1)
    start = round(_instant(created) * 1000)
    made = before[0] if before else client.create_run(place, start, run_name=run.folder.name)
    number: str = made.info.run_id
    for first in range(0, max(len(params), len(tags)), _BATCH):
        part = slice(first, first + _BATCH)
        client.log_batch(
            number,
            params=[Param(key, value) for key, value in list(params.items())[part]],
            tags=[RunTag(key, value) for key, value in list(tags.items())[part]],
        )
    client.log_batch(number, metrics=[Metric(key, value, start, 0) for key, value in metrics.items()])
    client.log_artifacts(number, str(run.folder))
    client.set_terminated(number)
    return number


def _instant(created: str) -> float:
    from datetime import UTC, datetime

    moment = datetime.fromisoformat(created)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _content(run: Run) -> tuple[dict[str, str], dict[str, float], dict[str, str]]:
    """What MLflow is told of a run: parameters (settings, and the oracle's own), metrics, tags."""
    from engine.reporting.run_page import verdict_of
    from engine.run_folders import read_notes

    record, folder = run.record, run.folder.resolve()
    origin, judged = record["origin"], verdict_of(record, folder)
    values = {f"{section}.{key}": value for section, keys in record["config"].items() for key, value in keys.items()}
    values |= {f"oracle.{key}": value for key, value in origin["parameters"].items()}
    values[origin["kind"]] = origin["path"]
    params = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    figures = record["metrics"]
    metrics = {key: float(value) for key, value in figures.items() if isinstance(value, int | float)}
    tags = {
        "hlbt.run": folder.name,
        "hlbt.created": record["created"],
        "hlbt.synthetic": str(record["synthetic"]).lower(),
        **{f"hlbt.span.{key}": str(value) for key, value in record["span"].items()},
        **{f"hlbt.digest.{key}": value for key, value in record["digests"].items()},
        **{f"hlbt.version.{key}": str(value) for key, value in record["versions"].items()},
        **{f"hlbt.{key}": value for key, value in figures.items() if isinstance(value, str)},
        "hlbt.verdict": "none" if judged is None else f"{judged.word}: {judged.says}",
        "mlflow.note.content": "\n\n".join([*(note["text"] for note in read_notes(folder)), *record["notes"]]),
    }
    return params, {key: value for key, value in metrics.items() if not math.isinf(value)}, tags
