"""A fitted, saved map between logical numbers and device units, and the Device that speaks logical numbers through it.

    drive   = offset + gain * logical          into the device, in the unit of its input port
    logical = (reading - zero) / scale         out of it

File: JSON, one object, all keys of `Calibration` and "format" = 1; written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from hil.device import Device, Port, Provenance, Restorable, Spec
from hil.errors import ConfigError, ContractError
from hil.files import read_object, write_atomic

FORMAT = 1
NUMBERS = ("gain", "offset", "zero", "scale", "residual_rms")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted, how well, on what, and when.

    Args:
        gain, offset: input unit per logical unit, and input unit. zero, scale: of the reading, in the output unit.
        residual_rms: root mean square of the fit's residuals, in the output unit.
        input_unit, output_unit: of the device's ports; checked when it is applied.
        provenance: what was measured.
        taken_at: ISO 8601 with time zone.
        serials: serial number by name of instrument.
    """

    gain: float
    offset: float
    zero: float
    scale: float
    residual_rms: float
    input_unit: str
    output_unit: str
    provenance: Provenance
    taken_at: str
    serials: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise _damaged(f"{name} must be a finite number", repr(value))
        for name in ("gain", "scale"):
            if getattr(self, name) == 0:
                raise _damaged(f"{name} must not be 0: the map could not be undone", "0")
        if self.residual_rms < 0:
            raise _damaged("residual_rms must not be negative", f"{self.residual_rms}")
        if self.provenance not in get_args(Provenance):
            raise _damaged("unknown provenance", repr(self.provenance), ", ".join(get_args(Provenance)))
        if not all(isinstance(unit, str) for unit in (self.input_unit, self.output_unit)):
            raise _damaged("units must be texts", f"{self.input_unit!r}, {self.output_unit!r}")
        if not _is_time(self.taken_at):
            raise _damaged("taken_at is not a time", repr(self.taken_at), "ISO 8601 with zone: 2026-11-22T01:45:12+00:00")
        if not isinstance(self.serials, Mapping) or not all(isinstance(v, str) for v in self.serials.values()):
            raise _damaged("serials must map names to texts", repr(self.serials))

    def drive(self, logical: Tensor) -> Tensor:
        """Logical numbers -> input unit, same shape."""
        return logical * self.gain + self.offset

    def logical(self, reading: Tensor) -> Tensor:
        """Output unit -> logical numbers, same shape."""
        return (reading - self.zero) * (1.0 / self.scale)

    def save(self, path: Path) -> None:
        """Write the file; an older one is replaced only by a complete one. Raises: RunError: it cannot be written."""
        table = {"format": FORMAT} | {f.name: getattr(self, f.name) for f in fields(self)} | {"serials": dict(self.serials)}
        write_atomic(path, (json.dumps(table, indent=2, allow_nan=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read the file.

        Raises:
            ConfigError: missing, torn, altered beyond sense, or of another format.
        """
        try:
            table: dict[str, Any] = read_object(path, error=ConfigError)
        except ConfigError as error:
            got = error.got or error.what
            raise _damaged("not a calibration file", got, f'JSON with "format": {FORMAT}', str(path)) from error
        if table.pop("format", None) != FORMAT:
            raise _damaged("not a calibration file of this format", "another object", f'"format": {FORMAT}', str(path))
        names = {f.name for f in fields(cls)}
        if set(table) != names:
            odd = ", ".join(sorted(set(table) ^ names))
            raise _damaged("keys are missing or unknown", odd, ", ".join(sorted(names)), str(path))
        try:
            return cls(**table)
        except ConfigError as error:
            raise _damaged(error.what, error.got, error.allowed, str(path)) from error


class Calibrated:
    """A device whose drive and reading are logical numbers, limits included.

    Args:
        inner: the device, in its own units. calibration: of that device.
    Raises:
        ContractError: the calibration is for other units.
    """

    def __init__(self, inner: Device, calibration: Calibration) -> None:
        spec = inner.spec
        units = (spec.inputs.unit, spec.outputs.unit)
        if units != (calibration.input_unit, calibration.output_unit):
            raise ContractError(
                "the calibration is for a device with other units",
                where=f"port {spec.inputs.name}",
                got=f"{calibration.input_unit} in, {calibration.output_unit} out",
                allowed=f"{units[0]} in, {units[1]} out",
                outputs="unchanged; nothing was sent",
                todo="name the calibration file of this device, or calibrate again",
            )
        self._inner, self._calibration = inner, calibration
        inputs = _mapped(spec.inputs, calibration.offset, calibration.gain)
        self._spec = dataclasses.replace(
            spec, inputs=inputs, outputs=_mapped(spec.outputs, calibration.zero, calibration.scale)
        )

    @property
    def spec(self) -> Spec:
        return self._spec

    @property
    def calibration(self) -> Calibration:
        return self._calibration

    def program(self, params: Tensor) -> None:
        self._inner.program(params)

    def reset(self) -> None:
        self._inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        self._spec.inputs.check(x)
        port = self._inner.spec.inputs
        drive = self._calibration.drive(x).clamp(port.low, port.high)  # x is inside: this takes off rounding, no more
        return self._calibration.logical(self._inner.forward(drive))

    def close(self) -> None:
        self._inner.close()

    def snapshot(self) -> Mapping[str, object]:
        return self._inner.snapshot() if isinstance(self._inner, Restorable) else {}

    def restore(self, state: Mapping[str, object]) -> None:
        if isinstance(self._inner, Restorable):
            self._inner.restore(state)


def _mapped(port: Port, zero: float, scale: float) -> Port:
    """The port in logical numbers: (limit - zero) / scale, the smaller first."""
    low, high = sorted(((port.low - zero) / scale, (port.high - zero) / scale))
    return Port(f"{port.name}, calibrated", low, high, "1", port.size)


def _is_time(text: object) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _damaged(what: str, got: str, allowed: str = "", where: str = "calibration") -> ConfigError:
    return ConfigError(
        what, where=where, got=got, allowed=allowed, outputs="untouched; nothing was opened",
        todo="name an intact calibration file, or calibrate again",
    )  # fmt: skip
