"""Locks of instruments under a guardian: one owner, who waits for whom, and what becomes of a lock that is removed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import pyvisa_py.protocols.hislip as hislip
from watched import Child, events, gone, on, soon

from drivers.lock import Owner, left_unsafe, lock_file, machine_file, take
from drivers.make_safe import securing
from drivers.safe import OFF, SafeState, Step
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from hil.errors import (
    RunError,
)
from hil.run.outputs import outputs_of
from sim_devices.bench.served import RunningBench


def test_a_second_program_is_refused_and_told_who_owns_the_instrument(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    child = start(table.resources["awg"], "beats")
    spelt = table.resources["awg"].lower().replace("tcpip::", "TCPIP0::")
    with pytest.raises(RunError, match=rf"process {child.process.pid} \(guardian_child.*{tmp_path / 'run'}.*since 20"):
        take([spelt], Owner(os.getpid(), "", "now", "test"))
    assert on(table)


@pytest.mark.parametrize("string", ["", "of another computer"])
def test_who_makes_safe_waits_for_the_lock_of_another_program(table: RunningBench, string: str) -> None:
    resource = table.resources["awg"]
    table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
    holder = hislip.Instrument("127.0.0.1", port=int(resource.split(",")[1].split(":")[0]))
    assert holder.async_lock_request(0.0, string) == "success"
    state = SafeState("awg", resource, OVER_VISA, Expect("Keysight"), (Step(":OUTP1 0", ":OUTP1?", OFF),))
    attempts = securing([state], 30.0)
    first = next(attempts)
    assert not first.verified
    assert not first.last
    assert "locked" in first.why
    assert on(table)
    holder.close()
    assert list(attempts)[-1].verified
    assert not on(table)


OWN_TALK = """
from contextlib import contextmanager
from pathlib import Path

class Talk:
    def __init__(self, output):
        self.output = output

    def do(self, command, question):
        if command:
            self.output.write_text(command)
        return self.output.read_text()

@contextmanager
def over_file(state):
    yield Talk(Path(state.resource))
"""


def test_an_instrument_on_a_wire_of_its_own_is_made_safe_by_the_conversation_of_its_driver(
    start: Callable[..., Child], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    (tmp_path / "rig_talk.py").write_text(OWN_TALK, encoding="utf-8")
    output.write_text("0", encoding="utf-8")
    child = start(str(output), "beats", "own")
    assert output.read_text(encoding="utf-8") == "1"
    (tmp_path / "rig_talk.py").unlink()  # the guardian has it already
    child.process.kill()
    assert soon(lambda: output.read_text(encoding="utf-8") == "0")
    assert soon(lambda: outputs_of(tmp_path / "run") == "safe")


def remove_locks(resource: str) -> None:
    lock_file(resource).unlink()
    machine_file(resource).unlink()


def test_a_lock_that_is_removed_under_a_trainer_is_taken_anew_and_handed_on(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    resource, run = table.resources["awg"], tmp_path / "run"
    child = start(resource, "beats", silence_s=1.5)
    remove_locks(resource)
    assert soon(lambda: sum(e["event"] == "lock file removed; locked again" for e in events(run)) == 2)
    with pytest.raises(RunError, match=f"process {child.process.pid}"):
        take([resource], Owner(os.getpid(), "", "now", "test"))
    child.process.kill()
    assert soon(lambda: not on(table))
    assert soon(lambda: gone(child.guardian))
    assert outputs_of(run) == "safe"
    assert soon(lambda: not left_unsafe() and lock_file(resource).exists())


def test_a_lock_that_is_removed_and_taken_by_another_program_stops_the_trainer_safely(
    table: RunningBench, start: Callable[..., Child], tmp_path: Path
) -> None:
    resource = table.resources["awg"]
    child = start(resource, "dead", silence_s=4.0)
    child.process.send_signal(signal.SIGSTOP)  # so that the other one is first
    remove_locks(resource)
    with take([resource], Owner(os.getpid(), "", "now", "test")):
        child.process.send_signal(signal.SIGCONT)
        assert child.says() == ["RunError"]
        assert not on(table)
    assert outputs_of(tmp_path / "run") == "safe"
