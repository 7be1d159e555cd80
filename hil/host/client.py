"""The trainer's end: a Device whose every call is answered by a host.

    with hosted(Recipe("my_lab:Rig", {"port": 3})) as device:      a host of this computer, started and ended here
        device.forward(x)
    with connected("lab-pc:5510", keys) as device:                 one that `hil host` serves elsewhere

Shots to a host that was started here go past gRPC (hil/host/lane.py), as long as that way is open and nobody else is on it.
A beat is a look at the clock, and a message some times in a silence; every call is one. Rungs of the recovery ladder: `clear`
has nothing to do, as a call has its own stream and a late answer dies with it; `reopen` has the device opened anew, by a new
host if this one ended; `identify` asks for its class and ports; `reinstate` makes safe and programs again.
"""

from __future__ import annotations

import json
import math
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import torch
from torch import Tensor

from hil.device import Port, Provenance, Spec
from hil.errors import (
    ConfigError,
    ContractError,
    Disconnected,
    Ended,
    HilError,
    LinkError,
    LinkTimeout,
    NotAReading,
    OpenFailed,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.files import loads
from hil.host import device_pb2 as pb
from hil.host.charge import Limits, Recipe
from hil.host.faults import raise_from
from hil.host.keys import NAME, channel_credentials
from hil.host.lane import Lane, LaneLost
from hil.host.local import LocalHost
from hil.host.server import loopback
from hil.host.wire import CHUNK, OPTIONS, Stub, gathered, neurons_of, parts, port_settings
from hil.slew import NO_SLEW, Slew

BEATS_A_SILENCE = 40
LOOK_S = 10.0  # how long a question may take that needs no device
MARGIN_S = 5.0  # of a call, over what the host itself allows
PLAYED = "as after the last shot; the host makes them safe when the session ends"


class _NoShot(Exception):
    """The server answers Forward alone: one in another language may leave Shot out."""


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
        self._address, self._credentials, self.local = address, credentials, local
        self._asked_unguarded = unguarded
        self._where = f"host {address}" if local is None else f"host of {local.use}"
        self._number = 0
        self._lock = threading.Lock()
        self._params: Tensor | None = None
        self._closed = False
        self._whole = True  # False: the server has no Shot
        self._lane: Lane | None = None
        self._due_s = 0.0
        self._connect()
        self._first = self._facts

    # ---- what a Device is -----------------------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        """Ports, kind and provenance of the device."""
        return self._spec

    @property
    def slew(self) -> Slew:
        """What the device, or the host around it, says of the steps of its drive."""
        by = self._facts.slew_by
        row_s = self._facts.row_s if self._facts.HasField("row_s") else None
        return Slew("refuses" if by == "refuses" else "ramps", row_s) if by in ("refuses", "ramps") else NO_SLEW

    @property
    def unguarded(self) -> bool:
        """True if nobody can make this device safe; every result must say so."""
        return not self._facts.safe

    @property
    def description(self) -> str:
        """Class of the device, and where it is, a line for people."""
        return f"{self._facts.device} at {self._where}"

    def program(self, params: Tensor) -> None:
        """Set `spec.params` (size,).

        Raises:
            ContractError: nothing can be programmed. OutOfRange: before anything is sent. Others: as `forward`.
        """
        if self._spec.params is None:
            raise ContractError("this node is fixed", where=self._where, got="program()", allowed="drive it only")
        shape, data = sent(self._spec.params.check(params))
        raise_from(self._asked("Program", parts(shape, data, self._call())))
        self._params = params.detach().clone()

    def reset(self) -> None:
        """Forget temporal state."""
        if self._spec.temporal:
            raise_from(self._asked("Reset", self._call()))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_in) -> (batch, n_out); temporal: (time, batch, n_in) -> (time, batch, n_out).

        Raises:
            OutOfRange: before anything is sent.
            LinkTimeout: the device, or its host, gave no answer in time. Disconnected: its process ended, or its host.
            Ended: the session is over, as nothing was heard from this program for a while.
            UnsafeOutputs: the outputs are not known to be safe.
            NotAReading: the answer holds NaN or infinity. Others: as the device raises them.
        """
        shape, data = sent(self._spec.inputs.check(x))
        self._check_open()
        call = self._call()
        width = self._spec.outputs.size or (shape[-1] if shape else 1)
        due = [*shape[:-1], width]
        if self._lane is not None and self._lane.take():
            answer = self._short(self._lane, shape, data, call)
        elif self._whole and max(len(data), 4 * math.prod(due)) <= CHUNK:
            answer = self._shot(shape, data, call)
        else:
            answer = self._stream(shape, data, call)
        found_shape, found = answer
        if found_shape != due:
            raise ContractError(
                "the answer has another shape", where=self._where, got=f"{tuple(found_shape)}", allowed=f"{tuple(due)}",
                outputs=PLAYED, todo="correct the device, or the ports that it declares",
            )  # fmt: skip
        return self._measured(np.frombuffer(found, "<f4").reshape(found_shape)).to(x.device)

    def _measured(self, values: Any) -> Tensor:
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):  # NaN comes through both
            bad = int((~np.isfinite(values)).sum())
            raise NotAReading(
                f"{bad} of {values.size} values NaN or infinite", where=self._where, allowed="finite numbers", outputs=PLAYED
            )
        return torch.from_numpy(values if values.flags.writeable else values.copy())

    def _short(self, lane: Lane, shape: list[int], data: Any, call: pb.Call) -> tuple[list[int], Any]:
        """A shot on the lane, which was taken."""
        try:
            return lane.ask(call.number, shape, data, time.monotonic() + self._longest_s)
        except TimeoutError as error:
            raise self._late(f"Shot: no answer in {self._longest_s:g} s") from error
        except LaneLost as error:
            raise self._away(f"Shot: {error}") from error

    def _shot(self, shape: list[int], data: Any, call: pb.Call) -> tuple[list[int], Any]:
        try:
            return gathered([self._asked("Shot", next(parts(shape, data, call)))], call.number)[1:]
        except _NoShot:
            self._whole = False
            return self._stream(shape, data, call)

    def _stream(self, shape: list[int], data: Any, call: pb.Call) -> tuple[list[int], Any]:
        with self._mapping("Forward"):
            answer = self._stub["Forward"](parts(shape, data, call), timeout=self._longest_s)
            try:
                return gathered(answer, call.number)[1:]
            finally:
                answer.cancel()

    def safe(self) -> None:
        """Bring the outputs to safe, read back.

        Raises:
            UnsafeOutputs: they are not known to be. A device that nobody can make safe is closed instead, and raises nothing.
        """
        self._made_safe(False)

    def _made_safe(self, anew: bool) -> None:
        call = self._call()
        call.anew = anew
        answer = self._asked("Safe", call)
        raise_from(answer)
        if not answer.verified and not self.unguarded:
            raise self._unsafe("the host does not say that they are safe")

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
            raise self._unsafe(error.what) from error
        finally:
            self._disconnect()
            status = None if self.local is None else self.local.end(self._longest_s)
        if status is not None and status not in (0, 3):
            raise self._unsafe(f"the host ended with status {status}")

    def _unsafe(self, what: str) -> UnsafeOutputs:
        return UnsafeOutputs(
            "outputs were not verified to be safe", where=self._where, got=what, outputs="not known to be safe",
            todo="switch the outputs off at the device",
        )  # fmt: skip

    def snapshot(self) -> Mapping[str, object]:
        """Return the whole state of a simulated device as JSON values; {} of any other."""
        if not self._facts.restorable:
            return {}
        answer = self._asked("Snapshot", self._call())
        raise_from(answer)
        state = loads(answer.json, self._where, ContractError)
        if not isinstance(state, dict):
            raise ContractError("not a state", where=self._where, got=type(state).__name__, allowed="a JSON object")
        return state

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot; an empty one restores nothing."""
        if state:
            raise_from(self._asked("Restore", pb.State(call=self._call(), json=json.dumps(dict(state)))))

    def beat(self) -> None:
        """Tell that this program makes progress: for long work without the device. Costs a look at the clock most of the time.

        Never call it from a thread of its own: a program that hangs would be taken for one that works.
        """
        now = time.monotonic()
        if now >= self._due_s:
            self._due_s = now + self._facts.silence_s / BEATS_A_SILENCE
            self._beats.put(pb.Beat(number=self._next()))

    # ---- rungs of the recovery ladder -----------------------------------------------------------------------------------

    def clear(self) -> None:
        """Do nothing: a call has its own stream, and what a late one still brings is thrown away with that."""

    def reopen(self) -> None:
        """Have the device opened anew: by its host, or by a new one if that ended or gives no answer.

        Raises:
            OpenFailed: nobody answers, or the process of the old host still has the device. UnsafeOutputs. Ended.
        """
        before = self._facts.opened
        self._disconnect()
        if self.local is not None and not self.local.running:
            self._ended_well()
            self.local.start()
            self._connect()
            return
        try:
            self._connect()
        except (LinkTimeout, OpenFailed):
            if self.local is None:
                raise
            self.local.kill()
            self.local.start()
            self._connect()
            return
        if self._facts.opened == before:  # else a fresh process has opened it since the fault
            self._made_safe(True)
            self._describe()

    def identify(self) -> str:
        """Return what the device is.

        Raises:
            WrongInstrument: another class, or other ports, than when it was opened first.
        """
        self._describe()
        for name in ("device", "inputs", "outputs", "params", "temporal", "provenance", "neurons"):
            was, now = getattr(self._first, name), getattr(self._facts, name)
            if was != now:
                raise WrongInstrument(
                    "another device answers", where=f"{self._where}, {name}", got=said(now), allowed=said(was),
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
        number = self._next()
        with self._heard:
            self._beats.put(pb.Beat(number=number))
            if not self._heard.wait_for(lambda: self._pulse.number >= number or self._health_ended, LOOK_S):
                raise LinkTimeout("the host gives no answer to a beat", where=self._where, got=f"{LOOK_S:g} s")
            if self._health_ended:
                raise Disconnected("the host takes no beats", where=self._where, got=self._health_ended)
            if not self._pulse.open:
                raise OpenFailed("the device is not open", where=self._where)
        return f"{self.description}: open"

    # ---- the connection -------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Begin a session, or go on with it."""
        address = self._address if self.local is None else f"127.0.0.1:{self.local.port}"
        self._token = secrets.token_hex(16) if self.local is None else self.local.token
        if self._credentials is None:
            self._channel = grpc.insecure_channel(address, OPTIONS)
        else:
            named = (("grpc.ssl_target_name_override", NAME),)
            self._channel = grpc.secure_channel(address, self._credentials, (*OPTIONS, *named))
        self._stub = Stub(self._channel)
        self._longest_s = LOOK_S
        self._beats: queue.SimpleQueue[pb.Beat | None] = queue.SimpleQueue()
        self._heard = threading.Condition()
        self._pulse, self._health_ended = pb.Pulse(), ""
        try:
            self._describe()
            if not self._facts.safe and not self._asked_unguarded:
                raise ConfigError(
                    "nobody could make this device safe", where=self._where, got=self._facts.device,
                    allowed="a device with safe()", outputs="untouched",
                    todo="pass unguarded=True if that is meant; every result says so",
                )  # fmt: skip
        except BaseException as error:
            self._channel.close()
            if isinstance(error, Disconnected) and not isinstance(error, Ended):
                raise OpenFailed(error.what, where=self._where, got=error.got, todo=error.todo) from error
            raise
        if self.local is not None and self.local.lane:
            with suppress(OSError):  # then every shot is a call of gRPC
                self._lane = Lane(self.local.lane, self._token)
        self._due_s = 0.0
        self._beats.put(pb.Beat(token=self._token, number=self._next()))
        pulses = self._stub["Health"](iter(self._beats.get, None))
        heard = (pulses, self._heard)
        threading.Thread(target=self._hear, args=heard, name="host heard", daemon=True).start()

    def _hear(self, pulses: Any, heard: threading.Condition) -> None:
        """Take the answers to beats, which this thread never sends."""
        why = "Health ended"
        try:
            for pulse in pulses:
                with heard:
                    self._pulse = pulse
                    heard.notify_all()
        except grpc.RpcError as error:
            why = told(error)
        with heard:
            if heard is self._heard:
                self._health_ended = why
            heard.notify_all()

    def _disconnect(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None
        self._beats.put(None)
        self._channel.close()

    def _describe(self) -> None:
        with self._mapping("Describe"):
            facts = self._stub["Describe"](self._call(), timeout=LOOK_S)
        raise_from(facts)
        self._facts = facts
        self._spec = spec_of(facts)
        self._longest_s = facts.deadline_s + MARGIN_S

    def _call(self) -> pb.Call:
        return pb.Call(token=self._token, number=self._next())

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _check_open(self) -> None:
        if self._closed:
            raise ContractError("this device is closed", where=self._where, outputs="safe", todo="open it again")

    def _asked(self, name: str, request: Any) -> Any:
        if name != "Safe":
            self._check_open()
        with self._mapping(name):
            return self._stub[name](request, timeout=self._longest_s)

    @contextmanager
    def _mapping(self, name: str) -> Iterator[None]:
        """Turn what grpc raises into an error of hil's."""
        try:
            yield
        except grpc.RpcError as error:
            raise self._lost(name, error) from error
        except ValueError as error:  # the channel is closed
            raise Disconnected("the connection is closed", where=self._where, got=str(error)) from error

    def _lost(self, name: str, error: Any) -> Exception:
        code = error.code()
        if code is grpc.StatusCode.UNIMPLEMENTED and name == "Shot":
            return _NoShot()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._late(f"{name}: {told(error)}")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return self._away(f"{name}: {told(error)}")
        return LinkError("the host refuses this call", where=self._where, got=f"{name}: {told(error)}", outputs=PLAYED)

    def _late(self, got: str) -> LinkTimeout:
        return LinkTimeout(
            "the host gives no answer", where=self._where, got=got, outputs="not known; the host makes them safe if it runs",
            todo="see whether the host runs",
        )  # fmt: skip

    def _away(self, got: str) -> HilError:
        """The connection is gone: with its host, or without."""
        with suppress(HilError):
            if self.local is not None and self.local.ended(1.0):
                self._ended_well()
        if self.local is not None and self.local.ended(0.0) and (fault := self._ending()) is not None:
            return fault
        return Disconnected(
            "the host is gone", where=self._where, got=got,
            outputs="made safe by the process of the device, which outlives its host", todo="see why the host ended",
        )  # fmt: skip

    def _ending(self) -> HilError | None:
        """Why the local host, which has ended, did so by itself; None: it was ended."""
        assert self.local is not None
        status = self.local.status
        if status == 3:
            return Ended(
                "the outputs were made safe, because nothing was heard from this program", where=self._where,
                got=f"{self._facts.silence_s:g} s", allowed="a beat or a call before that", outputs="safe, read back",
                todo="see what held it up, or raise silence_s; then hil resume",
            )  # fmt: skip
        return self._unsafe(f"the host ended with status {status}") if status == 4 else None

    def _ended_well(self) -> None:
        """Raises: Ended, UnsafeOutputs: the host ended the session by itself."""
        fault = self._ending()
        if fault is not None:
            raise fault


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


def spec_of(facts: pb.Description) -> Spec:
    """The description of a device, as a Device has it."""
    params = Port(**port_settings(facts.params, Port)) if facts.HasField("params") else None
    known = facts.provenance if facts.provenance in ("real", "twin", "replay") else "unknown"
    return Spec(
        Port(**port_settings(facts.inputs, Port)), Port(**port_settings(facts.outputs, Port)), params, facts.temporal,
        cast(Provenance, known), neurons_of(facts.neurons) if facts.HasField("neurons") else None,
    )  # fmt: skip


def sent(values: Tensor) -> tuple[list[int], memoryview]:
    """Shape and bytes of a tensor, float32."""
    array = values.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
    return list(array.shape), array.data.cast("B") if array.size else memoryview(b"")


def told(error: Any) -> str:
    """What grpc says of an error, in one line."""
    return " ".join(f"{error.code().name.lower()}, {error.details()}".split())[:300]


def said(value: object) -> str:
    """A field of a description, in one line."""
    return " ".join(str(value).split())[:200]
