"""A connection to a host: calls of gRPC with deadlines, beats, and the lane that shots take past gRPC.

A beat is a look at the clock, and a message some times in a silence; every call is one. What grpc raises becomes an error of
hil's here: a call in vain, a host that is gone, a session that the host has ended.
"""

from __future__ import annotations

import math
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import grpc

from hil.device import Port, Provenance, Spec
from hil.errors import (
    ConfigError,
    Disconnected,
    Ended,
    HilError,
    LinkError,
    LinkTimeout,
    OpenFailed,
    UnsafeOutputs,
)
from hil.host import device_pb2 as pb
from hil.host.faults import raise_from
from hil.host.keys import NAME
from hil.host.lane import Lane, LaneLost
from hil.host.local import LocalHost
from hil.host.wire import CHUNK, OPTIONS, Stub, gathered, neurons_of, parts, port_settings

BEATS_A_SILENCE = 40
LOOK_S = 10.0  # how long a question may take that needs no device
MARGIN_S = 5.0  # of a call, over what the host itself allows
PLAYED = "as after the last shot; the host makes them safe when the session ends"


class _NoShot(Exception):
    """The server answers Forward alone: one in another language may leave Shot out."""


class Connection:
    """The connection to a host. The constructor opens it; `open` opens it anew, in the same session.

    Args:
        address: of the host.
        credentials: of this end; None: plain text, on this computer alone.
        local: the host, if it was started here.
        unguarded: a device that cannot be made safe was asked for.

    facts: what the host says of its device. spec: the same, as a Device has it. longest_s: how long a call may take.
    """

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, local: LocalHost | None, unguarded: bool
    ) -> None:
        self._address, self._credentials, self._local, self._unguarded = address, credentials, local, unguarded
        self.where = f"host {address}" if local is None else f"host of {local.use}"
        self.number = 0  # of the last call
        self._lock = threading.Lock()
        self._whole = True  # False: the server has no Shot
        self.lane: Lane | None = None
        self._due_s = 0.0
        self.begin()

    def begin(self) -> None:
        """Begin a session, or go on with it.

        Raises:
            ConfigError: nobody could make the device safe. OpenFailed: nobody answers. Others: as the host says.
        """
        address = self._address if self._local is None else f"127.0.0.1:{self._local.port}"
        self._token = secrets.token_hex(16) if self._local is None else self._local.token
        if self._credentials is None:
            self.channel = grpc.insecure_channel(address, OPTIONS)
        else:
            named = (("grpc.ssl_target_name_override", NAME),)
            self.channel = grpc.secure_channel(address, self._credentials, (*OPTIONS, *named))
        self._stub = Stub(self.channel)
        self.longest_s = LOOK_S
        self._beats: queue.SimpleQueue[pb.Beat | None] = queue.SimpleQueue()
        self._heard = threading.Condition()
        self._pulse, self._health_ended = pb.Pulse(), ""
        try:
            self.describe()
            if not self.facts.safe and not self._unguarded:
                raise ConfigError(
                    "nobody could make this device safe", where=self.where, got=self.facts.device,
                    allowed="a device with safe()", outputs="untouched",
                    todo="pass unguarded=True if that is meant; every result says so",
                )  # fmt: skip
        except BaseException as error:
            self.channel.close()
            if isinstance(error, Disconnected) and not isinstance(error, Ended):
                raise OpenFailed(error.what, where=self.where, got=error.got, todo=error.todo) from error
            raise
        if self._local is not None and self._local.lane:
            with suppress(OSError):  # then every shot is a call of gRPC
                self.lane = Lane(self._local.lane, self._token)
        self._due_s = 0.0
        self._beats.put(pb.Beat(token=self._token, number=self._next()))
        pulses = self._stub["Health"](iter(self._beats.get, None))
        heard = (pulses, self._heard)
        threading.Thread(target=self._hear, args=heard, name="host heard", daemon=True).start()

    def close(self) -> None:
        """Close the connection; the session goes on if it is opened anew in time."""
        if self.lane is not None:
            self.lane.close()
            self.lane = None
        self._beats.put(None)
        self.channel.close()

    # ---- calls ----------------------------------------------------------------------------------------------------------

    def describe(self) -> None:
        """Ask the host for its device."""
        with self._mapping("Describe"):
            facts = self._stub["Describe"](self.call(), timeout=LOOK_S)
        raise_from(facts)
        self.facts = facts
        self.spec = spec_of(facts)
        self.longest_s = facts.deadline_s + MARGIN_S

    def call(self) -> pb.Call:
        """Number a call."""
        return pb.Call(token=self._token, number=self._next())

    def ask(self, name: str, request: Any) -> Any:
        """Call a method of the service, and return its answer. Raises: LinkTimeout, Disconnected, LinkError, Ended."""
        with self._mapping(name):
            return self._stub[name](request, timeout=self.longest_s)

    def shot(self, shape: list[int], data: Any, due: list[int]) -> tuple[list[int], Any]:
        """Send the drives of a shot, and return shape and bytes of the readings.

        Args:
            shape: of the drives.
            data: their bytes.
            due: shape of the readings.

        Raises:
            LinkTimeout, Disconnected, LinkError, Ended: as `ask`. Others: as the device raises them.
        """
        call = self.call()
        if self.lane is not None and self.lane.take():
            return self._short(self.lane, shape, data, call)
        if self._whole and max(len(data), 4 * math.prod(due)) <= CHUNK:
            try:
                return gathered([self.ask("Shot", next(parts(shape, data, call)))], call.number)[1:]
            except _NoShot:
                self._whole = False
        return self._stream(shape, data, call)

    def _short(self, lane: Lane, shape: list[int], data: Any, call: pb.Call) -> tuple[list[int], Any]:
        """A shot on the lane, which was taken."""
        try:
            return lane.ask(call.number, shape, data, time.monotonic() + self.longest_s)
        except TimeoutError as error:
            raise self._late(f"Shot: no answer in {self.longest_s:g} s") from error
        except LaneLost as error:
            raise self._away(f"Shot: {error}") from error

    def _stream(self, shape: list[int], data: Any, call: pb.Call) -> tuple[list[int], Any]:
        with self._mapping("Forward"):
            answer = self._stub["Forward"](parts(shape, data, call), timeout=self.longest_s)
            try:
                return gathered(answer, call.number)[1:]
            finally:
                answer.cancel()

    # ---- beats ----------------------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Tell that this program makes progress. Costs a look at the clock most of the time."""
        now = time.monotonic()
        if now >= self._due_s:
            self._due_s = now + self.facts.silence_s / BEATS_A_SILENCE
            self._beats.put(pb.Beat(number=self._next()))

    def check_beat(self) -> None:
        """Send a beat, and wait for the answer of a host whose device is open.

        Raises:
            LinkTimeout: no answer. Disconnected: the host takes no beats. OpenFailed: the device is not open.
        """
        number = self._next()
        with self._heard:
            self._beats.put(pb.Beat(number=number))
            if not self._heard.wait_for(lambda: self._pulse.number >= number or self._health_ended, LOOK_S):
                raise LinkTimeout("the host gives no answer to a beat", where=self.where, got=f"{LOOK_S:g} s")
            if self._health_ended:
                raise Disconnected("the host takes no beats", where=self.where, got=self._health_ended)
            if not self._pulse.open:
                raise OpenFailed("the device is not open", where=self.where)

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

    # ---- errors ---------------------------------------------------------------------------------------------------------

    def unsafe(self, what: str) -> UnsafeOutputs:
        """The error for outputs that were not verified to be safe."""
        return UnsafeOutputs(
            "outputs were not verified to be safe", where=self.where, got=what, outputs="not known to be safe",
            todo="switch the outputs off at the device",
        )  # fmt: skip

    def ended_well(self) -> None:
        """Raises: Ended, UnsafeOutputs: the local host ended the session by itself."""
        fault = self._ending()
        if fault is not None:
            raise fault

    def _next(self) -> int:
        with self._lock:
            self.number += 1
            return self.number

    @contextmanager
    def _mapping(self, name: str) -> Iterator[None]:
        """Turn what grpc raises into an error of hil's."""
        try:
            yield
        except grpc.RpcError as error:
            raise self._lost(name, error) from error
        except ValueError as error:  # the channel is closed
            raise Disconnected("the connection is closed", where=self.where, got=str(error)) from error

    def _lost(self, name: str, error: Any) -> Exception:
        code = error.code()
        if code is grpc.StatusCode.UNIMPLEMENTED and name == "Shot":
            return _NoShot()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._late(f"{name}: {told(error)}")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return self._away(f"{name}: {told(error)}")
        return LinkError("the host refuses this call", where=self.where, got=f"{name}: {told(error)}", outputs=PLAYED)

    def _late(self, got: str) -> LinkTimeout:
        return LinkTimeout(
            "the host gives no answer", where=self.where, got=got, outputs="not known; the host makes them safe if it runs",
            todo="see whether the host runs",
        )  # fmt: skip

    def _away(self, got: str) -> HilError:
        """The connection is gone: with its host, or without."""
        with suppress(HilError):
            if self._local is not None and self._local.ended(1.0):
                self.ended_well()
        if self._local is not None and self._local.ended(0.0) and (fault := self._ending()) is not None:
            return fault
        return Disconnected(
            "the host is gone", where=self.where, got=got,
            outputs="made safe by the process of the device, which outlives its host", todo="see why the host ended",
        )  # fmt: skip

    def _ending(self) -> HilError | None:
        """Return why the local host, which has ended, did so by itself; None: it was ended."""
        assert self._local is not None
        status = self._local.status
        if status == 3:
            return Ended(
                "the outputs were made safe, because nothing was heard from this program", where=self.where,
                got=f"{self.facts.silence_s:g} s", allowed="a beat or a call before that", outputs="safe, read back",
                todo="see what held it up, or raise silence_s; then hil resume",
            )  # fmt: skip
        return self.unsafe(f"the host ended with status {status}") if status == 4 else None


def spec_of(facts: pb.Description) -> Spec:
    """The description of a device, as a Device has it."""
    params = Port(**port_settings(facts.params, Port)) if facts.HasField("params") else None
    known = facts.provenance if facts.provenance in ("real", "twin", "replay") else "unknown"
    return Spec(
        Port(**port_settings(facts.inputs, Port)), Port(**port_settings(facts.outputs, Port)), params, facts.temporal,
        cast(Provenance, known), neurons_of(facts.neurons) if facts.HasField("neurons") else None,
    )  # fmt: skip


def told(error: Any) -> str:
    """Return what grpc says of an error, in one line."""
    return " ".join(f"{error.code().name.lower()}, {error.details()}".split())[:300]
