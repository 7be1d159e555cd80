"""A run that is killed at any state of its files, and resumed, ends with the numbers of one that never was, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from killing.same import differences

from hil.run import resume, status

ROOT = Path(__file__).resolve().parents[2]
TWIN = """
seed = 1
[data]
train_examples = 96
[network]
widths = [64, 8, 10]
[device]
use = "mach_zehnder"
v_pi = "3.5 V"
drift_rad_per_rts = 0.1
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[train]
epochs = 3
batch = 16
threads = 1
"""
OFTEN = "checkpoint_every_s = 0.03\n"
FIXED = "checkpoint_every = 4\n"  # by steps, so that every run does the same to its files


class Zygote:
    """Runs commands, each in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.log = log = folder / "log"
        self.acts = folder / "acts"  # of the last command, a line each
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HIL_TEST_LOG": str(log), "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "zygote.py"), str(written(folder, TWIN)), str(folder / "warm")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __call__(
        self, *arguments: object, kill_at: tuple[str, int] | None = None, file_bytes: int | None = None, log: Path | None = None
    ) -> int:
        """The exit code; -9 if it was killed.

        Args:
            kill_at: the kind of act, and which of them, see Acts in zygote.py. file_bytes: how long a file of it may get.
            log: for its output.
        """
        assert self._process.stdin is not None
        asked = {
            "arguments": [str(a) for a in arguments], "kill_at": kill_at, "acts": str(self.acts),
            "file_bytes": file_bytes, "log": str(log or self.log),
        }  # fmt: skip
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def hil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


def written(folder: Path, text: str, name: str = "e.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def start(hil: Zygote, experiment: Path, run: Path, kill_at: tuple[str, int] | None = None) -> int:
    """`hil train`, or `hil resume` once there is something to resume; the exit code, which is -9 or 0."""
    begun = (run / "config.toml").exists()
    code = hil("resume", run, kill_at=kill_at) if begun else hil("train", experiment, "--run", run, kill_at=kill_at)
    assert code in ((0, -9) if kill_at else (0,)), f"{kill_at}: {hil.log.read_text()[-3000:]}"
    if (run / "config.toml").exists():
        found = status.read(run)
        assert found.state == "done" or found.state.startswith("dead"), found
        assert list(status.lines(found))
    return code


def finished(run: Path) -> bool:
    found = resume.inspect(run)
    assert not found.damages
    return found.status == "done" and not found.lacking


def acts(hil: Zygote, experiment: Path, run: Path) -> Counter[str]:
    """What the whole run does to its files, and how often, in the order of first times."""
    assert hil("train", experiment, "--run", run) == 0, hil.log.read_text()[-3000:]
    return Counter(hil.acts.read_text().splitlines())


def survive(hil: Zygote, experiment: Path, whole: Path, kills: Iterable[tuple[str, int]]) -> None:
    """A run that is killed there, one of each start, then goes to its end, and is the same; a new one when there is no more of
    it to be killed."""
    number, killed = 0, list[tuple[str, int]]()

    def ended(run: Path) -> None:
        assert list(differences(whole, run)) == [], f"killed at {killed}"
        killed.clear()

    run = whole.with_name("r0")
    for at in kills:
        if ((run / "config.toml").exists() and finished(run)) or start(hil, experiment, run, at) == 0:
            ended(run)
            number += 1
            run = whole.with_name(f"r{number}")
            assert start(hil, experiment, run, at) == -9, f"{at} did not come"
        killed.append(at)
    if not finished(run):
        start(hil, experiment, run)
    ended(run)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("nth", [0, 3])
def test_killed_at_every_kind_of_act_on_a_twin(hil: Zygote, tmp_path: Path, nth: int) -> None:
    experiment = written(tmp_path, TWIN + FIXED)
    found = acts(hil, experiment, tmp_path / "whole")
    assert {"fsync metrics.jsonl", "half of a write journal.jsonl", "replace .step-N.json.N.part"} <= found.keys()
    survive(hil, experiment, tmp_path / "whole", [(kind, nth) for kind, times in found.items() if times > nth])


@pytest.mark.timeout(600)
def test_killed_on_the_virtual_bench(hil: Zygote, tmp_path: Path) -> None:
    """The plant of the bench drifts and is noisy; its state is in the checkpoint."""
    bench = (ROOT / "benches" / "mzm_awg_scope.toml").read_text()
    written(tmp_path, bench, "b.toml")
    text = TWIN.replace('use = "mach_zehnder"\nv_pi = "3.5 V"\ndrift_rad_per_rts = 0.1', 'bench = "b.toml"')
    experiment = written(tmp_path, text + FIXED)
    acts(hil, experiment, tmp_path / "whole")
    survive(hil, experiment, tmp_path / "whole", [("half of a write journal.jsonl", 9), ("replace .step-N.json.N.part", 1)])


# ---- a full disk ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("hidden", "batch", "where"),
    [(40, 16, ".safetensors: cannot write"), (8, 1, "journal.jsonl: cannot write")],  # what is the first not to fit
)
def test_no_room_for_more(hil: Zygote, tmp_path: Path, hidden: int, batch: int, where: str) -> None:
    """A write beyond the limit fails as on a full disk, half way in, for root as for anyone; then there is room again."""
    text = TWIN.replace("batch = 16", f"batch = {batch}").replace("8, 10]", f"{hidden}, 10]")
    assert hil("train", written(tmp_path, text), "--run", tmp_path / "whole") == 0
    often, log = written(tmp_path, text + OFTEN, "often.toml"), tmp_path / "log"
    assert hil("train", often, "--run", tmp_path / "r", file_bytes=25_000, log=log) == 3, log.read_text()
    for part in (where, "File too large", "Outputs: none; the node is a twin", "remove the cause, then: hil resume"):
        assert part in log.read_text()
    assert "Traceback" not in log.read_text()
    found = status.read(tmp_path / "r")
    assert "hil resume" in found.again
    kept = resume.inspect(tmp_path / "r")
    assert not kept.damages
    assert not kept.journal.damaged
    assert not kept.journal.torn
    assert hil("resume", tmp_path / "r") == 0, hil.log.read_text()[-3000:]
    assert list(differences(tmp_path / "whole", tmp_path / "r")) == []
