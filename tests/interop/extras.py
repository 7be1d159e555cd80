"""Packages of other projects, which the extras of pyproject.toml bring: a test without its package says which extra that is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

PROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMED_OTHERWISE = {"vxi11": "pythonvxi11", "tektronixtbs2000bcontrol": "oscilloscopescriptsxzf8971"}  # module -> package


def needs(module: str) -> Any:
    """Import a module, or skip the test. Fails if no extra brings its package."""
    top = plain(module.partition(".")[0])
    package = NAMED_OTHERWISE.get(top, top)
    brings = [extra for extra, needed in PROJECT["optional-dependencies"].items() if package in map(plain, needed)]
    assert brings, f"no extra of pyproject.toml brings {package}"
    return pytest.importorskip(module, reason=f"{module} is not installed: pip install hil[{brings[0]}]")


def plain(requirement: str) -> str:
    """The name of a package alone, as all spellings of it have it."""
    return re.sub(r"[-_.]", "", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()
