"""A hand at the instruments while shots go on: every change is seen, told with the old and the new value, and put right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from scripted_link import MessageLink, Transcript

from calibration.drift.sentinel import DriftSentinel
from calibration.drift.settings import SentinelSettings as Watchful
from calibration.drift.steering import steered
from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.link import Link
from drivers.links.visa_link import VisaLink
from drivers.read_back import Care, ForeignChange, Panel, PanelWatch, Setting
from drivers.scpi import Scpi
from drivers.waveform.device import Waveform, WaveformSettings
from hil.errors import (
    Changed,
    ChangeForbidden,
    ConfigError,
    ContractError,
    Desync,
    DirtySession,
    HilError,
    LinkError,
    LinkTimeout,
    Misaligned,
    MissedTrigger,
    SwitchedOff,
)
from sim_devices.bench.control import ControlClient
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import RunningBench, build
from sim_devices.instruments.keysight_33600 import Keysight33600 as SimulatedGenerator

X = torch.linspace(-3.0, 3.0, 48).view(6, 8)
SELDOM = 60.0
CHANGES = {
    "amplitude": ("awg", ":SOUR1:VOLT 7.9", "amplitude 8 Vpp -> 7.9 Vpp"),
    "amplitude, by its edges": ("awg", ":SOUR1:VOLT:HIGH 3.5", "offset 0 V -> -0.25 V"),
    "offset": ("awg", ":SOUR1:VOLT 7;:SOUR1:VOLT:OFFS 0.02", "offset 0 V -> 0.02 V"),
    "load": ("awg", ":OUTP1:LOAD INF", "load 50 ohm -> 9.9e+37 ohm"),
    "a little more load": ("awg", ":OUTP1:LOAD 52", "load 50 ohm -> 52 ohm"),
    "polarity": ("awg", ":OUTP1:POL INV", "polarity NORM -> INV"),
    "limits off": ("awg", ":SOUR1:VOLT:LIM:STAT 0", "limits on -> off"),
    "a wider limit": ("awg", ":SOUR1:VOLT:LIM:HIGH 5", "high limit 4 V -> 5 V"),
    "a lower limit": ("awg", ":SOUR1:VOLT:LIM:LOW -4.5", "low limit -4 V -> -4.5 V"),
    "sample rate": ("awg", ":SOUR1:FUNC:ARB:SRAT 1.001E8", "sample rate 1e+08 Sa/s -> 1.001e+08 Sa/s"),
    "filter": ("awg", ":SOUR1:FUNC:ARB:FILT STEP", "filter OFF -> STEP"),
    "bus trigger": ("awg", ":TRIG1:SOUR EXT", "trigger source BUS -> EXT"),
    "sync": ("awg", ":OUTP:SYNC 0", "sync output on -> off"),
    "range": ("scope", ":CHAN1:RANG 0.6", "range 0.5 V -> 0.6 V"),
    "scale": ("scope", ":CHAN1:SCAL 0.07", "range 0.5 V -> 0.56 V"),
    "scope offset": ("scope", ":CHAN1:OFFS 0.185", "offset 0.18 V -> 0.185 V"),
    "inverted input": ("scope", ":CHAN1:INV 1", "inversion off -> on"),
    "coupling": ("scope", ":CHAN1:COUP AC", "coupling DC -> AC"),
    "trigger level": ("scope", ":TRIG:EDGE:LEV 0.6", "trigger level 0.5 V -> 0.6 V"),
    "trigger slope": ("scope", ":TRIG:EDGE:SLOP NEG", "trigger slope POS -> NEG"),
    "trigger source of the scope": ("scope", ":TRIG:EDGE:SOUR CHAN2", "trigger source EXT -> CHAN2"),
    "time base": ("scope", ":TIM:POS 1.2E-7", "time position"),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[RunningBench]:
    boxes = (
        VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600", {"dac_bits": 12}),
        VirtualBox("scope", "sim_devices.instruments.keysight_infiniivision:InfiniiVision"),
    )
    node = Part("sim_devices.mach_zehnder:MachZehnder", {"v_pi_v": 3.52, "phase_rad": -1.2, "noise": 0.0})
    with build(VirtualBench(boxes, (VirtualWire("awg", "scope", node, delay_s=12.4e-9),))) as running:
        yield running


@contextmanager
def opened(bench: RunningBench, care: Care) -> Iterator[Waveform]:
    def link(name: str) -> Link:
        return VisaLink(bench.resources[name])

    device = Waveform(
        Keysight33600(link("awg"), low_v=-4.0, high_v=4.0), InfiniiVision(link("scope"), range_v=0.5, offset_v=0.18),
        WaveformSettings(longest_delay_s=2e-7, trigger_timeout_s=0.7), "twin", care=care,
    )  # fmt: skip
    try:
        yield device
    finally:
        device.close()


def by_hand(bench: RunningBench, box: str, command: str) -> None:
    """As another session does: no lock keeps it out."""
    bench.boxes[box].execute(command.encode())


def restored(device: Waveform, answer: torch.Tensor) -> None:
    device.reinstate()
    assert device.verify().startswith("delay 12.")
    assert device.forward(X).equal(answer)


def switched_on(bench: RunningBench) -> int:
    return sum(bool(entry["on"]) for entry in map(vars_of, bench.plant.log))


def vars_of(entry: object) -> dict[str, object]:
    return {name: getattr(entry, name) for name in ("box", "on")}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_told_with_the_old_and_the_new_value_and_put_right(name: str, bench: RunningBench) -> None:
    box, command, said = CHANGES[name]
    with opened(bench, Care(0.0)) as device:
        answer = device.forward(X)
        by_hand(bench, box, command)
        with pytest.raises(Changed) as caught:
            device.forward(X)
        assert said in caught.value.got
        assert caught.value.suspect_shots == 1
        restored(device, answer)


@pytest.mark.parametrize("name", ["polarity", "inverted input", "sync", "trigger slope", "time base"])
def test_what_the_record_itself_shows_is_seen_at_once(name: str, bench: RunningBench) -> None:
    """Long before the next look is due; and what was done is told, not what came of it."""
    box, command, said = CHANGES[name]
    with opened(bench, Care(SELDOM)) as device:
        answer = device.forward(X)
        by_hand(bench, box, command)
        with pytest.raises(Changed) as caught:
            device.forward(X)
        assert said in caught.value.got
        restored(device, answer)


@pytest.mark.parametrize("name", ["limits off", "a lower limit", "trigger level"])
def test_a_look_of_the_sentinel_asks_too(name: str, bench: RunningBench) -> None:
    """What no record shows waits for the next look; who attends gets it with the next shot."""
    box, command, said = CHANGES[name]
    with opened(bench, Care(SELDOM)) as device:
        sentinel = DriftSentinel(device, steered(device), Watchful(), lambda kind, **facts: None, attend=device.attend)
        sentinel.begin()
        sentinel.after(1, 1, 48)
        device.forward(X)
        by_hand(bench, box, command)
        answer = device.forward(X)
        due = int(sentinel.summary()["every"])  # type: ignore[call-overload]
        with pytest.raises(Changed) as caught:
            sentinel.after(due, 1, 48)
        assert said in caught.value.got
        assert caught.value.suspect_shots is not None
        assert caught.value.suspect_shots >= 2
        restored(device, answer)


@pytest.mark.parametrize("name", ["amplitude", "range", "limits off", "trigger level"])
def test_the_bench_file_may_say_stop(name: str, bench: RunningBench) -> None:
    box, command, said = CHANGES[name]
    with opened(bench, Care(0.0, "stop")) as device:
        by_hand(bench, box, command)
        with pytest.raises(ChangeForbidden) as caught:
            device.forward(X)
        assert said in caught.value.got
        assert 'policy = "stop"' in caught.value.allowed


@pytest.mark.parametrize(
    "command",
    [
        ":SOUR1:VOLT:LIM:STAT 0;:SOUR1:VOLT 9",
        ":SOUR1:VOLT:LIM:STAT 0;:SOUR1:VOLT:OFFS 0.5",
        ":SOUR1:VOLT:LIM:STAT 0;:OUTP1:LOAD INF;:SOUR1:VOLT 18",
        ":OUTP1:LOAD 25;:SOUR1:VOLT:LIM:STAT 0;:SOUR1:VOLT 6",
    ],
)
def test_beyond_the_limits_of_the_drive_no_policy_goes_on(command: str, bench: RunningBench) -> None:
    with opened(bench, Care(0.0, "restore")) as device:
        by_hand(bench, "awg", command)
        with pytest.raises(ChangeForbidden, match="-4 to 4 V are allowed"):
            device.forward(X)
        with pytest.raises(ChangeForbidden):
            device.reinstate()
    assert bench.boxes["awg"].outputs()["1"]["on"] is False  # type: ignore[index]


@pytest.mark.parametrize(
    ("box", "command"), [("scope", ":CHAN1:BWL 1"), ("scope", ":CHAN1:RANG 0.6"), ("awg", ":SOUR1:VOLT 7.9")]
)
def test_shots_that_wait_are_not_measured_before_everything_is_set_up_again(
    box: str, command: str, bench: RunningBench
) -> None:
    with opened(bench, Care(0.0)) as device:
        answer = device.forward(X)
        by_hand(bench, box, command)
        waiting = [device.submit(X) for _ in range(3)]
        with pytest.raises(Changed):
            waiting[0].result()
        for shot in waiting[1:]:
            with pytest.raises(DirtySession, match="not set up again"):
                shot.result()
        restored(device, answer)


def again(device: Waveform) -> None:
    device.forward(X)


def reinstated(device: Waveform) -> None:
    device.reinstate()


def cleared(device: Waveform) -> None:
    device.clear()
    device.identify()
    device.reinstate()


def reopened(device: Waveform) -> None:
    device.reopen()
    device.identify()
    device.reinstate()


def switched(device: Waveform) -> None:
    device._drives.output(True)


@pytest.mark.parametrize("first", [again, reinstated, cleared, reopened])
@pytest.mark.parametrize("every_s", [0.0, SELDOM])
def test_an_output_that_a_person_switched_off_stays_off(
    first: Callable[[Waveform], None], every_s: float, bench: RunningBench
) -> None:
    with opened(bench, Care(every_s)) as device:
        device.forward(X)
        by_hand(bench, "awg", ":OUTP1 0")
        before = switched_on(bench)
        for attempt in (first, again, reinstated, cleared, reopened, switched):
            with pytest.raises(SwitchedOff, match="stays off") as caught:
                attempt(device)
            assert "hil resume" in caught.value.todo
        assert bench.boxes["awg"].outputs()["1"]["on"] is False  # type: ignore[index]
        assert switched_on(bench) == before


@pytest.mark.parametrize("fault", [LinkTimeout("no answer"), MissedTrigger("none"), Misaligned("no marker")])
def test_switched_off_while_another_fault_is_worked_on(fault: HilError, bench: RunningBench) -> None:
    with opened(bench, Care(SELDOM)) as device:
        device.forward(X)
        device._forget()  # as after any fault: the driver knows nothing of what it had set
        assert device._watch._watch.cause(fault) is fault
        by_hand(bench, "awg", ":OUTP1 0")
        with pytest.raises(SwitchedOff):
            device.forward(X)


@pytest.mark.parametrize("policy", ["restore", "stop"])
@pytest.mark.parametrize("box", ["awg", "scope"])
def test_a_power_cut_is_no_hand(box: str, policy: str, bench: RunningBench) -> None:
    with opened(bench, Care(0.0, policy)) as device:  # type: ignore[arg-type]
        answer = device.forward(X)
        bench.boxes[box].reboot()
        with pytest.raises((Changed, LinkError)) as caught:  # a scope that forgot its settings sends another block than is due
            device.forward(X)
        assert not isinstance(caught.value, ChangeForbidden)
        device.clear()
        assert "was switched off and on since" in device.identify()
        restored(device, answer)


@pytest.mark.parametrize("command", [":CHAN1:RANG 0.6", ":CHAN1:OFFS 0.17", ":CHAN1:SCAL 0.1;:CHAN1:OFFS 0.2"])
@pytest.mark.parametrize("rows", [3, 12])
def test_a_scale_is_not_taken_over_when_the_record_gets_another_length(command: str, rows: int, bench: RunningBench) -> None:
    with opened(bench, Care(SELDOM)) as device:
        answer = device.forward(X)
        by_hand(bench, "scope", command)
        with pytest.raises(Changed):
            device.forward(torch.zeros(rows, 8))
        restored(device, answer)


@pytest.mark.parametrize("rows", [2, 6, 12])
def test_a_marker_that_turned_upside_down_is_not_accepted_later(rows: int, bench: RunningBench) -> None:
    """A swapped cable is in no setting: the sign is that of the opening, also after recovery and over a length change."""
    with ControlClient(*bench.control.address) as control, opened(bench, Care(SELDOM)) as device:
        device.forward(X)
        phase = control.get("node.phase_rad")
        control.set("node.phase_rad", phase + torch.pi)
        try:
            with pytest.raises(Misaligned, match="upside down"):
                device.forward(torch.zeros(rows, 8))
            device.reinstate()
            with pytest.raises(Misaligned, match="upside down"):
                device.verify()
        finally:
            control.set("node.phase_rad", phase)


@pytest.mark.parametrize(
    ("box", "command"), [("awg", ":OUTP1 0"), ("awg", ":SOUR1:VOLT 1"), ("scope", ":CHAN1:RANG 1"), ("scope", ":STOP")]
)
def test_front_panels_are_locked_while_the_bench_is_open(box: str, command: str, bench: RunningBench) -> None:
    with ControlClient(*bench.control.address) as control:
        with opened(bench, Care()) as device:
            assert device.notes == ()
            with pytest.raises(ContractError, match="locked"):
                control.press(box, command)
            device.reopen()
            device.identify()
            device.reinstate()
            device.verify()
            with pytest.raises(ContractError, match="locked"):
                control.press(box, command)
        control.press(box, command)
        with opened(bench, Care(lock=False)):
            control.press(box, command.replace("0", "1"))


@pytest.mark.parametrize(
    ("reply", "errors"), [("1", ['-113,"Undefined header"']), ("1;+0", []), ("1;0", ['-221,"Settings conflict"'])]
)
def test_a_lock_that_is_refused_is_noted_and_never_fatal(reply: str, errors: list[str]) -> None:
    script = Transcript(
        ("*OPC?;:SYST:LOCK:REQ?", reply), *((":SYST:ERR?", text) for text in errors), (":SYST:ERR?", '+0,"No error"')
    )
    panel = Panel(Scpi(MessageLink(script)), "box", (), lock=":SYST:LOCK:REQ?", unlock=":SYST:LOCK:REL")
    said = panel.lock_out()
    assert all(text in said for text in (":SYST:LOCK:REQ?", *errors))
    panel.let_in()  # nothing was locked, so nothing is sent
    script.done()


class Silent:
    """A box that answers nothing to what it does not know."""

    def __init__(self) -> None:
        self.known = {b"*IDN?": b"Keysight Technologies,33622A,MY1,A.02.03"}

    def execute(self, message: bytes) -> bytes | None:
        return self.known.get(message)


def test_a_box_that_is_silent_about_its_lock_is_brought_back() -> None:
    scpi = Scpi(MessageLink(Silent()))
    scpi.identify()
    assert Panel(scpi, "box", (), lock=":SYST:LOCK:REQ?").lock_out()
    assert not scpi.link.dirty


@pytest.mark.parametrize("slew", [None, 50.0])
@pytest.mark.parametrize("command", [b":SOUR1:BURS:PHAS 90", b":SOUR2:VOLT 1", b":SOUR1:BURS:INT:PER 1"])
def test_recovery_begins_with_a_reset_and_the_output_off(command: bytes, slew: float | None) -> None:
    """Also of what the driver never sets: it begins from a known state, not from what somebody left."""
    box = SimulatedGenerator()
    link = MessageLink(box)
    generator = Keysight33600(link, low_v=-1.0, high_v=1.0, slew_v_per_s=slew)
    generator.prepare(1e6)
    generator.output(True)
    fresh, question = SimulatedGenerator(), command.partition(b" ")[0] + b"?"
    box.execute(command)
    assert box.execute(question) != fresh.execute(question)
    link.sent.clear()
    generator.reset()
    generator.prepare(1e6)
    assert box.execute(question) == fresh.execute(question)
    order = [next(n for n, m in enumerate(link.sent) if part in m) for part in (b":OUTP1 0;:OUTP1?", b"*RST", b"LIM:STAT 1")]
    assert order == sorted(order)
    ramped = [m for m in link.sent[: order[0]] if m.startswith(b":SOUR1:VOLT 0.001;")]
    assert bool(ramped) is (slew is not None)
    assert not box.drive(1).on


class Hands:
    """A panel on which somebody does things."""

    name = "hands"

    def __init__(self) -> None:
        self.looks, self.found = 0, list[ForeignChange]()

    def settle(self) -> None:
        pass

    def findings(self) -> list[ForeignChange]:
        self.looks += 1
        return self.found


def test_the_instruments_are_asked_every_few_seconds_of_use_and_when_somebody_asks_for_it() -> None:
    hands, now = Hands(), [0.0]
    watch = PanelWatch([hands], Care(2.0), lambda: now[0])
    looks = []
    for _ in range(100):  # a shot of 100 ms
        now[0] += 0.1
        watch.shot()
        watch.due()
        looks.append(hands.looks)
    assert looks[-1] in (4, 5)
    watch.attend()
    watch.due()
    watch.due()
    assert hands.looks == looks[-1] + 1
    hands.found = [ForeignChange("setting", "amplitude 8 V -> 4 V")]
    for _ in range(8):
        watch.shot()
    now[0] += 2.0
    with pytest.raises(Changed, match=r"amplitude 8 V -> 4 V; up to 8 shots of the last") as caught:
        watch.due()
    assert caught.value.suspect_shots == 8


@pytest.mark.parametrize("look_s", [1e-3, 5e-3, 20e-3])
def test_looks_that_are_asked_for_cost_a_hundredth_of_the_time_at_most(look_s: float) -> None:
    now = [0.0]

    class Slow(Hands):
        def findings(self) -> list[ForeignChange]:
            now[0] += look_s
            return super().findings()

    hands = Slow()
    watch = PanelWatch([hands], Care(SELDOM), lambda: now[0])
    for _ in range(4000):  # a shot of 5 ms, a look asked for after each
        watch.attend()
        watch.shot()
        now[0] += 5e-3
        watch.due()
    assert 0.5 * 0.01 < hands.looks * look_s / now[0] <= 0.01


@pytest.mark.parametrize("every_s", [-1.0, float("nan"), 61.0, float("inf")])
def test_a_schedule_has_bounds(every_s: float) -> None:
    with pytest.raises(ConfigError, match="every few seconds"):
        Care(every_s)


@pytest.mark.parametrize("command", [":SOUR1:VOLT:UNIT VRMS", ":SOUR1:VOLT:UNIT DBM"])
def test_an_amplitude_that_cannot_be_told_stops(command: str, bench: RunningBench) -> None:
    """The box refuses the question as it is set then: what remains unanswered is told, and nothing waits for it."""
    with opened(bench, Care(0.0)) as device:
        by_hand(bench, "awg", command)
        with pytest.raises(ChangeForbidden, match="cannot be told") as caught:
            device.forward(X)
        assert "amplitude 8 Vpp -> no answer" in caught.value.got
    assert bench.boxes["awg"].outputs()["1"]["on"] is False  # type: ignore[index]


class Older:
    """A box that does not know :B?; what stands after it in a message is lost."""

    def __init__(self) -> None:
        self.answers = {":A?": "1", "*ESR?": "0", "*OPC?": "1", ":SYST:ERR?": '+0,"No error"'}

    def execute(self, message: bytes) -> bytes | None:
        found = []
        for question in message.decode().split(";"):
            if question not in self.answers:
                break
            found.append(self.answers[question])
        return ";".join(found).encode() if found else None


def test_a_question_that_the_firmware_does_not_know_is_left_out() -> None:
    box = Older()
    panel = Panel(Scpi(MessageLink(box)), "box", [Setting(name, f":{name.upper()}?") for name in "abc"])
    box.answers[":C?"] = "3"
    assert panel.held() == {"a": 1.0, "b": "no answer", "c": 3.0}
    panel.settle()
    assert panel.findings() == []
    box.answers[":C?"] = "4"
    assert [finding.said for finding in panel.findings()] == ["c 3 -> 4"]


@pytest.mark.parametrize("reply", ["1;2;3", "nan;0", "one;0", "1;x", "1;inf"])
def test_an_answer_that_makes_no_sense_makes_the_wire_dirty(reply: str) -> None:
    link = MessageLink(Transcript((":A?;*ESR?", reply)))
    with pytest.raises(Desync, match="does not say what it holds"):
        Panel(Scpi(link), "box", [Setting("a", ":A?")]).held()
    assert link.dirty


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_errors_that_the_driver_did_not_make_are_seen(bits: int) -> None:
    script = Transcript((":A?;*ESR?", "1;0"), (":A?;*ESR?", f"1.0000001;{bits}"))
    panel = Panel(Scpi(MessageLink(script)), "box", [Setting("a", ":A?")])
    panel.settle()
    assert [finding.kind for finding in panel.findings()] == ["errors"]
