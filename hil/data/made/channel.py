"""Channel equalisation: find the symbol that was sent from what a nonlinear, noisy channel of several paths delivers.

    d(t)  one of -3, -1, 1, 3
    q(t) = 0.08 d(t+2) - 0.12 d(t+1) + d(t) + 0.18 d(t-1) - 0.1 d(t-2) + 0.091 d(t-3) - 0.05 d(t-4) + 0.04 d(t-5)
           + 0.03 d(t-6) + 0.01 d(t-7)
    u(t) = q + 0.036 q^2 - 0.011 q^3 + noise        noise Gaussian, snr_db below u
    x = u(t - window + 1) ... u(t)                  target the class d(t - 2)

The share of wrong classes is the symbol error rate.

Sources: V. J. Mathews and J. Lee, Adaptive algorithms for bilinear filtering, Proc. SPIE 2296, 317 (1994); H. Jaeger and
H. Haas, Harnessing nonlinearity, Science 304, 78 (2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from hil.data.examples import Examples
from hil.data.made.series import length, uniform, windows
from hil.settings import Count, Natural, check

SYMBOLS = np.array([-3.0, -1.0, 1.0, 3.0])
PATHS = (0.08, -0.12, 1.0, 0.18, -0.1, 0.091, -0.05, 0.04, 0.03, 0.01)  # of d(t + 2), d(t + 1), ...
AHEAD = 2


@dataclass(frozen=True, slots=True)
class ChannelEqualisation:
    """The series of a channel: what it delivers, and what was sent.

    Args:
        number: of examples.
        window: values of u in an example.
        snr_db: signal to noise, dB.
        steps: of a piece, for sequences; 0: windows.
        seed: of symbols and noise.
    """

    number: Count = 2_000
    window: Count = 10
    snr_db: float = 28.0
    steps: Natural = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self) -> Examples:
        """Make them."""
        count = length(self.number, self.window, self.steps)
        sent = SYMBOLS[np.floor(4 * uniform(count + len(PATHS) - 1, self.seed, 0, "channel symbols")).astype(int)]
        q = np.zeros(count)
        for delay, share in enumerate(PATHS):
            q += share * sent[len(PATHS) - 1 - delay : len(PATHS) - 1 - delay + count]
        clean = q + 0.036 * q * q - 0.011 * q * q * q
        sigma = np.sqrt(np.mean(clean * clean)) * 10 ** (-self.snr_db / 20)
        noise = ndtri(uniform(count, self.seed, 1, "channel noise") + 2.0**-54)
        target = sent[len(PATHS) - 1 - 2 * AHEAD :][:count].astype(int)  # the newest symbol in q(t) is d(t + 2)
        source = "V. J. Mathews and J. Lee, Proc. SPIE 2296, 317 (1994)"
        return windows(clean + sigma * noise, target, self.number, self.window, self.steps, "channel_equalisation", source)
