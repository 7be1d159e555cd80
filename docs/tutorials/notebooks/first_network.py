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
# # First network on a twin
#
# A physical node is driven and read, never differentiated. Here the node is a *twin*: a simulated Mach-Zehnder modulator,
# with noise. You measure it, put it behind the hidden layers of a network, and train that network with aDFA, a rule that
# needs no derivative of the node.

# %%
import matplotlib.pyplot as plt
import torch

import hil
from sim_devices.mach_zehnder import MachZehnder

modulator = MachZehnder(v_pi_v=3.5)

# %% [markdown]
# ## Make the network
#
# 64 pixels, two hidden layers of 60, 10 classes. Behind each hidden layer stands the modulator: a pre-activation becomes
# a voltage, 1.5 V for each unit, and the reading of the photodiode becomes the activation. Voltages beyond the limits of
# the modulator are folded back by one period, 2 V_pi = 7 V.
#
# `hil.dense` sweeps the node to find its zero and its swing. The curve that it measured stays with the network.

# %%
net = hil.dense([64, 60, 60, 10], modulator, gain=1.5, overflow="fold", period=7.0)
curve = net.transfer

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(curve.drive, 1e3 * curve.mean, lw=1.5)
axes.set(
    xlabel="drive (V)", ylabel="reading (mV)", title=f"transfer curve; noise of a reading {1e3 * curve.spread.mean():.2f} mV"
)
axes.grid(alpha=0.3)
figure.savefig("transfer_curve.png", dpi=120)

# %% [markdown]
# ## Train
#
# `hil.train` makes a run folder with metrics, checkpoints and a report. Call it again with the same folder: a finished
# run is only read, a stopped one goes on where it was.

# %%
run = hil.train(net, "adfa", hil.load("digits"), epochs=6, batch=32, lr=5e-3, run="runs/first", report=False)
print(run)

# %%
figure = run.plot()
figure.savefig("learning.png", dpi=120)
figure

# %% [markdown]
# ## Look at what it learned
#
# `net.forward` asks the node once per hidden layer. Rows are the true digits, columns what the network says.

# %%
test = hil.load("digits").test
said = net.forward(test.x).outputs[-1].argmax(1)
confusion = torch.zeros(10, 10)
for truth, answer in zip(test.y, said, strict=True):
    confusion[truth, answer] += 1

figure, axes = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
picture = axes.imshow(confusion, cmap="Blues")
axes.set(xlabel="said", ylabel="true", xticks=range(10), yticks=range(10), title=f"test accuracy {run.test_accuracy:.1%}")
figure.colorbar(picture, label="examples")
figure.savefig("confusion.png", dpi=120)

# %% [markdown]
# Next: [your own device in ten lines](own_device.py), or the same from a file: [first run](../first_run.md).
