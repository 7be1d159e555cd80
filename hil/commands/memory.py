"""hil memory: drive the node of an experiment with random inputs, and say what its states keep of them.

    capacity    hil/memory/capacity.py     one long input, the states behind the washout as the readout sees them
    ranks       hil/memory/ranks.py        many short ones, the states at their ends

Inputs are as large as those of [data], from the least to the largest of the training split, and go through the mask, the
encoding and the policy between sequences of the experiment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hil.build.training import Built, built
from hil.commands.passport import check_free
from hil.config.experiment import read_experiment
from hil.errors import UNTOUCHED, ConfigError, ContractError
from hil.files import write_atomic
from hil.learner import Tracing, drives
from hil.memory.capacity import Capacity, capacity
from hil.memory.ranks import SHARE, rank, streams
from hil.seeding import generator


@dataclass(frozen=True)
class Asked:
    """What is measured.

    Args:
        steps: of the long input, behind the washout.
        washout: steps before; 0: as long as the largest delay.
        delays: the largest delay of functions of degree 1, 2, ...
        streams: for the ranks.
        length: of a stream, steps.
        alike: last steps that streams have in common, for the generalisation rank.
        share: of the largest singular value; smaller ones do not count in a rank.
        seed: of the inputs.
    """

    steps: int = 5000
    washout: int = 0
    delays: tuple[int, ...] = (60, 20, 10)
    streams: int = 500
    length: int = 50
    alike: int = 10
    share: float = SHARE
    seed: int = 0


@dataclass(frozen=True)
class Profile:
    """What a node with memory keeps.

    Args:
        capacity: of its states.
        kernel_rank, generalisation_rank: of so many streams.
        streams: their number.
        provenance: what answered: "real", "twin", ...
    """

    capacity: Capacity
    kernel_rank: int
    generalisation_rank: int
    streams: int
    provenance: str

    def table(self) -> dict[str, Any]:
        """Return it as JSON values."""
        ranks = {"kernel_rank": self.kernel_rank, "generalisation_rank": self.generalisation_rank, "streams": self.streams}
        return {"provenance": self.provenance, **ranks, "capacity": self.capacity.table()}


def memory(path: Path, overrides: Sequence[str], asked: Asked, json_: Path | None, out: Console) -> Profile:
    """Measure the node of an experiment, and print what was found.

    Args:
        path: of the experiment; its learner drives nodes with memory.
        overrides: "section.key=value".
        asked: what is measured.
        json_: a new file for the profile, or None.
        out: where it is printed.

    Raises:
        ConfigError: the experiment is not for a node with memory, or has inputs of more than one value. Others: as the bench.
    """
    experiment = read_experiment(path, overrides)
    rule, options = experiment.learner.rule, experiment.learner.options
    if drives(rule, options) != "memory" or getattr(rule, "sequences", None) != "whole":
        raise ConfigError(
            "this is about nodes with memory, and what is read of them in every step", where=experiment.learner.place,
            got=experiment.learner.use, outputs=UNTOUCHED,
            allowed="reservoir, bptt_memory, pat_memory, or another rule that plays whole sequences through such nodes",
            todo='write use = "reservoir"',
        )  # fmt: skip
    streams(asked.streams, asked.length, asked.alike, asked.seed)  # refused before anything is opened
    if json_ is not None:
        check_free(json_)
    with built(experiment) as made:
        found = profile(made, asked)
    for line in said(found):
        out.print(line)
    if json_ is not None:
        write_atomic(json_, (json.dumps(found.table(), indent=1) + "\n").encode())
    return found


def profile(made: Built, asked: Asked) -> Profile:
    """Drive the node of a built experiment. Raises: ConfigError: inputs of more than one value. Others: as the device."""
    x = made.training.data.train.x
    if x.shape[-1] != 1:
        raise ConfigError(
            "capacities are functions of one input", where="[data]", got=f"{x.shape[-1]} values a step", allowed="1",
            outputs="safe; nothing was sent", todo="choose another [data], such as narma10, and a mask for it",
        )  # fmt: skip
    low, high = float(x.min()), float(x.max())
    net, learner = made.training.net, made.training.learner
    if not isinstance(learner, Tracing):
        raise ContractError(
            "this learner does not show what its readout sees", where=f"learner {type(learner).__name__}", got="no trace()",
            allowed="trace(net, x) -> a Trace, as of hil.learner.Tracing", todo="add it, or use reservoir",
        )  # fmt: skip

    def states(u: Tensor) -> Tensor:
        """(batch, time) from -1 to 1 -> what the readout sees, (batch, time, n)."""
        drive = low + (high - low) * (u + 1) / 2
        return learner.trace(net, drive.unsqueeze(2).to(net.place)).inputs[-1].transpose(0, 1).cpu()

    before = asked.washout or max(asked.delays, default=0)
    u = torch.rand(before + asked.steps, generator=generator(asked.seed, 0, "capacity input")) * 2 - 1
    found = capacity(states(u.unsqueeze(0))[0, before:], u, asked.delays)
    apart, alike = (states(part)[:, -1] for part in streams(asked.streams, asked.length, asked.alike, asked.seed))
    ranks = rank(apart, asked.share), rank(alike, asked.share)
    return Profile(found, *ranks, asked.streams, made.labels.provenance)


def said(found: Profile) -> list[Table | str]:
    """The profile for people."""
    c = found.capacity
    table = Table("degree", "capacity", "", box=None, pad_edge=False)
    for degree, value in c.by_degree.items():
        table.add_row(str(degree), f"{value:.2f}", "memory capacity, of u(t) and its past" if degree == 1 else "")
    table.add_row("all", f"{c.total:.2f}", f"of {c.rank} independent states")
    return [
        f"capacity over {c.steps:,} steps, {c.tried:,} functions, those below {c.threshold:.2g} counted as chance   "
        f"({found.provenance})",
        table,
        f"ranks of {found.streams:,} streams: kernel {found.kernel_rank}, generalisation {found.generalisation_rank}",
    ]
