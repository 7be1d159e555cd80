"""The driver to copy keeps the contract of a driver as it stands, and refuses what a copy must not lose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from drivers.links.memory import MemoryLink
from drivers.safe import SafeState, carry_out
from drivers.scpi import Scpi
from drivers.scpi_talk import ScpiTalk
from drivers.template import MOST_LEVELS, AcmeG1
from hil.conformance import Knob, check_instrument
from hil.errors import CommandRefused, ContractError, Desync, DirtySession, OutOfRange, UnsafeOutputs, WrongInstrument
from sim_devices.instruments.template import AcmeG1 as SimulatedG1


class G1:
    """The driver, and the simulated instrument behind it."""

    def __init__(self) -> None:
        self.box = SimulatedG1()
        self.link = MemoryLink(self)
        self.driver = AcmeG1(self.link, low_v=-3.0, high_v=5.0)
        self.say: dict[bytes, bytes] = {}  # beginning of a message -> what is answered instead

    def execute(self, message: bytes) -> bytes | None:
        reply = self.box.execute(message)
        return next((said for lead, said in getattr(self, "say", {}).items() if message.startswith(lead)), reply)

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        def level() -> float:
            return float(self.box.execute(b":SOUR:VOLT?") or b"nan")

        return [Knob("level", self.driver.level, level, (-3.0, 0.125, 5.0), (5.1, -3.1, 10.0))]

    def energise(self) -> bool:
        self.driver.output(True)
        return True

    def safe(self) -> None:
        self.driver.safe()

    def is_safe(self) -> bool:
        return self.box.outputs()["1"]["on"] is False  # type: ignore[index,call-overload]

    def sent(self) -> int:
        return len(self.link.sent)

    def close(self) -> None:
        self.driver.close()


def test_it_keeps_the_contract_of_a_driver() -> None:
    assert check_instrument(G1).passed


def test_one_current_for_each_level() -> None:
    g1 = G1()
    g1.driver.output(True)
    levels = [-3.0, 0.0, 1.5]
    assert g1.driver.sweep(levels) == pytest.approx([g1.box.current(volts) for volts in levels], rel=1e-9)


@pytest.mark.parametrize("levels", [[0.0, 5.1], [-3.5], [1.0, math.nan], [math.inf]])
def test_a_sweep_out_of_limits_sends_nothing(levels: list[float]) -> None:
    g1 = G1()
    g1.driver.output(True)
    before = g1.sent()
    with pytest.raises(OutOfRange):
        g1.driver.sweep(levels)
    assert g1.sent() == before


@pytest.mark.parametrize("count", [0, MOST_LEVELS + 1])
def test_a_sweep_of_a_wrong_length_sends_nothing(count: int) -> None:
    g1 = G1()
    before = g1.sent()
    with pytest.raises(ContractError):
        g1.driver.sweep([0.0] * count)
    assert g1.sent() == before


@pytest.mark.parametrize("answer", [b"1e-3", b"1e-3,2e-3,3e-3", b"1e-3,nan", b"1e-3,", b"1e-3,x", b"1e-3,1_5"])
def test_an_answer_that_does_not_fit_is_no_measurement_and_the_wire_is_not_used_again(answer: bytes) -> None:
    g1 = G1()
    g1.driver.output(True)
    g1.say = {b":SOUR:SWE?": answer}
    with pytest.raises(Desync):
        g1.driver.sweep([0.0, 1.0])
    with pytest.raises(DirtySession):
        g1.driver.level(0.0)


def test_an_output_that_does_not_switch_is_told() -> None:
    g1 = G1()
    g1.say = {b":OUTP 1": b"0"}
    with pytest.raises(CommandRefused, match="did not switch"):
        g1.driver.output(True)
    g1.say = {b":OUTP 0": b"1"}
    with pytest.raises(UnsafeOutputs, match="G1 SIM-G1-0001"):
        g1.driver.close()
    assert g1.link.closed


def test_nothing_switches_on_after_it_was_closed() -> None:
    g1 = G1()
    g1.driver.close()
    with pytest.raises(ContractError, match="closed"):
        g1.driver.output(True)
    assert g1.is_safe()


def test_another_process_can_make_it_safe() -> None:
    g1 = G1()
    g1.driver.output(True)
    state = SafeState.from_json(g1.driver.safe_state().to_json())
    scpi = Scpi(MemoryLink(g1.box), expect=state.expect)
    scpi.identify()
    assert not g1.is_safe()
    carry_out(state, ScpiTalk(scpi))
    assert g1.is_safe()


@pytest.mark.parametrize(("low_v", "high_v"), [(-10.5, 1.0), (-1.0, 11.0), (2.0, 1.0), (math.nan, 1.0)])
def test_limits_may_be_narrowed_never_widened(low_v: float, high_v: float) -> None:
    link = MemoryLink(SimulatedG1())
    with pytest.raises(OutOfRange):
        AcmeG1(link, low_v=low_v, high_v=high_v)
    assert link.sent == []
    assert link.closed


def test_another_instrument_is_refused_before_anything_is_set() -> None:
    class Other:
        def execute(self, message: bytes) -> bytes | None:
            return b"Acme,G2,1,1.0"

    link = MemoryLink(Other())
    with pytest.raises(WrongInstrument):
        AcmeG1(link)
    assert link.sent == [b"*IDN?"]
    assert link.closed
