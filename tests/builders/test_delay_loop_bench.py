"""The bench of a delay loop: the same answers as its twin called directly, however it is aligned; training; what is refused.

The boxes are served from this process; to a trainer they are boxes on a table, at addresses.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.test_auxiliaries import on_the_table

from calibration.loop.sequence import loop
from calibration.sequence import Subject, calibrated
from hil.build.bench import open_bench
from hil.build.node import Node, resilient_node
from hil.build.prepared import prepared
from hil.build.training import built
from hil.config.bench import bench_of, read_bench
from hil.config.experiment import read_experiment
from hil.errors import ConfigError, Jumped
from hil.training.loop import evaluate, train
from sim_devices.bench.served import RunningBench
from sim_devices.delay_loop import DelayLoop

ROOT = Path(__file__).parents[2]
LOOP, STATIC = (ROOT / "benches" / name for name in ("delay_loop_awg_scope.toml", "mzm_awg_scope.toml"))
STEP_V = 1.25 / (1 << 10)  # of the scope
Change = Callable[[dict[str, Any]], None]


def small(align: str = "sync", **node: Any) -> Change:
    """Ten virtual nodes without noise, whose loop forgets fast."""

    def change(table: dict[str, Any]) -> None:
        if align != "sync":
            del table["node"]["sync"]
        table["waveform"]["align"] = align
        table["memory"] = {"nodes": 10, "delay": "1.3 us", "rest": "30 us"}
        told = {"nodes": 10, "delay_s": "1.3 us", "gain": 0.3, "phase": "0.6 rad", **node}
        for twin in (table["twin"], table["virtual"]["node"]):
            twin |= told
        table["virtual"]["node"]["noise"] = 0.0

    return change


def the_loop(**settings: Any) -> DelayLoop:
    return DelayLoop(nodes=10, delay_s=1.3e-6, gain=0.3, phase_rad=0.6, **settings)


def sequences(steps: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(steps, batch, 10, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def on_table(folder: Path, stack: ExitStack, change: Change) -> RunningBench:
    return stack.enter_context(on_the_table(LOOP, folder, change))


@pytest.mark.parametrize("align", ["markers", "trigger", "sync"])
def test_the_bench_answers_as_its_loop_does(align: str, folder: Path, stack: ExitStack) -> None:
    """Noise off: one step of the scope, and of the generator's converter, whichever way records are found."""
    on_table(folder, stack, small(align))
    device = stack.enter_context(open_bench(read_bench(folder / "bench.toml"))).device
    assert device is not None
    assert device.spec.memory
    x = sequences(12)
    for _ in range(2):  # whatever was played before
        assert (device.forward(x) - the_loop().ideal(x)).abs().max() < 2 * STEP_V


def test_a_loop_with_a_lowpass_is_simulated_in_its_own_points(folder: Path, stack: ExitStack) -> None:
    """The scope reads once a node, the loop is as fine as its twin: neighbours couple, and the phase of the sample matters.

    The marker comes later by the pole, and so does the sample: at 0.4 of a symbol behind it, 0.8 behind the node's beginning.
    """
    node = {"samples": 10, "lowpass_hz": 3e6}

    def change(table: dict[str, Any]) -> None:
        small("trigger", **node)(table)
        table["waveform"] |= {"sample_phase": 0.4, "settle": 0.0}

    on_table(folder, stack, change)
    device = stack.enter_context(open_bench(read_bench(folder / "bench.toml"))).device
    assert device is not None
    x = sequences(12)
    answer = device.forward(x)
    assert (answer - the_loop(**node, sample_phase=0.8).ideal(x)).abs().max() < 2 * STEP_V
    assert (answer - the_loop(**node, sample_phase=0.7).ideal(x)).abs().max() > 20 * STEP_V


def test_over_the_bench_the_pole_is_seen_and_the_check_is_of_sequences(folder: Path, stack: ExitStack) -> None:
    on_table(folder, stack, small("trigger", samples=5, lowpass_hz=3e6))
    opened = stack.enter_context(open_bench(read_bench(folder / "bench.toml")))
    device = opened.device
    assert device is not None
    found = {step.name: step for step in calibrated(loop()[:3], Subject(device, the_loop(), seed=1))}
    assert found["delay"].estimates["bandwidth_hz"].value == pytest.approx(3e6, rel=0.05)
    assert 12.4e-9 < found["delay"].estimates["delay_s"].value < 30e-9  # a tenth of the way of a slow pole
    assert found["loop"].estimates["loop_delay"].value == pytest.approx(1.3e-6, rel=0.1)


def test_a_shot_is_repeated_after_a_fault(folder: Path, stack: ExitStack) -> None:
    running = on_table(folder, stack, small())
    opened = stack.enter_context(open_bench(read_bench(folder / "bench.toml")))
    seen: list[str] = []
    node = Node(opened.device, None, None, {}, {}, opened.patience)
    device = resilient_node(node, lambda kind, **facts: seen.append(kind)).source
    assert device is not None
    running.faults.add({"box": "scope", "kind": "missed_trigger", "times": 1})
    x = sequences(6)
    assert (device.forward(x) - the_loop().ideal(x)).abs().max() < 2 * STEP_V
    assert seen == ["recovering", "recovery"]
    assert device.recovered == 1  # type: ignore[attr-defined]


