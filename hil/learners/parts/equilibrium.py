"""The two stages of spikes around a loop of layers: rates that settle, and the rates of their adjoint.

    forward     I_0[t] = F_x(x[t]) + F_N( s_{N-1}[t-1] ),   I_i[t] = F_i( s_{i-1}[t] ),     a_i = mean_t s_i[t]
    settled     a_0 = clip( (F_x(x) + F_N(a_{N-1})) / V, 0, 1 ),   a_i = clip( F_i(a_{i-1}) / V, 0, 1 )
    backward    J_{N-1}[t] = g + F_N^T( c_0 q_0[t-1] ),  J_{i-1}[t] = F_i^T( c_i q_i[t] ),   beta_i = mean_t q_i[t]

s are spikes of neurons with the reset quantum V, q of ternary couples (-1, 0, +1) with the quantum 1, both without leak and
with soft reset, so that the error of a rate falls as 1/T. With a leak lam the forward mean is weighted by lam^(T-t). F^T is the
exact vector-Jacobian product of the synapse alone, at the rates. Only sums over time are kept: memory does not grow with T.

Source: Xiao et al., SPIDE, arXiv:2302.00232 (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.contraction import Contracted
from hil.device import plain, reset
from hil.errors import ContractError
from hil.learners.parts.shown import Shown
from hil.network import Layer, Network, accumulate
from hil.synapses import MeanConv2d, StandardisedConv2d

FEW = 16  # a share of spikes below 1/16 is faster event by event
Law = Callable[[Tensor], Tensor]
COARSE_STEPS, COARSE_ROWS, FINE_STEPS = 8, 12, 100


class Linearised:
    """A synapse at a point.

    Args:
        synapse: (batch, n_in) -> (batch, n_out).
        at: (batch, n_in).
    """

    def __init__(self, synapse: nn.Module, at: Tensor) -> None:
        self._synapse, self._at = synapse, at
        self._matrix, self._maps = matrix_of(synapse), transpose_of(synapse)
        if self._matrix is None and self._maps is None:
            self._at = at.detach().requires_grad_(True)
            with torch.enable_grad():
                self._answer: Tensor = synapse(self._at)

    def transposed(self, delta: Tensor) -> Tensor:
        """(batch, n_out) -> (batch, n_in)."""
        if self._matrix is not None:
            few = delta.device.type == "cpu" and int(delta.count_nonzero()) * FEW <= delta.numel()
            return by_events(delta, self._matrix) if few else delta @ self._matrix
        if self._maps is not None:
            return self._maps(delta) if delta.device.type != "cpu" else by_rows(delta, self._maps, self._at.shape[1])
        (found,) = torch.autograd.grad(self._answer, self._at, delta, retain_graph=True)
        return found

    def pull(self, delta: Tensor) -> None:
        """Add to `.grad` of the synapse's parameters what dL/d(its answer) = `delta` means for them."""
        accumulate(self._synapse, self._at.detach(), delta)


def by_events(spikes: Tensor, matrix: Tensor) -> Tensor:
    """Return spikes @ matrix at the cost of the spikes there are: every one adds its row of the matrix."""
    rows, columns = spikes.nonzero(as_tuple=True)
    count = torch.bincount(rows, minlength=len(spikes))
    first = count.cumsum(0).sub_(count)
    return functional.embedding_bag(columns, matrix, first, mode="sum", per_sample_weights=spikes[rows, columns])


def by_rows(delta: Tensor, law: Law, width: int) -> Tensor:
    """Return law(delta), which is linear, (batch, width), at the cost of the rows that are not 0: few, once most is learned."""
    rows = delta.any(1)
    if 2 * int(rows.count_nonzero()) > len(delta):
        return law(delta)
    answer = delta.new_zeros(len(delta), width)
    answer[rows] = law(delta[rows])
    return answer


