"""The drivers' contract, over an explicit list: each frame looks at the simulated box behind the driver for the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from scripted_link import MessageLink

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from hil.conformance import InstrumentUnderTest, Knob, check_instrument
from hil.errors import ContractError
from sim_devices.instruments.keysight_33600 import Keysight33600 as SimulatedGenerator
from sim_devices.instruments.keysight_infiniivision import InfiniiVision as SimulatedScope


def asked(box: SimulatedGenerator | SimulatedScope, query: str) -> float:
    """What the box itself says, past driver and link."""
    reply = box.execute(query.encode())
    assert reply is not None
    return float(reply)


class Generator:
    """The arbitrary-waveform generator."""

    def __init__(self) -> None:
        self.box = SimulatedGenerator()
        self.link = MessageLink(self.box)
        self.driver = Keysight33600(self.link)

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        rate = Knob("sample rate", self.driver.prepare, lambda: asked(self.box, "SOUR1:FUNC:ARB:SRAT?"), (1e6, 5e7), (2e9, 0.0))
        return [rate]

    def energise(self) -> bool:
        self.driver.output(True)
        return True

    def safe(self) -> None:
        self.driver.safe()

    def is_safe(self) -> bool:
        return asked(self.box, "OUTP1?") == 0 and asked(self.box, "OUTP2?") == 0

    def sent(self) -> int:
        return len(self.link.sent)

    def close(self) -> None:
        self.driver.close()


class Deaf(Generator):
    """The relay is welded: the driver can only say so."""

    def safe(self) -> None: ...


class Scope:
    """The oscilloscope: it drives nothing."""

    def __init__(self) -> None:
        self.box = SimulatedScope()
        self.link = MessageLink(self.box)
        self.driver = InfiniiVision(self.link, range_v=0.8)

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        def write(span_s: float) -> None:
            self.driver.configure(1000, 1000 / span_s, 0.0)

        return [Knob("time range", write, lambda: asked(self.box, ":TIM:RANG?"), (1e-5, 1e-3), (1e-9, -1e-3))]

    def energise(self) -> bool:
        return False

    def safe(self) -> None: ...

    def is_safe(self) -> bool:
        return True

    def sent(self) -> int:
        return len(self.link.sent)

    def close(self) -> None:
        self.driver.close()


@pytest.mark.parametrize("make", [Generator, Scope])
def test_instrument(make: Callable[[], InstrumentUnderTest]) -> None:
    assert check_instrument(make).passed


def test_an_output_that_stays_on_is_found_behind_the_driver() -> None:
    with pytest.raises(ContractError, match="an output stayed on"):
        check_instrument(Deaf)
