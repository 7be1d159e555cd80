"""notes.toml: what people say of a run: tags and a note. It changes no number and is no part of what a resume needs.

tags = ["good", "for the paper"]
note = "second sample, laser at 3 dBm"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from hil import toml
from hil.errors import ConfigError, RunError
from hil.files import read_text, there, write_atomic
from hil.plain import plain
from hil.run.lock import UNTOUCHED

NAME = "notes.toml"
MOST_TAGS, MOST_TAG, MOST_NOTE = 32, 40, 2000  # of a run; letters of a tag; letters of a note
MOST_BYTES = 1 << 16
RUN_FILES = ("config.toml", "journal.jsonl", "summary.json", "table.json")


@dataclass(frozen=True)
class Notes:
    """What is said of a run.

    Args:
        tags: each once, in the order in which they were given.
        note: a text, which may have several lines.
    """

    tags: tuple[str, ...] = ()
    note: str = ""


def read(path: Path) -> Notes:
    """Read what is said of the run in the folder `path`; nothing if no file is there.

    Raises:
        RunError: the file is damaged.
    """
    file = path / NAME
    if not there(file):
        return Notes()
    try:
        table = toml.loads(read_text(file, MOST_BYTES))
    except ValueError as error:
        raise _damaged(file, str(error)) from error
    tags, note = table.get("tags", []), table.get("note", "")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags) or not isinstance(note, str):
        raise _damaged(file, "tags or note of another kind")
    try:
        return checked(tags, note, str(file))
    except ConfigError as error:
        raise _damaged(file, f"{error.what}: {error.got}") from error


def write(path: Path, notes: Notes) -> None:
    """Write what is said of the run in the folder `path`, whole or not at all.

    Raises:
        ConfigError: a tag or the note has control characters, or is too long. RunError: no run folder, or it cannot be written.
    """
    if not path.is_dir() or not any((path / name).is_file() for name in RUN_FILES):
        raise RunError(
            "not a run folder", where=str(path), got="a folder" if path.is_dir() else "no such folder", outputs=UNTOUCHED,
            todo="name a folder that hil train made; hil list runs shows them",
        )  # fmt: skip
    kept = checked(notes.tags, notes.note, str(path))
    write_atomic(path / NAME, tomli_w.dumps({"tags": list(kept.tags), "note": kept.note}).encode("utf-8"))


def changed(path: Path, note: str | None = None, tag: Iterable[str] = (), untag: Iterable[str] = ()) -> Notes:
    """Change what is said of the run in the folder `path`, and return it.

    Args:
        path: of the folder.
        note: the new note; "" removes it; None leaves it as it is.
        tag: tags to add.
        untag: tags to remove; one that is not there is no error.

    Raises:
        ConfigError, RunError: as of `read` and `write`.
    """
    before, gone = read(path), {text.strip() for text in untag}
    tags = tuple(one for one in (*before.tags, *tag) if one.strip() not in gone)
    after = checked(tags, before.note if note is None else note, str(path))
    write(path, after)
    return after


def checked(tags: Iterable[str], note: str, where: str) -> Notes:
    """Check tags and a note: blanks at both ends are removed, and a tag that is given twice counts once.

    Raises:
        ConfigError: empty or too long, too many, or with control characters.
    """
    kept = tuple(dict.fromkeys(tag.strip() for tag in tags))
    wrong = [tag for tag in kept if not 0 < len(tag) <= MOST_TAG or not _printable(tag) or "," in tag]
    if wrong:
        raise ConfigError(
            "not a tag", where=where, got=repr(wrong[0])[: MOST_TAG + 20], outputs=UNTOUCHED,
            allowed=f"1 to {MOST_TAG} letters in one line, without commas and control characters", todo="choose another name",
        )  # fmt: skip
    if len(kept) > MOST_TAGS:
        raise ConfigError(
            "too many tags", where=where, got=str(len(kept)), allowed=f"at most {MOST_TAGS} of a run", outputs=UNTOUCHED,
            todo="remove some",
        )  # fmt: skip
    text = note.replace("\r\n", "\n").strip()
    if len(text) > MOST_NOTE or not all(_printable(line) for line in text.split("\n")):
        raise ConfigError(
            "not a note", where=where, outputs=UNTOUCHED,
            got=f"{len(text):,} letters" if len(text) > MOST_NOTE else "control characters",
            allowed=f"at most {MOST_NOTE:,} letters, without control characters", todo="write a shorter one, in plain text",
        )  # fmt: skip
    return Notes(kept, text)


def _printable(text: str) -> bool:
    return plain(text) == text and "\t" not in text and "\n" not in text


def _damaged(file: Path, got: str) -> RunError:
    return RunError(
        "a damaged file", where=str(file), got=got, allowed="tags = [texts], note = a text", outputs=UNTOUCHED,
        todo="correct it, or remove it; the run needs it for nothing",
    )  # fmt: skip
