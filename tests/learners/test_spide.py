from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from drivers.links.serial_link import SerialLink
from drivers.spiking.device import SpikingBoard
from hil.build.network import chain_of
from hil.cli import run
from hil.config.experiment import experiment_of
from hil.contraction import Contracted, conv_feedback, dense_feedback
from hil.data.dataset import Dataset, Split, load
from hil.device import ArraySpec, Chip, Device
from hil.devices.meter import MeteredChip
from hil.encoding import Encode
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.learners.parts.equilibrium import Linearised, by_events, measured_quantum, settle
from hil.learners.parts.operations import counting
from hil.learners.spide import SPIDE, SPIDESettings
from hil.network import Layer, Network
from hil.run import checkpoint
from hil.seeding import generator
from hil.synapses import conv, dense, flat_widths
from hil.training import session
from hil.training.loop import Epoch, TrainingStep, train
from hil.training.state import Training
from sim_devices.bench.board import VirtualBoard, board_server
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

ROUNDING = Neuron(leak=1.0, v_th=1.0, v_rest=-1.0)
LABEL = torch.arange(24) % 3
STRUCTURES = ("self feedback", "feedback over two layers", "feed-forward", "convolutional feedback")


def x(rows: int = 24) -> Tensor:
    return torch.rand(rows, 36, generator=generator(0, 0, "x"))


def network(
    structure: str = "feedback over two layers", neuron: Neuron = ROUNDING, gain: float = 2.0, source: Chip | None = None
) -> Network:
    torch.manual_seed(1)
    if structure == "convolutional feedback":
        found = conv([1, 6, 6], [3, 4], strides=[1, 2], readout=3)
        loop: nn.Module | None = conv_feedback((4, 3, 3), (3, 6, 6), 3, 1.5, 1.0)
    else:
        found = dense([36, 14, 3] if structure == "self feedback" else [36, 14, 12, 3])
        loop = None if structure == "feed-forward" else dense_feedback(flat_widths(found, 36)[-2], 14, 1.5, 1.0)
    chip = MeteredChip(source or TwinChip(neuron, seed=3))
    layers = []
    for synapse, width in zip(found[:-1], flat_widths(found, 36)[1:], strict=False):
        array = chip.array(ArraySpec(width))
        layers.append(Layer(synapse, array, Encode.onto(array.spec.inputs, gain)))
    return Network([*layers, Layer(found[-1])], loop, chip=chip)


def learner(net: Network, **changed: object) -> SPIDE:
    return SPIDE.build(net, SPIDESettings(**changed), 3, generator(0, 0, "l"))  # type: ignore[arg-type]


def rng(step: int = 0) -> torch.Generator:
    return generator(0, step, "step")


def equilibrium(net: Network, points: Tensor, rounds: int = 60, quantum: float = 1.0) -> list[Tensor]:
    """a_i of the network without spikes, by plain iteration; differentiable all the way."""
    hidden = [layer.synapse for layer in net.stack[:-1]]
    last = torch.zeros(len(points), 1)
    rates: list[Tensor] = []
    for number in range(rounds):
        current = hidden[0](points)
        if net.feedback is not None and number:
            current = current + net.feedback(last)
        rates = [(current / quantum).clamp(0, 1)]
        for synapse in hidden[1:]:
            rates.append((synapse(rates[-1]) / quantum).clamp(0, 1))
        last = rates[-1]
    return rates


def implicit(net: Network, points: Tensor, label: Tensor) -> list[Tensor]:
    """The exact gradient at the fixed point, by differentiating an iteration that has converged."""
    scores = net.stack[-1].synapse(equilibrium(net, points)[-1])
    return list(torch.autograd.grad(functional.cross_entropy(scores, label), list(net.parameters())))


def found(net: Network, rule: SPIDE) -> list[Tensor]:
    rule.step(net, x(), LABEL, rng())
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def error(a: list[Tensor], b: list[Tensor]) -> float:
    """Relative, over the hidden layers and the feedback: all but the readout's."""
    return max(float((one - two).norm() / two.norm()) for one, two in zip(a, b, strict=True))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradient_approaches_implicit_differentiation(structure: str) -> None:
    net = network(structure)
    exact = implicit(net, x(), LABEL)
    errors = []
    for steps in (16, 64, 300):
        got = found(net, learner(net, forward_steps=steps, backward_steps=2 * steps))
        errors.append(error(got, exact))
    assert errors[0] > errors[1] > errors[2]
    for one, two in zip(got, exact, strict=True):
        assert float(functional.cosine_similarity(one.flatten(), two.flatten(), dim=0)) > 0.99


