"""A terminal, a pipe, a disk or a thread that hangs: the outputs are switched off all the same."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from watched import PATHS, WITHIN_S, Child, fifo, gone, link_to_a_fifo, on, soon

from drivers.lock import left_unsafe
from drivers.safe import OFF, SafeState, Step
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from hil.errors import (
    UnsafeOutputs,
)
from hil.guardian import record
from hil.guardian.client import guarded
from hil.guardian.process import TrainerProcess
from hil.run.outputs import outputs_of
from sim_devices.bench.board import RunningBoard
from sim_devices.bench.served import RunningBench


def full_pipe() -> tuple[int, list[int]]:
    """The end to write to of a pipe that is full and that nobody reads, and what is to be closed."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, bytes(4096))
    os.set_blocking(writes, True)
    return writes, [reads, writes]


def stopped_terminal() -> tuple[int, list[int]]:
    """Ctrl-S was pressed."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    return slave, [master, slave]


def lost_terminal() -> tuple[int, list[int]]:
    master, slave = pty.openpty()
    os.close(master)
    return slave, [slave]


@pytest.mark.parametrize("then", ["beats", "stuck"])
@pytest.mark.parametrize("blocked", [full_pipe, stopped_terminal, lost_terminal])
def test_a_terminal_that_takes_nothing_keeps_nothing_on(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path, blocked: Callable[[], tuple[int, list[int]]], then: str
) -> None:
    """Neither after a kill, by the guardian, nor where the trainer's own closing failed."""
    stderr, files = blocked()
    try:
        child = start(table.resources["awg"], then, stderr=stderr)
        child.process.kill() if then == "beats" else child.tell()
        assert soon(lambda: not on(table))
        assert soon(lambda: gone(child.guardian))
        child.process.wait(WITHIN_S)
        assert outputs_of(tmp_path / "run") == "safe"
    finally:
        for file in files:
            os.close(file)


def no_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


@pytest.mark.parametrize("then", ["beats", "stuck"])
@pytest.mark.parametrize("obstacle", [fifo, link_to_a_fifo, Path.mkdir, no_folder])
def test_a_run_folder_that_takes_nothing_keeps_nothing_on(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path, obstacle: Callable[[Path], None], then: str
) -> None:
    child = start(table.resources["awg"], then)
    (tmp_path / "run" / "guardian.jsonl").unlink()
    obstacle(tmp_path / "run" / "guardian.jsonl")
    child.process.kill() if then == "beats" else child.tell()
    assert soon(lambda: not on(table))
    assert soon(lambda: gone(child.guardian))
    child.process.wait(WITHIN_S)
    assert not left_unsafe()


def test_a_disk_that_hangs_holds_up_nobody(table: RunningBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the trainer: a write that never returns, from before the fault on."""
    resource, hangs, asked = table.resources["awg"], threading.Event(), []
    state = SafeState("awg", resource, OVER_VISA, Expect("Keysight"), (Step(":OUTP1 0", ":OUTP1?", OFF),))

    def append(path: Path, line: bytes) -> None:
        asked.append((json.loads(line)["event"], on(table)))
        hangs.wait()

    def failing() -> None:
        raise UnsafeOutputs("it says nothing")

    monkeypatch.setattr(record, "_append", append)
    with guarded([resource], silence_s=60.0, patience_s=1.0, run=tmp_path / "run") as guard, ExitStack() as stack:
        stack.push(guard.leaving(failing))
        guard.watch([state])
        table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
        guard.rest(None)
        assert not on(table)
        assert soon(lambda: bool(asked))
    assert asked == [("closing failed", False)], "something was written while the output was on"
    hangs.set()


def test_all_that_making_safe_needs_is_loaded_beforehand(table: RunningBench, line: RunningBoard) -> None:
    program = """
import json, sys
import hil.guardian.process
from drivers.make_safe import make_safe
from drivers.safe import OFF, Ramp, SafeState, Step, conversation
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA, prepare
from drivers.spiking.talk import board
prepare()
ramp = Ramp(":OUTP1", ":SOUR1:VOLT", ":SOUR1:VOLT:OFFS", 100.0, 0.001, -5.0, 5.0)
visa, port = json.loads(sys.argv[1])
states = [SafeState("awg", at, OVER_VISA, Expect(), (Step(":OUTP1 0", ":OUTP1?", OFF),), ramp) for at in visa]
states.append(board("board", port, Expect()))
for state in states:
    conversation(state)
had = set(sys.modules)
outcomes = make_safe(states, 0.0)
print(json.dumps([[o.verified for o in outcomes], sorted(set(sys.modules) - had)]))
"""
    by_name = table.resources["awg"].replace("127.0.0.1", "localhost")
    told = json.dumps([[table.resources["awg"], table.sockets["awg"], by_name], line.port])
    said = subprocess.run([sys.executable, "-c", program, told], env={**os.environ, "PYTHONPATH": PATHS}, capture_output=True)
    assert json.loads(said.stdout) == [[True] * 4, []], said.stderr


def test_a_trainer_that_ended_but_for_a_thread_that_hangs_is_gone() -> None:
    """As one is that was killed while it writes to a disk that does not answer."""
    program = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print(flush=True)
ctypes.CDLL(None).syscall(60 if __import__("platform").machine() == "x86_64" else 93, 0)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        trainer = TrainerProcess(process.pid)
        assert soon(trainer.dying)
        assert trainer.ended()
    finally:
        process.kill()
        process.communicate()
