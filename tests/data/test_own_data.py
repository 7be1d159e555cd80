"""Data of one's own: the same run from a table, arrays, images, a torch Dataset and a function; and what is refused, by row."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hil.cli import run
from hil.commands.terminal import Terminal
from hil.commands.train import launch, resume
from hil.config import modules
from hil.config.experiment import read_experiment
from hil.config.read import dump
from hil.data.dataset import load
from hil.files import write_atomic
from hil.run.checkpoint import latest
from hil.run.folder import RunFolder
from hil.training.loop import TrainingStep
from hil.training.session import Point

COUNT, SIDE, NAMES = 60, 4, ("cup", "dish", "jug")
MODULE = """
import numpy as np
import torch

def arrays(scale: float = 1.0):
    with np.load({file!r}) as held:
        return held["x"] * np.float32(scale), held["y"]

class Pairs(torch.utils.data.Dataset):
    def __init__(self, most: int = 1000):
        self.x, self.y = arrays()
    def __len__(self):
        return len(self.x)
    def __getitem__(self, number):
        return torch.from_numpy(self.x[number]), str(self.y[number])

def generated():
    yield from zip(*arrays())
"""
EXPERIMENT = """
[data]
use = {use!r}
{more}
[network]
widths = [16, 12, 3]
[device]
use = "mach_zehnder"
[encode]
overflow = "clip"
[learner]
use = "adfa"
[optimizer]
lr = 1e-2
[train]
epochs = 2
batch = 10
"""


def pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Grey images (COUNT, SIDE, SIDE) of bytes, class by class, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(NAMES)), COUNT // len(NAMES))
    return (rng.integers(0, 128, (COUNT, SIDE, SIDE)) + 60 * y[:, None, None]).astype(np.uint8), y


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the same examples in every form, and a working directory beside it."""
    images, y = pictures()
    x, names = images.astype(np.float32)[:, None] / np.float32(255), np.array(NAMES)[y]
    np.savez(tmp_path / "x.npz", x=x, y=names)
    np.savez_compressed(tmp_path / "packed.npz", x=x, y=names)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", names)
    header = ",".join([*(f"p{i}" for i in range(SIDE * SIDE)), "what"])
    lines = [",".join([*map(repr, map(float, row.reshape(-1))), name]) for row, name in zip(x, names, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "pictures" / name / f"{number:03}.png")
    (tmp_path / "shelf.py").write_text(MODULE.format(file=str(tmp_path / "x.npz")), encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(modules, "_found", {})
    monkeypatch.setattr(modules, "_folders", [])
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("shelf", None)


class Flowing(torch.utils.data.IterableDataset[Any]):
    """Examples one after the other; it has a length, and no index."""

    def __init__(self, pairs: list[Any]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.pairs)


USES = ("table.csv", "x.npz", "pictures", "shelf:Pairs", "shelf:arrays")


def written(folder: Path, use: str, more: str = "") -> Path:
    file = folder / "experiment.toml"
    beside = 'target = "y.npy"' if use == "x.npy" else ""
    file.write_text(EXPERIMENT.format(use=use, more=f"{beside}\n{more}"), encoding="utf-8")
    return file


def trained(file: Path, folder: Path, show: Callable[[Point], None] = lambda point: None) -> None:
    """`hil train`, without its report, which takes longest."""
    experiment, made = read_experiment(file), RunFolder.create(folder)
    made.write_config(dump(experiment))
    write_atomic(folder / modules.ORIGINS, modules.origins({"config.toml": [file]}))
    launch(made, experiment, Terminal(quiet=True), show=show)


def metrics_of(folder: Path) -> list[dict[str, object]]:
    """All that was measured, but for times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("_s")} for line in lines]


def test_all_sources_give_the_same_run_bit_for_bit(here: Path) -> None:
    seen = {}
    for use in USES:
        folder = here / "runs" / use.replace(":", "-")
        trained(written(here, use, "standardise = true"), folder)
        seen[use] = metrics_of(folder), (folder / "checkpoints" / "best.safetensors").read_bytes()
        checksum = next(
            line for line in (folder / "config.toml").read_text(encoding="utf-8").splitlines() if "checksum" in line
        )
        seen[use] += (checksum,)
    assert all(one == seen["table.csv"] for one in seen.values())
    best = [line["accuracy"] for line in seen["x.npz"][0] if line["split"] == "validation"]
    assert len(best) == 2
    assert max(best) > 0.5


@pytest.mark.parametrize("use", USES)
def test_a_run_that_stops_in_the_middle_of_an_epoch_goes_on_bit_for_bit(here: Path, use: str) -> None:
    """With augmentation and a schedule; the second epoch is left after its second step, the newest checkpoint is its first."""

    def stopped(point: Point) -> None:
        if isinstance(point, TrainingStep) and point.step == 7:
            raise KeyboardInterrupt

    more = "shape = [1, 4, 4]\nstandardise = true\n" + ("stream = true" if use in ("x.npz", "pictures") else "")
    file = written(here, use, more)
    text = file.read_text(encoding="utf-8").replace(
        "[train]",
        '[augment]\nshift = 1\nnoise = 0.1\n[schedule]\nuse = "StepLR"\nstep_size = 2\nevery = "step"\n'
        "[train]\ncheckpoint_every = 3",
    )
    file.write_text(text, encoding="utf-8")
    trained(file, here / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(file, here / "parts", stopped)
    folder = RunFolder(here / "parts")
    newest = latest(folder.checkpoints)
    assert json.loads(newest.read_text(encoding="utf-8"))["batch"] == 1
    resume(folder, newest, Terminal(quiet=True))
    both = [(here / name / "checkpoints" / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert both[0] == both[1]
    assert metrics_of(here / "whole") == metrics_of(here / "parts")


def test_other_forms_give_the_same_data_set(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    first = load("table.csv")
    with np.load("x.npz") as held:
        x, y = torch.from_numpy(held["x"]), held["y"].tolist()
    pairs = list(zip(x, y, strict=True))
    others: list[object] = [
        "packed.npz", "shelf:generated", Flowing(pairs), (x, y), {"x": x, "y": y}, pairs, iter(pairs),
        [{"x": one, "y": name} for one, name in pairs],
        [(Image.open(file), file.parent.name) for file in sorted(Path("pictures").glob("*/*.png"))],
    ]  # fmt: skip
    found = [load("x.npy", target="y.npy"), load("shelf:arrays", scale=1.0), *map(load, others)]
    assert {one.checksum for one in found} == {first.checksum}
    for one in found:
        assert torch.equal(one.train.x, first.train.x)
        assert torch.equal(one.test.y, first.test.y)
        assert one.classes == NAMES


def test_a_run_is_resumed_elsewhere_and_refused_if_the_data_changed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(written(here, "table.csv")), "--run", str(here / "r")]) == 0
    (here / "far").mkdir()
    monkeypatch.chdir(here / "far")
    assert run(["resume", str(here / "r"), "--set", "train.epochs=3"]) == 0
    table = here / "table.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("0.", "0.0", 1), encoding="utf-8")
    capsys.readouterr()
    assert run(["resume", str(here / "r"), "--set", "train.epochs=4"]) == 2
    said = capsys.readouterr().err
    assert "other data than the run was begun with" in said
    assert "checksum" in said
    table.unlink()
    assert run(["resume", str(here / "r"), "--set", "train.epochs=4"]) == 2
    assert "table.csv" in capsys.readouterr().err


def test_streamed_and_in_memory_are_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hil.data import streamed

    for use, settings in (("x.npz", {}), ("x.npy", {"target": "y.npy"}), ("pictures", {})):
        for standardise in (False, True):
            whole = load(here / use, standardise=standardise, **settings)
            pieces = load(here / use, standardise=standardise, stream=True, **settings)
            assert isinstance(pieces.train.x, streamed.Streamed)
            assert not isinstance(whole.train.x, streamed.Streamed)
            assert pieces.checksum == whole.checksum
            for split in ("train", "validation", "test"):
                one, other = getattr(whole, split), getattr(pieces, split)
                assert torch.equal(one.y, other.y)
                assert torch.equal(one.x, torch.cat([x for x, _ in other.parts(7)]))
    seen = {}
    for stream in ("true", "false"):
        monkeypatch.setattr(streamed, "READ_BYTES", 4 * 16 * 5 if stream == "true" else 1 << 26)
        file = written(here, "pictures", f"stream = {stream}\nstandardise = true")
        trained(file, here / stream)
        seen[stream] = (here / stream / "checkpoints" / "best.safetensors").read_bytes()
    assert seen["true"] == seen["false"]


def test_numbers_from_a_table_and_from_arrays_give_the_same_run_bit_for_bit(here: Path) -> None:
    x = np.random.default_rng(3).uniform(-0.5, 0.5, (60, 4)).astype(np.float32)
    y = np.stack([np.sin(np.pi * x.sum(1)), x.prod(1)], 1).astype(np.float32)
    np.savez(here / "numbers.npz", x=x, y=y)
    rows = [",".join(map(repr, map(float, [*one, *target]))) for one, target in zip(x, y, strict=True)]
    (here / "numbers.csv").write_text("\n".join(["a,b,c,d,sine,product", *rows]), encoding="utf-8")
    seen = []
    for use, more in (("numbers.npz", ""), ("numbers.csv", 'target = ["sine", "product"]')):
        file = written(here, use, f"standardise = true\n{more}")
        file.write_text(file.read_text(encoding="utf-8").replace("[16, 12, 3]", "[4, 12, 2]"), encoding="utf-8")
        trained(file, here / use.replace(".", "-"))
        seen.append((metrics_of(here / use.replace(".", "-")), load(here / use, **_target(use)).train.y.shape))
    assert seen[0] == seen[1]
    assert seen[0][1] == (48, 2)
    assert all("nrmse" in line for line in seen[0][0] if line["split"] == "validation")


def _target(use: str) -> dict[str, Any]:
    return {"target": ["sine", "product"]} if use.endswith(".csv") else {}
