from __future__ import annotations

import math

import pytest
import torch

from hil.device import Port, Spec, plain
from hil.errors import ContractError, OutOfRange

PORT = Port("awg channel 1", -1.0, 2.0, "V", size=3)
NAN, INF = math.nan, math.inf


def test_values_inside_pass_unchanged() -> None:
    values = torch.tensor([[-1.0, 0.0, 2.0]])
    assert PORT.check(values) is values


@pytest.mark.parametrize("bad", [-1.001, 2.001, NAN, INF, -INF])
@pytest.mark.parametrize("place", [0, 5])
def test_one_bad_value_anywhere_is_refused(bad: float, place: int) -> None:
    values = torch.zeros(2, 3)
    values.view(-1)[place] = bad
    with pytest.raises(OutOfRange) as refusal:
        PORT.check(values)
    text = str(refusal.value)
    assert "port awg channel 1: 1 of 6 values out of range" in text
    assert "allowed: -1 to 2 V, NaN never" in text
    assert "nothing was sent" in text
    assert ("1 NaN" in text) == math.isnan(bad)


@pytest.mark.parametrize("limit", [0.1, -0.1, 3.3, 1e-3, 0.7])
def test_the_limit_itself_is_inside_although_float32_rounds_it(limit: float) -> None:
    port = Port("p", min(0.0, limit), max(0.0, limit))
    value = torch.tensor([limit])
    assert port.check(value) is value
    assert port.check(torch.tensor([limit], dtype=torch.float64)) is not None
    beyond = torch.nextafter(value, torch.tensor(math.copysign(INF, limit)))
    with pytest.raises(OutOfRange):
        port.check(beyond)


def test_number_of_channels() -> None:
    with pytest.raises(OutOfRange, match=r"got shape \(2, 4\); allowed: \(..., 3\)"):
        PORT.check(torch.zeros(2, 4))
    with pytest.raises(OutOfRange):
        PORT.check(torch.tensor(0.0))
    assert Port("any", 0, 1).check(torch.zeros(2, 4)).shape == (2, 4)


def test_an_empty_batch_is_no_reason_to_fail() -> None:
    assert PORT.check(torch.zeros(0, 3)).shape == (0, 3)


def test_a_drive_that_requires_grad_is_checked_without_touching_its_graph() -> None:
    values = torch.zeros(1, 3, requires_grad=True)
    assert PORT.check(values) is values
    with pytest.raises(OutOfRange):
        PORT.check(values + 5)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (NAN, 1.0), (0.0, NAN)])
def test_limits_must_be_limits(low: float, high: float) -> None:
    with pytest.raises(ContractError, match="port p"):
        Port("p", low, high)


def test_limits_are_narrowed_never_widened() -> None:
    assert PORT.narrowed(-0.5, 2.0) == Port("awg channel 1", -0.5, 2.0, "V", 3)
    for low, high in ((-1.1, 0.0), (0.0, 2.1), (1.0, 0.5), (NAN, 1.0)):
        with pytest.raises(OutOfRange, match="narrowed, never widened"):
            PORT.narrowed(low, high)


def test_a_graph_does_not_pass_a_device() -> None:
    answer = torch.zeros(2)
    assert plain(answer, "node", answer.device) is answer
    turned = torch.rand(3, 2).t()
    assert plain(turned, "node", turned.device).is_contiguous()  # as one from a tape: sums follow the order of the memory
    with pytest.raises(ContractError, match="node: a Device returned a tensor that requires grad"):
        plain(answer.requires_grad_(True), "node", answer.device)


def test_a_device_is_real_unless_it_says_otherwise() -> None:
    assert Spec(PORT, PORT).provenance == "unknown"
