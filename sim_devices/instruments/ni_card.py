"""Simulated NI card of analog outputs and inputs, as an unmodified nidaqmx reaches it in its gRPC mode.

    a task       channels, then the clock, a buffer, a trigger; outputs play it, inputs take as many samples from the same edge
    an output    holds what was played last, also when its task is gone
    _ao0_vs_aognd     an input that sees output 0
    ResetDevice       ends all tasks of the card, and frees its channels

A channel belongs to one task. Outputs and inputs go by one clock. What is behind the inputs follows the outputs in first order,
`settling` samples, and has the noise of its twin in every sample. What a real card would not bear is noted: samples beyond a
channel's limits, a buffer of another length, inputs that nothing started.

Source: NI-DAQmx Help, "Start Trigger", "Task State Model"; the calls are those of nidaqmx.proto. Not simulated: digital lines,
counters, regeneration, on-demand writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from hil.errors import ConfigError, ContractError
from sim_devices.instruments.probe import Probe

Volts = NDArray[np.float64]
CARD, MODEL = "SimDev1", "PXIe-6738, PXIe-4302"
NOT_THERE, RESERVED, NO_CHANNEL = -200284, -50103, -200170
DEVICE_SERIAL, DEVICE_MODEL = 12850, 8893  # attributes of DAQmx_Val: serial number and product type


class NIError(Exception):
    """A call that the card refuses. Args: code: of NI-DAQmx."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Task:
    """A task: its channels with their limits, the clock, the buffer."""

    outputs: list[tuple[int, float, float]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    rate: float = 0.0
    length: int = 0
    trigger: str = ""
    card: str = ""  # that the outputs are on
    samples: Volts | None = None
    ends: float = 0.0
    running: bool = False


class NICard(Probe):
    """The card. Made by a bench; served by sim_devices/transports/grpc.py.

    Args:
        serial: serial number, hexadecimal.
        outputs, inputs: how many it has.
        low_v, high_v: range of every output.
        settling: samples in which what is behind the inputs follows.
        realtime: play a buffer in the time that it takes.
        simulated: what the card says of itself.
        lock: of the bench, which gives it.
        clock: s, monotonic.
    """

    def __init__(
        self,
        serial: str = "51A0001",
        *,
        outputs: int = 8,
        inputs: int = 4,
        low_v: float = -10.0,
        high_v: float = 10.0,
        settling: float = 2.0,
        realtime: bool = False,
        simulated: bool = True,
        lock: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if outputs < 1 or inputs < 1 or not settling >= 1 or not low_v < 0 < high_v:
            raise ConfigError(
                "no such card", where="simulated NI card", allowed="channels, a range around 0 V, settling >= 1",
                got=f"{outputs} outputs of {low_v:g} to {high_v:g} V, {inputs} inputs, settling {settling:g}",
            )  # fmt: skip
        super().__init__({n: lambda volts: 0.0 for n in range(1, inputs + 1)})
        self._serial, self._range, self._share, self._realtime = int(serial, 16), (low_v, high_v), 1 / settling, realtime
        self._simulated = simulated
        self.lock, self._clock = lock or threading.Condition(), clock
        self.held = np.zeros(outputs)
        self.noted: list[str] = []
        self._node: Callable[[Volts], Volts] | None = None
        self._tasks: dict[str, Task] = {}
        self._made = 0

    # ---- the plant --------------------------------------------------------------------------------------------------------

    def stands(self, channel: int) -> float:
        """Return the V at an output, counted from 1."""
        return float(self.held[channel - 1])

    def through(self, node: Callable[[Volts], Volts]) -> None:
        """Lead outputs to inputs through `node`: (samples, outputs) in V -> (samples, inputs that are connected)."""
        self._node = node

    # ---- a box on a bench -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Model and serial number."""
        return f"{MODEL} {self._serial:X}"

    def outputs(self) -> dict[str, object]:
        """Return for each output whether it holds anything but 0 V, and its V."""
        with self.lock:
            return {str(n): {"on": bool(abs(v) > 1e-9), "high_v": float(v)} for n, v in enumerate(self.held, 1)}

    def reboot(self) -> None:
        """Lose power for a moment: 0 V, no tasks."""
        with self.lock:
            self.held[:] = 0
            self._tasks.clear()

    def snapshot(self) -> dict[str, object]:
        """Return what the outputs hold."""
        with self.lock:
            return {"held": self.held.tolist()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Hold what a snapshot holds. Raises: ContractError: it is of another card."""
        held = np.asarray(state.get("held"), float)
        if held.shape != self.held.shape or not np.isfinite(held).all():
            raise ContractError("not a snapshot of this card", where=self.name, got=str(state)[:80])
        with self.lock:
            self.held[:] = held

    # ---- the calls of nidaqmx ---------------------------------------------------------------------------------------------

    def call(self, name: str, asked: Any) -> Mapping[str, Any]:
        """Carry out a call by its name. Raises: NIError: the card refuses. KeyError: it has no such call, or task."""
        calls: dict[str, Callable[[Any], Mapping[str, Any] | None]] = {
            "CreateTask": self._create, "ClearTask": self._clear, "CreateAOVoltageChan": self._output,
            "CreateAIVoltageChan": self._input, "CfgSampClkTiming": self._timing, "CfgDigEdgeStartTrig": self._triggered_by,
            "WriteAnalogF64": self._write, "StartTask": self._start, "StopTask": self._stop, "ReadAnalogF64": self._read,
            "WaitUntilTaskDone": self._wait, "ResetDevice": self._reset,
            "GetTaskAttributeString": lambda asked: {"value": asked.task.name},
            "GetTimingAttributeDouble": lambda asked: {"value": self._of(asked).rate},
            "GetWriteAttributeUInt64": lambda asked: {"value": self._of(asked).length},
            "GetReadAttributeUInt32": lambda asked: {"value": len(self._of(asked).inputs)},
            "GetDeviceAttributeBool": lambda asked: {"value": self._simulated},
            "GetDeviceAttributeString": lambda asked: {"value": MODEL},
            "GetDeviceAttributeUInt32": lambda asked: {"value": self._serial},
        }  # fmt: skip
        with self.lock:
            found = calls[name](asked) or {}
        due = found.pop("due", 0.0) if isinstance(found, dict) else 0.0
        if due:  # other boxes go on meanwhile
            time.sleep(max(0.0, due - self._clock()))
        return found

    def _of(self, asked: Any) -> Task:
        return self._tasks[asked.task.name]

    def _create(self, asked: Any) -> Mapping[str, Any]:
        self._made += 1
        self._tasks[f"task{self._made}"] = Task()
        return {"task": {"name": f"task{self._made}"}, "new_session_initialized": True}

    def _clear(self, asked: Any) -> None:
        self._tasks.pop(asked.task.name, None)

    def _reset(self, asked: Any) -> None:
        self._tasks.clear()

    def _output(self, asked: Any) -> None:
        number = self._number(asked.physical_channel, "ao", len(self.held))
        if any(number == used for task in self._tasks.values() for used, _, _ in task.outputs):
            raise NIError(RESERVED)
        task = self._of(asked)
        task.outputs.append((number, asked.min_val, asked.max_val))
        task.card = asked.physical_channel.partition("/")[0]

    def _input(self, asked: Any) -> None:
        name = asked.physical_channel.partition("/")[2]
        if not name.startswith("_ao"):
            self._number(asked.physical_channel, "ai", len(self._inputs))
        self._of(asked).inputs.append(name)

    @staticmethod
    def _number(channel: str, kind: str, count: int) -> int:
        name = channel.partition("/")[2]
        if not name.startswith(kind) or not name[2:].isdecimal() or int(name[2:]) >= count:
            raise NIError(NO_CHANNEL)
        return int(name[2:])

    def _timing(self, asked: Any) -> None:
        task = self._of(asked)
        task.rate, task.length = asked.rate, asked.samps_per_chan

    def _triggered_by(self, asked: Any) -> None:
        self._of(asked).trigger = asked.trigger_source

    def _write(self, asked: Any) -> Mapping[str, Any]:
        task = self._of(asked)
        task.samples = np.array(asked.write_array).reshape(len(task.outputs), asked.num_samps_per_chan)
        if asked.num_samps_per_chan != task.length:
            self.noted.append(f"{asked.num_samps_per_chan} samples for a buffer of {task.length}")
        return {"samps_per_chan_written": asked.num_samps_per_chan}

    def _start(self, asked: Any) -> None:
        task = self._of(asked)
        task.running = True
        if not task.outputs or task.samples is None:
            return
        for (number, low, high), samples in zip(task.outputs, task.samples, strict=True):
            low, high = max(low, self._range[0]), min(high, self._range[1])
            if not ((samples >= low - 1e-9) & (samples <= high + 1e-9)).all():
                self.noted.append(f"ao{number}: {samples.min():g} to {samples.max():g} V, outside {low:g} to {high:g} V")
                raise NIError(-200077)
        levels = np.tile(self.held[:, None], task.samples.shape[1])
        levels[[number for number, _, _ in task.outputs]] = task.samples
        task.ends = self._clock() + task.length / task.rate if self._realtime else 0.0
        before, self.held = self.held, levels[:, -1].copy()
        for other in self._tasks.values():
            chassis, _, edge = other.trigger.lstrip("/").partition("/")
            if other.inputs and other.running and edge == "ao/StartTrigger" and task.card.startswith(chassis):
                other.samples, other.ends = self._taken(other, levels, before), task.ends

    def _taken(self, task: Task, levels: Volts, before: Volts) -> Volts:
        """What the inputs of a task take while the outputs play `levels` (outputs, samples)."""
        if self._node is None:
            behind = np.zeros((len(self._inputs), levels.shape[1]))
        else:
            found = self._node(np.concatenate([before[:, None], levels], 1).T).T
            first = np.array([[1 - self._share]]) * found[:, :1]  # it had settled before
            behind = lfilter([self._share], [1, self._share - 1], found[:, 1:], zi=first)[0]
        return np.stack([behind[int(name[2:])] if name.startswith("ai") else levels[int(name[3:].partition("_")[0])]
                         for name in task.inputs])  # fmt: skip

    def _stop(self, asked: Any) -> None:
        self._of(asked).running = False

    def _read(self, asked: Any) -> dict[str, Any]:
        task = self._of(asked)
        if asked.num_samps_per_chan <= 1 and not task.length:  # on demand
            levels = self._taken(task, self.held[:, None], self.held)
            return {"read_array": levels[:, 0], "samps_per_chan_read": 1}
        if task.samples is None:
            self.noted.append("inputs that nothing started")
            return {"status": NOT_THERE, "samps_per_chan_read": 0}
        taken, task.samples = task.samples, None
        return {"read_array": taken.ravel(), "samps_per_chan_read": taken.shape[1], "due": task.ends}

    def _wait(self, asked: Any) -> dict[str, Any]:
        return {"due": self._of(asked).ends}
