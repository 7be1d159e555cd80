"""VisaLink against small instruments on real sockets: what others' users reported as bugs must not happen here."""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import pyvisa
import pyvisa_py.protocols.hislip as hislip
from link_server import Deaf, Gone, HislipServer, Served, block, hislip_instrument, polite, socket_instrument, vxi11_instrument

from drivers.links.hislip import lock_string
from drivers.links.link import Link
from drivers.links.visa_link import VisaLink, list_resources
from drivers.scpi import Scpi
from hil.errors import (
    BadBlock,
    ConfigError,
    ContractError,
    Desync,
    DirtySession,
    Disconnected,
    LinkTimeout,
    OpenFailed,
)
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import build

# PyVISA-py does not close the socket of a HiSLIP session that could not be opened.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <.*ocket:ResourceWarning")

Instrument = Callable[..., AbstractContextManager[tuple[str, Served | HislipServer]]]
wires = pytest.mark.parametrize("instrument", [socket_instrument, hislip_instrument], ids=["socket", "hislip"])


def opened(resource: str, timeout_s: float = 2.0) -> VisaLink:
    return VisaLink(resource, timeout_s=timeout_s, open_timeout_s=2.0, backend="@py")


def ask(link: Link, question: bytes) -> str:
    with link.transaction():
        link.write(question)
        return link.read_text()


@wires
def test_a_question_is_answered_without_terminator(instrument: Instrument) -> None:
    with instrument() as (resource, _):
        link = opened(resource)
        assert link.name == resource
        assert not link.dirty
        assert ask(link, b"*IDN?") == "Hil Works,Model 7,SN-1,1.0"
        assert ask(link, b"ECHO? ") == ""
        link.close()
        link.close()


