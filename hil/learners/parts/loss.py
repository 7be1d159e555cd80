"""Losses of spiking learners of classes besides those of hil/task.py, and the check of the readout, for all learners."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hil.errors import ContractError
from hil.task import Loss, Verdict


@dataclass(frozen=True, slots=True)
class Mixed:
    """(1 - share) cross entropy + share mean over the classes of (o - onehot)^2: what OTTT and SAF ask of every step.

    Source: Xiao et al., OTTT, NeurIPS 2022 (share = 0.05).
    """

    share: float = 0.05
    weights: tuple[float, ...] = ()

    def judge(self, scores: Tensor, label: Tensor) -> Verdict:
        """Return the error and the metrics of a batch, as Loss.judge."""
        error, metrics = Loss("cross_entropy", weights=self.weights).judge(scores, label)
        if not self.share:
            return Verdict(error, metrics)
        square, values = Loss("mse", weights=self.weights).judge(scores, label)
        scale = 2 * self.share / scores.shape[1]  # mean of squares, not half their sum
        loss = (1 - self.share) * metrics["loss"] + scale * values["loss"]
        return Verdict(error.mul_(1 - self.share).add_(square, alpha=scale), {**metrics, "loss": loss})

    def of(self, scores: Tensor, label: Tensor) -> Tensor:
        """Return the loss of a batch, as Loss.of."""
        square = Loss("mse", weights=self.weights).of(scores, label) * (2 / scores.shape[1])
        return (1 - self.share) * Loss("cross_entropy", weights=self.weights).of(scores, label) + self.share * square


def check_scores(scores: Tensor, outputs: int) -> None:
    """Raise ContractError unless the readout is (batch, outputs): one score a class, or the numbers that are wanted."""
    if scores.ndim != 2 or scores.shape[1] != outputs:
        raise ContractError(
            "the readout does not give what the targets need: one score per class, or all of the numbers",
            where="network, last layer",
            got=f"shape {tuple(scores.shape)}",
            allowed=f"(batch, {outputs})",
            todo=f"make the last synapse {outputs} wide, and give it no device",
        )
