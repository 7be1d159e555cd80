"""Two functions make a device: one drives your rig, one measures it. Here the rig is pretended; put your SDK in its place.

Prints: the answer to one drive, a refused drive, and the test accuracy of a network that learned through the device.
"""

import numpy as np
import torch

import hil

couplings = np.random.default_rng(0).normal(0.0, 0.6, (16, 16))  # of the pretended rig: 16 voltages in, 16 currents out
voltages = np.zeros(16)


def write(values: np.ndarray) -> None:  # values (16,), in V
    voltages[:] = values


def read() -> np.ndarray:  # (16,), in mA
    return np.tanh(voltages + 0.5 * couplings @ voltages) + np.random.default_rng().normal(0.0, 0.01, 16)


def safe() -> None:  # called after an error, after a training, and when Python ends
    voltages[:] = 0.0


dac, adc = hil.Port("dac", low=-2, high=2, unit="V", size=16), hil.Port("adc", low=-5, high=5, unit="mA", size=16)
device = hil.from_functions(write, read, inputs=dac, outputs=adc, safe=safe)

print("1 V on every channel gives", device.forward(torch.ones(1, 16))[0, :4].numpy().round(2), "... mA")
try:
    device.forward(torch.full((1, 16), 3.0))
except hil.HilError as error:
    print(error)

net = hil.dense([64, 16, 10], device, gain=0.5, overflow="clip", decode=hil.Decode(zero=0.0, scale=1.0))
run = hil.train(net, "adfa", hil.load("digits"), epochs=4, batch=32, lr=1e-2, run="runs/01_functions")
print(f"test accuracy {run.test_accuracy:.1%} through the device; its outputs are now {voltages.max():.0f} V")
