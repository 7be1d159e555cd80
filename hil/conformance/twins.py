"""Checks of the contract of a Twin (hil/twin.py)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hil.conformance.report import Checklist, NotApplicable, Report, need
from hil.seeding import generator
from hil.twin import State, Twin

ANY_WIDTH, BATCH, STEPS = 5, 4, 3


def check_twin(make: Callable[[], Twin], rows_are_alone: bool = True, exact_slope: bool = True) -> Report:
    """Try fresh twins from `make`.

    Args:
        make: builds the twin. Give one without noise as well: some checks only make sense there.
        rows_are_alone: False for a node shared in time whose memory reaches from one row of a batch to the next.
        exact_slope: False for a twin that declares a surrogate slope, because its response has steps.

    Raises:
        ContractError: with the list of what failed.
    """
    twin = make()
    checks = Checklist(f"twin {type(twin).__name__}")
    with checks("is a torch module and says that it is a twin", "wrong"):
        need(isinstance(twin, nn.Module), f"it is a {type(twin).__name__}")
        need(twin.spec.provenance == "twin", f"provenance {twin.spec.provenance!r}")
    with checks("answers float32 of the right shape inside its port", "wrong"):
        _answers(twin)
    with checks("all chance comes from the generator", "wrong"):
        _reproducible(make)
    with checks("state goes in and comes out, and is not hidden", "wrong"):
        _stateless(twin)
    with checks("state survives JSON", "wrong"):
        _portable(twin)
    with checks("a batch is its rows, each alone", "wrong"):
        _batched(twin, rows_are_alone)
    with checks("at rest and without noise it answers the ideal", "wrong"):
        _settles(twin, rows_are_alone)
    with checks("gradient of the ideal is that of finite differences", "wrong"):
        _gradient(make, exact_slope)
    return checks.report()


def _drive(twin: Twin, batch: int = BATCH, stream: str = "drive") -> Tensor:
    port = twin.spec.inputs
    shape = (batch, ANY_WIDTH if port.size is None else port.size)
    share = torch.rand((STEPS, *shape) if twin.spec.temporal else shape, generator=generator(0, batch, stream))
    return port.within(share)


def _params(twin: Twin) -> Tensor | None:
    port = twin.spec.params
    return None if port is None else port.within(torch.full((port.size or 1,), 0.5))


@torch.no_grad()
def _ask(twin: Twin, state: State, x: Tensor, step: int = 0) -> tuple[Tensor, State]:
    return twin.respond(state, _params(twin), x, generator(0, step, "noise"))


@torch.no_grad()
def _rest(twin: Twin, batch: int = BATCH) -> State:
    return twin.rest(batch, generator(0, 0, "rest"))


def _answers(twin: Twin) -> None:
    x = _drive(twin)
    before = x.clone()
    reading, _ = _ask(twin, _rest(twin), x)
    port = twin.spec.outputs
    wanted = (*x.shape[:-1], x.shape[-1] if port.size is None else port.size)
    need(tuple(reading.shape) == wanted, f"shape {tuple(reading.shape)}, not {wanted}")
    need(reading.dtype == torch.float32, f"dtype {reading.dtype}, not torch.float32")
    need(torch.equal(x, before), "the caller's drive was changed")
    port.check(reading)


def _same(one: tuple[Tensor, State], other: tuple[Tensor, State]) -> bool:
    pairs = zip((one[0], *one[1]), (other[0], *other[1]), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _reproducible(make: Callable[[], Twin]) -> None:
    one, other = make(), make()
    before = torch.get_rng_state()
    first = _ask(one, _rest(one), _drive(one))
    need(_same(first, _ask(other, _rest(other), _drive(other))), "the same generator gave other numbers")
    need(torch.equal(before, torch.get_rng_state()), "torch's global generator was used")


def _stateless(twin: Twin) -> None:
    state = _rest(twin)
    kept = tuple(t.clone() for t in state)
    need(isinstance(state, tuple) and all(isinstance(t, Tensor) for t in state), "the state is not a tuple of tensors")
    first = _ask(twin, state, _drive(twin))
    need(all(torch.equal(a, b) for a, b in zip(state, kept, strict=True)), "the state that was given was changed")
    _ask(twin, first[1], _drive(twin, stream="another"), step=1)
    need(_same(first, _ask(twin, kept, _drive(twin))), "the same state gave another answer after a call in between")


def _portable(twin: Twin) -> None:
    _, state = _ask(twin, _rest(twin), _drive(twin))
    text = json.dumps([t.tolist() for t in state])
    again = tuple(torch.tensor(v, dtype=t.dtype) for v, t in zip(json.loads(text), state, strict=True))
    x = _drive(twin, stream="another")
    need(_same(_ask(twin, state, x, 1), _ask(twin, again, x, 1)), "the answers differ after a round trip")


def _noisy(twin: Twin) -> bool:
    x, state = _drive(twin), _rest(twin)
    return not torch.equal(_ask(twin, state, x, 1)[0], _ask(twin, state, x, 2)[0])


def _quiet(twin: Twin, rows_are_alone: bool) -> None:
    if _noisy(twin):
        raise NotApplicable("the twin has noise; give one without")
    if not rows_are_alone:
        raise NotApplicable("its memory reaches from row to row")


def _close(a: Tensor, b: Tensor, span: float) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-5, atol=1e-6 * span))


def _batched(twin: Twin, rows_are_alone: bool) -> None:
    _quiet(twin, rows_are_alone)
    x = _drive(twin)
    whole, _ = _ask(twin, _rest(twin), x)
    span = twin.spec.outputs.span
    for row in range(BATCH):
        alone, _ = _ask(twin, _rest(twin, 1), x[..., row : row + 1, :])
        need(_close(alone, whole[..., row : row + 1, :], span), f"row {row} alone is another than in the batch")


def _settles(twin: Twin, rows_are_alone: bool) -> None:
    _quiet(twin, rows_are_alone)
    if twin.spec.temporal:
        raise NotApplicable("it has a past")
    x = _drive(twin)
    with torch.no_grad():
        reading, _ = twin.respond(_rest(twin), None, x, generator(0, 0, "noise"))  # nothing programmed, as the ideal
    span = twin.spec.outputs.span
    apart = float((reading - twin.ideal(x).detach()).abs().max())
    need(apart <= 1e-4 * span, f"{apart:.3g} apart")


def _gradient(make: Callable[[], Twin], exact_slope: bool) -> None:
    if not exact_slope:
        raise NotApplicable("its slope is a surrogate")
    twin = copy.deepcopy(make())
    assert isinstance(twin, nn.Module)
    twin.double()
    x = _drive(twin, 2).double().requires_grad_(True)
    answer = twin.ideal(x)
    if not answer.requires_grad:
        raise NotApplicable("it does not claim to be differentiable")
    direction = torch.randn(x.shape, generator=generator(0, 0, "direction"), dtype=torch.float64)
    weight = torch.randn(answer.shape, generator=generator(0, 0, "weight"), dtype=torch.float64)
    (slope,) = torch.autograd.grad((answer * weight).sum(), x)
    small = 1e-6 * twin.spec.inputs.span
    with torch.no_grad():
        up, down = twin.ideal(x + small * direction), twin.ideal(x - small * direction)
    measured = float(((up - down) * weight).sum() / (2 * small))
    claimed = float((slope * direction).sum())
    scale = max(abs(measured), abs(claimed), float((slope * direction).norm()))
    need(abs(measured - claimed) <= 1e-4 * scale, f"{claimed:.6g} by differentiation, {measured:.6g} by differences")
