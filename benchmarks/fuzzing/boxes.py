"""Targets on the simulated side: program messages, framing, the board's line, the control port."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
from binascii import crc_hqx
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fuzzing.target import Target
from hil import frame_protocol as wire
from hil.errors import HilError, LinkError, MeasurementError, Refused
from hil.frame_protocol import Kind
from sim_devices.bench.control import ControlClient, ControlServer
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire, assemble
from sim_devices.bench.wiring import Cable, Plant, Wire
from sim_devices.instruments.frame_protocol import frames
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.keysight_infiniivision import InfiniiVision
from sim_devices.instruments.spiking_board import SpikingBoard
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.transports.framing import Scanner, messages
from sim_devices.transports.vxi11 import Vxi11Server

GENERATOR = (
    b"*IDN?",
    b"*RST;*CLS",
    b"*ESR?;*STB?;*OPC?;*TST?",
    b"*ESE 60;*SRE 32;*ESE?;*SRE?;*OPC;*WAI",
    b":SYST:ERR?;:SYST:ERR:COUN?",
    b":OUTP1:LOAD INF;:SOUR1:VOLT:LIM:STAT 0;:SOUR1:VOLT:UNIT VPP;:SOUR1:VOLT:OFFS 0;:SOUR1:VOLT 8;:SOUR1:VOLT:LIM:HIGH 4",
    b":FORM:BORD SWAP;:SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:FILT OFF;:SOUR1:FUNC:ARB:SRAT 1e8;:BURS:STAT 1;:TRIG1:SOUR BUS;*TRG",
    b":SOUR1:DATA:VOL:CLE;:SOUR1:DATA:ARB:DAC HIL,#264" + bytes(64) + b";:SOUR1:FUNC:ARB HIL;:SOUR1:DATA:VOL:CAT?;FREE?",
    b":SOUR2:DATA:ARB ramp, " + b", ".join(b"%.2f" % (k / 40) for k in range(40)) + b";:SOUR2:DATA:ATTR:POIN? RAMP",
    b":SOUR1:VOLT 3 DBM;:SOUR1:VOLT:UNIT DBM;:SOUR1:VOLT?;:SOUR1:VOLT? MAX;:SOUR1:VOLT:HIGH 2;LOW -1",
    b":DISP:TEXT 'hello; \"x\"'",
    b"SOURCE2:FREQUENCY 10 MHZ;PHASE 90;:OUTPUT2:POLARITY INV;:OUTPUT2:STATE ON;:OUTPUT2?;:TRIG2:DEL 5 ms",
    b":SOUR1:VOLT:OFFS MAX",
)
SCOPE = (
    b"*IDN?",
    b"*RST;*CLS",
    b":SING;:AER?",
    b":OPER:COND?;:TER?;:RST?",
    b":WAV:PRE?",
    b":WAV:DATA?",
    b":TRIG:FORC;:WAV:DATA?",
    b":CHAN1:DISP 1;:CHAN1:COUP DC;:CHAN1:IMP ONEM;:CHAN1:PROB 1;:CHAN1:RANG 0.5;:CHAN1:OFFS 0.18;:CHAN1:INV 1",
    b":TRIG:MODE EDGE;:TRIG:EDGE:SOUR EXT;:TRIG:EDGE:LEV 0.5;:TRIG:EDGE:SLOP POS;:TRIG:SWE NORM;:ACQ:TYPE AVER;:ACQ:COUN 4",
    b":WAV:SOUR CHAN1;:WAV:FORM WORD;:WAV:BYT LSBF;:WAV:UNS 1;:WAV:POIN:MODE RAW;:WAV:POIN 500;:WAV:POIN?;:WAV:XINC?",
    b":TIM:MODE MAIN;:TIM:REF CENT;:TIM:RANG 1e-6;:TIM:POS 5e-7;:ACQ:SRAT?;:ACQ:POIN?",
    b":DIG CHAN1;*OPC?;:WAV:FORM ASC;:WAV:DATA?",
    b":TRIG:SWE AUTO;:RUN;*OPC?;:STOP;:WAV:FORM BYTE;:WAV:DATA?",
    b":DIG CHAN1,CHAN2;:WAV:SOUR CHAN2;:WAV:PRE?",
)


class Clock:
    """Runs a millisecond at every look, until it is stopped: tick_s = 0."""

    def __init__(self) -> None:
        self.now_s, self.tick_s = 0.0, 1e-3

    def __call__(self) -> float:
        self.now_s += self.tick_s
        return self.now_s


class Box(Protocol):
    def execute(self, message: bytes) -> bytes | None: ...
    def clear(self) -> None: ...
    def reboot(self) -> None: ...
    def snapshot(self) -> dict[str, object]: ...


class Impatient(threading.Condition):
    """A lock in which nothing waits: time jumps ahead, or a device clear ends the wait."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.boxes: list[Box] = []

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            self._clock.now_s += timeout
            return False
        for box in self.boxes:
            box.clear()
        return True


