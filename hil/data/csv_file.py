"""Tables as text: one example a line, the columns named in the first one.

    petal,sepal,species          target = "species"            the last column, unless the file says otherwise
    1.4,5.1,setosa               inputs = ["petal", "sepal"]   all others, but the target and the group

Comma, semicolon or tab, whichever the first line has; numbers with a decimal point. Format: RFC 4180.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hil.data.examples import Examples, in_memory
from hil.errors import UNTOUCHED, DataError, nearest
from hil.files import read_text
from hil.settings import check

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A file of comma-separated values.

    Args:
        inputs: the columns of x; empty: all but the target and the group.
        target: the column of y, or several columns of numbers; empty: the last column.
        separator: "comma", "semicolon" or "tab"; "": as the first line has it.
    """

    inputs: tuple[str, ...] = ()
    target: str | tuple[str, ...] = ()
    separator: Literal["", "comma", "semicolon", "tab"] = ""

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self, path: Path, group: str = "") -> Examples:
        """Read the file.

        Args:
            path: of the file.
            group: the column of the groups, or "".

        Raises:
            DataError: naming the line.
        """
        header, rows, lines = _table(path, self.separator)
        targets = (self.target,) if isinstance(self.target, str) else self.target or header[-1:]
        beside = {*targets, group}
        inputs = self.inputs or tuple(name for name in header if name not in beside)
        places = [_column(name, header, path) for name in (*inputs, *targets, *([group] if group else []))]
        if not inputs or len(set(places)) < len(places):
            raise DataError(
                "no input, or a column that is used twice", where=str(path), outputs=UNTOUCHED,
                got=f"inputs {', '.join(inputs) or 'none'}; target {', '.join(targets)}", allowed="a column for one thing",
                todo="correct inputs and target in [data]",
            )  # fmt: skip
        x = _numbers(rows, lines, places[: len(inputs)], inputs, path)
        last = places[len(inputs) : len(inputs) + len(targets)]
        y = _target(rows, lines, last, targets, path)
        groups = np.array([row[places[-1]] for row in rows]) if group else None
        return Examples(
            path.stem, (len(inputs),), in_memory(x), y, lambda row: f"{path}: line {lines[row]}", str(path), group=groups
        )  # fmt: skip


def _table(path: Path, separator: str) -> tuple[tuple[str, ...], list[list[str]], list[int]]:
    """The names of the columns, the rows, and the line of each row."""
    text = read_text(path, error=DataError)
    if not text.strip():
        raise _wrong("an empty file", path, 1, "nothing", "the names of the columns, and a row for each example")
    first = text.partition("\n")[0]
    mark = SEPARATORS[separator] if separator else max(SEPARATORS.values(), key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=mark, strict=True)
    rows, lines = [], []
    try:
        header = tuple(name.strip() for name in next(reader, []))
        for row in reader:
            if row:  # an empty line says nothing
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise _wrong("not a table", path, reader.line_num, str(error), "RFC 4180: quotes in pairs") from error
    if len(set(header)) < len(header) or not all(header):
        raise _wrong("columns must have different names", path, 1, ", ".join(header)[:200] or "nothing", "a name each")
    if header and all(map(_is_number, header)):
        raise _wrong("the first line has no names", path, 1, first[:60], "the names of the columns")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise _wrong("a row of another length", path, line, f"{len(row)} values", f"{len(header)}, as the first line has")
    return header, rows, lines


def _column(name: str, header: tuple[str, ...], path: Path) -> int:
    if name not in header:
        hint = nearest(name, header)
        raise DataError(
            "no such column", where=f"{path}: line 1", got=f'"{name}"', allowed=", ".join(header)[:400], outputs=UNTOUCHED,
            todo=f'did you mean "{hint}"?' if hint else "name one of these in [data]",
        )  # fmt: skip
    return header.index(name)


def _numbers(
    rows: list[list[str]], lines: list[int], places: list[int], names: tuple[str, ...], path: Path
) -> NDArray[np.float64]:
    found = np.empty((len(rows), len(places)))
    for number, row in enumerate(rows):
        for column, place in enumerate(places):
            value = _number(row[place])
            if value is None:
                hint = "; write a decimal point" if "," in row[place] else ""
                raise _wrong(
                    f"no finite number in the column {names[column]}" if row[place] else f"an empty cell in {names[column]}",
                    path, lines[number], f'"{row[place][:60]}"', f"a finite number{hint}",
                )  # fmt: skip
            found[number, column] = value
    return found


def _target(
    rows: list[list[str]], lines: list[int], places: list[int], names: tuple[str, ...], path: Path
) -> NDArray[np.generic]:
    """Several columns are numbers; one is whole numbers, else numbers if most of it is, else text."""
    if len(places) > 1:
        return _numbers(rows, lines, places, names, path)
    cells = [row[places[0]] for row in rows]
    if all(cell.removeprefix("-").isdecimal() and len(cell) < 18 for cell in cells):
        return np.array([int(cell) for cell in cells], np.int64)
    if 2 * sum(map(_is_number, cells)) > len(cells):  # the others are mistakes
        return _numbers(rows, lines, places, names, path)[:, 0]
    return np.array(cells)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong(what: str, path: Path, line: int, got: str, allowed: str) -> DataError:
    return DataError(
        what,
        where=f"{path}: line {line}",
        got=got,
        allowed=allowed,
        outputs=UNTOUCHED,
        todo="correct that line, or take it out",
    )
