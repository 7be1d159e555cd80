"""Projections of the error by a device: two shots with opposite signs, whose difference is linear in them.

    field at reading m     E_m(s) = C_m + sum_k D_mk s_k          of signs s_k = -1 or 1, each one of two levels of its channels
    reading                I_m = |E_m|^2                          so the square of what is linear
    two shots              I_m(s) - I_m(-s) = 4 Re( C_m* D_m ) s  a fixed random real matrix, whatever the two levels are
    error                  e = |e|_max sum_p w_p s_p,   w = 1/2, 1/4, ..., 2^-(P-1), 2^-(P-1)       P planes of signs
    B e                  = gain_l |e|_max sum_p w_p ( I(s_p) - I(-s_p) )

C is what does not move: the mean of the two levels, and the channels that carry no class, which rest and are the reference beam
of light on one path. Two planes are the error of three values, -1, 0 and 1; every further one halves their distance. The power
of the host is that of a subtraction. gain_l gives the entries of B_l the root mean square that its matrix on the host would
have; it is measured once, with PROBES random signs a class, and a device that no matrix describes is refused.

Sources: Launay et al., arXiv:2006.01475 (2020) (the error of three values, projected by light, read by holography); Ohana et
al., Opt. Express 31, 25881 (2023) (linear projections by differences of intensities, without holography). Differences of
opposite signs, and the planes, are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hil.device import Device, Spec, plain
from hil.errors import ConfigError, MeasurementError, OutOfRange
from hil.seeding import generator

PROBES = 8  # random signs that are sent for every class
UNEXPLAINED = 0.5  # a larger share of the power of the answers that no matrix explains is no projection
SAFE = "safe; whatever was opened is closed again"


class DeviceProjection(nn.Module):
    """Projects as hil.learners.parts.projection.Projection does, by a device.

    Args:
        device: static, of K channels and M readings.
        shapes: of one example of each hidden layer; M readings are enough for all of them.
        outputs: length of the error, K at most.
        scales: root mean square of the entries of B, one a layer.
        levels: the drives of the signs - and +, in the unit of the input port; None: a quarter and three quarters of its range.
        planes: P.

    Raises:
        ConfigError: the device is of another kind, or its sizes do not fit. OutOfRange: a level.

    The state holds `gain`, (layers,), and `unexplained`, (layers,), the share of the power that no matrix explained; both are 0
    until the first projection has measured them.
    """

    gain: Tensor
    unexplained: Tensor

    def __init__(
        self, device: Device, shapes: Sequence[tuple[int, ...]], outputs: int, scales: Sequence[float],
        levels: tuple[float, float] | None = None, planes: int = 5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shapes, self.outputs = tuple(shapes), outputs
        self.widths = tuple(math.prod(shape) for shape in shapes)
        self._device, self._scales, self._planes = device, tuple(scales), planes
        channels = _channels(device.spec, self.outputs, self.widths)
        port = device.spec.inputs
        share = torch.tensor([[0.25], [0.75]]).expand(2, channels)
        wanted = port.within(share) if levels is None else torch.tensor(levels).unsqueeze(1).expand(2, channels).float()
        try:
            port.check(wanted)
        except OutOfRange as error:
            error.where, error.todo = f"[projection] levels, {error.where}", "give two levels within the limits of the port"
            raise
        self._levels, self._rest = wanted, port.resting().float().expand(channels)
        self._of = _places(channels, outputs)
        self.register_buffer("gain", torch.zeros(len(shapes)))
        self.register_buffer("unexplained", torch.zeros(len(shapes)))

    def onto(self, error: Tensor) -> tuple[Tensor, ...]:
        """Project the error (batch, outputs) onto every hidden layer: new tensors (batch, *shapes[layer]).

        Raises:
            OutOfRange: the error is not finite. MeasurementError: the device does not project. Others: as the device.
        """
        if not bool(self.gain.any()):
            self._measure(error)
        largest = error.abs().amax(1, keepdim=True)
        if not bool(torch.isfinite(largest).all()):
            raise OutOfRange(
                "the error at the readout is not finite, so it cannot be projected", where="[projection]",
                got="NaN or infinite",
                allowed="finite numbers", outputs="as they were; nothing was sent", todo="lower the rate of [optimizer]",
            )  # fmt: skip
        signs, weights = _planes_of(error / largest.clamp(min=torch.finfo(error.dtype).tiny), self._planes)
        projected = (self._differences(signs) * weights[:, None]).sum(1) * largest
        parts = torch.split(projected[:, : sum(self.widths)], [*self.widths], 1)
        return tuple(
            (part * gain).view(len(error), *shape) for part, gain, shape in zip(parts, self.gain, self.shapes, strict=True)
        )

    def _differences(self, signs: Tensor) -> Tensor:
        """I(s) - I(-s): (batch, planes, outputs), -1 and 1, -> (batch, planes, readings)."""
        pairs = torch.stack([signs, -signs], 2)
        carried = pairs[..., self._of.clamp(min=0).to(signs.device)]
        low, high = self._levels.to(signs)
        drive = torch.where(carried > 0, high, low)
        drive = torch.where(self._of.to(signs.device) < 0, self._rest.to(signs), drive)
        answer = self._device.forward(drive.flatten(0, 2))
        found = plain(answer, self._device.spec.outputs.name, signs.device).view(*pairs.shape[:3], -1)
        return found[:, :, 0] - found[:, :, 1]

    def _measure(self, like: Tensor) -> None:
        """Send random signs, and find the gain of every layer and how much of the answers a matrix explains.

        Args:
            like: a tensor where the host computes.
        """
        count = PROBES * self.outputs
        signs = 2.0 * torch.randint(0, 2, (count, 1, self.outputs), generator=generator(0, 0, "probes of a projection")) - 1.0
        read = self._differences(signs.to(like))[:, 0, : sum(self.widths)].cpu().double()
        sent = signs[:, 0].double()
        matrix = torch.linalg.lstsq(sent, read).solution
        power, left, rms = (
            torch.stack([part.square().mean() for part in torch.split(whole, [*self.widths], 1)])
            for whole in (read, read - sent @ matrix, matrix)
        )
        unexplained = torch.where(power > 0, left / power * count / (count - self.outputs), 1.0)
        if not bool((unexplained < UNEXPLAINED).all()):
            raise MeasurementError(
                "this device does not project the error linearly", where="[projection]",
                got=f"{min(float(unexplained.max()), 1.0):.0%} of its answer to opposite signs is noise, or follows no matrix",
                allowed=f"up to {UNEXPLAINED:.0%}", todo="more light or a longer exposure, other levels, or another device",
            )  # fmt: skip
        self.gain.copy_(torch.tensor(self._scales, dtype=torch.float64) / rms.sqrt())
        self.unexplained.copy_(unexplained)


def _channels(spec: Spec, outputs: int, widths: Sequence[int]) -> int:
    """K. Raises: ConfigError: the device is of another kind, or its sizes do not fit."""
    inputs, readings = spec.inputs.size, spec.outputs.size
    if spec.temporal or inputs is None or readings is None:
        raise ConfigError(
            "a device that projects mixes its channels, and has no state in time", where="[projection]",
            got="one with a state in time" if spec.temporal else "one that takes any number of channels, each for itself",
            allowed="a static device of fixed sizes, as a modulator with a camera behind a scattering medium", outputs=SAFE,
            todo="name another device",
        )  # fmt: skip
    units = sum(widths)
    if outputs > inputs or units > readings:
        raise ConfigError(
            "the error and the hidden layers do not fit the device that projects", where="[projection]",
            got=f"{outputs} values of the error, {units} values in {len(widths)} hidden layers",
            allowed=f"up to {inputs} of the error, one a channel, and up to {readings} in all hidden layers, one a reading",
            outputs=SAFE, todo="make the hidden layers of [network] narrower, or name a device with more readings",
        )  # fmt: skip
    return inputs


def _places(channels: int, outputs: int) -> Tensor:
    """(channels,): which value of the error a channel carries; -1: none, it rests. Half of them carry, if these are enough."""
    place = torch.arange(channels)
    copies = max(1, channels // (2 * outputs))
    of = place % (2 * outputs)
    return torch.where((of < outputs) & (place < 2 * outputs * copies), of, -1)


def _planes_of(share: Tensor, planes: int) -> tuple[Tensor, Tensor]:
    """(batch, n) from -1 to 1 -> signs (batch, planes, n) and their weights (planes,), whose sum is 1."""
    half = 2 ** (planes - 2)
    count = (share * half).round().long() + half  # 0 to 2 half
    full = count == 2 * half
    parts = [half >> place for place in range(planes - 1)]
    bits = [(count // part % 2).bool() | full for part in parts] + [full]
    weights = torch.tensor([*parts, 1], dtype=share.dtype, device=share.device) / (2 * half)
    return torch.stack(bits, 1).to(share.dtype) * 2 - 1, weights
