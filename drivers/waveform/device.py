"""A node between a waveform generator and a digitizer, shared in time by all neurons of a layer.

    batch (batch, n) in V
      -> plan      one or more equal records that fit both memories            drivers/waveform/record.py
      -> encode    volts to codes, between two markers
      -> exchange  upload, arm, trigger, wait, read                            the two instruments, on one worker thread
      -> align     find both markers in what came back
      -> decode    settled samples of each symbol, averaged, in V
    answer (batch, n) in V

Nothing is sent before the whole batch was checked against the generator's limits. A batch is answered whole or not at all.

The delay from trigger to record is measured once, when the device opens, with a finely sampled marker; from then on each
symbol is sampled at a chosen phase, and each record must show its two markers where they are due, with the sign and no less
than a quarter of the contrast that they had when the device was opened.

Instruments that can (`Panelled`, drivers/read_back.py) are asked every few seconds of use, after the record that was just read,
and after any shot that failed, what they hold: a change by another hand is a fault with the old and the new value.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from drivers.auxiliaries import Auxiliaries
from drivers.read_back import Care
from drivers.watched import Watched
from drivers.waveform.alignment import REACH, Acceptance, Delay, Window, markers_of, steady, unfaded, window
from drivers.waveform.record import BARKER, GUARD, LEAD, Codes, Record, RecordPlan, blank, cut, fill
from drivers.waveform.roles import Digitizer, Generator
from drivers.waveform.timing import Timing
from hil.device import Port, Provenance, Spec
from hil.errors import ConfigError, ContractError
from hil.settings import Count, NotNegative, Positive, Share, check

Match = Annotated[float, Field(gt=0, le=1)]  # at 0 a flat line would pass for a marker
LAYOUTS = 8  # sizes of batches that are remembered


@dataclass(frozen=True, slots=True)
class WaveformSettings:
    """Settings that say how values become a waveform.

    Args:
        symbol_rate_hz: values a second.
        samples_per_symbol: of the generator.
        reads_per_symbol: of the digitizer.
        sample_phase: where a sample lies within its share of the symbol, 0 to 1.
        settle: fraction of each symbol that is discarded; what is left is averaged.
        averages: each record is played and read so many times, and averaged.
        rest_v: level between records; None: 0 V, or the limit nearest to it.
        marker_low_v, marker_high_v: levels of the marker; None: a quarter and three quarters of the drive's range.
        marker_threshold: least correlation of a marker.
        marker_ambiguous: largest share of it that a second match may have.
        marker_jump: largest change of the markers' contrast from one record to the next, as a share of it.
        longest_delay_s: the delay is looked for up to this.
        trigger_timeout_s: how long a trigger is waited for; the time that the record itself takes is added.
        width: neurons of the layer; None takes any.
    """

    symbol_rate_hz: Positive = 100e6
    samples_per_symbol: Count = 1
    reads_per_symbol: Count = 1
    sample_phase: Share = 0.75
    settle: Share = 0.5
    averages: Count = 1
    rest_v: float | None = None
    marker_low_v: float | None = None
    marker_high_v: float | None = None
    marker_threshold: Match = 0.8
    marker_ambiguous: Match = 0.8
    marker_jump: Positive = 0.3
    longest_delay_s: NotNegative = 2e-6
    trigger_timeout_s: Positive = 2.0
    width: Count | None = None

    def __post_init__(self) -> None:
        check(self, "waveform")

    @property
    def acceptance(self) -> Acceptance:
        """Conditions under which a marker counts as found."""
        return Acceptance(self.marker_threshold, self.marker_ambiguous)


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and times (s) since the device opened; host_s is encoding and decoding, the rest is the bench."""

    shots: int = 0
    records: int = 0
    symbols: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    realigned: int = 0
    upload_s: float = 0.0
    wait_s: float = 0.0
    read_s: float = 0.0
    host_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Levels:
    """Volts of the record outside of its data."""

    rest_v: float
    low_v: float
    high_v: float


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """A plan with what is reused by every batch of its size: the record without data, and the code of the rest level."""

    plan: RecordPlan
    empty: Codes
    rest: int


