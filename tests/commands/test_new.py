"""hil new: each skeleton passes the published checks as it is written, trains, and overwrites nothing."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import DOCS, blocks

from drivers.links.memory import MemoryLink
from hil.cli import run
from hil.commands.new import KINDS, SKELETONS
from hil.config import modules
from hil.config.bench import read_bench
from hil.config.experiment import read_experiment
from hil.conformance import check_device

PAGES = ("own_data", "host_a_device", "add_a_twin", "add_a_learner", "add_a_driver", "add_a_shape")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; its modules are forgotten again."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(modules, "_found", {})
    monkeypatch.setattr(modules, "_folders", [])
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_skeleton_passes_its_own_test_and_its_files_are_read(
    kind: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["new", kind, "dot_probe"]) == 0
    said = capsys.readouterr().out
    files = {path.name for path in here.iterdir()}
    assert all(f"wrote   {name}" in said for name in files)
    assert "next    pytest test_dot_probe.py" in said
    tests = importlib.import_module("test_dot_probe")
    found = [getattr(tests, name) for name in dir(tests) if name.startswith("test_")]
    assert found
    for test in found if kind != "learner" else ():  # that one takes long, and tests/test_docs.py runs it
        test()
    for path in here.glob("*.toml"):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        assert (read_bench(path) if "shape" in table else read_experiment(path)) is not None
    text = "".join(path.read_text(encoding="utf-8") for path in here.iterdir() if path.is_file())
    assert "DotProbe" in text
    left = [word for word in KINDS[kind].words if word not in ("g1", "sim_devices.instruments.template")]  # type: ignore[index]
    assert not [word for word in left if word in text]


@pytest.mark.slow
def test_a_device_from_a_skeleton_is_trained_on(here: Path) -> None:
    assert run(["new", "device", "dot_probe"]) == 0
    assert run(["train", "dot_probe.toml", "--run", "r", "--set", "data.train_examples=96", "--set", "train.epochs=1"]) == 0
    assert json.loads((here / "r" / "summary.json").read_text(encoding="utf-8"))["status"] == "done"


def test_the_shape_of_a_bench_makes_a_device_that_conforms(here: Path) -> None:
    assert run(["new", "bench", "dot_probe"]) == 0
    driver, shape, box = (importlib.import_module(name) for name in ("dot_probe", "dot_probe_shape", "simulated_dot_probe"))

    def made() -> object:
        opened = driver.DotProbe(MemoryLink(box.DotProbe()), low_v=-3.0, high_v=3.0)
        opened.output(True)
        return shape.Levels(opened, 10, "twin")

    check_device(made)  # type: ignore[arg-type]


def test_nothing_is_overwritten_and_nothing_is_written_beside_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "test_mine.py").write_text("mine", encoding="utf-8")
    assert run(["new", "device", "mine"]) == 2
    assert "test_mine.py" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["test_mine.py"]
    assert (here / "test_mine.py").read_text(encoding="utf-8") == "mine"
    (here / "yours.toml").symlink_to(here / "nowhere")
    assert run(["new", "twin", "yours"]) == 2
    assert not (here / "nowhere").exists()


NO_NAMES = (
    "9lives",
    "my-rig",
    "a.b",
    "../x",
    "",
    "_",
    "class",
    "none",
    "true",
    "müller",
    "torch",
    "json",
    "__main__",
    "x" * 70,
)


@pytest.mark.parametrize(("kind", "name"), [*(("twin", name) for name in NO_NAMES), ("device", "tensor"), ("bench", "levels")])
def test_a_name_that_cannot_be_one_is_refused(kind: str, name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new", kind, name]) == 2
    assert "Next:" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_the_how_tos_show_the_skeletons() -> None:
    """A file is kept once: what a page explains is what is written."""
    shown = {block.file: block.text for page in PAGES for block in blocks(DOCS / "how-to" / f"{page}.md") if block.file}
    kept = {path.name: path.read_text(encoding="utf-8") for path in SKELETONS.iterdir() if path.is_file()}
    both = set(shown) & set(kept)
    assert both >= {"my_rig.py", "diode.py", "random_feedback.py", "level_shape.py", "g1.toml", "test_acme_g1.py"}
    assert {name: shown[name] for name in both} == {name: kept[name] for name in both}
    used = {path.name for skeleton in KINDS.values() for path in skeleton.parts.values() if path.parent == SKELETONS}
    assert used == set(kept)
