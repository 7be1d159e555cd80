"""What is built for others: the wheel has every file of the packages and the demo, the sdist all that the tests need.

That a wheel installs and runs where there is no compiler and no repository, `python benchmarks/install.py` shows.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from pages import ROOT

import hil
from hil.config.experiment import read_experiment
from hil.demo import experiment
from hil.own_packages import NAMES

PACKAGES = ("hil", *NAMES)
DEMO = ("experiments/demo.toml", "benches/mzm_awg_scope.toml")
LEFT_BEHIND = (".venv", ".git", ".*_cache", ".hypothesis", "*.egg-info", "runs", "compare", "build", "dist", "site")
STRAY = ("runs/r/summary.json", "site/index.html", ".venv/x.py", "hil/__pycache__/x.pyc", "tests/__pycache__/x.pyc")
UNSHIPPED = re.compile(r"\.git$|\.ci/|shared/")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, without what work leaves behind."""
    left, compiled = shutil.ignore_patterns(*LEFT_BEHIND), shutil.ignore_patterns("__pycache__")

    def ignored(folder: str, names: list[str]) -> set[str]:
        return compiled(folder, names) | (left(folder, names) if folder == str(ROOT) else set())

    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("d") / "hil", ignore=ignored))


@pytest.fixture(scope="module")
def built(source: Path) -> tuple[set[str], Path, Path]:
    """The files of the copy; the sdist and the wheel that `make dist` makes of it, where work has left files behind."""
    there = files(source)
    for stray in STRAY:
        (source / stray).parent.mkdir(parents=True, exist_ok=True)
        (source / stray).write_text("stray", encoding="utf-8")
    out = source.parent / "dist"
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run(
        command, cwd=source, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name = f"hil-{hil.__version__}"
    return there, out / f"{name}.tar.gz", out / f"{name}-py3-none-any.whl"


def test_the_wheel_holds_every_file_of_the_packages_and_the_demo(built: tuple[set[str], Path, Path]) -> None:
    there, _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        meta = {Path(name).name: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
        demo = {name: archive.read(f"hil/demo/{name}") for name in DEMO}
    ours = {name for name in there if name.split("/")[0] in PACKAGES}
    assert {"hil/build/node.py", "hil/data/digits.csv.gz", "hil/commands/skeletons/my_rig.toml", "hil/py.typed"} < ours
    assert names == ours | {f"hil/demo/{name}" for name in DEMO}
    assert demo == {name: (ROOT / name).read_bytes() for name in DEMO}
    assert meta["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"hil = hil.__main__:main" in meta["entry_points.txt"]
    assert meta["top_level.txt"].split() == sorted(name.encode() for name in PACKAGES)
    told = email.message_from_bytes(meta["METADATA"])
    assert (told["Version"], told["License-Expression"]) == (hil.__version__, "MIT")


def test_the_sdist_holds_all_that_the_tests_need(built: tuple[set[str], Path, Path]) -> None:
    there, sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    assert {"LICENSE", "Makefile", "constraints.txt", "tests/test_distribution.py", "CHANGELOG.md"} <= names
    assert names >= {name for name in there if not UNSHIPPED.match(name)}
    made = {name for name in names - there if "egg-info/" not in name}
    assert made <= {"PKG-INFO", "setup.cfg"}


def test_the_demo_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the repository; and in a wheel, where the two files lie as deep below hil/demo/."""
    monkeypatch.chdir(tmp_path)
    assert experiment() == ROOT / "experiments" / "demo.toml"
    bench = read_experiment(experiment()).bench
    assert bench is not None
    assert bench.file.resolve() == ROOT / "benches" / "mzm_awg_scope.toml"


def test_the_version_is_the_same_everywhere() -> None:
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dynamic"]
    assert re.search(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1] == hil.__version__  # type: ignore[index]
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)[1] == hil.__version__  # type: ignore[index]
