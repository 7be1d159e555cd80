# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own device in ten lines
#
# You have a rig that takes numbers and gives numbers. Two functions make it a device: one that writes, one that reads. A
# third one says how the rig is made safe. Here the rig is pretended: 16 electrodes of a nonlinear material that mixes
# them.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import hil

rng = np.random.default_rng(0)
couplings, voltages = rng.normal(0.0, 0.6, (16, 16)), np.zeros(16)

# %% [markdown]
# These are the ten lines. Put the calls of your own library in place of the bodies.


# %%
def write(values: np.ndarray) -> None:  # (16,), in V
    voltages[:] = values


def read() -> np.ndarray:  # (16,), in mA
    return np.tanh(voltages + 0.5 * couplings @ voltages) + rng.normal(0.0, 0.01, 16)


def safe() -> None:
    voltages[:] = 0.0


inputs, outputs = hil.Port("dac", -2, 2, "V", size=16), hil.Port("adc", -5, 5, "mA", size=16)
device = hil.from_functions(write, read, inputs, outputs, safe=safe)

# %% [markdown]
# ## Drive it
#
# Rows are shots: `(shots, 16)` volts in, `(shots, 16)` milliamperes out. One electrode is swept, the others rest.

# %%
drive = torch.zeros(81, 16)
drive[:, 0] = torch.linspace(-2, 2, 81)
answer = device.forward(drive)

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(drive[:, 0], answer[:, :6], lw=1.2, label=[f"output {k}" for k in range(1, 7)])
axes.set(xlabel="electrode 1 (V)", ylabel="reading (mA)", title="one electrode moves six outputs")
axes.grid(alpha=0.3)
axes.legend(frameon=False, fontsize=8, ncols=2)
figure.savefig("own_device.png", dpi=120)

# %% [markdown]
# A value outside the limits of the port is refused before `write` is called. Nothing is clipped.

# %%
try:
    device.forward(torch.full((1, 16), 3.0))
except hil.HilError as error:
    print(error)

# %% [markdown]
# ## Train through it
#
# One hidden layer of 16, which is the rig.

# %%
net = hil.dense([64, 16, 10], device, gain=0.5, overflow="clip", decode=hil.Decode(zero=0.0, scale=1.0))
run = hil.train(net, "adfa", hil.load("digits"), epochs=5, batch=32, lr=1e-2, run="runs/own", report=False)
print(run)
print(f"the outputs are at {voltages.max():.0f} V now: hil called safe()")

# %%
figure = run.plot()
figure.savefig("own_learning.png", dpi=120)
figure

# %% [markdown]
# A device that is a class of its own, lives in a process of its own and is named in a file: [add a
# device](../../how-to/add_a_device.md).
