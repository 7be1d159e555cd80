"""Safe states: as values, and carried out on simulated boxes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_link import MessageLink

from drivers.keysight_33600 import Keysight33600
from drivers.make_safe import make_safe, securing, unsafe
from drivers.safe import OFF, Ramp, SafeState, Step, carry_out, in_order, outputs_after
from drivers.scpi import Expect, Scpi
from drivers.scpi_talk import OVER_VISA, ScpiTalk
from drivers.spiking.talk import board
from hil.errors import CommandRefused, ConfigError, Disconnected, UnsafeOutputs
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import build
from sim_devices.instruments.keysight_33600 import Keysight33600 as SimulatedGenerator

AWG = VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600")
VOLTS = st.floats(-5, 5, allow_nan=False)


def ramp(low_v: float = -4.0, high_v: float = 4.0, slew: float = 100.0) -> Ramp:
    return Ramp(":OUTP1", ":SOUR1:VOLT", ":SOUR1:VOLT:OFFS", slew, 1e-3, low_v, high_v)


STATE = SafeState("awg", "TCPIP::127.0.0.1::hislip0::INSTR", OVER_VISA, Expect("KEYSIGHT"), (Step(":OUTP1 0", ":OUTP1?", OFF),))


@pytest.mark.parametrize(
    "state",
    [
        STATE,
        board("board", "/dev/ttyACM0", Expect(("HIL", "ACME"), serial="1")),
        SafeState("a", "b", OVER_VISA, Expect(), (), ramp()),
        SafeState("a", "b", OVER_VISA, Expect(), (), read_back=False),
    ],
)
def test_a_state_goes_to_another_process_as_one_line(state: SafeState) -> None:
    line = state.to_json()
    assert "\n" not in line
    assert SafeState.from_json(line) == state


@pytest.mark.parametrize("text", ["", "{}", "[]", STATE.to_json()[:-1] + ', "x": 1}'])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a safe state"):
        SafeState.from_json(text)


@pytest.mark.parametrize("talk", ["smoke", "", "a:", ":b", "a b:c", "a:b()", "a:b.c", "../a:b", "a\n:b", "ä:b"])
def test_a_talk_that_names_no_function_is_refused(talk: str) -> None:
    with pytest.raises(ConfigError, match="not a safe state"):
        SafeState.from_table({**json.loads(STATE.to_json()), "talk": talk})


@pytest.mark.parametrize("talk", ["no_such_module:f", "json:no_such_function"])
def test_a_conversation_that_is_not_there_is_tried_once_and_named(talk: str) -> None:
    (outcome,) = make_safe((replace(STATE, talk=talk),), 60.0)
    assert not outcome.verified
    assert outcome.attempt == 1
    assert talk in outcome.why


@given(low=VOLTS, high=VOLTS, a=st.floats(0, 1), b=st.floats(0, 1), slew=st.floats(0.5, 1000))
def test_no_step_of_a_ramp_breaks_slew_or_limits(low: float, high: float, a: float, b: float, slew: float) -> None:
    """From any range inside any limits; also between the two commands of a step: new amplitude, old offset."""
    if high - low < 0.01:
        low, high = min(low, high), min(low, high) + 0.01
    down = ramp(low, high, slew)
    bottom, top = sorted((low + a * (high - low), low + b * (high - low)))
    vpp, volts = max(top - bottom, 1e-3), 0.5 * (bottom + top)
    volts = min(max(volts, low + vpp / 2), high - vpp / 2)
    for amplitude, offset in down.levels(vpp, volts):
        for centre in (volts, offset):
            assert low - 1e-9 <= centre - amplitude / 2 <= centre + amplitude / 2 <= high + 1e-9
        assert abs(vpp - amplitude) / 2 + abs(volts - offset) <= slew * down.step_s * (1 + 1e-6)
        vpp, volts = amplitude, offset
    assert vpp == pytest.approx(1e-3)
    assert volts == pytest.approx(min(max(0.0, low + 5e-4), high - 5e-4), abs=1e-9)


class Watching:
    """A generator, and what was asked of its output: (on, Vpp, V) after each message."""

    def __init__(self, **options: float) -> None:
        self.box = SimulatedGenerator()
        self.levels: list[tuple[bool, float, float]] = []
        self.driver = Keysight33600(MessageLink(self), **options)  # type: ignore[arg-type]
        self.driver.prepare(1e6)
        self.driver.output(True)
        self.levels.clear()

    def execute(self, message: bytes) -> bytes | None:
        reply = self.box.execute(message)
        vpp, volts, on = (self.box.execute(q) or b"" for q in (b":SOUR1:VOLT?", b":SOUR1:VOLT:OFFS?", b":OUTP1?"))
        self.levels.append((on == b"1", float(vpp), float(volts)))
        return reply


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 2.0), (1.0, 3.0), (-3.0, -2.5)])
def test_the_driver_ramps_down_before_it_switches_off(low: float, high: float) -> None:
    bench = Watching(low_v=low, high_v=high, slew_v_per_s=20.0)
    bench.driver.safe()
    last = bench.levels[-1]
    assert not last[0]
    assert last[1] == pytest.approx(1e-3, rel=1e-3)
    assert abs(last[2]) == pytest.approx(max(0.0, low, -high) + (5e-4 if low > 0 or high < 0 else 0.0), abs=1e-6)
    before = (True, high - low, 0.5 * (low + high))
    for level in bench.levels:
        assert level[0] or level[1] < 2e-3, "switched off before it was down"
        assert abs(level[1] - before[1]) / 2 + abs(level[2] - before[2]) <= 20.0 * 0.02 * 1.001
        before = level
    assert bench.box.execute(b":SYST:ERR?").startswith(b"+0"), "the instrument refused a step"  # type: ignore[union-attr]
    sent = len(bench.levels)
    bench.driver.safe()
    assert len(bench.levels) == sent + 2  # is it on? off, is it?
    bench.driver.prepare(1e6)
    assert float(bench.box.execute(b":SOUR1:VOLT?") or 0) == pytest.approx(high - low)


class Stubborn:
    """Takes no amplitude below one volt; `seconds` pass with every exchange."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.vpp, self.on, self.now, self.seconds = 2.0, True, 0.0, 0.0

    def do(self, command: str, question: str) -> str:
        self.now += self.seconds
        self.sent.append(command)
        if ":SOUR1:VOLT " in command:
            self.vpp = max(1.0, float(command.split(";")[0].split()[1]))
        if command.startswith(":OUTP1 0"):
            self.on = False
        return str(int(self.on)) if question == ":OUTP1?" else f"{self.vpp};0"


