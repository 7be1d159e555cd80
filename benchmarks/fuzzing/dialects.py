"""Simulated instruments as targets: each one that has a golden transcript, on damaged messages of that session."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from fuzzing.boxes import Clock, Impatient
from fuzzing.target import Target

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "drivers"))
from golden import CASES, SIM, named, takes_frames, talked

TOGETHER = 6  # messages of one sample: what one sets, the next uses


def dialect(name: str, folder: Path, stack: ExitStack) -> Target:
    """Tell the box of a transcript damaged messages: it answers in bytes, keeps and restores its state, and lives on."""
    driver, _, use, settings = CASES[name]
    kind, said = named(f"{SIM}{use}"), talked(name)[0]
    between = b"" if hasattr(kind, "feed") else b"\n"
    samples = list(dict.fromkeys(between.join(said[at : at + TOGETHER]) for at in range(0, len(said), TOGETHER // 2)))

    def run(data: bytes) -> None:
        clock = Clock()
        lock = Impatient(clock)
        box = kind(lock=lock, **settings, **({"clock": clock} if "clock" in signature(kind).parameters else {}))
        lock.boxes = [box]
        for message in data.split(b"\n") if between else [data]:
            reply = box.execute(message) if between else box.feed(message)
            assert reply is None or isinstance(reply, bytes)
        clock.tick_s = 0.0
        if not takes_frames(named(driver)):  # a board of frames keeps its state to itself
            once = _restored(box, box.snapshot())  # a scope that waits begins its wait anew
            assert _restored(box, once) == once, "not what was kept"
        box.reboot()
        assert box.feed(said[0]) if not between else box.execute(b"*IDN?"), "it is dead"

    return Target(f"dialect_{name}", samples, run)


def _restored(box: Any, state: object) -> object:
    """Give the box a state as JSON text, and return the state that it has then."""
    box.restore(json.loads(json.dumps(state)))
    return json.loads(json.dumps(box.snapshot()))


def _made(name: str) -> Callable[[Path, ExitStack], Target]:
    made = partial(dialect, name)
    made.__name__, made.__module__ = name, __name__  # type: ignore[attr-defined]
    return made


TARGETS = tuple(map(_made, {use: name for name, (_, _, use, _) in reversed(CASES.items())}.values()))  # the first of each box
