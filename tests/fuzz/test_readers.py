"""Whatever bytes come: a result, or an error of hil's tree. And what one end writes, the other reads."""

from __future__ import annotations

import json
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from fuzzing.wires import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.keysight_33600 import FULL_SCALE, Channel
from drivers.keysight_33600 import Keysight33600 as Driver
from drivers.links.block import header, read_block
from drivers.links.hislip import HEADER, HislipWire
from drivers.safe import TALK, Ramp, SafeState, Step
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from hil import frame_protocol as host
from hil import toml
from hil.config import experiment
from hil.device import Port
from hil.errors import ConfigError, Desync
from hil.run import journal
from sim_devices.instruments import frame_protocol as board
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.keysight_infiniivision import InfiniiVision
from sim_devices.instruments.spiking_board import SpikingBoard
from sim_devices.transports.framing import Scanner, messages

quickly = settings(max_examples=150, deadline=None, derandomize=True, database=None)
seldom = settings(quickly, max_examples=40)  # where each example writes files
LIMIT = 1 << 16
TEXT = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=30)


# -- Blocks and HiSLIP ----------------------------------------------------------------------------------------------------


@given(payload=st.binary(max_size=600), item=st.sampled_from([1, 2, 4]))
@quickly
def test_a_block_comes_back_as_it_was_sent(payload: bytes, item: int) -> None:
    payload = payload[: len(payload) // item * item]
    assert bytes(read_block(Message(header(len(payload)) + payload + b"\n"), item, LIMIT, "here")) == payload


class Wire:
    """The socket of a HislipWire: bytes in memory, and the end of the connection behind them."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def fill(self, view: memoryview, silence_s: float, deadline: object, where: str) -> None:
        if len(self.data) < len(view):
            raise ConnectionResetError
        view[:] = self.data[: len(view)]
        self.data = self.data[len(view) :]

    def glimpse(self, count: int) -> bytes:
        return self.data[:count]


def hislip_wire(data: bytes) -> HislipWire:
    wire = HislipWire.__new__(HislipWire)
    wire._client, wire._where, wire._sock = Client(), "here", Wire(data)  # type: ignore[assignment]
    wire.timeout_s, wire._left, wire._last = 1.0, 0, False
    return wire


class Client:
    last_message_id, _message_id, _rmt = 7, 9, 0


def in_messages(payload: bytes, sizes: list[int], number: int = 7) -> bytes:
    """`payload` in Data messages of these sizes, and a DataEnd with the rest."""
    data = b""
    for size in sizes:
        data += HEADER.pack(b"HS", 6, 0, number, len(payload[:size])) + payload[:size]
        payload = payload[size:]
    return data + HEADER.pack(b"HS", 7, 0, number, len(payload)) + payload


@given(payload=st.binary(max_size=300), sizes=st.lists(st.integers(0, 60), max_size=5), stale=st.integers(0, 3))
@quickly
def test_a_reply_comes_whole_however_it_was_cut_and_whatever_was_late(payload: bytes, sizes: list[int], stale: int) -> None:
    late = in_messages(b"late\n", [2], number=5) * stale
    block = header(len(payload)) + payload + b"\n"
    wire = hislip_wire(late + in_messages(block, sizes))
    assert bytes(read_block(wire, 1, LIMIT, "here")) == payload
    line = payload.replace(b"\n", b"").rstrip(b"\r")
    assert hislip_wire(late + in_messages(line + b"\n", sizes)).line() == line


# -- Frames ---------------------------------------------------------------------------------------------------------------


@given(
    kind=st.integers(0, 127),
    seq=st.integers(0, 0xFFFF),
    payload=st.binary(max_size=100),
    noise=st.binary(max_size=20),
    piece=st.integers(1, 50),
)
@quickly
def test_a_frame_is_read_whatever_stands_before_it(kind: int, seq: int, payload: bytes, noise: bytes, piece: int) -> None:
    sent = b"".join(host.frame(kind, seq, payload))
    found, line = [], board.Reassembly(1000)
    stream = noise.replace(b"\xa5", b"x") + sent
    for first in range(0, len(stream), piece):
        found += [(r.kind, r.seq, bytes(r.payload), r.code) for r in line.feed(stream[first : first + piece], 0.0)]
    assert found == [(kind, seq, payload, host.Code.DONE)]
    reply = board.reply(kind, seq, payload)
    head = host.head(reply[: host.HEAD_BYTES], "here")
    assert bytes(host.payload(head, reply[host.HEAD_BYTES :], "here")) == payload


@given(payload=st.binary(max_size=60), bit=st.integers(0, 10_000))
@quickly
def test_a_flipped_bit_is_never_taken_for_a_reply(payload: bytes, bit: int) -> None:
    reply = bytearray(board.reply(5, 77, payload))
    reply[bit % len(reply)] ^= 1 << bit % 8
    with pytest.raises(Desync):
        host.payload(host.head(bytes(reply[: host.HEAD_BYTES]), "here"), bytes(reply[host.HEAD_BYTES :]), "here")


@given(data=st.binary(max_size=200), kinds=st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=60)), max_size=5))
@quickly
def test_a_board_answers_any_bytes_with_whole_frames(data: bytes, kinds: list[tuple[int, bytes]]) -> None:
    box = SpikingBoard(neurons=100)
    reply = box.feed(data) + b"".join(
        box.feed(b"".join(host.frame(kind, k, payload))) for k, (kind, payload) in enumerate(kinds)
    )
    for _, frame in board.frames(reply):
        head = host.head(frame[: host.HEAD_BYTES], "here")
        host.payload(head, frame[host.HEAD_BYTES :], "here")


def test_a_head_that_announces_gigabytes_is_damaged() -> None:
    lead = host.HEAD.pack(host.MAGIC, 0x85, 0, 1, 0xFFFFFFFF)
    with pytest.raises(Desync, match="4294967295"):
        host.head(lead + host.CRC.pack(host.crc_hqx(lead, 0xFFFF)), "here")


# -- Program messages -----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        b":SOUR1:VOLT ",
        b":SOUR2:FREQ ",
        b"*IDN?",
        b":SYST:ERR?",
        b":DATA:ARB:DAC A,",
        b":TIM:SCAL ",
        b":WAV:DATA?",
        b";",
        b",",
        b"\n",
        b"#14",
        b"MAX",
        b"DBM",
        b"-1e400",
        b"\xb5V",
        b"'",
        b'"',
        b":SING",
        b":OUTP1:LOAD ",
        b" 1",
        b"nan",
        b":WAV:POIN ",
        b":TRIG:FORC",
        b"\xff\xff",
    ]
)
PROGRAM = st.lists(WORDS | st.binary(max_size=6), max_size=12).map(b"".join)
BOXES = (Keysight33600(samples=4096), InfiniiVision(memory_samples=4096))


@given(data=PROGRAM)
@quickly
def test_a_box_survives_any_message_and_answers_in_ascii(data: bytes) -> None:
    for box in BOXES:
        box.reboot()
        for message in messages(memoryview(data)):
            if (
                b"DIG" not in bytes(message).upper()
                and b"WAI" not in bytes(message).upper()
                and b"OPC" not in bytes(message).upper()
            ):
                box.execute(message)
        for _ in range(25):
            reply = box.execute(b":SYST:ERR?")
            assert reply is not None
            assert reply.isascii()
        assert (box.execute(b"*IDN?") or b"").count(b",") == 3


@given(data=PROGRAM, piece=st.integers(1, 9))
@quickly
def test_messages_end_in_the_same_place_however_they_arrive(data: bytes, piece: int) -> None:
    def ends(step: int) -> Iterator[int]:
        scanner = Scanner()
        for end in range(step, len(data) + step, step):
            while (at := scanner.find(data, min(end, len(data)))) >= 0:
                yield at

    assert list(ends(piece)) == list(ends(len(data) or 1))


# -- Files ----------------------------------------------------------------------------------------------------------------

KEY = st.text(string.ascii_lowercase + "_", min_size=1, max_size=6)
VALUE = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.booleans() | TEXT
TABLE = st.recursive(
    st.dictionaries(KEY, VALUE, max_size=4), lambda inner: st.dictionaries(KEY, VALUE | inner, max_size=4), max_leaves=8
)


@given(table=TABLE)
@quickly
def test_a_table_is_read_as_it_was_written(table: dict[str, Any]) -> None:
    assert toml.loads(tomli_w.dumps(table)) == table


@given(
    text=st.text(max_size=60)
    | st.lists(st.sampled_from(["[", "]", "=", "a", ".", "{", "}", '"', "\n", "1", ","]), max_size=40).map("".join)
)
@seldom
def test_any_text_is_toml_or_a_config_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "e.toml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        for read in (experiment.read_experiment, experiment.read_bench):
            with pytest.raises(ConfigError):
                read(path)


@given(
    steps=st.lists(st.tuples(st.floats(-1e300, 1e300), st.integers(0, 10**12), st.floats(0, 1e9)), max_size=8),
    cut=st.integers(0, 400), noise=st.binary(max_size=20),
)  # fmt: skip
@seldom
def test_a_journal_tells_what_was_committed_however_it_is_damaged(
    steps: list[tuple[float, int, float]], cut: int, noise: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        written = journal.Journal(path, now=lambda: "2026-11-25T01:15:42.123+00:00")
        for number, (loss, passes, device_s) in enumerate(steps, 1):
            written.commit(number, 1, number, loss, passes, device_s)
        written.close()
        whole = path.read_bytes() if steps else b""
        for data in (whole, whole[:cut], whole[:cut] + noise, noise + whole):
            path.write_bytes(data)
            for most in (None, 0, 3):
                journal.contents(path, most)
        path.write_bytes(whole)
        kept = journal.committed(journal.contents(path).records)
        assert [(r["step"], r["loss"], r["passes"]) for r in kept] == [
            (k, loss, passes) for k, (loss, passes, _) in enumerate(steps, 1)
        ]


NAMES = st.builds(Expect, st.one_of(TEXT, st.tuples(TEXT, TEXT)), TEXT, TEXT)
STEPS = st.lists(st.builds(Step, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple)), max_size=3).map(tuple)
SLOWEST = 0.01  # V/s; a ramp of 18 V that is slower is refused
RAMPS = st.builds(Ramp, TEXT, TEXT, TEXT, st.floats(SLOWEST, 1e3), st.floats(1e-3, 1.0), st.floats(-9, -1), st.floats(0, 9))
TALKS = st.from_regex(TALK, fullmatch=True)


@given(state=st.builds(SafeState, TEXT, TEXT, TALKS, NAMES, STEPS, st.none() | RAMPS, TEXT, st.booleans()))
@quickly
def test_a_safe_state_is_read_as_it_was_written(state: SafeState) -> None:
    assert SafeState.from_json(state.to_json()) == state


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(["name", "resource", "talk", "shared", "expect", "steps", "ramp", "outputs"]), value=JSON)
@quickly
def test_a_safe_state_with_anything_in_it_is_one_or_is_refused(key: str, value: object) -> None:
    good = SafeState("awg", "here", OVER_VISA, Expect("K"), (Step(":OUTP 0", ":OUTP?", ("0",)),)).to_json()
    try:
        state = SafeState.from_json(json.dumps({**json.loads(good), key: value}))
    except ConfigError:
        return
    assert SafeState.from_json(state.to_json()) == state
    assert isinstance(state.name, str)


@given(volts=st.lists(st.floats(-2, 3, width=32), min_size=1, max_size=50))
@quickly
def test_codes_of_volts_inside_the_limits_stay_inside_them(volts: list[float]) -> None:
    """As the driver encodes: |code| <= 32767, and back to volts within half a step."""
    driver = Driver.__new__(Driver)
    driver._dac_bits, driver._channels = None, (Channel(1, Port("drive", -2.0, 3.0, "V"), 5.0, 0.5, None),)
    codes = driver.encode(np.array(volts, np.float32)).astype(np.float64)
    assert np.abs(codes).max() <= FULL_SCALE
    back = 0.5 + codes / FULL_SCALE * 2.5
    assert np.abs(back - np.array(volts)).max() <= 2.5 / FULL_SCALE
