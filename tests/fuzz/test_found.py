"""What the fuzzer found, each once more."""

from __future__ import annotations

import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drivers.keysight_infiniivision import InfiniiVision as ScopeDriver
from drivers.links.memory import MemoryLink
from drivers.links.stream import BenchSocket
from drivers.safe import Ramp, SafeState, Step, carry_out
from drivers.scope_records import Described
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from drivers.spiking.session import FrameSession
from drivers.spiking.talk import FrameTalk, board
from hil import frame_protocol as host
from hil import toml
from hil.config import experiment
from hil.errors import ConfigError, ContractError, Desync, HilError, InstrumentError, MeasurementError, RunError
from hil.frame_protocol import Code, Kind
from hil.run import journal, lock
from hil.run.folder import RunFolder
from sim_devices.bench.control import ControlClient, ControlServer, refused
from sim_devices.bench.wiring import Plant, Wire
from sim_devices.instruments.frame_protocol import frames
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.keysight_e36300 import KeysightE36312A
from sim_devices.instruments.keysight_infiniivision import InfiniiVision
from sim_devices.instruments.sampling import sampling
from sim_devices.instruments.spiking_board import SpikingBoard
from sim_devices.mach_zehnder import MachZehnder

DEEP = "[" * 100_000
RAMP = Ramp(":OUTP1", ":V", ":O", 100.0, 1e-3, -1.0, 1.0)
STATE = SafeState("awg", "here", OVER_VISA, Expect("K"), (Step(":OUTP1 0", ":OUTP1?", ("0",)),), RAMP)

# -- Drivers --------------------------------------------------------------------------------------------------------------


class Liar:
    """Answers its levels with `levels`; counts what it is told."""

    def __init__(self, levels: str) -> None:
        self.levels, self.told = levels, list[str]()

    def do(self, command: str, question: str) -> str:
        self.told += [command] if command else []
        if question == ":OUTP1?":
            return "0" if command else "1"
        return self.levels


@pytest.mark.parametrize(
    "levels", ["9.9E37;0", "1e9;0.1", "0.3;1e19", "2.0;0.5", "inf;0", "nan;0", "0.5;nan", "-1;0", "0.5;-inf"]
)
def test_a_ramp_never_begins_where_the_instrument_cannot_be(levels: str) -> None:
    """It sent the levels it was told, less a step: VOLT 9.9E37. At inf it raised OverflowError, and the output stayed on."""
    talk = Liar(levels)
    remark = carry_out(STATE, talk, clock=lambda: 0.0, sleep=lambda s: None)
    assert talk.told == [":OUTP1 0"]
    assert "not ramped" in remark


class Board:
    """A FrameLink to a board whose next reply has another payload."""

    name = "line"

    def __init__(self) -> None:
        self.box, self.waiting, self.instead = SpikingBoard(neurons=8), bytearray(), b""

    def write(self, *parts: bytes | memoryview) -> None:
        sent = b"".join(bytes(part) for part in parts)
        reply = self.box.feed(sent)
        if self.instead:
            lead = host.HEAD.pack(host.MAGIC, sent[2] | host.REPLY, 0, int.from_bytes(sent[4:6], "little"), len(self.instead))
            crc = host.crc_hqx(lead, 0xFFFF)
            reply = lead + host.CRC.pack(crc) + self.instead + host.CRC.pack(host.crc_hqx(self.instead, crc))
        self.waiting += reply

    def read_exact(self, count: int) -> bytes:
        taken = bytes(self.waiting[:count])
        del self.waiting[:count]
        return taken

    def drain(self) -> bytes:
        self.waiting.clear()
        return b""

    clear = reopen = drain
    close = drain

    def distrust(self, reason: str) -> None: ...
    def transaction(self) -> threading.RLock:
        return threading.RLock()  # type: ignore[return-value]

    reidentifying = transaction


def test_a_reply_of_the_wrong_size_is_out_of_step() -> None:
    """It was a struct.error, out of safe()."""
    line = Board()
    session = FrameSession(line, retries=0)  # type: ignore[arg-type]
    line.instead = b"xyz"
    with pytest.raises(Desync, match="3 bytes where 8 are due"):
        carry_out(board("board", "line", Expect()), FrameTalk(session))


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_board_without_a_limit_is_not_driven(limit: float) -> None:
    line = Board()
    session = FrameSession(line, retries=0)  # type: ignore[arg-type]
    line.instead = host.WELCOME.pack(1, 1, session._session, 1 << 18, 8, limit) + b"HIL,SPIKING-BOARD,1,1"
    with pytest.raises(Desync, match="limit"):
        session.identify()


