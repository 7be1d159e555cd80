"""Other systems, as far as Linux can show them: hil without what only POSIX has (tests/without_posix) trains and is guarded.

This is no test of Windows or macOS: their kernels, paths and file locks are not here.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small import toml, until

from drivers.lock import left_unsafe
from hil import system
from hil.run.outputs import outputs_of
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import RunningBench, build
from sim_devices.transports.listener import SMALL, receive, send

HERE = Path(__file__).parent
ROOT = HERE.parent
COLUMNS = ("hil", "drivers", "sim_devices", "calibration")
SOURCES = sorted(path for top in COLUMNS for path in (ROOT / top).rglob("*.py"))
ASKED = {"sys.platform", "os.name", "platform.system"}
PATHS = re.compile(r"/(?:proc|tmp|run)(?:/|$)")
AWG = VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600")
BENCH = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8")
WITHIN_S = 60.0
pytestmark = pytest.mark.timeout(400)  # each imports all anew


def without(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which hil has nothing of POSIX."""
    paths = os.pathsep.join(str(path) for path in (HERE / "without_posix", ROOT, HERE))
    return {
        **os.environ, "PYTHONPATH": paths, "HIL_LOCKS": str(tmp_path / "locks"), "HIL_MACHINE_LOCKS": str(tmp_path / "machine"),
    }  # fmt: skip


SEVERAL = "import json, sys; from hil import cli; [print(cli.run(words)) for words in json.loads(sys.argv[1])]"


