"""The pages of docs/ are executed: what a newcomer pastes must run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(path for path in DOCS.glob("*.md") if "```python" in path.read_text())


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_page_runs(path: Path, tmp_path: Path) -> None:
    page = tmp_path / f"page_{path.stem}.py"  # not to hide a package of ours
    page.write_text("\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.S)))
    runpy.run_path(str(page), run_name=page.stem)


def test_links_of_the_readme_exist() -> None:
    root = DOCS.parent
    for name in re.findall(r"\]\(([^)#:]+)\)", (root / "README.md").read_text()):
        assert (root / name).exists(), name
