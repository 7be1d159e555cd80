"""Synapses: what the host computes between two devices, (batch, n_in) -> (batch, n_out), always flat at both ends.

    scaled weight standardisation    w_ij = gain_i ( v_ij - mean_j v_ij ) / sqrt( fan_in var_j v_ij + eps )
    length normalisation             y = x / sqrt( mean_j x_j^2 + eps )
    quantised clipped rectifier      y = round( levels clip( x / threshold, 0, 1 ) )      in quanta, 0 to levels

Sources: Brock et al., ICLR 2021, arXiv:2101.08692 (standardisation); Hinton, arXiv:2212.13345 (length); Bu et al., ICLR 2022,
and Xu et al., arXiv:2507.23643 (rectifier: rounding has the derivative 1, clipping its own, the threshold is learned).

Batch normalisation keeps running statistics, frozen whenever a module is in eval(); learners set train() and eval().
`dense`, `conv` and `masks` give the list of synapses of a whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.errors import ConfigError
from hil.settings import Count

Weights = Literal["plain", "standardised"]
Norm = Literal["none", "batch", "sample"]
Pool = Literal["none", "average", "max"]
T = TypeVar("T", bound=str | float)
Levels = Literal["uniform", "binary"]
EPS = 1e-4
WHERE = "[network]"


class StandardisedLinear(nn.Linear):
    """nn.Linear whose rows are standardised before use.

    Args:
        gain: initial factor; it is trained, one a row.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__(in_features, out_features, bias)
        self.gain = nn.Parameter(torch.full((out_features,), gain))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_features) -> (batch, out_features)."""
        return functional.linear(x, standardised(self.weight, self.gain), self.bias)


class MeanConv2d(nn.Conv2d):
    """nn.Conv2d whose stride is that of a mean: of stride times stride neighbours of the answers of a convolution of stride 1.

    Both are one convolution. The mean of neighbouring answers is the answer of the mean of the shifted kernels, whose side is
    longer by stride - 1: of a kernel of 5 and a stride of 2, 36 products an answer in place of 100.

    Args:
        mean: False: nn.Conv2d as it is, which strides.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True,
        mean: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=bias)
        self.pool = stride if mean else 1

    def kernel(self) -> Tensor:
        """(out_channels, in_channels, kernel, kernel), before the mean."""
        return self.weight

    def whole(self) -> Tensor:
        """(out_channels, in_channels, kernel + pool - 1, kernel + pool - 1): that of both together."""
        return mean_of_shifted(self.kernel(), self.pool)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        return functional.conv2d(x, self.whole(), self.bias, self.stride, self.padding)


class StandardisedConv2d(MeanConv2d):
    """MeanConv2d whose kernels are standardised before use.

    Args:
        gain: initial factor; trained, one a channel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True,
        gain: float = 1.0, mean: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias, mean)
        self.gain = nn.Parameter(torch.full((out_channels,), gain))

    def kernel(self) -> Tensor:
        """(out_channels, in_channels, kernel, kernel), standardised."""
        return standardised(self.weight, self.gain)


def mean_of_shifted(kernel: Tensor, pool: int) -> Tensor:
    """(..., k, k) -> (..., k + pool - 1, k + pool - 1): the mean of the kernel at each of pool times pool places."""
    return kernel if pool == 1 else functional.avg_pool2d(functional.pad(kernel, (pool - 1,) * 4), pool, 1)


def standardised(weight: Tensor, gain: Tensor) -> Tensor:
    """Standardise the weights: every weight[i] gets the mean 0 and the sum of squares gain[i]^2."""
    flat = weight.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    spread = (centred.square().mean(1, keepdim=True) * flat.shape[1] + EPS).rsqrt()
    return (centred * (spread * gain.unsqueeze(1))).view_as(weight)


class AnswerLinear(nn.Linear):
    """An nn.Linear behind a device that answers with other than as many values as it is sent: with in_features of them."""


class BesideLinear(nn.Linear):
    """An nn.Linear behind a device that reads [ P(h); h ]: what the device answered, and what it was sent.

    Args:
        width: values sent.
        answers: values answered; 0: as many as are sent.
    """

    def __init__(self, width: int, out_features: int, bias: bool = True, answers: int = 0) -> None:
        super().__init__((answers or width) + width, out_features, bias)


class LateLinear(nn.Linear):
    """An nn.Linear that reads what a node with memory answered in several steps of time: the present one and earlier ones.

        seen[t] = [ h_j(t - lag - late_j) for all j and lags ]         0 before the sequence began

    Args:
        width: values that the node answers with, n.
        out_features: of the answer.
        lags: how many steps back; in_features is n times their number.
        late: (n,), by how many steps more each value is read late; whole numbers.
        bias: there is one.
    """

    late: Tensor

    def __init__(self, width: int, out_features: int, lags: Sequence[int], late: Tensor, bias: bool = True) -> None:
        super().__init__(width * len(lags), out_features, bias)
        self.lags = tuple(lags)
        self.register_buffer("late", late)

    def seen(self, h: Tensor) -> Tensor:
        """(time, batch, n) -> (time, batch, in_features)."""
        steps, places = torch.arange(len(h), device=h.device), torch.arange(h.shape[-1], device=h.device)
        found = []
        for lag in self.lags:
            when = steps.unsqueeze(1) - lag - self.late
            found.append((h.transpose(1, 2)[when.clamp(min=0), places] * (when >= 0).unsqueeze(2)).transpose(1, 2))
        return torch.cat(found, -1)


def length_normalised(x: Tensor) -> Tensor:
    """(batch, n) -> (batch, n), root mean square 1; an example that is 0 stays 0."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-8).rsqrt()


