"""A display and a camera that both speak SCPI, as one device that can be brought back after a fault."""

from __future__ import annotations

from drivers.frame.device import Area, Frame, FrameSettings
from drivers.scpi_camera import ScpiCamera
from drivers.scpi_display import ScpiDisplay


class ScpiFrame(Frame):
    """A Frame, Recoverable.

    Args:
        display, camera: opened drivers; they are closed with the device.
        show, look, settings, exposures: see Frame.
    """

    def __init__(
        self, display: ScpiDisplay, camera: ScpiCamera, show: Area, look: Area, settings: FrameSettings, exposures: bool
    ) -> None:
        display.rest_level = settings.rest_level
        self.own = (display, camera)
        super().__init__(display, camera, show, look, settings, exposures)

    def clear(self) -> None:
        """Empty both wires."""
        for one in self.own:
            one.clear()

    def reopen(self) -> None:
        """Open both wires anew."""
        for one in self.own:
            one.reopen()

    def identify(self) -> str:
        """The same instruments must answer."""
        return "; ".join(one.identify() for one in self.own)

    def reinstate(self) -> None:
        """Let the display rest, and set the exposure again."""
        for one in self.own:
            one.forget()
            one.prepare()

    def verify(self) -> str:
        """The display takes an image, and the camera gives a frame."""
        self.safe()
        self._seen()
        return f"the display rests, a frame of {self._look.shape[0]} x {self._look.shape[1]} pixels came"
