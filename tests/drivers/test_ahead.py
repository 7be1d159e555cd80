"""The next record is uploaded while one is read; it never changes what is read, and after a fault it counts for nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from array_instruments import STEP_V, ArrayDigitizer, ArrayGenerator, drive

from drivers.waveform.ahead import Ahead
from drivers.waveform.channels import Drive, Drives, Read, Reads
from drivers.waveform.device import Waveform, WaveformSettings
from drivers.waveform.record import OVERHEAD, Codes, Record
from hil.errors import LinkError, NotAReading


class Watching(ArrayDigitizer):
    """Notes how many records were uploaded when each one was read. wanted: reads wait for so many, one after another."""

    def __init__(self, generator: ArrayGenerator) -> None:
        super().__init__(generator)
        self.seen: list[int] = []
        self.wanted: list[int] = []
        self.spoilt = 0

    def read(self) -> Record:
        wanted = self.wanted.pop(0) if self.wanted else 0
        until(lambda: len(self.generator.uploads) >= wanted)
        self.seen.append(len(self.generator.uploads))
        if self.spoilt:
            self.spoilt -= 1
            raise NotAReading("the record has holes", where="array scope")
        return super().read()


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(5000):
        if true():
            return
        time.sleep(1e-3)
    raise AssertionError("it does not happen")


def opened(most: int = 4_000_000) -> tuple[Waveform, ArrayGenerator, Watching]:
    generator = ArrayGenerator(most)
    digitizer = Watching(generator)
    device = Waveform(generator, digitizer, WaveformSettings(longest_delay_s=1e-6))
    digitizer.seen.clear()
    return device, generator, digitizer


def test_records_of_a_batch_go_up_while_the_one_before_comes_down() -> None:
    device, generator, digitizer = opened(OVERHEAD + 300)
    before = len(generator.uploads)
    digitizer.wanted = [before + 2, before + 3, before + 4]  # a read returns once the record behind its own is there
    x = drive(11, 101)
    torch.testing.assert_close(device.forward(x), x, atol=STEP_V, rtol=0)
    assert digitizer.seen == [before + 2, before + 3, before + 4, before + 4]
    assert device.stats.hidden_s > 0
    device.close()


def test_a_shot_that_waits_is_uploaded_while_one_is_read_and_each_record_once() -> None:
    device, generator, digitizer = opened()
    x = [drive(3, 50, seed=seed) for seed in range(3)]
    begin, gate = len(generator.uploads), threading.Event()
    device._worker.submit(gate.wait)  # all three are waiting when the first one is played
    digitizer.wanted = [begin + 2]
    answers = [device.submit(one) for one in x]
    gate.set()
    for one, answer in zip(x, answers, strict=True):
        torch.testing.assert_close(answer.result(), one, atol=STEP_V, rtol=0)
    assert len(generator.uploads) == begin + 3
    device.close()


def test_after_a_fault_what_was_uploaded_ahead_counts_for_nothing() -> None:
    device, _, digitizer = opened()
    x = [drive(3, 50, seed=seed) for seed in range(2)]
    gate = threading.Event()
    device._worker.submit(gate.wait)
    digitizer.spoilt = 1
    first, second = device.submit(x[0]), device.submit(x[1])
    gate.set()
    with pytest.raises(NotAReading):
        first.result()
    torch.testing.assert_close(second.result(), x[1], atol=STEP_V, rtol=0)
    torch.testing.assert_close(device.forward(x[0]), x[0], atol=STEP_V, rtol=0)
    device.close()


def test_an_upload_ahead_that_fails_is_the_fault_of_its_own_shot() -> None:
    device, generator, digitizer = opened()
    x = [drive(3, 50, seed=seed) for seed in range(2)]
    gate, begin, upload, read = threading.Event(), len(generator.uploads), generator.upload, digitizer.read
    broken = threading.Event()

    def breaks(codes: Codes) -> None:
        if len(generator.uploads) == begin + 1 and not broken.is_set():
            broken.set()
            raise LinkError("the cable is gone", where="array generator")
        upload(codes)

    def late() -> Record:
        broken.wait(5)
        return read()

    generator.upload, digitizer.read = breaks, late
    device._worker.submit(gate.wait)
    first, second = device.submit(x[0]), device.submit(x[1])
    gate.set()
    torch.testing.assert_close(first.result(), x[0], atol=STEP_V, rtol=0)
    with pytest.raises(LinkError, match="the cable is gone"):
        second.result()
    torch.testing.assert_close(device.forward(x[1]), x[1], atol=STEP_V, rtol=0)
    device.close()


def test_an_instrument_that_plays_and_reads_does_one_after_the_other() -> None:
    class Both(ArrayGenerator, ArrayDigitizer):
        def __init__(self) -> None:
            ArrayGenerator.__init__(self)
            ArrayDigitizer.__init__(self, self)

    one: Any = Both()
    ahead = Ahead(Drives([Drive(one)]), Reads([Read(one)]), lambda: 0.0)
    parts = (torch.zeros(64, dtype=torch.int16).numpy(),)
    ahead.begin(parts)
    ahead.ended()
    assert not one.uploads
    ahead.upload(parts)
    assert len(one.uploads) == 1
    ahead.close()


def test_nothing_more_is_uploaded_once_the_device_is_closed() -> None:
    device, generator, digitizer = opened()
    x, gate, reading, read = drive(3, 50), threading.Event(), threading.Event(), digitizer.read

    def held() -> Record:
        reading.set()
        gate.wait(5)
        return read()

    digitizer.wait = lambda timeout_s: held() and None
    begin = len(generator.uploads)
    first, second = device.submit(x), device.submit(x)
    reading.wait(5)
    closing = threading.Thread(target=device.close)
    closing.start()
    until(lambda: second.cancelled())
    gate.set()
    closing.join(5)
    torch.testing.assert_close(first.result(), x, atol=STEP_V, rtol=0)
    assert len(generator.uploads) == begin + 1
    assert not generator.on
