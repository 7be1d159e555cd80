"""Chunks in processes of this machine, one torch thread each: two small trainings side by side beat one on two threads.

A worker that dies (killed, out of memory) takes the pool along; a new pool then does what had not come back, each chunk once
more. A chunk that kills its worker a second time ends the search with a fault, and the search can be resumed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from hil.child import SAFE, safely_spawning
from hil.errors import Stopped
from hil.search.evaluator import LOOK_S, Chunk, Stop, Work, interrupted, read_outcomes, written
from hil.search.jobs import Outcome
from hil.system import HANGUP

TRIES = 2


class Pool:
    """An Evaluator.

    Args:
        work: trains a chunk; a function that a new process can import.
        setup: its first argument.
        workers: processes.
        stop: asked while waiting.
    """

    def __init__(self, work: Work, setup: str, workers: int, stop: Stop = lambda: "") -> None:
        self._work, self._setup, self._workers, self._stop = work, setup, workers, stop
        self._pool: ProcessPoolExecutor | None = None

    def evaluate(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Outcome]]]:
        """Raises: Stopped: a chunk killed its worker twice."""
        left = list(chunks)
        for _ in range(TRIES):
            waiting = dict(self._submitted(left))
            try:
                while waiting:
                    interrupted(self._stop, len(waiting))
                    self._check_alive()
                    for done in futures.wait(waiting, LOOK_S, futures.FIRST_COMPLETED).done:
                        outcomes = read_outcomes(done.result())
                        chunk = waiting.pop(done)
                        left.remove(chunk)
                        yield chunk, outcomes
            except BrokenProcessPool:
                self.close()
            if not left:
                return
        raise Stopped(
            "a worker died twice on the same chunk", where="pool", got=f"{len(left)} chunks not done",
            outputs="none; the node is a twin", todo="check memory, then hil resume",
        )  # fmt: skip

    def _check_alive(self) -> None:
        """The executor does not watch a worker that was born after its last look; its death would be waited for without end."""
        processes = (self._pool._processes if self._pool is not None else None) or {}
        if not all(process.is_alive() for process in list(processes.values())):
            raise BrokenProcessPool("a worker is gone")

    def close(self) -> None:
        """End the workers where they are."""
        pool, self._pool = self._pool, None
        if pool is not None:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(5)

    def _submitted(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Future[str], Chunk]]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
            self._pool = ProcessPoolExecutor(self._workers, context, _begin, (os.getpid(),))
        for chunk in chunks:
            with safely_spawning():  # a worker is started when there is work for it
                future = self._pool.submit(self._work, self._setup, written(chunk))
            yield future, chunk


def _begin(owner: int) -> None:
    """Set up a new worker: one thread; Ctrl-C and the terminal are the owner's business, and nobody outlives the owner."""
    for number in (signal.SIGINT, *([HANGUP] if HANGUP is not None else [])):
        signal.signal(number, signal.SIG_IGN)
    os.environ.pop(SAFE, None)  # it was for this start alone
    from hil.torch_device import set_up_torch

    set_up_torch(1)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid == owner:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
