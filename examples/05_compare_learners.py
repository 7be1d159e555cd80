"""Compare two learners over seeds, on equal terms: the same first weights and order of the examples for each seed.

Prints: mean and standard deviation over the seeds for each, and p of the difference (Welch). Call it again after an
interruption: finished runs are not repeated. `hil compare` does this from a file, for many learners and devices.
"""

from statistics import mean, stdev

import hil
from hil.report.significance import welch
from sim_devices.mach_zehnder import MachZehnder

digits, seeds = hil.load("digits"), range(3)


def accuracy(learner: str, seed: int) -> float:
    net = hil.dense([64, 60, 10], MachZehnder(v_pi_v=3.5), gain=1.5, overflow="fold", period=7.0, seed=seed)
    folder = f"runs/05_compare/{learner}-{seed}"
    run = hil.train(net, learner, digits, epochs=2, batch=32, lr=5e-3, seed=seed, run=folder, show=False, report=False)
    return float(run.summary["test_accuracy"])


found = {learner: [accuracy(learner, seed) for seed in seeds] for learner in ("adfa", "last_layer")}
for learner, values in found.items():
    print(f"{learner:<12} {mean(values):.1%} ± {stdev(values):.1%} over {len(values)} seeds")
p = welch(found["adfa"], found["last_layer"], resolution=1 / len(digits.test))
print(f"p = {p:.2g} that the two are equally good")
