"""A small network on a counted modulator, for the learners that ask for losses alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hil.devices.meter import Metered
from hil.encoding import Decode, Encode
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

LABEL = torch.tensor([0, 2, 1, 2])
TWIN = MachZehnder(noise=0.0)


def x() -> Tensor:
    return torch.randn(4, 6, generator=generator(0, 0, "x"))


def network() -> tuple[Network, Metered]:
    torch.manual_seed(0)
    device = Metered(Simulated(TWIN))
    encode = Encode.onto(device.spec.inputs, 0.5)
    return Network([Layer(nn.Linear(6, 5), device, encode, Decode(0.18, 0.18)), Layer(nn.Linear(5, 3))]), device


def flat(net: Network) -> Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
