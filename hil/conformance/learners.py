"""Check that an object keeps the contract of a Learner (hil/learner.py).

It is tried on a small network around a noiseless sine, or on one of spiking neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hil.conformance.neurons import NeuronChip
from hil.conformance.report import Broken, Checklist, Report, need
from hil.device import ArraySpec, Port, Spec
from hil.encoding import Decode, Encode
from hil.errors import ContractError, Refused
from hil.learner import Learner
from hil.network import Layer, Network
from hil.seeding import generator, key
from hil.task import Task, as_task, asked_for, takes_task, task_of

FEATURES, HIDDEN, CLASSES, EXAMPLES = 6, 12, 3, 90
CLASSIFIED = as_task(CLASSES)
NUMBERS = task_of(torch.zeros(1, CLASSES), ())
Model = Callable[[Tensor], Tensor]
Make = Callable[[Network, Any, torch.Generator, Any], Learner]  # a Task or a number of classes; a Model, or None for neurons


SINE = Spec(Port("sine node", -3, 3, "V"), Port("sine node reading", -0.5, 0.5, "V"), provenance="twin")


class SineNode:
    """Reading 0.2 sin(2 x) + 0.1 for a drive within 3; counts the values it was sent."""

    def __init__(self, detached: bool = True) -> None:
        self.values, self._detached = 0, detached

    @property
    def spec(self) -> Spec:
        """The ports: one drive of -3 to 3 V, one reading."""
        return SINE

    def forward(self, x: Tensor) -> Tensor:
        """Answer with the sine of the drive; not detached, it lets a graph through."""
        self.spec.inputs.check(x)
        self.values += x.numel()
        reading = response(x)
        return reading.detach() if self._detached else reading.requires_grad_(True)

    def close(self) -> None:
        """Do nothing: there is no output to make safe."""


def response(x: Tensor) -> Tensor:
    """Return the sine node's reading for a drive, same shape; differentiable."""
    return 0.2 * torch.sin(2 * x) + 0.1


def check_learner(make: Make, spiking: bool = False) -> Report:
    """Try fresh learners from `make(net, task, rng, model)`; the model is the node's exact response, None for neurons.

    Args:
        make: (net, task, rng, model) -> a fresh learner, which is tried on numbers besides; or (net, classes, rng, model).
        spiking: the network has integrate-and-fire neurons from a chip in the place of the sine.

    Raises:
        ContractError: with the list of what failed.
    """
    case = Case(make, spiking)
    checks = Checklist(f"learner {type(case.pair()[1]).__name__}")
    with checks("a step returns a finite loss, and shares between 0 and 1", "poor"):
        _metrics(case)
    with checks("a step fills every gradient and nothing else", "wrong"):
        _fills(case)
    with checks("old gradients are overwritten", "wrong"):
        _overwrites(case)
    with checks("all chance comes from the generators", "wrong"):
        _deterministic(case)
    with checks("prediction is (batch, classes) and changes nothing", "wrong"):
        _predicts(case)
    with checks("a device that lets a graph through is refused", "wrong"):
        _no_graph(case)
    with checks("a drive out of range is refused", "unsafe"):
        _refuses(case)
    with checks("saved and loaded, it goes on with the same gradients", "wrong"):
        _resumes(case)
    with checks("the loss falls on a small problem", "poor"):
        _learns(case)
    if takes_task(make):
        with checks("the loss falls on numbers", "poor"):
            _regresses(Case(make, spiking, NUMBERS))
    return checks.report()


