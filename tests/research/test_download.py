"""Downloads of Numerai's and CrowdCent's files: a server on loopback that answers, breaks off or is not there."""

from __future__ import annotations

import gc
import json
import logging
import sys
import threading
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.errors import OracleError
from helpers.commands import NOBODY
from helpers.publications import COINS, rows_of
from research.oracles.crowdcent import KEY, CrowdCentOracle
from research.oracles.numerai import STEM, NumeraiTBNOracle

pytestmark = pytest.mark.slow

LISTED = ["crypto/v1.0/historical_meta_models.csv", "crypto/v1.0/live_universe.parquet", "crypto/v2.0/train.parquet"]


class Numerai:
    """Speaks as much GraphQL as numerapi asks for; `how` it goes wrong."""

    def __init__(self) -> None:
        self.content, self.how, self.listed = b"", "", list(LISTED)
        self.asked: list[str] = []
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if world.how == "bad request":
                    return self.answer(400, b"no")
                if world.how == "no json":
                    return self.answer(200, b"<html>maintenance</html>")
                if "listDatasets" in body["query"]:
                    return self.answer(200, json.dumps({"data": {"listDatasets": world.listed}}).encode())
                world.asked.append(body["variables"]["filename"])
                address = f"http://127.0.0.1:{world.port}/file?X-Amz-Signature=very-secret"
                return self.answer(200, json.dumps({"data": {"dataset": address}}).encode())

            def do_GET(self) -> None:
                if world.how == "gone":
                    return self.answer(403, b"expired")
                if world.how == "breaks off":
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(world.content)))
                    self.end_headers()
                    self.wfile.write(world.content[: len(world.content) // 2])
                    return None
                return self.answer(200, world.content)

            def answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()


@pytest.fixture
def numerai(monkeypatch: pytest.MonkeyPatch) -> Iterator[Numerai]:
    world = Numerai()
    monkeypatch.setattr("numerapi.base_api.API_TOURNAMENT_URL", f"http://127.0.0.1:{world.port}")
    yield world
    world.server.shutdown()
    world.server.server_close()
    world.thread.join()


def test_a_download_is_a_fresh_file_named_by_its_newest_row(numerai: Numerai, tmp_path: Path) -> None:
    numerai.content = rows_of("2024-11-01", "2024-11-20").to_csv(index=False).encode()
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    (tmp_path / "historical_meta_models.csv.temp").write_bytes(b"date,symbol,meta_model\nan earlier day")
    oracle = NumeraiTBNOracle(tb=2, folder=str(tmp_path))
    assert numerai.asked == [] and oracle.files() == (), "nothing is fetched before it is needed"
    instant = pd.Timestamp("2024-11-21T23:00Z")
    weights = oracle.fetch_portfolio_weights(instant, COINS)
    assert numerai.asked == [LISTED[0]]
    (file,) = oracle.files()
    assert file.name.startswith(f"{STEM}-2024-11-20-") and file.read_bytes() == numerai.content
    assert weights == NumeraiTBNOracle(tb=2, file=str(file)).fetch_portfolio_weights(instant, COINS)
    assert logging.getLogger().handlers == handlers and logging.getLogger().level == level
    # What is there has all that was out before these instants: nothing is fetched again.
    oracle.fetch_portfolio_weights(instant - pd.Timedelta(days=3), COINS)
    oracle.fetch_portfolio_weights(instant, COINS)
    assert len(numerai.asked) == 1
    # A day later a row is missing, so a new file is fetched and the old one stays.
    numerai.content = rows_of("2024-11-01", "2024-11-21").to_csv(index=False).encode()
    oracle.fetch_portfolio_weights(instant + pd.Timedelta(days=1), COINS)
    assert len(numerai.asked) == 2 and oracle.files()[0].name.startswith(f"{STEM}-2024-11-21-") and file.is_file()


def test_parquet_of_the_newest_version_is_preferred(numerai: Numerai, tmp_path: Path) -> None:
    rows_of("2024-11-01", "2024-11-20").to_parquet(tmp_path / "given.parquet")
    numerai.content = (tmp_path / "given.parquet").read_bytes()
    numerai.listed += ["crypto/v1.0/historical_meta_models.parquet"]
    assert NumeraiTBNOracle.download(tmp_path / "new" / "folder").suffix == ".parquet"
    assert numerai.asked == ["crypto/v1.0/historical_meta_models.parquet"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("bad request", "Numerai's meta-model cannot be downloaded: ConnectionError: Numerai gave no answer"),
        ("no json", "Numerai gave no answer, or none that numerapi understands"),
        ("gone", r"cannot be downloaded: HTTPError: 403 .*give a file that you have: file=PATH"),
        ("breaks off", "cannot be downloaded: "),
        (
            "other columns",
            "is not what was expected: historical_meta_models.csv has no column 'meta_model'.* It has: date, symbol, x",
        ),
        ("nothing listed", r"lists no historical_meta_models.parquet or .csv, but: crypto/v1.0/live_universe.parquet"),
    ],
)
# numerapi does not close the answer that broke off.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failed_download_leaves_nothing(numerai: Numerai, tmp_path: Path, how: str, message: str) -> None:
    numerai.how = how
    frame = rows_of("2024-11-01", "2024-11-20")
    frame = frame.rename(columns={"meta_model": "x"} if how == "other columns" else {})
    numerai.content = frame.to_csv(index=False).encode()
    if how == "nothing listed":
        numerai.listed = LISTED[1:]
    with pytest.raises(OracleError, match=message) as caught:
        NumeraiTBNOracle.download(tmp_path / "there")
    assert "very-secret" not in str(caught.value)
    assert list((tmp_path / "there").iterdir()) == []
    del caught
    gc.collect()


def test_no_network_is_one_paragraph(
    hlbt: Any, sample_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numerapi.base_api.API_TOURNAMENT_URL", NOBODY)
    oracle = (
        "backtest",
        "--oracle",
        "research.oracles.numerai:NumeraiTBNOracle",
        "--param",
        f"folder={tmp_path / 'n'}",
    )
    done = hlbt(*oracle, "--set", f"data.cache={sample_cache}", "--set", "data.end=2024-02-01")
    assert done.code == 1 and done.err.startswith("hlbt: Numerai's meta-model cannot be downloaded"), done.err
    assert done.err.count("\n") == 1 and "file=PATH" in done.err
    assert not Path("reports").exists() and list((tmp_path / "n").iterdir()) == []


# CrowdCent ------------------------------------------------------------------------------------------------------------


def crowdcent_package(monkeypatch: pytest.MonkeyPatch, act: Any) -> list[dict[str, str]]:
    """A package of the same name and call: the real one is not a dependency, so the boundary is what can be tested."""
    made: list[dict[str, str]] = []

    class ChallengeClient:
        def __init__(self, **named: str) -> None:
            made.append(named)

        def download_meta_model(self, path: str) -> None:
            act(path)

    module = types.ModuleType("crowdcent_challenge")
    module.ChallengeClient = ChallengeClient  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "crowdcent_challenge", module)
    return made


def test_crowdcent_needs_a_key_and_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instant = pd.Timestamp("2024-11-21T23:00Z")
    monkeypatch.delenv(KEY, raising=False)
    oracle = CrowdCentOracle(folder=str(tmp_path))
    with pytest.raises(OracleError, match=f"set the environment variable {KEY}, or give a file"):
        oracle.fetch_portfolio_weights(instant, COINS)
    monkeypatch.setenv(KEY, "secret-123")
    monkeypatch.setitem(sys.modules, "crowdcent_challenge", None)
    with pytest.raises(OracleError, match="pip install crowdcent-challenge"):
        oracle.fetch_portfolio_weights(instant, COINS)
    assert list(tmp_path.iterdir()) == []


def test_crowdcent_through_its_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(KEY, "secret-123")
    rows = rows_of("2024-11-01", "2024-11-21", weekend=True).set_axis(["release_date", "id", "pred_10d"], axis=1)
    rows["pred_30d"] = rows["pred_10d"]
    rows["release_date"] = pd.to_datetime(rows["release_date"]) + pd.Timedelta(hours=14)  # naive times are UTC
    made = crowdcent_package(monkeypatch, lambda path: rows.to_parquet(path))
    oracle = CrowdCentOracle(n=2, folder=str(tmp_path))
    weights = oracle.fetch_portfolio_weights(pd.Timestamp("2024-11-21T23:00Z"), COINS)
    assert sum(map(abs, weights.values())) == pytest.approx(1)
    assert made == [{"challenge_slug": "hyperliquid-ranking", "api_key": "secret-123"}]
    assert oracle.files()[0].name.startswith("crowdcent_meta_model-2024-11-21-")
    assert "secret-123" not in repr(oracle) + repr(vars(oracle))


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(KEY, "secret-123")

    def refuse(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("401 for https://example.org/?x=1 with headers {'Authorization': 'Api-Key secret-123'}")

    crowdcent_package(monkeypatch, refuse)
    with pytest.raises(OracleError, match=r"RuntimeError: 401 .*\(the key\)") as caught:
        CrowdCentOracle.download(tmp_path)
    assert "secret-123" not in str(caught.value) and caught.value.__suppress_context__
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_gives_no_file_and_a_folder_that_takes_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY, "secret-123")
    crowdcent_package(monkeypatch, lambda path: None)
    with pytest.raises(OracleError, match="CrowdCent's meta-model cannot be downloaded: the service gave no file"):
        CrowdCentOracle.download(tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OracleError, match=r"cannot be written to .*file/below: Not a directory"):
        CrowdCentOracle.download(tmp_path / "file" / "below")
