"""The Siglent SDG driver against the simulated box: no error queue, everything is read back, records without a length."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
from scripted_link import MessageLink

from drivers.scpi_apart import Fields
from drivers.siglent_sdg import PERIOD, SiglentSDG
from hil.errors import CommandRefused, ConfigError, Desync, OutOfRange, SwitchedOff, WrongInstrument
from sim_devices.instruments.siglent_sdg import SiglentSDG as Box


def made(box: Box | None = None, **given: float) -> tuple[SiglentSDG, Box, MessageLink]:
    box = box or Box()
    link = MessageLink(box)
    return SiglentSDG(link, **{"low_v": -4.0, "high_v": 4.0, **given}), box, link  # type: ignore[arg-type]


def asked(box: Box, question: str) -> str:
    return (box.execute(question.encode()) or b"").decode()


@pytest.mark.parametrize("model", ["SDG2042X", "SDG1032X"])
def test_a_record_is_played_once_at_its_rate(model: str) -> None:
    driver, box, _ = made(Box(model=model))
    driver.prepare(1e6)
    codes = driver.encode(np.linspace(-4, 4, driver.memory.least if model == "SDG1032X" else 1000, dtype=np.float32))
    driver.upload(codes)
    driver.output(True)
    drive = box.drive(1)
    assert (drive.on, drive.cycles, drive.sample_rate_hz) == (True, 1.0, pytest.approx(1e6))
    assert np.abs(drive.record - np.linspace(-4, 4, len(codes))).max() < 8 / 2**13
    assert box.sync(1)
    assert not box.sync(2)
    driver.close()
    assert not box.on(1)


def test_samples_that_are_newlines_come_through() -> None:
    driver, box, _ = made()
    driver.prepare(1e6)
    codes = np.frombuffer(b"\n" * 4000, "<i2").astype(np.int16)
    driver.upload(codes)
    assert np.array_equal(box._memory[1]["HIL"], codes)


def test_a_record_that_is_dropped_without_a_word_is_found() -> None:
    driver, box, _ = made()
    driver.prepare(1e6)
    driver.upload(np.full(100, 5, np.int16))
    box._store = lambda number, rest: None  # type: ignore[method-assign]
    with pytest.raises(CommandRefused, match="did not take the record"):
        driver.upload(np.full(100, 7, np.int16))


def test_a_setting_that_is_clamped_without_a_word_is_found() -> None:
    driver, box, _ = made()
    box.data = type(box.data)(1e5, 1e5, 16, 8_388_608, 2, 40e6)
    with pytest.raises(CommandRefused, match="SRATE:VALUE") as refused:
        driver.prepare(1e6)
    assert "100000 Sa/s" in refused.value.got


def test_levels_out_of_the_load_are_refused_before_anything_is_sent() -> None:
    link = MessageLink(Box())
    with pytest.raises(OutOfRange):
        SiglentSDG(link, low_v=-6.0, high_v=6.0)
    with pytest.raises(ConfigError, match="no such load"):
        SiglentSDG(link, load_ohm=10.0)
    assert not link.sent
    driver = SiglentSDG(link, load_ohm=math.inf, low_v=-10.0, high_v=10.0)
    driver.prepare(1e6)
    assert driver.drive.shared_high == 10.0


def test_a_raw_socket_is_refused_before_anything_is_sent() -> None:
    link = MessageLink(Box())
    link.name = "TCPIP::10.0.0.1::5025::SOCKET"
    with pytest.raises(ConfigError, match="raw socket"):
        SiglentSDG(link)
    assert not link.sent


def test_a_record_of_another_length_is_refused_by_the_smaller_model() -> None:
    driver, _, link = made(Box(model="SDG1032X"))
    driver.prepare(1e6)
    before = len(link.sent)
    with pytest.raises(ConfigError, match="does not fit"):
        driver.upload(np.zeros(PERIOD - 1, np.int16))
    assert len(link.sent) == before


def test_another_instrument_is_refused() -> None:
    box = Box()
    box._scpi._common["*IDN"] = type(box._scpi._common["*IDN"])("*IDN", get=lambda call: "Siglent Technologies,SDG7032A,1,2")
    with pytest.raises(WrongInstrument):
        SiglentSDG(MessageLink(box))


def test_a_hand_at_the_panel_is_seen() -> None:
    driver, box, _ = made()
    driver.prepare(1e6)
    driver.upload(np.zeros(100, np.int16))
    driver.output(True)
    driver.panel.settle()
    assert driver.panel.findings() == []
    box.press("C1:BSWV AMP,2")
    box.press("C1:BTWV TRSR,INT")
    said = [finding.said for finding in driver.panel.findings()]
    assert said == ["amplitude 8 Vpp -> 2 Vpp", "trigger source MAN -> INT"]
    box.press("C1:OUTP LOAD,HZ")
    box.press("C1:BSWV AMP,20")
    assert any("may reach" in finding.beyond for finding in driver.panel.findings())
    box.press("C1:OUTP OFF")
    with pytest.raises(SwitchedOff):
        driver.reset()


def test_the_ramp_goes_down_in_the_same_words() -> None:
    driver, box, link = made(slew_v_per_s=1000.0)
    driver.prepare(1e6)
    driver.upload(np.zeros(100, np.int16))
    driver.output(True)
    before = len(link.sent)
    driver.safe()
    said = [message for message in link.sent[before:] if message.startswith(b"C1:BSWV AMP,")]
    assert said
    assert not box.on(1)
    assert float(said[-1].rpartition(b",")[2]) == pytest.approx(2e-3)


def test_fields_are_read_by_their_names() -> None:
    class Answers:
        replies: ClassVar[dict[bytes, bytes]] = {
            b"C1:OUTP?": b"C1:OUTP ON,LOAD,HZ,PLRT,NOR",
            b"C1:BTWV?": b"C1:BTWV STATE,ON,TRSR,MAN,TIME,1,CARR,WVTP,ARB,TIME,9",
            b"C2:BTWV?": b"C2:BTWV STATE,OFF",
            b"C1:BSWV?": b"C2:BSWV WVTP,SINE",
        }

        def execute(self, message: bytes) -> bytes | None:
            return self.replies.get(message)

    scpi = Fields(MessageLink(Answers()))
    assert scpi.ask("C1:OUTP?;C1:OUTP:LOAD?;C1:BTWV:TIME?;C2:BTWV:TIME?;*ESR?") == "ON;9.9E37;1;no answer;0"
    with pytest.raises(Desync):
        scpi.ask("C1:BSWV:WVTP?")
