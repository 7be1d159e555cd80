"""How data of one's own are split, standardised, and read when they are wanted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import hil
from hil.data import streamed
from hil.data.dataset import Dataset, batches, load, usable
from hil.data.order import Division, divided
from hil.errors import ConfigError, DataError
from sim_devices.mach_zehnder import MachZehnder

COUNT = 100
X = np.arange(COUNT, dtype=np.float64)  # the value of an example is its number
SPLITS = ("train", "validation", "test")


def numbers(data: Dataset) -> dict[str, list[int]]:
    return {split: getattr(data, split).x[:, 0].int().tolist() for split in SPLITS}


def test_shares_are_kept_every_example_is_used_once_and_the_draw_never_changes() -> None:
    found = numbers(load((X, X + 0.5), split={"validation": 0.2, "test": 0.3}))
    assert [len(found[split]) for split in SPLITS] == [50, 20, 30]
    assert sorted(chain(*found.values())) == list(range(COUNT))
    assert found["train"][:6] == [84, 36, 88, 74, 64, 20]
    other = numbers(load((X, X + 0.5), split={"validation": 0.2, "test": 0.3, "seed": 1}))
    assert other["train"] != found["train"]


def test_every_class_is_in_every_split_by_its_share() -> None:
    y = np.where(X < 80, "many", "few")
    data = load((X, y), split={"validation": 0.1, "test": 0.2})
    assert [int((getattr(data, split).y == 0).sum()) for split in SPLITS] == [14, 2, 4]
    assert data.classes == ("few", "many")


def test_a_series_keeps_its_order() -> None:
    found = numbers(load((X, X + 0.5), split={"order": "kept"}))
    assert found == {"train": list(range(80)), "validation": list(range(80, 90)), "test": list(range(90, 100))}


@pytest.mark.parametrize("order", ["shuffled", "kept"])
def test_a_group_is_in_one_split(order: str) -> None:
    who = (X // 7).astype(int)
    found = numbers(load({"x": X, "y": X + 0.5, "who": who}, split={"group": "who", "order": order}))
    groups = {split: {number // 7 for number in found[split]} for split in SPLITS}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert sorted(chain(*found.values())) == list(range(COUNT))
    assert all(4 <= len(found[split]) <= 16 for split in ("validation", "test"))
    if order == "kept":
        assert found["test"][-1] == COUNT - 1
    else:
        assert found["train"] != sorted(found["train"])


def test_a_group_is_a_column_too_and_no_input(tmp_path: Path) -> None:
    lines = ["a,who,what", *(f"{i},{i // 10},{i % 2}" for i in range(COUNT))]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    data = load(tmp_path / "t.csv", split={"group": "who"})
    assert data.train.x.shape == (80, 1)
    assert {n // 10 for n in numbers(data)["test"]} & {n // 10 for n in numbers(data)["train"]} == set()


def test_splits_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, begin, end in (("a", 0, 60), ("b", 60, 80), ("c", 80, 100)):
        lines = ["value,target", *(f"{i},{i}.5" for i in range(begin, end))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = numbers(load("a.csv", split={"validation": "b.csv", "test": "c.csv"}))
    assert sorted(found["train"]) == list(range(60))
    assert found["validation"] == list(range(60, 80))
    assert found["test"] == list(range(80, 100))
    found = numbers(load("a.csv", split={"test": "c.csv", "validation": 0.5}))
    assert [len(found[split]) for split in SPLITS] == [30, 30, 20]
    (tmp_path / "c.csv").write_text("value,target\n1,1.5\n2,x\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"."):
        load("a.csv", split={"validation": "b.csv", "test": "c.csv"})


def test_splits_that_the_data_come_with_are_used() -> None:
    part = {"x_train": X[:60], "y_train": X[:60] + 0.5, "x_test": X[60:], "y_test": X[60:] + 0.5}
    for given in (part, {"train": (X[:60], X[:60] + 0.5), "test": list(zip(X[60:], X[60:] + 0.5, strict=True))}):
        found = numbers(load(given))
        assert found["test"] == list(range(60, 100))
        assert sorted(found["train"] + found["validation"]) == list(range(60))
        assert len(found["validation"]) == 6


def test_no_split_is_empty_or_refused() -> None:
    for count in range(3, 30):
        part = np.zeros(count, np.int8)
        try:
            orders = divided(Division(0.2, 0.2), part, None, None, False, "x")
        except DataError:
            assert count < 4
            continue
        assert all(len(order) for order in orders)
        assert sorted(np.concatenate(orders).tolist()) == list(range(count))


def test_standardisation_is_fitted_on_the_training_split_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (200, 3)) * np.array([1.0, 1e6, 0.0]) + 5
    x[160:] += 100.0  # what the test split would bring in
    data = load((x, rng.integers(0, 2, 200)), standardise=True, split={"order": "kept"})
    held = data.train.x.double()
    assert held[:, :2].mean(0).abs().max() < 1e-6
    assert held[:, :2].std(0, correction=0).sub(1).abs().max() < 1e-6
    assert held[:, 2].abs().max() == 0  # it never changes
    assert data.test.x[:, 0].mean() > 20


def test_sequences_are_standardised_over_time_and_keep_their_rank() -> None:
    x = np.random.default_rng(1).normal(2.0, 3.0, (50, 7, 2))
    data = load((x, x.sum(2, keepdims=True)), sequence=True, standardise=True)
    assert data.train.x.shape == (40, 7, 2)
    assert data.train.y.shape == (40, 7, 1)
    assert data.train.x.mean((0, 1)).abs().max() < 1e-6
    assert usable(data) is data
    assert load((x, np.arange(50) % 2), sequence=True).train.y.shape == (40,)
    assert load((x, np.arange(50) % 2)).train.x.shape == (40, 14)


def test_targets_are_classes_or_numbers() -> None:
    whole = np.arange(COUNT) % 3 + 5
    assert load((X, whole)).classes == ("5", "6", "7")
    assert load((X, whole)).train.y.dtype == torch.int64
    assert load((X, whole), targets="numbers").classes == ()
    assert load((X, whole), targets="numbers").train.y.dtype == torch.float32
    assert load((X, whole.astype(float)), targets="classes").classes == ("5", "6", "7")
    assert load((X, (whole % 2).astype(bool))).classes == ("0", "1")
    assert load((X, whole), classes=["7", "6", "5"]).classes == ("7", "6", "5")
    assert load((X, np.stack([X, X], 1))).train.y.shape == (80, 2)
    names = np.array([f"{number}" for number in np.arange(COUNT) % 12])
    assert load((X, names), split={"validation": 0.2, "test": 0.2}).classes == tuple(map(str, range(12)))


def test_arrays_are_trained_on_in_a_script_and_the_run_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 60)
    x = rng.normal(size=(60, 5)) + 2 * y[:, None]

    def trained(epochs: int) -> Any:
        net = hil.dense([5, 8, 2], MachZehnder(), overflow="clip")
        return hil.train(net, "adfa", (x, y), epochs=epochs, batch=16, lr=1e-2, run=tmp_path / "run", show=False, report=False)

    assert trained(2).summary["status"] == "done"
    assert trained(4).summary["status"] == "done"
    x = x + 1e-3
    with pytest.raises(hil.HilError, match="other settings"):
        trained(5)


# ---- read when it is wanted -----------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """32 MB of float32 in a file, 4,000 examples."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4_000)
    x = rng.random((4_000, 2_000), np.float32)
    np.savez(tmp_path / "large.npz", x=x, y=y)
    return tmp_path / "large.npz"


