"""The guardian, with real processes and real signals: what the simulated boxes say of their outputs is the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from watched import AWG, PATHS, WITHIN_S, Child, events, gone, on, soon

from drivers.lock import Owner, left_unsafe, lock_file, take
from drivers.safe import OFF, SafeState, Step
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from hil.commands.explain import story
from hil.errors import (
    Disconnected,
    RunError,
    Stopped,
    UnsafeOutputs,
)
from hil.guardian.__main__ import KEPT
from hil.guardian.client import guarded
from hil.guardian.record import left_by
from hil.run.outputs import outputs_of
from sim_devices.bench.board import RunningBoard
from sim_devices.bench.description import VirtualBench
from sim_devices.bench.served import RunningBench, build


@pytest.mark.cold
@pytest.mark.parametrize(("then", "wire"), [("beats", "resources"), ("beats", "sockets"), ("forked", "resources")])
def test_a_killed_trainer(table: RunningBench, start: Callable[..., Child], tmp_path: Path, then: str, wire: str) -> None:
    """Also one that left a forked process behind, which holds the other end of the pipe open."""
    child = start(getattr(table, wire)["awg"], then)
    assert on(table)
    child.process.kill()
    assert soon(lambda: not on(table))
    assert soon(lambda: gone(child.guardian))
    assert outputs_of(tmp_path / "run") == "safe"
    assert not left_unsafe()


@pytest.mark.parametrize("hang", ["stopped", "idle"])
def test_a_trainer_that_hangs_is_killed_and_its_output_switched_off(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path, hang: str
) -> None:
    child = start(table.resources["awg"], "beats" if hang == "stopped" else "idle", silence_s=1.5)
    if hang == "stopped":
        time.sleep(1.7)  # as long as it beats, silence is none
        assert on(table)
        child.process.send_signal(signal.SIGSTOP)
    assert soon(lambda: not on(table), 1.5 + WITHIN_S)
    assert child.process.wait(WITHIN_S) == -signal.SIGKILL
    assert soon(lambda: gone(child.guardian))
    assert [e["event"] for e in events(tmp_path / "run")][1] == "silence"


def test_a_trainer_that_verified_it_itself_leaves_nothing_to_do(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start(table.resources["awg"], "close")
    child.tell()
    assert child.says() == ["left"]
    assert not on(table)
    assert child.process.wait(WITHIN_S) == 0
    assert gone(child.guardian)
    assert [e["event"] for e in events(tmp_path / "run")] == ["watching", "done"]
    assert lock_file(table.resources["awg"]).read_text(encoding="utf-8") == ""


def test_a_close_that_cannot_verify_is_made_up_for_over_another_wire(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start(table.resources["awg"], "stuck")
    child.tell()
    assert child.says() == ["left"]
    assert not on(table)
    assert outputs_of(tmp_path / "run") == "safe"


def test_a_guardian_that_dies_is_started_again_once_and_then_the_trainer_stops(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start(table.resources["awg"], "dead")
    os.kill(child.guardian, signal.SIGKILL)
    assert soon(lambda: [e["event"] for e in events(tmp_path / "run")][-1] == "watching" and len(events(tmp_path / "run")) > 2)
    again = events(tmp_path / "run")[-1]["guardian"]
    assert again != child.guardian
    assert on(table)
    os.kill(again, signal.SIGKILL)
    assert child.says() == ["GuardianLost"]
    assert not on(table)


def test_a_guardian_that_was_started_again_does_its_work(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start(table.resources["awg"], "beats")
    os.kill(child.guardian, signal.SIGKILL)
    assert soon(lambda: len(events(tmp_path / "run")) > 2)
    child.process.kill()
    assert soon(lambda: not on(table))


def test_signals_of_the_terminal_are_not_for_the_guardian(table: RunningBench, start: Callable[..., Child]) -> None:
    child = start(table.resources["awg"], "close")
    for number in signal.valid_signals() - KEPT:
        os.kill(child.guardian, number)
    assert os.getsid(child.guardian) == child.guardian
    child.process.kill()
    assert soon(lambda: not on(table))


def test_another_instrument_at_the_address_is_not_touched(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start(table.resources["awg"], "beats", serial="ANOTHER")
    child.process.kill()
    assert soon(lambda: gone(child.guardian))
    assert on(table)
    (attempt,) = [e for e in events(tmp_path / "run") if e["event"] == "attempt"]
    assert not attempt["verified"]
    assert "wrong instrument" in attempt["why"]
    assert outputs_of(tmp_path / "run") == "unknown"


def test_what_could_not_be_reached_is_made_safe_first_by_who_comes_next(start: Callable[..., Child], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with build(VirtualBench((AWG,))) as before:
        resource = before.resources["awg"]
        child = start(resource, "beats", patience_s=0.3)
        before.close()
        child.process.kill()
        assert soon(lambda: gone(child.guardian))
    assert outputs_of(run) == "unknown"
    assert "OUTPUTS UNKNOWN" in child.process.communicate()[1]
    (marked,) = left_unsafe().values()
    assert marked["safe"]["resource"] == resource
    with pytest.raises(UnsafeOutputs, match="left by an earlier program"), guarded([resource], silence_s=60.0, patience_s=0.0):
        pytest.fail("it went on")
    assert left_unsafe()
    with build(VirtualBench((replace(AWG, hislip_port=int(resource.split(",")[1].split(":")[0])),))) as table:
        table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
        with guarded([resource], silence_s=60.0, patience_s=0.0, run=run):
            assert not on(table)
    assert not left_unsafe()
    assert left_by(run) == ()


def test_a_killed_trainer_of_a_board_in_the_middle_of_a_frame(
    line: RunningBoard, start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start(line.port, "idle", "frames")
    assert line.board.armed
    child.process.kill()
    assert soon(lambda: not line.board.armed)
    assert soon(lambda: outputs_of(tmp_path / "run") == "safe")


def test_a_second_ctrl_c_switches_off_before_anything_is_waited_for(table: RunningBench, tmp_path: Path) -> None:
    resource, seen = table.resources["awg"], []
    state = SafeState("awg", resource, OVER_VISA, Expect("Keysight"), (Step(":OUTP1 0", ":OUTP1?", OFF),))

    def interrupted() -> None:
        run = tmp_path / "run"
        with guarded([resource], silence_s=60.0, patience_s=1.0, run=run) as guard, ExitStack() as stack:
            stack.push(guard.leaving(lambda: seen.append(on(table))))
            guard.watch([state])
            table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [False], "it was still on while the device was closed"
    assert outputs_of(tmp_path / "run") == "safe"


def test_the_guardian_needs_no_torch() -> None:
    """Nor anything else that would make it slow."""
    program = (
        "import sys, hil.guardian.process, hil.guardian.__main__;"
        " print([m for m in ('torch', 'pydantic', 'scipy', 'hil.config.experiment', 'rich') if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": PATHS}, capture_output=True, text=True
    )
    assert said.stdout == "[]\n", said.stderr


@pytest.mark.parametrize("then", ["beats", "idle"])
def test_a_guardian_that_stands_still_is_replaced(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path, then: str
) -> None:
    """Also while the trainer uses no wire."""
    child = start(table.resources["awg"], then, silence_s=5.0)
    os.kill(child.guardian, signal.SIGSTOP)
    assert soon(lambda: len(events(tmp_path / "run")) > 2, 4 * WITHIN_S)
    first, told, again = events(tmp_path / "run")
    assert (first["event"], again["event"]) == ("watching", "watching")
    assert "does not answer" in told["event"]
    assert gone(child.guardian)
    assert on(table)
    child.process.kill()
    assert soon(lambda: not on(table))
    assert soon(lambda: gone(again["guardian"]))


@pytest.mark.parametrize(("then", "number"), [("beats", signal.SIGSTOP), ("idle", signal.SIGSTOP), ("idle", signal.SIGKILL)])
def test_a_guardian_that_is_lost_again_leaves_nothing_on(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path, then: str, number: signal.Signals
) -> None:
    """A trainer that uses no wire hears of it later; its output is off by then."""
    child = start(table.resources["awg"], then, silence_s=5.0)
    os.kill(child.guardian, number)
    assert soon(lambda: len(events(tmp_path / "run")) > 2, 4 * WITHIN_S)
    os.kill(events(tmp_path / "run")[-1]["guardian"], number)
    assert soon(lambda: not on(table), 4 * WITHIN_S)
    assert child.process.poll() is None or then == "beats"


@pytest.mark.parametrize("first", ["guardian", "trainer"])
def test_a_trainer_and_its_guardian_that_were_stopped_together_go_on(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path, first: str
) -> None:
    """For longer than a silence, and than an answer may take. first: who was stopped first, and goes on first."""
    child = start(table.resources["awg"], "beats", silence_s=1.5)
    both = (child.guardian, child.process.pid)
    for pid in both if first == "guardian" else reversed(both):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    for pid in both if first == "guardian" else reversed(both):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)
    time.sleep(1.0)  # in which either would have acted
    assert [event["event"] for event in events(tmp_path / "run")] == ["watching"]
    assert on(table)
    child.process.kill()
    assert soon(lambda: not on(table))


@pytest.mark.parametrize("error", [None, Disconnected("the other end closed"), KeyboardInterrupt()])
def test_after_rest_the_outputs_are_off_and_nobody_minds_how_long_the_rest_takes(
    table: RunningBench, tmp_path: Path, error: BaseException | None
) -> None:
    resource, run = table.resources["awg"], tmp_path / "run"
    state = SafeState("awg", resource, OVER_VISA, Expect("Keysight"), (Step(":OUTP1 0", ":OUTP1?", OFF),))
    with guarded([resource], silence_s=1.0, patience_s=1.0, run=run) as guard, ExitStack() as stack:
        stack.push(guard.leaving(lambda: table.boxes["awg"].execute(b":OUTP1 0")))  # type: ignore[attr-defined]
        guard.watch([state])
        table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
        guard.rest(error)
        assert not on(table)
        assert gone(guard.pid)
        guard.beat()
        with pytest.raises(RunError, match="another program owns"):
            take([resource], Owner(os.getpid(), "", "now", "test"))
    assert [event["event"] for event in events(run)] == ["watching", "done"]
    assert lock_file(resource).read_text(encoding="utf-8") == ""


def test_rest_closes_once_and_leaving_tells_what_it_could_not(table: RunningBench, tmp_path: Path) -> None:
    resource, closed = table.resources["awg"], list[str]()
    state = SafeState("awg", resource, OVER_VISA, Expect("Another"), (Step(":OUTP1 0", ":OUTP1?", OFF),))

    def failing() -> None:
        closed.append("failing")
        raise UnsafeOutputs("it says nothing", where="awg")

    def trained() -> None:
        with guarded([resource], silence_s=60.0, patience_s=0.0, run=tmp_path / "run") as guard, ExitStack() as stack:
            stack.push(guard.leaving(failing))
            guard.watch([state])
            stack.push(guard.leaving(lambda: closed.append("well")))
            try:
                raise Disconnected("the other end closed")
            except Disconnected as fault:
                guard.rest(fault)
                guard.rest(fault)
                closed.append("written")
                raise Stopped("a fault ended the run") from fault

    with pytest.raises(UnsafeOutputs, match="it says nothing") as caught:
        trained()
    assert closed == ["well", "failing", "written"]
    assert [type(error) for error in story(caught.value)] == [UnsafeOutputs, Stopped, Disconnected]
