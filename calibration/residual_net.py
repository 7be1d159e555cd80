"""A small network of the drive alone on top of a grey box, for what its physics leaves out.

    y = f(x; p) + s n(u),    n(u) = w2 tanh( w1 u + b1 ) + b2,    u the drive scaled to -1 .. 1,  s the rms of the residuals

It is fitted to the same values as the grey box, full batch, by L-BFGS, and used only if it predicts values that it has not
seen: over held-out values, with and without it,

    z = sqrt(n) mean(g) / std(g),    g = r^2 - r'^2                      more than SURE, and GAIN of chi^2 at least

Source: physical model first, a network for its systematic errors: Zheng et al., Nat. Mach. Intell. 5, 1119, 2023 (dual adaptive
training).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hil.device import Port

WIDTH, STEPS, VALUES = 24, 150, 2048
SURE, GAIN = 5.0, 0.05
DECAY = 1e-5


class ResidualNet(nn.Module):
    """Correction in the unit of the reading for a drive (...), same shape.

    Args:
        scale: of what it gives.
    """

    def __init__(self, port: Port, scale: float, rng: torch.Generator) -> None:
        super().__init__()
        self._middle, self._half, self._scale = (
            0.5 * (port.shared_low + port.shared_high),
            0.5 * (port.shared_high - port.shared_low),
            scale,
        )
        drawn = torch.randn(2, WIDTH, generator=rng, dtype=torch.float64)
        self.w1 = nn.Parameter(8 * drawn[0])
        self.b1 = nn.Parameter(5 * drawn[1])
        self.w2 = nn.Parameter(torch.zeros(WIDTH, dtype=torch.float64))
        self.b2 = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def numbers(self) -> dict[str, Tensor]:
        """Return all arrays that make it again: w1, b1, w2 (WIDTH,), and b2, scale, middle, reach."""
        plain = {"b2": self.b2.detach(), "scale": self._scale, "middle": self._middle, "reach": self._half}
        weights = {name: getattr(self, name).detach().clone() for name in ("w1", "b1", "w2")}
        return weights | {name: torch.as_tensor(value, dtype=torch.float64) for name, value in plain.items()}

    def forward(self, drive: Tensor) -> Tensor:
        """Return the correction in the unit of the reading for a drive (...), same shape."""
        u = (drive - self._middle) / self._half
        hidden: Tensor = torch.tanh(u.unsqueeze(-1) * self.w1 + self.b1)
        correction: Tensor = hidden @ self.w2 + self.b2
        return correction * self._scale


def trained(drive: Tensor, residual: Tensor, sigma: Tensor, port: Port, rng: torch.Generator) -> ResidualNet:
    """Fit a net that predicts `residual` (n,), measured minus grey box, weighted by 1 / sigma."""
    every = max(1, len(drive) // VALUES)
    drive, residual, sigma = (values[::every] for values in (drive, residual, sigma))
    net = ResidualNet(port, float(residual.square().mean().sqrt()) or 1.0, rng)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        weights = sum(p.square().sum() for p in net.parameters())
        loss: Tensor = ((residual - net(drive)) / sigma).square().mean() + DECAY * weights
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return net.requires_grad_(False)


def gained(before: Tensor, after: Tensor) -> tuple[float, bool]:
    """(z, whether the net is worth keeping), of held-out residuals in sigmas without and with it, (n,)."""
    gain = before.square() - after.square()
    spread = float(gain.std())
    z = math.sqrt(len(gain)) * float(gain.mean()) / spread if spread else 0.0
    return z, z > SURE and float(gain.mean()) > GAIN * float(before.square().mean())
