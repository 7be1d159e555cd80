"""A reservoir of reservoirpy at work; run in the peer's own environment.

python benchmarks/memory_peer.py NODES
stdin: a number of steps, a line each; stdout: seconds of the processor for so many, a line each
"""

from __future__ import annotations

import sys
import time

import numpy as np
from reservoirpy.nodes import Reservoir


def main() -> None:
    reservoir = Reservoir(int(sys.argv[1]), lr=0.5, sr=0.9, seed=1)
    reservoir.run(np.zeros((10, 1)))  # made with its first input
    for line in sys.stdin:
        x = np.random.default_rng(0).uniform(size=(int(line), 1))
        start = time.process_time()
        reservoir.run(x)
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
