"""A short conversation with each kind of box, and how it is recorded anew:

    python tests/drivers/wire_sessions.py [FOLDER]

against the virtual benches, into tests/drivers/transcripts. With real boxes, put their addresses in the place of those of the
served bench; what is said to them is the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from drivers.keysight_33600 import Keysight33600
from drivers.keysight_infiniivision import InfiniiVision
from drivers.links.link import Link
from drivers.links.serial_link import SerialLink
from drivers.links.transcript import Transcribed, TranscribedFrames, WireLog
from drivers.links.visa_link import VisaLink
from drivers.scpi import Expect, Scpi
from drivers.spiking.device import SpikingBoard
from drivers.spiking.session import FrameLink
from drivers.waveform.device import Waveform, WaveformSettings
from hil.build.shapes.waveform import WaveformBench, description
from hil.config.bench import read_bench
from hil.device import ArraySpec
from sim_devices.bench.board import VirtualBoard, spawn_board
from sim_devices.bench.served import spawn
from sim_devices.lif_array import Neuron

BENCH = Path(__file__).resolve().parent.parent.parent / "benches" / "mzm_awg_scope.toml"
TRANSCRIPTS = Path(__file__).resolve().parent / "transcripts"


def waveform_session(awg: Link, scope: Link, high_v: float = 4.0) -> list[Any]:
    """Two shots of two shapes; the answers."""
    generator = Keysight33600(Scpi(awg, expect=Expect("Keysight", "33622A")), low_v=-4.0, high_v=high_v, load_ohm=50.0)
    digitizer = InfiniiVision(Scpi(scope, expect=Expect("", "DSO-X 3024T")), range_v=0.5, offset_v=0.18)
    device = Waveform(generator, digitizer, WaveformSettings(longest_delay_s=200e-9))
    drives = torch.linspace(-3.5, 3.5, 24).view(4, 6), torch.linspace(-1.0, 1.0, 6).view(2, 3)
    answers = [device.forward(x).tolist() for x in drives]
    device.close()
    return answers


def board_session(link: FrameLink) -> list[Any]:
    """Two arrays, thresholds, two passes that go on from each other, a reset; the spikes."""
    board = SpikingBoard(link, expect=Expect("HIL", "SPIKING-BOARD"), session=7)
    first, second = board.array(ArraySpec(4)), board.array(ArraySpec(3, True))
    first.program(torch.tensor([0.5, 1.0, 1.5, 2.0]))
    x = torch.linspace(-1.0, 2.0, 24).view(3, 2, 4)
    spikes = [first.forward(x), first.forward(x), second.forward(x[..., :3] * 2)]
    first.reset()
    spikes.append(first.forward(x))
    board.close()
    return [s.tolist() for s in spikes]


def record(folder: Path) -> None:
    bench, answers = read_bench(BENCH), {}
    assert isinstance(bench, WaveformBench)
    for old in folder.glob("*.jsonl"):
        old.unlink()
    with (
        spawn(description(bench)) as served,
        WireLog(folder / "awg.jsonl", "awg") as awg,
        WireLog(folder / "scope.jsonl", "scope") as scope,
    ):
        links = (Transcribed(VisaLink(served.resources[name]), log) for name, log in (("awg", awg), ("scope", scope)))
        answers["waveform"] = waveform_session(*links)
    with spawn_board(VirtualBoard(Neuron(leak=0.5, v_th=1.0))) as board, WireLog(folder / "board.jsonl", "board") as log:
        answers["board"] = board_session(TranscribedFrames(SerialLink(board.port), log))
    (folder / "answers.json").write_text(json.dumps(answers) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else TRANSCRIPTS)
