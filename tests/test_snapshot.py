"""Snapshots taken apart into JSON values and tensors, and put together again."""

from __future__ import annotations

import json

import pytest
import torch

from hil.errors import ContractError
from hil.snapshot import joined, packed, parted, unpacked

STATE = {
    "calls": 3,
    "state": [torch.tensor(1.5, dtype=torch.float64), torch.zeros(0, 4), torch.tensor([True, False])],
    "inner": {"params": torch.arange(6, dtype=torch.int16).reshape(2, 3), "name": "node", "none": None},
}


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_it_comes_back_through_a_file_of_tensors_and_through_text_alone() -> None:
    values, tensors = parted(STATE)
    assert len(tensors) == 4
    assert same(joined(json.loads(json.dumps(values)), tensors), STATE)
    assert same(unpacked(json.loads(json.dumps(packed(STATE)))), STATE)
    for own in ({}, {"count": 1}, {"values": [1], "tensors": {"tensor": "0"}}):  # keys of a device's own are its own
        assert unpacked(json.loads(json.dumps(packed(own)))) == own
    with pytest.raises(ContractError, match="hil's own"):
        parted({"state": {"hil.tensor": "0"}})


def test_a_packed_one_is_far_shorter_than_its_numbers_as_json() -> None:
    spikes = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert len(json.dumps(packed({"state": [spikes]}))) < 0.3 * len(json.dumps(spikes.tolist()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": {"state": [{"hil.tensor": "4"}]}},
        {"values": {"state": [{"hil.tensor": 0}]}},
        {"values": 7},
        {"tensors": "no base64"},
        {"tensors": "AAAA"},
        {"tensors": None},
    ],
)
def test_a_damaged_one_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="a damaged snapshot"):
        unpacked({**packed(STATE), **wrong})
