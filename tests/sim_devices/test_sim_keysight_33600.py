"""The simulated generator: memory, volts, limits, triggers."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from hil.errors import ConfigError, ContractError
from sim_devices.instruments.box import Box
from sim_devices.instruments.keysight_33600 import Keysight33600


def block(codes: NDArray[np.generic]) -> bytes:
    payload = codes.tobytes()
    count = str(len(payload)).encode()
    return b"#%d%s%s" % (len(count), count, payload)


def ask(box: Box, message: bytes | str) -> str:
    answer = box.execute(message.encode() if isinstance(message, str) else message)
    return "" if answer is None else answer.decode()


def errors(box: Box) -> list[int]:
    found = []
    while (text := ask(box, "SYST:ERR?")) != '+0,"No error"':
        found.append(int(text.split(",")[0]))
    return found


def loaded(codes: NDArray[np.int16], **settings: int) -> Keysight33600:
    """Channel 1 set to play `codes` once, 4 Vpp into 50 ohm, output on."""
    awg = Keysight33600(**settings)
    ask(awg, "FORM:BORD SWAP")
    ask(awg, b"SOUR1:DATA:ARB:DAC W," + block(codes.astype("<i2")))
    ask(awg, "SOUR1:FUNC:ARB W;:SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:FILT OFF;SRAT 100E6;:SOUR1:VOLT 4;:OUTP1 ON")
    ask(awg, "SOUR1:BURS:STAT 1;MODE TRIG;NCYC 1;:TRIG1:SOUR BUS;:OUTP:SYNC ON")
    assert errors(awg) == []
    return awg


RAMP = np.linspace(-32767, 32767, 64).astype(np.int16)


class Listener:
    def __init__(self) -> None:
        self.events: list[object] = []
        self.moved_channels: list[int] = []

    def fired(self, source: Keysight33600, channels: tuple[int, ...]) -> None:
        self.events.append(channels)

    def switched(self, source: Keysight33600, channel: int, on: bool) -> None:
        self.events.append((channel, on))

    def moved(self, source: Keysight33600, channel: int) -> None:
        self.moved_channels.append(channel)


def test_identity_and_unknown_model() -> None:
    assert ask(Keysight33600("SN7", model="33622A"), "*IDN?").split(",")[:3] == ["Keysight Technologies", "33622A", "SN7"]
    with pytest.raises(ConfigError, match="33622A"):
        Keysight33600(model="33210A")
    with pytest.raises(ConfigError, match="dac_bits"):
        Keysight33600(dac_bits=15)


@pytest.mark.parametrize(("border", "order"), [("NORM", ">i2"), ("SWAP", "<i2")])
def test_byte_order_of_an_upload(border: str, order: str) -> None:
    awg = Keysight33600(model="33522B")
    ask(awg, f"FORM:BORD {border}")
    ask(awg, b"SOUR2:DATA:ARB:DAC up," + block(RAMP.astype(order)))
    ask(awg, "SOUR2:FUNC:ARB UP;:SOUR2:FUNC ARB;:SOUR2:FUNC:ARB:FILT OFF;:SOUR2:VOLT 2")
    np.testing.assert_allclose(awg.drive(2).record, RAMP / 32767, atol=1e-6)
    assert ask(awg, "SOUR2:DATA:VOL:CAT?") == '"EXP_RISE","UP"'
    assert int(ask(awg, "SOUR2:DATA:VOL:FREE?")) == 1_048_576 - 64
    assert ask(awg, "SOUR2:DATA:ATTR:POIN? UP") == "+64"


def test_the_message_buffer_may_be_reused() -> None:
    awg = loaded(RAMP)
    message = bytearray(b"SOUR1:DATA:ARB:DAC V," + block(RAMP.astype("<i2")))
    awg.execute(memoryview(message))
    message[:] = bytes(len(message))
    ask(awg, "SOUR1:FUNC:ARB V")
    np.testing.assert_allclose(awg.drive(1).record, RAMP / 16383.5, atol=3e-4)


def test_text_and_float_uploads() -> None:
    awg = Keysight33600(model="33522B")
    ask(awg, "SOUR1:DATA:ARB:DAC A," + ",".join(map(str, RAMP)))
    ask(awg, "SOUR1:DATA:ARB B, " + ", ".join(f"{v:.6f}" for v in RAMP / 32767))
    ask(awg, b"SOUR1:DATA:ARB C," + block((RAMP / 32767).astype(">f4")))
    ask(awg, "SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:FILT OFF;:SOUR1:VOLT 2")
    for name in "ABC":
        ask(awg, f"SOUR1:FUNC:ARB {name}")
        np.testing.assert_allclose(awg.drive(1).record, RAMP / 32767, atol=4e-5)
    assert errors(awg) == []


@pytest.mark.parametrize(
    ("upload", "code"),
    [
        (b"W," + block(np.zeros(64, "<i2")), 786),
        (b"X," + block(np.array([-32768] * 64, "<i2")), -222),
        (b"X," + block(np.zeros(31, "<i2")), -222),
        (b"X,#13abc", 800),
        (b"X," + block(np.zeros(1001, "<i2")), 781),
        (b"far_too_long_a_name," + block(np.zeros(64, "<i2")), -224),
        (b"X", -109),
        (b"X,1,2,three", -104),
        (b"X," + b",".join([b"40000"] * 64), -222),
        (b"X,#264abc", -161),
    ],
)
def test_refused_uploads_leave_the_memory_alone(upload: bytes, code: int) -> None:
    awg = loaded(RAMP, samples=1000)
    ask(awg, b"SOUR1:DATA:ARB:DAC " + upload)
    assert errors(awg) == [code]
    assert ask(awg, "SOUR1:DATA:VOL:CAT?") == '"EXP_RISE","W"'


def test_clearing_allows_the_name_again_and_selects_the_built_in() -> None:
    awg = loaded(RAMP)
    ask(awg, "SOUR1:DATA:VOL:CLE")
    assert ask(awg, "SOUR1:FUNC:ARB?") == '"EXP_RISE"'
    ask(awg, b"SOUR1:DATA:ARB:DAC W," + block(RAMP.astype("<i2")))
    assert errors(awg) == []
    ask(awg, "SOUR1:FUNC:ARB NOBODY")
    assert errors(awg) == [785]


def test_nan_floats_are_refused() -> None:
    awg = Keysight33600()
    ask(awg, b"SOUR1:DATA:ARB X," + b"#3256" + struct.pack(">64f", *[math.nan] * 64))
    assert errors(awg) == [-222]


@pytest.mark.parametrize(("bits", "step"), [(14, 4), (12, 16), (8, 256)])
def test_codes_are_rounded_to_the_grid(bits: int, step: int) -> None:
    codes = np.arange(-32767, 32768, 7).astype(np.int16)
    volts = loaded(codes, dac_bits=bits).drive(1).record
    grid = volts / 2 * 32767 / step
    np.testing.assert_allclose(grid, np.rint(grid), atol=1e-2)
    top = 32767 // step * step
    assert np.abs(volts / 2 * 32767 - np.clip(codes, -top, top)).max() <= step / 2 + 0.01


def test_load_setting_against_real_load() -> None:
    awg = loaded(RAMP)
    assert awg.drive(1, 50).record.max() == pytest.approx(2.0, rel=1e-3)
    assert awg.drive(1, math.inf).record.max() == pytest.approx(4.0, rel=1e-3)
    ask(awg, "OUTP1:LOAD INF")
    assert float(ask(awg, "SOUR1:VOLT?")) == pytest.approx(8.0)  # nothing moved at the connector
    assert awg.drive(1, 50).record.max() == pytest.approx(2.0, rel=1e-3)
    assert float(ask(awg, "OUTP1:LOAD?")) == 9.9e37


@pytest.mark.parametrize(
    ("load", "settings", "code"),
    [
        ("50", "VOLT 10", None), ("50", "VOLT 10.1", -222), ("INF", "VOLT 20", None), ("INF", "VOLT 20.1", -222),
        ("50", "VOLT 4;VOLT:OFFS 3", None), ("50", "VOLT 4;VOLT:OFFS 3.1", -221), ("50", "VOLT:OFFS 4;:VOLT 3", -221),
        ("50", "VOLT 0.0001", -222), ("50", "VOLT:HIGH 5;LOW -5", None), ("50", "VOLT:HIGH -1", -221),
        ("50", "VOLT:HIGH 2;LOW 3", -221), ("50", "VOLT:LIM:HIGH 1;LOW -1;STAT 1;:VOLT 2.1", -221),
        ("50", "VOLT:LIM:HIGH 1;LOW -1;STAT 1;:VOLT 2", None), ("50", "VOLT:LIM:HIGH -2;LOW -1", -221),
        ("50", "VOLT 2;VOLT:LIM:STAT 1;HIGH 0.5", -221), ("50", "FUNC:ARB:SRAT 300E6;FILT OFF", -221),
        ("50", "FUNC:ARB:SRAT 1.1E9", -222), ("50", "FUNC NOIS", -224), ("50", "VOLT:OFFS NAN", -104),
    ],
)  # fmt: skip
def test_limits(load: str, settings: str, code: int | None) -> None:
    awg = Keysight33600()
    ask(awg, f"OUTP1:LOAD {load}")
    ask(awg, settings)
    assert errors(awg) == ([] if code is None else [code])


def test_a_refused_change_keeps_the_old_value() -> None:
    awg = Keysight33600()
    ask(awg, "VOLT 2")
    ask(awg, "VOLT 11")
    assert float(ask(awg, "VOLT?")) == 2
    assert float(ask(awg, "VOLT? MAX")) == 10
    assert ask(awg, "VOLT:HIGH?;LOW?") == "+1.00000000000000E+00;-1.00000000000000E+00"


def test_units_of_amplitude() -> None:
    awg = Keysight33600()
    ask(awg, "VOLT:UNIT VRMS;:VOLT 1")
    assert float(ask(awg, "VOLT?")) == pytest.approx(1.0)
    ask(awg, "VOLT:UNIT VPP")
    assert float(ask(awg, "VOLT?")) == pytest.approx(2 * math.sqrt(2))
    ask(awg, "VOLT 10 DBM")
    assert float(ask(awg, "VOLT?")) == pytest.approx(2 * math.sqrt(2) * math.sqrt(0.01 * 50))
    ask(awg, "FUNC ARB;VOLT:UNIT VRMS")
    ask(awg, "VOLT 1")
    assert errors(awg) == [-221]


def test_a_burst_rests_at_its_first_point_and_off_is_zero() -> None:
    awg = loaded(RAMP)
    drive = awg.drive(1)
    assert drive.rest_v == pytest.approx(-2, rel=1e-3)
    assert (drive.cycles, drive.on, drive.sample_rate_hz) == (1, True, 100e6)
    assert not awg.free_running(1)
    ask(awg, "OUTP1 OFF")
    assert awg.drive(1).rest_v == 0
    ask(awg, "BURS:STAT 0")
    assert awg.drive(1).cycles == math.inf
    assert awg.free_running(1)


def test_a_filter_smooths_and_off_does_not() -> None:
    square = np.where(np.arange(64) < 32, -32767, 32767).astype(np.int16)
    awg = loaded(square)
    assert len(np.unique(awg.drive(1).record)) == 2
    for kind in ("STEP", "NORM"):
        ask(awg, f"FUNC:ARB:FILT {kind}")
        record = awg.drive(1).record
        assert len(np.unique(record)) > 4
        assert (record.max() > 2.05) == (kind == "NORM")  # only the flat filter overshoots


def test_built_in_sine_and_polarity() -> None:
    awg = Keysight33600()
    ask(awg, "VOLT 2;VOLT:OFFS 1;:FREQ 1 MHz")
    drive = awg.drive(1)
    assert drive.duration_s == pytest.approx(1e-6)
    assert (drive.record.min(), drive.record.max()) == pytest.approx((0, 2), abs=1e-3)
    ask(awg, "OUTP1:POL INV;:FUNC DC")
    assert set(awg.drive(1).record) == {1.0}


def test_triggers_and_output_events() -> None:
    awg, listener = loaded(RAMP), Listener()
    awg.connect(listener)
    ask(awg, "*TRG")
    awg.trigger()
    ask(awg, "TRIG1:SOUR EXT;:TRIG2:SOUR BUS;*TRG;:TRIG1")
    ask(awg, "OUTP1 OFF;OUTP1 OFF;OUTP2 ON;*RST")
    assert listener.events == [(1,), (1,), (2,), (1,), (1, False), (2, True), (2, False)]
    ask(awg, "*TRG")
    assert errors(awg) == [-211]


def test_opc_waits_for_the_burst_at_pace() -> None:
    now = [0.0]
    awg = loaded(RAMP)
    slow = Keysight33600(pace=1.0, clock=lambda: now[0])
    slow.restore(awg.snapshot())
    ask(slow, "*CLS;*TRG;*OPC")
    assert ask(slow, "*ESR?") == "+0"
    now[0] += 64 / 100e6
    assert ask(slow, "*OPC?;*ESR?") == "1;+1"


def test_reboot_forgets_and_says_so() -> None:
    awg = loaded(RAMP)
    ask(awg, "*ESR?")
    awg.reboot()
    assert ask(awg, "*ESR?;:OUTP1?;:SOUR1:DATA:VOL:CAT?") == '+128;0;"EXP_RISE"'


def test_snapshot_is_json_and_restores_everything() -> None:
    awg, other, listener = loaded(RAMP), Keysight33600(), Listener()
    ask(awg, "NONSENSE")
    other.connect(listener)
    other.restore(json.loads(json.dumps(awg.snapshot())))
    np.testing.assert_array_equal(other.drive(1).record, awg.drive(1).record)
    assert other.outputs() == awg.outputs()
    assert other.outputs()["1"] == {"on": True, "low_v": -2.0, "high_v": 2.0}
    assert listener.events == [(1, True)]
    assert errors(other) == [-113]
    with pytest.raises(ContractError):
        other.restore({"model": "33622A"})
