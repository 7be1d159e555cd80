"""A network of nanowires whose junctions are memristors with a conductance that fades: a reservoir with electrodes.

    I = L(G) V               Kirchhoff over a grid with a diagonal in every cell; V given at electrodes, no current elsewhere
    G_e = g_min ( 1 - g_e ) + g_max g_e                                  of a junction e
    dg_e/dt = kappa_P ( 1 - g_e ) - kappa_D g_e                          the voltage across it strengthens it, and else it fades
    kappa_P = potentiation exp( eta_P |V_e| ),   kappa_D = depression exp( -eta_D |V_e| )
    reading = full_scale ( I / ( g_max high ) + noise )             of every electrode, which is driven and read

A drive is held for a step, in which g is integrated exactly with the voltages at its beginning. Readings are those of its
beginning as well: what a drive does to the junctions shows in the next step. Before anything was driven g has settled at 0 V.

Hidden in a specimen: which diagonal each cell has, at which nodes of the grid the electrodes are, and by how much each
junction's potentiation and depression stray. The past fades, whatever the network: 1 / kappa_D is its memory. The sizes of
the constants are a reading, chosen so that junctions are strengthened from some 0.3 V on and forget in some ten steps.
Everything but the rounding is differentiable in the drive, through time.

Sources: Miranda, Milano and Ricciardi, IEEE Trans. Nanotechnol. 19, 609 (2020), a junction; Montano, Milano and Ricciardi,
Neuromorph. Comput. Eng. 2, 014007 (2022), the grid; Milano, Montano and Ricciardi, J. Phys. D 56, 084005 (2023), electrodes
that are driven and read.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import Spec
from hil.errors import UNTOUCHED, ConfigError
from hil.seeding import generator
from hil.settings import Count, NotNegative, Positive
from sim_devices.detection import Detection
from sim_devices.twin import State

STEEPEST = 60.0  # of an exponent; beyond, a junction follows at once in float32 as well


class MemristiveNetwork(nn.Module):
    """Electrodes on a memristive network. Inputs and outputs are (time, batch, electrodes); a row of a batch is one of its own.

    Args:
        electrodes: how many, at different nodes.
        rows, columns: of the grid.
        g_min, g_max: conductance of a junction, as shares of any unit.
        potentiation_per_s: rate at 0 V, 1/s.
        potentiation_per_v: eta_P, 1/V.
        depression_per_s: rate at 0 V, 1/s.
        depression_per_v: eta_D, 1/V.
        spread: of the rates, between junctions: standard deviation of their logarithm.
        step_s: time that a drive is held for, s.
        noise: of the detection, standard deviation as a share of the full scale.
        bits: of the converter; 0: it does not round.
        full_scale_v: reading for the current that one junction of g_max has at the highest drive, V.
        low_v, high_v: limits of the drive.
        specimen: which network.
    """

    place: Tensor
    ends: Tensor
    strengthened: Tensor
    weakened: Tensor

    def __init__(
        self,
        *,
        electrodes: Count = 16,
        rows: Annotated[int, Field(ge=2)] = 6,
        columns: Annotated[int, Field(ge=2)] = 6,
        g_min: Positive = 0.04,
        g_max: Positive = 1.0,
        potentiation_per_s: Positive = 2.5,
        potentiation_per_v: NotNegative = 10.0,
        depression_per_s: Positive = 60.0,
        depression_per_v: NotNegative = 1.0,
        spread: NotNegative = 0.3,
        step_s: Positive = 2e-3,
        noise: NotNegative = 0.0,
        bits: Annotated[int, Field(ge=0, le=24)] = 0,
        full_scale_v: Positive = 1.0,
        low_v: float = -2.0,
        high_v: Positive = 2.0,
        specimen: int = 0,
    ) -> None:
        super().__init__()
        if electrodes > rows * columns:
            raise ConfigError(
                "more electrodes than nodes", where="memristive_network electrodes", got=str(electrodes), outputs=UNTOUCHED,
                allowed=f"up to {rows * columns}", todo="make the grid larger",
            )  # fmt: skip
        self.electrodes, self.nodes, self.step_s = electrodes, rows * columns, step_s
        self.g_min, self.g_max = g_min, g_max
        self.potentiation_per_v, self.depression_per_v = potentiation_per_v, depression_per_v
        self.unit = full_scale_v / (g_max * high_v)

        def drawn(what: str) -> torch.Generator:
            return generator(specimen, 0, f"memristive network {what}")

        ends = torch.tensor(_junctions(rows, columns, drawn("diagonals")))
        place = torch.randperm(self.nodes, generator=drawn("electrodes"))[:electrodes]
        self.register_buffer("ends", ends, persistent=False)
        self.register_buffer("place", place, persistent=False)
        for name, rate in (("strengthened", potentiation_per_s), ("weakened", depression_per_s)):
            strayed = torch.randn(ends.shape[1], generator=drawn(name), dtype=torch.float64)
            self.register_buffer(name, (rate * torch.exp(spread * strayed)).float(), persistent=False)
        most = int(torch.bincount(ends.flatten())[place].max()) * (high_v - low_v) / high_v * full_scale_v
        self.detection = Detection("memristive network", electrodes, low_v, high_v, -most, most, noise * full_scale_v, bits)

    @property
    def spec(self) -> Spec:
        """The ports: a drive in V and a reading in V for each electrode; no parameters."""
        return self.detection.spec

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return g (batch, junctions): settled at 0 V."""
        settled = self.strengthened / (self.strengthened + self.weakened)
        return (settled.to(rng.device).repeat(batch, 1),)

    def ideal(self, x: Tensor) -> Tensor:
        """Noiseless response from rest, before it is rounded; differentiable in x through time.

        Args:
            x: drive (time, batch, electrodes), V.

        Returns:
            readings (time, batch, electrodes), V.
        """
        return self._run(self.rest(x.shape[1], torch.Generator(x.device))[0].to(x), x)[0]

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(time, batch, electrodes) drive in V -> reading in V, and the junctions as they are after the last step.

        Raises:
            ContractError: no time axis, or another batch than the state is of.
        """
        del params  # nothing can be programmed
        self.detection.goes_on(state, x)
        reading, g = self._run(state[0], x)
        return self.detection.read(reading, rng), (g,)

    def _run(self, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return readings of each step, (time, batch, electrodes), and the junctions after the last."""
        found = []
        for drive in x:
            volts, current = self._solved(self.g_min + (self.g_max - self.g_min) * g, drive)
            found.append(current * self.unit)
            across = (volts[:, self.ends[0]] - volts[:, self.ends[1]]).abs()
            up = self.strengthened * torch.exp((self.potentiation_per_v * across).clamp(max=STEEPEST))
            down = self.weakened * torch.exp(-self.depression_per_v * across)
            aim = up / (up + down)
            g = aim + (g - aim) * torch.exp(-(up + down) * self.step_s)
        return torch.stack(found), g

    def _solved(self, conductance: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Voltages of all nodes, (batch, nodes), and the currents into the electrodes, (batch, electrodes).

        Args:
            conductance: (batch, junctions).
            drive: voltages of the electrodes, (batch, electrodes).
        """
        a, b = self.ends
        size = self.nodes
        flat = torch.cat((a * size + b, b * size + a, a * size + a, b * size + b))
        values = torch.cat((-conductance, -conductance, conductance, conductance), 1)
        whole = values.new_zeros(len(values), size * size).index_add(1, flat, values).view(-1, size, size)
        given = self.place
        free = torch.ones(size, dtype=torch.bool, device=given.device).index_fill(0, given, False).nonzero().flatten()
        volts = drive.new_zeros(len(drive), size).index_copy(1, given, drive)
        if len(free):
            pushed = (whole[:, free][:, :, given] @ drive.unsqueeze(2)).neg()
            volts = volts.index_copy(1, free, torch.linalg.solve(whole[:, free][:, :, free], pushed).squeeze(2))
        return volts, (whole[:, given] @ volts.unsqueeze(2)).squeeze(2)


def _junctions(rows: int, columns: int, rng: torch.Generator) -> list[list[int]]:
    """Both ends of every junction: those to the right and below, and one diagonal a cell, drawn."""
    way = torch.randint(0, 2, (rows, columns), generator=rng).tolist()
    pairs = []
    for row in range(rows):
        for column in range(columns):
            here, right, below = row * columns + column, column + 1 < columns, row + 1 < rows
            pairs += [(here, here + 1)] * right + [(here, here + columns)] * below
            if right and below:
                pairs.append((here, here + columns + 1) if way[row][column] else (here + 1, here + columns))
    return [list(part) for part in zip(*pairs, strict=True)]
