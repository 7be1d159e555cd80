from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hil.device import Port
from hil.encoding import Decode, Encode
from hil.errors import ContractError, OutOfRange

PORT = Port("modulator", -3.0, 5.0, "V")
PRE = torch.tensor([[-4.0, -1.0, 0.0, 1.0, 3.0]])


def test_gain_and_offset() -> None:
    assert Encode.onto(PORT, 0.5, 1.0)(PRE).tolist() == [[-1.0, 0.5, 1.0, 1.5, 2.5]]
    assert Encode.onto(PORT)(PRE).equal(PRE)


def test_limits_are_those_of_the_port() -> None:
    encode = Encode.onto(PORT)
    assert (encode.low, encode.high) == (-3.0, 5.0)


def test_refuse_leaves_the_refusal_to_the_port() -> None:
    drive = Encode.onto(PORT, 2.0)(PRE)
    assert drive.tolist() == [[-8.0, -2.0, 0.0, 2.0, 6.0]]
    with pytest.raises(OutOfRange, match="overflow = 'clip' or 'fold'"):
        PORT.check(drive)


def test_clip_saturates_at_the_limits() -> None:
    assert Encode.onto(PORT, 2.0, 0.0, "clip")(PRE).tolist() == [[-3.0, -2.0, 0.0, 2.0, 5.0]]


@pytest.mark.parametrize("overflow", ["refuse", "clip", "fold"])
def test_nan_is_not_hidden(overflow: str) -> None:
    encode = Encode.onto(PORT, overflow=overflow, period=7.0)  # type: ignore[arg-type]
    with pytest.raises(OutOfRange, match="NaN"):
        PORT.check(encode(torch.tensor([math.nan])))


@given(
    low=st.floats(-10, 9),
    span=st.floats(0.01, 20),
    share=st.floats(0.05, 1),
    pre=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    overflow=st.sampled_from(["clip", "fold"]),
)
def test_what_was_clipped_or_folded_is_never_refused(
    low: float, span: float, share: float, pre: list[float], overflow: str
) -> None:
    port = Port("p", low, low + span)
    encode = Encode.onto(port, overflow=overflow, period=share * (port.high - port.low))  # type: ignore[arg-type]
    port.check(encode(torch.tensor(pre)))


@given(pre=st.floats(-200, 200, width=32))
def test_folding_changes_nothing_for_a_periodic_node(pre: float) -> None:
    folded = Encode.onto(PORT, 1.0, 0.3, "fold", 7.0)(torch.tensor([pre], dtype=torch.float64))
    turns = (float(folded) - (pre + 0.3)) / 7.0
    assert turns == pytest.approx(round(turns), abs=1e-6)
    assert abs(float(folded) - 1.0) <= 3.5 + 1e-9  # one period around the middle


def test_folding_leaves_the_middle_period_alone() -> None:
    inside = torch.linspace(-2.49, 4.49, 50, dtype=torch.float64)
    assert torch.allclose(Encode.onto(PORT, overflow="fold", period=7.0)(inside), inside)


@pytest.mark.parametrize("period", [None, 0.0, -1.0, 8.1, math.nan])
def test_a_period_must_fit(period: float | None) -> None:
    with pytest.raises(ContractError, match="period"):
        Encode.onto(PORT, overflow="fold", period=period)


def test_limits_must_be_limits() -> None:
    with pytest.raises(ContractError):
        Encode(1.0, 0.0)
    with pytest.raises(ContractError):
        Encode(math.nan, 0.0)


@pytest.mark.parametrize("gain", [2.0, -2.0, 0.1])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_overflow_is_counted_before_the_policy(gain: float, offset: float) -> None:
    rng = torch.Generator().manual_seed(0)
    pre = torch.randn(40, 5, generator=rng) * 3
    drive = pre * gain + offset
    wanted = int(((drive < -3) | (drive > 5)).sum())
    assert Encode.onto(PORT, gain, offset, "clip").overflowing(pre) == wanted


def test_nothing_overflows_where_nothing_can() -> None:
    assert Encode.onto(PORT, 1.0).overflowing(torch.tensor([-3.0, 5.0])) == 0
    assert Encode.onto(PORT, 0.0).overflowing(PRE * 100) == 0
    assert Encode.onto(PORT).overflowing(torch.zeros(0)) == 0


def test_encoding_is_differentiable_and_clipping_stops_the_slope() -> None:
    pre = torch.tensor([0.0, 100.0], requires_grad=True)
    Encode.onto(PORT, 2.0, 0.1, "clip")(pre).sum().backward()
    assert pre.grad is not None
    assert pre.grad.tolist() == [2.0, 0.0]


