"""The drivers' contract, over an explicit list of model and wire: each frame looks at the box behind for the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from wired import Counting

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.keysight_m8195a import KeysightM8195A
from drivers.red_pitaya import PitayaGenerator, PitayaScope
from drivers.rigol_dg import RigolDG
from drivers.rigol_scope import RigolScope
from drivers.rohde_schwarz_rtb import RohdeSchwarzRTB
from drivers.safe import SafeState, carry_out, conversation
from drivers.siglent_sdg import SiglentSDG
from drivers.siglent_sds import SiglentSDS
from drivers.tektronix_afg31000 import TektronixAFG31000
from drivers.tektronix_mso import TektronixMSO
from drivers.tektronix_tbs import TektronixTBS
from hil.conformance import Knob, check_instrument
from hil.errors import ContractError
from sim_devices.instruments.generator_box import GeneratorBox
from sim_devices.instruments.keysight_33600 import Keysight33600 as SimulatedKeysight33600
from sim_devices.instruments.keysight_infiniivision import InfiniiVision as SimulatedInfiniiVision
from sim_devices.instruments.keysight_m8195a import KeysightM8195A as SimulatedKeysightM8195A
from sim_devices.instruments.red_pitaya import RedPitaya as SimulatedRedPitaya
from sim_devices.instruments.rigol_dg import RigolDG as SimulatedRigolDG
from sim_devices.instruments.rigol_scope import RigolScope as SimulatedRigolScope
from sim_devices.instruments.rohde_schwarz_rtb import RohdeSchwarzRTB as SimulatedRohdeSchwarzRTB
from sim_devices.instruments.scope_box import ScopeBox
from sim_devices.instruments.siglent_sdg import SiglentSDG as SimulatedSiglentSDG
from sim_devices.instruments.siglent_sds import SiglentSDS as SimulatedSiglentSDS
from sim_devices.instruments.tektronix_afg31000 import TektronixAFG31000 as SimulatedTektronixAFG31000
from sim_devices.instruments.tektronix_mso import TektronixMSO as SimulatedTektronixMSO
from sim_devices.instruments.tektronix_tbs import TektronixTBS as SimulatedTektronixTBS


class Generator:
    """A generator: its sample rate, and its relays."""

    beyond_hz = 2e9

    def __init__(self, driver: Callable[..., Any], box: Any, wire: str, least_hz: float = 1e6) -> None:
        self.box: GeneratorBox = next(iter(getattr(box, "parts", (box,))))
        self.wire, self.least_hz = Counting(box, wire), least_hz
        self.driver = driver(self.wire.link)

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        allowed = (self.least_hz, 5e7)
        return [Knob("sample rate", self._prepare, self._rate_hz, allowed, (self.beyond_hz, 0.0, math.nan))]

    def _prepare(self, rate_hz: float) -> None:
        """Some have a rate only with a record."""
        self.driver.prepare(rate_hz)
        self.driver.upload(np.zeros(self.driver.memory.least, np.int16))

    def _rate_hz(self) -> float:
        (number,) = self.driver.channels
        return self.box._rate(self.box._channels[number], self.driver.memory.least)

    def energise(self) -> bool:
        self.driver.output(True)
        return any(self.box.on(n) for n in (1, 2))

    def safe(self) -> None:
        self.driver.safe()

    def is_safe(self) -> bool:
        return not any(self.box.on(n) for n in (1, 2))

    def sent(self) -> int:
        return len(self.wire.sent)

    def close(self) -> None:
        self.driver.close()
        self.wire.done()


class Repeating(Generator):
    """Each sample is sent many times."""

    beyond_hz = 70e9

    def _rate_hz(self) -> float:
        return super()._rate_hz() / self.driver._times


class Deaf(Generator):
    """The relay is welded: the driver can only say so."""

    def safe(self) -> None: ...


class Scope:
    """An oscilloscope drives nothing: its time axis."""

    def __init__(self, driver: Callable[..., Any], box: Any, wire: str, spans_s: tuple[float, ...] = (1e-5, 1e-3)) -> None:
        self.spans_s = spans_s
        self.box: ScopeBox = list(getattr(box, "parts", (box,)))[-1]
        self.wire = Counting(box, wire)
        self.driver = driver(self.wire.link, range_v=0.8)

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        def write(span_s: float) -> None:
            self.driver.configure(1000, 1000 / span_s, 0.0)

        def read() -> float:
            window = self.box.window()
            return min(window.points, 1000) / window.rate_hz

        return [Knob("time range", write, read, self.spans_s, (1e-9, -1e-3))]

    def energise(self) -> bool:
        return False

    def safe(self) -> None: ...

    def is_safe(self) -> bool:
        return True

    def sent(self) -> int:
        return len(self.wire.sent)

    def close(self) -> None:
        self.driver.close()
        self.wire.done()


def keysight_33600(wire: str, kind: type[Generator] = Generator) -> Generator:
    return kind(Keysight33600, SimulatedKeysight33600(), wire)


def keysight_33500(wire: str) -> Generator:
    return Generator(Keysight33600, SimulatedKeysight33600(model="33522B"), wire)


def siglent_sdg2000x(wire: str) -> Generator:
    return Generator(SiglentSDG, SimulatedSiglentSDG(), wire)


def siglent_sdg1000x(wire: str) -> Generator:
    return Generator(SiglentSDG, SimulatedSiglentSDG(model="SDG1032X"), wire)


def infiniivision_3000(wire: str) -> Scope:
    return Scope(InfiniiVision, SimulatedInfiniiVision(), wire)


def rigol_dg800(wire: str) -> Generator:
    return Generator(RigolDG, SimulatedRigolDG(), wire)


def tektronix_afg31000(wire: str) -> Generator:
    return Generator(TektronixAFG31000, SimulatedTektronixAFG31000(), wire)


def siglent_sds(wire: str) -> Scope:
    return Scope(SiglentSDS, SimulatedSiglentSDS(), wire)


def rigol(model: str, edge: int) -> Callable[[str], Scope]:
    def made(wire: str) -> Scope:
        box = SimulatedRigolScope(model=model, trigger_channel=edge)
        return Scope(lambda link, **given: RigolScope(link, trigger_channel=edge, **given), box, wire)

    return made


def tektronix_mso(model: str) -> Callable[[str], Scope]:
    return lambda wire: Scope(TektronixMSO, SimulatedTektronixMSO(model=model), wire, (8e-6, 8e-4))


def tektronix_tbs(model: str, edge: int) -> Callable[[str], Scope]:
    def made(wire: str) -> Scope:
        box = SimulatedTektronixTBS(model=model, trigger_channel=edge)
        return Scope(lambda link, **given: TektronixTBS(link, trigger_channel=edge, **given), box, wire, (8e-6, 8e-4))

    return made


def rohde_schwarz_rtb(wire: str) -> Scope:
    return Scope(RohdeSchwarzRTB, SimulatedRohdeSchwarzRTB(), wire)


def keysight_m8195a(wire: str) -> Generator:
    return Repeating(KeysightM8195A, SimulatedKeysightM8195A(), wire)


def pitaya_outputs(wire: str) -> Generator:
    return Generator(PitayaGenerator, SimulatedRedPitaya(), wire)


def pitaya_inputs(wire: str) -> Scope:
    return Scope(lambda link, range_v: PitayaScope(link, range_v=2.0), SimulatedRedPitaya(), wire, (8e-6, 8e-4))


PAIRS: list[tuple[str, Callable[[str], Any], str]] = [  # instrument, frame, wire
    ("Keysight 33622A", keysight_33600, "memory"),
    ("Keysight 33622A", keysight_33600, "hislip"),
    ("Keysight 33622A", keysight_33600, "socket"),
    ("Keysight 33522B", keysight_33500, "hislip"),
    ("Keysight 33522B", keysight_33500, "vxi11"),
    ("Siglent SDG2042X", siglent_sdg2000x, "memory"),
    ("Siglent SDG2042X", siglent_sdg2000x, "hislip"),
    ("Siglent SDG2042X", siglent_sdg2000x, "vxi11"),
    ("Siglent SDG1032X", siglent_sdg1000x, "hislip"),
    ("Rigol DG832", rigol_dg800, "memory"),
    ("Rigol DG832", rigol_dg800, "hislip"),
    ("Rigol DG832", rigol_dg800, "socket"),
    ("Rigol DG832", rigol_dg800, "vxi11"),
    ("Tektronix AFG31052", tektronix_afg31000, "memory"),
    ("Tektronix AFG31052", tektronix_afg31000, "hislip"),
    ("Tektronix AFG31052", tektronix_afg31000, "socket"),
    ("Tektronix AFG31052", tektronix_afg31000, "vxi11"),
    ("Keysight DSO-X 3024T", infiniivision_3000, "memory"),
    ("Keysight DSO-X 3024T", infiniivision_3000, "hislip"),
    ("Keysight DSO-X 3024T", infiniivision_3000, "socket"),
    ("Keysight DSO-X 3024T", infiniivision_3000, "vxi11"),
    ("Siglent SDS1104X HD", siglent_sds, "memory"),
    ("Siglent SDS1104X HD", siglent_sds, "hislip"),
    ("Siglent SDS1104X HD", siglent_sds, "socket"),
    ("Siglent SDS1104X HD", siglent_sds, "vxi11"),
    ("Rigol DS1104Z", rigol("DS1104Z", 4), "memory"),
    ("Rigol DS1104Z", rigol("DS1104Z", 4), "hislip"),
    ("Rigol DS1104Z", rigol("DS1104Z", 4), "socket"),
    ("Rigol DS1104Z", rigol("DS1104Z", 4), "vxi11"),
    ("Rigol DS1202Z-E", rigol("DS1202Z-E", 0), "hislip"),
    ("Rigol DHO804", rigol("DHO804", 2), "hislip"),
    ("Rigol DHO804", rigol("DHO804", 2), "socket"),
    ("Rigol DHO804", rigol("DHO804", 2), "vxi11"),
    ("Rigol DHO802", rigol("DHO802", 0), "socket"),
    ("Tektronix MSO54", tektronix_mso("MSO54"), "memory"),
    ("Tektronix MSO54", tektronix_mso("MSO54"), "hislip"),
    ("Tektronix MSO54", tektronix_mso("MSO54"), "socket"),
    ("Tektronix MSO54", tektronix_mso("MSO54"), "vxi11"),
    ("Tektronix MSO24", tektronix_mso("MSO24"), "hislip"),
    ("Tektronix TBS1072C", tektronix_tbs("TBS1072C", 0), "memory"),
    ("Tektronix TBS1072C", tektronix_tbs("TBS1072C", 0), "hislip"),
    ("Tektronix TBS2204B", tektronix_tbs("TBS2204B", 4), "socket"),
    ("Tektronix TBS2204B", tektronix_tbs("TBS2204B", 4), "vxi11"),
    ("R&S RTB2004", rohde_schwarz_rtb, "memory"),
    ("R&S RTB2004", rohde_schwarz_rtb, "hislip"),
    ("R&S RTB2004", rohde_schwarz_rtb, "socket"),
    ("R&S RTB2004", rohde_schwarz_rtb, "vxi11"),
    ("Keysight M8195A", keysight_m8195a, "memory"),
    ("Keysight M8195A", keysight_m8195a, "hislip"),
    ("Keysight M8195A", keysight_m8195a, "socket"),
    ("Red Pitaya, outputs", pitaya_outputs, "memory"),
    ("Red Pitaya, outputs", pitaya_outputs, "socket"),
    ("Red Pitaya, inputs", pitaya_inputs, "memory"),
    ("Red Pitaya, inputs", pitaya_inputs, "socket"),
]


@pytest.fixture(params=PAIRS, ids=[f"{name} over {wire}" for name, _, wire in PAIRS])
def pair(request: pytest.FixtureRequest) -> Callable[[], Any]:
    _, frame, wire = request.param
    return lambda: frame(wire)


def test_instrument(pair: Callable[[], Any]) -> None:
    assert check_instrument(pair).passed


GENERATORS = [(frame, "hislip") for frame in (
    keysight_33600, keysight_33500, siglent_sdg2000x, siglent_sdg1000x, rigol_dg800, tektronix_afg31000, keysight_m8195a,
)] + [(pitaya_outputs, "socket")]  # fmt: skip


@pytest.mark.parametrize(("frame", "wire"), GENERATORS)
def test_a_wire_of_its_own_makes_the_output_safe(frame: Callable[[str], Generator], wire: str) -> None:
    """As the guardian does when the program that switched it on is dead."""
    generator = frame(wire)
    try:
        generator.driver.prepare(generator.least_hz)
        assert generator.energise()
        state = SafeState.from_json(generator.driver.safe_state().to_json())
        with conversation(state)(state) as talk:
            assert carry_out(state, talk) == ""
        assert generator.is_safe()
    finally:
        generator.close()


def test_an_output_that_stays_on_is_found_behind_the_driver() -> None:
    with pytest.raises(ContractError, match="an output stayed on"):
        check_instrument(lambda: keysight_33600("memory", Deaf))
