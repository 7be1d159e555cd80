"""Spikes in HDF5, as the Heidelberg sets SHD and SSC have them: which channel of a cochlea model spiked when.

    spikes/times    (n,), each the times of an example, s          spikes/units    (n,), each the channels, from 0
    labels          (n,), whole numbers                            extra/keys      names of the classes; may be missing

An example is (time, units): spikes in a step of time. Source: B. Cramer et al., IEEE Trans. Neural Networks and Learning
Systems 33, 2744 (2022), arXiv:1910.07407; zenkelab.org.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.data.event_files import damaged
from hil.data.examples import Examples
from hil.data.order import Order
from hil.errors import UNTOUCHED, ConfigError, DataError
from hil.settings import Count, Positive, check


@dataclass(frozen=True, slots=True)
class SpikeFile:
    """A file of spikes.

    Args:
        steps: of time.
        duration_s: of an example, s; later spikes are refused.
        units: channels; SHD and SSC have 700.
        pool: neighbouring channels whose spikes are added.
    """

    steps: Count = 100
    duration_s: Positive = 1.4
    units: Count = 700
    pool: Count = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")
        if self.units % self.pool:
            raise ConfigError(
                "channels that cannot be divided so", where="[data] pool", got=f"{self.pool}, of {self.units} channels",
                allowed="a divisor of units", outputs=UNTOUCHED, todo="choose another one",
            )  # fmt: skip

    def examples(self, path: Path, group: str = "") -> Examples:
        """Read the file.

        Args:
            path: of the file.
            group: name of an array beside the labels, "extra/speaker": its examples stay in one split; "" for none.

        Raises:
            DataError: naming the file and the example.
        """
        times, units, labels, groups = self._held(path, group)
        where = [f"{path}: example {number}" for number in range(len(labels))]

        def read(which: Order) -> NDArray[np.float32]:
            return np.stack([self._counted(times[n], units[n], where[n]) for n in which.tolist()])

        shape = (self.steps, self.units // self.pool)
        return Examples(path.stem, shape, read, labels, lambda row: where[row], str(path), group=groups)

    def _held(self, path: Path, group: str) -> tuple[Any, Any, NDArray[Any], NDArray[Any] | None]:
        h5py = _package(path)
        try:
            with h5py.File(path, "r") as file:
                times, units, labels = (file[name][:] for name in ("spikes/times", "spikes/units", "labels"))
                names = [_text(name) for name in file["extra/keys"][:]] if "extra/keys" in file else []
                groups = file[group][:] if group else None
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise damaged(
                "not a file of spikes, or a damaged one", str(path), str(error)[:200],
                "HDF5 with spikes/times, spikes/units and labels" + (f", and {group}" if group else ""),
            ) from error  # fmt: skip
        arrays = (times, units, labels, *(() if groups is None else (groups,)))
        if labels.dtype.kind not in "iu" or any(array.shape != labels.shape[:1] for array in arrays) or labels.ndim != 1:
            got = ", ".join(f"{array.dtype}{array.shape}" for array in arrays)
            raise damaged("not one of each for each example", str(path), got, "spikes/times, spikes/units and labels, as long")
        wrong = np.flatnonzero((labels < 0) | (labels >= len(names))) if names else np.array([], int)
        if wrong.size:
            got = f"{labels[wrong[0]]} at example {wrong[0]}"
            raise damaged("a label that stands for no class", str(path), got, f"0 to {len(names) - 1}, as extra/keys has names")
        return times, units, np.array(names)[labels] if names else labels, groups

    def _counted(self, times: Any, units: Any, where: str) -> NDArray[np.float32]:
        t, unit = np.asarray(times, np.float64), np.asarray(units)
        if t.shape != unit.shape or t.ndim != 1 or unit.dtype.kind not in "iu":
            raise damaged(
                "not one channel for each spike", where, f"times {t.shape}, units {unit.dtype}{unit.shape}", "as long"
            )
        outside = np.flatnonzero(~((t >= 0) & (t <= self.duration_s) & (unit >= 0) & (unit < self.units)))
        if outside.size:
            n = outside[0]
            raise damaged(
                "a spike outside", where, f"{t[n]:g} s in channel {unit[n]}",
                f"0 to {self.duration_s:g} s, channels 0 to {self.units - 1}; [data] duration and units say so",
            )  # fmt: skip
        step = np.minimum((t * (self.steps / self.duration_s)).astype(np.int64), self.steps - 1)
        width = self.units // self.pool
        place = step * width + unit.astype(np.int64) // self.pool
        return np.bincount(place, minlength=self.steps * width).astype(np.float32).reshape(self.steps, width)


def _text(name: object) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _package(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            "HDF5 is read by the package h5py, which is not installed", where=str(path), outputs=UNTOUCHED,
            allowed="h5py 3 or newer", todo="pip install h5py",
        ) from error  # fmt: skip
    return h5py
