"""States of a node with memory on the test sequences: what it remembers of the input, and in how many directions they vary.

    memory curve      r_k^2 = share of the variance of u[t - k] that a linear readout of the states r[t] tells
                      fitted on one half of the steps behind the washout, judged on the other; the parts that it loses there
                      count as 0
    spectrum          eigenvalues of the covariance of the states, as shares of their sum, largest first
    directions        ( sum l )^2 / sum l^2              the participation ratio

The states are the readings that were taken while the test split was scored: nothing is measured for this. u is the first input.

Sources: Jaeger, GMD Report 152 (2002), memory capacity; Gao et al., bioRxiv 214262 (2017), the participation ratio.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hil.devices.meter import Metered

MOST_VALUES = 8_000_000  # of readings that are kept
NODES, STEPS = 6, 200  # whose states are shown, and how many of them
MOST_DELAYS = 60
RIDGE = 1e-9  # of the mean variance, so that states alike can be told from none


@contextmanager
def looking_on(device: Metered, steps: int) -> Iterator[list[Tensor]]:
    """Collect the readings (sequences, steps, n) of whole sequences, as they are taken within the block.

    Args:
        device: a node with memory.
        steps: of a sequence.
    """
    seen: list[Tensor] = []
    kept = 0

    def watch(x: Tensor, answer: Tensor) -> None:
        nonlocal kept
        if x.ndim == 3 and len(x) % steps == 0 and kept + answer.numel() <= MOST_VALUES:
            kept += answer.numel()
            parts = answer.detach().to("cpu").reshape(-1, steps, *answer.shape[1:])  # behind one another, or side by side
            seen.append(parts.permute(0, 2, 1, 3).flatten(0, 1))

    before, device.watch = device.watch, watch
    try:
        yield seen
    finally:
        device.watch = before


def states_table(given: Tensor, readings: Tensor, washout: int) -> dict[str, Any]:
    """Return what diagnostics.json holds of the states, as JSON values.

    Args:
        given: first input of the test sequences, (sequences, steps).
        readings: of the last layer, (sequences, steps, n).
        washout: steps at the beginning that do not count.
    """
    first = readings[0, washout : washout + STEPS]
    last = readings.shape[2] - 1
    nodes = sorted({round(last * k / max(1, NODES - 1)) for k in range(NODES)})
    found: dict[str, Any] = {"nodes": [k + 1 for k in nodes], "values": [first[:, k].tolist() for k in nodes]}
    spread = readings[:, washout:].flatten(0, 1).double()
    if len(spread) > 2 * readings.shape[2] and float(spread.var(0).sum()) > 0:
        found["spectrum"] = spectrum(spread).tolist()
        curve = memory_curve(given.double(), readings.double(), washout)
        found |= {"memory": curve.tolist()} if len(curve) else {}
    return found


def spectrum(states: Tensor) -> Tensor:
    """Return the eigenvalues of the covariance of states (steps, n) as shares of their sum, (n,), largest first."""
    values: Tensor = torch.linalg.eigvalsh(torch.cov(states.t()).reshape(states.shape[1], -1)).flip(0).clamp(min=0)
    return values / values.sum()


def memory_curve(given: Tensor, states: Tensor, washout: int) -> Tensor:
    """Return r_k^2, k = 0, 1, ..., (delays,); none if there are too few steps.

    Args:
        given: (sequences, steps), what is remembered.
        states: (sequences, steps, n).
        washout: steps at the beginning that do not count.
    """
    delays = min(MOST_DELAYS, 2 * states.shape[2], (given.shape[1] - washout) // 4)
    begin = max(washout, delays)
    if given.shape[1] - begin < 8 or delays < 1:
        return torch.zeros(0)
    past = given.unfold(1, delays, 1).flip(2)[:, begin - delays + 1 :].flatten(0, 1)
    now = states[:, begin:].flatten(0, 1)
    half = len(now) // 2
    if half < 2 * states.shape[2]:
        return torch.zeros(0)
    (seen, held), (wanted, unseen) = (torch.split(part, [half, len(part) - half]) for part in (now, past))
    middle, centre = seen.mean(0), wanted.mean(0)
    centred = seen - middle
    normal = centred.t() @ centred
    normal += RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
    weight = torch.linalg.solve(normal, centred.t() @ (wanted - centre))
    left = (unseen - centre - (held - middle) @ weight).square().sum(0)
    whole = (unseen - unseen.mean(0)).square().sum(0)
    share: Tensor = 1 - left / whole.clamp(min=1e-300)
    return share.clamp(min=0)
