"""On an accelerator: nothing is left behind on the CPU, the numbers are those of the CPU, and a run may change places.

There need not be one: tests/learners/pretend_accelerator.py refuses what a real one would refuse.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_accelerator import ACCELERATOR, CPU, Operations, pretending
from rich.console import Console
from spiking_net import LABEL, examples, gradients, network, rng
from torch import Tensor, nn

from hil import port, torch_device
from hil.build import prepared as experiment
from hil.build.training import built
from hil.commands.train import resume
from hil.config.experiment import read_experiment
from hil.config.resolve import LEARNERS, resolve
from hil.data.dataset import Dataset, Split, load
from hil.device import ArraySpec
from hil.encoding import Decode
from hil.errors import ConfigError
from hil.learners.parts import equilibrium
from hil.learners.parts.rate_learner import OnlineSettings
from hil.learners.saf import SAFE
from hil.nn import DirectFeedback, Physical
from hil.run import checkpoint
from hil.run.folder import RunFolder
from hil.seeding import generator
from hil.snapshot import packed, unpacked
from hil.training.loop import Epoch, evaluate, train
from hil.training.state import Training
from sim_devices.lif_array import Neuron
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.spiking_array import SpikingArray, TwinChip

TRAIN = "seed = 1\n[train]\nepochs = 1\nbatch = 16\n[optimizer]\nlr = 0.003\n[augment]\nshift = 1\n"
DENSE = "[network]\nwidths = [64, 20, 15, 10]\n"
MODULATOR = """[device]
use = "mach_zehnder"
bandwidth_hz = 3e7
drift_rad_per_rts = 0.01
[encode]
gain = 1.1
overflow = "fold"
period = 7.0
"""
DECODED = "[decode]\nzero = 0.18\nscale = 0.18\n"
LEAKY = '[device]\nchip = "lif"\nthreshold_mismatch = 0.05\nleak_mismatch = 0.05\nnoise = 0.05\n[encode]\ngain = 3.0\n'
INTEGRATING = '[device]\nchip = "lif"\nleak = 1.0\nv_rest = -1.0\n[encode]\ngain = 2.0\noverflow = "clip"\n'
ROUNDING = '[device]\nchip = "lif"\nleak = 1.0\nv_th = 0.5\nv_rest = -0.5\n'
LOOP = 'feedback = { use = "conv", norm = 2.0 }\n'


OWN = ('"cma_es"', '"genetic"')  # rules that say how far the weights move


def trained_by(text: str) -> str:
    """The case with how it is trained."""
    how = TRAIN.replace("lr = 0.003", 'use = "SGD"\nlr = 1.0') if any(use in text for use in OWN) else TRAIN
    return (how.replace("shift = 1", "noise = 0.1") if "sequence" in text else how) + text


def conv(more: str) -> str:
    return f'[network]\nuse = "conv"\nchannels = [10, 12]\nstrides = [2, 1]\n{more}\n'


def learning(use: str, settings: str = "") -> str:
    return f'[learner]\nuse = "{use}"\n{settings}\n'


DENSE_RULES = ("adfa", "dfa", "backprop", "pat", "spsa", "pepg", "cma_es", "mono_forward", "last_layer", "ridge",
               "node_perturbation", "genetic")  # fmt: skip
CASES = {
    **{
        use: DENSE + MODULATOR + DECODED + learning(use)
        for use in DENSE_RULES
    },
    "ff": DENSE + MODULATOR + DECODED + learning("ff", "dropout = 0.1\npeer = 0.1"),
    "phyll": '[network]\nuse = "behind_devices"\nwidths = [64, 20]\n' + MODULATOR + DECODED + learning("phyll"),
    **{
        use: DENSE + LEAKY + learning(use, "time_steps = 3\ndropout = 0.1")
        for use in ("adfa_snn", "saf_e", "saf_f", "ottt_a", "ottt_o", "spike_representation", "bptt")
    },
    "spide": conv(f"readout = 10\n{LOOP}") + INTEGRATING + learning("spide", "forward_steps = 4\nbackward_steps = 4"),
    "ffgaf": conv('norm = "batch"\nlevels = 8')
    + ROUNDING
    + learning("ffgaf", 'dropout = 0.2\nadaptation = "both"\nshare_every = 1\nshares = [1, 1, 1, 1, 1, 1, 1, 1, 1, 5]'),
    "reservoir": '[data]\nsequence = true\n[network]\nuse = "masks"\nwidths = [8, 12, 10]\n[task]\nwashout = 2\n'
    + '[device]\nuse = "delay_loop"\nnodes = 12\nlowpass_hz = 3e6\nnoise = 0.01\n' + learning("reservoir", "forget = 0.9"),
    "reservoir, lags and recursion": '[data]\nsequence = true\n[network]\nuse = "masks"\nwidths = [8, 12, 10]\n'
    + '[task]\nwashout = 2\n[device]\nuse = "delay_loop"\nnodes = 12\n'
    + learning("reservoir", 'lags = [0, 1]\nlate = 1\nsolver = "recursive"\npenalties = [1e-4]'),
    **{
        use: '[data]\nsequence = true\n[network]\nuse = "masks"\nwidths = [8, 12, 10]\n[task]\nwashout = 2\n'
        + '[device]\nuse = "delay_loop"\nnodes = 12\nlowpass_hz = 3e6\nnoise = 0.01\n' + learning(use, settings)
        for use, settings in (("bptt_memory", ""), ("pat_memory", "penalty = 1e-3"))
    },
    "deep_reservoir": '[network]\nuse = "masks"\nwidths = [64, 20, 20, 10]\ngain = 0.15\n[device]\nuse = "delay_loop"\n'
    + "nodes = 20\nlowpass_hz = 3e6\nnoise = 0.01\n" + learning("deep_reservoir", "hold = 2"),
    "reservoir, a fibre loop": '[data]\nsequence = true\nshape = [8, 8]\n[network]\nuse = "masks"\nwidths = [8, 12, 10]\n'
    + '[device]\nuse = "fibre_loop"\nnodes = 12\nnoise = 0.01\nphase_noise_rad = 0.1\n[encode]\noverflow = "clip"\n'
    + learning("reservoir"),
    "pat_memory, a memristive network": '[data]\nsequence = true\nshape = [8, 8]\n[network]\nuse = "masks"\n'
    + 'widths = [8, 6, 10]\n[device]\nuse = "memristive_network"\nelectrodes = 6\nrows = 3\ncolumns = 3\nnoise = 0.01\n'
    + '[encode]\noverflow = "clip"\n' + learning("pat_memory", 'answer = "mean"'),
    **{
        use: '[data]\nsequence = true\nshape = [8, 8]\n[task]\nwashout = 2\n[network]\nuse = "masks"\n'
        + f'widths = [8, 12, {last}]\n[device]\nuse = "delay_loop"\nnodes = 12\nnoise = 0.01\n' + learning(use, settings)
        for use, last, settings in (("phyll_memory", 12, ""), ("ff_memory", 10, "dropout = 0.1\npeer = 0.1"))
    },
    "adfa, conv": conv('pool = "max"\nweights = "standardised"\nnorm = "batch"\nreadout = 10')
    + MODULATOR + DECODED + learning("adfa", "sample_shape = [64]"),
    "adfa, projected by a device": DENSE + MODULATOR + DECODED + learning("adfa")
    + '[projection]\nuse = "scattering"\nmacropixels = 25\npixels = 36\n',
    **{
        f"{use}, programmed": "[network]\nwidths = [64, 4, 10]\nanswers = 2\n" + '[device]\nuse = "dopant_network"\n'
        + '[encode]\ngain = 0.1\noverflow = "clip"\n[decode]\nzero = 0.0\nscale = 1e-8\n[params]\nlr = 0.1\n' + learning(use)
        for use in ("pat", "spsa", "host_and_device")
    },
    "adfa_snn, a move a step": DENSE + LEAKY
    + learning("adfa_snn", 'time_steps = 3\nupdate = "per_step"\nerror = "running"\npresynaptic = "trace"'),
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """32 to train on, 30 to validate and test."""
    whole = load("digits")
    train = Split(whole.train.x[:32], whole.train.y[:32])
    validation, test = (Split(one.x[:30], one.y[:30]) for one in (whole.validation, whole.test))
    return dataclasses.replace(whole, train=train, validation=validation, test=test)


def timed(data: Dataset, whole: bool) -> Dataset:
    """Row by row, each row with the digit as its target; `whole`: all rows together."""
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    rows = {
        name: Split(one.x.view(-1, 8, 8), one.y if whole else one.y.unsqueeze(1).repeat(1, 8)) for name, one in parts.items()
    }
    return dataclasses.replace(data, shape=(8, 8), **rows)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    monkeypatch.setattr(experiment, "dataset", lambda table: timed(digits, bool(table.shape)) if table.sequence else digits)
    monkeypatch.setattr(equilibrium, "FEW", 10**12)  # on the CPU, few spikes are summed one by one: rounded otherwise
    monkeypatch.setattr(torch_device, "settled", lambda on: None)
    monkeypatch.setattr(torch_device, "_free_bytes", lambda on: 1 << 30)
    monkeypatch.setattr(torch_device, "title", str)


@contextmanager
def training(text: str, on: torch.device, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    path = folder / "experiment.toml"
    path.write_text(trained_by(text), encoding="utf-8")
    monkeypatch.setattr(torch_device, "named", lambda name, where: on)
    port._kept.cache_clear()  # what is kept there was marked by another pretence
    with pretending() if on == ACCELERATOR else nullcontext(), built(read_experiment(path)) as made:
        assert made.training.net.place == on
        yield made.training


def finished(made: Training) -> tuple[dict[str, float], dict[str, Tensor], str]:
    """Train to the end; the score on the test split, and all of the state but the time that it took."""
    assert any(isinstance(point, Epoch) for point in train(made))
    score, _ = evaluate(made.net, made.learner, made.data.test)
    point = made.checkpoint()
    facts = {name: value for name, value in point.facts.items() if name != "seconds"}
    for device in facts["devices"]:
        del device["busy_s"]
    return score, {name: value.detach().cpu() for name, value in point.tensors.items()}, json.dumps(facts)


def test_every_learner_is_tried() -> None:
    assert {name.split(",")[0] for name in CASES} == set(LEARNERS)


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_changes_places_ends_as_one_on_the_cpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step here, then a checkpoint, the other step there, and validation and test: every bit as on the CPU alone."""
    with training(CASES[name], CPU, tmp_path, monkeypatch) as made:
        score, tensors, facts = finished(made)
    for first, second in ((ACCELERATOR, CPU), (CPU, ACCELERATOR)):
        with training(CASES[name], first, tmp_path, monkeypatch) as made:
            next(iter(train(made)))
            saved = checkpoint.save(tmp_path, "step-00000001", made.checkpoint())
        with training(CASES[name], second, tmp_path, monkeypatch) as made:
            made.restore(checkpoint.load(saved))
            again, same, alike = finished(made)
        assert (again, alike) == (score, facts)
        assert all(torch.equal(same[key], value) for key, value in tensors.items())


