"""Losses of a network at other weights than its own: what learners without any gradient ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from hil.learners.parts.loss import check_scores
from hil.learners.parts.transport import modelled
from hil.network import Network
from hil.task import Loss


class Probe:
    """The loss of one batch at weights around those of the network, one pass of the device for each point.

    Use it with `with`: the weights are put back whatever happens, as a fault must not leave a perturbed network behind.

    Args:
        net: the network.
        x: (batch, features).
        label: the targets of the batch.
        outputs: that the readout must have.
        loss: of the task.
        model: answers in place of the device, as of Layer.through; None: the device does.

    weights: the trained parameters. Directions are lists of tensors, one for each of them, in their order.
    """

    def __init__(
        self, net: Network, x: Tensor, label: Tensor, outputs: int, loss: Loss, model: Callable[..., Tensor] | None = None
    ) -> None:
        self.weights, self._model = trained(net), model
        self._net, self._x, self._label, self._outputs, self._loss = net, x, label, outputs, loss
        self._centre: list[Tensor] = []
        self._sums: dict[str, float] = {}
        self._passes = 0

    def __enter__(self) -> Probe:
        self._centre = [weight.detach().clone() for weight in self.weights]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for weight, middle in zip(self.weights, self._centre, strict=True):
            weight.data.copy_(middle)

    def loss(self, direction: Sequence[Tensor], by: float = 1.0) -> float:
        """Make one pass, and return the loss at the weights of the network + by * direction."""
        for weight, middle, u in zip(self.weights, self._centre, direction, strict=True):
            torch.add(middle, u, alpha=by, out=weight.data)
        return self._judged()

    def loss_at(self, weights: Sequence[Tensor]) -> float:
        """Make one pass, and return the loss at these weights, a tensor for each parameter."""
        for weight, value in zip(self.weights, weights, strict=True):
            weight.data.copy_(value)
        return self._judged()

    def _judged(self) -> float:
        trace = self._net.forward(self._x) if self._model is None else modelled(self._net, self._model, self._x)
        check_scores(trace.outputs[-1], self._outputs)
        metrics = {**self._loss.judge(trace.outputs[-1], self._label).metrics, "overflow": self._net.overflow(trace)}
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._passes += 1
        return metrics["loss"]

    @property
    def metrics(self) -> dict[str, float]:
        """Means over all passes: "loss", of classes "accuracy", "overflow"."""
        return {name: total / self._passes for name, total in self._sums.items()}


def trained(net: Network) -> list[nn.Parameter]:
    """Return the parameters of the network that are not frozen."""
    return [param for param in net.parameters() if param.requires_grad]


def normal(weight: Tensor, rng: torch.Generator) -> Tensor:
    """Draw standard normal numbers of the shape of `weight`, where the generator is: the same on every host's device."""
    return torch.randn(weight.shape, generator=rng, device=rng.device).to(weight)


def signs(like: Tensor, rng: torch.Generator) -> Tensor:
    """Draw +-1, each as likely, of the shape of `like`, where the generator is: the same on every host's device."""
    return torch.randint(0, 2, like.shape, generator=rng, device=rng.device).to(like).mul_(2).sub_(1)


def orthogonal(count: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield directions of +-1: rows of a Hadamard matrix, drawn without repeats, the sign of each column drawn once for all.

    H_rj = (-1)^(number of bits that are 1 in both r and j), Sylvester's; no matrix is made.

    Args:
        count: of directions. Beyond the order of the matrix its rows are drawn anew.
        size: of each; the order of the matrix is the first power of two from it.
        rng: where it is, the directions are.
    """
    order = 1 << (size - 1).bit_length()
    place = torch.arange(size, device=rng.device)
    turned = torch.randint(0, 2, (size,), generator=rng, device=rng.device)
    rows: list[int] = []
    for _ in range(count):
        rows = rows or torch.randperm(order, generator=rng, device=rng.device).tolist()
        odd = place & rows.pop()
        for half in (32, 16, 8, 4, 2, 1):  # the lowest bit becomes the parity of all 64
            odd = odd ^ (odd >> half)
        yield 1 - 2 * ((odd ^ turned) & 1)


def split(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """(n,) -> a tensor for each parameter."""
    parts = torch.split(flat, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
