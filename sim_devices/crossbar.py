"""A crossbar of memristors: voltages on its rows, a current from every two columns, and a conductance in each crossing.

    i_l  = g_l sum_k ( W_k,2l - W_k,2l+1 ) D(x_k)        a weight is a differential pair of cells in columns 2l and 2l + 1
    W    = what is left of G behind the wires            D(x): converter of the inputs, over -read_v to read_v
    y    = A( i + noise )                                A: converter of the outputs, over -range_a to range_a
    a converter of b bits has 2^b - 1 levels, 0 among them

Wires have a resistance r from cell to cell. Row k of N is driven at its left end, column c of M is held at 0 V at its lower
end. So (k, c) and (k, c') share min(c, c') segments of a row, and (k, c) and (k', c) share N + 1 - max(k, k') of a column:

    u_kc + r sum_c' min(c, c') G_kc' u_kc' + r sum_k' (N + 1 - max(k, k')) G_k'c u_k'c = D(x_k)         u: V across a cell
    solved    these equations, N M of them, solved once for each row                           i_c = sum_k G_kc u_kc, exact
    fast      W_kc = G_kc / ( 1 + r sum_c' min(c, c') G_kc' ) / ( 1 + r sum_k' (N + 1 - max(k, k')) G_k'c )

"fast" takes the voltage of all cells that share a wire for that of the cell itself. Where r is so small that the wires take a
share d of the voltage, it is off by less than d squared; benchmarks/RESULTS.md has its error against "solved".

Parameters: conductances, row by row, in S; or, with `siemens_per_v`, the voltage of each cell's select gate, which bounds the
current that sets it: G = g_min + siemens_per_v V. What writing adds to that, another twin says: sim_devices/written.py.

Hidden in a specimen: the conductances that it was formed with, gains g of its amplifiers, cells stuck at g_min or g_max.

Sources: Prezioso et al., Nature 521, 61 (2015), differential pairs; Hu et al., DAC (2016), converters and wires around a
crossbar as a multiplier; Chen, IEEE Trans. Electron Devices 60, 1318 (2013), the equations of its wires; Yao et al., Nature
577, 641 (2020), cells with a transistor, as differential pairs. The product of two dividers is ours.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError
from hil.seeding import generator
from hil.settings import Count, NotNegative, Positive
from sim_devices.twin import State

WHERE = "Crossbar"
MOST_SOLVED = 4096  # cells: the equations are a dense matrix

Bits = Literal[0] | Annotated[int, Field(ge=2, le=16)]


class Crossbar(nn.Module):
    """A node of K drives in V and L readings in A, programmed by 2 K L conductances; nothing programmed: as it was formed.

    Args:
        rows: number K of rows.
        outputs: number L of readings, two columns each.
        specimen: number of the chip, by which all that is hidden is drawn.
        g_min_siemens, g_max_siemens: limits of the conductance that a cell is set to.
        siemens_per_v: conductance that a cell gains for a V at its select gate; 0: parameters are conductances.
        read_v: largest voltage of a row, either way.
        range_a: largest reading, either way; 0: that of a full row voltage on sqrt(K) cells at g_max and none at g_min.
        dac_bits, adc_bits: resolution of the converters of inputs and outputs; 0: they do not round.
        wire_ohm: resistance r of a row or a column from one cell to the next.
        wires: how the voltage that the wires take is found; "solved" for up to 4,096 cells.
        noise_a, relative_noise: standard deviation of a reading, in A and as a share of it.
        noise: factor on both; 0 is none.
        gain_spread: standard deviation of the gains g.
        formed: share of the range, from g_min on, over which conductances lie before anything is programmed.
        stuck: share of the cells that are stuck at g_min or g_max.
    """

    formed: Tensor
    gains: Tensor
    dead: Tensor
    along: Tensor
    down: Tensor

    def __init__(
        self,
        *,
        rows: Count = 16,
        outputs: Count = 8,
        specimen: int = 0,
        g_min_siemens: NotNegative = 1e-6,
        g_max_siemens: Positive = 25e-6,
        siemens_per_v: NotNegative = 0.0,
        read_v: Positive = 0.2,
        range_a: NotNegative = 0.0,
        dac_bits: Bits = 8,
        adc_bits: Bits = 8,
        wire_ohm: NotNegative = 1.0,
        wires: Literal["fast", "solved"] = "fast",
        noise_a: NotNegative = 5e-8,
        relative_noise: NotNegative = 1e-3,
        noise: NotNegative = 1.0,
        gain_spread: NotNegative = 0.01,
        formed: Annotated[float, Field(ge=0, le=1)] = 1.0,
        stuck: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        super().__init__()
        if not g_min_siemens < g_max_siemens:
            raise ConfigError(
                "a cell needs a range of conductances", where=WHERE, got=f"{g_min_siemens:g} to {g_max_siemens:g} S",
                allowed="g_min below g_max",
            )  # fmt: skip
        if wires == "solved" and 2 * rows * outputs > MOST_SOLVED:
            raise ConfigError(
                "this crossbar is too large to be solved", where=WHERE, got=f"{2 * rows * outputs} cells",
                allowed=f"up to {MOST_SOLVED}", todo='write wires = "fast"',
            )  # fmt: skip
        self.rows, self.columns, self.specimen = rows, 2 * outputs, specimen
        self.g_min, self.g_max, self.siemens_per_v = g_min_siemens, g_max_siemens, siemens_per_v
        self.read_v, self.dac_bits, self.adc_bits = read_v, dac_bits, adc_bits
        self.range_a = range_a or read_v * (g_max_siemens - g_min_siemens) * math.sqrt(rows)
        self.wire_ohm, self.wires = wire_ohm, wires
        self.noise_a, self.relative_noise, self.noise = noise_a, relative_noise, noise
        self._fabricate(gain_spread, formed, stuck)
        self._spec = self._ports()
        self._kept: tuple[object, int, Tensor] | None = None

    def _fabricate(self, gain_spread: float, formed: float, stuck: float) -> None:
        def drawn(what: str, *shape: int) -> Tensor:
            return torch.rand(shape, generator=generator(self.specimen, 0, f"crossbar {what}"))

        cells, span = (self.rows, self.columns), self.g_max - self.g_min
        gains = torch.randn(self.columns // 2, generator=generator(self.specimen, 0, "crossbar gain"))
        is_stuck, at = drawn("stuck", *cells) < stuck, torch.where(drawn("stuck at", *cells) < 0.5, self.g_min, self.g_max)
        along, down = torch.arange(1.0, self.columns + 1), torch.arange(float(self.rows), 0, -1)
        for name, values in (
            ("formed", self.g_min + formed * span * drawn("formed", *cells)),
            ("gains", 1 + gain_spread * gains.clamp(-3, 3)),
            ("dead", torch.where(is_stuck, at, math.nan)),
            ("along", torch.minimum(along[:, None], along)),
            ("down", torch.minimum(down[:, None], down)),
        ):
            self.register_buffer(name, values, persistent=False)

    @property
    def spec(self) -> Spec:
        """Voltages of the rows, currents in A, and the conductances of the cells, or the voltages of their gates."""
        return self._spec

    def _ports(self) -> Spec:
        cells, highest = self.rows * self.columns, self.g_max - self.g_min
        return Spec(
            inputs=Port("rows of the crossbar", -self.read_v, self.read_v, "V", self.rows),
            outputs=Port("columns of the crossbar", -self.range_a, self.range_a, "A", self.columns // 2),
            params=Port("gates of the crossbar", 0.0, highest / self.siemens_per_v, "V", cells)
            if self.siemens_per_v
            else Port("cells of the crossbar", self.g_min, self.g_max, "S", cells, rest=self.g_min),
            provenance="twin",
        )

    def conductances(self, params: Tensor | None) -> Tensor:
        """Parameters (2 K L,), None as formed -> conductances (K, 2 L) in S, stuck cells where they are; differentiable."""
        if params is None:
            found = self.formed
        else:
            found = params.view(self.rows, self.columns)
            found = self.g_min + self.siemens_per_v * found if self.siemens_per_v else found
        return torch.where(self.dead.isnan(), found, self.dead.to(found))

    def transfer(self, params: Tensor | None = None) -> Tensor:
        """Currents for a V on each row, (K, L) in S: two columns a reading, behind wires and amplifiers; differentiable."""
        cells = self.conductances(params)
        if self.wire_ohm:
            behind = fast if self.wires == "fast" else solved
            cells = behind(cells, self.wire_ohm * self.along, self.wire_ohm * self.down)
        return (cells[:, ::2] - cells[:, 1::2]) * self.gains.to(cells)

    def _current(self, x: Tensor, params: Tensor | None) -> Tensor:
        return (x @ self.transfer(params).to(x)).clamp(-self.range_a, self.range_a)

    def settled(self, x: Tensor, params: Tensor) -> Tensor:
        """Noiseless reading in A, (batch, L), before it is rounded; differentiable in both.

        Args:
            x: (batch, K) in V.
            params: (2 K L,), as of the port.
        """
        return self._current(x, params)

    def ideal(self, x: Tensor) -> Tensor:
        """The same with nothing programmed; differentiable in x."""
        return self._current(x, None)

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return no state: what the cells hold is a parameter."""
        return ()

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(batch, K) in V -> (batch, L) in A."""
        volt, ampere = _step(self.read_v, self.dac_bits), _step(self.range_a, self.adc_bits)
        drive, matrix = (x / volt).round_() if self.dac_bits else x, self._steps(params, x, volt / ampere)
        shape = (len(x), self.columns // 2)
        if self.noise and not self.relative_noise:  # drawn where the current is then added
            reading = x.new_empty(shape).normal_(0.0, self.noise * self.noise_a / ampere, generator=rng).addmm_(drive, matrix)
        else:
            reading = drive @ matrix
            if self.noise:
                spread = torch.hypot(reading * self.relative_noise, torch.full_like(reading, self.noise_a / ampere))
                normal = torch.randn(shape, generator=rng, device=x.device, dtype=x.dtype)
                reading = reading.addcmul(spread, normal, value=self.noise)
        if self.adc_bits:
            reading = reading.round_()
        return reading.clamp_(-self.range_a / ampere, self.range_a / ampere).mul_(ampere), state

    def _steps(self, params: Tensor | None, x: Tensor, scale: float) -> Tensor:
        """`transfer` in steps of the converters. That of the last parameters is kept, as long as nobody changed them."""
        version = -1 if params is None else params._version
        kept = self._kept
        if (
            kept is None
            or kept[0] is not params
            or kept[1] != version
            or kept[2].dtype != x.dtype
            or kept[2].device != x.device
        ):
            kept = params, version, (self.transfer(params).detach() * scale).to(x)
            self._kept = kept
        return kept[2]


def _step(most: float, bits: int) -> float:
    """Step of a converter from -most to most; 1 of one that does not round."""
    return most / (2 ** (bits - 1) - 1) if bits else 1.0


def fast(cells: Tensor, along: Tensor, down: Tensor) -> Tensor:
    """Conductances behind the wires, (K, M): every cell behind two dividers; differentiable.

    Args:
        cells: (K, M) in S.
        along: (M, M), ohm that two cells of a row share.
        down: (K, K), ohm that two cells of a column share.
    """
    return cells / ((1 + cells @ along.to(cells)) * (1 + down.to(cells) @ cells))


def solved(cells: Tensor, along: Tensor, down: Tensor) -> Tensor:
    """The same by Kirchhoff's equations: current of column c for a V on row k, exact but for rounding.

    Args:
        cells: (K, M) in S.
        along: (M, M), ohm that two cells of a row share.
        down: (K, K), ohm that two cells of a column share.
    """
    rows, columns = cells.shape
    g, one = cells.double().flatten(), torch.eye(max(rows, columns), dtype=torch.float64, device=cells.device)
    shared = torch.kron(one[:rows, :rows], along.double()) + torch.kron(down.double(), one[:columns, :columns])
    system = torch.eye(rows * columns, dtype=torch.float64, device=cells.device) + shared * g
    volts = torch.linalg.solve(system, one[:rows, :rows].repeat_interleave(columns, 0))  # (cells, rows)
    found: Tensor = (g.unsqueeze(1) * volts).view(rows, columns, rows).sum(0).T.to(cells)
    return found
