"""Somebody adds a shape, driver, learner, twin and device outside of the packages, following the how-tos alone, literally."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages import DOCS, ROOT, blocks, written

from hil.cli import run
from hil.config import modules

HOW_TO = DOCS / "how-to"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the five how-tos, and nothing else."""
    folder = tmp_path_factory.mktemp("lab")
    pages = [HOW_TO / f"add_a_{noun}.md" for noun in ("shape", "driver", "learner", "twin", "device")]
    files = written(pages, folder)
    assert {"level_shape.py", "g1.toml", "acme_g1.py", "random_feedback.py", "diode.py", "my_rig.py"} <= set(files)
    return folder


def hil(lab: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As a user types `hil`, in the folder."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-P", "-m", "hil", *arguments], cwd=lab, env=surroundings, capture_output=True, text=True, timeout=110
    )


def summary(lab: Path, folder: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((lab / folder / "summary.json").read_text(encoding="utf-8"))
    return found


def test_own_shape_own_driver_and_own_learner_in_one_run(lab: Path) -> None:
    ended = hil(lab, "train", "g1_digits.toml", "--set", "learner.use=random_feedback:RandomFeedback", "--run", "all")
    assert ended.returncode == 0, ended.stderr
    assert "Acme G1   TCPIP::127.0.0.1" in ended.stdout
    found = summary(lab, "all")
    assert found["status"] == "done"
    assert found["provenance"] == "twin"
    assert found["test_accuracy"] > 0.4  # type: ignore[operator]
    end = json.loads(
        (lab / "all" / "bench.log").read_text(encoding="utf-8").splitlines()[-1]
    )  # the simulated instrument's own word
    assert end["outputs"]["g1"]["1"]["on"] is False


@pytest.fixture
def typed(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """A command in the folder, in this process as in one of its own; its exit code."""
    known = set(sys.modules)
    monkeypatch.chdir(lab)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(modules, "_found", {})
    monkeypatch.setattr(modules, "_folders", [])
    yield lambda *words: run(words)
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(lab)):
            del sys.modules[name]  # other tests have modules of these names


def test_digits_are_read_through_a_display_and_a_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., int]
) -> None:
    written([HOW_TO / "use_a_display_and_a_camera.md"], tmp_path)
    monkeypatch.chdir(tmp_path)
    assert typed("train", "scene_digits.toml", "--run", "r") == 0
    found = summary(tmp_path, "r")
    assert (found["status"], found["provenance"]) == ("done", "twin")
    assert found["test_accuracy"] > 0.5  # type: ignore[operator]


@pytest.mark.parametrize("page", ["add_a_learner.md", "add_a_twin.md", "add_a_device.md"])
def test_the_experiment_of_a_page_runs_as_it_stands(lab: Path, page: str, typed: Callable[..., int]) -> None:
    (experiment,) = (block.file for block in blocks(HOW_TO / page) if block.file.endswith(".toml"))
    folder = page.removesuffix(".md")
    assert typed("train", experiment, "--run", folder) == 0
    assert summary(lab, folder)["status"] == "done"


@pytest.mark.parametrize(("experiment", "accuracy"), [("irises.toml", 0.3), ("recordings.toml", 0.8)])
def test_own_data_are_trained_on_as_the_page_says(
    experiment: str, accuracy: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., int]
) -> None:
    assert set(written([HOW_TO / "own_data.md"], tmp_path)) >= {"irises.csv", "recordings.py", "recordings.toml"}
    monkeypatch.chdir(tmp_path)
    assert typed("train", experiment, "--run", "r") == 0
    found = summary(tmp_path, "r")
    assert found["status"] == "done"
    assert found["test_accuracy"] >= accuracy  # type: ignore[operator]
    sys.modules.pop("recordings", None)


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("g1.toml", 'high = "3 V"', 'high = "30 V"', r"limits may be narrowed, never widened"),
        ("g1.toml", 'source = "g1"', 'source = "g2"', r"bad_g1\.toml: \[node\] source: no such instrument"),
        ("g1.toml", "level_shape:Shape", "level_shapes:Shape", r'cannot import "level_shapes:Shape"'),
    ],
)
def test_a_slip_in_the_bench_file_is_explained(
    lab: Path, file: str, before: str, after: str, said: str, typed: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (lab / file).read_text(encoding="utf-8")
    assert before in text
    (lab / f"bad_{file}").write_text(text.replace(before, after), encoding="utf-8")
    code = typed("train", "g1_digits.toml", "--set", f"device.bench=bad_{file}", "--run", "bad")
    told = capsys.readouterr().err
    assert code == 2, told
    assert re.search(said, told)
    assert "Traceback" not in told


def test_the_recipe_of_numbers_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written([HOW_TO / "regression.md"], tmp_path)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("sine.py")
    found = dict(re.findall(r"^(\w+): test NRMSE (0\.\d+), [\d,]+ node evaluations$", capsys.readouterr().out, re.M))
    assert set(found) == {"ridge", "pat"}
    assert all(float(value) < 0.2 for value in found.values())
