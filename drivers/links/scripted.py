"""A wire that plays the box's side of a transcript, and checks that the driver says what it said when it was recorded.

    link = ScriptedLink.from_transcript(path)        for an instrument: a Link
    link = ScriptedFrames.from_transcript(path)      for a board: a FrameLink
    … drive the driver as it was driven then …
    link.done()                                      nothing is left to be said

Messages are compared byte by byte, longer ones than were kept whole by length and CRC-32, in their order. Recorded errors are
raised again. A reply that was not kept whole cannot be played. Format: transcript.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from drivers.links.link import Trusted
from drivers.links.transcript import Piece, described
from hil import errors
from hil.errors import BadBlock, ContractError, DataError, LinkError
from hil.files import loads, read_text

SHOWN = 120
TOLD = ("text", "hex", "head", "crc32", "of", "error")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a transcript.

    Args:
        number: in its file, from 1.
    """

    number: int
    table: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Kind of exchange: "write", "text", "block", "exact", "drain" and so on."""
        return str(self.table["kind"])

    def __str__(self) -> str:
        told = " ".join(f"{key} {self.table[key]!r}" for key in TOLD if key in self.table)
        size = f" of {self.table['bytes']} bytes" if "bytes" in self.table else ""
        return f"{self.kind}{size}{': ' if told else ''}{_short(told)}"


def read_transcript(path: Path) -> list[Line]:
    """Read the exchanges of a transcript, without the lines that give the date.

    Raises:
        DataError: not a transcript, or one that is not whole.
    """
    found = []
    try:
        for number, text in enumerate(read_text(path, error=DataError).splitlines(), 1):
            table = json.loads(text)
            if "format" in table:
                continue
            if table["kind"] == "full":
                raise ValueError(f"line {number}: {table['what']}")
            found.append(Line(number, table))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            "not a whole transcript", where=str(path), got=str(error) or repr(error),
            allowed="JSON lines of drivers/links/transcript.py", outputs="untouched; nothing was opened",
            todo="record it again: hil train --wire, or drivers.links.transcript.Transcribed",
        ) from error  # fmt: skip
    return found


def read_facts(path: Path) -> Mapping[str, Any]:
    """Read the first line of a transcript: name, and where it is known driver and settings.

    Raises:
        DataError: not a transcript.
    """
    line = read_text(path, error=DataError).partition("\n")[0]
    found = loads(line, str(path), DataError)
    if isinstance(found, dict) and "format" in found:
        return found
    raise DataError("not a transcript", where=str(path), got=line[:80], allowed='a first line with "format"')


class _Script(Trusted):
    """The box's side."""

    def __init__(self, lines: Sequence[Line], where: str) -> None:
        super().__init__(where)
        self._lines, self._at = list(lines), 0
        self._differs: ContractError | None = None

    @classmethod
    def from_transcript(cls, path: Path) -> Self:
        """Raises: DataError: see read_transcript."""
        return cls(read_transcript(path), str(path))

    def write(self, *parts: Piece) -> None:
        """Raises: ContractError: another message than was recorded. Or the recorded error."""
        with self._trust.use():
            due = self._due("write", f"write: {_told(parts)}")
            kept = due.table
            now = described(parts, len(b"".join(parts)) if "crc32" not in kept else 0)
            same = all(now.get(key) == kept.get(key) for key in ("bytes", "text", "hex", "crc32"))
            if not same:
                raise self._difference(due, f"write of {now['bytes']} bytes: {_told(parts)}", _first(parts, kept))
            self._fail("write")

    def clear(self) -> None:
        with self._trust.transaction():
            self._trust.lose("cleared")
            self._act("clear")
            self._trust.emptied("cleared")

    def reopen(self) -> None:
        with self._trust.transaction():
            self._act("reopen")
            self._trust.emptied("reopened")

    def close(self) -> None:
        """Close; this may happen more or less often than when the transcript was made."""
        while self._at < len(self._lines) and self._lines[self._at].kind == "close":
            self._at += 1

    def done(self) -> None:
        """Raises: ContractError: something differed, also if it was swallowed, or was never said."""
        if self._differs is not None:
            raise self._differs
        self.close()
        if self._at < len(self._lines):
            raise self._difference(self._lines[self._at], f"nothing more; {len(self._lines) - self._at} lines are left")

    def _reply(self, kind: str, asked: str) -> bytes:
        if self._at < len(self._lines) and self._lines[self._at].kind == "error":
            self._fail(kind)
        due = self._due(kind, asked)
        if "crc32" in due.table:
            raise self._difference(due, asked, "; this reply was not kept whole: record it with a larger full_bytes")
        text = due.table.get("text")
        return bytes.fromhex(due.table["hex"]) if text is None else str(text).encode("ascii")

    def _act(self, kind: str) -> None:
        self._fail(kind)
        self._due(kind, kind)

    def _fail(self, kind: str) -> None:
        """Raise the error that comes next, if one does."""
        if self._at == len(self._lines) or self._lines[self._at].kind != "error":
            return
        line = self._lines[self._at]
        if line.table["of"] != kind:
            return
        self._at += 1
        raised = getattr(errors, str(line.table["error"]), LinkError)
        raise raised(str(line.table["what"]), where=f"{self._name}, line {line.number}", got=str(line.table["got"]))

    def _due(self, kind: str, now: str) -> Line:
        if self._at == len(self._lines):
            raise self._difference(None, now)
        due = self._lines[self._at]
        if due.kind != kind:
            raise self._difference(due, now)
        self._at += 1
        return due

    def _difference(self, due: Line | None, now: str, more: str = "") -> ContractError:
        self._differs = self._differs or ContractError(
            "the driver does not say what was recorded",
            where=f"{self._name}, {'after its last line' if due is None else f'line {due.number}'}",
            got=f"{now}{more}", allowed="nothing more" if due is None else str(due), outputs="none; this is a transcript",
            todo="mend the driver, or record the transcript again if it was meant to change",
        )  # fmt: skip
        return self._differs


