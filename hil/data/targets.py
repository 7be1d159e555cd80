"""Targets of a source: classes, or numbers.

text, whole numbers        classes: int64, their names in sorted order (whole numbers by value, text by its letters)
numbers with a fraction    float32 (n, k); for a sequence (n, time, k), or (n, time): a number a step
[data] targets             "classes" or "numbers", where the user knows it better; classes = [...] says their names and order
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hil.data.order import SPLITS, Order
from hil.errors import UNTOUCHED, DataError, nearest

Targets = Literal["auto", "classes", "numbers"]
Where = Callable[[int], str]
MOST_CLASSES = 10_000


def targets_of(
    given: NDArray[np.generic], kind: Targets, names: Sequence[str], where: Where, name: str
) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """The targets as a Dataset has them, and the names of the classes; no names for numbers.

    Args:
        given: (n,), (n, k), (n, time) or (n, time, k): text, whole numbers or floating-point numbers.
        kind: what they are meant to be.
        names: of the classes, in order; empty: those that occur.
        where: names an example, for messages.
        name: of the data, for messages.

    Raises:
        DataError: an example whose target is none.
    """
    if given.dtype.kind not in "Ufiub":
        raise DataError(
            "targets of a kind that is not read", where=name, got=f"dtype {given.dtype}",
            allowed="whole numbers, floating-point numbers, or text", outputs=UNTOUCHED, todo="save them as one of these",
        )  # fmt: skip
    if kind == "numbers" or (kind == "auto" and given.dtype.kind == "f" and not names):
        return _numbers(given, where, name), ()
    values = given if given.dtype.kind == "U" else _whole(given, where)
    present, which = np.unique(values, return_inverse=True)
    texts = [str(value) for value in present.tolist()] if values.dtype.kind != "b" else [str(int(v)) for v in present]
    if len(texts) > MOST_CLASSES:
        raise DataError(
            "too many classes", where=name, got=f"{len(texts):,} different targets", allowed=f"up to {MOST_CLASSES:,}",
            outputs=UNTOUCHED, todo='if they are numbers, write targets = "numbers"',
        )  # fmt: skip
    ordered = tuple(names) or tuple(sorted(texts, key=_rank if all(map(_is_whole, texts)) else str))
    if blank := [text for text in texts if not text.strip()]:
        row = int(np.flatnonzero(values.reshape(len(values), -1) == blank[0])[0]) // max(1, values[0].size)
        raise DataError(
            "a target is missing", where=where(row), got="nothing", allowed="the name of a class", outputs=UNTOUCHED,
            todo="give it, or take the example out",
        )  # fmt: skip
    place = {text: number for number, text in enumerate(ordered)}
    if unknown := [text for text in texts if text not in place]:
        row = int(np.flatnonzero(which.reshape(len(values), -1) == texts.index(unknown[0]))[0]) // max(1, values[0].size)
        hint = nearest(unknown[0], ordered)
        raise DataError(
            "a target that is none of the classes", where=where(row), got=f'"{unknown[0]}"', allowed=", ".join(ordered[:20]),
            outputs=UNTOUCHED, todo=f'did you mean "{hint}"?' if hint else "correct it, or add it to [data] classes",
        )  # fmt: skip
    numbers = np.array([place[text] for text in texts], np.int64)
    return numbers[which].reshape(values.shape), ordered


def trained(y: NDArray[np.generic], names: Sequence[str], orders: Sequence[Order], where: Where) -> None:
    """Raises: DataError: a class is in the validation or the test split, and no training example has it."""
    known = np.unique(y[orders[0]])
    for split, order in zip(SPLITS[1:], orders[1:], strict=True):
        wrong = np.flatnonzero(~np.isin(y[order], known).reshape(len(order), -1).all(1))
        if wrong.size:
            found = y[order[wrong[0]]]
            number = int(np.setdiff1d(found, known)[0])
            raise DataError(
                f"a class of the {split} split that no training example has", where=where(int(order[wrong[0]])),
                got=f'"{names[number]}"', allowed=f"{len(known)} classes that are trained", outputs=UNTOUCHED,
                todo="give training examples of it, or take it out of the other splits",
            )  # fmt: skip


def _numbers(given: NDArray[np.generic], where: Where, name: str) -> NDArray[np.generic]:
    if given.dtype.kind == "U":
        raise DataError(
            "text where numbers are meant", where=where(0), got=f'"{given.reshape(-1)[0]}"', allowed="numbers",
            outputs=UNTOUCHED, todo='give numbers, or write targets = "classes"',
        )  # fmt: skip
    with np.errstate(over="ignore"):
        found = given.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(found).reshape(len(found), -1).all(1))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            "a target that is no finite number", where=where(row), got=str(given[row].tolist())[:60], allowed="finite numbers",
            outputs=UNTOUCHED, todo="correct it, or take the example out",
        )  # fmt: skip
    return found[:, None] if found.ndim == 1 else found


def _whole(given: NDArray[np.generic], where: Where) -> NDArray[np.generic]:
    """Whole numbers, as such. Raises: DataError: one is none."""
    if given.dtype.kind != "f":
        return given
    with np.errstate(invalid="ignore"):
        found = given.astype(np.int64)
    wrong = np.flatnonzero((found != given).reshape(len(given), -1).any(1))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            "a target that is no class", where=where(row), got=str(given[row].tolist())[:60], allowed="whole numbers, or text",
            outputs=UNTOUCHED, todo='correct it, or write targets = "numbers"',
        )  # fmt: skip
    return found


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _rank(text: str) -> tuple[int, str]:
    return int(text), text
