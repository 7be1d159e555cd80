"""Benches of several generators and scope channels, from their files: order of the outputs, training, faults, refusals.

The boxes are served from this process; to a trainer they are boxes on a table, at addresses.
"""

from __future__ import annotations

import json
import os
import signal
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.test_auxiliaries import on_the_table
from small import Command, until
from torch import Tensor

from hil.build.bench import open_bench
from hil.build.calibration import settings_of
from hil.build.shapes.waveform import description
from hil.build.training import built
from hil.commands.calibrate import sequence
from hil.config.bench import bench_of, read_bench
from hil.config.experiment import read_experiment
from hil.errors import ConfigError, Misaligned, OutOfRange
from hil.training.loop import train
from sim_devices.bench.served import RunningBench
from sim_devices.instruments.faults import Fault
from sim_devices.iq_modulator import IqModulator
from sim_devices.mach_zehnder import MachZehnder

ROOT = Path(__file__).parents[2]
IQ = ROOT / "benches" / "iq_bias_laser.toml"
BOXES = {"E36312A": "bias", "N7776C": "laser", "33622A SIM-33622-0001": "awg.{channel}", "33622A SECOND": "awg2.{channel}"}
STARTED = [("bias", True), ("laser", True), ("awg.1", True), ("awg.2", True)]
ENDED = [("laser", False), ("awg.1", False), ("awg.2", False), ("bias", False)]
STEP_V = 0.5 / (1 << 10)  # of the scope
EXPERIMENT = """
[data]
train_examples = 48
[network]
widths = [64, 8, 10]
[device]
bench = "bench.toml"
[encode]
gain = ["1.5 V", "1 V"]
overflow = "clip"
[decode]
zero = "100 mV"
scale = "100 mV"
[learner]
use = "adfa"
[train]
epochs = {epochs}
batch = 16
threads = 1
checkpoint_every = 1
"""


def switched(log: Path) -> list[tuple[str, bool]]:
    """Which outputs went on and off, oldest first, as the bench itself wrote down."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = [(name, line) for line in lines for box, name in BOXES.items() if line.get("box", "").startswith(box)]
    return [(name.format(**line), line["on"]) for name, line in found]


def quiet(table: dict[str, Any]) -> None:
    """No noise."""
    table["virtual"]["node"]["noise"] = 0.0


def two_generators(table: dict[str, Any]) -> None:
    """One channel of each of two generators; the second begins 131 ns later. The laser is not in the light's way."""
    quiet(table)
    first = table["instruments"]["awg"]
    del first["channels"]
    first |= {"low": "-3 V", "high": "3 V"}
    table["instruments"]["awg2"] = {**first, "channel": 2, "low": "-2 V", "high": "2 V"}
    table["virtual"]["awg2"] = {**table["virtual"]["awg"], "serial": "SECOND"}
    table["node"] = {"drive": ["awg", "awg2"], "read": "scope"}
    table["safe"]["order"] = ["laser", "awg2", "awg", "bias"]
    table["waveform"] = {"symbol_rate": "25 MHz", "samples_per_symbol": 4}
    table["virtual"]["cable"] = {"delay": ["12.4 ns", "143 ns"]}


@contextmanager
def opened(running: RunningBench, folder: Path) -> Iterator[Any]:
    """The device of the bench file there."""
    with open_bench(read_bench(folder / "bench.toml")) as bench:
        yield bench.device
    running.faults.heal()


def drives(rows: int, device: Any, seed: int = 0) -> Tensor:
    port = device.spec.inputs
    return port.within(torch.rand(rows, port.size, generator=torch.Generator().manual_seed(seed)))


def test_bias_laser_generator_and_two_scope_channels_go_on_and_off_in_order(folder: Path, stack: ExitStack) -> None:
    """Start, a normal end, a recovery and a Ctrl-C; in between both drives and both readings are where they belong."""
    running = stack.enter_context(on_the_table(IQ, folder, quiet))
    with opened(running, folder) as device:
        assert device.spec.inputs.low == (-3.0, -2.0)
        x = drives(300, device)
        truth = IqModulator(noise=0.0).ideal(x)
        assert (device.forward(x) - truth).abs().max() < 2 * STEP_V
        with pytest.raises(OutOfRange, match=r"channel 2\b.*2\.5 V"):
            device.forward(torch.tensor([[2.5, 2.5]]))
    log = folder / "bench.log"
    assert switched(log) == STARTED + ENDED
    with pytest.raises(KeyboardInterrupt), opened(running, folder) as device:  # noqa: PT012
        device.reinstate()
        assert "delay 1" in device.verify()
        os.kill(os.getpid(), signal.SIGINT)
    assert switched(log) == (STARTED + ENDED) * 3
    reached: Any = running.plant.extremes()["33622A SIM-33622-0001"]
    assert (reached["1"]["high_v"], reached["2"]["high_v"]) == (pytest.approx(3.0, abs=0.01), pytest.approx(2.0, abs=0.01))


