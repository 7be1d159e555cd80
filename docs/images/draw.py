"""Draws the pictures of docs/ that are made of a run: `python docs/images/draw.py` all of them, or those that are named.

    gallery/01.png …           one for each script in examples/, of what it has measured and learned
    notebooks/NAME-PICTURE.png what a notebook saves
    g_over_slope.svg           candidates for g over the derivative of a modulator
    g_and_accuracy.svg         what networks learn with other functions g, against how alike g and the derivative are

Each script runs in an empty folder of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import runpy
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import hil
from hil.feedback.feedback import correlation
from hil.feedback.functions import Fourier, to_table
from sim_devices.mach_zehnder import MachZehnder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LARGEST = 60_000  # bytes of a picture
GAIN_V, PERIOD_V = 1.5, 7.0  # of the figures of g: V for each unit of pre-activation; 2 V_pi of the modulator
FREQUENCY = round(2 * math.pi * GAIN_V / PERIOD_V, 4)
STYLE = {
    "figure.figsize": (5.6, 3.2),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=["#1f5fbf", "#d9730d", "#0f8577", "#7d4cc2"]),
    "grid.color": "#e4e4df",
    "legend.frameon": False,
    "svg.hashsalt": "hil",
}


def ran(script: Path) -> tuple[Mapping[str, Any], str]:
    """The names of a script at its end, and what it printed."""
    said = io.StringIO()
    argv, sys.argv = sys.argv, [script.name]
    try:
        with contextlib.redirect_stdout(said):
            return runpy.run_path(str(script), run_name="__main__"), said.getvalue()
    finally:
        sys.argv = argv


def scores(run: hil.Run, name: str, factor: float = 100.0) -> tuple[list[int], list[float]]:
    """Epochs, and the score of the validation split after each."""
    lines = [line for line in run.records if line["split"] == "validation"]
    return [line["epoch"] for line in lines], [factor * line[name] for line in lines]


def learned(run: hil.Run) -> plt.Figure:
    """The validation accuracy over the epochs."""
    figure, axes = plt.subplots()
    axes.plot(*scores(run, "accuracy"), "o-")
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def numbers(pattern: str, printed: str) -> list[tuple[float, ...]]:
    """The groups of a pattern in what was printed, as numbers."""
    return [tuple(float(part) for part in found.groups()) for found in re.finditer(pattern, printed)]


def bars(names: list[str], values: list[float], label: str) -> plt.Figure:
    """One bar for each name, its value beside it."""
    figure, axes = plt.subplots(figsize=(5.6, 2.2))
    axes.bar_label(axes.barh(names, values, height=0.5), fmt="%.3g", padding=4)
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 1.12 * max(values)))
    axes.grid(axis="y", visible=False)
    return figure


def by_rule(_: Mapping[str, Any], printed: str) -> plt.Figure:
    """The test accuracy of every rule that was printed."""
    rules = [name.replace("_", " ") for name in re.findall(r"^(\w+) +test", printed, re.M)]
    return bars(rules, [value for (value,) in numbers(r"test accuracy ([\d.]+)%", printed)], "test accuracy (%)")


def from_functions(names: Mapping[str, Any], printed: str) -> plt.Figure:
    """Readings of four channels, all channels driven alike."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    drives = np.linspace(-2, 2, 41)
    readings = []
    for volts in drives:
        names["write"](np.full(16, volts))
        readings.append(names["read"]()[:4])
    names["safe"]()
    left.plot(drives, readings)
    left.set(xlabel="drive of all channels (V)", ylabel="readings of four (mA)")
    right.plot(*scores(names["run"], "accuracy"), "o-")
    right.set(xlabel="epoch", ylabel="validation accuracy (%)")
    right.xaxis.get_major_locator().set_params(integer=True)
    return figure


def compared(names: Mapping[str, Any], printed: str) -> plt.Figure:
    """Every run a dot."""
    figure, axes = plt.subplots()
    for place, (learner, values) in enumerate(names["found"].items()):
        axes.plot([place] * len(values), [100 * value for value in values], "o", label=learner)
    axes.set(xlim=(-0.6, len(names["found"]) - 0.4), ylabel="test accuracy (%)")
    axes.set_xticks(range(len(names["found"])), [learner.replace("_", " ") for learner in names["found"]])
    return figure


