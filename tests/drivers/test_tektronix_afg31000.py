"""The Tektronix AFG31000 driver against the simulated box: a record is one period, so its rate is a frequency."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_link import MessageLink

from drivers.tektronix_afg31000 import TektronixAFG31000
from hil.errors import CommandRefused, ConfigError, OutOfRange, WrongInstrument
from sim_devices.instruments.tektronix_afg31000 import TektronixAFG31000 as Box


def made(**given: float) -> tuple[TektronixAFG31000, Box, MessageLink]:
    box = Box()
    link = MessageLink(box)
    return TektronixAFG31000(link, **{"low_v": -1.0, "high_v": 3.0, **given}), box, link  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [2, 1000, 40_000])
def test_records_of_any_length_have_the_rate_that_was_set(points: int) -> None:
    driver, box, _ = made()
    driver.prepare(1e7)
    volts = np.linspace(-1, 3, points, dtype=np.float32)
    driver.upload(driver.encode(volts))
    driver.output(True)
    drive = box.drive(1)
    assert (drive.on, drive.cycles, drive.sample_rate_hz) == (True, 1.0, pytest.approx(1e7))
    assert np.abs(drive.record - volts).max() <= 0.7 * 4 / 2**14  # rounded by the driver and to its words, not again by the box
    driver.safe()
    assert not box.on(1)


def test_a_rate_that_is_not_taken_is_found() -> None:
    driver, _, _ = made()
    driver.prepare(2e8)
    with pytest.raises(CommandRefused):
        driver.upload(np.zeros(2, np.int16))  # 100 MHz: more than the model's 50 MHz
    assert driver.settings() == {}


def test_limits_and_lengths_are_refused_before_anything_is_sent() -> None:
    link = MessageLink(Box())
    with pytest.raises(OutOfRange):
        TektronixAFG31000(link, low_v=-6.0, high_v=6.0)
    assert not link.sent
    driver, _, link = made()
    before = len(link.sent)
    with pytest.raises(ConfigError, match="does not fit"):
        driver.upload(np.zeros(131_073, np.int16))
    assert len(link.sent) == before


def test_a_hand_at_the_panel_is_seen() -> None:
    driver, box, _ = made()
    driver.prepare(1e7)
    driver.upload(np.zeros(100, np.int16))
    driver.panel.settle()
    driver.upload(np.zeros(200, np.int16))  # moves the frequency, which is no foreign change
    assert driver.panel.findings() == []
    box.press(":OUTP1:IMP INF")
    box.press(":TRIG:SEQ:SOUR TIM")
    said = [finding.said for finding in driver.panel.findings()]
    assert any("load" in one for one in said)
    assert "trigger source EXT -> TIM" in said


def test_another_generator_is_refused() -> None:
    box = Box()
    box._scpi._common["*IDN"] = type(box._scpi._common["*IDN"])("*IDN", get=lambda call: "TEKTRONIX,AFG3102,1,2")
    with pytest.raises(WrongInstrument):
        TektronixAFG31000(MessageLink(box))
