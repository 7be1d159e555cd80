"""Safe states brought about over wires of their own: by who opens a bench, by who watches over a trainer.

    round 1   each state, in order: open, identify, carry out, read back, close
    round n   those that could not be verified, after a pause, until the patience is over

Each state names the conversation that opens its wire. An instrument that is not the one expected is not touched, and not tried
again. One attempt takes what the conversation waits to open and an exchange, and the ramp at most; `securing` begins no attempt
after its patience.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from drivers.safe import SafeState, carry_out, conversation
from hil.errors import HilError, Refused, UnsafeOutputs, WrongInstrument

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class SafeOutcome:
    """The result of one attempt to make an instrument safe.

    Args:
        verified: the instrument says that it is safe.
        why: it is not, or how it became so.
        last: no more follow.
    """

    state: SafeState
    verified: bool
    why: str
    attempt: int
    wall_s: float
    last: bool


def make_safe(states: Sequence[SafeState], patience_s: float) -> tuple[SafeOutcome, ...]:
    """The last outcome of each state, in order."""
    final = {o.state.name: o for o in securing(states, patience_s)}
    return tuple(final[state.name] for state in states)


def securing(
    states: Sequence[SafeState],
    patience_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[SafeOutcome]:
    """Yield every attempt as it ends.

    Args:
        states: what to make safe, in this order.
        patience_s: no attempt begins later than this; each state gets one in any case.
        clock: seconds from any origin.
        sleep: waits so many seconds between the rounds.
    """
    end, pause = clock() + patience_s, FIRST_PAUSE_S
    left, attempt = list(states), 1
    while left:
        again = []
        for state in left:
            outcome = _attempted(state, attempt, end, clock)
            if not outcome.last:
                again.append(state)
            yield outcome
        if again:
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        left, attempt = again, attempt + 1


def unsafe(outcomes: Sequence[SafeOutcome], where: str, todo: str = "") -> UnsafeOutputs:
    """The error that names the outputs which are not verified safe."""
    failed = [o for o in outcomes if not o.verified]
    return UnsafeOutputs(
        "outputs could not be verified to be safe", where=where,
        got="; ".join(f"{o.state.name} at {o.state.resource}: {o.why}" for o in failed),
        outputs="; ".join(f"{o.state.name}: {o.state.outputs}" for o in failed),
        todo=todo or "switch them off at the instrument, then look at its power and cable",
    )  # fmt: skip


def _attempted(state: SafeState, attempt: int, end: float, clock: Callable[[], float]) -> SafeOutcome:
    begin = clock()
    try:
        with conversation(state)(state) as talk:
            why, verified, final = carry_out(state, talk), True, True
    except (WrongInstrument, Refused) as error:  # another try would find the same
        why, verified, final = _said(error), False, True
    except HilError as error:
        why, verified, final = _said(error), False, False
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the next instrument from being made safe
        why, verified, final = f"{type(error).__name__}: {error}".splitlines()[0], False, False
    now = clock()
    return SafeOutcome(state, verified, why, attempt, now - begin, final or now >= end)


def _said(error: HilError) -> str:
    return str(error).splitlines()[0].rstrip(".")