class Spread(nn.Module):
    """A fixed factor: the standard deviation of what a norm gives.

    Args:
        factor: so much.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (any shape)."""
        return x * self.factor


class QuantisedReLU(nn.Module):
    """Activity in whole quanta, 0 to `levels`: what a neuron that resets by one quantum can answer with as many spikes.

    Args:
        levels: largest answer.
        threshold: input that gives it, at the start; one for the layer, trained.
    """

    def __init__(self, levels: int = 8, threshold: float = 2.0) -> None:
        super().__init__()
        _positive(levels=levels, threshold=threshold)
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, x: Tensor) -> Tensor:
        """Quantise x to `levels` steps up to the threshold, same shape; the gradient is that of the exact value."""
        exact = (x / self.threshold).clamp(0, 1) * self.levels
        return exact + (torch.floor(exact + 0.5) - exact).detach()


def dense(
    widths: Sequence[Count], bias: bool = True, weights: Weights = "plain", norm: Norm = "none", levels: int = 0,
    threshold: float = 2.0, readout: bool = True, gain: float = 1.0, answers: int = 0,
) -> list[nn.Module]:  # fmt: skip
    """Fully connected synapses, one fewer than `widths`.

    Args:
        widths: of the example and of every synapse's answer.
        bias: the synapses have one.
        weights: "plain" or "standardised" (of that `gain`).
        norm: "none" or "batch", behind every synapse but a readout.
        levels: of a QuantisedReLU behind the norm; 0: none.
        threshold: of the QuantisedReLU.
        readout: the last synapse is a plain nn.Linear, for scores.
        gain: of standardised weights.
        answers: values that a device of many channels answers with, if not as many as it is sent; 0: as many. Plain
            weights.

    Raises:
        ConfigError.
    """
    _sizes("widths", widths, 2)
    _choices(weights=(weights, Weights), norm=(norm, Norm))
    if norm == "sample":
        raise ConfigError("a dense layer has nothing to normalise per sample", where=f"{WHERE} norm", allowed="none, batch")
    if answers < 0 or (answers and weights != "plain"):
        raise ConfigError(
            "answers makes no sense", where=f"{WHERE} answers", got=f"{answers}, weights {weights}",
            allowed='0 or more, with weights = "plain"', outputs="untouched; nothing was opened",
        )  # fmt: skip
    synapses: list[nn.Module] = []
    for number, (n_in, n_out) in enumerate(pairwise(widths)):
        plain = AnswerLinear(answers, n_out, bias) if answers and number else nn.Linear(n_in, n_out, bias)
        if readout and number == len(widths) - 2:
            synapses.append(plain)
            continue
        linear = plain if weights == "plain" else StandardisedLinear(n_in, n_out, bias, gain)
        more = [nn.BatchNorm1d(n_out)] if norm == "batch" else []
        synapses.append(_chain([linear, *more, *_rectifier(levels, threshold)]))
    return synapses


def masks(widths: Sequence[Count], levels: Levels = "uniform", offset: float = 0.0, gain: float = 1.0) -> list[nn.Module]:
    """Masks of nodes that are shared in time, and a readout: what each virtual node is sent of an input.

        sent_k = gain ( sum_i m_ki u_i + offset b_k )         b_k uniform, -1 to 1

    Args:
        widths: features, virtual nodes of each layer, outputs.
        levels: of m: "uniform" from -1 to 1, or "binary" -1 and 1.
        offset: size of what is sent besides, whatever the input.
        gain: of all.

    Raises:
        ConfigError.
    """
    _sizes("widths", widths, 2)
    _choices(levels=(levels, Levels))
    synapses: list[nn.Module] = []
    for n_in, n_out in pairwise(widths[:-1]):
        mask = nn.Linear(n_in, n_out)
        with torch.no_grad():
            drawn = torch.rand(n_out, n_in) * 2 - 1
            mask.weight.copy_(gain * (torch.where(drawn < 0, -1.0, 1.0) if levels == "binary" else drawn))
            mask.bias.copy_(gain * offset * (torch.rand(n_out) * 2 - 1))
        synapses.append(mask)
    return [*synapses, nn.Linear(widths[-2], widths[-1])]


