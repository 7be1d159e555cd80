"""A node with memory is shown whole sequences, in order; a readout is fitted over its states behind the washout."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hil
from hil.build.prepared import prepared
from hil.build.training import built
from hil.config.experiment import experiment_of
from hil.conformance import check_device
from hil.encoding import Decode, Encode
from hil.errors import ConfigError, ContractError
from hil.learners.parts.played import Between, played
from hil.learners.reservoir import Reservoir, ReservoirSettings
from hil.network import Layer, Network
from hil.run import checkpoint
from hil.seeding import generator
from hil.synapses import LateLinear
from hil.task import Task, task_of
from hil.training.loop import train
from sim_devices.delay_loop import DelayLoop
from sim_devices.simulated import Simulated

NODES, STEPS, WASHOUT = 12, 40, 10
TASK = task_of(torch.rand(3, STEPS, 1), (), washout=WASHOUT)


def network(layers: int = 1) -> Network:
    torch.manual_seed(0)
    device = Simulated(DelayLoop(nodes=NODES, gain=0.6))
    widths = [1, *[NODES] * layers]
    made = [Layer(nn.Linear(a, b), device, Encode.onto(device.spec.inputs, 0.5), Decode(0.5, 0.5)) for a, b in pairwise(widths)]
    return Network([*made, Layer(nn.Linear(NODES, 1))])


def sequences(count: int, stream: str = "train") -> tuple[Tensor, Tensor]:
    u = torch.rand(count, STEPS, 1, generator=generator(0, 0, stream))
    return u, u.roll(1, 1) * u.roll(2, 1)


def rule(net: Network, task: Task = TASK, **settings: Any) -> Reservoir:
    return Reservoir.build(net, ReservoirSettings(**settings), task, generator(0, 0, "learner"))


def test_the_readout_is_that_of_all_steps_behind_the_washout() -> None:
    net, (x, y) = network(), sequences(5)
    learner = rule(net, penalties=(1e-6,))
    for part in (slice(3, 5), slice(0, 3)):  # sequences in any order
        learner.step(net, x[part], y[part], generator(0, 0, "step"))
    fit = learner.fit(net, [sequences(2, "validation")])
    states = learner.states(net, x)[:, WASHOUT:].flatten(0, 1).double().numpy()
    wanted = y[:, WASHOUT:].flatten(0, 1).double().numpy()
    h, t = states - states.mean(0), wanted - wanted.mean(0)
    gram = h.T @ h / len(h)
    exact = np.linalg.solve(gram + 1e-6 * np.trace(gram) / NODES * np.eye(NODES), h.T @ t / len(h))
    readout = net.stack[-1].synapse
    assert isinstance(readout, nn.Linear)
    assert np.allclose(readout.weight.detach().numpy().T, exact, rtol=1e-3, atol=1e-4)
    assert fit.outputs.shape == (2, STEPS, 1)
    assert torch.allclose(learner.predict(net, sequences(2, "validation")[0]), fit.outputs, atol=1e-4)


def test_the_washout_is_not_scored() -> None:
    _, y = sequences(3)
    wrong = y.clone()
    wrong[:, :WASHOUT] += 100
    assert TASK.score(wrong, y)["nrmse"] == 0.0
    wrong[:, WASHOUT] += 1
    assert TASK.score(wrong, y)["nrmse"] > 0.1
    with pytest.raises(ConfigError, match="this washout leaves nothing to score"):
        task_of(y, (), washout=STEPS)


def test_the_state_between_sequences_is_as_asked() -> None:
    x, _ = sequences(3)
    alone = torch.cat([played(network(), one, Between()).outputs[0] for one in x.split(1)], 1)
    assert torch.allclose(played(network(), x, Between()).outputs[0], alone, atol=1e-6)
    rested = played(network(), x, Between("rest", 60)).outputs[0]
    assert torch.allclose(rested, alone, atol=1e-4)
    carried = played(network(), x, Between("carry")).outputs[0]
    whole = played(network(), x.reshape(1, 3 * STEPS, 1), Between()).outputs[0]
    assert torch.allclose(carried.transpose(0, 1).flatten(0, 1), whole[:, 0], atol=1e-6)
    assert not torch.allclose(carried[0], alone[0], atol=1e-3)
    with pytest.raises(ConfigError, match="rest_steps goes with rest"):
        Between("rest")


def test_one_loop_behind_two_layers_forgets_between_them() -> None:
    net, (x, _) = network(2), sequences(2)
    trace = played(net, x, Between())
    second = Simulated(DelayLoop(nodes=NODES, gain=0.6))
    alone = Layer(net.stack[1].synapse, second, net.stack[1].encode, net.stack[1].decode).measure(trace.pre[1])
    assert torch.equal(trace.outputs[1], alone)


def test_what_fades_is_forgotten() -> None:
    net, (x, y) = network(), sequences(4)
    learner = rule(net, forget=0.5)
    for part in (slice(0, 2), slice(2, 4)):
        learner.step(net, x[part], y[part], generator(0, 0, "step"))
    assert float(learner.sums.sums["n"]) == 1.5 * 2 * (STEPS - WASHOUT)


def test_a_late_readout_sees_each_node_as_many_steps_back_as_was_drawn() -> None:
    net, (x, y) = network(), sequences(4)
    learner = rule(net, lags=(0, 2), late=3)
    synapse = net.stack[-1].synapse
    assert isinstance(synapse, LateLinear)
    assert synapse.in_features == 2 * NODES
    assert set(synapse.late.tolist()) == {0, 1, 2, 3}
    plain = played(network(), x, Between()).outputs[0].transpose(0, 1)
    for place, late in enumerate(synapse.late.tolist()):
        for number, lag in enumerate((0, 2)):
            seen = learner.states(net, x)[:, :, number * NODES + place]
            assert torch.allclose(seen[:, lag + late :], plain[:, : STEPS - lag - late, place], atol=1e-6)
            assert not seen[:, : lag + late].any()
    learner.step(net, x, y, generator(0, 0, "step"))
    learner.fit(net, [sequences(2, "validation")])
    again = network()
    rule(again, lags=(0, 2), late=3)
    again.load_state_dict(net.state_dict())
    assert torch.equal(played(again, x, Between()).outputs[-1], played(net, x, Between()).outputs[-1])


def test_lags_reach_what_the_node_forgot() -> None:
    def error(**settings: Any) -> float:
        net, (x, _) = network(), sequences(8)
        learner = rule(net, **settings)
        learner.step(net, x, x.roll(8, 1), generator(0, 0, "step"))
        u, _ = sequences(3, "validation")
        return TASK.score(learner.fit(net, [(u, u.roll(8, 1))]).outputs, u.roll(8, 1))["nrmse"]

    assert error() > 0.7
    assert error(lags=(0, 8)) < 0.1
    assert error(lags=(0, 5), late=5) < 0.2


@pytest.mark.parametrize("penalty", [1e-2, 1e-5])
def test_what_follows_the_steps_is_the_ridge_regression(penalty: float) -> None:
    """Without forgetting, after the one batch that says how large the penalty is; and whatever the order of time."""
    made = [(network(), solver) for solver in ("ridge", "recursive")]
    x, y = sequences(4)
    for net, solver in made:
        learner = rule(net, solver=solver, penalties=(penalty,))
        learner.step(net, x, y, generator(0, 0, "step"))
        learner.fit(net, [(x, y)])
    one, other = (net.stack[-1].synapse for net, _ in made)
    assert isinstance(one, nn.Linear)
    assert isinstance(other, nn.Linear)
    assert torch.allclose(one.weight, other.weight, rtol=1e-3, atol=1e-4)
    assert torch.allclose(one.bias, other.bias, rtol=1e-3, atol=1e-4)


def test_the_recursion_forgets_step_by_step_in_the_order_of_time() -> None:
    """The target changes its sign in the middle of the sequences: what counts is the end."""
    x, _ = sequences(6)
    sign = torch.where(torch.arange(STEPS) < STEPS // 2, 1.0, -1.0).view(1, -1, 1)
    errors = {}
    for forget in (1.0, 0.8):
        net = network()
        learner = rule(net, solver="recursive", penalties=(1e-6,), forget=forget)
        said = learner.step(net, x, sign * x, generator(0, 0, "step"))
        assert said["loss"] > 0
        fit = learner.fit(net, [(x, -x)])
        errors[forget] = TASK.score(fit.outputs, -x)["nrmse"]
        assert fit.train["loss"] > 0
    assert errors[0.8] < 0.1
    assert errors[1.0] > 0.5


@pytest.mark.parametrize("answer", ["last", "mean"])
def test_one_target_a_sequence(answer: Any) -> None:
    """Two classes of frequency; the washout is left out of the mean, and makes no sense before the last step alone."""
    label = torch.arange(60) % 2
    phase = 6.3 * torch.rand(60, 1, generator=generator(0, 0, "phase"))
    x = (torch.sin(torch.arange(STEPS) * torch.where(label == 1, 0.5, 0.8).unsqueeze(1) + phase) * 0.5 + 0.5).unsqueeze(2)
    task = task_of(label, ("fast", "slow"), washout=5 if answer == "mean" else 0, length=STEPS)
    settings = ReservoirSettings(answer=answer, lags=tuple(range(6)) if answer == "last" else (0,))
    settings.fits(task, STEPS)
    net = network()
    net.stack[-1].synapse = nn.Linear(NODES, 2)
    learner = Reservoir.build(net, settings, task, generator(0, 0, "learner"))
    learner.step(net, x[:40], label[:40], generator(0, 0, "step"))
    states = played(net, x, Between()).inputs[-1].transpose(0, 1)
    assert torch.allclose(learner.states(net, x), states[:, -1] if answer == "last" else states[:, 5:].mean(1), atol=1e-6)
    learner.fit(net, [(x[40:50], label[40:50])])
    assert learner.predict(net, x).shape == (60, 2)
    assert task.score(learner.predict(net, x[50:]), label[50:])["accuracy"] > 0.85


STEPPED = task_of(torch.zeros(3, STEPS, 1), (), washout=WASHOUT)
WHOLE = task_of(torch.zeros(3, dtype=torch.int64), ("a", "b"))
MEANT = task_of(torch.zeros(3, dtype=torch.int64), ("a", "b"), washout=WASHOUT, length=STEPS)


@pytest.mark.parametrize(
    ("task", "settings", "what"),
    [
        (STEPPED, {"answer": "last"}, "with a target a step every step is an answer"),
        (STEPPED, {"lags": (0, WASHOUT + 1)}, "the readout would see steps before the sequence"),
        (STEPPED, {"lags": (0, WASHOUT - 2), "late": 3}, "the readout would see steps before the sequence"),
        (WHOLE, {"lags": (0, STEPS)}, "the readout would see steps before the sequence"),
        (MEANT, {}, "the last step alone is an answer"),
        (MEANT, {"answer": "mean", "lags": (WASHOUT + 1,)}, "the readout would see steps before the sequence"),
        (STEPPED, {"lags": (1, 1)}, "a lag stands twice"),
        (STEPPED, {"lags": ()}, "lags makes no sense"),
        (STEPPED, {"solver": "recursive"}, "begins with one penalty"),
    ],
)
def test_a_readout_that_makes_no_sense_is_refused(task: Task, settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as told:
        ReservoirSettings(**settings).fits(task, STEPS)
    assert told.value.outputs == "untouched; nothing was opened"


def test_a_run_begins_with_the_late_readout_of_another_one(tmp_path: Path) -> None:
    """The readout is as wide as the learner asks for before any weights are held against it; another width is refused."""
    lags = 'use = "reservoir"\nlags = [0, 2]\nlate = 1'
    data = 'use = "narma5"\nsteps = 40\nwindow = 1\nsequence = true\n[task]\nwashout = 5'
    with built(experiment(LOOP, lags, data)) as made:
        first = made.training
        for _ in train(first):
            pass
        checkpoint.save(tmp_path / "r" / "checkpoints", "best", checkpoint.Checkpoint(first.best.tensors, {"epoch": 1}))
    begin = f'[train]\nfrom = "{(tmp_path / "r").as_posix()}"'
    with built(experiment(LOOP, f"{lags}\n{begin}", data), begins=True) as made:
        synapse = made.training.net.stack[-1].synapse
        assert isinstance(synapse, LateLinear)
        assert torch.equal(synapse.weight, first.best.tensors["layers.1.synapse.weight"])
    with pytest.raises(ConfigError, match="those of another network") as told:
        prepared(experiment(LOOP, f'use = "reservoir"\n{begin}', data), begins=True)
    assert told.value.outputs == "untouched; nothing was opened"


@pytest.mark.parametrize("learner", ["reservoir", "bptt_memory", "pat_memory"])
def test_they_are_refused_before_anything_is_opened(learner: str) -> None:
    with pytest.raises(ConfigError, match="with a target a step every step is an answer"):
        prepared(experiment(LOOP, f'use = "{learner}"\nanswer = "mean"'))


BENCHES = Path(__file__).resolve().parents[2].joinpath("benches").as_posix()


def experiment(device: str, learner: str, data: str = 'use = "narma10"\nsteps = 40\nwindow = 1\nsequence = true') -> Any:
    widths = f"widths = [1, {NODES}, 1]"
    text = f"[data]\nnumber = 10\n{data}\n[network]\n{widths}\n[device]\n{device}\n[learner]\n{learner}\n"
    return experiment_of(hil.toml.loads(text), Path("here.toml"))


LOOP = f'use = "delay_loop"\nnodes = {NODES}'


@pytest.mark.parametrize(
    ("device", "learner", "what"),
    [
        (LOOP, 'use = "adfa"', "this node has a state in time, and this learner has no time axis"),
        (LOOP, 'use = "ridge"', "this node has a state in time, and this learner has no time axis"),
        (LOOP, 'use = "ff"', "this node has a state in time, and this learner has no time axis"),
        (LOOP, 'use = "phyll"', "this node has a state in time, and this learner has no time axis"),
        (LOOP, 'use = "saf_e"', "this node is analog, and this learner drives spiking neurons"),
        (LOOP, 'use = "spide"', "this node is analog, and this learner drives spiking neurons"),
        ('use = "mach_zehnder"', 'use = "reservoir"', "this node has no memory, and this learner drives nodes with memory"),
        ('chip = "lif"', 'use = "reservoir"', "this node has no memory, and this learner drives nodes with memory"),
        ('chip = "lif"', 'use = "adfa"', "this node has a state in time, and this learner has no time axis"),
        (f'bench = "{BENCHES}/mzm_awg_scope.toml"', 'use = "reservoir"', "this node has no memory"),
        (f'bench = "{BENCHES}/spiking_board.toml"', 'use = "adfa"', "this learner has no time axis"),
    ],
)
def test_a_node_of_another_kind_is_refused_before_anything_is_opened(device: str, learner: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as told:
        prepared(experiment(device, learner))
    assert told.value.outputs == "untouched; nothing was opened"
    assert (device == LOOP and "ff" in learner) == ('use = "ff_memory"' in told.value.todo)


def test_single_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="the learner reservoir takes sequences") as told:
        prepared(experiment(LOOP, 'use = "reservoir"', 'use = "narma10"\nwindow = 1'))
    assert "sequence = true" in told.value.todo
    with pytest.raises(ContractError, match="is shown sequences"):
        played(network(), torch.zeros(3, 1), Between())


class Echo:
    """A user's own node with memory: all that it must have."""

    def __init__(self) -> None:
        self.last: Tensor | None = None
        ports = hil.Port("drive", -5, 5, "V", size=NODES), hil.Port("reading", -5, 5, "V", size=NODES)
        self.spec = hil.Spec(*ports, temporal=True, provenance="twin")

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for step in self.spec.inputs.check(x).detach():
            self.last = torch.tanh(step + (0 if self.last is None else 0.5 * self.last.roll(1, -1)))
            found.append(self.last)
        return torch.stack(found)

    def reset(self) -> None:
        self.last = None

    def close(self) -> None:
        self.reset()


