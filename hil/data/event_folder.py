"""Recordings of an event camera in folders by class, as hil/data/class_folder.py lists them.

An example is (time, 2, rows, columns): how many events a pixel had in a step of time, rising light first. `sequence = true`
keeps the time, so that the frames reach a spiking learner one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hil.data.class_folder import listed
from hil.data.event_files import FORMATS, SUFFIXES, frames, read_events
from hil.data.examples import Examples
from hil.data.order import Order
from hil.errors import UNTOUCHED, ConfigError
from hil.settings import Count, check


@dataclass(frozen=True, slots=True)
class EventFolder:
    """A folder of recordings by class.

    Args:
        steps: of time, in which the events of a recording are counted.
        by: "time": steps of equal duration; "number": of equally many events.
        size: rows and columns of the camera; empty: 34 x 34 for .bin, 128 x 128 for .aedat; of .npz it must be said.
        pool: rows and columns whose events are added.
    """

    steps: Count = 10
    by: Literal["time", "number"] = "time"
    size: tuple[Count, ...] = ()
    pool: Count = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")
        if len(self.size) not in (0, 2):
            raise ConfigError(
                "a picture has rows and columns", where="[data] size", got=str(list(self.size)), allowed="two whole numbers",
                outputs=UNTOUCHED, todo="give both",
            )  # fmt: skip

    def examples(self, path: Path, group: str = "") -> Examples:
        """List the folder; the recordings are read when they are wanted.

        Args:
            path: of the folder.
            group: refused, a recording has none.

        Raises:
            DataError: naming the file. ConfigError: the size is not known, or not a multiple of pool.
        """
        found = listed(path, SUFFIXES, "recording", group)
        files = [file for file, _, _ in found]
        rows, columns = size = self._size(files[0])
        shape = (self.steps, 2, rows // self.pool, columns // self.pool)

        def read(which: Order) -> NDArray[np.float32]:
            return np.stack([self._read(files[number], size, shape) for number in which.tolist()])

        return Examples(
            path.name, shape, read, np.array([label for _, label, _ in found]), lambda row: str(files[row]), str(path),
            np.array([part for _, _, part in found], np.int8), stored=True,
        )  # fmt: skip

    def _size(self, first: Path) -> tuple[int, int]:
        size = self.size or FORMATS[first.suffix.lower()].size
        if not size:
            raise ConfigError(
                "recordings that do not say how large their pictures are", where="[data] size", got="no size",
                outputs=UNTOUCHED, allowed="rows and columns", todo="write size = [128, 128], as the camera has them",
            )  # fmt: skip
        if size[0] % self.pool or size[1] % self.pool:
            raise ConfigError(
                "a picture that cannot be divided so", where="[data] pool", got=f"{self.pool}, of {size[0]} x {size[1]} pixels",
                allowed="a divisor of rows and columns", outputs=UNTOUCHED, todo="choose another one",
            )  # fmt: skip
        return size[0], size[1]

    def _read(self, file: Path, size: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.float32]:
        whole = frames(read_events(file), self.steps, size, self.by, str(file))
        pooled: NDArray[np.float32] = whole.reshape(*shape[:3], self.pool, shape[3], self.pool).sum((3, 5))
        return pooled
