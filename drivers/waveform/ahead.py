"""The next record goes up while the last one comes down: generators and digitizers are instruments apart, each on its wire.

    upload(k)  arm  trigger  wait  | read(k)      arm  trigger  wait  | read(k + 1)
                                   | upload(k + 1)                    | upload(k + 2)

Nothing is uploaded before the record in the generators has been played and taken, and no shot ends while an upload is under
way: after a fault nobody but the worker speaks to an instrument, and the wire that makes the output safe is free as soon as the
record on it has gone. An upload plays nothing. One that failed is the fault of the shot whose record it is. After any fault,
and after any other record, what was uploaded ahead counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from drivers.waveform.channels import Drives, Reads
from drivers.waveform.record import Codes

Parts = Sequence[Codes]
"""A record for each drive; known by the object, not by its content."""


class Ahead:
    """Uploads records, each once, before it is needed where that can be.

    Args:
        drives: get the records.
        reads: that are read meanwhile; an instrument that is among both cannot do both at once.
        clock: seconds from any origin.

    hidden_s: seconds of all uploads that nobody waited for.
    """

    def __init__(self, drives: Drives, reads: Reads, clock: Callable[[], float]) -> None:
        self._drives, self._clock = drives, clock
        apart = not {id(one) for one in drives.all} & {id(one) for one in reads.all}
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="waveform upload") if apart else None
        self._coming: tuple[Parts, Future[float]] | None = None
        self.hidden_s = 0.0

    def upload(self, parts: Parts) -> None:
        """Have these records in the generators when this returns; send nothing if they were uploaded ahead.

        Raises:
            LinkError, InstrumentError: as the generators, also of an upload ahead.
        """
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] is parts:
            began = self._clock()
            took_s = coming[1].result()
            self.hidden_s += max(0.0, took_s - (self._clock() - began))
            return
        if coming is not None:
            wait([coming[1]])
        self._drives.upload(parts)

    def begin(self, parts: Parts) -> None:
        """Begin to upload the records that are played next; the last ones have been taken."""
        if self._uploader is not None:
            self._coming = parts, self._uploader.submit(self._sent, parts)

    def _sent(self, parts: Parts) -> float:
        began = self._clock()
        self._drives.upload(parts)
        return self._clock() - began

    def ended(self) -> None:
        """Wait until nothing is under way; what an upload raised is kept for who needs its records."""
        if self._coming is not None:
            wait([self._coming[1]])

    def forget(self) -> None:
        """Forget what was uploaded ahead."""
        self.ended()
        self._coming = None

    def close(self) -> None:
        """End the thread, once what it does is done."""
        if self._uploader is not None:
            self._uploader.shutdown(wait=True, cancel_futures=True)
