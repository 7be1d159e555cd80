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
# # Your own data, and regression
#
# The other notebooks learn digits, which are classes. Here the data come from a table of your own, and the network gives
# a number.

# %%
import csv
import math

import matplotlib.pyplot as plt
import torch

import hil
from sim_devices.mach_zehnder import MachZehnder

modulator = MachZehnder(v_pi_v=3.5)

# %% [markdown]
# ## Write the table
#
# Your instrument, or a program of yours, writes such a file. Here it holds 2,000 examples of
#
# $$y = \sin\left(\pi\,(x_1 + x_2 + x_3 + x_4)\right), \qquad x_i \text{ uniform in } [-0.5, 0.5]$$

# %%
x = torch.rand(2000, 4, generator=torch.Generator().manual_seed(0)) - 0.5
y = torch.sin(math.pi * x.sum(1))

with open("sine.csv", "w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(["x1", "x2", "x3", "x4", "y"])
    table.writerows(torch.cat([x, y[:, None]], 1).tolist())

# %% [markdown]
# ## Load it
#
# `hil.load` checks every row and splits the examples, always in the same way. The last column is the target, unless you
# write `target="..."`. It holds numbers that are not whole, so the task is a regression. The splits are shares of the
# table: what is left over is for training.

# %%
data = hil.load("sine.csv", split={"validation": 0.15, "test": 0.15})
for name in ("train", "validation", "test"):
    split = getattr(data, name)
    print(f"{name:<11} x {tuple(split.x.shape)}   y {tuple(split.y.shape)}")

# %% [markdown]
# A bad row is refused, and the message says which one. Nothing is guessed, and nothing is left out.

# %%
with open("sine.csv", encoding="utf-8") as good, open("bad.csv", "w", encoding="utf-8") as bad:
    rows = good.readlines()
    bad.writelines([*rows[:41], "0.1,0.2,,0.4,0.9\n", *rows[42:]])
try:
    hil.load("bad.csv")
except hil.HilError as error:
    print(error)

# %% [markdown]
# ## Train by aDFA
#
# One hidden layer of 64 modulators, and one output. The loss is the squared error. The epoch is chosen by the NRMSE on
# the validation split:
#
# $$\mathrm{NRMSE} = \sqrt{\frac{\overline{(o - y)^2}}{\mathrm{var}\,y}}$$
#
# with $o$ the output of the network. 0 is perfect; 1 is what the mean of the targets reaches, whatever the input.

# %%
net = hil.dense([4, 64, 1], modulator, gain=1.0, overflow="fold", period=7.0)
adfa = hil.train(net, "adfa", data, epochs=10, batch=32, lr=2e-2, run="runs/sine-adfa", report=False)
print(adfa)

# %%
figure = adfa.plot()
figure.savefig("sine_learning.png", dpi=120)
figure

# %% [markdown]
# ## Fit the readout alone, by ridge
#
# Ridge regression leaves the first weights random and solves for the readout in closed form. One pass of each example
# through the device is enough. It needs more features, 200 here, and features that differ from one another: with a gain
# of 7 V, one unit of pre-activation is a whole period of the modulator.

# %%
wide = hil.dense([4, 200, 1], modulator, gain=7.0, overflow="fold", period=7.0)
ridge = hil.train(wide, "ridge", data, epochs=1, run="runs/sine-ridge", report=False)
print(ridge)

# %% [markdown]
# ## Output against target
#
# On the test split, which no epoch, weight or penalty was chosen by. Points on the line are right. Both runs say what they
# cost: a node evaluation is one value that goes through the modulator, so an example costs as many as there are features.

# %%
runs = {"aDFA": adfa, "ridge": ridge}
figure, panels = plt.subplots(1, 2, figsize=(7, 4), sharex=True, sharey=True, layout="constrained")
for axes, (name, run) in zip(panels, runs.items(), strict=True):
    output = run.net.forward(data.test.x).outputs[-1]
    axes.plot([-1, 1], [-1, 1], color="black", lw=1, alpha=0.4)
    axes.plot(data.test.y, output, ".", ms=4)
    asked = run.summary["device_passes"]
    axes.set(xlabel="target", title=f"{name}: NRMSE {run.test_score:.3f}\n{asked:,} node evaluations", aspect="equal")
    axes.grid(alpha=0.3)
panels[0].set_ylabel("output of the network")
figure.savefig("output_against_target.png", dpi=120)

# %% [markdown]
# Next: arrays, images, a torch Dataset or a function in place of the table: [use data of your
# own](../../how-to/own_data.md).
