"""hil export: the numbers of run folders, unchanged, in the files of other programs; weights that other networks take."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hil
from hil import cli

EXPERIMENT = """
seed = 1
data = {{ use = "digits", train_examples = 256 }}
network = {{ widths = [64, 12, 10] }}
device = {device}
encode = {{ gain = 2.0, overflow = "clip" }}
learner = {learner}
train = {{ epochs = 2, batch = 64 }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs on a node, and one on spiking neurons."""
    place = tmp_path_factory.mktemp("runs")
    kinds = {
        "a": ('{ use = "mach_zehnder" }', '{ use = "adfa" }'),
        "b": ('{ use = "mach_zehnder" }', '{ use = "last_layer" }'),
        "spikes": ('{ chip = "lif", leak = 0.6, threshold_mismatch = 0.05, leak_mismatch = 0.05 }', '{ use = "adfa_snn" }'),
    }
    for name, (device, learner) in kinds.items():
        (place / f"{name}.toml").write_text(EXPERIMENT.format(device=device, learner=learner), encoding="utf-8")
        assert cli.run(["train", str(place / f"{name}.toml"), "--run", str(place / name)]) == 0
    return place


def told(folder: Path) -> list[tuple[str, int, str, float, float]]:
    """What an export must say: run, epoch, split, loss, accuracy."""
    found = []
    for name in ("a", "b"):
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        summary = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))
        test = {
            "epoch": summary["best_epoch"],
            "split": "test",
            "loss": summary["test_loss"],
            "accuracy": summary["test_accuracy"],
        }
        found += [(name, x["epoch"], x["split"], x["loss"], x["accuracy"]) for x in [*lines, test]]
    return found


@pytest.fixture
def exported(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    def export(to: str, *names: str) -> Path:
        monkeypatch.chdir(folder)
        out = tmp_path / f"out.{to}"
        assert cli.run(["export", *(names or ("a", "b")), "--to", to, "--out", str(out)]) == 0
        return out

    return export


def test_csv(exported: object, folder: Path) -> None:
    rows = list(csv.DictReader(exported("csv").open(encoding="utf-8")))  # type: ignore[operator]
    found = [(r["run"], int(r["epoch"]), r["split"], float(r["loss"]), float(r["accuracy"])) for r in rows]
    assert found == told(folder)
    assert {(r["run"], r["learner"], r["seed"], r["network"], r["provenance"]) for r in rows} == {
        ("a", "adfa", "1", "64-12-10", "twin"), ("b", "last_layer", "1", "64-12-10", "twin"),
    }  # fmt: skip


def test_parquet(exported: object, folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.read_parquet(exported("parquet"))  # type: ignore[operator]
    assert list(frame[["run", "epoch", "split", "loss", "accuracy"]].itertuples(index=False, name=None)) == told(folder)


def test_xarray(exported: object, folder: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    found = xarray.load_dataset(exported("xarray"), engine="h5netcdf")  # type: ignore[operator]
    assert found.sizes == {"run": 2, "epoch": 2, "split": 3}
    for run, epoch, split, loss, accuracy in told(folder):
        there = found.sel(run=run, epoch=epoch, split=split)
        assert (float(there.loss), float(there.accuracy)) == (loss, accuracy)
        assert str(there.learner.values) == {"a": "adfa", "b": "last_layer"}[run]


def test_safetensors_is_a_plain_state_dict(exported: object, folder: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = exported("safetensors", "a")  # type: ignore[operator]
    state = load_file(path)
    assert all(torch.equal(value, state[name]) for name, value in hil.Run(folder / "a").state_dict().items())
    with safe_open(path, "pt") as file:
        assert file.metadata()["provenance"] == "twin"
    layers = nn.ModuleList([nn.Linear(64, 12), nn.Linear(12, 10)])  # as docs/how-to/log_and_export.md says
    layers.load_state_dict({name.removeprefix("layers.").replace("synapse.", ""): value for name, value in state.items()})


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_a_nir_graph_run_by_hand_gives_the_scores_of_the_network(reset: str) -> None:
    nir = pytest.importorskip("nir")
    from hil.build.nir_graph import graph
    from hil.encoding import Encode
    from hil.learners.adfa_snn import ADFASNN
    from hil.network import Layer, Network
    from hil.seeding import generator
    from sim_devices.lif_array import LifArray, Neuron
    from sim_devices.spiking_array import SpikingArray

    torch.manual_seed(0)
    neuron = Neuron(leak=0.6, v_rest=-0.3, reset=reset, threshold_mismatch=0.05, leak_mismatch=0.05)  # type: ignore[arg-type]
    layers = []
    for number, (wide, size) in enumerate([(64, 30), (30, 20)]):
        array = SpikingArray(LifArray(size, neuron, seed=number))
        layers.append(Layer(nn.Linear(wide, size), array, Encode.onto(array.spec.inputs, 2.0, 0.1)))
    net = Network([*layers, Layer(nn.Linear(20, 10))])
    learner = ADFASNN.build(net, ADFASNN.Settings(time_steps=7), 10, generator(0, 0, "learner"))
    x = hil.load("digits").test.x[:40]
    wanted = learner.predict(net, x).numpy()
    found = run_by_hand(nir, graph(net, 7), x.numpy())
    assert np.abs(wanted).max() > 0.1
    assert np.allclose(found, wanted, atol=1e-5)


def run_by_hand(nir: object, made: object, x: np.ndarray) -> np.ndarray:
    """Euler's method with dt = 1, over the nodes in the order of the edges."""
    metadata, nodes = made.metadata, made.nodes  # type: ignore[attr-defined]
    order = ["input", *(after for _, after in made.edges)]  # type: ignore[attr-defined]
    state = dict.fromkeys(order, (0.0, 0.0))
    total: np.ndarray | float = 0.0
    for _ in range(metadata["time_steps"]):
        h = x
        for name in order:
            node = nodes[name]
            if isinstance(node, nir.Affine):  # type: ignore[attr-defined]
                h = h @ node.weight.T + node.bias
            elif isinstance(node, nir.LIF):  # type: ignore[attr-defined]
                v, s = state[name]
                v = np.where(s, node.v_reset, v) if metadata["reset"] == "hard" else v - (node.v_threshold - node.v_reset) * s
                v = v + ((node.v_leak - v) + node.r * h) / node.tau
                h = (v > node.v_threshold).astype(np.float32)
                state[name] = v, h
        total = total + h
    return np.asarray(total / metadata["time_steps"])


def test_nir_of_a_run(exported: object, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nir = pytest.importorskip("nir")
    made = nir.read(exported("nir", "spikes"))  # type: ignore[operator]
    weight = hil.Run(folder / "spikes").state_dict()["layers.0.synapse.weight"]
    assert np.allclose(made.nodes["synapse_0"].weight, 2.0 * weight.numpy())
    assert cli.run(["export", str(folder / "a"), "--to", "nir", "--out", "x.nir"]) == 2
    assert 'chip = "lif"' in capfd.readouterr().err


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.csv").write_text("mine", encoding="utf-8")
    a, b = str(folder / "a"), str(folder / "b")
    for words, said in (
        ([], "which run?"),
        ([a, b, "--to", "safetensors"], "weights are of one run"),
        ([a, "--out", str(tmp_path / "there.csv")], "nothing is overwritten"),
        ([str(tmp_path)], "not a run folder"),
        ([a, "--to", "excel"], "excel"),
    ):
        assert cli.run(["export", *words]) == 2
        assert said in capfd.readouterr().err
    assert (tmp_path / "there.csv").read_text(encoding="utf-8") == "mine"


def test_a_package_that_is_missing_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hil.commands.export.find_spec", lambda name: None)
    assert cli.run(["export", str(folder / "a"), "--to", "parquet", "--out", str(tmp_path / "x")]) == 2
    assert "pip install 'hil[parquet]'" in capfd.readouterr().err
