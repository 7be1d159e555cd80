"""The reference curves that a sentinel watches: one for a node that all neurons share, else one for each channel.

    shared     every channel is the same node            drives up and down                        1 curve
    apart      reading k answers to drive k alone        all channels up and down, each in its range      a curve a channel
    mixed      every reading answers to every drive      rows: channel k is (2 i + s_k) places along its way up and down,
                                                         s_k spread by the golden ratio, there and back    a curve a reading

A row of the mixed probe has another drive on every channel, and no channel makes a step of more than two places. A curve over
such rows shows scale, offset, shape and noise; a walk of one bias cannot be told from it.

Whether channels are apart is measured, not believed: those of the mixed probe are places of the probe of channels apart, so a
channel that answers to its own drive alone has answered there already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calibration.drift.estimate import Departure, Floats, Reference, probe
from hil.device import Port, Spec
from hil.port import each

Kind = Literal["shared", "apart", "mixed"]
MOST_MIXED = 16  # with more of them, false alarms add up, and so does the host's time
GOLDEN = (math.sqrt(5) - 1) / 2  # no two channels go up together, and none is the mirror image of another
CROSSTALK = 0.05  # of the half swing, rms: what the others may change in a reading of channels that are apart


@dataclass(frozen=True)
class Curves:
    """The references of a node.

    Args:
        kind: see the module.
        outputs: the channel of the readings that each belongs to, from 0.
        each: the references.
        size: how many readings there are.
    """

    kind: Kind
    outputs: tuple[int, ...]
    each: tuple[Reference, ...]
    size: int = 1

    def departures(self, shot: Floats, shots: int) -> tuple[Departure, ...]:
        """Return how a shot (L, 2m), a mean over so many, differs from each reference curve."""
        return tuple(one.departure(shot[output], shots) for output, one in zip(self.outputs, self.each, strict=True))

    def as_noisy_as(self, shots: Floats) -> Curves:
        """The same curves, with the noise of these shots (R, L, 2m)."""
        again = (one.as_noisy_as(shots[:, output]) for output, one in zip(self.outputs, self.each, strict=True))
        return replace(self, each=tuple(again))

    @property
    def answer(self) -> Floats:
        """(L, 2m) the mean answers; 0 of a reading that is not watched."""
        found = np.zeros((self.size, len(self.each[0].answer)))
        for output, one in zip(self.outputs, self.each, strict=True):
            found[output] = one.answer
        return found

    def periods(self, said: tuple[float, ...]) -> tuple[float, ...]:
        """The periods of the specimen's channels: those that were found, of the others what was said."""
        found = {output: one.period for output, one in zip(self.outputs, self.each, strict=True)}
        return tuple(found.get(k) or one for k, one in enumerate(said))

    def table(self) -> dict[str, Any]:
        """Return them as JSON values."""
        if self.kind == "shared":
            return self.each[0].table()
        return {
            "kind": self.kind, "outputs": list(self.outputs), "size": self.size, "each": [one.table() for one in self.each],
        }  # fmt: skip

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Curves:
        """The inverse of `table`. Raises: KeyError, TypeError, ValueError: it is not one."""
        if "kind" not in table:
            return cls("shared", (0,), (Reference.read(table),))
        kind, outputs = table["kind"], tuple(int(one) for one in table["outputs"])
        found, size = tuple(Reference.read(one) for one in table["each"]), int(table["size"])
        if kind not in ("apart", "mixed") or len(found) != len(outputs) or not found or not all(0 <= k < size for k in outputs):
            raise ValueError(f"{kind}, {len(found)} curves, {len(outputs)} readings of {size}")
        return cls(kind, outputs, found, size)


def drives(port: Port, points: int) -> Floats:
    """(K, points) rising, each channel in its own range; float32 that does not round beyond a limit."""
    limits = zip(each(port.low, port.size), each(port.high, port.size), strict=True)
    rows = [np.linspace(low, high, points).astype(np.float32).clip(low, high) for low, high in limits]
    return np.stack(rows).astype(np.float64)


