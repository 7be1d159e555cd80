"""The drift sentinel: a reference shot every so many steps, a chart for everything that can move, and what is done about it.

    look     a reference shot through the device as the learner drives it; walk, scale, offset, shape, noise: drift.py
    judge    a chart each (charts.py): quiet, warn or act
    act      up the ladder, until another look finds nothing that would have to be acted on

      log          say so, and go on
      servo        move the drive by the walk                          helps against a bias that walks
      rescale      scale and shift the readings back                   helps against light, gain, dark current
      recalibrate  both, by a finer measurement; then what the node answers becomes the reference, whatever its shape
      roll_back    ask the caller to return to a checkpoint of a quiet time, then the rest of the ladder; `MOST_BACKS` times
      stop         end with Drifted

A rung that does not apply is passed over: a servo cannot mend a scale. A ladder that ends without help stops.

A step in power together with risen noise is a mode hop, not drift (Heumier & Carlsten, ILX Lightwave application note 8: a
photodiode sees the noise): what was measured since the last quiet look is not to be trusted, so unless the policy is to log or
to stop, the ladder becomes roll_back, rescale, recalibrate.

Reference shots cost at most `MOST_SHARE` of the device's shots and values: `every` is raised where the steps are too cheap.
Corrections are rounded far below their sigma, so that another machine's last bits do not change what is sent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from calibration.drift.control_charts import Chart, Limits, loudest, settled
from calibration.drift.estimate import STRONGEST, WEAKEST, Departure, Floats, Reference, probe
from calibration.drift.settings import Rung, SentinelMemory, SentinelSettings
from calibration.drift.steering import Steered, Steering
from hil.device import Device
from hil.errors import ContractError, Drifted, MeasurementError
from hil.sentinel import Look, State

AFTER_HOP: tuple[Rung, ...] = ("roll_back", "rescale", "recalibrate")
POINTS = 32  # drives, each of them twice in a shot
REFERENCE_SHOTS = 16
ACTION_SHOTS = 4  # averaged before and after something is done
TRIES = 3  # of the servo, where the walk goes on or the curve is not what it was
MOST_SHARE = 0.02
MOST_BACKS = 3
STRANGE = 0.5  # a misfit of shape, in half swings, beyond which this is another node
CHARTS = ("walk", "scale", "offset", "shape")
GRAIN = 2.0**-20  # of the range, of the half swing, of 1: to which corrections are rounded


class EventListener(Protocol):
    """Hears of every look and action."""

    def __call__(self, kind: str, **facts: object) -> None:
        """Hear of an event called `kind`, with what is known about it."""


class DriftSentinel:
    """Keeps `steered`, as it answers through `device`, at its reference.

    Args:
        device: the outermost device, counted like every other shot.
        steered: the one inside of it whose drive is moved.
        watch: when to look, and what to do.
        told: hears "sentinel" at every look; with a `message` if people should.
        place: where the host computes.
        clock: seconds, for the share of the time.
        attend: called before every look; see hil.device.Attentive.
    """

    def __init__(
        self,
        device: Device,
        steered: Steered,
        watch: SentinelSettings,
        told: EventListener,
        place: torch.device | str = "cpu",
        clock: Callable[[], float] = time.perf_counter,
        attend: Callable[[], None] = lambda: None,
    ) -> None:
        port = device.spec.inputs
        if device.spec.temporal or port.size not in (None, 1):
            raise ContractError(
                "the sentinel watches a node that all neurons share in time", where=f"port {port.name}",
                got="a temporal device" if device.spec.temporal else f"{port.size} channels", allowed="one static channel",
                todo="remove [sentinel]",
            )  # fmt: skip
        self._device, self._steered, self._watch, self._told = device, steered, watch, told
        self._place, self._clock, self._attend = place, clock, attend
        # the limits themselves are not asked for: a float32 may round beyond them
        self._drive: Floats = (
            np.linspace(port.shared_low, port.shared_high, POINTS)
            .astype(np.float32)
            .clip(port.shared_low, port.shared_high)
            .astype(np.float64)
        )
        row = torch.from_numpy(probe(self._drive)).to(torch.float32)
        self._probe = (row.unsqueeze(0) if port.size is None else row.unsqueeze(1)).to(place)
        self._reference: Reference | None = None
        self._origin: Reference | None = None
        self._memory = SentinelMemory()
        self._busy_s = 0.0

    @property
    def quiet_step(self) -> int:
        """Last step after which nothing was found."""
        return self._memory.quiet_step

    def begin(self) -> None:
        """Measure the reference that later looks are compared with, unless there is one already."""
        if self._reference is not None:
            return
        said = self._steered.period
        self._reference = self._origin = self._measured()
        noise = float(np.sqrt(np.square(self._reference.noise).mean())) / self._reference.half
        self._tell(
            0, "quiet", ("reference",),
            f"reference: {POINTS} drives, {REFERENCE_SHOTS} shots, noise {noise:.2%} of the half swing" + self._own(said)
            + ("" if self._reference.sees_walk else "; on this curve a walk of the bias cannot be told from scale and offset"),
        )  # fmt: skip

    def after(self, step: int, shots: int, values: int) -> Look | None:
        """See hil.sentinel.

        Args:
            step: that was just made.
            shots: of that step, without looks.
            values: of that step, without looks.
        """
        if not self._memory.every:
            self._memory = replace(self._memory, every=self._cadence(shots, values))
        if step % self._memory.every:
            return None
        self.begin()
        before, found = self._memory.state, self._look(1)
        self._memory = replace(self._memory, looks=self._memory.looks + 1)
        hop = self._hopped(found)
        states = self._judged(found)
        state = "act" if hop else loudest(list(states.values()))
        if state == "quiet":
            self._memory = replace(self._memory, quiet_step=step)
        if state != "act":
            self._tell(step, state, (), self._changed(before, state, found), found)
            return self._looked(step, state, (), found)
        ladder = self._watch.ladder
        if hop and self._watch.policy[0] not in ("log", "stop"):
            ladder = (*AFTER_HOP, "stop")
        what = f"mode hop: power {found.scale.value:+.1%}, noise x {found.noise:.1f}" if hop else self._said(found)
        return self._climb(step, ladder, (), found, what)

    def back(self, step: int | None) -> Look:
        """See hil.sentinel."""
        waiting, at = self._memory.waiting, self._memory.step if step is None else step
        did: tuple[str, ...] = () if step is None else ("roll_back",)
        if step is not None:
            self._memory = replace(self._memory, backs=self._memory.backs + 1, quiet_step=min(self._memory.quiet_step, step))
        self._memory = replace(self._memory, waiting=())
        found = self._look(ACTION_SHOTS)
        said = f"back at step {step:,}" if step is not None else "there is no earlier checkpoint of a quiet time"
        return self._climb(at, waiting, did, found, said)

    def state(self) -> Mapping[str, object]:
        """Return references, steering and memory as JSON values, for a checkpoint."""
        reference, origin = self._reference, self._origin
        return {
            "reference": None if reference is None else reference.table(),
            "origin": None if origin is None or origin is reference else origin.table(),
            "steering": asdict(self._steered.steering),
            "memory": self._memory.table(),
            "busy_s": self._busy_s,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises: KeyError, TypeError, ValueError: not a state of a sentinel."""
        self._reference = None if state["reference"] is None else Reference.read(state["reference"])
        self._origin = self._reference if state["origin"] is None else Reference.read(state["origin"])
        if self._reference is not None and self._reference.period is not None:
            self._steered.retune(self._reference.period)
        self._steered.steer(Steering(**state["steering"]))
        self._memory = SentinelMemory.read(state["memory"])
        self._busy_s = float(state["busy_s"])

    def summary(self) -> Mapping[str, object]:
        """Return what it did so far, for summary.json."""
        memory, steering = self._memory, self._steered.steering
        return {
            "every": memory.every, "looks": memory.looks, "shots": memory.shots, "values": memory.values,
            "busy_s": self._busy_s, "state": memory.state, "did": dict(memory.did), "walked": memory.walked,
            "steering": asdict(steering), "unit": self._device.spec.inputs.unit, "policy": list(self._watch.policy),
        }  # fmt: skip

    def _own(self, said: float | None) -> str:
        found, unit = self._steered.period, self._device.spec.inputs.unit
        moved = found is not None and said is not None and abs(found / said - 1) > 1e-3
        return f", period {found:.4g} {unit}, not {said:.4g}" if moved else ""

    # Looking and judging.

    def _shot(self) -> Floats:
        """(2m,) one reference shot."""
        begin = self._clock()
        answer: Tensor = self._device.forward(self._probe)
        self._busy_s += self._clock() - begin
        self._memory = replace(self._memory, shots=self._memory.shots + 1, values=self._memory.values + self._probe.numel())
        seen: Floats = answer.detach().to("cpu", torch.float64).flatten().numpy()
        return seen

    def _look(self, shots: int) -> Departure:
        assert self._reference is not None  # begin() comes before any look
        self._attend()
        return self._reference.departure(np.stack([self._shot() for _ in range(shots)]).mean(0), shots)

    def _measured(self) -> Reference:
        spec = self._device.spec
        shots = np.stack([self._shot() for _ in range(REFERENCE_SHOTS)])
        found = Reference.of(self._drive, shots, self._steered.period, (spec.inputs.unit, spec.outputs.unit))
        if found.period is not None:
            self._steered.retune(found.period)
        return found

    def _limits(self, sigma: float) -> Limits:
        return Limits.of(self._watch.warn, self._watch.act, sigma, REFERENCE_SHOTS)

    def _judged(self, found: Departure) -> dict[str, State]:
        """The state of every chart after `found`, which is entered into them."""
        assert self._reference is not None  # begin() comes before any look
        reference, memory = self._reference, self._memory
        charts, states = dict(memory.charts), dict(memory.states)
        for name, (effect, sigma) in reference.effects(found).items():
            limits = self._limits(sigma)
            charts[name] = charts.get(name, Chart()).then(effect, limits)
            states[name] = charts[name].state(limits, states.get(name, "quiet"))
        shape = found.shape / reference.half
        floor = reference.quietest_shape() / reference.half
        lowest = max(self._watch.warn, floor)
        states["shape"] = settled(
            shape / lowest, shape / (lowest * self._watch.act / self._watch.warn), states.get("shape", "quiet")
        )
        states["noise"] = "warn" if found.noise > reference.loudest_noise() else "quiet"  # nothing on the ladder lowers noise
        steps = {name: effect for name, (effect, _) in reference.effects(found).items()}
        self._memory = replace(memory, charts=charts, states=states, last=steps)
        return states

    def _hopped(self, found: Departure) -> bool:
        """Power made a step since the last look, and noise rose with it."""
        assert self._reference is not None  # begin() comes before any look
        if found.noise <= self._reference.loudest_noise():
            return False
        for name in ("scale", "offset"):
            effect, sigma = self._reference.effects(found)[name]
            if abs(effect - self._memory.last.get(name, 0.0)) > self._limits(math.sqrt(2) * sigma).act:
                return True
        return False

    def _wrong(self, found: Departure, shots: int) -> tuple[str, ...]:
        """Name what of `found`, a mean over `shots` after a chart had spoken up, has to be acted on.

        Half of `act` is what the CUSUM is after; three sigmas are enough for what was suspected before.
        """
        assert self._reference is not None  # begin() comes before any look
        reference, half_act = self._reference, self._watch.act / 2
        uncertain = 3 * math.sqrt(1 / shots + 1 / REFERENCE_SHOTS) * math.sqrt(shots)  # sigmas of `found` are those of its mean
        wrong = [n for n, (effect, sigma) in reference.effects(found).items() if abs(effect) > max(half_act, uncertain * sigma)]
        floor = reference.quietest_shape(shots) / reference.half
        return (*wrong, "shape") if found.shape / reference.half > max(half_act, floor) else tuple(wrong)

    # Acting.

    def _climb(self, step: int, ladder: Sequence[Rung], did: tuple[str, ...], found: Departure, what: str) -> Look:
        """Go up the rungs of `ladder` until the departure is gone.

        Args:
            step: after which it was found.
            ladder: rungs to try, in order.
            did: what was done already.
            found: of the look that began it.
            what: how to call it.
        """
        before, moved, walked = found, self._steered.steering, self._memory.walked
        if ladder[0] != "log":
            shots = self._enough(found)
            found = found if shots == 1 and self._wrong(found, 1) else self._look(shots)
        for number, rung in enumerate(ladder):
            if rung == "log":
                said = f"{what}; logged, nothing done" if self._memory.state != "act" else ""
                self._tell(step, "act", (*did, "log"), said, before, walked)
                return self._looked(step, "act", (*did, "log"), before)
            if not self._wrong(found, self._enough(found)):
                return self._right(step, did, before, moved, walked, what)
            if rung == "stop":
                break
            if rung != "roll_back":
                after = self._try(rung, step, found)
                did, found = (did, found) if after is None else ((*did, rung), after)
            elif self._memory.backs < MOST_BACKS:
                self._memory = replace(self._memory, waiting=tuple(ladder[number + 1 :]), step=step)
                self._tell(step, "act", (*did, "roll_back"), f"{what}; going back to a quiet time", before, walked)
                return replace(self._looked(step, "act", did, before), back=True)
        return self._stopped(step, did, before, walked, what)

    def _enough(self, found: Departure) -> int:
        """Return how many shots to average so that what is done is right to an eighth of `act`."""
        assert self._reference is not None  # begin() comes before any look
        sigma = max(sigma for _, sigma in self._reference.effects(found).values())
        return min(ACTION_SHOTS, max(1, math.ceil((8 * sigma / self._watch.act) ** 2)))

    def _try(self, rung: Rung, step: int, found: Departure) -> Departure | None:
        """Do it; how the node answers then, or None if it does not apply."""
        if rung == "servo":
            return self._servo(found)
        if rung == "recalibrate":
            return self._recalibrate(step, found)
        applies = {"scale", "offset"} & set(self._wrong(found, self._enough(found)))
        return self._look(self._enough(found)) if applies and self._undo(found) else None

    def _servo(self, found: Departure) -> Departure | None:
        """Move the drive by the walk, and again if it went on meanwhile."""
        after, shots = None, self._enough(found)
        for _ in range(TRIES):
            grain = GRAIN * float(self._drive[-1] - self._drive[0])
            offset = round((self._steered.steering.offset + found.walk.value) / grain) * grain
            if "walk" not in self._wrong(found, shots) or not self._steered.reaches(offset):
                break
            self._memory = replace(self._memory, walked=self._memory.walked + offset - self._steered.steering.offset)
            self._steered.steer(replace(self._steered.steering, offset=offset))
            found = after = self._look(shots)
        return after

    def _undo(self, found: Departure) -> bool:
        """Undo scale and offset: y = g (U - c) + c + b, so U = (y - (c (1 - g) + b)) / g, on top of what was undone before."""
        assert self._reference is not None  # begin() comes before any look
        reference, now = self._reference, self._steered.steering
        g = 1 + found.scale.value
        shift = reference.middle * (1 - g) + found.offset.value
        grain = GRAIN * reference.half
        gain, bias = round(now.gain * g / GRAIN) * GRAIN, round((now.bias + shift * now.gain) / grain) * grain
        if not WEAKEST <= gain <= STRONGEST:
            return False
        self._steered.steer(Steering(now.offset, gain, bias))
        return True

    def _recalibrate(self, step: int, found: Departure) -> Departure | None:
        """Bring the curve to where it was as far as that goes, and take what is left for the reference from now on."""
        assert self._reference is not None  # begin() comes before any look
        first = self._origin or self._reference
        found = self._servo(found) or found
        self._undo(self._look(REFERENCE_SHOTS))
        try:
            measured = self._measured()
        except MeasurementError as error:
            self._tell(step, "act", ("recalibrate",), f"recalibration failed: {error.what} ({error.got})")
            return None
        left = first.departure(measured.answer, REFERENCE_SHOTS).shape / first.half
        if left > STRANGE:
            self._tell(
                step, "act", ("recalibrate",), f"recalibration refused: {left:.0%} of the half swing off the first curve"
            )
            return None
        self._reference = measured
        self._tell(step, "act", ("recalibrate",), f"recalibrated: a new reference, {left:.1%} of the half swing off the first")
        return self._look(self._enough(found))

    def _right(self, step: int, did: tuple[str, ...], before: Departure, moved: Steering, walked: float, what: str) -> Look:
        """The node is where its reference is, or was all along: the charts begin anew."""
        assert self._reference is not None  # begin() comes before any look
        counted = dict(self._memory.did)
        for name in did:
            counted[name] = counted.get(name, 0) + 1
        self._memory = replace(self._memory, charts={}, states={}, last={}, did=counted, quiet_step=max(step, self.quiet_step))
        now, unit = self._steered.steering, self._device.spec.inputs.unit
        parts = list(did) or ["it passed by itself"]
        if now.offset != moved.offset:
            parts.append(f"drive moved by {self._memory.walked - walked:+.4g} {unit}")
        if (now.gain, now.bias) != (moved.gain, moved.bias):
            parts.append(f"readings divided by {now.gain / moved.gain:.4g}")
        if before.noise > self._reference.loudest_noise() and self._look(ACTION_SHOTS).noise > self._reference.loudest_noise():
            self._reference = self._reference.as_noisy_as(np.stack([self._shot() for _ in range(REFERENCE_SHOTS)]))
            parts.append("noise stays risen and is the reference's now")
        self._tell(step, "quiet", did, f"{what}; {', '.join(parts)}", before, walked)
        return self._looked(step, "quiet", did, before)

    def _stopped(self, step: int, did: tuple[str, ...], found: Departure, walked: float, what: str) -> Look:
        tried = f"; {', '.join(did)} did not help" if did else ""
        self._tell(step, "act", (*did, "stop"), f"{what}{tried}; stopping", found, walked)
        fault = Drifted(
            "the node answers otherwise than its reference", where=f"sentinel, step {step:,}", got=f"{what}{tried}",
            allowed=f"{self._watch.act:.1%} of the half swing", outputs="as after the last shot; they are made safe now",
            todo="put the node right: bias, light, temperature; or allow more in [sentinel] policy",
        )  # fmt: skip
        return replace(self._looked(step, "act", (*did, "stop"), found), fault=fault)

    # Saying.

    def _cadence(self, shots: int, values: int) -> int:
        needed = max(1 / (MOST_SHARE * max(shots, 1)), self._probe.numel() / (MOST_SHARE * max(values, 1)))
        every = max(self._watch.every, math.ceil(needed - 1e-9))
        if every > self._watch.every:
            self._told(
                "sentinel", step=0, state=self._memory.state, did=[], every=every,
                message=f"a look every {every} steps, not {self._watch.every}: a step takes {shots} shots, and looks may cost "
                f"{MOST_SHARE:.0%} of them",
            )  # fmt: skip
        return every

    def _looked(self, step: int, state: State, did: tuple[str, ...], found: Departure) -> Look:
        self._memory = replace(self._memory, state=state)
        return Look(step, state, did, found.walk.value, found.walk.sigma, self._steered.steering.offset)

    def _changed(self, before: State, now: State, found: Departure) -> str:
        if before == now:
            return ""
        loud = [name for name, state in self._memory.states.items() if state != "quiet"]
        return f"{', '.join(loud)}: {self._said(found)}" if now == "warn" else f"quiet again: {self._said(found)}"

    def _said(self, found: Departure) -> str:
        assert self._reference is not None  # begin() comes before any look
        shape = found.shape / self._reference.half
        return f"walk {found.walk}, scale {found.scale.value:+.2%}, offset {found.offset}, shape {shape:.2%}"

    def _tell(
        self,
        step: int,
        state: State,
        did: Sequence[str],
        message: str,
        found: Departure | None = None,
        walked: float | None = None,
    ) -> None:
        """Tell of one look; `walked` is what the servo had followed when `found` was measured; left out: by now."""
        facts: dict[str, object] = {"step": step, "state": state, "did": list(did)}
        if found is not None and self._reference is not None:
            reference, steering = self._reference, self._steered.steering
            room = reference.half / reference.steepness  # the walk that changes readings by their half swing
            numbers = {
                "walk": found.walk.value, "walk_sigma": found.walk.sigma, "scale": found.scale.value,
                "offset": found.offset.value,
                "shape": found.shape / reference.half, "noise": found.noise, "steered": steering.offset, "gain": steering.gain,
                "walked": self._memory.walked if walked is None else walked, "warn": self._watch.warn * room,
                "act": self._watch.act * room,
            }  # fmt: skip
            facts |= {name: float(f"{number:.5g}") for name, number in numbers.items()}
            facts["unit"] = self._device.spec.inputs.unit
        self._told("sentinel", **facts, **({"message": message} if message else {}))
