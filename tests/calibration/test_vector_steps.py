"""Nodes of levels that are good, and those with one defect each: it is named, with its channel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_calibration import as_record
from torch import Tensor

from calibration.sequence import Subject, calibrated
from calibration.step import Step
from calibration.vector.sequence import vector
from hil.device import Port, Spec
from hil.report.calibration.vector import vector as vector_figures

MATRIX = torch.tensor([[2.0, 0.5, 0.3], [0.1, 1.5, -0.7]])


class Node:
    """y = tanh(x M'), with noise; each setting is a defect."""

    def __init__(
        self, dead: int = -1, lag: float = 0.0, play: float = 0.0, drift: float = 0.0, high: float = 3.0, noise: float = 1e-3
    ) -> None:
        self.matrix = MATRIX.clone()
        if dead >= 0:
            self.matrix[:, dead] = 0.0
        self.lag, self.play, self.drift, self.noise = lag, play, drift, noise
        self.spec = Spec(
            Port("levels", (-1.0, 0.0, -0.5), (1.0, 1.0, 0.5), "V", 3), Port("currents", -high, high, "A", 2), provenance="twin"
        )
        self.before, self.at, self.shots = torch.zeros(2), torch.zeros(3), 0
        self.rng = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        found = []
        for row in x:
            self.at = torch.maximum(torch.minimum(self.at, row + self.play), row - self.play)
            settled = 2 * (self.matrix @ self.at).tanh()
            self.before = settled + self.lag * (self.before - settled)
            self.shots += 1
            found.append(self.before + self.drift * self.shots)
        y = torch.stack(found)
        return (y + self.noise * torch.randn(y.shape, generator=self.rng)).clamp(
            -self.spec.outputs.high, self.spec.outputs.high
        )  # type: ignore[arg-type,operator]

    def close(self) -> None: ...


def found_of(node: Node) -> dict[str, Step]:
    return {step.name: step for step in calibrated(vector(), Subject(node, seed=3))}


def test_a_good_node_passes_and_its_figures_are_right() -> None:
    found = found_of(Node())
    assert [name for name, step in found.items() if step.good] == ["rest", "settling", "inputs", "repeats"]
    assert found["rest"].estimates["noise 2"].away(1e-3) < 4
    for k, wide in enumerate((2.0, 1.0, 1.0)):  # what each moves most, from end to end
        low = -1.0 if k == 0 else -0.5 if k == 2 else 0.0
        ends = 2 * (MATRIX[:, k, None] * torch.tensor([low, low + wide])).tanh()
        assert found["inputs"].estimates[f"swing {k + 1}"].value == pytest.approx(float(ends.diff().abs().max()), abs=5e-3)
    assert float(found["settling"].estimates["left"].value) < 0.01
    drawn = [figure.name for figure in vector_figures(as_record(found))]
    assert drawn == ["noise-at-rest", "settling", "inputs", "repeats"]


DEFECTS: list[tuple[Callable[[], Node], str, str, str]] = [
    (lambda: Node(dead=1), "inputs", "stuck", "input 2 moves no output"),
    (lambda: Node(lag=0.05), "settling", "settling", "output 1 has not settled"),
    (lambda: Node(play=0.1), "inputs", "hysteresis", "input 1 reads otherwise on the way up"),
    (lambda: Node(drift=5e-4), "rest", "drift", "output 1 drifts at rest"),
    (lambda: Node(high=1.9), "inputs", "clipped", "output 1 reaches a limit"),
]


@pytest.mark.parametrize(("make", "step", "kind", "what"), DEFECTS, ids=[kind for _, _, kind, _ in DEFECTS])
def test_a_defect_is_named_and_what_needs_it_is_left_out(make: Callable[[], Node], step: str, kind: str, what: str) -> None:
    found = found_of(make())
    problems = [(problem.kind, problem.what) for problem in found[step].problems]
    assert any(one == kind and said.startswith(what) for one, said in problems), problems
    assert not found[step].good
    assert found["repeats"].problems[0].kind == "skipped"


class FromZero(Node):
    """A detector in front of a converter that begins at 0: in the dark it reads 0."""

    def __init__(self, high: float) -> None:
        super().__init__()
        self.spec = Spec(self.spec.inputs, Port("light", 0.0, high, "W", 2), provenance="twin")

    def forward(self, x: Tensor) -> Tensor:
        return (1 + super().forward(x)).clamp(0.0, self.spec.outputs.high)  # type: ignore[arg-type]


@pytest.mark.parametrize(("high", "clipped"), [(4.0, False), (2.9, True)])
def test_a_lower_limit_of_zero_is_the_dark_and_an_upper_one_is_a_limit(high: float, clipped: bool) -> None:
    node = FromZero(high)
    assert float(node.forward(torch.tensor([[-1.0, 0.0, -0.5]])).min()) == 0.0
    assert ("clipped" in {problem.kind for problem in found_of(FromZero(high))["inputs"].problems}) is clipped


def test_a_node_that_remembers_more_than_a_row_is_seen_by_the_order_of_rows() -> None:
    class Remembering(Node):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + (0.1 * x.roll(2, 0)[:, :2] if len(x) == 64 and bool(x.std() > 0) else 0.0)

    found = found_of(Remembering())
    assert found["inputs"].good
    assert [problem.kind for problem in found["repeats"].problems] == ["memory", "memory"]
