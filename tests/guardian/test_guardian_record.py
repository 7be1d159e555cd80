"""What a guardian writes down, and what is believed of a file that anybody may have written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from watched import fifo, link_to_a_fifo, on

from drivers.lock import Owner, left_unsafe, take
from drivers.safe import OFF, SafeState, Step
from drivers.scpi import Expect
from drivers.scpi_talk import OVER_VISA
from hil.guardian.client import guarded
from hil.guardian.record import left_by
from hil.run.outputs import outputs_of
from sim_devices.bench.served import RunningBench

HOSTILE = SafeState("awg", "", OVER_VISA, Expect(), (Step(":OUTP1 0", ":OUTP1?", OFF),))


@pytest.mark.parametrize("where", ["another", "the same"])
@pytest.mark.parametrize("address", ["resources", "sockets"])
def test_a_run_folder_commands_nothing(
    table: RunningBench, tmp_path: Path, address: str, where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What its guardian.jsonl names gets no message, whether or not it is on the bench; it is told to people, and no more."""
    resource = getattr(table, address)["awg"]
    state = asdict(replace(HOSTILE, resource=resource, name="awg\x1b[2J"))
    (tmp_path / "run" / "guardian.jsonl").write_text(
        json.dumps({"event": "watching", "pid": 1, "states": [state]}) + "\n", encoding="utf-8"
    )
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


def test_of_one_that_cannot_be_asked_nothing_more_is_said_than_is_known(
    table: RunningBench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    resource, run = table.resources["awg"], tmp_path / "run"
    owned = take([resource], Owner(1, str(run.resolve()), "", "test"))
    owned.write(resource, asdict(replace(HOSTILE, resource=resource, read_back=False)))
    owned.release(unverified=[resource])
    table.boxes["awg"].execute(b":OUTP1 1")  # type: ignore[attr-defined]
    with guarded([resource], silence_s=60.0, patience_s=0.0, run=run):
        assert not on(table)
    said = capfd.readouterr().err
    assert f"awg at {resource}: safe, as far as it took the command" in said
    assert "read back" not in said
    lines = [json.loads(line) for line in (run / "guardian.jsonl").read_text(encoding="utf-8").splitlines()]
    (made,) = (line for line in lines if line["event"] == "made safe")
    assert made["after"] == "off, but awg cannot be asked: what was sent is all that is known"


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
