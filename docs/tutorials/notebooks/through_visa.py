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
# # Through VISA
#
# The same physics behind instruments: an arbitrary-waveform generator drives the modulator, an oscilloscope reads the
# photodiode. Both are simulated and speak their makers' commands over a real network connection (HiSLIP). With addresses
# in place of the `[virtual]` tables of the bench file, the code below runs on a real table, unchanged.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import hil
from sim_devices.mach_zehnder import MachZehnder

BENCH = Path(hil.__file__).parents[1] / "benches" / "mzm_awg_scope.toml"

# %% [markdown]
# ## Measure, and train
#
# `hil.open` starts the bench, asks who answers, and switches the outputs off when the block ends, whatever ends it. A second
# process, the guardian, does so if this one dies.
#
# The open bench is a device like any other. Each hidden layer of each batch is one waveform: uploaded, triggered, recorded,
# aligned and averaged.

# %%
sine = hil.Feedback.from_table({"g": {"family": "sine", "frequency": 1.3, "phase": 1.2}})
with hil.open(BENCH) as bench:
    for name, line in bench.instruments.items():
        print(f"{name:<6} {line}")
    limits = bench.spec.inputs
    drive = torch.linspace(limits.shared_low, limits.shared_high, 161)
    readings = bench.forward(drive.repeat(8, 1).T)  # every voltage 8 times: one waveform of 1,288 symbols
    net = hil.dense([64, 40, 10], bench, gain=1.5, overflow="fold", period=7.04)
    run = hil.train(net, "adfa", hil.load("digits"), epochs=2, batch=32, lr=5e-3, run="runs/visa", report=False, feedback=sine)
print(run)
print(f"{run.summary['device_passes']:,} node evaluations; outputs: {run.summary['outputs']}")

# %% [markdown]
# ## Compare with the model
#
# The bench file believes that V_pi is 3.5 V. The simulated modulator has 3.52 V and some other small differences, as a
# real one would.

# %%
believed = MachZehnder(v_pi_v=3.5).ideal(drive[:, None])[:, 0]
measured, noise = readings.mean(1), readings.std(1).mean()

figure, (above, below) = plt.subplots(2, 1, figsize=(6, 4.6), sharex=True, height_ratios=[2, 1], layout="constrained")
above.plot(drive, 1e3 * measured, ".", ms=4, label="measured over VISA")
above.plot(drive, 1e3 * believed, lw=1, color="black", label="model, V_pi = 3.5 V")
above.set(ylabel="reading (mV)")
above.legend(frameon=False)
below.plot(drive, 1e3 * (measured - believed), ".", ms=4)
below.axhspan(-2e3 * noise / 8**0.5, 2e3 * noise / 8**0.5, color="gray", alpha=0.3, lw=0, label="± 2 σ of the mean of 8")
below.set(xlabel="drive (V)", ylabel="residual (mV)")
below.legend(frameon=False)
figure.savefig("residuals.png", dpi=120)
print(f"rms error {1e3 * (measured - believed).square().mean().sqrt():.2f} mV, noise of a reading {1e3 * noise:.2f} mV")

# %% [markdown]
# The residual is far outside the grey band: the model is not the node. `hil calibrate` fits it; aDFA does not need it, and
# learned through the node as it is.
#
# From a file: `hil train experiments/demo.toml`. More of the bench: [virtual bench](../virtual_bench.md).
