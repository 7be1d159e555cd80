"""A run that is killed at any moment, and resumed, ends with the numbers of one that never was, bit for bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.run import condition, status
from hil.run.sameness import differences

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


class Zygote:
    """Runs commands, each in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.log = log = folder / "log"
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
        self, *arguments: object, kill_after_s: float | None = None, file_bytes: int | None = None, log: Path | None = None
    ) -> int:
        """The exit code; -9 if it was killed. file_bytes: how long a file of it may get. log: for its output."""
        assert self._process.stdin is not None
        asked = {
            "arguments": [str(a) for a in arguments], "kill_after_s": kill_after_s, "file_bytes": file_bytes,
            "log": str(log or self.log),
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


def survive(hil: Zygote, experiment: Path, run: Path, moments: list[float]) -> None:
    """Train in `run`, killed so many seconds after each start; then to the end."""
    for after in [*moments, None]:
        begun = (run / "config.toml").exists()
        if begun and finished(run):
            return
        code = hil("resume", run, kill_after_s=after) if begun else hil("train", experiment, "--run", run, kill_after_s=after)
        assert code in ((0, -9) if after is not None else (0,)), hil.log.read_text()[-3000:]
        if (run / "config.toml").exists():
            found = status.read(run)
            assert found.state == "done" or found.state.startswith("dead"), found
            assert list(status.lines(found))


def finished(run: Path) -> bool:
    found = condition.inspect(run)
    assert not found.damages
    return found.status == "done" and not found.lacking


def lasting(hil: Zygote, experiment: Path, run: Path) -> float:
    """Seconds that the whole run takes."""
    begin = time.monotonic()
    assert hil("train", experiment, "--run", run) == 0, hil.log.read_text()[-3000:]
    return time.monotonic() - begin


@pytest.mark.timeout(300)
def test_killed_at_any_moment_on_a_twin(hil: Zygote, tmp_path: Path) -> None:
    lasts = lasting(hil, written(tmp_path, TWIN), tmp_path / "whole")
    often, draw = written(tmp_path, TWIN + OFTEN, "often.toml"), random.Random()
    for trial in range(10):
        moments = [draw.uniform(0.0, 1.3 * lasts)] + [draw.uniform(0.0, lasts) for _ in range(trial % 5 == 0)]
        survive(hil, often, tmp_path / f"r{trial}", moments)
        assert list(differences(tmp_path / "whole", tmp_path / f"r{trial}")) == [], f"killed after {moments} s"


@pytest.mark.timeout(300)
def test_killed_on_the_virtual_bench(hil: Zygote, tmp_path: Path) -> None:
    """The plant of the bench drifts and is noisy; its state is in the checkpoint."""
    bench = (ROOT / "benches" / "mzm_awg_scope.toml").read_text()
    written(tmp_path, bench, "b.toml")
    text = TWIN.replace('use = "mach_zehnder"\nv_pi = "3.5 V"\ndrift_rad_per_rts = 0.1', 'bench = "b.toml"')
    lasts = lasting(hil, written(tmp_path, text), tmp_path / "whole")
    often = written(tmp_path, text + OFTEN, "often.toml")
    moments = [random.uniform(0.3, 0.7) * lasts, random.uniform(0.3, 1.0) * lasts]  # of the first start, of the first resume
    survive(hil, often, tmp_path / "r", moments)
    assert list(differences(tmp_path / "whole", tmp_path / "r")) == [], f"killed after {moments} of {lasts} s"


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
    kept = condition.inspect(tmp_path / "r")
    assert not kept.damages
    assert not kept.journal.damaged
    assert not kept.journal.torn
    assert hil("resume", tmp_path / "r") == 0, hil.log.read_text()[-3000:]
    assert list(differences(tmp_path / "whole", tmp_path / "r")) == []
