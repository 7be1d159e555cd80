"""The generated file is that of device.proto, and a Port crosses whole."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from hil.device import Port
from hil.host import device_pb2 as pb
from hil.host.held import port_table
from hil.host.wire import METHODS, port_message, port_settings

FOLDER = Path(pb.__file__).resolve().parent
ROOT = FOLDER.parents[1]


def test_the_generated_file_is_that_of_the_proto(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    assert protoc.main(["protoc", f"-I{ROOT}", f"--python_out={tmp_path}", str(FOLDER / "device.proto")]) == 0
    calls = [n for n in ast.walk(ast.parse((tmp_path / "hil/host/device_pb2.py").read_text())) if isinstance(n, ast.Call)]
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