def searched(names: Mapping[str, Any], printed: str) -> plt.Figure:
    """Every candidate of the search, coloured by its score."""
    points = []
    for folder in Path("runs/06_search").iterdir():
        g = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))["learner"]["feedback"]["g"]
        score = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["validation_accuracy"]
        points.append((g["frequency"], g["phase"], score))
    figure, axes = plt.subplots()
    frequency, phase, score = zip(*points, strict=True)
    drawn = axes.scatter(frequency, phase, c=[100 * one for one in score], s=90, cmap="viridis")
    figure.colorbar(drawn, label="validation accuracy (%)")
    axes.set(xlabel="frequency of g", ylabel="phase of g (rad)")
    return figure


def line(pairs: list[tuple[float, ...]], x: str, y: str) -> plt.Figure:
    """Points with a line."""
    figure, axes = plt.subplots()
    axes.plot(*zip(*pairs, strict=True), "o-")
    axes.set(xlabel=x, ylabel=y, ylim=(0, None))
    return figure


def numbers_learned(names: Mapping[str, Any], printed: str) -> plt.Figure:
    """NRMSE over the epochs."""
    figure, axes = plt.subplots()
    axes.plot(*scores(names["run"], "nrmse", 1.0), "o-")
    axes.set(xlabel="epoch", ylabel="validation NRMSE", ylim=(0, None))
    return figure


GALLERY = {
    "01": from_functions,
    "02": lambda names, printed: names["run"].plot(),
    "03": lambda names, printed: names["figure"],
    "04": lambda names, printed: learned(names["run"]),
    "05": compared,
    "06": searched,
    "07": by_rule,
    "08": lambda names, printed: learned(names["run"]),
    "09": lambda names, printed: line(numbers(r"step +(\d+) +loss ([\d.]+)", printed), "step", "loss"),
    "10": lambda names, printed: line(numbers(r"step +(\d+) +root mean square error ([\d.]+)", printed), "step", "rms error"),
    "11": numbers_learned,
    "12": lambda names, printed: bars(
        ["with the node", "without any node"], [value for (value,) in numbers(r"test NRMSE ([\d.]+)", printed)], "test NRMSE"
    ),
    "13": by_rule,
    "14": lambda names, printed: bars(
        ["loop of 50 virtual nodes", "the same without gain"],
        [value for (value,) in numbers(r"test NRMSE ([\d.]+)", printed)], "test NRMSE",
    ),
}  # fmt: skip


def gallery(number: str) -> None:
    """Run an example, and draw what it gives."""
    (script,) = (ROOT / "examples").glob(f"{number}_*.py")
    names, printed = ran(script)
    figure = GALLERY[number](names, printed)
    keep(figure, HERE / "gallery" / f"{number}.png")


def keep(figure: Any, path: Path) -> None:
    """Save a figure with few colours, and refuse a large one."""
    path.parent.mkdir(exist_ok=True)
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=130)
    small(Image.open(raw), path)


def small(picture: Image.Image, path: Path) -> None:
    """Save a picture with 64 colours."""
    path.parent.mkdir(exist_ok=True)
    picture.convert("RGB").quantize(64).save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"{path}: {path.stat().st_size} bytes, {LARGEST} at most")


def notebook(name: str) -> None:
    """Run a notebook, and keep what it saves."""
    ran(ROOT / "docs" / "tutorials" / "notebooks" / f"{name}.py")
    for made in sorted(Path().glob("*.png")):
        small(Image.open(made), HERE / "notebooks" / f"{name}-{made.name}")


def derivative() -> tuple[torch.Tensor, torch.Tensor]:
    """Pre-activations, and the derivative of the node there over its largest value."""
    a = torch.linspace(-3, 3, 241, requires_grad=True)
    MachZehnder(v_pi_v=PERIOD_V / 2).ideal(GAIN_V * a[:, None]).sum().backward()
    assert a.grad is not None
    return a.detach(), a.grad / a.grad.abs().max()


def sine(phase: float) -> dict[str, Any]:
    """A g of the frequency of the derivative, which has the phase pi / 2."""
    return {"family": "sine", "frequency": FREQUENCY, "phase": phase}


