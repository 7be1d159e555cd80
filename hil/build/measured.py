"""What is measured when a run begins, and how the run goes on with it: zeros and scales of readings, pieces of a batch.

config.toml and every checkpoint hold it, the checkpoint first. A run from a file has it in its settings (`with_measured`, and
`remembered` after a kill); a run from Python in its network, and the description of that in [network] (`table`, `restore`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hil.config.device import DecodeTable
from hil.config.experiment import Experiment
from hil.config.read import checked
from hil.encoding import Decode
from hil.errors import UNTOUCHED, ConfigError
from hil.foreign import foreign
from hil.network import Network


def with_measured(experiment: Experiment, decodes: Sequence[Decode], pieces: int | None) -> Experiment:
    """Return the experiment with what was measured.

    Args:
        experiment: as it was asked for.
        decodes: of the one device, or of each in turn; empty: none is kept in the settings.
        pieces: into which a batch is cut; None: not known.
    """
    tables = [DecodeTable(zero=decode.zero, scale=decode.scale) for decode in decodes]
    for table in tables:
        table.settle(f"{experiment.place}: [decode]")
    return _with(experiment, tables, pieces)


def remembered(experiment: Experiment, then: object) -> Experiment:
    """Return the experiment with what was measured before the run was killed, or `experiment` itself if it lacks nothing.

    Args:
        experiment: from config.toml, which may be older than the first checkpoint.
        then: the settings in that checkpoint; without any, nothing is added.

    Raises:
        ConfigError: they are damaged.
    """
    pieces = experiment.network.pieces or _pieces(then)
    if not isinstance(then, Mapping) or not (experiment.measures or pieces != experiment.network.pieces):
        return experiment
    if not experiment.measures:
        return _with(experiment, (), pieces)
    layers = experiment.device.layers
    if not layers:
        return _with(experiment, [_decode(then, experiment)], pieces)
    device = then.get("device")
    saw = device.get("layers") if isinstance(device, Mapping) else None
    known = saw if isinstance(saw, list) and len(saw) == len(layers) else [None] * len(layers)
    tables = [layer.decode or _decode(table, experiment) for layer, table in zip(layers, known, strict=True)]
    return _with(experiment, tables, pieces)


def table(net: Network) -> dict[str, Any]:
    """Return what [network] of a run from Python tells of it."""
    decodes = {f"layer_{n}": asdict(layer.decode) for n, layer in enumerate(net.stack, 1) if layer.device is not None}
    return {"pieces": net.pieces, "decode": decodes}


def restore(net: Network, config: Mapping[str, Any]) -> None:
    """Let a run from Python go on with what it was begun with, whatever would be measured now.

    Args:
        net: the network.
        config: the settings of the run folder, or of a checkpoint.

    Raises:
        ConfigError: they are damaged.
    """
    network, shared = config.get("network"), config.get("decode")
    decodes = network.get("decode") if isinstance(network, Mapping) else None
    net.pieces = net.pieces or _pieces(config)
    for number, layer in enumerate(net.stack, 1):
        kept = decodes.get(f"layer_{number}") if isinstance(decodes, Mapping) else shared
        if layer.device is not None and isinstance(kept, Mapping):
            with foreign("hil.train: [network.decode] of the run's config.toml", ConfigError, UNTOUCHED, "restore config.toml"):
                layer.decode = Decode(float(kept["zero"]), float(kept["scale"]))


def _with(experiment: Experiment, tables: Sequence[DecodeTable | None], pieces: int | None) -> Experiment:
    changed: dict[str, Any] = {}
    device = experiment.device
    if pieces is not None:
        changed["network"] = experiment.network.model_copy(update={"pieces": pieces})
    if tables and device.layers:
        layers = [layer.model_copy(update={"decode": table}) for layer, table in zip(device.layers, tables, strict=True)]
        changed["device"] = device.model_copy(update={"layers": layers})
    elif tables:
        changed["decode"] = tables[0]
    return experiment.model_copy(update=changed)


def _pieces(config: object) -> int | None:
    network = config.get("network") if isinstance(config, Mapping) else None
    pieces = network.get("pieces") if isinstance(network, Mapping) else None
    return pieces if isinstance(pieces, int) and pieces >= 1 else None


def _decode(table: object, experiment: Experiment) -> DecodeTable | None:
    decode = table.get("decode") if isinstance(table, Mapping) else None
    return None if decode is None else checked(DecodeTable, decode, f"{experiment.place}: [decode]")
