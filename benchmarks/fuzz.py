"""Damaged bytes against everything that reads bytes: links, drivers, simulated boxes, files.

Every input must end in a result or in an error of hil's tree, of the branch that its reader promises; within CPU_S of the
processor and WALL_S of the clock; with at most ROOM_BYTES of memory more; and no driver may send what its limits forbid.

    python benchmarks/fuzz.py --inputs 2000          of each target; or --seconds 300, shared evenly
    python benchmarks/fuzz.py --only scpi --again 17 one input once more, with its traceback

The last line is JSON: {"tried": N, "per_target": {...}, "crashes": 0, "hangs": 0, "out_of_limits": 0}. A crash prints target,
seed, number and the input in hex. An input depends on seed, target and number alone.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import logging
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from fuzzing import TARGETS
from fuzzing.mutate import mutated
from fuzzing.target import OutOfLimits, Target

CPU_S, WALL_S, STUCK_S = 1.0, 5.0, 60.0
ROOM_BYTES = 512 << 20
SHOWN = 400  # bytes of an input


class Hang(BaseException):
    """Raised in the middle of an input that takes too long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=2000, help="for each target")
    parser.add_argument("--seconds", type=float, default=None, help="in all, instead of --inputs")
    parser.add_argument("--quick", action="store_true", help="60 inputs for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose names begin so")
    parser.add_argument("--again", type=int, default=None, help="the one input of this number")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="hil-fuzz-") as folder, contextlib.ExitStack() as stack:
        targets = [made for make in TARGETS if (made := make(Path(folder), stack)).name.startswith(asked.only)]
        trial = Trial(asked.seed)
        for target in targets:
            if asked.again is not None:
                trial.one(target, asked.again)
            elif asked.seconds is not None:
                trial.until(target, time.monotonic() + asked.seconds / len(targets))
            else:
                trial.some(target, 60 if asked.quick else asked.inputs)
        print(json.dumps(trial.result()), flush=True)
    sys.exit(trial.failed)


class Trial:
    """What was tried, and what came of it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tried: dict[str, int] = {}
        self._crashes = self._hangs = self._out_of_limits = 0
        _bounded_memory()
        signal.signal(signal.SIGPROF, _too_long)
        signal.signal(signal.SIGALRM, _too_long)

    def some(self, target: Target, count: int) -> None:
        self._report(target, lambda number: number < count)

    def until(self, target: Target, end_s: float) -> None:
        self._report(target, lambda number: time.monotonic() < end_s)

    def _report(self, target: Target, more: Callable[[int], bool]) -> None:
        begin, number = time.monotonic(), 0
        while more(number):
            self.one(target, number)
            number += 1
        took = time.monotonic() - begin
        print(f"{target.name:<20} {number:>8} inputs, {number / max(took, 1e-9):8.0f} a second", flush=True)

    def one(self, target: Target, number: int) -> None:
        draw = random.Random(f"{self._seed}/{target.name}/{number}")
        data = target.mend(mutated(target.samples, draw), draw)
        self._tried[target.name] = self._tried.get(target.name, 0) + 1
        try:
            with _watched():
                target.run(data)
        except target.allowed:
            pass
        except OutOfLimits as error:
            self._out_of_limits += 1
            self._say("out of limits", target, number, data, str(error))
        except Hang:
            self._hangs += 1
            self._say("hang", target, number, data, traceback.format_exc())
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            self._crashes += 1
            self._say("crash", target, number, data, traceback.format_exc())

    def _say(self, what: str, target: Target, number: int, data: bytes, why: str) -> None:
        more = f"… {len(data)} bytes" if len(data) > SHOWN else ""
        print(
            f"{what}: target {target.name} seed {self._seed} number {number}\n  {data[:SHOWN].hex()}{more}\n{why}", flush=True
        )

    @property
    def failed(self) -> bool:
        return bool(self._crashes or self._hangs or self._out_of_limits)

    def result(self) -> dict[str, object]:
        return {
            "tried": sum(self._tried.values()), "per_target": self._tried, "crashes": self._crashes, "hangs": self._hangs,
            "out_of_limits": self._out_of_limits,
        }  # fmt: skip


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Hang


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Hang after CPU_S or WALL_S; the whole program ends with a traceback where not even that gets through."""
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    signal.setitimer(signal.ITIMER_REAL, WALL_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _bounded_memory() -> None:
    """An allocation beyond ROOM_BYTES is a MemoryError, and so a crash."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM_BYTES, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
