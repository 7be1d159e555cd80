"""The Rigol DG800 driver against the simulated box: records in packets of unsigned words, bursts of sequences."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_link import MessageLink

from drivers.rigol_dg import LEAST, PACKET, RigolDG
from hil.errors import CommandRefused, ConfigError, OutOfRange, WrongInstrument
from sim_devices.instruments.rigol_dg import RigolDG as Box


def made(**given: float) -> tuple[RigolDG, Box, MessageLink]:
    box = Box()
    link = MessageLink(box)
    return RigolDG(link, **{"low_v": -1.0, "high_v": 3.0, **given}), box, link  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [8, PACKET, PACKET + 1, 2 * PACKET + LEAST - 1, 40_000])
def test_a_record_is_played_once_whatever_its_packets(points: int) -> None:
    driver, box, link = made()
    driver.prepare(1e7)
    volts = np.linspace(-1, 3, points, dtype=np.float32)
    driver.upload(driver.encode(volts))
    driver.output(True)
    drive = box.drive(1)
    assert (drive.on, drive.cycles, drive.sample_rate_hz) == (True, 1.0, 1e7)
    assert np.abs(drive.record - volts).max() <= 0.7 * 4 / 2**14  # rounded by the driver and to its words, not again by the box
    assert box.sync(1)
    assert not box.sync(2)
    sizes = [len(message.partition(b"#")[2]) for message in link.sent if b"DAC16" in message]
    assert min(sizes) >= 2 * LEAST
    assert max(sizes) <= 2 * PACKET + 6
    driver.safe()
    assert not box.on(1)


def test_the_whole_range_of_the_converter_is_used() -> None:
    driver, box, _ = made()
    driver.prepare(1e7)
    driver.upload(np.array([-32767, 0, 32767] * 3, np.int16))
    lowest, _, highest, *_ = box.drive(1).record
    assert lowest == pytest.approx(-1.0, abs=1e-3)
    assert highest == pytest.approx(3.0, abs=1e-3)


def test_what_the_box_refuses_is_told() -> None:
    driver, box, _ = made()
    driver.prepare(1e7)
    box._scpi.execute(b":NONSENSE 1")
    with pytest.raises(CommandRefused, match="did not take the record"):
        driver.upload(np.zeros(100, np.int16))


def test_limits_rates_and_lengths_are_refused_before_anything_is_sent() -> None:
    link = MessageLink(Box())
    with pytest.raises(OutOfRange):
        RigolDG(link, low_v=-6.0, high_v=6.0)
    assert not link.sent
    driver, _, link = made()
    before = len(link.sent)
    with pytest.raises(ConfigError, match="no such sample rate"):
        driver.prepare(1e8)
    with pytest.raises(ConfigError, match="does not fit"):
        driver.upload(np.zeros(LEAST - 1, np.int16))
    assert len(link.sent) == before


def test_a_hand_at_the_panel_is_seen() -> None:
    driver, box, _ = made()
    driver.prepare(1e7)
    driver.panel.settle()
    assert driver.panel.findings() == []
    box.press(":SOUR1:VOLT 2")
    box.press(":SOUR1:BURS:STAT OFF")
    assert [finding.said for finding in driver.panel.findings()] == ["amplitude 4 Vpp -> 2 Vpp", "burst on -> off"]


def test_another_generator_is_refused() -> None:
    box = Box()
    box._scpi._common["*IDN"] = type(box._scpi._common["*IDN"])("*IDN", get=lambda call: "Rigol Technologies,DG4102,1,2")
    with pytest.raises(WrongInstrument):
        RigolDG(MessageLink(box))
