"""A bench without instruments: the twin of a node of many channels, called directly.

    shape = "mesh"      2 N drives, N readings, N (N - 1) heaters     calibration/mesh.py
    shape = "camera"    K gray levels, M counts, 4 optics             calibration/camera.py

Nothing leaves this process, so nothing has to be made safe and nobody stands guard. The node answers for itself in a
certificate: its serial number is made of its settings, so that a calibration of another specimen is refused as one of another
instrument.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from calibration.certificate import Instrument
from calibration.frames import is_camera
from calibration.mesh_light import layout_of
from hil.config import DirectBench
from hil.device import Spec
from hil.errors import ConfigError
from hil.naming import UNTOUCHED, arguments, construct, resolve
from sim_devices.simulated import Simulated

NODE = "node"


class Unguarded:
    """In place of a Guard, where no output can stay on."""

    def beat(self) -> None:
        """Nobody listens."""

    def rest(self, error: BaseException | None) -> None:
        """Nothing is on."""


@dataclass(frozen=True)
class DirectNode:
    """facts: for results. who: for a certificate."""

    device: Simulated
    facts: dict[str, Any]
    who: Instrument


def direct_node(bench: DirectBench, where: str) -> DirectNode:
    """The node of `bench`.

    Raises:
        ConfigError: a class that is not there, settings it does not take, or a node that has not this shape.
    """
    table, place = bench.virtual.node, f"{where}: [virtual.node]"
    made = resolve(table.use, place)
    twin = construct(made, arguments(made, table.settings(), place), place)
    spec = getattr(twin, "spec", None)
    fits = isinstance(spec, Spec) and (layout_of(spec) is not None if bench.shape == "mesh" else is_camera(spec))
    if not fits:
        raise ConfigError(
            f"this node has not the shape of a {bench.shape}", where=place, got=table.use, outputs=UNTOUCHED,
            allowed="2 N drives, N readings, N (N - 1) parameters" if bench.shape == "mesh" else "gray levels, counts, optics",
            todo="correct shape, or name another node",
        )  # fmt: skip
    facts = {"bench": bench.name, "use": table.use, **table.settings()}
    named = json.dumps({"use": table.use, **table.settings()}, sort_keys=True, default=str)
    serial = "SIM-" + hashlib.blake2b(named.encode(), digest_size=4).hexdigest()
    return DirectNode(
        Simulated(twin, bench.virtual.seed), facts, Instrument("hil", type(twin).__name__, serial, version("hil"))
    )