def together(drive: Floats) -> Floats:
    """(K, m) -> (K, 2m) the probe of channels apart: all of them up, then down."""
    return np.stack([probe(one) for one in drive])


def places(channels: int, points: int) -> NDArray[np.intp]:
    """(K, 2m) where in the probe of channels apart each channel of the mixed probe is."""
    there = np.arange(points)
    shift = [round(2 * points * (k * GOLDEN % 1)) for k in range(channels)]
    return np.stack([np.concatenate([way, way[::-1]]) for way in ((2 * there + s) % (2 * points) for s in shift)])


def apart(spec: Spec, drive: Floats, shots: Floats, crossed: Floats | None, periods: Sequence[float | None]) -> Curves | None:
    """The curves of channels that are apart; None: they are not.

    Args:
        spec: of the node.
        drive: (K, m).
        shots: (R, K, 2m) answers to `together`.
        crossed: (R, K, 2m) answers to the mixed probe; None: it is known already that they are apart.
        periods: of each channel.

    Raises:
        MeasurementError: no channel answers to its drive, or one does not repeat itself after its period.
    """
    seen = answering(shots) or (0,)  # of which Reference says what is wrong
    if crossed is not None and (len(drive) > drive.shape[1] or _mixes(shots, crossed, seen)):
        return None  # of more channels than places, some would go up together
    units = spec.inputs.unit, spec.outputs.unit
    found = tuple(Reference.of(drive[k], shots[:, k], periods[k], units) for k in seen)
    return Curves("apart", seen, found, shots.shape[1])


def _mixes(shots: Floats, crossed: Floats, seen: Sequence[int]) -> bool:
    """True if one of the readings `seen` answers otherwise to its drive when the other drives are others."""
    at = places(shots.shape[1], shots.shape[2] // 2)
    for k in seen:
        half = 0.5 * float(np.ptp(shots[:, k].mean(0)))
        off = crossed[:, k].mean(0) - shots[:, k].mean(0)[at[k]]
        noise = math.sqrt(float((shots[:, k].var(0).mean() + crossed[:, k].var(0).mean()) / len(shots)))
        if math.sqrt(float(np.square(off).mean())) > CROSSTALK * half + 3 * noise:
            return True
    return False


def mixed(spec: Spec, shots: Floats) -> Curves:
    """The curves of readings that answer to all drives.

    Args:
        spec: of the node.
        shots: (R, L, 2m) answers to the mixed probe.

    Raises:
        MeasurementError: none of them answers.
    """
    rows = np.arange(shots.shape[2] // 2, dtype=np.float64)
    seen = answering(shots, MOST_MIXED) or (0,)  # of which Reference says what is wrong
    units = spec.inputs.unit, spec.outputs.unit
    return Curves("mixed", seen, tuple(Reference.of(rows, shots[:, k], None, units, walks=False) for k in seen), shots.shape[1])


def answering(shots: Floats, most: int | None = None) -> tuple[int, ...]:
    """Readings of (R, L, 2m) that answer to the drives, in order; of more than `most` those that stand out from their noise."""
    mean = shots.mean(0)
    noise = np.sqrt(0.5 * np.square(np.diff(shots, axis=0)).mean((0, 2)))
    swing = np.ptp(mean, axis=1)
    clear = [k for k in range(shots.shape[1]) if swing[k] > 4 * noise[k] and swing[k] > 0]
    best = sorted(clear, key=lambda k: (-swing[k] / max(float(noise[k]), 1e-300), k))[:most]
    return tuple(sorted(best))


def unwatched(curves: Curves, asked: int) -> str:
    """Return the warning about readings that are not watched; "" if all are."""
    left = asked - len(curves.each)
    return (
        f"; {left} of {asked} readings are not watched: they do not answer, or there are more than {MOST_MIXED}" if left else ""
    )
