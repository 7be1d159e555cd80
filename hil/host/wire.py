"""Messages of device.proto: arrays in parts, ports, and the methods of the service by name.

array -> Part(call, shape, dtype, data[0:1 MiB]), Part(data[1 MiB:2 MiB]), ...       float32, little-endian, C order
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import grpc

from hil.errors import Desync
from hil.host import device_pb2 as pb
from hil.host.faults import raise_from
from hil.host.frames import Bytes

SERVICE = "hil.host.v1.Device"
CHUNK = 1 << 20
MOST_BYTES = 1 << 32  # of one array
DTYPE = "float32"
OPTIONS = (
    ("grpc.max_receive_message_length", 4 * CHUNK),  # a part, and room for a state in JSON
    ("grpc.max_send_message_length", 4 * CHUNK),
    ("grpc.so_reuseport", 0),  # a second host must not share the port
)
METHODS: Mapping[str, tuple[str, Any, Any]] = {  # name -> kind, request, answer
    "Describe": ("unary_unary", pb.Call, pb.Description),
    "Program": ("stream_unary", pb.Part, pb.Done),
    "Reset": ("unary_unary", pb.Call, pb.Done),
    "Shot": ("unary_unary", pb.Part, pb.Part),
    "Forward": ("stream_stream", pb.Part, pb.Part),
    "Safe": ("unary_unary", pb.Call, pb.Done),
    "Health": ("stream_stream", pb.Beat, pb.Pulse),
    "Snapshot": ("unary_unary", pb.Call, pb.State),
    "Restore": ("unary_unary", pb.State, pb.Done),
}


class Stub:
    """The methods of a server, each a callable of grpc. Args: channel: to it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._methods = {
            name: getattr(channel, kind)(
                f"/{SERVICE}/{name}", request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
            )
            for name, (kind, asked, answered) in METHODS.items()
        }

    def __getitem__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = self._methods[name]
        return found


def handlers(service: object) -> grpc.GenericRpcHandler:
    """What a grpc server needs to answer: `service` has a method for each of the service, in small letters."""
    found = {
        name: getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(service, name.lower()), request_deserializer=asked.FromString,
            response_serializer=answered.SerializeToString,
        )
        for name, (kind, asked, answered) in METHODS.items()
    }  # fmt: skip
    return grpc.method_handlers_generic_handler(SERVICE, found)


def parts(shape: Sequence[int], data: Bytes, call: pb.Call) -> Iterator[pb.Part]:
    """The messages of an array."""
    view = memoryview(data)
    yield pb.Part(call=call, shape=shape, dtype=DTYPE, data=bytes(view[:CHUNK]))
    for begin in range(CHUNK, len(view), CHUNK):
        yield pb.Part(data=bytes(view[begin : begin + CHUNK]))


def gathered(messages: Iterable[pb.Part], number: int | None = None) -> tuple[pb.Call, list[int], Bytes]:
    """Call, shape and bytes of an array that comes in parts.

    Args:
        messages: of it, the first one first.
        number: of the call that it answers; None: any.

    Raises:
        HilError: a part holds a fault. Desync: more or fewer bytes than its shape says, or the answer to another call.
    """
    call, shape, data, at = pb.Call(), list[int](), bytearray(), -1
    for part in messages:
        raise_from(part)
        if at < 0:
            call, shape, at = part.call, [int(n) for n in part.shape], 0
            size = 4 * math.prod(shape)
            if part.dtype != DTYPE or size > MOST_BYTES or (number is not None and call.number != number):
                raise torn(f"{part.dtype!r}, shape {tuple(shape)}, call {call.number}", f"{DTYPE}, call {number}")
            if len(part.data) == size:
                return call, shape, part.data
            data = bytearray(size)
        end = at + len(part.data)
        if end > len(data):
            raise torn(f"over {end:,} bytes", f"{len(data):,}, shape {tuple(shape)}")
        data[at:end] = part.data
        at = end
        if at == len(data):
            break
    if at < len(data) or at < 0:
        raise torn(f"{max(at, 0):,} bytes", f"{len(data):,}, shape {tuple(shape)}" if shape else "an array")
    return call, shape, data


def torn(got: str, allowed: str) -> Desync:
    """An array that does not fit its shape, or its call."""
    return Desync("not the array that was due", where="host", got=got, allowed=allowed, outputs="as after the last shot")


def port_message(table: Mapping[str, Any]) -> pb.Port:
    """A port from its table, see hil/host/held.py."""
    return pb.Port(**{name: value for name, value in table.items() if value is not None})


def port_settings(message: pb.Port, port: type[Any]) -> dict[str, Any]:
    """Keyword arguments of a Port. Args: message: as received. port: the class; limits that it does not know are left out."""
    settings: dict[str, Any] = {"name": message.name, "unit": message.unit or "1"}
    settings["size"] = int(message.size) if message.HasField("size") else None
    for name in (f.name for f in fields(port) if f.name not in settings):
        numbers = tuple(getattr(message, name))
        if numbers:
            settings[name] = numbers[0] if len(numbers) == 1 else numbers
    return settings