def test_a_ramp_that_is_not_followed_is_given_up_and_the_output_goes_off_all_the_same() -> None:
    talk = Stubborn()
    state = SafeState("awg", "x", OVER_VISA, Expect(), STATE.steps, ramp(-1.0, 1.0))
    assert "at 1 Vpp" in carry_out(state, talk, sleep=lambda s: None)
    assert not talk.on


def test_a_ramp_that_takes_too_long_is_given_up() -> None:
    talk = Stubborn()
    talk.seconds = 1.5
    state = SafeState("awg", "x", OVER_VISA, Expect(), STATE.steps, ramp(-1.0, 1.0, slew=5.0))
    assert "slower" in carry_out(state, talk, clock=lambda: talk.now, sleep=lambda s: None)
    assert not talk.on
    assert talk.now < 3 * state.ramp.longest_s + 2.0 + 5 * 1.5  # type: ignore[union-attr]


def test_an_answer_that_does_not_mean_safe_is_none() -> None:
    box = SimulatedGenerator()
    box.execute(b":OUTP1 1")
    state = SafeState("awg", "x", OVER_VISA, Expect(), (Step("", ":OUTP1?", OFF),))
    with pytest.raises(CommandRefused, match="does not say that it is safe"):
        carry_out(state, ScpiTalk(Scpi(MessageLink(box))))


@pytest.mark.parametrize("bad", [{"slew": 0.0}, {"slew": math.nan}, {"slew": math.inf}, {"low_v": 1.0, "high_v": 1.0}])
def test_a_ramp_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="positive and finite"):
        ramp(**bad)


def test_the_driver_offers_its_state_with_who_answered() -> None:
    generator = Keysight33600(
        MessageLink(SimulatedGenerator(serial="MY7")), channel=2, low_v=-1.0, high_v=3.0, slew_v_per_s=2.0
    )
    state = generator.safe_state()
    assert (state.expect.serial, state.resource, state.steps[0].command) == ("MY7", "test link", ":OUTP2 0")
    assert "-1 and 3 V" in state.outputs
    assert state.ramp is not None
    assert (state.ramp.low_v, state.ramp.high_v, state.ramp.amplitude) == (-1.0, 3.0, ":SOUR2:VOLT")


