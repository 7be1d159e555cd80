"""Folders of files by class; or folders of the splits with such folders in them.

    pictures/cat/1.png   pictures/dog/2.png                        splits are drawn
    pictures/train/cat/1.png   pictures/test/cat/9.png             validation, val and valid are one; what is not there is drawn

The classes are in sorted order of their names, the files of a class in that of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hil.data.array_file import NAMES
from hil.errors import UNTOUCHED, DataError

IGNORED = ("thumbs.db", "desktop.ini")  # what systems leave behind; hidden files are too


def listed(path: Path, suffixes: Sequence[str], what: str, group: str = "") -> list[tuple[Path, str, int]]:
    """Every file with its class and its split, see `Examples.part`.

    Args:
        path: of the folder.
        suffixes: that a file may have, in small letters.
        what: a file holds, for messages: "image".
        group: refused, a file has none.

    Raises:
        DataError: there is none, a folder cannot be read, or holds something else; it names the place.
    """
    if group:
        raise DataError(
            f"{what}s have no column of groups", where=str(path), got=f'group = "{group}"', outputs=UNTOUCHED,
            allowed="folders train, validation and test", todo="make these folders, or leave out group",
        )  # fmt: skip
    found = list(_listed(path, suffixes, what))
    if not found:
        raise DataError(
            f"no {what}s", where=str(path), got="an empty folder, or files beside the folders of the classes alone",
            allowed=f"a folder for each class, with {', '.join(suffixes)} in it", outputs=UNTOUCHED,
            todo="put the files there",
        )  # fmt: skip
    return found


def first_suffix(path: Path) -> str:
    """The suffix of the first file of the first class, in small letters; "" if there is none."""
    try:
        for _ in range(3):  # split, class, file
            path = next(entry for entry in _inside(path) if not entry.is_file() or entry.suffix)
            if path.is_file():
                return path.suffix.lower()
    except (DataError, StopIteration):
        pass  # the one who reads the folder says what is wrong with it
    return ""


def _listed(path: Path, suffixes: Sequence[str], what: str) -> Iterator[tuple[Path, str, int]]:
    folders = _inside(path)
    names = {folder.name.lower() for folder in folders}
    if names and names <= set(NAMES) and any(entry.is_dir() for folder in folders for entry in _inside(folder)):
        numbers = [NAMES[folder.name.lower()] for folder in folders]
        if 0 not in numbers or len(set(numbers)) < len(numbers):
            raise DataError(
                "splits that do not go together", where=str(path), got=", ".join(sorted(names)),
                allowed="train, and validation or test, once each", outputs=UNTOUCHED, todo="rename the folders",
            )  # fmt: skip
        for folder, number in zip(folders, numbers, strict=True):
            yield from ((file, label, number) for file, label in _classes(folder, suffixes, what))
    else:
        yield from ((file, label, 0) for file, label in _classes(path, suffixes, what))


def _classes(path: Path, suffixes: Sequence[str], what: str) -> Iterator[tuple[Path, str]]:
    for folder in _inside(path):
        if not folder.is_dir():
            raise DataError(
                "a file beside the folders of the classes", where=str(folder), got=folder.name, allowed="folders",
                outputs=UNTOUCHED, todo="move it away, or into the folder of its class",
            )  # fmt: skip
        for file in _inside(folder):
            if file.suffix.lower() not in suffixes:
                raise DataError(
                    f"a file that is no {what}", where=str(file), got=file.suffix or "no suffix",
                    allowed=", ".join(suffixes), outputs=UNTOUCHED, todo="move it away",
                )  # fmt: skip
            yield file, folder.name


def _inside(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(
            "cannot read this folder", where=str(folder), got=error.strerror or str(error), outputs=UNTOUCHED,
            allowed="a folder of files by class", todo="name another one",
        ) from error  # fmt: skip
    return [path for path in entries if not path.name.startswith(".") and path.name.lower() not in IGNORED]
