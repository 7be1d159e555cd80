"""Records without markers, and sequences for a node that remembers, on instruments made of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from array_instruments import STEP_V, ArrayDigitizer, ArrayGenerator, drive

from drivers.waveform.channels import Read
from drivers.waveform.device import MemorySettings, Waveform, WaveformSettings
from drivers.waveform.record import LEAD, TRAIL, Axis, Frame, Memory, Record, Scale, uncut
from hil.device import Port
from hil.errors import ConfigError, ContractError, Jumped, Misaligned
from hil.settings import check

SYMBOL_S = 1e-8
REMEMBERS = MemorySettings(nodes=5, rest_s=30 * SYMBOL_S)


class TwoChannels(ArrayDigitizer):
    """Channel 1 reads the node, channel 2 SYNC, all `late_s` later than the trigger says; SYNC has a cable of its own."""

    def __init__(self, generator: ArrayGenerator, **rest: Any) -> None:
        super().__init__(generator, **rest)
        self.reading = Port("array scope", (-2.0, -1.0), (2.0, 5.0), "V", 2)
        self.late_s, self.sync_s, self.share = 0.0, 3.2e-9, 0.5

    def configure(self, samples: int, rate_hz: float, start_s: float) -> None:
        super().configure(samples, rate_hz, start_s)

    def read(self, channel: int = 0) -> Record:
        samples, rate_hz, start_s = self.shape
        self.delay_s += self.late_s
        found = super().read()
        self.delay_s -= self.late_s
        if channel == 0:
            return found
        t = start_s + np.arange(samples) / rate_hz - self.late_s - self.sync_s
        high = (t >= 0) & (t < self.share * len(self.generator.playing) / self.generator.rate_hz)
        return Record(np.where(high, 40000, 20000).astype(np.uint16), Scale(1.65e-4, 0.0, 20000.0), Axis(start_s, 1 / rate_hz))


def bench(settings: WaveformSettings, memory: MemorySettings | None = None, **scope: Any) -> tuple[Waveform, Any, Any]:
    generator = ArrayGenerator(scope.pop("memory_samples", 4_000_000))
    if settings.align != "sync":
        digitizer = ArrayDigitizer(generator, **scope)
        return Waveform(generator, digitizer, settings, memory=memory), generator, digitizer
    both = TwoChannels(generator, **scope)
    return Waveform(generator, [Read(both)], settings, memory=memory, sync=Read(both, 1)), generator, both


@pytest.mark.parametrize("align", ["trigger", "sync"])
@pytest.mark.parametrize("reads", [1, 4])
@pytest.mark.parametrize("delay_s", [0.0, 37.3e-9, 1.99e-6])
def test_without_markers_every_value_comes_back_in_its_place(align: Any, reads: int, delay_s: float) -> None:
    device, generator, _ = bench(WaveformSettings(reads_per_symbol=reads, align=align), delay_s=delay_s)
    x = drive(7, 30)
    torch.testing.assert_close(device.forward(x), x, atol=1.5 * STEP_V, rtol=0)
    assert len(generator.uploads[-1]) == LEAD + 210 + TRAIL
    assert not generator.uploads[-1][:LEAD].any()
    device.close()


def test_sync_sees_a_late_record_and_the_trigger_alone_does_not() -> None:
    x = drive(7, 30)
    for align, right in (("sync", True), ("trigger", False)):
        device, _, digitizer = bench(WaveformSettings(align=align))  # type: ignore[arg-type]
        if align == "sync":
            digitizer.late_s = 2 * SYMBOL_S
        else:
            digitizer.delay_s += 2 * SYMBOL_S
        assert torch.allclose(device.forward(x), x, atol=1.5 * STEP_V) is right
        assert device.stats.realigned == int(right)
        device.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda d: setattr(d, "late_s", 5 * SYMBOL_S), r"another time.*\+5 samples"),
        (lambda d: setattr(d, "late_s", 9 * SYMBOL_S), "not found|another time"),
        (lambda d: setattr(d, "share", 0.4), "another length"),
        (lambda d: setattr(d, "share", 0.0), "no rising edge"),
    ],
)
def test_a_sync_pulse_that_is_not_as_it_was_is_misaligned(wrong: Callable[[TwoChannels], None], said: str) -> None:
    device, _, digitizer = bench(WaveformSettings(align="sync"))
    wrong(digitizer)
    with pytest.raises(Misaligned, match=said):
        device.forward(drive(7, 30))
    device.close()


def test_a_sync_pulse_that_cannot_be_told_is_refused_at_open() -> None:
    def opened(change: Callable[[TwoChannels], None]) -> None:
        digitizer = TwoChannels(generator)
        change(digitizer)
        Waveform(generator, [Read(digitizer)], WaveformSettings(align="sync"), sync=Read(digitizer, 1))

    generator = ArrayGenerator()
    with pytest.raises(Misaligned, match="SYNC pulse was not found"):
        opened(lambda d: setattr(d, "share", 0.0))
    with pytest.raises(ConfigError, match="at a sampling instant"):
        opened(lambda d: setattr(d, "sync_s", d.delay_s - 30e-9 + 0.75 * SYMBOL_S))
    assert generator.on is False


def test_a_delay_that_drifts_is_measured_again() -> None:
    """Without markers in the records: by a marker of its own, as often as the file says."""
    x = drive(7, 30)
    for after_s, right in ((0.0, True), (1e6, False)):
        device, _, digitizer = bench(WaveformSettings(align="trigger", remeasure_s=after_s))
        device.forward(x)
        digitizer.delay_s += 1.3 * SYMBOL_S
        assert torch.allclose(device.forward(x), x, atol=1.5 * STEP_V) is right
        assert device.stats.realigned == int(right)
        device.close()


def test_a_node_that_fades_is_seen_without_markers() -> None:
    device, _, digitizer = bench(WaveformSettings(align="trigger", remeasure_s=0.0))
    x = drive(7, 30)
    device.forward(x)
    digitizer.node = lambda v: 0.6 * v
    with pytest.raises(Jumped, match="otherwise than a moment ago"):
        device.forward(x)
    digitizer.node = lambda v: 0.2 * v
    with pytest.raises(Misaligned, match="faded"):
        device.forward(x)
    device.close()


@pytest.mark.parametrize("align", ["markers", "trigger", "sync"])
def test_sequences_stay_whole_and_in_their_order_behind_a_rest(align: Any) -> None:
    device, generator, _ = bench(WaveformSettings(align=align, longest_delay_s=1e-6), REMEMBERS, memory_samples=400)
    assert device.spec.memory
    assert (device.spec.inputs.size, device.spec.outputs.size) == (5, 5)
    x = drive(40, 3, 5)
    device.reset()
    torch.testing.assert_close(device.forward(x), x, atol=1.5 * STEP_V, rtol=0)
    assert device.stats.records == 3
    rest, data = generator.uploads[-1], np.rint(x[:, 2].reshape(-1).numpy() * 32767).astype(np.int16)
    first = next(k for k in range(len(rest)) if np.array_equal(rest[k : k + 200], data))
    assert not rest[first - 30 : first].any()
    if align == "markers":
        assert not rest[first + 200 : first + 230].any()
        assert rest[first - 52 : first - 38].any()
    else:
        assert not rest[:first].any()
        assert not rest[first + 200 :].any()
    device.close()


@pytest.mark.parametrize("align", ["markers", "trigger", "sync"])
def test_short_sequences_share_a_record_each_behind_its_reset_and_rest(align: Any) -> None:
    """Seven of 20 symbols, of which three fit a record: 3, 3, 1, what is left of the last one at rest."""
    memory = MemorySettings(nodes=5, rest_s=30 * SYMBOL_S, reset_v=-0.5, reset_s=7 * SYMBOL_S)
    most = Frame(int(align == "markers"), 30, 7).overhead + 3 * 20 + 2 * 37
    settings = WaveformSettings(align=align, reads_per_symbol=2, longest_delay_s=2e-7)
    device, generator, _ = bench(settings, memory, memory_samples=most)
    x = drive(4, 7, 5).abs()
    torch.testing.assert_close(device.forward(x), x, atol=1.5 * STEP_V, rtol=0)
    assert (device.stats.records, device.stats.symbols) == (3, 140)
    assert device.stats.played_s == pytest.approx(3 * most * settings.symbol_s)
    codes = np.rint(x.transpose(0, 1).reshape(7, 20).numpy() * 32767).astype(np.int16)
    for record, parts in zip(generator.uploads[-3:], (codes[:3], codes[3:6], codes[6:]), strict=True):
        first = next(k for k in range(len(record)) if np.array_equal(record[k : k + 20], parts[0]))
        for k in range(3):
            data = first + k * 57
            part = parts[k] if k < len(parts) else np.zeros(20)
            np.testing.assert_array_equal(record[data : data + 20], part)
            assert set(record[data - 37 : data - 30].tolist()) == {round(-0.5 * 32767)}
            assert not record[data - 30 : data].any()
    device.close()


def test_a_sequence_that_does_not_fit_a_record_is_refused_whole() -> None:
    device, generator, _ = bench(WaveformSettings(align="trigger", longest_delay_s=1e-7), REMEMBERS, memory_samples=200)
    before = len(generator.uploads)
    room = (200 - Frame(0, 30).overhead) // 5
    with pytest.raises(
        ConfigError, match=rf"(?s)never cut.*{room + 1} steps of 5.*allowed: {room} steps.*nothing was sent"
    ) as refused:
        device.forward(drive(room + 1, 2, 5))
    assert f"steps = {room} in [data]" in refused.value.todo
    assert (len(generator.uploads), device.stats.shots) == (before, 0)
    x = drive(room, 2, 5)
    torch.testing.assert_close(device.forward(x), x, atol=1.5 * STEP_V, rtol=0)
    device.close()


def test_the_plan_of_whole_sequences() -> None:
    small, read = Memory(8, 1000), Memory(1, 4096)
    plan = uncut(40, 5, 3, small, read, 2, 1, Frame(1, 30, 7))
    assert (plan.symbols, plan.records, plan.sequences, plan.total) == (200, 3, 1, 200 + plan.frame.overhead)
    assert plan.data == 30 + 21 + 30 + 7 + 30
    assert (plan.reset, plan.tail) == (plan.data - 37, plan.data + 200 + 8 + 30)
    assert plan.ends + TRAIL == plan.total
    without = uncut(40, 5, 1, small, read, 2, 1, Frame(0, 30, 7))
    assert (without.begins, without.ends) == (without.data, without.data + 200) == (LEAD + 37, LEAD + 237)


def test_the_plan_of_sequences_that_share_a_record() -> None:
    drive, read, frame = Memory(8, 4096), Memory(1, 4096), Frame(1, 30, 7)
    plan = uncut(4, 5, 10, drive, read, 2, 1, frame)
    assert (plan.symbols, plan.records, plan.sequences, plan.total) == (200, 1, 10, 200 + 9 * 37 + frame.overhead)
    assert (plan.length, plan.pitch, plan.span) == (20, 57, 200 + 9 * 37)
    assert plan.tail == plan.data + plan.span + 8 + 30
    assert plan.ends + TRAIL == plan.total
    most = (2048 - frame.overhead - 20) // 57 + 1
    many = uncut(4, 5, 2 * most + 1, drive, read, 2, 1, frame)
    assert (many.records, many.sequences) == (3, -(-(2 * most + 1) // 3))
    assert many.sent <= 4096
    assert uncut(4, 5, 2 * most, drive, read, 2, 1, frame).records == 2
    assert uncut(4, 5, 9, Memory(8, 4096), Memory(1, frame.overhead + 20 + 56), 1, 1, frame).sequences == 1


def test_what_is_no_sequence_or_no_memory_is_refused() -> None:
    device, _, _ = bench(WaveformSettings(align="trigger"), REMEMBERS)
    with pytest.raises(ContractError, match="driven with sequences"):
        device.forward(drive(40, 5))
    device.close()
    generator = ArrayGenerator()
    with pytest.raises(ConfigError, match="as wide as it has virtual nodes"):
        Waveform(generator, ArrayDigitizer(generator), WaveformSettings(width=3), memory=REMEMBERS)
    with pytest.raises(ConfigError, match="shorter than the loop"):
        MemorySettings(nodes=5, rest_s=1e-6, delay_s=2e-6)
    with pytest.raises(ConfigError, match="level and a duration"):
        MemorySettings(nodes=5, rest_s=1e-6, reset_v=0.1)
    with pytest.raises(ConfigError, match="align"):
        check(WaveformSettings(align="luck"), "waveform")  # type: ignore[arg-type]