def conv(
    shape: Sequence[Count], channels: Sequence[Count], kernels: Sequence[Count] | Count = 3,
    strides: Sequence[Count] | Count = 1,
    pool: Pool = "none", weights: Weights = "plain", norm: Sequence[Norm] | Norm = "none", levels: int = 0,
    threshold: Sequence[float] | float = 2.0, bias: bool = True, units: Sequence[int] = (), readout: int = 0, gain: float = 1.0,
    affine: bool = True, spread: Sequence[float] | float = 1.0,
) -> list[nn.Module]:  # fmt: skip
    """Convolutional synapses, one for each of `channels`; zero-padded by half a kernel. Then dense ones.

    Args:
        shape: (channels, height, width) of an example.
        channels: of every convolution's answer.
        kernels: sides, one for all or one for each.
        strides: one for all, or one for each.
        pool: "average" or "max" takes the stride over by pooling behind a convolution of stride 1; "none" strides.
        weights: as in `dense`.
        norm: as in `dense`; "sample" normalises each map of each example by itself. One for all layers, or one for each
            convolution.
        levels: as in `dense`.
        threshold: as in `dense`, one for all layers, or one for each convolution.
        bias: as in `dense`.
        units: widths of fully connected layers behind; they take norm and threshold of the last convolution.
        readout: width of a last, plain nn.Linear for scores; 0: none.
        gain: as in `dense`.
        affine: a "batch" norm of maps trains a factor and an offset for each channel.
        spread: a fixed factor behind the norm of maps, one for all layers, or one for each convolution.

    Raises:
        ConfigError.
    """
    _sizes("shape", shape, 3, 3)
    _sizes("channels", channels, 1)
    norms, thresholds = _one_each("norm", norm, len(channels)), _one_each("threshold", threshold, len(channels))
    spreads = _one_each("spread", spread, len(channels))
    _positive(spread=min(spreads))
    for one in norms:
        _choices(pool=(pool, Pool), weights=(weights, Weights), norm=(one, Norm))
    sizes = (_each("kernels", kernels, len(channels)), _each("strides", strides, len(channels)))
    synapses: list[nn.Module] = []
    here = tuple(shape)
    for n_out, kernel, stride, one, most, wide in zip(channels, *sizes, norms, thresholds, spreads, strict=True):
        step = 1 if pool == "max" else stride
        filters = _filters(here[0], n_out, kernel, step, weights, bias, gain, pool == "average")
        largest = [nn.MaxPool2d(stride)] if pool == "max" and stride > 1 else []
        behind = [*largest, *_map_norm(one, n_out, affine, wide), *_rectifier(levels, most)]
        parts = [nn.Unflatten(1, here), filters, *behind]
        synapses.append(_chain([*parts, nn.Flatten(1)]))
        here = (n_out, *(_reduced(side, kernel, pool, stride) for side in here[1:]))
        _sizes("the map behind a layer", here, 3, 3)
    behind_maps = [math.prod(here), *units]
    if units:
        flat: Norm = "none" if norms[-1] == "none" else "batch"
        synapses += dense(behind_maps, bias, weights, flat, levels, thresholds[-1], readout=False, gain=gain)
    if readout:
        synapses.append(nn.Linear(behind_maps[-1], readout, bias))
    return synapses


def behind_devices(
    widths: Sequence[Count], concatenate: bool = True, bias: bool = True, answers: int = 0
) -> list[nn.Module]:  # fmt: skip
    """Linear synapses that each follow a device; x goes to the first device as it is.

    Args:
        widths: of the example and of every synapse's answer.
        concatenate: a synapse reads [ P(h); h ], not P(h) alone.
        bias: the synapses have one.
        answers: values that the device answers with, if not as many as it is sent; 0: as many.
    """
    _sizes("widths", widths, 2)

    def behind(n_in: int, n_out: int) -> nn.Module:
        if concatenate:
            return BesideLinear(n_in, n_out, bias, answers)
        return AnswerLinear(answers, n_out, bias) if answers else nn.Linear(n_in, n_out, bias)

    return [nn.Identity(), *(behind(n_in, n_out) for n_in, n_out in pairwise(widths))]


