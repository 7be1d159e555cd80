"""A rig whose outputs are lines of a file: what it drove last, and when it was made safe, whoever does it and however it ends.

It stands for a device of a vendor's library. A value of `x[0, 0]` asks for a fault: see `FAULTS`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

import hil
from hil.device import Spec

HANG, ABORT, SEGFAULT, LEAVE, RAISE, NAN, SLOW, PRINT = (float(n) for n in range(11, 19))


class Rig:
    """Args: log: its file. size: channels. once: a file that is made by the first fault; the next one answers."""

    def __init__(self, log: str, size: int = 2, once: str = "", slow_s: float = 0.5) -> None:
        self._log, self._once, self._slow_s, self._gone = log, once, slow_s, False
        self.spec = Spec(hil.Port("dac", -1, 20, "V", size), hil.Port("adc", -100, 100, "V", size), provenance="twin")
        self._note("open")

    def _note(self, what: str) -> None:
        file = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{time.monotonic():.6f} {os.getpid()} {what}\n".encode())
        os.close(file)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel():
            self._note(f"on {float(x.flatten()[0])}")
            self._fault(float(x.flatten()[0]))
        answer = 2 * x
        if x.numel() and float(x.flatten()[0]) == NAN:
            answer[-1, -1] = float("nan")
        return answer

    def _fault(self, asked: float) -> None:
        if self._once and os.path.exists(self._once):
            return
        if self._once and asked in (HANG, ABORT, SEGFAULT):
            Path(self._once).touch()
        if asked == HANG:
            time.sleep(1000)
        elif asked == ABORT:
            os.abort()
        elif asked == SEGFAULT:
            os.kill(os.getpid(), 11)
        elif asked == LEAVE:
            sys.exit(7)
        elif asked == RAISE:
            raise RuntimeError("the camera says no")
        elif asked == SLOW:
            time.sleep(self._slow_s)
        elif asked == PRINT:
            print("\0" * 100_000 + "words of the vendor")

    def program(self, params: Tensor) -> None:
        raise AssertionError("nothing to program")

    def reset(self) -> None:
        pass

    def safe(self) -> None:
        self._note("safe")

    def close(self) -> None:
        if not self._gone:
            self._note("closed")
        self._gone = True


class Gates(Rig):
    """Its channels bear steps of 0.5 V, and it does nothing about them itself."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        dac = hil.Port("dac", -1, 20, "V", 2, max_step=0.5)
        self.spec = Spec(dac, self.spec.outputs, provenance="twin")


class Unsafe(Rig):
    """No safe()."""

    safe = None  # type: ignore[assignment]


class Closing(Unsafe):
    closes_safe = True


class Stuck(Rig):
    """Its safe() fails."""

    def safe(self) -> None:
        raise OSError("no answer from the shutter")


class Refusing(Rig):
    def __init__(self, log: str) -> None:
        super().__init__(log)
        raise OSError("no such camera")


class Array(Rig):
    """Answers with an array of numpy."""

    def forward(self, x: Tensor) -> Tensor:
        return x.numpy()  # type: ignore[return-value]


class Bare(Rig):
    """Has no spec."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        del self.spec


class Programmed(Rig):
    """A programmable temporal device whose state can be saved."""

    def __init__(self, log: str, once: str = "") -> None:
        super().__init__(log, once=once)
        self.spec = Spec(
            hil.Port("drive", -1, 20, "V", 2),
            hil.Port("adc", -100, 100, "V", 2),
            hil.Port("weights", -1, 1, "1", 3),
            temporal=True,
        )
        self._gain, self._count = torch.zeros(3), 0

    def program(self, params: Tensor) -> None:
        self._gain = params.clone()

    def reset(self) -> None:
        self._count = 0

    def forward(self, x: Tensor) -> Tensor:
        answer = super().forward(x) * self._gain.sum() + self._count
        self._count += 1
        return answer

    def snapshot(self) -> Mapping[str, object]:
        return {"count": self._count}

    def restore(self, state: Mapping[str, object]) -> None:
        self._count = int(state["count"])  # type: ignore[call-overload]


def made(log: str) -> Rig:
    return Rig(log)


def unannounced(log: str):  # type: ignore[no-untyped-def]
    return Rig(log)


def events(log: Path) -> list[tuple[float, int, str]]:
    """Time, process and event of each line."""
    return [
        (float(t), int(pid), what)
        for t, pid, what in (line.split(" ", 2) for line in log.read_text(encoding="utf-8").splitlines())
    ]
