"""Connections counted place by place, against loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hil.contraction import conv_feedback
from hil.errors import ContractError
from hil.learners.parts.connections import connections
from hil.synapses import conv, dense


def test_a_dense_synapse_reaches_everything() -> None:
    found = connections(dense([5, 7])[0], 5)
    assert found.fan_out.tolist() == [7.0] * 5
    assert found.fan_in.tolist() == [5.0] * 7
    assert found.count == 35


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_meets_fewer_weights_at_an_edge(stride: int) -> None:
    synapse = conv([2, 5, 5], [3], kernels=3, strides=stride, norm="batch", levels=8)[0]
    found = connections(synapse, 50)
    out, into = torch.zeros(2, 5, 5), []
    side = (5 + 2 - 3) // stride + 1
    for row in range(side):
        for column in range(side):
            count = 0
            for i in range(row * stride - 1, row * stride + 2):
                for j in range(column * stride - 1, column * stride + 2):
                    if 0 <= i < 5 and 0 <= j < 5:
                        out[:, i, j] += 3
                        count += 2
            into.append(float(count))
    assert found.fan_out.tolist() == out.flatten().tolist()
    assert found.fan_in.tolist() == into * 3
    assert found.count == sum(into) * 3


def test_feedback_between_maps() -> None:
    found = connections(conv_feedback((4, 7, 7), (3, 14, 14), 3, 2.0, 1.0), 196)
    assert float(found.fan_out.sum()) == float(found.fan_in.sum())
    assert float(found.fan_out.max()) == 27


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ContractError, match="cannot be counted"):
        connections(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), 3)
