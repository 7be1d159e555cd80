"""Checks of the contract of a Device (hil/device.py)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from hil.conformance.report import Broken, Checklist, NotApplicable, Report, need
from hil.device import Device, Port, Programmable, Resettable, Restorable, Spec, Streaming, program, reset
from hil.devices.stepped import around_rest, stepped
from hil.errors import ContractError, OutOfRange
from hil.port import each
from hil.seeding import generator
from hil.slew import slew_of
from hil.snapshot import packed, unpacked

ANY_WIDTH = 5  # channels tried where the port takes any
BATCHES = (1, 3, 8)
STEPS = 4  # of time, for a temporal device
T = TypeVar("T")
OWN_NOISE = ("real", "unknown")  # who may answer otherwise each time

Sent = Callable[[Device], int]


def check_device(make: Callable[[], Device], sent: Sent | None = None) -> Report:
    """Try fresh devices from `make`; they are all closed again.

    Args:
        make: builds the device, each time in the same state; for a real one, opens it.
        sent: how many messages a device has sent so far, to see that a refusal sends nothing. A twin that saves its state
            needs none.

    Raises:
        ContractError: with the list of what failed.
    """
    first = make()
    checks = Checklist(f"device {type(first).__name__}")
    first = stepped(first)  # as it is opened, where its port limits steps
    with checks("spec is truthful", "poor"):
        _spec(first)
    for batch in BATCHES:
        with checks(f"a batch of {batch} gives as many readings", "wrong"):
            _answers(first, batch)
    with checks("a reading stays what it was", "wrong"):
        _keeps(first)
    with checks("no graph goes through", "wrong"):
        need(not _ask(first, _drive(first, 2).requires_grad_(True)).requires_grad, "the reading requires grad")
    for name, bad in _forbidden(first):
        with checks(f"refuses {name}, sending nothing", "unsafe"):
            _refuses(first, bad, sent)
    with checks("programming is refused where it must be", "unsafe"):
        _programs(first, sent)
    with checks("reset may come at any time", "poor"):
        need(isinstance(first, Resettable) or not first.spec.temporal, "its spec says temporal, and it has no reset()")
        reset(first)
        reset(first)
        first.forward(_drive(first, 2))
    with checks("close may come twice", "unsafe"):
        first.close()
        first.close()
    with checks("two made alike answer alike", "wrong"):
        _alike(make)
    with checks("a saved state goes on with the same readings", "wrong"):
        _restores(make)
    with checks("submitted drives are answered in order", "wrong"):
        _streams(make)
    return checks.report()


def _spec(device: Device) -> None:
    spec = device.spec
    need(isinstance(spec, Spec), f"spec is a {type(spec).__name__}")
    need(spec == device.spec, "two readings of spec differ")
    limits = (*each(spec.inputs.low, None), *each(spec.inputs.high, None))
    need(all(map(math.isfinite, limits)), "the limits of the drive are not finite")


def _width(port: Port) -> int:
    return ANY_WIDTH if port.size is None else port.size


def _drive(device: Device, batch: int, stream: str = "drive") -> Tensor:
    """Values anywhere inside the limits of each channel, (batch, n) or (time, batch, n).

    Where steps are limited, and the device does not ramp by itself, they stay near its rest: any of them may follow another.
    """
    port, slew = device.spec.inputs, slew_of(device)
    shape = (batch, _width(port))
    rng = generator(0, batch, stream)
    share = torch.rand((STEPS, *shape) if device.spec.temporal else shape, generator=rng)
    return port.within(share) if not port.slews or slew.by == "ramps" else around_rest(port, share, slew.row_s)


def _ask(device: Device, x: Tensor) -> Tensor:
    """A whole answer of its own: a temporal device starts from rest, and may not change its batch on the way."""
    if device.spec.temporal:
        reset(device)
    return device.forward(x)


def _answers(device: Device, batch: int) -> None:
    x = _drive(device, batch)
    before = x.clone()
    reading = _ask(device, x)
    port = device.spec.outputs
    wanted = (*x.shape[:-1], x.shape[-1] if port.size is None else port.size)
    need(tuple(reading.shape) == wanted, f"shape {tuple(reading.shape)} for a drive {tuple(x.shape)}, not {wanted}")
    need(reading.dtype == torch.float32, f"dtype {reading.dtype}, not torch.float32")
    need(torch.equal(x, before), "the caller's tensor was changed")
    try:
        port.check(reading)
    except OutOfRange as error:
        raise Broken(f"a reading outside its own port: {error}") from error


def _keeps(device: Device) -> None:
    reading = _ask(device, _drive(device, 3))
    before = reading.clone()
    device.forward(_drive(device, 3, "another"))
    need(torch.equal(reading, before), "the next call overwrote the tensor of this one")


def _forbidden(device: Device) -> list[tuple[str, Tensor]]:
    port = device.spec.inputs
    channels = range(_width(port)) if port.per_channel else (-1,)  # the last one: what checks as it sends has sent the others
    found = []
    for k in channels:
        low, high = each(port.low, port.size)[k], each(port.high, port.size)[k]
        reach = max(1.0, high - low) if k == -1 else 0.01 * (high - low) or 1.0  # little, so that others might take it
        values = {"NaN": math.nan, "infinity": math.inf, "above the limit": high + reach, "below the limit": low - reach}
        for name, value in values.items():
            bad = _drive(device, 3)
            bad.view(-1, _width(port))[-1, k] = value
            found.append((name if k == -1 else f"{name} on channel {k + 1}", bad))
    found.extend(_too_far(device))
    if port.size is not None:
        wide = _drive(device, 3)
        found.append(("too many channels", torch.cat([wide, wide[..., :1]], -1)))
    return found


def _too_far(device: Device) -> list[tuple[str, Tensor]]:
    """Drives inside the limits whose last row steps farther than is allowed; none if the device ramps by itself."""
    port, slew = device.spec.inputs, slew_of(device)
    limit = port.step_limit(slew.row_s) if port.slews and slew.by != "ramps" else None
    if limit is None:
        return []
    bad = port.resting().expand(3, _width(port)).clone()
    low, high = port.bounds(bad)
    room = torch.where(high - bad > bad - low, high, low).expand_as(bad)[-1]
    far = (room - bad[-1]).abs() > 1.01 * torch.tensor(each(limit, port.size))
    bad[-1] = torch.where(far, room, bad[-1])
    return [("a step that is too large", bad)] if bool(far.any()) else []


def _refuses(device: Device, bad: Tensor, sent: Sent | None) -> None:
    before = _trail(device, sent)
    try:
        device.forward(bad)
    except OutOfRange:
        need(_trail(device, sent) == before, "refused, but something was sent before")
    else:
        raise Broken("it was taken")


def _trail(device: Device, sent: Sent | None) -> object:
    """Anything that a transmission would change."""
    if sent is not None:
        return sent(device)
    return json.dumps(packed(device.snapshot())) if isinstance(device, Restorable) else None


def _programs(device: Device, sent: Sent | None) -> None:
    port = device.spec.params
    if port is None:
        if isinstance(device, Programmable):
            try:
                device.program(torch.zeros(1))
            except ContractError:
                return
            raise Broken("a fixed node took a program")
        return
    need(isinstance(device, Programmable), "its spec has params, and it has no program()")
    size = _width(port)
    before = _trail(device, sent)
    try:
        program(device, torch.full((size,), math.nan))
    except OutOfRange:
        need(_trail(device, sent) == before, "refused, but something was sent before")
    else:
        raise Broken("NaN was programmed")
    program(device, port.within(torch.full((size,), 0.5)))


def _alike(make: Callable[[], Device]) -> None:
    def answers(device: Device) -> list[Tensor]:
        if device.spec.provenance in OWN_NOISE:
            raise NotApplicable("hardware has noise of its own")
        return [_ask(device, _drive(device, n)) for n in (3, 8)]

    one, other = _used(make, answers), _used(make, answers)
    same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    need(same, "they differ: chance does not come from arguments alone")


def _restores(make: Callable[[], Device]) -> None:
    def drives(device: Device) -> list[Tensor]:
        return [_drive(device, 3, stream) for stream in ("before", "after", "later")]

    def saved(device: Device) -> tuple[dict[str, object], list[Tensor]]:
        if device.spec.provenance in OWN_NOISE or not isinstance(device, Restorable):
            raise NotApplicable("its state is not the computer's to save")
        first, *rest = drives(device)
        device.forward(first)
        state = unpacked(json.loads(json.dumps(packed(device.snapshot()))))
        return state, [device.forward(x) for x in rest]

    def restored(device: Device) -> list[Tensor]:
        need(isinstance(device, Restorable), "another one made alike has no snapshot()")
        assert isinstance(device, Restorable)
        device.restore(state)
        return [device.forward(x) for x in drives(device)[1:]]

    state, wanted = _used(make, saved)
    found = _used(make, restored)
    need(all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True)), "the readings after a restore differ")


def _streams(make: Callable[[], Device]) -> None:
    def drives(device: Device) -> list[Tensor]:
        return [_drive(device, 3 if device.spec.temporal else n, f"{n} rows") for n in (3, 1, 8)]

    def submitted(device: Device) -> list[Tensor]:
        if not isinstance(device, Streaming):
            raise NotApplicable("it does not stream")
        answers = [device.submit(x) for x in drives(device)]
        readings = [answer.result() for answer in answers]
        wrong = [n for n, (x, y) in enumerate(zip(drives(device), readings, strict=True)) if y.shape[:-1] != x.shape[:-1]]
        need(not wrong, f"answers {wrong} have the shape of other drives")
        return readings

    def asked(device: Device) -> list[Tensor] | None:
        return None if device.spec.provenance in OWN_NOISE else [device.forward(x) for x in drives(device)]

    readings, calm = _used(make, submitted), _used(make, asked)
    same = calm is None or all(torch.equal(a, b) for a, b in zip(calm, readings, strict=True))
    need(same, "submitted and asked differ")


def _used(make: Callable[[], Device], act: Callable[[Device], T]) -> T:
    """What `act` finds with a fresh device, which is closed before the next is made: some can be open only once."""
    device = make()
    try:
        return act(device)
    finally:
        device.close()
