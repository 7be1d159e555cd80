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
# # Search
#
# Which g does a node learn best with? `hil search` breeds candidates on the twin: many small trainings at once. The
# winner is chosen on fresh seeds and compared with hand-made and random functions on examples that the search never saw.
# This search is a small one.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import hil
from hil.cli import run as command
from sim_devices.mach_zehnder import MachZehnder

# %% [markdown]
# ## Two files
#
# The experiment says what is trained on what. The search file says what may change.

# %%
Path("base.toml").write_text(
    """
[network]
widths = [64, 40, 10]
[device]
use = "mach_zehnder"
v_pi = "3.5 V"
[encode]
gain = "1.5 V"
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[optimizer]
lr = 1e-2
[train]
batch = 32
""",
    encoding="utf-8",
)
Path("search.toml").write_text(
    """
base = "base.toml"
name = "small"
[search]
population = 10
generations = 5
elites = 2
[genome]
family = "fourier"
terms = 2
[train]
epochs = 1
examples = 900
score = 300
held = 200
[evaluate]
workers = 1
chunk = 10
[confirm]
seeds = 2
candidates = 1
random = 2
hand_made = false
""",
    encoding="utf-8",
)

# %% [markdown]
# In a terminal this is `hil search search.toml --run runs/search`.

# %%
assert command(["search", "search.toml", "--run", "runs/search"]) == 0

# %% [markdown]
# ## How it went

# %%
generations = [json.loads(line) for line in Path("runs/search/generations.jsonl").read_text(encoding="utf-8").splitlines()]

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for line in generations:
    scores = [100 * sum(genome["accuracy"]) / len(genome["accuracy"]) for genome in line["genomes"]]
    axes.plot([line["generation"] + 1] * len(scores), scores, "o", color="tab:blue", ms=5, alpha=0.4)
numbers = [line["generation"] + 1 for line in generations]
axes.plot(numbers, [100 * line["median"] for line in generations], color="tab:orange", label="median of the generation")
axes.set(xlabel="generation", ylabel="accuracy (%)", xticks=numbers)
axes.grid(alpha=0.3)
axes.legend(frameon=False)
figure.savefig("generations.png", dpi=120)

# %% [markdown]
# ## What it found
#
# The file of the winner goes into `[learner] feedback` of any experiment.

# %%
summary = json.loads(Path("runs/search/summary.json").read_text(encoding="utf-8"))
winner = hil.Feedback.load(Path("runs/search") / summary["feedback"])
a = torch.linspace(-2.5, 2.5, 201, requires_grad=True)
MachZehnder(v_pi_v=3.5).ideal(1.5 * a[:, None]).sum().backward()
slope, a = a.grad, a.detach()
g = winner.g(a)

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(a, slope / slope.abs().max(), color="black", lw=3, alpha=0.3, label="derivative of the node, scaled")
axes.plot(a, g / g.abs().max(), label="g that the search found, scaled")
axes.set(xlabel="pre-activation a", ylim=(-1.2, 1.6), yticks=[-1, 0, 1])
axes.legend(frameon=False, loc="upper center")
figure.savefig("found.png", dpi=120)

# %% [markdown]
# Nobody told the search the derivative. Longer searches, several objectives, clusters and benches: [search the
# feedback](../../how-to/search_feedback.md).
