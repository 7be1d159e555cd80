"""Traps of the simulated boxes of several makers, as the instruments have them."""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np
import pytest
import torch

from sim_devices.instruments.keysight_m8195a import KeysightM8195A
from sim_devices.instruments.red_pitaya import RedPitaya
from sim_devices.instruments.rigol_scope import RigolScope
from sim_devices.instruments.rohde_schwarz_rtb import RohdeSchwarzRTB
from sim_devices.instruments.siglent_sdg import SiglentSDG
from sim_devices.instruments.tektronix_mso import TektronixMSO
from sim_devices.transports.framing import messages
from sim_devices.transports.socket import SocketServer


def said(box: Any, *commands: str) -> str:
    """What the last of these is answered with."""
    reply = None
    for command in commands:
        reply = box.execute(command.encode())
    return "" if reply is None else reply.decode()


@pytest.mark.parametrize(
    ("commands", "answer"),
    [  # as an SDG2042X, firmware 2.01.01.23R7, answered: github.com/pjaako/siglent-sdg-openhtf, tests/data
        (["C1:OUTP?"], "C1:OUTP OFF,LOAD,HZ,PLRT,NOR"),
        (["C1:BSWV?"], "C1:BSWV WVTP,SINE,FRQ,1000HZ,PERI,0.001S,AMP,4V,AMPVRMS,1.414Vrms,OFST,0V,HLEV,2V,LLEV,-2V,PHSE,0"),
        (["C1:BTWV?"], "C1:BTWV STATE,OFF"),
        (
            ["C1:BTWV STATE,ON", "C1:BTWV?"],
            "C1:BTWV STATE,ON,PRD,0.01S,STPS,0,TRSR,INT,TRMD,OFF,TIME,1,DLAY,6.04035e-07S,GATE_NCYC,NCYC,"
            "CARR,WVTP,SINE,FRQ,1000HZ,AMP,4V,AMPVRMS,1.414Vrms,OFST,0V,PHSE,0",
        ),
        (["SYST:ERR?"], '+0,"No error"'),
    ],
)
def test_replies(commands: list[str], answer: str) -> None:
    assert said(SiglentSDG(), *commands) == answer


@pytest.mark.parametrize(
    ("commands", "part"),
    [
        (["C1:BSWV AMP,25", "C1:BSWV?"], "AMP,20V"),  # clamped
        (["C1:BSWV OFST,0.5", "C1:BSWV AMP,25", "C1:BSWV?"], "AMP,19V"),
        (["C1:OUTP LOAD,10", "C1:OUTP?"], "LOAD,50"),
        (["C1:OUTP LOAD,50", "C1:BSWV?"], "AMP,2V"),  # the load moves what is shown
        (["C1:BSWV AMP,1,OFST,0.25", "C1:BSWV?"], "AMP,1V,AMPVRMS,0.3535Vrms,OFST,0.25V,HLEV,0.75V,LLEV,-0.25V"),
        (["C1:BTWV TRSR,MAN", "C1:BTWV STATE,ON", "C1:BTWV?"], "TRSR,INT"),  # ignored while bursts are off
        (["C1:BTWV STATE,ON", "C1:BSWV WVTP,SQUARE", "C1:BTWV?"], "STATE,OFF"),  # a new wave switches them off
        (["C1:BTWV STATE,ON", "C1:BTWV TRMD,RISE", "C1:BTWV TRSR,EXT", "C1:BTWV TRSR,MAN", "C1:BTWV?"], "TRMD,OFF"),
        (["C1:NONSENSE 1", "SYST:ERR?"], '+0,"No error"'),  # and nobody says so
    ],
)
def test_what_cannot_be_is_clamped_or_ignored_without_a_word(commands: list[str], part: str) -> None:
    assert part in said(SiglentSDG(), *commands)


def test_a_record_has_no_length_so_a_newline_in_it_ends_the_message_on_a_socket() -> None:
    box, codes = SiglentSDG(), np.array([1, 0x0A0A, 2, 3], dtype="<i2")
    server = SocketServer(box)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"C1:WVDT WVNM,W,WAVEDATA," + codes.tobytes() + b"\n*OPC?\n")
        client.settimeout(5)
        assert client.recv(16) == b"1\n"
    server.close()
    assert "W" not in box._memory[1]  # what was left of it is too short to be kept


def test_a_record_runs_to_the_end_of_a_message_where_a_wire_marks_it() -> None:
    whole = b"C1:WVDT WVNM,W,WAVEDATA,\x01\x00\n\n\x02\x00\x03\x00"
    (message,) = messages(memoryview(whole), SiglentSDG.raw)
    box = SiglentSDG()
    box.execute(bytes(message) + b"\n")  # a newline behind the samples is dropped
    assert list(box._memory[1]["W"]) == [1, 0x0A0A, 2, 3]
    assert (box.execute(b"WVDT? USER,W") or b"").endswith(b"LENGTH,8B,TYPE,5,WAVEDATA,\x01\x00\n\n\x02\x00\x03\x00")


def test_snapshots_of_both() -> None:
    generator, other = SiglentSDG(), SiglentSDG()
    said(generator, "C1:BSWV AMP,1", "C1:BTWV STATE,ON", "C1:OUTP ON")
    other.restore(generator.snapshot())
    assert (other.on(1), said(other, "C1:BSWV?")) == (True, said(generator, "C1:BSWV?"))
    scope, again = RigolScope(), RigolScope()
    said(scope, ":CHAN1:SCAL 0.5", ":RUN", ":ACQ:MDEP 120000", ":STOP")
    again.restore(scope.snapshot())
    assert said(again, ":ACQ:MDEP?") == "120000"


