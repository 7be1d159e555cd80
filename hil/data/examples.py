"""Examples of one's own, from any source, become a data set: checked, split, standardised, in memory or streamed.

    a source gives     rows of x, a target each, perhaps a split and a group each, in an order of its own      (Examples)
    [data] says        what the targets are, how the examples are split, what is done to them                  (Reading)

    standardised       x' = (x - m) / s    m, s: mean and standard deviation of each feature over the training split alone,
                                           in float64; of a sequence over time too; s = 1 for a feature that never changes
    checksum           SHA-256 over x (float32, in the order of the source), targets, names of classes, splits, and whether they
                       are standardised: the same examples give the same sum, whatever file they come from

All of x is read once before anything else is opened, in pieces of streamed.READ_BYTES, so that a bad row is found at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.data import streamed
from hil.data.dataset import Dataset, Split
from hil.data.order import Division, Order, Parts, divided
from hil.data.streamed import MEMORY_SHARE, OTHERWISE, Read, Streamed
from hil.data.targets import Targets, Where, targets_of, trained
from hil.errors import UNTOUCHED, ConfigError, DataError
from hil.settings import Count, check
from hil.system import free_memory

PLACE = "[data]"
Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings that say what is done with the examples of a source.

    Args:
        targets: what they are; "auto": text and whole numbers are classes.
        classes: their names in order; empty: those that occur, sorted.
        shape: of an example, (channels, rows, columns), (time, features) or (time, channels, rows, columns); empty: as the
            source has it.
        sequence: the first axis of an example is time, and stays: x (n, time, features).
        standardise: every feature gets mean 0 and standard deviation 1 over the training split.
        stream: examples are read from the disk when they are wanted; None: if memory cannot hold them.
        split: how they are split.
    """

    targets: Targets = "auto"
    classes: tuple[str, ...] = ()
    shape: tuple[Count, ...] = ()
    sequence: bool = False
    standardise: bool = False
    stream: bool | None = None
    split: Division = field(default_factory=Division)

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, PLACE)
        if len(set(self.classes)) < len(self.classes) or not all(name.strip() for name in self.classes):
            raise ConfigError(
                "classes must have different names", where=f"{PLACE} classes", got=", ".join(self.classes), outputs=UNTOUCHED,
                allowed="a name each", todo="correct the list",
            )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """The contents of a source, in its own order.

    Args:
        name: of the data.
        shape: of one example.
        read: numbers of examples -> float32 (as many, *shape).
        targets: (n,), (n, k), (n, time), (n, time, k): text, whole numbers or floating-point numbers.
        where: names an example, for messages: the file and its line.
        source: the citation, or the file.
        part: (n,), 1 and 2 for examples of the validation and the test split, 0 for others; None: the source does not say.
        group: (n,), or None.
        stored: it is read when wanted, so that it may be streamed.
        kept: the order has a meaning, as of a series.
    """

    name: str
    shape: tuple[int, ...]
    read: Read
    targets: NDArray[np.generic]
    where: Where
    source: str
    part: Parts | None = None
    group: NDArray[np.generic] | None = None
    stored: bool = False
    kept: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def nbytes(self) -> int:
        """Bytes of x in memory."""
        return 4 * len(self) * math.prod(self.shape)

    def within(self, part: int) -> Examples:
        """The same examples, all of them in one split."""
        return replace(self, part=np.full(len(self), part, np.int8))


