"""A LiNbO3 Mach-Zehnder modulator in front of a photodiode and a transimpedance amplifier.

Optics, one push-pull modulator (Saleh & Teich, Fundamentals of Photonics, ch. 20; Paquot et al., Sci. Rep. 2, 287, 2012):

    P(V)   = P_laser 10^(-IL/10) [ 1 + m cos(pi V / V_pi + phi) ] / (1 + m)      m = (1 - r) / (1 + r),  r = 10^(-ER/10)

so that the best transmission is the insertion loss IL (dB) and the worst is ER (dB) below it. Receiver:

    I(V)   = R P(V) + I_dark                                   R responsivity in A/W
    dI/dt  = 2 pi B ( I(V) - I )                               one pole at B, integrated exactly over each held value
    U      = Z ( I + i_n )                                     Z transimpedance in ohm

Noise current, white over the noise bandwidth pi/2 B of one pole (Agrawal, Fiber-Optic Communication Systems, ch. 4):

    <i_n^2> = (pi/2 B) ( 2 q I + i_th^2 + 10^(RIN/10) I_ph^2 )       shot, thermal (input-referred density), laser intensity

The noise of values a step apart is taken as independent: true for steps well above 1 / (2 pi B), 0.32 ns at 500 MHz.

Drift of the bias point (charge and temperature in the crystal), over virtual time, once per call:

    phi <- phi + rate t + sqrt(D t) n,      t = values x step_s + overhead_s

Hysteresis of width H between drive and modulator, rate-independent (the play operator; Visintin, Differential Models of
Hysteresis, ch. III): what acts is w instead of V,

    w_k = min( max( w_k-1, V_k - H/2 ), V_k + H/2 )

Clamps compose to clamps, so all of them are found by a scan in log2(values) steps. `ideal` is the middle of the loop.

Specimens stray (`unknowns`) as far as the columns "typical" and "maximum" of data sheets of LiNbO3 intensity modulators and of
amplified photodiodes lie apart: 3 % of the half-wave voltage, 1.5 dB of extinction, a tenth of the bandwidth, a third of the
dark current; the received power is set to 0.25 dB, the bias to 0.3 rad by hand, and it creeps at some 0.3 mrad/s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError
from hil.twin import Unknown
from sim_devices.twin import State, held

ELEMENTARY_CHARGE_C = 1.602176634e-19
NEGLIGIBLE = 2.0**-24  # below the resolution of float32: a pole this fast leaves no trace of the previous value


class MachZehnder(nn.Module):
    """A node shared in time: values follow one another, row by row, `step_s` apart.

    Args:
        v_pi_v: half-wave voltage, V.
        phase_rad: bias phase phi at rest; -pi/2 is quadrature with rising slope.
        extinction_db, insertion_loss_db: ER and IL, dB, positive.
        laser_w: power at the modulator, W.
        responsivity_a_per_w, dark_a, transimpedance_ohm: receiver.
        bandwidth_hz: its pole B.
        thermal_a_per_rthz: input-referred noise density, A/sqrt(Hz).
        rin_db_per_hz: laser intensity noise.
        noise: factor on the noise amplitude; 0 is a noiseless node, 1 the physics.
        drift_rad_per_s, drift_rad_per_rts: rate and random walk of the bias phase.
        hysteresis_v: width of the loop, V.
        low_v, high_v: limits of the drive.
        step_s: time between successive values.
        overhead_s: virtual time per call.
    """

    def __init__(
        self,
        *,
        v_pi_v: float = 3.5,
        phase_rad: float = -math.pi / 2,
        extinction_db: float = 30.0,
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
        hysteresis_v: float = 0.0,
        low_v: float = -5.0,
        high_v: float = 5.0,
        step_s: float = 10e-9,
        overhead_s: float = 5e-3,
    ) -> None:
        super().__init__()
        _positive(v_pi_v=v_pi_v, laser_w=laser_w, responsivity_a_per_w=responsivity_a_per_w, bandwidth_hz=bandwidth_hz)
        _positive(transimpedance_ohm=transimpedance_ohm, step_s=step_s, extinction_db=extinction_db)
        if not 0 <= hysteresis_v < math.inf:
            raise ConfigError("hysteresis_v makes no sense", where="MachZehnder", got=f"{hysteresis_v}", allowed="0 or more")
        self.v_pi_v, self.phase_rad = v_pi_v, phase_rad
        self.extinction_db, self.insertion_loss_db = extinction_db, insertion_loss_db
        self.laser_w, self.responsivity_a_per_w, self.dark_a = laser_w, responsivity_a_per_w, dark_a
        self.transimpedance_ohm, self.bandwidth_hz = transimpedance_ohm, bandwidth_hz
        self.thermal_a_per_rthz, self.rin_db_per_hz, self.noise = thermal_a_per_rthz, rin_db_per_hz, noise
        self.drift_rad_per_s, self.drift_rad_per_rts = drift_rad_per_s, drift_rad_per_rts
        self.hysteresis_v = hysteresis_v
        self.low_v, self.high_v, self.step_s, self.overhead_s = low_v, high_v, step_s, overhead_s

    @property
    def spec(self) -> Spec:
        """The ports: one drive in V, one reading in V, no parameters."""
        top = self.transimpedance_ohm * (self._peak_a + self.dark_a)
        return Spec(
            inputs=Port("modulator drive", self.low_v, self.high_v, "V"),
            outputs=Port("photodiode", -0.25 * top, 1.25 * top, "V"),
            provenance="twin",
        )

    def settings(self) -> dict[str, float]:
        """The keyword arguments that make this twin again."""
        names = (
            "v_pi_v", "phase_rad", "extinction_db", "insertion_loss_db", "laser_w", "responsivity_a_per_w", "dark_a",
            "transimpedance_ohm", "bandwidth_hz", "thermal_a_per_rthz", "rin_db_per_hz", "noise", "drift_rad_per_s",
            "drift_rad_per_rts", "hysteresis_v", "low_v", "high_v", "step_s", "overhead_s",
        )  # fmt: skip
        return {name: float(getattr(self, name)) for name in names}

    def sampled(self, step_s: float) -> Self:
        """The same physics, its values `step_s` apart."""
        return self.remade({"step_s": step_s})

    @property
    def period(self) -> float:
        """2 v_pi, in V."""
        return 2 * self.v_pi_v

    def unknowns(self) -> dict[str, Unknown]:
        """Return what a specimen has its own value of, with limits and spread.

        Of the light's way (laser, fibres, loss, responsivity) the product alone can be seen, and the insertion loss stands
        for it.
        """
        noisy = {"noise": Unknown(0.1, 10.0, 0.1, seen=False)} if self.noise > 0 else {}
        return {
            "v_pi_v": Unknown.about(self.v_pi_v, 3.5, 1 / 35, "V"),
            "phase_rad": Unknown(-math.pi, math.pi, 0.3, "rad", period=2 * math.pi),
            "extinction_db": Unknown(3.0, 60.0, 1.5, "dB"),
            "insertion_loss_db": Unknown(0.0, 20.0, 0.25, "dB"),
            "dark_a": Unknown(0.0, max(50e-9, 10 * self.dark_a), max(1.5e-9, 0.3 * self.dark_a), "A"),
            "bandwidth_hz": Unknown.about(self.bandwidth_hz, 20.0, 0.1, "Hz", seen=False),
            **noisy,
            "drift_rad_per_s": Unknown(-0.1, 0.1, 3e-4, "rad/s", seen=False),
        }

    def remade(self, settings: Mapping[str, float]) -> Self:
        """The same kind with these settings instead of its own."""
        return type(self)(**{**self.settings(), **settings})

    @property
    def _peak_a(self) -> float:
        """Photocurrent at best transmission, A."""
        return self.responsivity_a_per_w * self.laser_w * 10 ** (-self.insertion_loss_db / 10)

    def current(self, drive_v: Tensor, phase_rad: Tensor | float) -> Tensor:
        """Settled photocurrent in A for a drive in V, same shape; differentiable."""
        darkest = 10 ** (-self.extinction_db / 10)
        depth = (1 - darkest) / (1 + darkest)
        swing = self._peak_a * depth / (1 + depth)
        angle = drive_v * (math.pi / self.v_pi_v) + phase_rad
        return torch.cos(angle).mul_(swing).add_(self._peak_a / (1 + depth) + self.dark_a)

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless, settled reading in V at the bias phase of rest; differentiable in x."""
        return self.current(x, self.phase_rad) * self.transimpedance_ohm

    def noise_at(self, x: Tensor) -> Tensor:
        """Standard deviation in V of a settled reading at the drive x in V, same shape."""
        return self._noise_a(self.current(x, self.phase_rad)) * self.transimpedance_ohm

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """(bias phase in rad, settled photocurrent in A at 0 V, what acts of the drive in V)."""
        del batch  # one physical node: its state does not depend on how many values are sent
        phase = torch.tensor(self.phase_rad, dtype=held(torch.float64, rng.device), device=rng.device)
        nothing = torch.zeros_like(phase)
        return phase, self.current(nothing, phase), nothing

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, n) drive in V -> (batch, n) reading in V, each value read at the end of its step."""
        del params  # nothing can be programmed on a bare modulator
        phase, last, acting = state
        if self.hysteresis_v:
            x, acting = self._played(x, acting)
        current = self.current(x, phase.to(x))
        current, last = self._settle(current, last)
        if self.noise:
            normal = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
            current = torch.addcmul(current, normal, self._noise_a(current))
        return current * self.transimpedance_ohm, (self._drifted(phase, x.numel(), rng), last, acting)

    def _played(self, drive_v: Tensor, acting: Tensor) -> tuple[Tensor, Tensor]:
        """Return the voltage that acts at each value, and after the last.

        Clamps are composed: clamp k after clamp k - d is the clamp of its limits into those of k.
        """
        flat = drive_v.reshape(-1).to(acting.dtype)
        low, high = flat - 0.5 * self.hysteresis_v, flat + 0.5 * self.hysteresis_v
        reach = 1
        while reach < len(flat):
            low, high = (
                torch.cat([limit[:reach], torch.clamp(limit[:-reach], low[reach:], high[reach:])]) for limit in (low, high)
            )
            reach *= 2
        acts = torch.clamp(acting, low, high)
        return acts.to(drive_v).view_as(drive_v), acts[-1] if len(acts) else acting

    def _settle(self, target: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Apply one pole to held values: y_k = a y_{k-1} + (1 - a) target_k, a = exp(-2 pi B step), cut where it vanishes."""
        keep = math.exp(-2 * math.pi * self.bandwidth_hz * self.step_s)
        flat = target.reshape(-1)
        if keep < NEGLIGIBLE or flat.numel() == 0:
            return target, flat[-1].to(last) if flat.numel() else last
        taps = min(flat.numel(), math.ceil(math.log(NEGLIGIBLE) / math.log(keep)) + 1)
        powers = keep ** torch.arange(taps, dtype=last.dtype, device=flat.device)
        kernel = ((1 - keep) * powers).flip(0).to(flat.dtype).view(1, 1, -1)
        padded = nn.functional.pad(flat.view(1, 1, -1), (taps - 1, 0))
        settled = nn.functional.conv1d(padded, kernel).view(-1)
        head = (last * keep * powers).to(flat.dtype)
        settled = torch.cat([settled[:taps] + head, settled[taps:]])
        return settled.view_as(target), settled[-1].to(last)

    def _noise_a(self, current: Tensor) -> Tensor:
        """Standard deviation of the noise current in A, same shape."""
        band = self.noise**2 * 0.5 * math.pi * self.bandwidth_hz
        variance = current * (2 * ELEMENTARY_CHARGE_C * band)
        variance.addcmul_(current, current, value=band * 10 ** (self.rin_db_per_hz / 10))
        return variance.add_(band * self.thermal_a_per_rthz**2).clamp_(min=0).sqrt_()

    def _drifted(self, phase: Tensor, values: int, rng: torch.Generator) -> Tensor:
        elapsed = values * self.step_s + self.overhead_s
        moved = phase + self.drift_rad_per_s * elapsed
        if self.drift_rad_per_rts:
            normal = torch.randn((), generator=rng, dtype=phase.dtype, device=rng.device)
            moved = moved + self.drift_rad_per_rts * math.sqrt(elapsed) * normal
        return moved


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} must be positive", where="MachZehnder", got=f"{value}", allowed="above 0")
