from __future__ import annotations

import pytest
import torch
from spiking_net import LABEL, examples, network, rng
from torch import Tensor, nn

from hil.devices.meter import MeteredChip
from hil.devices.traffic import watched
from hil.learners.bptt import BPTT
from hil.learners.parts.operations import Operations, counting
from hil.learners.parts.rate_learner import OnlineSettings, RateSettings
from hil.learners.saf import SAFF
from hil.learners.spide import SPIDE, SPIDESettings
from hil.network import accumulate
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

WIDTHS = (6, 14, 11, 3)


def connections(conv: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """(outputs, inputs): 1 where a weight connects them."""
    with torch.no_grad():
        for param in conv.parameters():
            param.fill_(1.0)
    found = torch.autograd.functional.jacobian(lambda x: conv(x).flatten(), torch.zeros(1, *shape))
    with torch.no_grad():
        for param in conv.parameters():
            param.normal_()
    return found.flatten(1)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 3, 3, 2, 1, bias=False),
        nn.ConvTranspose2d(2, 3, 3, 2, 1, 1, bias=False),
        nn.Conv2d(2, 4, 3, 1, 1, bias=False, groups=2),
    ],
    ids=["strided", "transposed", "in groups"],
)
def test_convolutions_are_counted_with_their_borders(conv: nn.Module) -> None:
    torch.manual_seed(0)
    joined = connections(conv, (2, 5, 5))
    spikes = (torch.rand(4, 2, 5, 5) < 0.3).float()
    answer = conv(spikes).detach()
    delta = torch.randn_like(answer) * (torch.rand_like(answer) < 0.4)
    point = spikes.clone().requires_grad_()
    with counting(torch.zeros(0)) as found:
        with torch.no_grad():
            conv(spikes)
        (conv(point) * delta).sum().backward()
    sent, errors = spikes.flatten(1), delta.ne(0).float().flatten(1)
    update = float((errors @ joined * sent).sum())
    assert found.forward == Operations(float((sent @ joined.T).sum()), 0.0)
    assert found.backward == Operations(update, float((errors @ joined).sum()))


def test_of_a_spiking_network_every_spike_counts_once_for_each_target() -> None:
    chip = MeteredChip(TwinChip(Neuron(leak=1.0, v_th=1.0, v_rest=-1.0)))
    net = network(chip=chip)
    net.chip = chip
    learner, x = SPIDE.build(net, SPIDESettings(forward_steps=9, backward_steps=7), 3, rng()), examples()
    with watched(chip.devices) as seen, counting(x) as found:
        learner.step(net, x, LABEL, rng())
    first, second, *couples = (one.fired for one in seen)
    assert found.forward == Operations(
        first * 11 + second * 3, float(x.count_nonzero()) * 14
    )  # the readout sees sums of spikes
    assert 0 < found.backward.accumulations <= couples[1] * 14  # where m = 1
    rows = len(x)
    assert found.backward.multiplications <= rows * (6 * 14 + 14 * 11 + 2 * 11 * 3)  # rates, once a batch


def test_through_time_every_step_carries_numbers_back() -> None:
    def step(kind: type[BPTT | SAFF], settings: RateSettings) -> float:
        net = network()
        learner = kind(settings, 3)
        with counting(examples()) as found:
            learner.step(net, examples(), LABEL, rng())
        return found.backward.multiplications

    long, short, once = (
        step(BPTT, OnlineSettings(time_steps=8)),
        step(BPTT, OnlineSettings(time_steps=4)),
        step(SAFF, RateSettings(time_steps=8)),
    )
    assert long > short + 3 * 12 * 14 * 11
    assert once < short


def test_a_synapse_run_once_more_for_its_gradient_is_no_second_answer() -> None:
    synapse, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU()), torch.randn(3, 5)
    with counting(torch.zeros(0)) as found, torch.no_grad():
        accumulate(synapse, x, synapse(x))
    assert found.forward == Operations(0.0, 3 * 5 * 4)


def test_energy_and_accesses_follow_the_rule() -> None:
    one = Operations(1000.0, 100.0)
    assert one.energy_j == pytest.approx((900 + 460) * 1e-12)
    assert one.accesses == 3400
    assert one.table(10)["accumulations"] == 100
