"""An array of a reel while it is written: values gather in memory that is used again, and leave it as whole chunks.

    append -> buffer, a chunk long -> file of the chunk, past the page cache where the system can, then onto the disk

A tape writes as much as it measures, beside it, on a computer that is busy. Fresh memory costs the kernel a fault for each
page, and its cache of a file costs that and a copy: together more than everything else that recording does. Hence one buffer
for good, aligned to pages, and O_DIRECT. A chunk that a flush cuts is written whole, zeros after its values, and once more when
it is full: the same bytes first, in place, so a computer that goes off meanwhile loses nothing that was flushed.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.files import open_to_write, read_bytes, there
from hil.system import synced, write_at
from hil.tape.format import CHUNKS, DTYPES, Floats, chunk_path, damaged, row_bytes

PAST_CACHE = getattr(os, "O_DIRECT", 0)
SYNC_CHUNKS = 8  # brought onto the disk together: the file system's own journal then moves once for all of them
SHAPES = 16  # a run has a few: whole batches and the last one, of training and of validation, for each layer


class Track:
    """Appends to one array.

    Args:
        folder: of the reel, in which the array has its own.
        room: called with the bytes of a chunk before it is written.
    """

    def __init__(self, folder: Path, name: str, room: Callable[[int], None]) -> None:
        self._folder, self.name, self._room = folder, name, room
        self._size = CHUNKS[name][0]
        self._memory = mmap.mmap(-1, self._size * row_bytes(name))
        self._buffer = np.frombuffer(self._memory, DTYPES[name]).reshape(CHUNKS[name])
        self.used = 0
        self._written = 0  # of `used`, in the files
        self._named = 0  # of `used`, in files whose names are on the disk
        self._unsynced: list[Path] = []
        self._flags = PAST_CACHE if len(self._memory) % mmap.PAGESIZE == 0 else 0

    def append(self, values: NDArray[Any]) -> None:
        """Append values.

        Args:
            values: (n, …) as the array has them.

        Raises:
            OSError: they cannot be written.
        """
        while len(values):
            at = self.used % self._size
            count = min(len(values), self._size - at)
            self._buffer[at : at + count] = values[:count]
            self.used += count
            values = values[count:]
            if self.used % self._size == 0:
                self._write()

    def settle(self) -> None:
        """Write all that was appended, durably. Raises: OSError."""
        if self.used > self._written:
            self._buffer[self.used % self._size :] = 0
            self._write()
        self._sync()
        if self._named < self._written:
            synced(self._folder / self.name)  # the names of new chunks; the JSON that counts on them comes next
            self._named = self._written

    def go_to(self, used: int) -> None:
        """Forget what is beyond `used` items, which are in the files. Raises: RunError: they are not."""
        self.used = self._written = self._named = used
        self._unsynced.clear()  # what counts is on the disk, or it would not count
        if part := used % self._size:
            path = chunk_path(self._folder, self.name, used // self._size)
            held = np.frombuffer(read_bytes(path, self._buffer.nbytes), np.uint8)
            if held.nbytes != self._buffer.nbytes:
                raise damaged(path, f"{held.nbytes} bytes", f"{self._buffer.nbytes} bytes")
            held = held.view(DTYPES[self.name])
            self._buffer[:part] = held.reshape(CHUNKS[self.name])[:part]
        number = -(-used // self._size)
        while there(beyond := chunk_path(self._folder, self.name, number)):  # of a run that ended before it settled
            beyond.unlink()
            number += 1

    def _write(self) -> None:
        """The chunk that the last value is in."""
        self._room(len(self._memory))
        path = chunk_path(self._folder, self.name, (self.used - 1) // self._size)
        try:
            written(path, self._memory, self._flags)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._flags:
                raise
            self._flags = 0  # a file system that has only its cache
            written(path, self._memory, 0)
        self._written = self.used
        self._unsynced.append(path)
        if len(self._unsynced) == SYNC_CHUNKS:
            self._sync()

    def _sync(self) -> None:
        for path in self._unsynced:
            synced(path)
        self._unsynced.clear()


def written(path: Path, payload: mmap.mmap, flags: int) -> None:
    """`payload` as the file's bytes; what it held before is never gone in between. Raises: OSError."""
    file = open_to_write(path, flags)
    try:
        with memoryview(payload) as view:
            done = 0
            while done < len(view):
                done += write_at(file, view[done:], done)
    finally:
        os.close(file)


class Copies:
    """Copies of tensors, in memory that is used again for the same shape. `of` from any thread, `done` from one.

    After an answer was waited for all code is cold, and each call to torch or numpy costs as much as moving the values. Hence
    memory that is kept has its shape, and the view that is written to.

    Args:
        most_bytes: kept of a shape for the next ones, of the SHAPES last new ones.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._idle: dict[tuple[int, ...], deque[tuple[Floats, memoryview]]] = {}

    def of(self, x: Tensor) -> Floats:
        """Copy x to the host, float32; the copy is the caller's until `done`."""
        try:
            found, target = self._idle[x.shape].pop()
        except (KeyError, IndexError):
            found = np.empty(tuple(x.shape), np.float32)
            if not found.size:
                return found
            target = found.data.cast("B")
        values = x.numpy() if _plain(x) else x.detach().to("cpu", torch.float32).contiguous().numpy()
        target[:] = values.data.cast("B")  # so the interpreter is held meanwhile: to get it back takes longer
        return found

    def done(self, copy: Floats) -> None:
        """Take a copy back: nobody looks at it any more."""
        if not copy.size:
            return
        if copy.shape not in self._idle:
            if len(self._idle) == SHAPES:
                self._idle.pop(next(iter(self._idle)))
            self._idle[copy.shape] = deque(maxlen=max(1, self._most // copy.nbytes))
        self._idle[copy.shape].append((copy, copy.data.cast("B")))


def _plain(x: Tensor) -> bool:
    """Memory as a copy has it."""
    return x.dtype is torch.float32 and x.is_cpu and not x.requires_grad and x.is_contiguous()
