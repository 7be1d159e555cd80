from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError, OutOfRange
from hil.feedback.feedback import Constant, Feedback, Sine, correlation
from hil.learners.adfa import ADFA, ADFASettings, read_feedback, slope
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

FEEDBACK = Feedback(Sine(phase=0.6), "normal", 0.3)
LABEL = torch.tensor([0, 2, 1, 2, 0])


def x() -> Tensor:
    return torch.randn(5, 6, generator=generator(0, 0, "x"))


def network(*synapses: nn.Module, noise: float = 0.0) -> Network:
    device = Simulated(MachZehnder(noise=noise), seed=1)
    encode = Encode.onto(device.spec.inputs, gain=0.7, offset=0.1, overflow="clip")
    return Network([*(Layer(s, device, encode, Decode(0.18, 0.18)) for s in synapses[:-1]), Layer(synapses[-1])])


def linear(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return network(nn.Linear(6, 7), nn.Linear(7, 8, bias=False), nn.Linear(8, 3))


def learner(loss: str = "cross_entropy") -> ADFA:
    return ADFA(FEEDBACK, (7, 8), 3, generator(0, 0, "learner"), loss)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_step_is_the_equation(loss: str) -> None:
    net, rule = linear(), learner(loss)
    metrics = rule.step(net, x(), LABEL, generator(0, 0, "step"))
    trace = net(x())
    onehot = torch.eye(3)[LABEL]
    scores = trace.outputs[-1]
    error = ((scores.softmax(1) if loss == "cross_entropy" else scores) - onehot) / 5
    for number, layer in enumerate(net.stack):
        delta = error
        if number < 2:
            delta = (error @ rule.projection.get_buffer(f"B{number}").T) * torch.sin(trace.pre[number] + 0.6)
        synapse = layer.synapse
        assert isinstance(synapse, nn.Linear)
        assert synapse.weight.grad is not None
        assert torch.allclose(synapse.weight.grad, delta.T @ trace.inputs[number], atol=1e-6)
        assert synapse.bias is None or torch.allclose(synapse.bias.grad, delta.sum(0), atol=1e-6)  # type: ignore[arg-type]
    wanted = nn.functional.cross_entropy(scores, LABEL) if loss == "cross_entropy" else (scores - onehot).square().sum() / 10
    assert metrics["loss"] == pytest.approx(float(wanted), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(float((scores.argmax(1) == LABEL).float().mean()))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_readout_gradient_is_exact(loss: str) -> None:
    net, rule = linear(), learner(loss)
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    readout = net.stack[-1].synapse
    found = [p.grad.clone() for p in readout.parameters() if p.grad is not None]
    exact = torch.autograd.grad(rule.loss.of(readout(net(x()).inputs[-1]), LABEL), list(readout.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, exact, strict=True))


def test_one_pass_per_step() -> None:
    net = linear()
    device = net.devices[0]
    learner().step(net, x(), LABEL, generator(0, 0, "step"))
    assert isinstance(device, Simulated)
    assert device.snapshot()["calls"] == 2  # one per hidden layer


def test_old_gradients_are_overwritten() -> None:
    net, rule = linear(), learner()
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    once = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    assert all(torch.equal(a, p.grad) for a, p in zip(once, net.parameters(), strict=True) if p.grad is not None)


def test_frozen_parameters_stay_without_gradient() -> None:
    net = linear()
    net.stack[0].synapse.requires_grad_(False)
    learner().step(net, x(), LABEL, generator(0, 0, "step"))
    assert [p.grad is None for p in net.parameters()] == [True, True, False, False, False]


def test_convolution_and_a_composed_synapse() -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 2, 3))
    net = network(conv, nn.Sequential(nn.Flatten(), nn.Linear(32, 5)), nn.Linear(5, 3))
    settings = ADFASettings(feedback=FEEDBACK.to_table())  # the maps say how large an example is
    rule = ADFA.build(net, settings, 3, generator(0, 0, "learner"))
    assert rule.projection.shapes == ((2, 4, 4), (5,))
    images = torch.randn(5, 36, generator=generator(0, 0, "images"))
    rule.step(net, images, LABEL, generator(0, 0, "step"))
    trace = net(images)
    error = (trace.outputs[-1].softmax(1) - torch.eye(3)[LABEL]) / 5
    delta = (error @ rule.projection.get_buffer("B0").T).view(5, 2, 4, 4) * torch.sin(trace.pre[0] + 0.6)
    wanted = torch.nn.grad.conv2d_weight(images.view(5, 1, 6, 6), (2, 1, 3, 3), delta)
    weight = next(conv.parameters())
    assert weight.grad is not None
    assert torch.allclose(weight.grad, wanted, atol=1e-5)
    assert all(p.grad is not None for p in net.parameters())