@torch.no_grad()
def transpose_of(synapse: nn.Module) -> Law | None:
    """The transpose of a convolution between flat maps, (batch, n_out) -> (batch, n_in), its kernel as it is now; else None."""
    chain, factor = (synapse.linear, synapse.factor()) if isinstance(synapse, Contracted) else (synapse, 1.0)
    if not isinstance(chain, nn.Sequential) or [type(part) for part in (chain[0], chain[-1])] != [nn.Unflatten, nn.Flatten]:
        return None
    middle: Any = chain[1]
    known = type(middle) in (nn.Conv2d, MeanConv2d, StandardisedConv2d, nn.ConvTranspose2d)
    if len(chain) != 3 or not known or middle.padding_mode != "zeros" or isinstance(middle.padding, str):
        return None
    kernel = (middle.whole() if isinstance(middle, MeanConv2d) else middle.weight).detach() * factor
    before = tuple(chain[0].unflattened_size)  # type: ignore[arg-type]
    behind = tuple(middle(kernel.new_zeros(1, *before)).shape[1:])
    steps = (middle.stride, middle.padding, middle.dilation, middle.transposed, middle.output_padding, middle.groups)

    def law(delta: Tensor) -> Tensor:
        of = delta.new_empty(len(delta), *before)  # its shape is what counts
        how = (delta.view(-1, *behind), of, kernel, None, *steps, [True, False, False])
        found: Tensor = torch.ops.aten.convolution_backward(*how)[0]
        return found.flatten(1)

    return law


def matrix_of(synapse: nn.Module) -> Tensor | None:
    """W (n_out, n_in) of a dense synapse, detached; None for any other."""
    if type(synapse) is nn.Linear:
        return synapse.weight.detach()
    matrix = synapse.matrix() if isinstance(synapse, Contracted) else None
    return None if matrix is None else matrix.detach()


def law_of(synapse: nn.Module) -> Law:
    """The synapse with its weights as they are now, for many calls: what does not depend on the input is worked out once."""
    if not isinstance(synapse, Contracted):
        return synapse
    matrix, factor = matrix_of(synapse), synapse.factor()
    if matrix is not None:
        return lambda spikes: functional.linear(spikes, matrix)
    return lambda spikes: synapse.linear(spikes).mul_(factor)


class Settled(NamedTuple):
    """The result of stage 1.

    Args:
        rates: a_i (batch, n_i).
        overflow: share of the currents beyond the range.
        feedback_share: rms over rms of the mean currents into layer 0, that of the feedback and all; None: no feedback.
    """

    rates: tuple[Tensor, ...]
    overflow: float
    feedback_share: float | None = None


@torch.no_grad()
def settle(net: Network, x: Tensor, steps: int, leak: float = 1.0) -> Settled:
    """Stage 1: x (batch, features) as a constant current, or a sequence frame by frame, `steps` steps from rest."""
    hidden = net.stack[:-1]
    net.reset()
    shown, outside = Shown(x, steps), torch.empty(0)
    laws = [law_of(layer.synapse) for layer in hidden[1:]]
    back = None if net.feedback is None else law_of(net.feedback)
    totals: list[Tensor] = []
    entered: list[Tensor] = []  # of a network with feedback: all currents into layer 0, and those that come back
    spikes = torch.empty(0)
    over = sent = 0
    for step in range(steps):
        if shown.begins(step):
            (outside,) = shown.currents(hidden[0].synapse, step, 1)
        current = outside
        if back is not None:
            returned = back(spikes) if step else torch.zeros_like(outside)
            current = returned + outside
            _add(entered, 0, current, leak)
            _add(entered, 1, returned, leak)
        for number, layer in enumerate(hidden):
            spikes = layer.measure(current.unsqueeze(0)).squeeze(0)
            _add(totals, number, spikes, leak)
            over, sent = over + _overflowing(layer, current), sent + current.numel()
            if number + 1 < len(hidden):
                current = laws[number](spikes)
    incessant = torch.zeros((), dtype=outside.dtype, device=outside.device)
    for _ in range(steps):
        incessant.mul_(leak).add_(1)  # rounded as the totals are: a neuron that always fired has the rate 1, not a bit less
    share = float(entered[1].norm() / entered[0].norm().clamp(min=1e-12)) if entered else None
    return Settled(tuple(total.div_(incessant) for total in totals), over / sent, share)


def _add(totals: list[Tensor], number: int, values: Tensor, leak: float) -> None:
    if number == len(totals):
        totals.append(values.clone())
    elif leak == 1:
        totals[number].add_(values)
    else:
        totals[number].mul_(leak).add_(values)


