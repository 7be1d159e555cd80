"""Settings of [waveform] in a bench file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from drivers.waveform.alignment import Acceptance
from hil.settings import Count, NotNegative, Positive, Share, check

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
        averages: each record is played and read so many times, and averaged.
        rest_v: level between records; None: 0 V, or the limit nearest to it.
        marker_low_v, marker_high_v: levels of the marker; None: a quarter and three quarters of the drive's range.
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
    rest_v: float | None = None
    marker_low_v: float | None = None
    marker_high_v: float | None = None
    marker_threshold: Match = 0.8
    marker_ambiguous: Match = 0.8
    marker_jump: Positive = 0.3
    longest_delay_s: NotNegative = 2e-6
    trigger_timeout_s: Positive = 2.0
    width: Count | None = None

    def __post_init__(self) -> None:
        check(self, "waveform")

    @property
    def acceptance(self) -> Acceptance:
        """Conditions under which a marker counts as found."""
        return Acceptance(self.marker_threshold, self.marker_ambiguous)
