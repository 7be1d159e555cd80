"""Recursive least squares: a readout that follows the steps of time, and is there after each of them.

    e = y - W^T h                    before the step is learned from: h (n + 1,), a constant 1 stands for the bias; the features
                                     less their mean over the first batch, so that rounding does no harm
    k = P h / ( forget + h^T P h )
    W = W + k e^T                    P = ( P - k h^T P ) / forget

Sequences that are side by side make one step together: h and e have a row each, and the quotient is a solution of equations.
P begins as that of a ridge regression with the penalty of the settings, over as many steps as the first batch has; the bias
has no penalty. Without forgetting, W after one batch is that of the ridge regression. All of it is float64 on the CPU.

Source: S. Haykin, Adaptive Filter Theory, chapter on recursive least squares; with a penalty as its beginning, H. Jaeger and
H. Haas, Science 304, 78 (2004), supporting text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hil.errors import ContractError
from hil.learners.parts.ridge_sums import SMALLEST, Features, Fitted, put, readout, taken_back, wanted
from hil.network import Network
from hil.task import Task

FREE = 1e-9  # penalty of the bias, an example


class Recursive:
    """P, W, the mean that is taken off, and the squared errors e so far.

    Args:
        features: length of h.
        outputs: length of y.
        bias: there is one.
        penalty: in units of the mean variance of a feature.
        forget: factor on what is known, before each step; 1 forgets nothing.
    """

    def __init__(self, features: int, outputs: int, bias: bool, penalty: float, forget: float) -> None:
        self.bias, self.penalty, self.forget = bias, penalty, forget
        wide = features + bias
        sizes = {"n": (), "error": (), "mean": (features,), "P": (wide, wide), "W": (wide, outputs)}
        self.sums = {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}

    @torch.no_grad()
    def add(self, features: Tensor, target: Tensor) -> None:
        """Learn from the steps of sequences in their order; sequences side by side make a step together.

        Args:
            features: h (batch, time, n); (batch, n) is one step.
            target: (batch, time, k) of numbers, (batch, time) of classes; of one step without time.

        Raises:
            ContractError: features that are not finite.
        """
        sums, h = self.sums, features.cpu().double()
        y = wanted(target, sums["W"].shape[1]).cpu().double()
        if not bool(torch.isfinite(h).all()):
            raise ContractError(
                "a readout cannot follow these features", where="[learner] solver", got="values not finite",
                allowed="finite values", todo="look at the hidden layers",
            )  # fmt: skip
        if h.ndim == 2:
            h, y = h.unsqueeze(1), y.unsqueeze(1)
        if not sums["n"]:
            self._begin(h.flatten(0, 1))
        h, one = h - sums["mean"], h.new_ones(len(h), 1)
        for now, due in zip(h.unbind(1), y.unbind(1), strict=True):
            self._step(torch.cat((now, one), 1) if self.bias else now, due)
        sums["n"] += y.shape[0] * y.shape[1]

    def _begin(self, h: Tensor) -> None:
        if self.bias:
            self.sums["mean"].copy_(h.mean(0))
        spread = max(float((h - self.sums["mean"]).square().mean()), SMALLEST)
        known = torch.full((len(self.sums["P"]),), self.penalty * spread * len(h), dtype=torch.float64)
        if self.bias:
            known[-1] = FREE * len(h)
        self.sums["P"].copy_(torch.diag(1 / known))

    def _step(self, h: Tensor, y: Tensor) -> None:
        p, w = self.sums["P"], self.sums["W"]
        error, ph = y - h @ w, p @ h.t()
        inner = h @ ph
        inner.diagonal().add_(self.forget)
        gain = torch.linalg.solve(inner, ph, left=False)
        w += gain @ error
        p -= gain @ ph.t()
        p += p.t().clone()  # rounding must not make it lopsided
        p *= 0.5 / self.forget
        self.sums["error"] += error.square().sum()

    @torch.no_grad()
    def fit(
        self, net: Network, validation: Iterable[tuple[Tensor, Tensor]], task: Task, penalties: Sequence[float],
        features: Features,
    ) -> Fitted:  # fmt: skip
        """Put W into the last synapse of `net`.

        Args:
            net: the network, whose hidden layers are asked once a validation example.
            validation: batches of x and targets, where the network is.
            task: not used; nothing is chosen.
            penalties: not used.
            features: (network, x) -> what enters the readout, (batch, n) or (batch, time, n).

        Returns:
            the validation outputs, the penalty, and 1/2 of the mean squared error before each step was learned from.
        """
        del task, penalties
        synapse, w = readout(net), self.sums["W"]
        weight = w[: synapse.in_features]
        put(synapse, weight, w[-1] - self.sums["mean"] @ weight if self.bias else None)
        outputs = torch.cat([synapse(features(net, x)).cpu() for x, _ in validation])
        return Fitted(outputs, self.penalty, 0.5 * float(self.sums["error"] / self.sums["n"].clamp(min=1)))

    def state(self) -> dict[str, Tensor]:
        """Return P, W and the rest by name, for a checkpoint."""
        return dict(self.sums)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take them back. Raises: ValueError: they are of other features or outputs."""
        self.sums = taken_back(state, self.sums)
