"""Memory capacity and information processing capacity as RCbench measures them; run in the peer's own environment.

python benchmarks/memory_measures_peer.py STATES.npz MOST_DELAY_1 MOST_DELAY_2
STATES.npz: u (T,), states (T, n); stdout: sums over all functions of degree 1 and of degree 2 with delays from 1 on, as JSON
"""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
from rcbench import IPCEvaluator, MemoryCapacityEvaluator


def main() -> None:
    logging.disable(logging.CRITICAL)
    with np.load(sys.argv[1]) as given:
        u, states = given["u"], given["states"]
    first, second = map(int, sys.argv[2:])
    how = {"feature_selection_method": "kbest", "num_features": "all", "modeltype": "Linear"}
    one = MemoryCapacityEvaluator(u, states, max_delay=first).calculate_total_memory_capacity(**how)["total_memory_capacity"]
    found = IPCEvaluator(u, states, max_delay=second, max_degree=2).calculate_total_capacity(**how)
    print(json.dumps([one, found["capacity_by_degree"][2]]))


if __name__ == "__main__":
    main()