class ScriptedLink(_Script):
    """A Link that follows a transcript."""

    timeout_s = 1.0

    def read_text(self) -> str:
        """Give the transcript's next reply, which must be a text."""
        with self._trust.use():
            return self._reply("text", "a text read").decode("ascii")

    def read_message(self) -> bytes:
        """Give the transcript's next reply, which must be a text, of any bytes."""
        with self._trust.use():
            return self._reply("text", "a text read")

    def read_block(self, item_bytes: int, limit_bytes: int) -> memoryview:
        """Give the transcript's next reply, which must be a block.

        Raises:
            BadBlock: larger than `limit_bytes`, or not whole items of `item_bytes`.
        """
        with self._trust.use():
            payload = self._reply("block", "a block read")
            if len(payload) > limit_bytes or len(payload) % item_bytes:
                raise BadBlock(
                    "a block of the wrong size", where=self._name, got=f"{len(payload)} bytes",
                    allowed=f"at most {limit_bytes}, in items of {item_bytes}",
                )  # fmt: skip
            return memoryview(bytearray(payload))


class ScriptedFrames(_Script):
    """A FrameLink that follows a transcript."""

    def read_exact(self, count: int) -> bytes:
        """Give the transcript's next reply, which must be `count` bytes."""
        with self._trust.use():
            asked = f"a read of {count} bytes"
            due = self._lines[self._at] if self._at < len(self._lines) else None
            data = self._reply("exact", asked)
            if len(data) != count:
                raise self._difference(due, asked)
            return data

    def drain(self) -> bytes:
        """Give what the transcript says was drained from the line."""
        with self._trust.transaction():
            return self._reply("drain", "a drain")


def _told(parts: Sequence[Piece]) -> str:
    now = described(parts, SHOWN)
    return _short(" ".join(f"{key} {now[key]!r}" for key in TOLD if key in now))


def _first(parts: Sequence[Piece], kept: Mapping[str, Any]) -> str:
    """Say where two messages first differ, if both are there."""
    if "crc32" in kept:
        return ""
    then = bytes.fromhex(kept["hex"]) if "hex" in kept else str(kept["text"]).encode("ascii")
    now = b"".join(parts)
    place = next((n for n, (a, b) in enumerate(zip(then, now)) if a != b), min(len(then), len(now)))
    return f"; they part at byte {place}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN + 40 else f"{text[: SHOWN + 37]}..."
