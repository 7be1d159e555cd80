"""Keeps one worker alive, and the outputs safe whatever becomes of it.

    call     limits are checked here before the worker gets a byte; a worker that is late or gone is replaced
    replace  kill  ->  wait until it is gone (nobody else could open the device)  ->  start  ->  open  ->  safe

After a safe a device that is programmed must be programmed again, and one with a state must be reset, before it is driven.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hil.errors import ContractError, Desync, DirtySession, ForeignError, HilError, OutOfRange, UnsafeOutputs
from hil.host.charge import Charge
from hil.host.frames import Bytes
from hil.host.record import Record
from hil.host.starter import Starter, starter
from hil.host.workers import Worker, WorkerLost

MADE_SAFE = "safe, by a fresh process of the device"
BY_HAND = "switch the outputs off at the device"


class Supervisor:
    """The device, as far as this process may touch it.

    Args:
        charge: see there.
        record: hears what happens.
        starts: starts workers; ended here.
    """

    def __init__(self, charge: Charge, record: Record, starts: Starter) -> None:
        self._charge, self._limits, self._record = charge, charge.limits, record
        self._starts = starts
        self._worker: Worker | None = None
        self._lock = threading.Lock()  # one call at a time
        self.facts: Mapping[str, Any] = {}
        self.opened = 0
        self._halted, self._overtaken = False, 0
        self._due: set[str] = set()  # what must be done before the device is driven
        self._known = True  # the outputs are safe, or as the trainer set them

    def open(self) -> None:
        """Open the device for the first time. Raises: HilError: as the device's code, or its settings, want."""
        with self._lock:
            self._begin()

    @property
    def ready(self) -> bool:
        """True if the device is open, and what its outputs do is known."""
        return self._worker is not None and self._known

    def forward(self, shape: Sequence[int], data: Bytes, number: int) -> tuple[list[int], memoryview]:
        """Drive the device: float32 bytes in and out.

        Args:
            shape: of the array.
            data: its bytes, float32.
            number: of the call; one that a later Safe has overtaken is refused.

        Raises:
            OutOfRange: before the worker gets anything. DirtySession: program() or reset() is due first.
            LinkTimeout, Disconnected: the worker was replaced, the outputs are safe. UnsafeOutputs: they are not known to be.
        """
        checked(self.facts["inputs"], shape, data)
        with self._lock:
            self._check_order(number)
            if self._due:
                raise DirtySession(
                    "the device was made safe since it was last set up", where="host", got="forward()",
                    allowed=" and ".join(f"{name}()" for name in sorted(self._due)) + " first", outputs="safe",
                )  # fmt: skip
            answer, found = self._call("forward", self._limits.deadline_s, data, shape=list(shape))
        return answer["shape"], found

    def program(self, shape: Sequence[int], data: Bytes, number: int) -> None:
        """Program the device. Raises: as `forward`; ContractError: nothing can be programmed."""
        if self.facts["params"] is None:
            raise ContractError("this node is fixed", where="host", got="program()", allowed="drive it only")
        checked(self.facts["params"], shape, data)
        with self._lock:
            self._check_order(number)
            self._call("program", self._limits.deadline_s, data, shape=list(shape))
            self._due.discard("program")

    def reset(self, number: int) -> None:
        """Forget temporal state. Raises: as `forward`."""
        with self._lock:
            self._check_order(number)
            self._call("reset", self._limits.deadline_s)
            self._due.discard("reset")

    def snapshot(self) -> str:
        """The state of a simulated device, JSON text."""
        with self._lock:
            return json.dumps(self._call("snapshot", self._limits.deadline_s)[0]["state"])

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return a simulated device to a state."""
        with self._lock:
            self._call("restore", self._limits.deadline_s, state=state)
            self._due.clear()

    def halt(self) -> None:
        """Let no call drive the device any more, also none that has begun and waits, until `resume`."""
        self._halted = True

    def resume(self) -> None:
        """Let calls through again, of a new session: none of the old one is left."""
        self._halted, self._overtaken = False, 0

    def _check_order(self, number: int) -> None:
        """Raises: DirtySession: the outputs were made safe after this call was sent."""
        if self._halted or number < self._overtaken:
            raise DirtySession(
                "the outputs were made safe after this call was sent", where="host", got=f"call {number}",
                allowed="a call after that", outputs="safe",
            )  # fmt: skip

    def safe(self, anew: bool = False, number: int = 0) -> bool:
        """Make the outputs safe; a worker that does not answer in time is replaced by one that does it.

        Args:
            anew: close the device and open it again before.
            number: of the call; earlier ones that still wait are refused from now on.

        Returns:
            True: they are safe, by the device's own word.

        Raises:
            UnsafeOutputs: neither could do it.
        """
        self._overtaken = max(self._overtaken, number)
        free = self._lock.acquire(timeout=self._limits.patience_s)
        if not free:
            if (busy := self._worker) is not None:
                busy.stop()  # whoever waits for it sees its end, and replaces it
            if not self._lock.acquire(timeout=self._limits.start_s + 2 * self._limits.patience_s):
                raise unsafe("a fresh process of the device does not answer")
        try:
            return self._safe(anew)
        finally:
            self._lock.release()

    def attend(self) -> None:
        """Replace a worker that ended while nobody asked it anything; call it often."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._worker is not None and self._worker.ended(0.0):
                self._replace("the process of the device ended while it was idle")
            self._starts.attend()
        except UnsafeOutputs:
            return  # it is on record, and the next call says so
        finally:
            self._lock.release()

    def beat(self) -> None:
        """Tell a device that has a guardian of its own that the trainer makes progress; not while it is in a call."""
        if self.facts["beats"] and self._lock.acquire(blocking=False):
            try:
                self._call("beat", self._limits.patience_s)
            except HilError as error:
                self._record.note("beat failed", because=error.what)
            finally:
                self._lock.release()

    def end(self) -> bool:
        """Make safe, close the device, end its worker; True: the outputs are safe, by the device's own word."""
        if not self.facts:  # it was never opened
            self._starts.close()
            return True
        try:
            verified = self.safe()
            with self._lock:
                if self._worker is not None:
                    self._closed()
                    self._worker.kill()
        except HilError as error:
            self._record.note("not closed", because=error.what, got=error.got)
            verified = False
        self._starts.close()
        return verified

    # Whoever calls what follows holds the lock.

    def _closed(self) -> None:
        """Close the device, which is safe; a worker that hangs in that, or crashes, is replaced, and closed no more."""
        assert self._worker is not None
        try:
            self._worker.call("close", self._limits.patience_s)
        except WorkerLost as lost:
            self._replace("close failed", lost.error)

    def _safe(self, anew: bool) -> bool:
        self._must_be_set_up()
        within_s = self._limits.patience_s + (self._limits.start_s if anew else 0.0)
        try:
            answer, _ = self._asked("safe", within_s, anew=anew)
        except WorkerLost as lost:
            self._replace(lost.error.what, lost.error)
            return bool(self.facts["safe"])
        except HilError:
            self._known = False
            raise
        self.opened += anew
        self._known = True
        return bool(answer["verified"])

    def _must_be_set_up(self) -> None:
        self._due = {name for name, due in (("program", self.facts["params"]), ("reset", self.facts["temporal"])) if due}

    def _call(self, do: str, within_s: float, body: Bytes = b"", **head: Any) -> tuple[dict[str, Any], memoryview]:
        """Ask the worker; one that is late or gone is replaced, and the error says so.

        Raises:
            HilError: of the device, or LinkTimeout, Disconnected. UnsafeOutputs: the replacing failed.
        """
        try:
            return self._asked(do, within_s, body, **head)
        except WorkerLost as lost:
            self._replace(lost.error.what, lost.error)
            lost.error.outputs = MADE_SAFE if self.facts["safe"] else "closed; not known to be safe"
            raise lost.error from lost
        except UnsafeOutputs:
            self._known = False
            raise
        except ForeignError:  # the worker made the device safe at once
            self._must_be_set_up()
            raise

    def _asked(self, do: str, within_s: float, body: Bytes = b"", **head: Any) -> tuple[dict[str, Any], memoryview]:
        if self._worker is None:  # the last try to replace it failed
            self._replace("it could not be opened before")
        assert self._worker is not None
        return self._worker.call(do, within_s, body, **head)

    def _begin(self) -> Worker:
        """Start a worker, open the device, and return the worker."""
        if not self._starts.running:
            self._starts.close()
            self._starts = starter()
        worker = Worker(self._starts.begin(), self._record.voice)
        try:
            answer, _ = worker.call(
                "open", self._limits.start_s, recipe=asdict(self._charge.recipe), search_path=list(self._charge.search_path),
                unguarded=self._charge.unguarded,
                deadline_s=self._limits.deadline_s, patience_s=self._limits.patience_s,
            )  # fmt: skip
        except BaseException as error:
            worker.kill()
            if isinstance(error, WorkerLost):
                raise error.error from error
            raise
        self._worker, self.facts = worker, answer["facts"]
        self.opened += 1
        return worker

    def _replace(self, why: str, cause: HilError | None = None) -> None:
        """Kill the worker; a fresh one opens the device and makes it safe.

        Raises:
            UnsafeOutputs: it cannot.
        """
        old, self._worker, self._known = self._worker, None, False
        if old is not None and not old.kill():
            raise unsafe("the process of the device cannot be killed, and has the device") from cause
        self._must_be_set_up()
        fresh: Worker | None = None
        try:
            fresh = self._begin()
            answer, _ = fresh.call("safe", self._limits.patience_s, anew=False)
        except (HilError, WorkerLost) as found:
            error = found.error if isinstance(found, WorkerLost) else found
            self._worker = None
            if fresh is not None:
                fresh.kill()
            self._record.note("not made safe", because=error.what, got=error.got, outputs="unknown")
            raise unsafe(f"{why}; a fresh process of the device could not make them safe: {error.what}", error.got) from cause
        self._known = True
        self._record.note(
            "worker replaced", because=why, pid=fresh.pid, got="" if cause is None else cause.got,
            outputs="safe" if answer["verified"] else "unknown",
        )  # fmt: skip