def test_a_readout_is_trained_through_the_bench(folder: Path, stack: ExitStack) -> None:
    """NARMA5 by ten nodes: the score is that of the loop called directly."""
    on_table(folder, stack, small())
    table = """
[data]
use = "narma5"
number = 3
steps = 300
window = 1
sequence = true
[data.split]
validation = 0.34
test = 0.33
[task]
washout = 50
[network]
use = "masks"
widths = [1, 10, 1]
[device]
{device}
[encode]
gain = "0.5 V"
[learner]
use = "reservoir"
"""
    (folder / "loop.toml").write_text(table.format(device='bench = "bench.toml"'), encoding="utf-8")
    twin = 'use = "delay_loop"\nnodes = 10\ndelay_s = "1.3 us"\ngain = 0.3\nphase = "0.6 rad"\nnoise = 5e-4'
    (folder / "twin.toml").write_text(table.format(device=twin), encoding="utf-8")
    scores = []
    for name in ("loop.toml", "twin.toml"):
        with built(read_experiment(folder / name)) as made:
            training = made.training
            for _ in train(training):
                pass
            found = evaluate(training.net, training.learner, training.data.test, task=training.task)
            scores.append(found[0]["nrmse"])
    assert scores[0] < 0.9
    assert scores[0] == pytest.approx(scores[1], rel=0.1)


def test_the_masks_of_a_deep_reservoir_get_the_direction_that_its_loop_gives(folder: Path, stack: ExitStack) -> None:
    """Two layers through one loop: both shots of a batch are one record each, and the directions those of the loop itself."""
    on_table(folder, stack, small())
    table = """
[data]
use = "digits"
[network]
use = "masks"
widths = [64, 10, 10, 10]
gain = 0.15
[device]
{device}
[encode]
gain = "0.4 V"
overflow = "clip"
[decode]
zero = "0.5 V"
scale = "0.75 V"
[learner]
use = "deep_reservoir"
hold = 2
"""
    twin = 'use = "delay_loop"\nnodes = 10\ndelay_s = "1.3 us"\ngain = 0.3\nphase = "0.6 rad"\nlow = "-1 V"\nhigh = "1 V"'
    directions = []
    for device in ('bench = "bench.toml"', twin):
        (folder / "deep.toml").write_text(table.format(device=device), encoding="utf-8")
        training = stack.enter_context(built(read_experiment(folder / "deep.toml"))).training
        x, y = (part[:40] for part in (training.data.train.x, training.data.train.y))
        training.learner.step(training.net, x, y, torch.Generator())
        directions.append([param.grad.clone() for param in training.net.parameters() if param.grad is not None])
    assert len(directions[0]) == 6
    for seen, told in zip(*directions, strict=True):
        assert (seen - told).norm() < 0.02 * told.norm()


def test_learners_and_benches_that_do_not_fit_are_refused_before_anything_is_opened(folder: Path) -> None:
    text = (
        (ROOT / "experiments" / "narma10_bench.toml").read_text(encoding="utf-8").replace('"../benches/', f'"{ROOT}/benches/')
    )
    for change, said in (
        (('use = "reservoir"', 'use = "adfa"'), "state in time"),
        (("delay_loop_awg_scope", "mzm_awg_scope"), "no memory"),
        (("[learner]", "[sentinel]\nevery = 10\n[learner]"), "without a state in time"),
    ):
        (folder / "e.toml").write_text(text.replace(*change), encoding="utf-8")
        with pytest.raises(ConfigError, match=said) as refused:
            prepared(read_experiment(folder / "e.toml"))
        assert "untouched" in refused.value.outputs


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (LOOP, lambda t: t["node"].pop("sync"), "go together"),
        (LOOP, lambda t: t["waveform"].update(align="trigger"), "go together"),
        (LOOP, lambda t: t["node"].update(sync="scope"), "go together"),
        (LOOP, lambda t: t["node"].update(sync="awg.9x"), "no channel"),
        (LOOP, lambda t: t["node"].update(read=["scope.1", "scope.2"]), "one drive and one reading"),
        (LOOP, lambda t: t.pop("memory"), "does not say so"),
        (LOOP, lambda t: t["memory"].update(nodes=20), "another number of virtual nodes"),
        (LOOP, lambda t: t["memory"].update(rest="1 us"), "shorter than the loop"),
        (LOOP, lambda t: t["memory"].pop("rest"), "rest"),
        (STATIC, lambda t: t.update(memory={"nodes": 4, "rest": "1 us"}), "does not remember"),
    ],
)
def test_what_makes_no_sense_in_a_bench_file_is_refused(path: Path, change: Change, said: str) -> None:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    change(table)
    with pytest.raises(ConfigError, match=said):
        bench_of(table, path)


def test_a_static_bench_may_do_without_markers(folder: Path, stack: ExitStack) -> None:
    """Its mode hops are then seen when the delay is measured again."""

    def change(table: dict[str, Any]) -> None:
        table["waveform"] |= {"align": "trigger", "remeasure": 0.0}
        table["virtual"]["node"]["noise"] = 0.0

    running = stack.enter_context(on_the_table(STATIC, folder, change))
    device = stack.enter_context(open_bench(read_bench(folder / "bench.toml"))).device
    assert device is not None
    x = torch.linspace(-3, 3, 50)[:, None]
    before = device.forward(x)
    assert (device.forward(x) - before).abs().max() < 2 * 0.5 / (1 << 10)
    running.plant.set("node.laser_w", 4e-4)
    with pytest.raises(Jumped, match="otherwise than a moment ago"):
        device.forward(x)