def _overflowing(layer: Layer, current: Tensor) -> int:
    encode = layer.encode
    return 0 if encode is None or encode.overflow == "refuse" else encode.overflowing(current)


@torch.no_grad()
def mean_currents(net: Network, x: Tensor, rates: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the answers of the synapses to the mean input and these rates, (batch, n_i) a layer: exact for affine ones."""
    first: Tensor = net.stack[0].synapse(x)
    if net.feedback is not None:
        first = first + net.feedback(rates[-1])
    return first, *(layer.synapse(a) for layer, a in zip(net.stack[1:-1], rates[:-1], strict=True))


class Adjoint(NamedTuple):
    """The result of stage 2.

    Args:
        rates: beta_i (batch, n_i).
        firing: spikes of either sign per couple and step, per layer, a tensor each.
    """

    rates: tuple[Tensor, ...]
    firing: tuple[Tensor, ...]


@torch.no_grad()
def adjoint(
    couples: Sequence[Layer], links: Sequence[Linearised | None], gates: Sequence[Tensor], top: Tensor, steps: int
) -> Adjoint:
    """Stage 2, `steps` steps from rest.

    Args:
        couples: ternary arrays, one for each hidden layer.
        links: F_N (None: no loop), F_1, ..., each at the rates.
        gates: c_i (batch, n_i), what a spike of layer i weighs.
        top: g (batch, n), the constant current into the last layer.
        steps: so many.
    """
    for layer in couples:
        if layer.device is not None:
            reset(layer.device)
    totals = [torch.zeros_like(gate) for gate in gates]
    firing = [torch.zeros((), device=top.device) for _ in gates]
    gated: Tensor | None = None  # of layer 0, one step ago
    loop, *down = links
    for _ in range(steps):
        current = top if loop is None or gated is None else loop.transposed(gated).add_(top)
        for number in reversed(range(len(couples))):
            spikes = couples[number].measure(current.unsqueeze(0)).squeeze(0)
            totals[number].add_(spikes)
            firing[number].add_(count_of(spikes))
            gated = spikes * gates[number]
            link = down[number - 1] if number else None
            if link is not None:
                current = link.transposed(gated)
    return Adjoint(
        tuple(total.div_(steps) for total in totals),
        tuple(count / (steps * gate.numel()) for count, gate in zip(firing, gates, strict=True)),
    )


def count_of(spikes: Tensor) -> Tensor:
    """Number of spikes, of -1, 0 and 1: their square, which is many times as fast as counting."""
    flat = spikes.flatten()
    return flat.dot(flat)


@torch.no_grad()
def measured_quantum(layer: Layer) -> float:
    """V of a layer's neurons, in the unit of their port: constant current over rate, mean over the neurons.

    A coarse pass over a factor of 2048 in current, then one row at half the quantum.

    Raises:
        ContractError: the neurons do not fire in proportion to the current.
    """
    device = layer.device
    assert device is not None  # the caller chose a layer with neurons
    port = device.spec.inputs
    size = port.size or 1
    place = next((param.device for param in layer.synapse.parameters()), torch.device("cpu"))
    amounts = port.shared_high * 2.0 ** -torch.arange(COARSE_ROWS, device=place)
    rates = _rates(layer, amounts.view(1, -1, 1).expand(COARSE_STEPS, -1, size)).mean(1)
    between = int((rates - 0.5).abs().argmin())
    half = float(0.5 * amounts[between] / rates[between].clamp(min=1e-6))
    if port.shared_low <= half <= port.shared_high:
        rate = float(_rates(layer, torch.full((FINE_STEPS, 1, size), half, device=place)).mean())
        if 0.3 < rate < 0.7:
            return half / rate
    raise ContractError(
        "the neurons do not fire in proportion to the current", where="SPIDE",
        got="rates " + ", ".join(f"{float(rate):.2f}" for rate in rates),
        allowed="integrate-and-fire with soft reset: leak = 1", todo="set quantum in [learner], or choose other neurons",
    )  # fmt: skip


def _rates(layer: Layer, currents: Tensor) -> Tensor:
    """Currents (time, rows, n) in units of the port -> rates (rows, n)."""
    device = layer.device
    assert device is not None
    reset(device)
    return plain(device.forward(currents.contiguous()), device.spec.outputs.name, currents.device).mean(0)
