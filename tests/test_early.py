"""What can be refused before anything is opened is; what is finite and makes no sense is said at the end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from small import toml

from hil import cli
from hil.build import training
from hil.data.dataset import Split, load
from hil.errors import ConfigError, Stopped
from hil.search.cluster import Cluster, check_address
from hil.training.outcome import found

TWIN = toml(97)
NET = """
from torch import nn
from torch.nn import Sequential, Linear

class Double(nn.Module):
    def forward(self, x):
        return x.double()

class Rows(nn.Module):
    def forward(self, x):
        return x[:2]

def normed(kind: str = "BatchNorm1d") -> list:
    return [Sequential(Linear(64, 8), getattr(nn, kind)(8)), Linear(8, 10)]

def ending(kind: str = "Double") -> list:
    return [Linear(64, 8), Sequential(Linear(8, 10), globals()[kind]())]
"""


def hil(tmp_path: Path, capsys: pytest.CaptureFixture[str], *sets: str, text: str = TWIN) -> tuple[int, str, str]:
    (tmp_path / "e.toml").write_text(text, encoding="utf-8")
    more = [word for each in sets for word in ("--set", each)]
    code = cli.run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "r"), *more])
    return code, *capsys.readouterr()


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Opening the device fails the test."""

    def opened(*_: object) -> object:
        raise AssertionError("opened")

    monkeypatch.setattr(training, "opened_node", opened)
    (tmp_path / "early_net.py").write_text(NET, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        (["network.widths=[64, 8, 12]"], ["12 outputs", "10 outputs"]),
        (["network.widths=[64, 8, 8]"], ["8 outputs", "10 outputs"]),
        (["network.widths=[64, 8, 12]", "learner.use=ff"], ["12 outputs"]),
        (["network.widths=[64, 12]"], ["12 outputs"]),
        (["network.use=early_net:normed"], ["a batch of 1", "more than 1 value", "[train] batch = 33"]),
        (["network.use=early_net:normed", "train.batch=1"], ["a batch of 1", "[train] batch = 5"]),
        (["network.use=early_net:normed", "data.train_examples=33", "train.batch=32"], ["a batch of 1", "[train] batch = 33"]),
        (["network.use=early_net:ending"], ["a batch of 32", "float64"]),
        (["network.use=early_net:ending", "network.kind=Rows"], ["a batch of 32", "shape (2, 10)"]),
        (["optimizer.lr=nan"], ["lr"]),
        (["optimizer.lr=-1"], ["lr"]),
        (["train.threads=0"], ["threads"]),
        (["train.epochs=-1"], ["epochs"]),
    ],
)
def test_refused_unopened(tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: list[str], parts: list[str]) -> None:
    text = TWIN.replace("widths = [64, 8, 10]", "") if any("early_net" in each for each in sets) else TWIN
    code, _, err = hil(tmp_path, capsys, *sets, text=text)
    assert code == 2, err
    for part in (*parts, "Outputs: untouched", "Next: "):
        assert part in err, err
    assert not (tmp_path / "r").exists()


def test_a_norm_that_takes_one_example_and_a_learner_that_takes_more_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early_net.py").write_text(NET, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    text = TWIN.replace("widths = [64, 8, 10]", 'use = "early_net:normed"\nkind = "LayerNorm"')
    assert hil(tmp_path, capsys, "learner.use=backprop", text=text)[0] == 0
    (tmp_path / "r").rename(tmp_path / "before")
    assert hil(tmp_path, capsys, "network.widths=[64, 12, 12]", "learner.use=phyll", text=TWIN)[0] == 0


@pytest.mark.parametrize("address", ["local:0", "local:-1", "local:", "slurm:x", "slurm:0", "local:1.5", "local", "", "no:1"])
def test_no_cluster(address: str) -> None:
    with pytest.raises(ConfigError, match="no cluster") as caught:
        check_address(address)
    assert "nothing was opened" in str(caught.value)


def test_a_cluster_is_checked_before_the_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text('base = "e.toml"\n', encoding="utf-8")
    (tmp_path / "e.toml").write_text("not read", encoding="utf-8")
    code = cli.run(["search", str(tmp_path / "s.toml"), "--run", str(tmp_path / "r"), "--cluster", "local:0"])
    assert code == 2
    assert "--cluster local:0" in capsys.readouterr().err


def test_a_cluster_that_nobody_joins() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address=None, silence_logs=50, processes=False, protocol="tcp"
    ) as empty:
        cluster = Cluster(lambda a, b: b, "", empty.scheduler_address, {}, join_s=0.2)
        with pytest.raises(Stopped, match=r"nobody joined the cluster within 0\.2 s"):
            list(cluster.evaluate([()]))
        cluster.close()


@pytest.mark.parametrize(
    ("sets", "parts"),
    [
        (["optimizer.use=SGD", "optimizer.lr=1e30"], ["times that of a uniform guess", "lower [optimizer] lr"]),
        (["optimizer.lr=1e-30"], ["no better than chance", "train longer"]),
        (
            ["optimizer.lr=1e-30", "encode.gain=0.01"],
            ["no better than chance", "the drives use little of the range of the node"],
        ),
        (["encode.gain=30"], ["were folded", "lower [encode] gain"]),
    ],
)
def test_a_finite_result_that_makes_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: list[str], parts: list[str]
) -> None:
    code, out, err = hil(tmp_path, capsys, *sets)
    assert code == 0, err
    said = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))["warnings"]
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    for part in parts:
        assert f"beware  {said[0]}" in out
        assert any(part in line for line in said), said
        assert part in page
        assert part in (tmp_path / "r" / "journal.jsonl").read_text(encoding="utf-8")


def test_what_is_chance() -> None:
    """Of balanced and unbalanced classes."""
    data = load("digits")
    one_sided = Split(data.validation.x, torch.where(torch.arange(180) < 150, 3, 1))
    epochs = [{"loss": 2.0}, {"loss": 1.0, "overflow": 0.1}]
    for split, chance, good in ((data.validation, 0.16, 0.3), (one_sided, 0.85, 0.95)):
        held = dataclasses.replace(data, validation=split)
        assert "no better than chance" in "".join(found(epochs, held, chance, "fold"))
        assert list(found(epochs, held, good, "fold")) == []
    for more, part in (
        ([{"loss": 3.0}], "rose from 2 to 3"), ([{"loss": 7e29}], "times that of a uniform guess"),
        ([{"loss": float("nan")}], "times that of a uniform guess"), ([{"loss": 1.0, "overflow": 0.21}], "21% of"),
    ):  # fmt: skip
        assert part in "".join(found([*epochs, *more], data, 0.9, "clip"))