@pytest.mark.parametrize("structure", STRUCTURES)
def test_rates_approach_the_equilibrium(structure: str) -> None:
    net = network(structure)
    wanted = [a.detach() for a in equilibrium(net, x())]
    assert any(bool((a == 0).any()) and bool((a > 0).any()) for a in wanted)
    for steps in (50, 400):
        rates = settle(net, x(), steps).rates
        assert max(float((a - w).abs().max()) for a, w in zip(rates, wanted, strict=True)) < 3 / steps


def test_modified_reset_halves_the_error_of_a_rate() -> None:
    def worst(neuron: Neuron) -> float:
        array = TwinChip(neuron).array(ArraySpec(101))
        amounts = torch.linspace(0, 1, 101) * (neuron.v_th - neuron.v_rest)
        return float((array.forward(amounts.expand(50, 1, 101)).mean(0)[0] - torch.linspace(0, 1, 101)).abs().max())

    truncating, rounding = worst(Neuron(leak=1.0, v_th=2.0)), worst(ROUNDING)
    assert truncating == pytest.approx(1 / 50, rel=0.1)
    assert rounding == pytest.approx(truncating / 2, rel=0.1)


def test_modified_reset_of_the_couples_makes_the_gradient_better() -> None:
    net = network()
    exact = implicit(net, x(), LABEL)
    errors = [
        error(found(net, learner(net, forward_steps=800, backward_steps=40, modified_reset=better)), exact)
        for better in (True, False)
    ]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_the_quantum_is_measured(spread: float) -> None:
    net = network("feed-forward", Neuron(leak=1.0, v_th=1.5, v_rest=-0.5, threshold_mismatch=spread), gain=4.0)
    assert learner(net).quanta.tolist() == pytest.approx([0.5, 0.5], rel=0.02 if spread == 0 else 0.15)
    assert learner(net, quantum=3.0).quanta.tolist() == [0.75, 0.75]


def test_a_gain_of_the_encoding_is_part_of_the_slope() -> None:
    gradients = []
    for gain, factor in ((2.0, 1.0), (4.0, 0.5)):
        net = network("feed-forward", gain=gain)
        with torch.no_grad():
            for layer in net.stack[:-1]:
                for param in layer.synapse.parameters():
                    param.mul_(factor)
        gradients.append([factor * g for g in found(net, learner(net, forward_steps=64))])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients[0][:4], gradients[1][:4], strict=True))


def test_neurons_that_do_not_integrate_are_refused() -> None:
    with pytest.raises(ContractError, match="in proportion"):
        measured_quantum(network(neuron=Neuron(leak=1.0, reset="hard", v_th=1.0, refractory=3)).stack[0])


def test_leaky_neurons_settle_with_a_weighted_mean() -> None:
    leak = 0.97
    net = network("feed-forward", Neuron(leak=leak, v_th=1.0, v_rest=-1.0))
    rates = settle(net, x(), 400, leak).rates
    assert float((rates[0] - equilibrium(net, x())[0].detach()).abs().max()) < 0.05
    learner(net, leak=leak, quantum=2.0).step(net, x(), LABEL, rng())


@pytest.mark.parametrize(("steps", "leak"), [(41, 1.0), (47, 1.0), (9, 0.9), (12, 0.7)])
def test_a_neuron_that_always_fires_has_the_rate_one(steps: int, leak: float) -> None:
    net = network("feed-forward", Neuron(leak=leak))
    with torch.no_grad():
        for layer in net.stack[:-1]:
            nn.init.zeros_(layer.synapse.weight)  # type: ignore[arg-type]
            nn.init.constant_(layer.synapse.bias, 10.0)  # type: ignore[arg-type]
    for rates in settle(net, x(), steps, leak).rates:
        assert bool((rates == 1).all())  # a bit less, and the gate of a closed neuron would open


def test_the_scale_is_found_and_kept() -> None:
    net = network()
    rule = learner(net, target=0.2)
    assert not rule.scales.any()
    for number in range(25):
        metrics = rule.step(net, x(), LABEL, rng(number))
    before = rule.scales.clone()
    rule.step(net, x(), LABEL, rng())
    assert torch.allclose(rule.scales, before, rtol=0.15)
    assert metrics["saturated"] < 0.02
    assert 0.01 < metrics["rate_backward"] < 0.4
    assert set(rule.state_dict()) == {"quanta", "scales"}


