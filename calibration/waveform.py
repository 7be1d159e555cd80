"""The steps of a node shared in time: generator -> modulator -> photodiode -> digitizer; each needs those before it.

    dark -> noise ----------------------\\
      \\--> delay -> settling -----------+--> transfer -> bias -> twin
             \\---> hysteresis, memory --/
"""

from __future__ import annotations

from calibration.bias import BIAS
from calibration.dark import DARK
from calibration.delay import DELAY
from calibration.hysteresis import HYSTERESIS
from calibration.memory import MEMORY
from calibration.noise import NOISE
from calibration.sequence import Procedure
from calibration.settling import SETTLING
from calibration.transfer import TRANSFER
from calibration.twin_fit import TWIN


def waveform() -> tuple[Procedure, ...]:
    """In the order in which they are done."""
    return DARK, NOISE, DELAY, SETTLING, HYSTERESIS, MEMORY, TRANSFER, BIAS, TWIN