class Boxes:
    """A generator and a scope with small memories, in this process, and nothing between them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.lock = Impatient(self.clock)
        self.awg = Keysight33600(lock=self.lock, samples=4096, clock=self.clock)
        self.scope = InfiniiVision(lock=self.lock, memory_samples=4096, any_rate=True, clock=self.clock)
        self.lock.boxes = [self.awg, self.scope]


class Table(Boxes):
    """The same, with a node between them."""

    def __init__(self) -> None:
        super().__init__()
        wire = Wire(awg=self.awg, node=MachZehnder(v_pi_v=3.5), scope=self.scope, cable=Cable(12.4e-9, 50.0))
        self.plant = Plant([wire], seed=7)


def _run(box: Box, data: bytes) -> None:
    box.reboot()
    reply = None
    for message in messages(memoryview(data)):
        reply = box.execute(message)
        assert reply is None or isinstance(reply, bytes)
    for _ in range(25):
        answer = box.execute(b":SYST:ERR?")
        assert answer is not None
        assert answer.isascii(), answer
        if answer.startswith(b"+0"):
            break
    else:
        raise AssertionError("the error queue has no end")
    json.dumps(box.snapshot())
    assert (box.execute(b"*IDN?") or b"").count(b",") == 3


def generator(folder: Path, stack: ExitStack) -> Target:
    table = Boxes()
    return Target("scpi_generator", [*GENERATOR, b"\n".join(GENERATOR)], lambda data: _run(table.awg, data))


def scope(folder: Path, stack: ExitStack) -> Target:
    table = Boxes()
    whole = b"\n".join((*SCOPE[7:11], b":SING;:TRIG:FORC;:WAV:PRE?;:WAV:DATA?"))
    return Target(
        "scpi_scope", [*SCOPE, b"\n".join(SCOPE), whole, whole + b";:TIM:RANG 2e-6;:SING"], lambda data: _run(table.scope, data)
    )


def framing(folder: Path, stack: ExitStack) -> Target:
    """A message ends at the same byte, however the bytes arrive."""

    def cuts(data: bytes, pieces: int) -> list[int]:
        scanner, found, end = Scanner(), [], 0
        while end < len(data):
            end = min(len(data), end + pieces)
            while (at := scanner.find(data, end)) >= 0:
                found.append(at)
        return found

    def run(data: bytes) -> None:
        whole = cuts(data, max(1, len(data)))
        assert whole == cuts(data, 7), "another end for bytes that come in pieces"
        assert all(data[at] == 10 for at in whole)
        parts = list(messages(memoryview(data)))
        assert sum(map(len, parts)) <= len(data)

    return Target(
        "framing", [b"\n".join(GENERATOR) + b"\n", b"\n".join(SCOPE) + b"\n", b":A '#15\n\n", b"#0abc\n", b"#213\n"], run
    )


def spiking(folder: Path, stack: ExitStack) -> Target:
    """The board's line: `feed` answers with whole frames or with nothing."""

    def frame(kind: int, payload: bytes, seq: int) -> bytes:
        lead = wire.HEAD.pack(wire.MAGIC, kind, 0, seq, len(payload))
        crc = crc_hqx(lead, 0xFFFF)
        return lead + struct.pack("<H", crc) + payload + struct.pack("<H", crc_hqx(payload, crc))

    size = 5
    block = wire.BLOCK.pack(0, 0, 0, 2, 0, 1)
    requests = (
        (Kind.HELLO, wire.HELLO.pack(1, 77)), (Kind.ALLOCATE, wire.ALLOCATE.pack(size, 0, 0, 1, 0, 0, 0.5, 1.0, 0.0, 1.0)),
        (Kind.PROGRAM, wire.ARRAY.pack(0) + np.ones(size, "<f4").tobytes()), (Kind.ARM, wire.ARM.pack(60.0)),
        (Kind.RESET, wire.ARRAY.pack(0)), (Kind.STEP, block + np.ones(2 * size, "<f4").tobytes()), (Kind.MONITOR, block),
        (Kind.STATUS, b""), (Kind.SAFE, b""), (Kind.ALLOCATE, wire.ALLOCATE.pack(3, 1, 1, 0, 0, 2, 0.5, 1.0, 0.0, 1.0)),
        (Kind.STEP, wire.BLOCK.pack(1, 0, 0, 1, 0, 2) + np.ones(6, "<i2").tobytes()),
    )  # fmt: skip
    each = [frame(kind, payload, seq) for seq, (kind, payload) in enumerate(requests)]
    begin = b"".join(each[:4])

    def mend(data: bytes, draw: random.Random) -> bytes:
        """Sums that fit, for most inputs: damage that a sum finds is found too soon."""
        if draw.random() < 0.2:
            return data
        pieces = data.split(wire.MAGIC)
        mended = [pieces[0]]
        for piece in pieces[1:]:
            payload = piece[wire.HEAD_BYTES - 2 : -2]
            if len(piece) < wire.HEAD_BYTES:
                mended.append(wire.MAGIC + piece)
            else:
                mended.append(frame(piece[0], payload, int.from_bytes(piece[2:4], "little")))
        return b"".join(mended)

    def run(data: bytes) -> None:
        board = SpikingBoard(neurons=4096, serial="F1")
        reply = bytearray()
        for first in range(0, len(data), 4096):
            reply += board.feed(data[first : first + 4096])
        for name, whole in frames(bytes(reply)):
            assert name
            assert crc_hqx(whole[wire.HEAD_BYTES : -2], int.from_bytes(whole[10:12], "little")) == int.from_bytes(
                whole[-2:], "little"
            )
        board.reboot()
        assert board.feed(each[0]), "the board is dead"

    samples = [
        *each,
        b"".join(each),
        begin + each[5],
        begin + each[4] + each[5] + each[6],
        b"noise" + begin + each[9] + each[10],
    ]
    return Target("board_feed", samples, run, (), mend)


