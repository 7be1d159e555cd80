"""Pages that the site makes of files: of the notebooks, and of every file outside of docs/ that a page links.

Where the pages are read as files, a link that leaves docs/ leads to a file. The site has a page of that file under files/, and
the link leads there. A line that is nothing but a link to a .py or .toml file is followed by the text of the file, folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

import jupytext
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
ALONE = re.compile(r"^\[[^\]]*\]\(([^)\s]+)\.(py|toml)\)$", re.M)
NOTEBOOKS = "docs/tutorials/notebooks/"
END = "\n## On your table"  # of what the home page takes over from README.md


def on_config(config: Any) -> Any:
    """Put pages in the place of a pattern in the nav."""
    for section in config.nav:
        for title, entries in section.items():
            if isinstance(entries, list):
                section[title] = [page for entry in entries for page in matching(entry)]
    return config


def matching(entry: Any) -> list[Any]:
    """The pages of an entry of the nav."""
    if isinstance(entry, str) and "*" in entry:
        return sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").glob(entry))
    return [entry]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    for path in sorted((ROOT / NOTEBOOKS).glob("*.py")):
        files.append(File.generated(config, f"tutorials/notebooks/{path.stem}.md", content=notebook(path)))
    seen: set[str] = set()
    waiting = ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
    while waiting:
        for path in linked(waiting.pop()):
            if not path.startswith("docs/") and path not in seen:
                seen.add(path)
                waiting += [path] * path.endswith(".md")
                made = File.generated(config, address(path), content=text(path), inclusion=InclusionLevel.NOT_IN_NAV)
                files.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the links of a page to pages of the site."""
    uri = page.file.src_uri
    path = uri.removeprefix("files/") if uri.startswith("files/") else f"docs/{uri}"
    markdown = led(ALONE.sub(lambda found: unfolded(path, found), markdown), path, uri)
    if uri == "README.md":
        page.meta["hide"] = ["navigation"]
        markdown = led(text("README.md").partition(END)[0], "README.md", uri) + "\n## Where to go" + markdown.partition("\n")[2]
    return markdown


def led(markdown: str, path: str, uri: str) -> str:
    """The text of the file `path`, its links as they must be on the page `uri`."""

    def lead(found: re.Match[str]) -> str:
        target = normpath(f"{dirname(path)}/{found[2]}".lstrip("/"))
        known = (ROOT / target).is_file() and not target.startswith("..")
        return found[1] + (relpath(address(target), dirname(uri) or ".") if known else found[2]) + found[3]

    return LINK.sub(lead, markdown)


def address(path: str) -> str:
    """Return the path of the page by which the site shows a file of the repository."""
    if path.startswith(NOTEBOOKS) and path.endswith(".py"):
        return path.removeprefix("docs/").removesuffix(".py") + ".md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return "files/" + path + ("" if path.endswith(".md") else ".md")


def linked(path: str) -> Iterator[str]:
    """The files of the repository that a page links."""
    for _, link, _ in LINK.findall(text(path)):
        target = normpath(f"{dirname(path)}/{link}".lstrip("/"))
        if not target.startswith("..") and (ROOT / target).is_file():
            yield target


def text(path: str) -> str:
    """A file as text of a page."""
    content = (ROOT / path).read_text(encoding="utf-8")
    return content if path.endswith(".md") else f"# {path}\n\n{fenced(content, path.rpartition('.')[2])}"


def fenced(content: str, language: str) -> str:
    """A block of code."""
    return f"```{language.replace('py', 'python') if language in ('py', 'toml') else 'text'}\n{content.rstrip()}\n```\n"


def unfolded(path: str, found: re.Match[str]) -> str:
    """The link that stands alone, and the text of its file."""
    file = normpath(f"{dirname(path)}/{found[1]}.{found[2]}")
    block = fenced((ROOT / file).read_text(encoding="utf-8"), found[2])
    return f'{found[0]}\n\n??? quote "The file"\n\n' + re.sub(r"^(?=.)", "    ", block, flags=re.M)


def notebook(path: Path) -> str:
    """A notebook as text of a page, with the pictures that its cells save."""
    parts = []
    for cell in jupytext.read(path).cells:
        parts.append(cell.source if cell.cell_type == "markdown" else fenced(cell.source, "py"))
        for name in re.findall(r'savefig\("(\w+\.png)"', cell.source):
            parts.append(f"![what it draws](../../images/notebooks/{path.stem}-{name})")
    return "\n\n".join(parts)
