"""Into how many pieces a batch is cut: what is fastest, with shots that leave nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import pytest
import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.devices.meter import metered
from hil.encoding import Encode
from hil.network import Layer, Network
from hil.training.pieces import chosen


class Timed:
    """A streaming node; a shot of n rows takes latency_s + n row_s of a clock of its own. Its state is the number of shots."""

    def __init__(self, costs: Mapping[int, float]) -> None:
        self.spec = Spec(Port("in", -9, 9), Port("out", -9, 9), provenance="twin")
        self.costs, self.now, self.shots = costs, 0.0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.now += self.costs[len(x)]
        self.shots += 1
        return x.clone()

    def submit(self, x: Tensor) -> Future[Tensor]:
        answer: Future[Tensor] = Future()
        answer.set_result(self.forward(x))
        return answer

    def snapshot(self) -> Mapping[str, object]:
        return {"shots": self.shots}

    def restore(self, state: Mapping[str, object]) -> None:
        self.shots = int(str(state["shots"]))

    def close(self) -> None: ...


def found(costs: Mapping[int, float], batch: int = 8) -> int:
    node = Timed(costs)
    device = metered(node)
    net = Network([Layer(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), device, Encode.onto(node.spec.inputs)),
                   Layer(nn.Linear(6, 3))])  # fmt: skip
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = chosen(net, torch.randn(batch, 4), lambda: node.now)
    assert (node.shots, device.count.calls, net.pieces, net.training) == (0, 0, None, True)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    return made


@pytest.mark.parametrize(
    ("costs", "pieces"),
    [
        ({8: 1.0, 4: 0.6, 2: 0.4, 1: 0.3}, 1),  # the latency, paid twice
        ({8: 1.0, 4: 0.4, 2: 0.3, 1: 0.2}, 2),
        ({8: 1.0, 4: 0.4, 2: 0.15, 1: 0.01}, 8),
        ({8: 1.0, 4: 0.49, 2: 0.1, 1: 0.1}, 1),  # no clear gain
    ],
)
def test_the_fewest_that_are_not_clearly_slower(costs: Mapping[int, float], pieces: int) -> None:
    assert found(costs) == pieces


def test_no_more_pieces_than_examples() -> None:
    assert found({3: 1.0, 2: 0.1, 1: 0.1}, batch=3) == 2


def test_a_device_that_cannot_stream_is_not_asked() -> None:
    class Plain(Timed):
        submit = None  # type: ignore[assignment]

    node = Plain({})
    net = Network([Layer(nn.Linear(4, 6), node, Encode.onto(node.spec.inputs)), Layer(nn.Linear(6, 3))])
    assert chosen(net, torch.randn(8, 4)) == 1
