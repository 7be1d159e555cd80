"""Step through a training: every step and epoch comes to your loop, which may look, plot, and leave when it has seen enough.

What you leave is an interrupted run, committed and resumable: call this again, and it goes on where it was left.

Prints: the loss every 50 steps, and why the loop was left; then the validation score of every epoch.
"""

import hil
from hil.training.loop import Epoch
from sim_devices.mach_zehnder import MachZehnder

net = hil.dense([64, 100, 10], MachZehnder(v_pi_v=3.5), gain=1.5, overflow="fold", period=7.0)

with hil.points(net, "adfa", "digits", epochs=20, batch=32, lr=3e-3, run="runs/09_points", show=False) as points:
    for point in points:
        if isinstance(point, Epoch):
            if point.validation["accuracy"] > 0.95:
                print(f"epoch {point.epoch} is good enough: validation {point.validation['accuracy']:.1%}")
                break
        elif point.step % 50 == 0:
            print(f"step {point.step:>4}   loss {point.metrics['loss']:.3f}")

print(points.run)
for record in points.run.records:  # points.run.metrics is the same as a pandas DataFrame, where pandas is installed
    if record["split"] == "validation":
        print(f"epoch {record['epoch']}   validation {record['accuracy']:.1%}")
