"""A dual-parallel (IQ) Mach-Zehnder modulator with a photodiode at either port of its last coupler: two drives, two readings.

Two push-pull modulators stand side by side; their fields, in units of that of the laser behind the losses, are (Saleh & Teich,
Fundamentals of Photonics, ch. 20)

    e_k = cos( pi V_k / (2 V_pi) + phi_k / 2 )      k = 1, 2; e_k^2 = (1 + cos(pi V_k / V_pi + phi_k)) / 2

and meet in a 2 x 2 coupler with the phase psi between them, whose ports carry

    P_1 = P/2 [ e_1^2 + e_2^2 + 2 e_1 e_2 cos psi ] / 2          P_2 = P/2 [ e_1^2 + e_2^2 - 2 e_1 e_2 cos psi ] / 2

with P = P_laser 10^(-IL/10); so no reading is above P, and each answers to both drives. Receivers, noise and the drift of phi_1
are those of mach_zehnder.py, one for each port; the extinction is perfect, and there is no hysteresis.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hil.device import Port, Spec
from hil.twin import Unknown
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.twin import State, held


class IqModulator(MachZehnder):
    """A node of two drives in V and two readings in V; rows follow one another, `step_s` apart.

    Args:
        v_pi_v: half-wave voltage of both, V.
        phase_rad: bias phase of the first at rest; -pi/2 is quadrature with rising slope.
        phase2_rad: bias phase of the second.
        combiner_rad: phase psi between the two fields.
        insertion_loss_db: IL, dB, positive.
        laser_w: power at the modulator, W.
        responsivity_a_per_w, dark_a, transimpedance_ohm: each receiver.
        bandwidth_hz: its pole.
        thermal_a_per_rthz: input-referred noise density, A/sqrt(Hz).
        rin_db_per_hz: laser intensity noise.
        noise: factor on the noise amplitude; 0 is a noiseless node, 1 the physics.
        drift_rad_per_s, drift_rad_per_rts: rate and random walk of the first bias phase.
        low_v, high_v: limits of both drives.
        step_s: time between successive rows.
        overhead_s: virtual time per call.
    """

    def __init__(
        self,
        *,
        v_pi_v: float = 3.5,
        phase_rad: float = -math.pi / 2,
        phase2_rad: float = -math.pi / 2,
        combiner_rad: float = math.pi / 3,
        insertion_loss_db: float = 4.0,
        laser_w: float = 1e-3,
        responsivity_a_per_w: float = 0.9,
        dark_a: float = 5e-9,
        transimpedance_ohm: float = 1000.0,
        bandwidth_hz: float = 500e6,
        thermal_a_per_rthz: float = 10e-12,
        rin_db_per_hz: float = -150.0,
        noise: float = 1.0,
        drift_rad_per_s: float = 0.0,
        drift_rad_per_rts: float = 0.0,
        low_v: float = -5.0,
        high_v: float = 5.0,
        step_s: float = 10e-9,
        overhead_s: float = 5e-3,
    ) -> None:
        super().__init__(
            v_pi_v=v_pi_v, phase_rad=phase_rad, insertion_loss_db=insertion_loss_db, laser_w=laser_w,
            responsivity_a_per_w=responsivity_a_per_w, dark_a=dark_a, transimpedance_ohm=transimpedance_ohm,
            bandwidth_hz=bandwidth_hz, thermal_a_per_rthz=thermal_a_per_rthz, rin_db_per_hz=rin_db_per_hz, noise=noise,
            drift_rad_per_s=drift_rad_per_s, drift_rad_per_rts=drift_rad_per_rts, low_v=low_v, high_v=high_v, step_s=step_s,
            overhead_s=overhead_s,
        )  # fmt: skip
        self.phase2_rad, self.combiner_rad = phase2_rad, combiner_rad

    @property
    def spec(self) -> Spec:
        """The ports: two drives in V, two readings in V, no parameters."""
        one = super().spec
        inputs = Port("modulator drives", self.low_v, self.high_v, "V", 2)
        return replace(one, inputs=inputs, outputs=replace(one.outputs, name="photodiodes", size=2))

    def settings(self) -> dict[str, float]:
        """The keyword arguments that make this twin again."""
        found = super().settings()
        del found["extinction_db"], found["hysteresis_v"]
        return {**found, "phase2_rad": self.phase2_rad, "combiner_rad": self.combiner_rad}

    @property
    def period(self) -> float:
        """4 v_pi, in V: a field changes its sign after half of it."""
        return 4 * self.v_pi_v

    def unknowns(self) -> dict[str, Unknown]:
        """Return what a specimen has its own value of, with limits and spread."""
        found = {name: one for name, one in super().unknowns().items() if name != "extinction_db"}
        return {**found, "phase2_rad": found["phase_rad"], "combiner_rad": Unknown(-math.pi, math.pi, 0.1, "rad")}

    def current(self, drive_v: Tensor, phase_rad: Tensor | float) -> Tensor:
        """Settled photocurrents in A for drives in V, (..., 2); differentiable."""
        first = torch.cos(drive_v[..., 0] * (0.5 * math.pi / self.v_pi_v) + 0.5 * phase_rad)
        second = torch.cos(drive_v[..., 1] * (0.5 * math.pi / self.v_pi_v) + 0.5 * self.phase2_rad)
        both, beat = first * first + second * second, 2 * math.cos(self.combiner_rad) * first * second
        return torch.stack([both + beat, both - beat], -1) * (0.25 * self._peak_a) + self.dark_a

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """(first bias phase in rad, settled photocurrents (2,) in A at 0 V)."""
        del batch  # one physical node: its state does not depend on how many rows are sent
        phase = torch.tensor(self.phase_rad, dtype=held(torch.float64, rng.device), device=rng.device)
        return phase, self.current(torch.zeros(2, dtype=phase.dtype, device=rng.device), phase)

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(rows, 2) drive in V -> (rows, 2) reading in V, each row read at the end of its step."""
        del params  # nothing can be programmed on a bare modulator
        phase, last = state
        settled = [self._settle(port, last[k]) for k, port in enumerate(self.current(x, phase.to(x)).unbind(-1))]
        current = torch.stack([values for values, _ in settled], -1)
        if self.noise:
            normal = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
            current = torch.addcmul(current, normal, self._noise_a(current))
        ends = torch.stack([end for _, end in settled])
        return current * self.transimpedance_ohm, (self._drifted(phase, len(x), rng), ends)
