"""A reservoir: one optoelectronic loop acts as 50 virtual nodes, and a linear readout is fitted over their states.

NARMA10 asks for a memory of ten steps. Each step of the input goes through a mask to the modulator; whole sequences are played
in order, each from a loop at rest.

Prints: the test error of the loop, and of the same loop whose gain is 0, which forgets at once.
"""

import hil
from sim_devices.delay_loop import DelayLoop

data = hil.load("narma10", number=6, steps=1200, window=1, sequence=True, split={"validation": 0.17, "test": 0.17})

for name, gain in (("loop", 0.51), ("open", 0.0)):
    net = hil.dense([1, 50, 1], DelayLoop(nodes=50, gain=gain, phase_rad=1.46, delay_s=7.3e-6), gain=0.13)
    run = hil.train(net, "reservoir", data, epochs=1, task={"washout": 200}, run=f"runs/14_{name}", show=False)
    print(f"{name:<8} test {run.metric.title} {run.test_score:.3f}, {run.summary['device_passes']:,} node evaluations")
