"""The scope's driver, byte for byte against a transcript: what it sends, what it believes, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_link import MessageLink, Transcript

from drivers.keysight_infiniivision import VERIFY_EVERY, InfiniiVision
from hil.errors import (
    CommandRefused,
    ConfigError,
    ContractError,
    HilError,
    InstrumentError,
    MissedTrigger,
    NotAReading,
    Saturated,
    WrongInstrument,
)

OPENING = (("*IDN?", "KEYSIGHT TECHNOLOGIES,DSO-X 3024T,MY1,07.50"), ("*RST;*CLS", None), ("*OPC?", "1"))
NO_ERROR = (":SYST:ERR?", '+0,"No error"')
ONCE = (
    ("*CLS;:STOP", None),
    ("*OPC?", "1"),
    (":CHAN1:DISP 0", None),
    ("*OPC?", "1"),
    (":CHAN2:DISP 1;:CHAN2:COUP DC;:CHAN2:IMP FIFT;:CHAN2:PROB 1;:CHAN2:RANG 0.8;:CHAN2:OFFS 0.1", None),
    ("*OPC?", "1"),
    (":TRIG:MODE EDGE;:TRIG:EDGE:SOUR EXT;:TRIG:EDGE:LEV 0.5;:TRIG:EDGE:SLOP POS;:TRIG:SWE NORM;:ACQ:TYPE NORM", None),
    ("*OPC?", "1"),
    (":WAV:SOUR CHAN2;:WAV:FORM WORD;:WAV:BYT LSBF;:WAV:UNS 1;:WAV:POIN:MODE RAW", None),
    ("*OPC?", "1"),
    (":WAV:BYT?;:WAV:UNS?", "LSBF;1"),
)
TIME = (
    (":TIM:MODE MAIN;:TIM:REF CENT;:TIM:RANG 4e-08;:TIM:POS 1.2e-07;:WAV:POIN 4", None),
    ("*OPC?", "1"),
    NO_ERROR,
)
PREAMBLE = "+1,+0,+4,+1,+1.00000000E-08,+1.00000000E-07,+0,+1.22070312E-05,+1.00000000E-01,+32768"


class Clock:
    """Goes on by 0.3 s at each look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.3
        return self.now_s


def opened(*exchanges: tuple[str, str | bytes | None]) -> tuple[InfiniiVision, Transcript]:
    """A scope that is configured for four samples, then the exchanges."""
    script = Transcript(*OPENING)
    scope = InfiniiVision(MessageLink(script), channel=2, range_v=0.8, offset_v=0.1, input_ohm=50, clock=Clock())
    script.expect(*ONCE, *TIME)
    scope.configure(4, 100e6, 100e-9)
    script.expect(*exchanges)
    return scope, script


def block(*words: int) -> bytes:
    return b"#8%08d" % (2 * len(words)) + np.array(words, dtype="<u2").tobytes()


def test_what_is_set_already_is_not_sent_again() -> None:
    scope, script = opened()
    scope.configure(4, 100e6, 100e-9)
    script.expect((":TIM:MODE MAIN;:TIM:REF CENT;:TIM:RANG 8e-08;:TIM:POS 1.4e-07;:WAV:POIN 8", None), ("*OPC?", "1"), NO_ERROR)
    scope.configure(8, 100e6, 100e-9)
    script.done()


def test_after_a_fault_everything_is_sent_again() -> None:
    scope, script = opened()
    scope.forget()
    script.expect(*ONCE, *TIME)
    scope.configure(4, 100e6, 100e-9)
    script.done()


def test_a_shot_is_three_exchanges_and_the_preamble_is_read_once() -> None:
    shot = ((":SING;:AER?", "+1"), (":OPER:COND?", "+0"))
    scope, script = opened(*shot, (":WAV:PRE?", PREAMBLE), (":WAV:DATA?", block(1000, 2000, 32768, 60000)))
    scope.arm()
    scope.wait(1.0)
    record = scope.read()
    assert record.words.tolist() == [1000, 2000, 32768, 60000]
    volts = (np.array([1000, 2000, 32768, 60000]) - 32768) * 1.22070312e-05 + 0.1
    np.testing.assert_allclose(record.volts(), volts, atol=1e-6)
    assert (record.axis.start_s, record.axis.step_s) == (1e-7, 1e-8)
    script.expect(*shot, (":WAV:DATA?", block(5, 6, 7, 8)))
    scope.arm()
    scope.wait(1.0)
    assert scope.read().words.tolist() == [5, 6, 7, 8]
    script.done()


def test_a_knob_that_was_turned_is_noticed() -> None:
    data = (":WAV:DATA?", block(5, 6, 7, 8))
    scope, script = opened((":WAV:PRE?", PREAMBLE), *[data] * VERIFY_EVERY, (":WAV:PRE?", PREAMBLE), data)
    for _ in range(VERIFY_EVERY + 1):
        scope.read()
    script.expect(*[data] * (VERIFY_EVERY - 1), (":WAV:PRE?", PREAMBLE.replace("1.22070312E-05", "2.44140625E-05")))
    for _ in range(VERIFY_EVERY - 1):
        scope.read()
    with pytest.raises(InstrumentError, match="changed during the measurement"):
        scope.read()


