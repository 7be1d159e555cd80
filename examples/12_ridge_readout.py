"""A readout in closed form: every example passes the node once, and ridge regression does the rest.

The node mixes the last values of a random input; the target is NARMA10, which no linear function of them gives.

Prints: the error with the node, and that of the same readout on the input alone, without any node.
"""

import torch

import hil
from sim_devices.mach_zehnder import MachZehnder

data = hil.load("narma10", number=2000, window=20)
net = hil.dense([20, 300, 1], MachZehnder(v_pi_v=3.5), gain=3.0, overflow="fold", period=7.0)
run = hil.train(net, "ridge", data, epochs=1, run="runs/12_ridge", show=False)
print(f"with the node      test {run.metric.title} {run.test_score:.3f}, {run.summary['device_passes']:,} node evaluations")

train, test = (torch.cat([part.x, torch.ones(len(part), 1)], 1) for part in (data.train, data.test))
weights = torch.linalg.lstsq(train, data.train.y).solution
error = (test @ weights - data.test.y).square().mean().sqrt() / data.test.y.std(correction=0)
print(f"without any node   test NRMSE {error:.3f}")
