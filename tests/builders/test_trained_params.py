"""[params]: what is programmed on a device is trained with the host's weights, counted, kept, resumed, replayed; or refused."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from acts import killed
from builders.test_auxiliaries import on_the_table
from killing.same import differences
from torch import Tensor

import hil
from hil import cli
from hil.build.prepared import prepared
from hil.build.training import Built, built
from hil.config.experiment import Experiment, read_experiment
from hil.encoding import Encode, Levels
from hil.errors import ConfigError
from hil.learner import Learner
from hil.learners.genetic import Genetic
from hil.learners.parts.one_pass import LossSettings
from hil.learners.pat import PAT
from hil.learners.spsa import SPSA, SPSASettings
from hil.network import Layer, Network
from hil.run import checkpoint
from hil.synapses import AnswerLinear
from hil.training.loop import TrainingStep, train
from sim_devices.dopant_network import DopantNetwork
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.simulated import Simulated

BENCH = Path(__file__).parents[2] / "benches" / "dopant_network.toml"
CONTROLS = {**dict.fromkeys(("e1", "e2", "e5"), (-1.2, 0.6)), **dict.fromkeys(("e6", "e7"), (-0.7, 0.3))}
DOPANTS = 'use = "dopant_network"\nspecimen = 1\n'
ENCODE = '[encode]\ngain = "400 mV"\noffset = "-300 mV"\noverflow = "clip"\n[decode]\nzero = "0 nA"\nscale = "10 nA"\n'
TRAIN = "[train]\nepochs = 2\nbatch = 16\nthreads = 1\n"
POINTS = """import numpy as np

def points():
    x = np.random.default_rng(0).uniform(-1, 1, (80, 2)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)
"""


def written(
    folder: Path, learner: str = '"pat"', params: str = 'start = "uniform"\nlr = 0.05\n', device: str = DOPANTS,
    train: str = TRAIN, widths: str = "[2, 2, 2]", more: str = "", encode: str = ENCODE,
) -> Path:  # fmt: skip
    (folder / "points.py").write_text(POINTS, encoding="utf-8")
    text = (
        f'seed = 3\n[data]\nuse = "points:points"\n[network]\nwidths = {widths}\nanswers = 1\n[device]\n{device}{encode}'
        f"[params]\n{params}[learner]\nuse = {learner}\n{more}{train}"
    )
    (folder / "e.toml").write_text(text, encoding="utf-8")
    return folder / "e.toml"


def read(folder: Path, **changes: Any) -> Experiment:
    return read_experiment(written(folder, **changes))


def steps(made: Built) -> list[TrainingStep]:
    return [point for point in train(made.training) if isinstance(point, TrainingStep)]


EACH = '"spsa"\nperturbation = "each"'
ORTHOGONAL = '"spsa"\nperturbation = "orthogonal"\ndirections = 2'


@pytest.mark.parametrize("learner", ['"pat"', '"spsa"', '"pepg"', EACH, ORTHOGONAL], ids=lambda one: one.replace("\n", ", "))
def test_host_and_device_are_trained_together(tmp_path: Path, learner: str) -> None:
    with built(read(tmp_path, learner=learner)) as made:
        net, (device,) = made.training.net, made.training.devices
        before = {name: value.clone() for name, value in net.state_dict().items()}
        assert before["layers.0.params"].shape == (5,)
        assert device.programmed is not None  # before anything is measured
        steps(made)
        moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == set(before)
        layer = net.stack[0]
        assert layer.params is not None
        assert layer.levels is not None
        assert float(layer.params.detach().abs().max()) <= 1
        port = device.spec.params
        assert port is not None
        port.check(torch.tensor(device.programmed))
        groups = made.training.optimizer.param_groups
        assert [(len(group["params"]), group["lr"]) for group in groups] == [(4, 1e-3), (1, 0.05)]


def test_pat_programs_once_a_step_and_spsa_at_each_pass(tmp_path: Path) -> None:
    counts = {}
    for learner in ('"pat"', '"spsa"'):
        with built(read(tmp_path, learner=learner)) as made:
            first = made.training.device_programs
            found = steps(made)
            counts[learner] = (len(found), made.training.device_programs - first, made.training.devices[0].count.calls)
    many, programs, calls = counts['"pat"']
    assert programs == many  # also an epoch's validation, which comes before the next step
    assert calls == many + 2
    many, programs, _ = counts['"spsa"']
    assert programs == 2 * many + 2


def test_a_budget_of_writes_ends_the_training(tmp_path: Path) -> None:
    with built(read(tmp_path, train=TRAIN + "budget_writes = 22\n")) as made:
        assert len(steps(made)) == 4  # five at the beginning, and five a step but the first, whose are those
        assert made.training.device_writes in range(22, 26)


def test_levels_are_those_of_the_converter_and_of_the_narrower_range(tmp_path: Path) -> None:
    params = 'start = "uniform"\nlr = 0.05\nbits = 3\nhigh = ["0 V", "600 mV", "600 mV", "300 mV", "300 mV"]\n'
    with built(read(tmp_path, params=params)) as made:
        steps(made)
        (device,) = made.training.devices
        assert device.programmed is not None
        low, high = (-1.2, -1.2, -1.2, -0.7, -0.7), (0.0, 0.6, 0.6, 0.3, 0.3)
        for at, lo, hi in zip(device.programmed, low, high, strict=True):
            share = (at - lo) / (hi - lo) * 7
            assert share == pytest.approx(round(share), abs=1e-4)
    with pytest.raises(ConfigError, match="narrowed") as caught, built(read(tmp_path, params='high = "700 mV"\n')):
        pass
    assert "[params]" in caught.value.where
    assert caught.value.todo == "correct low, high and slew"


def test_a_rate_of_the_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 V/s, so 50 mV a step of 10 ms."""
    slept: list[float] = []
    monkeypatch.setattr("hil.devices.programming.Programming._pace", lambda self: slept.append(self._step_s))
    with built(read(tmp_path, params='start = "uniform"\nslew = "5 V/s"\n', train=TRAIN)) as made:
        levels = made.training.net.stack[0].levels
        assert levels is not None
        assert levels.slew_per_s == 5.0
        (device,) = made.training.devices
        assert device.programmed is not None
        assert len(slept) == math.ceil(max(map(abs, device.programmed)) / 0.05)
        assert set(slept) == {0.01}
    with pytest.raises(ConfigError, match="slew") as caught, built(read(tmp_path, params='slew = "-5 V/s"\n')):
        pass
    assert "[params]" in str(caught.value)


