"""The nodes of [device] and [projection] side by side: each keeps its ladder, and one guard hears of the other's work."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch
from small import toml
from torch import Tensor

from hil.build.node import Node, resilient_node
from hil.build.projection import beside
from hil.config.experiment import read_experiment
from hil.device import Port, Spec
from hil.devices.meter import metered
from hil.devices.recovery import Patience
from hil.errors import Disconnected

MEDIUM = '[projection]\nuse = "scattering"\nmacropixels = 25\npixels = 36\n'


class Rungs:
    """A node whose first shot is lost, and which can be brought back."""

    spec = Spec(Port("dac", -1, 1, "V"), Port("adc", -1, 1, "V"))

    def __init__(self) -> None:
        self.shots = 0

    def forward(self, x: Tensor) -> Tensor:
        self.shots += 1
        if self.shots == 1:
            raise Disconnected("the wire is out")
        return x

    def clear(self) -> None: ...
    def reopen(self) -> None: ...
    def reinstate(self) -> None: ...
    def close(self) -> None: ...

    def identify(self) -> str:
        return "the same"

    def verify(self) -> str:
        return "answers"


def test_a_node_beside_a_projection_climbs_its_ladder_and_both_are_beaten_and_rested(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(toml() + MEDIUM, encoding="utf-8")
    beats, rested, asked = list[str](), list[BaseException | None](), list[int]()
    node = Node(
        Rungs(), None, None, {"use": "rungs"}, {}, Patience(patience_s=5.0), lambda: beats.append("node"), rest=rested.append,
        provenance="real",
    )  # fmt: skip
    with ExitStack() as stack:
        joined, projector, allow = beside(read_experiment(path), node, None, stack, lambda kind, **facts: None, asked.append)
        assert projector is not None
        assert joined.provenance == "twin"
        assert set(joined.facts) == {"use", "projection"}
        source = resilient_node(joined, lambda kind, **facts: None).source
        assert source is not None
        device = metered(source, allow)
        assert torch.equal(device.forward(torch.ones(2, 3)), torch.ones(2, 3))
        assert (device.count.faults, asked) == (1, [6])
        beats.clear()
        projector.device.forward(torch.zeros(4, 25))
        assert "node" in beats  # the guard of the node hears of a shot of the other
        assert asked == [6, 100]
        error = RuntimeError("the end")
        joined.rest(error)
        assert rested == [error]