PEAK = Path("/proc/self/clear_refs")  # of Linux: writing 5 begins the peak of the resident memory anew


def peak_kb(act: Callable[[], object]) -> int:
    """By how much the resident memory of this process was larger than before at most, meanwhile."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    PEAK.write_text("5", encoding="utf-8")
    before = status("VmRSS")
    act()
    return status("VmHWM") - before


@pytest.mark.skipif(not PEAK.exists(), reason="the peak of the resident memory is asked for as Linux has it")
def test_memory_stays_flat_while_a_file_is_streamed(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "READ_BYTES", 1 << 20)
    sums = []

    def used(stream: bool) -> None:
        data = load(large, stream=stream, standardise=True)
        total = sum(float(batch.x.sum()) for batch in batches(data.train, 64, 0, 0))
        sums.append(total + sum(float(x.sum()) for x, _ in data.test.parts(100)))

    assert peak_kb(lambda: used(True)) < 12_000
    assert peak_kb(lambda: used(False)) > 32_000
    assert sums[0] == sums[1]


def test_no_more_than_the_cap_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 10)))
    np.save(tmp_path / "y.npy", np.arange(300) % 3)
    monkeypatch.setattr(streamed, "READ_BYTES", 40 * 16)
    asked: list[int] = []
    part = streamed.Streamed.whole

    def counted(self: streamed.Streamed) -> torch.Tensor:
        asked.append(len(self))
        return part(self)

    monkeypatch.setattr(streamed.Streamed, "whole", counted)
    data = load(tmp_path / "x.npy", target="y.npy", stream=True, standardise=True)
    seen = [batch.which for batch in batches(data.train, 16, 0, 0)]
    assert sorted(torch.cat(seen).tolist()) == list(range(240))
    assert asked
    assert max(asked) == 16


def test_an_array_in_fortran_order_is_read_whole(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    y = np.arange(30) % 2
    np.savez(tmp_path / "c.npz", x=x, y=y)
    np.savez(tmp_path / "f.npz", x=np.asfortranarray(x), y=y)
    assert load(tmp_path / "f.npz").checksum == load(tmp_path / "c.npz").checksum
    with pytest.raises(ConfigError, match="in memory already"):
        load(tmp_path / "f.npz", stream=True)


def test_what_the_memory_cannot_hold_is_streamed_and_never_read_at_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hil.data import examples

    for module in (examples, streamed):
        monkeypatch.setattr(module, "free_memory", lambda otherwise: 25_000_000)
    monkeypatch.setattr(streamed, "READ_BYTES", 1 << 20)
    data = load(large)
    assert isinstance(data.train.x, streamed.Streamed)
    with pytest.raises(DataError, match="all examples are needed at once"):
        data.train.x.sum()
    with pytest.raises(DataError, match="more than the memory can hold"):
        load(large, stream=False)


def test_a_streamed_tensor_answers_as_any_other() -> None:
    held = torch.arange(60.0).reshape(20, 3)
    x = streamed.Streamed(lambda which: held.numpy()[which], np.arange(20)[::-1].copy(), (3,), "x")
    real = held.flip(0)
    assert (x.shape, x.dtype, x.device, len(x), x.ndim, x.nbytes) == (real.shape, real.dtype, real.device, 20, 2, 240)
    which = torch.tensor([3, 0, 19])
    assert torch.equal(x[which], real[which])
    assert torch.equal(x[2:7], real[2:7])
    assert torch.equal(x[-3:], real[-3:])
    assert torch.equal(x[4], real[4])
    assert torch.equal(x[real[:, 0] > 30], real[real[:, 0] > 30])
    assert torch.equal(torch.cat([x, x]), torch.cat([real, real]))
    assert torch.equal(torch.cat(torch.split(x, 6)), real)
    weight = torch.ones(3, 2, requires_grad=True)
    (x @ weight).sum().backward()
    assert torch.equal(weight.grad, real.sum(0).unsqueeze(1).expand(3, 2))  # type: ignore[arg-type]
    assert x.to("cpu").dtype == torch.float32
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("first", [(0, 1), (1, 2)])
def test_streamed_sequences_become_examples_and_stay_streamed(monkeypatch: pytest.MonkeyPatch, first: tuple[int, int]) -> None:
    held, order = torch.arange(120.0).reshape(10, 4, 3), np.arange(10)[::-1].copy()
    asked: list[int] = []

    def read(which: NDArray[np.int64]) -> NDArray[np.float32]:
        asked.append(len(which))
        return held.numpy()[which]

    monkeypatch.setattr(streamed, "READ_BYTES", 4 * 12 * 2)
    x, real = streamed.Streamed(read, order, (4, 3), "x").flatten(*first), held.flip(0).flatten(*first)
    assert isinstance(x, streamed.Streamed)
    assert not asked
    assert x.shape == real.shape
    which = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([x[part] for part in torch.split(which, 2)]), real[which])
    assert torch.equal(torch.cat([x[at : at + 3] for at in range(0, len(real), 3)]), real)
    assert max(asked) <= 2
    assert torch.equal(x.whole(), real)
    assert torch.equal(x.view(-1), real.view(-1))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        x.view(7, 7)
