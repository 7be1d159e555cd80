"""Synaptic operations: how many additions and multiplications a learner's products cost, in both directions.

    accumulation               one factor is a spike, so that the other is added         0.9 pJ    3 accesses
    multiply-accumulation      both factors are numbers                                  4.6 pJ    4 accesses

Counted are the products of matrices and the convolutions, with the values that they really had: a product with 0 is no
operation, whatever the rule. The count is the sum of the same product of indicators (1 where a factor is not 0), so borders and
strides are exact. A factor is made of spikes if all of it that is not 0 has one magnitude. Between layers, values that are all
whole multiples of the smallest one are sums of spikes over time, and each spike is counted.

    forward      the answers of synapses; a synapse that is run once more, only to be differentiated, is not counted again
    backward     all other products: errors carried to layers, updates of weights, losses

A processor that works event by event, without a cache, reads the factor that it adds, and reads and writes the sum; of two
numbers it reads one factor more. Not counted: what neurons do by themselves, norms, pooling, optimisers, and the values that a
rule keeps for its backward direction, which for backpropagation through time are those of all time steps.

Source: Horowitz, ISSCC 2014 (an addition of 32 bit floats 0.9 pJ, a multiplication 3.7 pJ, in 45 nm CMOS), as papers on spiking
networks use it; Xiao et al., SPIDE, arXiv:2302.00232 (an estimate from firing rates, for both stages).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ACCUMULATION_J, MULTIPLICATION_J = 0.9e-12, 4.6e-12
ACCUMULATION_ACCESSES, MULTIPLICATION_ACCESSES = 3, 4
WHOLE = 1e-3  # a multiple may be off by so much: sums of spikes are rounded, and scaled
ATEN = torch.ops.aten
MATRICES = {ATEN.mm.default: 0, ATEN.addmm.default: 1, ATEN.addmm_.default: 1}  # where their factors begin
BAGS = (ATEN._embedding_bag.default, ATEN._embedding_bag_forward_only.default)


@dataclass
class Operations:
    """Operations of one direction."""

    accumulations: float = 0.0
    multiplications: float = 0.0

    @property
    def accesses(self) -> float:
        """Values read from and written to memory."""
        return ACCUMULATION_ACCESSES * self.accumulations + MULTIPLICATION_ACCESSES * self.multiplications

    @property
    def energy_j(self) -> float:
        """Energy of the arithmetic alone, J."""
        return ACCUMULATION_J * self.accumulations + MULTIPLICATION_J * self.multiplications

    def add(self, count: float, spikes: bool) -> None:
        """Count more of one kind."""
        if spikes:
            self.accumulations += count
        else:
            self.multiplications += count

    def table(self, examples: int) -> dict[str, float]:
        """For files, per example."""
        return {
            "accumulations": self.accumulations / examples,
            "multiplications": self.multiplications / examples,
            "memory_accesses": self.accesses / examples,
            "energy_j": self.energy_j / examples,
        }


@dataclass
class Counted:
    """The operations of a step: forward and backward."""

    forward: Operations = field(default_factory=Operations)
    backward: Operations = field(default_factory=Operations)


@contextmanager
def counting(x: Tensor) -> Iterator[Counted]:
    """Count the operations of this thread while the context is open.

    Args:
        x: what the network is shown, which is numbers even where they are whole multiples of the smallest one.
    """
    found = Counted()
    answers = _Answers()
    with answers, _Products(found, x, answers):
        yield found


class _Answers(TorchFunctionMode):
    """Knows whether a matrix product is the answer of a synapse: those are made by `functional.linear`."""

    inside = False

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.inside, before = func is functional.linear or self.inside, self.inside
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.inside = before


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own mode has no types
    """Sees every product, those of automatic differentiation too."""

    def __init__(self, found: Counted, x: Tensor, answers: _Answers) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found, self._answers, self._shown = found, answers, x.untyped_storage().data_ptr()
        self._answered: set[tuple[int, ...]] = set()  # shapes of weights that were used without a graph

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func in MATRICES:
            a, b = args[MATRICES[func] :][:2]
            if self._answers.inside:
                self._answer(a, b.shape, lambda counts: float(counts.double().sum()) * b.shape[1])
            else:
                self._product(a, b, lambda one, other: float(one.sum(0).double() @ other.sum(1).double()))
        elif func is ATEN.convolution.default:
            x, kernel, _, *how = args
            self._answer(x, kernel.shape, lambda counts: _sent_on(counts, kernel, how))
        elif func is ATEN.convolution_backward.default:
            delta, x, kernel, _, *how, wanted = args
            if wanted[0]:
                self._product(delta, kernel, lambda one, _: _carried(one, x, kernel, how))
            if wanted[1]:
                self._product(delta, x, lambda one, other: _updated(one, other, kernel, how))
        elif func in BAGS:
            rows, columns = args[:2]
            self._found.backward.add(float(len(columns) * rows.shape[1]), True)
        return answer

    def _answer(self, x: Tensor, weights: torch.Size, count: Callable[[Tensor], float]) -> None:
        """A synapse answers x."""
        graph = torch.is_grad_enabled()
        if graph and tuple(weights) in self._answered:
            return  # it is run again for its gradient
        if not graph:
            self._answered.add(tuple(weights))
        spikes = _multiples(x) if x.untyped_storage().data_ptr() != self._shown or _spikes(x) else None
        self._found.forward.add(count(x.ne(0).to(x.dtype) if spikes is None else spikes), spikes is not None)

    def _product(self, a: Tensor, b: Tensor, count: Callable[[Tensor, Tensor], float]) -> None:
        """Any other product."""
        self._found.backward.add(count(a.ne(0).to(a.dtype), b.ne(0).to(b.dtype)), _spikes(a) or _spikes(b))


def _sent_on(counts: Tensor, kernel: Tensor, how: Sequence[Any]) -> float:
    """Spikes of maps times the places that each reaches."""
    *shape, transposed, padding, groups = how
    fan_out = kernel.shape[1] if transposed else kernel.shape[0] // groups
    found = ATEN.convolution(counts.sum(1, keepdim=True), _ones(kernel), None, *shape, transposed, padding, 1)
    return float(found.double().sum()) * fan_out


def _carried(some: Tensor, x: Tensor, kernel: Tensor, how: Sequence[Any]) -> float:
    """Errors of maps times the places that each came from."""
    *shape, transposed, padding, groups = how
    fan_in = kernel.shape[0] // groups if transposed else kernel.shape[1]
    more = (*shape, transposed, padding, 1, [True, False, False])
    found = ATEN.convolution_backward(some.sum(1, keepdim=True), x[:, :1].contiguous(), _ones(kernel), None, *more)[0]
    return float(found.double().sum()) * fan_in


def _updated(delta: Tensor, x: Tensor, kernel: Tensor, how: Sequence[Any]) -> float:
    found = ATEN.convolution_backward(delta, x, kernel, None, *how, [False, True, False])[1]
    return float(found.double().sum())


def _ones(kernel: Tensor) -> Tensor:
    return torch.ones(1, 1, *kernel.shape[2:], dtype=kernel.dtype, device=kernel.device)


def _spikes(values: Tensor) -> bool:
    """True if all that is not 0 has one magnitude."""
    size = values.abs()
    least = size.where(size > 0, torch.inf).min() if size.numel() else size.new_zeros(())
    return bool(size.max() <= least * (1 + WHOLE)) if size.numel() else True


def _multiples(values: Tensor) -> Tensor | None:
    """How many spikes each value stands for; None if they are numbers."""
    size = values.abs()
    many = size / size.where(size > 0, torch.inf).min()
    whole = many.round()
    return whole if bool(((many - whole).abs() <= WHOLE).all()) else None
