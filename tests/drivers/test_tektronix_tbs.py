"""The TBS driver against the simulated box: bytes, time bases of 1, 2, 4, a start with five digits, inputs it has not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from one_record import take
from scripted_link import MessageLink

from drivers.tektronix_tbs import TektronixTBS
from hil.errors import Changed, ConfigError, InstrumentError, Saturated, WrongInstrument
from sim_devices.instruments.tektronix_tbs import TektronixTBS as Box

# What a TBS2204B answered to WFMOutpre? at 200 us/div, all but a last field that no manual names.
RECORDED = (
    '1;8;BINARY;RI;MSB;"Ch1, DC coupling, 1.000V/div, 200.0us/div, 20000 points, Average mode";16624;Y;"s";160.0000E-9;'
    '-1.6000E-3;0;"V";40.0000E-3;0.0E+0;0.0E+0;20000'
)


def made(model: str = "TBS1072C", edge: int = 0, **given: Any) -> tuple[TektronixTBS, Box, MessageLink]:
    box = Box(model=model, trigger_channel=edge)
    link = MessageLink(box)
    driver = TektronixTBS(link, trigger_channel=edge, **{"range_v": 0.5, "offset_v": 0.18, **given})
    return driver, box, link


def test_the_box_describes_a_record_as_a_real_one_did() -> None:
    box = Box(model="TBS2204B", trigger_channel=4)
    for line in ("HEAD 0", "HOR:RECO 20000", "HOR:SCA 2E-4", "HOR:DEL:MOD 0", "ACQ:MOD AVE", "ACQ:NUMAV 2", "DAT:STOP 16624",
                 "TRIG:A:MOD NORM", "ACQ:STOPA SEQ", "ACQ:STATE RUN"):  # fmt: skip
        box.execute(line.encode())
    for _ in range(2):
        window = box.window()
        box.capture(window, {1: torch.zeros(window.points)})
    assert (box.execute(b"WFMO?") or b"").decode() == RECORDED


@pytest.mark.parametrize(
    ("model", "edge", "start_s"), [("TBS1072C", 0, 1e-6), ("TBS2204B", 4, 1.2345678e-3), ("TBS2104", 2, 0.0)]
)
def test_volts_and_instants(model: str, edge: int, start_s: float) -> None:
    """The start of a record is told with five digits, which is 100 ns of a millisecond: more than a sample."""
    driver, box, _ = made(model, edge)
    driver.configure(10_000, 12.5e6, start_s)
    volts = take(driver, box)
    assert len(volts) == 10_000
    due = 0.18 + 0.2 * np.sin((start_s + np.arange(10_000) / 12.5e6) * 1e5)
    assert np.abs(volts - due).max() < 0.5 * 0.5 / 8 / 25 * 1.01  # half a byte


def test_words_of_two_bytes_keep_the_step_of_a_byte() -> None:
    driver, box, _ = made()
    driver.configure(1000, 12.5e6, 0.0)
    take(driver, box)
    one, step = box.execute(b"CURV?") or b"", box.execute(b"WFMO:YMU?")
    two = box.execute(b"DAT:WID 2;:CURV?") or b""
    assert box.execute(b"WFMO:YMU?") == step
    assert two[6::2][:100] == one[6:][:100]
    assert set(two[7::2]) == {0}


def test_an_input_beyond_the_screen_is_saturated() -> None:
    driver, box, _ = made()
    driver.configure(1000, 12.5e6, 0.0)
    with pytest.raises(Saturated, match="beyond the screen"):
        take(driver, box, 0.9)


@pytest.mark.parametrize("line", [b"HOR:DEL:TIM 3E-3", b"HOR:SCA 4E-5", b"CH1:SCA 0.2", b"DAT:WID 2"])
def test_a_knob_that_was_turned_never_passes_for_data(line: bytes) -> None:
    driver, box, _ = made()
    driver.configure(1000, 12.5e6, 1e-6)
    take(driver, box)
    box.execute(line)
    for one in driver._channels:
        one.until_verified = 0
    with pytest.raises((Changed, InstrumentError)):
        take(driver, box)


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("TBS2204B", {}, "external trigger, which a TBS2204B has not"),
        ("TBS1072C", {"trigger_channel": 1}, "no such trigger input"),
        ("TBS1072C", {"channel": 3}, "no such channels"),
        ("TBS2202B", {"trigger_channel": 4}, "no such trigger input"),
        ("TBS1072C", {"input_ohm": 50.0}, "unexpected keyword"),
    ],
)
def test_what_a_model_has_not_is_refused(model: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, TypeError), match=said):
        TektronixTBS(MessageLink(Box(model=model)), **given)


def test_older_models_have_another_dialect() -> None:
    class Older(Box):
        def execute(self, message: Any) -> bytes | None:
            return b"TEKTRONIX,TBS1072B-EDU,C1,CF:91.1CT FV:v4.0" if b"*IDN?" in bytes(message) else super().execute(message)

    with pytest.raises(WrongInstrument, match="not a scope that the driver knows"):
        TektronixTBS(MessageLink(Older()))


def test_rates_and_averages_that_it_has_not() -> None:
    driver, _, link = made()
    sent = len(link.sent)
    with pytest.raises(ConfigError, match="no time base"):
        driver.configure(1000, 10e6, 0.0)
    with pytest.raises(ConfigError, match="cannot record this"):
        driver.configure(20_001, 12.5e6, 0.0)
    with pytest.raises(ConfigError, match="eight bits"):
        driver.average(16)
    assert not any(b":HOR:RECO" in message or b":NUMAV" in message for message in link.sent[sent:])
