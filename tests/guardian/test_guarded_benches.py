"""The guardian of a bench file: armed with what was opened, and with nothing that was not."""

from __future__ import annotations

import os
import pty
import socket
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from watched import HERE, Child, gone, on, soon

from drivers.links.serial_link import ports
from drivers.lock import Owner, folder, left_unsafe, machine_folder, take
from drivers.scpi import Expect
from drivers.spiking.talk import board
from hil.build.bench import open_bench
from hil.build.shapes.waveform import WaveformBench, description
from hil.config.bench import bench_of, read_bench
from hil.errors import (
    ConfigError,
    LinkTimeout,
    OpenFailed,
    RunError,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.guardian.client import guarded
from hil.run.outputs import outputs_of
from sim_devices.bench.board import RunningBoard
from sim_devices.bench.served import spawn

BENCHES = HERE.parent / "benches"


PATIENCE_S = 60.0  # would be spent if a guard were armed


def bench_file(tmp_path: Path, bench: Any) -> Path:
    """The waveform bench as it would stand on a table."""
    real = tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text(encoding="utf-8"))
    del real["virtual"]
    for name in ("awg", "scope"):
        real["instruments"][name]["resource"] = bench.resources[name]
    path = tmp_path / "bench.toml"
    path.write_text(tomli_w.dumps(real), encoding="utf-8")
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
    real = tomllib.loads((BENCHES / "spiking_board.toml").read_text(encoding="utf-8"))
    del real["virtual"]
    real["instruments"]["board"] |= {"resource": port, **board}
    real["guardian"] = {"patience_s": PATIENCE_S}
    path = tmp_path / "board.toml"
    path.write_text(tomli_w.dumps(real), encoding="utf-8")
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
        port.write_text("", encoding="utf-8")
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
    real = tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text(encoding="utf-8"))
    del real["virtual"]
    real["instruments"]["awg"]["resource"], real["instruments"]["scope"]["resource"] = (
        address.format(port),
        "TCPIP::127.0.0.1::1::SOCKET",
    )
    path = tmp_path / "bench.toml"
    path.write_text(tomli_w.dumps(real), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(OpenFailed, match="nothing was sent"):
            opens(path, tmp_path / "run")
        assert lock_files() == []
        assert outputs_of(tmp_path / "run") == ""


@pytest.mark.parametrize("transport", ["hislip", "vxi11", "socket"])
def test_whether_other_computers_are_kept_out_is_told(tmp_path: Path, transport: str) -> None:
    tables = tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text(encoding="utf-8"))
    tables["virtual"]["transport"] = transport
    bench = bench_of(tables, Path("test"))
    assert isinstance(bench, WaveformBench)
    with spawn(description(bench)) as served:
        path = bench_file(tmp_path, served)
        with open_bench(read_bench(path), tmp_path / "run") as opened:
            told = ["not kept out" in line for line in opened.resources.values()]
    assert told == [transport != "hislip"] * 2


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
    tables = {**tomllib.loads((BENCHES / "mzm_awg_scope.toml").read_text(encoding="utf-8")), **change}
    with pytest.raises(ConfigError, match=said), open_bench(bench_of(tables, Path("bench.toml"))):
        pytest.fail("it was opened")
    with pytest.raises(ConfigError):
        bench_of(
            {**tomllib.loads((BENCHES / "spiking_board.toml").read_text(encoding="utf-8")), "safe": {"order": ["awg"]}},
            Path("b"),
        )
