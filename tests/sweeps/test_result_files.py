"""Results that workers write themselves, to a folder or a bucket: the same table, resumed, errors that say why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest

from engine import Oracle, Panel, Study, sweep
from engine.errors import ConfigError, DataError
from engine.sweeps.executors import Threads
from engine.sweeps.result_files import ResultFiles
from helpers.archive_server import client, s3_server
from helpers.panels import random_panel

GRID = {"k": [1, 2, 3, 4], "tilt": [None, [1, 2]], "costs.taker_bps": [1.0, 4.0]}


class Even(Oracle):
    """The first coin; refuses one value, so that a set fails."""

    def __init__(self, k: int = 0, tilt: object = None) -> None:
        self.k = k

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        if self.k == 3:
            raise ValueError("three")
        return pd.DataFrame(0.1 * self.k, index=decisions, columns=list(panel.coins)[:1])


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(1, 24 * 20, 4)


@pytest.fixture(scope="module")
def plain(panel: Panel) -> Study:
    return sweep(panel, Even, GRID)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as url, pytest.MonkeyPatch.context() as environment:
        for name, value in (("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "testing")):
            environment.setenv(f"AWS_{name}", value)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        client(url).create_bucket(Bucket="results")
        yield f"s3://results/mine?region=us-east-1&scheme=http&endpoint_override={url.partition('//')[2]}"


def same(one: Study, other: Study) -> bool:
    assert one.daily_returns is not None and other.daily_returns is not None
    return one.table.equals(other.table) and one.daily_returns.equals(other.daily_returns)


def test_a_folder_holds_a_dataset_that_others_can_read(panel: Panel, plain: Study, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    study = sweep(panel, Even, GRID, dataset=tmp_path / "data", name="a", reports=reports)
    assert same(study, plain)
    rows = pyarrow.dataset.dataset(tmp_path / "data" / "sweep=a", partitioning="hive").to_table().to_pandas()
    assert len(rows) == 16 and rows["config"].nunique() == 2
    assert sorted(set(rows["set.k"])) == [1, 2, 3, 4] and set(rows["set.tilt"].dropna()) == {"[1, 2]"}
    settings = [json.loads(text)["costs"]["taker_bps"] for text in rows["config_json"]]
    key = pd.MultiIndex.from_arrays([rows["set.k"], rows["set.tilt"].notna(), settings])
    wanted = plain.table["sharpe"].set_axis(
        pd.MultiIndex.from_tuples([(k, tilt is not None, bps) for k, tilt, bps in plain.table.index])
    )
    pd.testing.assert_series_equal(
        pd.Series(rows["sharpe"].to_numpy(), key).sort_index(), wanted.sort_index(), check_names=False
    )
    record = json.loads((tmp_path / "data" / "sweep=a" / "_sweep.json").read_text())
    assert record["sets"] == {"total": 16, "reused": 0, "failed": 4}


def test_the_same_again_runs_only_what_failed_and_a_new_value(panel: Panel, plain: Study, tmp_path: Path) -> None:
    where = {"dataset": tmp_path / "data", "name": "a", "reports": tmp_path / "reports"}
    sweep(panel, Even, {**GRID, "k": [1, 3]}, **where)  # type: ignore[arg-type]
    study = sweep(panel, Even, GRID, executor=Threads(2), **where)  # type: ignore[arg-type]
    assert study.record["sets"] == {"total": 16, "reused": 4, "failed": 4} and same(study, plain)
    files = ResultFiles(str(tmp_path / "data" / "sweep=a"))
    keys = np.concatenate([files.read(path, ["key"])["key"].to_numpy() for path in files.paths()])
    assert len(keys) == len(set(keys)) == 16  # none lies in two files
    assert {Path(path).parent.name.partition("=")[0] for path in files.paths()} == {"config"}
    assert all("set.k" in files.names(path) for path in files.paths())
    Path(files.paths()[0]).write_bytes(b"torn")
    again = sweep(panel, Even, GRID, **where)  # type: ignore[arg-type]
    assert same(again, plain)


def test_a_bucket(panel: Panel, plain: Study, bucket: str) -> None:
    assert same(sweep(panel, Even, GRID, dataset=bucket, name="a"), plain)
    again = sweep(panel, Even, GRID, dataset=bucket, name="a")
    assert again.record["sets"]["reused"] == 12 and same(again, plain)


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("s3://key:hidden@b/x", ConfigError, "credentials"),
        ("s3://b/x?secret_key=hidden", ConfigError, "credentials"),
        ("s3://b", ConfigError, r"s3://bucket/prefix"),
        ("ftp://a/b", ConfigError, "'ftp://a/b' is not accepted"),
        (" ", ConfigError, "is empty"),
        ("NOBUCKET", DataError, "NO_SUCH_BUCKET.*same command goes on"),
    ],
)
def test_an_address_that_cannot_be_used(
    panel: Panel, bucket: str, address: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        sweep(panel, Even, GRID, dataset=address.replace("NOBUCKET", bucket.replace("results", "absent")), name="a")
    assert "hidden" not in str(caught.value)
