"""A laser that jumps to another mode: the node's phase and power step, and its noise rises.

    phase_rad <- phase_rad + step        laser_w <- power laser_w        noise <- factor noise

Power steps together with a rise of the intensity noise, by which a hop is told from drift (Heumier & Carlsten, ILX Lightwave
application note on mode hopping).
"""

from __future__ import annotations

from collections.abc import Mapping

from hil.errors import ConfigError
from sim_devices.instruments.faults import Fault


def hop(settings: Mapping[str, float], fault: Fault) -> dict[str, float]:
    """Return the settings that a mode hop changes; the node must have them.

    Raises:
        ConfigError: it has not.
    """
    after = {
        "phase_rad": settings.get("phase_rad", 0.0) + fault.phase_rad,
        "laser_w": settings.get("laser_w", 0.0) * fault.power,
        "noise": settings.get("noise", 0.0) * fault.noise,
    }
    asked = {"phase_rad": fault.phase_rad != 0, "laser_w": fault.power != 1, "noise": fault.noise != 1}
    wanted = [name for name in after if asked[name]]
    missing = [name for name in wanted if name not in settings]
    if missing or not wanted:
        raise ConfigError(
            "a mode hop that this node cannot make", where="fault", got=", ".join(missing) or "no step at all",
            allowed=", ".join(name for name in after if name in settings) or "none; it has no phase, laser or noise",
            todo="give a fault with phase_rad, power (of laser_w) or noise",
        )  # fmt: skip
    return {name: after[name] for name in wanted}
