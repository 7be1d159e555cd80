"""The error at the readout: the one global signal that every learner here starts from.

cross_entropy    L = - mean_n w_n log softmax(o_n)[label_n]      e = dL/do = w_n ( softmax(o) - onehot ) / batch
mse              L = mean_n w_n 1/2 |o_n - onehot_n|^2            e = dL/do = w_n ( o - onehot ) / batch
w_n = 1, or the weight of the class label_n
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from hil.errors import ConfigError, ContractError

LossName = Literal["cross_entropy", "mse"]


class Verdict(NamedTuple):
    """The loss of a batch: its gradient at the output, and its metrics.

    Args:
        error: dL/do (batch, classes).
        metrics: "loss" and "accuracy".
    """

    error: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss by its name, with its exact gradient written out.

    Args:
        name: of it.
        weights: of each class; none: all alike.
    """

    name: LossName = "cross_entropy"
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in get_args(LossName):
            raise ConfigError(
                "no such loss", where="[learner] loss", got=repr(self.name), allowed=", ".join(get_args(LossName)),
                outputs="untouched; nothing was opened",
            )  # fmt: skip

    def judge(self, scores: Tensor, label: Tensor) -> Verdict:
        """Scores (batch, classes) against label (batch,), without a graph."""
        index, one = label.unsqueeze(1), torch.ones((), dtype=scores.dtype, device=scores.device)
        right = scores.argmax(1).eq(label).to(scores.dtype).mean()
        share = 1 / len(label)
        if self.weights:
            return self._weighed(scores, label, right)
        if self.name == "mse":
            error = scores.scatter_add(1, index, -one.expand_as(index))
            loss = error.square().sum().mul_(0.5 * share)
        else:
            logp = scores.log_softmax(1)
            loss = logp.gather(1, index).sum().mul_(-share)
            error = logp.exp_().scatter_add_(1, index, -one.expand_as(index))
        loss_value, accuracy = torch.stack([loss, right]).tolist()  # one transfer, should the host's tensors be on a GPU
        return Verdict(error.mul_(share), {"loss": loss_value, "accuracy": accuracy})

    def of(self, scores: Tensor, label: Tensor) -> Tensor:
        """The same loss as a graph, for a learner that differentiates."""
        if self.weights:
            return (self._each(scores, label) * self._weight(scores, label)).sum() / len(label)
        if self.name == "mse":
            onehot = functional.one_hot(label, scores.shape[1]).to(scores.dtype)
            return 0.5 * (scores - onehot).square().sum() / len(label)
        return functional.cross_entropy(scores, label)

    def _weighed(self, scores: Tensor, label: Tensor, right: Tensor) -> Verdict:
        onehot = functional.one_hot(label, scores.shape[1]).to(scores.dtype)
        weight = self._weight(scores, label)
        loss = (self._each(scores, label) * weight).sum() / len(label)
        error = (scores if self.name == "mse" else scores.softmax(1)) - onehot
        return Verdict(error * (weight / len(label)).unsqueeze(1), {"loss": float(loss), "accuracy": float(right)})

    def _weight(self, scores: Tensor, label: Tensor) -> Tensor:
        return scores.new_tensor(self.weights)[label]

    def _each(self, scores: Tensor, label: Tensor) -> Tensor:
        """(batch,): the loss of each example, all classes alike."""
        if self.name == "mse":
            return 0.5 * (scores - functional.one_hot(label, scores.shape[1])).square().sum(1)
        return functional.cross_entropy(scores, label, reduction="none")


@dataclass(frozen=True, slots=True)
class Mixed:
    """(1 - share) cross entropy + share mean over the classes of (o - onehot)^2: what OTTT and SAF ask of every step.

    Source: Xiao et al., OTTT, NeurIPS 2022 (share = 0.05).
    """

    share: float = 0.05
    weights: tuple[float, ...] = ()

    def judge(self, scores: Tensor, label: Tensor) -> Verdict:
        """Return the error and the metrics of a batch, as Loss.judge."""
        error, metrics = Loss("cross_entropy", self.weights).judge(scores, label)
        if not self.share:
            return Verdict(error, metrics)
        square, values = Loss("mse", self.weights).judge(scores, label)
        scale = 2 * self.share / scores.shape[1]  # mean of squares, not half their sum
        loss = (1 - self.share) * metrics["loss"] + scale * values["loss"]
        return Verdict(error.mul_(1 - self.share).add_(square, alpha=scale), {**metrics, "loss": loss})

    def of(self, scores: Tensor, label: Tensor) -> Tensor:
        """Return the loss of a batch, as Loss.of."""
        square = Loss("mse", self.weights).of(scores, label) * (2 / scores.shape[1])
        return (1 - self.share) * Loss("cross_entropy", self.weights).of(scores, label) + self.share * square


def check_scores(scores: Tensor, classes: int) -> None:
    """Raise ContractError unless the readout is (batch, classes)."""
    if scores.ndim != 2 or scores.shape[1] != classes:
        raise ContractError(
            "the readout does not give one score per class",
            where="network, last layer",
            got=f"shape {tuple(scores.shape)}",
            allowed=f"(batch, {classes})",
            todo="make the last synapse as wide as there are classes, and give it no device",
        )
