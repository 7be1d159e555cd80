"""The sequence for a modulator, a medium and a camera.

dark frame -> flat field -> phase table -> registration -> transmission
"""

from __future__ import annotations

from calibration.camera.dark_frame import dark_frame
from calibration.camera.flat_field import flat_field
from calibration.camera.frames import DARK, FLAT
from calibration.camera.phase_lut import LUT, phase_lut
from calibration.camera.registration import REGISTRATION, registration
from calibration.camera.transmission import TRANSMISSION, transmission
from calibration.sequence import Procedure


def camera() -> tuple[Procedure, ...]:
    """Procedures in order, each with what it needs."""
    return (
        Procedure(DARK, dark_frame),
        Procedure(FLAT, flat_field, (DARK,)),
        Procedure(LUT, phase_lut, (DARK, FLAT)),
        Procedure(REGISTRATION, registration, (DARK, FLAT, LUT)),
        Procedure(TRANSMISSION, transmission, (DARK, FLAT, LUT, REGISTRATION)),
    )
