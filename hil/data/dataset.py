"""Data sets: three splits of examples with their targets, checked, and the batches of an epoch.

    train         learned from              x float32 (n, features), of sequences (n, time, features)
    validation    what is chosen by         y int64 (n,) or (n, time), the number of a class
    test          read once, at the end     y float32 (n, k) or (n, time, k), numbers: the data set has no classes then

`load` gives one: published, made from a formula, from a file, or from what Python holds; see hil/data/kinds.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hil import seeding, torch_device
from hil.data.streamed import Streamed
from hil.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Examples and their targets.

    Args:
        x: float32 (n, features) or (n, time, features); perhaps read only when it is wanted, see hil/data/streamed.py.
        y: int64 (n,) or (n, time), the number of a class; or float32 (n, k) or (n, time, k).
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all examples in order, `size` at a time: x and y of each part, in memory."""
        return ((self.x[at : at + size], self.y[at : at + size]) for at in range(0, len(self), size))


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The three splits of a data set.

    Args:
        classes: the name of each class, in order; empty: the targets are numbers.
        shape: of one example before it was flattened: channels, rows, columns.
        source: the citation.
        checksum: SHA-256 of its content, so that a run can say what it has seen.
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
        """Outputs that a network must give an example: one score a class, or so many numbers."""
        return len(self.classes) or self.train.y.shape[-1]


class Batch(NamedTuple):
    """x (batch, ...), y (batch, ...), which (batch,): the place of these examples in their split."""

    x: Tensor
    y: Tensor
    which: Tensor


def load(
    use: Any,
    folder: str | Path | None = None,
    *,
    train_examples: int | None = None,
    targets: Literal["auto", "classes", "numbers"] = "auto",
    classes: Sequence[str] = (),
    shape: Sequence[int] = (),
    sequence: bool = False,
    standardise: bool = False,
    stream: bool | None = None,
    split: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Dataset:
    """Read data, check every value, and split it: always in the same way.

    Args:
        use: the name of a published set or of one that is made; a file .csv, .npz or .npy; a folder of images by class;
            "module:function"; or what Python holds: (x, y), a mapping of arrays or of splits, a torch Dataset, an iterable of
            pairs. `hil list datasets` shows the names.
        folder: holds the files. Of a published set: nothing is downloaded into it; None: `hil.data.files.home()` holds them,
            and what is missing is downloaded there. The digits are shipped and need no folder.
        train_examples: so many of the training split.
        targets: what the targets are; "auto": text and whole numbers are classes, other numbers are numbers.
        classes: names of the classes, in order; empty: those that occur, sorted.
        shape: of an example, as (channels, rows, columns); empty: as the source has it.
        sequence: the first axis of an example is time, and stays; of an image of a published set, each row is a step.
        standardise: every feature gets mean 0 and standard deviation 1 over the training split.
        stream: read examples when they are wanted; None: if memory cannot hold them.
        split: validation and test as shares or files, group, order, seed; see hil/data/order.py.
        **settings: of what `use` names, as target = "species" of a table.

    Raises:
        ConfigError: no such data set, or settings that do not fit.
        DataError: a file is missing, truncated, damaged or of another content; a row is bad, and the message names it.

    Example:
        >>> digits = load("digits")
        >>> tuple(digits.train.x.shape), digits.train.y.dtype
        ((1437, 64), torch.int64)
        >>> numbers = load((torch.linspace(0, 1, 50), torch.linspace(0, 2, 50)))
        >>> tuple(numbers.train.x.shape), tuple(numbers.train.y.shape), numbers.classes
        ((40, 1), (40, 1), ())
    """
    from hil.data.examples import Reading
    from hil.data.kinds import PYTHON, named, nothing_more, of_object
    from hil.data.order import Division
    from hil.settings import arguments

    division = Division(**arguments(Division, split or {}, f"{PYTHON}: [split]"))
    how = Reading(targets, tuple(classes), tuple(shape), sequence, standardise, stream, division)
    if isinstance(use, str | Path):
        found = named(str(use), settings, PYTHON, None if folder is None else Path(folder)).dataset(how)
    else:
        nothing_more(settings, PYTHON)
        found = of_object(use, how, "Python")
    return found if train_examples is None else subset(found, train_examples)


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
        DataError: a split whose x is not float32 (n, features) or (n, time, features), alike in all, finite; or whose y is
            neither the number of a class, nor, without classes, finite float32 numbers.
    """
    one, classes = tuple(dataset.train.x.shape[1:]), len(dataset.classes)
    for name in ("train", "validation", "test"):
        split: Split = getattr(dataset, name)
        x, y = split.x, split.y
        if x.dtype != torch.float32 or not 2 <= x.ndim <= 3 or x.shape[1:] != one or len(x) == 0:
            shape = f"(n, {', '.join(map(str, one or ('features',)))})"
            got, allowed = f"x {x.dtype}, shape {tuple(x.shape)}", f"float32, shape {shape}, n at least 1"
        elif wrong := _targets(y, x, classes):
            got, allowed = wrong
        elif not isinstance(x, Streamed) and not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).sum())
            got, allowed = f"{bad} values of x NaN or infinite", "finite values"
        else:
            continue
        raise DataError(f"a {name} split that nobody can train on", where=f"data {dataset.name}", got=got, allowed=allowed)
    return dataset


def _targets(y: Tensor, x: Tensor, classes: int) -> tuple[str, str] | None:
    """What is wrong with targets, and what would not be."""
    steps = tuple(x.shape[:-1])
    got = f"y {y.dtype}, shape {tuple(y.shape)}"
    if classes:
        shapes = dict.fromkeys((steps[:1], steps))
        if y.dtype != torch.int64 or tuple(y.shape) not in shapes:
            return got, f"int64, shape {' or '.join(map(str, shapes))}"
        if not 0 <= int(y.min()) <= int(y.max()) < classes:
            return f"y from {int(y.min())} to {int(y.max())}", f"0 to {classes - 1}, the number of a class"
        return None
    if y.dtype != torch.float32 or y.ndim < 2 or tuple(y.shape[:-1]) not in (steps[:1], steps) or y.shape[-1] == 0:
        ks = dict.fromkeys(f"({', '.join(map(str, lead))}, k)" for lead in (steps[:1], steps))
        return f"{got}, no classes", f"float32, shape {' or '.join(ks)}; or int64 and the names of the classes"
    bad = int((~torch.isfinite(y)).sum())
    return (f"{bad} values of y NaN or infinite", "finite values") if bad else None


def batches(split: Split, size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Yield every example of the split once, in an order that (seed, epoch) alone decide; the last batch may be short.

    A run resumed inside an epoch skips what it has done with `itertools.islice`.
    """
    if size < 1:
        raise ConfigError("a batch needs at least one example", where="[train] batch", got=str(size), allowed="1 or more")
    order = torch.randperm(len(split), generator=seeding.generator(seed, epoch, "batches"))
    for which in torch.split(order.to(split.x.device), size):
        yield Batch(split.x[which], split.y[which], which)


def moved(data: Dataset, place: torch.device) -> Dataset:
    """`data` on `place` if it fits there, else as it is."""
    splits = (data.train, data.validation, data.test)
    if any(isinstance(split.x, Streamed) for split in splits):
        return data  # what the host's memory cannot hold goes there batch by batch
    if not torch_device.holds(sum(tensor.nbytes for split in splits for tensor in (split.x, split.y)), place):
        return data
    train, validation, test = (Split(split.x.to(place), split.y.to(place)) for split in splits)
    return dataclasses.replace(data, train=train, validation=validation, test=test)
