"""What announces itself by mDNS, and how it is listed. Loopback alone; what needs zeroconf is skipped without it."""

from __future__ import annotations

import sys

import pytest

from drivers.links import discovery
from drivers.links.discovery import Found, discover, resource_of, told
from drivers.resource import standard
from hil.commands import list as listing
from hil.errors import ConfigError, OpenFailed
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import build

MEMORY = "sim_devices.instruments.template:AcmeG1"


@pytest.mark.parametrize(
    ("kind", "host", "port", "resource"),
    [
        ("_hislip._tcp.local.", "10.0.0.5", 4880, "TCPIP::10.0.0.5::hislip0::INSTR"),
        ("_hislip._tcp.local.", "10.0.0.5", 4001, "TCPIP::10.0.0.5::hislip0,4001::INSTR"),
        ("_vxi-11._tcp.local.", "10.0.0.5", 111, "TCPIP::10.0.0.5::inst0::INSTR"),
        ("_vxi-11._tcp.local.", "10.0.0.5", 4002, "TCPIP::10.0.0.5,4002::inst0::INSTR"),
        ("_scpi-raw._tcp.local.", "10.0.0.5", 5025, "TCPIP::10.0.0.5::5025::SOCKET"),
        ("_scpi-raw._tcp.local.", "fe80::1%eth0", 5025, "TCPIP::[fe80::1%eth0]::5025::SOCKET"),
    ],
)
def test_a_service_is_a_resource(kind: str, host: str, port: int, resource: str) -> None:
    assert resource_of(kind, host, port) == resource
    standard(resource)


def test_a_web_page_is_told_where_nothing_else_is_known() -> None:
    page, other = Found("", "Maker, A", "10.0.0.5"), Found("", "Maker, B", "10.0.0.6")
    scpi = Found("TCPIP::10.0.0.5::5025::SOCKET", "Maker, A", "10.0.0.5")
    assert told([other, page, scpi, scpi]) == (scpi, other)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    monkeypatch.setattr("drivers.links.visa_link.list_resources", lambda: ("USB0::1::2::MY1::0::INSTR",))
    with pytest.raises(OpenFailed, match="zeroconf is not installed"):
        discover()
    rows, notes = listing.rows("resources")
    assert rows == [("VISA resource", "what"), ("USB0::1::2::MY1::0::INSTR", "")]
    assert "pip install 'hil[discovery]'" in notes[0]
    with pytest.raises(ConfigError, match="needs the package zeroconf"):
        build(VirtualBench((VirtualBox("g1", MEMORY),), announce=True))


def test_both_ways_of_discovery_are_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (Found("TCPIP::10.0.0.5::inst0::INSTR", "Maker, A, 1", "10.0.0.5"), Found("", "Maker, B", "10.0.0.6"))
    monkeypatch.setattr("drivers.links.visa_link.list_resources", lambda: ("ASRL1::INSTR", "TCPIP::10.0.0.5::INSTR"))
    monkeypatch.setattr(discovery, "missing", lambda: "")
    monkeypatch.setattr(discovery, "discover", lambda: found)
    rows, notes = listing.rows("resources")
    assert rows[1:] == [("ASRL1::INSTR", ""), ("TCPIP::10.0.0.5::inst0::INSTR", "Maker, A, 1")]
    assert notes == ["Maker, B has a web page at 10.0.0.6, and announces no address for commands"]

    def deaf() -> tuple[Found, ...]:
        raise OpenFailed("instruments cannot be asked for by mDNS", got="no multicast")

    monkeypatch.setattr(discovery, "discover", deaf)
    rows, notes = listing.rows("resources")
    assert len(rows) == 3
    assert "no multicast" in notes[0]


def test_what_is_served_is_found() -> None:
    pytest.importorskip("zeroconf")
    with build(VirtualBench((VirtualBox("g1", MEMORY),), transport="all", announce=True)) as bench:
        found = discover(0.3, ["127.0.0.1"])
        addresses = (bench.resources["g1"], bench.vxi11["g1"], bench.sockets["g1"])
        ours = {one.resource: one for one in found if one.resource in addresses}
        assert len(ours) == 3
        assert {one.who.split(", ")[1] for one in ours.values()} == {"G1"}
    assert not set(ours) & {one.resource for one in discover(0.3, ["127.0.0.1"])}
