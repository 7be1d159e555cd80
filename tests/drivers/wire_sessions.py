"""A short conversation with each kind of box, and how it is recorded anew:

    python tests/drivers/wire_sessions.py [FOLDER]

against the virtual benches, into tests/drivers/transcripts. For a real box give the bench files below its resource instead of
[virtual]; who drives them is the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from hil.bench import Opened, open_bench
from hil.config import BenchFile, SpikingBench, checked, read_toml

ROOT = Path(__file__).resolve().parent.parent.parent
TRANSCRIPTS = Path(__file__).resolve().parent / "transcripts"


def waveform_bench(virtual: bool) -> BenchFile:
    """Generator and scope. Not virtual: at the addresses "awg" and "scope"."""
    return checked(
        BenchFile, _table("mzm_awg_scope", virtual, {"awg": {}, "scope": {}, "waveform": {"longest_delay": "200 ns"}}), "b"
    )


def board_bench(virtual: bool) -> SpikingBench:
    return checked(SpikingBench, _table("spiking_board", virtual, {"board": {"session": 7}}), "b")


def _table(name: str, virtual: bool, changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    table = read_toml(ROOT / "benches" / f"{name}.toml")
    for section, values in changes.items():
        table[section] |= values
        if not virtual and "use" in table[section]:
            table[section]["resource"] = section
    if not virtual:
        del table["virtual"]
    return table


def speak_waveform(opened: Opened) -> list[Any]:
    """Two shots of two shapes; the answers."""
    assert opened.device is not None
    drives = torch.linspace(-3.5, 3.5, 24).view(4, 6), torch.linspace(-1.0, 1.0, 6).view(2, 3)
    return [opened.device.forward(x).tolist() for x in drives]


def speak_board(opened: Opened) -> list[Any]:
    """Two arrays, thresholds, two passes that go on from each other, a reset; the spikes."""
    assert opened.chip is not None
    first, second = opened.chip.array(4), opened.chip.array(3, True)
    first.program(torch.tensor([0.5, 1.0, 1.5, 2.0]))
    x = torch.linspace(-1.0, 2.0, 24).view(3, 2, 4)
    spikes = [first.forward(x), first.forward(x), second.forward(x[..., :3] * 2)]
    first.reset()
    return [s.tolist() for s in (*spikes, first.forward(x))]


def record(folder: Path) -> None:
    answers = {}
    with open_bench(waveform_bench(True), "waveform", folder) as opened:
        answers["waveform"] = speak_waveform(opened)
    with open_bench(board_bench(True), "board", folder) as opened:
        answers["board"] = speak_board(opened)
    (folder / "answers.json").write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]) if len(sys.argv) > 1 else TRANSCRIPTS)
