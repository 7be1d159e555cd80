"""The generator's driver: byte for byte against a transcript, and in volts against the simulated box."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripted_link import MessageLink, Transcript

from drivers.keysight_33600 import Keysight33600
from drivers.scpi import Scpi
from hil.errors import CommandRefused, ConfigError, ContractError, Disconnected, OutOfRange, UnsafeOutputs, WrongInstrument
from sim_devices.instruments.keysight_33600 import Keysight33600 as SimulatedGenerator

IDENTITY = "Keysight Technologies,33622A,MY1,A.02.03"
OPENING = (("*IDN?", IDENTITY), ("*RST;*CLS", None), ("*OPC?", "1"))


def scripted() -> tuple[Keysight33600, Transcript]:
    script = Transcript(*OPENING)
    return Keysight33600(Scpi(MessageLink(script)), low_v=-1.0, high_v=3.0), script


def simulated(**options: object) -> tuple[Keysight33600, SimulatedGenerator, MessageLink]:
    box = SimulatedGenerator()
    link = MessageLink(box)
    return Keysight33600(link, **options), box, link  # type: ignore[arg-type]


def test_upload_is_one_exchange_little_endian_and_checked() -> None:
    generator, script = scripted()
    codes = np.arange(-16, 16, dtype=np.int16) * 2000
    message = b":SOUR1:DATA:VOL:CLE;:SOUR1:DATA:ARB:DAC HIL,#264" + codes.astype("<i2").tobytes()
    script.expect((message, None), (":SOUR1:FUNC:ARB HIL;:SOUR1:FUNC ARB;:SYST:ERR?", '+0,"No error"'))
    generator.upload(codes)
    script.done()


def test_a_refused_upload_is_told_with_what_the_instrument_says() -> None:
    generator, script = scripted()
    block = b":SOUR1:DATA:VOL:CLE;:SOUR1:DATA:ARB:DAC HIL,#264" + bytes(64)
    script.expect(
        (block, None),
        (":SOUR1:FUNC:ARB HIL;:SOUR1:FUNC ARB;:SYST:ERR?", '+781,"Not enough memory"'),
        (":SYST:ERR?", '+785,"does not exist"'),
        (":SYST:ERR?", '+0,"No error"'),
    )
    with pytest.raises(CommandRefused, match=r"781.*785"):
        generator.upload(np.zeros(32, dtype=np.int16))
    script.done()


def test_trigger_and_output_are_as_few_messages_as_possible() -> None:
    generator, script = scripted()
    script.expect((":OUTP1 1;:OUTP1?", "1"), ("*TRG", None))
    generator.output(True)
    generator.output(True)
    generator.trigger()
    script.done()


def test_an_output_that_does_not_switch_is_refused() -> None:
    generator, script = scripted()
    script.expect((":OUTP1 1;:OUTP1?", "0"))
    with pytest.raises(CommandRefused, match="did not switch on"):
        generator.output(True)


def test_safe_reads_back_and_does_not_claim_what_it_cannot_see() -> None:
    generator, script = scripted()
    script.expect((":OUTP1 0;:OUTP1?", "0"))
    generator.safe()
    script.expect((":OUTP1 0;:OUTP1?", "1"))
    with pytest.raises(UnsafeOutputs, match="verified"):
        generator.safe()


def test_codes_become_volts_at_the_connector() -> None:
    """Through the simulated box: full range, offset, load, byte order, converter."""
    generator, box, _ = simulated(low_v=-1.0, high_v=3.0)
    volts = np.linspace(-1.0, 3.0, 1001, dtype=np.float32)
    generator.prepare(100e6)
    generator.upload(generator.encode(volts))
    generator.output(True)
    played = box.drive(1, 50.0)
    lsb = 4.0 / 2**14
    assert np.abs(played.record - volts).max() <= 1.01 * lsb
    assert played.sample_rate_hz == 100e6
    assert played.cycles == 1
    assert box.execute(b"OUTP:SYNC?;:OUTP:SYNC:SOUR?") == b"1;CH1"


@pytest.mark.parametrize(("load_ohm", "limit"), [(50.0, 5.0), (math.inf, 10.0), (200.0, 8.0)])
def test_limits_follow_the_load(load_ohm: float, limit: float) -> None:
    generator, box, _ = simulated(load_ohm=load_ohm)
    assert (generator.drive.low, generator.drive.high) == (pytest.approx(-limit), pytest.approx(limit))
    generator.prepare(1e6)
    generator.upload(generator.encode(np.full(32, 0.5 * limit, dtype=np.float32)))
    assert box.drive(1, load_ohm).record == pytest.approx(0.5 * limit, abs=2e-3 * limit)


def test_limits_may_be_narrowed_never_widened() -> None:
    with pytest.raises(OutOfRange, match="never widened"):
        simulated(low_v=-6.0, high_v=1.0)
    with pytest.raises(OutOfRange, match="smallest amplitude"):
        simulated(low_v=0.0, high_v=1e-5)


@pytest.mark.parametrize("bits", [None, 12, 8])
def test_codes_are_symmetric_rounded_and_never_overflow(bits: int | None) -> None:
    generator, _, _ = simulated(low_v=-2.0, high_v=2.0, dac_bits=bits)
    volts = np.linspace(-2.0, 2.0, 4001, dtype=np.float32)
    codes = generator.encode(volts)
    step = 1 if bits is None else 1 << (16 - bits)
    assert codes.dtype == np.int16
    assert (codes == -codes[::-1]).all()
    assert (codes % step == 0).all()
    assert (np.diff(codes.astype(int)) >= 0).all()
    error = np.abs(codes / 32767 * 2.0 - volts)
    assert error.max() <= 2.0 * step / 32767
    assert error[100:-100].max() <= 1.0 * step / 32767 + 1e-6


def test_prepare_sends_nothing_twice_and_everything_after_a_fault() -> None:
    generator, box, link = simulated()
    generator.prepare(50e6)
    before = link.sent_bytes
    generator.prepare(50e6)
    assert link.sent_bytes == before
    assert generator.settings()["sample_rate_hz"] == 50e6
    box.reboot()
    generator.clear()
    assert generator.identify().endswith("was switched off and on since")
    assert generator.settings() == {}
    generator.prepare(50e6)
    assert link.sent_bytes > before
    assert box.drive(1).sample_rate_hz == 50e6


def test_the_output_is_off_after_opening_and_after_prepare() -> None:
    generator, box, _ = simulated()
    generator.prepare(50e6)
    generator.output(True)
    assert box.drive(1).on
    generator.prepare(25e6)
    assert not box.drive(1).on


@pytest.mark.parametrize("rate_hz", [251e6, 0.0, float("nan")])
def test_a_rate_that_the_model_does_not_have_sends_nothing(rate_hz: float) -> None:
    generator, _, link = simulated()
    before = link.sent_bytes
    with pytest.raises(ConfigError, match="no such sample rate"):
        generator.prepare(rate_hz)
    assert link.sent_bytes == before


@pytest.mark.parametrize("samples", [31, 4_194_305])
def test_a_record_that_does_not_fit_sends_nothing(samples: int) -> None:
    generator, _, link = simulated()
    before = link.sent_bytes
    with pytest.raises(ConfigError, match="does not fit"):
        generator.upload(np.zeros(samples, dtype=np.int16))
    assert link.sent_bytes == before


def test_another_instrument_is_refused_and_not_touched() -> None:
    script = Transcript(("*IDN?", "KEITHLEY INSTRUMENTS,MODEL 2450,1,1.0"))
    link = MessageLink(script)
    with pytest.raises(WrongInstrument, match="2450"):
        Keysight33600(link)
    assert link.closed == 1


def test_close_switches_off_once() -> None:
    generator, box, link = simulated()
    generator.prepare(1e6)
    generator.output(True)
    generator.close()
    generator.close()
    assert (box.drive(1).on, link.closed) == (False, 1)


def test_close_of_a_dead_link_is_unsafe_and_closes_it_all_the_same() -> None:
    generator, _, link = simulated()
    link.gone = True
    with pytest.raises(Disconnected):
        generator.upload(np.zeros(32, dtype=np.int16))
    with pytest.raises(UnsafeOutputs) as caught:
        generator.close()
    assert "switch the outputs off at the instrument" in str(caught.value)
    assert link.closed == 1


def test_safe_gets_through_a_dirty_session() -> None:
    generator, box, link = simulated()
    generator.prepare(1e6)
    generator.output(True)
    link.distrust("a late answer")
    generator.safe()
    assert not box.drive(1).on


def test_a_generator_that_is_closing_cannot_be_switched_on() -> None:
    """A shot may still run on its worker while a second Ctrl-C closes the device."""
    generator, box, _ = simulated()
    generator.prepare(1e6)
    generator.close()
    with pytest.raises(ContractError, match="closed"):
        generator.output(True)
    assert not box.drive(1).on


class Interrupting:
    """A box in front of which somebody presses Ctrl-C when it is told to switch off, `times` times."""

    def __init__(self, box: SimulatedGenerator, times: int) -> None:
        self.box, self.times = box, times

    def execute(self, message: bytes) -> bytes | None:
        if message.startswith(b":OUTP1 0;:OUTP1?") and self.times:
            self.times -= 1
            raise KeyboardInterrupt
        return self.box.execute(message)


@pytest.mark.parametrize(("times", "error", "on"), [(1, KeyboardInterrupt, False), (2, UnsafeOutputs, True)])
def test_ctrl_c_while_switching_off_still_switches_off_or_says_so(times: int, error: type[BaseException], on: bool) -> None:
    box = SimulatedGenerator()
    generator = Keysight33600(MessageLink(Interrupting(box, 0)))
    generator.prepare(1e6)
    generator.output(True)
    generator._scpi.link._box.times = times  # type: ignore[attr-defined]
    with pytest.raises(error):
        generator.close()
    assert box.drive(1).on is on


@pytest.mark.parametrize(
    "wrong", [{"low_v": -6.0}, {"low_v": 0.0, "high_v": 1e-5}, {"dac_bits": 1}, {"load_ohm": 1e6}, {"load_ohm": 0.5}]
)
def test_refused_settings_close_the_link_and_send_nothing(wrong: dict[str, float]) -> None:
    link = MessageLink(Transcript())
    with pytest.raises((OutOfRange, ConfigError)):
        Keysight33600(link, **wrong)  # type: ignore[arg-type]
    assert link.closed == 1


class IgnoresLoad:
    """A box whose load somebody sets back at the front panel: volts would be wrong by the ratio of the dividers."""

    def __init__(self, box: SimulatedGenerator) -> None:
        self.box = box

    def execute(self, message: bytes) -> bytes | None:
        reply = self.box.execute(message)
        if b":OUTP1:LOAD " in message:
            self.box.execute(b":OUTP1:LOAD 60;:SOUR1:VOLT:LIM:STAT 0;:SOUR1:VOLT 2;:SOUR1:VOLT:OFFS 0")
        return reply


@pytest.mark.parametrize("load_ohm", [200.0, math.inf])
def test_a_load_that_was_not_taken_is_refused_and_leaves_the_output_off(load_ohm: float) -> None:
    box = SimulatedGenerator()
    generator = Keysight33600(MessageLink(IgnoresLoad(box)), load_ohm=load_ohm, low_v=-1.0, high_v=1.0)
    with pytest.raises(CommandRefused, match="LOAD"):
        generator.prepare(1e6)
    assert not box.drive(1).on
