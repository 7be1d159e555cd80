"""The trainer's end: a Device whose every call is answered by a host.

    with hosted(Recipe("my_lab:Rig", {"port": 3})) as device:      a host of this computer, started and ended here
        device.forward(x)
    with connected("lab-pc:5510", keys) as device:                 one that `hil host` serves elsewhere

Shots to a host that was started here go past gRPC (hil/host/lane.py), as long as that way is open and nobody else is on it.
Rungs of the recovery ladder: `clear` has nothing to do, as a call has its own stream and a late answer dies with it; `reopen`
has the device opened anew, by a new host if this one ended; `identify` asks for its class and ports; `reinstate` makes safe and
programs again. The calls themselves, beats and deadlines: hil/host/connection.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from torch import Tensor

from hil.device import Spec
from hil.errors import (
    ConfigError,
    ContractError,
    Ended,
    LinkError,
    LinkTimeout,
    NotAReading,
    OpenFailed,
    WrongInstrument,
)
from hil.files import loads
from hil.host import device_pb2 as pb
from hil.host.charge import Limits, Recipe
from hil.host.connection import LOOK_S, PLAYED, Connection
from hil.host.faults import raise_from
from hil.host.keys import channel_credentials
from hil.host.local import LocalHost
from hil.host.server import loopback
from hil.host.wire import parts
from hil.slew import NO_SLEW, Slew
from hil.snapshot import packed, unpacked


class Hosted:
    """A Device that a host owns. Made by `hosted` and `connected`.

    Args:
        address: of the host.
        credentials: of this end; None: plain text, on this computer alone.
        local: the host, if it was started here; kept as an attribute.
        unguarded: a device that cannot be made safe was asked for.
    """

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, local: LocalHost | None, unguarded: bool = False
    ) -> None:
        self.local = local
        self._host = Connection(address, credentials, local, unguarded)
        self._params: Tensor | None = None
        self._closed = False
        self._first = self._host.facts

    # ---- what a Device is -----------------------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of the device."""
        return self._host.spec

    @property
    def slew(self) -> Slew:
        """Steps of the drive, as the device or the host around it keeps them."""
        by = self._host.facts.slew_by
        row_s = self._host.facts.row_s if self._host.facts.HasField("row_s") else None
        return Slew("refuses" if by == "refuses" else "ramps", row_s) if by in ("refuses", "ramps") else NO_SLEW

    @property
    def unguarded(self) -> bool:
        """True if nobody can make this device safe; every result must say so."""
        return not self._host.facts.safe

    @property
    def description(self) -> str:
        """Class of the device, and where it is, a line for people."""
        return f"{self._host.facts.device} at {self._host.where}"

    def program(self, params: Tensor) -> None:
        """Set `spec.params` (size,).

        Raises:
            ContractError: nothing can be programmed. OutOfRange: before anything is sent. Others: as `forward`.
        """
        if self._host.spec.params is None:
            raise ContractError("this node is fixed", where=self._host.where, got="program()", allowed="drive it only")
        shape, data = sent(self._host.spec.params.check(params))
        raise_from(self._asked("Program", parts(shape, data, self._host.call())))
        self._params = params.detach().clone()

    def reset(self) -> None:
        """Forget temporal state."""
        if self._host.spec.temporal:
            raise_from(self._asked("Reset", self._host.call()))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) -> (batch, n_out); temporal: (time, batch, n_in) -> (time, batch, n_out).

        Raises:
            OutOfRange: before anything is sent.
            LinkTimeout: the device, or its host, gave no answer in time. Disconnected: its process ended, or its host.
            Ended: the session is over, as nothing was heard from this program for a while.
            UnsafeOutputs: the outputs are not known to be safe.
            NotAReading: the answer holds NaN or infinity. Others: as the device raises them.
        """
        shape, data = sent(self._host.spec.inputs.check(x))
        self._check_open()
        due = [*shape[:-1], self._host.spec.outputs.size or (shape[-1] if shape else 1)]
        found_shape, found = self._host.shot(shape, data, due)
        if found_shape != due:
            raise ContractError(
                "the answer has another shape", where=self._host.where, got=f"{tuple(found_shape)}", allowed=f"{tuple(due)}",
                outputs=PLAYED, todo="correct the device, or the ports that it declares",
            )  # fmt: skip
        return self._measured(np.frombuffer(found, "<f4").reshape(found_shape)).to(x.device)

    def _measured(self, values: Any) -> Tensor:
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):  # NaN comes through both
            bad = int((~np.isfinite(values)).sum())
            raise NotAReading(
                f"{bad} of {values.size} values NaN or infinite",
                where=self._host.where,
                allowed="finite numbers",
                outputs=PLAYED,
            )
        return torch.from_numpy(values if values.flags.writeable else values.copy())

    def safe(self) -> None:
        """Bring the outputs to safe, read back.

        Raises:
            UnsafeOutputs: they are not known to be. A device that nobody can make safe is closed instead, and raises nothing.
        """
        self._made_safe(False)

    def _made_safe(self, anew: bool) -> None:
        call = self._host.call()
        call.anew = anew
        answer = self._asked("Safe", call)
        raise_from(answer)
        if not answer.verified and not self.unguarded:
            raise self._host.unsafe("the host does not say that they are safe")

    def close(self) -> None:
        """Make safe and end the session; a host that was started here closes the device and ends. May be called twice.

        Raises:
            UnsafeOutputs: the outputs are not known to be safe.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self.local is None:
                self.safe()
        except (LinkError, Ended) as error:
            raise self._host.unsafe(error.what) from error
        finally:
            self._host.close()
            status = None if self.local is None else self.local.end(self._host.longest_s)
        if status is not None and status not in (0, 3):
            raise self._host.unsafe(f"the host ended with status {status}")

    def snapshot(self) -> Mapping[str, object]:
        """Return the whole state of a simulated device; {} of any other."""
        if not self._host.facts.restorable:
            return {}
        answer = self._asked("Snapshot", self._host.call())
        raise_from(answer)
        state = loads(answer.json, self._host.where, ContractError)
        if not isinstance(state, dict):
            raise ContractError("not a state", where=self._host.where, got=type(state).__name__, allowed="a JSON object")
        return unpacked(state)

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot; an empty one restores nothing."""
        if state:
            raise_from(self._asked("Restore", pb.State(call=self._host.call(), json=json.dumps(packed(state)))))

    def beat(self) -> None:
        """Tell that this program makes progress: for long work without the device. Costs a look at the clock most of the time.

        Never call it from a thread of its own: a program that hangs would be taken for one that works.
        """
        self._host.beat()

    # ---- rungs of the recovery ladder -----------------------------------------------------------------------------------

    def clear(self) -> None:
        """Do nothing: a call has its own stream, and what a late one still brings is thrown away with that."""

    def reopen(self) -> None:
        """Open the device anew: by its host, or by a new one if that ended or gives no answer.

        Raises:
            OpenFailed: nobody answers, or the process of the old host still has the device. UnsafeOutputs. Ended.
        """
        before = self._host.facts.opened
        self._host.close()
        if self.local is not None and not self.local.running:
            self._host.ended_well()
            self.local.start()
            self._host.begin()
            return
        try:
            self._host.begin()
        except (LinkTimeout, OpenFailed):
            if self.local is None:
                raise
            self.local.kill()
            self.local.start()
            self._host.begin()
            return
        if self._host.facts.opened == before:  # else a fresh process has opened it since the fault
            self._made_safe(True)
            self._host.describe()

    def identify(self) -> str:
        """Return what the device is.

        Raises:
            WrongInstrument: another class, or other ports, than when it was opened first.
        """
        self._host.describe()
        for name in ("device", "inputs", "outputs", "params", "temporal", "provenance", "neurons"):
            was, now = getattr(self._first, name), getattr(self._host.facts, name)
            if was != now:
                raise WrongInstrument(
                    "another device answers", where=f"{self._host.where}, {name}", got=said(now), allowed=said(was),
                    outputs="untouched", todo="start again with the device that is there now",
                )  # fmt: skip
        return self.description

    def reinstate(self) -> None:
        """Make safe, program what was programmed last, and reset a device that has a state."""
        self.safe()
        if self._params is not None:
            self.program(self._params)
        self.reset()

    def verify(self) -> str:
        """A beat must be answered, by a host whose device is open.

        Raises:
            LinkTimeout: no answer. DirtySession: the device is not open.
        """
        self._host.check_beat()
        return f"{self.description}: open"

    def _check_open(self) -> None:
        if self._closed:
            raise ContractError("this device is closed", where=self._host.where, outputs="safe", todo="open it again")

    def _asked(self, name: str, request: Any) -> Any:
        if name != "Safe":
            self._check_open()
        return self._host.ask(name, request)


@contextmanager
def hosted(
    recipe: Recipe,
    limits: Limits | None = None,
    *,
    log: Path | None = None,
    unguarded: bool = False,
    keep: Sequence[int | Path] = (),
) -> Iterator[Hosted]:
    """Start a host for a device, and end it: leaving makes the outputs safe, verifies that, and closes the device.

    Args:
        recipe: how the device is made.
        limits: how long the host waits for the device, and for this program.
        log: file for what the host did, a line of JSON each.
        unguarded: a device that cannot be made safe is opened all the same; results must say so.
        keep: locks that the host holds as long as it has the device: open files that it inherits, or paths that it locks.

    Yields:
        the device; it is Recoverable, and saves a state as far as what it hosts does.

    Raises:
        ConfigError: no such class, wrong settings, or nobody could make it safe; nothing was opened.
        OpenFailed: the device cannot be opened. UnsafeOutputs: on leaving, if they are not verified to be safe.
    """
    local = LocalHost(recipe, limits or Limits(), log, unguarded, keep)
    local.start()
    try:
        device = Hosted("127.0.0.1", None, local, unguarded)
    except BaseException:
        local.end(LOOK_S)
        raise
    try:
        yield device
    finally:
        device.close()


@contextmanager
def connected(address: str, keys: Path | None = None, *, unguarded: bool = False) -> Iterator[Hosted]:
    """Use the device that `hil host` serves; leaving makes the outputs safe and lets the next trainer in.

    Args:
        address: "host:port".
        keys: folder with ca.crt, trainer.crt and trainer.key; None: plain text, to this computer alone.
        unguarded: as of `hosted`.

    Yields:
        the device; see `hosted`.

    Raises:
        ConfigError: another computer, and no keys. OpenFailed: nobody answers. RunError: another trainer has the device.
        UnsafeOutputs: on leaving, if they are not verified to be safe.
    """
    name, colon, port = address.rpartition(":")
    if not colon or not name or not port.isdecimal():
        raise ConfigError("no address and port", where="host", got=address, allowed="host:port", outputs="untouched")
    if keys is None and not loopback(name):
        raise ConfigError(
            "plain text to another computer", where=f"host {address}", got="no keys", allowed="keys, or 127.0.0.1",
            outputs="untouched; nothing was opened", todo="make keys: hil host --keys FOLDER; give that folder to both ends",
        )  # fmt: skip
    device = Hosted(address, None if keys is None else channel_credentials(keys), None, unguarded)
    try:
        yield device
    finally:
        device.close()


def sent(values: Tensor) -> tuple[list[int], memoryview]:
    """Shape and bytes of a tensor, float32."""
    array = values.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
    return list(array.shape), array.data.cast("B") if array.size else memoryview(b"")


def said(value: object) -> str:
    """A field of a description, in one line."""
    return " ".join(str(value).split())[:200]
