"""A node between waveform generators and digitizers, shared in time by all neurons of a layer.

    batch (batch, n) in V; with K drives and L readings (batch, K): a row is a symbol, column k goes to drive k
      -> plan      one or more equal records that fit both memories            drivers/waveform/record.py
      -> encode    volts to codes, between two markers
      -> exchange  upload, arm, trigger, wait, read                            the two instruments, on one worker thread
         the next record is uploaded while this one is read                    drivers/waveform/ahead.py
      -> track     find both markers in what came back                         drivers/waveform/tracking.py
      -> decode    settled samples of each symbol, averaged, in V
    answer (batch, n) in V, or (batch, L)

Nothing is sent before the whole batch was checked against the generator's limits. A batch is answered whole or not at all.

The delay from trigger to record is measured once, when the device opens, with a finely sampled marker; from then on each
symbol is sampled at a chosen phase, and each record must show its two markers where they are due, with the sign and no less
than a quarter of the contrast that they had when the device was opened.

Markers go through the node. Without them (`align`) the record is found by the delay from the trigger alone, or by the SYNC
pulse of the generator on a channel of its own; a marker in a record without data measures the delay anew from time to time, so
a delay that drifts and a node that fades are still seen.

A node with memory (`memory`) gets sequences (time, batch, N): a step is a symbol for each of N virtual nodes, a sequence is
never cut, and begins after a rest in which the node forgets; a record holds as many as fit. So each shot is from rest, whatever
was played before.

With several drives, each plays its marker while the others rest, and the delay of each to each reading is measured. Drives
that a reading sees are brought together by whole samples of their records; each reading has its delay, and shows the markers
of all drives that it has seen when the device was opened. All play and are read by one trigger.

Instruments that can (`Panelled`, drivers/read_back.py) are asked every few seconds of use, after the record that was just read,
and after any shot that failed, what they hold: a change by another hand is a fault with the old and the new value.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivers.auxiliaries import Auxiliaries
from drivers.closing import close_all
from drivers.read_back import Care
from drivers.watched import Watched
from drivers.waveform.ahead import Ahead, Parts
from drivers.waveform.alignment import REACH, Window
from drivers.waveform.arrival import Arrival, Pairs, arrival
from drivers.waveform.channels import Drive, Drives, Instruments, Read, Reads
from drivers.waveform.layouts import Layouts
from drivers.waveform.record import Record, RecordPlan, data_of
from drivers.waveform.roles import Digitizer, Generator
from drivers.waveform.settings import MemorySettings as MemorySettings
from drivers.waveform.settings import WaveformSettings as WaveformSettings
from drivers.waveform.timing import Timing
from drivers.waveform.tracking import Tracking
from hil.device import Limit, Provenance, Spec
from hil.errors import ConfigError, ContractError, Misaligned


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and times (s) since the device opened; host_s is encoding and decoding, the rest is the bench.

    `records` are those that were read, `symbols` values that were answered. `played_s` is how long all records that were played
    last, with markers, guards and rests. `upload_s` is what was waited for; uploads took `hidden_s` besides, while a record was
    read. `settings_s` went by for setting the instruments and asking what they hold.
    """

    shots: int = 0
    records: int = 0
    symbols: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    realigned: int = 0
    played_s: float = 0.0
    upload_s: float = 0.0
    wait_s: float = 0.0
    read_s: float = 0.0
    host_s: float = 0.0
    hidden_s: float = 0.0
    settings_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A batch that waits for the instruments: its plan, the records of all drives, one after another, and how it is answered.

    Args:
        count: values that are answered.
        shape: of the answer.
        encode_s: seconds that the host took for it.
    """

    plan: RecordPlan
    records: Sequence[Parts]
    count: int
    shape: torch.Size
    encode_s: float


class Waveform:
    """A Device and Streaming. Owns all instruments; `close()` leaves the outputs of the generators off.

    Args:
        drive: an opened driver; or the channel of each input. The generator of the first gives the edge for all instruments.
        read: an opened driver; or the channel of each output.
        settings: see WaveformSettings.
        provenance: who really answers: "real", or "twin" when the bench is virtual; whoever opened it knows.
        clock: seconds from any origin, for `stats`.
        care: when the instruments are asked what they hold, and what a change by another hand leads to.
        auxiliaries: instruments beside these, started already; recovery starts them again.
        order: all instruments, in the order in which they are made safe; None: as they are named, drives first.
        memory: of a node that remembers: it gets whole sequences. None: it has no memory.
        sync: the channel that reads the SYNC pulse, for `align = "sync"`.

    Raises:
        OutOfRange: rest or marker levels outside a generator's limits; nothing was sent.
        ConfigError: channels that are not there, a width for several channels.
        Misaligned: the marker does not come back. Whatever else the instruments raise; the output is off then.
    """

    def __init__(
        self,
        drive: Generator | Sequence[Drive],
        read: Digitizer | Sequence[Read],
        settings: WaveformSettings | None = None,
        provenance: Provenance = "unknown",
        clock: Callable[[], float] = time.perf_counter,
        care: Care | None = None,
        auxiliaries: Auxiliaries | None = None,
        order: Sequence[Any] | None = None,
        memory: MemorySettings | None = None,
        sync: Read | None = None,
    ) -> None:
        drives, reads = (
            drive if isinstance(drive, Sequence) else [Drive(drive)], read if isinstance(read, Sequence) else [Read(read)]
        )  # fmt: skip
        named = [*(one.generator for one in drives), *(one.digitizer for one in (*reads, *([] if sync is None else [sync])))]
        owned = Instruments(named if order is None else order).all
        self._closes = [one.close for one in owned]
        self._clock, self._settings, self._memory = clock, settings or WaveformSettings(), memory
        self._measured_at = 0.0  # of the clock
        self._stats = Stats()
        self._closed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="waveform")
        self._waiting: deque[Shot] = deque()
        self._ends: list[Callable[[], None]] = []
        try:
            self._drives, self._reads = Drives(drives), Reads(reads, sync, self._settings.plays)
            self._spec = self._described(provenance)
            self._watch = Watched(owned, auxiliaries, care, clock, self._drives.port.name, self._forget)
            self._layouts = Layouts(self._drives, self._reads, self._settings, memory)
            self._ahead = Ahead(self._drives, self._reads, clock)
            self._ends.append(self._ahead.close)
            s = self._settings
            accept = replace(s.acceptance, echoes=memory is not None)
            patience_s, probe_s = s.trigger_timeout_s + s.longest_delay_s, self._record_s(self._layouts.probe(0))
            self._timing = Timing(self._drives, self._reads, s.symbol_s, accept, patience_s, probe_s)
            self._track = Tracking(self._layouts, self._reads.names, s, accept, len(drives))
            self._worker.submit(self._open).result()
        except BaseException:
            self.close()
            raise

    def _described(self, provenance: Provenance) -> Spec:
        """Describe the node: one drive and one reading take any width; else a row is a symbol. Raises: ConfigError."""
        width, inputs, outputs = self._settings.width, self._drives.port, self._reads.port
        if self._memory is not None:
            return self._remembering(self._memory.nodes, provenance)
        if len(self._drives) == len(self._reads) == 1:
            return Spec(replace(inputs, size=width), replace(outputs, size=width), provenance=provenance)
        if width is not None:
            raise ConfigError(
                "with several drives or readings a row is one symbol", where="waveform", got=f"width = {width}",
                allowed=f"{len(self._drives)} drives, {len(self._reads)} readings", outputs="off; nothing was set",
                todo="remove width; a layer may be a multiple of the drives wide",
            )  # fmt: skip
        inputs, outputs = replace(inputs, size=len(self._drives)), replace(outputs, size=len(self._reads))
        return Spec(inputs, outputs, provenance=provenance)

    def _remembering(self, nodes: int, provenance: Provenance) -> Spec:
        """Describe a node with memory. Raises: ConfigError: it has several drives or readings, or a width."""
        if len(self._drives) > 1 or len(self._reads) > 1 or self._settings.width is not None:
            raise ConfigError(
                "a node with memory has one drive and one reading, and is as wide as it has virtual nodes", where="memory",
                got=f"{len(self._drives)} drives, {len(self._reads)} readings, width {self._settings.width}",
                allowed="one of each, and no width in [waveform]", outputs="off; nothing was set",
                todo="correct [node], or remove width",
            )  # fmt: skip
        inputs, outputs = replace(self._drives.port, size=nodes), replace(self._reads.port, size=nodes)
        return Spec(inputs, outputs, temporal=True, provenance=provenance)

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of the node."""
        return self._spec

    @property
    def from_rest(self) -> bool:
        """True: see hil.device.Resting."""
        return True

    @property
    def stats(self) -> Stats:
        """Counts and times since the device opened."""
        return self._stats

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the instruments, for people."""
        return self._watch.notes

    @property
    def delay_s(self) -> float:
        """Delay from trigger to the start of a record at the first reading, as measured when the device opened, s."""
        return self._arrival.delay_s(0)

    # The way of the data, from here to `_decode`.

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n) in V -> (batch, n) in V; with K drives and L readings (batch, K) -> (batch, L).

        A node with memory: (time, batch, N) -> (time, batch, N), each sequence of the batch from rest.
        """
        return self.submit(x).result()

    def reset(self) -> None:
        """Do nothing: a node with memory rests before each sequence, and any other one has nothing to forget."""

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Check and encode here, so that a refusal is raised at once; the exchange runs on the worker."""
        if self._closed:
            raise ContractError("the device is closed", where=self._spec.inputs.name, outputs="off")
        self._spec.inputs.check(x)
        sequences = 0 if self._memory is None else self._sequences(x)
        values = _volts(x.transpose(0, 1) if sequences else x, len(self._drives))
        shape = self._answered(x)
        if not values.shape[1]:
            return _done(torch.empty(shape))
        started = self._clock()
        layout = self._layouts.of(values.shape[1], sequences)
        records = [self._layouts.records(layout, k, row) for k, row in enumerate(values)]
        parts = list(zip(*records, strict=True))
        shot = Shot(layout.plan, parts, values.shape[1], shape, self._clock() - started)
        self._waiting.append(shot)
        return self._worker.submit(self._played, shot)

    def _sequences(self, x: Tensor) -> int:
        """Return how many sequences there are in (time, batch, N). Raises: ContractError: there is no time axis."""
        if x.ndim == 3:
            return x.shape[1]
        raise ContractError(
            "a node with memory is driven with sequences", where=self._spec.inputs.name, got=f"shape {tuple(x.shape)}",
            allowed=f"(time, batch, {self._spec.inputs.size})", outputs="unchanged; nothing was sent",
            todo="write sequence = true in [data]",
        )  # fmt: skip

    def _answered(self, x: Tensor) -> torch.Size:
        """Shape of the answer to `x`: as wide as there are readings, where there are several channels."""
        return x.shape if len(self._drives) == len(self._reads) == 1 else torch.Size((*x.shape[:-1], len(self._reads)))

    def _played(self, shot: Shot) -> Tensor:
        """Play all records of a batch, or none."""
        self._waiting.remove(shot)
        plan, count, shape = shot.plan, shot.count, shot.shape
        answer = np.empty((len(self._reads), plan.records * plan.symbols), dtype=np.float32)
        tally = replace(self._stats, host_s=self._stats.host_s + shot.encode_s)
        with self._watch.shot():
            began = self._clock()
            tally = self._remeasured(tally)
            self._ready(plan)
            tally = replace(tally, settings_s=tally.settings_s + self._clock() - began)
            for k, parts in enumerate(shot.records):
                part = answer[:, k * plan.symbols : (k + 1) * plan.symbols]
                tally = self._exchange(plan, parts, part, tally, partial(self._next, shot, k))
        self._stats = replace(tally, shots=tally.shots + 1, symbols=tally.symbols + count)
        found = answer[0, :count] if len(answer) == 1 else np.ascontiguousarray(answer[:, :count].T)
        if self._memory is not None:
            return torch.from_numpy(found).view(shape[1], shape[0], shape[2]).transpose(0, 1).contiguous()
        return torch.from_numpy(found).view(shape)

    def _next(self, shot: Shot, k: int) -> Parts | None:
        """The record behind record k of `shot`: of the same batch, or of the next one; None: there is none, or no more."""
        if self._closed:
            return None
        later = shot.records[k + 1 :] or (self._waiting[0].records if self._waiting else ())
        return later[0] if later else None

    def _remeasured(self, tally: Stats) -> Stats:
        """Measure the delay again if it is time: records without markers say nothing of it.

        Raises:
            Misaligned, Jumped: the marker is gone, has faded, or is another one than before.
        """
        s = self._settings
        if s.align == "markers" or self._clock() - self._measured_at < s.remeasure_s:
            return tally
        before = self._arrival
        self._drives.prepare(s.symbol_rate_hz * s.samples_per_symbol)
        self._ahead.upload(self._layouts.probe(0))
        self._track.follow(self._measure())
        if self._arrival.late != before.late:
            raise Misaligned(
                "the drives do not arrive together as they did", where="waveform align", outputs="inside their limits",
                got=f"shifts of {self._arrival.late} samples", allowed=f"{before.late}",
                todo="look at the trigger of each generator",
            )  # fmt: skip
        step_s = s.symbol_s / s.reads_per_symbol
        moved = any(abs(self._arrival.delay_s(k) - before.delay_s(k)) > 0.5 * step_s for k in range(len(self._reads)))
        return replace(tally, realigned=tally.realigned + moved)

    def _ready(self, plan: RecordPlan) -> None:
        """Set all instruments for this plan; send nothing if they are set already."""
        s = self._settings
        self._drives.prepare(s.symbol_rate_hz * s.samples_per_symbol)
        self._reads.configure(self._layouts.samples(plan), s.symbol_rate_hz * s.reads_per_symbol, self._layouts.start_s(plan))
        self._watch.settle()

    def _exchange(
        self, plan: RecordPlan, records: Parts, answer: NDArray[np.float32], tally: Stats, following: Callable[[], Parts | None]
    ) -> Stats:  # fmt: skip
        """Play one record of each drive, take it back as often as the computer averages, and decode into `answer` (L, symbols).

        Args:
            plan: of the record.
            records: of the drives.
            answer: gets the values, in V.
            tally: counts and times so far.
            following: asked for the next record, once this one has been played and taken.
        """
        t0 = self._clock()
        self._ahead.upload(records)
        self._drives.output(True)
        sent = sum(record.nbytes for record in records)
        tally = replace(tally, upload_s=tally.upload_s + self._clock() - t0, bytes_up=tally.bytes_up + sent)
        answer[:] = 0.0
        for left in reversed(range(self._settings.reads)):
            t1 = self._clock()
            self._reads.play(self._drives, self._rest_s(plan, records), self._timing.patience_s(plan.ends + REACH))
            t2 = self._clock()
            later = None if left else following()
            if later is not None:
                self._ahead.begin(later)
            try:
                measured = self._reads.take()
                t3 = self._clock()
                lag = self._track.lag(plan, None if self._track.pulse is None else self._reads.pulse())
                lags = [self._decoded(plan, which, record, answer[which], lag) for which, record in enumerate(measured)]
                t4 = self._clock()
            finally:
                self._ahead.ended()
            tally = replace(
                tally,
                records=tally.records + 1,
                played_s=tally.played_s + plan.total * self._settings.plays * self._settings.symbol_s,
                bytes_down=tally.bytes_down + sum(record.words.nbytes for record in measured),
                realigned=tally.realigned + any(lags),
                wait_s=tally.wait_s + t2 - t1,
                read_s=tally.read_s + t3 - t2,
                host_s=tally.host_s + t4 - t3,
                upload_s=tally.upload_s + self._clock() - t4,
                hidden_s=self._ahead.hidden_s,
            )
            t5 = self._clock()
            if self._watch.due():
                self._track.trust()
                tally = replace(tally, settings_s=tally.settings_s + self._clock() - t5)
        return tally

    def _rest_s(self, plan: RecordPlan, records: Parts) -> float:
        """Seconds that the records play on behind the last sample that is taken."""
        s, layouts = self._settings, self._layouts
        return self._record_s(records) - layouts.start_s(plan) - layouts.samples(plan) / (s.symbol_rate_hz * s.reads_per_symbol)

    def _record_s(self, records: Parts) -> float:
        """Seconds that the longest record takes."""
        s = self._settings
        return max(len(record) for record in records) / (s.symbol_rate_hz * s.samples_per_symbol)

    def _decoded(self, plan: RecordPlan, which: int, measured: Record, answer: NDArray[np.float32], lag: int | None) -> int:
        """Align and decode the record of a reading; return by how many samples it came late."""
        place, late = self._track.place(plan, which, measured, lag)
        self._decode(plan, measured, place, late, answer)
        return late

    def _decode(self, plan: RecordPlan, measured: Record, place: Window, lag: int, answer: NDArray[np.float32]) -> None:
        """Add the mean of the settled samples of each symbol, in V, divided by the number of averages."""
        first = place.first(plan.data) + lag
        symbols = data_of(plan, measured.words, first, place.period).reshape(plan.symbols, place.period)
        settled = symbols[:, place.skip : place.skip + place.keep]
        words = settled[:, 0] if place.keep == 1 else settled.sum(axis=1, dtype=np.uint32)
        averages, scale = self._settings.reads, measured.scale
        volts = np.multiply(words, np.float32(scale.volts_per_word / (place.keep * averages)), dtype=np.float32)
        volts += np.float32(scale.zero_v / averages)
        answer += volts

    # Opening and recovering: the rungs of hil/devices/recovery.py. Each runs on the worker, after the shots that wait.

    def clear(self) -> None:
        """Empty all wires."""
        self._worker.submit(self._clear).result()

    def _clear(self) -> None:
        for wires in (self._drives, self._reads, self._watch.beside):
            wires.clear()

    def reopen(self) -> None:
        """Open all wires anew."""
        self._worker.submit(self._reopen).result()

    def _reopen(self) -> None:
        for wires in (self._drives, self._reads, self._watch.beside):
            wires.reopen()

    def identify(self) -> str:
        """The same instruments must answer."""
        return "; ".join(self._worker.submit(self._identify).result())

    def _identify(self) -> tuple[str, ...]:
        return (*self._drives.identify(), *self._reads.identify(), *self._watch.beside.identify())

    def reinstate(self) -> None:
        """Outputs off, a reset, settings again, and a record that holds nothing but markers."""
        self._worker.submit(self._reinstated).result()

    def _reinstated(self) -> None:
        with self._watch.again():
            self._reinstate()

    def attend(self) -> None:
        """See hil.device.Attentive."""
        self._watch.attend()

    def verify(self) -> str:
        """The markers must come back, as high as they were; the delay is what they say now."""
        before = self._arrival.delay_s(0)
        self._worker.submit(self._measure).result()
        self._track.back()
        symbols = (self._arrival.delay_s(0) - before) * self._settings.symbol_rate_hz
        moved = f", moved by {symbols:.2f} symbols" if abs(symbols) > 0.01 else ""
        changed = f"; changed by another hand: {self._watch.changed}" if self._watch.changed else ""
        delays = ", ".join(f"{self._arrival.delay_s(which) * 1e9:.2f} ns" for which in range(len(self._reads)))
        return f"delay {delays}{moved}{changed}"

    def _open(self) -> None:
        self._reinstate()
        self._track.begin(self._measured())

    @property
    def _arrival(self) -> Arrival:
        return self._layouts.arrival

    def _reinstate(self) -> None:
        self._forget()
        self._drives.prepare(self._settings.symbol_rate_hz * self._settings.samples_per_symbol)
        self._ahead.upload(self._layouts.probe(0))
        self._watch.lock_out()

    def _measure(self) -> Pairs:
        """Find when the markers come back, with the signs that they had when the device was opened."""
        found = self._measured()
        self._track.check(found)
        return found

    def _measured(self) -> Pairs:
        """Measure the delays; the probe of the first drive is in the generators already, unless another was measured since."""
        several = len(self._drives) > 1
        self._drives.output(True)
        found = []
        for k in range(len(self._drives)):
            if several:
                self._ahead.upload(self._layouts.probe(k))
            found.append(self._timing.delays(self._layouts.longest, self._track.of(k)))
        rate_hz = self._settings.symbol_rate_hz * self._settings.samples_per_symbol
        settled, pairs, lost = arrival(found, rate_hz)
        for missing, which, k in lost:
            if several:
                self._ahead.upload(self._layouts.probe(k))
            self._timing.explain(missing, self._layouts.longest, which, self._track.of(k))
            raise missing
        self._layouts.settle(settled)
        if self._settings.align == "sync":
            self._track.pulse = self._timing.pulse()
            self._layouts.pulse_s = self._track.pulse.edge_s
        self._measured_at = self._clock()
        self._watch.begin()
        return pairs

    def follow(self, offset: Limit, period: Limit | None = None) -> None:
        """See hil.device.Following: rest and markers move, so that they give the readings that they gave."""
        self._worker.submit(self._layouts.use, self._layouts.follow(offset, period)).result()

    def edge(self, shift_s: float = 0.0) -> tuple[Tensor, Tensor]:
        """See hil.device.Timed. The edge is that from the high to the low level within the head marker of the first drive."""
        return self._worker.submit(self._edge, shift_s).result()

    def _edge(self, shift_s: float) -> tuple[Tensor, Tensor]:
        with self._watch.shot():
            self._drives.prepare(self._settings.symbol_rate_hz * self._settings.samples_per_symbol)
            self._ahead.upload(self._layouts.probe(0))
            self._drives.output(True)
            which, s = self._arrival.best(0), self._settings
            late_s = self._arrival.late[0] * s.symbol_s / s.samples_per_symbol
            time_s, volts = self._timing.edge(self._arrival.of(which)[0] - late_s, shift_s, which)
            self._watch.due()
        return torch.from_numpy(time_s), torch.from_numpy(volts)

    def _forget(self) -> None:
        """Forget all settings: after a fault nothing is known of them."""
        self._ahead.forget()
        self._drives.forget()
        self._reads.forget()

    def close(self) -> None:
        """Finish the shot that runs, drop those that wait, switch the outputs off, close all links. Twice is fine.

        Raises:
            UnsafeOutputs: the output of a generator could not be verified to be off.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._worker.shutdown(wait=True, cancel_futures=True)
            for end in self._ends:
                end()
        finally:  # also when a second Ctrl-C ends the wait
            close_all(self._closes)


def _done(answer: Tensor) -> Future[Tensor]:
    future: Future[Tensor] = Future()
    future.set_result(answer)
    return future


def _volts(x: Tensor, drives: int) -> NDArray[np.float32]:
    """(batch, n) -> (1, batch * n), row by row; with several drives (batch, K) -> (K, batch)."""
    flat: NDArray[np.float32] = x.detach().to("cpu", torch.float32).reshape(-1, drives).numpy()
    return np.ascontiguousarray(flat.T)
