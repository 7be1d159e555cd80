"""The front panels of the simulated boxes: what a hand sets there, what a lock keeps out, what nobody hears of."""

from __future__ import annotations

import pytest

from hil.errors import ConfigError, ContractError
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.keysight_infiniivision import InfiniiVision
from sim_devices.instruments.spiking_board import SpikingBoard

SETTINGS = [
    (Keysight33600, ":SOUR1:VOLT 2.5", ":SOUR1:VOLT?"),
    (Keysight33600, ":SOUR2:VOLT:OFFS 0.5", ":SOUR2:VOLT:OFFS?"),
    (Keysight33600, ":OUTP1:LOAD INF", ":OUTP1:LOAD?"),
    (Keysight33600, ":OUTP1:POL INV", ":OUTP1:POL?"),
    (Keysight33600, ":OUTP1 1", ":OUTP1?"),
    (Keysight33600, ":SOUR1:VOLT:LIM:HIGH 2;:SOUR1:VOLT:LIM:STAT 1", ":SOUR1:VOLT:LIM:HIGH?;STAT?"),
    (InfiniiVision, ":CHAN1:OFFS 0.1", ":CHAN1:OFFS?"),
    (InfiniiVision, ":CHAN1:SCAL 0.5", ":CHAN1:RANG?"),
    (InfiniiVision, ":TRIG:EDGE:SOUR EXT;:TRIG:EDGE:LEV 1", ":TRIG:EDGE:SOUR?;LEV?"),
]
LOCKS = {Keysight33600: (b":SYST:LOCK:REQ?", b":SYST:LOCK:REL"), InfiniiVision: (b":SYST:LOCK ON", b":SYST:LOCK OFF")}


@pytest.mark.parametrize(("kind", "command", "question"), SETTINGS)
def test_a_hand_sets_what_the_command_sets_unless_the_panel_is_locked(kind: type, command: str, question: str) -> None:
    box, other = kind(), kind()
    lock, unlock = LOCKS[kind]
    before = box.execute(question.encode())
    box.execute(lock)
    with pytest.raises(ContractError, match="locked"):
        box.press(command)
    assert box.execute(question.encode()) == before
    box.execute(b"*RST")  # a reset does not unlock
    with pytest.raises(ContractError, match="locked"):
        box.press(command)
    box.execute(unlock)
    box.press(command)
    other.execute(command.encode())
    assert box.press(question).encode() == other.execute(question.encode()) != before


@pytest.mark.parametrize("kind", LOCKS)
def test_a_power_cut_unlocks(kind: type) -> None:
    box = kind()
    box.execute(LOCKS[kind][0])
    box.reboot()
    assert box.press("*IDN?")


@pytest.mark.parametrize("command", [":SOUR1:VOLT 99", ":SOUR1:NONSENSE 1", ":OUTP1 maybe", ":SOUR1:VOLT"])
def test_what_a_hand_does_in_vain_is_in_no_queue(command: str) -> None:
    box = Keysight33600()
    box.execute(b"*CLS")
    with pytest.raises(ConfigError, match="does not do that"):
        box.press(command)
    assert box.execute(b":SYST:ERR?;*ESR?") == b'+0,"No error";+0'
    box.press(":SOUR1:VOLT 1")
    assert box.execute(b"*ESR?") == b"+64"  # somebody pressed a key


def test_lock_requests_are_counted() -> None:
    box = Keysight33600()
    assert box.execute(b":SYST:LOCK:REQ?;:SYST:LOCK:REQ?") == b"+1;+1"
    box.execute(b":SYST:LOCK:REL")
    with pytest.raises(ContractError):
        box.press(":OUTP1 1")
    box.execute(b":SYST:LOCK:REL;:SYST:LOCK:REL")
    assert box.execute(b":SYST:ERR?") == b'-221,"Settings conflict;no lock is held"'
    box.press(":OUTP1 1")


def test_the_key_of_the_board_disarms_it() -> None:
    board = SpikingBoard()
    board._switch(True)
    board.press("safe")
    assert not board.armed
    with pytest.raises(ContractError, match="no such key"):
        board.press("ARM")
