"""A Dask cluster gives the history of one process, also when it loses a worker."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from small_search import FILE, write
from test_search import history

from hil.commands.search import start
from hil.errors import ConfigError
from hil.run.folder import RunFolder
from hil.search import cluster
from hil.search.cluster import Cluster
from hil.search.history import EVALUATIONS

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
QUIET = Console(quiet=True)


def test_a_lost_worker_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.utils, "_forkserver_preload_set", True)  # by the next line, with more than Dask's own
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["distributed", "hil.search.batched_trainer", "torch._dynamo"]
    )
    path = write(tmp_path, FILE)
    start(path, RunFolder.create(tmp_path / "here"), QUIET)
    made: list[Cluster] = []
    inner = Cluster.__init__

    def kept(self: Cluster, *rest: object) -> None:
        inner(self, *rest)  # type: ignore[arg-type]
        made.append(self)
        threading.Thread(target=kill, args=(self,), daemon=True).start()

    killed: list[int] = []

    def kill(cluster: Cluster) -> None:
        """As soon as something is recorded, one worker dies without a word."""
        log = tmp_path / "cluster" / EVALUATIONS
        while not log.exists():
            time.sleep(0.01)
        pids = cluster.client.run(os.getpid)
        killed.append(next(iter(pids.values())))
        os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(Cluster, "__init__", kept)
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):  # as workers begin at once so
        start(path, RunFolder.create(tmp_path / "cluster"), QUIET, "local:2")
    assert killed
    assert history(tmp_path / "cluster") == history(tmp_path / "here")
    keys = [json.loads(line)["key"] for line in (tmp_path / "cluster" / EVALUATIONS).read_text(encoding="utf-8").splitlines()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("address", ["local:", "nowhere", "tcp://127.0.0.1:1"])
def test_no_cluster_is_said_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_S", 0.3)
    with pytest.raises(ConfigError, match="no cluster"):
        Cluster(lambda a, b: "", "", address, {})
