"""delta_l = e B_l^T: direct feedback of the error e, with no factor for the node at all. Name the source of the rule here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from hil.network import fill
from hil.settings import Positive, check
from hil.task import as_task


@dataclass(frozen=True)
class Settings:
    """What [learner] in a file may say. Every annotation is checked, and a range stands in it."""

    scale: Positive = 0.1

    def __post_init__(self) -> None:
        check(self, "[learner]")


class RandomFeedback(nn.Module):
    """A rule that learns. It sees the network and what was measured, never what answered."""

    Settings: ClassVar[type] = Settings

    def __init__(self, widths: list[int], task, scale: float, rng: torch.Generator) -> None:
        super().__init__()
        for number, width in enumerate(widths):  # buffers, so that a checkpoint holds them
            self.register_buffer(f"B{number}", scale * torch.randn(width, task.outputs, generator=rng))
        self.loss = task.loss

    @classmethod
    def build(cls, net, settings, task, rng, model):
        # task says how many outputs there are, and the loss. A rule that needs classes calls it classes: their number.
        # model is the twin of the node as a function, or None: for rules that differentiate it.
        return cls([layer.synapse.out_features for layer in net.stack[:-1]], as_task(task), settings.scale, rng)

    @torch.no_grad()
    def step(self, net, x, label, rng) -> Mapping[str, float]:
        trace = net.forward(x)  # drives the node once, and keeps what every layer saw
        error, metrics = self.loss.judge(trace.outputs[-1], label)
        deltas = [error @ self.get_buffer(f"B{number}").t() for number in range(len(net.stack) - 1)]
        fill(net, trace, [*deltas, error])  # writes the .grad of every synapse; the optimiser steps with it
        return {**metrics, "overflow": net.overflow(trace)}

    @torch.no_grad()
    def predict(self, net, x):
        return net.forward(x).outputs[-1]
