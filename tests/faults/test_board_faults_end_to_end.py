"""Every recoverable fault of the serial line of a spiking board, in the middle of a training: bit for bit as if there was none.

A frame that is lost or damaged is sent again below the ladder; what that cannot put right, a reboot, a port that goes away,
makes every array live through its sequence again from its last reset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from drivers.links.serial_link import SerialLink
from drivers.spiking.device import SpikingBoard
from hil.data.dataset import Dataset, load, subset
from hil.device import ArraySpec
from hil.devices.meter import MeteredChip
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient_chip
from hil.encoding import Encode
from hil.errors import Disconnected, HilError, LinkError, LinkTimeout, OpenFailed
from hil.learners.adfa_snn import ADFASNN, ADFASNNSettings
from hil.network import Layer, Network
from hil.seeding import generator
from hil.training.loop import train
from hil.training.state import Training, TrainingPlan
from sim_devices.bench.board import ServedBoard, VirtualBoard, spawn_board
from sim_devices.lif_array import Neuron

TIMEOUT_S = 0.25


@dataclass
class Outcome:
    weights: Tensor
    told: list[str]
    faults: int


@cache
def digits() -> Dataset:
    return subset(load("digits"), 128)


@pytest.fixture(scope="module")
def board() -> Iterator[ServedBoard]:
    with spawn_board(VirtualBoard(Neuron(threshold_mismatch=0.05), seed=3)) as served:
        yield served


@pytest.fixture(autouse=True)
def healed(board: ServedBoard) -> Iterator[None]:
    board.control.heal()
    yield
    board.control.heal()


def trained(served: ServedBoard, patience_s: float = 10.0) -> Outcome:
    """One epoch of two batches through two arrays, in chunks of two time steps, and its validation."""
    torch.set_num_threads(1)
    told: list[str] = []

    def hear(kind: str, **facts: object) -> None:
        told.append(kind)

    chip = SpikingBoard(SerialLink(served.port, timeout_s=TIMEOUT_S), provenance="twin")
    try:
        metered = MeteredChip(resilient_chip(chip, lambda inner: Ladder(inner, Patience(patience_s), hear)))
        torch.manual_seed(1)
        layers = []
        for n_in, n_out in ((64, 24), (24, 16)):
            array = metered.array(ArraySpec(n_out))
            layers.append(Layer(nn.Linear(n_in, n_out), array, Encode.onto(array.spec.inputs, 2.0, 0.0, "clip", None)))
        net = Network([*layers, Layer(nn.Linear(16, 10))], chip=metered)
        learner = ADFASNN.build(net, ADFASNNSettings(time_steps=4, chunk=2), 10, generator(0, 0, "learner"), None)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        training = Training(net, learner, optimizer, digits(), TrainingPlan(seed=0, epochs=1, batch=64), tuple(metered.devices))
        for _ in train(training):
            pass
        weights = torch.cat([p.detach().flatten() for p in net.parameters()])
        return Outcome(weights, told, training.faults_recovered)
    finally:
        chip.close()


@pytest.fixture(scope="module")
def unharmed(board: ServedBoard) -> Outcome:
    whole = trained(board)
    assert whole.told == []
    assert whole.faults == 0
    return whole


FAULTS: dict[str, tuple[str, dict[str, object]]] = {
    "a lost frame": ("drop", {"match": "STEP"}),
    "half a frame": ("truncate", {"match": "STEP"}),
    "a flipped bit": ("flip", {"match": "STEP", "bits": 2}),
    "a flipped bit in a head": ("flip", {"match": "STEP", "position": "header"}),
    "a frame twice": ("duplicate", {"match": "STEP"}),
    "garbage before a frame": ("garbage", {"match": "STEP", "bytes": 9}),
    "extra bytes": ("pad", {"match": "STEP", "bytes": 9}),
    "a late answer": ("delay", {"match": "STEP", "seconds": 2 * TIMEOUT_S}),
    "a damaged request": ("mangle", {"match": "STEP", "bits": 3}),
    "a board that stops reading": ("stall", {"match": "STEP", "seconds": 2 * TIMEOUT_S}),
    "rebooted": ("reboot", {"match": "STEP", "seconds": 0.3}),
    "unplugged": ("unplug", {"match": "STEP", "seconds": 0.6}),
    "lost in a reset": ("drop", {"match": "RESET"}),
    "silent for longer than all retries": ("drop", {"match": "STEP", "lasts": 5}),
}
UNSEEN = {"a frame twice", "extra bytes"}  # the number of a frame tells what is left over


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_line_leaves_no_trace(name: str, board: ServedBoard, unharmed: Outcome) -> None:
    kind, settings = FAULTS[name]
    fault = board.control.fault("board", kind, after=5 if settings["match"] == "STEP" else 2, **settings)
    outcome = trained(board)
    row = next(row for row in board.control.faults()["faults"] if row["id"] == fault)
    assert int(str(row["injected"])) >= 1
    assert outcome.weights.equal(unharmed.weights)
    assert outcome.faults > 0 or name in UNSEEN


def test_many_faults_at_random_leave_no_trace(board: ServedBoard, unharmed: Outcome) -> None:
    for kind in ("drop", "flip", "truncate", "garbage"):
        board.control.fault("board", kind, match="STEP", rate=0.05)
    outcome = trained(board, 30.0)
    board.control.heal()
    assert outcome.faults > 0
    assert outcome.weights.equal(unharmed.weights)


@pytest.mark.parametrize(
    ("kind", "settings", "errors"),
    [
        ("drop", {"match": "STEP", "times": 0}, LinkTimeout),
        ("unplug", {"match": "STEP", "seconds": 60.0}, (OpenFailed, Disconnected)),
    ],
)
def test_what_stays_ends_the_run(
    kind: str, settings: dict[str, object], errors: type[LinkError] | tuple[type[LinkError], ...], board: ServedBoard
) -> None:
    board.control.fault("board", kind, after=5, **settings)
    with pytest.raises(HilError) as ended:
        trained(board, patience_s=1.0)
    found, at = [], ended.value
    while at is not None:
        found.append(at)
        at = at.__cause__ or at.__context__  # type: ignore[assignment]
    assert any(isinstance(error, errors) for error in found)
    board.control.heal()
