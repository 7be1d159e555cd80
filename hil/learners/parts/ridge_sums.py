"""Ridge regression from sums over examples, so that memory does not grow with their number.

    min_W,b   1/n sum_i | y_i - W h_i - b |^2  +  lam v |W|^2                 v the mean variance of the features h
    A = 1/n sum h h^T - m m^T,   C = 1/n sum h y^T - m ybar^T                 m, ybar the means; 0 without a bias b
    A = V diag(s) V^T            W^T = V diag( 1 / (s + lam v) ) V^T C,   b = ybar - W m

One decomposition serves all penalties lam. Sums and solution are float64 on the CPU; a class is the target 1, the others 0.

Source: Hoerl & Kennard, Technometrics 12, 55 (1970).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.errors import ContractError
from hil.network import Network
from hil.task import Task

PENALTIES = tuple(10.0 ** (-power / 2) for power in range(-2, 19))  # 10 to 1e-9
SMALLEST = 1e-300
Features = Callable[[Network, Tensor], Tensor]


class Fitted(NamedTuple):
    """A readout that was fitted, and is in the network.

    Args:
        outputs: of the validation examples, (examples, k) or (examples, time, k), as the network gives them now.
        penalty: lam, that the metric chose on them.
        loss: of the training examples, 1/2 mean squared distance.
    """

    outputs: Tensor
    penalty: float
    loss: float


class RidgeSums:
    """n, sum h, sum y, sum h h^T, sum h y^T, sum y^2.

    Args:
        features: length of h.
        outputs: length of y.
    """

    def __init__(self, features: int, outputs: int) -> None:
        sizes = {
            "n": (),
            "h": (features,),
            "y": (outputs,),
            "hh": (features, features),
            "hy": (features, outputs),
            "yy": (outputs,),
        }
        self.sums = {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}

    @torch.no_grad()
    def add(self, features: Tensor, target: Tensor) -> None:
        """Add a batch: features (..., n), targets (...,) of classes or (..., k) of numbers."""
        h, sums = features.cpu().double().flatten(0, -2), self.sums
        y = wanted(target, len(sums["y"])).cpu().double().flatten(0, -2)
        sums["n"] += len(h)
        sums["h"] += h.sum(0)
        sums["y"] += y.sum(0)
        sums["hh"].addmm_(h.t(), h)
        sums["hy"].addmm_(h.t(), y)
        sums["yy"] += y.square().sum(0)

    def fade(self, factor: float) -> None:
        """Let all sums count less: what was added before weighs `factor` of what comes now."""
        if factor != 1:
            for total in self.sums.values():
                total *= factor

    @torch.no_grad()
    def fit(
        self, net: Network, validation: Iterable[tuple[Tensor, Tensor]], task: Task, penalties: Sequence[float] = PENALTIES,
        features: Features | None = None,
    ) -> Fitted:  # fmt: skip
        """Fit the last synapse of `net`; the metric of the task on the validation examples chooses the penalty.

        Args:
            net: the network, whose hidden layers are asked once a validation example.
            validation: batches of x and targets, where the network is.
            task: what is learned.
            penalties: lam; of two that are as good, the larger is taken.
            features: (network, x) -> what enters the readout, (batch, n) or (batch, time, n); None: by one plain pass.

        Raises:
            ContractError: fewer than two examples, or features that are not finite.
        """
        synapse, found = readout(net), self._solved(readout(net).bias is not None, sorted(penalties, reverse=True))
        weights = torch.stack([weight for weight, _, _ in found]).float()
        biases = torch.stack([bias for _, bias, _ in found]).float()
        outputs, targets = [], []
        for x, target in validation:
            h = (features or hidden)(net, x).cpu()
            outputs.append(torch.einsum("n...f,pfk->pn...k", h, weights) + biases.view(len(biases), *[1] * (h.ndim - 1), -1))
            targets.append(target.cpu())
        every, target = torch.cat(outputs, 1), torch.cat(targets)
        best, score = 0, None
        for place, answers in enumerate(every):
            value = task.score(answers, target)[task.metric.name]
            if task.metric.better(value, score):
                best, score = place, value
        put(synapse, weights[best], biases[best])
        return Fitted(every[best], sorted(penalties, reverse=True)[best], found[best][2])

    @torch.no_grad()
    def solve(self, net: Network, penalty: float) -> None:
        """Fit the last synapse of `net` for this penalty. Raises: ContractError: as `fit`."""
        synapse = readout(net)
        ((weight, bias, _),) = self._solved(synapse.bias is not None, [penalty])
        put(synapse, weight, bias)

    def _solved(self, centred: bool, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor, float]]:
        """Weights (features, k), biases (k,) and the training loss, for every penalty."""
        n = float(self.sums["n"])
        if n < 2 or not all(bool(torch.isfinite(value).all()) for value in self.sums.values()):
            raise ContractError(
                "a readout cannot be fitted to these features", where="ridge", got=f"{n:,.0f} examples, or values not finite",
                allowed="two examples or more, all finite", todo="look at the hidden layers",
            )  # fmt: skip
        h, y, hh, hy, yy = (self.sums[name] / n for name in ("h", "y", "hh", "hy", "yy"))
        if not centred:
            h, y = torch.zeros_like(h), torch.zeros_like(y)
        gram, cross = hh - torch.outer(h, h), hy - torch.outer(h, y)
        s, v = torch.linalg.eigh(gram)
        s, turned = s.clamp(min=0.0), v.t() @ cross
        mean = max(float(s.mean()), SMALLEST)
        found = []
        for penalty in penalties:
            weight = v @ (turned / (s + penalty * mean).unsqueeze(1))
            error = (yy - y.square()) - 2 * (weight * cross).sum(0) + (weight * (gram @ weight)).sum(0)
            found.append((weight, y - h @ weight, max(0.0, 0.5 * float(error.sum()))))
        return found

    def state(self) -> dict[str, Tensor]:
        """Return the sums by name, for a checkpoint."""
        return dict(self.sums)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take sums back. Raises: ValueError: they are of other features or outputs."""
        self.sums = taken_back(state, self.sums)


def taken_back(state: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of `state`, float64. Raises: ValueError: of other names or shapes than the present ones."""
    shapes = {name: tuple(value.shape) for name, value in present.items()}
    if {name: tuple(value.shape) for name, value in state.items()} != shapes:
        raise ValueError("sums of another network")
    return {name: state[name].detach().cpu().double().clone() for name in shapes}


def wanted(target: Tensor, outputs: int) -> Tensor:
    """The targets as numbers, (..., outputs): of classes 1 for the right one."""
    return target if target.is_floating_point() else functional.one_hot(target, outputs)


def readout(net: Network) -> nn.Linear:
    """Return the last synapse. Raises: ContractError: it is not one linear layer, which alone can be fitted."""
    found = net.stack[-1].synapse
    if not isinstance(found, nn.Linear) or net.stack[-1].device is not None:
        raise ContractError(
            "only a linear readout can be fitted", where="network, last layer", got=type(found).__name__,
            allowed="nn.Linear without a device behind it", todo="make the last synapse linear",
        )  # fmt: skip
    return found


@torch.no_grad()
def put(synapse: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Let a readout be W (features, k) and, if it has one, the bias (k,)."""
    synapse.weight.copy_(weight.t())
    if synapse.bias is not None and bias is not None:
        synapse.bias.copy_(bias)


@torch.no_grad()
def hidden(net: Network, x: Tensor) -> Tensor:
    """Make one pass of x (batch, features), as a prediction does; return what enters the readout, (batch, n)."""
    net.eval()
    return net.forward(x).inputs[-1]
