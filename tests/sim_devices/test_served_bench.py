"""The whole virtual bench in its own process, opened by stock PyVISA with PyVISA-py as any VISA client would.

Generator channel 1 -> Mach-Zehnder modulator -> photodiode -> scope channel 1; SYNC -> EXT TRIG. No driver of ours is used.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pyvisa
from numpy.typing import NDArray
from pyvisa.resources import MessageBasedResource

from hil.errors import ConfigError, Disconnected
from hil.snapshot import packed, unpacked
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import ServedBench, spawn

NODE = Part(
    "sim_devices.mach_zehnder:MachZehnder", {"v_pi_v": 3.5, "phase_rad": -math.pi / 2, "bandwidth_hz": 1e9, "noise": 0.0}
)
BENCH = VirtualBench(
    boxes=(
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"model": "33622A"}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision", {"adc_bits": 12}),
    ),
    wires=(VirtualWire("awg", "scope", NODE),),
    transport="all",
    seed=3,
)
RATE_HZ = 50e6
POINTS = 512
AMPLITUDE_VPP = 4.0
RANGE_V = 0.5
STEP_V = RANGE_V / 4096  # of the converter


@dataclass
class Session:
    """The two instruments of the bench, open."""

    bench: ServedBench
    awg: MessageBasedResource
    scope: MessageBasedResource


def opened(resource: str) -> MessageBasedResource:
    client = pyvisa.ResourceManager("@py").open_resource(resource)
    client.timeout = 5000
    if resource.endswith("SOCKET"):
        client.read_termination = client.write_termination = "\n"
    assert isinstance(client, MessageBasedResource)
    return client


@pytest.fixture(scope="module")
def bench() -> Iterator[ServedBench]:
    with spawn(BENCH) as served:
        yield served


@pytest.fixture(params=["resources", "vxi11", "sockets"])
def session(request: pytest.FixtureRequest, bench: ServedBench) -> Iterator[Session]:
    addresses = getattr(bench, request.param)
    session = Session(bench, opened(addresses["awg"]), opened(addresses["scope"]))
    for box in (session.awg, session.scope):
        box.write("*RST;*CLS")
        box.query("*ESR?")
    yield session
    session.awg.close()
    session.scope.close()


def set_up(session: Session) -> None:
    awg, scope = session.awg, session.scope
    awg.write(":SOUR1:DATA:VOL:CLE;:FORM:BORD SWAP;:OUTP1:LOAD 50")
    awg.write_binary_values(":SOUR1:DATA:ARB:DAC ramp,", ramp(), datatype="h")
    awg.write(f":SOUR1:FUNC:ARB ramp;:SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:SRAT {RATE_HZ:g};FILT OFF")
    awg.write(f":SOUR1:VOLT {AMPLITUDE_VPP};VOLT:OFFS 0;:SOUR1:BURS:MODE TRIG;NCYC 1;STAT 1;:TRIG1:SOUR BUS;:OUTP:SYNC 1")
    awg.write(":OUTP1 1")
    scope.write(f":CHAN1:RANG {RANGE_V};OFFS 0.2;COUP DC;:TIM:RANG {POINTS / RATE_HZ:.9g};REF LEFT")
    scope.write(f":TIM:POS {0.1 * POINTS / RATE_HZ:.9g};:TRIG:EDGE:SOUR EXT;LEV 0.5;:TRIG:SWE NORM")
    scope.write(f":WAV:SOUR CHAN1;FORM WORD;BYT LSBF;UNS 1;POIN:MODE RAW;:WAV:POIN {POINTS}")
    for box in (awg, scope):
        assert box.query(":SYST:ERR?").startswith("+0,")


def ramp() -> NDArray[np.int16]:
    """Every byte value occurs, 0x0A among them."""
    codes: NDArray[np.int16] = np.linspace(-32767, 32767, POINTS).astype(np.int16)
    return codes


def shot(session: Session) -> NDArray[np.float64]:
    """(POINTS,) V."""
    assert session.scope.query(":SING;:AER?").strip() == "+1"
    session.awg.write("*TRG")
    assert session.awg.query("*OPC?").strip() == "1"
    deadline = time.monotonic() + 3
    while int(session.scope.query(":OPER:COND?")) & 8:
        assert time.monotonic() < deadline, "no trigger"
    pre = [float(field) for field in session.scope.query(":WAV:PRE?").split(",")]
    step, origin, zero = pre[7], pre[8], pre[9]
    words = session.scope.query_binary_values(":WAV:DATA?", datatype="H", container=np.ndarray)
    assert len(words) == POINTS == int(pre[2])
    volts: NDArray[np.float64] = (words.astype(np.float64) - zero) * step + origin
    return volts


def expected(phase_rad: float = -math.pi / 2) -> NDArray[np.float64]:
    """Mach-Zehnder and photodiode by hand: 1 mW, 4 dB loss, 30 dB extinction, 0.9 A/W, 5 nA dark, 1 kohm."""
    drive = ramp() / 32767 * AMPLITUDE_VPP / 2
    depth = (1 - 1e-3) / (1 + 1e-3)
    peak_a = 0.9 * 1e-3 * 10**-0.4
    current = peak_a * (1 + depth * np.cos(math.pi * drive / 3.5 + phase_rad)) / (1 + depth) + 5e-9
    volts: NDArray[np.float64] = 1000 * current
    return volts


def test_identify(session: Session) -> None:
    assert session.awg.query("*IDN?").split(",")[1] == "33622A"
    assert session.scope.query("*IDN?").split(",")[1] == "DSO-X 3024T"


def test_upload_trigger_read_gives_the_physics_to_one_converter_step(session: Session) -> None:
    set_up(session)
    assert np.abs(shot(session) - expected()).max() <= STEP_V


def test_all_transports_give_the_same_volts(bench: ServedBench) -> None:
    got = []
    for addresses in (bench.resources, bench.vxi11, bench.sockets):
        session = Session(bench, opened(addresses["awg"]), opened(addresses["scope"]))
        set_up(session)
        got.append(shot(session))
        session.awg.close()
        session.scope.close()
    assert np.array_equal(got[0], got[1])
    assert np.array_equal(got[0], got[2])


def test_control_port_moves_the_phase_and_the_reading_follows(session: Session) -> None:
    set_up(session)
    control = session.bench.control
    before = shot(session)
    control.set("node.phase_rad", 0.25)
    try:
        assert control.get("node.phase_rad") == 0.25
        moved = shot(session)
        assert np.abs(moved - before).max() > 100 * STEP_V
        assert np.abs(moved - expected(0.25)).max() <= STEP_V
    finally:
        control.set("node.phase_rad", -math.pi / 2)
    with pytest.raises(ConfigError, match=r"node\.phase_rad"):
        control.get("node.phase")


def test_restored_plant_gives_the_same_noise_again(session: Session) -> None:
    set_up(session)
    control = session.bench.control
    control.set("node.noise", 1.0)
    try:
        state = unpacked(json.loads(json.dumps(packed(control.snapshot(boxes=False)))))
        first, second = shot(session), shot(session)
        assert not np.array_equal(first, second)
        control.restore(state)
        assert np.array_equal(shot(session), first)
        assert np.array_equal(shot(session), second)
    finally:
        control.set("node.noise", 0.0)


def test_restored_boxes_hold_their_settings_and_their_record(session: Session) -> None:
    set_up(session)
    first = shot(session)
    state = unpacked(json.loads(json.dumps(packed(session.bench.control.snapshot()))))
    session.awg.write("*RST;:SOUR1:DATA:VOL:CLE")
    assert session.scope.query("*RST;*OPC?").strip() == "1"
    assert session.awg.query(":OUTP1?").strip() == "0"
    session.bench.control.restore(state)
    assert session.awg.query(":OUTP1?").strip() == "1"
    assert np.array_equal(shot(session), first)


def test_outputs_and_their_log(session: Session) -> None:
    set_up(session)
    outputs = session.bench.control.outputs()
    assert isinstance(outputs["awg"], dict)
    assert (outputs["awg"]["1"]["on"], outputs["awg"]["2"]["on"]) == (True, False)
    assert session.bench.control.log()[-1]["on"] is True
    session.awg.write(":OUTP1 0")
    assert session.awg.query("*OPC?").strip() == "1"
    assert session.bench.control.log()[-1]["on"] is False


def test_error_queue_and_status_byte(session: Session) -> None:
    session.awg.write(":SOUR1:VOLT 99")
    session.awg.write(":VOLTAGO 1")
    assert int(session.awg.query("*STB?")) & 0x04
    codes = [int(session.awg.query(":SYST:ERR?").split(",")[0]) for _ in range(3)]
    assert codes[0] in (-222, -221)
    assert codes[1:] == [-113, 0]
    assert int(session.awg.query("*STB?")) & 0x04 == 0


def test_reboot_is_seen_in_the_event_register(session: Session) -> None:
    set_up(session)
    session.bench.control.reboot("awg")
    assert int(session.awg.query("*ESR?")) & 0x80
    assert session.awg.query(":OUTP1?").strip() == "0"
    assert int(session.awg.query("*ESR?")) & 0x80 == 0


def test_serial_poll_and_device_clear_over_hislip(bench: ServedBench) -> None:
    scope = opened(bench.resources["scope"])
    scope.write("*RST;*CLS")
    scope.write(":NONSENSE")
    assert scope.query("*OPC?").strip() == "1"
    assert scope.read_stb() & 0x04
    scope.write("*CLS;:TRIG:SWE NORM;:TRIG:EDGE:SOUR EXT;:DIG CHAN1;*OPC?")  # no trigger comes
    scope.timeout = 100
    with pytest.raises(pyvisa.VisaIOError):
        scope.read()
    scope.timeout = 5000
    scope.clear()
    assert scope.query("*IDN?").startswith("KEYSIGHT")
    scope.close()


def test_missing_trigger_is_a_wait_that_another_client_can_end(bench: ServedBench) -> None:
    waiting, other = opened(bench.resources["scope"]), opened(bench.sockets["scope"])
    waiting.write("*RST;*CLS;:TRIG:SWE NORM;:TRIG:EDGE:SOUR EXT;:DIG CHAN1;*OPC?")
    deadline = time.monotonic() + 3
    while not int(other.query(":OPER:COND?")) & 8:
        assert time.monotonic() < deadline
    other.write(":STOP")
    assert waiting.read().strip() == "1"
    waiting.close()
    other.close()


def test_settings_that_the_twin_does_not_take_are_refused_by_name() -> None:
    node = Part(NODE.use, {"v_pi": 3.5})
    with pytest.raises(ConfigError, match="v_pi_v") as caught:
        spawn(VirtualBench(BENCH.boxes, (VirtualWire("awg", "scope", node),)))
    assert caught.value.where == "node"


def test_wire_to_the_wrong_box_is_refused() -> None:
    with pytest.raises(ConfigError, match="not of its kind"):
        spawn(VirtualBench(BENCH.boxes, (VirtualWire("scope", "awg", NODE),)))


def test_killed_bench_is_a_disconnect_and_leaves_no_process() -> None:
    bench = spawn(BENCH)
    clients = [opened(r) for r in bench.resources.values()]
    bench.kill()
    for client in clients:
        with pytest.raises((RuntimeError, ConnectionError, pyvisa.VisaIOError)):
            client.query("*IDN?")
        client.close()
    with pytest.raises(Disconnected):
        bench.control.get("node.phase_rad")
    bench.stop()
    assert not Path(f"/proc/{bench.pid}").exists()
