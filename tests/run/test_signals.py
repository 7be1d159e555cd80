"""Signals and displays: an ignored signal stays ignored, a display that goes away ends nothing, Ctrl-C ends with 130."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small import toml

from hil import cli
from hil.run.signals import Interrupts, Stopping
from hil.training import session
from hil.training.loop import TrainingStep, train

ROOT = Path(__file__).resolve().parents[2]
TWIN = toml(train="epochs = 3\nbatch = 16\nthreads = 1")
Act = Callable[[], object]


def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "e.toml"
    path.write_text(TWIN, encoding="utf-8")
    return path


def after_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Act) -> None:
    def acting(training: object) -> Iterator[object]:
        for point in train(training):  # type: ignore[arg-type]
            if isinstance(point, TrainingStep) and point.step == step:
                act()
            yield point

    monkeypatch.setattr(session, "train", acting)


def in_child(action: Act, out: int | None, err: int | None) -> int:
    """The exit code of `action` in a fork whose descriptors 1 and 2 are `out` and `err`; None: closed."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            for number, stream in ((1, out), (2, err)):
                if stream is None:
                    os.close(number)
                else:
                    os.dup2(stream, number)
            sys.stdout = None if out is None else os.fdopen(1, "w", encoding="utf-8")  # type: ignore[assignment]
            sys.stderr = None if err is None else os.fdopen(2, "w", encoding="utf-8")  # type: ignore[assignment]
            action()
        except SystemExit as end:
            code = int(str(end.code))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def told(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- handlers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_an_ignored_signal_stays_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        after_step(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
        assert cli.run(["train", str(experiment(tmp_path)), "--run", str(tmp_path / "r")]) == 0
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_handlers_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    def mine(*_: object) -> None:
        raise AssertionError("not while hil runs")

    before = signal.signal(number, mine)
    try:
        after_step(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
        code = cli.run(["train", str(experiment(tmp_path)), "--run", str(tmp_path / "r")])
        assert code == (0 if number == signal.SIGHUP else 130)  # without its terminal a run goes on
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("arguments", [("train", "e.toml", "--run", "r"), ("list", "devices"), ("train", "no.toml")])
def test_a_command_in_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.chdir(experiment(tmp_path).parent)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.run(arguments)))
    thread.start()
    thread.join()
    assert codes == [2 if "no.toml" in arguments else 0]


def test_a_second_ctrl_c_cuts_short_once_and_never_while_closing() -> None:
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.asked == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(4):
            os.kill(os.getpid(), signal.SIGINT)  # now everything is being closed
    with Stopping() as stopping:
        with stopping.working():
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(4):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_burst_is_one_interrupt_and_a_later_ctrl_c_another() -> None:
    now = [0.0]
    with Interrupts(lambda: now[0]) as interrupts:
        for now[0] in (1.0, 5.0):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGINT)
        now[0], interrupts.deaf = 9.0, True
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.heard


@pytest.mark.parametrize("wrapped", [ImportError("numpy"), SystemError("C"), RuntimeError("reinitialised"), None])
def test_ctrl_c_is_130_whatever_an_import_makes_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wrapped: Exception | None
) -> None:
    from hil.commands import list as listing

    def importing(kind: str) -> object:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGINT)
            if wrapped is None:
                raise
            raise wrapped from None
        return None

    monkeypatch.setattr(listing, "rows", importing)
    assert cli.run(["list", "devices"]) == 130
    assert "stopped at once" in capsys.readouterr().err


def test_a_burst_of_ctrl_c_at_any_moment_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst() -> None:
        for _ in range(6):
            os.kill(os.getpid(), signal.SIGINT)

    after_step(monkeypatch, 4, burst)
    assert cli.run(["train", str(experiment(tmp_path)), "--run", str(tmp_path / "r")]) == 130
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "interrupted"
    assert summary["outputs"].startswith("none")
    monkeypatch.undo()
    assert cli.run(["resume", str(tmp_path / "r")]) == 0


