"""Data sets: real, checked, and split the same way for ever.

    IDX (MNIST, Fashion-MNIST)   00 00 08 d | d sizes, uint32 big-endian | uint8 items, the last index fastest
    CIFAR-10 binary              records of 1 label byte + 3072 pixel bytes: red, green and blue planes of 32 x 32, by rows
    digits.csv                   64 pixels 0..16 and the label 0..9 on a line

The splits are the same on every machine: the order of the examples is the stable argsort of a raw PCG64 stream, which numpy
promises never to change, keyed by `hil.seeding.key(0, 0, "split NAME")`. The test examples are those of the publisher; the
validation examples are the last of the training examples in that order. The digits come as one file: there the order is
stratified (every class advances in step), the last 180 are the test split and the 180 before them the validation split.

Sources: the format is described on the MNIST page (Y. LeCun, C. Cortes, C. Burges) and on the CIFAR-10 page (A. Krizhevsky).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil import seeding, torch_device
from hil.data.files import Content, check_sum, contents_of, damaged, home, shipped
from hil.data.sources import NAMES, Card, describe
from hil.errors import ConfigError, DataError

__all__ = [
    "NAMES",
    "Batch",
    "Card",
    "Dataset",
    "Split",
    "batches",
    "describe",
    "home",
    "load",
    "read_cifar",
    "read_idx",
    "subset",
    "usable",
]

Bytes = NDArray[np.uint8]
Order = NDArray[np.int64]
CIFAR_RECORD = 1 + 3 * 32 * 32
IDX_UINT8 = 0x08


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Examples and their labels.

    Args:
        x: float32 (n, features) in [0, 1].
        y: int64 (n,) of classes, float32 (n, k) of numbers.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Three splits of one data set.

    Args:
        classes: the name of each label, in order; none if the targets are numbers.
        shape: of one example before it was flattened: channels, rows, columns.
        source: the citation.
        checksum: SHA-256 over the checksums of its files, so that a run can say what it has seen.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    source: str
    checksum: str

    @property
    def outputs(self) -> int:
        """What a network has to give an example: one score a class, or so many numbers."""
        return len(self.classes) or self.train.y.shape[-1]


class Batch(NamedTuple):
    """x (batch, features), y (batch,), which (batch,): the place of these examples in their split."""

    x: Tensor
    y: Tensor
    which: Tensor


# ---- what a run uses ------------------------------------------------------------------------------------------------------


def load(name: str, folder: str | Path | None = None) -> Dataset:
    """Read a data set, check every byte of it, and split it: always in the same way.

    Args:
        name: one of NAMES.
        folder: holds the files, or a folder of that name with the files; plain or gzipped. Nothing is downloaded into it.
            None: `home()` holds them, and what is missing is downloaded there. The digits are shipped and need no folder.

    Raises:
        ConfigError: no such data set.
        DataError: a file is missing, truncated, damaged or of another content.

    Example:
        >>> digits = load("digits")
        >>> tuple(digits.train.x.shape), digits.train.y.dtype
        ((1437, 64), torch.int64)
    """
    card, place = describe(name), None if folder is None else Path(folder)
    return parse(card, shipped(card) if card.layout == "csv" else contents_of(card, place))


def subset(dataset: Dataset, train_examples: int) -> Dataset:
    """The same data set with the first `train_examples` of its training split only; they are a random draw already.

    Raises:
        ConfigError: fewer than one, or more than there are.
    """
    if not 1 <= train_examples <= len(dataset.train):
        raise ConfigError(
            "cannot take so many training examples",
            where="[data] train_examples",
            got=str(train_examples),
            allowed=f"1 to {len(dataset.train)} ({dataset.name})",
        )
    train = Split(dataset.train.x[:train_examples], dataset.train.y[:train_examples])
    return dataclasses.replace(dataset, train=train)


def usable(dataset: Dataset) -> Dataset:
    """`dataset` itself, if one can train on it.

    Raises:
        DataError: a split whose x is not float32 (n, features), the same features in all, finite; or y not int64 (n,), a
            number of a class; or, for a data set without classes, not float32 (n, k), finite.
    """
    features, classes = dataset.train.x.shape[-1] if dataset.train.x.ndim else 0, len(dataset.classes)
    numbers = dataset.train.y.shape[1] if dataset.train.y.ndim == 2 else 1
    for name in ("train", "validation", "test"):
        x, y = getattr(dataset, name).x, getattr(dataset, name).y
        if x.dtype != torch.float32 or x.ndim != 2 or x.shape[1] != features or len(x) == 0:
            got, allowed = f"x {x.dtype}, shape {tuple(x.shape)}", f"float32, shape (n, {features}), n at least 1"
        elif not classes and (y.dtype != torch.float32 or y.shape != (len(x), numbers)):
            got, allowed = f"y {y.dtype}, shape {tuple(y.shape)}, and no classes", f"float32, shape ({len(x)}, {numbers})"
        elif not classes and not bool(torch.isfinite(y).all()):
            got, allowed = f"{int((~torch.isfinite(y)).sum())} values of y NaN or infinite", "finite values"
        elif classes and (y.dtype != torch.int64 or y.shape != x.shape[:1]):
            got, allowed = f"y {y.dtype}, shape {tuple(y.shape)}", f"int64, shape ({len(x)},)"
        elif classes and not 0 <= int(y.min()) <= int(y.max()) < classes:
            got, allowed = f"y from {int(y.min())} to {int(y.max())}", f"0 to {classes - 1}, the number of a class"
        elif not bool(torch.isfinite(x).all()):
            got, allowed = f"{int((~torch.isfinite(x)).sum())} values of x NaN or infinite", "finite values"
        else:
            continue
        raise DataError(f"a {name} split that nobody can train on", where=f"data {dataset.name}", got=got, allowed=allowed)
    return dataset


def batches(split: Split, size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Every example of the split once, in an order that (seed, epoch) alone decide; the last batch may be short.

    A run resumed inside an epoch skips what it has done with `itertools.islice`.
    """
    if size < 1:
        raise ConfigError("a batch needs at least one example", where="[train] batch", got=str(size), allowed="1 or more")
    order = torch.randperm(len(split), generator=seeding.generator(seed, epoch, "batches"))
    for which in torch.split(order.to(split.x.device), size):
        yield Batch(split.x[which], split.y[which], which)


