"""The board alone, bytes in and bytes out, with a clock of its own; and in a process of its own."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from hil import frame_protocol as wire
from hil.device import ArraySpec
from hil.errors import ConfigError
from hil.frame_protocol import Code, Kind
from sim_devices.bench.board import VirtualBoard, spawn_board
from sim_devices.instruments.frame_protocol import reply
from sim_devices.instruments.spiking_board import SpikingBoard
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip


class Host:
    """Speaks frames to a board; time passes when told to."""

    def __init__(self, neuron: Neuron | None = None, largest: int = 4096) -> None:
        self.now_s = 100.0
        self.board = SpikingBoard(TwinChip(neuron), largest=largest, neurons=100, clock=lambda: self.now_s)
        self.seq = 0

    def ask(self, kind: int, payload: bytes = b"", seq: int | None = None) -> tuple[int, bytes]:
        self.seq += 1
        return answer(self.board.feed(request(kind, self.seq if seq is None else seq, payload)))

    def allocated(self, size: int = 3, couples: int = 0, numbers: int = 1) -> int:
        self.ask(Kind.HELLO, wire.HELLO.pack(1, 5))
        self.ask(Kind.ARM, wire.ARM.pack(0))
        code, body = self.ask(Kind.ALLOCATE, wire.ALLOCATE.pack(size, couples, 0, numbers, 0, 0, 0.5, 1.0, 0.0, 8.0))
        assert code == Code.DONE
        return int(wire.ALLOCATED.unpack(body)[0])


def request(kind: int, seq: int, payload: bytes = b"") -> bytes:
    frame = bytearray(reply(kind, seq, payload))
    frame[2] = kind  # a reply without the bit that makes it one, and new checksums
    frame[10:12] = struct.pack("<H", wire.crc_hqx(frame[:10], 0xFFFF))
    frame[-2:] = struct.pack("<H", wire.crc_hqx(payload, struct.unpack("<H", frame[10:12])[0]))
    return bytes(frame)


def answer(data: bytes) -> tuple[int, bytes]:
    magic, _, code, _, length = wire.HEAD.unpack_from(data)
    assert magic == wire.MAGIC
    assert len(data) == wire.HEAD_BYTES + length + 2
    return code, data[wire.HEAD_BYTES : -2]


def block(array: int, steps: int, rows: int, first_step: int = 0, first_row: int = 0) -> bytes:
    return wire.BLOCK.pack(array, 0, first_step, steps, first_row, rows)


def ones(count: int, value: float = 1.0) -> bytes:
    return np.full(count, value, "<f4").tobytes()


def test_it_says_who_it_is() -> None:
    host = Host()
    code, body = host.ask(Kind.HELLO, wire.HELLO.pack(1, 0xABCD))
    version, boot, session, largest, free, limit = wire.WELCOME.unpack(body[: wire.WELCOME.size])
    assert (code, version, boot, session, largest, free, limit) == (0, 1, 1, 0xABCD, 4096, 100, 64.0)
    assert body[wire.WELCOME.size :] == b"HIL,SPIKING-BOARD,SB0001,1.0"


def test_spikes_are_packed_highest_bit_first() -> None:
    host = Host()
    array = host.allocated()
    currents = np.array([[[1, 0, 1], [0, 0, 2]], [[0, 1, 0], [0, 0, 0]]], "<f4")
    code, body = host.ask(Kind.STEP, block(array, 2, 2) + currents.tobytes())
    assert (code, body) == (0, bytes([0b10100101, 0b00000000]))
    code, body = host.ask(Kind.MONITOR, block(array, 2, 2))
    assert np.frombuffer(body, "<f4").tolist() == [1, 0, 1, 0, 0, 2, 0, 1, 0, 0, 0, 0.5]


def test_couples_send_the_positive_plane_then_the_negative() -> None:
    host = Host()
    array = host.allocated(couples=1)
    code, body = host.ask(Kind.STEP, block(array, 1, 1) + np.array([1, -1, 0], "<f4").tobytes())
    assert (code, body) == (0, bytes([0b10000000, 0b01000000]))


def test_a_frame_may_come_byte_by_byte_and_two_at_once() -> None:
    host = Host()
    data = request(Kind.STATUS, 1)
    answers = [host.board.feed(bytes([byte])) for byte in data]
    assert [bool(a) for a in answers] == [False] * (len(data) - 1) + [True]
    both = host.board.feed(request(Kind.STATUS, 2) + request(Kind.STATUS, 3))
    assert len(both) == 2 * len(answers[-1])


def test_garbage_before_a_frame_is_stepped_over() -> None:
    host = Host()
    reply = host.board.feed(b"\x00noise\xa5" + request(Kind.STATUS, 1))
    assert answer(reply)[0] == Code.DONE


def test_damage_is_complained_of_once_and_the_next_frame_is_found() -> None:
    host = Host()
    wrong = bytearray(request(Kind.STEP, 9, b"\xa5\x5a" * 40))
    wrong[30] ^= 1
    reply = host.board.feed(bytes(wrong))
    assert (reply[2], answer(reply)[0], reply[4:6]) == (Kind.STEP | wire.REPLY, Code.BAD_CRC, b"\x09\x00")
    assert answer(host.board.feed(request(Kind.STATUS, 10)))[0] == Code.DONE


def test_half_a_frame_is_given_up_after_silence() -> None:
    host = Host()
    assert host.board.feed(request(Kind.PROGRAM, 1, bytes(50))[:30]) == b""
    host.now_s += 1.0
    code, body = answer(host.board.feed(request(Kind.STATUS, 2)))
    assert code == Code.DONE
    assert wire.STATUS.unpack(body)[3] == 1


def test_the_same_request_is_answered_again_and_not_done_again() -> None:
    host = Host()
    array = host.allocated(size=1)
    step = block(array, 1, 1) + ones(1, 0.6)
    host.ask(Kind.STEP, step, seq=50)
    again = host.ask(Kind.STEP, step, seq=50)
    assert again == (0, b"\x00")
    assert host.ask(Kind.STEP, block(array, 1, 1) + ones(1, 0.7), seq=51) == (0, b"\x80")  # 0.3 + 0.7, not 0.45 + 0.7
    membrane = np.frombuffer(host.ask(Kind.MONITOR, block(array, 1, 1))[1], "<f4")
    assert membrane[0] == np.float32(np.float32(0.5) * np.float32(0.6) + np.float32(0.7))


def test_another_session_frees_what_the_last_one_had() -> None:
    host = Host()
    array = host.allocated()
    host.ask(Kind.HELLO, wire.HELLO.pack(1, 5))
    assert host.ask(Kind.RESET, wire.ARRAY.pack(array))[0] == Code.DONE
    host.ask(Kind.HELLO, wire.HELLO.pack(1, 6))
    assert host.ask(Kind.RESET, wire.ARRAY.pack(array))[0] == Code.NO_ARRAY
    assert not host.board.armed


@pytest.mark.parametrize(
    ("kind", "payload", "code"),
    [
        (42, b"", Code.UNKNOWN_KIND),
        (Kind.STATUS, b"x", Code.BAD_PAYLOAD),
        (Kind.STEP, block(1, 1, 1) + ones(3), Code.NO_ARRAY),
        (Kind.STEP, block(0, 1, 1) + ones(2), Code.BAD_PAYLOAD),
        (Kind.STEP, block(0, 1, 1) + ones(3, 8.1), Code.OUT_OF_RANGE),
        (Kind.STEP, block(0, 1, 1) + ones(3, float("nan")), Code.OUT_OF_RANGE),
        (Kind.STEP, block(0, 1, 1, first_row=2**31) + ones(3), Code.NO_ROOM),
        (Kind.MONITOR, block(0, 1, 1), Code.NO_DATA),
        (Kind.PROGRAM, wire.ARRAY.pack(0) + ones(2), Code.BAD_PAYLOAD),
        (Kind.PROGRAM, wire.ARRAY.pack(0) + ones(3, -1.0), Code.OUT_OF_RANGE),
        (Kind.ARM, wire.ARM.pack(float("nan")), Code.OUT_OF_RANGE),
        (Kind.ALLOCATE, wire.ALLOCATE.pack(98, 0, 0, 1, 0, 0, 0.5, 1.0, 0.0, 8.0), Code.NO_ROOM),
        (Kind.ALLOCATE, wire.ALLOCATE.pack(2, 0, 0, 1, 0, 0, 0.5, 1.0, 0.0, 65.0), Code.OUT_OF_RANGE),
        (Kind.ALLOCATE, wire.ALLOCATE.pack(2, 1, 1, 1, 0, 0, 0.5, 1.0, 0.0, 8.0), Code.OUT_OF_RANGE),
        (Kind.PROGRAM, bytes(5000), Code.TOO_LONG),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_code(kind: int, payload: bytes, code: Code) -> None:
    host = Host()
    host.allocated()
    assert host.ask(kind, payload)[0] == code
    assert host.ask(Kind.STEP, block(0, 1, 1) + ones(3))[0] == Code.DONE


def test_the_watchdog_trips_by_itself_and_membranes_go_to_rest() -> None:
    host = Host()
    array = host.allocated(size=1)
    step = block(array, 1, 1) + ones(1, 0.9)
    host.ask(Kind.ARM, wire.ARM.pack(2.0))
    host.now_s += 1.9
    assert host.ask(Kind.STEP, step) == (0, b"\x00")
    host.now_s += 2.1
    assert not host.board.armed
    assert host.ask(Kind.STEP, step)[0] == Code.WATCHDOG
    host.ask(Kind.ARM, wire.ARM.pack(2.0))
    assert host.ask(Kind.STEP, step) == (0, b"\x00")  # 0.9, not 0.45 + 0.9


def test_it_powers_up_disarmed() -> None:
    host = Host()
    host.allocated()
    host.board.reboot()
    assert not host.board.armed
    host.ask(Kind.HELLO, wire.HELLO.pack(1, 5))
    assert host.ask(Kind.STEP, block(0, 1, 1) + ones(3))[0] == Code.NOT_ARMED


def test_rows_keep_membranes_of_their_own() -> None:
    host = Host(largest=64)
    array = host.allocated(size=3)
    twin = TwinChip().array(ArraySpec(3))
    x = torch.rand(4, 5, 3) * 2
    wanted = twin.forward(x).numpy()
    for step in range(4):
        for row in (0, 2, 4):
            rows = min(2, 5 - row)
            part = x[step : step + 1, row : row + rows].numpy()
            code, body = host.ask(Kind.STEP, block(array, 1, rows, step, row) + part.astype("<f4").tobytes())
            assert code == Code.DONE
            bits = np.unpackbits(np.frombuffer(body, np.uint8), count=3 * rows)
            assert bits.tolist() == wanted[step, row : row + rows].flatten().tolist()


# -- In a process of its own ------------------------------------------------------------------------------------------


def gone(pid: int, within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_board_in_its_own_process_ends_when_told() -> None:
    with spawn_board(VirtualBoard(Neuron(noise=0.1), serial="SB7")) as served:
        assert os.path.exists(served.port)
        assert served.running
        os.kill(served.pid, signal.SIGINT)  # Ctrl-C is for the trainer
        assert served.running
    assert not served.running
    served.stop()


def test_a_board_does_not_outlive_its_parent() -> None:
    program = "from sim_devices.bench.board import spawn_board; print(spawn_board().pid, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert gone(pid)
    parent.stdin.close()
    parent.stdout.close()


def test_a_description_goes_through_json_and_is_checked() -> None:
    board = VirtualBoard(Neuron(leak=0.9, reset="hard"), seed=4, baud=115200)
    assert VirtualBoard.from_json(board.to_json()) == board
    for wrong in ("[1]", "not json", '{"neurn": {}}', '{"neuron": {"leek": 1}}', '{"neuron": {"leak": 2}}'):
        with pytest.raises(ConfigError):
            VirtualBoard.from_json(wrong)