def unsafe(what: str, got: str = "") -> UnsafeOutputs:
    """The outputs are not known to be safe."""
    return UnsafeOutputs(what, where="host", got=got, outputs="not known to be safe", todo=BY_HAND)


def checked(port: Mapping[str, Any], shape: Sequence[int], data: Bytes) -> None:
    """Refuse an array that is out of the limits of a port, NaN included, as hil.device.Port.check does, without torch.

    Raises:
        OutOfRange: a value, or the number of channels. Desync: other bytes than the shape says.
    """
    if len(data) != 4 * math.prod(shape):
        raise Desync("not an array", where="host", got=f"{len(data)} bytes", allowed=f"float32, shape {tuple(shape)}")
    where = f"port {port['name']}"
    size = port["size"]
    if size is not None and (not shape or shape[-1] != size):
        raise OutOfRange(
            "wrong number of channels", where=where, got=f"shape {tuple(shape)}", allowed=f"(..., {size})",
            outputs="unchanged; nothing was sent",
        )  # fmt: skip
    values = np.frombuffer(data, "<f4").reshape(tuple(shape))
    if not values.size:
        return
    low, high = (np.asarray(port[name], np.float32) for name in ("low", "high"))  # as float32 can hold them
    if max(low.size, high.size) == 1:
        good = bool(low[0] <= values.min() and values.max() <= high[0])  # NaN comes through both, and is neither
    else:
        good = bool(((values >= low) & (values <= high)).all())
    if not good:
        raise OutOfRange(
            "values out of range", where=where, got=f"{values.min():.6g} to {values.max():.6g} {port['unit']}",
            allowed=f"{port['low']} to {port['high']} {port['unit']}, NaN never", outputs="unchanged; nothing was sent",
        )  # fmt: skip
