"""Run folders that somebody damaged, or made to do harm, under every command that takes one.

A tiny run on a twin is copied, one thing of the copy is made hostile, and commands run on it, in forks of this process that has
everything imported, each within a time. Beside the figures that `hostile.py` names:

harmed       files outside of the folder that a command changed
raw          commands that let a control character through to the terminal
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import resource
import select
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from drivers.scpi_talk import OVER_VISA
from drivers.spiking.talk import OVER_SERIAL
from hil.cli import run
from hil.plain import HIDDEN

EXPERIMENT = """
name = "tiny"
seed = 1
[data]
train_examples = 16
[network]
widths = [64, 3, 10]
[device]
use = "mach_zehnder"
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[train]
epochs = 1
batch = 8
threads = 1
"""
BENCH = """
name = "nobody"
shape = "waveform"
[instruments.awg]
use = "drivers.keysight_33600:Keysight33600"
resource = "TCPIP::127.0.0.1::1::SOCKET"
low_v = -1.0
high_v = 1.0
timeout_s = 0.2
[instruments.scope]
use = "drivers.keysight_infiniivision:InfiniiVision"
resource = "TCPIP::127.0.0.1::1::SOCKET"
range_v = 1.0
offset_v = 0.0
timeout_s = 0.2
[node]
drive = "awg"
read = "scope"
[waveform]
[guardian]
patience_s = 0.3
"""
EVIL = "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\nclass Thing:\n    pass\n"
SHOWN = "x\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202e[bold red]y[/] [link=file:///etc/passwd]z[/link] <script>alert(1)</script>"
OTHERS: tuple[Any, ...] = (None, -1, 10**30, math.nan, -math.inf, True, SHOWN, [], [[]], {}, {"a": []}, 0.5, "")
LIMIT_S = 30.0
QUICK, QUICK_S, FULL = 150, 20.0, 2200
GIB = 1 << 30
LOOKING = (("status",), ("status", "--log"), ("report",), ("list", "runs"))
Change = Callable[[Path], None]


@dataclass(frozen=True)
class Trial:
    """A way to make a run folder hostile, and the commands to try on it. taped: it needs a run with a tape."""

    name: str
    change: Change
    commands: Sequence[Sequence[str]] = LOOKING
    taped: bool = False


def measure(quick: bool) -> dict[str, int]:
    """Counts, see `hostile.py` and above."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hil-folders-") as name:
        place = Place(Path(name))
        trials = list(place.trials())
        random.Random(7).shuffle(trials)
        due, found = QUICK if quick else FULL, Counter[str]()
        for trial in trials:
            if found["folders_tried"] >= due or (quick and time.monotonic() - begin > QUICK_S):
                break
            commands = (
                trial.commands if not quick else [c for c in trial.commands if c[0] in ("status", "list")] or trial.commands
            )
            for kind, command in place.tried(trial, commands):
                found[kind] += 1
                if kind != "folders_tried":
                    print(f"{kind}: {trial.name}: {' '.join(command)}", file=sys.stderr)
        place.close()
        found["sent_by_folder"] = place.received
    keys = ("folders_tried", "tracebacks", "hangs", "imports_by_looking", "sent_by_folder", "harmed", "raw")
    return {key: found[key] for key in keys}


