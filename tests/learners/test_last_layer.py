"""Only the readout learns, exactly; the hidden layers stay as drawn."""

from __future__ import annotations

import torch
from torch import nn

from hil.encoding import Encode
from hil.learners.backprop import Backprop
from hil.learners.last_layer import LastLayer
from hil.learners.parts.one_pass import LossSettings
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

LABEL = torch.tensor([0, 2, 1, 2])
TWIN = MachZehnder(noise=0.0)


def test_readout_is_exact_and_the_rest_is_frozen() -> None:
    torch.manual_seed(0)
    device = Simulated(TWIN)
    net = Network([Layer(nn.Linear(6, 5), device, Encode.onto(device.spec.inputs, 0.5)), Layer(nn.Linear(5, 3))])
    x, rng = torch.randn(4, 6, generator=generator(0, 0, "x")), generator(0, 0, "learner")
    Backprop.build(net, LossSettings(), 3, rng, TWIN.ideal).step(net, x, LABEL, rng)
    exact = [p.grad.clone() for p in net.stack[-1].parameters() if p.grad is not None]
    rule = LastLayer.build(net, LossSettings(), 3, rng)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    before = net.stack[0].synapse.weight.clone()  # type: ignore[operator]
    for number in range(3):
        rule.step(net, x, LABEL, generator(0, number, "step"))
        if number == 0:
            found = [p.grad for p in net.stack[-1].parameters()]
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(exact, found, strict=True) if b is not None)
        optimizer.step()
    assert torch.equal(before, net.stack[0].synapse.weight)  # type: ignore[arg-type]
    assert net.stack[0].synapse.weight.grad is None
