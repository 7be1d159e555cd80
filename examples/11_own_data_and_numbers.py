"""Data of your own, and targets that are numbers: y = sin( pi (x1 + x2 + x3 + x4) ), learned through a twin by aDFA.

Prints: the error of every fifth epoch on the validation split, and that on the test split. NRMSE is the root mean square error
over the standard deviation of the targets: 1 is what their mean gets.
"""

import math

import torch

import hil
from sim_devices.mach_zehnder import MachZehnder

x = torch.rand(2000, 4, generator=torch.Generator().manual_seed(0)) - 0.5  # or numpy arrays, a torch Dataset, "measured.csv"
y = torch.sin(math.pi * x.sum(1, keepdim=True))
data = hil.load((x, y), split={"validation": 0.15, "test": 0.15})

net = hil.dense([4, 64, 1], MachZehnder(v_pi_v=3.5), gain=1.0, overflow="fold", period=7.0)
run = hil.train(net, "adfa", data, epochs=15, batch=32, lr=1e-2, run="runs/11_numbers", show=False)

for line in run.records:
    if line["split"] == "validation" and line["epoch"] % 5 == 0:
        print(f"epoch {line['epoch']:>2}   validation NRMSE {line['nrmse']:.3f}")
print(f"test {run.metric.title} {run.test_score:.3f}")
