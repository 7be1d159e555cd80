"""The rectangular mesh of interferometers as a model: from phases to the unitary, its derivatives, and back.

    M(theta, phi) = B(e2) diag(e^i theta, 1) B(e1) diag(e^i phi, 1),    B(e) = exp( i (pi/4 + e) X ),  X the swap of two modes
                  = i e^(i theta/2) | e^(i phi) sin(theta/2)    cos(theta/2) |        for e1 = e2 = 0
                                    | e^(i phi) cos(theta/2)   -sin(theta/2) |
    U = C_N ... C_1,  column c = 0, 1, .. holds M on the waveguides (m, m + 1), m = c mod 2, c mod 2 + 2, ...

Phases are (..., K) with K = N (N - 1): column by column, from the top, theta before phi. Couplers e are (K / 2, 2).

Decomposition: elements of U are nulled from both sides in turn; what remains is diagonal, and moves through to the outputs,
where photodiodes do not see it. Every theta is in 0 .. pi. The other branch is the same mesh but for phases of the outputs:

    M(theta, phi) = e^(i theta) diag(1, -1) M(-theta, phi + pi)             what stands in front goes on into the next columns

Sources: Clements et al., Optica 3, 1460 (2016), arXiv:1603.08788; Bandyopadhyay et al., Optica 8, 1247 (2021) (couplers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class MeshLayout:
    """Places of the interferometers of a mesh.

    Args:
        modes: N.
        columns: upper waveguides of the interferometers, column by column.
    """

    modes: int
    columns: tuple[tuple[int, ...], ...]

    @classmethod
    def rectangle(cls, modes: int) -> MeshLayout:
        """The layout of Clements et al. (2016): N columns, alternately N/2 and N/2 - 1 interferometers for even N."""
        columns = (tuple(range(column % 2, modes - 1, 2)) for column in range(modes))
        return cls(modes, tuple(column for column in columns if column))

    @property
    def heaters(self) -> int:
        """Number of heaters: N (N - 1), two for each interferometer."""
        return self.modes * (self.modes - 1)

    def name(self, heater: int) -> str:
        """Return the name of a heater: "theta 3" is the inner one of interferometer 3, "phi 3" its outer one."""
        return f"{'phi' if heater % 2 else 'theta'} {heater // 2}"


def interferometer(theta: Tensor, phi: Tensor) -> Tensor:
    """M with even couplers, (...) -> (..., 2, 2)."""
    sine, cosine = (theta / 2).sin(), (theta / 2).cos()
    turn = torch.polar(torch.ones_like(phi), phi)
    rows = (torch.stack([turn * sine, cosine + 0j], -1), torch.stack([turn * cosine, -sine + 0j], -1))
    return 1j * torch.polar(torch.ones_like(theta), theta / 2)[..., None, None] * torch.stack(rows, -2)


def unitary(layout: MeshLayout, phases: Tensor, couplers: Tensor) -> Tensor:
    """(..., K) -> (..., N, N)."""
    return _walk(layout, phases, couplers)[0]


def derivatives(layout: MeshLayout, phases: Tensor, couplers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (R, N, N) for phases (R, K), dU/dphase (R, K, N, N), and dU/de (R, K, N, N), couplers counted as heaters are.

    A phase on waveguide m between what comes before, F, and what comes after, W:  dU = i W[:, m] F[m, :];
    a coupler on m, m':  dU = i ( W[:, m] F[m', :] + W[:, m'] F[m, :] ), both sides taken behind it.
    """
    u, steps = _walk(layout, phases, couplers)
    after = torch.eye(layout.modes, dtype=u.dtype).expand_as(u).clone()
    by_phase = torch.empty(*phases.shape, layout.modes, layout.modes, dtype=u.dtype)
    by_coupler = torch.empty_like(by_phase)
    for heater, pairs, number, turn, t, r, before, behind in reversed(steps):
        low = pairs + 1
        up_f, low_f = behind[:, pairs], behind[:, low]  # (R, pairs, N): rows of the field behind the coupler
        up_w, low_w = after[:, :, pairs].mT, after[:, :, low].mT
        by_coupler[:, number] = 1j * (up_w[..., None] * low_f[:, :, None] + low_w[..., None] * up_f[:, :, None])
        back_up, back_low = t * up_w + r * low_w, r * up_w + t * low_w  # through the coupler
        by_phase[:, heater] = 1j * back_up[..., None] * before[:, pairs][:, :, None]
        after[:, :, pairs] = (back_up * turn).mT
        after[:, :, low] = back_low.mT
    return u, by_phase, by_coupler


