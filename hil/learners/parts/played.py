"""Sequences through nodes with memory: a layer plays all steps of its sequences, then the next layer does.

    pre_l[t] = synapse_l( out_{l-1}[t] )        all steps at once
    out_l    = decode_l( device_l( encode_l( pre_l ) ) )      one shot for all steps, never cut

Between two sequences the state of a device is what `between` says:

    "reset"    reset() before the batch, whose sequences are side by side in one shot
    "rest"     one sequence a shot, behind `rest_steps` steps at the rest of the port, whose readings are thrown away
    "carry"    the sequences of a batch behind one another in one shot; each begins where the last one ended

Targets are one a step, and every step behind the washout is an answer; or one a sequence, which is answered by

    "last"     what the readout sees in the last step
    "mean"     the mean of that over the steps behind the washout
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hil.device import Device, reset
from hil.errors import UNTOUCHED, ConfigError, ContractError
from hil.learners.parts.shown import over_time
from hil.network import Layer, Network, Trace
from hil.settings import Natural, check
from hil.synapses import LateLinear
from hil.task import Task

Policy = Literal["reset", "rest", "carry"]
Answer = Literal["last", "mean"]


@dataclass(frozen=True)
class Between:
    """What happens to the state of a device between two sequences.

    Args:
        between: "reset", "rest" or "carry", as above.
        rest_steps: steps at rest before a sequence, of "rest".
    """

    between: Policy = "reset"
    rest_steps: Natural = 0

    def __post_init__(self) -> None:
        check(self, "[learner]")
        if (self.between == "rest") != (self.rest_steps > 0):
            raise ConfigError(
                "rest_steps goes with rest", where="[learner] between", got=f'"{self.between}", rest_steps = {self.rest_steps}',
                allowed='"rest" with rest_steps 1 or more; "reset" or "carry" without', outputs=UNTOUCHED,
                todo='write between = "rest" and rest_steps as long as the memory of the node, or leave rest_steps out',
            )  # fmt: skip


@dataclass(frozen=True)
class Playing(Between):
    """How sequences are played, and what answers them.

    Args:
        between, rest_steps: as in Between.
        answer: of data with one target a sequence: "last" or "mean", as above; None: "last".
    """

    answer: Answer | None = None

    def answers(self, values: Tensor, task: Task) -> Tensor:
        """(batch, time, n) -> what answers the targets: (batch, time, n), or of one target a sequence (batch, n)."""
        if task.steps:
            return values
        return values[:, task.washout :].mean(1) if self.answer == "mean" else values[:, -1]

    def fits(self, task: Task, length: int) -> None:
        """Refuse a way to answer that the targets have no use for.

        Args:
            task: what is learned.
            length: of a sequence, steps.

        Raises:
            ConfigError.
        """
        del length
        if task.steps and self.answer is not None:
            raise ConfigError(
                "with a target a step every step is an answer", where="[learner] answer", got=f'"{self.answer}"',
                allowed="answer, of data with one target a sequence", outputs=UNTOUCHED, todo="leave answer out",
            )  # fmt: skip
        if not task.steps and task.washout and self.answer != "mean":
            raise ConfigError(
                "the last step alone is an answer, so there is nothing to leave out before it", where="[task] washout",
                got=f'{task.washout}, answer = "last"', allowed='washout, with answer = "mean" or a target a step',
                outputs=UNTOUCHED, todo='leave washout out, or write answer = "mean" in [learner]',
            )  # fmt: skip


@torch.no_grad()
def played(net: Network, x: Tensor, how: Between) -> Trace:
    """Make one pass of sequences x (batch, time, features): a Trace of (time, batch, n).

    Raises:
        ContractError: no axis of time, or a device without memory. Others: as the devices.
    """
    with_memory(net)
    if x.ndim != 3:
        raise ContractError(
            "a node with memory is shown sequences", where="network", got=f"shape {tuple(x.shape)}",
            allowed="(batch, time, features)", todo="write sequence = true in [data]",
        )  # fmt: skip
    inputs, pres, outputs = [], [], []
    h = x.transpose(0, 1)
    for layer in net.stack:
        h = layer.synapse.seen(h) if isinstance(layer.synapse, LateLinear) else h
        inputs.append(h)
        pres.append(over_time(layer.synapse, h))
        h = pres[-1] if layer.device is None else measured(layer, layer.device, pres[-1], how)
        outputs.append(h)
    return Trace(tuple(inputs), tuple(pres), tuple(outputs))


def with_memory(net: Network) -> None:
    """Raises: ContractError: a device is no analog node with memory."""
    wrong = [device.spec for device in net.devices if not device.spec.memory]
    if wrong or not net.devices:
        got = "no device" if not wrong else "spiking neurons" if wrong[0].temporal else "a node without a state in time"
        raise ContractError(
            "this learner drives nodes with memory", where="network", got=got,
            allowed="devices whose spec says temporal=True, and no neurons",
            todo="choose another learner, or node" if wrong else "give the network a hidden layer, with a node behind it",
        )  # fmt: skip


def between_nodes(net: Network) -> None:
    """Raises: ContractError: a device is no analog node with memory, or a hidden layer has none."""
    with_memory(net)
    bare = [number for number, layer in enumerate(net.stack[:-1]) if layer.device is None]
    if bare:
        raise ContractError(
            "a hidden layer has no node", where=f"network layer {bare[0]}", got="no device", allowed="the node with memory",
            todo="give every layer but the last the device",
        )  # fmt: skip


def measured(layer: Layer, device: Device, pre: Tensor, how: Between) -> Tensor:
    """(time, batch, n) pre-activations -> outputs, the state of the device between sequences as it is asked for."""
    if how.between == "reset":
        reset(device)
        return layer.measure(pre)
    if how.between == "carry":
        time, batch, n = pre.shape
        answer = layer.measure(pre.transpose(0, 1).reshape(time * batch, 1, n))
        return answer.view(batch, time, -1).transpose(0, 1)
    parts = []
    for one in torch.split(pre, 1, 1):
        device.forward(device.spec.inputs.resting().to(pre).expand(how.rest_steps, 1, pre.shape[-1]))
        parts.append(layer.measure(one))
    return torch.cat(parts, 1)
