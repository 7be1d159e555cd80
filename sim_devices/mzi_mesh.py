"""A rectangular mesh of Mach-Zehnder interferometers: N waveguides in, N photodiodes out, two heaters per interferometer.

One interferometer, on waveguides m and m + 1; theta between its couplers, phi before them, both on the upper arm:

    M(theta, phi) = t B(e2) diag(e^i theta, 1) B(e1) diag(e^i phi, 1)     B(e) = | cos(pi/4 + e)    i sin(pi/4 + e) |
    t = 10^(-l (1 + 0.1 n) / 20), n >= -3                                     | i sin(pi/4 + e)    cos(pi/4 + e)  |
N columns; column c holds the interferometers with m = c mod 2, c mod 2 + 2, ...: N (N - 1) / 2 in all. Heaters are counted
column by column, from the top, theta before phi. Their phases, with p_j the heat of heater j in V^2:

    phase_k = phase0_k + sum_j C_kj p_j         dp_j/dt = (q_j - p_j) / tau
    q_j = V_j^2 ( 1 + h V_j^2 / V_max^2 )       self-heating h
    C_jj = pi / V_pi^2 (1 + 0.05 n_j)           C_kj: sim_devices/heaters.py

A waveguide at the edge that a column leaves out loses nothing there, so paths lose differently. After heaters were programmed
settle_s passes, and row_s before each reading, row by row of a batch; the heat is the state, and a chip that was not programmed
is cold. What is left of a change below 1e-7 rad is none, and the bench that this stands for waits that long.

Driven by an I/Q modulator in front of every waveguide, x = (I_1 .. I_N, Q_1 .. Q_N); read as power:

    a_j = sqrt(P_in) (I_j + i Q_j)              y_n = g_n 10^(-L/10) | (U a)_n |^2 + dark + noise

Hidden in a specimen: phase0 uniform on the circle, coupler errors e, losses t, C, photodiode gains g. Not fittable by a few
numbers: what is unknown of it are matrices, which calibration/mesh/crosstalk.py finds for a mesh without losses t.

Sources: Clements et al., Optica 3, 1460 (2016), arXiv:1603.08788 (the rectangle); Pai et al., IEEE JSTQE (2020) (errors);
Bandyopadhyay, Hamerly & Englund, Optica 8, 1247 (2021) (couplers);
Harris et al., Opt. Express 22, 10487 (2014) (a heater of 0.23 dB and 130 kHz: tau = 1.2 us, if it relaxes at one rate).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError
from hil.seeding import generator
from sim_devices.heaters import SPREAD_OWN, crosstalk_matrix
from sim_devices.twin import State

COLUMN_PITCH, MODE_PITCH = 2.0, 1.0  # in heater pitches: phi and theta of a column lie one behind the other
SPREAD_LOSS = 0.1
SETTLED_RAD = 1e-7


class MZIMesh(nn.Module):
    """A node of 2 N drives and N readings, programmed by N (N - 1) heater voltages; nothing programmed: all at 0 V.

    Args:
        modes: N.
        specimen: which chip of the wafer; -1: the one as designed, without errors and crosstalk.
        v_pi_v: heater voltage for a phase of pi.
        v_max_v: largest one.
        self_heating: h at the largest voltage.
        crosstalk: phase at a heater one pitch away, as a share of the heater's own.
        reach: pitches in which it falls by e.
        coupler_rad: standard deviation of the coupler errors e.
        gain_spread: that of the photodiodes' gains.
        input_w: power of a full I alone, in W.
        loss_db: L.
        mzi_loss_db: typical loss l of an interferometer.
        thermal_s: time constant tau of the heat; 0: heat is there at once.
        settle_s: time between programming and the first reading.
        row_s: time that a reading takes.
        dark_w: of a photodiode.
        noise_w, relative_noise: standard deviation of a reading, in W and as a share of it.
        noise: factor on both; 0 is none.
        dead_heaters, dead_photodiodes: numbers of those that do nothing, from 0.
    """

    phase0: Tensor
    matrix: Tensor
    couplers: Tensor
    passes: Tensor
    gains: Tensor

    def __init__(
        self,
        *,
        modes: int = 4,
        specimen: int = 0,
        v_pi_v: float = 5.0,
        v_max_v: float = 8.0,
        self_heating: float = 0.03,
        crosstalk: float = 0.05,
        reach: float = 1.0,
        coupler_rad: float = 0.02,
        gain_spread: float = 0.03,
        input_w: float = 1e-4,
        loss_db: float = 3.0,
        mzi_loss_db: float = 0.0,
        thermal_s: float = 1.2e-6,
        settle_s: float = 1e-3,
        row_s: float = 1e-3,
        dark_w: float = 2e-8,
        noise_w: float = 5e-8,
        relative_noise: float = 1e-3,
        noise: float = 1.0,
        dead_heaters: Sequence[int] = (),
        dead_photodiodes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        _positive(v_pi_v=v_pi_v, v_max_v=v_max_v, reach=reach, input_w=input_w)
        _not_negative(mzi_loss_db=mzi_loss_db, thermal_s=thermal_s, settle_s=settle_s, row_s=row_s)
        if modes < 2:
            raise ConfigError("a mesh needs two waveguides", where="MZIMesh", got=f"modes = {modes}", allowed="2 or more")
        _numbers("dead_heaters", dead_heaters, modes * (modes - 1))
        _numbers("dead_photodiodes", dead_photodiodes, modes)
        self.modes, self.specimen = modes, specimen
        self.v_pi_v, self.v_max_v, self.self_heating = v_pi_v, v_max_v, self_heating
        self.crosstalk, self.reach, self.coupler_rad, self.gain_spread = crosstalk, reach, coupler_rad, gain_spread
        self.input_w, self.loss_db, self.dark_w = input_w, loss_db, dark_w
        self.mzi_loss_db, self.thermal_s, self.settle_s, self.row_s = mzi_loss_db, thermal_s, settle_s, row_s
        self.noise_w, self.relative_noise, self.noise = noise_w, relative_noise, noise
        self.dead_heaters, self.dead_photodiodes = tuple(dead_heaters), tuple(dead_photodiodes)
        self._columns = [range(column % 2, modes - 1, 2) for column in range(modes)]
        self._fabricate()
        self._spec = self._ports()  # asked for ten times a shot

    def _fabricate(self) -> None:
        heaters = self.modes * (self.modes - 1)
        designed = 0.0 if self.specimen < 0 else 1.0

        def normal(what: str, *shape: int) -> Tensor:
            rng = generator(max(self.specimen, 0), 0, f"mesh {what}")
            return designed * torch.randn(shape, generator=rng, dtype=torch.float64)

        turn = torch.rand(heaters, generator=generator(max(self.specimen, 0), 0, "mesh phase"), dtype=torch.float64)
        own = math.pi / self.v_pi_v**2 * (1 + SPREAD_OWN * normal("own", heaters).clamp(-3, 3))
        cross = normal("cross", heaters, heaters).clamp(-3, 3)
        matrix = crosstalk_matrix(own, self._places(), designed * self.crosstalk, self.reach, cross)
        matrix[:, list(self.dead_heaters)] = 0.0
        lost_db = self.mzi_loss_db * (1 + SPREAD_LOSS * normal("loss", heaters // 2).clamp(min=-3))
        gains = 1 + self.gain_spread * normal("gain", self.modes).clamp(-3, 3)
        gains[list(self.dead_photodiodes)] = 0.0
        for name, values in (
            ("phase0", designed * 2 * math.pi * turn),
            ("matrix", matrix),
            ("couplers", self.coupler_rad * normal("coupler", heaters // 2, 2)),
            ("passes", 10 ** (-lost_db / 20)),
            ("gains", gains),
        ):
            self.register_buffer(name, values, persistent=False)

    def _places(self) -> Tensor:
        """Return the positions of the heaters (N (N - 1), 2), in pitches."""
        places = []
        for column, tops in enumerate(self._columns):
            for m in tops:
                places += [(COLUMN_PITCH * column + 1, MODE_PITCH * m), (COLUMN_PITCH * column, MODE_PITCH * m)]
        return torch.tensor(places, dtype=torch.float64)

    @property
    def spec(self) -> Spec:
        """I and Q of N inputs, powers of N outputs in W, N (N - 1) heaters in V as parameters."""
        return self._spec

    def _ports(self) -> Spec:
        n, brightest = self.modes, 2 * self.modes * self._throughput * 1.25
        margin = 16 * (self.noise_w + self.relative_noise * brightest)
        return Spec(
            inputs=Port("I and Q of the mesh's inputs", -1.0, 1.0, "1", 2 * n),
            outputs=Port("photodiodes of the mesh", -margin, brightest + self.dark_w + margin, "W", n),
            params=Port("heaters of the mesh", 0.0, self.v_max_v, "V", n * (n - 1)),
            provenance="twin",
        )

    @property
    def _throughput(self) -> float:
        """Power behind the mesh of a full I alone, W."""
        return self.input_w * 10 ** (-self.loss_db / 10)

    def heat(self, volts: Tensor) -> Tensor:
        """Heater voltages (N (N - 1),) -> their heat q in V^2 once it has settled, same shape."""
        square = volts.to(self.matrix) ** 2
        return square * (1 + self.self_heating / self.v_max_v**2 * square)

    def phases(self, volts: Tensor) -> Tensor:
        """Heater voltages (N (N - 1),) -> phases in rad, same shape, settled."""
        return self.phase0 + self.matrix @ self.heat(volts)

    def unitary(self, volts: Tensor | None = None) -> Tensor:
        """Return the matrix (N, N), complex, of the mesh alone, which no lab sees but through powers.

        None: nothing programmed. Without losses in the interferometers it is unitary.
        """
        return self.matrix_at(self.phase0 if volts is None else self.phases(volts))

    def matrix_at(self, phases: Tensor) -> Tensor:
        """Phases (..., N (N - 1)) in rad -> matrices (..., N, N), complex; differentiable."""
        theta, phi = torch.polar(torch.ones_like(phases), phases).view(*phases.shape[:-1], -1, 2).unbind(-1)
        angle = math.pi / 4 + self.couplers
        (c1, c2), (s1, s2) = angle.cos().unbind(-1), angle.sin().unbind(-1)
        whole = theta, torch.ones_like(theta)
        (a, d), (b, c) = (
            (c1 * c2 * one - s1 * s2 * other for one, other in (whole, whole[::-1])),
            (1j * (first * theta + second) for first, second in ((s1 * c2, c1 * s2), (c1 * s2, s1 * c2))),
        )
        both = torch.stack([a * phi, b, c * phi, d], -1).view(*phi.shape, 2, 2) * self.passes.view(-1, 1, 1)
        field = torch.eye(self.modes, dtype=both.dtype, device=both.device).expand(*phases.shape[:-1], -1, -1)
        first = 0
        for tops in self._columns:
            here, top, end = slice(first, first + len(tops)), tops.start, tops.start + 2 * len(tops)
            first += len(tops)
            pairs = both[..., here, :, :] @ field[..., top:end, :].reshape(*phases.shape[:-1], len(tops), 2, self.modes)
            field = torch.cat([field[..., :top, :], pairs.flatten(-3, -2), field[..., end:, :]], -2)
        return field

    def _reading(self, x: Tensor, volts: Tensor | None) -> Tensor:
        return self._power(x, self.unitary(volts))

    def _power(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Drives (batch, 2 N) through matrix (N, N), or (batch, N, N) of one for each, -> readings (batch, N) in W."""
        real, imaginary = matrix.real.to(x).mT, matrix.imag.to(x).mT
        i, q = (part if matrix.ndim == 2 else part.unsqueeze(-2) for part in x.chunk(2, -1))
        power = (i @ real - q @ imaginary).square() + (i @ imaginary + q @ real).square()
        return (power if matrix.ndim == 2 else power.squeeze(-2)) * (self.gains * self._throughput).to(x) + self.dark_w

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless reading in W with nothing programmed; differentiable in x."""
        return self._reading(x, None)

    def settled(self, x: Tensor, params: Tensor) -> Tensor:
        """Noiseless reading in W, heaters at `params` (N (N - 1),) V; differentiable in both."""
        return self._reading(x, params)

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return the heat p of each heater, cold, and where it goes to, in V^2."""
        return torch.zeros_like(self.phase0), torch.zeros_like(self.phase0)

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, 2 N) I and Q -> (batch, N) power in W; the heat settles from reading to reading."""
        heat, before = state
        aim = torch.zeros_like(self.phase0) if params is None else self.heat(params)
        matrix, heat = self._warming(heat.to(aim), aim, 0.0 if torch.equal(before.to(aim), aim) else self.settle_s, len(x))
        reading, state = self._power(x, matrix), (heat, aim)
        if self.noise:
            normal = torch.randn(reading.shape, generator=rng, device=x.device, dtype=x.dtype)
            sigma = torch.hypot(torch.full_like(reading, self.noise_w), self.relative_noise * reading)
            reading = reading + self.noise * sigma * normal
        return reading, state

    def _warming(self, heat: Tensor, aim: Tensor, waited_s: float, rows: int) -> tuple[Tensor, Tensor]:
        """Return the matrix of all `rows`, or one for each row while the heat still moves, and the heat at the last row."""
        off = heat - aim
        phase, drifts = self.phase0 + self.matrix @ aim, self.matrix @ off
        left = [math.exp(-(waited_s + k * self.row_s) / self.thermal_s) if self.thermal_s else 0.0 for k in (1, rows)]
        if left[0] * float(drifts.abs().max()) < SETTLED_RAD:
            return self.matrix_at(phase), aim
        times = waited_s + self.row_s * torch.arange(1, rows + 1, dtype=phase.dtype, device=phase.device)
        return self.matrix_at(phase + torch.exp(-times / self.thermal_s).unsqueeze(1) * drifts), aim + left[1] * off


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} must be positive", where="MZIMesh", got=f"{value}", allowed="above 0, finite")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ConfigError(f"{name} must not be negative", where="MZIMesh", got=f"{value}", allowed="0 or more, finite")


def _numbers(name: str, values: Sequence[int], count: int) -> None:
    if any(not 0 <= value < count for value in values):
        raise ConfigError(f"no such number in {name}", where="MZIMesh", got=f"{list(values)}", allowed=f"0 to {count - 1}")
