"""A virtual bench in its own process, with boxes that need no physics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pyvisa

from hil.errors import ConfigError, Disconnected, OpenFailed
from sim_devices.bench.description import Part, VirtualBench, VirtualBox, VirtualWire
from sim_devices.bench.served import build, spawn

MEMORY = "memory_box:MemoryBox"
BENCH = VirtualBench((VirtualBox("awg", MEMORY, {"name": "M1", "level_v": 0.5}), VirtualBox("scope", MEMORY, {"name": "M2"})))


def identity(resource: str) -> str:
    opened = pyvisa.ResourceManager("@py").open_resource(resource)
    if resource.endswith("SOCKET"):
        opened.read_termination = opened.write_termination = "\n"
    opened.timeout = 2000
    reply = opened.query("*IDN?").strip()
    opened.close()
    return reply


def gone(pid: int, seconds: float = 3.0) -> bool:
    """Has this process ended, zombies included, within `seconds`?"""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_description_survives_json() -> None:
    wires = (VirtualWire("awg", "scope", Part("a:B", {"v_pi_v": 3.5}), delay_s=1e-9, load_ohm=None),)
    bench = VirtualBench(BENCH.boxes, wires, "both", 7, linger_s=1.5, log_path="x.log")
    assert VirtualBench.from_json(bench.to_json()) == bench


@pytest.mark.parametrize("line", ["", "[]", "3", '{"boxes": 1}', '{"boxes": [{"nam": "awg"}]}', '{"boxes": [], "x": 1}'])
def test_wrong_description_is_refused(line: str) -> None:
    with pytest.raises(ConfigError):
        VirtualBench.from_json(line)


def test_wrong_benches_are_refused() -> None:
    with pytest.raises(ConfigError, match="transport"):
        VirtualBench(BENCH.boxes, transport="gpib")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="distinct"):
        VirtualBench((BENCH.boxes[0], BENCH.boxes[0]))
    with pytest.raises(ConfigError, match="JSON"):
        VirtualBench((VirtualBox("awg", MEMORY, {"name": b"x"}),)).to_json()


def test_build_serves_from_this_process() -> None:
    with build(VirtualBench(BENCH.boxes, transport="both")) as bench:
        assert {name: identity(r) for name, r in bench.resources.items()} == {
            "awg": "Maker,M1,0,1.0",
            "scope": "Maker,M2,0,1.0",
        }
        assert {name: identity(r) for name, r in bench.sockets.items()} == {"awg": "Maker,M1,0,1.0", "scope": "Maker,M2,0,1.0"}
        assert all(r.endswith("INSTR") for r in bench.resources.values())
    bench.close()


def test_a_taken_port_closes_what_was_open() -> None:
    with build(VirtualBench((BENCH.boxes[0],), transport="socket")) as first:
        taken = int(first.sockets["awg"].split("::")[2])
        second = VirtualBench((VirtualBox("a", MEMORY), VirtualBox("b", MEMORY, socket_port=taken)), transport="socket")
        with pytest.raises(ConfigError, match="cannot listen"):
            build(second)


def test_spawned_bench_serves_and_ends_without_leaving_a_process() -> None:
    with spawn(VirtualBench(BENCH.boxes, transport="both")) as bench:
        assert bench.running
        assert identity(bench.resources["scope"]) == identity(bench.sockets["scope"]) == "Maker,M2,0,1.0"
        assert bench.control.outputs() == {
            "awg": {"1": {"on": True, "level_v": 0.5}},
            "scope": {"1": {"on": False, "level_v": 0.0}},
        }
        with pytest.raises(ConfigError, match="no wires"):
            bench.control.get("node.phase_rad")
    assert not bench.running
    assert gone(bench.pid)
    bench.stop()


def test_killed_bench_is_a_disconnect_for_its_clients() -> None:
    bench = spawn(BENCH)
    opened = pyvisa.ResourceManager("@py").open_resource(bench.resources["awg"])
    opened.timeout = 20_000
    opened.query("*IDN?")
    bench.kill()
    assert gone(bench.pid)
    began = time.monotonic()
    with pytest.raises((RuntimeError, ConnectionError)):
        opened.query("*IDN?")
    with pytest.raises(Disconnected):
        bench.control.outputs()
    assert time.monotonic() - began < 8
    opened.close()
    bench.stop()


def test_sigterm_ends_it_and_ctrl_c_does_not() -> None:
    bench = spawn(BENCH)
    os.kill(bench.pid, signal.SIGINT)
    assert identity(bench.resources["awg"]) == "Maker,M1,0,1.0"
    os.kill(bench.pid, signal.SIGTERM)
    assert gone(bench.pid)
    bench.stop()


def test_own_session_so_that_ctrl_c_on_the_terminal_does_not_reach_it() -> None:
    with spawn(BENCH) as bench:
        assert os.getsid(bench.pid) == bench.pid


PARENT = """
import json, sys
from sim_devices.bench.served import spawn
from sim_devices.bench.description import VirtualBench
bench = spawn(VirtualBench.from_json(sys.argv[1]))
print(json.dumps([bench.pid, bench.resources["awg"]]), flush=True)
sys.stdin.read()
"""


def parent_of(bench: VirtualBench) -> tuple[subprocess.Popen[str], int, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, bench.to_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert parent.stdout is not None
    pid, resource = json.loads(parent.stdout.readline())
    return parent, pid, resource


def end(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.communicate()


def test_no_orphan_when_the_parent_is_killed() -> None:
    parent, pid, _ = parent_of(BENCH)
    end(parent)
    assert gone(pid)


def test_it_can_outlive_its_parent_and_says_how_the_outputs_were(tmp_path: Path) -> None:
    log = tmp_path / "bench.log"
    parent, pid, resource = parent_of(VirtualBench(BENCH.boxes, linger_s=0.6, log_path=str(log)))
    end(parent)
    time.sleep(0.1)
    assert identity(resource) == "Maker,M1,0,1.0"
    assert gone(pid)
    notes = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [note["event"] for note in notes] == ["parent gone", "end: parent gone"]
    assert notes[0]["outputs"]["awg"] == {"1": {"on": True, "level_v": 0.5}}


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (VirtualBox("awg", "memory_box:MemoryBocks"), "MemoryBocks"),
        (VirtualBox("awg", "memory_bocks:MemoryBox"), "memory_bocks"),
        (VirtualBox("awg", MEMORY, {"nam": "x"}), "name, level_v"),
    ],
)
def test_refusal_of_the_child_is_raised_here(box: VirtualBox, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        spawn(VirtualBench((box,)))
    assert caught.value.where == "box awg"


def test_crash_of_the_child_shows_its_last_words() -> None:
    with pytest.raises(OpenFailed, match="could not convert string to float"):
        spawn(VirtualBench((VirtualBox("awg", "broken_box:BrokenBox", {"level_v": "two"}),)))


def test_silent_child_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 30\n", encoding="utf-8")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    with pytest.raises(OpenFailed, match=r"nothing after 0\.2 s"):
        spawn(BENCH, start_timeout_s=0.2)
