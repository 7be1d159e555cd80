"""One record of a sine, through a simulated oscilloscope and its driver."""

from __future__ import annotations

import numpy as np
import torch

from drivers.scpi_digitizer import ScpiDigitizer
from sim_devices.instruments.scope_box import ScopeBox

MIDDLE_V, RAD_PER_S = 0.18, 1e5


def take(driver: ScpiDigitizer, box: ScopeBox, amplitude_v: float = 0.2) -> np.ndarray:
    """Arm, let the box record MIDDLE_V + amplitude_v sin(RAD_PER_S t) at input 1, and return the volts that were read."""
    driver.arm()
    window = box.window()
    instants = window.start_s + torch.arange(window.points, dtype=torch.float64) / window.rate_hz
    box.capture(window, {1: MIDDLE_V + amplitude_v * torch.sin(instants * RAD_PER_S)})
    driver.wait(1.0)
    return driver.read().volts()
