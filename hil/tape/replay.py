"""A Device that answers from a tape, bit for bit, and only what was asked then.

    strict   shot k must be the recorded shot k: its drive, and what came between them (reset, program)
    any      looked up by key over the whole reel: a static device by its drive, a temporal one by all drives since the reset

With "any", an input that was recorded several times gets its answers in their order, and no answer twice, since a noisy node
would not give it twice. Where the tape shows that the node is not noisy (something was recorded more than once, and every time
the answer was the same), it may be asked as often as one likes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hil.device import ArraySpec, Spec
from hil.errors import ContractError, ReplayDiffers, RunError, TapeEnded
from hil.slew import Slew
from hil.tape.format import NO_KEY, PROGRAM, RESET, Floats, Reel, damaged, key_of, settings_digest
from hil.tape.recorder import NODE, array_name, kept, node_name

Order = Literal["strict", "any"]
OUTPUTS = "none; a replay drives nothing"


class Replay:
    """A device that answers what was recorded.

    Args:
        reel: of the device.
        order: see the module.

    Raises:
        ReplayDiffers: from `forward`: another input than was recorded: what differs, and the closest one.
        TapeEnded: from `forward`: nothing more was recorded.
    """

    def __init__(self, reel: Reel, order: Order = "strict") -> None:
        self._reel, self._order = reel, order
        self._spec = dataclasses.replace(reel.head.spec, provenance="replay")
        self._settings = settings_digest(reel.head.settings)
        self._flags, self._key = 0, NO_KEY
        self._params: Tensor | None = None
        self._known: dict[bytes, list[int]] = {}
        self._given: dict[bytes, int] = {}
        self.shots = 0  # given
        for shot in range(len(reel) if order == "any" else 0):
            self._known.setdefault(reel.key(shot), []).append(shot)
        repeated = [shots for shots in self._known.values() if len(shots) > 1]
        self._quiet = bool(repeated) and all(self._same_answer(shots) for shots in repeated)

    @property
    def spec(self) -> Spec:
        """Ports and kind as recorded, provenance "replay"."""
        return self._spec

    @property
    def slew(self) -> Slew:
        """Steps of the recorded drive; none is sent, so what is refused here was never recorded."""
        slew = self._reel.head.slew
        return dataclasses.replace(slew, by="refuses") if slew.by == "nobody" else slew

    def program(self, params: Tensor) -> None:
        """Note the parameters: they are part of the settings that a shot must have been recorded with."""
        self._settings = settings_digest(self._reel.head.settings, kept(params).tobytes())
        self._flags |= PROGRAM
        self._params = params.detach()

    @property
    def reads_back(self) -> bool:
        """True: a shot was recorded with what was asked for, however often that was written."""
        return self._spec.params is not None

    def held(self) -> Tensor:
        """Return what was programmed last, exactly: nothing is written once more."""
        if self._params is None:
            raise ContractError("nothing was programmed", where="replay", outputs=OUTPUTS)
        return self._params

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        """Do nothing: the shots that follow were recorded after it."""

    def reset(self) -> None:
        """Note a reset before the next shot."""
        self._flags |= RESET

    def forward(self, x: Tensor) -> Tensor:
        """Return the recorded answer to x.

        Raises:
            ReplayDiffers: another input than was recorded.
            TapeEnded: nothing more was recorded.
        """
        drive = kept(self._spec.inputs.check(x))
        goes_on = self._spec.temporal and not self._flags & RESET
        key = key_of(self._settings, self._key if goes_on else NO_KEY, drive)
        shot = self._next(key, drive) if self._order == "strict" else self._found(key, drive)
        answer = torch.from_numpy(self._reel.answer(shot)).to(x.device)
        self._flags, self._key, self.shots = 0, key, self.shots + 1
        return answer

    def close(self) -> None:
        """Do nothing: there is no output to make safe."""

    def _next(self, key: bytes, drive: Floats) -> int:
        shot = self.shots
        if shot == len(self._reel):
            raise TapeEnded(
                "the tape ends here", where=self._where(shot), got=f"a drive of shape {drive.shape}",
                allowed=f"{len(self._reel)} shots, which were all given", outputs=OUTPUTS,
            )  # fmt: skip
        flags = int(self._reel.rows[shot]["flags"])
        if key == self._reel.key(shot) and flags == self._flags:
            return shot
        raise ReplayDiffers(
            "the input differs from what was recorded", where=self._where(shot), got=self._difference(shot, drive, flags),
            allowed=f"the recorded input; {self._closest(drive)}", outputs=OUTPUTS,
            todo="the data, the code, torch or the number of threads changed since the recording",
        )  # fmt: skip

    def _found(self, key: bytes, drive: Floats) -> int:
        shots = self._known.get(key)
        if shots is None:
            raise ReplayDiffers(
                "this input was never recorded, so nobody knows the answer", where=self._where(self.shots),
                got=f"a drive of shape {drive.shape}; {self._closest(drive)}",
                allowed="what was recorded: drives that do not depend on what is being learned, in the same batches",
                outputs=OUTPUTS,
                todo="train only what lies behind the node (a readout on fixed hidden layers, with the recording's seed and "
                "epochs), or train on the node itself: hil train",
            )  # fmt: skip
        given = self._given.get(key, 0)
        if given >= len(shots) and not self._quiet:
            raise ReplayDiffers(
                "this input was asked more often than it was recorded", where=self._where(self.shots),
                got=f"asked for the {given + 1}. time", outputs=OUTPUTS,
                allowed=f"{len(shots)}, as the node is noisy, or was never seen not to be",
                todo="train no longer than the recorded run did, or record it again with more repeats",
            )  # fmt: skip
        self._given[key] = given + 1
        return shots[given % len(shots)]

    def _same_answer(self, shots: list[int]) -> bool:
        return len({self._reel.rows[shot]["answer"].tobytes() for shot in shots}) == 1

    def _where(self, shot: int) -> str:
        return f"replay of {self._reel.name}, shot {shot + 1}"

    def _difference(self, shot: int, drive: Floats, flags: int) -> str:
        parts = [
            f"{'a' if self._flags & flag else 'no'} {name} before it"
            for flag, name in ((RESET, "reset()"), (PROGRAM, "program()"))
            if (self._flags ^ flags) & flag
        ]
        shape = self._reel.shape(shot)
        if shape != drive.shape:
            return ", ".join([*parts, f"shape {drive.shape} where {shape} was recorded"])
        recorded = self._reel.drive(shot)
        changed = np.flatnonzero(recorded.view(np.uint32) != drive.view(np.uint32))
        if len(changed):
            first = tuple(int(i) for i in np.unravel_index(changed[0], shape))
            largest = float(np.abs(recorded - drive).max())
            parts.append(
                f"{len(changed)} of {drive.size} values, by up to {largest:.4g}{self._unit}; "
                f"the first at {first}: {float(drive[first]):.9g} for {float(recorded[first]):.9g}"
            )
        return ", ".join(parts) or "other parameters programmed, or another history since the reset"

    def _closest(self, drive: Floats) -> str:
        """The recorded drive with the smallest rms difference, among those of the same shape."""
        best = min(((_rms(self._reel.drive(shot), drive), shot) for shot in self._alike(drive)), default=None)
        if best is None:
            return f"no recorded input has the shape {drive.shape}"
        history = ", but after another history since the reset" if best[0] == 0 and self._spec.temporal else ""
        return f"closest is shot {best[1] + 1}, at {best[0]:.4g}{self._unit} rms{history}"

    @property
    def _unit(self) -> str:
        unit = self._spec.inputs.unit
        return "" if unit == "1" else f" {unit}"

    def _alike(self, drive: Floats) -> Iterator[int]:
        return (shot for shot in range(len(self._reel)) if self._reel.shape(shot) == drive.shape)


class ReplayStream(Replay):
    """A Replay of a device that was Streaming."""

    def submit(self, x: Tensor) -> Future[Tensor]:
        """Return the recorded answer as a future that is done."""
        answer: Future[Tensor] = Future()
        answer.set_result(self.forward(x))
        return answer


class ReplayChip:
    """A Chip whose arrays are on the tape, in the order in which they were cut."""

    def __init__(self, reels: list[Reel], order: Order = "strict") -> None:
        self._reels, self._order = reels, order
        self.devices: list[Replay] = []

    def array(self, spec: ArraySpec) -> Replay:
        """Return the next array of the tape.

        Raises:
            ReplayDiffers: it was cut otherwise, or not at all.
        """
        number, made = len(self.devices), dataclasses.asdict(spec)
        reel = self._reels[number] if number < len(self._reels) else None
        if reel is None or dict(reel.head.made) != made:
            raise ReplayDiffers(
                "an array of neurons that was not recorded", where=f"replay, array {number + 1}", got=str(made),
                allowed=f"{len(self._reels)} arrays" if reel is None else str(dict(reel.head.made)), outputs=OUTPUTS,
                todo="use the network and the learner of the recording, or train on the chip itself: hil train",
            )  # fmt: skip
        self.devices.append(replay(reel, self._order))
        return self.devices[-1]

    def close(self) -> None:
        """Do nothing: there is no output to make safe."""


def replay(reel: Reel, order: Order = "strict") -> Replay:
    """A Device over `reel`; Streaming if the recorded one was."""
    return ReplayStream(reel, order) if reel.head.streaming else Replay(reel, order)


def reels(tape: Path) -> list[Reel]:
    """Return all reels of a tape, in the order of their devices.

    Raises:
        RunError: there is no tape, or it is damaged.
    """
    names = sorted((path.stem for path in tape.glob("*.json") if path.stem != "tape"), key=lambda name: (len(name), name))
    if not (tape / "tape.json").is_file() or not names:
        raise RunError(
            "no tape", where=str(tape), got="nothing was recorded", allowed="a run that was trained with record",
            outputs="untouched; nothing was opened", todo="record one: hil train EXPERIMENT.toml --record",
        )  # fmt: skip
    name_of = node_name if names[0].startswith(NODE) else array_name
    due = [NODE] if names == [NODE] else [name_of(number + 1) for number in range(len(names))]
    lost = sorted({path.name for path in tape.iterdir() if path.is_dir()} - set(names)) + sorted(set(due) - set(names))
    if lost:
        raise damaged(tape, f"{', '.join(names)}, but nothing of {lost[0]}", f"{lost[0]}.json and its arrays")
    return [Reel(tape, name) for name in names]


def _rms(a: Floats, b: Floats) -> float:
    return float(np.sqrt(np.square(a.astype(np.float64) - b).mean())) if a.size else 0.0
