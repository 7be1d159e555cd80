"""HiSLIP, with the stock client of PyVISA-py and with bytes written by hand."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import pyvisa
from memory_box import MemoryBox
from pyvisa_py.protocols.hislip import Instrument

from hil.errors import ConfigError
from sim_devices.transports.hislip import HislipServer

HEADER = struct.Struct("!2sBBIQ")


@pytest.fixture
def box() -> MemoryBox:
    return MemoryBox()


@pytest.fixture
def server(box: MemoryBox) -> Iterator[HislipServer]:
    server = HislipServer(box)
    server.start()
    yield server
    server.close()


@pytest.fixture
def client(server: HislipServer) -> Iterator[pyvisa.resources.MessageBasedResource]:
    opened = pyvisa.ResourceManager("@py").open_resource(server.resource)
    opened.timeout = 3000
    yield opened
    opened.close()


def raw(server: HislipServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=3)


def exactly(channel: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = channel.recv(count - len(got))
        assert more, f"closed after {len(got)} of {count} bytes"
        got += more
    return got


def receive(channel: socket.socket) -> tuple[int, int, int, bytes]:
    prologue, kind, control, parameter, length = HEADER.unpack(exactly(channel, 16))
    assert prologue == b"HS"
    return kind, control, parameter, exactly(channel, length)


def send(channel: socket.socket, kind: int, control: int = 0, parameter: int = 0, payload: bytes = b"") -> None:
    channel.sendall(HEADER.pack(b"HS", kind, control, parameter, len(payload)) + payload)


def opened(server: HislipServer) -> tuple[socket.socket, socket.socket]:
    sync = raw(server)
    send(sync, 0, 0, 0x0100 << 16, b"hislip0")
    kind, control, parameter, _ = receive(sync)
    assert (kind, control, parameter >> 16) == (1, 0, 0x0100)
    asynchronous = raw(server)
    send(asynchronous, 17, 0, parameter & 0xFFFF)
    assert receive(asynchronous)[0] == 18
    return sync, asynchronous


def test_identify_and_end_of_reply(client: pyvisa.resources.MessageBasedResource) -> None:
    assert client.query("*IDN?") == "Maker,memory,0,1.0\n"


def test_replies_to_what_was_asked_only(client: pyvisa.resources.MessageBasedResource, box: MemoryBox) -> None:
    client.write("*RST")
    assert client.query("*IDN?").startswith("Maker")
    assert box.messages == [b"*RST", b"*IDN?"]


@pytest.mark.parametrize("size", [0, 1, 20479, 20480, 20481, (1 << 20) - 17, (1 << 20) - 16, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_blocks_of_every_size_both_ways(client: pyvisa.resources.MessageBasedResource, box: MemoryBox, size: int) -> None:
    payload = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    block = b"#%d%d" % (len(str(size)), size) + payload
    client.write_raw(b"PUT " + block)  # END closes it; the payload may end in CR or NL
    client.write("GET?")
    assert client.read_raw(size + 100) == block + b"\n"
    assert box.held == block


def test_payload_of_newlines_only(client: pyvisa.resources.MessageBasedResource) -> None:
    block = b"#41000" + b"\n" * 1000
    client.write_raw(b"PUT " + block)
    client.write("GET?")
    assert client.read_raw(2000) == block + b"\n"


def test_reply_is_cut_to_the_size_the_client_takes(server: HislipServer, box: MemoryBox) -> None:
    sync, asynchronous = opened(server)
    send(asynchronous, 15, 0, 0, (1000).to_bytes(8, "big"))
    assert receive(asynchronous)[0] == 16
    box.held = bytes(range(256)) * 10
    send(sync, 7, 0, 42, b"GET?")
    got, kinds = b"", []
    while not kinds or kinds[-1] != 7:
        kind, control, number, payload = receive(sync)
        assert (control, number) == (0, 42)
        assert len(payload) + 16 <= 1000
        kinds.append(kind)
        got += payload
    assert got == box.held + b"\n"
    assert kinds == [6, 6, 7]


def test_message_in_many_data_messages(server: HislipServer, box: MemoryBox) -> None:
    sync, _asynchronous = opened(server)
    for number, piece in enumerate([b"PU", b"T #2", b"10ab\ncd", b"e\nfgh"]):
        send(sync, 6 if number < 3 else 7, 0, 2 * number, piece)
    send(sync, 7, 0, 8, b"GET?")
    assert receive(sync) == (7, 0, 8, b"#210ab\ncde\nfgh\n")


def test_too_large_message_is_refused_and_the_next_one_works(server: HislipServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim_devices.transports.hislip.LARGEST_MESSAGE", 1000)
    sync, _asynchronous = opened(server)
    send(sync, 7, 0, 2, b"PUT " + bytes(2000))
    kind, control, _, text = receive(sync)
    assert (kind, control) == (3, 4)
    assert b"too large" in text
    send(sync, 7, 0, 4, b"*IDN?")
    assert receive(sync)[3].startswith(b"Maker")


def test_several_clients_one_after_another_and_at_once(server: HislipServer) -> None:
    manager = pyvisa.ResourceManager("@py")
    for _ in range(3):
        one = manager.open_resource(server.resource)
        assert one.query("*IDN?").startswith("Maker")
        one.close()
    wrong: list[str] = []

    def ask() -> None:
        mine = manager.open_resource(server.resource)
        wrong.extend(reply for _ in range(100) if not (reply := mine.query("*IDN?")).startswith("Maker"))
        mine.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_status_byte_has_message_available(client: pyvisa.resources.MessageBasedResource, box: MemoryBox) -> None:
    box.status = 0x24
    assert client.read_stb() == 0x24
    client.write("*IDN?")
    deadline = time.monotonic() + 2
    while client.read_stb() != 0x34:
        assert time.monotonic() < deadline
    client.read()
    assert client.read_stb() == 0x24


def test_unread_reply_is_a_query_error_and_never_the_next_answer(
    client: pyvisa.resources.MessageBasedResource, box: MemoryBox
) -> None:
    box.held = b"stale"
    client.write("GET?")
    assert client.query("*IDN?").startswith("Maker")
    assert box.query_errors == [-410]
    assert client.query("*IDN?").startswith("Maker")
    assert box.query_errors == [-410]


def test_late_reply_is_not_taken_for_the_next_one(client: pyvisa.resources.MessageBasedResource, box: MemoryBox) -> None:
    client.timeout = 100
    with pytest.raises(pyvisa.VisaIOError):
        client.query("WAIT?")
    client.timeout = 3000
    box.trigger()
    assert client.query("*IDN?").startswith("Maker")


def test_device_clear_ends_a_wait_and_the_next_query_works(
    client: pyvisa.resources.MessageBasedResource, box: MemoryBox
) -> None:
    client.write("WAIT?")
    _until(lambda: box.waits == 1)
    client.clear()
    assert box.clears == 1
    assert client.query("*IDN?").startswith("Maker")
    assert box.query_errors == []


def test_device_clear_throws_half_a_message_away(server: HislipServer, box: MemoryBox) -> None:
    sync, asynchronous = opened(server)
    send(sync, 6, 0, 2, b"PUT half")
    send(asynchronous, 19)
    assert receive(asynchronous)[0] == 23
    send(sync, 7, 0, 4, b"of a message")
    send(sync, 8)
    assert receive(sync)[0] == 9
    send(sync, 7, 0, 6, b"*IDN?")
    assert receive(sync)[2:] == (6, b"Maker,memory,0,1.0\n")
    assert (box.held, box.messages) == (b"", [b"*IDN?"])


def test_trigger_message(server: HislipServer, box: MemoryBox) -> None:
    instrument = Instrument("127.0.0.1", port=server.port)
    instrument.trigger()
    instrument.send(b"*IDN?")
    assert bytes(instrument.receive()).startswith(b"Maker")
    assert box.triggers == 1
    instrument.close()


def test_exclusive_lock_holds_the_others_back(server: HislipServer) -> None:
    mine, other = (Instrument("127.0.0.1", port=server.port) for _ in range(2))
    assert mine.async_lock_request(1.0) == "success"
    assert mine.async_lock_request(1.0) == "error"
    assert mine.async_lock_info() == 1
    assert other.async_lock_request(0.05) == "failure"
    other.send(b"*IDN?")
    other.timeout = 0.1
    with pytest.raises(TimeoutError):
        other.receive()
    mine.send(b"*IDN?")
    assert bytes(mine.receive()).startswith(b"Maker")
    mine.close()  # a client that goes gives its lock back
    other.timeout = 3.0
    assert bytes(other.receive()).startswith(b"Maker")
    assert other.async_lock_info() == 0
    other.close()


def test_lock_is_released(server: HislipServer) -> None:
    mine, other = (Instrument("127.0.0.1", port=server.port) for _ in range(2))
    assert mine.async_lock_request(1.0) == "success"
    assert mine.async_lock_release() == "success"
    assert mine.async_lock_release() == "error"
    assert other.async_lock_request(1.0) == "success"
    mine.close()
    other.close()


def test_a_shared_lock_lets_in_who_names_it_and_nobody_else(server: HislipServer, box: MemoryBox) -> None:
    one, two, other = (Instrument("127.0.0.1", port=server.port) for _ in range(3))
    assert one.async_lock_request(0.0, "key") == "success"
    assert one.async_lock_request(0.0, "key") == "error"
    assert two.async_lock_request(0.0, "key") == "success"
    assert other.async_lock_request(0.05, "another key") == "failure"
    assert other.async_lock_request(0.05) == "failure"
    assert other.async_lock_info() == 0  # exclusive ones
    for sharer in (one, two):
        sharer.send(b"*IDN?")
        assert bytes(sharer.receive()).startswith(b"Maker")
    other.timeout = 0.1
    other.send(b"PUT #13abc")
    with pytest.raises(TimeoutError):
        other.receive()
    assert one.async_lock_release() == "success shared"
    assert one.async_lock_release() == "error"
    assert box.held == b""
    two.close()
    _until(lambda: box.held == b"#13abc")
    assert other.async_lock_request(1.0, "another key") == "success"
    for client in (one, other):
        client.close()


def test_an_exclusive_lock_among_those_who_share(server: HislipServer) -> None:
    one, two = (Instrument("127.0.0.1", port=server.port) for _ in range(2))
    for client in (one, two):
        assert client.async_lock_request(0.0, "key") == "success"
    assert one.async_lock_request(0.0) == "success"
    assert two.async_lock_request(0.05) == "failure"
    two.send(b"*IDN?")
    two.timeout = 0.1
    with pytest.raises(TimeoutError):
        two.receive()
    assert one.async_lock_release() == "success"
    two.timeout = 3.0
    assert bytes(two.receive()).startswith(b"Maker")
    assert one.async_lock_release() == "success shared"
    for client in (one, two):
        client.close()


@pytest.mark.parametrize("string", ["", "key"])
def test_what_a_client_said_that_left_while_it_waited_for_a_lock_is_never_executed(
    server: HislipServer, box: MemoryBox, string: str
) -> None:
    mine, other = (Instrument("127.0.0.1", port=server.port) for _ in range(2))
    assert mine.async_lock_request(0.0, string) == "success"
    other.send(b"PUT #13abc")
    other.close()
    _until(lambda: len(server._sessions) == 1)
    assert mine.async_lock_release().startswith("success")
    mine.send(b"GET?")
    assert bytes(mine.receive()) == b"\n"
    assert box.held == b""
    mine.close()


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (HEADER.pack(b"HS", 0, 0, 0x01000000, 5) + b"inst9", 3),
        (HEADER.pack(b"HS", 7, 0, 0, 0), 3),
        (HEADER.pack(b"HS", 17, 0, 999, 0), 3),
        (b"GET / HTTP/1.1\r\n\r\n", 1),
    ],
)
def test_wrong_beginning_is_a_fatal_error(server: HislipServer, first: bytes, code: int) -> None:
    channel = raw(server)
    channel.sendall(first)
    kind, control, _, text = receive(channel)
    assert (kind, control) == (2, code)
    assert text
    channel.close()


def test_data_before_the_second_channel_is_a_fatal_error(server: HislipServer) -> None:
    sync = raw(server)
    send(sync, 0, 0, 0x0100 << 16, b"hislip0")
    receive(sync)
    send(sync, 7, 0, 0, b"*IDN?")
    assert receive(sync)[:2] == (2, 2)


def test_unknown_type_is_an_error_and_the_channel_goes_on(server: HislipServer) -> None:
    sync, asynchronous = opened(server)
    for channel in (sync, asynchronous):
        send(channel, 99, 0, 0, b"what")
        assert receive(channel)[:2] == (3, 1)
    send(sync, 7, 0, 2, b"*IDN?")
    assert receive(sync)[3].startswith(b"Maker")


def test_failing_box_is_a_fatal_error_not_silence(server: HislipServer, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    sync, _asynchronous = opened(server)
    send(sync, 7, 0, 2, b"FAIL")
    kind, control, _, text = receive(sync)
    assert (kind, control) == (2, 0)
    assert b"simulated failure" in text
    _until(lambda: len(shown) == 1)  # the traceback goes to stderr
    again, _ = opened(server)
    send(again, 7, 0, 2, b"*IDN?")
    assert receive(again)[3].startswith(b"Maker")


def test_closed_server_is_noticed_at_once(server: HislipServer, client: pyvisa.resources.MessageBasedResource) -> None:
    client.timeout = 20_000
    client.query("*IDN?")
    server.close()
    began = time.monotonic()
    with pytest.raises((RuntimeError, ConnectionError, pyvisa.VisaIOError)):
        client.query("*IDN?")
    assert time.monotonic() - began < 8
    server.close()


def test_only_this_machine() -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        HislipServer(MemoryBox(), host="0.0.0.0")


def test_taken_port(server: HislipServer) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        HislipServer(MemoryBox(), port=server.port)


def test_a_large_round_trip_is_fast(server: HislipServer, box: MemoryBox) -> None:
    """Not a benchmark: it fails if something is done a byte at a time, or again and again for the same bytes."""
    instrument = Instrument("127.0.0.1", port=server.port)
    block = b"#816000000" + bytes(16_000_000)
    began = time.perf_counter()
    instrument.send(b"PUT " + block)
    instrument.send(b"GET?")
    reply = instrument.receive(len(block) + 1)
    seconds = time.perf_counter() - began
    instrument.close()
    assert len(reply) == len(block) + 1
    assert seconds < 5.0, f"{2 * len(block) / seconds / 1e6:.0f} MB/s"


def _until(condition: object, seconds: float = 2.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
