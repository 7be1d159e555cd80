"""Arrays of numpy in files: .npz with x and y, or with a split each; .npy with x, and y beside it.

    x, y                                        inputs and target name other arrays
    x_train, y_train, x_test, y_test            validation, val and valid are one; a split that is not there is drawn
    group                                       with [data.split] group = "group"

An archive that was written by numpy.savez, and a .npy file, may be larger than the memory: only the rows that are wanted are
read. One of numpy.savez_compressed, and an array in Fortran order, has to be read whole. Arrays of Python objects are pickles,
which can run any program, and are not read.

Format: numpy.lib.format, versions 1 to 3; ZIP, APPNOTE 6.3, 4.3.7 for the header in front of a member.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hil.data.examples import Examples, in_memory, joined
from hil.data.order import Order
from hil.errors import UNTOUCHED, DataError
from hil.files import opened
from hil.settings import check
from hil.system import free_memory

NAMES = {"train": 0, "validation": 1, "val": 1, "valid": 1, "test": 2}
LOCAL_HEADER = struct.Struct("<26xHH")  # the lengths of the name and of what follows it are last
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, struct.error, NotImplementedError, RuntimeError,
    SyntaxError, TokenError,  # numpy reads a header as the text of a Python literal
)  # fmt: skip
ArrayOf = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """An array in a file.

    Args:
        path: of the file.
        name: of the array, "" in a .npy file.
        shape, dtype: as its header says.
        offset: of its first byte; None: it is compressed, or not stored row by row.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None

    @property
    def where(self) -> str:
        """Place for messages."""
        return f"{self.path}: {self.name}" if self.name else str(self.path)

    def rows(self, which: Order) -> ArrayOf:
        """Read these rows from the file; it is not mapped, as a file that is cut meanwhile would end the process.

        Raises:
            DataError: the file is not what it was.
        """
        assert self.offset is not None
        one = math.prod(self.shape[1:]) * self.dtype.itemsize
        turn = np.argsort(which, kind="stable")
        wanted = which[turn]
        ends = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1).tolist(), len(wanted)]  # of runs of consecutive rows
        found = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        with opened(self.path, DataError) as file:
            for begin, end in pairwise(ends):
                if begin < end:
                    file.seek(self.offset + int(wanted[begin]) * one)
                    data = file.read((end - begin) * one)
                    if len(data) < (end - begin) * one:
                        raise _damaged(self.where, "a file that ends before its last row")
                    found[begin:end] = np.frombuffer(data, self.dtype).reshape(end - begin, *self.shape[1:])
        back = np.empty_like(turn)
        back[turn] = np.arange(len(turn))
        return found[back]

    def whole(self) -> ArrayOf:
        """Read all of it into memory. Raises: DataError: too large, or damaged."""
        size, most = math.prod(self.shape) * self.dtype.itemsize, free_memory(1 << 30)
        if size > most:
            raise DataError(
                "more than the memory can hold", where=self.where, got=f"{size:,} bytes", allowed=f"{most:,} bytes",
                outputs=UNTOUCHED, todo="save it with numpy.savez, not compressed, so that it can be read in pieces",
            )  # fmt: skip
        try:
            with opened(self.path, DataError) as file:
                if not self.name:
                    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
                with zipfile.ZipFile(file) as archive, archive.open(f"{self.name}.npy") as one:
                    return np.asarray(np.lib.format.read_array(one, allow_pickle=False))
        except BROKEN as error:
            raise _damaged(self.where, str(error)) from error


@dataclass(frozen=True, slots=True)
class NpzFile:
    """An archive of numpy.

    Args:
        inputs: the array of x.
        target: the array of y.
    """

    inputs: str = "x"
    target: str = "y"

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self, path: Path, group: str = "") -> Examples:
        """Read the archive.

        Args:
            path: of the file.
            group: the array of the groups, or "".

        Raises:
            DataError: naming the array.
        """
        return from_arrays(stored(path), self.inputs, self.target, group, path.stem, str(path))


@dataclass(frozen=True, slots=True)
class NpyFile:
    """x in one file, y in another one beside it.

    Args:
        target: the name of the file of y.
    """

    target: str

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self, path: Path, group: str = "") -> Examples:
        """Read both files.

        Args:
            path: of x.
            group: the name of the file of the groups, or "".

        Raises:
            DataError: naming the file.
        """
        files = {"x": path, "y": path.parent / self.target, **({"group": path.parent / group} if group else {})}
        arrays = {name: stored(file)[""] for name, file in files.items()}
        return from_arrays(arrays, "x", "y", "group" if group else "", path.stem, str(path))


def stored(path: Path) -> dict[str, Stored]:
    """The arrays in a .npz file by name, or the one of a .npy file by "". Raises: DataError: it is neither, or damaged."""
    with opened(path, DataError) as file:
        try:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                return {"": _header(file, path, "", True)}
            return _members(file, path)
        except BROKEN as error:
            raise _damaged(str(path), str(error)) from error


