"""Does an object keep the contract of a Learner (hil/learner.py)? Tried on a small network around a noiseless sine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hil.chance import generator, key
from hil.conformance.report import Broken, Checklist, Report, need
from hil.device import Device, Port, Spec
from hil.encoding import Decode, Encode
from hil.errors import ContractError, Refused
from hil.learner import Learner
from hil.network import Layer, Network

FEATURES, HIDDEN, CLASSES, EXAMPLES = 6, 12, 3, 90
Model = Callable[[Tensor], Tensor]
Make = Callable[[Network, int, torch.Generator, Model], Learner]


class SineNode:
    """Reading 0.2 sin(2 x) + 0.1 for a drive within 3; counts the values it was sent."""

    def __init__(self, detached: bool = True) -> None:
        self.values, self._detached = 0, detached

    @property
    def spec(self) -> Spec:
        return Spec(Port("sine node", -3, 3, "V"), Port("sine node reading", -0.5, 0.5, "V"), provenance="twin")

    def program(self, params: Tensor) -> None:
        raise ContractError("this node is fixed", where="sine node")

    def reset(self) -> None:
        """It has no past."""

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        self.values += x.numel()
        reading = response(x)
        return reading.detach() if self._detached else reading.requires_grad_(True)

    def close(self) -> None:
        """Nothing to make safe."""


def response(x: Tensor) -> Tensor:
    """What the sine node does to a drive; differentiable."""
    return 0.2 * torch.sin(2 * x) + 0.1


def check_learner(make: Make) -> Report:
    """Try fresh learners from `make(net, classes, rng, model)`; the model is the node's exact response.

    Raises:
        ContractError: with the list of what failed.
    """
    checks = Checklist(f"learner {type(make(_network(), CLASSES, generator(0, 0, 'learner'), response)).__name__}")
    with checks("a step returns a finite loss, and shares between 0 and 1", "poor"):
        _metrics(make)
    with checks("a step fills every gradient and nothing else", "wrong"):
        _fills(make)
    with checks("old gradients are overwritten", "wrong"):
        _overwrites(make)
    with checks("all chance comes from the generators", "wrong"):
        _deterministic(make)
    with checks("prediction is (batch, classes) and changes nothing", "wrong"):
        _predicts(make)
    with checks("a device that lets a graph through is refused", "wrong"):
        _no_graph(make)
    with checks("a drive out of range is refused", "unsafe"):
        _refuses(make)
    with checks("saved and loaded, it goes on with the same gradients", "wrong"):
        _resumes(make)
    with checks("the loss falls on a small problem", "poor"):
        _learns(make)
    return checks.report()


def _network(device: Device | None = None) -> Network:
    node = SineNode() if device is None else device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(0, 0, "weights"))
        synapses = [nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, CLASSES)]
    encode, decode = Encode.onto(node.spec.inputs, gain=0.5), Decode(0.1, 0.2)
    return Network([*(Layer(s, node, encode, decode) for s in synapses[:-1]), Layer(synapses[-1])])


def _pair(make: Make, stream: str = "learner") -> tuple[Network, Learner]:
    net = _network()
    return net, make(net, CLASSES, generator(0, 0, stream), response)


def _problem() -> tuple[Tensor, Tensor]:
    """Three clouds, (examples, features), one far from the others."""
    rng = generator(0, 0, "problem")
    label = torch.arange(EXAMPLES) % CLASSES
    centres = torch.randn(CLASSES, FEATURES, generator=rng)
    return centres[label] + 0.3 * torch.randn(EXAMPLES, FEATURES, generator=rng), label


def _step(net: Network, learner: Learner, number: int = 0) -> Mapping[str, float]:
    return learner.step(net, *_problem(), generator(0, number, "step"))


def _gradients(net: Network) -> list[Tensor]:
    """Of every trained parameter; one that a learner froze when it was built has none."""
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


def _metrics(make: Make) -> None:
    metrics = _step(*_pair(make))
    need("loss" in metrics and math.isfinite(metrics["loss"]), f"loss {metrics.get('loss')}")
    need(all(isinstance(v, float) for v in metrics.values()), f"not all numbers are floats: {dict(metrics)}")
    shares = {k: v for k, v in metrics.items() if k in ("accuracy", "overflow")}
    need(all(0 <= v <= 1 for v in shares.values()), f"not shares: {shares}")


def _fills(make: Make) -> None:
    net, learner = _pair(make)
    before = [p.detach().clone() for p in net.parameters()]
    _step(net, learner)
    gradients = _gradients(net)
    for (name, param), grad in zip(_trained(net), gradients, strict=True):
        need(grad.shape == param.shape and grad.dtype == param.dtype, f"the gradient of {name} has another shape or dtype")
        need(bool(grad.isfinite().all()), f"the gradient of {name} is not finite")
        need(bool(grad.any()), f"the gradient of {name} is 0 everywhere")
        need(param.grad is not None and not param.grad.requires_grad, f"the gradient of {name} carries a graph")
    need(_equal(before, list(net.parameters())), "a parameter was changed: that is the optimiser's work")


def _overwrites(make: Make) -> None:
    clean, dirty = _pair(make), _pair(make)
    for _, param in _trained(dirty[0]):
        param.grad = torch.full_like(param, 3.0)
    _step(*clean)
    _step(*dirty)
    need(_equal(_gradients(clean[0]), _gradients(dirty[0])), "what stood in .grad before is still in it")


def _deterministic(make: Make) -> None:
    before = torch.get_rng_state()
    one, other = _pair(make), _pair(make)
    for number in range(3):
        _step(*one, number)
        _step(*other, number)
        need(_equal(_gradients(one[0]), _gradients(other[0])), f"step {number} of two made alike differs")
    need(torch.equal(before, torch.get_rng_state()), "torch's global generator was used")


def _predicts(make: Make) -> None:
    net, learner = _pair(make)
    _step(net, learner)
    gradients = _gradients(net)
    x, _ = _problem()
    scores = learner.predict(net, x)
    need(tuple(scores.shape) == (EXAMPLES, CLASSES), f"shape {tuple(scores.shape)}, not {(EXAMPLES, CLASSES)}")
    need(not scores.requires_grad, "the scores carry a graph")
    need(torch.equal(scores, learner.predict(net, x)), "predicting twice gives two answers, and the node has no noise")
    need(_equal(gradients, _gradients(net)), "prediction changed a gradient")


def _no_graph(make: Make) -> None:
    net = _network(SineNode(detached=False))
    learner = make(net, CLASSES, generator(0, 0, "learner"), response)
    try:
        _step(net, learner)
        learner.predict(net, _problem()[0])
    except ContractError:
        return
    raise Broken("its reading was taken")


def _refuses(make: Make) -> None:
    node = SineNode()
    net = _network(node)
    learner = make(net, CLASSES, generator(0, 0, "learner"), response)
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)
    try:
        _step(net, learner)
    except Refused:
        need(node.values == 0, "NaN reached the node")
    else:
        raise Broken("a NaN weight was taken")


def _resumes(make: Make) -> None:
    net, learner = _pair(make)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for number in range(2):
        _step(net, learner, number)
        optimizer.step()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    state: dict[str, Any] = {name: value.clone() for name, value in learner.state_dict().items()}
    again, loaded = _pair(make, "another learner")
    again.load_state_dict(weights)
    loaded.load_state_dict(state)
    _step(net, learner, 2)
    _step(again, loaded, 2)
    need(_equal(_gradients(net), _gradients(again)), "they differ: something that it draws or learns is not in state_dict")


def _learns(make: Make) -> None:
    net, learner = _pair(make)
    x, label = _problem()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for number in range(60):
        losses.append(_step(net, learner, number)["loss"])
        optimizer.step()
    right = float((learner.predict(net, x).argmax(1) == label).float().mean())
    need(losses[-1] < 0.8 * losses[0], f"from {losses[0]:.3g} to {losses[-1]:.3g} in 60 steps")
    need(right > 0.8, f"{right:.0%} right after 60 steps")
