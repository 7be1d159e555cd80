"""I = I_s ( exp(V / V_t) - 1 ), read over a load; thermal noise on the reading. Name the source of the equation here."""

import torch
from torch import nn

from hil.device import Port, Spec


class Diode(nn.Module):
    """A diode and its load.

    A setting whose name ends in a unit may be written in a file with it: saturation = "2 nA".

    Args:
        saturation_a: I_s.
        thermal_v: V_t, the ideality included.
        load_ohm: the current is read over it.
        noise_v: standard deviation of a reading.
    """

    def __init__(
        self, *, saturation_a: float = 1e-9, thermal_v: float = 0.052, load_ohm: float = 1e5, noise_v: float = 1e-4
    ) -> None:
        super().__init__()
        self.saturation_a, self.thermal_v, self.load_ohm, self.noise_v = saturation_a, thermal_v, load_ohm, noise_v

    @property
    def spec(self) -> Spec:
        # Limits and units, declared once. Without size= one node answers for every neuron in turn.
        return Spec(Port("diode drive", -0.5, 0.5, "V"), Port("diode reading", -1.0, 3.0, "V"), provenance="twin")

    def ideal(self, x: torch.Tensor) -> torch.Tensor:
        # Without noise and memory, differentiable. Operations of torch alone, so that it runs wherever x is.
        return self.saturation_a * torch.expm1(x / self.thermal_v) * self.load_ohm

    def rest(self, batch: int, rng: torch.Generator) -> tuple[torch.Tensor, ...]:
        return ()  # the state before the first drive: a tensor each, if the node has a memory

    def respond(self, state, params, x, rng):
        # Noise comes from the generator alone, so that a run can be repeated bit for bit.
        return self.ideal(x) + self.noise_v * torch.randn(x.shape, generator=rng, device=x.device), state
