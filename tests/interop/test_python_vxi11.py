"""python-vxi11, which knows nothing of this project, works the virtual bench: it uploads a record and reads the curve.

pip install "hil[interop]"
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from extras import needs

from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import RunningBench, build

vxi11 = needs("vxi11")

NODE = Part(
    "sim_devices.mach_zehnder:MachZehnder", {"v_pi_v": 3.5, "phase_rad": -math.pi / 2, "bandwidth_hz": 1e9, "noise": 0.0}
)
BENCH = VirtualBench(
    boxes=(
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600"),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {"adc_bits": 12}),
    ),
    wires=(VirtualWire("awg", "scope", NODE),),
    transport="vxi11",
)
RATE_HZ, POINTS, RANGE_V = 50e6, 5000, 0.5
RAMP = np.linspace(-32767, 32767, POINTS).astype("<i2")


@pytest.fixture(scope="module")
def bench() -> Iterator[RunningBench]:
    with build(BENCH) as running:
        yield running


def opened(resource: str) -> Any:
    """Its own client of the core channel takes a port; without one the port mapper is asked."""
    host, port = resource.split("::")[1].split(",")
    instrument = vxi11.Instrument(host)
    instrument.client = vxi11.vxi11.CoreClient(host, int(port))
    return instrument


@pytest.fixture
def pair(bench: RunningBench) -> Iterator[tuple[Any, Any]]:
    pair = opened(bench.vxi11["awg"]), opened(bench.vxi11["scope"])
    for box in pair:
        box.write("*RST;*CLS")
        box.ask("*ESR?")
    yield pair
    for box in pair:
        box.close()


def test_a_record_is_uploaded_and_the_curve_read(pair: tuple[Any, Any]) -> None:
    awg, scope = pair
    assert awg.ask("*IDN?").split(",")[1] == "33622A"
    awg.write(":FORM:BORD SWAP;:OUTP1:LOAD 50")
    awg.write_raw(b":SOUR1:DATA:ARB:DAC ramp,#5%d" % RAMP.nbytes + RAMP.tobytes())
    awg.write(f":SOUR1:FUNC:ARB ramp;:SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:SRAT {RATE_HZ:g};FILT OFF;:SOUR1:VOLT 4;VOLT:OFFS 0")
    awg.write(":SOUR1:BURS:MODE TRIG;NCYC 1;STAT 1;:TRIG1:SOUR BUS;:OUTP:SYNC 1;:OUTP1 1")
    scope.write(f":CHAN1:RANG {RANGE_V};OFFS 0.2;COUP DC;:TIM:RANG {POINTS / RATE_HZ:.9g};REF LEFT")
    scope.write(f":TIM:POS {0.1 * POINTS / RATE_HZ:.9g};:TRIG:EDGE:SOUR EXT;LEV 0.5;:TRIG:SWE NORM")
    scope.write(f":WAV:SOUR CHAN1;FORM WORD;BYT LSBF;UNS 1;POIN:MODE RAW;:WAV:POIN {POINTS}")
    assert [box.ask(":SYST:ERR?")[:2] for box in pair] == ["+0", "+0"]
    assert scope.ask(":SING;:AER?") == "+1"
    awg.trigger()
    assert awg.ask("*OPC?") == "1"
    deadline = time.monotonic() + 3
    while int(scope.ask(":OPER:COND?")) & 8:
        assert time.monotonic() < deadline, "no trigger"
    step, origin, zero = (float(field) for field in scope.ask(":WAV:PRE?").split(",")[7:10])
    curve = scope.ask_raw(b":WAV:DATA?")
    assert (curve[:10], curve[-1:]) == (b"#800010000", b"\n")
    volts = (np.frombuffer(curve[10:-1], "<u2") - zero) * step + origin
    drive, depth, peak_v = RAMP / 32767 * 2.0, (1 - 1e-3) / (1 + 1e-3), 0.9 * 10**-0.4
    expected = peak_v * (1 + depth * np.sin(math.pi * drive / 3.5)) / (1 + depth)
    assert np.abs(volts - expected).max() <= 1.1 * RANGE_V / 4096


def test_what_the_protocol_has_beside_messages(pair: tuple[Any, Any]) -> None:
    awg, scope = pair
    awg.write("*IDN?")
    time.sleep(0.02)
    assert awg.read_stb() & 16
    awg.clear()
    assert not awg.read_stb() & 16
    awg.timeout = 0.1
    with pytest.raises(vxi11.vxi11.Vxi11Exception, match="IO timeout"):
        awg.read()
    assert awg.ask(":SYST:ERR?").startswith("-420")
    awg.lock()
    other = opened(f"TCPIP::{awg.host},{awg.client.port}::inst0::INSTR")
    with pytest.raises(vxi11.vxi11.Vxi11Exception, match="locked"):
        other.ask("*IDN?")
    awg.unlock()
    assert other.ask("*IDN?").startswith("Keysight")
    scope.abort()  # nothing is under way
    assert scope.ask("*IDN?").startswith("KEYSIGHT")
    other.close()
