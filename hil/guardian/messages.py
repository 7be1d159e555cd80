"""Messages to a guardian, a line of JSON each, and the words of the two pipes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drivers.lock import Owner
from drivers.safe import SafeState
from hil.errors import ConfigError

BEAT, PROBE, DONE, UNSAFE = b"", b"?", b"done", b"unsafe"  # of the trainer; without the newline that ends each
READY, ANSWER = b"ready", b"!"  # of the guardian


@dataclass(frozen=True, slots=True)
class Charge:
    """pid: of the trainer.

    Args:
        owner: of the instruments.
        states: in order.
        silence_s: longest time between two beats.
        patience_s: how long it is tried.
        log: absolute path of guardian.jsonl.
        locks: canonical resource -> inherited file.
        virtual: the instruments live in a process that ends with the trainer.
        search_path: folders where the modules of the states' conversations are found.
    """

    owner: Owner
    states: tuple[SafeState, ...]
    silence_s: float
    patience_s: float
    log: str
    locks: Mapping[str, int]
    virtual: bool
    search_path: Sequence[str]

    def to_json(self) -> str:
        """Write the message as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> Charge:
        """Raises: ConfigError: not a charge."""
        try:
            table: dict[str, Any] = json.loads(line)
            owner = Owner(**table.pop("owner"))
            states = tuple(SafeState.from_table(state) for state in table.pop("states"))
            return cls(owner, states, **table)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError("not a charge", where="guardian", got=f"{line[:80]!r}: {error}") from error
