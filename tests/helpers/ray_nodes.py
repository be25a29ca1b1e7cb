"""Driver of test_ray.py, a process of its own: a cluster of nodes on this machine, of which one may be killed.

Usage: ray_nodes.py CACHE (kill | keep) SETS NODES DATASET, whose workers write it. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from engine import load_panel, sweep
from engine.sweeps.executors import Ray, Threads
from research.oracles.momentum import Momentum


def main(cache: str, how: str, sets: int, nodes: int, dataset: str) -> None:
    panel = load_panel(cache, end="2024-12-01")
    grid = {"lookback_hours": list(range(24, 24 + 24 * 8, 24)), "n": list(range(1, sets // 8 + 1))}
    grid |= {"execution.delay_hours": [0, 1, 2, 3]}  # a task a value at least, so that there are tasks to lose
    started = time.perf_counter()
    threads = sweep(panel, Momentum, grid, executor=Threads(1))
    threads_seconds = time.perf_counter() - started
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = [cluster.add_node(num_cpus=1) for _ in range(nodes - 1)][-1]
    cluster.wait_for_nodes()
    os.chdir(Path(dataset).parent)  # nodes were started elsewhere: a folder means the driver's
    dataset = Path(dataset).name
    killed = []

    def watch(done: int, total: int, _: str) -> None:
        if how == "kill" and 0 < done < total and not killed:
            cluster.remove_node(node, allow_graceful=False)
            killed.append(done)

    started = time.perf_counter()
    study = sweep(panel, Momentum, grid, executor=Ray(cluster.address), dataset=dataset, name="x", progress=watch)
    seconds = time.perf_counter() - started
    assert study.daily_returns is not None and threads.daily_returns is not None
    sys.stdout.write(
        json.dumps(
            {
                "sets": len(study),
                "killed_after": killed,
                "same": bool(study.table.equals(threads.table) and study.daily_returns.equals(threads.daily_returns)),
                "failed": study.record["sets"]["failed"],
                "threads_seconds": threads_seconds,
                "ray_seconds": seconds,
            }
        )
    )
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
