"""The SYNC pulse of the generator on a channel of its own: it says when a record began, and has not gone through the node.

    ____|~~~~~~~~~~~~|____________         up with sample 0 of the record, down at half of it
    samples     n = first above half of the pulse;   due = ceil( ( edge - start ) / step );   lag = n - due

Between two samples the edge is not seen. If it came close to a sampling instant, noise would decide on which side of it, and
every other record would seem late by a sample: such a setting is refused when the device is opened. The falling edge must be
where the rising one says it is, so a record with a hole, or two clocks that drift apart, cannot pass for data.

Source: Keysight 33500B/33600A Operating and Service Guide, "SYNC Signal" (high for the first half of an arbitrary record).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from drivers.waveform.record import Axis, Record, Words
from hil.errors import ConfigError, Misaligned

LEAST_V = 0.5  # a pulse is 3.3 V, half of it into 50 ohm
CLOSE = 0.05  # of a sample: an edge that is so close to a sampling instant
WHERE = "SYNC pulse"


@dataclass(frozen=True, slots=True)
class Pulse:
    """The rising edge.

    Args:
        edge_s: when it comes after the trigger, s.
        middle: the word halfway up.
    """

    edge_s: float
    middle: float

    @classmethod
    def seen(cls, record: Record, due_s: float) -> Pulse:
        """Find the rising edge in a finely sampled record that begins before it.

        Args:
            record: of the channel.
            due_s: about when it is expected, s after the trigger.

        Raises:
            Misaligned: there is none.
        """
        low, high = int(record.words.min()), int(record.words.max())
        middle = 0.5 * (low + high)
        first = _rises(record.words, middle)
        swing_v = (high - low) * abs(record.scale.volts_per_word)
        if swing_v < LEAST_V or first is None:
            raise _missing(f"{swing_v:.3g} V from lowest to highest, around {due_s:.3g} s after the trigger")
        return cls(record.axis.start_s + (first - 0.5) * record.axis.step_s, middle)

    def due(self, axis: Axis) -> int:
        """Index of the first sample behind the edge."""
        return math.ceil((self.edge_s - axis.start_s) / axis.step_s)

    def check(self, axis: Axis) -> None:
        """Raises: ConfigError: with samples at these instants, noise would decide when the record began."""
        exact = (self.edge_s - axis.start_s) / axis.step_s
        apart = abs(exact - round(exact))
        if apart < CLOSE:
            raise ConfigError(
                "the SYNC pulse rises at a sampling instant, so nobody could tell by which sample a record is late",
                where="waveform align", got=f"{apart:.3f} of a sample from it", allowed=f"at least {CLOSE:g}",
                todo="change sample_phase or reads_per_symbol in [waveform], or take another cable for SYNC",
            )  # fmt: skip

    def lag(self, record: Record, high_s: float) -> int:
        """Return by how many samples a record came late.

        Args:
            record: of the channel.
            high_s: how long the pulse is high, s.

        Raises:
            Misaligned: the pulse is not there, or has another length.
        """
        rises = _rises(record.words, self.middle)
        if rises is None:
            raise _missing("no rising edge")
        falls = rises + round(high_s / record.axis.step_s)
        if falls + 1 < len(record.words):
            near = record.words[falls - 2 : falls + 2] > self.middle
            if not (near[0] and not near[-1]):
                raise Misaligned(
                    "the SYNC pulse has another length than the record", where=WHERE, outputs="inside their limits",
                    got=f"no falling edge {high_s:.4g} s behind the rising one", allowed="half of the record",
                    todo="give both instruments one 10 MHz reference, or use shorter records (memory_samples)",
                )  # fmt: skip
        return rises - self.due(record.axis)


def _rises(words: Words, middle: float) -> int | None:
    """Index of the first sample above `middle` behind one below it."""
    above = words > middle
    found = np.flatnonzero(above[1:] & ~above[:-1])
    return int(found[0]) + 1 if len(found) else None


def _missing(got: str) -> Misaligned:
    return Misaligned(
        "the SYNC pulse was not found", where=WHERE, got=got, allowed=f"a rising edge of at least {LEAST_V:g} V",
        outputs="inside their limits",
        todo="lead SYNC of the generator to the channel that [node] sync names, and set its range",
    )  # fmt: skip
