"""Records what every device of a run was asked and answered, while it runs.

    shot -> queue (about 32 MiB, then the run waits) -> worker thread -> whole chunks of the reel; at a flush the rest, JSON

Nothing is dropped: a queue that is full, while as much again is on its way, makes the shot wait; a disk that is full ends the
run. `flush` returns when all that was recorded is durable; every checkpoint flushes, and holds how many shots of each reel
belong to whole steps. Going back to it cuts the reels there, so the shots of a step that was broken off, or is made again, are
on the tape once. Format: reel.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hil.device import Spec
from hil.errors import RunError
from hil.files import there, write_atomic
from hil.slew import NO_SLEW, Slew
from hil.tape.chunks import Copies, Track
from hil.tape.format import (
    CHUNKS,
    COLUMNS,
    FLOAT,
    FORMAT,
    NO_KEY,
    PROVENANCES,
    RESET,
    ROW,
    Floats,
    ReelHead,
    check_chunks,
    damaged,
    digest,
    key_of,
    make_arrays,
    packed,
    read_head,
    read_rows,
    row,
    settings_digest,
    stored_length,
)

QUEUE_BYTES = 32 << 20
GATHER_S = 0.15  # before the worker takes what has come: its code is cold each time: 0.12 ms a shot every 30 ms, 0.09 every 100
GATHER_BYTES = 8 << 20  # or that much; a worker that is woken by a shot works just when the next one is sent, so rarely
KEPT_BYTES = 8 << 20  # memory of each shape of drive or answer, for the next ones
RESERVE_BYTES = 256 << 20  # of the disk, left for checkpoints and the rest of the house

Marks = Mapping[str, Sequence[int]]


class Shot(NamedTuple):  # made at each shot, so cheaply
    """A shot to be written.

    Args:
        drive, answer: copies.
        flags: RESET, PROGRAM.
        settings: digest.
        time_ns: since 1970, when the answer was there.
    """

    drive: Floats
    answer: Floats
    flags: int
    settings: bytes
    time_ns: int

    @property
    def nbytes(self) -> int:
        """Bytes of drive and answer."""
        return self.drive.nbytes + self.answer.nbytes


class ReelWriter:
    """Appends shots to one reel. Made by `Tape.reel`; the caller counts and flags, the worker thread does the rest."""

    def __init__(self, tape: Tape, name: str, head: ReelHead) -> None:
        self._tape, self.name, self.head = tape, name, head
        self._folder, self._json = tape.path / name, tape.path / f"{name}.json"
        self.shots = 0  # asked for, on the tape or on the way to it
        self.flags = 0  # what came since the last shot
        self._provenance = PROVENANCES.index(head.spec.provenance)
        self._sum, self._key = hashlib.sha256(), NO_KEY
        self._floats = 0  # shots whose answers are not the whole numbers that the port tells of
        if there(self._json):
            found = read_head(self._json)
            self._check_same(found)
            check_chunks(self._folder, found)
            self.head = found
            self.shots, self._floats = found.shots, found.floats
        else:
            make_arrays(self._folder)
            write_atomic(self._json, head.text().encode())
        self._tracks = {name: Track(self._folder, name, self._room) for name in CHUNKS}

    def _check_same(self, found: ReelHead) -> None:
        if not found.same_device(self.head):
            raise RunError(
                "the device is another one than on the tape", where=str(self._json), got=f"{self.head.spec}, {self.head.made}",
                allowed=f"{found.spec}, {found.made}, set up as then", outputs="safe; whatever was opened is closed again",
                todo="undo the change of the bench or the experiment, or start a new run: hil train",
            )  # fmt: skip

    def copy(self, x: Tensor) -> Floats:
        """Copy x for `put`, which gives the copy back by itself."""
        return self._tape.copies.of(x)

    def put(self, shot: Shot) -> None:
        """Raises: RunError: the tape cannot be written."""
        if self._tape.put(self, shot):
            self.shots += 1

    def cut(self, shots: int, flags: int) -> None:
        """Go back to the first `shots`. The JSON goes first: from then on whatever is beyond does not count.

        Raises:
            RunError: the tape is shorter, or damaged.
        """
        if shots > self.head.shots:
            raise damaged(self._json, f"{self.head.shots} shots", f"at least {shots}, as the checkpoint counts them")
        rows = read_rows(self._folder, self.head)[:shots]
        self._sum = hashlib.sha256(rows.view(np.int64).data)
        self._key = rows[-1]["key"].tobytes() if shots else NO_KEY
        self._floats = 0 if self.head.spec.outputs.bits is None else int((rows["kind"] == FLOAT).sum())
        lengths = _ends(rows)
        self.shots, self.flags = shots, flags
        self._commit(lengths)
        for name, track in self._tracks.items():
            track.go_to(lengths[name])

    def add(self, shots: Sequence[Shot]) -> None:
        """Write shots, on the worker thread."""
        rows = b"".join([self._added(shot) for shot in shots])
        self._tracks["index"].append(np.frombuffer(rows, "<i8").reshape(-1, COLUMNS))
        self._sum.update(rows)

    def _added(self, shot: Shot) -> bytes:
        kind, stored = packed(shot.answer, self.head.spec)
        if kind == FLOAT and self.head.spec.outputs.bits is not None:
            self._not_whole()
        goes_on = self.head.spec.temporal and not shot.flags & RESET
        self._key = key_of(shot.settings, self._key if goes_on else NO_KEY, shot.drive)
        array = "spikes" if kind else "output"
        found = row(
            (self._tracks["input"].used, shot.drive.shape), (self._tracks[array].used, shot.answer.shape), kind, shot.flags,
            self._provenance, shot.time_ns, (self._key, digest(shot.answer), shot.settings),
        )  # fmt: skip
        self._tracks["input"].append(shot.drive.reshape(-1))
        self._tracks[array].append(stored)
        return found

    def _not_whole(self) -> None:
        """Count a shot that is kept as float32 although the port has bits; say so at the first."""
        self._floats += 1
        if self._floats == 1:
            port = self.head.spec.outputs
            warnings.warn(
                f"tape {self.name}: port {port.name} tells of whole numbers of {port.bits} bits, and an answer is none; such "
                "shots are kept as float32, four bytes a value. Correct scale or bits of the port.",
                RuntimeWarning, stacklevel=1,
            )  # fmt: skip

    def settle(self) -> None:
        """Write all that was added, durably, then the JSON that says so."""
        for track in self._tracks.values():
            track.settle()
        lengths = {name: track.used for name, track in self._tracks.items()}
        if lengths["index"] != self.head.shots:
            self._commit(lengths)

    def _commit(self, lengths: Mapping[str, int]) -> None:
        rest = {name: used for name, used in lengths.items() if name != "index"}
        head = replace(self.head, shots=lengths["index"], lengths=rest, sum=self._sum.copy().hexdigest())
        self.head = replace(head, floats=self._floats)
        write_atomic(self._json, self.head.text().encode())

    def _room(self, needed: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < needed + RESERVE_BYTES:
            raise no_room(self._tape.path, needed, free, "nothing that was committed is lost")


class Tape:
    """The tape of a run; one reel a device. A context: leaving it finishes all reels.

    Args:
        path: the folder; new, or the one of a run that goes on: then nothing is recorded until `cut`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reels: dict[str, ReelWriter] = {}
        self.copies = Copies(KEPT_BYTES)
        self._held = there(path / "tape.json")
        self._queue: deque[tuple[ReelWriter, Shot]] = deque()
        self._due, self._flushing, self._closed = False, False, False  # due: the worker is to take what has come
        self._fault: BaseException | None = None
        self._change = threading.Condition()
        self._marks: Marks = {}
        self._worker = threading.Thread(target=self._work, name="tape", daemon=True)
        self._worker.start()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Keep `facts` of the run in tape.json, if it begins now. Raises: RunError: the folder cannot be written."""
        if not self._held:
            write_atomic(self.path / "tape.json", (json.dumps({"format": FORMAT, **facts}, indent=1) + "\n").encode())

    def reel(
        self, name: str, spec: Spec, streaming: bool, made: Mapping[str, Any], settings: str, slew: Slew = NO_SLEW
    ) -> ReelWriter:  # fmt: skip
        """Begin the reel of a device, or go on with it.

        Args:
            name: of the reel.
            spec: of the device.
            streaming: it takes shots ahead.
            made: how an array was asked of its chip.
            settings: a text of everything else that decides how the device answers.
            slew: how it keeps its steps.
        """
        text = json.dumps({"spec": spec.table(), "made": made, "settings": settings}, sort_keys=True)
        head = ReelHead(spec, streaming, made, settings_digest(text).hex(), 0, dict.fromkeys(("input", "output", "spikes"), 0))
        head = replace(head, slew=slew)
        self._reels[name] = ReelWriter(self, name, head)
        return self._reels[name]

    @property
    def nbytes(self) -> int:
        """Bytes that are on the tape, durably."""
        return sum(reel.head.nbytes for reel in self._reels.values())

    def put(self, reel: ReelWriter, shot: Shot) -> bool:
        """Waits while the queue is full. False: the run goes on from a checkpoint that was not reached yet.

        Raises:
            RunError: the tape cannot be written.
        """
        if self._held:
            return False
        waiting = len(self._queue) * shot.nbytes
        if waiting > GATHER_BYTES and (not self._due or waiting > QUEUE_BYTES):
            with self._change:
                self._due = True
                self._change.notify_all()
                if waiting > QUEUE_BYTES:
                    self._change.wait_for(lambda: self._fault or not self._due)
        self._check()
        if self._closed:
            raise RunError("a shot after the tape was closed is not on it", where=str(self.path), todo="close the device first")
        self._queue.append((reel, shot))  # without the lock: the thread that drives is kept as short as can be
        return True

    def place(self) -> Marks:
        """Return where the tape stands."""
        return {name: (reel.shots, reel.flags) for name, reel in self._reels.items()}

    def mark(self) -> None:
        """A step is whole: what was recorded until now belongs to it."""
        self._marks = self.place()

    def flush(self) -> Marks:
        """Make all that was recorded durable; returns what `cut` needs to come back to the last whole step.

        Raises:
            RunError: it cannot be written.
        """
        with self._change:
            self._flushing = True
            self._change.notify_all()
            self._change.wait_for(lambda: self._fault or not self._flushing)
            self._check()
        return dict(self._marks)

    def cut(self, marks: Marks | None) -> None:
        """Go back to where `flush` or `place` gave these marks.

        Raises:
            RunError: the run was not recorded then, or the tape is damaged.
        """
        if marks is None or set(marks) != set(self._reels):
            raise RunError(
                "the run was not recorded from its beginning", where=str(self.path),
                got="a checkpoint without a tape" if marks is None else f"reels {', '.join(self._reels)}",
                allowed="train.record = true since the start" if marks is None else ", ".join(marks),
                outputs="safe; whatever was opened is closed again",
                todo="to go on without a tape: record = false in [train] of config.toml, then hil resume RUN --changed",
            )  # fmt: skip
        if not self._held:
            self.flush()
        for name, (shots, flags) in marks.items():
            self._reels[name].cut(int(shots), int(flags))
        if self._held:
            self._held = False
            self.mark()

    def close(self) -> None:
        """Finish. May be called twice. Raises: RunError: something could not be written."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._held:
                self.flush()
        finally:
            with self._change:
                self._change.notify_all()
            self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(RunError):  # what is under way, an output that is not off perhaps, matters more
            self.close()

    def _check(self) -> None:
        if self._fault is not None:
            if isinstance(self._fault, RunError):
                raise self._fault
            raise RunError(
                f"the tape cannot be written: {self._fault}", where=str(self.path), allowed="a writable disk with free space",
                todo="free space, then hil resume",
            ) from self._fault  # fmt: skip

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._due or self._flushing or self._closed, GATHER_S)
                flushing, closed = self._flushing, self._closed
                shots, self._due = [self._queue.popleft() for _ in range(len(self._queue))], False
                self._change.notify_all()
            try:
                for reel, found in _by_reel(shots).items():
                    reel.add(found)
                    for shot in found:
                        self.copies.done(shot.drive)
                        self.copies.done(shot.answer)
                if flushing and not shots:
                    for reel in self._reels.values():
                        reel.settle()
            except Exception as error:  # noqa: BLE001 - handed over whole to the thread that records
                with self._change:
                    self._fault = error
                    self._change.notify_all()
                return
            if shots:
                continue
            if flushing:
                with self._change:
                    self._flushing = False
                    self._change.notify_all()
            if closed:
                return


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes on the tape, if the learner sends every example through every layer once: of a shot, an epoch, the whole run."""

    shot: int
    epoch: int
    run: int

    @classmethod
    def of(cls, widths: Sequence[int], time_steps: int, spiking: bool, batch: int, examples: int, epochs: int) -> Needs:
        """Estimate what a training records.

        Args:
            widths: of the hidden layers.
            time_steps: T; 1 for static devices.
            spiking: the devices answer with spikes.
            batch: examples.
            examples: of an epoch, those of the validation included.
            epochs: of the training.
        """
        value = 4 + 1 / 8 if spiking else 8
        row = round(max(widths, default=0) * time_steps * value)
        each = round(sum(widths) * time_steps * value)
        return cls(row * batch + ROW.itemsize, each * examples, each * examples * epochs)

    def check(self, path: Path, there: int = 0) -> str:
        """Return a line that says how much will be recorded.

        Args:
            path: of the tape.
            there: bytes that are on the tape.

        Raises:
            RunError: the disk cannot hold the rest.
        """
        free, rest = shutil.disk_usage(_standing(path)).free, max(0, self.run - there)
        if free < rest + RESERVE_BYTES:
            raise no_room(path, rest, free, "safe; whatever was opened is closed again")
        return (
            f"{amount(self.shot)} a shot, {amount(self.epoch)} an epoch and {amount(self.run)} in all, "
            f"times the passes that the learner makes; {amount(free)} free"
        )


def _by_reel(shots: Sequence[tuple[ReelWriter, Shot]]) -> dict[ReelWriter, list[Shot]]:
    found: dict[ReelWriter, list[Shot]] = {}
    for reel, shot in shots:
        found.setdefault(reel, []).append(shot)
    return found


def _standing(path: Path) -> Path:
    """`path`, or the folder above it that is there."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def no_room(where: Path, needed: int, free: int, state: str) -> RunError:
    """The error of a disk that cannot hold the tape."""
    return RunError(
        "the disk cannot hold the tape", where=str(where), got=f"{amount(free)} free",
        allowed=f"{amount(needed)}, and {amount(RESERVE_BYTES)} for everything else", outputs=state,
        todo="free space, choose another --run folder, or train without record",
    )  # fmt: skip


def amount(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def now_ns() -> int:
    """Return the time in ns since 1970."""
    return time.time_ns()


def _ends(rows: NDArray[np.void]) -> dict[str, int]:
    """Items of each array that these shots take."""
    found = {**dict.fromkeys(CHUNKS, 0), "index": len(rows)}
    for last in rows[-1:]:
        found["input"] = int(last["in_start"] + np.prod(last["in_shape"][: last["in_ndim"]]))
    for name, spiking in (("output", False), ("spikes", True)):
        for last in rows[(rows["kind"] > 0) == spiking][-1:]:
            found[name] = int(last["out_start"]) + stored_length(
                int(last["kind"]), int(np.prod(last["out_shape"][: last["out_ndim"]]))
            )
    return found