def test_decoding() -> None:
    reading = torch.tensor([0.1, 0.35, -0.15])
    assert torch.allclose(Decode(0.1, 0.25)(reading), torch.tensor([0.0, 1.0, -1.0]))
    assert Decode()(reading) is reading
    for scale in (0.0, math.nan):
        with pytest.raises(ContractError, match="scale"):
            Decode(0.0, scale)


GATES = Port("gates", (-1.2, -0.7, -1.0), (0.6, 0.3, 1.0), "V", 3)
EACH = st.tuples(*[st.floats(-4, 4)] * 3)


def channel(encode: Encode, k: int) -> Encode:
    """The encoding of one channel alone."""
    low, high, gain, offset, period = (
        value[k] if isinstance(value, tuple) else value
        for value in (encode.low, encode.high, encode.gain, encode.offset, encode.period)
    )
    return Encode(low, high, gain, offset, encode.overflow, period)  # type: ignore[arg-type]


@given(
    gain=st.one_of(st.just(1.0), st.just(0.0), EACH),
    offset=st.one_of(st.just(0.0), EACH),
    overflow=st.sampled_from(["refuse", "clip", "fold"]),
    period=st.sampled_from([0.9, (1.8, 0.5, 1.0)]),
    pre=st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 3), min_size=1, max_size=4),
)
def test_channels_are_encoded_each_as_if_it_were_alone(
    gain: object, offset: object, overflow: str, period: object, pre: list[tuple[float, ...]]
) -> None:
    encode = Encode.onto(GATES, gain, offset, overflow, period)  # type: ignore[arg-type]
    values = torch.tensor(pre)
    drive = encode(values)
    alone = [channel(encode, k) for k in range(3)]
    assert torch.equal(drive, torch.stack([one(values[:, k]) for k, one in enumerate(alone)], 1))
    assert encode.overflowing(values) == sum(one.overflowing(values[:, k]) for k, one in enumerate(alone))
    if overflow != "refuse":
        GATES.check(drive)


def test_the_gradient_of_an_encoding_is_the_gain_of_each_channel() -> None:
    encode = Encode.onto(GATES, (1.0, 2.0, -3.0), overflow="clip")
    pre = torch.zeros(2, 3, requires_grad=True)
    encode(pre).sum().backward()
    assert pre.grad is not None
    assert pre.grad[0].tolist() == [1.0, 2.0, -3.0]
    assert torch.equal(torch.as_tensor(encode.slope(pre)), torch.tensor([1.0, 2.0, -3.0]))


def test_an_encoding_names_the_channel_that_makes_no_sense() -> None:
    with pytest.raises(ContractError, match=r"encoding, channel 2: folding needs a period.*up to 1"):
        Encode.onto(GATES, overflow="fold", period=1.5)
    with pytest.raises(ContractError, match="encoding, channel 3: gain and offset must be finite"):
        Encode.onto(GATES, gain=(1.0, 1.0, math.nan))
    with pytest.raises(ContractError, match=r"encoding of port gates.*gain of 2 numbers; allowed: 3"):
        Encode.onto(GATES, gain=(1.0, 1.0))
    with pytest.raises(ContractError, match="encoding of port modulator"):
        Encode.onto(PORT, offset=(1.0, 1.0))
    with pytest.raises(ContractError, match="2 numbers and 3 numbers"):
        Encode((0.0, 0.0), 1.0, gain=(1.0, 1.0, 1.0))
    with pytest.raises(ContractError, match="wrong number of channels"):
        Encode.onto(GATES, gain=(1.0, 1.0, 1.0))(torch.zeros(2, 4))


def test_an_encoding_is_a_value() -> None:
    made = Encode([-1.2, -0.7, -1.0], GATES.high, gain=[1.0, 1.0, 1.0])  # type: ignore[arg-type]
    assert made == Encode.onto(GATES, (1.0, 1.0, 1.0))
    assert hash(made) == hash(Encode.onto(GATES, (1.0, 1.0, 1.0)))


def test_a_layer_of_several_rows_repeats_the_numbers_of_the_channels() -> None:
    encode = Encode((-1.0, -2.0), (1.0, 2.0), gain=(1.0, -1.0), offset=(0.0, 0.5), overflow="clip")
    pre = torch.tensor([[0.5, 0.5, 3.0, 3.0]])
    assert encode(pre).tolist() == [[0.5, 0.0, 1.0, -2.0]]
    assert torch.as_tensor(encode.slope(pre)).tolist() == [1.0, -1.0, 1.0, -1.0]
    assert encode.overflowing(pre) == 2
    with pytest.raises(ContractError, match="or a multiple of it"):
        encode(torch.zeros(1, 3))
