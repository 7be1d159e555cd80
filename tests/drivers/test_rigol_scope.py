"""The Rigol scope driver against the simulated box: windows, its own formula, a status that lags, depths while it runs."""

from __future__ import annotations

import numpy as np
import pytest
from one_record import take
from scripted_link import MessageLink

from drivers.rigol_scope import RigolScope
from hil.errors import Changed, ConfigError, InstrumentError, MissedTrigger, Saturated, WrongInstrument
from sim_devices.instruments.rigol_scope import RigolScope as Box

MODELS = [("DS1104Z", 4), ("DS1202Z-E", 0), ("DHO804", 3), ("DHO802", 0)]


def made(model: str = "DS1202Z-E", edge: int = 0, **given: float) -> tuple[RigolScope, Box, MessageLink]:
    box = Box(model=model, trigger_channel=edge)
    link = MessageLink(box)
    driver = RigolScope(link, trigger_channel=edge, **{"range_v": 0.5, "offset_v": 0.18, **given})  # type: ignore[arg-type]
    return driver, box, link


@pytest.mark.parametrize(("model", "edge"), MODELS)
def test_volts_and_instants(model: str, edge: int) -> None:
    driver, box, _ = made(model, edge)
    driver.configure(20_000, 1e7, 1e-6)
    volts = take(driver, box)
    assert len(volts) == 20_000
    due = 0.18 + 0.2 * np.sin((1e-6 + np.arange(20_000) / 1e7) * 1e5)
    assert np.abs(volts - due).max() < 0.5 * 0.5 / 8 / 25 * 1.01  # half a step of 8 bits


def test_a_long_record_comes_in_windows() -> None:
    driver, box, link = made("DS1202Z-E")
    driver.configure(600_000, 1e7, 0.0)
    before = len(link.sent)
    assert len(take(driver, box)) == 600_000
    assert [m for m in link.sent[before:] if m.startswith(b":WAV:ST")] == [
        b":WAV:STAR 1", b":WAV:STOP 250000", b":WAV:STAR 250001", b":WAV:STOP 500000", b":WAV:STAR 500001", b":WAV:STOP 600000",
    ]  # fmt: skip


def test_arming_is_not_deceived_by_the_status_of_before() -> None:
    driver, box, link = made()
    driver.configure(1000, 1e7, 0.0)
    take(driver, box)
    before = len(link.sent)
    driver.arm()
    assert link.sent[before:] == [b":SING", b":TRIG:STAT?", b":TRIG:STAT?"]
    assert box.waiting


def test_a_scope_that_does_not_get_ready() -> None:
    driver, box, _ = made()
    driver.configure(1000, 1e7, 0.0)
    driver._clock = iter(range(100)).__next__  # type: ignore[assignment]
    box._state = lambda: "STOP"  # type: ignore[method-assign]
    with pytest.raises(InstrumentError, match="did not arm"):
        driver.arm()


def test_a_missing_trigger_names_the_input() -> None:
    driver, _, _ = made("DS1104Z", 4)
    driver.configure(1000, 1e7, 0.0)
    driver.arm()
    driver._clock = iter(range(100)).__next__  # type: ignore[assignment]
    with pytest.raises(MissedTrigger, match="no trigger") as missed:
        driver.wait(1.0)
    assert "channel 4" in missed.value.allowed


@pytest.mark.parametrize(("model", "edge"), MODELS)
def test_a_clipped_input_is_no_reading(model: str, edge: int) -> None:
    driver, box, _ = made(model, edge)
    driver.configure(1000, 1e7, 0.0)
    with pytest.raises(Saturated):
        take(driver, box, amplitude_v=2.0)


@pytest.mark.parametrize(("model", "edge"), [("DS1104Z", 0), ("DHO804", 0), ("DS1104Z", 1), ("DS1202Z-E", 5)])
def test_a_trigger_input_that_is_not_there_is_refused(model: str, edge: int) -> None:
    link = MessageLink(Box(model=model))
    with pytest.raises(ConfigError, match="no such trigger input"):
        RigolScope(link, trigger_channel=edge)
    assert link.sent == [b"*IDN?"]


def test_the_trigger_channel_counts_as_one_that_is_on() -> None:
    assert made("DS1104Z", 4)[0].highest_rate_hz == 500e6
    assert made("DS1202Z-E", 0)[0].highest_rate_hz == 1e9
    driver, box, _ = made("DS1104Z", 4)
    driver.configure(1000, 1e7, 0.0)
    assert box.window().points in (6_000, 60_000)


def test_a_rate_that_no_time_base_has_is_refused() -> None:
    driver, _, _ = made()
    with pytest.raises(ConfigError, match="no time base"):
        driver.configure(1000, 3.1e6, 0.0)


def test_a_knob_that_is_turned_is_seen_in_the_record_and_at_the_panel() -> None:
    driver, box, _ = made()
    driver.configure(1000, 1e7, 0.0)
    take(driver, box)
    driver.panel.settle()
    assert driver.panel.findings() == []
    box.press(":CHAN1:SCAL 0.1")
    assert [finding.said for finding in driver.panel.findings()] == ["scale 0.0625 V -> 0.1 V"]
    driver._channels[0].until_verified = 0
    with pytest.raises(Changed):
        take(driver, box)


def test_a_locked_panel_does_nothing() -> None:
    driver, box, _ = made()
    assert driver.panel.lock_out() == ""
    with pytest.raises(Exception, match="locked"):
        box.press(":CHAN1:SCAL 0.1")
    driver.close()
    box.press(":CHAN1:SCAL 0.1")


def test_another_scope_is_refused() -> None:
    box = Box()
    box._scpi._common["*IDN"] = type(box._scpi._common["*IDN"])("*IDN", get=lambda call: "RIGOL TECHNOLOGIES,MSO5104,1,2")
    with pytest.raises(WrongInstrument):
        RigolScope(MessageLink(box))