def test_ctrl_c_while_the_command_line_is_imported() -> None:
    """Six, from the first moment that Python lets us hear them."""
    code = (
        "import os, signal, threading, time, sys\n"
        "from hil import __main__ as start\n"
        "class Burst:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'cyclopts':\n"
        "            for _ in range(6): os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Burst())\n"
        "sys.argv = ['hil', 'list']\n"
        "start.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "stopped" in done.stderr


# ---- displays ---------------------------------------------------------------------------------------------------------------


def broken_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def full_pipe() -> int:
    """Nobody reads it, nobody closes it."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    KEPT.append(read)
    return write


def lost_terminal() -> int:
    master, terminal = pty.openpty()
    os.close(master)
    return terminal


def stopped_terminal() -> int:
    """After Ctrl-S."""
    master, terminal = pty.openpty()
    KEPT.append(master)
    termios.tcflow(terminal, termios.TCOOFF)
    return terminal


KEPT: list[int] = []
DISPLAYS: dict[str, Callable[[], int | None]] = {
    "broken pipe": broken_pipe,
    "full disk": lambda: os.open("/dev/full", os.O_WRONLY),
    "lost terminal": lost_terminal,
    "closed": lambda: None,
    "stopped terminal": stopped_terminal,
    "full pipe": full_pipe,
}


@pytest.mark.parametrize("which", DISPLAYS)
def test_a_display_that_takes_nothing_ends_nothing(tmp_path: Path, which: str) -> None:
    stream = DISPLAYS[which]()
    path, run = str(experiment(tmp_path)), tmp_path / "r"
    assert in_child(lambda: cli.main(["train", path, "--run", str(run)]), stream, stream) == 0
    events = told(run)
    assert events[-1]["kind"] in ("safe", "display")
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["status"] == "done"
    shown = [event for event in events if event["kind"] == "display"]
    assert len(shown) == (0 if which in ("stopped terminal", "full pipe") else 1)  # a stopped one may go on


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_a_narrow_display_shows_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding=encoding) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.run(["train", str(experiment(tmp_path)), "--run", str(tmp_path / "r")]) == 0
    assert "done in" in path.read_text(encoding=encoding)


def test_a_slow_reader_gets_everything(tmp_path: Path) -> None:
    """More than a pipe and the queue hold, to a reader that begins late."""
    assert cli.run(["train", str(experiment(tmp_path)), "--run", str(tmp_path / "r")]) == 0
    note = json.dumps({"t": "2026-11-29T06:00:00+00:00", "kind": "beware", "message": "y" * 1000})
    with (tmp_path / "r" / "journal.jsonl").open("a", encoding="utf-8") as journal:
        journal.write((note + "\n") * 600)
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    got = bytearray()

    def reading() -> None:
        time.sleep(1.0)  # longer than is waited for a reader of a run
        while part := os.read(read, 1 << 16):
            got.extend(part)

    reader = threading.Thread(target=reading)
    reader.start()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        assert in_child(lambda: cli.main(["status", str(tmp_path / "r"), "--log"]), write, nowhere.fileno()) == 0
    os.close(write)
    reader.join()
    assert got.count(b"y" * 1000) == 600


def test_nothing_is_said_about_it_at_the_end_of_the_process() -> None:
    """The interpreter flushes its streams when it ends: no exit code 120, no "Exception ignored"."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hil", "--help"], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=120,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# ---- without a terminal -----------------------------------------------------------------------------------------------------


def test_a_run_goes_on_without_its_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost ssh: the terminal hangs up, every write to it fails, the kernel sends SIGHUP."""
    path, run = str(experiment(tmp_path)), tmp_path / "r"
    pid, master = pty.fork()
    if pid == 0:
        code = 70
        try:
            after_step(monkeypatch, 4, lambda: time.sleep(1.0))  # the terminal goes away in here
            sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115, for as long as it lives
            sys.stdout, sys.stderr = open(1, "w", encoding="utf-8"), open(2, "w", encoding="utf-8")  # noqa: SIM115
            code = cli.run(["train", path, "--run", str(run)])
        finally:
            os._exit(code)
    end = time.monotonic() + 60
    while not (run / "journal.jsonl").exists() or b'"step":3,' not in (run / "journal.jsonl").read_bytes():
        assert time.monotonic() < end
        time.sleep(0.02)
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["status"] == "done"
    assert "terminal" in {event["kind"] for event in told(run)}
    log = (run / "output.log").read_text(encoding="utf-8")
    assert log.count("\n epoch ") == 3
    assert "done in" in log
    assert "\x1b" not in log


def test_what_ends_a_run_is_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    after_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.run(["train", str(experiment(tmp_path)), "--run", str(tmp_path / "r")]) == 130
    log = (tmp_path / "r" / "output.log").read_text(encoding="utf-8")
    assert "stopped by SIGTERM after step 2" in log
    assert log.startswith("--- ")
    monkeypatch.undo()
    assert cli.run(["--log-level", "quiet", "resume", str(tmp_path / "r")]) == 0
    assert "done in" not in capsys.readouterr().out
    log = (tmp_path / "r" / "output.log").read_text(encoding="utf-8")
    assert log.count("--- ") == 2
    assert "done in" in log


def test_a_command_that_only_looks_ends_with_its_terminal() -> None:
    heard = signal.getsignal(signal.SIGHUP)
    seen: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        from hil.commands import list as listing

        patch.setattr(listing, "rows", lambda kind: seen.append(signal.getsignal(signal.SIGHUP)) or ([("name",)], []))
        assert cli.run(["list", "devices"]) == 0
    assert seen == [heard]
    with Stopping(attended=True) as stopping:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stopping.asked == "SIGHUP"