def test_a_scale_by_hand_stays() -> None:
    net = network()
    rule = learner(net, scale=40)
    metrics = rule.step(net, x(), LABEL, rng())
    assert rule.scales.tolist() == [40.0, 40.0]
    assert metrics["scale_layer1"] == 40.0
    tiny = learner(network(), scale=1e-3, backward_steps=20).step(network(), x(), LABEL, rng())
    assert tiny["rate_backward"] == 0.0


def test_rates_of_both_stages_are_reported() -> None:
    net = network()
    rule = learner(net)
    metrics = rule.step(net, x(), LABEL, rng())
    rates = settle(net, x(), 30).rates
    for number, rate in enumerate(rates):
        assert metrics[f"rate_forward_layer{number}"] == pytest.approx(float(rate.mean()), rel=1e-5)
        assert metrics[f"open_layer{number}"] == pytest.approx(float(((rate > 0) & (rate < 1)).float().mean()), rel=1e-5)
    assert 0 < metrics["rate_backward"] < 1


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_event_by_event_is_the_product(share: float) -> None:
    spikes = (torch.rand(20, 30, generator=rng(1)) < share) * torch.randn(20, 30, generator=rng(2))
    spikes[7] = 0
    matrix = torch.randn(30, 11, generator=rng(3))
    assert torch.allclose(by_events(spikes, matrix), spikes @ matrix, atol=1e-5)


MAPS: dict[str, Callable[[], nn.Module]] = {
    "strides": lambda: conv([2, 9, 9], [3], 5, 2)[0],
    "average": lambda: conv([2, 9, 9], [3], 5, 2, "average")[0],
    "standardised": lambda: conv([2, 9, 9], [3], 3, 2, "average", "standardised")[0],
    "normalised": lambda: conv([2, 9, 9], [3], 3, 2, norm="sample")[0],
    "feedback": lambda: conv_feedback((2, 9, 9), (3, 18, 18), 3, 1.5, 9.0),
}


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("made", MAPS.values(), ids=MAPS)
def test_what_goes_back_through_maps_is_the_gradient(made: Callable[[], nn.Module], share: float) -> None:
    torch.manual_seed(0)
    synapse = made()
    at = torch.rand(10, 2 * 81, requires_grad=True)
    answer = synapse(at)
    delta = torch.randn(answer.shape) * (torch.rand(10, 1) < share)
    with counting(at) as expected:
        (gradient,) = torch.autograd.grad(answer, at, delta)
    link = Linearised(synapse, at.detach())
    with counting(at) as told:
        assert torch.allclose(link.transposed(delta), gradient, atol=1e-5)
    assert (told.forward.table(1), told.backward.table(1)) == (expected.forward.table(1), expected.backward.table(1))


def test_closed_neurons_learn_nothing() -> None:
    net = network("self feedback")
    synapse = net.stack[0].synapse
    assert isinstance(synapse, nn.Linear)
    with torch.no_grad():
        synapse.bias[3] = -20.0
        synapse.bias[5] = 20.0
    gradients = found(net, learner(net))
    assert not gradients[0][[3, 5]].any()
    assert gradients[0].any()


def test_the_norm_is_bounded_whatever_the_weights_are() -> None:
    torch.manual_seed(0)
    loop = dense_feedback(30, 20, 2.0, 1.0)
    with torch.no_grad():
        loop.linear.weight.mul_(100)
    matrix = loop.matrix()
    assert matrix is not None
    assert float(matrix.norm().detach()) == pytest.approx(2.0, rel=1e-5)
    points = torch.randn(5, 30)
    assert torch.allclose(loop(points), points @ matrix.T, rtol=1e-4)
    small = Contracted(nn.Linear(3, 3, bias=False), 50.0)
    assert float(small.factor().detach()) == 1.0


def test_of_maps_the_kernel_is_bounded() -> None:
    torch.manual_seed(0)
    loop = conv_feedback((4, 7, 7), (3, 14, 14), 3, 2.0, 1.0)
    assert tuple(loop(torch.zeros(2, 4 * 49)).shape) == (2, 3 * 196)
    (kernel,) = loop.parameters()
    with torch.no_grad():
        kernel.mul_(100)
        image = torch.rand(1, 4 * 49)
        bounded = loop(image)
        kernel.mul_(2.0 / kernel.norm())
        assert torch.allclose(bounded, loop.linear(image), rtol=1e-4)


