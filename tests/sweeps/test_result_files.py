"""Results that workers write themselves, to a folder or a bucket: the same table, resumed, errors that say why."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest

from engine import Oracle, Panel, Study, sweep
from engine.errors import ConfigError, DataError
from engine.sweeps.executors import Threads
from engine.sweeps.result_files import ResultFiles, result_files
from helpers.buckets import google_bucket, s3_bucket
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
def s3() -> Iterator[str]:
    with s3_bucket() as address:
        yield address


@pytest.fixture(scope="module")
def gs() -> Iterator[str]:
    with google_bucket() as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "a?b")


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
    keys = np.concatenate([files.read(path, ["key"])[1]["key"].to_numpy() for path in files.paths()])
    assert len(keys) == len(set(keys)) == 16  # none lies in two files
    assert {Path(path).parent.name.partition("=")[0] for path in files.paths()} == {"config"}
    assert all("set.k" in files.read(path)[0] for path in files.paths())
    Path(files.paths()[0]).write_bytes(b"torn")
    again = sweep(panel, Even, GRID, **where)  # type: ignore[arg-type]
    assert same(again, plain)


@pytest.mark.parametrize("target", ["folder", "s3", "gs"])
def test_an_interrupted_sweep_goes_on_with_what_is_whole(
    panel: Panel, plain: Study, target: str, request: pytest.FixtureRequest
) -> None:
    where: dict[str, Any] = {"dataset": request.getfixturevalue(target), "name": "a #?%41b"}
    files = result_files(where["dataset"], "dataset").below("sweep=a #?%41b")

    def interrupt(done: int, total: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(panel, Even, GRID, executor=Threads(1), progress=interrupt, **where)
    kept = {path: files.read(path)[1] for path in files.paths()}
    assert 1 <= len(kept) <= 2 and {len(table) for table in kept.values()} == {8}
    again = sweep(panel, Even, GRID, **where)
    assert again.record["sets"]["reused"] == 6 * len(kept) and same(again, plain)
    whole = sweep(panel, Even, GRID, **where)
    assert whole.record["sets"]["reused"] == 12 and same(whole, plain)
    names, table = files.read(files.paths()[0], ["key"])
    assert "set.k" in names and table.column_names == ["key"]


def test_a_bucket_is_asked_no_more_than_it_takes(panel: Panel, s3: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="werkzeug"):
        sweep(panel, Even, {**GRID, "k": [1]}, dataset=s3, name="few")
    asked = [record.getMessage() for record in caplog.records]
    words = ("PUT", "POST", "HEAD", "GET")
    count = {word: sum(f"{word} /results/mine/sweep=few/" in line for line in asked) for word in words}
    assert count == {"PUT": 4, "POST": 0, "HEAD": 2, "GET": 2}, asked


def test_a_damaged_file_is_told_of_and_run_anew(panel: Panel, plain: Study, folder: str) -> None:
    def damage(done: int, total: int, what: str) -> None:
        if done == total:
            path = sorted(Path(folder).rglob("*.parquet"))[0]
            path.write_bytes(path.read_bytes()[:-9])

    with pytest.raises(DataError, match=r"parquet are damaged .* sets of this file are run anew"):
        sweep(panel, Even, GRID, dataset=folder, name="a", progress=damage)
    assert same(sweep(panel, Even, GRID, dataset=folder, name="a"), plain)


def test_a_file_that_cannot_be_read_just_now_is_not_deleted(
    panel: Panel, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(panel, Even, GRID, dataset=folder, name="a")
    before = sorted(Path(folder).rglob("*.parquet"))

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "a disk of elsewhere")

    monkeypatch.setattr("engine.sweeps.result_files.pq.ParquetFile", refused)
    with pytest.raises(DataError, match=r"cannot be read or written: Input/output error\. Check the folder"):
        sweep(panel, Even, GRID, dataset=folder, name="a")
    assert sorted(Path(folder).rglob("*.parquet")) == before


def test_a_full_disk_is_told_of_and_leaves_nothing_half_written(panel: Panel, plain: Study, folder: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(DataError, match=r"results at .*a\?b/sweep=a cannot .*: File too large.*same command"):
            sweep(panel, Even, GRID, dataset=folder, name="a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in Path(folder).rglob("*") if path.is_file()] == ["_sweep.json"]
    torn = next(Path(folder).rglob("config=*")) / ".0123456789abcdef.parquet.7.writing"
    torn.write_text("of a worker that was killed")
    assert same(sweep(panel, Even, GRID, dataset=folder, name="a"), plain)
    assert not torn.exists()


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("s3://key:hidden@b/x", ConfigError, "credentials"),
        ("gs://hidden@b/x", ConfigError, "credentials"),
        ("s3://anonymous@b/x", ConfigError, "credentials"),
        ("s3://b/x?secret_key=hidden", ConfigError, "credentials"),
        ("s3://b/x?X-Amz-Signature=hidden", ConfigError, "credentials"),
        ("s3://b/x?endpoint_override=key:hidden%40host", ConfigError, "credentials"),
        ("s3://b", ConfigError, r"s3://bucket/prefix"),
        ("s3:/b/x", ConfigError, r"'s3:/b/x' is not accepted"),
        ("s3://b/x#y", ConfigError, r"'s3://b/x#y' is not accepted"),
        ("s3://b/x y?region=a", ConfigError, r"accepted by pyarrow: Cannot parse URI: 's3://b/x y' due"),
        ("s3://b/x?sort=hidden", ConfigError, r"accepted by pyarrow: Unexpected query parameter in S3 URI: 'sort'"),
        ("ftp://key:hidden@a/b", ConfigError, "'ftp://...' is not accepted"),
        (" ", ConfigError, "is empty"),
        ("s3 absent", DataError, "NO_SUCH_BUCKET.*same command goes on"),
        ("gs absent", DataError, "NOT_FOUND.*same command goes on"),
        (
            "gs://anonymous@b/x?endpoint_override=127.0.0.1:9&scheme=http&retry_limit_seconds=1",
            DataError,
            "UNAVAILABLE",
        ),
    ],
)
def test_an_address_that_cannot_be_used(
    panel: Panel, address: str, error: type[Exception], text: str, request: pytest.FixtureRequest
) -> None:
    if address.endswith(" absent"):
        address = request.getfixturevalue(address.split()[0]).replace("results", "absent")
    with pytest.raises(error, match=text) as caught:
        sweep(panel, Even, GRID, dataset=address, name="a")
    assert "hidden" not in str(caught.value)


def test_a_pyarrow_without_a_store_says_so(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Built:
        @staticmethod
        def from_uri(address: str) -> None:
            raise pa.ArrowNotImplementedError("Got GCS URI but Arrow compiled without GCS support")

    monkeypatch.setattr("pyarrow.fs.FileSystem", Built)
    with pytest.raises(ConfigError, match="'gs://b/nobody' is not accepted by pyarrow: Got GCS URI but Arrow compiled"):
        sweep(panel, Even, GRID, dataset="gs://b/nobody", name="a")
