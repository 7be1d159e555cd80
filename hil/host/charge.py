"""The charge of a host: one line of JSON from the trainer that starts it, and the host's answer.

{"use", "settings", "place", "search_path", "silence_s", "deadline_s", "patience_s", "start_s", "log", "listen", "trainer",
 "unguarded", "locks"}                                                       ->
                                          <-  {"port", "token"}              the device is open
                                          <-  {"error": {"kind", "what", "where", "got", "allowed", "outputs", "todo", "at"}}
done                                      ->                                 make safe, close, end with 0
(end of file)                             ->                                 the trainer is gone
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from pydantic import Field

from hil.errors import ConfigError
from hil.files import loads
from hil.settings import check

Seconds = Annotated[float, Field(gt=0, lt=86_400)]
START_S = 120.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe of a device: its class and settings.

    Args:
        use: "module:Class", or "module:function" that gives a device and says in its annotation of which class.
        settings: keyword arguments, JSON values in SI units.
        place: file and table that name it, for messages; modules are looked for beside that file.
    """

    use: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a host's waiting.

    Args:
        silence_s: without a beat or a call for so long, it makes the outputs safe, and the session is over.
        deadline_s: longest time of a forward, program or reset.
        patience_s: longest time of a safe.
        start_s: longest time of opening the device.
    """

    silence_s: Seconds = 60.0
    deadline_s: Seconds = 30.0
    patience_s: Seconds = 10.0
    start_s: Seconds = START_S

    def __post_init__(self) -> None:
        check(self, "host")

    @property
    def longest_s(self) -> float:
        """Longest time of a call, the repair of the device included: waiting for one before, its own, and a fresh worker."""
        return 2 * self.deadline_s + 2 * self.patience_s + self.start_s


@dataclass(frozen=True, slots=True)
class Charge:
    """See the module.

    Args:
        recipe: of the device.
        limits: how long is waited.
        search_path: folders where modules are found.
        log: absolute path of a file that gets a line of JSON for each event; None: no file.
        listen: address and port; port 0: any.
        trainer: process id, of this computer; None: on another one, or none yet.
        unguarded: a device that cannot be made safe is opened all the same.
        locks: files that the host locks for itself before it opens the device; see hil.host.locks.
    """

    recipe: Recipe
    limits: Limits = Limits()
    search_path: Sequence[str] = ()
    log: str | None = None
    listen: str = "127.0.0.1:0"
    trainer: int | None = None
    unguarded: bool = False
    locks: Sequence[str] = ()

    def to_json(self) -> str:
        """Write the charge as one line of JSON."""
        table = asdict(self)
        return json.dumps({**table.pop("recipe"), **table.pop("limits"), **table})

    @classmethod
    def from_json(cls, line: bytes) -> Charge:
        """Raises: ConfigError: not a charge."""
        table = loads(line, "host", ConfigError)
        try:
            recipe = Recipe(**{f.name: table.pop(f.name) for f in fields(Recipe) if f.name in table})
            limits = Limits(**{f.name: table.pop(f.name) for f in fields(Limits) if f.name in table})
            return cls(recipe, limits, **table)
        except (TypeError, AttributeError) as error:
            raise ConfigError("not a charge", where="host", got=f"{line[:80]!r}: {error}") from error