def test_after_a_sigkill_in_training_the_guardian_keeps_the_order_and_the_run_goes_on(folder: Path, stack: ExitStack) -> None:
    stack.enter_context(on_the_table(IQ, folder))
    (folder / "e.toml").write_text(EXPERIMENT.format(epochs=500), encoding="utf-8")
    log, metrics = folder / "bench.log", folder / "r" / "metrics.jsonl"
    command = Command("train", folder / "e.toml", "--run", folder / "r")
    assert until(lambda: (metrics.exists() and metrics.stat().st_size > 0) or command.poll() is not None), command.said()
    command.kill()
    assert until(lambda: len(switched(log)) == 8), command.said()
    assert switched(log) == STARTED + ENDED
    resumed = Command("resume", folder / "r")
    assert until(lambda: len(switched(log)) == 12 or resumed.poll() is not None), resumed.said()
    resumed.send(signal.SIGINT)
    assert resumed.ended() == 130, resumed.said()
    assert switched(log) == (STARTED + ENDED) * 2


def test_a_network_trains_records_and_is_replayed(folder: Path, stack: ExitStack) -> None:
    """A hidden layer of 8 neurons is 4 symbols of 2 drives."""
    stack.enter_context(on_the_table(IQ, folder))
    (folder / "e.toml").write_text(EXPERIMENT.format(epochs=1), encoding="utf-8")
    command = Command("train", folder / "e.toml", "--run", folder / "r", "--record")
    assert command.ended() == 0, command.said()
    summary = json.loads((folder / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["provenance"] == "twin"
    assert summary["device_passes"] % 8 == 0
    again = Command("replay", folder / "r")
    assert again.ended() == 0, again.said()
    assert "identical" in again.said()
    assert switched(folder / "bench.log") == STARTED + ENDED


def test_two_generators_begin_with_one_trigger(folder: Path, stack: ExitStack) -> None:
    running = stack.enter_context(on_the_table(IQ, folder, two_generators))
    log = folder / "bench.log"
    with opened(running, folder) as device:
        x = drives(200, device)
        truth = IqModulator(noise=0.0).ideal(x)
        assert (device.forward(x) - truth).abs().max() < 2 * STEP_V
        assert [name for name, on in switched(log) if on] == ["bias", "laser", "awg.1", "awg2.2"]

        running.plant.set("cable.delay2_s", 178e-9)  # type: ignore[attr-defined]  # it begins nearly a symbol later now
        with pytest.raises(Misaligned, match="the drives do not arrive together as they did"):
            device.forward(x)
        device.reinstate()
        assert "delay 17" in device.verify()
        assert (device.forward(x) - truth).abs().max() < 2 * STEP_V

        running.boxes["awg2"].execute(b":TRIG2:SOUR BUS")  # it waits for another trigger now
        with pytest.raises(Exception, match="trigger source EXT -> BUS"):
            device.forward(x)
        device.reinstate()
        running.boxes["awg2"].reboot()
        with pytest.raises(Exception, match=r"off and on|did not|marker"):
            device.verify()
        device.reinstate()
        device.verify()
        assert (device.forward(x) - truth).abs().max() < 2 * STEP_V
    assert [name for name, on in switched(log)[-4:]] == ["laser", "awg2.2", "awg.1", "bias"]
    assert not any(on for _, on in switched(log)[-4:])


def trained(folder: Path) -> Tensor:
    """All weights after three steps on the bench of bench.toml."""
    with built(read_experiment(folder / "e.toml")) as made:
        assert len(list(islice(train(made.training), 3))) == 3
        assert made.node.source is not None
        return torch.cat([param.detach().flatten() for param in made.training.net.parameters()])


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ("awg2", Fault("reboot", "DATA:ARB", after=4, seconds=0.2)),
        ("scope", Fault("truncate", ":WAV:DATA", after=5)),
        ("scope", Fault("missed_trigger", after=9)),
    ],
    ids=lambda value: getattr(value, "kind", value),
)  # fmt: skip
def test_a_fault_of_one_instrument_leaves_no_trace(folder: Path, stack: ExitStack, box: str, fault: Fault) -> None:
    """Of the second generator, or of the scope: recovered in a training, whose weights are those of one without it."""
    running = stack.enter_context(on_the_table(IQ, folder, two_generators))
    (folder / "e.toml").write_text(EXPERIMENT.format(epochs=9), encoding="utf-8")
    untouched = trained(folder)
    running.plant.restore({**running.plant.snapshot(), "shot": 0})
    running.faults.of[box].add(fault)
    found = trained(folder)
    assert running.faults.log
    assert torch.equal(found, untouched)


