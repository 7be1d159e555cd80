"""The simulated scope: records, scaling, codes with a meaning, arming and waiting."""

from __future__ import annotations

import json
import math
import threading
import time

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hil.errors import ConfigError, ContractError
from sim_devices.instruments.keysight_infiniivision import InfiniiVision
from sim_devices.instruments.sampling import Window, sampling

FAST = ":TIM:RANG 1e-6;:WAV:POIN:MODE RAW;:WAV:FORM WORD;:TRIG:SWE NORM;:TRIG:EDGE:SOUR EXT"


def ask(scope: InfiniiVision, message: str) -> str:
    answer = scope.execute(message.encode())
    return "" if answer is None else answer.decode("latin-1")


def errors(scope: InfiniiVision) -> list[int]:
    found = []
    while (text := ask(scope, "SYST:ERR?")) != '+0,"No error"':
        found.append(int(text.split(",")[0]))
    return found


def raw(scope: InfiniiVision, dtype: str) -> NDArray[np.generic]:
    answer = scope.execute(b":WAV:DATA?")
    assert answer is not None
    assert answer[:2] == b"#8"
    assert int(answer[2:10]) == len(answer) - 10
    return np.frombuffer(answer[10:], dtype)


def volts(scope: InfiniiVision, dtype: str) -> NDArray[np.float64]:
    scale, origin, reference = (float(f) for f in ask(scope, ":WAV:PRE?").split(",")[7:])
    return (raw(scope, dtype).astype(float) - reference) * scale + origin


def taken(signal: NDArray[np.floating], setup: str = "", **settings: int) -> InfiniiVision:
    """A scope that has recorded `signal` on channel 1: 4 V range around 0.5 V."""
    scope = InfiniiVision(**settings)
    ask(scope, FAST)
    ask(scope, ":CHAN1:RANG 4;OFFS 0.5")
    if setup:
        ask(scope, setup)
    ask(scope, ":SING")
    scope.capture(Window(-1e-7, 1e9, len(signal)), {1: torch.tensor(signal, dtype=torch.float32)})
    assert errors(scope) == []
    return scope


SLOPE = np.linspace(-1.4, 2.4, 1000)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize(("order", "dtype"), [("LSBF", "<"), ("MSBF", ">")])
@pytest.mark.parametrize(("unsigned", "kind"), [(1, "u2"), (0, "i2")])
def test_words_scale_back_to_volts(bits: int, order: str, dtype: str, unsigned: int, kind: str) -> None:
    scope = taken(SLOPE, f":WAV:BYT {order};UNS {unsigned}", adc_bits=bits)
    step = 4 / 2**bits
    assert np.abs(volts(scope, dtype + kind) - SLOPE).max() <= step / 2 * 1.001
    assert not np.any(raw(scope, dtype + kind).astype(int) & ((1 << (16 - bits)) - 1)), "left-justified"


def test_bytes_scale_back_to_volts_and_are_the_default() -> None:
    assert ask(InfiniiVision(), ":WAV:FORM?;BYT?;UNS?;POIN:MODE?") == "BYTE;MSBF;1;NORM"
    for unsigned, dtype in ((1, "u1"), (0, "i1")):
        scope = taken(SLOPE, f":WAV:FORM BYTE;UNS {unsigned}", adc_bits=8)
        assert np.abs(volts(scope, dtype) - SLOPE).max() <= 4 / 256 / 2 * 1.001


def test_ascii() -> None:
    scope = taken(SLOPE, ":WAV:FORM ASC", adc_bits=12)
    answer = ask(scope, ":WAV:DATA?")
    assert np.abs(np.array(answer[10:].split(","), float) - SLOPE).max() <= 4 / 4096


@pytest.mark.parametrize("bits", [8, 12])
def test_clipping_and_holes_have_their_own_codes(bits: int) -> None:
    signal = np.array([-1.6, 2.6, math.nan, -math.inf, math.inf, 0.5, *[0.0] * 94])
    words = raw(taken(signal, ":WAV:BYT LSBF", adc_bits=bits), "<u2")
    assert list(words[:6]) == [1, 65535, 0, 1, 65535, 32768]
    octets = raw(taken(signal, ":WAV:FORM BYTE", adc_bits=bits), "u1")
    assert list(octets[:6]) == [1, 255, 0, 1, 255, 128]


def test_nothing_inside_the_range_looks_like_a_clipped_or_a_missing_sample() -> None:
    words = raw(taken(np.linspace(-1.498, 2.497, 5000), ":WAV:BYT LSBF", adc_bits=12), "<u2")
    assert words.min() > 1
    assert words.max() < 65535


def test_preamble_and_its_parts() -> None:
    scope = taken(SLOPE, adc_bits=10)
    form, kind, points, count, step, start, xref, scale, origin, yref = (float(f) for f in ask(scope, ":WAV:PRE?").split(","))
    assert (form, kind, points, count) == (1, 0, 1000, 1)
    assert (step, start, xref) == pytest.approx((1e-9, -1e-7, 0))
    assert (scale, origin, yref) == pytest.approx((4 / 65536, 0.5, 32768))
    assert float(ask(scope, ":WAV:XINC?")) == pytest.approx(1e-9)
    assert ask(scope, ":WAV:COUN?;YREF?;POIN?") == "+1;+32768;+1000"


