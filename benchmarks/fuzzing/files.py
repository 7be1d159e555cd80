"""Targets on disk: TOML files, a run folder, and a safe state as JSON."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tomllib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from drivers.safe import SafeState, carry_out
from drivers.scpi import Identity
from drivers.scpi_talk import OVER_VISA
from drivers.spiking.talk import OVER_SERIAL
from fuzzing.target import OutOfLimits, Target
from hil.commands import compare
from hil.config import experiment
from hil.config.bench import read_bench
from hil.config.read import dump
from hil.errors import ConfigError, InstrumentError, RunError
from hil.run import checkpoint, journal, resume, status
from hil.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


def toml(folder: Path, stack: ExitStack) -> Target:
    """The first byte says which reader."""
    experiments = [p.read_bytes() for p in sorted((ROOT / "experiments").glob("*.toml"))]
    compares = [(ROOT / "experiments" / "compare_digits.toml").read_bytes()]
    benches = [p.read_bytes() for p in sorted((ROOT / "benches").glob("*.toml"))]
    path = folder / "fuzz.toml"
    readers = (experiment.read_experiment, read_bench, compare.read)

    def run(data: bytes) -> None:
        path.write_bytes(data[1:])
        read = readers[(data[0] if data else 0) % len(readers)]
        found = read(path)
        if read is not compare.read:
            experiment.checked(type(found), tomllib.loads(dump(found)), "again")

    samples = [bytes([k]) + text for k, texts in enumerate((experiments, benches, compares)) for text in texts]
    samples.append(b"\x01" + (ROOT / "docs" / "reference" / "virtual_bench.md").read_bytes())
    return Target("toml", samples, run, (ConfigError,))


def overrides(folder: Path, stack: ExitStack) -> Target:
    table = (ROOT / "experiments" / "digits_adfa_twin.toml").read_text(encoding="utf-8")
    samples = (b"train.epochs=3", b"learner.use=dfa", b'encode.gain="1.5 V"', b"augment.shift = 1", b"network.widths=[64, 10]")

    def run(data: bytes) -> None:
        found = tomllib.loads(table)
        experiment.override(found, data.decode("utf-8", "replace"))
        experiment.checked(experiment.Experiment, found, "fuzz")

    return Target("overrides", samples, run, (ConfigError,))


JOURNAL = "".join(
    json.dumps({"t": f"2026-11-25T01:15:{k:02d}.123+00:00", **facts}, separators=(",", ":")) + "\n"
    for k, facts in enumerate(
        [{"kind": "start", "epochs": 2, "batches_per_epoch": 10}]
        + [
            {"kind": "commit", "step": s, "epoch": 1, "batch": s, "loss": 0.31, "passes": 100 * s, "device_s": 1.523 * s}
            for s in range(1, 11)
        ]
        + [
            {"kind": "epoch", "step": 10, "epoch": 1, "accuracy": 0.5},
            {"kind": "checkpoint", "step": 10, "file": "step-00000010.json"},
        ]
        + [
            {"kind": "fault", "message": "no answer"},
            {"kind": "recovered", "in_all": 1},
            {"kind": "resume", "step": 10},
            {"kind": "end"},
        ]
    )
).encode()
EPOCH = {"epoch": 1, "split": "train", "accuracy": 0.5, "loss": 0.3}


def run_folder(folder: Path, stack: ExitStack) -> Target:
    """One file of a run folder is the input, the others are as hil wrote them."""
    path = folder / "run"
    (path / "checkpoints").mkdir(parents=True)
    text = (ROOT / "experiments" / "digits_adfa_twin.toml").read_text(encoding="utf-8")
    tensors = {"net.0.weight": torch.ones(3, 2)}
    facts = {"step": 10, "experiment": tomllib.loads(text), "bench_sha256": ""}
    saved = checkpoint.save(path / "checkpoints", checkpoint.name(10, True), checkpoint.Checkpoint(tensors, facts))
    good = {
        "config.toml": text.encode(),
        "journal.jsonl": JOURNAL,
        "summary.json": b'{"status": "fault", "steps": 10}',
        "diagnostics.json": b'{"traffic": {}}',
        "metrics.jsonl": (json.dumps(EPOCH) + "\n").encode() * 2,
        f"checkpoints/{saved.name}": saved.read_bytes(),
        f"checkpoints/{saved.stem}.safetensors": saved.with_suffix(".safetensors").read_bytes(),
        "run.lock": b'{"pid": 4242, "host": "h", "since": "then", "command": "hil train"}\n',
    }
    names = list(good)
    kept = folder / "good"
    for name, content in good.items():
        (path / name).write_bytes(content)
    shutil.copytree(path, kept)

    def run(data: bytes) -> None:
        name = names[(data[0] if data else 0) % len(names)]
        try:
            (path / name).write_bytes(data[1:])
            _read(path, name)
        finally:
            shutil.copy(kept / name, path / name)

    return Target("run_folder", [bytes([k]) + content for k, content in enumerate(good.values())], run, (RunError,))


def _read(path: Path, name: str) -> None:
    for verify in (True, False):
        with contextlib.suppress(RunError):
            found = resume.inspect(path, verify)
            for changed in (False, True):
                with contextlib.suppress(RunError):
                    resume.plan(found, changed=changed)
            resume.plan(replace(found, damages=()), Path(f"step-{10:08d}.json"))
    for most in (None, 0, 5):
        told = journal.contents(path / "journal.jsonl", most)
        list(journal.missing(journal.committed(told.records)))
    assert list(status.lines(status.read(path)))
    assert status.brief(path)
    list(status.log(path))
    with contextlib.suppress(RunError):
        checkpoint.load(checkpoint.latest(path / "checkpoints"))
    run = RunFolder(path)
    for file in ("summary.json", "diagnostics.json"):
        with contextlib.suppress(RunError):
            run.read_json(file)
    if name == "metrics.jsonl":
        run.forget_metrics_after(1)


RAMP = {"output": ":OUTP1", "amplitude": ":SOUR1:VOLT", "offset": ":SOUR1:VOLT:OFFS", "slew_v_per_s": 100.0, "least_vpp": 0.001,
        "low_v": -1.0, "high_v": 1.0, "step_s": 0.02}  # fmt: skip
STATE = {
    "name": "awg",
    "resource": "TCPIP::127.0.0.1::5025::SOCKET",
    "talk": OVER_VISA,
    "shared": True,
    "expect": {"maker": ["KEYSIGHT", "AGILENT"], "model": "33622A", "serial": "MY1"},
    "steps": [{"command": ":OUTP1 0", "question": ":OUTP1?", "answers": ["0", "+0", "OFF"]}],
    "ramp": RAMP,
    "outputs": "unknown",
}


class Said:
    """An instrument that answers lines of the input, and checks what it is told: the volts of a ramp from -1 to 1 V."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.decode("ascii", "replace").split("\n")

    def do(self, command: str, question: str) -> str:
        if command.startswith(":SOUR1:VOLT "):
            vpp, volts = (float(part.split(" ")[1]) for part in command.split(";"))
            top = max(abs(volts + 0.5 * vpp), abs(volts - 0.5 * vpp))
            if not (0 <= vpp <= 2.0 * 1.001 and top <= 1.001 and math.isfinite(top)):
                raise OutOfLimits(command)
        return self._lines.pop(0) if len(self._lines) > 1 else self._lines[0]