@dataclass(frozen=True)
class Case:
    """A case that is tried: a way to make learners, and a network for them."""

    make: Make
    spiking: bool
    task: Task = CLASSIFIED

    def network(self, detached: bool = True) -> tuple[Network, Callable[[], int]]:
        """A fresh network, and how many values its devices were sent so far."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(0, 0, "weights"))
            synapses = [nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, CLASSES)]
        if self.spiking:
            chip = NeuronChip(detached)
            arrays = [chip.array(ArraySpec(HIDDEN)) for _ in synapses[:-1]]
            layers = [Layer(s, a, Encode.onto(a.spec.inputs, gain=2.0)) for s, a in zip(synapses, arrays, strict=False)]
            return Network([*layers, Layer(synapses[-1])], chip=chip), lambda: chip.sent.values
        node = SineNode(detached)
        encode, decode = Encode.onto(node.spec.inputs, gain=0.5), Decode(0.1, 0.2)
        hidden = [Layer(s, node, encode, decode) for s in synapses[:-1]]
        return Network([*hidden, Layer(synapses[-1])]), lambda: node.values

    def learner(self, net: Network, stream: str = "learner") -> Learner:
        """Make a fresh learner for `net`, its draws from `stream`."""
        return self.make(net, asked_for(self.make, self.task), generator(0, 0, stream), None if self.spiking else response)

    def pair(self, stream: str = "learner") -> tuple[Network, Learner]:
        """Make a fresh network, and a learner for it."""
        net, _ = self.network()
        return net, self.learner(net, stream)


def _problem() -> tuple[Tensor, Tensor]:
    """Three clouds, (examples, features), one far from the others."""
    rng = generator(0, 0, "problem")
    label = torch.arange(EXAMPLES) % CLASSES
    centres = torch.randn(CLASSES, FEATURES, generator=rng)
    return centres[label] + 0.3 * torch.randn(EXAMPLES, FEATURES, generator=rng), label


def _step(net: Network, learner: Learner, number: int = 0) -> Mapping[str, float]:
    return learner.step(net, *_problem(), generator(0, number, "step"))


def _gradients(net: Network) -> list[Tensor]:
    """Return the gradient of every trained parameter; one that a learner froze when it was built has none."""
    missing = [name for name, p in _trained(net) if p.grad is None]
    need(not missing, f"no gradient for {', '.join(missing)}")
    frozen = [name for name, p in net.named_parameters() if not p.requires_grad and p.grad is not None]
    need(not frozen, f"a gradient for what is frozen: {', '.join(frozen)}")
    return [p.grad.clone() for _, p in _trained(net) if p.grad is not None]


def _trained(net: Network) -> list[tuple[str, nn.Parameter]]:
    found = [(name, param) for name, param in net.named_parameters() if param.requires_grad]
    need(bool(found), "every parameter is frozen")
    return found


def _equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def _metrics(case: Case) -> None:
    metrics = _step(*case.pair())
    need("loss" in metrics and math.isfinite(metrics["loss"]), f"loss {metrics.get('loss')}")
    need(all(isinstance(v, float) for v in metrics.values()), f"not all numbers are floats: {dict(metrics)}")
    shares = {k: v for k, v in metrics.items() if k in ("accuracy", "overflow")}
    need(all(0 <= v <= 1 for v in shares.values()), f"not shares: {shares}")


def _fills(case: Case) -> None:
    net, learner = case.pair()
    before = [p.detach().clone() for p in net.parameters()]
    _step(net, learner)
    gradients = _gradients(net)
    for (name, param), grad in zip(_trained(net), gradients, strict=True):
        need(grad.shape == param.shape and grad.dtype == param.dtype, f"the gradient of {name} has another shape or dtype")
        need(bool(grad.isfinite().all()), f"the gradient of {name} is not finite")
        need(bool(grad.any()), f"the gradient of {name} is 0 everywhere")
        need(param.grad is not None and not param.grad.requires_grad, f"the gradient of {name} carries a graph")
    need(_equal(before, list(net.parameters())), "a parameter was changed: that is the optimiser's work")


def _overwrites(case: Case) -> None:
    clean, dirty = case.pair(), case.pair()
    for _, param in _trained(dirty[0]):
        param.grad = torch.full_like(param, 3.0)
    _step(*clean)
    _step(*dirty)
    need(_equal(_gradients(clean[0]), _gradients(dirty[0])), "what stood in .grad before is still in it")


def _deterministic(case: Case) -> None:
    before = torch.get_rng_state()
    one, other = case.pair(), case.pair()
    for number in range(3):
        _step(*one, number)
        _step(*other, number)
        need(_equal(_gradients(one[0]), _gradients(other[0])), f"step {number} of two made alike differs")
    need(torch.equal(before, torch.get_rng_state()), "torch's global generator was used")


def _predicts(case: Case) -> None:
    net, learner = case.pair()
    _step(net, learner)
    gradients = _gradients(net)
    x, _ = _problem()
    scores = learner.predict(net, x)
    need(tuple(scores.shape) == (EXAMPLES, CLASSES), f"shape {tuple(scores.shape)}, not {(EXAMPLES, CLASSES)}")
    need(not scores.requires_grad, "the scores carry a graph")
    need(torch.equal(scores, learner.predict(net, x)), "predicting twice gives two answers, and the node has no noise")
    need(_equal(gradients, _gradients(net)), "prediction changed a gradient")


def _no_graph(case: Case) -> None:
    net, _ = case.network(detached=False)
    try:
        learner = case.learner(net)
        _step(net, learner)
        learner.predict(net, _problem()[0])
    except ContractError:
        return
    raise Broken("its reading was taken")


def _refuses(case: Case) -> None:
    net, sent = case.network()
    learner = case.learner(net)
    before = sent()
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)
    try:
        _step(net, learner)
    except Refused:
        need(sent() == before, "NaN reached the node")
    else:
        raise Broken("a NaN weight was taken")


def _resumes(case: Case) -> None:
    net, learner = case.pair()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for number in range(2):
        _step(net, learner, number)
        optimizer.step()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    state: dict[str, Any] = {name: value.clone() for name, value in learner.state_dict().items()}
    again, loaded = case.pair("another learner")
    again.load_state_dict(weights)
    loaded.load_state_dict(state)
    _step(net, learner, 2)
    _step(again, loaded, 2)
    need(_equal(_gradients(net), _gradients(again)), "they differ: something that it draws or learns is not in state_dict")


def _learns(case: Case) -> None:
    net, learner = case.pair()
    x, label = _problem()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for number in range(60):
        losses.append(_step(net, learner, number)["loss"])
        optimizer.step()
    right = float((learner.predict(net, x).argmax(1) == label).float().mean())
    need(losses[-1] < 0.8 * losses[0], f"from {losses[0]:.3g} to {losses[-1]:.3g} in 60 steps")
    need(right > 0.8, f"{right:.0%} right after 60 steps")


def _regresses(case: Case) -> None:
    net, learner = case.pair()
    x, label = _problem()
    target = nn.functional.one_hot(label, CLASSES).float() - 0.5
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for number in range(60):
        losses.append(learner.step(net, x, target, generator(0, number, "step"))["loss"])
        optimizer.step()
    need(losses[-1] < 0.8 * losses[0], f"from {losses[0]:.3g} to {losses[-1]:.3g} in 60 steps")
    answers = learner.predict(net, x)
    need(tuple(answers.shape) == (EXAMPLES, CLASSES), f"shape {tuple(answers.shape)}, not {(EXAMPLES, CLASSES)}")
