"""The tape of a run: the node is recorded onto it, and how much it will hold is asked before the training begins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hil import __version__
from hil.build.node import Node
from hil.config.experiment import Experiment
from hil.training.state import Training

if TYPE_CHECKING:
    from hil.tape.writer import Tape


def tape_of(run: Path) -> Tape:
    """Return the tape of the run folder `run`."""
    from hil.tape.writer import Tape  # most runs are not recorded

    return Tape(run / "tape")


def recorded_node(experiment: Experiment, node: Node, tape: Tape, fresh: bool) -> Node:
    """Return `node`, recorded outside of the ladder: what the learner really got, once."""
    from hil.tape.recorder import NODE, RecorderChip, node_name, recorded

    versions = {"hil": __version__, "torch": torch.__version__}
    threads = torch.get_num_threads()
    measured = experiment.measures
    layers = [number for number, layer in enumerate(experiment.device.layers) if layer.decode is None and measured]
    facts = {"facts": node.facts, "measured": measured, "swept": measured or fresh, "threads": threads, "versions": versions}
    tape.begin({**facts, "measured_layers": layers} if layers else facts)
    settings = json.dumps(node.facts, sort_keys=True, default=str) + node.settings
    if node.parts:
        reels = [
            recorded(part.source, tape, node_name(number), settings, {})
            for number, part in enumerate(node.parts, 1)
            if part.source is not None
        ]
        return replace(node, parts=tuple(replace(part, source=reel) for part, reel in zip(node.parts, reels, strict=True)))
    source = None if node.source is None else recorded(node.source, tape, NODE, settings, {})
    chip = None if node.chip is None else RecorderChip(node.chip, tape, settings)
    return replace(node, source=source, chip=chip)


def needs(training: Training, widths: Sequence[int], steps: int, tape: Tape) -> str:
    """Say how much goes onto the tape. Raises: RunError: more than the disk can hold."""
    from hil.tape.writer import Needs

    examples, plan = len(training.data.train.y) + len(training.data.validation.y), training.plan
    return Needs.of(widths, steps, training.net.temporal, plan.batch, examples, plan.epochs).check(tape.path, tape.nbytes)
