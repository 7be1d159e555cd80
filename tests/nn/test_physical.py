"""hil.nn: a device in any torch program; its gradients are those of our learners, and of the models that it is given."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hil
from hil.device import Port, Spec
from hil.errors import ConfigError, ContractError, ForeignError, OutOfRange
from hil.learners.adfa import ADFA, ADFASettings
from hil.learners.dfa import DFA, DFASettings
from hil.learners.parts.one_pass import LossSettings
from hil.learners.pat import PAT
from hil.nn import DirectFeedback, Physical
from hil.seeding import generator
from sim_devices.lif_array import LifArray
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated
from sim_devices.spiking_array import SpikingArray, TwinChip

ROOT = Path(__file__).resolve().parents[2]
TWIN = MachZehnder(noise=0.0)
ENCODE: dict[str, Any] = {"gain": 1.3, "offset": 0.1, "overflow": "clip"}
LABEL = torch.tensor([0, 2, 1, 2])


def x(width: int = 6) -> Tensor:
    return torch.randn(4, width, generator=generator(0, 0, "x"))


RULES = {"adfa": (ADFA, ADFASettings()), "dfa": (DFA, DFASettings()), "pat": (PAT, LossSettings())}


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_those_of_the_learner(rule: Any) -> None:
    kind, settings = RULES[rule]
    net = hil.dense([6, 5, 8, 3], TWIN, **ENCODE)
    learner = kind.build(net, settings, 3, generator(4, 0, "learner"), TWIN.ideal)  # type: ignore[attr-defined]
    learner.step(net, x(), LABEL, generator(0, 0, "step"))
    wanted = [param.grad for param in net.parameters()]

    layers = [layer.synapse for layer in net.stack]
    first = Physical(TWIN, rule, features=5, **ENCODE)
    second = Physical(first, rule, features=8, **ENCODE)  # the device is shared in time, as in the network above
    model: nn.Module = nn.Sequential(layers[0], first, layers[1], second, layers[2])
    model = model if rule == "pat" else DirectFeedback(model, 3, seed=4)
    net.zero_grad()
    nn.functional.cross_entropy(model(x()), LABEL).backward()
    for param, grad in zip(model.parameters(), wanted, strict=True):
        assert param.grad is not None
        assert grad is not None
        assert grad.abs().max() > 0
        assert torch.allclose(param.grad, grad, rtol=1e-5, atol=1e-6 * float(grad.abs().max()))
    assert first.device is second.device
    assert first.passes == 4 * (5 + 8)


def test_errors_of_several_passes_do_not_mix() -> None:
    """Two passes before the first backward, as with an accumulated or a siamese loss."""
    torch.manual_seed(0)
    node = Physical(TWIN, "adfa", features=5, **ENCODE)
    net = DirectFeedback(nn.Sequential(nn.Linear(6, 5), node, nn.Linear(5, 3)), 3)

    def grad(*batches: Tensor) -> Tensor:
        net.zero_grad()
        losses = [nn.functional.cross_entropy(net(batch), LABEL) for batch in batches]
        for loss in losses:
            loss.backward()
        found = net.module[0].weight.grad  # type: ignore[index]
        return found.clone()  # type: ignore[union-attr, no-any-return]

    assert torch.allclose(grad(x(), -x()), grad(x()) + grad(-x()), atol=1e-6)


def test_straight_through_is_the_identity() -> None:
    node = Physical(TWIN, "straight_through", **ENCODE)
    pre = x().requires_grad_(True)
    out = node(pre)
    assert not torch.allclose(out, pre)
    seen = torch.randn(4, 6, generator=generator(0, 0, "seen"))
    (out * seen).sum().backward()
    assert torch.equal(pre.grad, seen)  # type: ignore[arg-type]


def test_measured_forwards_and_modelled_backwards_in_the_units_of_the_device() -> None:
    wrong = MachZehnder(v_pi_v=5.0)
    node = Physical(Simulated(TWIN), "pat", decode=hil.Decode(), model=wrong.ideal)
    drive = torch.linspace(-2, 2, 9).view(1, -1).requires_grad_(True)
    answer = node(drive)
    assert torch.equal(answer.detach(), Simulated(TWIN).forward(drive.detach()))
    answer.sum().backward()
    again = drive.detach().clone().requires_grad_(True)
    wrong.ideal(again).sum().backward()
    assert torch.allclose(drive.grad, again.grad)  # type: ignore[arg-type]


class Mixing:
    """Five drives mixed into four readings."""

    spec = Spec(Port("in", -10, 10, size=5), Port("out", -100, 100, size=4), provenance="twin")
    weights = torch.arange(20.0).view(5, 4) / 10
    closed = 0

    def close(self) -> None:
        self.closed += 1

    def forward(self, x: Tensor) -> Tensor:
        self.spec.inputs.check(x)
        return (x @ self.weights).tanh()


def test_agrees_with_numerical_slopes_of_a_mixing_node() -> None:
    device = Mixing()
    drive = (0.1 * x(5)).requires_grad_(True)
    node = Physical(device, "pat", decode=hil.Decode(), model=device.forward)
    seen = torch.randn(4, 4, generator=generator(0, 0, "seen"))
    (node(drive) * seen).sum().backward()
    base, weights = drive.detach().double(), device.weights.double()
    wanted = torch.zeros_like(base)
    for k in range(5):
        moved = torch.zeros(5, dtype=torch.float64).index_fill(0, torch.tensor([k]), 1e-6)
        up, down = ((base + s * moved) @ weights for s in (1, -1))
        wanted[:, k] = ((up.tanh() - down.tanh()) * seen).sum(1) / 2e-6
    assert torch.allclose(drive.grad.double(), wanted, atol=1e-5)  # type: ignore[union-attr]


def test_a_wrapped_network_learns_around_a_device_with_other_outputs_than_inputs() -> None:
    torch.manual_seed(0)
    device = Mixing()
    node = Physical(device, "dfa", decode=hil.Decode(), model=device.forward)
    net = DirectFeedback(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), node, nn.Linear(4, 3)), 3)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x()), LABEL)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_state_is_that_of_plain_layers_and_of_the_matrices() -> None:
    def made(seed: int) -> DirectFeedback:
        node = Physical(TWIN, "adfa", features=5, **ENCODE)
        return DirectFeedback(nn.Sequential(nn.Linear(6, 5), node, nn.Linear(5, 3)), 3, seed=seed)

    net, other = made(0), made(1)
    assert not torch.equal(net.projection.get_buffer("B0"), other.projection.get_buffer("B0"))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.projection.get_buffer("B0"), other.projection.get_buffer("B0"))
    with torch.no_grad():
        assert torch.equal(net(x()), other(x()))


def test_half_and_double_precision_cross_to_the_device_as_float32() -> None:
    node = Physical(TWIN, "pat", **ENCODE)
    for dtype in (torch.float64, torch.bfloat16):
        pre = x().to(dtype).requires_grad_(True)
        out = node(pre)
        out.sum().backward()
        assert out.dtype == dtype
        assert pre.grad is not None
        assert pre.grad.dtype == dtype


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Physical(TWIN, "bp"), "adfa, dfa, pat, straight_through"),  # type: ignore[arg-type]
        (lambda: Physical(Mixing(), "pat", decode=hil.Decode()), "a model of the device, and there is none"),
        (lambda: Physical(TWIN, "adfa"), "features="),
        (lambda: Physical(Mixing(), "straight_through", decode=hil.Decode()), "5 inputs, 4 outputs"),
        (lambda: Physical(SpikingArray(LifArray(3))), "spiking"),
        (lambda: Physical(TwinChip()), "spiking"),  # type: ignore[arg-type]
        (lambda: Physical(MachZehnder), "make one of it"),  # type: ignore[arg-type]
        (lambda: DirectFeedback(nn.Linear(2, 2), 2), "none in the network"),
        (
            lambda: DirectFeedback(nn.Sequential(*(Physical(TWIN, rule, features=3, **ENCODE) for rule in ("adfa", "dfa"))), 3),
            "adfa and dfa",
        ),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(make: Any, said: str) -> None:
    with pytest.raises((ConfigError, ContractError), match=said):
        make()


def test_direct_rules_need_the_error_at_the_output() -> None:
    node = Physical(TWIN, "adfa", features=5, **ENCODE)
    inner = nn.Sequential(nn.Linear(6, 5), node)
    with torch.no_grad():
        assert inner(x()).shape == (4, 5)  # forwards is allowed
    before = node.passes
    with pytest.raises(ContractError, match="DirectFeedback"):
        inner(x())
    assert node.passes == before  # nothing was sent

    class Leaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.readout = inner, nn.Linear(5, 3)
            self.hidden = torch.empty(0)

        def forward(self, values: Tensor) -> Tensor:
            self.hidden = self.inner(values)
            out: Tensor = self.readout(self.hidden)
            return out

    leaking = Leaking()
    net = DirectFeedback(leaking, 3)
    net(x())
    with pytest.raises(ContractError, match="the loss does not come from the output"):
        leaking.hidden.sum().backward()
    with pytest.raises(ContractError, match=r"\(batch, 4\)"):
        DirectFeedback(leaking, 4)(x())


def test_what_the_device_refuses_is_refused_and_made_safe() -> None:
    with pytest.raises(OutOfRange):
        Physical(TWIN, "pat", **ENCODE)(torch.full((1, 2), math.nan))
    device = Mixing()
    with pytest.raises(OutOfRange):
        Physical(device, decode=hil.Decode(), overflow="refuse")(torch.full((1, 5), 11.0))
    assert device.closed > 0
    leaking = Mixing()
    leaking.forward = lambda x: torch.ones(1, 4, requires_grad=True)  # type: ignore[method-assign]
    with pytest.raises(ContractError, match="requires grad"):
        Physical(leaking, decode=hil.Decode())(torch.zeros(1, 5))
    on = []

    def write(values: np.ndarray) -> None:
        on.append(True)

    def read() -> np.ndarray:
        if len(on) > 5:
            raise OSError("the cable came off")
        return np.zeros(3)

    ports = hil.Port("dac", -1, 1, "V", 3), hil.Port("adc", -1, 1, "V", 3)
    rig = hil.from_functions(write, read, *ports, on.clear)
    with pytest.raises(ForeignError, match="came off"):
        Physical(rig, decode=hil.Decode())(torch.zeros(9, 3))
    assert not on


EXITING = """
import torch, hil

