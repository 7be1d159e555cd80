"""A path of a virtual bench: channels of generators, a node, channels of a scope, and the cables between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hil.units import Unbounded
from sim_devices.instruments.generator_box import GeneratorBox
from sim_devices.instruments.scope_box import ScopeBox
from sim_devices.twin import Twin


class Node(Twin, Protocol):
    """A twin whose sample interval can be chosen, and whose constructor takes JSON values; only numbers can be `set`."""

    def settings(self) -> Mapping[str, float]:
        """The keyword arguments that make it again."""

    def sampled(self, step_s: float) -> Node:
        """The same physics, its values `step_s` apart; of a node with memory one that is driven in time, see Continuing."""

    def remade(self, settings: Mapping[str, float]) -> Node:
        """A node of the same kind with these settings instead of its own."""


@runtime_checkable
class Continuing(Protocol):
    """A sampled node with memory: it is driven from the beginning of a record, where it has rested for long.

    finer: points of its own between two samples, that one included.
    """

    finer: int


@dataclass(frozen=True, slots=True)
class Cable:
    """The way from a generator's connector to a scope's, through the node.

    Args:
        delay_s: from the generator's connector to the scope's, node included; less than a sample is fine.
        load_ohm: what the generator really sees (the modulator's input), infinite for open.
    """

    delay_s: float = 0.0
    load_ohm: Unbounded = 50.0


@dataclass(frozen=True, slots=True)
class Input:
    """A channel of a generator that drives a node, and the way to it."""

    awg: GeneratorBox
    channel: int = 1
    cable: Cable = Cable()


@dataclass(frozen=True, slots=True)
class Output:
    """A channel of the wire's scope that reads an output of the node, `delay_s` later than the first output is read."""

    channel: int
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wire:
    """A path through a node.

    Args:
        noise_v: front-end noise of the scope channels, rms.
        inputs, outputs: of a node that has more than one, the further ones.
        sync: the scope channel that SYNC of the generator leads to, besides EXT TRIG; None: none.
        sync_delay_s: of its cable, EXT TRIG's taken off.
    """

    awg: GeneratorBox
    node: Node
    scope: ScopeBox
    awg_channel: int = 1
    scope_channel: int = 1
    cable: Cable = Cable()
    noise_v: float = 0.0
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    sync: int | None = None
    sync_delay_s: float = 0.0

    @property
    def drives(self) -> tuple[Input, ...]:
        """The inputs, in the order of the node."""
        return (Input(self.awg, self.awg_channel, self.cable), *self.inputs)

    @property
    def reads(self) -> tuple[Output, ...]:
        """The outputs, in the order of the node."""
        return (Output(self.scope_channel), *self.outputs)

    @property
    def ends(self) -> tuple[int, ...]:
        """The scope channels that a cable of this wire ends at."""
        return (*(read.channel for read in self.reads), *(() if self.sync is None else (self.sync,)))

    @property
    def many(self) -> bool:
        """True if the node has several inputs or outputs."""
        return bool(self.inputs or self.outputs)
