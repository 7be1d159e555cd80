"""The guardian, with real processes and real signals: what the simulated boxes say of their outputs is the truth."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import pyvisa_py.protocols.hislip as hislip
import tomli_w

from drivers.links.serial_link import ports
from drivers.lock import Owner, folder, left_unsafe, lock_file, machine_file, machine_folder, take
from drivers.make_safe import securing
from drivers.safe import OFF, SafeState, Step
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from drivers.spiking.talk import board
from hil.build.bench import open_bench
from hil.build.shapes.waveform import WaveformBench, description
from hil.cli import story
from hil.config.bench import bench_of, read_bench
from hil.errors import (
    ConfigError,
    Disconnected,
    LinkTimeout,
    OpenFailed,
    RunError,
    Stopped,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.guardian import record
from hil.guardian.__main__ import KEPT
from hil.guardian.client import guarded
from hil.guardian.process import TrainerProcess
from hil.guardian.record import left_by
from hil.run.outputs import outputs_of
from sim_devices.bench.board import RunningBoard, VirtualBoard, board_server
from sim_devices.bench.description import VirtualBench, VirtualBox
from sim_devices.bench.served import RunningBench, ServedBench, build, spawn

HERE = Path(__file__).parent
BENCHES = HERE.parent / "benches"
PATHS = os.pathsep.join([str(HERE.parent), str(HERE)])
AWG = VirtualBox("awg", "sim_devices.instruments.keysight_33600:Keysight33600")
PATIENCE_S = 60.0  # would be spent if a guard were armed
WITHIN_S = 30.0  # two on an idle machine; benchmarks/guardian.py measures them


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own locks, and own run folders."""
    monkeypatch.setenv("HIL_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("HIL_MACHINE_LOCKS", str(tmp_path / "machine"))
    (tmp_path / "run").mkdir()


@pytest.fixture
def table() -> Iterator[RunningBench]:
    """A generator, served from this process, so that it outlives every trainer."""
    with build(VirtualBench((AWG,), transport="both")) as bench:
        yield bench


@pytest.fixture
def line() -> Iterator[RunningBoard]:
    with board_server(VirtualBoard()) as server:
        yield server


class Child:
    """A program under a guardian."""

    def __init__(self, command: list[str], stderr: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": PATHS},
        )
        word, *rest = self.says()
        assert word == "on", (word, self.process.communicate())
        self.guardian = int(rest[0])

    def says(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split() or ["nothing"]

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        for pid in (self.process.pid, self.guardian):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def light(resource: str, then: str, wire: str = "visa", stderr: int = subprocess.PIPE, **more: Any) -> Child:
        told = {"resource": resource, "run": str(tmp_path / "run"), "wire": wire, "then": then, **more}
        started.append(Child([str(HERE / "guardian_child.py"), json.dumps(told)], stderr))
        return started[-1]

    yield light
    for child in started:
        child.end()


def on(bench: RunningBench | ServedBench) -> bool:
    return bool(bench.control.outputs()["awg"]["1"]["on"])  # type: ignore[index]


def soon(true: Callable[[], bool], within_s: float = WITHIN_S) -> bool:
    end = time.monotonic() + within_s
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


def gone(pid: int) -> bool:
    """Ended, whether or not somebody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (run / "guardian.jsonl").read_text().splitlines()]


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
    assert lock_file(table.resources["awg"]).read_text() == ""


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
    (tmp_path / "rig_talk.py").write_text(OWN_TALK)
    output.write_text("0")
    child = start(str(output), "beats", "own")
    assert output.read_text() == "1"
    (tmp_path / "rig_talk.py").unlink()  # the guardian has it already
    child.process.kill()
    assert soon(lambda: output.read_text() == "0")
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


def bench_file(tmp_path: Path, bench: Any) -> Path:
    """The waveform bench as it would stand on a table."""
    real = tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text())
    del real["virtual"]
    for name in ("awg", "scope"):
        real["instruments"][name]["resource"] = bench.resources[name]
    path = tmp_path / "bench.toml"
    path.write_text(tomli_w.dumps(real))
    return path


def test_a_trainer_of_the_waveform_bench_that_is_killed_in_a_shot(tmp_path: Path) -> None:
    bench = read_bench(BENCHES / "mzm_awg_scope.toml")
    assert isinstance(bench, WaveformBench)
    with spawn(description(bench)) as served:
        path = bench_file(tmp_path, served)
        child = Child([str(HERE / "trainer_alike.py"), str(path), str(tmp_path / "run")])
        try:
            with pytest.raises(RunError, match=f"process {child.process.pid}"), open_bench(read_bench(path)):
                pytest.fail("two owners")
            assert on(served)
            child.process.kill()
            assert soon(lambda: not on(served))
            assert soon(lambda: gone(child.guardian))
        finally:
            child.end()
    assert outputs_of(tmp_path / "run") == "safe"


def board_file(tmp_path: Path, port: str, **board: Any) -> Path:
    """The board of spiking neurons as it would stand on a table."""
    real = tomllib.loads((BENCHES / "spiking_board.toml").read_text())
    del real["virtual"]
    real["instruments"]["board"] |= {"resource": port, **board}
    real["guardian"] = {"patience_s": PATIENCE_S}
    path = tmp_path / "board.toml"
    path.write_text(tomli_w.dumps(real))
    return path


def opens(path: Path, run: Path | None) -> None:
    with open_bench(read_bench(path), run):
        pytest.fail("it was opened")


def lock_files() -> list[str]:
    return [path.name for place in (folder(), machine_folder()) for path in place.iterdir()]


@pytest.mark.parametrize("kind", ["misspelt", "dangling", "file", "folder"])
def test_a_port_that_is_not_there_leaves_nothing_to_be_made_safe(tmp_path: Path, kind: str) -> None:
    """And the second time it is as the first."""
    port = tmp_path / "ttyACMO"
    if kind == "dangling":
        port.symlink_to(tmp_path / "unplugged")
    elif kind == "file":
        port.write_text("")
    elif kind == "folder":
        port.mkdir()
    for run in (None, tmp_path / "run", tmp_path / "run"):
        begin = time.monotonic()
        with pytest.raises(OpenFailed, match=r"serial port cannot be opened(?s:.)*nothing was sent") as caught:
            opens(board_file(tmp_path, str(port)), run)
        assert time.monotonic() - begin < PATIENCE_S / 2, "its safe state was tried to be brought about"
        assert all(there.split(" (")[0] in caught.value.allowed for there in ports())
        assert lock_files() == []
        assert outputs_of(tmp_path / "run") == ""


@pytest.mark.parametrize("address", ["TCPIP::127.0.0.1::hislip0,{}::INSTR", "TCPIP::127.0.0.1::{}::SOCKET"])
def test_an_instrument_that_is_not_there_leaves_nothing_to_be_made_safe(tmp_path: Path, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    real = tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text())
    del real["virtual"]
    real["instruments"]["awg"]["resource"], real["instruments"]["scope"]["resource"] = (
        address.format(port),
        "TCPIP::127.0.0.1::1::SOCKET",
    )
    path = tmp_path / "bench.toml"
    path.write_text(tomli_w.dumps(real))
    for _ in range(2):
        with pytest.raises(OpenFailed, match="nothing was sent"):
            opens(path, tmp_path / "run")
        assert lock_files() == []
        assert outputs_of(tmp_path / "run") == ""


@pytest.mark.parametrize("transport", ["hislip", "socket"])
def test_whether_other_computers_are_kept_out_is_told(tmp_path: Path, transport: str) -> None:
    tables = tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text())
    tables["virtual"]["transport"] = transport
    bench = bench_of(tables, Path("test"))
    assert isinstance(bench, WaveformBench)
    with spawn(description(bench)) as served:
        path = bench_file(tmp_path, served)
        with open_bench(read_bench(path), tmp_path / "run") as opened:
            told = ["not kept out" in line for line in opened.resources.values()]
    assert told == [transport == "socket"] * 2


@pytest.mark.parametrize("wrong", [{"serial": "ANOTHER"}, {"model": "LASER"}, {"maker": "Acme"}])
def test_another_board_at_the_port_was_never_armed(tmp_path: Path, line: RunningBoard, wrong: dict[str, str]) -> None:
    with pytest.raises(WrongInstrument):
        opens(board_file(tmp_path, line.port, **wrong), tmp_path / "run")
    assert not line.board.armed
    assert lock_files() == []
    assert outputs_of(tmp_path / "run") == ""


def test_a_port_at_which_nobody_answers_was_never_armed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with pytest.raises(LinkTimeout):
            opens(board_file(tmp_path, os.ttyname(theirs), timeout_s=0.05), tmp_path / "run")
    finally:
        os.close(ours)
        os.close(theirs)
    assert lock_files() == []
    assert outputs_of(tmp_path / "run") == ""


def test_what_an_earlier_run_left_stays_on_record_when_its_port_is_gone(tmp_path: Path) -> None:
    port = str(tmp_path / "ttyACM0")
    with take([port], Owner(1, "", "", "an earlier run")) as before:
        before.write(port, asdict(board("board", port, Expect("HIL"))))
    for _ in range(2):
        with pytest.raises(UnsafeOutputs, match="left by an earlier program"), guarded([port], silence_s=60.0, patience_s=0.0):
            pytest.fail("it went on")
        assert [content["safe"]["resource"] for content in left_unsafe().values()] == [port]
    with take([port], Owner(1, "", "", "of another version")) as before:
        before.write(port, {"name": "board"})
    with pytest.raises(OpenFailed):
        opens(board_file(tmp_path, port), None)
    assert [content["safe"] for content in left_unsafe().values()] == [{"name": "board"}]


def test_a_board_that_is_unplugged_with_its_link_stays_on_record(
    line: RunningBoard, start: Callable[..., Child], tmp_path: Path
) -> None:
    """The lock is that of the port which the link led to when it was opened."""
    link = tmp_path / "by-id"
    link.symlink_to(os.path.realpath(line.port))
    child = start(str(link), "beats", "frames", patience_s=0.2)
    link.unlink()
    child.process.kill()
    assert soon(lambda: bool(left_unsafe()))
    assert [content["safe"]["resource"] for content in left_unsafe().values()] == [str(link)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"guardian": {"silence_s": 3.0}}, "legal wait"),
        ({"guardian": {"silence": 60.0}}, 'Did you mean "silence_s"'),
        ({"safe": {"order": ["laser"]}}, "order"),
        ({"safe": {"scope": {}}}, "scope"),
        ({"safe": {"awg": {}}}, "awg"),
    ],
)
def test_what_a_bench_file_cannot_say_of_safety(change: dict[str, Any], said: str) -> None:
    tables = {**tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text()), **change}
    with pytest.raises(ConfigError, match=said), open_bench(bench_of(tables, Path("bench.toml"))):
        pytest.fail("it was opened")
    with pytest.raises(ConfigError):
        bench_of({**tomllib.loads((BENCHES / "spiking_board.toml").read_text()), "safe": {"order": ["awg"]}}, Path("b"))


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


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


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


HOSTILE = SafeState("awg", "", OVER_VISA, Expect(), (Step(":OUTP1 0", ":OUTP1?", OFF),))


@pytest.mark.parametrize("where", ["another", "the same"])
@pytest.mark.parametrize("address", ["resources", "sockets"])
def test_a_run_folder_commands_nothing(
    table: RunningBench, tmp_path: Path, address: str, where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What its guardian.jsonl names gets no message, whether or not it is on the bench; it is told to people, and no more."""
    resource = getattr(table, address)["awg"]
    state = asdict(replace(HOSTILE, resource=resource, name="awg\x1b[2J"))
    (tmp_path / "run" / "guardian.jsonl").write_text(json.dumps({"event": "watching", "pid": 1, "states": [state]}) + "\n")
    table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
    mine = resource if where == "the same" else "GPIB7::1::INSTR"
    with guarded([mine], silence_s=60.0, patience_s=0.0, run=tmp_path / "run"):
        pass
    assert on(table)
    said = capfd.readouterr().err
    assert f"awg?[2J at {resource}" in said
    assert "\x1b" not in said


def test_what_a_run_left_elsewhere_is_made_safe_as_its_lock_file_says(table: RunningBench, tmp_path: Path) -> None:
    """The bench file names another address by now."""
    resource, run = table.resources["awg"], tmp_path / "run"
    owned = take([resource], Owner(1, str(run.resolve()), "", "test"))
    owned.write(resource, asdict(replace(HOSTILE, resource=resource)))
    owned.release(unverified=[resource])
    table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
    with guarded(["GPIB7::1::INSTR"], silence_s=60.0, patience_s=0.0, run=tmp_path):
        assert on(table), "of another run"
    with guarded(["GPIB7::1::INSTR"], silence_s=60.0, patience_s=0.0, run=run):
        assert not on(table)
    assert not left_unsafe()


@pytest.mark.parametrize(
    ("payload", "known"),
    [
        (b'{"event": "watching", "states": 7}\n', "unknown"),
        (b'{"event": "watching", "states": [[], null, {"name": {"a": 1}}]}\n', "unknown"),
        (b'{"event": "watching", "states": {"name": "awg"}}\n{"outputs": ["safe"]}\n', "unknown"),
        (b'{"event": "watching"}\n' + b"[" * 100_000 + b"\n", "unknown"),
        (b'{"event": "watching"}\n{"outputs": "safe"}\n\xff\xfe\x00{"outputs"', "safe"),
        (b"7\n[]\n\n", ""),
    ],
)
def test_a_guardian_file_of_any_content(tmp_path: Path, payload: bytes, known: str) -> None:
    (tmp_path / "guardian.jsonl").write_bytes(payload)
    assert outputs_of(tmp_path) == known
    assert all(isinstance(name, str) for name in left_by(tmp_path))


@pytest.mark.parametrize("obstacle", [fifo, link_to_a_fifo, Path.mkdir])
def test_a_guardian_file_of_any_kind(tmp_path: Path, obstacle: Callable[[Path], None]) -> None:
    obstacle(tmp_path / "guardian.jsonl")
    assert outputs_of(tmp_path) == "unknown"
    assert left_by(tmp_path) == ()


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
    assert lock_file(resource).read_text() == ""


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