@wires
@pytest.mark.parametrize("size", [0, 1, 20479, 20480, 20481, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_blocks_of_newlines_come_back_whole(instrument: Instrument, size: int) -> None:
    with instrument() as (resource, _):
        link = opened(resource)
        for _ in range(2):
            link.write(b"BLOCK? %d" % size)
            assert bytes(link.read_block(1, 1 << 21)) == b"\n" * size
        assert ask(link, b"ECHO? in step") == "in step"
        link.close()


@wires
def test_large_blocks_go_out_whole(instrument: Instrument) -> None:
    seen: list[bytes] = []

    def count(message: bytes) -> bytes | None:
        seen.append(message)
        return b"%d" % len(message)

    with instrument(count) as (resource, _):
        link = opened(resource)
        payload = np.arange(700_000, dtype="<i2")
        payload[payload == 10] = 11  # the line server under test counts lines; a newline byte would split this one
        data = payload.view(np.uint8).copy()
        data[data == 10] = 11
        assert ask(link, b"*IDN?") == "5"
        link.write(b"DATA ", data.data, b"!")
        assert link.read_text() == str(5 + data.size + 1)
        assert seen[1] == b"DATA " + data.tobytes() + b"!"
        link.close()


@wires
def test_timeout_on_the_first_question_then_a_thousand_good_ones(instrument: Instrument) -> None:
    with instrument() as (resource, _):
        session = Scpi(opened(resource, timeout_s=0.15))
        session.identify()
        with pytest.raises(LinkTimeout, match=r"0\.15 s"):
            session.ask("SLOW? 0.3 late")
        assert session.link.dirty
        session.recover()
        for number in range(1000):
            assert session.ask(f"ECHO? {number}") == str(number)
        session.close()


@wires
def test_a_stale_reply_is_never_given_to_the_next_question(instrument: Instrument) -> None:
    with instrument() as (resource, _):
        session = Scpi(opened(resource, timeout_s=0.1))
        session.identify()
        for delay_s in (0.12, 0.2):  # the late reply comes just after the timeout, and during the recovery
            with pytest.raises(LinkTimeout):
                session.ask(f"SLOW? {delay_s} stale")
            for _ in range(3):
                with pytest.raises(DirtySession, match="no answer"):
                    session.ask("ECHO? fresh")
            time.sleep(0.05)
            assert session.recover().serial == "SN-1"
            assert session.ask("ECHO? fresh") == "fresh"
        session.close()


def test_a_reply_nobody_asked_for_is_noticed_before_the_next_question() -> None:
    with socket_instrument(lambda m: b"one" if m == b"QUIET" else polite(m)) as (resource, _):
        link = opened(resource)
        link.write(b"QUIET")
        time.sleep(0.05)
        with pytest.raises(Desync, match="nobody asked"):
            link.write(b"*IDN?")
        with pytest.raises(DirtySession):
            link.write(b"*IDN?")
        link.close()


@pytest.mark.parametrize("rest", [b"two\n", b"\n", b"x"])
def test_two_replies_to_one_question_are_out_of_step(rest: bytes) -> None:
    with socket_instrument(lambda m: b"one\n" + rest) as (resource, _):
        link = opened(resource)
        link.write(b"A?")
        with pytest.raises(Desync):
            link.read_text()
        assert link.dirty
        link.close()


def test_other_terminators() -> None:
    with socket_instrument(polite, terminator=b"\r\n") as (resource, _):
        link = VisaLink(resource, timeout_s=1.0, backend="@py", terminator=b"\r\n")
        assert ask(link, b"ECHO? a") == "a"
        link.write(b"BLOCK? 5")
        assert bytes(link.read_block(1, 5)) == b"\n" * 5
        assert ask(link, b"ECHO? b") == "b"
        link.close()


@wires
@pytest.mark.parametrize(
    "reply",
    [b"hello", b"#14abc", b"#13abcd", b"#0abc", b"#15abcd", b"#210" + b"x" * 11, b"stale line\n#13abc", b"#9999999999x"],
)
def test_anything_but_the_block_that_was_due_is_an_error(instrument: Instrument, reply: bytes) -> None:
    with instrument(lambda m: reply if m == b"CURVE?" else polite(m)) as (resource, _):
        session = Scpi(opened(resource, timeout_s=0.2))
        session.identify()
        with pytest.raises((BadBlock, LinkTimeout)):
            session.ask_block("CURVE?", "u1", 10)
        assert session.link.dirty
        session.recover()
        assert session.ask("ECHO? again") == "again"
        session.close()


def test_hislip_marks_the_end_so_a_newline_is_not_needed() -> None:
    with hislip_instrument(newline=b"", piece=7) as (resource, server):
        link = opened(resource)
        assert ask(link, b"ECHO? twelve bytes") == "twelve bytes"
        link.write(b"BLOCK? 20")
        assert bytes(link.read_block(4, 20)) == b"\n" * 20
        assert ask(link, b"*IDN?").startswith("Hil Works")
        assert server.delivered == [0, 1, 1]  # each message says that the reply before it was read
        assert server.received[0] == b"ECHO? twelve bytes"
        link.close()


@pytest.mark.parametrize("instrument", [socket_instrument, hislip_instrument, vxi11_instrument])
def test_all_spellings_of_an_address_are_opened(instrument: Instrument) -> None:
    with instrument() as (resource, _):
        board = resource.replace("TCPIP", "TCPIP0")
        short = resource.removesuffix("::INSTR")
        for spelling in (resource.lower(), resource.upper(), board, f"  {board.lower()}\t", short, short.replace("::", " :: ")):
            link = opened(spelling)
            assert link.name == spelling.strip()
            assert ask(link, b"*IDN?") == "Hil Works,Model 7,SN-1,1.0"
            link.close()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]"])
@pytest.mark.parametrize("instrument", [socket_instrument, hislip_instrument, vxi11_instrument])
def test_an_ipv6_address_stands_in_brackets(instrument: Instrument, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Served, "host", "::1")
    with instrument() as (resource, _):
        link = opened(resource.replace("127.0.0.1", host))
        assert ask(link, b"*IDN?") == "Hil Works,Model 7,SN-1,1.0"
        link.reopen()
        with link.reidentifying():
            assert ask(link, b"ECHO? again") == "again"
        link.close()


@pytest.mark.parametrize(
    ("resource", "said", "todo"),
    [
        ("USB::0x957::0x2A07::MY1::INSTR", "Please install PyUSB to use this.\nNo module named 'usb'", "PyUSB"),
        ("USB0::2391::10759::MY1::RAW", "PyUSB does not seem to be installed.\ninstall libusb 1.0", "libusb"),
        ("GPIB::5::INSTR", "Please install linux-gpib (Linux) or gpib-ctypes", "linux-gpib"),
        ("VICP::h::INSTR", "Please install PyVICP to use this resource type.", "PyVICP"),
    ],
)  # fmt: skip
def test_a_missing_package_is_what_the_message_says(
    resource: str, said: str, todo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError(said)

    monkeypatch.setattr(pyvisa.ResourceManager, "open_resource", broken)
    with pytest.raises(OpenFailed, match="lacks a package") as caught:
        opened(resource)
    assert todo in caught.value.todo
    assert "power" not in str(caught.value)
    assert "cable" not in str(caught.value)
    monkeypatch.undo()
    if importlib.util.find_spec("usb") is None and resource.startswith("USB"):  # as it is without the package
        with pytest.raises(OpenFailed, match="lacks a package"):
            opened(resource)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (socket.gaierror(-2, "Name or service not known"), "host name"),
        (PermissionError(13, "Permission denied"), "may not open"),
        (ValueError("No class registered for 2, INSTR"), "cannot talk"),
        (OSError("Could not locate a VISA implementation."), "no VISA"),
    ],
)  # fmt: skip
def test_only_who_does_not_answer_lacks_power(error: Exception, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pyvisa.ResourceManager, "open_resource", broken)
    with pytest.raises(OpenFailed, match=what) as caught:
        opened("TCPIP::h::inst0::INSTR")
    assert "power" not in str(caught.value)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for resource in (f"TCPIP::127.0.0.1::{port}::SOCKET", f"TCPIP::127.0.0.1::hislip0,{port}::INSTR"):
        start = time.monotonic()
        with pytest.raises(OpenFailed, match="power, cable and address") as caught:
            opened(resource)
        assert time.monotonic() - start < 4.0
        assert caught.value.where == resource
        assert "refused" in caught.value.got.lower()
        del caught
        gc.collect()


