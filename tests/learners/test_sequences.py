"""Inputs that change with time: every spiking learner against automatic differentiation, or the equation written out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from spiking_net import LABEL, close, gradients, network, rng
from torch import Tensor, nn
from torch.nn import functional

from hil.device import ArraySpec
from hil.encoding import Encode
from hil.errors import ConfigError
from hil.learner import Learner
from hil.learners.adfa_snn import ADFASNN
from hil.learners.bptt import BPTT
from hil.learners.ottt import OTTT
from hil.learners.parts.neuron_model import fired
from hil.learners.parts.shown import Shown
from hil.learners.parts.spiking_pass import chunks, rates
from hil.learners.saf import SAFE, SAFF
from hil.learners.spide import SPIDE
from hil.learners.spike_representation import SpikeRepresentation
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

T = 6
LEAK, V_TH = 0.5, 1.0


def sequences(frames: int = T) -> Tensor:
    """(12, frames, 6), multiples of 1/8."""
    return torch.randint(-8, 9, (12, frames, 6), generator=generator(0, 0, "sequences")) / 8.0


def one_hidden() -> Network:
    return network(Neuron(leak=LEAK, v_th=V_TH), widths=(6, 14, 3))


def learner(kind: Any, net: Network, **settings: object) -> Any:
    return kind.build(net, kind.Settings(**settings), 3, generator(0, 0, "learner"))


def step(kind: Any, net: Network, x: Tensor, **settings: object) -> list[Tensor]:
    learner(kind, net, **{"time_steps": T, **settings}).step(net, x, LABEL, rng())
    return gradients(net)


def mixed(scores: Tensor) -> Tensor:
    """The loss of the rate learners: 0.95 cross entropy + 0.05 mean square, as their settings say."""
    return BPTT(BPTT.Settings(), 3).loss.of(scores, LABEL)


def by_hand(net: Network, x: Tensor, *, reset_path: bool, each_step: bool) -> list[Tensor]:
    """The gradient through time of a net with one hidden layer, by automatic differentiation of its equations.

    Args:
        net: the network.
        x: (batch, time, features).
        reset_path: differentiate through the reset too.
        each_step: the loss is that of each step's scores, else that of the mean rate.
    """
    net.zero_grad(set_to_none=True)
    first, last = net.stack[0].synapse, net.stack[1].synapse
    v = s = total = torch.zeros(12, 14)
    loss = torch.zeros(())
    for t in range(T):
        v = LEAK * (v - V_TH * (s if reset_path else s.detach())) + first(x[:, t])
        s = fired(v - V_TH, 4.0)
        total = total + s
        if each_step:
            loss = loss + mixed(last(s)) / T
    (loss if each_step else mixed(last(total / T))).backward()
    return gradients(net)


def test_frames_reach_the_first_synapse_one_after_the_other() -> None:
    x, net = sequences(3), one_hidden()
    pre = torch.cat([part.pre[0] for part in chunks(net, x, T, 4)])
    wanted = torch.stack([net.stack[0].synapse(x[:, t // 2]) for t in range(T)])
    assert torch.equal(pre, wanted)
    assert not torch.equal(pre[0], pre[2])


def test_a_sequence_that_stays_is_an_example_that_stays() -> None:
    x = sequences()[:, 0]
    held = x.unsqueeze(1).expand(-1, T, -1)
    net = network()
    assert torch.equal(rates(net, x, T, 2), rates(net, held, T, 2))
    for kind, more in ((ADFASNN, {}), (ADFASNN, {"error": "running"}), (SAFF, {}), (SpikeRepresentation, {}), (BPTT, {})):
        assert close(step(kind, network(), x, **more), step(kind, network(), held, **more)), kind


def test_means_and_traces() -> None:
    x = sequences(3)
    shown = Shown(x, T)
    steps = [x[:, t // 2] for t in range(T)]
    weights = [0.5 ** (T - 1 - t) for t in range(T)]
    wanted = sum((w * one for w, one in zip(weights, steps, strict=True)), torch.zeros(())) / sum(weights)
    assert torch.allclose(shown.mean(0.5), wanted, atol=1e-6)
    for t, trace in enumerate(shown.traces(0.5)):
        assert torch.allclose(trace, sum((0.5 ** (t - k) * steps[k] for k in range(t + 1)), torch.zeros(())))
    assert [shown.begins(t) for t in range(T)] == [True, False] * 3


def test_steps_that_are_no_multiple_of_the_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 frames"):
        Shown(sequences(4), T)


def test_bptt_is_the_gradient_through_time() -> None:
    x, net = sequences(), one_hidden()
    assert close(by_hand(net, x, reset_path=True, each_step=False), step(BPTT, net, x))


@pytest.mark.parametrize("kind", [OTTT, SAFE])
def test_online_rules_have_the_gradient_through_time_of_one_layer_without_its_reset(kind: Any) -> None:
    """With one hidden layer OTTT's gradient leaves out nothing but the path through the reset; its biases have no trace."""
    x, net = sequences(), one_hidden()
    wanted = by_hand(net, x, reset_path=False, each_step=True)
    assert close(wanted[:1], step(kind, net, x, update="accumulated")[:1])