class Waveform:
    """A Device and Streaming. Owns both instruments; `close()` leaves the generator's output off.

    Args:
        generator, digitizer: opened drivers.
        settings: see WaveformSettings.
        provenance: who really answers: "real", or "twin" when the bench is virtual; whoever opened it knows.
        clock: seconds from any origin, for `stats`.
        care: when the instruments are asked what they hold, and what a change by another hand leads to.
        auxiliaries: instruments beside these, started already; recovery starts them again.

    Raises:
        OutOfRange: rest or marker levels outside the generator's limits; nothing was sent.
        Misaligned: the marker does not come back. Whatever else the instruments raise; the output is off then.
    """

    def __init__(
        self,
        generator: Generator,
        digitizer: Digitizer,
        settings: WaveformSettings | None = None,
        provenance: Provenance = "unknown",
        clock: Callable[[], float] = time.perf_counter,
        care: Care | None = None,
        auxiliaries: Auxiliaries | None = None,
    ) -> None:
        self._generator, self._digitizer, self._clock = generator, digitizer, clock
        instruments = (generator, digitizer)
        self._watch = Watched(instruments, auxiliaries, care, clock, generator.drive.name, self._forget)
        self._settings = settings or WaveformSettings()
        width = self._settings.width
        drive, reading = replace(generator.drive, size=width), replace(digitizer.reading, size=width)
        self._spec = Spec(inputs=drive, outputs=reading, provenance=provenance)
        self._layouts: dict[int, BatchLayout] = {}
        self._stats = Stats()
        self._closed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="waveform")
        try:
            self._levels = _levels(self._settings, generator.drive)
            self._check_memories()
            s = self._settings
            self._timing = Timing(
                generator, digitizer, 1 / s.symbol_rate_hz, s.acceptance, s.trigger_timeout_s + s.longest_delay_s,
                self._spec.outputs.name,
            )  # fmt: skip
            self._delay = self._worker.submit(self._open).result()
            self._contrast = self._trusted_contrast = self._opened_contrast = self._delay.contrast
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of the node."""
        return self._spec

    @property
    def stats(self) -> Stats:
        """Counts and times since the device opened."""
        return self._stats

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of the instruments."""
        return self._watch.notes

    @property
    def delay_s(self) -> float:
        """Delay from trigger to the start of a record, as measured when the device opened, s."""
        return self._delay.delay_s

    # The way of the data, from here to `_decode`.

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n) in V -> (batch, n) in V."""
        return self.submit(x).result()

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Check and encode here, so that a refusal is raised at once; the exchange runs on the worker."""
        if self._closed:
            raise ContractError("the device is closed", where=self._spec.inputs.name, outputs="off")
        values = _volts(self._spec.inputs.check(x))
        if not len(values):
            return _done(torch.empty(x.shape))
        started = self._clock()
        layout = self._layout(len(values))
        records = fill(layout.plan, layout.empty, layout.rest, self._generator.encode(values))
        return self._worker.submit(self._shot, layout.plan, records, len(values), x.shape, self._clock() - started)

    def _shot(self, plan: RecordPlan, records: Codes, count: int, shape: torch.Size, encode_s: float) -> Tensor:
        """Play all records of a batch, or none."""
        answer = np.empty(plan.records * plan.symbols, dtype=np.float32)
        tally = replace(self._stats, host_s=self._stats.host_s + encode_s)
        with self._watch.shot():
            self._ready(plan)
            for k, record in enumerate(records):
                part = answer[k * plan.symbols : (k + 1) * plan.symbols]
                tally = self._exchange(plan, record, part, tally)
        self._stats = replace(tally, shots=tally.shots + 1, symbols=tally.symbols + count)
        return torch.from_numpy(answer[:count]).view(shape)

    def _ready(self, plan: RecordPlan) -> None:
        """Set both instruments for this plan; send nothing if they are set already."""
        s, symbol_s = self._settings, 1 / self._settings.symbol_rate_hz
        reads = s.reads_per_symbol
        start_s = self._delay.delay_s + (plan.head - REACH + s.sample_phase / reads) * symbol_s
        self._generator.prepare(s.symbol_rate_hz * s.samples_per_symbol)
        self._digitizer.configure((plan.span + 2 * REACH) * reads, s.symbol_rate_hz * reads, start_s)
        self._watch.settle()

    def _exchange(self, plan: RecordPlan, record: Codes, answer: NDArray[np.float32], tally: Stats) -> Stats:
        """Play one record, take `averages` records back, and decode them into `answer` (symbols,)."""
        t0 = self._clock()
        self._generator.upload(record)
        self._generator.output(True)
        tally = replace(tally, upload_s=tally.upload_s + self._clock() - t0, bytes_up=tally.bytes_up + record.nbytes)
        answer[:] = 0.0
        for _ in range(self._settings.averages):
            t1 = self._clock()
            self._digitizer.arm()
            self._generator.trigger()
            self._digitizer.wait(self._timing.patience_s(LEAD + plan.span + REACH))
            t2 = self._clock()
            measured = self._digitizer.read()
            t3 = self._clock()
            place, lag = self._align(plan, measured)
            self._decode(plan, measured, place, lag, answer)
            tally = replace(
                tally,
                records=tally.records + 1,
                bytes_down=tally.bytes_down + measured.words.nbytes,
                realigned=tally.realigned + (lag != 0),
                wait_s=tally.wait_s + t2 - t1,
                read_s=tally.read_s + t3 - t2,
                host_s=tally.host_s + self._clock() - t3,
            )
            if self._watch.due():
                self._trusted_contrast = self._contrast
        return tally

    def _align(self, plan: RecordPlan, measured: Record) -> tuple[Window, int]:
        """Find where the symbols lie, and by how many samples the whole record came late."""
        s, where = self._settings, self._spec.outputs.name
        place = window(measured.axis, 1 / s.symbol_rate_hz, self._delay.delay_s, s.settle, where)
        found = markers_of(measured, plan, place, self._opened_contrast, s.acceptance, where)
        self._contrast = steady(found, self._contrast, s.marker_jump, where).contrast
        return place, found.lag

    def _decode(self, plan: RecordPlan, measured: Record, place: Window, lag: int, answer: NDArray[np.float32]) -> None:
        """Add the mean of the settled samples of each symbol, in V, divided by the number of averages."""
        first = place.first(plan.data) + lag
        symbols = measured.words[first : first + plan.symbols * place.period].reshape(plan.symbols, place.period)
        settled = symbols[:, place.skip :]
        words = settled[:, 0] if place.keep == 1 else settled.sum(axis=1, dtype=np.uint32)
        averages, scale = self._settings.averages, measured.scale
        volts = np.multiply(words, np.float32(scale.volts_per_word / (place.keep * averages)), dtype=np.float32)
        volts += np.float32(scale.zero_v / averages)
        answer += volts

    # Opening and recovering: the rungs of hil/devices/recovery.py. Each runs on the worker, after the shots that wait.

    def clear(self) -> None:
        """Empty both wires."""
        self._worker.submit(self._clear).result()

    def _clear(self) -> None:
        for wires in (self._generator, self._digitizer, self._watch.beside):
            wires.clear()

    def reopen(self) -> None:
        """Open both wires anew."""
        self._worker.submit(self._reopen).result()

    def _reopen(self) -> None:
        for wires in (self._generator, self._digitizer, self._watch.beside):
            wires.reopen()

    def identify(self) -> str:
        """The same instruments must answer."""
        return "; ".join(self._worker.submit(self._identify).result())

    def _identify(self) -> tuple[str, ...]:
        return (self._generator.identify(), self._digitizer.identify(), *self._watch.beside.identify())

    def reinstate(self) -> None:
        """Output off, a reset, settings again, and a record that holds nothing but markers."""
        self._worker.submit(self._reinstated).result()

    def _reinstated(self) -> None:
        with self._watch.again():
            self._reinstate()

    def attend(self) -> None:
        """See hil.device.Attentive."""
        self._watch.attend()

    def verify(self) -> str:
        """The markers must come back, as high as they were; the delay is what they say now."""
        before = self._delay.delay_s
        self._delay = self._worker.submit(self._measure).result()
        self._contrast = self._trusted_contrast  # records since then may have been measured under other settings
        symbols = (self._delay.delay_s - before) * self._settings.symbol_rate_hz
        moved = f", moved by {symbols:.2f} symbols" if abs(symbols) > 0.01 else ""
        changed = f"; changed by another hand: {self._watch.changed}" if self._watch.changed else ""
        return f"delay {self._delay.delay_s * 1e9:.2f} ns{moved}{changed}"

    def _open(self) -> Delay:
        self._reinstate()
        return self._measured()

    def _reinstate(self) -> None:
        self._forget()
        self._generator.prepare(self._settings.symbol_rate_hz * self._settings.samples_per_symbol)
        self._generator.upload(self._layout(self._longest).empty)
        self._watch.lock_out()

    @property
    def _longest(self) -> int:
        """Symbols in which the delay is looked for."""
        return math.ceil(self._settings.longest_delay_s * self._settings.symbol_rate_hz) + 1

    def _measure(self) -> Delay:
        """Find when the marker of the empty record comes back, with the sign that it had when the device was opened."""
        found = self._measured()
        unfaded(found.contrast, self._opened_contrast, f"{self._spec.outputs.name}, measuring the delay")
        return found

    def _measured(self) -> Delay:
        """Measure the delay; the record is in the generator already."""
        self._generator.output(True)
        found = self._timing.delay(self._longest)
        self._watch.begin()
        return found

    def follow(self, offset: float, period: float | None = None) -> None:
        """See hil.device.Following: rest and markers move, so that they give the readings that they gave."""
        port, before = self._generator.drive, _levels(self._settings, self._generator.drive)
        moved = (_within(port, level + offset, period) for level in (before.rest_v, before.low_v, before.high_v))
        self._worker.submit(self._follow, Levels(*moved)).result()

    def _follow(self, levels: Levels) -> None:
        self._levels = levels
        self._layouts.clear()

    def edge(self, shift_s: float = 0.0) -> tuple[Tensor, Tensor]:
        """See hil.device.Timed. The edge is that from the high to the low level within the head marker."""
        return self._worker.submit(self._edge, shift_s).result()

    def _edge(self, shift_s: float) -> tuple[Tensor, Tensor]:
        with self._watch.shot():
            self._generator.prepare(self._settings.symbol_rate_hz * self._settings.samples_per_symbol)
            self._generator.upload(self._layout(1).empty)
            self._generator.output(True)
            time_s, volts = self._timing.edge(self._delay.delay_s, shift_s)
            self._watch.due()
        return torch.from_numpy(time_s), torch.from_numpy(volts)

    def _check_memories(self) -> None:
        """The longest delay must fit in one record of each."""
        seen = LEAD + len(BARKER) + GUARD + self._longest
        if self._digitizer.memory.most < seen or self._layout(self._longest).plan.records > 1:
            raise ConfigError(
                "the memories are too short to look for the longest delay", where="waveform", got=f"{seen} symbols",
                allowed=f"{self._digitizer.memory.most} samples in, {self._generator.memory.most} out",
                todo="lower longest_delay_s, or raise the memory",
            )  # fmt: skip

    def _layout(self, values: int) -> BatchLayout:
        if values not in self._layouts:
            if len(self._layouts) == LAYOUTS:
                self._layouts.clear()
            s = self._settings
            plan = cut(values, self._generator.memory, self._digitizer.memory, s.samples_per_symbol, s.reads_per_symbol)
            levels = np.array([self._levels.rest_v, self._levels.low_v, self._levels.high_v], dtype=np.float32)
            rest, low, high = (int(code) for code in self._generator.encode(levels))
            self._layouts[values] = BatchLayout(plan, blank(plan, rest, low, high), rest)
        return self._layouts[values]

    def _forget(self) -> None:
        """Forget all settings: after a fault nothing is known of them."""
        self._generator.forget()
        self._digitizer.forget()

    def close(self) -> None:
        """Finish the shot that runs, drop those that wait, switch the output off, close both links. Twice is fine.

        Raises:
            UnsafeOutputs: the generator's output could not be verified to be off.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._worker.shutdown(wait=True, cancel_futures=True)
        finally:  # also when a second Ctrl-C ends the wait
            try:
                self._generator.close()
            finally:
                self._digitizer.close()


def _levels(settings: WaveformSettings, port: Port) -> Levels:
    """Rest and marker levels, checked against the port like any other drive."""
    span = port.shared_high - port.shared_low
    rest = min(max(0.0, port.shared_low), port.shared_high) if settings.rest_v is None else settings.rest_v
    low = port.shared_low + 0.25 * span if settings.marker_low_v is None else settings.marker_low_v
    high = port.shared_low + 0.75 * span if settings.marker_high_v is None else settings.marker_high_v
    port.check(torch.tensor([rest, low, high], dtype=torch.float64))
    return Levels(rest, low, high)


def _within(port: Port, level: float, period: float | None) -> float:
    """Return `level` inside of the limits: moved by whole periods, or at the limit."""
    if period is not None and level > port.shared_high:
        level -= period * math.ceil((level - port.shared_high) / period)
    if period is not None and level < port.shared_low:
        level += period * math.ceil((port.shared_low - level) / period)
    return min(max(level, port.shared_low), port.shared_high)


def _done(answer: Tensor) -> Future[Tensor]:
    future: Future[Tensor] = Future()
    future.set_result(answer)
    return future


def _volts(x: Tensor) -> NDArray[np.float32]:
    """(batch, n) -> (batch * n,), row by row."""
    flat: NDArray[np.float32] = x.detach().to("cpu", torch.float32).reshape(-1).numpy()
    return flat
