"""What arrives at a client, byte for byte, while faults are scheduled for a box: over HiSLIP, VXI-11 and a raw socket."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
import pyvisa
from faulty_box import BLOCK, HEAD, HEADER, Bench, HislipClient, Vxi11Client, until_blocked, until_quiet

from hil.errors import ConfigError
from hil.seeding import key
from sim_devices.instruments.faults import KINDS, Fault, Faults, FaultSchedule


@pytest.fixture(params=["socket", "hislip", "vxi11"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


@pytest.fixture
def hislip() -> Iterator[Bench]:
    bench = Bench("hislip")
    yield bench
    bench.close()


@pytest.fixture(params=["socket", "hislip"])
def stream(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.close()


WHOLE = BLOCK + b"\n"


def is_hislip(bench: Bench) -> bool:
    return bench.transport == "hislip"


# -- Damaged replies --------------------------------------------------------------------------------------------------


def test_a_dropped_reply_never_comes_and_the_next_one_does(bench: Bench) -> None:
    bench.fault("drop")
    assert bench.heard() == (b"", "open")
    assert bench.ask() == WHOLE


def test_a_truncated_block_is_shorter_than_it_promises(bench: Bench) -> None:
    bench.fault("truncate", bytes=100)
    if bench.transport != "socket":
        assert bench.ask() == BLOCK[:100]  # a message with a correct end
        assert bench.ask() == WHOLE
    else:
        assert bench.heard() == (BLOCK[:100], "open")


def test_half_of_it_if_no_length_is_given_and_never_all(bench: Bench) -> None:
    bench.fault("truncate")
    bench.fault("truncate", after=1, bytes=10_000)
    assert bench.heard()[0] == BLOCK[: len(BLOCK) // 2]
    assert bench.heard()[0] == BLOCK[:-1]


def test_padding_stands_between_block_and_terminator(bench: Bench) -> None:
    bench.fault("pad", bytes=7)
    got, _ = bench.heard()
    assert (got[: len(BLOCK)], len(got), got[-1:]) == (BLOCK, len(BLOCK) + 8, b"\n")


def test_garbage_stands_before_the_header(bench: Bench) -> None:
    bench.fault("garbage", bytes=5)
    got, _ = bench.heard()
    assert got[5:] == WHOLE


@pytest.mark.parametrize(("position", "first", "last"), [("payload", HEAD, len(BLOCK)), ("header", 0, HEAD)])
def test_so_many_bits_are_flipped_where_it_says(bench: Bench, position: str, first: int, last: int) -> None:
    bench.fault("flip", bits=9, position=position)
    got, _ = bench.heard()
    changed = [i for i, (a, b) in enumerate(zip(got, WHOLE, strict=True)) if a != b]
    assert sum((a ^ b).bit_count() for a, b in zip(got, WHOLE, strict=True)) == 9
    assert first <= min(changed)
    assert max(changed) < last


def test_byte_pairs_of_the_payload_are_swapped(bench: Bench) -> None:
    bench.fault("swap")
    got = bench.ask()
    assert got[: HEAD + 4] == BLOCK[:HEAD] + b"\x01\x00\x03\x02"
    assert got[HEAD:-1:2] == BLOCK[HEAD + 1 :: 2]


def test_a_reply_comes_twice(bench: Bench) -> None:
    bench.fault("duplicate", match="get?")
    assert bench.heard() == (WHOLE * 2, "open")


def test_a_stale_reply_comes_in_front_of_the_next(bench: Bench) -> None:
    bench.fault("stale", seconds=0, match="*IDN")
    assert bench.heard(b"*IDN?") == (b"", "open")
    assert bench.heard() == (b"Maker,memory,0,1.0\n" + WHOLE, "open")


def test_a_stale_reply_comes_late_if_nothing_else_is_asked(bench: Bench) -> None:
    bench.fault("stale", seconds=0.3)
    assert bench.heard() == (b"", "open")
    time.sleep(0.3)
    assert bench.client.message() == WHOLE


def test_a_stale_reply_of_hislip_keeps_its_number(hislip: Bench) -> None:
    hislip.fault("stale", seconds=0)
    client = hislip.client
    assert isinstance(client, HislipClient)
    client.put(b"*IDN?")
    client.put(b"GET?")
    assert [client.message(), client.message()] == [b"Maker,memory,0,1.0\n", WHOLE]
    assert client.numbers == [2, 4]


def test_a_slow_line_takes_its_time(bench: Bench) -> None:
    bench.fault("throttle", bytes_per_s=2000)
    start = time.monotonic()
    assert bench.ask() == WHOLE
    assert time.monotonic() - start > 0.9 * len(WHOLE) / 2000


def test_a_delay_comes_before_the_reply(bench: Bench) -> None:
    bench.fault("delay", seconds=0.3)
    assert bench.heard() == (b"", "open")
    assert bench.client.message() == WHOLE


def test_another_serial_number_until_healed(bench: Bench) -> None:
    id = bench.fault("serial", serial="X9")
    for _ in range(3):
        assert bench.ask(b"*IDN?") == b"Maker,memory,X9,1.0\n"
    assert bench.ask() == WHOLE
    assert bench.schedule.heal(id) == 1
    assert bench.ask(b"*IDN?") == b"Maker,memory,0,1.0\n"


# -- The connection ---------------------------------------------------------------------------------------------------


def test_half_a_reply_and_then_the_end_of_the_stream(bench: Bench) -> None:
    bench.fault("half_close", bytes=50)
    bench.client.put(b"GET?")
    if isinstance(bench.client, Vxi11Client):
        bench.client.send(12, bench.client.read_call(3000))
    data, ended = until_quiet(bench.client.channel, 1.0)  # type: ignore[attr-defined]
    assert ended == "FIN"
    if is_hislip(bench):
        assert HEADER.unpack(data[:16])[4] == len(WHOLE)
        assert data[16:] == BLOCK[:50]
    elif isinstance(bench.client, Vxi11Client):
        assert struct.unpack("!I", data[:4])[0] & 0x7FFF_FFFF > len(data)
        assert data[40:] == BLOCK[:50]
    else:
        assert data == BLOCK[:50]


def test_a_reset_is_a_reset(bench: Bench) -> None:
    bench.fault("reset", match="GET?")
    assert bench.heard() == (b"", "RST")
    bench.client = bench.another()
    assert bench.ask() == WHOLE


def test_a_box_that_refuses_connections_takes_them_again_after_a_while(bench: Bench) -> None:
    other = bench.another()
    bench.fault("refuse", seconds=0.4)
    assert bench.heard()[1] == "FIN"
    assert other.rest()[1] == "FIN"
    with pytest.raises(ConnectionRefusedError):
        bench.another()
    time.sleep(0.5)
    bench.client = bench.another()
    assert bench.ask() == WHOLE


def test_healing_opens_the_door_at_once(bench: Bench) -> None:
    bench.fault("refuse", seconds=60)
    assert bench.heard()[1] == "FIN"
    bench.schedule.heal()
    time.sleep(0.1)
    bench.client = bench.another()
    assert bench.ask() == WHOLE


def test_a_box_that_stalls_lets_writes_back_up(stream: Bench) -> None:
    stream.fault("stall", seconds=60, match="GET?")
    assert stream.ask() == WHOLE  # what was asked is still answered
    channel: socket.socket = stream.client.channel  # type: ignore[attr-defined]
    channel.settimeout(0.2)
    payload = b"#9%09d" % (30 << 20) + bytes(30 << 20)
    view = memoryview(HEADER.pack(b"HS", 7, 0, 8, len(payload) + 4) * is_hislip(stream) + b"PUT " + payload)
    sent = until_blocked(channel, view)
    assert sent < 20 << 20
    stream.schedule.heal()
    channel.settimeout(10)
    channel.sendall(view[sent:])
    if not is_hislip(stream):
        channel.sendall(b"\n")
    assert stream.ask(b"*IDN?") == b"Maker,memory,0,1.0\n"
    assert stream.box.held == payload


def test_a_box_that_stalls_takes_one_message_over_vxi11_and_no_more() -> None:
    bench = Bench("vxi11")
    client = bench.client
    assert isinstance(client, Vxi11Client)
    bench.fault("stall", seconds=60, match="GET?")
    assert bench.ask() == WHOLE  # what was asked is still answered
    assert [client.write(b"PUT 1", 50), client.write(b"PUT 2", 50), client.write(b"PUT 3", 50)] == [0, 15, 15]
    bench.schedule.heal()
    assert client.write(b"PUT 4") == 0
    assert bench.ask() == b"4\n"
    bench.close()


def test_a_reboot_loses_the_memory_and_every_connection(bench: Bench) -> None:
    other = bench.another()
    bench.fault("reboot", seconds=0.2)
    assert bench.heard() == (b"", "RST")
    assert other.rest()[1] == "RST"
    assert bench.box.held == b""
    with pytest.raises(ConnectionRefusedError):
        bench.another()
    time.sleep(0.3)
    bench.client = bench.another()
    assert bench.ask() == b"\n"


def test_a_quiet_reboot_is_seen_in_what_is_lost_alone(bench: Bench) -> None:
    bench.fault("reboot", quiet=True)
    assert bench.heard() == (b"\n", "open")


# -- The box ----------------------------------------------------------------------------------------------------------


def test_the_error_queue_is_flooded(bench: Bench) -> None:
    bench.fault("flood")
    assert bench.ask() == WHOLE
    assert bench.box.query_errors == [-310] * 21


def test_another_hand_sets_something_just_before_a_command(bench: Bench) -> None:
    bench.fault("hand", match="*IDN", command=":OUTP1 0", after=1)
    bench.ask(b"*IDN?")
    assert b":OUTP1 0" not in bench.box.messages
    bench.ask(b"*IDN?")
    assert bench.box.messages[-2:] == [b":OUTP1 0", b"*IDN?"]


def test_a_command_arrives_with_a_bit_flipped(bench: Bench) -> None:
    bench.fault("mangle", bits=1, match="HELLO")
    bench.client.put(b"HELLO WORLD")
    assert bench.ask(b"*IDN?") == b"Maker,memory,0,1.0\n"
    (arrived,) = [m for m in bench.box.messages if m != b"*IDN?"]
    assert len(arrived) <= len(b"HELLO WORLD")
    assert arrived != b"HELLO WORLD"


# -- When -------------------------------------------------------------------------------------------------------------


def test_after_times_and_match_choose_the_exchanges(bench: Bench) -> None:
    bench.fault("pad", match="GET", after=2, times=2, bytes=1)
    lengths = []
    for _ in range(6):
        bench.ask(b"*IDN?")
        bench.client.put(b"GET?")
        lengths.append(len(bench.client.rest(0.05)[0]) - len(WHOLE))
    assert lengths == [0, 0, 1, 1, 0, 0]
    (listed,) = bench.schedule.faults()
    assert (listed["matched"], listed["injected"]) == (6, 2)
    assert [(e["box"], e["kind"], e["exchange"]) for e in bench.schedule.log()] == [("scope", "pad", 2), ("scope", "pad", 3)]


def test_messages_without_a_reply_do_not_use_up_a_fault_of_replies(bench: Bench) -> None:
    bench.fault("drop")
    bench.client.put(b"PUT 5")
    assert bench.heard() == (b"", "open")
    assert bench.ask() == b"5\n"


def struck(seed: int, fault: Fault, exchanges: int = 1000) -> list[tuple[int, int]]:
    faults = Faults("scope", "scope", seed)
    faults.add(fault)
    moment = KINDS[fault.kind].moment
    return [(i, s.rng.getrandbits(32)) for i in range(exchanges) for s in faults.strikes(moment, "GET?")]


def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    fault = Fault("flip", rate=0.05)
    first = struck(7, fault)
    assert first == struck(7, fault)
    assert first != struck(8, fault)
    assert 25 < len(first) < 85
    for number, drawn in first:  # by hand, from the documented key
        rng = random.Random(key(7, number, "fault scope.1"))
        assert (rng.random() < 0.05, rng.getrandbits(32)) == (True, drawn)


def test_a_strike_may_last() -> None:
    assert [i for i, _ in struck(0, Fault("drop", after=3, lasts=4), 20)] == [3, 4, 5, 6]
    assert [i for i, _ in struck(0, Fault("drop", after=3, lasts=0), 8)] == [3, 4, 5, 6, 7]
    assert len(struck(0, Fault("drop", rate=0.5))) > 400  # a rate alone goes on for ever
    assert len(struck(0, Fault("drop", rate=0.5, times=1))) == 1


def test_the_same_wire_damage_again(bench: Bench) -> None:
    got = []
    for _ in range(2):
        other = Bench(bench.transport)
        other.fault("flip", rate=0.3, bits=5)
        got.append([other.ask() for _ in range(20)])
        other.close()
    assert got[0] == got[1]
    assert 0 < sum(reply != WHOLE for reply in got[0]) < 20


def test_healed_faults_leave_nothing_behind(bench: Bench) -> None:
    for kind in ("drop", "flip", "stale"):
        bench.fault(kind, times=0)
    assert bench.heard() == (b"", "open")
    assert bench.schedule.of["scope"].on_wire
    assert bench.schedule.heal() == 3
    assert not bench.schedule.of["scope"].on_wire
    assert bench.schedule.faults() == []
    assert bench.heard() == (WHOLE, "open")


def test_a_delay_that_is_healed_is_over(bench: Bench) -> None:
    bench.fault("delay", seconds=60)
    bench.client.put(b"GET?")
    threading.Timer(0.1, bench.schedule.heal).start()
    assert bench.client.message() == WHOLE


def test_device_clear_ends_a_delay(hislip: Bench) -> None:
    client = pyvisa.ResourceManager("@py").open_resource(hislip.server.resource)
    client.timeout = 100
    hislip.fault("delay", seconds=60)
    with pytest.raises(pyvisa.VisaIOError):
        client.query("GET?")
    client.timeout = 3000
    client.clear()
    assert client.query("*IDN?") == "Maker,memory,0,1.0\n"
    client.close()


def test_stock_client_sees_a_short_block_as_a_timeout() -> None:
    bench = Bench("socket")
    client = pyvisa.ResourceManager("@py").open_resource(bench.server.resource)
    client.read_termination = client.write_termination = "\n"
    client.timeout = 300
    bench.fault("truncate", bytes=100)
    with pytest.raises(pyvisa.VisaIOError):
        client.query_binary_values("GET?", datatype="B")
    client.close()
    bench.close()


# -- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"box": "scope", "kind": "trunkate"}, 'did you mean "truncate"'),
        ({"box": "scpe", "kind": "drop"}, "no such box"),
        ({"kind": "drop"}, "needs a box and a kind"),
        ({"box": "scope", "kind": "drop", "rat": 0.1}, 'did you mean "rate"'),
        ({"box": "scope", "kind": "drop", "bits": 3}, "no use for bits"),
        ({"box": "scope", "kind": "unplug"}, "does not apply to a scope"),
        ({"box": "awg", "kind": "stuck"}, "does not apply to a box"),
        ({"box": "node", "kind": "drop"}, "does not apply to a node"),
        ({"box": "board", "kind": "reset"}, "does not apply to a board"),
        ({"box": "scope", "kind": "drop", "rate": float("nan")}, "rate makes no sense"),
        ({"box": "scope", "kind": "drop", "rate": 1.1}, "rate makes no sense"),
        ({"box": "scope", "kind": "drop", "times": -1}, "times makes no sense"),
        ({"box": "scope", "kind": "drop", "times": 1.5}, "times makes no sense"),
        ({"box": "scope", "kind": "delay", "seconds": "1 s"}, "seconds makes no sense"),
        ({"box": "scope", "kind": "throttle", "bytes_per_s": 0}, "bytes_per_s makes no sense"),
        ({"box": "scope", "kind": "flip", "position": "tail"}, "position makes no sense"),
        ({"box": "scope", "kind": "stuck", "channel": 5}, "channel makes no sense"),
        ({"box": "scope", "kind": "reboot", "quiet": 1}, "quiet makes no sense"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(table: dict[str, object], words: str) -> None:
    schedule = FaultSchedule({"scope": "scope", "awg": "box", "node": "node", "board": "board"})
    with pytest.raises(ConfigError, match=words):
        schedule.add(table)
    assert schedule.faults() == []
    with pytest.raises(ConfigError, match="no such fault"):
        schedule.heal("scope.1")
