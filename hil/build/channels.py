"""Names of channels in [node] of a bench file: "NAME.CHANNEL", or "NAME" for all channels that an instrument uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hil.build.bench import role
from hil.config.bench import BenchFile
from hil.config.resolve import UNTOUCHED
from hil.errors import ConfigError


def name_of(named: str) -> str:
    """The instrument of a channel."""
    return named.partition(".")[0]


def check_named(bench: BenchFile, named: Sequence[str], key: str) -> None:
    """Raises: ConfigError: a name in [node] that is no instrument, or a channel that is no number."""
    for one in named:
        role(bench, name_of(one), key)
        if "." in one and not one.rpartition(".")[2].isdecimal():
            raise ConfigError(
                "no channel of an instrument", where=f"{bench.place}: [node] {key}", got=f'"{one}"',
                allowed='"NAME" or "NAME.CHANNEL", as "bias.2"', outputs=UNTOUCHED, todo="correct the name",
            )  # fmt: skip


def channels(named: Sequence[str], drivers: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The channels that [node] names, each as instrument and place, from 0, in the `channels` of its driver.

    Raises:
        ConfigError: the driver does not use this channel.
    """
    for one in named:
        name, number = name_of(one), one.partition(".")[2]
        known = tuple(getattr(drivers[name], "channels", (1,)))
        if number and int(number) not in known:
            raise ConfigError(
                "the instrument does not use this channel", where=f'"{one}"', got=f"channels = {list(known)}",
                allowed=", ".join(f"{name}.{k}" for k in known), outputs="off; nothing was set",
                todo=f"add it to channels in [instruments.{name}], or name another",
            )  # fmt: skip
        yield from ((name, k) for k in ([known.index(int(number))] if number else range(len(known))))


def numbers(named: Sequence[str], bench: BenchFile) -> Iterator[tuple[str, int]]:
    """The same before there is a driver: instrument and number of each channel, by its settings `channels` or `channel`."""
    for one in named:
        name, number = name_of(one), one.partition(".")[2]
        choice = bench.instruments[name].choice
        settings = {**(getattr(choice.made.__init__, "__kwdefaults__", None) or {}), **choice.settings}
        known = settings.get("channels") or (settings.get("channel", 1),)
        yield from ((name, k) for k in ([int(number)] if number else known))
