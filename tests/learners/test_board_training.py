"""Every spiking learner on digits: through the serial line of a board, and on the same neurons called directly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from spiking_net import network, trained

from drivers.links.serial_link import SerialLink
from drivers.spiking.device import SpikingBoard
from hil.data.dataset import Dataset, load, subset
from hil.device import Chip
from hil.learner import Learner
from hil.learners.adfa_snn import ADFASNN, ADFASNNSettings
from hil.learners.bptt import BPTT
from hil.learners.ffgaf import FFGAF, FFGAFSettings
from hil.learners.ottt import OTTT
from hil.learners.parts.rate_learner import OnlineSettings, RateSettings
from hil.learners.saf import SAFE, SAFF
from hil.network import Network
from hil.seeding import generator
from sim_devices.bench.board import ServedBoard, VirtualBoard, spawn_board
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip

NEURON = Neuron(threshold_mismatch=0.05, leak_mismatch=0.05)
T = {"time_steps": 4, "chunk": 4}
LEARNERS = {
    "adfa_snn": (ADFASNN, ADFASNNSettings(**T)),
    "adfa_snn, a move a step": (ADFASNN, ADFASNNSettings(**T, update="per_step", error="running")),
    "saf_e": (SAFE, OnlineSettings(**T)),
    "saf_f": (SAFF, RateSettings(**T)),
    "ottt_o": (OTTT, OnlineSettings(**T, update="per_step")),
    "bptt": (BPTT, OnlineSettings(**T)),
    "ffgaf": (FFGAF, FFGAFSettings(time_steps=4)),
}


@pytest.fixture(scope="module")
def served() -> Iterator[ServedBoard]:
    with spawn_board(VirtualBoard(NEURON, seed=3)) as board:
        yield board


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return subset(load("digits"), 1000)


def accuracy(chip: Chip, name: str, data: Dataset) -> float:
    kind, settings = LEARNERS[name]
    torch.set_num_threads(1)
    net: Network = network(widths=(64, 60, 10), chip=chip, drive=1.0)
    learner: Learner = kind.build(net, settings, 10, generator(0, 0, "l"))  # type: ignore[attr-defined]
    return trained(net, learner, data, epochs=3, lr=3e-3)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_board_trains_as_well_as_the_twin(name: str, served: ServedBoard, digits: Dataset) -> None:
    board = SpikingBoard(SerialLink(served.port), provenance="twin")
    try:
        through = accuracy(board, name, digits)
    finally:
        board.close()
    direct = accuracy(TwinChip(NEURON, seed=3), name, digits)
    assert direct > (0.7 if name == "ffgaf" else 0.85)
    assert abs(through - direct) <= 0.01
