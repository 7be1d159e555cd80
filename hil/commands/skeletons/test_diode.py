import torch
from diode import Diode

from hil.conformance import check_twin
from sim_devices.simulated import Simulated


def test_the_twin_keeps_its_contract():
    check_twin(Diode)


def test_it_answers():
    device = Simulated(Diode(), seed=0)
    assert device.forward(torch.zeros(2, 3)).shape == (2, 3)
