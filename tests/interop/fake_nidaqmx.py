"""A card behind the gRPC mode of nidaqmx: a server on loopback that answers the few calls the driver makes.

The card holds what was played last, as NI's do. It notes each sample that is out of the limits of its output, each step that
is too large, and each read of inputs that nothing has triggered. A node behind it answers, first order in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf import message_factory
from nidaqmx._stubs import nidaqmx_pb2 as pb
from numpy.typing import NDArray
from scipy.signal import lfilter

Volts = NDArray[np.float64]
LOW, HIGH = np.array([-1.2] * 5 + [-0.7] * 2), np.array([0.6] * 5 + [0.3] * 2)
NOT_THERE, RESERVED = -200284, -50103
SETTLING_SAMPLES = 2.0


def dopant(volts: Volts) -> Volts:
    """Current of a network of seven electrodes, as a voltage behind its amplifier: (7, n) -> (1, n); smooth, not monotonic."""
    mixed = np.sin(np.arange(1, 29, dtype=float).reshape(4, 7) * 1.7) @ (volts / 0.6) * 0.8
    return (np.array([[1.0, -0.7, 0.5, 0.9]]) @ np.tanh(mixed)) * 0.6


@dataclass
class Task:
    outputs: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    rate: float = 0.0
    length: int = 0
    trigger: str = ""
    samples: Volts | None = None
    ends: float = 0.0
    running: bool = False


class FakeCard:
    """Args: max_step_v: larger steps from sample to sample are noted. node: (outputs, n) in V -> (inputs, n) in V."""

    def __init__(self, max_step_v: float = 0.1, node: Callable[[Volts], Volts] = dopant, simulated: bool = True) -> None:
        self.max_step_v, self.node, self.simulated = max_step_v, node, simulated
        self.held = np.zeros(len(LOW))
        self.noted: list[str] = []
        self.exchanges = 0
        self.broken: set[str] = set()  # calls that fail from now on
        self.tasks: dict[str, Task] = {}
        self.made = 0
        self.played: Volts | None = None

    # ---- the calls --------------------------------------------------------------------------------------------------------

    def CreateTask(self, asked: Any) -> Mapping[str, Any]:
        self.made += 1
        name = f"task{self.made}"
        self.tasks[name] = Task()
        return {"task": {"name": name}, "new_session_initialized": True}

    def GetTaskAttributeString(self, asked: Any) -> Mapping[str, Any]:
        return {"value": asked.task.name}

    def ClearTask(self, asked: Any) -> None:
        self.tasks.pop(asked.task.name, None)

    def CreateAOVoltageChan(self, asked: Any) -> None:
        number = len(self.of(asked).outputs)
        if asked.min_val < LOW[number] - 1e-12 or asked.max_val > HIGH[number] + 1e-12:
            self.noted.append(f"{asked.physical_channel}: a channel of {asked.min_val} to {asked.max_val} V")
        if any(asked.physical_channel in task.outputs for task in self.tasks.values()):
            raise ValueError(RESERVED)
        self.of(asked).outputs.append(asked.physical_channel)

    def CreateAIVoltageChan(self, asked: Any) -> None:
        self.of(asked).inputs.append(asked.physical_channel)

    def CfgSampClkTiming(self, asked: Any) -> None:
        task = self.of(asked)
        task.rate, task.length = asked.rate, asked.samps_per_chan

    def CfgDigEdgeStartTrig(self, asked: Any) -> None:
        self.of(asked).trigger = asked.trigger_source

    def GetTimingAttributeDouble(self, asked: Any) -> Mapping[str, Any]:
        return {"value": self.of(asked).rate}

    def GetDeviceAttributeBool(self, asked: Any) -> Mapping[str, Any]:
        return {"value": self.simulated}

    def GetWriteAttributeUInt64(self, asked: Any) -> Mapping[str, Any]:
        return {"value": self.of(asked).length}

    def WriteAnalogF64(self, asked: Any) -> Mapping[str, Any]:
        task = self.of(asked)
        task.samples = np.array(asked.write_array).reshape(len(task.outputs), asked.num_samps_per_chan)
        if asked.num_samps_per_chan != task.length:
            self.noted.append(f"{asked.num_samps_per_chan} samples for a buffer of {task.length}")
        return {"samps_per_chan_written": asked.num_samps_per_chan}

    def StartTask(self, asked: Any) -> None:
        task = self.of(asked)
        task.running = True
        if not task.outputs or task.samples is None:
            return
        self._check(task.samples)
        self.held, self.played = task.samples[:, -1].copy(), task.samples
        task.ends = time.monotonic() + task.length / task.rate
        for other in self.tasks.values():  # the start trigger
            if other.inputs and other.running and other.trigger == "/cDAQ1/ao/StartTrigger":
                other.samples, other.ends = self._seen(task.samples), task.ends

    def ReadAnalogF64(self, asked: Any) -> Mapping[str, Any]:
        task = self.of(asked)
        if asked.num_samps_per_chan <= 1:  # on demand
            found = [self.held[int(name.split("ao")[1].split("_")[0])] for name in task.inputs]
            return {"read_array": found, "samps_per_chan_read": 1}
        if task.samples is None:
            self.noted.append("inputs that nothing triggered")
            return {"status": NOT_THERE, "samps_per_chan_read": 0}
        time.sleep(max(0.0, task.ends - time.monotonic()))
        taken, task.samples = task.samples, None
        self.exchanges += 1
        return {"read_array": taken.ravel(), "samps_per_chan_read": taken.shape[1]}

    def GetReadAttributeUInt32(self, asked: Any) -> Mapping[str, Any]:
        return {"value": len(self.of(asked).inputs)}

    def WaitUntilTaskDone(self, asked: Any) -> None:
        time.sleep(max(0.0, self.of(asked).ends - time.monotonic()))

    def StopTask(self, asked: Any) -> None:
        self.of(asked).running = False

    # ---- behind them ------------------------------------------------------------------------------------------------------

    def of(self, asked: Any) -> Task:
        return self.tasks[asked.task.name]

    def _check(self, samples: Volts) -> None:
        out = (samples < LOW[:, None]) | (samples > HIGH[:, None]) | np.isnan(samples)
        if out.any():
            self.noted.append(f"{int(out.sum())} samples out of range: {samples.min()} to {samples.max()} V")
        steps = np.abs(np.diff(samples, axis=1, prepend=self.held[:, None]))
        if (steps > self.max_step_v * (1 + 1e-9)).any():
            self.noted.append(f"a step of {steps.max()} V")

    def _seen(self, samples: Volts) -> Volts:
        share = 1 / SETTLING_SAMPLES
        found: Volts = lfilter([share], [1, share - 1], self.node(samples))
        return found


class Served:
    """A context: the card, served on 127.0.0.1:port."""

    def __init__(self, card: FakeCard) -> None:
        self.card = card
        self._pool = futures.ThreadPoolExecutor(1)  # a card does one thing after the other
        self._server = grpc.server(self._pool, options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers([self._handlers()])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Served:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def _handlers(self) -> grpc.GenericRpcHandler:
        service = pb.DESCRIPTOR.services_by_name["NiDAQmx"]
        found = {}
        for method in service.methods:
            asked = message_factory.GetMessageClass(method.input_type)
            answer = message_factory.GetMessageClass(method.output_type)
            if hasattr(self.card, method.name):
                found[method.name] = grpc.unary_unary_rpc_method_handler(
                    self._call(method.name, answer),
                    request_deserializer=asked.FromString, response_serializer=answer.SerializeToString,
                )  # fmt: skip
        return grpc.method_handlers_generic_handler(service.full_name, found)

    def _call(self, name: str, answer: type[Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        def call(asked: Any, context: grpc.ServicerContext) -> Any:
            try:
                if name in self.card.broken:
                    raise ValueError(-200279)
                return answer(**(getattr(self.card, name)(asked) or {}))
            except (KeyError, ValueError) as error:
                code = error.args[0] if isinstance(error.args[0], int) else -1
                context.set_trailing_metadata([("ni-error", str(code))])
                context.abort(grpc.StatusCode.UNKNOWN, f"the card refuses {name}: {error}")

        return call