def safe_state(folder: Path, stack: ExitStack) -> Target:
    """Whatever is read as a safe state can be written again, compared with an identity, and carried out."""
    samples = [json.dumps(STATE).encode(), json.dumps({**STATE, "ramp": None}).encode()]
    disarmed = [{"command": "SAFE", "question": "STATUS", "answers": ["disarmed"]}]
    samples.append(json.dumps({**STATE, "talk": OVER_SERIAL, "shared": False, "steps": disarmed}).encode())

    def run(data: bytes) -> None:
        state = SafeState.from_json(data.decode("utf-8", "replace"))
        assert SafeState.from_json(state.to_json()) == state
        state.expect.admits(Identity("Keysight", "33622A", "MY1", "1"))
        str(state.expect)
        with contextlib.suppress(InstrumentError):
            carry_out(state, Said(b"0"), clock=lambda: 0.0, sleep=lambda s: None)

    return Target("safe_state", samples, run, (ConfigError,))


def ramp(folder: Path, stack: ExitStack) -> Target:
    """A ramp down, on whatever the instrument answers: it stays inside the limits, and ends."""
    state = SafeState.from_json(json.dumps(STATE))
    answers = ("1", "2.0;0", "+1.50000000000000E+00;+2.5E-01", "0.5;0.1", "0.001;0", "0.0;0", "0")

    def run(data: bytes) -> None:
        carry_out(state, Said(data), clock=lambda: 0.0, sleep=lambda s: None)

    return Target(
        "ramp", ["\n".join(answers).encode(), b"1\n2.0;0\n0", b"0\n0", b"ON\n0.3;-0.8\n0.2;-0.5\n0"], run, (InstrumentError,)
    )


TARGETS = (toml, overrides, run_folder, safe_state, ramp)
