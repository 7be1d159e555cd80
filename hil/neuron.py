"""Spiking neurons as an array is set up: what a Spec says of them, and what the host believes.

    v[t] = lam ( v[t-1] - V s[t-1] ) + I[t]                 soft reset, V = v_th - v_rest
    v[t] = lam ( v_rest if s[t-1] else v[t-1] ) + I[t]      hard reset
    s[t] = H( v[t] - v_th )                                 H(0) = 1; v starts at 0
    for `refractory` steps after a spike, I counts as 0 and s is 0; reset and leak go on

Source: Gerstner & Kistler, Spiking Neuron Models, ch. 4; Xiao et al., OTTT, NeurIPS 2022 (soft reset).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from hil.errors import ConfigError
from hil.settings import Positive, check

Leak = Annotated[float, Field(gt=0, le=1)]
Reset = Literal["soft", "hard"]
Steps = Annotated[int, Field(ge=0, lt=2**15)]


@dataclass(frozen=True, slots=True)
class NeuronModel:
    """The neurons of an array, without what differs from one to the next.

    Args:
        leak: lam, kept of the membrane per step; 1: no leak.
        v_th: threshold, in the unit of the current.
        v_rest: level that the reset aims at, in the unit of the current.
        reset: "soft" subtracts V = v_th - v_rest, "hard" sets v_rest.
        refractory: steps without input or spike after a spike.

    Raises:
        ConfigError: a value that makes no neuron.
    """

    leak: Leak = 0.5
    v_th: Positive = 1.0
    v_rest: float = 0.0
    reset: Reset = "soft"
    refractory: Steps = 0

    def __post_init__(self) -> None:
        check(self, "model of the neurons")
        if not self.v_rest < self.v_th:
            raise ConfigError(
                "v_rest makes no sense", where="model of the neurons", got=f"{self.v_rest}", allowed=f"below v_th = {self.v_th}"
            )

    @property
    def quantum(self) -> float:
        """V, what a spike takes from the membrane by a soft reset."""
        return self.v_th - self.v_rest

    def memory(self, time_steps: int) -> float:
        """Return sum_k lam^k, k below `time_steps`: the leaky sum of ones."""
        return float(time_steps) if self.leak == 1 else (1 - self.leak**time_steps) / (1 - self.leak)

    def table(self) -> dict[str, Any]:
        """Return the settings by name, as a file holds them."""
        return asdict(self)