@pytest.mark.parametrize(
    ("text", "room"),
    [(DENSE + MODULATOR + learning("adfa"), 1 << 30), (DENSE + LEAKY + learning("saf_e"), 0)],
    ids=["a node, data there", "a chip, data here"],
)
def test_a_whole_run(text: str, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With transfer curve, confusion, diagnostics and angles; whether the data fit there or go batch by batch."""
    summaries = []
    for on in (CPU, ACCELERATOR):
        monkeypatch.setattr(torch_device, "named", lambda name, where, on=on: on)
        monkeypatch.setattr(torch_device, "_free_bytes", lambda on: room)
        folder = RunFolder.create(tmp_path / on.type)
        folder.config.write_text(trained_by(text), encoding="utf-8")
        with pretending() if on == ACCELERATOR else nullcontext():
            summary = resume(folder, None, Console(quiet=True))
        assert summary["versions"]["on"] == str(on)
        found = folder.read_json("diagnostics.json")
        found.pop("time")
        summaries.append((summary["test_loss"], summary["test_accuracy"], found))
    assert summaries[0] == summaries[1]


class Far:
    """Neurons that are not on the accelerator, as a board's are not: they answer in the host's memory."""

    def __init__(self, inner: SpikingArray) -> None:
        self._inner, self.spec = inner, inner.spec

    def program(self, params: Tensor) -> None:
        self._inner.program(params)

    def reset(self) -> None:
        self._inner.reset()

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self._inner.forward(x.cpu()).numpy().copy())

    def close(self) -> None:
        self._inner.close()


class FarChip(TwinChip):
    def array(self, spec: ArraySpec) -> Far:  # type: ignore[override]
        return Far(super().array(spec))


@pytest.mark.parametrize("use", ["saf_e", "spide", "ffgaf"])
def test_answers_of_a_real_device_come_back(use: str) -> None:
    """Every way in which a learner asks a device ends where the network computes."""
    found = []
    for on in (CPU, ACCELERATOR):
        with pretending() if on == ACCELERATOR else nullcontext():
            neuron = Neuron(leak=1.0, v_rest=-1.0) if use == "spide" else Neuron()
            chip = FarChip(neuron)
            net = network(neuron, chip=chip)
            net.chip = chip
            net.to(on)
            kind = resolve(LEARNERS[use], "test")
            learner = kind.build(net, kind.Settings(), 3, rng()).to(on)
            learner.step(net, examples().to(on), LABEL.to(on), torch.Generator(on))
            scores = learner.predict(net, examples().to(on))
            found.append([scores.cpu(), *(grad.cpu() for grad in gradients(net))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("rule", ["adfa", "dfa", "pat", "straight_through"])
def test_a_device_in_a_torch_program_answers_where_that_is(rule: Any) -> None:
    found = []
    for on in (CPU, ACCELERATOR):
        with pretending() if on == ACCELERATOR else nullcontext():
            torch.manual_seed(0)
            node = Physical(MachZehnder(), rule, gain=1.5, overflow="fold", period=7.0, features=5, decode=Decode(0.18, 0.18))
            net: nn.Module = nn.Sequential(nn.Linear(6, 5), node, nn.Linear(5, 3))
            net = (net if rule not in ("adfa", "dfa") else DirectFeedback(net, 3)).to(on)
            x, label = torch.randn(4, 6, generator=generator(0, 0, "x")).to(on), torch.tensor([0, 2, 1, 2]).to(on)
            nn.functional.cross_entropy(net(x), label).backward()
            found.append([param.grad.cpu() for param in net.parameters() if param.grad is not None])
    assert len(found[0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("couples", [False, True])
def test_neurons_change_places_with_their_state(couples: bool) -> None:
    """Half of the time on the CPU, the rest on the accelerator, thresholds programmed: the spikes of one place."""
    neuron = Neuron(threshold_mismatch=0.1, noise=0.1, refractory=1)
    current = torch.randn(8, 5, 6, generator=generator(0, 0, "current"))
    one, first = (TwinChip(neuron, 1).array(ArraySpec(6, couples)) for _ in range(2))
    thresholds = torch.linspace(0.8, 1.2, 6)
    for array in (one, first):
        array.program(thresholds)
    whole = one.forward(current)
    begun = first.forward(current[:4])
    with pretending():
        second = TwinChip(neuron, 1).array(ArraySpec(6, couples))
        second.restore(unpacked(json.loads(json.dumps(packed(first.snapshot())))))
        rest = second.forward(current[4:].to(ACCELERATOR))
        assert rest.device == second.monitor().device == ACCELERATOR
        second.program(thresholds)  # from the CPU again
        second.forward(current[:4].to(ACCELERATOR))
        assert torch.equal(torch.cat([begun, rest.cpu()]), whole)


def test_what_is_left_behind_is_found() -> None:
    """The pretended accelerator does refuse: a device whose answer stays behind, a state, a generator, a target."""
    with pretending() as seen:
        assert isinstance(seen, Operations)
        here, there = torch.ones(3, 3), torch.ones(3, 3, device=ACCELERATOR)
        scalar = torch.zeros(())
        for mixture in (
            lambda: here + there,
            lambda: torch.cat([here, there]),
            lambda: here @ there,
            lambda: here[there.long()],
            lambda: scalar.add_(there.sum()),
            lambda: torch.rand(3, generator=torch.Generator(), device=there.device),
            lambda: torch.rand(3, generator=torch.Generator(ACCELERATOR)),
            lambda: SAFE(OnlineSettings(), 3).step(network().to(ACCELERATOR), examples(), LABEL, rng()),
        ):
            with pytest.raises(RuntimeError, match="device"):
                mixture()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there * scalar + 1).device == there.device == there.clone().device
        assert there[torch.arange(2)].cpu().device == CPU


@pytest.mark.parametrize(
    ("on", "cards", "parts"),
    [
        ("cuda", 0, ['"cuda" is not there', "torch", "without cuda", '"cpu"', '"auto"', "[train] on", "nothing was opened"]),
        ("cuda:2", 2, ['"cuda:2" is not there', "2 of them", '"cuda:1"']),
        ("mps", 0, ['"mps" is not there']),
        ("gpu", 0, ["no such place to compute", '"gpu"', '"cuda:1"']),
        ("cuda:x", 2, ["no such place to compute"]),
    ],
)
def test_an_accelerator_that_is_not_there(on: str, cards: int, parts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cards)
    with pytest.raises(ConfigError) as caught:
        torch_device.named(on, "x.toml")
    for part in parts:
        assert part in str(caught.value)


def test_what_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 0)
    assert [torch_device.named(on, "") for on in ("cpu", "auto")] == [CPU, CPU]
    machine(monkeypatch, 2)
    assert [str(torch_device.named(on, "")) for on in ("cuda", "cuda:1", "auto")] == ["cuda", "cuda:1", "cuda"]


def machine(monkeypatch: pytest.MonkeyPatch, cards: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: cards > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
