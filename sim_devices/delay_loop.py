"""A delay loop: one nonlinear node and a delay line, read as many virtual nodes; a reservoir of the optoelectronic kind.

    s(t)  = drive(t) / scale + gain r(t - delay)        what acts on the nonlinearity
    f     = sin^2( pi/2 s + phase )                     "mach_zehnder": modulator and photodiode, an Ikeda loop
          | s / ( 1 + |s|^exponent )                    "mackey_glass"
          | s                                           "linear"
    T du/dt = f - u,   T = 1 / (2 pi lowpass)           the slowest part of the receiver; lowpass 0: it follows at once
    r     = u - its mean over 1 / (2 pi highpass)       an amplifier that passes no DC; highpass 0: r = u
    reading = offset + full_scale ( r + noise )                  noise of the detection; rounded to `bits` by the converter

Time is cut into samples (hil/multiplexing.py). f is held over a sample, and both filters are integrated exactly then. What acts
on the samples of one delay is known before any of them is computed, so these are computed at once, the filters by a matrix
product; only delays follow one another. A row of a batch is a loop of its own, from the same start.

On a bench (`sampled`) the same loop is driven in time, whatever its instruments call a node: samples are then those of the
instruments, or finer, at least as fine as those here, and so that the delay is a whole number of them.

Everything but the rounding is differentiable in the drive, through time: the response serves as a reference for learners that
need a model of the loop.

Sources: Appeltant et al., Nat. Commun. 2, 468 (2011), Mackey-Glass with virtual nodes; Paquot et al., Sci. Rep. 2, 287 (2012),
and Larger et al., Opt. Express 20, 3241 (2012), the optoelectronic loop; Ikeda, Opt. Commun. 30, 257 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hil.device import Spec
from hil.errors import ConfigError
from hil.multiplexing import Multiplexing
from hil.settings import Count, NotNegative, Positive
from hil.twin import Unknown
from sim_devices.detection import Detection, noisy
from sim_devices.twin import State

Nonlinearity = Literal["mach_zehnder", "mackey_glass", "linear"]
WHERE = "DelayLoop"
MOST_FILTERED = 128  # samples at once: a matrix product that grows with their square
FINER, NEAR = 32, 1e-3  # refinements that are tried, and what is left of a point that counts as none


class DelayLoop(nn.Module):
    """A loop with virtual nodes. Inputs and outputs are (time, batch, nodes): a symbol a step of time.

    Args:
        nodes: virtual nodes.
        nonlinearity: "mach_zehnder", "mackey_glass" or "linear".
        gain: of the loop: what comes back for a reading of full scale, in units of scale_v.
        phase_rad: bias of the modulator.
        scale_v: half-wave voltage of the modulator, V; of the others the drive that counts as 1.
        exponent: of "mackey_glass".
        node_s: time that a virtual node is driven for, s.
        delay_s: delay of the loop, s; 0: (nodes + 1) node_s, so that each node hears its neighbour.
        samples: points of time in node_s.
        sample_phase: when a node is read, as a share of node_s.
        lowpass_hz, highpass_hz: of the receiver and the amplifier; 0: none.
        noise: of the detection, standard deviation as a share of the full scale.
        loop_noise: of the light and the receiver, which goes around, alike.
        bits: of the converter; 0: it does not round.
        full_scale_v: by how much a reading rises from r = 0 to r = 1, V.
        offset_v: reading for r = 0, V.
        low_v, high_v: limits of the drive.
    """

    _pulse: Tensor
    _after: Tensor

    def __init__(
        self,
        *,
        nodes: Count = 50,
        nonlinearity: Nonlinearity = "mach_zehnder",
        gain: float = 0.5,
        phase_rad: float = 0.2 * math.pi,
        scale_v: Positive = 3.5,
        exponent: Annotated[float, Field(ge=1)] = 1.0,
        node_s: Positive = 100e-9,
        delay_s: NotNegative = 0.0,
        samples: Count = 1,
        sample_phase: Positive = 1.0,
        lowpass_hz: NotNegative = 0.0,
        highpass_hz: NotNegative = 0.0,
        noise: NotNegative = 0.0,
        loop_noise: NotNegative = 0.0,
        bits: Annotated[int, Field(ge=0, le=24)] = 0,
        full_scale_v: Positive = 1.0,
        offset_v: float = 0.0,
        low_v: float = -7.0,
        high_v: float = 7.0,
    ) -> None:
        super().__init__()
        self._made: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.time = Multiplexing(nodes, node_s, delay_s or (nodes + 1) * node_s, samples, sample_phase)
        self.nonlinearity, self.gain, self.phase_rad, self.exponent = nonlinearity, gain, phase_rad, exponent
        self.scale_v, self.full_scale_v, self.offset_v = scale_v, full_scale_v, offset_v
        self.lowpass_hz, self.highpass_hz = lowpass_hz, highpass_hz
        self.filtered = lowpass_hz > 0 or highpass_hz > 0
        self.block = min(self.time.delay, MOST_FILTERED) if self.filtered else self.time.delay
        if self.filtered:
            pulse, after = _filter(self.block, self.time.step_s, lowpass_hz, highpass_hz)
            self.register_buffer("_pulse", pulse.float(), persistent=False)
            self.register_buffer("_after", after.float(), persistent=False)
        most = 1.0
        if nonlinearity == "linear":
            if not abs(gain) < 1:
                raise ConfigError("a linear loop runs away", where=WHERE, got=f"gain = {gain:g}", allowed="between -1 and 1")
            most = max(abs(low_v), abs(high_v)) / scale_v / (1 - abs(gain))
        most *= 2 if highpass_hz else 1
        self._at_rest: dict[float, tuple[float, float]] = {}  # by the drive
        self.loop_noise, top = loop_noise * most, full_scale_v * most
        least = 0.0 if nonlinearity == "mach_zehnder" and not highpass_hz else -top
        self.detection = Detection("loop", nodes, low_v, high_v, offset_v + least, offset_v + top, noise * top, bits)

    @property
    def spec(self) -> Spec:
        """The ports: a drive in V and a reading in V for each virtual node; no parameters."""
        return self.detection.spec

    def settings(self) -> dict[str, Any]:
        """The keyword arguments that make this twin again."""
        return dict(self._made)

    def unknowns(self) -> dict[str, Unknown]:
        """Return what a specimen has its own value of.

        The attenuator is set to 2 %, the bias to 0.1 rad, by hand; the receiver's gain is what its data sheet says to 5 %.
        """
        return {
            "scale_v": Unknown.about(self.scale_v, 3.5, 1 / 35, "V"),
            "gain": Unknown(-4.0, 4.0, 0.02),
            "phase_rad": Unknown(-math.pi, math.pi, 0.1, "rad", period=math.pi),
            "full_scale_v": Unknown(1e-3, 100.0, 0.05 * self.full_scale_v, "V"),
            "offset_v": Unknown(-10.0, 10.0, 0.02 * self.full_scale_v, "V"),
        }

    def remade(self, settings: Mapping[str, float]) -> Self:
        """The same kind with these settings instead of its own."""
        return type(self)(**{**self._made, **settings})

    def sampled(self, step_s: float) -> LoopInTime:
        """The same loop driven in time, its values `step_s` apart.

        Raises:
            ConfigError: a step longer than the delay.
        """
        return LoopInTime(self, step_s)

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """(r over the last delay (batch, samples), u and its slow mean (batch, 2)), float32: nothing was ever driven.

        The loop has settled at the drive 0, if it settles at all there.
        """
        return self.settled(batch, 0.0, rng.device)

    def settled(self, batch: int, drive_v: float, place: torch.device | None = None) -> State:
        """Return the state after a long time at a drive, alike."""
        level, slow = self._settled(drive_v)
        past = torch.full((batch, self.time.delay), level - slow, device=place)
        return past, torch.tensor([[level, slow]], device=place).repeat(batch, 1)

    def _settled(self, drive_v: float = 0.0) -> tuple[float, float]:
        """Return u and its mean after a long time at a drive; a fixed point of the map, found by damped steps, once."""
        if drive_v not in self._at_rest:
            self._at_rest[drive_v] = self._fixed_point(drive_v)
        return self._at_rest[drive_v]

    def _fixed_point(self, drive_v: float) -> tuple[float, float]:
        level = torch.zeros((), dtype=torch.float64)
        for _ in range(200):
            back = torch.zeros_like(level) if self.highpass_hz else level
            level = 0.5 * (level + self.bent(self._turn * (drive_v / self.scale_v + self.gain * back) + self._bias))
        return float(level), float(level) if self.highpass_hz else 0.0

    @property
    def _turn(self) -> float:
        """What s is multiplied with before it is bent."""
        return 0.5 * math.pi if self.nonlinearity == "mach_zehnder" else 1.0

    @property
    def _bias(self) -> float:
        return self.phase_rad if self.nonlinearity == "mach_zehnder" else 0.0

    def bent(self, angle: Tensor) -> Tensor:
        """The nonlinearity f, same shape, of s; of a modulator of its angle pi/2 s + phase. Differentiable."""
        if self.nonlinearity == "mach_zehnder":
            return torch.sin(angle).square()
        if self.nonlinearity == "linear":
            return angle
        return angle / (1 + (angle.abs() if self.exponent == 1 else angle.abs().pow(self.exponent)))

    def ideal(self, x: Tensor, measured: Tensor | None = None) -> Tensor:
        """Noiseless response from rest, before it is rounded; differentiable in x through time.

        Args:
            x: drive (time, batch, nodes), V.
            measured: readings of such a loop, alike; what comes back from the delay line is these, and its slope is the
                model's. None, or more than one sample a node, most of which nobody reads: what the model gives.

        Returns:
            readings (time, batch, nodes), V.
        """
        state = tuple(part.to(x) for part in self.rest(x.shape[1], torch.Generator(x.device)))
        seen = None if measured is None or self.time.samples > 1 else (measured - self.offset_v) / self.full_scale_v
        return self._read(self._run(state, x, None, seen)[0])

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(time, batch, nodes) drive in V -> reading in V, and the loop as it is after the last symbol.

        Raises:
            ContractError: no time axis, or another batch than the state is of.
        """
        del params  # nothing can be programmed on a bare loop
        self.detection.goes_on(state, x)
        r, after = self._run(state, x, rng if self.loop_noise else None)
        return self.detection.read(self._read(r), rng), after

    def _run(self, state: State, x: Tensor, rng: torch.Generator | None, seen: Tensor | None = None) -> tuple[Tensor, State]:
        """Return r at the time of reading, (time, batch, nodes), and the state after it; loop noise is drawn from `rng`.

        `seen` is the r that was measured, which goes around in the place of the computed one, with its slope.
        """
        time, gain = self.time, self.gain * self._turn
        steps, batch = x.shape[:2]
        angle = torch.add(x.new_tensor(self._bias), x, alpha=self._turn / self.scale_v).transpose(0, 1)
        if time.samples > 1:
            angle = angle.repeat_interleave(time.samples, 2)
        past, filters = state
        parts: list[Tensor] = []
        mixed: tuple[Tensor, Tensor] | None = None
        known = None if seen is None else torch.split(seen.transpose(0, 1).reshape(batch, -1), self.block, 1)
        for drive in torch.split(angle.reshape(batch, -1), self.block, 1):
            count = drive.shape[1]
            r = self.bent(torch.add(drive, past[:, :count] if count < time.delay else past, alpha=gain))
            if rng is not None:
                r = noisy(r, self.loop_noise, rng)
            if self.filtered:
                mixed = self._matrices(count) if mixed is None or len(mixed[0]) != count else mixed
                both = torch.addmm(filters @ mixed[1], r, mixed[0])
                r, filters = both[:, :count], both[:, count:]
            around = r if known is None else r + (known[len(parts)] - r).detach()
            past = around if count == time.delay else torch.cat((past[:, count:], around), 1)
            parts.append(r)
        r = torch.cat(parts, 1).view(batch, steps, time.nodes, time.samples)[..., time.read]
        return r.transpose(0, 1), (past, filters)

    def _read(self, r: Tensor) -> Tensor:
        """Return the readings of r, V, same shape."""
        return self.full_scale_v * r + self.offset_v

    def _matrices(self, count: int) -> tuple[Tensor, Tensor]:
        """Return what the filters make of `count` samples of f, and of u and its mean before: r of each, u and mean at the end.

        Returns:
            (count, count + 2), of a one in each sample; (2, count + 2).
        """
        pulse, after = self._pulse[:count], self._after[:count]
        passed = pulse[:, 0] - pulse[:, 1]
        lag = torch.arange(count, device=pulse.device)
        lag = lag - lag.unsqueeze(1)
        mixing = torch.where(lag >= 0, passed[lag.clamp(min=0)], 0.0)
        return torch.cat((mixing, pulse.flip(0)), 1), torch.cat(((after[:, 0] - after[:, 1]).t(), after[-1].t()), 1)