@pytest.fixture
def start_hil(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def ended(*words: object) -> tuple[int, str]:
        command = [sys.executable, *(str(word) for word in words)]
        found = subprocess.run(command, cwd=tmp_path, env=without(tmp_path), capture_output=True, text=True)
        return found.returncode, found.stdout + found.stderr

    return ended


def test_the_system_is_asked_in_one_place() -> None:
    """hil/system.py: nobody else asks for its name, or names a path that only one has. ONLY_IN in test_layers: the modules."""
    said = []
    for path in SOURCES:
        if path == ROOT / "hil" / "system.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        texts = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # of docstrings
        for node in nodes:
            asked = isinstance(node, ast.Attribute) and f"{getattr(node.value, 'id', '')}.{node.attr}" in ASKED
            named = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts
            if asked or (named and PATHS.match(node.value)):  # type: ignore[union-attr, attr-defined]
                said.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
    assert not said, "\n".join(said)


EXTRAS = {f"hil/loggers/{name}.py" for name in ("mlflow", "tensorboard", "wandb")}  # each begins with its own package


def test_every_module_is_imported(tmp_path: Path) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.parent.name != "skeletons" and path.relative_to(ROOT).as_posix() not in EXTRAS
    ]
    program = "import importlib, sys; assert sys.without_posix; [importlib.import_module(name) for name in sys.argv[1:]]"
    words = [sys.executable, "-c", program, *(name for name in names if not name.endswith("__main__"))]
    found = subprocess.run(words, cwd=tmp_path, env=without(tmp_path), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_what_is_taken_away_is_missed(tmp_path: Path) -> None:
    """The tests below are about the other ways: none of the first ones is left."""
    program = (
        "from hil import system; print(system.INHERITS, system.PIPES_SELECT, system.MODES, system.BOOT_CLOCK, "
        "system.LINKS_REFUSED, system.FORKS, system.Process(1).handle, [stop.name for stop in system.STOPS], "
        "system.apart((3,)))"
    )
    said = subprocess.check_output([sys.executable, "-c", program], env=without(tmp_path), text=True)
    assert said == "False False False None 0 False None ['SIGINT', 'SIGTERM'] {'creationflags': 0}\n"


@pytest.mark.slow
def test_a_run_on_a_twin(tmp_path: Path, start_hil: Callable[..., tuple[int, str]]) -> None:
    (tmp_path / "e.toml").write_text(toml(train="epochs = 1\nbatch = 32\nthreads = 1\nrecord = true"), encoding="utf-8")
    run = tmp_path / "runs" / "small"
    code, said = start_hil("-m", "hil", "train", "e.toml", "--run", run)
    assert code == 0, said
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["status"] == "done"
    steps = (run / "journal.jsonl").read_text(encoding="utf-8").count('"commit"')
    (run / "report.html").unlink()
    words = [["list", "runs"], ["status", run], ["report", run], ["replay", run], ["resume", run, "--set", "train.epochs=2"]]
    code, said = start_hil("-c", SEVERAL, json.dumps(words, default=str))
    assert code == 0, said
    assert [line for line in said.splitlines() if line.isdigit()] == ["0"] * len(words), said
    assert (run / "journal.jsonl").read_text(encoding="utf-8").count('"commit"') == 2 * steps
    assert (run / "report.html").stat().st_size > 1000


RIG = """
import time
import torch
import hil

class Rig:
    def __init__(self, log: str, row_s: float = 0.0) -> None:
        self.spec = hil.Spec(hil.Port("dac", -2, 2, "V", 8), hil.Port("adc", -1, 1, "V", 8))
        self.log, self.row_s = log, row_s

    def note(self, what):
        with open(self.log, "a") as file:
            file.write(what + "\\n")

    def forward(self, x):
        self.note("on")
        time.sleep(self.row_s * len(x))
        return torch.tanh(x)

    def safe(self):
        self.note("safe")

    def close(self):
        self.note("closed")
"""
OWN = """
data.train_examples = 64
network.widths = [64, 8, 10]
device.use = "my_rig:Rig"
device.log = "rig.log"
device.guardian.silence_s = 60
encode.overflow = "clip"
decode = {zero = "0 V", scale = 1.0}
learner.use = "adfa"
train = {epochs = 1, batch = 32, threads = 1}
"""
TWICE = """
import sys
from hil import cli, system
assert not system.FORKS and not system.INHERITS
log = f"device.log={sys.argv[1]}"
print(cli.run(["train", "rig.toml", "--run", "whole", "--set", log]), flush=True)
cli.run(["train", "rig.toml", "--run", "killed", "--set", log, "--set", "device.row=20 ms", "--set", "train.epochs=99"])
"""


def test_a_device_of_ones_own_trains_and_is_made_safe_when_the_trainer_is_killed(tmp_path: Path) -> None:
    """Through two hosts, whose workers are programs of their own; the second one's trainer is killed while it drives."""
    (tmp_path / "my_rig.py").write_text(RIG, encoding="utf-8")
    (tmp_path / "rig.toml").write_text(OWN, encoding="utf-8")
    log, whole, killed = tmp_path / "rig.log", tmp_path / "whole", tmp_path / "killed"
    words = [sys.executable, "-c", TWICE, str(log)]
    with (tmp_path / "said").open("wb") as said:
        trainer = subprocess.Popen(words, cwd=tmp_path, env=without(tmp_path), stdout=said, stderr=said)
    try:
        assert until(lambda: trainer.poll() is not None or (killed / "host.jsonl").exists(), 2 * WITHIN_S)
        assert trainer.poll() is None, (tmp_path / "said").read_text(encoding="utf-8")
        assert json.loads((whole / "summary.json").read_text(encoding="utf-8"))["status"] == "done"
        lines = log.read_text(encoding="utf-8").split()
        assert until(lambda: log.read_text(encoding="utf-8").split()[len(lines) :].count("on") > 2, WITHIN_S)
        assert lines[-2:] == ["safe", "closed"]
    finally:
        trainer.kill()
        trainer.wait()
    assert until(lambda: log.read_text(encoding="utf-8").split()[-2:] == ["safe", "closed"], WITHIN_S)
    assert until(lambda: "trainer gone" in (killed / "host.jsonl").read_text(encoding="utf-8"), WITHIN_S)
    opened, gone = (json.loads(line) for line in (killed / "host.jsonl").read_text(encoding="utf-8").splitlines())
    assert gone["outputs"] == "safe"
    assert until(lambda: not system.alive(opened["pid"]), WITHIN_S)


def test_a_run_folder_has_one_owner(tmp_path: Path, start_hil: Callable[..., tuple[int, str]]) -> None:
    """Also where a lock is for one alone, so that who only looks takes it for a moment."""
    program = (
        "import subprocess, sys; from pathlib import Path; from hil.run import lock; folder = Path(sys.argv[1])\n"
        "with lock.owned(folder):\n"
        "    print(subprocess.run([sys.executable, '-c', sys.argv[2], str(folder)], capture_output=True, text=True).stdout)\n"
        "print(lock.owner(folder).alive)"
    )
    other = (
        "import sys; from pathlib import Path; from hil.run import lock; folder = Path(sys.argv[1])\n"
        "print(lock.owner(folder))\ntry:\n    lock.owned(folder).__enter__()\nexcept Exception as error:\n    print(error)"
    )
    code, said = start_hil("-c", program, tmp_path, other)
    assert code == 0, said
    assert re.match(r"process [1-9]\d* on .*\n.*another process is at work in this run folder", said), said
    assert said.split()[-1] == "False"


@pytest.mark.slow
def test_a_simulated_serial_line_is_refused(start_hil: Callable[..., tuple[int, str]]) -> None:
    code, said = start_hil("-m", "hil", "serve", ROOT / "benches" / "spiking_board.toml")
    assert code == 2
    said = " ".join(said.split())
    assert "a simulated serial line needs a pseudo-terminal, which this system does not have" in said
    assert "Linux or macOS" in said


class Plain:
    """A socket as Windows has it: without sendmsg."""

    def __init__(self, inner: socket.socket) -> None:
        self.sendall = inner.sendall


def test_large_replies_are_sent_without_sendmsg() -> None:
    near, far = socket.socketpair()
    with near, far:
        pieces = (b"head", bytes(SMALL), b"end")
        threading.Thread(target=send, args=(Plain(near), *pieces), daemon=True).start()
        assert receive(far, sum(map(len, pieces))) == b"".join(pieces)


def test_a_serial_port_without_a_descriptor_is_left_alone() -> None:
    system.for_us_alone(object(), True)


def test_a_number_that_is_no_pid_is_not_alive() -> None:
    assert system.alive(os.getpid())
    assert not system.alive(10**30)


@pytest.mark.slow
def test_a_run_through_a_virtual_bench(tmp_path: Path, start_hil: Callable[..., tuple[int, str]]) -> None:
    """Over HiSLIP, with a guardian, which the trainer dismisses."""
    (tmp_path / "bench.toml").write_text(BENCH, encoding="utf-8")
    (tmp_path / "e.toml").write_text(
        toml(device='bench = "bench.toml"', train="epochs = 1\nbatch = 32\nthreads = 1"), encoding="utf-8"
    )
    code, said = start_hil("-m", "hil", "train", "e.toml", "--run", "r")
    assert code == 0, said
    assert json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))["status"] == "done"
    assert [event["event"] for event in events(tmp_path / "r")] == ["watching", "done"]