def test_two_layers_on_one_device_are_programmed_in_turn(tmp_path: Path) -> None:
    with built(read(tmp_path, widths="[2, 2, 2, 2]")) as made:
        net = made.training.net
        assert [name for name in net.state_dict() if name.endswith("params")] == ["layers.0.params", "layers.1.params"]
        found = steps(made)
        assert made.training.device_programs >= 2 * len(found)


def gradients(rule: Learner, net: Network, x: Tensor, label: Tensor) -> list[Tensor]:
    rule.step(net, x, label, torch.Generator().manual_seed(0))
    return [one.grad.clone() for one in net.parameters() if one.grad is not None]


def test_pat_has_the_gradient_of_the_twin_at_what_was_measured() -> None:
    twin = DopantNetwork(specimen=1, noise=0.0)
    port = twin.spec.params
    assert port is not None
    torch.manual_seed(0)
    params = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.1, 0.5, -0.4]))
    encode, decode = Encode.onto(twin.spec.inputs, 0.4, -0.3, "clip"), hil.Decode(0.0, 1e-8)
    net = Network(
        [
            Layer(torch.nn.Linear(2, 2), Simulated(twin), encode, decode, params, Levels.onto(port)),
            Layer(torch.nn.Linear(1, 2)),
        ]
    )
    x, label = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    rng = torch.Generator().manual_seed(0)
    exact = gradients(PAT.build(net, LossSettings(), 2, rng, twin.settled), net, x, label)
    found = gradients(SPSA.build(net, SPSASettings("each", size=1e-3), 2, rng), net, x, label)
    assert len(found) == len(exact) == 5
    for one, other in zip(found, exact, strict=True):
        assert torch.allclose(one, other, rtol=2e-2, atol=2e-3 * float(exact[0].abs().max()))
    first, last = net.stack
    whole = torch.nn.functional.cross_entropy(last.synapse(first.through(twin.settled, first.synapse(x))), label)
    (grad,) = torch.autograd.grad(whole, params)
    assert torch.allclose(grad, exact[0], rtol=1e-4, atol=1e-6)


