"""Light through a mesh: settings of its heaters in, powers of the probes out, in units of one full input.

    y = ( reading - dark ) / gain          gain of a photodiode: its reading for one full input that leaves through it alone

How the channels of such a Device are counted: 2 N drives, I of every input and then Q, in shares of a full field; N readings;
N (N - 1) heater voltages, column by column, from the top, the inner phase (theta) of an interferometer before the outer (phi).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calibration.mesh.clements import MeshLayout
from calibration.mesh.phase_reading import probes
from calibration.sequence import Found
from calibration.step import Problem, Step
from hil.device import Device, Spec, program

PHOTODIODES = "photodiodes"


def layout_of(spec: Spec) -> MeshLayout | None:
    """The mesh that has these channels, or None."""
    if spec.params is None or spec.outputs.size is None or spec.temporal:
        return None
    layout = MeshLayout.rectangle(spec.outputs.size)
    fits = spec.inputs.size == 2 * layout.modes and spec.params.size == layout.heaters and layout.modes > 1
    return layout if fits and spec.inputs.shared_low <= 0 and spec.inputs.shared_high >= 1 else None


def no_mesh(name: str, spec: Spec) -> Step:
    """The failed step of a procedure for meshes on another node."""
    params = "none" if spec.params is None else f"{spec.params.size}"
    found = f"{spec.inputs.size} drives, {spec.outputs.size} readings, {params} heaters"
    problem = Problem(
        "kind", "this node is not a mesh of interferometers", f"{found}; a mesh of N modes has 2 N, N and N (N - 1)",
        'calibrate it as what it is: another shape in its bench file',
    )  # fmt: skip
    return Step(name, f"not a mesh: {found}", success=(False,), problems=(problem,))


def drives(modes: int) -> Tensor:
    """The probes as drives (N^2, 2 N), float32."""
    light = probes(modes)
    return torch.cat([light.real, light.imag], 1).float()


@dataclass(frozen=True)
class Lit:
    """A mesh whose photodiodes are known.

    Args:
        dark, gain: (N,), W.
        gain_error: (N,), standard deviation of `gain`, as a share of it.
        noise_w: (N,), of one reading in the dark.
        relative: noise of a reading as a share of it.
        full_v: largest heater voltage.
        shots: readings that are averaged.
    """

    device: Device
    layout: MeshLayout
    dark: Tensor
    gain: Tensor
    gain_error: Tensor
    noise_w: Tensor
    relative: float
    full_v: float
    shots: int = 4

    @classmethod
    def of(cls, device: Device, found: Found) -> Lit:
        """Make the light that the step "photodiodes" found."""
        layout, step = layout_of(device.spec), found[PHOTODIODES]
        assert layout is not None  # that step would not be good
        assert device.spec.params is not None
        found_of = {what: [step.estimates[f"{what} {n}"] for n in range(layout.modes)] for what in ("dark", "gain")}
        dark, gain = (torch.tensor([e.value for e in found_of[what]], dtype=torch.float64) for what in ("dark", "gain"))
        noise = torch.tensor([e.sigma for e in found_of["dark"]], dtype=torch.float64) * math.sqrt(step.figures["shots"])
        error = torch.tensor([e.sigma for e in found_of["gain"]], dtype=torch.float64) / gain
        return cls(device, layout, dark, gain, error, noise, step.figures["relative_noise"], device.spec.params.shared_high)

    def powers(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Powers and their standard deviations, (R, N^2, N) each, at squared voltages (R, K) as shares of the largest."""
        light = drives(self.layout.modes)
        found = torch.stack([self._at(one, light, self.shots) for one in share])
        sigma = torch.hypot((self.noise_w / self.gain).expand_as(found), self.relative * found) / math.sqrt(self.shots)
        return found, sigma

    def straight(self, share: Tensor, inputs: Sequence[int], shots: int) -> Tensor:
        """Power from each input a to output N - 1 - a, summed over `inputs`, (R,), at squared voltages (R, K) as shares."""
        n = self.layout.modes
        light, ends = torch.eye(n, 2 * n)[list(inputs)], [n - 1 - a for a in inputs]
        return torch.stack([self._at(one, light, shots)[range(len(ends)), ends].sum() for one in share])

    def at_volts(self, volts: Tensor) -> Tensor:
        """Powers (N^2, N) at heater voltages (K,)."""
        return self._read(volts, drives(self.layout.modes), self.shots)

    def _at(self, share: Tensor, light: Tensor, shots: int) -> Tensor:
        return self._read((share.clamp(0, 1).sqrt() * self.full_v).float().clamp(0, self.full_v), light, shots)

    def _read(self, volts: Tensor, light: Tensor, shots: int) -> Tensor:
        program(self.device, volts)
        readings = self.device.forward(light.repeat(shots, 1)).double()
        return (readings.view(shots, len(light), -1).mean(0) - self.dark) / self.gain


def listed(problems: Sequence[Problem], most: int = 3) -> str:
    """Name the first problems in one line, and how many more there are."""
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return "".join(f"; {text}" for text in [*(problem.what for problem in problems[:most]), *more])