def test_the_share_of_the_feedback_in_the_current_is_told() -> None:
    net = network()
    one = learner(net)
    told = one.step(net, x(), LABEL, rng())["feedback_share"]
    assert net.feedback is not None
    with torch.no_grad():
        rates = settle(net, x(), one.settings.forward_steps).rates
        back, first = net.feedback(rates[-1]), net.stack[0].synapse(x())
    assert told == pytest.approx(float(back.norm() / (back + first).norm()), rel=0.1)  # the last step's spikes are left out
    assert 0.0 < told < 1.0


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="last maps to the first"):
        conv_feedback((4, 14, 14), (3, 7, 7), 3, 2.0, 1.0)


def closed_by(feedback: dict[str, object] | None, **network: object) -> nn.Module | None:
    """The feedback of a network for images of 6 x 6 pixels and three classes."""
    table = {**network, **({"feedback": feedback} if feedback else {})}
    whole = experiment_of({"network": table, "device": {"chip": "lif"}, "learner": {"use": "spide"}}, Path("here.toml"))
    split = Split(torch.zeros(3, 36), torch.arange(3))
    return chain_of(whole.network, 0, Dataset("d", split, split, split, ("a", "b", "c"), (1, 6, 6), "", "")).feedback


def test_feedback_is_described_in_the_file() -> None:
    widths = [36, 14, 12, 3]
    loop = closed_by({"norm": 1.5}, widths=widths)
    assert isinstance(loop, Contracted)
    assert tuple(loop(torch.zeros(1, 12)).shape) == (1, 14)
    assert loop.limit == 1.5
    again = closed_by({"norm": 1.5}, widths=widths)
    assert again is not None
    assert all(torch.equal(a, b) for a, b in zip(loop.parameters(), again.parameters(), strict=True))
    assert closed_by(None, widths=widths) is None
    maps = closed_by({"use": "conv"}, use="conv", channels=[3, 4], strides=[1, 2], readout=3)
    assert maps is not None
    assert tuple(maps(torch.zeros(1, 36)).shape) == (1, 108)
    with pytest.raises(ConfigError, match="convolutional layers"):
        closed_by({"use": "conv"}, widths=widths)


def test_memory_does_not_grow_with_time() -> None:
    net = network()
    longest = 0

    class Watched:
        """Passes on to the array, and notes how much time it was given at once."""

        def __init__(self, inner: Device) -> None:
            self.inner, self.spec = inner, inner.spec

        def program(self, params: Tensor) -> None:
            self.inner.program(params)

        def reset(self) -> None:
            self.inner.reset()

        def forward(self, currents: Tensor) -> Tensor:
            nonlocal longest
            longest = max(longest, len(currents))
            return self.inner.forward(currents)

        def close(self) -> None:
            self.inner.close()

    rule = learner(net, forward_steps=200)
    for layer in net.stack[:-1]:
        assert layer.device is not None
        layer.device = Watched(layer.device)
    rule.step(net, x(), LABEL, rng())
    assert longest == 1


def test_resume_equals_no_stop() -> None:
    nets = [network(), network()]
    rules = [learner(net) for net in nets]
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in nets]
    for number in range(6):
        if number == 3:
            nets[1], rules[1], optimizers[1] = _again(nets[1], rules[1])
        for net, rule, optimizer in zip(nets, rules, optimizers, strict=True):
            rule.step(net, x(), LABEL, rng(number))
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def _again(net: Network, rule: SPIDE) -> tuple[Network, SPIDE, torch.optim.Optimizer]:
    fresh = network()
    new = learner(fresh)
    fresh.load_state_dict(net.state_dict())
    new.load_state_dict(rule.state_dict())
    return fresh, new, torch.optim.SGD(fresh.parameters(), 0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"forward_steps": 0}, {"backward_steps": 0}, {"scale": 0}, {"scale": "large"}, {"target": 1.0}, {"quantum": -1},
        {"leak": 0.5}, {"leak": 0.0, "quantum": 1.0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="makes no sense"):
        SPIDESettings(**wrong)  # type: ignore[arg-type]


def test_networks_that_it_cannot_train_are_refused() -> None:
    with pytest.raises(ContractError, match="cannot train"):
        learner(Network([Layer(nn.Linear(36, 3))]))
    net = network("feed-forward")
    net.stack[0].synapse = nn.Sequential(nn.Linear(36, 14), nn.BatchNorm1d(14))
    with pytest.raises(ContractError, match="BatchNorm1d"):
        learner(net)


