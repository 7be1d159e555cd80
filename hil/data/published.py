"""Data sets that others have published: from the bytes of their files to splits, in a way that never changes.

    IDX (MNIST, Fashion-MNIST)   00 00 08 d | d sizes, uint32 big-endian | uint8 items, the last index fastest
    CIFAR-10 binary              records of 1 label byte + 3072 pixel bytes: red, green and blue planes of 32 x 32, by rows
    CIFAR-100 binary             records of 2 label bytes, coarse and fine, + the same pixels; the fine one is used
    digits.csv                   64 pixels 0..16 and the label 0..9 on a line

The test examples are those of the publisher; the validation examples are the last of the training examples in the order that
hil/data/order.py gives for "split NAME". The digits come as one file: there the order is stratified, the last 180 are the test
split and the 180 before them the validation split.

Sources: the format is described on the MNIST page (Y. LeCun, C. Cortes, C. Burges) and on the CIFAR page (A. Krizhevsky).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hil.data.dataset import Dataset, Split
from hil.data.files import Content, check_sum, contents_of, damaged, shipped
from hil.data.order import Order, permutation, stratified
from hil.data.sources import Card
from hil.errors import DataError

Bytes = NDArray[np.uint8]
CIFAR_PIXELS = 3 * 32 * 32
IDX_UINT8 = 0x08


def published(card: Card, folder: Path | None) -> Dataset:
    """Read the set of a card, check every byte of it, and split it. Arguments and errors as of `load`."""
    return parse(card, shipped(card) if card.layout == "csv" else contents_of(card, folder))


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


def read_cifar(content: Content, labels: int = 1) -> tuple[Bytes, Bytes]:
    """Pixels (n, 3072) and labels (n,) of a CIFAR binary batch.

    Args:
        content: of the file.
        labels: bytes in front of the pixels; the last of them is the label.

    Raises:
        DataError: not a whole number of records.
    """
    data, where = content
    record = labels + CIFAR_PIXELS
    if not data or len(data) % record:
        raise damaged("not a whole number of records", where, f"{len(data):,} bytes", f"a multiple of {record:,}")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, labels:], records[:, labels - 1]


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
        pixels, labels = read_cifar(contents[name], 2 if card.layout == "cifar100" else 1)
        parts.append((pixels, _labels(labels, card, contents[name].where)))
    return parts


def _csv_parts(card: Card, contents: Mapping[str, Content]) -> list[tuple[Bytes, Bytes]]:
    data, where = contents["digits.csv"]
    width = math.prod(card.shape) + 1
    try:
        table = np.loadtxt(data.decode("ascii").split(), np.uint8, delimiter=",", ndmin=2)
    except ValueError as error:
        raise damaged("not a table of small whole numbers", where, str(error), f"{width} on every line") from error
    if table.ndim != 2 or table.shape[1] != width:
        raise damaged("a table of another shape", where, f"{table.shape}", f"(n, {width})")
    return [(table[:, :-1], _labels(table[:, -1], card, where))]


_READERS = {"idx": _idx_parts, "cifar": _cifar_parts, "cifar100": _cifar_parts, "csv": _csv_parts}


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
        order = stratified(labels, len(card.classes), f"split {card.name}")
        return order[:train], order[train : card.examples], order[card.examples :]
    order = permutation(card.examples, f"split {card.name}")
    return order[:train], order[train:], np.arange(card.examples, len(labels))
