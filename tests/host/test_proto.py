"""The generated file is that of device.proto, and a Port crosses whole."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from google.protobuf.message import DecodeError
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from hil.device import Port
from hil.host import device_pb2 as pb
from hil.host.held import port_table
from hil.host.wire import METHODS, Parcel, port_message, port_settings

FOLDER = Path(pb.__file__).resolve().parent
ROOT = FOLDER.parents[1]


def test_the_generated_file_is_that_of_the_proto(tmp_path: Path) -> None:
    assert protoc.main(["protoc", f"-I{ROOT}", f"--python_out={tmp_path}", str(FOLDER / "device.proto")]) == 0
    calls = [
        n
        for n in ast.walk(ast.parse((tmp_path / "hil/host/device_pb2.py").read_text(encoding="utf-8")))
        if isinstance(n, ast.Call)
    ]
    described = [n.args[0] for n in calls if isinstance(n.func, ast.Attribute) and n.func.attr == "AddSerializedFile"]
    assert [ast.literal_eval(one) for one in described] == [pb.DESCRIPTOR.serialized_pb]


def test_the_stub_has_the_methods_of_the_service() -> None:
    service = pb.DESCRIPTOR.services_by_name["Device"]
    assert set(METHODS) == {method.name for method in service.methods}
    for method in service.methods:
        kind, asked, answered = METHODS[method.name]
        assert asked.DESCRIPTOR is method.input_type
        assert answered.DESCRIPTOR is method.output_type
        assert kind == "_".join("stream" if one else "unary" for one in (method.client_streaming, method.server_streaming))


@pytest.mark.parametrize("port", [Port("dac", -1, 5, "V", 16), Port("any", 0.1, 0.2)])
def test_a_port_crosses_whole(port: Port) -> None:
    message = pb.Port.FromString(port_message(port_table(port)).SerializeToString())
    assert Port(**port_settings(message, Port)) == port


def test_no_field_of_a_port_is_left_behind() -> None:
    """A limit that is added to Port must be added to device.proto."""
    assert {f.name for f in fields(Port)} <= set(pb.Port.DESCRIPTOR.fields_by_name)
    assert torch.tensor(pb.Port(low=[0.1]).low[0], dtype=torch.float64) == 0.1


@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_an_array_is_written_and_read_as_protobuf_does(size: int) -> None:
    """A host in another language, or the client of one, writes and reads the same message."""
    head, data = pb.Part(call=pb.Call(token="t", number=3), shape=[size], dtype="float32"), bytes(range(256)) * 100
    message = Parcel(head, data[:size]).to_bytes()
    whole = pb.Part.FromString(message)
    assert (whole.data, whole.call.number, list(whole.shape)) == (data[:size], 3, [size])
    for text in (message, whole.SerializeToString()):
        found = Parcel.of_bytes(text)
        assert bytes(found.data) == data[:size]
        assert found.head == head


@given(st.binary(max_size=40))
def test_bytes_that_are_no_message_are_refused_as_protobuf_refuses_them(message: bytes) -> None:
    try:
        due = pb.Part.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            Parcel.of_bytes(message)
    else:
        assert bytes(Parcel.of_bytes(message).data) == due.data
