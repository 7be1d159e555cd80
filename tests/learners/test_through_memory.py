"""Masks and readout are trained through the memory of a node: by its twin, and by what was measured with slopes of the twin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hil.build.prepared import prepared
from hil.build.training import built
from hil.config.experiment import experiment_of, read_experiment
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, OutOfRange
from hil.learners.through_memory import BPTTMemory, PATMemory, PATMemorySettings, ThroughMemory, ThroughMemorySettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.task import Task, task_of
from hil.training.gradient_check import look
from hil.training.loop import evaluate, train
from hil.training.refit import refit
from hil.training.session import load_best
from sim_devices.coupled_nodes import CoupledNodes
from sim_devices.delay_loop import DelayLoop
from sim_devices.fibre_loop import FibreLoop
from sim_devices.memristive_network import MemristiveNetwork
from sim_devices.simulated import Simulated

NODES, STEPS, WASHOUT = 5, 12, 3
TASK = task_of(torch.rand(3, STEPS, 2), (), washout=WASHOUT)
CLASSES = task_of(torch.zeros(3, STEPS, dtype=torch.int64), ("a", "b", "c"), washout=WASHOUT)
Kind = DelayLoop | CoupledNodes | FibreLoop | MemristiveNetwork
KINDS: dict[str, Callable[[], Kind]] = {
    "a loop whose nodes couple": lambda: DelayLoop(nodes=NODES, gain=0.6, node_s=1.0, delay_s=7.0),
    "with filters, read early": lambda: DelayLoop(
        nodes=NODES, gain=0.6, node_s=1.0, samples=4, sample_phase=0.5, lowpass_hz=0.3, highpass_hz=0.01
    ),
    "coupled nodes": lambda: CoupledNodes(nodes=NODES, coupled=0.7, leak=0.6),
    "a fibre loop": lambda: FibreLoop(nodes=NODES, coupling=0.4, phase_rad=0.5),
    "a memristive network": lambda: MemristiveNetwork(electrodes=NODES, rows=3, columns=3),
}


def network(twin: Kind, outputs: int = 2) -> Network:
    torch.manual_seed(0)
    device = Simulated(twin)
    encode = Encode.onto(device.spec.inputs, 0.9, overflow="clip")
    made = [Layer(nn.Linear(a, b), device, encode, Decode(0.3, 0.4)) for a, b in pairwise([2, NODES, NODES])]
    return Network([*made, Layer(nn.Linear(NODES, outputs))])


def sequences(count: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, STEPS, 2, generator=generator(0, 0, "x"))
    return x, x.roll(1, 1) * x.roll(2, 1)


def gradients(
    rule: type[ThroughMemory], net: Network, model: object, task: Task = TASK, label: Tensor | None = None
) -> list[Tensor]:
    x, y = sequences()
    learner = rule.build(net, rule.Settings(), task, generator(0, 0, "learner"), model)  # type: ignore[arg-type]
    learner.step(net, x.to(next(net.parameters())), y if label is None else label, generator(0, 0, "step"))
    return [param.grad.clone() for param in net.parameters() if param.grad is not None]


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_the_gradient_is_that_of_finite_differences(make: Callable[[], Kind]) -> None:
    """Of the loss behind the washout, moved along a direction of all weights."""
    twin, net = make().double(), network(make()).double()
    found = gradients(BPTTMemory, net, twin.ideal)
    learner = BPTTMemory(twin.ideal, TASK, ThroughMemorySettings())
    x, y = sequences()
    along = [torch.randn(p.shape, generator=generator(0, 0, "along"), dtype=p.dtype) for p in net.parameters()]

    @torch.no_grad()
    def moved(size: float) -> float:
        for param, way in zip(net.parameters(), along, strict=True):
            param.add_(way, alpha=size)
        answer = learner.modelled(net, x.double(), y).outputs[-1].transpose(0, 1)
        return 0.5 * float((answer - y)[:, WASHOUT:].square().sum()) / (3 * (STEPS - WASHOUT))

    small = 1e-4
    up, down = moved(small), moved(-2 * small)
    assert sum(float((g * way).sum()) for g, way in zip(found, along, strict=True)) == pytest.approx(
        (up - down) / (2 * small), rel=1e-3
    )


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_with_a_true_model_and_no_noise_both_are_the_same(make: Callable[[], Kind]) -> None:
    label = torch.randint(0, 3, (3, STEPS), generator=generator(0, 0, "y"))
    for task, outputs, target in ((TASK, 2, None), (CLASSES, 3, label)):
        net = network(make(), outputs)
        pat, bptt = (gradients(rule, net, make().ideal, task, target) for rule in (PATMemory, BPTTMemory))
        assert len(pat) == len(bptt) == 6
        for one, other in zip(pat, bptt, strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("answer", ["last", "mean"])
def test_one_target_a_sequence_has_a_gradient_through_time(answer: str) -> None:
    label = torch.tensor([0, 2, 1])
    task = task_of(label, ("a", "b", "c"), washout=WASHOUT if answer == "mean" else 0, length=STEPS)
    net, model = network(KINDS["coupled nodes"](), 3), KINDS["coupled nodes"]().ideal
    found = []
    for rule in (PATMemory, BPTTMemory):
        learner = rule.build(net, rule.Settings(answer=answer), task, generator(0, 0, "learner"), model)  # type: ignore[arg-type]
        said = learner.step(net, sequences()[0], label, generator(0, 0, "step"))
        assert 0 <= said["accuracy"] <= 1
        found.append([param.grad.clone() for param in net.parameters() if param.grad is not None])
        assert learner.predict(net, sequences()[0]).shape == (3, 3)
    assert len(found[0]) == 6
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(*found, strict=True))
    assert all(bool(grad.any()) for grad in found[0])


def test_slopes_are_the_models_at_the_measured_state() -> None:
    """The sum over time, written out, with a model whose coupling and leak are wrong."""
    wrong = CoupledNodes(nodes=NODES, coupled=0.7, gain=0.5, leak=0.8)
    net = network(KINDS["coupled nodes"](), 2)  # type: ignore[arg-type]
    found = gradients(PATMemory, net, wrong.ideal)
    x, y = sequences()
    trace = PATMemory(wrong.ideal, TASK, PATMemorySettings()).trace(net, x)
    delta = torch.zeros(STEPS, 3, 2)
    delta[WASHOUT:] = (trace.outputs[-1].transpose(0, 1) - y)[:, WASHOUT:].transpose(0, 1) / (3 * (STEPS - WASHOUT))
    for number in (1, 0):
        layer, above = net.stack[number], net.stack[number + 1].synapse
        assert isinstance(above, nn.Linear)
        assert layer.encode is not None
        reading = trace.outputs[number] * 0.4 + 0.3
        before = torch.cat((torch.zeros(1, 3, NODES), reading[:-1]))
        steep = 1 - torch.tanh(layer.encode(trace.pre[number]) / 3.5 + 0.5 * before @ wrong.coupling).square()
        sent, coming, deltas = delta @ above.weight / 0.4, torch.zeros(3, NODES), []
        for step in reversed(range(STEPS)):
            here = sent[step] + coming
            inner = 0.8 * here * steep[step]
            coming = 0.2 * here + 0.5 * inner @ wrong.coupling.t()
            deltas.append(inner * layer.encode(torch.ones(1)).sub(layer.encode(torch.zeros(1))) / 3.5)
        delta = torch.stack(deltas[::-1])
        assert torch.allclose(found[2 * number], torch.einsum("tbo,tbi->oi", delta, trace.inputs[number]), rtol=1e-4, atol=1e-7)


NARMA = Path(__file__).resolve().parents[2] / "experiments" / "narma10_delay_loop.toml"
SHORT = ("data.number=6", "data.steps=250", "task.washout=50", "train.batch=6")
TRAINED = ("learner.penalty=1e-6", "train.epochs=12", "optimizer.lr=0.1", "schedule.use=cosine")


@pytest.mark.parametrize("use", ["bptt_memory", "pat_memory"])
def test_trained_masks_beat_random_ones(use: str) -> None:
    """The readout is fitted in both; the test split is judged once, through the device. Then the report's angle."""
    scores = []
    for how in (("learner.use=reservoir",), (f"learner.use={use}", 'learner.readout="ridge"', *TRAINED)):
        with built(read_experiment(NARMA, [*SHORT, *how])) as made:
            training = made.training
            for _ in train(training):
                pass
            if training.refit:
                assert refit(training)["fitted"] < 0.9 * scores[0]
                masks, fitted = look(training, None, 4).angles
                assert masks == pytest.approx(0, abs=0.1)
                assert fitted is None
            load_best(training)
            scores.append(evaluate(training.net, training.learner, training.data.test, task=training.task)[0]["nrmse"])
    assert scores[1] < 0.9 * scores[0]