_Step = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _walk(layout: MeshLayout, phases: Tensor, couplers: Tensor) -> tuple[Tensor, list[_Step]]:
    """The product, and of every half of a column: its heaters, upper waveguides, couplers, and the field before and behind."""
    turns = torch.polar(torch.ones_like(phases), phases)
    angle = math.pi / 4 + couplers.reshape(-1)
    straight, across = angle.cos() + 0j, 1j * angle.sin()
    field = torch.eye(layout.modes, dtype=turns.dtype).expand(*phases.shape[:-1], -1, -1)
    steps: list[_Step] = []
    first = 0
    for column in layout.columns:
        pairs, numbers = torch.tensor(column), torch.arange(first, first + len(column))
        first += len(column)
        for arm, end in ((1, 0), (0, 1)):  # phi and the first coupler, then theta and the second
            heater, coupler = 2 * numbers + arm, 2 * numbers + end
            turn, t, r = turns[..., heater, None], straight[coupler, None], across[coupler, None]
            turned = field.clone()
            turned[..., pairs, :] = turn * field[..., pairs, :]
            field = turned.clone()
            up, low = turned[..., pairs, :], turned[..., pairs + 1, :]
            field[..., pairs, :], field[..., pairs + 1, :] = t * up + r * low, r * up + t * low
            steps.append((heater, pairs, coupler, turn, t, r, turned, field))
    return field, steps


def decomposed(layout: MeshLayout, u: Tensor) -> Tensor:
    """Decompose (..., N, N) unitaries into phases (..., K) of a mesh with even couplers, but for phases of its outputs.

    Every theta is in 0 .. pi, every phi in -pi .. pi.
    """
    n, u = layout.modes, u.clone()
    right: list[tuple[int, Tensor, Tensor]] = []
    left: list[tuple[int, Tensor]] = []
    for turn, start in enumerate(range(n - 2, -1, -1)):
        if turn % 2 == 0:
            for j in range(n - 2 - start, -1, -1):
                x, y = u[..., start + j + 1, j], u[..., start + j + 1, j + 1]
                theta, phi = 2 * torch.atan2(y.abs(), x.abs()), (-x * y.conj()).angle()
                u[..., j : j + 2] = u[..., j : j + 2] @ interferometer(theta, phi).mH
                right.append((j, theta, phi))
        else:
            for j in range(n - 1 - start):
                r = start + j + 1
                x, y = u[..., r - 1, j], u[..., r, j]
                made = interferometer(2 * torch.atan2(x.abs(), y.abs()), (y * x.conj()).angle())
                u[..., r - 1 : r + 1, :] = made @ u[..., r - 1 : r + 1, :]
                left.append((r - 1, made))
    rest = u.diagonal(dim1=-2, dim2=-1).clone()
    for m, made in reversed(left):  # M^-1 D = D' M'
        block = made.mH * rest[..., None, m : m + 2]
        theta = 2 * torch.atan2(block[..., 0, 0].abs(), block[..., 0, 1].abs())
        phi = (block[..., 0, 0] * block[..., 0, 1].conj()).angle()
        rest[..., m : m + 2] = (block @ interferometer(theta, phi).mH).diagonal(dim1=-2, dim2=-1)
        right.append((m, theta, phi))
    return _placed(layout, right)


def _placed(layout: MeshLayout, found: list[tuple[int, Tensor, Tensor]]) -> Tensor:
    """Bring interferometers from the order of the light into the order of the heaters."""
    waiting: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for m, theta, phi in found:
        waiting.setdefault(m, []).append((theta, phi))
    ordered = [phase for column in layout.columns for m in column for phase in waiting[m].pop(0)]
    return torch.stack(ordered, -1)


def mirrored(layout: MeshLayout, phases: Tensor, signs: Tensor) -> Tensor:
    """The same mesh but for phases of its outputs, with those thetas on the other branch whose sign (..., K / 2) is -1."""
    carried = [torch.zeros_like(phases[..., 0]) for _ in range(layout.modes)]
    found, number = [], 0
    for column in layout.columns:
        for m in column:
            theta, phi = phases[..., 2 * number], phases[..., 2 * number + 1]
            other, common = signs[..., number] < 0, carried[m + 1]
            found += [torch.where(other, -theta, theta), phi + carried[m] - common + torch.where(other, math.pi, 0.0)]
            carried[m] = common + torch.where(other, theta, 0.0)
            carried[m + 1] = carried[m] + torch.where(other, math.pi, 0.0)
            number += 1
    return torch.stack(found, -1)


def wrapped(angle: Tensor) -> Tensor:
    """Wrap phases into -pi .. pi."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def haar(modes: int, rng: torch.Generator) -> Tensor:
    """A random unitary (N, N), all alike likely: QR of a complex normal matrix (Mezzadri, Notices AMS 54, 592, 2007)."""
    drawn = torch.complex(*(torch.randn(modes, modes, generator=rng, dtype=torch.float64) for _ in range(2)))
    q, r = torch.linalg.qr(drawn)
    diagonal = r.diagonal()
    answer: Tensor = q * (diagonal / diagonal.abs())
    return answer
