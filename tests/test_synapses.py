from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hil.errors import ConfigError
from hil.seeding import generator
from hil.synapses import (
    BesideLinear,
    MeanConv2d,
    QuantisedReLU,
    StandardisedConv2d,
    StandardisedLinear,
    behind_devices,
    channels_of,
    conv,
    dense,
    flat_widths,
    length_normalised,
    reads,
)


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(0, 0, "x"))


def test_standardised_rows_have_mean_zero_and_the_length_of_their_gain() -> None:
    synapse = StandardisedLinear(400, 3, bias=False, gain=2.0)
    used = synapse(torch.eye(400)).t()
    assert torch.allclose(used.mean(1), torch.zeros(3), atol=1e-6)
    spread = synapse.weight.var(1, correction=0) * 400
    assert torch.allclose(used.square().sum(1), 4 * spread / (spread + 1e-4), rtol=1e-4)


def test_standardised_weights_ignore_scale_and_offset_of_what_is_stored() -> None:
    one = StandardisedConv2d(2, 3, 3, padding=1)
    other = StandardisedConv2d(2, 3, 3, padding=1)
    with torch.no_grad():
        one.weight.copy_(10 * x(3, 2, 3, 3))
        other.weight.copy_(70 * x(3, 2, 3, 3) + 5)
        other.bias.copy_(one.bias)  # type: ignore[union-attr, arg-type]
    assert torch.allclose(one(x(1, 2, 5, 5)), other(x(1, 2, 5, 5)), atol=1e-4)


def test_length_norm() -> None:
    out = length_normalised(torch.cat([7 * x(4, 9), torch.zeros(1, 9)]))
    assert torch.allclose(out[:4].square().mean(1), torch.ones(4), atol=1e-5)
    assert not out[4].any()


def test_quantised_relu_rounds_clips_and_has_the_slopes_it_says() -> None:
    module = QuantisedReLU(levels=4, threshold=2.0)
    point = torch.tensor([-1.0, 0.2, 0.3, 1.1, 5.0], requires_grad=True)
    out = module(point)
    assert out.tolist() == [0, 0, 1, 2, 4]
    out.sum().backward()
    assert point.grad is not None
    assert point.grad.tolist() == [0, 2, 2, 2, 0]  # levels / threshold inside, 0 where it clips
    assert module.threshold.grad is not None
    assert float(module.threshold.grad) == pytest.approx(-4 * (0.2 + 0.3 + 1.1) / 4)


def test_dense_ends_in_a_plain_readout() -> None:
    made = dense([6, 5, 4, 3], norm="batch", levels=8)
    assert flat_widths(made, 6) == [6, 5, 4, 3]
    assert [channels_of(synapse) for synapse in made] == [5, 4, 3]
    assert type(made[-1]) is nn.Linear
    assert [type(part) for part in made[0].children()] == [nn.Linear, nn.BatchNorm1d, QuantisedReLU]
    assert type(dense([6, 5, 3])[0]) is nn.Linear  # the fast path of the gradient stays open


@pytest.mark.parametrize("pool", ["none", "average", "max"])
def test_conv_takes_and_gives_flat_vectors(pool: str) -> None:
    made = conv([2, 8, 8], [5, 2], kernels=[5, 3], strides=[2, 2], pool=pool, norm="sample")  # type: ignore[arg-type]
    assert flat_widths(made, 128) == [128, 5 * 4 * 4, 2 * 2 * 2]
    assert [channels_of(synapse) for synapse in made] == [5, 2]
    assert made[0](x(3, 128)).shape == (3, 80)