class Late(MessageLink):
    """The answer to the last question never came; clear() would wait for it for ever."""

    def clear(self) -> None:
        raise AssertionError("waits on a dirty session")

    def reopen(self) -> None:
        self.gone = False
        super().clear()


def test_safe_never_waits_on_a_dirty_session() -> None:
    box = SimulatedGenerator()
    link = Late(box)
    generator = Keysight33600(link)
    generator.prepare(1e6)
    generator.output(True)
    link.gone = True
    with pytest.raises(Disconnected):
        generator.trigger()
    generator.safe()
    assert not box.drive(1).on


def test_one_that_cannot_be_asked_is_not_said_to_be_read_back() -> None:
    silent = replace(STATE, name="pico", read_back=False)
    assert outputs_after([STATE]) == "off, read back"
    assert outputs_after([STATE, silent]) == "off, but pico cannot be asked: what was sent is all that is known"


@pytest.mark.parametrize("name", ["shared", "read_back"])
def test_what_is_neither_true_nor_false_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"not a safe state.*{name}"):
        SafeState.from_table({**json.loads(STATE.to_json()), name: "no"})


def test_states_in_the_order_of_the_bench() -> None:
    a, b, c = (SafeState(name, name, OVER_VISA, Expect(), ()) for name in "abc")
    assert in_order((a, b, c), ("c", "a")) == (c, a, b)


def test_over_wires_of_their_own_one_that_fails_does_not_keep_the_others_on() -> None:
    with build(VirtualBench((AWG, VirtualBox("other", AWG.use, {"serial": "MY2"})), transport="both")) as bench:
        for box in bench.boxes.values():
            box.execute(b":OUTP1 1")  # type: ignore[attr-defined]
        other = bench.resources["other"]
        states = (
            SafeState("nobody", "TCPIP::127.0.0.1::9::SOCKET", OVER_VISA, Expect(), STATE.steps, None, "between -1 and 1 V"),
            SafeState("stranger", bench.sockets["other"], OVER_VISA, Expect(serial="MY1"), STATE.steps),
            SafeState("awg", bench.resources["awg"], OVER_VISA, Expect("Keysight"), STATE.steps),
        )
        tried = list(securing(states, 1.0))
        outcomes = {o.state.name: o for o in tried if o.last}
        assert [outcomes[n].verified for n in ("nobody", "stranger", "awg")] == [False, False, True]
        assert len([o for o in tried if o.state.name == "nobody"]) > 1
        assert len([o for o in tried if o.state.name == "stranger"]) == 1, "another try would find the same instrument"
        outputs = bench.control.outputs()
        assert not outputs["awg"]["1"]["on"]  # type: ignore[index]
        assert outputs["other"]["1"]["on"], "an instrument that is not ours was touched"  # type: ignore[index]
        said = str(unsafe(tuple(outcomes.values()), "test"))
        assert "nobody" in said
        assert "between -1 and 1 V" in said
        assert isinstance(unsafe(tuple(outcomes.values()), "test"), UnsafeOutputs)
        (again,) = make_safe((SafeState("other", other, OVER_VISA, Expect(serial="MY2"), STATE.steps),), 0.0)
        assert again.verified


@pytest.mark.parametrize("slew", [1e-9, 1e-320, 0.9 * 10.0 / 2000.0])
def test_a_ramp_that_is_too_slow_to_keep_its_slew_is_refused(slew: float) -> None:
    with pytest.raises(ConfigError, match=r"at least 0\.005 V/s"):
        Ramp(":OUTP1", ":V", ":O", slew, 1e-3, -5.0, 5.0)


def test_the_slowest_ramp_keeps_its_slew() -> None:
    ramp = Ramp(":OUTP1", ":V", ":O", 0.005, 1e-3, -5.0, 5.0)
    levels = [(0.0, 5.0), *ramp.levels(0.0, 5.0)]
    steps = [0.5 * abs(a - b) + abs(c - d) for (a, c), (b, d) in pairwise(levels)]
    assert max(steps) <= 0.005 * 0.02 * (1 + 1e-6)
