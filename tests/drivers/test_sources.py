"""The drivers of boxes that hold levels, and of meters: the contract over an explicit list of wires, and what is theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from wired import Counting

from drivers.auxiliaries import Auxiliaries, Auxiliary, Holdable
from drivers.keithley_2400 import Keithley2400
from drivers.keithley_2450 import Keithley2450
from drivers.keithley_dmm6500 import KeithleyDMM6500, KeithleyDMM6500Current
from drivers.keysight_8164 import Keysight8164
from drivers.keysight_b2900 import KeysightB2900
from drivers.keysight_e36300 import KeysightE36312A
from drivers.keysight_n7776c import KeysightN7776C
from drivers.links.memory import MemoryLink
from drivers.links.opened import opened
from drivers.qontrol import Qontrol
from drivers.read_back import Care, Panelled, PanelWatch
from drivers.safe import SafeState, Switchable, carry_out, conversation
from drivers.scpi import Scpi
from drivers.scpi_talk import ScpiTalk
from drivers.thorlabs_pm100d import ThorlabsPM100D
from drivers.vector.roles import Meter, Sweeper
from hil.conformance import Knob, check_instrument
from hil.errors import (
    Changed,
    CommandRefused,
    ConfigError,
    NotAReading,
    OutOfRange,
    SwitchedOff,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.port import each
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import build
from sim_devices.instruments.keithley_2400 import Keithley2400 as SimulatedMeter
from sim_devices.instruments.keithley_2450 import Keithley2450 as Simulated2450
from sim_devices.instruments.keithley_dmm6500 import KeithleyDMM6500 as SimulatedDMM6500
from sim_devices.instruments.keysight_8164 import Keysight8164 as Simulated8164
from sim_devices.instruments.keysight_b2900 import KeysightB2900 as SimulatedB2900
from sim_devices.instruments.keysight_e36300 import KeysightE36312A as SimulatedSupply
from sim_devices.instruments.keysight_n7776c import KeysightN7776C as SimulatedLaser
from sim_devices.instruments.qontrol import Qontrol as SimulatedQontrol
from sim_devices.instruments.thorlabs_pm100d import ThorlabsPM100D as SimulatedPM100D


class Table:
    """A driver, and the simulated instrument behind it. near: what it rounds."""

    near = 1e-9

    def __init__(self, box: Any, driver: Callable[..., Any], wire: str = "memory", **settings: Any) -> None:
        self.box, self.say = box, ""
        self.link = Counting(self if wire == "memory" else box, wire)
        self.driver = driver(self.link.link, **settings)

    def execute(self, message: bytes) -> bytes | None:
        reply = self.box.execute(message)
        return self.say.encode() if self.say and reply is not None and b"ERR?" not in message else reply

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        def knob(name: str) -> Knob:
            port = self.driver.holdable()[name]
            low, high = port.shared_low, port.shared_high
            tried = (low, low + 0.5 * (high - low), high)
            return Knob(
                name, lambda value: self.driver.hold(name, value), lambda: self.driver.read_back(name), tried,
                (high + 0.01 * abs(high), low - 0.01 * abs(high)), self.near,
            )  # fmt: skip

        return [knob(name) for name in self.driver.holdable() if name != "output"]

    def energise(self) -> bool:
        self.driver.prepare()
        self.driver.output(True)
        if not self.is_safe():
            return True
        self.driver.levels(list(each(self.driver.drive.high, self.driver.drive.size)))  # it has no relay
        return not self.is_safe()

    def safe(self) -> None:
        self.driver.safe()

    def is_safe(self) -> bool:
        return not any(one["on"] for one in self.box.outputs().values())

    def sent(self) -> int:
        return len(self.link.sent)

    def close(self) -> None:
        self.driver.close()
        self.link.done()


class Converted(Table):
    """What is read back was measured."""

    near = 1e-3


class Measuring(Table):
    """A meter drives nothing, and holds nothing that a bench would set."""

    def knobs(self) -> Sequence[Knob]:
        return []

    def energise(self) -> bool:
        self.driver.prepare()
        return False

    def safe(self) -> None: ...

    def is_safe(self) -> bool:
        return True


def supply(**settings: Any) -> Table:
    return Table(SimulatedSupply(), KeysightE36312A, **settings)


def meter(**settings: Any) -> Table:
    return Table(SimulatedMeter(load_ohm=1e4), Keithley2400, **settings)


def touch(**settings: Any) -> Table:
    return Table(Simulated2450(load_ohm=1e4), Keithley2450, **settings)


def pair(**settings: Any) -> Table:
    return Table(SimulatedB2900(load_ohm=1e4), KeysightB2900, **{"channels": (1, 2), **settings})


def laser(**settings: Any) -> Table:
    return Table(SimulatedLaser(), KeysightN7776C, **settings)


def mainframe(**settings: Any) -> Table:
    return Table(Simulated8164(), Keysight8164, **settings)


def heaters(wire: str = "serial", **settings: Any) -> Table:
    return Converted(SimulatedQontrol(), Qontrol, wire, **settings)


def multimeter(**settings: Any) -> Table:
    return Measuring(SimulatedDMM6500(there=1.5), KeithleyDMM6500, **settings)


def ammeter(**settings: Any) -> Table:
    return Measuring(SimulatedDMM6500(there=1.5e-4), KeithleyDMM6500Current, **settings)


def power_meter(**settings: Any) -> Table:
    return Measuring(SimulatedPM100D(power_w=5e-4), ThorlabsPM100D, **settings)


EVERY = [supply, meter, touch, pair, laser, mainframe]
METERS = [(meter, 0.0), (touch, 0.0), (pair, 0.0), (multimeter, 1.5), (ammeter, 1.5e-4), (power_meter, 5e-4)]
PAIRS: list[tuple[str, Callable[..., Table], str]] = [  # instrument, frame, wire; benchmarks/instruments.py has SLOW ones too
    ("Keysight E36312A", supply, "memory"),
    ("Keithley 2400", meter, "memory"),
    ("Keithley 2400", meter, "serial"),
    ("Keithley 2450", touch, "memory"),
    ("Keithley 2450", touch, "socket"),
    ("Keysight B2902A", pair, "memory"),
    ("Keysight B2902A", pair, "vxi11"),
    ("Keysight N7776C", laser, "memory"),
    ("Keysight 8164B", mainframe, "memory"),
    ("Qontrol Q8iv", heaters, "serial"),
    ("Keithley DMM6500", multimeter, "memory"),
    ("Keithley DMM6500, current", ammeter, "memory"),
    ("Thorlabs PM100D", power_meter, "memory"),
    ("Thorlabs PM100D", power_meter, "hislip"),
]
SLOW: list[tuple[str, Callable[..., Table], str]] = [
    *[("Keysight E36312A", supply, wire) for wire in ("hislip", "socket", "vxi11")],
    *[("Keithley 2400", meter, wire) for wire in ("hislip", "vxi11")],
    *[("Keithley 2450", touch, wire) for wire in ("hislip", "vxi11")],
    *[("Keysight B2902A", pair, wire) for wire in ("hislip", "socket")],
    *[("Keysight N7776C", laser, wire) for wire in ("hislip", "socket", "vxi11")],
    *[("Keysight 8164B", mainframe, wire) for wire in ("hislip", "vxi11")],
    *[("Keithley DMM6500", multimeter, wire) for wire in ("hislip", "socket", "vxi11")],
]
WIDE: list[tuple[Callable[..., Table], dict[str, Any]]] = [
    (supply, {"high_v": 7.0}), (supply, {"low_v": -1.0}), (supply, {"low_v": (0.0, 0.0, math.nan)}), (supply, {"limit_a": 6.0}),
    (supply, {"high_v": (6.0, 26.0, 1.0)}), (meter, {"high_v": 211.0}), (meter, {"range_a": 2.0}), (meter, {"range_a": 0.0}),
    (touch, {"low_v": -211.0}), (pair, {"range_a": 0.2, "high_v": 30.0}), (pair, {"range_a": 4.0}), (heaters, {"high_v": 12.5}),
    (heaters, {"limit_a": 0.03}), (mainframe, {"high_w": 7e-3}), (multimeter, {"range_v": 1001.0}), (ammeter, {"range_a": 4.0}),
    (power_meter, {"range_w": 0.0}),
    (power_meter, {"wavelength_m": 500e-9}),
    (laser, {"high_w": 0.03}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "wire"), [one[1:] for one in PAIRS], ids=[f"{name} over {wire}" for name, _, wire in PAIRS])
def test_it_keeps_the_contract_of_a_driver(make: Callable[..., Table], wire: str) -> None:
    assert check_instrument(lambda: make(wire=wire)).passed


@pytest.mark.parametrize("make", [*EVERY, heaters])
def test_it_has_every_role_of_a_source(make: Callable[..., Table]) -> None:
    one = make()
    driver = one.driver
    assert isinstance(driver, Holdable)
    assert isinstance(driver, Panelled)
    assert isinstance(driver, Switchable)
    one.close()


@pytest.mark.parametrize(("make", "settings"), WIDE)
def test_limits_may_be_narrowed_never_widened(make: Callable[..., Table], settings: dict[str, Any]) -> None:
    with pytest.raises(OutOfRange):
        make(**settings)


@pytest.mark.parametrize("settings", [{"channels": (1, 4)}, {"channels": ()}, {"channels": (2, 2)}, {"high_v": (1.0, 1.0)}])
def test_channels_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        supply(**settings)


def test_another_instrument_is_refused_and_not_touched() -> None:
    link = MemoryLink(SimulatedLaser())
    with pytest.raises(WrongInstrument):
        Keithley2400(link)
    assert link.sent == [b"*IDN?"]
    assert link.closed


@pytest.mark.parametrize("make", EVERY)
def test_another_process_can_make_it_safe(make: Callable[..., Table]) -> None:
    one = make()
    one.energise()
    state = SafeState.from_json(one.driver.safe_state().to_json())
    assert state == one.driver.safe_state()
    scpi = Scpi(MemoryLink(one.box), expect=state.expect)
    scpi.identify()
    assert not one.is_safe()
    carry_out(state, ScpiTalk(scpi))
    assert one.is_safe()


def test_an_output_that_stays_on_is_told() -> None:
    one = supply(channels=(1, 2))
    one.energise()
    one.say = "0,1"
    with pytest.raises(UnsafeOutputs, match="E36312A"):
        one.driver.close()
    assert one.link.closed


def test_levels_of_one_message_are_read_back() -> None:
    one = supply(channels=(3, 1), low_v=0.5, high_v=5.0)
    one.energise()
    before = one.sent()
    one.driver.levels([2.0, 0.1 + 0.4])
    assert one.sent() == before + 1
    assert [one.box.stands(n) for n in (1, 2, 3)] == pytest.approx([0.5, 0.0, 2.0])
    with pytest.raises(OutOfRange, match="channel 2"):
        one.driver.levels([2.0, 0.4])
    assert one.sent() == before + 1
    one.say = "2.0;0.9"
    with pytest.raises(CommandRefused, match="did not take a level"):
        one.driver.levels([2.0, 1.0])


def test_the_way_down_keeps_the_slew(monkeypatch: pytest.MonkeyPatch) -> None:
    one = supply(channels=(1, 2), high_v=5.0, slew_v_per_s=(50.0, 10.0))
    monkeypatch.setattr("drivers.scpi_source.STEP_S", 1e-3)
    one.energise()
    one.driver.levels([4.0, 0.5])
    one.box.history.clear()
    one.driver.close()
    assert one.is_safe()
    for channel, most in ((1, 0.05), (2, 0.01)):
        levels = [4.0 if channel == 1 else 0.5, *(v for _, n, v in one.box.history if n == channel)]
        assert levels[-1] == 0.0
        assert len(levels) > 40
        assert max(abs(b - a) for a, b in pairwise(levels)) <= most * 1.001


def test_a_safe_level_may_be_another_one_with_the_output_on() -> None:
    one = supply(channels=(2,))
    one.driver.rest_at({"output": 1.0, "voltage": 1.5})
    one.driver.hold("voltage", 3.0)
    one.driver.hold("output", 1.0)
    one.driver.close()
    assert one.box.stands(2) == 1.5
    with pytest.raises(OutOfRange):
        supply(channels=(2,)).driver.rest_at({"voltage": 30.0})


@pytest.mark.parametrize("make", [meter, touch])
def test_a_list_is_measured_level_by_level(make: Callable[..., Table]) -> None:
    one = make(low_v=-1.0, high_v=2.0)
    one.energise()
    driver = one.driver
    rows = [[-1.0], [0.25], [2.0]]
    assert driver.sweep(rows, 0.01) == [[pytest.approx(v / 1e4)] for (v,) in rows]
    assert one.box.stands(1) == 2.0
    assert driver.read() == [pytest.approx(2e-4)]
    before = one.sent()
    with pytest.raises(OutOfRange):
        driver.sweep([[0.0], [2.1]], 0.01)
    assert one.sent() == before


@pytest.mark.parametrize("make", [meter, touch, pair])
def test_after_a_list_that_tripped_levels_are_set_as_before(make: Callable[..., Table]) -> None:
    one = make(range_a=1e-4, high_v=10.0, slew_v_per_s=1e4)
    one.energise()
    count = one.driver.drive.size
    with pytest.raises(NotAReading, match="compliance"):
        one.driver.sweep([[0.5] * count, [5.0] * count], 0.0)
    one.driver.levels([0.25] * count)
    assert one.driver.read() == [pytest.approx(2.5e-5)] * count
    one.driver.close()
    assert one.is_safe()


@pytest.mark.parametrize("make", [meter, touch])
def test_a_current_beyond_the_range_is_no_reading(make: Callable[..., Table]) -> None:
    one = make(range_a=1e-4, high_v=10.0)
    one.energise()
    driver = one.driver
    driver.levels([0.5])
    assert driver.read() == [pytest.approx(5e-5)]
    one.say = "+9.910000E+37,+1.000000E+00"
    with pytest.raises(NotAReading, match="range"):
        driver.read()
    one.say = ""
    driver.levels([5.0])  # 500 uA through the load, and 100 uA are allowed
    with pytest.raises(NotAReading, match="compliance"):
        driver.read()


@pytest.mark.parametrize(
    ("command", "fault"), [(":SOUR:VOLT 2.5,(@1)", Changed), (":SOUR:CURR 0.5,(@2)", Changed), (":OUTP 0,(@2)", SwitchedOff)]
)
def test_another_hand_is_seen(command: str, fault: type[Exception]) -> None:
    one = supply(channels=(1, 2))
    one.energise()
    one.driver.levels([1.0, 2.0])
    watch = PanelWatch([one.driver.panel], Care(every_s=0.0))
    watch.begin()
    watch.look()
    one.driver.levels([1.5, 0.5])
    watch.settle()
    watch.look()
    one.box.press(command)
    with pytest.raises(fault):
        watch.look()


def started(**settings: Any) -> tuple[Auxiliaries, Table, Table]:
    bias, light = Table(SimulatedSupply(**settings), KeysightE36312A, channels=(1,)), laser()
    members = [
        Auxiliary("bias", bias.driver, {"output": 1.0, "voltage": 1.5, "current": 0.2}, 0.2, {"voltage": 0.01}),
        Auxiliary("laser", light.driver, {"power": 2e-3, "output": 1.0}),
    ]
    waited: list[float] = []
    return Auxiliaries(members, ["laser"], ["bias"], sleep=waited.append), bias, light


def test_auxiliaries_are_started_in_order_and_reset_in_safe_order() -> None:
    aux, bias, light = started()
    aux.start()
    assert bias.box.stands(1) == 1.5
    assert light.box.stands(1) == pytest.approx(2e-3)
    seen: list[tuple[bool, bool]] = []
    aux.reset(lambda: seen.append((light.is_safe(), bias.is_safe())))
    assert seen == [(True, False)]
    assert bias.is_safe()
    aux.start()
    assert not light.is_safe()


def test_what_does_not_hold_keeps_the_later_ones_off() -> None:
    aux, _, light = started(short=1)
    with pytest.raises(CommandRefused, match=r"bias voltage: .*got 0\.15 V") as told:
        aux.start()
    assert "1.5 V, within 0.01" in str(told.value)
    assert light.is_safe()


def test_a_level_with_a_slew_goes_up_in_steps_once_the_output_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.scpi_source.STEP_S", 1e-3)
    one = supply(channels=(1,), slew_v_per_s=20.0)
    one.driver.hold("voltage", 1.5)
    one.driver.hold("output", 1.0)
    one.driver.hold("voltage", 1.0)
    levels = [0.0, *(v for _, _, v in one.box.history)]
    assert max(levels) == 1.5
    assert levels[-1] == 1.0
    assert max(abs(b - a) for a, b in pairwise(levels)) <= 0.0201


@pytest.mark.parametrize(("make", "expected"), METERS)
def test_a_meter_reads_and_notices_another_hand(make: Callable[..., Table], expected: float) -> None:
    one = make()
    driver = one.driver
    driver.prepare()
    if one.energise():
        driver.levels([0.0] * driver.drive.size)
    assert isinstance(driver, Meter)
    assert driver.read() == [pytest.approx(expected)] * (driver.reading.size or 1)
    driver.panel.settle()
    assert driver.panel.findings() == []
    name, box = driver.panel.name, one.box
    word = {"multimeter": ":SENS:VOLT:NPLC 2", "power meter": "SENS:CORR:WAV 1310"}.get(
        name.rpartition(" ")[0], "SENS:CURR:NPLC 2"
    )
    box.press(word)
    assert [finding.kind for finding in driver.panel.findings()] == ["setting"]
    box.reboot()
    assert [finding.kind for finding in driver.panel.findings()] == ["power"]
    one.close()


def test_both_channels_go_through_their_lists_together() -> None:
    one = pair(low_v=-1.0, high_v=(1.0, 2.0))
    one.energise()
    assert isinstance(one.driver, Sweeper)
    rows = [[-1.0, 2.0], [0.5, -0.5]]
    assert one.driver.sweep(rows, 0.0) == [[pytest.approx(v / 1e4) for v in row] for row in rows]
    assert [one.box.stands(n) for n in (1, 2)] == [0.5, -0.5]
    one.box.press(":OUTP2 0")
    with pytest.raises(SwitchedOff):
        one.driver.panel.check_output()


@pytest.mark.parametrize("make", [touch, multimeter])
def test_another_language_is_told_and_nothing_is_set(make: Callable[..., Table]) -> None:
    box = make().box
    box.execute(b"*LANG TSP")
    assert box.execute(b"*LANG?") == b"SCPI"  # until it is switched off and on
    box.reboot()
    link = MemoryLink(box)
    with pytest.raises(WrongInstrument, match=r"(?s)TSP.*\*LANG SCPI"):
        type(make().driver)(link)
    assert link.sent == [b"*IDN?", b"*LANG?"]


def test_a_power_beyond_the_range_and_a_missing_sensor_are_no_readings() -> None:
    one = power_meter()
    one.box.attach(1, lambda volts: 2e-3)
    with pytest.raises(NotAReading):
        one.driver.read()
    with pytest.raises(ConfigError, match="sensor"):
        ThorlabsPM100D(MemoryLink(SimulatedPM100D(sensor=False)))
    with pytest.raises(OutOfRange, match=r"0\.13 W"):
        power_meter(range_w=5.0).driver.read()


def test_a_heater_that_draws_too_much_goes_off_and_is_told() -> None:
    one = heaters(channels=(2, 3, 5), limit_a=5e-3)
    one.driver.prepare()
    one.driver.levels([1.0, 2.0, 3.0])
    assert [one.box.stands(n) for n in (2, 3, 5)] == pytest.approx([1.0, 2.0, 3.0], abs=1e-3)
    one.driver.panel.settle()
    with pytest.raises(CommandRefused, match="E02:05"):
        one.driver.levels([1.0, 2.0, 6.0])  # 6 mA
    assert one.box.stands(5) == 0.0
    one.box.reboot()
    assert [finding.kind for finding in one.driver.panel.findings()] == ["power"]
    one.close()
    assert one.is_safe()


def test_a_locked_mainframe_and_another_module_are_told() -> None:
    with pytest.raises(ConfigError, match="locked"):
        Keysight8164(MemoryLink(Simulated8164(locked=True)))
    with pytest.raises(WrongInstrument, match="81960A"):
        Keysight8164(MemoryLink(Simulated8164()), laser="81960A")
    one = mainframe()
    one.energise()
    one.box.press(":LOCK 1,1234")
    with pytest.raises(SwitchedOff):
        one.driver.panel.check_output()


def test_a_bench_on_serial_lines_is_made_safe_over_lines_of_its_own() -> None:
    parts = (("heaters", "qontrol:Qontrol"), ("smu", "keithley_2400:Keithley2400"))
    boxes = tuple(VirtualBox(name, f"sim_devices.instruments.{use}") for name, use in parts)
    with build(VirtualBench(boxes, transport="serial")) as bench:
        for name, driver in (("heaters", Qontrol), ("smu", Keithley2400)):
            one = driver(opened(bench.resources[name], baud=115200))
            one.prepare()
            one.output(True)
            one.levels([1.0] * one.drive.size)
            state = SafeState.from_json(one.safe_state().to_json())
            assert not state.shared
            one._scpi.close()  # its program is dead, and the port is free
            with conversation(state)(state) as talk:
                carry_out(state, talk)
            assert bench.boxes[name].outputs()["1"]["on"] is False  # type: ignore[index]