# ---- from bytes to splits -------------------------------------------------------------------------------------------------


def parse(card: Card, contents: Mapping[str, Content]) -> Dataset:
    """The contents of the files of `card.sums` -> a Dataset. They are read strictly first, then compared with their sums.

    Raises:
        DataError: naming the file.
    """
    parts = _READERS[card.layout](card, contents)
    sums = [check_sum(contents[name], expected) for name, expected in card.sums.items()]
    pixels, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(labels) != card.examples + card.test:
        raise DataError(
            "a data set of another size",
            where=card.name,
            got=f"{len(labels):,} examples",
            allowed=f"{card.examples + card.test:,}",
        )
    splits = [_split(card, pixels, labels, order) for order in _orders(card, labels)]
    checksum = hashlib.sha256("\n".join(sums).encode()).hexdigest()
    return Dataset(card.name, splits[0], splits[1], splits[2], card.classes, card.shape, card.source, checksum)


def read_idx(content: Content) -> Bytes:
    """A strict reader of IDX with uint8 items; the array has the shape its header states.

    Raises:
        DataError: wrong magic, or one byte more or less than the header promises.
    """
    data, where = content
    if len(data) < 4 or data[0] or data[1] or data[2] != IDX_UINT8 or not 1 <= data[3] <= 4:
        raise damaged("not an IDX file of bytes", where, f"first bytes {data[:4].hex(' ') or 'none'}", "00 00 08 and 01 to 04")
    rank = data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise damaged("the IDX header is cut short", where, f"{len(data)} bytes", f"{start}")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", rank, offset=4))
    due = start + math.prod(shape)
    if len(data) != due:
        fault = "the file is truncated" if len(data) < due else "bytes are left over after the last item"
        raise damaged(fault, where, f"{len(data):,} bytes", f"{due:,} for the shape {shape} in its header")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_cifar(content: Content) -> tuple[Bytes, Bytes]:
    """Pixels (n, 3072) and labels (n,) of a CIFAR-10 binary batch.

    Raises:
        DataError: not a whole number of records.
    """
    data, where = content
    if not data or len(data) % CIFAR_RECORD:
        raise damaged("not a whole number of records", where, f"{len(data):,} bytes", f"a multiple of {CIFAR_RECORD:,}")
    records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD)
    return records[:, 1:], records[:, 0]