def in_memory(values: NDArray[Any]) -> Read:
    """Read from an array: numbers of examples -> float32."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
        held = values.astype(np.float32, copy=False)
    return lambda which: held[which]


def joined(parts: Sequence[Examples]) -> Examples:
    """Several sources as one: the second and the third are the splits that a number says, see `Examples.part`.

    Raises:
        DataError: their examples are of different shapes, or their targets of different kinds.
    """
    first = parts[0]
    for other in parts[1:]:
        if other.shape != first.shape or other.targets.shape[1:] != first.targets.shape[1:]:
            raise DataError(
                "examples of another shape", where=other.name, got=f"x {other.shape}, y {other.targets.shape[1:]}",
                allowed=f"x {first.shape}, y {first.targets.shape[1:]}, as {first.name} has", outputs=UNTOUCHED,
                todo="give files of one kind",
            )  # fmt: skip
        if (other.targets.dtype.kind == "U") != (first.targets.dtype.kind == "U"):
            raise DataError(
                "targets of another kind", where=other.name, got=f"dtype {other.targets.dtype}", outputs=UNTOUCHED,
                allowed=f"dtype {first.targets.dtype}, as {first.name} has", todo="give files of one kind",
            )  # fmt: skip
    ends = np.cumsum([0, *map(len, parts)])

    def read(which: Order) -> Values:
        found = np.empty((len(which), *first.shape), np.float32)
        for number, part in enumerate(parts):
            here = (which >= ends[number]) & (which < ends[number + 1])
            if here.any():
                found[here] = part.read(which[here] - ends[number])
        return found

    def where(row: int) -> str:
        number = int(np.searchsorted(ends, row, side="right")) - 1
        return parts[number].where(row - int(ends[number]))

    groups = [part.group for part in parts]
    return Examples(
        first.name, first.shape, read, np.concatenate([part.targets for part in parts]), where, first.source,
        np.concatenate([np.zeros(len(part), np.int8) if part.part is None else part.part for part in parts]),
        None if any(group is None for group in groups) else np.concatenate([g for g in groups if g is not None]),
        all(part.stored for part in parts), first.kept,
    )  # fmt: skip


def dataset_of(examples: Examples, how: Reading) -> Dataset:
    """Check the examples, split them, and make what a run trains on.

    Raises:
        DataError: a row that nobody can train on, or an empty split; the message names the row.
        ConfigError: the settings do not fit the source.
    """
    if not len(examples) or not math.prod(examples.shape):
        raise DataError(
            "no examples", where=examples.name, got=f"{len(examples)} examples of shape {examples.shape}", outputs=UNTOUCHED,
            allowed="at least one for every split", todo="give more examples",
        )  # fmt: skip
    examples = _shaped(examples, how.shape)
    if how.sequence and len(examples.shape) < 2:
        raise ConfigError(
            "a sequence has time and features", where=f"{PLACE} sequence", got=f"{examples.name}: examples {examples.shape}",
            allowed="(time, features), or (time, channels, rows, columns)", outputs=UNTOUCHED,
            todo="leave out sequence, or give examples of that shape",
        )  # fmt: skip
    read, stream = examples.read, _streams(examples, how)
    if not stream and examples.stored:
        read = in_memory(_whole(examples))
    y, classes = targets_of(examples.targets, how.targets, how.classes, examples.where, examples.name)
    if how.sequence and not classes and y.ndim == 2 and y.shape[1] == examples.shape[0]:
        y = y[:, :, None]  # a number a step
    _fit_time(examples, y, classes, how)
    part = np.zeros(len(examples), np.int8) if examples.part is None else examples.part
    orders = divided(
        how.split, part, examples.group, y.astype(np.int64) if classes and y.ndim == 1 else None, examples.kept, examples.name
    )  # fmt: skip
    if classes:
        trained(y, classes, orders, examples.where)
    digest = _digest(examples, read, y, classes, orders, how)
    shape = (*examples.shape[:1], math.prod(examples.shape[1:])) if how.sequence else (math.prod(examples.shape),)
    if how.standardise:
        read = _standardised(read, examples.shape, orders[0], how.sequence)
    splits = [
        Split(_x(read, order, examples, shape, stream), torch.from_numpy(np.ascontiguousarray(y[order]))) for order in orders
    ]
    return Dataset(
        examples.name, splits[0], splits[1], splits[2], classes, examples.shape, examples.source, digest
    )  # fmt: skip


def standardised(data: Dataset) -> Dataset:
    """The same data in memory, every feature with mean 0 and standard deviation 1 over the training split.

    Args:
        data: x (n, features) of its splits, or (n, time, features).
    """
    splits = [split.x.numpy() for split in (data.train, data.validation, data.test)]
    first, count = splits[0], len(splits[0])
    low, scale = _scaling(lambda which: first[which], first.shape[1:], np.arange(count), first.ndim == 3)
    made = [
        Split(torch.from_numpy((x - low) * scale), split.y)
        for x, split in zip(splits, (data.train, data.validation, data.test), strict=True)
    ]
    digest = hashlib.sha256(f"{data.checksum} standardised".encode()).hexdigest()
    return replace(data, train=made[0], validation=made[1], test=made[2], checksum=digest)


def by_rows(data: Dataset) -> Dataset:
    """The same images in memory as sequences, row after row from the top: x (n, rows, channels times columns)."""
    channels, rows, columns = data.shape

    def split(part: Split) -> Split:
        seen = part.x.view(-1, channels, rows, columns).transpose(1, 2)
        return Split(seen.reshape(-1, rows, channels * columns), part.y)

    digest = hashlib.sha256(f"{data.checksum} by rows".encode()).hexdigest()
    train, validation, test = (split(part) for part in (data.train, data.validation, data.test))
    shape = (rows, channels * columns)
    return replace(data, train=train, validation=validation, test=test, shape=shape, checksum=digest)


def _shaped(examples: Examples, shape: tuple[int, ...]) -> Examples:
    """The same examples in another shape. Raises: ConfigError: it is of another size."""
    if not shape:
        return examples
    if math.prod(shape) != math.prod(examples.shape):
        raise ConfigError(
            "a shape of another size", where=f"{PLACE} shape", got=f"{shape}, {math.prod(shape)} values", outputs=UNTOUCHED,
            allowed=f"{math.prod(examples.shape)} values, as an example of {examples.name} has", todo="correct the shape",
        )  # fmt: skip
    read = examples.read
    return replace(examples, shape=shape, read=lambda which: read(which).reshape(len(which), *shape))


def _streams(examples: Examples, how: Reading) -> bool:
    if how.stream and not examples.stored:
        raise ConfigError(
            "this source is in memory already", where=f"{PLACE} stream", got=examples.name, outputs=UNTOUCHED,
            allowed="a .npy file, a .npz file that is not compressed, a folder of images, a torch Dataset with an index",
            todo="leave out stream",
        )  # fmt: skip
    free = int(MEMORY_SHARE * free_memory(OTHERWISE))
    large = 2 * examples.nbytes > free  # once as the source has it, once in the splits
    if large and how.stream is False:
        raise DataError(
            "more than the memory can hold", where=examples.name, got=f"{examples.nbytes:,} bytes", allowed=f"{free // 2:,}",
            outputs=UNTOUCHED, todo="leave out stream = false, so that it is read when it is wanted",
        )  # fmt: skip
    return bool(how.stream) or (examples.stored and large)


def _pieces(order: Order, shape: Sequence[int]) -> Iterator[Order]:
    step = max(1, streamed.READ_BYTES // (4 * math.prod(shape)))
    return (order[at : at + step] for at in range(0, len(order), step))


def _whole(examples: Examples) -> Values:
    found = np.empty((len(examples), *examples.shape), np.float32)
    for which in _pieces(np.arange(len(examples)), examples.shape):
        found[which] = examples.read(which)
    return found


def _fit_time(examples: Examples, y: NDArray[np.generic], classes: tuple[str, ...], how: Reading) -> None:
    """Raises: DataError: targets with a time axis that the examples do not have."""
    in_time = y.ndim == 2 if classes else y.ndim == 3
    if y.ndim > 3 or (classes and y.ndim > 2) or (in_time and not (how.sequence and y.shape[1] == examples.shape[0])):
        steps = f", {examples.shape[0]} steps" if how.sequence else ""
        forgotten = in_time and not how.sequence and len(examples.shape) == 2 and y.shape[1] == examples.shape[0]
        raise DataError(
            "targets that do not fit the examples", where=examples.name, got=f"y {y.shape}, x {examples.shape}{steps}",
            allowed="one an example; or one a step, of examples (time, features) with sequence = true", outputs=UNTOUCHED,
            todo="write sequence = true" if forgotten else "give targets of that shape",
        )  # fmt: skip


def _digest(
    examples: Examples, read: Read, y: NDArray[np.generic], classes: Sequence[str], orders: Sequence[Order], how: Reading
) -> str:
    """The checksum; every value of x is looked at on the way. Raises: DataError: one is NaN or infinite."""
    shape = examples.shape if how.sequence else math.prod(examples.shape)
    found = hashlib.sha256(f"{len(examples)} {shape} {y.dtype.name} {y.shape} {how.sequence}".encode())
    for which in _pieces(np.arange(len(examples)), examples.shape):
        values = read(which)
        wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
        if wrong.size:
            row = values[wrong[0]].reshape(-1)
            at = int(np.flatnonzero(~np.isfinite(row))[0])
            raise DataError(
                "a value that is no finite number", where=examples.where(int(which[wrong[0]])), outputs=UNTOUCHED,
                got=f"{row[at]}, input {at + 1}", allowed="finite numbers, below 3.4e38",
                todo="correct it, or take the example out",
            )  # fmt: skip
        found.update(np.ascontiguousarray(values, "<f4").data)
    found.update(np.ascontiguousarray(y, "<i8" if classes else "<f4").tobytes())
    found.update("\n".join(classes).encode())
    for order in orders:
        found.update(f"{len(order)} {how.standardise}".encode() + np.ascontiguousarray(order, "<i8").tobytes())
    return found.hexdigest()


def _standardised(read: Read, shape: tuple[int, ...], train: Order, sequence: bool) -> Read:
    low, scale = _scaling(read, shape, train, sequence)
    return lambda which: (read(which) - low) * scale


def _scaling(read: Read, shape: tuple[int, ...], train: Order, sequence: bool) -> tuple[Values, Values]:
    """Return m and 1 / s of every feature."""
    features = shape[1:] if sequence else shape
    first = read(train[:1]).reshape(-1, *features)[0]  # sums of differences from it lose no digits
    total, square, count = np.zeros(features), np.zeros(features), 0
    for which in _pieces(train, shape):
        away = read(which).reshape(-1, *features) - first
        total += away.sum(0, dtype=np.float64)
        square += np.einsum("n...,n...->...", away, away, dtype=np.float64)
        count += len(away)
    centre = first + total / count
    spread = np.sqrt(np.maximum(square / count - np.square(total / count), 0.0))
    spread[spread <= np.finfo(np.float32).eps * np.abs(centre)] = 1.0  # it never changes
    return centre.astype(np.float32), (1 / spread).astype(np.float32)


def _x(read: Read, order: Order, examples: Examples, shape: tuple[int, ...], stream: bool) -> Tensor:
    def flat(which: Order) -> Values:
        return np.ascontiguousarray(read(which)).reshape(len(which), *shape)

    return Streamed(flat, order, shape, examples.name) if stream else torch.from_numpy(flat(order))
