"""Control charts: when a number that is measured again and again is no longer what it was.

    Shewhart x_t itself
    EWMA     l_t = (1 - λ) l_{t-1} + λ x_t                sigma of l in control:  σ sqrt( λ / (2 - λ) )
    CUSUM    S+_t = max(0, S+_{t-1} + x_t - K),   S-_t = max(0, S-_{t-1} - x_t - K)
             (E. S. Page, Biometrika 41, 100, 1954; D. C. Montgomery, Introduction to Statistical Quality Control, ch. 9)

In control x has mean 0 up to the error of the reference that it is measured against, which is a mean over R shots: the same
unknown shift, of sigma σ / sqrt(R), in every x. A threshold set by the user (a departure that matters) holds as it is, unless
noise alone would cross it; then it is raised to where noise alone does so less often than once in `ARL` looks:

    Shewhart limit  >=  L sqrt( σ² + σ² / R ),                  2 Q(L) = 1 / ARL         the chance at any one look
    EWMA     limit  >=  L sqrt( σ² λ / (2 - λ) + σ² / R )
    CUSUM    slack  K >= (k + 4 / sqrt(R)) σ,  decision H >= h σ,  h from Siegmund's approximation of the run length,
             ARL = ( exp(2 k b) - 2 k b - 1 ) / (2 k²),  b = h + 1.166                   (Siegmund, Sequential Analysis, 1985)

so that a reference four of its own sigmas off still leaves the slack k. Charts with estimated parameters need this allowance:
Jones, Champ & Rigdon, J. Quality Technology 36, 95 (2004).

    quiet -> warn -> act      up at a threshold, down only below half of it: what lingers at a threshold does not chatter
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.stats import norm

from hil.errors import ContractError
from hil.sentinel import State

LAMBDA = 0.3  # of the EWMA: noise is halved
SLACK = 0.5  # in sigmas: the smallest shift that the CUSUM is after is one sigma
REFERENCE_SIGMAS = 4.0
ARL = 1e7  # looks between false alarms of one test; there are ten, so in 10,000 looks one comes with a chance of 1 %
RELEASE = 0.5


def run_length(h: float, k: float = SLACK) -> float:
    """Looks until one side of a CUSUM with decision h and slack k, both in sigmas, alarms without any shift."""
    b = h + 1.166
    return (math.exp(2 * k * b) - 2 * k * b - 1) / (2 * k * k)


def decision(arl: float = ARL, k: float = SLACK) -> float:
    """The h whose two-sided run length is `arl`."""
    found: float = brentq(lambda h: run_length(h, k) / 2 - arl, 0.0, 200.0)
    return found


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of a chart, in the unit of what it charts.

    Args:
        single: of one value, which is acted on.
        warn, act: of the EWMA.
        slack, decision: of the CUSUM, which warns at half of its decision.
    """

    single: float
    warn: float
    act: float
    slack: float
    decision: float

    @classmethod
    def of(cls, warn: float, act: float, sigma: float, shots: int) -> Limits:
        """Thresholds as asked for, raised to where noise alone does not reach.

        Args:
            warn: departure that is worth a warning.
            act: departure that must be acted on.
            sigma: of one look.
            shots: averaged in the reference.
        """
        if not (0 < warn <= act < math.inf and 0 <= sigma < math.inf and shots >= 1):
            raise ContractError(
                "thresholds make no sense", where="control chart",
                got=f"warn {warn:g}, act {act:g}, sigma {sigma:g}, {shots} shots",
                allowed="0 < warn <= act, a finite sigma, at least 1 shot",
            )  # fmt: skip
        quantile = float(norm.isf(0.5 / ARL))
        floor = quantile * sigma * math.sqrt(LAMBDA / (2 - LAMBDA) + 1 / shots)
        lowest, slack = max(warn, floor), (SLACK + REFERENCE_SIGMAS / math.sqrt(shots)) * sigma
        # half of the decision, where it warns, is where noise alone does not come
        single = max(act, quantile * sigma * math.sqrt(1 + 1 / shots))
        return cls(single, lowest, max(act, lowest * act / warn), max(act / 2, slack), max(act, 2 * decision() * sigma))


@dataclass(frozen=True, slots=True)
class Chart:
    """The state of both charts of one departure.

    Args:
        last: the value.
        level: the EWMA.
        up, down: both sides of the CUSUM. All 0 at first, and once all is right again.
    """

    last: float = 0.0
    level: float = 0.0
    up: float = 0.0
    down: float = 0.0

    def then(self, x: float, limits: Limits) -> Chart:
        """The chart after one more value."""
        return Chart(
            x,
            (1 - LAMBDA) * self.level + LAMBDA * x,
            max(0.0, self.up + x - limits.slack),
            max(0.0, self.down - x - limits.slack),
        )

    def state(self, limits: Limits, before: State) -> State:
        """Return quiet, warn or act.

        Args:
            limits: of the charts.
            before: what it was at the last look.
        """
        evidence = max(self.up, self.down) / limits.decision
        act = max(abs(self.last) / limits.single, abs(self.level) / limits.act, evidence)
        return settled(max(abs(self.level) / limits.warn, 2 * evidence), act, before)

    def numbers(self) -> list[float]:
        """Return last, level, up and down, for a checkpoint."""
        return [self.last, self.level, self.up, self.down]


def settled(warn: float, act: float, before: State) -> State:
    """Return the state, with hysteresis.

    Args:
        warn: departure in units of the threshold that warns.
        act: departure in units of the threshold that acts.
        before: what it was at the last look.
    """
    if act >= 1 or (before == "act" and act >= RELEASE):
        return "act"
    return "warn" if warn >= 1 or (before != "quiet" and warn >= RELEASE) else "quiet"


def loudest(states: Sequence[State]) -> State:
    """The gravest of several."""
    order: Mapping[State, int] = {"quiet": 0, "warn": 1, "act": 2}
    return max(states, key=order.__getitem__, default="quiet")