def test_nodes_side_by_side_have_a_drive_and_a_reading_each(folder: Path, stack: ExitStack) -> None:
    """Their delays differ by more than a symbol, and nothing depends on that."""

    def modulators(table: dict[str, Any]) -> None:
        table["virtual"] |= {"node": {"use": "mach_zehnder", "noise": 0.0}, "cable": {"delay": ["12.4 ns", "52.4 ns"]}}
        table["node"] = {"drive": ["awg.2", "awg.1"], "read": ["scope.1", "scope.2"]}
        table["instruments"]["scope"] |= {"range": "0.5 V", "offset": "0.18 V"}

    running = stack.enter_context(on_the_table(IQ, folder, modulators))
    with opened(running, folder) as device:
        x = drives(200, device)
        assert device.spec.inputs.high == (2.0, 3.0)
        assert (device.forward(x) - MachZehnder(noise=0.0).ideal(x)).abs().max() < 2 * STEP_V
        assert device.submit(x).result().shape == (200, 2)


def test_two_readings_that_come_apart(folder: Path, stack: ExitStack) -> None:
    """The second comes 23 ns after the first, more than a symbol; at 31 ns no sample is settled in both."""

    def later(table: dict[str, Any], delay: str = "23 ns") -> None:
        quiet(table)
        table["virtual"]["cable"]["read_delay"] = ["0 ns", delay]

    with (
        on_the_table(IQ, folder, lambda table: later(table, "31 ns")) as running,
        pytest.raises(ConfigError, match=r"reading 2, .*no sample of a symbol is left"),
        opened(running, folder),
    ):
        raise AssertionError("it must not be opened")
    running = stack.enter_context(on_the_table(IQ, folder, later))
    with opened(running, folder) as device:
        x = drives(100, device)
        assert (device.forward(x) - IqModulator(noise=0.0).ideal(x)).abs().max() < 2 * STEP_V
        running.plant.set("node.laser_w", 0.5e-3)  # type: ignore[attr-defined]
        with pytest.raises(Exception, match=r"reading [12], scope channels 1, 2, drive [12]: the node answers otherwise"):
            device.forward(x)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("node.drive", ["awg.1", "awg.3"], "does not use this channel"),
        ("node.drive", ["awg.1"], "nobody drives channel 2"),
        ("node.read", ["scope.1", "scope.1"], "one twice"),
        ("waveform.width", 8, "a row is one symbol"),
    ],
)  # fmt: skip
def test_channels_that_do_not_fit_switch_no_generator_on(
    path: str, value: object, said: str, folder: Path, stack: ExitStack
) -> None:
    running = stack.enter_context(on_the_table(IQ, folder))
    table = tomllib.loads((folder / "bench.toml").read_text(encoding="utf-8"))
    table[path.partition(".")[0]][path.partition(".")[2]] = value
    with pytest.raises(ConfigError, match=said), open_bench(bench_of(table, folder / "bench.toml")):
        raise AssertionError("it must not be opened")
    assert not [entry for entry in running.log.entries if entry.box.startswith("33622A")]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("node.drive", ["awg.one"], "no channel of an instrument"),
        ("node.read", ["scop"], "no such instrument"),
        ("virtual.node.use", "mach_zehnder", ""),
        ("virtual.node.use", "sim_devices.mzi_mesh:MZIMesh", "other inputs or outputs"),
        ("virtual.cable.delay", ["1 ns", "1 ns", "1 ns"], "a delay for each channel"),
    ],
)
def test_what_the_file_says_wrong_of_channels(path: str, value: object, said: str) -> None:
    table: Any = tomllib.loads(IQ.read_text(encoding="utf-8"))
    *way, last = path.split(".")
    at = table
    for key in way:
        at = at[key]
    at[last] = value
    if not said:
        assert len(description(bench_of(table, Path("test.toml"))).wires) == 2
        return
    with pytest.raises(ConfigError, match=said):
        description(bench_of(table, Path("test.toml")))


def test_the_procedures_for_one_channel_are_not_used_for_several() -> None:
    bench = read_bench(IQ)
    assert settings_of(bench)["node"] == {"drive": ["awg.1", "awg.2"], "read": ["scope.1", "scope.2"]}
    assert "node" not in settings_of(read_bench(ROOT / "benches" / "mzm_bias_laser.toml"))
    with pytest.raises(ConfigError, match="nothing is known about calibrating this waveform bench"):
        sequence(bench)
