"""Making safe, on record: what the guardian does, and the trainer where closing failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drivers.make_safe import SafeOutcome, securing
from drivers.safe import SafeState, outputs_after
from hil.guardian.record import GuardianRecord


def secure(
    states: Sequence[SafeState], patience_s: float, record: GuardianRecord, tried: Callable[[], None] = lambda: None
) -> tuple[SafeOutcome, ...]:
    """Make safe over new wires, on record; return the last outcome of each.

    Nothing is told before every state was tried once.

    Args:
        states: what to make safe, in this order.
        patience_s: how long it is tried.
        record: where it is told.
        tried: called when every state was tried once.
    """
    record.hold()
    final: dict[str, SafeOutcome] = {}
    waits = {state.name for state in states}
    for outcome in securing(states, patience_s):
        final[outcome.state.name] = outcome
        record.note(
            "attempt", say=outcome.last, name=outcome.state.name, resource=outcome.state.resource, verified=outcome.verified,
            read_back=outcome.state.read_back, why=outcome.why, attempt=outcome.attempt, wall_s=round(outcome.wall_s, 4),
        )  # fmt: skip
        waits.discard(outcome.state.name)
        if not waits:
            record.release()
            tried()
            tried = _nothing
    outcomes = tuple(final[state.name] for state in states)
    verified = all(o.verified for o in outcomes)
    if verified:
        record.note("made safe", outputs="safe", after=outputs_after(states))
    else:
        record.note("not made safe", outputs="unknown")
    record.release()
    return outcomes


def _nothing() -> None:
    pass