def test_a_node_that_cannot_forget_must_say_so() -> None:
    class Stuck:
        spec = hil.Spec(hil.Port("drive", -1, 1), hil.Port("reading", -1, 1), temporal=True)

        def forward(self, x: Tensor) -> Tensor:
            return x

        def close(self) -> None:
            pass

    net = Network([Layer(nn.Linear(1, 3), Stuck(), Encode(-1, 1, overflow="clip")), Layer(nn.Linear(3, 1))])
    with pytest.raises(ContractError, match="a state in time that it cannot forget"):
        played(net, torch.zeros(2, 5, 1), Between())
    assert played(net, torch.zeros(2, 5, 1), Between("rest", 3)).outputs[0].shape == (5, 2, 3)


def test_a_node_of_ones_own_is_trained_from_python(tmp_path: Path) -> None:
    data = hil.load("narma10", number=8, steps=200, window=1, sequence=True)
    net = hil.dense([1, NODES, 1], Echo())
    done = hil.train(net, "reservoir", data, epochs=1, task={"washout": 50}, run=tmp_path / "r")
    assert done.summary["test_nrmse"] < 0.9
    assert check_device(Echo).passed
    for _ in range(2):
        again = hil.train(net, "reservoir", data, epochs=1, task={"washout": 50}, lags=[0, 1, 5], run=tmp_path / f"late {_}")
        assert again.summary["test_nrmse"] < done.summary["test_nrmse"]
    with pytest.raises(ContractError, match="the readout of this network sees other steps"):
        hil.train(net, "reservoir", data, epochs=1, task={"washout": 50}, run=tmp_path / "other lags")
    with pytest.raises(ConfigError, match="no time axis"):
        hil.train(hil.dense([1, NODES, 1], Echo()), "adfa", data, run=tmp_path / "other")
