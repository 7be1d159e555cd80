"""Where the symbols of a measured record lie, and whether the node still answers as it did when the device was opened.

    align = "markers"    both markers of the record say so, in every record
    align = "trigger"    the delay that was measured last
    align = "sync"       that, and the SYNC pulse: by how many samples this record came late

The contrast of the markers is held against that at opening (faded) and that of the time before (jumped): of every record, or,
without markers in the records, whenever the delay is measured again.
"""

from __future__ import annotations

from drivers.waveform.alignment import REACH, Acceptance, Found, Window, markers_of, steady, unfaded, window
from drivers.waveform.arrival import Pairs, together
from drivers.waveform.layouts import Layouts
from drivers.waveform.pulse import Pulse
from drivers.waveform.record import Axis, Record, RecordPlan
from drivers.waveform.settings import WaveformSettings
from hil.errors import Misaligned


class Tracking:
    """Follows the records of all readings.

    Args:
        layouts: with which they are laid out.
        names: of the readings, for messages.
        settings: of the device.
        acceptance: of a marker.
        drives: how many play markers.

    pulse: where SYNC is read.
    """

    def __init__(
        self, layouts: Layouts, names: tuple[str, ...], settings: WaveformSettings, acceptance: Acceptance, drives: int
    ) -> None:
        self._layouts, self._names, self._settings, self._acceptance = layouts, names, settings, acceptance
        self._drives = drives
        self.pulse: Pulse | None = None
        self._opened: dict[tuple[int, int], float] = {}  # (reading, drive) -> contrast of the markers, V
        self._contrasts, self._trusted = self._opened, self._opened

    def begin(self, found: Pairs) -> None:
        """Begin with what was measured when the device was opened.

        Raises:
            ConfigError: a reading would have no settled sample of a symbol, or SYNC rises at a sampling instant.
        """
        axis = self._layouts.axis()
        for which in range(len(self._names)):
            self._window(axis, which)
        if self.pulse is not None:
            self.pulse.check(axis)
        self._opened = {pair: delay.contrast for pair, delay in found.items()}
        self._contrasts, self._trusted = dict(self._opened), dict(self._opened)

    def trust(self) -> None:
        """The instruments hold what was set: records until now were measured with it."""
        self._trusted = dict(self._contrasts)

    def back(self) -> None:
        """Forget records since the last `trust`: they may have been measured under other settings."""
        self._contrasts = dict(self._trusted)

    def of(self, k: int) -> str:
        """Name drive k in messages about the delay, where there are several."""
        return f" of drive {k + 1}" if self._drives > 1 else ""

    def check(self, found: Pairs) -> None:
        """Raises: Misaligned: a marker that was measured anew has faded, or turned upside down, since the opening."""
        for (which, k), opened in self._opened.items():
            seen = found.get((which, k))
            unfaded(0.0 if seen is None else seen.contrast, opened, f"{self._names[which]}, measuring the delay{self.of(k)}")

    def follow(self, found: Pairs) -> None:
        """Go on from contrasts that were measured anew. Raises: Jumped: another one than the time before."""
        for (which, k), before in list(self._contrasts.items()):
            if (which, k) in found:
                anew = Found(0, found[which, k].contrast)
                self._contrasts[which, k] = steady(anew, before, self._settings.marker_jump, self._names[which]).contrast

    def lag(self, plan: RecordPlan, pulse: Record | None) -> int | None:
        """Return by how many samples a record came late; None: its markers tell.

        Args:
            plan: of the record.
            pulse: the record of the SYNC pulse, where it is read.

        Raises:
            Misaligned: the pulse is gone, or far from where it was.
        """
        s = self._settings
        if s.align == "markers":
            return None
        if self.pulse is None or pulse is None:
            return 0
        lag, most = self.pulse.lag(pulse, 0.5 * plan.sent * s.symbol_s / s.samples_per_symbol), REACH * s.reads_per_symbol
        if abs(lag) <= most:
            return lag
        raise Misaligned(
            "the SYNC pulse comes at another time than when the device was opened", where="waveform align",
            got=f"{lag:+d} samples", allowed=f"within {most}", outputs="inside their limits",
            todo="look at the trigger (SYNC of the generator to EXT TRIG) and its level",
        )  # fmt: skip

    def place(self, plan: RecordPlan, which: int, measured: Record, lag: int | None) -> tuple[Window, int]:
        """Find where the symbols of a reading lie, and by how many samples the record came late, if that is not known.

        Raises:
            Misaligned, Jumped: a marker is missing, has faded, or is another one than in the record before.
        """
        s, where, arrival = self._settings, self._names[which], self._layouts.arrival
        place = self._window(measured.axis, which)
        if lag is not None:
            return place, lag
        lags, due_s = {}, arrival.delay_s(which)
        for k, delay_s in arrival.of(which).items():
            at = where if self._drives == 1 else f"{where}, drive {k + 1}"
            early = 0 if delay_s == due_s else place.origin - window(measured.axis, s.symbol_s, delay_s, 0.0, at).origin
            opened, before = self._opened[which, k], self._contrasts[which, k]
            found = markers_of(measured, plan, place, opened, self._acceptance, at, k, early)
            self._contrasts[which, k] = steady(found, before, s.marker_jump, at).contrast
            lags[k] = found.lag
        return place, together(lags, where)

    def _window(self, axis: Axis, which: int) -> Window:
        s, arrival = self._settings, self._layouts.arrival
        return window(axis, s.symbol_s, arrival.delay_s(which), s.settle, self._names[which], arrival.spread_s(which))
