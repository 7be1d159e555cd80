from acme_g1 import AcmeG1

from drivers.links.memory import MemoryLink
from hil.conformance import Knob, check_instrument
from sim_devices.instruments.template import AcmeG1 as SimulatedG1


class UnderTest:
    """The driver, and a view behind it."""

    def __init__(self):
        self.box = SimulatedG1()
        self.link = MemoryLink(self.box)
        self.driver = AcmeG1(self.link, low_v=-3.0, high_v=3.0)

    def identify(self):
        return self.driver.identity

    def knobs(self):
        def level():
            return float(self.box.execute(b":SOUR:VOLT?"))

        return [Knob("level", self.driver.level, level, allowed=(-3.0, 0.5, 3.0), refused=(3.1, -10.0))]

    def energise(self):
        self.driver.output(True)
        return True

    def safe(self):
        self.driver.safe()

    def is_safe(self):
        return float(self.box.execute(b":OUTP?")) == 0

    def sent(self):
        return len(self.link.sent)

    def close(self):
        self.driver.close()


def test_the_driver_keeps_its_contract():
    assert check_instrument(UnderTest).passed


def test_one_current_for_each_level():
    rig = UnderTest()
    rig.driver.output(True)
    assert rig.driver.sweep([0.0, 1.0]) == [0.0, float(f"{rig.box.current(1.0):.9E}")]
    rig.close()