def test_fewer_points_are_every_nth() -> None:
    scope = taken(SLOPE, ":WAV:BYT LSBF")
    full = raw(scope, "<u2")
    ask(scope, ":WAV:POIN 250")
    np.testing.assert_array_equal(raw(scope, "<u2"), full[::4])
    assert float(ask(scope, ":WAV:XINC?")) == pytest.approx(4e-9)
    ask(scope, ":WAV:POIN 300")
    assert len(raw(scope, "<u2")) == 250
    ask(scope, ":WAV:POIN MAX")
    assert len(raw(scope, "<u2")) == 1000


def test_a_later_change_of_range_does_not_rescale_the_record() -> None:
    scope = taken(SLOPE, ":WAV:BYT LSBF", adc_bits=12)
    ask(scope, ":CHAN1:RANG 8;OFFS 0")
    assert np.abs(volts(scope, "<u2") - SLOPE).max() < 1e-3


def test_average_takes_count_triggers_and_high_resolution_has_twelve_bits() -> None:
    scope = InfiniiVision(adc_bits=8)
    ask(scope, FAST + ";:CHAN1:RANG 4;:ACQ:TYPE AVER;COUN 4;:WAV:BYT LSBF;:DIG CHAN1")
    window = Window(0, 1e9, 100)
    for k in range(4):
        assert ask(scope, ":OPER:COND?") != "+0"
        scope.capture(window, {1: torch.full((100,), 0.1 * k)})
    assert ask(scope, "*OPC?;:OPER:COND?;:WAV:PRE?").split(",")[1:4] == ["+2", "+100", "+4"]
    np.testing.assert_allclose(volts(scope, "<u2"), 0.15, atol=4 / 256 / 2)
    fine = taken(SLOPE, ":ACQ:TYPE HRES;:WAV:BYT LSBF", adc_bits=8)
    assert np.abs(volts(fine, "<u2") - SLOPE).max() <= 4 / 4096


def test_coupling_and_inversion() -> None:
    offset = taken(SLOPE + 0.1, ":CHAN1:OFFS 0;COUP AC;INV 1;:WAV:BYT LSBF", adc_bits=12)
    np.testing.assert_allclose(volts(offset, "<u2"), -(SLOPE - SLOPE.mean()), atol=1e-3)


def test_displayed_channels_are_recorded_and_an_open_input_reads_zero() -> None:
    scope = taken(SLOPE, ":CHAN3:DISP 1;RANG 1;:WAV:BYT LSBF")
    ask(scope, ":WAV:SOUR CHAN3")
    assert set(raw(scope, "<u2")) == {32768}
    ask(scope, ":WAV:SOUR CHAN2")
    assert scope.execute(b":WAV:DATA?") is None
    assert errors(scope) == [-230]


# -- arming ---------------------------------------------------------------------------------------------------------------


def test_digitize_waits_for_the_trigger() -> None:
    scope = InfiniiVision()
    ask(scope, FAST)
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(ask(scope, ":DIG CHAN1;*OPC?")), daemon=True)
    thread.start()
    time.sleep(0.05)
    assert answers == []
    assert ask(scope, ":OPER:COND?;:AER?;:AER?;:TER?;:RSTate?") == "+40;+1;+0;+0;RUN"
    scope.capture(scope.window(), {})
    thread.join(5)
    assert answers == ["1"]
    assert ask(scope, ":OPER:COND?;:TER?;:TER?;:RSTate?") == "+0;+1;+0;STOP"


@pytest.mark.parametrize(("how", "answer"), [("stop", b"1"), ("clear", None), ("reset", b"1"), ("reboot", None)])
def test_a_missing_trigger_is_ended_by(how: str, answer: bytes | None) -> None:
    scope = InfiniiVision()
    ask(scope, FAST)
    answers: list[bytes | None] = []
    thread = threading.Thread(target=lambda: answers.append(scope.execute(b":DIG;*OPC?")), daemon=True)
    thread.start()
    time.sleep(0.05)
    {"stop": lambda: ask(scope, ":STOP"), "clear": scope.clear, "reset": lambda: ask(scope, "*RST"), "reboot": scope.reboot}[
        how
    ]()
    thread.join(5)
    assert answers == [answer]
    assert not scope.waiting


def test_single_does_not_wait_and_old_data_are_gone() -> None:
    scope = taken(SLOPE)
    assert ask(scope, ":SING;:AER?;*OPC?;:OPER:COND?") == "+1;1;+40"
    assert scope.execute(b":WAV:DATA?") is None
    assert errors(scope) == [-230]


def test_auto_sweep_triggers_itself_after_a_while() -> None:
    now = [0.0]
    scope = InfiniiVision(clock=lambda: now[0], auto_s=0.05)
    ask(scope, ":TIM:RANG 1e-6;:SING")
    assert ask(scope, ":OPER:COND?") == "+40"
    now[0] = 0.05
    assert ask(scope, ":OPER:COND?;:TER?") == "+0;+1"
    assert len(raw(scope, "u1")) == 5000


