"""Gradients of some batches together, and no longer than a norm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim import SGD

from hil.training.moves import Moves
from hil.training.stopping import exhausted, since_better

X, Y = torch.randn(20, 3, generator=torch.manual_seed(0)), torch.randn(20, 2, generator=torch.manual_seed(1))
BATCHES = ((0, 8), (8, 16), (16, 20))


def gradient(model: torch.nn.Linear, first: int, last: int) -> None:
    model.zero_grad(set_to_none=True)
    torch.nn.functional.mse_loss(model(X[first:last]), Y[first:last]).backward()  # type: ignore[no-untyped-call]


def trained(moves: Moves, model: torch.nn.Linear) -> list[torch.Tensor]:
    """The weights after each batch."""
    seen = []
    for number, (first, last) in enumerate(BATCHES, 1):
        gradient(model, first, last)
        moves.add(last - first, number == len(BATCHES))
        seen.append(model.weight.detach().clone())
    return seen


def test_batches_together_are_one_batch() -> None:
    model = torch.nn.Linear(3, 2)
    whole, begin = copy.deepcopy(model), model.weight.detach().clone()
    moves = Moves(SGD(model.parameters(), 0.3, momentum=0.9), accumulate=4)
    seen = trained(moves, model)
    assert torch.equal(seen[0], begin)
    assert torch.equal(seen[1], begin)
    gradient(whole, 0, 20)
    Moves(SGD(whole.parameters(), 0.3, momentum=0.9)).add(20, True)
    torch.testing.assert_close(model.weight, whole.weight)
    torch.testing.assert_close(model.bias, whole.bias)
    assert (moves.gathered, moves.batches, moves.examples) == ({}, 0, 0)


def test_a_state_in_between_goes_on_to_the_same_bits() -> None:
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    first, second = (Moves(SGD(model.parameters(), 0.3), accumulate=3, clip_norm=0.1) for model in models)
    trained(first, models[0])
    for number, model, moves in ((0, models[1], second), (1, models[1], second)):
        gradient(model, *BATCHES[number])
        moves.add(8, False)
    third = Moves(second.optimizer, accumulate=3, clip_norm=0.1)
    tensors, facts = copy.deepcopy(second.state())
    assert sorted(tensors) == ["0", "1"]
    third.check(tensors, facts)
    third.restore(tensors, facts)
    gradient(models[1], *BATCHES[2])
    third.add(4, True)
    assert torch.equal(models[0].weight, models[1].weight)


def test_a_gradient_is_scaled_down_to_the_norm_and_never_up() -> None:
    for most, length in ((1e-3, 1e-3), (1e3, None)):
        model = torch.nn.Linear(3, 2)
        gradient(model, 0, 20)
        free = torch.cat([param.grad.flatten() for param in model.parameters() if param.grad is not None]).norm()
        before = copy.deepcopy(model)
        Moves(SGD(model.parameters(), 1.0), clip_norm=most).add(20, True)
        moved = [a - b for a, b in zip(model.parameters(), before.parameters(), strict=True)]
        found = torch.cat([one.detach().flatten() for one in moved]).norm()
        assert float(found) == pytest.approx(float(free) if length is None else length, rel=1e-3)


@pytest.mark.parametrize(
    ("tensors", "facts"),
    [
        ({"7": torch.zeros(2, 3)}, {"batches": 1, "examples": 8}),
        ({"0": torch.zeros(3, 2)}, {"batches": 1, "examples": 8}),
        ({"0": torch.zeros(2, 3)}, {"batches": 0, "examples": 0}),
        ({}, {"batches": -1, "examples": 8}),
        ({}, {"batches": 1, "examples": 0}),
        ({}, {"batches": 1.0, "examples": 8}),
    ],
)
def test_a_damaged_state_is_refused(tensors: dict[str, torch.Tensor], facts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="gathered"):
        Moves(SGD(torch.nn.Linear(3, 2).parameters(), 0.1), 2).check(tensors, facts)


def test_patience() -> None:
    scores = [0.5, 0.6, 0.6, 0.605, 0.59]
    assert [since_better(scores[:n]) for n in range(6)] == [0, 0, 0, 1, 0, 1]
    assert [since_better(scores[:n], 0.01) for n in range(6)] == [0, 0, 0, 1, 2, 3]
    assert [since_better([-one for one in scores[:n]], rising=False) for n in range(6)] == [0, 0, 0, 1, 0, 1]
    assert exhausted(scores, 1)
    assert not exhausted(scores, 2)
    assert exhausted(scores, 3, 0.01)
    assert not exhausted(scores, None)
    assert not exhausted([], 1)
