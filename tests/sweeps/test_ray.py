"""A sweep on a Ray cluster: the numbers of the threads to the bit, whatever happens to a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine import Oracle, Panel, RunConfig, load_panel, sweep
from engine.data.cache import Store
from engine.errors import ConfigError, DataError
from engine.promotion.holdout import seal_days
from engine.sweeps.executors import Ray
from engine.sweeps.plan import make_plan
from engine.sweeps.result_files import ResultFiles
from engine.sweeps.tasks import Outcome
from helpers.panels import random_panel
from helpers.project import HELPERS, ROOT
from helpers.stores import table
from research.oracles.momentum import Momentum

pytestmark = pytest.mark.slow

DRIVER = HELPERS / "ray_nodes.py"


def three_nodes(cache: Path, how: str, dataset: Path, sets: int = 96) -> dict[str, object]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(cache), how, str(sets), "3", str(dataset)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def test_killing_one_of_three_nodes_loses_nothing_of_what_workers_write(sample_cache: Path, tmp_path: Path) -> None:
    answer = three_nodes(sample_cache, "kill", tmp_path / "dataset")
    files = ResultFiles(str(tmp_path / "dataset" / "sweep=x"))
    assert sum(len(files.read(path, ["key"])[1]) for path in files.paths()) == 384
    assert answer["killed_after"], "the node was not killed in the middle"
    assert answer["same"] is True and answer["failed"] == 0 and answer["sets"] == 384


def test_a_cluster_that_cannot_be_reached(tmp_path: Path) -> None:
    panel = random_panel(1, 24 * 10, 4)
    with pytest.raises(DataError, match=r"cluster at 127\.0\.0\.1:9 cannot be reached: .* Nothing is lost"):
        sweep(panel, Momentum, {"lookback_hours": [24]}, executor=Ray("127.0.0.1:9"), name="a", reports=tmp_path)
    assert len(sweep(panel, Momentum, {"lookback_hours": [24]}, name="a", reports=tmp_path)) == 1


def test_a_cluster_that_asks_for_a_token() -> None:
    """Ray sends none to an address that is named, unless it is told to."""

    class Asking:
        class exceptions:
            RayError = ArithmeticError

        @staticmethod
        def init(**_: object) -> None:
            raise ConnectionError("Failed to connect") from RuntimeError("ray.exceptions.AuthenticationError: RPC")

    with pytest.raises(DataError, match=r"it asks for a token.* RAY_AUTH_MODE=token"):
        Ray("auto")._connect(Asking)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'hlbt\[cluster\]'"):
        sweep(random_panel(1, 24 * 10, 4), Momentum, {"lookback_hours": [24]}, executor=Ray())


def test_an_oracle_of_a_file_is_carried_to_the_workers_and_sees_no_sealed_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cache, seen = tmp_path / "cache", tmp_path / "seen"
    prices = {"BTC": [1.0 + hour % 7 / 100 for hour in range(24 * 20)]}
    Store(cache).merge([table(prices, "2024-02-01T00:00Z")], "s")
    seal_days(cache, tmp_path / "reports", pd.Timestamp("2024-02-11", tz="UTC"), "2024-02-21T00:00:00+00:00")
    file = tmp_path / "mine.py"
    file.write_text(
        "import os\nimport pandas as pd\nfrom engine import Oracle, load_panel\n\nclass Mine(Oracle):\n"
        "    def __init__(self, x=1):\n        self.x = x\n\n"
        "    def weight_matrix(self, panel, decisions):\n"
        f"        own = load_panel({str(cache)!r})\n"
        f"        with open({str(seen)!r}, 'a') as file:\n"
        "            file.write(f'{os.getpid()} {panel.index[-1]:%F} {own.index[-1]:%F}\\n')\n"
        "        return pd.DataFrame(0.1 * self.x, index=decisions, columns=list(panel.coins)[:1])\n"
    )
    panel = load_panel(cache)
    here = sweep(panel, f"{file}:Mine", {"x": [1, 2]})
    there = sweep(panel, f"{file}:Mine", {"x": [1, 2]}, executor=Ray(None, 1))
    assert there.table.equals(here.table)
    # What a worker cannot write is said as this process says it.
    blocked = tmp_path / "data" / "sweep=a"
    blocked.mkdir(parents=True)
    plan = make_plan(panel, f"{file}:Mine", {"x": [1]}, RunConfig(), {}, (), None, 0, None)
    (blocked / next(plan.tasks(np.arange(1), ResultFiles("x"))).files.part).touch()  # type: ignore[union-attr]
    with pytest.raises(
        DataError, match=r"^The results at .*sweep=a cannot be read or written: (File exists|Not a dir)"
    ):
        sweep(panel, f"{file}:Mine", {"x": [1]}, executor=Ray(None, 1), dataset=tmp_path / "data", name="a")
    lines = [line.split() for line in seen.read_text().splitlines()]
    assert {day for line in lines for day in line[1:]} == {"2024-02-10"}
    assert len({line[0] for line in lines}) > 1  # a worker is another process


class Cluster:
    """As much of Ray as hands out tasks: one is done whenever it is waited for."""

    def __init__(self) -> None:
        self.out, self.most = 0, 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0}

    def put(self, panel: Panel) -> Panel:
        return panel

    def remote(self, **_: object) -> Callable[[object], Cluster]:
        return lambda work: _Remote(self, work)  # type: ignore[return-value,arg-type]

    def wait(self, pending: list[Outcome], num_returns: int) -> tuple[list[Outcome], list[Outcome]]:
        self.out -= num_returns
        return pending[:num_returns], pending[num_returns:]

    def get(self, done: list[Outcome]) -> list[Outcome]:
        return done


class _Remote:
    def __init__(self, cluster: Cluster, work: Callable[..., Outcome]) -> None:
        self.cluster, self.work = cluster, work

    def remote(self, *given: object) -> Outcome:
        self.cluster.out += 1
        self.cluster.most = max(self.cluster.most, self.cluster.out)
        return self.work(*given)


@pytest.mark.parametrize(("workers", "most"), [(3, 3), (None, 16), (8, 16)])
def test_no_more_tasks_are_handed_out_than_were_asked_for(workers: int | None, most: int) -> None:
    """On a cluster that others started nothing else bounds them; one of one's own has no more processors."""
    panel = random_panel(1, 24 * 10, 4)
    plan = make_plan(panel, f"{__name__}:Even", {"k": list(range(200))}, RunConfig(), {}, (), None, 0, False)
    cluster = Cluster()
    outcomes = list(Ray("auto", workers)._run(cluster, panel, plan.tasks(np.arange(200))))
    assert sum(len(outcome.errors) for outcome in outcomes) == 200 and cluster.most == most


class Even(Oracle):
    def __init__(self, k: int = 0) -> None:
        self.k = k

    def weight_matrix(self, panel: Panel, decisions: pd.DatetimeIndex) -> pd.DataFrame:
        return pd.DataFrame(0.001 * self.k, index=decisions, columns=list(panel.coins)[:1])
