"""A rectangular mesh of neurophox at work, its layer for torch; run in the peer's own environment.

python benchmarks/twins_mesh_peer.py MODES BATCH
stdin: {"times", "gradient"}, a line each; stdout: {"s", "power"}, seconds of the processor for one pass, power behind the mesh

neurophox 0.1.0a4 imports tensorflow for its other layers, and takes complex from numpy, which is gone there; both are given
here.
"""

from __future__ import annotations

import json
import sys
import time
from unittest.mock import MagicMock

import numpy as np
import torch

sys.modules["tensorflow"] = MagicMock()
vars(np)["complex"] = complex
from neurophox.torch import RMTorch  # noqa: E402


def main() -> None:
    modes, batch = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    mesh = RMTorch(modes)
    x = torch.randn(batch, 2, modes, generator=torch.Generator().manual_seed(0)).transpose(0, 1)  # real and imaginary
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.process_time()
        for _ in range(asked["times"]):
            mesh.zero_grad()
            with torch.set_grad_enabled(asked["gradient"]):
                power = mesh(x).square().sum(0)
            if asked["gradient"]:
                power[:, 0].sum().backward()
        taken = (time.process_time() - start) / asked["times"]
        print(json.dumps({"s": taken, "power": float(power.detach().sum()) / batch}), flush=True)


if __name__ == "__main__":
    main()
