"""VXI-11 and the port mapper, with the stock client of PyVISA-py and with calls written by hand."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import pyvisa
from faulty_box import Vxi11Client, exactly, opaque
from memory_box import MemoryBox
from pyvisa.resources import MessageBasedResource
from pyvisa_py.protocols import rpc, vxi11

from hil.errors import ConfigError
from sim_devices.transports.rpc import PortMapper
from sim_devices.transports.vxi11 import LARGEST, Vxi11Server

IDN = b"Maker,memory,0,1.0\n"
CORE = (0x0607AF, 1)


@pytest.fixture
def box() -> MemoryBox:
    return MemoryBox()


@pytest.fixture
def server(box: MemoryBox) -> Iterator[Vxi11Server]:
    server = Vxi11Server(box)
    server.start()
    yield server
    server.close()


@pytest.fixture
def client(server: Vxi11Server) -> Iterator[MessageBasedResource]:
    opened = pyvisa.ResourceManager("@py").open_resource(server.resource)
    assert isinstance(opened, MessageBasedResource)
    opened.timeout = 3000
    yield opened
    opened.close()


@pytest.fixture
def hand(server: Vxi11Server) -> Iterator[Vxi11Client]:
    client = Vxi11Client(server.port)
    yield client
    client.close()


def until(condition: object, seconds: float = 2.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- A stock client ---------------------------------------------------------------------------------------------------


def test_the_address_names_the_port(server: Vxi11Server) -> None:
    assert server.resource == f"TCPIP::127.0.0.1,{server.port}::inst0::INSTR"


@pytest.mark.parametrize("size", [0, 1, 1000, LARGEST - 12, LARGEST - 11, LARGEST, 3 * LARGEST + 1])
def test_blocks_of_every_size_both_ways(client: MessageBasedResource, box: MemoryBox, size: int) -> None:
    payload = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    block = b"#%d%d" % (len(str(size)), size) + payload
    client.write_raw(b"PUT " + block)  # END closes it; the payload may end in CR or NL
    client.write("GET?")
    assert client.read_raw(size + 100) == block + b"\n"
    assert box.held == block


def test_status_byte_trigger_and_lock(client: MessageBasedResource, box: MemoryBox) -> None:
    box.status = 0x24
    assert client.read_stb() == 0x24
    client.write("*IDN?")
    until(lambda: client.read_stb() == 0x34)
    assert client.read() == IDN.decode()
    assert client.read_stb() == 0x24
    client.assert_trigger()
    assert box.triggers == 1
    client.lock()
    client.unlock()


def test_a_late_reply_is_not_taken_for_the_next_one(client: MessageBasedResource, box: MemoryBox) -> None:
    client.timeout = 100
    with pytest.raises(pyvisa.VisaIOError, match="VI_ERROR_TMO"):
        client.query("WAIT?")
    client.timeout = 3000
    client.write("*IDN?")  # waits behind the other one
    box.trigger()
    assert client.read() == IDN.decode()
    assert box.query_errors == [-410]


def test_device_clear_ends_a_wait_and_the_next_query_works(client: MessageBasedResource, box: MemoryBox) -> None:
    client.write("WAIT?")
    until(lambda: box.waits == 1)
    client.clear()
    assert box.clears == 1
    assert client.query("*IDN?") == IDN.decode()
    assert box.query_errors == []


def test_several_clients_at_once(server: Vxi11Server) -> None:
    wrong: list[str] = []

    def ask() -> None:
        mine = pyvisa.ResourceManager("@py").open_resource(server.resource)
        assert isinstance(mine, MessageBasedResource)
        wrong.extend(reply for _ in range(50) if (reply := mine.query("*IDN?")) != IDN.decode())
        mine.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("vxi-11 memory link")])


# -- Messages ---------------------------------------------------------------------------------------------------------


def test_a_reply_is_read_in_pieces_with_reasons(hand: Vxi11Client, box: MemoryBox) -> None:
    box.held = b"one,two;three"
    hand.put(b"GET?")
    assert hand.read(size=4) == (0, 1, b"one,")
    assert hand.read(size=100, flags=128, char=ord(";")) == (0, 2, b"two;")
    assert hand.read(size=5, flags=128, char=ord(";")) == (0, 1, b"three")
    assert hand.read(size=1) == (0, 5, b"\n")


def test_a_message_ends_with_its_flag_alone(hand: Vxi11Client, box: MemoryBox) -> None:
    for piece in (b"PU", b"T #2", b"10ab\ncd"):
        assert hand.write(piece, flags=0) == 0
    time.sleep(0.02)
    assert box.held == b""
    assert hand.write(b"e\nfgh") == 0
    hand.put(b"GET?")
    assert hand.message() == b"#210ab\ncde\nfgh\n"
    hand.put(b"GET?\n*IDN?\n")  # two messages under one end, each with its reply
    assert [hand.message(), hand.message()] == [b"#210ab\ncde\nfgh\n", IDN]


def test_an_unread_reply_is_discarded_and_a_query_error(hand: Vxi11Client, box: MemoryBox) -> None:
    hand.put(b"GET?")
    time.sleep(0.02)
    hand.put(b"*IDN?")
    assert hand.message() == IDN
    assert box.query_errors == [-410]


def test_a_read_that_nothing_was_asked_for_is_a_query_error(hand: Vxi11Client, box: MemoryBox) -> None:
    assert hand.read(30) == (15, 0, b"")
    hand.put(b"*IDN?")
    hand.message()
    assert hand.read(30) == (15, 0, b"")
    assert box.query_errors == [-420, -420]
    hand.put(b"WAIT?")
    assert hand.read(30) == (15, 0, b"")  # it was asked, and takes its time
    assert box.query_errors == [-420, -420]


def test_device_clear_throws_half_a_message_away(hand: Vxi11Client, box: MemoryBox) -> None:
    hand.write(b"PUT half", flags=0)
    assert hand.call(15, struct.pack("!4I", hand.link, 0, 0, 1000)) == bytes(4)
    hand.put(b"*IDN?")
    assert hand.message() == IDN
    assert (box.held, box.messages) == (b"", [b"*IDN?"])


def test_a_message_beyond_every_bound_is_refused(hand: Vxi11Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim_devices.transports.vxi11.MESSAGE_CAP", 1000)
    assert hand.write(bytes(900), flags=0) == 0
    assert hand.write(bytes(200), flags=0) == 9
    hand.put(b"*IDN?")
    assert hand.message() == IDN


def test_a_failing_box_is_an_error_not_silence(hand: Vxi11Client, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    hand.put(b"FAIL")
    assert hand.read() == (17, 0, b"")
    until(lambda: len(shown) == 1)  # the traceback goes to stderr


# -- Links, locks and abort -------------------------------------------------------------------------------------------


def number(reply: bytes) -> int:
    return int(struct.unpack("!I", reply[:4])[0])


def waiting(server: Vxi11Server) -> int:
    """How many calls wait, while no link has executed all it was sent."""
    return len(server._state._waiters)  # type: ignore[attr-defined]


def locked(client: Vxi11Client, flags: int = 0, timeout_ms: int = 0) -> int:
    return number(client.call(18, struct.pack("!3I", client.link, flags, timeout_ms)))


def unlocked(client: Vxi11Client) -> int:
    return number(client.call(19, struct.pack("!I", client.link)))


def test_a_lock_keeps_the_others_out(server: Vxi11Server, hand: Vxi11Client, box: MemoryBox) -> None:
    other = Vxi11Client(server.port)
    assert unlocked(hand) == 12
    assert locked(hand) == 0
    assert [locked(hand), locked(other), locked(other, 1, 30)] == [11, 11, 11]
    assert other.write(b"PUT 1") == 11
    assert other.read(30)[0] == 11
    assert [number(other.call(procedure, struct.pack("!4I", other.link, 0, 0, 30))) for procedure in (13, 14, 15, 16)] == [
        11
    ] * 4
    threading.Timer(0.05, hand.close).start()  # a client that goes gives its lock back
    assert locked(other, 1, 2000) == 0
    assert unlocked(other) == 0
    assert (box.held, box.triggers, box.clears) == (b"", 0, 0)
    other.close()


def test_what_a_client_said_that_left_while_it_waited_for_a_lock_is_never_executed(
    server: Vxi11Server, hand: Vxi11Client, box: MemoryBox
) -> None:
    other = Vxi11Client(server.port)
    assert locked(hand) == 0
    other.send(11, struct.pack("!4I", other.link, 1000, 2000, 1 | 8) + opaque(b"PUT 1"))
    until(lambda: waiting(server) == 1)
    other.close()
    time.sleep(0.02)
    assert unlocked(hand) == 0
    until(lambda: len(server._links) == 1)
    hand.put(b"GET?")
    assert hand.message() == b"\n"


def test_what_a_client_said_before_it_left_is_executed(server: Vxi11Server, hand: Vxi11Client, box: MemoryBox) -> None:
    other = Vxi11Client(server.port)
    other.put(b"WAIT?")
    until(lambda: box.waits == 1)
    other.put(b"PUT last")
    other.close()
    until(lambda: len(server._links) == 1)
    assert box.held == b""
    box.trigger()
    until(lambda: box.held == b"last")


def test_a_link_may_begin_with_the_lock(server: Vxi11Server, hand: Vxi11Client) -> None:
    reply = hand.call(10, struct.pack("!3I", 1, 1, 0) + opaque(b"INST0"))
    error, second, abort_port, largest = struct.unpack("!4I", reply)
    assert (error, largest) == (0, LARGEST)
    assert abort_port > 0
    assert hand.write(b"*IDN?") == 11  # of the same client, by its first link
    assert number(hand.call(10, struct.pack("!3I", 1, 1, 30) + opaque(b"inst0"))) == 11
    assert number(hand.call(23, struct.pack("!I", second))) == 0
    assert number(hand.call(23, struct.pack("!I", second))) == 4
    assert hand.write(b"*IDN?") == 0


def test_a_waiting_read_is_aborted(server: Vxi11Server, hand: Vxi11Client) -> None:
    abort_port = struct.unpack("!4I", hand.call(10, struct.pack("!3I", 1, 0, 0) + opaque(b"inst0")))[2]
    hand.put(b"WAIT?")
    hand.send(12, hand.read_call(60_000))
    until(lambda: waiting(server) == 1)
    with socket.create_connection(("127.0.0.1", abort_port), timeout=3) as channel:
        for link, error in ((hand.link, 0), (999, 4)):
            call = struct.pack("!11I", 1, 0, 2, 0x0607B0, 1, 1, 0, 0, 0, 0, link)
            channel.sendall(struct.pack("!I", 0x8000_0000 | len(call)) + call)
            assert exactly(channel, 32)[28:] == struct.pack("!I", error)
    assert exactly(hand.channel, 40)[28:] == struct.pack("!3I", 23, 0, 0)


def test_what_is_not_there(hand: Vxi11Client) -> None:
    assert number(hand.call(10, struct.pack("!3I", 1, 0, 0) + opaque(b"inst9"))) == 3
    assert hand.call(12, struct.pack("!6I", 999, 1, 0, 0, 0, 0)) == struct.pack("!3I", 4, 0, 0)
    assert hand.call(25, bytes(20)) == struct.pack("!I", 8)
    assert hand.call(22, bytes(36)) == struct.pack("!2I", 8, 0)
    assert hand.call(17, struct.pack("!4I", hand.link, 0, 0, 0)) == bytes(4)
    assert hand.call(0, b"") == b""


# -- Calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "arguments", "reply"),
    [
        ((0, 2, 0x0607AE, 1, 10), b"", (1, 0, 0, 0, 1)),  # no such program
        ((0, 2, 0x0607AF, 2, 10), b"", (1, 0, 0, 0, 2, 1, 1)),  # another version
        ((0, 2, 0x0607AF, 1, 99), b"", (1, 0, 0, 0, 3)),  # no such procedure
        ((0, 2, 0x0607AF, 1, 11), bytes(8), (1, 0, 0, 0, 0, 4, 0)),  # the link is looked for first
        ((0, 2, 0x0607AF, 1, 10), struct.pack("!4I", 1, 0, 0, 99), (1, 0, 0, 0, 4)),  # a name that is not all there
        ((0, 3, 0x0607AF, 1, 10), b"", (1, 1, 0, 2, 2)),  # another protocol
    ],
)
def test_a_call_that_makes_no_sense_is_answered_so(
    server: Vxi11Server, head: tuple[int, ...], arguments: bytes, reply: tuple[int, ...]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as channel:
        call = struct.pack("!10I", 5, *head, 0, 0, 0, 0) + arguments
        fragments = struct.pack("!I", 7) + call[:7] + struct.pack("!I", 0x8000_0000 | len(call) - 7) + call[7:]
        channel.sendall(fragments)
        expected = struct.pack(f"!{1 + len(reply)}I", 5, *reply)
        assert exactly(channel, 4 + len(expected)) == struct.pack("!I", 0x8000_0000 | len(expected)) + expected


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x80\0\0\x04\0\0\0\0", b"\x80\0\0\x28" + b"\0\0\0\1" * 10])
def test_what_is_no_call_ends_the_connection(server: Vxi11Server, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=3) as channel:
        channel.sendall(said)
        with pytest.raises(ConnectionResetError):
            exactly(channel, 1)


def test_only_this_machine_and_a_free_port(server: Vxi11Server) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        Vxi11Server(MemoryBox(), host="0.0.0.0")
    with pytest.raises(ConfigError, match="cannot listen"):
        Vxi11Server(MemoryBox(), port=server.port)


def test_a_closed_server_is_noticed_at_once(server: Vxi11Server, hand: Vxi11Client) -> None:
    hand.put(b"WAIT?")
    hand.send(12, hand.read_call(60_000))
    began = time.monotonic()
    server.close()
    with pytest.raises(ConnectionResetError):
        exactly(hand.channel, 1)
    assert time.monotonic() - began < 0.9
    server.close()


# -- The port mapper --------------------------------------------------------------------------------------------------


def test_a_client_that_knows_the_host_alone_asks_the_port_mapper(box: MemoryBox, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Vxi11Server(box)
    monkeypatch.setattr(rpc, "PMAP_PORT", server.map_port(0).port)
    server.start()
    client = pyvisa.ResourceManager("@py").open_resource("TCPIP::127.0.0.1::inst0::INSTR")
    assert isinstance(client, MessageBasedResource)
    assert client.query("*IDN?") == IDN.decode()
    client.close()
    asked = (*CORE, rpc.IPPROTO_TCP, 0)
    broadcast = rpc.BroadcastUDPPortMapperClient("127.255.255.255")
    broadcast.set_timeout(0.1)
    assert [(port, host) for port, (host, _) in broadcast.get_port(asked)] == [(server.port, "127.0.0.1")]
    broadcast.close()
    server.close()


def test_it_knows_what_it_was_told_and_nothing_else(server: Vxi11Server, monkeypatch: pytest.MonkeyPatch) -> None:
    mapper = PortMapper({CORE: server.port}, port=0)
    mapper.start()
    monkeypatch.setattr(rpc, "PMAP_PORT", mapper.port)
    asking = rpc.UDPPortMapperClient("127.0.0.1")
    assert asking.get_port((*CORE, rpc.IPPROTO_TCP, 0)) == server.port
    assert asking.get_port((*CORE, rpc.IPPROTO_UDP, 0)) == 0
    assert asking.get_port((vxi11.DEVICE_INTR_PROG, 1, rpc.IPPROTO_TCP, 0)) == 0
    assert asking.dump() == [(*CORE, rpc.IPPROTO_TCP, server.port)]
    asking.close()
    with pytest.raises(ConfigError, match="cannot listen") as refused:
        PortMapper({}, port=mapper.port)
    assert "write the port into the address" in refused.value.todo
    mapper.close()
    mapper.close()
