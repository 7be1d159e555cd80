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

A node of several channels has a curve for each (curves.py): each is looked at, judged and put right by itself; the one that
is farthest off says what is told. Where every reading answers to every drive, no servo applies.

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
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from calibration.drift.control_charts import Chart, Limits, loudest, settled
from calibration.drift.curves import Curves, unwatched
from calibration.drift.estimate import STRONGEST, WEAKEST, Departure
from calibration.drift.probe import POINTS, REFERENCE_SHOTS, Probe, several
from calibration.drift.settings import Rung, SentinelMemory, SentinelSettings
from calibration.drift.steering import Steered, Steering, plain
from hil.device import Device, Limit
from hil.errors import ContractError, Drifted, MeasurementError
from hil.port import each
from hil.sentinel import Look, State

Found = tuple[Departure, ...]  # of each curve

MENDING = frozenset({"log", "rescale", "recalibrate", "roll_back"})  # rungs besides the servo that go on
AFTER_HOP: tuple[Rung, ...] = ("roll_back", "rescale", "recalibrate")
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
        if device.spec.temporal or (several(device.spec) and device.spec.params is not None):
            raise ContractError(
                "the sentinel watches a node whose answers depend on its drive alone", where=f"port {port.name}",
                got="a temporal device" if device.spec.temporal else "a device with parameters, which learning programs",
                allowed="a static device without parameters", todo="remove [sentinel]",
            )  # fmt: skip
        self._steered, self._watch, self._told, self._attend = steered, watch, told, attend
        self._probe, self._unit = Probe(device, steered, place, clock, self._counted), port.unit
        self._curves: Curves | None = None
        self._origin: Curves | None = None
        self._memory = SentinelMemory()
        self._busy_s = 0.0

    @property
    def quiet_step(self) -> int:
        """Last step after which nothing was found."""
        return self._memory.quiet_step

    def begin(self) -> None:
        """Measure the reference that later looks are compared with, unless there is one already."""
        if self._curves is not None:
            return
        said = self._steered.period
        curves = self._curves = self._origin = self._probe.curves(None)
        if curves.kind == "mixed" and "servo" in self._watch.policy and not set(self._watch.policy) & MENDING:
            raise ContractError(
                "a servo needs channels that each answer to their own drive", where="[sentinel] policy",
                got=f"{', '.join(self._watch.policy)}, of {len(self._probe.drive)} drives that change each other's readings",
                allowed="log, rescale, recalibrate, roll_back, stop", todo="name another policy",
            )  # fmt: skip
        noise = max(float(np.sqrt(np.square(one.noise).mean())) / one.half for one in curves.each)
        what = "reference" if curves.kind == "shared" else f"reference of {len(curves.each)} channels, {curves.kind}"
        blind = [k + 1 for k, one in zip(curves.outputs, curves.each, strict=True) if not one.sees_walk]
        self._tell(
            0, "quiet", ("reference",),
            f"{what}: {POINTS} drives, {REFERENCE_SHOTS} shots, noise {noise:.2%} of the half swing" + self._own(said)
            + unwatched(curves, curves.size) + self._blind(blind),
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
        state = "act" if hop is not None else loudest(list(states.values()))
        if state == "quiet":
            self._memory = replace(self._memory, quiet_step=step)
        if state != "act":
            self._tell(step, state, (), self._changed(before, state, found), found)
            return self._looked(step, state, (), found)
        ladder = self._watch.ladder
        if hop is not None and self._watch.policy[0] not in ("log", "stop"):
            ladder = (*AFTER_HOP, "stop")
        what = self._said(found)
        if hop is not None:
            what = f"{self._called(hop)}mode hop: power {found[hop].scale.value:+.1%}, noise x {found[hop].noise:.1f}"
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
        curves, origin = self._curves, self._origin
        return {
            "reference": None if curves is None else curves.table(),
            "origin": None if origin is None or origin is curves else origin.table(),
            "steering": self._steered.steering.table(),
            "memory": self._memory.table(),
            "busy_s": self._busy_s,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises: KeyError, TypeError, ValueError: not a state of a sentinel."""
        self._curves = None if state["reference"] is None else Curves.read(state["reference"])
        self._origin = self._curves if state["origin"] is None else Curves.read(state["origin"])
        if self._curves is not None:
            self._probe.retune(self._curves)
        self._steered.steer(Steering.read(state["steering"]))
        self._memory = SentinelMemory.read(state["memory"])
        self._busy_s = float(state["busy_s"])

    def summary(self) -> Mapping[str, object]:
        """Return what it did so far, for summary.json."""
        memory, steering = self._memory, self._steered.steering
        return {
            "every": memory.every, "looks": memory.looks, "shots": memory.shots, "values": memory.values,
            "busy_s": self._busy_s, "state": memory.state, "did": dict(memory.did), "walked": plain(memory.walked),
            "steering": steering.table(), "unit": self._unit, "policy": list(self._watch.policy),
        }  # fmt: skip

    def _own(self, said: Limit | None) -> str:
        found, unit, size = self._steered.period, self._unit, len(self._probe.drive)
        if found is None or said is None:
            return ""
        pairs = [(a, b) for a, b in zip(each(found, size), each(said, size), strict=True) if abs(a / b - 1) > 1e-3]
        now, before = (", ".join(f"{pair[k]:.4g}" for pair in pairs) for k in (0, 1))
        return f", period {now} {unit}, not {before}" if pairs else ""

    def _blind(self, channels: Sequence[int]) -> str:
        """Return the warning about curves on which no walk would be seen."""
        assert self._curves is not None  # begin() comes before any look
        if not channels:
            return ""
        if self._curves.kind == "mixed":
            return "; every reading answers to every drive, so a walk of one bias cannot be told, and no servo applies"
        where = "on this curve" if not self._probe.several else f"on channel {', '.join(map(str, channels))}"
        return f"; {where} a walk of the bias cannot be told from scale and offset"

    # Looking and judging.

    def _look(self, shots: int) -> Found:
        curves = self._known
        self._attend()
        return curves.departures(self._probe.shots(curves.kind, shots).mean(0), shots)

    def _counted(self, values: int, seconds: float) -> None:
        self._memory = replace(self._memory, shots=self._memory.shots + 1, values=self._memory.values + values)
        self._busy_s += seconds

    @property
    def _known(self) -> Curves:
        assert self._curves is not None  # begin() comes before any look
        return self._curves

    def _limits(self, sigma: float) -> Limits:
        return Limits.of(self._watch.warn, self._watch.act, sigma, REFERENCE_SHOTS)

    def _called(self, curve: int) -> str:
        """Name a curve in a message: "channel 3 "; "" of a node that has one curve."""
        return f"channel {self._known.outputs[curve] + 1}: " if self._probe.several else ""

    def _key(self, name: str, curve: int) -> str:
        """Name of a chart."""
        return f"{name} {self._known.outputs[curve] + 1}" if self._probe.several else name

    def _judged(self, found: Found) -> dict[str, State]:
        """The state of every chart after `found`, which is entered into them."""
        memory = self._memory
        charts, states, steps = dict(memory.charts), dict(memory.states), dict(memory.last)
        for number, (reference, one) in enumerate(zip(self._known.each, found, strict=True)):
            for name, (effect, sigma) in reference.effects(one).items():
                key, limits = self._key(name, number), self._limits(sigma)
                charts[key] = charts.get(key, Chart()).then(effect, limits)
                states[key] = charts[key].state(limits, states.get(key, "quiet"))
                steps[key] = effect
            shape, key = one.shape / reference.half, self._key("shape", number)
            lowest = max(self._watch.warn, reference.quietest_shape() / reference.half)
            states[key] = settled(
                shape / lowest, shape / (lowest * self._watch.act / self._watch.warn), states.get(key, "quiet")
            )
            loud = one.noise > reference.loudest_noise()
            states[self._key("noise", number)] = "warn" if loud else "quiet"  # nothing on the ladder lowers noise
        self._memory = replace(memory, charts=charts, states=states, last=steps)
        return states

    def _hopped(self, found: Found) -> int | None:
        """The curve whose power made a step since the last look, and whose noise rose with it; None: there is none."""
        for number, (reference, one) in enumerate(zip(self._known.each, found, strict=True)):
            if one.noise <= reference.loudest_noise():
                continue
            for name in ("scale", "offset"):
                effect, sigma = reference.effects(one)[name]
                last = self._memory.last.get(self._key(name, number), 0.0)
                if abs(effect - last) > self._limits(math.sqrt(2) * sigma).act:
                    return number
        return None

    def _wrong(self, found: Found, shots: int) -> list[tuple[str, ...]]:
        """Name what of `found`, a mean over `shots` after a chart had spoken up, has to be acted on: of each curve.

        Half of `act` is what the CUSUM is after; three sigmas are enough for what was suspected before.
        """
        half_act, wrong = self._watch.act / 2, []
        uncertain = 3 * math.sqrt(1 / shots + 1 / REFERENCE_SHOTS) * math.sqrt(shots)  # sigmas of `found` are those of its mean
        for reference, one in zip(self._known.each, found, strict=True):
            names = [
                n for n, (effect, sigma) in reference.effects(one).items() if abs(effect) > max(half_act, uncertain * sigma)
            ]
            floor = reference.quietest_shape(shots) / reference.half
            wrong.append((*names, *(["shape"] if one.shape / reference.half > max(half_act, floor) else [])))
        return wrong

    def _farthest(self, found: Found) -> int:
        """The curve that is farthest off, which says what is told."""

        def off(number: int) -> float:
            reference, one = self._known.each[number], found[number]
            return max(one.shape / reference.half, *(abs(effect) for effect, _ in reference.effects(one).values()))

        return max(range(len(found)), key=off)

    # Acting.

    def _climb(self, step: int, ladder: Sequence[Rung], did: tuple[str, ...], found: Found, what: str) -> Look:
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
            found = found if shots == 1 and any(self._wrong(found, 1)) else self._look(shots)
        for number, rung in enumerate(ladder):
            if rung == "log":
                said = f"{what}; logged, nothing done" if self._memory.state != "act" else ""
                self._tell(step, "act", (*did, "log"), said, before, walked)
                return self._looked(step, "act", (*did, "log"), before)
            if not any(self._wrong(found, self._enough(found))):
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

    def _enough(self, found: Found) -> int:
        """Return how many shots to average so that what is done is right to an eighth of `act`."""
        every = [curve.effects(one) for curve, one in zip(self._known.each, found, strict=True)]
        sigma = max(sigma for effects in every for _, sigma in effects.values())
        return min(ACTION_SHOTS, max(1, math.ceil((8 * sigma / self._watch.act) ** 2)))

    def _try(self, rung: Rung, step: int, found: Found) -> Found | None:
        """Carry out a rung; return how the node answers then, or None if the rung does not apply."""
        if rung == "servo":
            return self._servo(found)
        if rung == "recalibrate":
            return self._recalibrate(step, found)
        wrong = [{"scale", "offset"} & set(names) for names in self._wrong(found, self._enough(found))]
        which = [number for number, names in enumerate(wrong) if names]
        return self._look(self._enough(found)) if which and self._undo(found, which) else None

    def _servo(self, found: Found) -> Found | None:
        """Move the drive of each channel by its walk, and again if it went on meanwhile."""
        after, shots, curves = None, self._enough(found), self._known
        for _ in range(TRIES):
            now = list(each(self._steered.steering.offset, len(self._probe.drive)))
            walked = list(each(self._memory.walked, len(self._probe.drive)))
            moved = False
            for channel, one, wrong in zip(curves.outputs, found, self._wrong(found, shots), strict=True):
                if "walk" not in wrong:
                    continue
                grain = GRAIN * float(self._probe.drive[channel, -1] - self._probe.drive[channel, 0])
                offset = round((now[channel] + one.walk.value) / grain) * grain
                if self._steered.reaches(offset):
                    walked[channel] += offset - now[channel]
                    now[channel], moved = offset, True
            if not moved:
                break
            self._memory = replace(self._memory, walked=self._probe.whole(walked))
            self._steered.steer(replace(self._steered.steering, offset=self._probe.whole(now)))
            found = after = self._look(shots)
        return after

    def _undo(self, found: Found, which: Sequence[int]) -> bool:
        """Undo scale and offset: y = g (U - c) + c + b, so U = (y - (c (1 - g) + b)) / g, on top of what was undone before.

        Args:
            found: of all curves.
            which: curves to put right.
        """
        now, curves = self._steered.steering, self._known
        gains, biases = list(each(now.gain, curves.size)), list(each(now.bias, curves.size))
        done = False
        for number in which:
            output, reference, one = curves.outputs[number], curves.each[number], found[number]
            g, before = 1 + one.scale.value, gains[output]
            shift = reference.middle * (1 - g) + one.offset.value
            grain = GRAIN * reference.half
            gain, bias = round(before * g / GRAIN) * GRAIN, round((biases[output] + shift * before) / grain) * grain
            if WEAKEST <= gain <= STRONGEST:
                gains[output], biases[output], done = gain, bias, True
        if done:
            self._steered.steer(Steering(now.offset, self._probe.whole(gains), self._probe.whole(biases)))
        return done

    def _recalibrate(self, step: int, found: Found) -> Found | None:
        """Bring the curves to where they were as far as that goes, and take what is left for the reference from now on."""
        first = self._origin or self._known
        found = self._servo(found) or found
        self._undo(self._look(REFERENCE_SHOTS), range(len(found)))
        try:
            measured = self._probe.curves(self._known.kind)
        except MeasurementError as error:
            self._tell(step, "act", ("recalibrate",), f"recalibration failed: {error.what} ({error.got})")
            return None
        if measured.outputs != first.outputs:
            self._tell(step, "act", ("recalibrate",), "recalibration refused: other readings answer than at first")
            return None
        off = first.departures(measured.answer, REFERENCE_SHOTS)
        left = max(one.shape / curve.half for one, curve in zip(off, first.each, strict=True))
        if left > STRANGE:
            self._tell(
                step, "act", ("recalibrate",), f"recalibration refused: {left:.0%} of the half swing off the first curve"
            )
            return None
        self._curves = measured
        self._tell(step, "act", ("recalibrate",), f"recalibrated: a new reference, {left:.1%} of the half swing off the first")
        return self._look(self._enough(found))

    def _right(self, step: int, did: tuple[str, ...], before: Found, moved: Steering, walked: Limit, what: str) -> Look:
        """The node is where its reference is, or was all along: the charts begin anew."""
        counted = dict(self._memory.did)
        for name in did:
            counted[name] = counted.get(name, 0) + 1
        self._memory = replace(self._memory, charts={}, states={}, last={}, did=counted, quiet_step=max(step, self.quiet_step))
        now, unit = self._steered.steering, self._unit
        parts = list(did) or ["it passed by itself"]
        if now.offset != moved.offset:
            parts.append(f"drive moved by {self._each_said(self._memory.walked, walked, lambda a, b: a - b, '+.4g')} {unit}")
        if (now.gain, now.bias) != (moved.gain, moved.bias):
            parts.append(f"readings divided by {self._each_said(now.gain, moved.gain, lambda a, b: a / b, '.4g')}")
        if self._noisy(before) and self._noisy(self._look(ACTION_SHOTS)):
            self._curves = self._known.as_noisy_as(self._probe.shots(self._known.kind))
            parts.append("noise stays risen and is the reference's now")
        self._tell(step, "quiet", did, f"{what}; {', '.join(parts)}", before, walked)
        return self._looked(step, "quiet", did, before)

    def _stopped(self, step: int, did: tuple[str, ...], found: Found, walked: Limit, what: str) -> Look:
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
        needed = max(1 / (MOST_SHARE * max(shots, 1)), self._probe.size / (MOST_SHARE * max(values, 1)))
        every = max(self._watch.every, math.ceil(needed - 1e-9))
        if every > self._watch.every:
            self._told(
                "sentinel", step=0, state=self._memory.state, did=[], every=every,
                message=f"a look every {every} steps, not {self._watch.every}: a step takes {shots} shots, and looks may cost "
                f"{MOST_SHARE:.0%} of them",
            )  # fmt: skip
        return every

    def _looked(self, step: int, state: State, did: tuple[str, ...], found: Found) -> Look:
        self._memory = replace(self._memory, state=state)
        number = self._farthest(found)
        walk = found[number].walk
        return Look(step, state, did, walk.value, walk.sigma, self._of(self._steered.steering.offset, number))

    def _of(self, value: Limit, curve: int) -> float:
        """Look up the number of a curve's own input channel; 0 where a reading has no drive of its own."""
        if self._known.kind == "mixed":
            return 0.0
        return each(value, len(self._probe.drive))[self._known.outputs[curve]]

    def _noisy(self, found: Found) -> bool:
        """True if some curve is noisier than its reference."""
        return any(one.noise > curve.loudest_noise() for curve, one in zip(self._known.each, found, strict=True))

    def _each_said(self, now: Limit, before: Limit, made: Callable[[float, float], float], shown: str) -> str:
        """Write the number that changed, or those of several that did: "+0.12 (1), -0.3 (4)"."""
        if not isinstance(now, tuple) and not isinstance(before, tuple):
            return format(made(now, before), shown)
        size = max(len(each(now, 1)), len(each(before, 1)))
        pairs = enumerate(zip(each(now, size), each(before, size), strict=True), 1)
        return ", ".join(f"{made(a, b):{shown}} (channel {number})" for number, (a, b) in pairs if a != b) or "nothing"

    def _changed(self, before: State, now: State, found: Found) -> str:
        if before == now:
            return ""
        loud = [name for name, state in self._memory.states.items() if state != "quiet"]
        return f"{', '.join(loud)}: {self._said(found)}" if now == "warn" else f"quiet again: {self._said(found)}"

    def _said(self, found: Found) -> str:
        number = self._farthest(found)
        one, reference = found[number], self._known.each[number]
        walk = f"walk {one.walk}, " if reference.walks else ""
        shape = one.shape / reference.half
        return f"{self._called(number)}{walk}scale {one.scale.value:+.2%}, offset {one.offset}, shape {shape:.2%}"

    def _tell(
        self,
        step: int,
        state: State,
        did: Sequence[str],
        message: str,
        found: Found | None = None,
        walked: Limit | None = None,
    ) -> None:
        """Tell of one look; `walked` is what the servo had followed when `found` was measured; left out: by now."""
        facts: dict[str, object] = {"step": step, "state": state, "did": list(did)}
        if found is not None and self._curves is not None:
            facts |= self._facts(found, self._memory.walked if walked is None else walked)
        self._told("sentinel", **facts, **({"message": message} if message else {}))

    def _facts(self, found: Found, walked: Limit) -> dict[str, object]:
        """The numbers of the curve that is farthest off."""
        number, steering = self._farthest(found), self._steered.steering
        one, reference = found[number], self._known.each[number]
        gain = each(steering.gain, self._known.size)[self._known.outputs[number]]
        numbers = {
            "scale": one.scale.value, "offset": one.offset.value, "shape": one.shape / reference.half, "noise": one.noise,
            "gain": gain,
        }  # fmt: skip
        if reference.walks:
            room = reference.half / reference.steepness  # the walk that changes readings by their half swing
            numbers |= {
                "walk": one.walk.value, "walk_sigma": one.walk.sigma, "steered": self._of(steering.offset, number),
                "walked": self._of(walked, number), "warn": self._watch.warn * room, "act": self._watch.act * room,
            }  # fmt: skip
        told: dict[str, object] = {name: float(f"{value:.5g}") for name, value in numbers.items()}
        named = {"channel": self._known.outputs[number] + 1} if self._probe.several else {}
        return {**told, "unit": self._unit, **named}