def test_an_absent_host_fails_within_the_open_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never says a word
        resource = f"TCPIP::127.0.0.1::hislip0,{silent.getsockname()[1]}::INSTR"
        start = time.monotonic()
        with pytest.raises(OpenFailed, match=r"within 0\.2 s"):
            VisaLink(resource, open_timeout_s=0.2, backend="@py")
        assert time.monotonic() - start < 4.0


@pytest.mark.parametrize(
    ("resource", "says"),
    [("nonsense", "not a VISA resource"), ("ASRL/dev/ttyUSB0::INSTR", "serial"), ("TCPIP::", "not a VISA")],
)
def test_wrong_resource_strings_open_nothing(resource: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        opened(resource)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_must_end(seconds: float) -> None:
    with socket_instrument() as (resource, _):
        with pytest.raises(ConfigError):
            opened(resource, timeout_s=seconds)
        link = opened(resource)
        with pytest.raises(ConfigError):
            link.timeout_s = seconds
        link.timeout_s = 0.5
        assert link.timeout_s == 0.5
        link.close()


@wires
def test_a_server_that_dies_is_noticed_at_once_without_spinning(instrument: Instrument) -> None:
    with instrument() as (resource, server):
        link = opened(resource, timeout_s=5.0)
        assert ask(link, b"*IDN?")
        server.kill()
        start, cpu = time.monotonic(), time.process_time()
        with pytest.raises(Disconnected, match="read back"):
            ask(link, b"*IDN?")
        assert time.monotonic() - start < 4.0
        assert time.process_time() - cpu < 1.0
        with pytest.raises(DirtySession):
            ask(link, b"*IDN?")
        link.close()


@wires
def test_a_server_that_dies_in_the_middle_of_a_block(instrument: Instrument) -> None:
    def half(message: bytes) -> bytes | None:
        if message == b"CURVE?":
            raise Gone(block(b"x" * 5000)[:2000])
        return polite(message)

    with instrument(half) as (resource, _):
        link = opened(resource, timeout_s=5.0)
        link.write(b"CURVE?")
        start = time.monotonic()
        with pytest.raises(Disconnected):
            link.read_block(1, 5000)
        assert time.monotonic() - start < 4.0
        session = Scpi(link)
        session.recover()
        assert session.ask("ECHO? back") == "back"
        link.close()


@wires
def test_a_peer_that_does_not_read_is_a_timeout_and_not_a_hang(instrument: Instrument) -> None:
    def deaf(message: bytes) -> bytes | None:
        raise Deaf

    with instrument(deaf) as (resource, _):
        link = opened(resource, timeout_s=0.3)
        link.write(b"DEAF")
        start = time.monotonic()
        with pytest.raises(LinkTimeout):
            link.write(memoryview(bytes(32 << 20)))
        assert time.monotonic() - start < 20.0
        assert link.dirty
        link.close()


def test_eight_threads_never_get_each_others_reply() -> None:
    with socket_instrument() as (resource, _):
        link = opened(resource)
        wrong: list[str] = []

        def talk(name: int) -> None:
            for number in range(100):
                text = f"{name}:{number}"
                reply = ask(link, b"ECHO? " + text.encode())
                if reply != text:
                    wrong.append(f"{text} got {reply}")

        threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        link.close()


def test_write_write_query_does_not_wait_for_nagle() -> None:
    with socket_instrument() as (resource, _):
        link = opened(resource)
        start = time.monotonic()
        for _ in range(20):
            link.write(b"SET 1")
            link.write(b"SET 2")
            ask(link, b"*OPC?")
        assert (time.monotonic() - start) / 20 < 0.02  # 44 ms each with Nagle's algorithm
        link.close()


def test_interrupt_in_a_blocked_read_leaves_a_dirty_link(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket_instrument() as (resource, _):
        link = opened(resource, timeout_s=2.0)
        link.write(b"SLOW? 0.05 x")

        def interrupted() -> bytes:
            raise KeyboardInterrupt

        assert link._wire is not None
        monkeypatch.setattr(link._wire, "line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            link.read_text()
        assert link.dirty
        with pytest.raises(DirtySession, match="KeyboardInterrupt"):
            link.write(b"*IDN?")
        link.close()


def _interrupted_exchange(link: Link) -> None:
    with link.transaction():
        link.write(b"*IDN?")
        raise KeyboardInterrupt


def test_interrupt_between_question_and_reply_leaves_a_dirty_link() -> None:
    with socket_instrument() as (resource, _):
        link = opened(resource)
        with pytest.raises(KeyboardInterrupt):
            _interrupted_exchange(link)
        assert link.dirty
        link.close()


def test_reopen_keeps_the_settings_and_asks_for_identification() -> None:
    with socket_instrument(polite, terminator=b"\r\n") as (resource, _):
        link = VisaLink(resource, timeout_s=0.7, backend="@py", terminator=b"\r\n")
        link.reopen()
        assert link.dirty
        assert link.timeout_s == 0.7
        with pytest.raises(DirtySession):
            link.write(b"*IDN?")
        Scpi(link).identify()
        assert ask(link, b"ECHO? a") == "a"
        link.close()


def test_a_dirty_link_cannot_be_identified_before_it_was_emptied() -> None:
    with socket_instrument() as (resource, _):
        link = opened(resource)
        link.distrust("a test")
        with pytest.raises(DirtySession, match="in flight"):
            Scpi(link).identify()
        link.clear()
        Scpi(link).identify()
        assert not link.dirty
        link.close()


def test_closed_means_disconnected_and_two_links_share_nothing() -> None:
    with socket_instrument() as (resource, _):
        first, second = opened(resource), opened(resource)
        first.close()
        with pytest.raises(Disconnected):
            first.write(b"*IDN?")
        assert ask(second, b"ECHO? alive") == "alive"
        second.close()
        stock = pyvisa.ResourceManager("@py").open_resource(resource, read_termination="\n", write_termination="\n")
        assert stock.query("ECHO? the shared manager is open") == "the shared manager is open"
        stock.close()


def test_text_that_is_not_ascii_is_out_of_step() -> None:
    with socket_instrument(lambda m: b"\xb5\xff") as (resource, _):
        link = opened(resource)
        link.write(b"A?")
        with pytest.raises(Desync, match="b5 ff"):
            link.read_text()
        link.close()


def test_a_part_must_be_contiguous() -> None:
    with socket_instrument() as (resource, _):
        link = opened(resource)
        with pytest.raises(ContractError):
            link.write(np.zeros(10, np.uint8)[::2].data)
        assert not link.dirty
        assert ask(link, b"ECHO? fine") == "fine"
        link.close()


def test_found_resources_are_resource_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ("USB0::2391::10759::MY1::0::INSTR", "TCPIP::10.0.0.1::INSTR")
    monkeypatch.setattr(pyvisa.ResourceManager, "list_resources", lambda self: found)
    assert list_resources("@py") == tuple(sorted(found))

    def broken(self: object) -> tuple[str, ...]:
        raise OSError("no network")

    monkeypatch.setattr(pyvisa.ResourceManager, "list_resources", broken)
    with pytest.raises(OpenFailed, match="no network"):
        list_resources("@py")


# Locks of the instrument itself.


@pytest.fixture
def box() -> Iterator[tuple[str, int]]:
    """A box with real locks: its resource string and its port."""
    with build(VirtualBench((VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600"),))) as bench:
        resource = bench.resources["awg"]
        yield resource, int(resource.split(",")[1].split(":")[0])


def test_this_computer_shares_the_lock_and_keeps_others_out(box: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first connection goes on holding its lock, as one that died without a word does."""
    resource, port = box
    first = opened(resource)
    assert first.locked
    second = opened(resource)
    assert second.locked
    assert ask(second, b"*IDN?").startswith("Keysight")
    stranger = hislip.Instrument("127.0.0.1", port=port)
    stranger.timeout = 0.1
    stranger.send(b"*IDN?")
    with pytest.raises(TimeoutError):
        stranger.receive()
    stranger.close()
    monkeypatch.setattr("drivers.links.hislip.lock_string", lambda: "hil on another computer")
    for _ in range(2):
        with pytest.raises(OpenFailed, match=r"locked this instrument(?s:.)*nothing was sent(?s:.)*another computer"):
            opened(resource)
    first.close()
    second.close()
    third = opened(resource)
    assert third.locked
    third.close()


@pytest.mark.parametrize("string", ["", "labview on another computer"])
def test_a_lock_that_another_program_holds_is_said_and_waited_for_no_longer_than_a_moment(
    box: tuple[str, int], string: str
) -> None:
    resource, port = box
    holder = hislip.Instrument("127.0.0.1", port=port)
    assert holder.async_lock_request(0.0, string) == "success"
    with pytest.raises(OpenFailed, match="another program has locked"):
        opened(resource)
    holder.close()
    link = opened(resource)
    assert link.locked
    assert ask(link, b"*IDN?").startswith("Keysight")
    link.close()


def test_a_reopened_link_is_locked_again_and_can_be_cleared(box: tuple[str, int]) -> None:
    link = opened(box[0])
    for empty in (link.reopen, link.clear):
        empty()
        with link.reidentifying():
            assert ask(link, b"*IDN?").startswith("Keysight")
        assert link.locked
    link.close()


@pytest.mark.parametrize("answer", ["silence", "late", "unknown type", "error"])
def test_an_instrument_that_knows_no_locks_is_used_without(answer: str) -> None:
    with hislip_instrument() as (resource, server):
        server.lock_answer = answer
        link = opened(resource, timeout_s=2.0)
        assert not link.locked
        assert ask(link, b"ECHO? twelve bytes") == "twelve bytes"
        link.clear()
        with link.reidentifying():
            assert ask(link, b"*IDN?").startswith("Hil Works")
        link.close()


def test_the_string_of_a_lock_is_that_of_the_computer() -> None:
    """Another process has the same, so whoever comes to make safe is let in."""
    program = "from drivers.links.hislip import lock_string; print(lock_string())"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": "/nonexistent"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == lock_string()
    assert lock_string().isascii()
    assert len(lock_string()) <= 256
