"""A display and a camera among other instruments: the light, or a mask, is programmed, and all is set up again after a fault.

    params = mirror, exposure, laser, lamp         shares, 0 to 1
    level of a knob = share x full                 mirror: 0 below a half, else full
    exposure        = share x that of the settings

A knob is one number that an instrument beside the node holds (drivers/auxiliaries.py); its instrument is started, verified,
watched and made safe as those are. The inner device may be in this process (drivers/frame/scpi.py), or in a host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from drivers.auxiliaries import Auxiliaries, Holdable
from drivers.read_back import Care
from drivers.watched import Watched
from hil.device import Device, Port, Recoverable, Spec, program
from hil.errors import ContractError, OutOfRange
from hil.wrapper import Wrapper

OPTICS = ("mirror", "exposure", "laser", "lamp")
NAP_S = 0.5  # a wait is cut into such parts, so that who waits for signs of life hears of it


@dataclass(frozen=True, slots=True)
class Knob:
    """A number of an instrument that is programmed.

    Args:
        driver: of the instrument, which holds it.
        name: as the driver calls it.
        full: its value at 1, in the unit of the driver.
    """

    driver: Holdable
    name: str
    full: float


@dataclass(frozen=True, slots=True)
class Knobs:
    """The light of a node.

    Args:
        mirror: brings the mirror in.
        laser: its power.
        lamp: of an even light on the camera.
        settle_s: wait after one of them was set.
    """

    mirror: Knob
    laser: Knob
    lamp: Knob
    settle_s: float = 0.0


class Inner(Device, Recoverable, Protocol):
    """A display and a camera."""


class Set(Protocol):
    """A driver that sets its instrument up again where that is due."""

    def prepare(self) -> None:
        """Set up, if it is not."""

    def forget(self) -> None:
        """Set up again next time."""


class FrameNode(Wrapper):
    """A Device, Recoverable, around a display and a camera.

    Args:
        inner: both; closed with this. Its exposure is programmed where there are knobs.
        own: their drivers, if they are in this process.
        auxiliaries: instruments beside them, started already; recovery starts them again.
        knobs: what of those is programmed; None: what the inner device has programmed, a mask, or nothing.
        care: when the instruments are asked what they hold, and what a change by another hand leads to.
        beat: a sign of life, at every shot.
        clock: seconds from any origin.
        sleep: waits so many seconds.
    """

    _inner: Inner

    def __init__(
        self,
        inner: Inner,
        own: Sequence[Set] = (),
        auxiliaries: Auxiliaries | None = None,
        knobs: Knobs | None = None,
        care: Care | None = None,
        beat: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._own, self._knobs, self._beat, self._sleep = tuple(own), knobs, beat, sleep
        optics = Port(f"optics: {', '.join(OPTICS)}", 0.0, 1.0, "1", len(OPTICS))
        self._outer = inner.spec if knobs is None else replace(inner.spec, params=optics)
        self._shares: tuple[float, ...] | None = None  # as programmed
        self._held: tuple[float, ...] = ()  # what knobs and exposure were set to; (): not known
        self._ready = False
        self._watch = Watched(own, auxiliaries, care, clock, self._outer.inputs.name, self._forget)
        self._watch.lock_out()
        with self._watch.shot():
            self._set_up()

    @property
    def spec(self) -> Spec:
        """Images in, counts out; four shares, if the light is programmed, or the inner device's mask."""
        return self._outer

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the instruments, for people."""
        return self._watch.notes

    def forward(self, x: Tensor) -> Tensor:
        """(batch, macropixels of the display) -> (batch, macropixels of the camera), counts. Raises: as Frame.forward."""
        self._beat()
        with self._watch.shot():
            self._set_up()
            y = self._inner.forward(x)
            self._watch.settle()
            self._watch.due()
        return y

    def program(self, params: Tensor) -> None:
        """Set mirror, exposure, laser and lamp, (4,), shares; or the mask, as of the inner device.

        Raises:
            ContractError: the node is fixed. OutOfRange: before anything is sent.
        """
        if self._outer.params is None:
            raise ContractError("this node is fixed", where=self._outer.inputs.name, got="program()",
                                allowed="a bench with [optics], or with mask = true in [frame]")  # fmt: skip
        if self._knobs is None:
            self._beat()
            program(self._inner, params)  # nothing is sent: the mask comes with the next image
            return
        shares = tuple(float(share) for share in self._outer.params.check(params).reshape(-1).double())
        if not shares[OPTICS.index("exposure")]:
            raise OutOfRange("no exposure", where="optics", got="0", allowed="above 0, up to 1", outputs="as they were")
        self._beat()
        self._shares = shares
        with self._watch.shot():
            self._set_up()
            self._turn(shares)
            self._watch.settle()
            self._watch.due()

    def _turn(self, shares: tuple[float, ...]) -> None:
        """Bring all of them to their shares; what stands there already is left alone."""
        assert self._knobs is not None  # who calls this has looked
        (mirror, exposure, laser, lamp), before = shares, self._held or (None,) * len(shares)
        wanted, self._held = (float(mirror >= 0.5), exposure, laser, lamp), ()
        knobs = (self._knobs.mirror, None, self._knobs.laser, self._knobs.lamp)
        moved = False
        for knob, share, was in zip(knobs, wanted, before, strict=True):
            if share == was:
                continue
            if knob is None:
                program(self._inner, torch.tensor([share]))
            else:
                knob.driver.hold(knob.name, share * knob.full)
                moved = True
        left_s = self._knobs.settle_s if moved else 0.0
        while left_s > 0:
            self._beat()
            self._sleep(min(NAP_S, left_s))
            left_s -= NAP_S
        self._held = wanted

    def _set_up(self) -> None:
        """Set up what is not, and program it again; send nothing if it is."""
        if self._ready:
            return
        for one in self._own:
            one.prepare()
        if self._shares is not None:
            self._turn(self._shares)
        self._ready = True
        self._watch.begin()

    def _forget(self) -> None:
        self._ready, self._held = False, ()
        for one in self._own:
            one.forget()

    # ---- the rungs of hil/devices/recovery.py -----------------------------------------------------------------------------

    def clear(self) -> None:
        """Empty all wires."""
        self._forget()
        self._inner.clear()
        self._watch.beside.clear()

    def reopen(self) -> None:
        """Open all wires anew."""
        self._forget()
        self._inner.reopen()
        self._watch.beside.reopen()

    def identify(self) -> str:
        """The same instruments must answer."""
        return "; ".join([self._inner.identify(), *self._watch.beside.identify()])

    def reinstate(self) -> None:
        """Make all safe and reset them, in safe order; then set the auxiliaries, the display and the camera as they were."""
        self._forget()
        with self._watch.again():
            self._inner.reinstate()

    def verify(self) -> str:
        """The display takes an image, the camera gives a frame."""
        self._set_up()
        changed = f"; changed by another hand: {self._watch.changed}" if self._watch.changed else ""
        return self._inner.verify() + changed

    def attend(self) -> None:
        """See hil.device.Attentive."""
        self._watch.attend()
