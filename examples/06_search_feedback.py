"""Search the feedback: which function g, in place of the derivative of the node, does this network learn best with?

A small evolution: the best g so far is changed at random, and kept if the network then learns better, by the validation split.
Prints: every better g, and the test accuracy of the best. `hil search` does this from a file with whole populations at once,
many families of functions, fresh seeds for the winner, and a report.
"""

import random

import hil
from sim_devices.mach_zehnder import MachZehnder

digits, rng = hil.load("digits"), random.Random(1)


def trained(number: int, frequency: float, phase: float) -> hil.Run:
    net = hil.dense([64, 60, 10], MachZehnder(v_pi_v=3.5), gain=1.5, overflow="fold", period=7.0)
    g = {"family": "sine", "frequency": frequency, "phase": phase}
    folder = f"runs/06_search/{number}"
    return hil.train(net, "adfa", digits, epochs=2, batch=32, lr=2e-3, run=folder, show=False, report=False, feedback={"g": g})


best, score = (1.0, 0.0), 0.0
for number in range(8):
    frequency, phase = best[0] * rng.lognormvariate(0.0, 0.3), best[1] + rng.gauss(0.0, 0.8)
    run = trained(number, round(frequency, 3), round(phase, 3))
    found = run.summary["validation_accuracy"]
    if found > score:
        best, score, winner = (frequency, phase), found, run
        print(f"g(a) = sin({frequency:.2f} a + {phase:.2f})   validation {found:.1%}")
print(f"found: test accuracy {winner.test_accuracy:.1%}, {winner.summary['device_passes']:,} node evaluations a candidate")