def test_conv_readout_and_statistics_frozen_in_eval() -> None:
    made = conv([1, 6, 6], [4], norm="batch", levels=3, readout=10)
    assert flat_widths(made, 36) == [36, 144, 10]
    net = nn.Sequential(*made)
    net(x(8, 36))
    net.eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    alone, together = net(x(1, 36)), net(torch.cat([x(1, 36), 5 * x(7, 36)]))[:1]
    assert torch.allclose(alone, together, atol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_dense_layers_behind_the_maps() -> None:
    made = conv([1, 6, 6], [4], strides=2, norm="batch", levels=3, units=[20, 12], readout=10)
    assert flat_widths(made, 36) == [36, 36, 20, 12, 10]
    assert [type(part) for part in made[1].children()] == [nn.Linear, nn.BatchNorm1d, QuantisedReLU]


def test_a_norm_and_a_threshold_for_each_convolution() -> None:
    made = conv(
        [1, 6, 6], [4, 5], norm=["batch", "sample"], affine=False, spread=2.0, levels=3, threshold=[4.0, 2.5], units=[10]
    )
    norms = [
        part for synapse in made for part in synapse if isinstance(part, nn.BatchNorm2d | nn.InstanceNorm2d | nn.BatchNorm1d)
    ]
    assert [type(norm) for norm in norms] == [nn.BatchNorm2d, nn.InstanceNorm2d, nn.BatchNorm1d]
    assert not list(norms[0].parameters())
    clips = [float(part.threshold.detach()) for synapse in made for part in synapse if isinstance(part, QuantisedReLU)]
    assert clips == [4.0, 2.5, 2.5]
    assert float(made[1][:-2](x(9, 4 * 36)).detach().std()) == pytest.approx(2.0, rel=0.01)


def test_flat_widths_changes_nothing() -> None:
    made = conv([1, 6, 6], [4], norm="batch")
    before = {name: value.clone() for name, value in made[0].state_dict().items()}
    flat_widths(made, 36)
    assert made[0].training
    assert all(torch.equal(value, before[name]) for name, value in made[0].state_dict().items())


def test_behind_devices_reads_both_sides_of_a_device() -> None:
    made = behind_devices([7, 5, 4])
    assert [type(synapse) for synapse in made] == [nn.Identity, BesideLinear, BesideLinear]
    assert flat_widths(made, 7) == [7, 7, 5, 4]
    assert made[1].in_features == 14
    assert flat_widths(behind_devices([7, 5], concatenate=False), 7) == [7, 7, 5]


def test_synapses_behind_a_device_that_answers_with_another_width() -> None:
    made = behind_devices([7, 5, 4], answers=20)
    assert [synapse.in_features for synapse in made[1:]] == [27, 25]  # type: ignore[union-attr]
    assert flat_widths(made, 7) == [7, 7, 5, 4]
    alone = behind_devices([7, 5, 4], concatenate=False, answers=20)
    assert [synapse.in_features for synapse in alone[1:]] == [20, 20]  # type: ignore[union-attr]
    layered = dense([7, 6, 6, 3], answers=2, norm="batch")
    assert [reads(synapse) for synapse in layered] == [0, 2, 2]
    assert flat_widths(layered, 7) == [7, 6, 6, 3]
    with pytest.raises(ConfigError, match="answers makes no sense"):
        dense([7, 6, 3], answers=2, weights="standardised")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda: dense([5]), "widths"),
        (lambda: dense([5, 0, 3]), "positive whole numbers"),
        (lambda: dense([5, 4, 3], norm="layer"), "none, batch, sample"),  # type: ignore[arg-type]
        (lambda: dense([5, 4, 3], norm="sample"), "none, batch"),
        (lambda: conv([28, 28], [4]), "shape"),
        (lambda: conv([1, 28, 28], [4, 5], kernels=[3]), "kernels"),
        (lambda: conv([1, 28, 28], [4, 5], threshold=[1.0, 2.0, 3.0]), "one, or 2"),
        (lambda: conv([1, 28, 28], [4], pool="mean"), "average"),  # type: ignore[arg-type]
        (lambda: conv([1, 3, 3], [4, 4], strides=4, pool="max"), "behind a layer"),
        (lambda: QuantisedReLU(threshold=0.0), "threshold must be positive"),
        (lambda: flat_widths(dense([5, 4, 3]), 6), "synapse 0 does not take 6 values"),
    ],
)
def test_wrong_settings_are_explained(wrong: object, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize("side", [5, 8, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_convolution_and_the_mean_of_its_neighbours_are_one_convolution(side: int, stride: int) -> None:
    torch.manual_seed(0)
    one = MeanConv2d(2, 3, 5, stride, 2).double()
    x = torch.randn(4, 2, side, side, dtype=torch.float64, requires_grad=True)
    whole = functional.conv2d(x, one.weight, one.bias, 1, 2)
    both = functional.avg_pool2d(whole, stride)
    assert torch.allclose(one(x), both, atol=1e-12)
    error = torch.randn_like(both)
    found = torch.autograd.grad(one(x), (x, *one.parameters()), error)
    for a, b in zip(found, torch.autograd.grad(both, (x, *one.parameters()), error), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