def control(folder: Path, stack: ExitStack) -> Target:
    """The server: every line is answered with a line of JSON, and the bench lives on."""
    asked: tuple[dict[str, object], ...] = (
        {"do": "paths"}, {"do": "get", "path": "node.v_pi_v"}, {"do": "set", "path": "node.v_pi_v", "value": 3.4},
        {"do": "set", "path": "cable.delay_s", "value": 1e-9}, {"do": "set", "path": "state.0", "value": 0.1},
        {"do": "set", "path": "scope.noise_v", "value": 1e-3}, {"do": "log"}, {"do": "outputs"}, {"do": "extremes"},
        {"do": "reboot", "box": "awg"}, {"do": "fault", "box": "scope", "kind": "truncate", "rate": 0.1, "bytes": 3},
        {"do": "faults"}, {"do": "heal", "fault": "1"}, {"do": "heal"}, {"do": "stop"}, {"do": "snapshot", "boxes": False},
    )  # fmt: skip
    table = Table()
    table.scope.execute(b":SING;:TRIG:FORC")
    honest = ControlServer(table.plant, {"awg": table.awg, "scope": table.scope})
    stack.callback(honest.close)
    whole = honest.snapshot()
    restores = [{"do": "restore", "state": state} for state in (whole, {"plant": whole["plant"]}, {"boxes": whole["boxes"]})]
    samples = [json.dumps({"id": k, **request}).encode() for k, request in enumerate((*asked, *restores))]

    def run(data: bytes) -> None:
        server = ControlServer(table.plant, {"awg": table.awg, "scope": table.scope})
        try:
            server.restore(whole)
            for line in data.split(b"\n"):
                reply = json.loads(json.dumps(server._answer(line)))
                assert ("ok" in reply) != ("error" in reply)
            for question in (b":SYST:ERR?", b"*IDN?"):
                assert table.awg.execute(question)
                assert table.scope.execute(question)
            table.scope.execute(b":WAV:DATA?;:WAV:PRE?;:CHAN1:RANG?;:SING;:TRIG:FORC")
            table.awg.execute(b":SOUR1:VOLT?;:OUTP1:LOAD?;:SOUR1:DATA:VOL:CAT?;:SYST:ERR?")
            json.dumps(server.snapshot())
        finally:
            server.close()

    return Target("control_server", samples, run)


