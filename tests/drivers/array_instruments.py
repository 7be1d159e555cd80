"""A generator and a digitizer made of arrays, for the waveform Device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from drivers.waveform.record import Axis, Codes, Memory, Record, Scale
from hil.device import Port
from hil.errors import MissedTrigger, UnsafeOutputs

Node = Callable[[NDArray[np.float64]], NDArray[np.float64]]
STEP_V = 1e-4  # of the array digitizer


def drive(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class ArrayGenerator:
    """Plays codes as volts: 1 V full scale. Counts what it was sent."""

    def __init__(self, most: int = 4_000_000) -> None:
        self.drive, self.memory = Port("array generator", -1.0, 1.0, "V"), Memory(32, most)
        self.uploads: list[Codes] = []
        self.playing = self.played = np.zeros(0)  # in memory, and by the last trigger
        self.rate_hz, self.on, self.plays, self.closed = 0.0, False, 0, 0
        self.broken: Exception | None = None

    def prepare(self, sample_rate_hz: float) -> None:
        self.rate_hz = sample_rate_hz

    def encode(self, volts: NDArray[np.float32]) -> Codes:
        return np.rint(volts * np.float32(32767)).astype(np.int16)

    def upload(self, codes: Codes) -> None:
        if self.broken:
            raise self.broken
        assert self.memory.least <= len(codes) <= self.memory.most
        self.uploads.append(codes.copy())
        self.playing = codes / 32767

    def output(self, on: bool) -> None:
        self.on = on

    def trigger(self) -> None:
        self.plays += 1
        self.played = self.playing

    def forget(self) -> None:
        self.rate_hz = 0.0

    def clear(self) -> None:
        self.forget()

    def reopen(self) -> None:
        self.broken = None
        self.forget()

    def identify(self) -> str:
        if self.broken:
            raise self.broken
        return "array generator answers"

    def close(self) -> None:
        self.closed += 1
        if self.broken:
            raise UnsafeOutputs("cannot reach it") from self.broken
        self.on = False


class ArrayDigitizer:
    """Samples what the generator has played, `delay_s` late, through a node."""

    def __init__(
        self, generator: ArrayGenerator, node: Node = lambda v: v, delay_s: float = 37.3e-9, most: int = 4_000_000
    ) -> None:
        self.reading, self.memory = Port("array scope", -2.0, 2.0, "V"), Memory(1, most)
        self.generator, self.node, self.delay_s = generator, node, delay_s
        self.shape = (0, 1.0, 0.0)
        self.configured = self.closed = 0
        self.armed_after = -1
        self.stretch = 1.0
        self.missing = False
        self.waited_s = 0.0

    def finer(self, rate_hz: float, most: int) -> int:
        return min(8, most)

    def configure(self, samples: int, rate_hz: float, start_s: float) -> None:
        self.configured += self.shape != (samples, rate_hz, start_s)
        self.shape = (samples, rate_hz, start_s)
        assert samples <= self.memory.most

    def arm(self) -> None:
        self.armed_after = self.generator.plays

    def wait(self, timeout_s: float) -> None:
        self.waited_s = timeout_s
        if self.missing or self.generator.plays == self.armed_after:
            raise MissedTrigger("no trigger", where="array scope")

    def read(self) -> Record:
        assert self.generator.on
        samples, rate_hz, start_s = self.shape
        t = start_s + np.arange(samples) / rate_hz - self.delay_s
        played = self.generator.played
        index = np.floor(t * self.stretch * self.generator.rate_hz + 1e-6).astype(int)
        volts = self.node(np.where((index >= 0) & (index < len(played)), played[np.clip(index, 0, len(played) - 1)], played[0]))
        words = np.clip(np.rint(volts / STEP_V) + 32768, 1, 65535).astype(np.uint16)
        return Record(words, Scale(STEP_V, 0.0, 32768.0), Axis(start_s, 1 / rate_hz))

    def forget(self) -> None:
        self.shape = (0, 1.0, 0.0)

    def clear(self) -> None:
        self.forget()

    def reopen(self) -> None:
        self.missing = False
        self.forget()

    def identify(self) -> str:
        return "array digitizer answers"

    def close(self) -> None:
        self.closed += 1
