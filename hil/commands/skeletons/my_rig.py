"""A rig of eight channels: say here what drives it and what reads it, and name the manual.

read[k] = tanh(driven[k])        stands for the hardware, until your own calls stand in `_shot` and `safe`
"""

import time

import torch

import hil


class MyRig:
    """Eight voltages in, eight voltages out, one row after the other.

    A setting whose name ends in a unit may be written in a file with it: high = "1.5 V", settle = "2 ms".

    Args:
        high_v: largest drive either way, V.
        settle_s: pause between driving and reading, s.
    """

    def __init__(self, *, high_v: float = 2.0, settle_s: float = 0.0) -> None:
        # Open the hardware here. Limits are declared once, in the ports, with the unit of each.
        drive = hil.Port("drive", low=-high_v, high=high_v, unit="V", size=8)
        reading = hil.Port("reading", low=-1.0, high=1.0, unit="V", size=8)
        # Write provenance="real" once hardware answers: every result carries it.
        self.spec = hil.Spec(drive, reading, provenance="twin")
        self._settle_s = settle_s
        self._driven = torch.zeros(8)  # stands for the outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drive each row of x (batch, 8) in V, and return what was read, (batch, 8) in V."""
        self.spec.inputs.check(x)  # the whole batch, before its first row is sent; NaN is refused too
        answer = torch.empty(x.shape)
        for number, row in enumerate(x.detach().cpu()):
            answer[number] = self._shot(row)
        return answer

    def _shot(self, row: torch.Tensor) -> torch.Tensor:
        self._driven = row.clone()  # write the outputs here
        time.sleep(self._settle_s)
        return torch.tanh(self._driven)  # read the inputs here

    def safe(self) -> None:
        """Bring the outputs to safe, and read them back. The host calls this when the trainer ends, hangs or is killed."""
        self._driven = torch.zeros(8)
        if self._driven.any():  # ask the hardware, not a variable
            raise OSError("the outputs are not at 0 V")

    def close(self) -> None:
        """Make safe, then close the hardware. May be called twice."""
        self.safe()