def client(folder: Path, stack: ExitStack) -> Target:
    """The client, on answers that make no sense."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    host, port = listener.getsockname()

    def run(data: bytes) -> None:
        for ask in (lambda c: c.get("x"), lambda c: c.snapshot(), lambda c: c.faults(), lambda c: c.log(), lambda c: c.heal()):
            with ControlClient(host, port, 0.5) as asking:
                server, _ = listener.accept()
                with server:
                    server.sendall(data)
                    server.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(LinkError, MeasurementError, Refused):
                        ask(asking)

    error = {
        "id": 1,
        "error": {"kind": "ConfigError", "what": "no", "where": "", "got": "", "allowed": "", "outputs": "", "todo": ""},
    }
    answers: tuple[object, ...] = (
        {"id": 1, "ok": 0.5},
        {"id": 1, "ok": {"faults": [{}], "log": []}},
        {"id": 1, "ok": [{"time_s": 1}]},
        error,
    )
    return Target("control_client", [json.dumps(answer).encode() + b"\n" for answer in answers], run, (HilError,))


def calls(folder: Path, stack: ExitStack) -> Target:
    """A VXI-11 server over a socket: damaged calls are answered or the connection is closed, and the next client is served."""

    def call(procedure: int, *arguments: int | bytes) -> bytes:
        body = struct.pack("!10I", 7, 0, 2, 0x0607AF, 1, procedure, 0, 0, 0, 0)
        for one in arguments:
            whole = (
                struct.pack("!I", len(one)) + one + bytes(-len(one) % 4) if isinstance(one, bytes) else struct.pack("!I", one)
            )
            body += whole
        return struct.pack("!I", 1 << 31 | len(body)) + body

    opened, end = call(10, 1, 0, 0, b"inst0"), 8
    write, read = call(11, 0, 500, 500, end, b"*IDN?"), call(12, 0, 256, 500, 500, 0, 0)
    samples = [
        opened + write + read + call(23, 0),
        opened
        + call(11, 0, 500, 500, 0, b":SOUR1:")
        + call(11, 0, 500, 500, end, b"VOLT?")
        + call(12, 0, 4, 500, 500, 128, 10),
        opened + call(13, 0, 0, 500, 500) + call(14, 0, 0, 500, 500) + call(15, 0, 0, 500, 500) + call(16, 0, 0, 500, 500),
        opened + call(18, 0, 1, 100) + call(19, 0) + call(22, 0, 0, 500, 500, 1, 0, 0, b"x") + call(25, 1, 2, 3, 4),
        opened + read + write + write + read,
    ]
    box = Keysight33600()
    server = Vxi11Server(box)
    stack.callback(server.close)
    server.start()
    port = int(server.resource.split("::")[1].split(",")[1])

    def run(data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), 2.0) as damaged, contextlib.suppress(OSError):
            damaged.sendall(data)
            damaged.shutdown(socket.SHUT_WR)
            while damaged.recv(1 << 16):
                pass
        with socket.create_connection(("127.0.0.1", port), 2.0) as good:
            good.sendall(opened)
            assert good.recv(1 << 16), "nobody answers"
        assert box.execute(b"*IDN?"), "it is dead"

    return Target("vxi11_server", samples, run)


def library(folder: Path, stack: ExitStack) -> Target:
    """The lines that the library of a simulated PicoScope sends: each is answered, and the state is kept and restored."""
    samples = [
        b"UNIT:OPEN? 2\nUNIT:INF? 3\nUNIT:POW? 282\nUNIT:RES? 1\nUNIT:MAX?\nUNIT:CLOS?",
        b"CHAN:SET? 0,1,1,6,0.1\nTRIG:SIMP? 1,0,100,2,0,100\nBLOC:TIM? 5,1000\nBLOC:SEGM? 2\nBLOC:RUN? 10,1000,5\nBLOC:READ?",
        b"TRIG:SIMP? 0,0,0,0,0,0\nBLOC:RUN? 0,900,5\nBLOC:VAL? 0,0,900\nBLOC:OVER?\nBLOC:STOP?",
        b"SIGG:BUIL? 200000,100000,0,1000,1,0,1\nSIGG:PHAS? 1000,100\nSIGG:SIZE?\nSIGG:SOFT? 1",
        b"SIGG:ARB? 0,1000000,33554432,1,0,1,#240" + b"ABCDEFGHIJ" * 4 + b"\nBLOC:RUN? 0,1000,5\nBLOC:VAL? 0,5,10",
    ]
    node = Part("sim_devices.mach_zehnder:MachZehnder", {})
    wire = VirtualWire("pico", "pico", node, delay_s=24.8e-9)
    described = VirtualBench((VirtualBox("pico", "sim_devices.instruments.picoscope:PicoScope"),), (wire,))

    def run(data: bytes) -> None:
        box: Any = assemble(described).boxes["pico"]
        for line in data.split(b"\n"):
            assert isinstance(box.execute(line), bytes), "no answer"
        box.restore(json.loads(json.dumps(box.snapshot())))
        assert box.execute(b"UNIT:PING?") == b"0", "it is dead"

    return Target("picoscope", samples, run)


TARGETS = (generator, scope, framing, spiking, control, client, calls, library)
