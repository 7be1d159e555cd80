"""Making safe, on record: what the guardian does, and the trainer where closing failed."""

from __future__ import annotations

from collections.abc import Sequence

from drivers.make_safe import Outcome, securing
from drivers.safe import SafeState
from hil.guardian.record import Record


def secure(states: Sequence[SafeState], patience_s: float, record: Record) -> tuple[Outcome, ...]:
    """Make safe over new wires, on record; the last outcome of each."""
    final: dict[str, Outcome] = {}
    for outcome in securing(states, patience_s):
        final[outcome.state.name] = outcome
        record.note(
            "attempt", say=outcome.last, name=outcome.state.name, resource=outcome.state.resource, verified=outcome.verified,
            why=outcome.why, attempt=outcome.attempt, wall_s=round(outcome.wall_s, 4),
        )  # fmt: skip
    outcomes = tuple(final[state.name] for state in states)
    verified = all(o.verified for o in outcomes)
    record.note("made safe" if verified else "not made safe", outputs="safe" if verified else "unknown")
    return outcomes