class LoopInTime:
    """A loop between instruments: each call is a record, before which the loop has settled at the first value of its drive.

    Args:
        loop: its physics.
        step_s: between two samples of the instruments, s.

    finer: points of the loop between two of these.

    Raises:
        ConfigError: a step longer than the delay.
    """

    def __init__(self, loop: DelayLoop, step_s: float) -> None:
        delay_s, least = loop.time.delay_s, max(1, math.ceil(step_s / loop.time.step_s - NEAR))
        if step_s > delay_s:
            raise ConfigError(
                "samples are farther apart than the loop is long", where=WHERE, got=f"{step_s:g} s",
                allowed=f"up to {delay_s:g} s", todo="sample faster",
            )  # fmt: skip

        def apart(finer: int) -> float:
            exact = delay_s * finer / step_s
            return abs(exact - round(exact))

        tried = range(least, least + FINER)
        self.finer = next((finer for finer in tried if apart(finer) < NEAR), min(tried, key=apart))
        own_s = step_s / self.finer
        time_s = {"node_s": own_s, "delay_s": round(delay_s / own_s) * own_s}
        self._loop = loop.remade({**time_s, "nodes": 1, "samples": 1, "sample_phase": 1.0})

    @property
    def spec(self) -> Spec:
        """The ports of one point."""
        return self._loop.spec

    def settings(self) -> dict[str, Any]:
        """The settings of the physics."""
        return self._loop.settings()

    def rest(self, batch: int, rng: torch.Generator) -> State:
        """Return no state: between two records a loop has forgotten all."""
        del batch, rng
        return ()

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        """(1, n) drive in V -> (1, n) reading in V, each value held for a point of the loop."""
        del state
        before = self._loop.settled(1, float(x[0, 0]))
        return self._loop.respond(before, params, x.t().unsqueeze(1), rng)[0].reshape(1, -1), ()


def _filter(count: int, step_s: float, lowpass_hz: float, highpass_hz: float) -> tuple[Tensor, Tensor]:
    """Return u and its mean after 1, 2, ..., `count` samples, exact for held values; float64.

    Returns:
        (count, 2) after a one in the first sample; (count, 2, 2) after a one in either of them before.
    """
    keep = math.exp(-2 * math.pi * lowpass_hz * step_s) if lowpass_hz else 0.0
    slow = math.exp(-2 * math.pi * highpass_hz * step_s) if highpass_hz else 1.0  # a mean that stays 0
    step = torch.tensor([[keep, 0.0], [(1 - slow) * keep, slow]], dtype=torch.float64)
    pushed = torch.tensor([1 - keep, (1 - slow) * (1 - keep)], dtype=torch.float64)
    powers = [torch.eye(2, dtype=torch.float64)]
    for _ in range(count):
        powers.append(step @ powers[-1])
    return torch.stack([power @ pushed for power in powers[:count]]), torch.stack(powers[1:])
