"""The label as part of the input: the first `classes` features carry it, and an example with a wrong one is a negative.

    x[c] = amplitude for the class c claimed, 0 for the others         neutral: amplitude / classes each

Source: Hinton, arXiv:2212.13345 (2022), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hil.errors import ContractError


def claiming(x: Tensor, label: Tensor, classes: int, amplitude: float) -> Tensor:
    """(batch, …, features) -> a copy in which the first features claim `label` (batch,)."""
    claimed = x.clone()
    said = amplitude * functional.one_hot(label, classes).to(x)
    claimed[..., :classes] = said if x.ndim == 2 else said.unsqueeze(1)
    return claimed


def neutral(x: Tensor, classes: int, amplitude: float) -> Tensor:
    """A copy that claims no class."""
    copy = x.clone()
    copy[..., :classes] = amplitude / classes
    return copy


def candidates(x: Tensor, classes: int, amplitude: float) -> Tensor:
    """(batch, …, features) -> (batch * classes, …, features): every example with every label, classes fastest."""
    every = torch.arange(classes, device=x.device).repeat(len(x))
    return claiming(x.repeat_interleave(classes, 0), every, classes, amplitude)


def wrong_labels(label: Tensor, classes: int, rng: torch.Generator, scores: Tensor | None = None) -> Tensor:
    """Draw a label for every example that is never its own, (batch,).

    Args:
        label: (batch,), the true ones.
        classes: how many there are.
        rng: draws them.
        scores: (batch, classes), log-probabilities up to a constant; a class is drawn in proportion. None: all alike.
    """
    if classes < 2:
        raise ContractError("one class has no wrong label", where="learner", got=f"{classes} classes", allowed="2 or more")
    if scores is None:
        shift = torch.randint(1, classes, label.shape, generator=rng, device=label.device)
        return (label + shift) % classes
    uniform = torch.rand(scores.shape, generator=rng, device=scores.device).clamp_(1e-12, 1 - 1e-7)
    race = scores - torch.log(-torch.log(uniform))  # the Gumbel-max trick draws from softmax(scores)
    # the floor keeps every wrong class above the true one, whose -inf cannot win even against scores of -inf
    return race.clamp_(min=-1e30).scatter_(1, label.unsqueeze(1), -torch.inf).argmax(1)


def check_slot(x: Tensor, classes: int) -> None:
    """Raise ContractError unless x is (batch, features) with room for the label."""
    if x.ndim != 2 or x.shape[1] <= classes:
        raise ContractError(
            "no room for the label", where="learner", got=f"an input of shape {tuple(x.shape)}",
            allowed=f"(batch, more than {classes})", todo="take another learner, or wider inputs",
        )  # fmt: skip