def test_heaters_of_a_mesh_are_trained_by_pat(tmp_path: Path) -> None:
    device = 'use = "mzi_mesh"\nmodes = 2\n'
    encode = '[encode]\ngain = 0.3\noverflow = "clip"\n[decode]\nzero = "20 uW"\nscale = "20 uW"\n'
    path = written(tmp_path, device=device, encode=encode, widths="[2, 4, 2]")
    path.write_text(path.read_text(encoding="utf-8").replace("answers = 1", "answers = 2"), encoding="utf-8")
    with built(read_experiment(path)) as made:
        first = made.training.net.state_dict()["layers.0.params"].clone()
        steps(made)
        assert not torch.equal(made.training.net.state_dict()["layers.0.params"], first)
        assert isinstance(made.node.twin, MZIMesh)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learner": '"adfa"'}, "does not train what is programmed"),
        ({"learner": '"backprop"'}, "pat"),
        ({"device": 'use = "mach_zehnder"\n'}, "nothing can be programmed"),
        ({"device": DOPANTS + 'instead = "wire"\n'}, "nothing is programmed on a wire"),
        ({"more": "[sentinel]\nevery = 5\n"}, "sentinel"),
        ({"params": "size = 4\n"}, "another number of parameters"),
        ({"params": "start = [0.0, 0.1]\n"}, "one number for each parameter"),
        ({"params": "start = 1.5\n"}, "start"),
        ({"learner": '"spsa"', "params": "bits = 5\n"}, "less than half a step"),
        ({"params": "sise = 4\n"}, "size"),
    ],
)
def test_a_wrong_combination_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr("hil.build.training.opened_node", opened)
    with pytest.raises(ConfigError, match=said) as caught, built(read(tmp_path, **changes)):
        pass
    assert "untouched" in str(caught.value)


def test_what_stays_is_programmed_once_and_any_learner_trains_around_it(tmp_path: Path) -> None:
    for learner in ('"adfa"', '"spsa"'):
        with built(read(tmp_path, learner=learner, params='start = "uniform"\nlr = 0\n')) as made:
            first = {name: value.clone() for name, value in made.training.net.state_dict().items()}
            steps(made)
            now = made.training.net.state_dict()
            assert [name for name in now if torch.equal(now[name], first[name])] == ["layers.0.params"]
            assert made.training.device_programs == 1
            assert sum(len(group["params"]) for group in made.training.optimizer.param_groups) == 4


def test_a_rule_that_says_how_far_it_moves_takes_no_rate_but_that_of_what_stays(tmp_path: Path) -> None:
    whole = "[optimizer]\nuse = 'SGD'\nlr = 1.0\n"
    with pytest.raises(ConfigError, match="genetic says itself how far") as caught:
        prepared(read(tmp_path, learner='"genetic"', more=whole))
    assert "lr out of [params]" in caught.value.todo
    assert prepared(read(tmp_path, learner='"genetic"', params="lr = 0\n", more=whole)).chain.params
    with built(read(tmp_path, learner='"genetic"', params="bits = 8\n", more=whole)) as made:
        assert isinstance(made.training.learner, Genetic)
        assert made.training.learner.reach.tolist().count(1.0) == 5  # what is programmed, whatever the reach of the weights


def test_a_device_that_cannot_be_read_back_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read back") as caught, built(read(tmp_path, params="tolerance = 0.01\n")):
        pass
    assert "[params]" in caught.value.where
    assert caught.value.todo == "remove tolerance"
    with pytest.raises(ConfigError, match="up"):
        read(tmp_path, device=WRITES + 'base = { speciment = 1 }\nup = "1 V"\n')
    with pytest.raises(ConfigError, match="specimen"):
        read(tmp_path, device=WRITES + "base = { speciment = 1 }\n")


def test_a_bench_that_programs_nothing_and_several_devices_are_told_where_it_belongs(tmp_path: Path) -> None:
    path = written(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[device]", "[[device]]"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\[device.params\]"), built(read_experiment(path)):
        pass
    path.write_text(text.replace("[params]", "[device.params]"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"write it as \[params\]"):
        read_experiment(path)
    levels = Path(__file__).parents[2] / "benches" / "mesh_levels.toml"
    path.write_text(text.replace(DOPANTS, f'bench = "{levels}"\n'), encoding="utf-8")
    with pytest.raises(ConfigError, match="nothing is programmed on this bench"), built(read_experiment(path)):
        pass


def test_a_device_a_layer_is_programmed_where_it_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, learner='"spsa"', widths="[2, 2, 2, 2]")
    text = path.read_text(encoding="utf-8")
    device, params, rest = "[[device]]\n" + DOPANTS, 'start = "uniform"\nlr = 0.05\n', text[text.index("[learner]") :]
    begin = text[: text.index("[device]")]
    path.write_text(f"{begin}{device}[device.params]\n{params}{device}{ENCODE}{rest}", encoding="utf-8")
    with built(read_experiment(path)) as made:
        steps(made)
        assert [device.count.programs > 0 for device in made.training.devices] == [True, False]
        assert "layers.1.params" not in made.training.net.state_dict()


