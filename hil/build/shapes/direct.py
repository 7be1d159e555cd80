"""Shapes without instruments, "mesh" and "camera": the twin of a node of many channels is called directly.

    shape = "mesh"      2 N drives, N readings, N (N - 1) heaters     calibration/mesh/sequence.py
    shape = "camera"    K gray levels, M counts, 4 optics             calibration/camera/sequence.py

[virtual]        seed: of its noise
[virtual.node]   use = "sim_devices.mzi_mesh:MZIMesh", and its settings

There are no instruments of these shapes: the shapes vector and frame do the same steps through theirs. Nothing
leaves this process, so nothing has to be made safe and nobody stands guard. The node answers for itself in a certificate: its
serial number is made of its settings, so that a calibration of another specimen is refused as one of another instrument.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

from pydantic import Field
from rich.console import Console

from calibration.camera.frames import is_camera
from calibration.certificate import Instrument
from calibration.mesh.light import layout_of
from hil import __version__
from hil.build.bench import SIMULATED, Opened, Opening, Unguarded
from hil.config.bench import BenchFile, TwinTable
from hil.config.read import Section
from hil.config.resolve import UNTOUCHED
from hil.device import Spec
from hil.errors import ConfigError
from sim_devices.simulated import Simulated

NODE = "node"


class DirectTable(Section):
    """The node of a bench that has no instruments.

    Args:
        seed: of its noise.
        node: the twin, called directly.
    """

    seed: Annotated[int, Field(strict=True)] = 0
    node: TwinTable


class DirectBench(BenchFile):
    """A bench of many channels at once.

    Args:
        virtual: the node.
    """

    virtual: DirectTable

    def settle(self, place: str) -> None:
        """Check the tables, and find the class of the node.

        Raises:
            ConfigError: instruments, which these shapes do not have, or a class or setting that makes no sense.
        """
        super().settle(place)
        if self.instruments:
            raise ConfigError(
                f"there are no instruments of the {self.shape} shape: its twin is called directly", where=place,
                got=", ".join(f"[instruments.{name}]" for name in self.instruments), outputs=UNTOUCHED,
                allowed="[virtual.node] alone", todo="remove these tables, or use the shape vector or frame",
            )  # fmt: skip


class _Direct(ABC):
    """Args of a subclass: allowed: the ports that the shape needs, for people."""

    Bench: ClassVar[type[BenchFile]] = DirectBench
    calibration: ClassVar[str]
    allowed: ClassVar[str]

    @abstractmethod
    def fits(self, spec: Spec) -> bool:
        """True if this is a node of the shape."""

    @contextmanager
    def open(self, bench: DirectBench, opening: Opening) -> Iterator[Opened]:
        """See hil.build.bench.Shape. Raises: ConfigError: the node has not this shape."""
        if opening.transcribed:
            raise ConfigError(
                "this bench has no wire to keep a transcript of", where=bench.place, got="wire = true", outputs=UNTOUCHED,
                todo="remove wire from [train] or [log]",
            )  # fmt: skip
        table = bench.virtual.node
        twin = table.choice.build()
        if not self.fits(twin.spec):
            raise ConfigError(
                f"this node has not the shape of a {bench.shape}", where=table.place, got=table.use, outputs=UNTOUCHED,
                allowed=self.allowed, todo="correct shape, or name another node",
            )  # fmt: skip
        named = {"use": table.use, **table.settings()}
        digest = hashlib.blake2b(json.dumps(named, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
        who = Instrument("hil", type(twin).__name__, f"{SIMULATED}{digest}", __version__)
        device = Simulated(twin, bench.virtual.seed)
        facts = {"bench": bench.name, **named}
        yield Opened(device, None, facts, {}, Unguarded(), bench.twin, instruments={NODE: who}, provenance="twin")

    def settings(self, bench: DirectBench) -> Mapping[str, Mapping[str, Any]]:
        """Return {}: the node's own settings are in its serial number."""
        return {}

    def serve(self, bench: DirectBench, out: Console) -> None:
        """Raises: ConfigError: always; there is no wire."""
        raise ConfigError(
            "there is nothing to serve", where=bench.place, got=f'shape = "{bench.shape}", called directly', outputs=UNTOUCHED,
            allowed="a bench with instruments", todo="train on it, or calibrate it, as it is",
        )  # fmt: skip


class MeshShape(_Direct):
    """A mesh of interferometers: modulators in front, heaters on it, photodiodes behind."""

    calibration = "calibration.mesh.sequence:mesh"
    allowed = "2 N drives, N readings, N (N - 1) parameters"

    def fits(self, spec: Spec) -> bool:
        """True if the device has the ports of a mesh: see layout_of."""
        return layout_of(spec) is not None


class CameraShape(_Direct):
    """A spatial modulator, a scattering medium, a camera."""

    calibration = "calibration.camera.sequence:camera"
    allowed = "gray levels, counts, optics"

    def fits(self, spec: Spec) -> bool:
        """True if the device has the ports of a camera: see is_camera."""
        return is_camera(spec)