def test_two_commands_in_a_message_are_refused() -> None:
    scope = RigolScope()
    assert said(scope, ":CHAN1:SCAL 0.5;:CHAN1:SCAL?") == ""
    assert said(scope, ":SYST:ERR?").startswith("-102")


def test_the_depth_is_taken_while_the_scope_runs_and_not_otherwise() -> None:
    scope = RigolScope()
    said(scope, ":STOP", ":ACQ:MDEP 120000")
    assert said(scope, ":SYST:ERR?").startswith("-221")
    assert said(scope, ":RUN", ":ACQ:MDEP 120000", ":STOP", ":ACQ:MDEP?") == "120000"
    said(scope, ":RUN", ":CHAN2:DISP 1", ":ACQ:MDEP 12000")  # two channels share the memory
    assert said(scope, ":SYST:ERR?").startswith("-222")


def test_memory_is_read_in_windows_and_in_stopped_state() -> None:
    scope = RigolScope()
    said(scope, ":TRIG:EDGE:SOUR EXT", ":RUN", ":TIM:SCAL 0.1", ":ACQ:MDEP 1200000", ":STOP", ":SING")
    assert [said(scope, ":TRIG:STAT?") for _ in range(2)] == ["STOP", "WAIT"]  # the first is that of before
    window = scope.window()
    assert window.points == 1_200_000
    scope.capture(window, {1: torch.zeros(window.points)})
    said(scope, ":WAV:MODE RAW", ":WAV:STAR 1", ":WAV:STOP 250001")
    assert said(scope, ":WAV:DATA?") == ""
    assert said(scope, ":SYST:ERR?").startswith("-222")
    assert (scope.execute(b":WAV:STOP 250000") or scope.execute(b":WAV:DATA?") or b"")[:11] == b"#9000250000"
    assert said(scope, ":WAV:MODE NORM", ":WAV:PRE?").split(",")[2] == "1200"
    assert said(scope, ":RUN", ":WAV:MODE RAW", ":WAV:DATA?") == ""


def recorded(box: Any, *commands: str) -> bytes:
    """What the last of these is answered with, when a record of four samples, 0.1 V apart, has come after the first ones."""
    *before, last = commands
    for command in before:
        box.execute(command.encode())
    window = box.window()
    box.capture(window, {1: torch.arange(window.points) * 0.1})
    return box.execute(last.encode()) or b""


@pytest.mark.parametrize(
    ("encoding", "width", "kind"),
    [("RIB", 2, ">i2"), ("SRI", 2, "<i2"), ("RPB", 2, ">u2"), ("SRP", 1, "u1"), ("RIB", 1, "i1")],
)
def test_curves_of_an_mso_are_coded_as_they_are_told(encoding: str, width: int, kind: str) -> None:
    box = TektronixMSO()
    setup = (":HEAD 0", ":VERB 0", ":ACQ:STOPA SEQ", ":ACQ:STATE RUN", ":DAT:STOP 4", f":DAT:ENC {encoding};:DAT:WID {width}")
    reply = recorded(box, *setup, ":CURV?")
    step, place, zero = (float(said(box, f":WFMO:{name}?")) for name in ("YMU", "YOF", "YZE"))
    words = np.frombuffer(reply[3:], kind)
    assert (words - place) * step + zero == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=1.024 / 250)
    assert said(box, ":WFMO:BYT_O?") == ("LSB" if encoding.startswith("S") else "MSB")


def test_an_mso_answers_with_headers_until_it_is_told_and_its_events_wait_for_the_register() -> None:
    box = TektronixMSO()
    assert said(box, ":TRIG:A:MOD?") == ":TRIGGER:A:MODE AUTO"
    assert said(box, ":VERB 0", ":ACQ:MOD?") == ":ACQ:MOD SAM"
    assert said(box, "*RST", ":HEAD 0", ":ACQ:MOD?") == "SAM"
    assert said(box, ":NEVER 1", "*CLS", ":CH9:SCA 1", ":ALLEV?") == '1,"No events to report"'
    assert said(box, "*ESR?") == "+32"
    assert said(box, ":ALLEV?") == '114,"Header suffix out of range;CH9:SCA"'


def test_an_rtb_sends_text_until_it_is_told_and_words_from_the_left() -> None:
    box = RohdeSchwarzRTB()
    assert recorded(box, ":SING", ":CHAN1:DATA?").startswith(b"0.000000E+00,")
    box.execute(b":FORM UINT,16")
    first = (box.execute(b":CHAN1:DATA?") or b"")[7:11]
    assert list(np.frombuffer(first, ">u2") & 0x3F) == [0, 0]  # ten bits; big-endian until FORMat:BORDer
    assert said(box, ":FORM REAL;:FORM?") == "REAL,32"
    assert "Settings conflict" in said(box, ":FORM UINT,12", ":SYST:ERR?")


@pytest.mark.parametrize("kind", [TektronixMSO, RohdeSchwarzRTB, RedPitaya, KeysightM8195A])
def test_a_snapshot_brings_a_box_back(kind: Any) -> None:
    box, other = kind(), kind()
    for command in (":HEAD 0", ":CH1:SCA 0.2", ":CHAN1:RANG 2", "SOUR1:VOLT 0.3", "ACQ:DEC 64", ":VOLT1 0.25"):
        box.execute(command.encode())  # those that it knows
    other.restore(json.loads(json.dumps(box.snapshot())))
    assert other.snapshot() == box.snapshot()
    assert box.snapshot() != kind().snapshot()
    box.reboot()
    assert not any(getattr(box, "on", lambda n: False)(n) for n in (1, 2))
