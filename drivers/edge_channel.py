"""Oscilloscopes that may take the trigger at a channel, where there is no input for it, or another cable there."""

from __future__ import annotations

import time
from collections.abc import Callable

from drivers.links.link import Link
from drivers.scpi import Identity, Scpi
from drivers.scpi_digitizer import ScpiDigitizer
from hil.errors import ConfigError


class EdgeAtChannel(ScpiDigitizer):
    """A scope whose edge may go into a channel.

    Arguments as of ScpiDigitizer, and

    Args:
        trigger_channel: the channel that the edge goes into; 0: the external trigger, where the model has one.

    Raises:
        ConfigError: a trigger input that the scope does not have.
    """

    def __init__(
        self,
        scpi: Scpi | Link,
        *,
        channel: int = 1,
        channels: tuple[int, ...] = (),
        range_v: float | tuple[float, ...] = 1.0,
        offset_v: float | tuple[float, ...] = 0.0,
        trigger_channel: int = 0,
        trigger_v: float = 0.5,
        memory_samples: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._edge_channel = trigger_channel
        self._edge_at = f"its channel {trigger_channel}" if trigger_channel else self._edge_at
        super().__init__(
            scpi, channel=channel, channels=channels, range_v=range_v, offset_v=offset_v, trigger_v=trigger_v,
            memory_samples=memory_samples, clock=clock,
        )  # fmt: skip

    def _check_inputs(self, identity: Identity, external: bool, count: int = 4) -> None:
        """See that the model has the channels, and the trigger input.

        Args:
            identity: who answered.
            external: true of a model with an external trigger.
            count: channels that it has.

        Raises:
            ConfigError: it has not.
        """
        edge, has = self._edge_channel, range(1, count + 1)
        if not set(self.channels) <= set(has):
            raise ConfigError(
                "the scope has no such channels", where=self._name, got=", ".join(map(str, self.channels)),
                allowed=f"1 to {count} ({identity.model})", outputs="unchanged; nothing was set",
                todo="correct the channel in the bench file",
            )  # fmt: skip
        if edge not in ((0, *has) if external else has) or edge in self.channels:
            raise ConfigError(
                "the scope has no such trigger input", where=self._name,
                got=f"channel {edge}" if edge else f"the external trigger, which a {identity.model} has not",
                allowed="a channel that is not read" + (", or 0 for the external trigger" if external else ""),
                outputs="unchanged; nothing was set",
                todo="lead the generator's edge into a free channel, and write its number as trigger_channel",
            )  # fmt: skip
