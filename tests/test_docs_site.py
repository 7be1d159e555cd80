"""The site of the documentation: its nav, what its pages list, and that it builds and needs no other computer."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import ahead
import pytest
import yaml
from pages import DOCS, ROOT

NOTEBOOKS = DOCS / "tutorials" / "notebooks"
LARGEST = 150_000
LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\ssrc=\"?([^\s\">]+)|<link\b[^>]*\shref=\"?([^\s\">]+)")
GIVEN = re.compile(r"\shref=\"?([^\s\">]+)")


def nav(entries: Any) -> Iterator[str]:
    """The pages of a nav, patterns as the pages that they match."""
    for entry in entries.values() if isinstance(entries, dict) else entries:
        if isinstance(entry, str):
            found = sorted(str(path.relative_to(DOCS)) for path in DOCS.glob(entry)) if "*" in entry else [entry]
            yield from found
        else:
            yield from nav(entry)


def test_every_page_is_in_the_nav_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = Counter(nav(config["nav"]))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    there |= {str(path.relative_to(DOCS).with_suffix(".md")) for path in NOTEBOOKS.glob("*.py")}
    outside = {page for page in listed if page.startswith("files/") and (ROOT / page.removeprefix("files/")).is_file()}
    missing, unknown = sorted(there - set(listed)), sorted(set(listed) - there - outside)
    assert not missing, f"not in the nav of mkdocs.yml; write each there once, below its section: {', '.join(missing)}"
    assert not unknown, f"in the nav of mkdocs.yml, and no such page: {', '.join(unknown)}"
    assert set(listed.values()) == {1}, [page for page, times in listed.items() if times > 1]


def documented(page: str) -> list[str]:
    return re.findall(r"^::: (\S+)$", (DOCS / "reference" / page).read_text(encoding="utf-8"), re.M)


def test_the_public_face_is_documented() -> None:
    listed = documented("api.md")
    wanted = []
    for module in ("hil", "hil.nn", "hil.conformance"):
        face = importlib.import_module(module)
        wanted += [f"{module}.{name}" for name in face.__all__ if not inspect.ismodule(getattr(face, name))]
    assert sorted(listed) == sorted(wanted)


def test_protocols_are_documented() -> None:
    listed = set(documented("api.md")) | set(documented("protocols.md"))
    for module in ("hil.device", "hil.twin", "hil.learner", "hil.fitting"):
        for name, one in vars(importlib.import_module(module)).items():
            if inspect.isclass(one) and one.__module__ == module and issubclass(one, Protocol):  # type: ignore[arg-type]
                assert {f"{module}.{name}", f"hil.{name}"} & listed, f"{module}.{name} is neither in api.md nor in protocols.md"


def test_each_example_is_in_the_gallery_with_its_picture() -> None:
    page = (DOCS / "tutorials" / "gallery.md").read_text(encoding="utf-8")
    for script in sorted((ROOT / "examples").glob("*.py")):
        picture = f"../images/gallery/{script.name[:2]}.png"
        link = f"[examples/{script.name}](../../examples/{script.name})"
        assert re.search(rf"!\[[^\]]+\]\({picture}\)\n\n{re.escape(link)}$", page, re.M), script.name


def test_pictures_are_small_and_used() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in [*DOCS.rglob("*.md"), ROOT / "README.md"])
    wanted = {
        f"{path.stem}-{name}"
        for path in NOTEBOOKS.glob("*.py")
        for name in re.findall(r'savefig\("(\w+\.png)"', path.read_text(encoding="utf-8"))
    }
    pictures = [path for path in (DOCS / "images").rglob("*") if path.suffix in (".png", ".svg")]
    assert wanted == {path.name for path in pictures if path.parent.name == "notebooks"}, "python docs/images/draw.py"
    for path in pictures:
        assert path.stat().st_size < LARGEST, path.name
        assert path.parent.name == "notebooks" or f"/{path.name})" in texts, f"{path.name} is on no page"


def test_each_bench_and_each_learner_has_its_place() -> None:
    benches, papers = (
        (DOCS / "reference" / "benches.md").read_text(encoding="utf-8"),
        (DOCS / "explanation" / "papers.md").read_text(encoding="utf-8"),
    )
    for path in sorted((ROOT / "benches").glob("*.toml")):
        assert f"\n[benches/{path.name}](../../benches/{path.name})\n" in benches, path.name
    for path in sorted((ROOT / "hil" / "learners").glob("[a-z]*.py")):
        assert f"`hil/learners/{path.name}`" in papers, path.name


def test_figures_of_the_explanation_are_those_that_were_measured() -> None:
    measured = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    for name in ("papers.md", "twins.md"):
        told = re.findall(r"\b0\.\d{4}\b", (DOCS / "explanation" / name).read_text(encoding="utf-8"))
        assert len(told) > 10
        assert not [figure for figure in told if figure not in measured], f"{name}: not in benchmarks/RESULTS.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; warnings are errors."""
    for package in ("material", "mkdocstrings", "jupytext", "latex2mathml"):
        pytest.importorskip(package, reason="pip install hil[docs]")
    return ahead.site(tmp_path_factory.mktemp("site"))


def test_the_site_loads_nothing_from_elsewhere_and_its_links_lead_somewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = {one or other for one, other in LOADED.findall(text)}
        assert loaded or page.name == "404.html"
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page
        for link in map(unescape, GIVEN.findall(text)):
            path = unquote(link.partition("#")[0])
            if path and page.name != "404.html" and not re.match(r"\w+:", path):
                assert (page.parent / path).exists(), f"{page.relative_to(site)}: {link}"


def test_the_site_shows_files_notebooks_and_formulas(site: Path) -> None:
    gallery = (site / "tutorials" / "gallery.html").read_text(encoding="utf-8")
    assert gallery.count("<details") == len(list((ROOT / "examples").glob("*.py")))
    assert 'href="../files/examples/02_train_on_a_twin.py.html"' in gallery
    assert "<math" in (site / "explanation" / "adfa.html").read_text(encoding="utf-8")
    assert "arithmatex" not in (site / "explanation" / "adfa.html").read_text(encoding="utf-8")
    assert "adfa_and_g-what_g_does.png" in (site / "tutorials" / "notebooks" / "adfa_and_g.html").read_text(encoding="utf-8")
    assert "Two commands" in (site / "index.html").read_text(encoding="utf-8")