def test_a_nan_weight_sends_nothing() -> None:
    net = network()
    rule = learner(net)
    with torch.no_grad():
        next(net.parameters())[0, 0] = torch.nan
    before = [device.count.passes for device in net.chip.devices]  # type: ignore[union-attr]
    with pytest.raises(OutOfRange, match="NaN"):
        rule.step(net, x(), LABEL, rng())
    assert before == [device.count.passes for device in net.chip.devices]  # type: ignore[union-attr]


def test_noise_and_mismatch_do_not_stop_it() -> None:
    net = network(neuron=Neuron(leak=1.0, v_th=1.0, v_rest=-1.0, threshold_mismatch=0.1, noise=0.1))
    exact, got = implicit(net, x(), LABEL), found(net, learner(net, forward_steps=100, backward_steps=100))
    cosine = functional.cosine_similarity(got[0].flatten(), exact[0].flatten(), dim=0)
    assert float(cosine) > 0.8


def test_digits_are_learned() -> None:
    data = load("digits")
    torch.manual_seed(0)
    chip = TwinChip(ROUNDING)
    arrays = chip.array(ArraySpec(100))
    net = Network(
        [Layer(nn.Linear(64, 100), arrays, Encode.onto(arrays.spec.inputs, 4.0)), Layer(nn.Linear(100, 10))],
        dense_feedback(100, 100, 2.0, 0.1),
        chip=chip,
    )
    rule = SPIDE.build(net, SPIDESettings(forward_steps=20, backward_steps=20), 10, generator(0, 0, "l"))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for epoch in range(3):
        order = torch.randperm(len(data.train), generator=generator(0, epoch, "order"))
        for rows in order.split(64):
            rule.step(net, data.train.x[rows], data.train.y[rows], rng())
            optimizer.step()
    right = rule.predict(net, data.test.x).argmax(1) == data.test.y
    assert float(right.float().mean()) > 0.93


def test_through_the_serial_board_it_learns_the_same_bits() -> None:
    nets = [network("self feedback")]
    with board_server(VirtualBoard(ROUNDING, seed=3)) as server:
        board = SpikingBoard(SerialLink(server.port), v_th=1.0, v_rest=-1.0, leak=1.0, provenance="twin")
        try:
            nets.append(network("self feedback", source=board))
            for net in nets:
                rule = learner(net, forward_steps=10, backward_steps=10)
                optimizer = torch.optim.Adam(net.parameters(), 1e-2)
                for number in range(4):
                    rule.step(net, x(), LABEL, rng(number))
                    optimizer.step()
        finally:
            board.close()
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


FILE = """
[data]
use = "digits"
train_examples = 200
[network]
widths = [64, 30, 10]
feedback = { norm = 2.0 }
[device]
chip = "lif"
leak = 1.0
v_th = 1.0
v_rest = -1.0
noise = 0.05
[encode]
gain = 4.0
[learner]
use = "spide"
forward_steps = 8
backward_steps = 8
[optimizer]
lr = 0.01
[train]
epochs = 2
batch = 50
threads = 1
"""


def test_a_run_from_a_file_and_its_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spide.toml").write_text(FILE, encoding="utf-8")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(["train", str(tmp_path / "spide.toml"), "--run", str(whole)]) == 0
    told = json.loads((whole / "summary.json").read_text(encoding="utf-8"))["operations"]
    assert 0 < told["backward"]["firing_rate"] < 1
    assert told["backward"]["accumulations"] > 0
    assert "multiply-accumulations" in (whole / "report.html").read_text(encoding="utf-8")

    def interrupted(training: Training) -> Iterator[TrainingStep | Epoch]:
        for point in train(training):
            if isinstance(point, TrainingStep) and point.step == 6:
                os.kill(os.getpid(), signal.SIGINT)
            yield point

    monkeypatch.setattr(session, "train", interrupted)
    assert run(["train", str(tmp_path / "spide.toml"), "--run", str(parts)]) == 130
    monkeypatch.undo()
    assert run(["resume", str(parts)]) == 0
    one, other = (checkpoint.load(checkpoint.latest(folder / "checkpoints")).tensors for folder in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_feedback_around_a_node_without_time_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FILE.replace(
        'chip = "lif"\nleak = 1.0\nv_th = 1.0\nv_rest = -1.0\nnoise = 0.05', 'use = "mach_zehnder"\nv_pi = "3.5 V"'
    )
    (tmp_path / "e.toml").write_text(text.replace("gain = 4.0", ""), encoding="utf-8")
    assert run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "r")]) == 2
    assert "feedback" in capsys.readouterr().err
