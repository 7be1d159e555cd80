"""Train a network on a twin: a Mach-Zehnder modulator, simulated in this process, learns digits by aDFA.

Prints: a line an epoch, the accuracies from the run folder, and where its report is. Call it again: the run is finished, and
only read. Raise `epochs` and call it again: the run is trained longer.
"""

import hil
from sim_devices.mach_zehnder import MachZehnder

modulator = MachZehnder(v_pi_v=3.5)
net = hil.dense([64, 100, 100, 10], modulator, gain=1.5, overflow="fold", period=7.0)  # drives in V; the period is 2 V_pi

sine = hil.Feedback.from_table({"g": {"family": "sine", "frequency": 1.3, "phase": 1.2}})  # in place of the derivative
run = hil.train(net, "adfa", hil.load("digits"), epochs=5, batch=32, lr=2e-3, run="runs/02_twin", feedback=sine)

for line in run.records:
    if line["split"] == "validation":
        print(f"epoch {line['epoch']}   validation {line['accuracy']:.1%}")
run.plot().savefig(run.folder / "curves.png")
print(run)
print(f"report {run.report}")
