"""Checkpoints come back exactly, and damaged ones are never used silently."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hil.errors import RunError
from hil.run.checkpoint import Checkpoint, latest, load, optimizer_state, prune, restore_optimizer, save, under


def point() -> Checkpoint:
    return Checkpoint({"net.w": torch.randn(3, 4), "learner.b": torch.arange(3)}, {"epoch": 2, "phase": 0.1 + 0.2})


def test_round_trip_is_exact(tmp_path: Path) -> None:
    before = point()
    after = load(save(tmp_path, "step-00000001", before))
    assert after.facts["phase"] == before.facts["phase"]
    assert all(torch.equal(after.tensors[k], v) for k, v in before.tensors.items())
    assert list(under("net", after.tensors)) == ["w"]


@pytest.mark.parametrize("damage", ["tensors cut", "tensors altered", "tensors gone", "facts cut", "facts gone"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path, "step-00000001", point())
    victim = path.with_suffix(".safetensors") if damage.startswith("tensors") else path
    payload = victim.read_bytes()
    if damage.endswith("cut"):
        victim.write_bytes(payload[: len(payload) // 2])
    elif damage.endswith("altered"):
        victim.write_bytes(payload[:-1] + bytes([payload[-1] ^ 1]))
    else:
        victim.unlink()
    with pytest.raises(RunError, match="damaged checkpoint") as caught:
        load(path)
    assert "--from" in str(caught.value)


def test_latest_and_prune(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoint"):
        latest(tmp_path)
    for step in (1, 2, 30):
        save(tmp_path, f"step-{step:08d}", point())
    prune(tmp_path, 2)
    assert latest(tmp_path).name == "step-00000030.json"
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.RMSprop, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_optimiser_goes_on_exactly(tmp_path: Path, make: object) -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(4, 3), nn.Linear(4, 3)
    two.load_state_dict(one.state_dict())
    first, second = make(one.parameters()), make(two.parameters())  # type: ignore[operator]
    grads = [torch.randn_like(p) for p in one.parameters()]

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for p, g in zip(net.parameters(), grads):
            p.grad = g.clone()
        optimizer.step()

    step(one, first)
    tensors, facts = optimizer_state(first)
    saved = load(save(tmp_path, "step-00000001", Checkpoint({**tensors, **one.state_dict()}, {"optimizer": facts})))
    two.load_state_dict({k: saved.tensors[k] for k in two.state_dict()})
    slots = {k: v for k, v in saved.tensors.items() if k in tensors}
    restore_optimizer(second, slots, saved.facts["optimizer"])
    for _ in range(3):
        step(one, first)
        step(two, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
