"""Settings of [waveform] and [memory] in a bench file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from drivers.waveform.alignment import Acceptance
from hil.errors import UNTOUCHED, ConfigError
from hil.settings import Count, NotNegative, Positive, Share, check

Align = Literal["markers", "trigger", "sync"]
Averager = Literal["host", "scope"]
Match = Annotated[float, Field(gt=0, le=1)]  # at 0 a flat line would pass for a marker


@dataclass(frozen=True, slots=True)
class WaveformSettings:
    """Settings that say how values become a waveform.

    Args:
        symbol_rate_hz: values a second.
        samples_per_symbol: of the generator.
        reads_per_symbol: of the digitizer.
        sample_phase: where a sample lies within its share of the symbol, 0 to 1.
        settle: fraction of each symbol that is discarded; what is left is averaged.
        averages: each record is played and taken so many times, and averaged.
        averaged_by: "host": each is read, placed by its own markers, and averaged by the computer; "scope": the digitizer
            averages, and one record is read.
        rest_v: level between records; None: 0 V, or the limit nearest to it.
        marker_low_v, marker_high_v: levels of the marker; None: a quarter and three quarters of the drive's range.
        align: how a record is found again: "markers" before and behind its data; "trigger", by the delay from the trigger
            alone; "sync", by the generator's SYNC pulse on a channel of its own. The latter two send no marker beside the data.
        remeasure_s: without markers, the delay is measured again after so much use, with a marker in a record of its own.
        marker_threshold: least correlation of a marker.
        marker_ambiguous: largest share of it that a second match may have.
        marker_jump: largest change of the markers' contrast from one record to the next, as a share of it.
        longest_delay_s: the delay is looked for up to this.
        trigger_timeout_s: how long a trigger is waited for; the time that the record itself takes is added.
        width: neurons of the layer; None takes any. With several drives or readings it must be None: rows are as wide as these.
    """

    symbol_rate_hz: Positive = 100e6
    samples_per_symbol: Count = 1
    reads_per_symbol: Count = 1
    sample_phase: Share = 0.75
    settle: Share = 0.5
    averages: Count = 1
    averaged_by: Averager = "host"
    rest_v: float | None = None
    marker_low_v: float | None = None
    marker_high_v: float | None = None
    align: Align = "markers"
    remeasure_s: NotNegative = 30.0
    marker_threshold: Match = 0.8
    marker_ambiguous: Match = 0.8
    marker_jump: Positive = 0.3
    longest_delay_s: NotNegative = 2e-6
    trigger_timeout_s: Positive = 2.0
    width: Count | None = None

    def __post_init__(self) -> None:
        check(self, "waveform")

    @property
    def symbol_s(self) -> float:
        """Duration of a symbol, s."""
        return 1 / self.symbol_rate_hz

    @property
    def plays(self) -> int:
        """Times that a record is played before it is read."""
        return self.averages if self.averaged_by == "scope" else 1

    @property
    def reads(self) -> int:
        """Times that a record is read, and averaged by the computer."""
        return self.averages // self.plays

    @property
    def acceptance(self) -> Acceptance:
        """Conditions under which a marker counts as found."""
        return Acceptance(self.marker_threshold, self.marker_ambiguous)


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """[memory]: the node remembers, so it gets whole sequences; a step of one is as many symbols as there are virtual nodes.

    Before every sequence the node rests, and so forgets. A record holds as many whole sequences as fit.

    Args:
        nodes: virtual nodes; each is driven for a symbol.
        delay_s: of the loop, for `coupled` and for checks; 0: it is no loop, or nobody knows.
        rest_s: the node rests at `rest` of [waveform] for so long before each sequence: longer than it remembers.
        reset_v: level of a pulse before this rest; None: no pulse.
        reset_s: duration of that pulse.
    """

    nodes: Count
    rest_s: Positive
    delay_s: NotNegative = 0.0
    reset_v: float | None = None
    reset_s: NotNegative = 0.0

    def __post_init__(self) -> None:
        check(self, "memory")
        if (self.reset_v is None) != (self.reset_s == 0):
            raise ConfigError(
                "a reset pulse has a level and a duration", where="memory", outputs=UNTOUCHED,
                got=f"reset_v = {self.reset_v}, reset_s = {self.reset_s:g}", allowed="both, or neither",
                todo="add the other one, or remove both",
            )  # fmt: skip
        if self.rest_s < self.delay_s:
            raise ConfigError(
                "the rest is shorter than the loop, which would still hold the sequence before", where="memory rest",
                got=f"{self.rest_s:g} s, a loop of {self.delay_s:g} s", allowed="several times the delay of the loop",
                outputs=UNTOUCHED, todo="write a longer rest; the step memory of hil calibrate measures how long",
            )  # fmt: skip