def test_a_readout_of_one_target_a_sequence_is_fitted_after_training() -> None:
    table = {
        "data": {"use": "digits", "sequence": True, "train_examples": 200}, "task": {"washout": 2},
        "network": {"use": "masks", "widths": [8, 20, 10], "gain": 0.3}, "device": {"use": "coupled_nodes", "nodes": 20},
        "learner": {"use": "pat_memory", "answer": "mean", "readout": "ridge"}, "train": {"epochs": 1, "batch": 100},
    }  # fmt: skip
    with built(experiment_of(table, Path("here.toml"))) as made:
        for _ in train(made.training):
            pass
        found = refit(made.training)
    assert found["kept"]
    assert found["fitted"] > 0.7 > found["trained"]


def test_refused_before_anything_is_driven() -> None:
    net = network(KINDS["coupled nodes"]())
    with pytest.raises(ConfigError, match="there is none"):
        gradients(PATMemory, net, None)
    with torch.no_grad():
        net.stack[0].synapse.weight.fill_(99.0)  # type: ignore[operator,union-attr]
    net.stack[0].encode = Encode.onto(net.devices[0].spec.inputs, 0.9, overflow="refuse")
    with pytest.raises(OutOfRange):
        gradients(BPTTMemory, net, KINDS["coupled nodes"]().ideal)
    with pytest.raises(ConfigError, match="state"):
        read_experiment(NARMA, [*SHORT, "learner.use=bptt_memory", "learner.state=model"])
    with pytest.raises(ConfigError, match="this node has no memory"):
        prepared(read_experiment(NARMA, [*SHORT, "learner.use=pat_memory", "device={use = 'mach_zehnder'}"]))