STEPS = 'max_step = "100 mV"\ndrift_v_per_rt = 1e-4\n'
WRITES = 'use = "written"\nof = "sim_devices.dopant_network:DopantNetwork"\nnoise = 0.05\nread_noise = 0.005\ndrift = 0.02\n'
VERIFIED = f"{WRITES}base = {{ specimen = 1, max_step_v = 0.1 }}\n"


@pytest.mark.parametrize(("learner", "device"), [('"pat"', VERIFIED), ('"pat"', DOPANTS + STEPS)], ids=["verified", "as it is"])
def test_killed_while_it_is_trained_it_resumes_with_the_same_bits_and_replays(
    tmp_path: Path, learner: str, device: str
) -> None:
    """By PAT; by SPSA at every kind of act of a run: tests/run/test_kill.py."""
    more, verified = TRAIN + "checkpoint_every = 2\nrecord = true\nbudget_writes = 99_999\n", device is VERIFIED
    params = 'start = "uniform"\nlr = 0.05\n' + "tolerance = 0.02\ntries = 3\n" * verified
    experiment = written(tmp_path, learner, params, train=more, device=device)
    whole, run, acts = tmp_path / "whole", tmp_path / "r", tmp_path / "acts"
    assert cli.run(["train", str(experiment), "--run", str(whole)]) == 0
    assert killed(acts, ("half of a write journal.jsonl", 5), "train", experiment, "--run", run) == -9
    point = checkpoint.load(checkpoint.latest(run / "checkpoints"))
    held = point.facts["devices"][0]["programmed"]
    assert len(held) == 5
    assert killed(acts, ("half of a write journal.jsonl", 8), "resume", run) == -9
    killed(acts, None, "resume", run)
    assert list(differences(whole, run)) == []
    one, other = (json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in (whole, run))
    counted = ("device_reads", "device_tries", "device_missed") if verified else ()
    for key in ("device_programs", "device_writes", "programmed", *counted):
        assert one[key] == other[key]
    assert not verified or one["device_reads"] > 0 < one["device_tries"]
    assert len(one["programmed"]["layers.0"]) == 5
    assert one["budget_writes"] == 99_999
    (first,), (again,) = (
        json.loads((folder / "diagnostics.json").read_text(encoding="utf-8"))["programmed"] for folder in (whole, run)
    )
    assert first == again
    assert sum(first["writes"]) == one["device_writes"]
    assert 0 < first["off_rms"] < first["swing"]
    (line, *_) = (json.loads(text) for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert len(line["levels"]["layers.0"]) == 5
    assert cli.run(["replay", str(run)]) == 0


def test_a_run_begins_with_what_another_one_programmed(tmp_path: Path) -> None:
    experiment = written(tmp_path)
    assert cli.run(["train", str(experiment), "--run", str(tmp_path / "first")]) == 0
    best = checkpoint.load(tmp_path / "first" / "checkpoints" / "best.json")
    text = experiment.read_text(encoding="utf-8")
    experiment.write_text(text + f'from = "{tmp_path / "first"}"\n', encoding="utf-8")
    with built(read_experiment(experiment), begins=True) as made:
        assert torch.equal(made.training.net.state_dict()["layers.0.params"], best.tensors["layers.0.params"])


def test_a_network_made_in_python_is_trained_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[object] = []
    monkeypatch.setattr("hil.devices.programming.Programming.slow", lambda _, rate: rates.append(rate))
    twin = DopantNetwork(specimen=1)
    port = twin.spec.params
    assert port is not None
    params = torch.nn.Parameter(torch.zeros(5))
    encode, decode = Encode.onto(twin.spec.inputs, 0.4, -0.3, "clip"), hil.Decode(0.0, 1e-8)

    def net() -> Network:
        layer = Layer(torch.nn.Linear(2, 2), Simulated(twin), encode, decode, params, Levels.onto(port, slew_per_s=5.0))
        return Network([layer, Layer(AnswerLinear(1, 2))])

    x = np.random.default_rng(0).uniform(-1, 1, (60, 2)).astype(np.float32)
    data = x, (x[:, 0] > 0).astype(np.int64)
    run = hil.train(net(), "pat", data, epochs=1, run=tmp_path / "r", show=False, report=False)
    assert bool(params.detach().any())
    assert rates == [5.0]
    assert run.summary["device_programs"] > 1
    with pytest.raises(ConfigError, match="does not train what is programmed"):
        hil.train(net(), "adfa", data, epochs=1, run=tmp_path / "s", show=False)


RIG = """import os
import torch
import hil

class Rig:
    def __init__(self, log: str) -> None:
        gates = hil.Port("gates", (-1.0, -0.5), (1.0, 0.5), "V", 2, max_step=0.2)
        self.spec = hil.Spec(hil.Port("dac", -2, 2, "V", 2), hil.Port("adc", -9, 9, "V", 1), gates, provenance="real")
        self.log, self.gates = log, torch.zeros(2)

    def note(self, *values):
        with open(self.log, "a") as file:
            file.write(" ".join(f"{value:.9g}" for value in values) + "\\n")

    def program(self, params):
        self.gates = params.clone()
        self.note(*params.tolist())

    def forward(self, x):
        return torch.tanh(x @ torch.ones(2, 1) * self.gates[0] + self.gates[1])

    def safe(self):
        self.note(0.0, 0.0)

    def close(self):
        self.safe()
"""


def test_a_device_of_ones_own_in_its_host_is_programmed_in_steps_and_made_safe(folder: Path) -> None:
    (folder / "trained_rig.py").write_text(RIG, encoding="utf-8")
    log = folder / "log.txt"
    device, params = f'use = "trained_rig:Rig"\nlog = "{log}"\n', 'start = "uniform"\n'
    more = "[optimizer]\nlr = 0.2\n"
    encode = '[encode]\noverflow = "clip"\n[decode]\nzero = 0.0\nscale = 1.0\n'
    changes = {"learner": '"spsa"', "device": device, "encode": encode, "more": more}
    with pytest.raises(ConfigError, match="nobody says how many"), built(read(folder, params=params, **changes)):
        pass
    with (
        pytest.raises(ConfigError, match="got size = 3; allowed: size = 2, as many as it has"),
        built(read(folder, params="size = 3\n", **changes)),
    ):
        pass
    assert not any(any(map(float, line.split())) for line in log.read_text(encoding="utf-8").splitlines())
    with built(read(folder, params="size = 2\n" + params, **changes)) as made:
        first = made.training.net.state_dict()["layers.0.params"].clone()
        steps(made)
        assert not torch.equal(made.training.net.state_dict()["layers.0.params"], first)
    rows = [tuple(map(float, line.split())) for line in log.read_text(encoding="utf-8").splitlines()]
    assert rows[-1] == (0.0, 0.0)
    assert len(rows) > 20
    assert all(abs(a) <= 1 and abs(b) <= 0.5 for a, b in rows)
    last = max(k for k, row in enumerate(rows) if any(row)) + 1
    held = [row for k, row in enumerate(rows[:last])]
    assert max(abs(one - other) for a, b in pairwise(held) for one, other in zip(a, b, strict=True)) <= 0.2 + 1e-6


def test_control_voltages_of_a_bench_stay_in_their_ranges_and_steps_and_go_off(folder: Path, stack: ExitStack) -> None:
    running = stack.enter_context(on_the_table(BENCH, folder))
    rate = "[optimizer]\nlr = 0.3\n"  # far enough to meet the edges
    path = written(folder, device='bench = "bench.toml"\n', params='start = "uniform"\n', more=rate, train=TRAIN)
    with built(read_experiment(path)) as made:
        found = steps(made)
        assert made.training.device_programs >= len(found)
        assert made.training.devices[0].programmed is not None
        held = [running.boxes[name].stands(1) for name in CONTROLS]  # type: ignore[attr-defined]
        assert held == pytest.approx(made.training.devices[0].programmed, abs=2e-4)
    for name, (low, high) in CONTROLS.items():
        box: Any = running.boxes[name]
        levels = [0.0, *(level for _, _, level in box.history)]
        assert low - 1e-6 <= min(levels)
        assert max(levels) <= high + 1e-6
        assert max(abs(b - a) for a, b in pairwise(levels)) <= 0.25 + 1e-6
        assert box.outputs()["1"]["on"] is False
        assert box.stands(1) == 0.0
    assert max(abs(level) for name in CONTROLS for _, _, level in running.boxes[name].history) > 0.5  # type: ignore[attr-defined]