class Plain:
    spec = hil.Spec(hil.Port("in", -1, 1, size=2), hil.Port("out", -1, 1, size=2))
    def forward(self, x): return x
    def close(self): print("closed")

class Careful(Plain):
    def safe(self): print("safe")

class Stuck(Plain):
    def safe(self): raise OSError("relay stuck")

for made in (Plain(), Stuck(), Careful()):
    hil.nn.Physical(made, "straight_through", decode=hil.Decode())(torch.zeros(1, 2))
"""


def test_devices_of_ones_own_are_made_safe_when_python_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXITING], capture_output=True, text=True, check=True, timeout=100,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["safe", "closed"]  # the last one first
    assert done.stderr.count("OUTPUTS NOT KNOWN TO BE SAFE: OSError: relay stuck") == 1


def test_a_bench_as_a_module(tmp_path: Path) -> None:
    with hil.open(ROOT / "benches" / "mzm_awg_scope.toml") as bench:
        node = Physical(bench, "pat", gain=1.5, overflow="fold", period=7.04)
        net = nn.Sequential(nn.Linear(6, 5), node, nn.Linear(5, 3))
        nn.functional.cross_entropy(net(x()), LABEL).backward()
        assert net[0].weight.grad.abs().max() > 0
        assert node.passes == 20
    with pytest.raises(hil.HilError):
        net(x())


KILLED = f"""
import time, torch, hil
with hil.open({str(ROOT / "benches" / "mzm_awg_scope.toml")!r}) as bench:
    node = hil.nn.Physical(bench, "straight_through", gain=1.5, overflow="fold", period=7.04, decode=hil.Decode())
    while True:
        node(torch.rand(8, 4))
        print("on", flush=True)
"""


def test_a_loop_of_ones_own_that_is_killed_leaves_the_bench_safe(tmp_path: Path) -> None:
    """The guardian, which has the same stderr, outlives the script and says what it read back."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as script:  # fmt: skip
        assert script.stdout is not None
        assert script.stderr is not None
        assert script.stdout.readline() == "on\n"
        script.kill()
        told = script.stderr.read()  # until the guardian ends
    assert "trainer gone" in told
    assert "safe, read back" in told
    assert "made safe" in told
