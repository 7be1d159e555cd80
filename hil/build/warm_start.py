"""A run that begins with the best weights of another one: [train] from = "runs/first".

The run folder keeps these weights, checkpoints/start.*, so that it can begin anew, and be replayed, whatever becomes of the
other run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hil.config.experiment import Experiment
from hil.config.resolve import UNTOUCHED
from hil.errors import ConfigError, RunError
from hil.network import Layer, Network
from hil.run import checkpoint
from hil.run.checkpoint import under
from hil.run.folder import RunFolder

KEPT = "start"


@dataclass(frozen=True)
class Start:
    """The weights to begin with, as they were checked.

    Args:
        tensors: by their names in a network.
        told: whose they are, in words.
    """

    tensors: Mapping[str, Tensor]
    told: str

    def keep(self, folder: RunFolder) -> None:
        """Write them into a run folder. Raises: RunError: they cannot be written."""
        checkpoint.save(folder.checkpoints, KEPT, checkpoint.Checkpoint(self.tensors, {"told": self.told}))

    @torch.no_grad()
    def into(self, net: Network) -> None:
        """Give a network these weights; the tensors themselves stay the same, as an optimiser knows them."""
        net.load_state_dict(dict(self.tensors))


def start_of(
    experiment: Experiment, chain: Sequence[nn.Module], feedback: nn.Module | None, params: Sequence[nn.Parameter | None],
) -> Start | None:  # fmt: skip
    """The weights that [train] from names; None: it names none.

    Args:
        experiment: as it was read.
        chain: the synapses of the new network.
        feedback: closes its loop, or None.
        params: what is programmed on the device of each hidden layer and trained, or None.

    Raises:
        ConfigError: there is no such run, it has no best weights yet, or they are not those of such a network.
    """
    name = experiment.train.start_from
    if name is None:
        return None
    where = f"{experiment.train.place} from"
    layers = [Layer(synapse, params=one) for synapse, one in zip(chain, [*params, None], strict=True)]
    due = Network(layers, feedback).state_dict()
    kept = experiment.near.parent / "checkpoints" / f"{KEPT}.json"
    if kept.is_file():
        saved = checkpoint.load(kept)
        return _checked(saved.tensors, due, str(saved.facts.get("told")), where)
    folder = _folder(name, experiment, where)
    try:
        steps = checkpoint.listed(folder)
        saved = checkpoint.load(steps[-1] if steps else folder / "best.json")
    except RunError as error:
        raise ConfigError(
            "that run has no weights that could be read", where=where, got=f"{error.what}: {error.got}", outputs=UNTOUCHED,
            allowed="a run with a scored epoch", todo="name another run",
        ) from error  # fmt: skip
    tensors = under("best", saved.tensors) if steps else saved.tensors
    epoch = saved.facts.get("best", {}).get("epoch") if steps else saved.facts.get("epoch")
    if not tensors:
        raise ConfigError(
            "that run has no best weights yet", where=where, got=f"{name}, no epoch of which is scored", outputs=UNTOUCHED,
            allowed="a run with a scored epoch", todo="wait for its first epoch, or name another run",
        )  # fmt: skip
    return _checked(tensors, due, f"the weights of epoch {epoch} of {name}", where)


def _checked(tensors: Mapping[str, Tensor], due: Mapping[str, Tensor], told: str, where: str) -> Start:
    try:
        checkpoint.check_tensors(tensors, due, "network")
    except ValueError as error:
        raise ConfigError(
            "the weights of that run are those of another network", where=where, got=f"{told}: {error}", outputs=UNTOUCHED,
            allowed=", ".join(f"{key} {tuple(one.shape)}" for key, one in due.items())[:200],
            todo="give both runs the same [network], or remove from",
        ) from error  # fmt: skip
    return Start(tensors, told)


def _folder(name: str, experiment: Experiment, where: str) -> Path:
    """The checkpoints of the run folder, relative to the working directory or to the experiment file, or a folder above it."""
    places = [folder / name for folder in (Path.cwd(), *experiment.near.resolve().parents)]
    found = next((place for place in places if (place / "checkpoints").is_dir()), None)
    if found is None:
        raise ConfigError(
            f'no run "{name}"', where=where, got=f"no checkpoints in {places[0]}", outputs=UNTOUCHED,
            allowed="a folder that hil train made", todo="hil list runs shows them",
        )  # fmt: skip
    return found / "checkpoints"
