"""Chunks on a Dask cluster: the scheduler gives them to whoever is free, and gives them again when a worker is lost.

    local:N          N processes of this machine             slurm:N     N jobs of SLURM, by dask_jobqueue
    tcp://host:port  a scheduler that runs already; its workers must have hil installed

A chunk is a pure function of its text. Dask runs it again if the worker that held it, or its unread answer, is lost; the first
answer to a chunk is taken, so each counts once. A chunk that loses its worker TRIES times ends the search with a fault, and the
search can be resumed.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hil.child import SAFE
from hil.errors import ConfigError, Stopped
from hil.search.evaluator import LOOK_S, Chunk, Stop, Work, interrupted, read_outcomes, written
from hil.search.jobs import Outcome

TRIES = 3
JOIN_S = 600.0
ANSWER_S = 5.0  # of a scheduler that is to be there already
LOST = "none; the nodes are twins"


class Cluster:
    """An Evaluator.

    Args:
        work, setup, stop: as in Pool.
        address: see the module.
        slurm: settings of dask_jobqueue.SLURMCluster.
        join_s: how long is waited while the cluster has no worker at all.

    Raises:
        ConfigError: Dask is not installed, or nobody answers at the address.
    """

    def __init__(
        self, work: Work, setup: str, address: str, slurm: Mapping[str, Any], stop: Stop = lambda: "", join_s: float = JOIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._work, self._setup, self._stop, self._join_s, self._clock = work, setup, stop, join_s, clock
        self._seen = clock()
        check_address(address)
        self._cluster, self._client = _opened(address, slurm)

    @property
    def client(self) -> Any:
        """The dask client, or None once it is closed."""
        return self._client

    def evaluate(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Outcome]]]:
        """Raises: Stopped: a chunk lost its workers, nobody joins, or the cluster is gone."""
        from distributed import wait
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        self._seen = self._clock()
        waiting = {self._client.submit(self._work, self._setup, written(chunk), pure=False): chunk for chunk in chunks}
        try:
            while waiting:
                interrupted(self._stop, len(waiting))
                with contextlib.suppress(TimeoutError):  # nothing came back yet
                    wait(list(waiting), LOOK_S, "FIRST_COMPLETED")
                self._check_joined()
                for done in [future for future in waiting if future.done()]:
                    outcomes = read_outcomes(done.result())
                    yield waiting.pop(done), outcomes
        except (KilledWorker, FutureCancelledError, OSError) as error:
            raise Stopped(
                "the cluster lost a chunk for good", where="cluster", got=str(error), outputs=LOST,
                todo="look at its workers, then hil resume",
            ) from error  # fmt: skip
        finally:
            for future in waiting:
                future.cancel()

    def _check_joined(self) -> None:
        """Raises: Stopped: there has been no worker for too long."""
        now = self._clock()
        if self._client.scheduler_info()["workers"]:
            self._seen = now
        elif now - self._seen >= self._join_s:
            raise Stopped(
                f"nobody joined the cluster within {self._join_s:g} s", where="cluster", got="no worker", outputs=LOST,
                todo="look whether its jobs start (squeue), or raise [evaluate] join_s in search.toml; then hil resume",
            )  # fmt: skip

    def close(self) -> None:
        """Leave the cluster, and end its workers if this program started them; may be called twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


def check_address(address: str) -> None:
    """Refuse, before anything is opened, what names no cluster.

    Raises:
        ConfigError.
    """
    kind, _, rest = address.partition(":")
    if kind in ("local", "slurm"):
        good = bool(re.fullmatch(r"[0-9]{1,5}", rest)) and int(rest) > 0
    else:
        good = bool(re.fullmatch(r"(tcp|tls|ucx|ws|wss|inproc)://\S+", address))
    if not good:
        raise ConfigError(
            "no cluster", where=f"--cluster {address}", got=f'"{address}"', outputs="untouched; nothing was opened",
            allowed="local:N, slurm:N, N from 1 to 99999, or tcp://host:port of a Dask scheduler",
        )  # fmt: skip


def _opened(address: str, slurm: Mapping[str, Any]) -> tuple[Any, Any]:
    """(the cluster, if it is ours to close; a client of it)."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ConfigError(
            "Dask is not installed", where=f"--cluster {address}", got=str(error), outputs="untouched; nothing was opened",
            todo="pip install 'hil[cluster]', or leave --cluster out",
        ) from error  # fmt: skip
    dask.config.set(
        {"distributed.scheduler.allowed-failures": TRIES, f"distributed.nanny.pre-spawn-environ.{SAFE}": "1"}
    )  # also for a worker that is started anew: no module of the working directory
    kind, _, count = address.partition(":")
    try:
        if kind == "local":
            cluster = LocalCluster(
                n_workers=int(count), threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
            )
            return cluster, Client(cluster)
        if kind == "slurm":
            from dask_jobqueue import SLURMCluster

            cluster = SLURMCluster(**{"cores": 1, "processes": 1, "memory": "4GB", **slurm})
            cluster.scale(jobs=int(count))
            return cluster, Client(cluster)
        return None, Client(address, timeout=ANSWER_S)
    except (OSError, ValueError, ImportError, TypeError) as error:
        raise ConfigError(
            "no cluster", where=f"--cluster {address}", got=str(error) or type(error).__name__,
            allowed="local:N, slurm:N, or tcp://host:port of a Dask scheduler", outputs="untouched; nothing was opened",
        ) from error  # fmt: skip
