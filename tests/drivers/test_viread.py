"""The wires that use viRead and viWrite alone: VXI-11 through PyVISA-py, and what NI-VISA would do with a SOCKET resource."""

from __future__ import annotations

import time

import pytest
import pyvisa
from link_server import Gone, block, polite, socket_instrument, vxi11_instrument
from pyvisa.resources import MessageBasedResource

from drivers.links.block import header, read_block
from drivers.links.viread import VisaBytes, VisaCalls, VisaMessages
from drivers.links.visa_link import VisaLink, _calls
from drivers.scpi import Scpi
from hil.errors import BadBlock, Disconnected, LinkTimeout

SIZES = [0, 1, 20479, 20480, 20481, (1 << 20) + 1]


@pytest.mark.parametrize("newline", [b"\n", b""])
def test_vxi11_marks_the_end_of_replies(newline: bytes) -> None:
    with vxi11_instrument(newline=newline) as (resource, _):
        session = Scpi(VisaLink(resource, timeout_s=2.0, backend="@py"))
        assert session.identify().serial == "SN-1"
        for size in SIZES:
            assert session.ask_block(f"BLOCK? {size}", "u1", size).tobytes() == b"\n" * size
        assert session.ask("ECHO? in step") == "in step"
        session.link.write(b"DATA ", header(300_000), bytes(300_000))
        session.send()
        session.close()


@pytest.mark.parametrize("reply", [b"hello", b"#14abc", b"#13abcd", b"#13abcdefghi", b"#0abc"])
def test_vxi11_bad_blocks(reply: bytes) -> None:
    with vxi11_instrument(lambda m: reply if m == b"CURVE?" else polite(m)) as (resource, _):
        session = Scpi(VisaLink(resource, timeout_s=0.3, backend="@py"))
        session.identify()
        with pytest.raises(BadBlock):
            session.ask_block("CURVE?", "u1", 10)
        assert session.recover().serial == "SN-1"
        session.close()


def test_vxi11_timeout_and_death() -> None:
    def mortal(message: bytes) -> bytes | None:
        if message == b"DIE?":
            raise Gone
        return polite(message)

    with vxi11_instrument(mortal) as (resource, _):
        session = Scpi(VisaLink(resource, timeout_s=0.3, backend="@py"))
        session.identify()
        with pytest.raises(LinkTimeout):
            session.ask("NOTHING?")
        session.recover()
        session.link.timeout_s = 5.0
        start, cpu = time.monotonic(), time.process_time()
        with pytest.raises(Disconnected):
            session.ask("DIE?")
        assert time.monotonic() - start < 4.0
        assert time.process_time() - cpu < 1.0
        assert session.recover().serial == "SN-1"
        session.close()


def test_bytes_without_ends_need_the_termination_character_off_in_a_block() -> None:
    with socket_instrument() as (name, _):
        resource = pyvisa.ResourceManager("@py").open_resource(name, timeout=2000)
        assert isinstance(resource, MessageBasedResource)
        resource.visalib.sessions[resource.session].max_recv_size = 65536
        wire = VisaBytes(_calls(resource), b"\n", name, 2.0)
        for size in SIZES:
            wire.send([memoryview(b"BLOCK? %d" % size)])
            assert bytes(read_block(wire, 1, 1 << 21, name)) == b"\n" * size
            wire.send([memoryview(b"ECHO? between")])
            assert wire.line() == b"between"
        resource.close()


def scripted(*reads: tuple[bytes, bool]) -> VisaCalls:
    left = list(reads)

    def read(count: int) -> tuple[bytes, bool]:
        data, ended = left.pop(0)
        assert len(data) <= count
        return data, ended

    return VisaCalls(read, len, lambda: None, lambda on: None)


def test_a_reply_may_come_in_any_pieces() -> None:
    pieces = [(b"#", False), (b"2", False), (b"10", False), (b"01234", False), (b"56789", False), (b"\n", True)]
    assert bytes(read_block(VisaMessages(scripted(*pieces), "test", 1.0), 1, 10, "test")) == b"0123456789"
    text = VisaMessages(scripted((b"a,", False), (b"b\r\n", True)), "test", 1.0)
    assert text.line() == b"a,b"


def test_a_block_that_is_shown_to_end_early_or_late_is_refused() -> None:
    early = scripted((b"#1", False), (b"4", False), (b"abc", True))
    with pytest.raises(BadBlock, match="3 of 4"):
        read_block(VisaMessages(early, "test", 1.0), 1, 10, "test")
    late = scripted((b"#1", False), (b"4", False), (b"abcd\nXX", False))
    with pytest.raises(BadBlock, match="terminator"):
        read_block(VisaMessages(late, "test", 1.0), 1, 10, "test")


def test_a_message_that_is_not_taken_whole_is_a_loss() -> None:
    calls = VisaCalls(lambda count: (b"", True), lambda message: len(message) - 1, lambda: None, lambda on: None)
    with pytest.raises(Disconnected, match="9 of 10"):
        VisaMessages(calls, "test", 1.0).send([memoryview(block(b"abcdefg"))])