def test_force_trigger() -> None:
    scope = InfiniiVision()
    assert ask(scope, FAST + ";:DIG;:TRIG:FORC;*OPC?;:WAV:POIN?") == "1;+5000"


def test_pace_makes_a_record_last() -> None:
    now = [0.0]
    scope = InfiniiVision(pace=1.0, clock=lambda: now[0])
    ask(scope, "*CLS;" + FAST + ";:SING;:TRIG:FORC;*OPC")
    assert ask(scope, "*ESR?") == "+0"
    now[0] = 2e-6
    assert ask(scope, "*ESR?") == "+1"


# -- settings -------------------------------------------------------------------------------------------------------------


def test_scale_range_probe_impedance() -> None:
    scope = InfiniiVision()
    ask(scope, ":CHAN2:SCAL 50 mV;OFFS 10mV;PROB 10;:TIM:SCAL 2us")
    assert float(ask(scope, ":CHAN2:RANG?")) == pytest.approx(4.0)
    assert float(ask(scope, ":CHAN2:OFFS?")) == pytest.approx(0.1)
    assert float(ask(scope, ":TIM:RANG?")) == pytest.approx(20e-6)
    ask(scope, ":CHAN1:IMP FIFT")
    assert float(ask(scope, ":CHAN1:RANG?")) == 8
    ask(scope, ":CHAN1:RANG 10")
    ask(scope, ":CHAN1:RANG 1mV")
    ask(scope, ":CHAN5:RANG 1")
    ask(scope, ":ACQ:TYPE PEAK")
    ask(scope, ":WAV:SOUR CHAN9")
    assert errors(scope) == [-222, -222, -114, -224, -224]


def test_every_source_has_its_own_trigger_level() -> None:
    scope = InfiniiVision()
    ask(scope, ":TRIG:EDGE:LEV 0.2;:TRIG:EDGE:LEV 1.5,EXT;:TRIG:LEV 0.3,CHAN2")
    assert float(ask(scope, ":TRIG:EDGE:LEV?")) == 0.2
    assert float(ask(scope, ":TRIG:EDGE:LEV? CHANNEL2")) == 0.3
    ask(scope, ":TRIG:EDGE:SOUR EXT;SLOP NEG")
    edge = scope.edge()
    assert (edge.source, edge.level_v, edge.rising) == ("EXT", 1.5, False)


@pytest.mark.parametrize(("reference", "start"), [("LEFT", 0.9e-6), ("CENT", 0.5e-6), ("RIGH", 0.1e-6)])
def test_where_the_record_begins(reference: str, start: float) -> None:
    scope = InfiniiVision()
    ask(scope, FAST + f";:TIM:REF {reference};POS 1e-6")
    assert scope.window().start_s == pytest.approx(start)


def test_summaries_that_other_drivers_read() -> None:
    scope = InfiniiVision()
    assert ask(scope, ":CHANnel1?").startswith(":CHAN1:RANG +4.0")
    assert dict(part.split(" ", 1) for part in ask(scope, ":channel1?")[7:].split(";"))["COUP"] == "DC"
    assert ask(scope, ":TIMebase?").startswith(":TIM:MODE MAIN;REF CENT;MAIN:RANG +1.0")


@pytest.mark.parametrize("rate", [1e8, 2.5e8, 5e8, 1e9, 1.25e9, 5e9, 1e6])
@pytest.mark.parametrize("points", [100, 102_400, 204_800, 3_999_999])
def test_points_asked_for_are_points_given(rate: float, points: int) -> None:
    found = sampling(points / rate, 5e9, 4_000_000, points)
    window = found.window(0.0)
    assert (window.points, window.rate_hz) == (points, pytest.approx(rate, rel=1e-12))
    assert found.points <= 4_000_000


def test_a_rate_the_clock_has_not() -> None:
    assert sampling(1000 / 128e6, 5e9, 4_000_000, 1000).window(0).rate_hz == pytest.approx(5e9 / 40)
    assert sampling(1000 / 128e6, 5e9, 4_000_000, 1000, any_rate=True).window(0) == Window(0, 128e6, 1000)


def test_without_points_the_memory_is_used() -> None:
    whole = sampling(1e-3, 5e9, 4_000_000, 9.9e37)
    assert (whole.rate_hz, whole.points, whole.keep) == (2.5e9, 2_500_000, 1)


def test_snapshot_is_json_and_a_waiting_scope_waits_again() -> None:
    scope, other = taken(SLOPE, ":WAV:BYT LSBF"), InfiniiVision()
    other.restore(json.loads(json.dumps(scope.snapshot())))
    assert other.execute(b":WAV:PRE?;DATA?") == scope.execute(b":WAV:PRE?;DATA?")
    ask(scope, ":SING")
    other.restore(json.loads(json.dumps(scope.snapshot())))
    assert other.waiting
    with pytest.raises(ContractError):
        other.restore({"records": 3})


def test_what_is_not_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match="DSOX3024T"):
        InfiniiVision(model="DSOX1102G")
    with pytest.raises(ConfigError, match="adc_bits"):
        InfiniiVision(adc_bits=16)
