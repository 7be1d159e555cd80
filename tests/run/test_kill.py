"""A run that is killed at any state of its files, and resumed, ends with the numbers of one that never was, bit for bit."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from acts import PROGRAM, Kill, counted, killed, survive
from killing.same import differences
from small import MODULATOR, Command, toml

from hil.cli import run
from hil.run import resume, status

ROOT = Path(__file__).resolve().parents[2]
DRIFTS = MODULATOR + "\ndrift_rad_per_rts = 0.1"
TWIN = toml(device=DRIFTS, train="epochs = 3\nbatch = 16\nthreads = 1")
PROGRAMMED = toml(  # ten levels or so for each of 18 steps, in steps of 250 mV
    device='use = "dopant_network"\nspecimen = 1\nmax_step_v = 0.25\ndrift_v_per_rt = 1e-4', learner="spsa", widths="64, 2, 10",
    encode='gain = "400 mV"\noffset = "-300 mV"\noverflow = "clip"', train="epochs = 3\nbatch = 16\nthreads = 1",
).replace("10]", "10]\nanswers = 1").replace("[train]", '[params]\nstart = "uniform"\nlr = 0.05\n[train]')  # fmt: skip
OFTEN = "checkpoint_every_s = 0.03\n"
SAME = ("fsync", "fdatasync", "unlink .")  # leaves to a process that dies what was there: unlink of a part that is not there
FIXED = "checkpoint_every = 4\n"  # by steps, so that every run does the same to its files


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trained once in this process, after which its forks have nothing left to import."""
    folder = tmp_path_factory.mktemp("warm")
    assert run(["train", str(written(folder, TWIN)), "--run", str(folder / "r")]) == 0


def written(folder: Path, text: str, name: str = "e.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def finished(run: Path) -> bool:
    if not (run / "config.toml").exists():
        return False
    found = resume.inspect(run)
    assert not found.damages
    return found.status == "done" and not found.lacking


def killed_and_resumed(folder: Path, experiment: Path, kills: Callable[[Counter[str]], Iterable[Kill]]) -> None:
    """kills: of what the whole run does to its files."""
    acts = folder / "acts"
    whole = counted(acts, "train", experiment, "--run", folder / "whole")

    def start(run: Path, kill_at: Kill | None) -> int:
        """`hil train`, or `hil resume` once there is something to resume."""
        begun = (run / "config.toml").exists()
        code = killed(acts, kill_at, *(("resume", run) if begun else ("train", experiment, "--run", run)))
        if (run / "config.toml").exists():
            found = status.read(run)
            assert found.state == "done" or found.state.startswith("dead"), found
            assert list(status.lines(found))
        return code

    survive(start, finished, lambda run: list(differences(folder / "whole", run)) == [], folder, kills(whole))


@pytest.mark.timeout(600)  # dozens of processes, on a busy machine
def test_killed_at_every_kind_of_act_on_a_twin_that_is_programmed(tmp_path: Path) -> None:
    """In turns at the first and at the fourth of a kind, where there are so many."""

    def kills(found: Counter[str]) -> Iterable[Kill]:
        assert {"fsync metrics.jsonl", "half of a write journal.jsonl", "replace .step-N.json.N.part", PROGRAM} <= found.keys()
        kinds = [kind for kind in found if not kind.startswith(SAME)]
        return [(kind, 3 if number % 2 and found[kind] > 3 else 0) for number, kind in enumerate(kinds)]

    killed_and_resumed(tmp_path, written(tmp_path, PROGRAMMED + FIXED), kills)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_act_on_a_twin_that_is_programmed(tmp_path: Path) -> None:
    """Not at each kind, but at each of each kind that leaves other files behind; of the levels at every tenth.

    Not where the summary is written: a run that is resumed there drives nothing any more, and so its summary lacks the warning
    that the drives use little of the range of the node. All else is the same.
    """

    def kills(found: Counter[str]) -> Iterable[Kill]:
        kinds = [kind for kind in found if not kind.startswith(SAME) and "summary.json" not in kind]
        return [(kind, n) for kind in kinds for n in range(0, found[kind], 10 if kind == PROGRAM else 1)]

    killed_and_resumed(tmp_path, written(tmp_path, PROGRAMMED + FIXED), kills)


@pytest.mark.timeout(300)
def test_killed_on_the_virtual_bench(tmp_path: Path) -> None:
    """The plant of the bench drifts and is noisy; its state is in the checkpoint."""
    written(tmp_path, (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8"), "b.toml")
    experiment = written(tmp_path, TWIN.replace(DRIFTS, 'bench = "b.toml"') + FIXED)
    kills = [("half of a write journal.jsonl", 9), ("replace .step-N.json.N.part", 1)]
    killed_and_resumed(tmp_path, experiment, lambda _: kills)


# ---- a full disk ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "batch", "where"),
    [(40, 16, ".safetensors: cannot write"), (8, 1, "journal.jsonl: cannot write")],  # what is the first not to fit
)
def test_no_room_for_more(tmp_path: Path, hidden: int, batch: int, where: str) -> None:
    """A write beyond the limit fails as on a full disk, half way in, for root as for anyone; then there is room again."""
    text = TWIN.replace("batch = 16", f"batch = {batch}").replace("8, 10]", f"{hidden}, 10]")
    done = Command("train", written(tmp_path, text), "--run", tmp_path / "whole")
    assert done.ended() == 0, done.said()
    often, run = written(tmp_path, text + OFTEN, "often.toml"), tmp_path / "r"
    limits = (25_000, 25_000)
    full = Command("train", often, "--run", run, first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    assert full.ended() == 3, full.said()
    for part in (where, "File too large", "Outputs: none; the node is a twin", "remove the cause, then: hil resume"):
        assert part in full.said()
    assert "Traceback" not in full.said()
    found = status.read(run)
    assert "hil resume" in found.again
    kept = resume.inspect(run)
    assert not kept.damages
    assert not kept.journal.damaged
    assert not kept.journal.torn
    again = Command("resume", run)
    assert again.ended() == 0, again.said()
    assert list(differences(tmp_path / "whole", run)) == []