def g_over_slope(_: str) -> None:
    """Candidates for g over the derivative of a modulator, and where pre-activations lie."""
    a, slope = derivative()
    visited = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    figure, axes = plt.subplots(figsize=(7, 3.6))
    axes.fill_between(a, 0.9 * torch.exp(-(a**2) / 2) - 1.2, -1.2, color="#e4e4df", label="how often a pre-activation occurs")
    axes.plot(a, slope, color="black", lw=5, alpha=0.22, label="f', scaled")
    for phase in (math.pi / 2, 0.8, 0.0):
        g = hil.Feedback.from_table({"g": sine(phase)}).g
        alike = abs(correlation(g(visited), torch.cos(FREQUENCY * visited)))
        axes.plot(a, g(a), lw=1.6, label=f"g = sin({FREQUENCY:.2f} a + {phase:.2f}), |corr| = {alike:.2f}")
    axes.set(xlabel="pre-activation a", ylim=(-1.2, 2.2), yticks=[-1, 0, 1])
    axes.legend(fontsize=8.5, loc="upper center", ncols=2)
    save(figure, "g_over_slope")


def g_and_accuracy(_: str) -> None:
    """Two seeds for each g: the accuracy, and the mean of |corr| over the two hidden layers."""
    rng = torch.Generator().manual_seed(1)
    kinds: dict[str, list[dict[str, Any]]] = {
        "sines of other phases": [sine(phase) for phase in (0, 0.2, 0.4, 0.8, 1.2, math.pi / 2, 2.4, math.pi)],
        "random Fourier series": [dict(to_table(Fourier.random(rng, half_period=3.0))) for _ in range(6)],
        "bell (Gaussian)": [{"family": "gaussian"}],
        "constant": [{"family": "constant"}],
    }
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for (name, functions), marker in zip(kinds.items(), "osD^", strict=True):
        found = [with_g(f"{name[:4]}{k}-{seed}", g, seed) for k, g in enumerate(functions) for seed in (0, 1)]
        axes.plot(*zip(*found, strict=True), marker, ms=6, alpha=0.85, label=name)
    frozen = 100 * trained("frozen", 0, "last_layer").summary["validation_accuracy"]
    axes.axhline(frozen, color="#626873", lw=1, ls="--", label="readout alone trained")
    axes.set(xlabel="|corr(g, f')|, mean of the hidden layers", ylabel="validation accuracy (%)", xlim=(-0.03, 1.03))
    axes.legend(fontsize=8.5, loc="lower right")
    save(figure, "g_and_accuracy")


def network(seed: int) -> hil.Network:
    """Return the network of the two figures of g, with weights drawn by `seed`."""
    modulator = MachZehnder(v_pi_v=PERIOD_V / 2)
    return hil.dense([64, 100, 100, 10], modulator, gain=GAIN_V, overflow="fold", period=PERIOD_V, seed=seed)


def trained(folder: str, seed: int, learner: str, net: hil.Network | None = None, **settings: Any) -> hil.Run:
    """Digits, four epochs."""
    return hil.train(
        net or network(seed), learner, hil.load("digits"), epochs=4, batch=32, lr=2e-3, seed=seed, run=folder, show=False,
        report=False, **settings,
    )  # fmt: skip


def with_g(folder: str, g: dict[str, Any], seed: int) -> tuple[float, float]:
    """|corr| over the pre-activations of the trained network, and its accuracy in per cent."""
    net = network(seed)
    run = trained(folder, seed, "adfa", net, feedback={"g": g})
    pre, function = net.forward(hil.load("digits").validation.x).pre[:2], hil.Feedback.from_table({"g": g}).g
    alike = [abs(correlation(function(one), torch.cos(FREQUENCY * one))) for one in pre]
    return sum(alike) / len(alike), 100 * float(run.summary["validation_accuracy"])


def save(figure: Any, name: str) -> None:
    """Save as SVG, the same each time."""
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})


PICTURES = {f"gallery/{number}": (gallery, number) for number in GALLERY}
PICTURES |= {
    f"notebooks/{path.stem}": (notebook, path.stem) for path in sorted((ROOT / "docs/tutorials/notebooks").glob("*.py"))
}
PICTURES |= {"g_over_slope": (g_over_slope, ""), "g_and_accuracy": (g_and_accuracy, "")}


def main(wanted: list[str]) -> None:
    """Draw them."""
    for name in wanted or PICTURES:
        draw, argument = PICTURES[name]
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as folder, plt.rc_context(STYLE):
            os.chdir(folder)
            draw(argument)
            plt.close("all")
            os.chdir(before)
        print(name, file=sys.__stdout__)


if __name__ == "__main__":
    main(sys.argv[1:])
