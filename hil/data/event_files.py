"""Recordings of event cameras, one a file: which pixel said when that its light rose or fell.

    .bin     ATIS, as in N-MNIST and N-Caltech101: 5 bytes an event: x | y | polarity (1 bit), time (23 bits, us);
             y = 240 is no pixel: 8,192 us are to be added from here on
    .aedat   AEDAT 2.0 of the DVS128, as in CIFAR10-DVS: lines that begin with "#", then 8 bytes an event: address | time (us);
             address: polarity in bit 0, x in bits 1 to 7, y in bits 8 to 14; no pixel if a higher bit is set
    .npz     arrays t (us, or another unit), x, y, p, as long as each other

Numbers of several bytes: most significant first. Polarity 1: the light rose. Sources: G. Orchard et al., Frontiers in
Neuroscience 9, 437 (2015), Read_Ndataset; H. Li et al., Frontiers in Neuroscience 11, 309 (2017); inivation.com, AEDAT formats.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.data.array_file import BROKEN
from hil.errors import UNTOUCHED, DataError
from hil.files import read_bytes

Numbers = NDArray[np.int64]
MOST_BYTES = 1 << 29  # of one recording
LATER, LATER_US = 240, 1 << 13  # of .bin


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a recording, in the order of the file.

    Args:
        t: (n,), when; us.
        x: (n,), column.
        y: (n,), row.
        p: (n,), 1 where the light rose, 0 where it fell.
    """

    t: Numbers
    x: Numbers
    y: Numbers
    p: Numbers


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of file is read.

    Args:
        read: bytes and name of the file -> events.
        size: rows and columns of its camera; () where the file may be of any.
    """

    read: Callable[[bytes, str], Events]
    size: tuple[int, ...] = ()


def read_events(path: Path) -> Events:
    """Read a recording.

    Args:
        path: of the file; its suffix is one of SUFFIXES.

    Raises:
        DataError: it is damaged; naming the file.
    """
    return FORMATS[path.suffix.lower()].read(read_bytes(path, MOST_BYTES, DataError), str(path))


def frames(events: Events, steps: int, size: tuple[int, int], by: str, where: str) -> NDArray[np.float32]:
    """Count the events of each step of time, pixel and polarity.

    Args:
        events: of a recording, any order.
        steps: of time.
        size: rows and columns.
        by: "time": steps of equal duration from the first to the last event; "number": steps of equally many events.
        where: names the file in messages.

    Returns:
        (steps, 2, rows, columns); first those of rising light.

    Raises:
        DataError: no events, or one outside of the picture.
    """
    if not len(events.t):
        raise damaged("a recording without events", where, "0 events", "at least one")
    rows, columns = size
    outside = np.flatnonzero((events.x < 0) | (events.x >= columns) | (events.y < 0) | (events.y >= rows))
    if outside.size:
        n = outside[0]
        raise damaged(
            "an event outside of the picture", where, f"row {events.y[n]}, column {events.x[n]} at event {n + 1}",
            f"{rows} x {columns} (rows x columns); [data] size says so",
        )  # fmt: skip
    count = len(events.t)
    if by == "number":
        step = np.empty(count, np.int64)
        step[np.argsort(events.t, kind="stable")] = np.arange(count) * steps // count
    else:
        since = events.t - events.t.min()
        step = np.minimum(since * steps // max(1, int(since.max())), steps - 1)
    place = ((step * 2 + 1 - events.p) * rows + events.y) * columns + events.x
    return np.bincount(place, minlength=steps * 2 * rows * columns).astype(np.float32).reshape(steps, 2, rows, columns)


def damaged(what: str, where: str, got: str, allowed: str) -> DataError:
    """A recording that cannot be used, as an error."""
    return DataError(what, where=where, got=got, allowed=allowed, outputs=UNTOUCHED, todo="replace it, or take it out")


def _atis(data: bytes, where: str) -> Events:
    if len(data) % 5:
        raise damaged("not a whole number of events", where, f"{len(data):,} bytes", "a multiple of 5")
    x, y, high, middle, low = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64).T
    t = ((high & 127) << 16 | middle << 8 | low) + LATER_US * np.cumsum(y == LATER)
    pixel = y != LATER
    return Events(t[pixel], x[pixel], y[pixel], high[pixel] >> 7)


def _aedat(data: bytes, where: str) -> Events:
    if not data.startswith(b"#!AER-DAT2"):
        raise damaged("not a file of AEDAT 2.0", where, repr(data[:20]), "#!AER-DAT2.0 at its beginning")
    start = 0
    while data[start : start + 1] == b"#":
        start = data.find(b"\n", start) + 1
        if not start:
            raise damaged("a header without an end", where, f"{len(data):,} bytes", "lines that end")
    if (len(data) - start) % 8:
        raise damaged("not a whole number of events", where, f"{len(data) - start:,} bytes after the header", "a multiple of 8")
    address, t = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).astype(np.int64).T
    pixel = address >> 15 == 0
    address, t = address[pixel], t[pixel]
    return Events(t, address >> 1 & 127, address >> 8 & 127, address & 1)


def _npz(data: bytes, where: str) -> Events:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            found: dict[str, NDArray[Any]] = {name: held[name] for name in held.files if name in ("t", "x", "y", "p")}
    except BROKEN as error:
        raise damaged("not a file of numpy, or a damaged one", where, str(error)[:200], "what numpy.savez wrote") from error
    shapes = {array.shape for array in found.values()}
    if len(found) < 4 or len(shapes) > 1 or any(a.ndim != 1 or a.dtype.kind not in "uib" for a in found.values()):
        got = ", ".join(f"{name} {array.dtype}{array.shape}" for name, array in found.items()) or "none of them"
        raise damaged("not the arrays of a recording", where, got, "t, x, y, p: whole numbers, one for each event")
    wrong = np.flatnonzero((found["p"] != 0) & (found["p"] != 1))
    if wrong.size:
        raise damaged("a polarity that is none", where, f"p[{wrong[0]}] = {found['p'][wrong[0]]}", "0 or 1")
    return Events(*(found[name].astype(np.int64) for name in ("t", "x", "y", "p")))


FORMATS = {".bin": Format(_atis, (34, 34)), ".aedat": Format(_aedat, (128, 128)), ".npz": Format(_npz)}
SUFFIXES = tuple(FORMATS)