class Place:
    """Two runs to copy, a file outside that nobody may change, and a socket that nobody may write to."""

    def __init__(self, home: Path) -> None:
        self.home, self.received = home, 0
        os.environ["HIL_LOCKS"] = str(home / "locks")
        os.chdir(home)
        torch.set_num_threads(1)  # a pool of threads would not survive a fork
        (home / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
        (home / "evil_lab.py").write_text(EVIL, encoding="utf-8")  # the working directory has one too
        self.outside = home / "outside"
        self.outside.mkdir()
        (self.outside / "kept").write_text("not of the run\n", encoding="utf-8")
        said = _quietly(lambda: run(["train", "e.toml", "--run", "runs/plain"]))
        said += _quietly(lambda: run(["train", "e.toml", "--run", "runs/taped", "--record"]))
        assert said == 0, "the runs that are to be damaged could not be made"
        self.plain, self.taped = home / "runs" / "plain", home / "runs" / "taped"
        _unfinished(self.plain)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        os.chdir("/")

    def _count(self) -> None:
        with suppress(OSError):
            while True:
                wire, _ = self._listener.accept()
                with wire, suppress(OSError):
                    wire.settimeout(2.0)
                    self.received += bool(wire.recv(1))

    def tried(self, trial: Trial, commands: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
        """(what happened, command) of every command; "folders_tried" is one of them."""
        target = self.home / "runs" / "hostile"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.taped if trial.taped else self.plain, target)
        trial.change(target)
        before, marks = _state(self.outside), [target / "imported", self.home / "imported"]
        for command in commands:
            named = [str(target)] if command[0] != "list" else []
            code, said = _in_fork([command[0], *named, *command[1:]])
            yield "folders_tried", command
            if code is None:
                yield "hangs", command
            elif code not in (0, 2, 3, 4, 130) or "Traceback" in said:
                print(said[-1500:], file=sys.stderr)
                yield "tracebacks", command
            if HIDDEN.search(said.replace("\r", "")):
                yield "raw", command
            if (command in LOOKING or "--help" in command) and any(mark.exists() for mark in marks):
                yield "imports_by_looking", command
            for mark in marks:
                mark.unlink(missing_ok=True)
            if _state(self.outside) != before:
                yield "harmed", command
                before = _state(self.outside)

    def trials(self) -> Iterator[Trial]:
        resume, use, replay = (("resume",),), (("use", "--rounds", "1"),), (("replay",),)
        names = sorted(str(p.relative_to(self.plain)) for p in self.plain.rglob("*") if p.is_file())
        for name in names:
            for kind, change in self._kinds(name):
                yield Trial(f"{name} {kind}", change, (*LOOKING, *resume, *use))
        for kind, change in self._kinds("guardian.jsonl"):
            yield Trial(f"guardian.jsonl {kind}", change, LOOKING[:2])
        taped = sorted(str(p.relative_to(self.taped)) for p in self.taped.rglob("*") if p.is_file() and "tape" in p.parts)
        for name in taped:
            for kind, change in self._kinds(name):
                yield Trial(f"{name} {kind}", change, (LOOKING[0], *replay), taped=True)
        yield from self._fields(names, (*LOOKING, *resume, *use))
        tables = [name for name in taped if name.endswith(".json")]
        yield from (Trial(t.name, t.change, replay, True) for t in self._fields(tables, ()))
        for name in ("checkpoints", "tape"):
            for kind, change in self._kinds(name):
                yield Trial(f"{name} {kind}", change, (*LOOKING, *resume, *use, *replay), taped=True)
        for key in ("device", "learner", "optimizer", "network"):
            for module in ("evil_lab:Thing", "evil_lab.part:Thing", SHOWN + ":Thing"):
                yield Trial(f"{key} uses a module of the folder", _using(key, module), (*LOOKING, ("resume", "--help")))
        for state in range(4):
            yield Trial(f"guardian.jsonl {state}", self._guardian(state), (*LOOKING, ("resume", "--changed")))
        yield Trial("writable by all", lambda run: run.chmod(0o777), (*LOOKING, *resume, *use, *replay))
        yield Trial(
            "another's", lambda run: os.chown(run, 12345, 12345) if os.geteuid() == 0 else None, (*resume, *use, *replay)
        )

    def _kinds(self, name: str) -> Iterator[tuple[str, Change]]:
        """Return what may stand in the place of a file or folder."""

        def put(make: Change) -> Change:
            def change(run: Path) -> None:
                path = run / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                make(path)

            return change

        rng = random.Random(name)
        yield "a pipe", put(os.mkfifo)
        yield "a link outside", put(lambda p: p.symlink_to(self.outside / "kept"))
        yield "a link to a folder", put(lambda p: p.symlink_to(self.outside))
        yield "a link to nothing", put(lambda p: p.symlink_to(self.outside / "new"))
        yield "a link to itself", put(lambda p: p.symlink_to(p.name))
        yield "a link to /dev/zero", put(lambda p: p.symlink_to("/dev/zero"))
        yield "a folder", put(lambda p: p.mkdir())
        yield "a socket", put(lambda p: os.mknod(p, stat.S_IFSOCK | 0o600))
        yield "10 GB of nothing", put(lambda p: _sparse(p, 10 * GIB))
        yield "empty", put(lambda p: p.write_bytes(b""))
        yield "unreadable", put(lambda p: (p.write_bytes(b"{}"), p.chmod(0))[1])
        yield "deep", put(lambda p: p.write_bytes(b"[" * 200_000))
        yield "deep and closed", put(lambda p: p.write_bytes(b'{"a":' * 50_000 + b"1" + b"}" * 50_000))
        yield "a long number", put(lambda p: p.write_bytes(b'{"step": ' + b"9" * 20_000 + b"}"))
        yield "noise", put(lambda p: p.write_bytes(rng.randbytes(5_000)))
        yield "noise again", put(lambda p: p.write_bytes(rng.randbytes(300)))
        yield "a list", put(lambda p: p.write_bytes(b"[1, 2]\n"))
        yield "null", put(lambda p: p.write_bytes(b"null\n"))
        yield "UTF-16", put(lambda p: p.write_bytes('{"kind": "start"}'.encode("utf-16")))
        yield "gone", put(lambda p: None)

    def _fields(self, names: Sequence[str], commands: Sequence[Sequence[str]]) -> Iterator[Trial]:
        """Every field of every JSON and TOML file as another kind of value."""
        rng = random.Random(len(names))
        for name in names:
            text = (self.plain if (self.plain / name).exists() else self.taped) / name
            places: list[tuple[int, tuple[Any, ...]]] = []
            if name.endswith(".jsonl"):
                for number, line in enumerate(text.read_text(encoding="utf-8").splitlines()):
                    places += [(number, place) for place in _places(json.loads(line))]
            elif name.endswith(".json"):
                places = [(0, place) for place in _places(json.loads(text.read_text(encoding="utf-8")))]
            for number, place in places if len(places) < 40 else rng.sample(places, 40):
                for value in rng.sample(OTHERS, 2):
                    change = _with(name, number, place, value)
                    yield Trial(f"{name} {'.'.join(map(str, place))} = {value!r}", change, commands)
            if name.endswith(".safetensors"):
                for kind in ("missing", "extra", "shape", "dtype", "nan"):
                    for _ in range(3):
                        yield Trial(f"{name} a tensor {kind}", _tensors(name, kind, rng.random()), commands)

    def _guardian(self, state: int) -> Change:
        """A state of a socket of ours, left by a run on a bench of other addresses."""
        resource_ = f"TCPIP::127.0.0.1::{self.port}::SOCKET"
        left = {
            "name": "awg", "resource": resource_, "talk": OVER_VISA if state < 3 else OVER_SERIAL, "shared": True,
            "expect": {"maker": [""], "model": "", "serial": ""},
            "steps": [{"command": ":OUTP1 0", "question": ":OUTP1?", "answers": ["0"]}], "ramp": None, "outputs": "unknown",
        }  # fmt: skip
        lines = [{"t": "2026-11-25T01:15:42.123+00:00", "event": "watching", "virtual": False, "states": [left]}]
        if state == 1:
            lines.append({"t": "2026-11-25T01:15:43.123+00:00", "event": "attempt", "outputs": "unknown"})
        if state == 2:
            lines[0]["states"] = [left] * 3

        def change(run: Path) -> None:
            (run / "guardian.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            (run / "bench.toml").write_text(BENCH, encoding="utf-8")
            text = (run / "config.toml").read_text(encoding="utf-8").replace('use = "mach_zehnder"', 'bench = "bench.toml"')
            (run / "config.toml").write_text(text, encoding="utf-8")

        return change


def _unfinished(run: Path) -> None:
    """Make the run look stopped after its first epoch of two."""
    (run / "config.toml").write_text(
        (run / "config.toml").read_text(encoding="utf-8").replace("epochs = 1", "epochs = 2"), encoding="utf-8"
    )
    table = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    (run / "summary.json").write_text(json.dumps({**table, "status": "interrupted"}), encoding="utf-8")


def _using(key: str, module: str) -> Change:
    def change(run: Path) -> None:
        import tomli_w

        from hil import toml

        table = toml.loads((run / "config.toml").read_text(encoding="utf-8"))
        table[key] = {"use": module}
        (run / "config.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
        (run / "evil_lab.py").write_text(EVIL, encoding="utf-8")

    return change


def _with(name: str, number: int, place: tuple[Any, ...], value: Any) -> Change:
    """A field changed; of a checkpoint's facts the sums are made anew, as somebody who means it would."""

    def change(run: Path) -> None:
        path = run / name
        lines = path.read_text(encoding="utf-8").splitlines() if name.endswith(".jsonl") else [path.read_text(encoding="utf-8")]
        table = json.loads(lines[number])
        at = table
        for key in place[:-1]:
            at = at[key]
        at[place[-1]] = value
        if name.startswith("checkpoints/"):
            table = _summed(table)
        lines[number] = json.dumps(table)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return change


def _summed(facts: dict[str, Any]) -> dict[str, Any]:
    told = {key: value for key, value in facts.items() if key != "facts_sha256"}
    return {**told, "facts_sha256": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()}


def _tensors(name: str, kind: str, chance: float) -> Change:
    def change(run: Path) -> None:
        path = run / name
        found = dict(safetensors.torch.load(path.read_bytes()))
        key = sorted(found)[int(chance * len(found))]
        changed = {
            "missing": lambda t: None,
            "extra": lambda t: t,
            "shape": lambda t: torch.zeros(5, 2),
            "dtype": lambda t: t.to(torch.float16),
            "nan": lambda t: torch.full_like(t, math.nan) if t.is_floating_point() else t,
        }[kind](found[key])
        found = {k: t for k, t in found.items() if k != key} | ({} if changed is None else {key: changed})
        found |= {"net.surplus": torch.zeros(2)} if kind == "extra" else {}
        payload = safetensors.torch.save(found)
        path.write_bytes(payload)
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        path.with_suffix(".json").write_text(
            json.dumps(_summed({**facts, "sha256": hashlib.sha256(payload).hexdigest()})), encoding="utf-8"
        )

    return change


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every field of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [place for key, part in parts for place in [(*at, key), *_places(part, (*at, key))]]


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _state(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((str(p), p.read_bytes()) for p in folder.rglob("*") if p.is_file())


def _quietly(what: Callable[[], int]) -> int:
    """Run it in this process, so that everything is imported; what it prints is thrown away."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        return what()
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


def _in_fork(arguments: Sequence[str]) -> tuple[int | None, str]:
    """(exit code, or None if it had to be ended; what it said) of a command."""
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        ended, end = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(arguments, said.fileno())
        os.close(end)
        done, _, _ = select.select([ended], [], [], LIMIT_S)
        os.close(ended)
        if not done:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    return (os.waitstatus_to_exitcode(status) if done else None), text


def _become(arguments: Sequence[str], said: int) -> None:
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        most = 24 * GIB  # of addresses: who reads a file whole that is too large fails, and this machine lives on
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        code = run(arguments)
    except BaseException:  # noqa: BLE001 - whatever it is: it is this process's end
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
