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
# # aDFA, and what g does
#
# Backpropagation multiplies the error of a hidden layer by the derivative of its node. That derivative is not known here.
# Augmented direct feedback alignment (aDFA) uses a fixed function g in its place, and a fixed random matrix B in place of
# the transposed weights:
#
# $$\delta_l = (B_l\, e) \odot g(a_l), \qquad e = \partial L / \partial o$$
#
# with $a_l$ the pre-activation and $e$ the error at the readout. Almost any g works (Nakajima et al. 2022). Which ones do
# not?

# %%
import math

import matplotlib.pyplot as plt
import torch

import hil
from hil.feedback.feedback import correlation
from sim_devices.mach_zehnder import MachZehnder

PERIOD, GAIN = 7.0, 1.5  # V; V for each unit of pre-activation
modulator, digits = MachZehnder(v_pi_v=PERIOD / 2), hil.load("digits")

# %% [markdown]
# ## The true derivative
#
# It is known here because the node is a twin. In units of the pre-activation the reading is a sine of frequency $2 \pi
# \cdot 1.5 / 7 = 1.35$, so its derivative is a cosine of that frequency. Candidates for g are sines of that frequency
# with other phases. At a quarter of a turn, phase π/2, g is the derivative itself; at three quarters it is its opposite.

# %%
a = torch.linspace(-2.5, 2.5, 201, requires_grad=True)
modulator.ideal(GAIN * a[:, None]).sum().backward()
slope = a.grad / a.grad.abs().max()
a = a.detach()
frequency = 2 * math.pi * GAIN / PERIOD
phases = [k * math.pi / 4 for k in (0, 1, 2, 4, 5, 6)]


def feedback(phase: float) -> hil.Feedback:
    return hil.Feedback.from_table({"g": {"family": "sine", "frequency": round(frequency, 4), "phase": round(phase, 4)}})


figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(a, slope, color="black", lw=3, alpha=0.3, label="derivative of the node, scaled")
for phase in phases[:3]:
    axes.plot(a, feedback(phase).g(a), lw=1.3, label=f"g with phase {phase / math.pi:g} π")
axes.set(xlabel="pre-activation a", ylabel="g(a)", ylim=(-1.2, 1.9), yticks=[-1, 0, 1])
axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
figure.savefig("candidates.png", dpi=120)

# %% [markdown]
# ## One training for each phase
#
# The likeness of g and the derivative is their correlation over pre-activations as they occur, here a normal
# distribution.

# %%
visited = torch.randn(2000, generator=torch.Generator().manual_seed(0))
true = torch.cos(frequency * visited)
found = []
for number, phase in enumerate(phases):
    net = hil.dense([64, 40, 10], modulator, gain=GAIN, overflow="fold", period=PERIOD)
    run = hil.train(
        net, "adfa", digits, epochs=2, batch=32, lr=5e-3, run=f"runs/phase-{number}", show=False, report=False,
        feedback=feedback(phase),
    )  # fmt: skip
    found.append((float(correlation(feedback(phase).g(visited), true)), run.test_accuracy))
    print(f"phase {phase / math.pi:.2f} π   likeness {found[-1][0]:+.2f}   test {found[-1][1]:.1%}")

# %%
likeness, accuracy = zip(*found, strict=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
left.plot([phase / math.pi for phase in phases], [100 * share for share in accuracy], "o-")
left.set(xlabel="phase of g (π)", ylabel="test accuracy (%)", ylim=(0, 100))
right.plot([abs(one) for one in likeness], [100 * share for share in accuracy], "o")
right.set(xlabel="size of the correlation of g with the derivative", xlim=(-0.05, 1.05))
for axes in (left, right):
    axes.grid(alpha=0.3)
figure.savefig("what_g_does.png", dpi=120)

# %% [markdown]
# g need not be the derivative: a correlation of 0.65 learns as well as one of 1. Nor does the sign matter, since g with the
# sign turned does what B with its signs turned does, and B is random. Only a g that has nothing of the derivative, at
# phases 0 and π, fails: the hidden layer learns nothing that helps, and the readout has to make do with it.
#
# Which g suits your node: [search](search.py).
