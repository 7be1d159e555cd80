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
# # Drift
#
# The bias of a modulator walks. A network that was trained at one bias point is wrong at another. The *sentinel* measures
# the node from time to time and moves the drive along with it. Here the bias of a twin walks on purpose: 0.5 rad/s, and a
# shot takes 5 ms.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console

from hil.cli import run as command
from hil.commands.use import in_use

EXPERIMENT = """
[network]
widths = [64, 60, 10]
[device]
use = "mach_zehnder"
v_pi = "3.5 V"
drift_rad_per_s = 0.5
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[optimizer]
lr = 5e-3
[train]
epochs = 4
batch = 32
"""
SENTINEL = """
[sentinel]
every = 20
policy = ["servo", "rescale", "recalibrate", "stop"]
"""

# %% [markdown]
# ## Train with the sentinel
#
# In a terminal: `hil train watched.toml --run runs/watched`.

# %%
Path("watched.toml").write_text(EXPERIMENT + SENTINEL, encoding="utf-8")
assert command(["train", "watched.toml", "--run", "runs/watched"]) == 0

# %% [markdown]
# ## Use it
#
# The best weights, frozen, round after round through the drifting node: once with the sentinel, once without. In a
# terminal: `hil use runs/watched --rounds 500`, and the same with `--no-sentinel`.

# %%
ROUNDS = 500
rounds = {
    watched: [found.score for found in in_use(Path("runs/watched"), ROUNDS, watched, "validation", Console(quiet=True))]
    for watched in (True, False)
}

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for watched, values in rounds.items():
    axes.plot(range(1, ROUNDS + 1), [100 * value for value in values], label="with the sentinel" if watched else "without")
axes.set(xlabel="round", ylabel="validation accuracy (%)", ylim=(0, 100))
axes.grid(alpha=0.3)
axes.legend(frameon=False)
figure.savefig("in_use.png", dpi=120)
print(f"after {ROUNDS} rounds: {rounds[True][-1]:.1%} with, {rounds[False][-1]:.1%} without")

# %% [markdown]
# What the sentinel saw and did stands in the journal of a run: `hil status RUN --log`, and in its report. How it works:
# [correct drift](../../how-to/correct_drift.md).