def test_arming_waits_until_the_scope_is_ready() -> None:
    scope, script = opened((":SING;:AER?", "+0"), (":AER?", "+0"), (":AER?", "+1"))
    scope.arm()
    script.done()
    script.expect((":SING;:AER?", "+0"), *[(":AER?", "+0")] * 4)
    with pytest.raises(InstrumentError, match="did not arm"):
        scope.arm()


def test_a_missing_trigger_ends_at_the_deadline_and_stops_the_scope() -> None:
    scope, script = opened(*[(":OPER:COND?", "+40")] * 4, (":STOP", None), ("*OPC?", "1"))
    with pytest.raises(MissedTrigger, match="no trigger"):
        scope.wait(1.0)
    script.done()


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ((100, 0, 200, 0), NotAReading, "2 of 4 samples not acquired"),
        ((100, 1, 200, 300), Saturated, "1 of 4 samples clipped"),
        ((100, 65535, 65535, 1), Saturated, "-0.3 to 0.5 V"),
    ],
)
def test_words_that_are_no_readings(words: tuple[int, ...], error: type[HilError], says: str) -> None:
    scope, _ = opened((":WAV:PRE?", PREAMBLE), (":WAV:DATA?", block(*words)))
    with pytest.raises(error, match=says):
        scope.read()


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("+1.22070312E-05", "+9.9E+37", NotAReading),
        ("+1.22070312E-05", "-9.90000000E+37", NotAReading),
        ("+1.00000000E-08", "NAN", NotAReading),
        ("+1,+0,+4", "+0,+0,+4", InstrumentError),  # BYTE
        ("+4,+1,+1.0", "+2,+1,+1.0", InstrumentError),  # too short
        ("+1.00000000E-08", "+2.00000000E-08", InstrumentError),  # too coarse
        ("+1.00000000E-07", "+2.00000000E-07", InstrumentError),  # too late
        ("+0,+1.2", "+1.2", InstrumentError),  # a field is missing
        ("+32768", "volts", InstrumentError),
    ],
)
def test_preambles_that_do_not_describe_the_record(old: str, new: str, error: type[HilError]) -> None:
    assert old in PREAMBLE
    scope, _ = opened((":WAV:PRE?", PREAMBLE.replace(old, new)))
    with pytest.raises(error):
        scope.read()


def test_a_scope_that_samples_faster_than_asked_is_read_whole() -> None:
    finer = PREAMBLE.replace("+4,+1,", "+8,+1,").replace("+1.00000000E-08", "+5.00000000E-09")
    scope, _ = opened((":WAV:PRE?", finer), (":WAV:DATA?", block(*range(10, 18))))
    record = scope.read()
    assert (len(record.words), record.axis.step_s) == (8, 5e-9)


def test_a_block_of_another_length_is_no_record() -> None:
    scope, _ = opened((":WAV:PRE?", PREAMBLE), (":WAV:DATA?", block(5, 6, 7)))
    with pytest.raises(HilError, match="number of items"):
        scope.read()


@pytest.mark.parametrize(("samples", "rate_hz"), [(5_000_000, 1e6), (100, 6e9), (100, float("nan"))])
def test_what_the_model_cannot_record_sends_nothing(samples: int, rate_hz: float) -> None:
    scope, script = opened()
    with pytest.raises(ConfigError, match="cannot record"):
        scope.configure(samples, rate_hz, 0.0)
    script.done()


def test_complaints_about_settings_are_raised() -> None:
    script = Transcript(*OPENING)
    scope = InfiniiVision(MessageLink(script), channel=2, range_v=0.8, offset_v=0.1, input_ohm=50)
    script.expect(*ONCE, *TIME[:2], (":SYST:ERR?", '-222,"Data out of range"'), NO_ERROR)
    with pytest.raises(CommandRefused, match="-222"):
        scope.configure(4, 100e6, 100e-9)


def test_multiples_of_a_rate_divide_the_clock() -> None:
    scope, _ = opened()
    assert [scope.finer(100e6, most) for most in (1, 8, 10)] == [1, 5, 10]
    assert scope.finer(3e9, 4) == 1


def test_a_generator_at_the_address_is_refused() -> None:
    link = MessageLink(Transcript(("*IDN?", "Keysight Technologies,33622A,MY1,A.02.03")))
    with pytest.raises(WrongInstrument, match="33622A"):
        InfiniiVision(link)
    assert link.closed == 1


def test_close_stops_once_and_a_dead_scope_is_no_danger() -> None:
    script = Transcript(*OPENING)
    link = MessageLink(script)
    scope = InfiniiVision(link)
    link.gone = True
    scope.close()
    scope.close()
    assert link.closed == 1


@pytest.mark.parametrize("wrong", [{"input_ohm": 75.0}, {"range_v": float("nan")}, {"range_v": -1.0}])
def test_refused_settings_close_the_link_and_send_nothing(wrong: dict[str, float]) -> None:
    link = MessageLink(Transcript())
    with pytest.raises((ConfigError, ContractError)):
        InfiniiVision(link, **wrong)  # type: ignore[arg-type]
    assert link.closed == 1