def described(preamble: str) -> Described:
    driver = ScopeDriver(MemoryLink(InfiniiVision()))
    return driver._described(preamble, (100, 1e8, 0.0), driver._channels[0])


@pytest.mark.parametrize(
    "preamble",
    [
        "1,0,1000000000,1,1e-8,-1e9,0,1e-5,0,32768",  # a gigabyte would have been allocated
        "1,0,100,1,1e-8,0,0,1e37,0,32768",  # volts of infinity
        "1,0,100,1,1e-8,0,0,0,0,32768",
        "1,0,100,1,1e-8,0,0,-1e-5,0,32768",
        "1,0,100,1,1e-8,0,0,1e-5,1e30,32768",
    ],
)
def test_a_preamble_beyond_reason_is_no_record(preamble: str) -> None:
    with pytest.raises((InstrumentError, MeasurementError)):
        described(preamble)


# -- Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5},
        {"expect": {"maker": 5}},
        {"outputs": None},
        {"steps": [{"command": 1, "question": "", "answers": []}]},
        {"steps": [{"command": "", "question": "", "answers": "0"}]},
        {"steps": [{"command": "", "question": "", "answers": [0]}]},
        {"talk": "frames"},
        {"talk": 5},
        {"shared": 1},
    ],
)
def test_a_safe_state_of_other_kinds_of_values_is_refused(change: dict[str, object]) -> None:
    """It was taken, and failed when the outputs had to be made safe."""
    with pytest.raises(ConfigError):
        SafeState.from_json(json.dumps({**json.loads(STATE.to_json()), **change}))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (f"a = {DEEP}", experiment.read_experiment),
        (DEEP, lambda path: SafeState.from_json(path.read_text(encoding="utf-8"))),
        (DEEP, lambda path: experiment.override({}, f"a={path.read_text(encoding='utf-8')}")),
        ("1" * 5000, lambda path: experiment.override({}, f"a={path.read_text(encoding='utf-8')}")),
        ("a." * 5000 + "b=1", lambda path: experiment.override({}, path.read_text(encoding="utf-8"))),
        (DEEP, lambda path: RunFolder(path.parent).read_json(path.name)),
    ],
)
def test_what_has_no_end_is_refused(tmp_path: Path, text: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "deep"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((ConfigError, RunError)):
        read(path)


def test_a_lock_that_is_nested_without_end_names_nobody(tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text(DEEP, encoding="utf-8")
    found = lock.owner(tmp_path)
    assert found is not None
    assert found.pid == 0


@pytest.mark.parametrize("text", ["x." * 20_000 + "y = 1", "[" + "x." * 20_000 + "y]", "a = {" + "x." * 20_000 + "y = 1}"])
def test_a_key_of_thousands_of_parts_is_refused_at_once(text: str) -> None:
    """tomllib needs minutes and gigabytes for it."""
    begin = time.process_time()
    with pytest.raises(ValueError, match="64 parts"):
        toml.loads(text)
    assert time.process_time() - begin < 0.5


def test_numbers_with_many_dots_are_no_keys() -> None:
    values = [k / 2 for k in range(200)]
    assert toml.loads(f"# {'x.' * 100}\na = {values}\nb = [\n{str(values)[1:-1]}\n]") == {"a": values, "b": values}


@pytest.mark.parametrize("wrong", [b'"step":007,', b'"step":' + b"1" * 5000 + b","])
def test_a_commit_with_a_number_that_is_none_is_a_damaged_line(tmp_path: Path, wrong: bytes) -> None:
    """It looked like a commit and was none: json.JSONDecodeError."""
    path = tmp_path / "journal.jsonl"
    written = journal.Journal(path)
    written.commit(7, 1, 7, 0.5, 10, 1.0)
    written.close()
    path.write_bytes(path.read_bytes().replace(b'"step":7,', wrong) * 2)
    for most in (None, 0, 5):
        found = journal.contents(path, most)
        assert found.last is None
        assert len(found.damaged) == 2


# -- Simulated boxes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        b":SOUR1:VOLT 1" + "\xb5V".encode("latin-1"),
        b":SOUR1:\xff\xff",
        b":SOUR1:DATA:ARB:DAC \xff\xb5, 1",
        b":SOUR" + b"1" * 5000 + b":VOLT 1",
        b":SOUR1:VOLT 99999 DBM",
        b":SOUR1:VOLT 1e308 DBM",
        b":SOUR1:FUNC:ARB \xff\xb5",
    ],
)
def test_a_generator_refuses_and_says_so_in_ascii(message: bytes) -> None:
    """UnicodeEncodeError, ValueError and OverflowError ended the connection."""
    box = Keysight33600()
    assert box.execute(message) is None
    reply = box.execute(b":SYST:ERR?")
    assert reply is not None
    assert reply.isascii()
    assert reply.startswith((b"-", b"+7"))


