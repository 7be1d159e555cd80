"""Open a bench and measure the transfer curve of its node. The bench file says which instruments there are: here they are
virtual, served over VISA by a process of their own; with addresses in place of its [virtual] tables they are real.

Prints: who answered, and the swing of the curve; draws it into transfer_curve.png.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

import hil

BENCH = Path(__file__).resolve().parents[1] / "benches" / "mzm_awg_scope.toml"

with hil.open(BENCH) as bench:  # guarded: outputs are off and read back when the block ends, whatever ends it
    for name, line in bench.instruments.items():
        print(f"{name:<7} {line}")
    drive = torch.linspace(bench.spec.inputs.shared_low, bench.spec.inputs.shared_high, 201)  # V
    readings = bench.forward(drive.repeat(8, 1).T)  # (201, 8): every drive 8 times

curve, spread = readings.mean(1), readings.std(1)
print(f"reading from {curve.min():.3f} to {curve.max():.3f} {bench.spec.outputs.unit}, noise {spread.mean():.1e}")

figure = Figure(layout="constrained")
axes = figure.subplots()
axes.errorbar(drive, curve, spread, fmt=".")
axes.set_xlabel(f"drive ({bench.spec.inputs.unit})")
axes.set_ylabel(f"reading ({bench.spec.outputs.unit})")
figure.savefig("transfer_curve.png")