@pytest.mark.parametrize("update", ["accumulated", "per_step"])
def test_saf_e_is_ottt_in_depth(update: str) -> None:
    found = []
    for kind in (SAFE, OTTT):
        net = network()
        made = learner(kind, net, time_steps=T, update=update)
        found.append([gradients(net) for _ in made.updates(net, sequences(), LABEL, rng())])
    assert len(found[0]) == (T if update == "per_step" else 1)
    assert all(close(one, other) for one, other in zip(*found, strict=True))
    if update == "per_step":
        assert not close(found[0][0], found[0][1])


def test_saf_f_is_the_spike_representation_in_depth() -> None:
    ours, theirs = network(), network()
    assert close(step(SAFF, ours, sequences()), step(SpikeRepresentation, theirs, sequences()))
    slope = ours.stack[0].synapse.weight.grad
    step(SAFF, ours, sequences().flip(1))
    assert not torch.allclose(slope, ours.stack[0].synapse.weight.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("presynaptic", ["spike", "trace"])
@pytest.mark.parametrize("error", ["mean", "running"])
def test_adfa_is_its_sum_over_the_steps(error: str, presynaptic: str) -> None:
    x, net = sequences(), one_hidden()
    made = learner(ADFASNN, net, time_steps=T, error=error, presynaptic=presynaptic)
    made.step(net, x, LABEL, rng())
    found = net.stack[0].synapse.weight.grad
    (b,) = made.projection.buffers()
    last, g = net.stack[1].synapse, made.feedback.g
    spikes = torch.cat([part.spikes[0] for part in chunks(net, x, T, 1)])
    v = s = trace = torch.zeros(())
    slopes, inputs = [], []
    for t in range(T):
        v = LEAK * (v - V_TH * s) + net.stack[0].synapse(x[:, t]).detach()
        s, trace = spikes[t], LEAK * trace + x[:, t]
        slopes.append(g(v - V_TH))
        inputs.append(trace / sum(LEAK**k for k in range(t + 1)) if presynaptic == "trace" else x[:, t])

    def projected(rate: Tensor) -> Tensor:
        scores = last(rate).detach()
        return (scores.softmax(1) - functional.one_hot(LABEL, 3)) / 12 @ b.T

    if error == "mean":
        wanted = (projected(spikes.mean(0)) * torch.stack(slopes).mean(0)).T @ torch.stack(inputs).mean(0)
    else:
        wanted = sum(((projected(spikes[: t + 1].mean(0)) * slopes[t]).T @ inputs[t] / T for t in range(T)), torch.zeros(()))
    assert torch.allclose(found, wanted, atol=1e-6)  # type: ignore[arg-type]


def rounding(widths: tuple[int, ...] = (6, 14, 12, 3)) -> Network:
    torch.manual_seed(0)
    chip = TwinChip(Neuron(leak=1.0, v_th=1.0, v_rest=-1.0))
    layers = [Layer(nn.Linear(*pair)) for pair in pairwise(widths)]
    for layer, width in zip(layers, widths[1:-1], strict=False):
        layer.device = chip.array(ArraySpec(width))
        layer.encode = Encode.onto(layer.device.spec.inputs, gain=2.0)
    return Network(layers, chip=chip)


def test_spide_moves_towards_what_the_clip_of_the_mean_input_says() -> None:
    """The equilibrium without leak is that of the mean input; its gradient by automatic differentiation."""
    x, net = sequences(4), rounding()
    x = (x.mean(1, keepdim=True) + 0.4 * (x - x.mean(1, keepdim=True))).repeat(1, 100, 1)
    made = learner(SPIDE, net, forward_steps=400, backward_steps=400)
    for _ in range(3):  # the scales settle
        made.step(net, x, LABEL, rng())
    found = gradients(net)
    net.zero_grad(set_to_none=True)
    h = x.mean(1)
    for layer in net.stack[:-1]:
        h = layer.synapse(h).clamp(0, 1)
    functional.cross_entropy(net.stack[-1].synapse(h), LABEL).backward()
    for one, wanted in zip(found, gradients(net), strict=True):
        assert torch.cosine_similarity(one.flatten(), wanted.flatten(), dim=0) > 0.98


KINDS: dict[str, Callable[[Network], Learner]] = {
    kind.__name__: lambda net, kind=kind: learner(kind, net, time_steps=T)  # type: ignore[misc]
    for kind in (ADFASNN, BPTT, OTTT, SAFE, SAFF, SpikeRepresentation)
}


@pytest.mark.parametrize("name", KINDS)
def test_prediction_and_trace_see_the_order_of_the_frames(name: str) -> None:
    net = network()
    made: Any = KINDS[name](net)
    x = sequences()
    assert not torch.equal(made.predict(net, x), made.predict(net, x.flip(1)))
    trace = made.trace(net, x)
    assert trace.inputs[0].shape == (12, 6)
    assert torch.allclose(trace.outputs[-1], made.predict(net, x), atol=1e-6)