def test_a_long_number_that_is_none_takes_no_longer_than_reading_it() -> None:
    """The pattern of a number went over it again from every digit."""
    box = Keysight33600()
    begin = time.process_time()
    box.execute(b":SOUR1:VOLT " + b"1" * 50_000 + b"!")
    assert time.process_time() - begin < 0.5
    assert (box.execute(b":SYST:ERR?") or b"").startswith(b"-104")


def test_a_channel_that_looks_like_a_digit_is_no_channel() -> None:
    box = KeysightE36312A()
    box.execute("VOLT 1,(@\u00b3)".encode("latin-1"))
    assert (box.execute(b":SYST:ERR?") or b"").startswith(b"-104")


def test_an_announced_gigabyte_is_not_made_room_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as here:
        there, _ = door.accept()
        with there, BenchSocket.adopt(here) as end:
            there.sendall(b"ab")
            tracemalloc.start()
            try:
                assert end.recv(1 << 30) == b"ab"
                assert tracemalloc.get_traced_memory()[1] < 4 << 20
            finally:
                tracemalloc.stop()


@pytest.mark.parametrize("scale", [b"0", b"-1", b"1e30"])
def test_a_time_scale_that_the_scope_has_not_is_refused(scale: bytes) -> None:
    box = InfiniiVision()
    box.execute(b":TIM:SCAL " + scale)
    assert (box.execute(b":SYST:ERR?") or b"").startswith(b"-222")
    assert box.execute(b":ACQ:SRAT?;:ACQ:POIN?")


def test_the_sampling_of_an_unlucky_range_is_found_at_once() -> None:
    """The smallest divisor was looked for one by one, up to a number of twelve digits."""
    begin = time.process_time()
    found = sampling(2_499_999_999_763 / 5e9, 5e9, 4_000_000, 1)
    assert time.process_time() - begin < 1.0
    assert found.points // found.keep <= 1
    assert sampling(1e-6, 5e9, 4_000_000, 500) == sampling(1e-6, 5e9, 1_000_000, 500)


def test_a_position_of_minutes_never_triggers_and_costs_nothing() -> None:
    awg = Keysight33600()
    scope = InfiniiVision(lock=awg.lock)
    Plant([Wire(awg, MachZehnder(), scope)])
    scope.execute(b":TRIG:SWE NORM;:TIM:RANG 1e-6;:TIM:POS -500;:SING")
    assert scope.execute(b":OPER:COND?;:SYST:ERR?") == b'+40;+0,"No error"'


def block(steps: int, rows: int) -> bytes:
    return host.BLOCK.pack(0, 0, 0, steps, 0, rows)


@pytest.mark.parametrize("payload", [block(0xFFFFFFFF, 0), block(0, 1), block(0, 0), block(1 << 31, 1 << 31)])
def test_a_block_of_nothing_is_refused(payload: bytes) -> None:
    """No rows and four thousand million steps took for ever; the product of both could wrap around."""
    box = SpikingBoard(neurons=8)
    ask = [(Kind.HELLO, host.HELLO.pack(1, 5)), (Kind.ALLOCATE, host.ALLOCATE.pack(4, 0, 0, 1, 0, 0, 0.5, 1.0, 0.0, 1.0)),
           (Kind.ARM, host.ARM.pack(0.0)), (Kind.STEP, payload)]  # fmt: skip
    replies = [box.feed(b"".join(host.frame(kind, k, data))) for k, (kind, data) in enumerate(ask)]
    assert [host.head(reply, "x").code for reply in replies[:3]] == [0, 0, 0]
    assert host.head(replies[3], "x").code in (Code.BAD_PAYLOAD, Code.NO_ROOM)
    assert len(list(frames(replies[3]))) == 1


