"""Data that Python holds: what "module:function" returns, or what is given to hil.load and hil.train.

    (x, y)                       arrays or tensors, an example each first index
    {"x": x, "y": y}             or "x_train", "y_train", "x_test", ..., as in a .npz file; "group" for [data.split] group
    {"train": a, "test": b}      each of them anything that stands here
    a torch Dataset              with an index and a length: torchvision, Tonic with a transform to frames, Hugging Face
    an iterable                  of examples; a generator, an IterableDataset

An example is a pair (x, y), or a mapping with the keys x and y. x is a number, an array, a tensor, or an image of Pillow, whose
values become 0 to 1; y is text, a number or an array. All of them are read once; with stream = true a torch Dataset is asked
for an example whenever it is wanted, and must give the same one each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from hil.data.array_file import NAMES, from_arrays
from hil.data.examples import Examples, in_memory, joined
from hil.data.image_folder import image_of
from hil.data.order import Order
from hil.errors import UNTOUCHED, DataError
from hil.foreign import foreign, said

ALLOWED = "(x, y), a mapping of x and y or of splits, a torch Dataset, an iterable of (x, y), or a hil.Dataset"


def examples_of(value: Any, name: str, group: str = "", stream: bool | None = None) -> Examples:
    """Return the examples that `value` holds.

    Args:
        value: see above.
        name: of the data.
        group: the name of its groups, or "".
        stream: ask for examples when they are wanted.

    Raises:
        DataError: it holds no examples; the message names the example.
    """
    with foreign(f"data {name}", DataError, UNTOUCHED, "correct that code"):
        return _examples(value, name, group, stream)


def _examples(value: Any, name: str, group: str, stream: bool | None) -> Examples:
    if isinstance(value, Mapping) and value and set(value) <= set(NAMES):
        return _of_splits(value, name, group, stream)
    if isinstance(value, Mapping):
        return from_arrays({str(key): _rows(part, name) for key, part in value.items()}, "x", "y", group, name, name)
    if isinstance(value, tuple) and len(value) == 2:
        return from_arrays({"x": _rows(value[0], name), "y": _rows(value[1], name)}, "x", "y", group, name, name)
    if isinstance(value, str | bytes | DataLoader | Tensor | np.ndarray) or not (
        isinstance(value, Iterable) or hasattr(value, "__getitem__")
    ):
        todo = "give the data set of the loader" if isinstance(value, DataLoader) else "return one of these"
        raise DataError(
            "not data", where=f"data {name}", got=f"{said(value, 60)} ({type(value).__name__})", allowed=ALLOWED,
            outputs=UNTOUCHED, todo=todo,
        )  # fmt: skip
    if group:
        raise DataError(
            "examples in pairs have no groups", where=f"data {name}", got=f'group = "{group}"', outputs=UNTOUCHED,
            allowed="a mapping of arrays with one of that name", todo="return such a mapping, or leave out group",
        )  # fmt: skip
    indexed = hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, IterableDataset)
    if stream and indexed:
        return _streamed(value, name)
    pairs = (value[number] for number in range(len(value))) if indexed else iter(value)
    x: list[NDArray[np.float32]] = []
    y: list[NDArray[np.generic]] = []
    for number, item in enumerate(pairs):
        one, target = _pair(item, name, number)
        if x and one.shape != x[0].shape:
            raise _of_another_shape(name, number, one.shape, x[0].shape)
        x.append(one)
        y.append(target)
    values = np.stack(x) if x else np.empty((0, 1), np.float32)
    return Examples(name, values.shape[1:], in_memory(values), _targets(y, name), lambda row: _where(name, row), name)


def _of_splits(value: Mapping[str, Any], name: str, group: str, stream: bool | None) -> Examples:
    numbers = [NAMES[split] for split in value]
    if 0 not in numbers or len(set(numbers)) < len(numbers):
        raise DataError(
            "splits that do not go together", where=f"data {name}", got=", ".join(value), outputs=UNTOUCHED,
            allowed="train, and validation or test, once each", todo="rename them",
        )  # fmt: skip
    ordered = sorted(value, key=NAMES.__getitem__)
    parts = [examples_of(value[split], f"{name} {split}", group, stream) for split in ordered]
    found = joined([part.within(NAMES[split]) for part, split in zip(parts, ordered, strict=True)])
    return replace(found, name=name, source=name)


def _streamed(value: Any, name: str) -> Examples:
    first = _pair(value[0], name, 0)[0] if len(value) else np.empty(1, np.float32)
    targets: list[NDArray[np.generic]] = []
    for number in range(len(value)):
        one, target = _pair(value[number], name, number)
        if one.shape != first.shape:
            raise _of_another_shape(name, number, one.shape, first.shape)
        targets.append(target)

    def read(which: Order) -> NDArray[np.float32]:
        with foreign(f"data {name}"):
            return np.stack([_pair(value[number], name, number)[0] for number in which.tolist()])

    return Examples(name, first.shape, read, _targets(targets, name), lambda row: _where(name, row), name, stored=True)


def _pair(item: Any, name: str, number: int) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    if isinstance(item, Mapping) and {"x", "y"} <= set(item):
        item = item["x"], item["y"]
    if not isinstance(item, tuple | list) or len(item) != 2:
        keys = f" with the keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
        raise DataError(
            "an example that is no pair", where=_where(name, number), got=f"{type(item).__name__}{keys}", outputs=UNTOUCHED,
            allowed="(x, y), or a mapping with the keys x and y", todo="rename the columns, or yield pairs",
        )  # fmt: skip
    x, y = item
    if hasattr(x, "convert") and hasattr(x, "mode"):  # an image of Pillow
        return image_of(x, None, _where(name, number)), _array(y)
    values = _array(x)
    if values.dtype.kind not in "fiub":
        raise DataError(
            "an input that is no number", where=_where(name, number), got=f"{type(x).__name__}, dtype {values.dtype}",
            allowed="numbers, an array of them, a tensor, or an image of Pillow", outputs=UNTOUCHED,
            todo="convert it before it is given",
        )  # fmt: skip
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).reshape(values.shape or (1,)), _array(y)


def _rows(value: Any, name: str) -> NDArray[Any]:
    """The array of all examples. Raises: DataError: a list of some that are not alike, as sequences of other lengths."""
    shapes = [tuple(np.shape(one)) for one in value] if isinstance(value, list | tuple) else []
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise _of_another_shape(name, number, shape, shapes[0])
    return _array(value)


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def _targets(found: list[NDArray[Any]], name: str) -> NDArray[Any]:
    for number, one in enumerate(found):
        if one.shape != found[0].shape or (one.dtype.kind == "U") != (found[0].dtype.kind == "U"):
            raise DataError(
                "a target of another kind", where=_where(name, number), got=f"dtype {one.dtype}, shape {one.shape}",
                allowed=f"dtype {found[0].dtype}, shape {found[0].shape}, as the first has", outputs=UNTOUCHED,
                todo="give targets of one kind",
            )  # fmt: skip
    return np.stack(found) if found else np.empty(0, np.int64)


def _of_another_shape(name: str, number: int, got: tuple[int, ...], allowed: tuple[int, ...]) -> DataError:
    return DataError(
        "an example of another shape", where=_where(name, number), got=str(got), allowed=f"{allowed}, as the first has",
        outputs=UNTOUCHED, todo="bring all to one shape",
    )  # fmt: skip


def _where(name: str, number: int) -> str:
    return f"data {name}: example {number}"