def _members(file: IO[bytes], path: Path) -> dict[str, Stored]:
    found = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise _damaged(f"{path}: {name[:80]}", "a member that is no array")
            with archive.open(member) as one:
                array = _header(one, path, name, False)
                size = one.tell() + math.prod(array.shape) * array.dtype.itemsize
            if size != member.file_size:
                raise _damaged(array.where, f"{member.file_size:,} bytes, not {size:,} as its header says")
            if member.compress_type == zipfile.ZIP_STORED:
                file.seek(member.header_offset)
                lengths = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
                begin = member.header_offset + LOCAL_HEADER.size + sum(lengths)
                file.seek(begin)
                array = _header(file, path, name, True)
            found[name] = array
    return found


def _header(file: IO[bytes], path: Path, name: str, plain: bool) -> Stored:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    by_row = plain and not (fortran and len(shape) > 1)
    found = Stored(path, name, shape, dtype, file.tell() if by_row else None)
    if dtype.hasobject:
        raise DataError(
            "an array of Python objects, which are pickles, can run any program, and is not read", where=found.where,
            got=f"dtype {dtype}", allowed="numbers, or text of dtype U", outputs=UNTOUCHED,
            todo="save it as numbers: numpy.asarray(rows, float), or str",
        )  # fmt: skip
    return found


Arrays = Mapping[str, "Stored | ArrayOf"]


def from_arrays(arrays: Arrays, inputs: str, target: str, group: str, name: str, source: str) -> Examples:
    """Examples from arrays by name; those of a split have its name behind theirs, as x_train.

    Args:
        arrays: stored, or in memory.
        inputs: the name of x.
        target: the name of y.
        group: the name of the groups, or "".
        name: of the data.
        source: of the data.

    Raises:
        DataError: naming the array.
    """
    splits = [split for split in NAMES if f"{inputs}_{split}" in arrays or f"{target}_{split}" in arrays]
    numbers = [NAMES[split] for split in splits]
    if splits and (inputs in arrays or 0 not in numbers or len(set(numbers)) < len(numbers)):
        raise DataError(
            "splits that do not go together", where=source, got=", ".join(sorted(arrays))[:400], outputs=UNTOUCHED,
            allowed=f"{inputs} and {target}; or {inputs}_train, {target}_train, and _validation, _test",
            todo="rename the arrays",
        )  # fmt: skip
    parts = []
    for split in splits or [""]:
        end = f"_{split}" if split else ""
        x, y = (_named(arrays, f"{one}{end}", source) for one in (inputs, target))
        groups = _named(arrays, f"{group}{end}", source) if group else None
        parts.append(_examples(x, y, groups, name, source, f"{inputs}{end}", NAMES.get(split, 0)))
    return joined(parts) if len(parts) > 1 else parts[0]


def _named(arrays: Arrays, name: str, source: str) -> Stored | ArrayOf:
    if name not in arrays:
        raise DataError(
            f"no array {name}", where=source, got=", ".join(sorted(arrays))[:400] or "no arrays", outputs=UNTOUCHED,
            allowed="x and y, or x_train, y_train, ...; or those that inputs and target in [data] name",
            todo="rename the arrays, or name them",
        )  # fmt: skip
    return arrays[name]


def _examples(
    x: Stored | ArrayOf, y: Stored | ArrayOf, group: Stored | ArrayOf | None, name: str, source: str, label: str, part: int
) -> Examples:
    if x.dtype.kind not in "fiub" or not x.shape:
        raise DataError(
            "inputs that are no numbers", where=f"{source}: {label}", got=f"dtype {x.dtype}, shape {x.shape}",
            allowed="floating-point or whole numbers, an example each first index", outputs=UNTOUCHED,
            todo="save them as numbers; of complex ones give the real and the imaginary part",
        )  # fmt: skip
    for other, what in ((y, "target"), (group, "group")):
        if other is not None and other.shape[:1] != x.shape[:1]:
            raise DataError(
                f"not one {what} for each example", where=f"{source}: {label}", got=f"{what} {other.shape}, x {x.shape}",
                allowed=f"({x.shape[0]}, ...)", outputs=UNTOUCHED, todo="give as many",
            )  # fmt: skip
    shape = x.shape[1:] or (1,)
    targets, groups = (one.whole() if isinstance(one, Stored) else one for one in (y, group))
    by_row = isinstance(x, Stored) and x.offset is not None
    read = _by_row(x, shape) if isinstance(x, Stored) and by_row else _held(x, shape)
    assert targets is not None
    return Examples(
        name, shape, read, targets, lambda row: f"{source}: {label}[{row}]", source, np.full(x.shape[0], part, np.int8),
        None if groups is None else groups.reshape(x.shape[0], -1)[:, 0], by_row,
    )  # fmt: skip


def _by_row(x: Stored, shape: tuple[int, ...]) -> Callable[[Order], NDArray[np.float32]]:
    def read(which: Order) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            return x.rows(which).astype(np.float32, copy=False).reshape(len(which), *shape)

    return read


def _held(x: Stored | ArrayOf, shape: tuple[int, ...]) -> Callable[[Order], NDArray[np.float32]]:
    values = x.whole() if isinstance(x, Stored) else x
    return in_memory(values.reshape(len(values), *shape))


def _damaged(where: str, got: str) -> DataError:
    return DataError(
        "not a file of numpy, or a damaged one", where=where, got=got[:200], allowed="what numpy.savez or numpy.save wrote",
        outputs=UNTOUCHED, todo="write it anew",
    )  # fmt: skip
