"""Messages of device.proto: arrays in parts, ports, and the methods of the service by name.

array -> Part(call, shape, dtype, data[0:1 MiB]), Part(data[1 MiB:2 MiB]), ...       float32, little-endian, C order
Part  -> every field but `data` as protobuf writes it | 0x22 | length of data, base 128, least first | data

The bytes of an array are most of what travels, and protobuf would copy them four times on their way; here they are joined to
the other fields once, and looked at where they came in. Source: protobuf.dev/programming-guides/encoding (a field is a tag,
number << 3 | type, and for type 2 a length and so many bytes; fields come in any order).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import grpc

from hil.errors import Desync
from hil.host import device_pb2 as pb
from hil.host.faults import raise_from
from hil.host.frames import Bytes, room
from hil.neuron import NeuronModel, Reset

SERVICE = "hil.host.v1.Device"
CHUNK = 1 << 20
MOST_BYTES = 1 << 32  # of one array
DTYPE = "float32"
DATA = bytes([pb.Part.DESCRIPTOR.fields_by_name["data"].number << 3 | 2])
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


class Parcel:
    """A Part whose data stand outside of it.

    Args:
        head: the other fields.
        data: bytes of the array.
    """

    __slots__ = ("data", "head")

    def __init__(self, head: pb.Part, data: Bytes = b"") -> None:
        self.head, self.data = head, memoryview(data)

    def to_bytes(self) -> bytes:
        """Write the message."""
        head: bytes = self.head.SerializeToString()
        if not len(self.data):
            return head
        return b"".join((head, DATA, _length(len(self.data)), self.data))

    @classmethod
    def of_bytes(cls, message: bytes) -> Parcel:
        """Read a message. Raises: google.protobuf.message.DecodeError: it is none."""
        view, at, head, data = memoryview(message), 0, list[memoryview](), memoryview(b"")
        while at < len(view):
            begin = at
            tag, at = _number(view, at)
            size, at = _number(view, at) if tag & 7 == 2 else (len(view) + 1, at)
            if at + size > len(view):  # no field of a Part: protobuf says what is wrong with it, or knows better
                whole = pb.Part.FromString(message)
                return cls(whole, whole.data)
            if tag == DATA[0]:
                data = view[at : at + size]
            else:
                head.append(view[begin : at + size])
            at += size
        return cls(pb.Part.FromString(b"".join(head)), data)


def _length(size: int) -> bytes:
    found = bytearray()
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    found.append(size)
    return bytes(found)


def _number(view: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends; one that has no end is larger than any message."""
    found = 0
    for place, byte in enumerate(view[at : at + 10]):
        found |= (byte & 127) << 7 * place
        if byte < 128:
            return found, at + place + 1
    return MOST_BYTES, at


def _codec(message: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return how a message is written, and read."""
    return (Parcel.to_bytes, Parcel.of_bytes) if message is pb.Part else (message.SerializeToString, message.FromString)


class Stub:
    """The methods of a server, each a callable of grpc. Args: channel: to it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._methods = {
            name: getattr(channel, kind)(
                f"/{SERVICE}/{name}", request_serializer=_codec(asked)[0], response_deserializer=_codec(answered)[1]
            )
            for name, (kind, asked, answered) in METHODS.items()
        }

    def __getitem__(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = self._methods[name]
        return found


def handlers(service: object) -> grpc.GenericRpcHandler:
    """Return what a grpc server needs to answer: `service` has a method for each of the service, in small letters."""
    found = {
        name: getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(service, name.lower()), request_deserializer=_codec(asked)[1], response_serializer=_codec(answered)[0]
        )
        for name, (kind, asked, answered) in METHODS.items()
    }  # fmt: skip
    return grpc.method_handlers_generic_handler(SERVICE, found)


def parts(shape: Sequence[int], data: Bytes, call: pb.Call) -> Iterator[Parcel]:
    """The messages of an array."""
    view = memoryview(data)
    yield Parcel(pb.Part(call=call, shape=shape, dtype=DTYPE), view[:CHUNK])
    for begin in range(CHUNK, len(view), CHUNK):
        yield Parcel(pb.Part(), view[begin : begin + CHUNK])


def gathered(messages: Iterable[Parcel], number: int | None = None) -> tuple[pb.Call, list[int], Bytes]:
    """Call, shape and bytes of an array that comes in parts.

    Args:
        messages: of it, the first one first.
        number: of the call that it answers; None: any.

    Raises:
        HilError: a part holds a fault. Desync: more or fewer bytes than its shape says, or the answer to another call.
    """
    call, shape, data, at = pb.Call(), list[int](), room(0), -1
    for parcel in messages:
        part = parcel.head
        raise_from(part)
        if at < 0:
            call, shape, at = part.call, [int(n) for n in part.shape], 0
            size = 4 * math.prod(shape)
            if part.dtype != DTYPE or size > MOST_BYTES or (number is not None and call.number != number):
                raise torn(f"{part.dtype!r}, shape {tuple(shape)}, call {call.number}", f"{DTYPE}, call {number}")
            if len(parcel.data) == size:
                return call, shape, parcel.data
            data = room(size)
        end = at + len(parcel.data)
        if end > len(data):
            raise torn(f"over {end:,} bytes", f"{len(data):,}, shape {tuple(shape)}")
        data[at:end] = parcel.data
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


def neurons_of(message: pb.Neurons) -> NeuronModel:
    """How an array of neurons is set up, as received. Raises: ConfigError: that makes no neuron."""
    reset = cast(Reset, message.reset)  # checked by the class
    return NeuronModel(message.leak, message.v_th, message.v_rest, reset, message.refractory)


def port_settings(message: pb.Port, port: type[Any]) -> dict[str, Any]:
    """Keyword arguments of a Port. Args: message: as received. port: the class; limits that it does not know are left out."""
    settings: dict[str, Any] = {"name": message.name, "unit": message.unit or "1"}
    settings["size"] = int(message.size) if message.HasField("size") else None
    for name in (f.name for f in fields(port) if f.name not in settings):
        numbers = tuple(getattr(message, name))
        if numbers:
            settings[name] = numbers[0] if len(numbers) == 1 else numbers
    return settings