# -- Control port ---------------------------------------------------------------------------------------------------------


def bench() -> tuple[ControlServer, Keysight33600, InfiniiVision]:
    awg = Keysight33600()
    scope = InfiniiVision(lock=awg.lock, memory_samples=1000)
    plant = Plant([Wire(awg, MachZehnder(), scope)])
    scope.execute(b":SING;:TRIG:FORC")
    return ControlServer(plant, {"awg": awg, "scope": scope}), awg, scope


def damaged(state: object, path: tuple[object, ...], value: object) -> object:
    """A copy of `state` with another value at `path`."""
    if not path:
        return value
    key, *rest = path
    changed = state[key] if isinstance(state, list) else dict(state)[key]  # type: ignore[index, call-overload]
    inside = damaged(changed, tuple(rest), value)
    if isinstance(state, list):
        return [inside if k == key else item for k, item in enumerate(state)]
    return {**state, key: inside}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("plant", "values", "wires", 0), {}),
        (("plant", "values", "wires", 0, "state"), [{"hil.tensor": "0"}]),
        (("plant", "values", "wires", 0, "state"), [{"hil.tensor": "9"}]),
        (("plant", "values", "wires", 0, "state"), [1.0]),
        (("plant", "values"), []),
        (("plant", "tensors"), "%%%"),
        (("plant", "tensors"), "AAAAAAAAAAAAAAAA"),
        (("plant", "tensors"), 7),
        (("plant", "values", "wires", 0, "node"), {"v_pi_v": -1.0}),
        (("boxes", "awg", "channels", "1", "vpp"), {}),
        (("boxes", "awg", "channels", "1", "function"), "BOGUS"),
        (("boxes", "awg", "memory", "1"), {"A": "x"}),
        (("boxes", "awg", "channels", "2", "arb"), "GONE"),
        (("boxes", "awg", "channels", "1", "output"), 1),
        (("boxes", "awg", "status"), {}),
        (("boxes", "scope", "records", "1", "words"), "A"),
        (("boxes", "scope", "records", "1", "window"), {}),
        (("boxes", "scope", "box", "range"), []),
        (("boxes", "scope", "wanted"), [[]]),
        (("boxes", "scope", "mode"), None),
    ],
)
def test_a_damaged_snapshot_is_refused_and_nothing_is_changed(path: tuple[object, ...], value: object) -> None:
    """It was taken over half, and ended the connection with a KeyError or the like."""
    server, awg, scope = bench()
    try:
        before = json.loads(json.dumps(server.snapshot()))
        if path[-1] == "mode":
            server.restore(damaged(before, path, value))  # type: ignore[arg-type]
            assert scope.mode == "stopped"
            return
        with pytest.raises(ContractError, match="a damaged snapshot"):
            server.restore(damaged(before, path, value))  # type: ignore[arg-type]
        assert json.loads(json.dumps(server.snapshot())) == before
        assert awg.execute(b"*IDN?;:SOUR1:VOLT?")
    finally:
        server.close()


@pytest.mark.parametrize("line", [DEEP, '{"do": "set", "path": "node.v_pi_v", "value": ' + "9" * 400 + "}"])
def test_a_request_that_cannot_be_read_is_refused(line: str) -> None:
    server, _, _ = bench()
    server.start()
    with ControlClient(*server.address) as client:
        client._socket.sendall(line.encode() + b"\n")
        assert "ConfigError" in str(json.loads(client._lines.readline())["error"]["kind"])
        assert client.paths()
    server.close()


def test_an_error_that_is_none_and_an_answer_to_something_else_are_out_of_step() -> None:
    assert isinstance(refused(5, "here"), Desync)
    server, _, _ = bench()
    server._answers["get"] = lambda asked: "a text"
    server._answers["log"] = lambda asked: 5
    server.start()
    with ControlClient(*server.address) as client:
        for ask in (lambda: client.get("x"), client.log):
            with pytest.raises(Desync, match="not the answer"):
                ask()
        with pytest.raises(HilError):
            client.reboot("nobody")
    server.close()


def test_words_of_a_record_stay_numbers() -> None:
    assert np.isfinite(described("1,0,100,1,1e-8,0,0,1e-5,0.1,32768").scale.zero_v)
