"""The Siglent SDS driver against the simulated box: a binary descriptor, signed words in parts, no registers."""

from __future__ import annotations

import numpy as np
import pytest
from one_record import take
from scripted_link import MessageLink

from drivers.siglent_sds import SiglentSDS
from hil.errors import Changed, CommandRefused, InstrumentError, NotAReading, Saturated, WrongInstrument
from sim_devices.instruments import siglent_sds
from sim_devices.instruments.parameters import Number
from sim_devices.instruments.siglent_sds import SiglentSDS as Box


def made(**given: float) -> tuple[SiglentSDS, Box, MessageLink]:
    box = Box()
    link = MessageLink(box)
    return SiglentSDS(link, **{"range_v": 0.5, "offset_v": 0.18, **given}), box, link  # type: ignore[arg-type]


def test_volts_and_instants() -> None:
    driver, box, _ = made()
    driver.configure(20_000, 1e7, 3e-6)
    due = 0.18 + 0.2 * np.sin((3e-6 + np.arange(20_000) / 1e7) * 1e5)
    assert np.abs(take(driver, box) - due).max() < 0.5 / 2**12


def test_a_long_record_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siglent_sds, "MOST_READ", 9000)
    driver, box, link = made()
    driver.configure(20_000, 1e7, 0.0)
    before = len(link.sent)
    assert len(take(driver, box)) == 20_000
    assert [m for m in link.sent[before:] if m.startswith((b":WAV:STAR", b":WAV:POIN"))] == [
        b":WAV:STAR 0", b":WAV:POIN 9000", b":WAV:STAR 9000", b":WAV:POIN 9000", b":WAV:STAR 18000", b":WAV:POIN 2000",
    ]  # fmt: skip


def test_no_trigger_is_given_before_the_scope_is_ready() -> None:
    driver, box, link = made()
    driver.configure(1000, 1e7, 0.0)
    before = len(link.sent)
    driver.arm()
    assert link.sent[before:] == [b":TRIG:MODE SINGle", b":TRIG:STAT?", b":TRIG:STAT?"]  # Arm, Ready
    assert box.waiting


def test_registers_that_the_guide_does_not_have_are_not_asked_for() -> None:
    driver, box, link = made()
    driver.configure(1000, 1e7, 0.0)
    take(driver, box)
    driver.panel.settle()
    assert driver.panel.findings() == []
    driver.reset()
    driver.close()
    assert not [message for message in link.sent if message.startswith((b"*ESR", b"*CLS", b":SYST:ERR"))]


@pytest.mark.parametrize("amplitude_v", [2.0, -2.0])
def test_a_clipped_input_is_no_reading(amplitude_v: float) -> None:
    driver, box, _ = made()
    driver.configure(1000, 1e7, 0.0)
    with pytest.raises(Saturated):
        take(driver, box, amplitude_v)


def test_a_setting_that_is_not_taken_is_found() -> None:
    box = Box()
    box._channels[1]._parameters = {**box._channels[1]._parameters, "range": Number(1, 80, 8, "V", style=".6E")}
    driver = SiglentSDS(MessageLink(box), range_v=0.5)
    with pytest.raises(CommandRefused, match="CHAN1:SCAL"):
        driver.configure(1000, 1e7, 0.0)


def test_a_knob_that_is_turned_is_seen() -> None:
    driver, box, _ = made()
    driver.configure(1000, 1e7, 0.0)
    take(driver, box)
    box.press(":CHAN1:OFFS 0.1")
    driver._channels[0].until_verified = 0
    with pytest.raises(Changed):
        take(driver, box, 0.01)


def test_a_descriptor_that_says_nothing_is_no_reading() -> None:
    driver, _, _ = made()
    driver.configure(1000, 1e7, 0.0)
    with pytest.raises(NotAReading):
        driver._described(bytes(346).hex(), (1000, 1e7, 0.0), driver._channels[0])


def test_a_record_of_another_rate_is_refused() -> None:
    driver, box, _ = made()
    driver.configure(1000, 1e7, 0.0)
    box.press(":TIM:SCAL 2e-5")
    with pytest.raises(InstrumentError):
        take(driver, box)


def test_a_scope_of_the_older_dialect_is_refused() -> None:
    box = Box()
    box._scpi._common["*IDN"] = type(box._scpi._common["*IDN"])("*IDN", get=lambda call: "Siglent Technologies,SDS1204X-E,1,2")
    with pytest.raises(WrongInstrument):
        SiglentSDS(MessageLink(box))
