"""What arrives at the host of a spiking board while faults are scheduled, and what the board's process leaves behind."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil import frame_protocol as wire
from hil.errors import ConfigError, ContractError
from hil.frame_protocol import Code, Kind
from sim_devices.bench.board import RunningBoard, ServedBoard, VirtualBoard, spawn_board
from sim_devices.instruments import frame_protocol as board_side

HELLO = wire.HELLO.pack(1, 5)


def request(kind: int, seq: int, payload: bytes = b"") -> bytes:
    lead = wire.HEAD.pack(wire.MAGIC, kind, 0, seq, len(payload))
    crc = wire.crc_hqx(lead, 0xFFFF)
    return lead + struct.pack("<H", crc) + payload + struct.pack("<H", wire.crc_hqx(payload, crc))


class Host:
    """A port of a board, open."""

    def __init__(self, port: str) -> None:
        self.handle = os.open(port, os.O_RDWR | os.O_NOCTTY)
        self.seq = 0

    def put(self, kind: int, payload: bytes = b"") -> None:
        self.seq += 1
        os.write(self.handle, request(kind, self.seq, payload))

    def rest(self, quiet_s: float = 0.15) -> bytes:
        got = b""
        while select.select([self.handle], [], [], quiet_s)[0]:
            got += os.read(self.handle, 1 << 16)
        return got

    def heard(self, kind: int, payload: bytes = b"", quiet_s: float = 0.15) -> bytes:
        self.put(kind, payload)
        return self.rest(quiet_s)

    def close(self) -> None:
        os.close(self.handle)


def reply(kind: int, seq: int) -> bytes:
    """A reply without a payload."""
    return board_side.reply(kind, seq)


@pytest.fixture
def board() -> Iterator[RunningBoard]:
    with RunningBoard(VirtualBoard(seed=3)) as board:
        yield board


@pytest.fixture
def host(board: RunningBoard) -> Iterator[Host]:
    host = Host(board.port)
    yield host
    host.close()


def fault(board: RunningBoard, kind: str, **settings: object) -> str:
    return board.faults.add({"box": "board", "kind": kind, **settings})


def test_a_dropped_reply_of_a_frame_by_name(board: RunningBoard, host: Host) -> None:
    fault(board, "drop", match="SAFE")
    assert len(host.heard(Kind.STATUS)) == wire.HEAD_BYTES + wire.STATUS.size + 2
    assert host.heard(Kind.SAFE) == b""
    assert host.heard(Kind.SAFE) == reply(Kind.SAFE, 3)
    assert [entry["injected"] for entry in board.faults.faults()] == [1]


def test_truncated_padded_and_doubled(board: RunningBoard, host: Host) -> None:
    fault(board, "truncate", bytes=5)
    fault(board, "pad", after=1, bytes=3)
    fault(board, "duplicate", after=2)
    fault(board, "garbage", after=3, bytes=6)
    assert host.heard(Kind.SAFE) == reply(Kind.SAFE, 1)[:5]
    padded = host.heard(Kind.SAFE)
    assert (padded[:-3], len(padded)) == (reply(Kind.SAFE, 2), 17)
    assert host.heard(Kind.SAFE) == reply(Kind.SAFE, 3) * 2
    assert host.heard(Kind.SAFE)[6:] == reply(Kind.SAFE, 4)


@pytest.mark.parametrize(("position", "first", "last"), [("payload", wire.HEAD_BYTES, 1 << 20), ("header", 0, wire.HEAD_BYTES)])
def test_a_flipped_bit(board: RunningBoard, host: Host, position: str, first: int, last: int) -> None:
    whole = host.heard(Kind.HELLO, HELLO)
    fault(board, "flip", position=position)
    host.seq -= 1
    damaged = host.heard(Kind.HELLO, HELLO)
    (at,) = [i for i, (a, b) in enumerate(zip(damaged, whole, strict=True)) if a != b]
    assert (damaged[at] ^ whole[at]).bit_count() == 1
    assert first <= at < last


def test_noise_on_the_way_to_the_board_is_seen_by_it(board: RunningBoard, host: Host) -> None:
    fault(board, "mangle", match="HELLO")
    got = host.heard(Kind.HELLO, HELLO)
    assert got == b"" or got[3] == Code.BAD_CRC
    time.sleep(0.3)  # a frame that became longer is given up
    assert host.heard(Kind.HELLO, HELLO)[3] == Code.DONE


def test_delay_stall_and_stale(board: RunningBoard, host: Host) -> None:
    fault(board, "delay", seconds=0.3)
    assert host.heard(Kind.SAFE) == b""
    assert host.rest(0.5) == reply(Kind.SAFE, 1)
    fault(board, "stall", seconds=60)
    assert host.heard(Kind.SAFE) == reply(Kind.SAFE, 2)
    assert host.heard(Kind.SAFE) == b""
    board.faults.heal()
    assert host.rest() == reply(Kind.SAFE, 3)
    fault(board, "stale", seconds=0)
    assert host.heard(Kind.SAFE) == b""
    assert host.heard(Kind.SAFE) == reply(Kind.SAFE, 4) + reply(Kind.SAFE, 5)
    fault(board, "stale", seconds=0.3)
    assert host.heard(Kind.SAFE) == b""
    assert host.rest(0.5) == reply(Kind.SAFE, 6)


def test_a_slow_line(board: RunningBoard, host: Host) -> None:
    fault(board, "throttle", bytes_per_s=200)
    start = time.monotonic()
    whole = host.heard(Kind.HELLO, HELLO)
    assert time.monotonic() - start - 0.15 > 0.8 * len(whole) / 200


def test_a_quiet_reboot_disarms_and_counts(board: RunningBoard, host: Host) -> None:
    host.heard(Kind.ARM, wire.ARM.pack(0))
    assert board.board.armed
    fault(board, "reboot", quiet=True)
    welcome = host.heard(Kind.HELLO, HELLO)
    assert wire.WELCOME.unpack_from(welcome, wire.HEAD_BYTES)[1] == 2
    assert not board.board.armed
    assert [entry.on for entry in board.log.entries] == [True, False]


@pytest.mark.parametrize("kind", ["unplug", "reboot"])
def test_the_port_goes_away_and_comes_back_under_its_name(board: RunningBoard, host: Host, kind: str) -> None:
    fault(board, kind, seconds=0.3)
    host.put(Kind.STATUS)
    time.sleep(0.1)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(host.handle, b"x")
    assert not os.path.exists(board.port)
    time.sleep(0.4)
    again = Host(board.port)
    assert wire.WELCOME.unpack_from(again.heard(Kind.HELLO, HELLO), wire.HEAD_BYTES)[1] == (2 if kind == "reboot" else 1)
    again.close()


def test_what_no_board_can_do_is_refused(board: RunningBoard) -> None:
    for kind in ("reset", "half_close", "flood", "serial", "stuck"):
        with pytest.raises(ConfigError, match="does not apply to a board"):
            fault(board, kind)


# -- In a process of its own ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("board") / "board.log"


@pytest.fixture(scope="module")
def served(log: Path) -> Iterator[ServedBoard]:
    faults = ({"box": "board", "kind": "drop", "match": "SAFE"},)
    with spawn_board(VirtualBoard(faults=faults, linger_s=60.0, log_path=str(log))) as served:
        yield served


def written(log: Path, name: str) -> list[object]:
    return [line[name] for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()) if name in line]


def test_faults_from_the_description_and_over_the_control_port(served: ServedBoard) -> None:
    host, control = Host(served.port), served.control
    assert host.heard(Kind.SAFE) == b""
    id = control.fault("board", "duplicate", match="SAFE")
    assert host.heard(Kind.SAFE) == reply(Kind.SAFE, 2) * 2
    assert [(e["kind"], e["exchange"]) for e in control.faults()["log"]] == [("drop", 0), ("duplicate", 0)]
    assert (control.heal(id), control.heal()) == (1, 1)
    host.close()


def test_the_control_port_of_a_board(served: ServedBoard, log: Path) -> None:
    host, control = Host(served.port), served.control
    host.heard(Kind.ARM, wire.ARM.pack(0.5))
    assert control.outputs() == {"board": {"1": {"on": True, "tripped": False, "limit": 64.0}}}
    assert written(log, "on") == [True]  # at once
    time.sleep(0.8)
    assert [entry["on"] for entry in control.log()] == [True, False]  # the watchdog, and nobody asked
    assert written(log, "on") == [True, False]
    control.reboot("board")
    assert wire.WELCOME.unpack_from(host.heard(Kind.HELLO, HELLO), wire.HEAD_BYTES)[1] == 2
    with pytest.raises(ConfigError, match="no such parameter"):
        control.get("node.phase_rad")
    with pytest.raises(ContractError, match="to itself"):
        control.snapshot()
    host.close()


def test_it_outlives_its_parent_and_leaves_its_log_when_it_is_killed(served: ServedBoard, log: Path) -> None:
    host, before = Host(served.port), len(written(log, "on")) if log.exists() else 0
    host.heard(Kind.ARM, wire.ARM.pack(0.2))
    assert served._process.stdin is not None
    served._process.stdin.close()  # all that it sees of a parent that dies
    time.sleep(0.5)
    assert served.running
    assert len(host.heard(Kind.STATUS)) == wire.HEAD_BYTES + wire.STATUS.size + 2
    host.close()
    served.kill()
    assert written(log, "on")[before:] == [True, False]
    assert written(log, "event") == ["parent gone"]
    assert not os.path.lexists(served.port)


def test_faults_are_part_of_the_description() -> None:
    board = VirtualBoard(faults=({"box": "board", "kind": "flip", "rate": 0.001},), linger_s=2.0)
    assert VirtualBoard.from_json(board.to_json()) == board
    with pytest.raises(ConfigError, match="does not apply"):
        RunningBoard(VirtualBoard(faults=({"box": "board", "kind": "reset"},)))
