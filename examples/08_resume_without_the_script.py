"""Train through a virtual bench over VISA. Kill this script when you like, and go on without it: hil resume runs/08_bench

All that it gives to hil.train has a name (a bench file, the layers of hil.dense, a data set, a learner), so the run folder can
make it again. A run that needs its script says so, and why; the script itself, called again, goes on as well.

Prints: a line an epoch, and the test accuracy.
"""

from pathlib import Path

import hil

BENCH = Path(__file__).resolve().parents[1] / "benches" / "mzm_awg_scope.toml"

with hil.open(BENCH) as bench:  # guarded: whatever ends this script, the outputs go off
    net = hil.dense([64, 60, 10], bench, gain=1.5, overflow="fold", period=7.04)
    run = hil.train(net, "adfa", "digits", epochs=4, batch=32, lr=3e-3, run="runs/08_bench", log=["csv"])
print(f"{run.folder}: test accuracy {run.test_accuracy:.1%}")
