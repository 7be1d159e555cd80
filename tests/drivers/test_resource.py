"""Resource strings in the spellings that the VISA standard allows."""

from __future__ import annotations

import pytest

from drivers.resource import serial_port, standard
from hil.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("tcpip0::192.168.1.5::INST0::instr", "TCPIP0::192.168.1.5::inst0::INSTR"),
        ("TCPIP::scope.lab", "TCPIP0::scope.lab::inst0::INSTR"),
        ("tcpip1::h::INSTR", "TCPIP1::h::inst0::INSTR"),
        (" TCPIP::h::HiSLIP0,4881::InStR\n", "TCPIP0::h::hislip0,4881::INSTR"),
        ("tcpip::h::5025::socket", "TCPIP0::h::5025::SOCKET"),
        ("TCPIP::gw::usb0[2391::9480::MyS::0]::INSTR", "TCPIP0::gw::usb0[2391::9480::MyS::0]::INSTR"),
        ("tcpip::[FE80::0001%eth0]::hislip0", "TCPIP0::[fe80::1%eth0]::hislip0::INSTR"),
        ("tcpip::2001:db8:0:0:0:0:0:1::inst0::INSTR", "TCPIP0::[2001:db8::1]::inst0::INSTR"),
        ("usb::0x957::0x2a07::My1::instr", "USB0::0x957::0x2a07::My1::INSTR"),
        ("USB0::2391::10759::MY1::0::RAW", "USB0::2391::10759::MY1::0::RAW"),
        ("gpib::5", "GPIB0::5::INSTR"),
        ("gpib1::5::9::instr", "GPIB1::5::9::INSTR"),
    ],
)
def test_the_spelling_of_the_standard(text: str, spelled: str) -> None:
    assert standard(text) == spelled
    assert standard(spelled) == spelled


@pytest.mark.parametrize(
    ("text", "todo"),
    [
        ("TCPIP::fe80::1::inst0::INSTR", "brackets"), ("tcpip::2001:db8::1::inst0::INSTR", "brackets"),
        ("TCPIP::[fe80::1::inst0::INSTR", ""), ("TCPIP::[nonsense]::INSTR", ""), ("TCPIP::", ""), ("TCPIP", ""), ("", ""),
        ("TCPIP::h::port::SOCKET", ""), ("TCPIP::h::99999::SOCKET", ""), ("TCPIP::h::SOCKET", ""), ("LAN::h::INSTR", ""),
        ("TCPIP::h::::INSTR", ""), ("TCPIPx::h::INSTR", ""), ("USB", ""),
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text: str, todo: str) -> None:
    with pytest.raises(ConfigError, match="not a VISA resource string") as caught:
        standard(text)
    assert todo in caught.value.todo


def test_an_ipv6_address_without_double_colons() -> None:
    assert standard("TCPIP::[::1]::INSTR", brackets=False) == "TCPIP0::0000:0000:0000:0000:0000:0000:0000:0001::inst0::INSTR"


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("ASRL/dev/ttyUSB0::INSTR", "/dev/ttyUSB0"), ("asrl/dev/ttyACM1", "/dev/ttyACM1"), (" /dev/ttyACM0 ", "/dev/ttyACM0"),
        ("COM3", "COM3"), ("ASRLCOM3::INSTR", "COM3"), ("/dev/serial/by-id/x", "/dev/serial/by-id/x"),
    ],
)  # fmt: skip
def test_the_name_of_a_serial_port(text: str, port: str) -> None:
    assert serial_port(text) == port
