r"""The steps of a node with memory behind a generator and a digitizer, a delay loop.

    noise -> delay -+-> loop ---+-> twin
                    \-> memory -/

A step at the end of an arrow needs the one at its beginning. The low-pass is found by the step delay.
"""

from __future__ import annotations

from calibration.loop.delay import DELAY
from calibration.loop.loop import LOOP
from calibration.loop.memory import MEMORY
from calibration.loop.noise import NOISE
from calibration.loop.twin_fit import TWIN
from calibration.sequence import Procedure


def loop() -> tuple[Procedure, ...]:
    """Return the procedures in the order in which they are done."""
    return NOISE, DELAY, LOOP, MEMORY, TWIN
