"""A display and a camera of makers' packages as one device, for a host: what an experiment names, and shapes/frame.py opens.

[device]          use = "hil.build.frame:frame"   exposure = "1 ms"   saturated = 0.01   drive = "levels"
[device.display]  use = "drivers.slmsuite:SLM"      and its settings
[device.camera]   use = "drivers.genicam:Camera"    and its settings
[device.show]     rows = 8   columns = 8   mask = "disc"      the area of the display, see drivers/frame/device.py
[device.look]     rows = 16  columns = 16                     that of the camera
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Literal

from drivers.frame.device import Area, Frame, FrameSettings
from hil.config.resolve import choice
from hil.errors import ConfigError
from hil.settings import NotNegative, Positive, Share, arguments

DISPLAY = ("shape", "levels", "provenance", "write", "close")
CAMERA = ("shape", "levels", "provenance", "exposure_s", "read", "close")


def frame(
    display: Mapping[str, Any],
    camera: Mapping[str, Any],
    show: Mapping[str, Any],
    look: Mapping[str, Any],
    *,
    drive: Literal["levels", "phase"] = "levels",
    exposure_s: Positive | None = None,
    settle_s: NotNegative = 0.0,
    saturated: Share = 0.01,
    rest_level: int = 0,
    mask: bool = False,
    exposures: bool = False,
) -> Frame:
    """Open a display and a camera.

    Args:
        display: `use = "module:Class"` of a Display, and its settings.
        camera: the same of a Camera; one that is simulated together with the display takes that as its argument `display`.
        show: settings of the Area on the display.
        look: settings of the Area on the camera.
        drive: "levels" or "phase", see Frame.
        exposure_s: of a frame, in s; None: as the camera has it.
        settle_s: from an image that is shown to the frame, in s.
        saturated: largest share of pixels that may be at the highest level.
        rest_level: of the display where nothing is driven.
        mask: a phase mask is programmed, which is added to what is driven; with `drive` "phase".
        exposures: the exposure is programmed, as a share of `exposure_s`.

    Raises:
        ConfigError: what is named does not exist, is no Display or Camera, or does not fit. What opening them raises.
    """
    areas = [Area(**arguments(Area, table, f"[device.{name}]")) for name, table in (("show", show), ("look", look))]
    with ExitStack() as stack:
        shows = _built(display, "display", DISPLAY)
        stack.callback(shows.close)
        sees = _built(camera, "camera", CAMERA, display=shows)
        stack.callback(sees.close)
        settings = FrameSettings(drive, exposure_s, settle_s, saturated, rest_level, mask)
        found = Frame(shows, sees, areas[0], areas[1], settings, exposures)
        stack.pop_all()  # they are closed with it
    return found


def _built(table: Mapping[str, Any], name: str, parts: tuple[str, ...], **besides: Any) -> Any:
    """Build what a table names, given of `besides` what it takes."""
    place, settings = f"[device.{name}]", dict(table)
    use = settings.pop("use", None)
    if not isinstance(use, str):
        raise ConfigError(f"no {name}", where=place, got="no use", allowed='use = "module:Class"')
    named = choice(use, settings, place, skip=tuple(besides), parts=parts, kind=f"a {name}")
    takes = inspect.signature(named.made).parameters
    return named.build(**{key: value for key, value in besides.items() if key in takes})
