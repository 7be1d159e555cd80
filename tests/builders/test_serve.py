"""What `hil serve` does with a virtual bench: every transport, and port mappers where they are asked for."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from drivers.links.visa_link import VisaLink
from drivers.scpi import Scpi
from hil.build import virtual
from hil.errors import ConfigError
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import build
from sim_devices.transports.vxi11 import Vxi11Server

G1 = "sim_devices.instruments.template:AcmeG1"
BOXES = (VirtualBox("g1", G1), VirtualBox("g2", G1))


def test_every_transport_is_served_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=io.StringIO(), width=80)
    models: list[str] = []

    def meanwhile(console: Console) -> None:
        first, second, _control, _ = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        for line in (first, second):
            for resource in line.split()[1:]:
                scpi = Scpi(VisaLink(resource, backend="@py"))
                models.append(scpi.identify().model)
                scpi.close()

    monkeypatch.setattr(virtual, "until_interrupted", meanwhile)
    virtual.serve_all(VirtualBench(BOXES), None, out)
    assert models == ["G1"] * 6


def test_each_box_with_a_port_mapper_has_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []
    real = Vxi11Server.map_port

    def free(self: Vxi11Server, port: int = 0) -> Any:
        mapper = real(self, 0)  # 111 is root's
        ports.append(mapper.port)
        return mapper

    monkeypatch.setattr(Vxi11Server, "map_port", free)
    with build(VirtualBench(BOXES, transport="vxi11", port_mapper=True)) as bench:
        hosts = [resource.split("::")[1].partition(",")[0] for resource in bench.resources.values()]
    assert hosts == ["127.0.0.1", "127.0.0.2"]
    assert len(ports) == 2


def test_a_port_mapper_without_vxi11_is_refused() -> None:
    with pytest.raises(ConfigError, match="for VXI-11 alone"):
        VirtualBench(BOXES, port_mapper=True)
