r"""The steps of a node shared in time: generator -> modulator -> photodiode -> digitizer.

    dark -> noise ----------------------\
      \--> delay -> settling -----------+--> transfer -> bias -> twin
             \---> hysteresis, memory --/

A step at the end of an arrow needs the one at its beginning.
"""

from __future__ import annotations

from calibration.sequence import Procedure
from calibration.waveform.bias import BIAS
from calibration.waveform.dark import DARK
from calibration.waveform.delay import DELAY
from calibration.waveform.hysteresis import HYSTERESIS
from calibration.waveform.memory import MEMORY
from calibration.waveform.noise import NOISE
from calibration.waveform.settling import SETTLING
from calibration.waveform.transfer import TRANSFER
from calibration.waveform.twin_fit import TWIN


def waveform() -> tuple[Procedure, ...]:
    """Return the procedures in the order in which they are done."""
    return DARK, NOISE, DELAY, SETTLING, HYSTERESIS, MEMORY, TRANSFER, BIAS, TWIN