@torch.no_grad()
def flat_widths(synapses: Sequence[nn.Module], features: int) -> list[int]:
    """Width of an example before, between and behind `synapses`, which are left as they were.

    Raises:
        ConfigError: a synapse does not take what the one before gives.
    """
    widths = [features]
    for number, synapse in enumerate(synapses):
        training = synapse.training
        synapse.eval()
        try:
            wide = reads(synapse) or widths[-1]
            place = next((param.device for param in synapse.parameters()), None)
            widths.append(int(synapse(torch.zeros(1, wide, device=place)).shape[1]))
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"synapse {number} does not take {widths[-1]} values", where=WHERE, got=str(error).splitlines()[0],
                outputs="untouched; nothing was opened", todo="make the first width or the shape that of the data",
            ) from error  # fmt: skip
        finally:
            synapse.train(training)
    return widths


def reads(synapse: nn.Module) -> int:
    """Return how many values a synapse reads that says so itself, as it stands behind a device; 0: as the one before gives."""
    first = next((module for module in synapse.modules() if isinstance(module, nn.Linear)), None)
    return first.in_features if isinstance(first, AnswerLinear | BesideLinear | LateLinear) else 0


def takes(synapse: nn.Module) -> tuple[int, ...]:
    """Return the shape of an example that a synapse takes, where its first part says so; else ()."""
    first = next((part for part in synapse.modules() if next(part.children(), None) is None), None)
    if isinstance(first, nn.Unflatten):
        return (math.prod(first.unflattened_size),)
    return (first.in_features,) if isinstance(first, nn.Linear) else ()


def channels_of(synapse: nn.Module) -> int:
    """Return how many channels a synapse gives: those of its last Linear or Conv2d. 0 if it has none."""
    found = 0
    for module in synapse.modules():
        if isinstance(module, nn.Linear):
            found = module.out_features
        elif isinstance(module, nn.Conv2d):
            found = module.out_channels
    return found


def _filters(
    n_in: int, n_out: int, kernel: int, stride: int, weights: Weights, bias: bool, gain: float, mean: bool
) -> nn.Module:  # fmt: skip
    if weights == "standardised":
        return StandardisedConv2d(n_in, n_out, kernel, stride, kernel // 2, bias, gain, mean)
    if mean and stride > 1:
        return MeanConv2d(n_in, n_out, kernel, stride, kernel // 2, bias)
    return nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=bias)


def _map_norm(norm: Norm, channels: int, affine: bool, spread: float) -> list[nn.Module]:
    made: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(channels, affine=affine),
        "sample": lambda: nn.InstanceNorm2d(channels),
    }
    return [] if norm == "none" else [made[norm](), *([Spread(spread)] if spread != 1 else [])]


def _reduced(side: int, kernel: int, pool: Pool, stride: int) -> int:
    steps = side + 2 * (kernel // 2) - kernel
    return steps // stride + 1 if pool == "none" else (steps + 1) // stride


def _rectifier(levels: int, threshold: float) -> list[nn.Module]:
    return [QuantisedReLU(levels, threshold)] if levels else []


def _chain(parts: Sequence[nn.Module]) -> nn.Module:
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def _each(name: str, value: Sequence[int] | int, count: int) -> list[int]:
    values = [value] * count if isinstance(value, int) else list(value)
    _sizes(name, values, count, count)
    return values


def _one_each(name: str, value: Sequence[T] | T, count: int) -> list[T]:
    """One value for all of `count` layers, or one for each."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ConfigError(
            f"{name} makes no sense", where=WHERE, got=f"{len(value)} values", allowed=f"one, or {count}: one a convolution"
        )
    return list(value)


def _sizes(name: str, values: Sequence[int], least: int, most: int | None = None) -> None:
    whole = isinstance(values, list | tuple) and all(type(n) is int and n > 0 for n in values)
    if not whole or len(values) < least or (most is not None and len(values) > most):
        count = f"{least}" if most == least else f"at least {least}"
        raise ConfigError(f"{name} makes no sense", where=WHERE, got=repr(values), allowed=f"{count} positive whole numbers")


def _choices(**chosen: tuple[str, object]) -> None:
    for name, (value, literal) in chosen.items():
        if value not in get_args(literal):
            raise ConfigError(
                f'{name} = "{value}" is not known', where=WHERE, allowed=", ".join(get_args(literal)),
                outputs="untouched; nothing was opened",
            )  # fmt: skip


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} must be positive", where=WHERE, got=str(value))
