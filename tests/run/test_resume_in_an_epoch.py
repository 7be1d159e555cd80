"""Killed in the middle of an epoch, with augmentation, a scheduler and gathered gradients: resumed, it has the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from acts import killed
from killing.same import differences
from small import MODULATOR, toml

from hil import cli
from hil.run import checkpoint

AUGMENT = "[augment]\nshift = 1\nflip = 0.5\ncutout = 2\nnoise = 0.05\n"
TRAIN = "epochs = 3\nbatch = 16\nthreads = 1\ncheckpoint_every = 5\n"
MORE = 'accumulate = 4\nclip_norm = 0.5\nclass_weights = "balanced"\n'
SCHEDULES = {
    "each step": '[schedule]\nuse = "StepLR"\nstep_size = 2\nevery = "step"\n',
    "each epoch": '[schedule]\nuse = "ExponentialLR"\ngamma = 0.7\n',
    "one cycle": '[schedule]\nuse = "OneCycleLR"\nmax_lr = 0.01\ntotal_steps = 6\n',
    "plateau": '[schedule]\nuse = "ReduceLROnPlateau"\npatience = 0\nfactor = 0.5\n',
    "cosine": '[schedule]\nuse = "cosine"\n',
}


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trained once in this process, after which its forks have nothing left to import."""
    folder = tmp_path_factory.mktemp("warm")
    assert cli.run(["train", str(written(folder, "cosine")), "--run", str(folder / "r")]) == 0


def written(folder: Path, schedule: str) -> Path:
    text = toml(device=MODULATOR + "\ndrift_rad_per_rts = 0.1", train=TRAIN + MORE) + SCHEDULES[schedule] + AUGMENT
    (folder / "e.toml").write_text(text, encoding="utf-8")
    return folder / "e.toml"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_killed_in_the_middle_of_an_epoch(tmp_path: Path, schedule: str) -> None:
    experiment, acts = written(tmp_path, schedule), tmp_path / "acts"
    whole, run = tmp_path / "whole", tmp_path / "r"
    killed(acts, None, "train", experiment, "--run", whole)
    for words, wanted in ((("train", experiment, "--run", run), (5, 0, 5)), (("resume", run), (15, 2, 3))):
        commit = {5: 8, 15: 18}[wanted[0]]  # some steps after that checkpoint; a resume begins at step 5 again
        assert killed(acts, ("half of a write journal.jsonl", commit), *words) == -9
        point = checkpoint.load(checkpoint.latest(run / "checkpoints"))
        assert tuple(point.facts[name] for name in ("step", "epoch", "batch")) == wanted
        assert point.facts["moves"]["batches"] == wanted[2] % 4
        assert any(name.startswith("gathered.") for name in point.tensors)
    killed(acts, None, "resume", run)
    assert list(differences(whole, run)) == []
