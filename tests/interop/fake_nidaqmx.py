"""The simulated NI card with a dopant network behind it, which also notes steps that are too large, and fails on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim_devices.instruments.ni_card import NICard, NIError, Volts
from sim_devices.transports.grpc import GrpcServer

LOW, HIGH = np.array([-1.2] * 5 + [-0.7] * 2), np.array([0.6] * 5 + [0.3] * 2)


def dopant(volts: Volts) -> Volts:
    """Current of a network of seven electrodes, as a voltage behind its amplifier: (7, n) -> (1, n); smooth, not monotonic."""
    mixed = np.sin(np.arange(1, 29, dtype=float).reshape(4, 7) * 1.7) @ (volts / 0.6) * 0.8
    return (np.array([[1.0, -0.7, 0.5, 0.9]]) @ np.tanh(mixed)) * 0.6


class FakeCard(NICard):
    """Args: max_step_v: larger steps from sample to sample are noted. broken: calls that fail from now on."""

    def __init__(self, max_step_v: float = 0.1) -> None:
        super().__init__(outputs=7, inputs=1, realtime=True)
        self.max_step_v, self.broken, self.exchanges = max_step_v, set[str](), 0
        self.through(lambda rows: dopant(rows.T).T)

    @property
    def tasks(self) -> Mapping[str, object]:
        return self._tasks

    def call(self, name: str, asked: Any) -> Mapping[str, Any]:
        if name in self.broken:
            raise NIError(-200279)
        self.exchanges += name == "ReadAnalogF64"
        if name == "StartTask" and (task := self._of(asked)).outputs and task.samples is not None:
            steps = np.abs(np.diff(task.samples, axis=1, prepend=self.held[:, None]))
            if (steps > self.max_step_v * (1 + 1e-9)).any():
                self.noted.append(f"a step of {steps.max()} V")
        return super().call(name, asked)


class Served:
    """A context: the card, served on 127.0.0.1:port."""

    def __init__(self, card: NICard) -> None:
        self._server = GrpcServer(card)
        self.address = self._server.resource

    def __enter__(self) -> Served:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
