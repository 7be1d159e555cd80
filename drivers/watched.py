"""Common parts of devices of several instruments: another hand is seen after a shot, and all is set up again in safe order.

    with watched.shot():            a fault in it is told as what another hand did, if it was that; settings are forgotten then
        ...
        watched.due()               on the schedule of [panel]
    with watched.again():           the rung `reinstate`: all safe and reset, the auxiliaries started, then what the device adds
        ...

Until then, after a change by another hand, every shot is refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from drivers.auxiliaries import Auxiliaries
from drivers.read_back import Care, Panelled, PanelWatch
from hil.errors import Changed, DirtySession, HilError


class Watched:
    """The instruments of one device, and those beside it.

    Args:
        instruments: the device's own; those that are Panelled are looked at.
        auxiliaries: beside them.
        care: when they are asked what they hold, and what a change leads to.
        clock: seconds from any origin.
        where: of the device, for messages.
        forget: what the device does when nothing is known of the settings any more.

    changed: by another hand, as found when everything was set up again. notes: what people should know of the instruments.
    """

    def __init__(
        self,
        instruments: Sequence[object],
        auxiliaries: Auxiliaries | None,
        care: Care | None,
        clock: Callable[[], float],
        where: str,
        forget: Callable[[], None],
    ) -> None:
        self._own, self._beside = [i for i in instruments if isinstance(i, Panelled)], auxiliaries or Auxiliaries()
        self._care, self._where, self._forget = care or Care(), where, forget
        self._watch = PanelWatch([*(one.panel for one in self._own), *self._beside.looked], self._care, clock)
        self._touched = ""  # by another hand, as told; nothing is measured until everything was set up again
        self.changed = ""
        self.notes: tuple[str, ...] = ()

    @property
    def beside(self) -> Auxiliaries:
        """The instruments beside the device's own."""
        return self._beside

    @contextmanager
    def shot(self) -> Iterator[None]:
        """A shot: if it fails, the settings are not known any more, and what another hand did is the fault to be told.

        Raises:
            DirtySession: another hand changed settings, and nothing was set up again since; nothing was sent.
        """
        if self._touched:
            raise DirtySession(
                "settings were changed by another hand, and are not set up again yet", where=self._where,
                got=self._touched, allowed="reinstate() and verify() first", outputs="as before; nothing was sent now",
                todo="repeat the shot once the bench is set up again",
            )  # fmt: skip
        self._watch.shot()
        try:
            yield
        except HilError as fault:
            cause = self._watch.cause(fault)
            self._forget()
            self._touched = cause.got if isinstance(cause, Changed) else ""
            if cause is fault:
                raise
            raise cause from fault

    @contextmanager
    def again(self) -> Iterator[None]:
        """Make all safe and reset them, start the auxiliaries; what follows in the block sets up the device's own.

        Raises:
            SwitchedOff, ChangeForbidden, CommandRefused, LinkError.
        """
        self.changed = self._watch.before_reset()
        self._beside.reset(self._reset)
        self._beside.start()
        yield
        self._touched = ""

    def _reset(self) -> None:
        for instrument in self._own:
            instrument.reset()

    def lock_out(self) -> None:
        """Lock the front panels of the device's own instruments, if that is wanted; `notes` says which could not be."""
        if self._care.lock:
            refused = {one.panel.name: one.panel.lock_out() for one in self._own}
            self.notes = tuple(f"{name}: the front panel is not locked: {why}" for name, why in refused.items() if why)

    def settle(self) -> None:
        """Keep the instruments' answers as what is due, after something was set."""
        self._watch.settle()

    def begin(self) -> None:
        """The instruments are set up, and nothing was measured with them yet."""
        self._watch.begin()

    def due(self) -> bool:
        """Look if it is time to; True: it was, and everything is as it was set. Raises: as PanelWatch.due."""
        return self._watch.due()

    def attend(self) -> None:
        """See hil.device.Attentive."""
        self._watch.attend()