def test_a_hidden_layer_without_device_has_slope_one() -> None:
    torch.manual_seed(0)
    net = Network([Layer(nn.Linear(6, 7)), Layer(nn.Linear(7, 3))])
    rule = ADFA(FEEDBACK, (7,), 3, generator(0, 0, "learner"))
    rule.step(net, x(), LABEL, generator(0, 0, "step"))
    error = (net(x()).outputs[-1].softmax(1) - torch.eye(3)[LABEL]) / 5
    weight = next(net.parameters())
    assert weight.grad is not None
    assert torch.allclose(weight.grad, (error @ rule.projection.get_buffer("B0").T).T @ x(), atol=1e-6)


def test_matrices_are_in_the_state() -> None:
    rule, other = learner(), ADFA(FEEDBACK, (7, 8), 3, generator(9, 0, "learner"))
    assert set(rule.state_dict()) == {"projection.B0", "projection.B1"}
    assert not torch.equal(rule.state_dict()["projection.B0"], other.state_dict()["projection.B0"])
    other.load_state_dict(rule.state_dict())
    nets = linear(), linear()
    for one, net in zip((rule, other), nets, strict=True):
        one.step(net, x(), LABEL, generator(0, 0, "step"))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(*(n.parameters() for n in nets), strict=True))  # type: ignore[arg-type]


def test_clipped_share_is_reported() -> None:
    net = linear()
    assert learner().step(net, x(), LABEL, generator(0, 0, "s"))["overflow"] == 0.0
    with torch.no_grad():
        next(net.parameters()).mul_(100)
    share = learner().step(net, x(), LABEL, generator(0, 0, "s"))["overflow"]
    trace = net(x())
    over = sum(int(((0.7 * p + 0.1).abs() > 5).sum()) for p in trace.pre[:2])
    assert share == pytest.approx(over / 75)
    assert share > 0


def test_a_nan_weight_sends_nothing() -> None:
    net = linear()
    with torch.no_grad():
        next(net.parameters())[0, 0] = math.nan
    with pytest.raises(OutOfRange, match="NaN"):
        learner().step(net, x(), LABEL, generator(0, 0, "step"))


def test_digits_like_problem_is_learned_with_noise() -> None:
    rng = generator(5, 0, "blobs")
    centres = torch.randn(3, 6, generator=rng) * 2
    label = torch.randint(0, 3, (90,), generator=rng)
    points = centres[label] + torch.randn(90, 6, generator=rng)
    torch.manual_seed(0)
    net = network(nn.Linear(6, 20), nn.Linear(20, 3), noise=1.0)
    rule = ADFA(FEEDBACK, (20,), 3, generator(0, 0, "learner"))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(80):
        rule.step(net, points, label, rng)
        optimizer.step()
    assert float((rule.predict(net, points).argmax(1) == label).float().mean()) > 0.9


def test_build_reads_a_feedback_file(tmp_path: Path) -> None:
    FEEDBACK.save(tmp_path / "found.toml")
    rule = ADFA.build(linear(), ADFASettings(feedback=str(tmp_path / "found.toml")), 3, generator(0, 0, "learner"))
    assert rule.feedback == FEEDBACK
    assert rule.projection.shapes == ((7,), (8,))


def test_default_settings_build() -> None:
    rule = ADFA.build(linear(), ADFA.Settings(), 3, generator(0, 0, "learner"))
    assert rule.feedback == read_feedback(ADFA.Settings().feedback)
    assert isinstance(rule.feedback.g, Sine)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"loss": "hinge"}, "cross_entropy, mse"),
        ({"feedback": {"g": {"family": "sin"}}}, "did you mean sine"),
        ({"feedback": "absent.toml"}, "absent.toml"),
        ({"feedback": 3}, "a table, or a file name"),
        ({"sample_shape": [0]}, "sample_shape"),
        ({"sample_shape": 784}, "sample_shape"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        ADFASettings(**settings)  # type: ignore[arg-type]


def test_a_shape_that_is_needed_or_wrong_is_explained() -> None:
    net = network(nn.Sequential(nn.Dropout(0.0), nn.Linear(6, 7)), nn.Linear(7, 3))
    with pytest.raises(ContractError, match="sample_shape"):
        ADFA.build(net, ADFASettings(), 3, generator(0, 0, "learner"))
    with pytest.raises(ContractError, match=r"\(5,\)"):
        ADFA.build(net, ADFASettings(sample_shape=(5,)), 3, generator(0, 0, "learner"))
    with pytest.raises(ContractError, match="one score per class"):
        ADFA(FEEDBACK, (7,), 4, generator(0, 0, "learner")).step(net, x(), LABEL, generator(0, 0, "step"))


def test_correlations_over_what_was_visited() -> None:
    net = linear()
    twin = MachZehnder()
    trace = net(x())
    # the reading follows sin(pi V / V_pi) at quadrature, V = 0.7 a + 0.1: its slope is a cosine of the pre-activation
    true = Sine(1.0, 0.7 * math.pi / 3.5, math.pi / 2 + 0.1 * math.pi / 3.5)
    for layer, pre in zip(net.stack[:-1], trace.pre, strict=False):
        assert correlation(true(pre), slope(layer, twin.ideal, pre)) == pytest.approx(1, abs=1e-4)
        assert correlation(Constant()(pre), slope(layer, twin.ideal, pre)) == 0.0
