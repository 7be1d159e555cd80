"""The state of many neurons is kept with the tensors of a checkpoint, and a training goes on from it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from hil.data.dataset import load
from hil.device import ArraySpec
from hil.devices.meter import MeteredChip
from hil.encoding import Encode
from hil.learners.ffgaf import FFGAF, FFGAFSettings
from hil.network import Layer, Network
from hil.run.checkpoint import load as loaded
from hil.run.checkpoint import save
from hil.seeding import generator
from hil.training.state import Training, TrainingPlan
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

NEURONS = 2000
BATCH = 64


def training() -> Training:
    torch.manual_seed(0)
    chip = MeteredChip(TwinChip(Neuron(noise=0.1)))
    array = chip.array(ArraySpec(NEURONS))
    net = Network([Layer(nn.Linear(64, NEURONS), array, Encode.onto(array.spec.inputs, 4.0)), Layer(nn.Linear(NEURONS, 20))])
    rule = FFGAF.build(net, FFGAFSettings(time_steps=3), 10, generator(0, 0, "learner"))
    return Training(
        net, rule, torch.optim.SGD(net.parameters(), 0.1), load("digits"), TrainingPlan(0, 1, BATCH), tuple(chip.devices)
    )


def test_membranes_are_tensors_of_a_checkpoint_and_the_noise_goes_on(tmp_path: Path) -> None:
    one, other = training(), training()
    (device,) = one.devices
    x = torch.rand(3, BATCH, NEURONS, generator=torch.Generator().manual_seed(1))
    device.forward(x)
    path = save(tmp_path, "step-00000001", one.checkpoint())
    assert path.stat().st_size < 10_000  # 256,000 numbers of state are not in it
    point = loaded(path)
    assert any(name.startswith("device.0.") and tensor.shape == (BATCH, NEURONS) for name, tensor in point.tensors.items())
    other.restore(point)
    assert torch.equal(device.forward(x), other.devices[0].forward(x))