def events(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "guardian.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def table() -> Iterator[RunningBench]:
    with build(VirtualBench((AWG,), transport="both")) as bench:
        yield bench


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """A program that has an output on under a guardian, tests/guardian_child.py, and the pid of the latter."""
    (tmp_path / "run").mkdir()
    pids: list[int] = []

    def begin(resource: str, then: str, **more: object) -> tuple[subprocess.Popen[str], int]:
        told = {"resource": resource, "run": str(tmp_path / "run"), "wire": "visa", "then": then, **more}
        words = [sys.executable, str(HERE / "guardian_child.py"), json.dumps(told)]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=without(tmp_path), text=True)
        pids.append(child.pid)
        assert child.stdout is not None
        word, guardian = child.stdout.readline().split()
        assert word == "on"
        pids.append(int(guardian))
        threading.Thread(target=child.wait, daemon=True).start()  # nobody stays a zombie
        return child, int(guardian)

    yield begin
    for pid in pids:
        if system.alive(pid):
            os.kill(pid, signal.SIGKILL)


def on(bench: RunningBench) -> bool:
    return bool(bench.control.outputs()["awg"]["1"]["on"])  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["killed", "hangs"])
def test_the_guardian_makes_safe(
    table: RunningBench, tmp_path: Path, start: Callable[..., tuple[subprocess.Popen[str], int]], end: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    child, guardian = start(
        table.resources["awg"], "beats" if end == "killed" else "idle", silence_s=1.5 if end == "hangs" else 60
    )
    assert on(table)
    if end == "killed":
        child.kill()
    assert until(lambda: not on(table), WITHIN_S)
    assert until(lambda: not system.alive(guardian), WITHIN_S)
    assert outputs_of(tmp_path / "run") == "safe"
    told = [event["event"] for event in events(tmp_path / "run")]
    assert told[1] == ("trainer gone" if end == "killed" else "silence")
    assert child.wait(WITHIN_S) == -signal.SIGKILL
    monkeypatch.setenv("HIL_LOCKS", str(tmp_path / "locks"))
    assert not left_unsafe()


@pytest.mark.slow
def test_a_guardian_that_dies_is_replaced(
    table: RunningBench, tmp_path: Path, start: Callable[..., tuple[subprocess.Popen[str], int]]
) -> None:
    child, guardian = start(table.resources["awg"], "beats")
    os.kill(guardian, signal.SIGSTOP)  # it does not answer; the trainer ends it
    assert until(lambda: len(events(tmp_path / "run")) > 2, WITHIN_S)
    assert on(table)
    child.kill()
    assert until(lambda: not on(table), WITHIN_S)
    assert until(lambda: outputs_of(tmp_path / "run") == "safe", WITHIN_S)


TAKER = """
import os, sys
from drivers.lock import Owner, lock_file, take
with take([sys.argv[1]], Owner(os.getpid(), "", "now", "taker")) as owned:
    print([state["resource"] for state in owned.found.values()], flush=True)
    sys.stdin.readline()
    print(lock_file(sys.argv[1]).read_bytes()[1:].decode())
"""


@pytest.mark.slow
def test_who_is_faster_than_the_guardian_keeps_the_instrument(
    table: RunningBench, tmp_path: Path, start: Callable[..., tuple[subprocess.Popen[str], int]]
) -> None:
    """Locks that nobody inherits: it reads what to make safe; the guardian does so too, and leaves its file alone."""
    resource = table.resources["awg"]
    child, guardian = start(resource, "beats")
    os.kill(guardian, signal.SIGSTOP)
    child.kill()
    words = [sys.executable, "-c", TAKER, resource]
    taker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=without(tmp_path), text=True)
    assert taker.stdout is not None
    assert taker.stdout.readline() == f"[{resource!r}]\n"
    assert on(table)
    os.kill(guardian, signal.SIGCONT)
    assert until(lambda: not system.alive(guardian), WITHIN_S)
    assert not on(table)
    said, _ = taker.communicate("\n", WITHIN_S)
    assert json.loads(said)["command"] == "taker"
