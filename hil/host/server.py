"""The service of device.proto: every call goes to the supervisor, and what goes wrong travels in the answer.

A host that listens to other computers has keys: both ends show a certificate of the same authority, and nothing is plain text.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from hil.errors import ConfigError, ContractError, HilError
from hil.files import loads
from hil.foreign import mapped
from hil.host import device_pb2 as pb
from hil.host.faults import message_of
from hil.host.frames import Bytes
from hil.host.keys import server_credentials
from hil.host.session import Session
from hil.host.supervisor import Supervisor
from hil.host.wire import CHUNK, OPTIONS, Parcel, gathered, handlers, parts, port_message

THREADS = 8


class Service:
    """The methods of the service.

    Args:
        supervisor: of the device.
        session: of the trainer.
        longest_s, silence_s: what a trainer is told of the times of this host.
    """

    def __init__(self, supervisor: Supervisor, session: Session, longest_s: float, silence_s: float) -> None:
        self._supervisor, self._session = supervisor, session
        self._longest_s, self._silence_s = longest_s, silence_s

    def describe(self, call: pb.Call, context: grpc.ServicerContext) -> Any:
        """Begin a session, and say what the device is."""
        return self._answer(pb.Description, call, self._described, begins=True)

    def _described(self) -> dict[str, Any]:
        facts = self._supervisor.facts
        ports = {name: port_message(facts[name]) for name in ("inputs", "outputs", "params") if facts[name] is not None}
        plain = {name: facts[name] for name in ("device", "temporal", "provenance", "safe", "restorable", "slew_by", "row_s")}
        if facts["neurons"] is not None:
            plain["neurons"] = pb.Neurons(**facts["neurons"])
        times = {"deadline_s": self._longest_s, "silence_s": self._silence_s}
        return {**ports, **plain, **times, "opened": self._supervisor.opened}

    def program(self, messages: Iterable[Parcel], context: grpc.ServicerContext) -> Any:
        """Program the device."""
        return self._given(messages, self._supervisor.program)

    def _given(self, messages: Iterable[Parcel], act: Callable[[Any, Any, int], None]) -> Any:
        try:
            call, shape, data = gathered(messages)
        except HilError as error:
            return pb.Done(fault=message_of(error))
        return self._answer(pb.Done, call, lambda: act(shape, data, int(call.number)))

    def reset(self, call: pb.Call, context: grpc.ServicerContext) -> Any:
        """Forget temporal state."""
        return self._answer(pb.Done, call, lambda: self._supervisor.reset(int(call.number)))

    def drive(self, token: str, number: int, shape: list[int], data: Bytes) -> tuple[list[int], Bytes]:
        """Drive the device for whoever has the session. Raises: HilError: why not."""
        with self._session.call(token):
            return self._supervisor.forward(shape, data, number)

    def shot(self, part: Parcel, context: grpc.ServicerContext) -> Any:
        """Drive the device; one message each way."""
        try:
            call, shape, data = gathered([part])
            shape, answer = self.drive(call.token, int(call.number), shape, data)
            if len(answer) > CHUNK:
                raise ContractError(
                    "this answer needs Forward", where="host", got=f"{len(answer):,} bytes", allowed=f"{CHUNK:,}"
                )
        except HilError as error:
            return Parcel(pb.Part(fault=message_of(error)))
        except Exception as error:  # noqa: BLE001 - told whole
            return Parcel(pb.Part(fault=message_of(mapped(error, "host"))))
        return next(parts(shape, answer, pb.Call(number=call.number)))

    def forward(self, messages: Iterable[Parcel], context: grpc.ServicerContext) -> Iterator[Parcel]:
        """Drive the device."""
        try:
            call, shape, data = gathered(messages)
            shape, answer = self.drive(call.token, int(call.number), shape, data)
        except HilError as error:
            yield Parcel(pb.Part(fault=message_of(error)))
        except Exception as error:  # noqa: BLE001 - told whole
            yield Parcel(pb.Part(fault=message_of(mapped(error, "host"))))
        else:
            yield from parts(shape, answer, pb.Call(number=call.number))

    def safe(self, call: pb.Call, context: grpc.ServicerContext) -> Any:
        """Make the outputs safe."""
        return self._answer(pb.Done, call, lambda: {"verified": self._supervisor.safe(call.anew, int(call.number))})

    def health(self, beats: Iterable[pb.Beat], context: grpc.ServicerContext) -> Iterator[pb.Pulse]:
        """Hear beats until the trainer ends."""
        number = 0
        for beat in beats:
            if not number:
                try:
                    with self._session.call(beat.token):
                        number = self._session.joined()
                except HilError as error:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, error.what)
                if not context.add_callback(partial(self._session.left, number)):
                    self._session.left(number)
                    return
            self._session.beat()
            self._supervisor.beat()
            yield pb.Pulse(number=beat.number, open=self._supervisor.ready)

    def snapshot(self, call: pb.Call, context: grpc.ServicerContext) -> Any:
        """Return the hidden state."""
        return self._answer(pb.State, call, lambda: {"json": self._supervisor.snapshot()})

    def restore(self, state: pb.State, context: grpc.ServicerContext) -> Any:
        """Return to a hidden state."""

        def act() -> None:
            self._supervisor.restore(loads(state.json, "host", ContractError))

        return self._answer(pb.Done, state.call, act)

    def _answer(self, kind: Any, call: pb.Call, act: Callable[[], dict[str, Any] | None], begins: bool = False) -> Any:
        """Run `act` for whoever has the session; the answer is of `kind`, and holds what went wrong."""
        number = pb.Call(number=call.number)
        try:
            with self._session.call(call.token, begins):
                return kind(call=number, **(act() or {}))
        except HilError as error:
            return kind(call=number, fault=message_of(error))
        except Exception as error:  # noqa: BLE001 - told whole
            return kind(call=number, fault=message_of(mapped(error, "host")))


def listening(service: Service, listen: str, keys: Path | None) -> tuple[grpc.Server, int]:
    """Start a server; return it and its port.

    Args:
        service: what it answers.
        listen: address and port.
        keys: folder of keys; None: plain text, on this computer alone.

    Raises:
        ConfigError: another computer could listen or speak, and there are no keys; or the address is not free.
    """
    check_listen(listen, keys)
    server = grpc.server(ThreadPoolExecutor(THREADS, thread_name_prefix="host"), handlers=(handlers(service),), options=OPTIONS)
    try:
        port = server.add_insecure_port(listen) if keys is None else server.add_secure_port(listen, server_credentials(keys))
    except RuntimeError as error:
        raise ConfigError("cannot listen there", where="hil host", got=f"{listen}: {error}", allowed="a free port") from error
    server.start()
    return server, port


def check_listen(listen: str, keys: Path | None) -> None:
    """Raises: ConfigError: no address and port, or one that other computers reach, without keys."""
    address, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or not address:
        raise ConfigError("no address and port", where="hil host", got=listen, allowed="ADDRESS:PORT, as 127.0.0.1:0")
    if keys is None and not loopback(address):
        raise ConfigError(
            "other computers could drive this device", where="hil host", got=f"--listen {listen}, no keys",
            allowed="127.0.0.1, or keys", outputs="untouched; nothing was opened",
            todo="make keys: hil host --keys FOLDER; then give that folder to both ends",
        )  # fmt: skip


def loopback(address: str) -> bool:
    """True if only this computer reaches an address. A name is not looked up; localhost is one that is known."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
