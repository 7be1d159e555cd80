"""Functions g of a population at once: candidate i of the input goes through the i-th function.

    stacked([g_0, g_1, ...])(pre)[i] = g_i( pre[i] )            pre (candidates, batch, n)

Functions of one family are evaluated together, their parameters a column of tensors (candidates, 1, 1); tables of
unequal length one by one. Every family does the operations of its own `__call__` in hil/feedback/functions.py in the same
order,
so a candidate agrees with it to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hil.feedback.feedback import ArctanSlope, Box, Constant, Fourier, Function, Gaussian, Shaped, Sine, Tabulated

BatchedFunction = Callable[[Tensor], Tensor]


def stacked(functions: Sequence[Function], place: torch.device | str = "cpu") -> BatchedFunction:
    """Make one function of (candidates, batch, n), on the torch device `place`."""
    kinds = list(dict.fromkeys(type(g) for g in functions))
    if len(kinds) == 1:
        return _MADE[kinds[0]](functions, place)
    parts = []
    for kind in kinds:
        which = [number for number, g in enumerate(functions) if type(g) is kind]
        parts.append((torch.tensor(which, device=place), _MADE[kind]([functions[k] for k in which], place)))

    def call(pre: Tensor) -> Tensor:
        answer = torch.empty_like(pre)
        for candidates, made in parts:
            answer[candidates] = made(pre[candidates])
        return answer

    return call


def _column(values: Sequence[float], place: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=place).float().view(-1, 1, 1)


def _fourier(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    found = [g for g in gs if isinstance(g, Fourier)]
    terms = max(len(g.sin) for g in found)
    sin, cos = (
        [_column([values[k] if k < len(values) else 0.0 for values in rows], place) for k in range(terms)]
        for rows in ([g.sin for g in found], [g.cos for g in found])
    )
    rate = _column([math.pi / g.half_period for g in found], place)

    def call(pre: Tensor) -> Tensor:
        angle = pre * rate
        sine, cosine = angle.sin(), angle.cos_()
        twice = 2 * cosine
        s1 = s2 = c1 = c2 = torch.zeros_like(pre)
        for p, q in zip(reversed(sin), reversed(cos), strict=True):
            s1, s2 = (twice * s1).sub_(s2).add_(p), s1
            c1, c2 = (twice * c1).sub_(c2).add_(q), c1
        return sine.mul_(s1).addcmul_(cosine, c1).sub_(c2)

    return call


def _sine(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    found = [g for g in gs if isinstance(g, Sine)]
    frequency, phase = _column([g.frequency for g in found], place), _column([g.phase for g in found], place)
    amplitude, offset = _column([g.amplitude for g in found], place), _column([g.offset for g in found], place)
    return lambda pre: (pre * frequency).add_(phase).sin_().mul_(amplitude).add_(offset)


def _box(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    found = [g for g in gs if isinstance(g, Box)]
    centre, half = _column([g.centre for g in found], place), _column([g.half_width for g in found], place)
    return lambda pre: (pre - centre).abs_().lt_(half)


def _gaussian(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    found = [g for g in gs if isinstance(g, Gaussian)]
    centre, factor = _column([g.centre for g in found], place), _column([-0.5 / g.width**2 for g in found], place)
    return lambda pre: (pre - centre).square_().mul_(factor).exp_()


def _arctan(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    found = [g for g in gs if isinstance(g, ArctanSlope)]
    centre, steep = _column([g.centre for g in found], place), _column([0.5 * math.pi * g.alpha for g in found], place)
    half = _column([0.5 * g.alpha for g in found], place)
    return lambda pre: (pre - centre).mul_(steep).square_().add_(1).reciprocal_().mul_(half)


def _constant(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    value = _column([g.value for g in gs if isinstance(g, Constant)], place)
    return lambda pre: value.expand_as(pre).clone()


def _tabulated(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    found = [g for g in gs if isinstance(g, Tabulated)]
    if len({len(g.x) for g in found}) > 1:
        return _each(gs, place)
    x, y = (torch.tensor(rows, dtype=torch.float32, device=place) for rows in ([g.x for g in found], [g.y for g in found]))
    low, high = x[:, :1], x[:, -1:]

    def call(pre: Tensor) -> Tensor:
        flat = pre.flatten(1)
        inside = torch.minimum(torch.maximum(flat, low), high)
        right = torch.searchsorted(x, inside).clamp_(1, x.shape[1] - 1)
        left = right - 1
        x0, y0 = x.gather(1, left), y.gather(1, left)
        share = inside.sub_(x0).div_(x.gather(1, right).sub_(x0))
        return torch.lerp(y0, y.gather(1, right), share).view_as(pre)

    return call


def _shaped(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    found = [g for g in gs if isinstance(g, Shaped)]
    inner = stacked([g.of for g in found], place)
    amplitude, offset = _column([g.amplitude for g in found], place), _column([g.offset for g in found], place)
    clip = _column([math.inf if g.clip is None else g.clip for g in found], place)

    def call(pre: Tensor) -> Tensor:
        value = inner(pre).mul_(amplitude).add_(offset)
        return torch.minimum(torch.maximum(value, -clip), clip)

    return call


def _each(gs: Sequence[Function], place: torch.device | str) -> BatchedFunction:
    """One by one: tables of unequal length."""
    del place
    return lambda pre: torch.stack([g(candidate) for g, candidate in zip(gs, pre, strict=True)])


_MADE: Mapping[type[Function], Callable[[Sequence[Function], torch.device | str], BatchedFunction]] = {
    Fourier: _fourier,
    Sine: _sine,
    Box: _box,
    Gaussian: _gaussian,
    ArctanSlope: _arctan,
    Constant: _constant,
    Tabulated: _tabulated,
    Shaped: _shaped,
}
