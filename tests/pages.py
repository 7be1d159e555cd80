"""The pages of the documentation, taken apart: what the tests of docs/ share.

A code block whose first line is ``# file: NAME`` is a file that the reader writes; the others are run as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
FILE = re.compile(r"# file: (\S+)\n")


@dataclass(frozen=True)
class Block:
    """language: as the fence says it, or "". file: its name, where it is one to be written."""

    language: str
    file: str
    text: str


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    found = []
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        named = FILE.match(text)
        found.append(Block(language, named[1] if named else "", text[named.end() :] if named else text))
    return found


def written(pages: list[Path], folder: Path) -> Mapping[str, str]:
    """Write the files of `pages` into `folder`: by name, their text."""
    files = {block.file: block.text for page in pages for block in blocks(page) if block.file}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return files


def spans(page: Path) -> Iterator[str]:
    """What stands between single backticks outside of code blocks, line breaks as spaces."""
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield " ".join(span.split())


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table in `text`, without heads and rules."""
    table = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    rules = [n for n, cells in enumerate(table) if all(re.fullmatch(r":?-+:?", cell) for cell in cells)]
    return [cells for n, cells in enumerate(table) if n not in rules and n + 1 not in rules]


def sections(page: Path, level: int) -> dict[str, str]:
    """Heading of that level -> the text below it."""
    parts = re.split(rf"^{'#' * level} (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {head.strip(): body for head, body in zip(parts[1::2], parts[2::2], strict=True)}