def _idx_parts(card: Card, contents: Mapping[str, Content]) -> list[tuple[Bytes, Bytes]]:
    names = list(card.sums)
    return [_idx_part(card, contents[names[k]], contents[names[k + 1]]) for k in (0, 2)]


def _idx_part(card: Card, images: Content, labels: Content) -> tuple[Bytes, Bytes]:
    pixels, answers = read_idx(images), read_idx(labels)
    if pixels.shape[1:] != card.shape[1:]:
        raise damaged("images of another shape", images.where, f"{pixels.shape}", f"(n, {card.shape[1]}, {card.shape[2]})")
    if answers.shape != pixels.shape[:1]:
        raise damaged("not one label for each image", labels.where, f"{answers.shape}", f"({len(pixels)},)")
    return pixels.reshape(len(pixels), -1), _labels(answers, card, labels.where)


def _cifar_parts(card: Card, contents: Mapping[str, Content]) -> list[tuple[Bytes, Bytes]]:
    parts = []
    for name in card.sums:
        pixels, labels = read_cifar(contents[name])
        parts.append((pixels, _labels(labels, card, contents[name].where)))
    return parts


def _csv_parts(card: Card, contents: Mapping[str, Content]) -> list[tuple[Bytes, Bytes]]:
    data, where = contents["digits.csv"]
    width = math.prod(card.shape) + 1
    try:
        table = np.array([line.split(b",") for line in data.split()], np.uint8)
    except (ValueError, OverflowError) as error:
        raise damaged("not a table of small whole numbers", where, str(error), f"{width} on every line") from error
    if table.ndim != 2 or table.shape[1] != width:
        raise damaged("a table of another shape", where, f"{table.shape}", f"(n, {width})")
    return [(table[:, :-1], _labels(table[:, -1], card, where))]


_READERS = {"idx": _idx_parts, "cifar": _cifar_parts, "csv": _csv_parts}


def _labels(labels: Bytes, card: Card, where: str) -> Bytes:
    wrong = np.flatnonzero(labels >= len(card.classes))
    if wrong.size:
        got = f"{labels[wrong[0]]} at example {wrong[0]}"
        raise damaged("a label that stands for no class", where, got, f"0 to {len(card.classes) - 1}")
    return labels


def _split(card: Card, pixels: Bytes, labels: Bytes, order: Order) -> Split:
    x = torch.from_numpy(pixels[order]).float().div_(card.peak)
    return Split(x, torch.from_numpy(labels[order]).long())


def _orders(card: Card, labels: Bytes) -> tuple[Order, Order, Order]:
    """Return which examples, in which order, make the training, the validation and the test split."""
    train = card.examples - card.validation
    if card.layout == "csv":
        order = _stratified(labels, len(card.classes), f"split {card.name}")
        return order[:train], order[train : card.examples], order[card.examples :]
    order = _permutation(card.examples, f"split {card.name}")
    return order[:train], order[train:], np.arange(card.examples, len(labels))


def _permutation(count: int, stream: str) -> Order:
    return np.argsort(np.random.PCG64(seeding.key(0, 0, stream)).random_raw(count), kind="stable")


def _stratified(labels: Bytes, classes: int, stream: str) -> Order:
    """A permutation in which the k-th of n examples of a class stands at (k + 1/2) / n of the way."""
    order = _permutation(len(labels), stream)
    way = np.empty(len(labels))
    for label in range(classes):
        places = np.flatnonzero(labels[order] == label)
        way[places] = (np.arange(len(places)) + 0.5) / max(len(places), 1)
    return order[np.argsort(way, kind="stable")]


def moved(data: Dataset, place: torch.device) -> Dataset:
    """`data` on `place` if it fits there, else as it is."""
    splits = (data.train, data.validation, data.test)
    if not torch_device.holds(sum(tensor.nbytes for split in splits for tensor in (split.x, split.y)), place):
        return data
    train, validation, test = (Split(split.x.to(place), split.y.to(place)) for split in splits)
    return dataclasses.replace(data, train=train, validation=validation, test=test)
