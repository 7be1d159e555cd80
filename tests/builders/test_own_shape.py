"""A shape, with its tables, that is written outside of the packages: one file beside the bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil.build.bench import open_bench
from hil.build.calibration import settings_of
from hil.build.training import built
from hil.config.bench import bench_of, read_bench
from hil.config.experiment import read_experiment
from hil.config.read import read_toml
from hil.errors import ConfigError
from hil.training.loop import train

SHAPE = '''
"""Two instruments that share a node: what one sends, the other reads; here without a wire."""

from contextlib import contextmanager
from typing import ClassVar

from hil.build.bench import Opened, Unguarded, check_roles, role
from hil.config.bench import BenchFile
from hil.config.read import Section
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated


class Roles(Section):
    sends: str
    hears: str


class Table(Section):
    turns: int = 3


class Pair(BenchFile):
    node: Roles
    pair: Table

    def settle(self, place):
        super().settle(place)
        for key, name in (("sends", self.node.sends), ("hears", self.node.hears)):
            role(self, name, key)
        check_roles(self, (self.node.sends, self.node.hears))


class Shape:
    Bench: ClassVar = Pair
    calibration: ClassVar = "calibration.waveform.sequence:waveform"

    @contextmanager
    def open(self, bench, opening):
        yield Opened(Simulated(MachZehnder()), None, {"bench": bench.name}, {}, Unguarded(), bench.twin)

    def settings(self, bench):
        return {"pair": {"turns": bench.pair.turns}}

    def serve(self, bench, out):
        raise NotImplementedError
'''
BENCH = """
name = "two"
shape = "pair_shape:Shape"
[instruments.left]
use = "drivers.keysight_33600:Keysight33600"
low = "-1 V"
high = "1 V"
[instruments.right]
use = "drivers.keysight_infiniivision:InfiniiVision"
[node]
sends = "left"
hears = "right"
[pair]
turns = 5
"""
EXPERIMENT = """
[data]
train_examples = 64
[network]
widths = [64, 8, 10]
[device]
bench = "two.toml"
[encode]
overflow = "clip"
[learner]
use = "adfa"
[train]
epochs = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pair_shape.py").write_text(SHAPE, encoding="utf-8")
    (tmp_path / "two.toml").write_text(BENCH, encoding="utf-8")
    (tmp_path / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_it_opens_and_a_network_trains_on_it(folder: Path) -> None:
    bench = read_bench(folder / "two.toml")
    assert settings_of(bench)["pair"] == {"turns": 5}
    assert settings_of(bench)["left"]["high_v"] == 1.0
    with open_bench(bench) as opened:
        assert opened.facts == {"bench": "two"}
    with built(read_experiment(folder / "e.toml")) as made:
        assert made.node.facts == {"bench": "two"}
        assert len(list(train(made.training))) > 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pair": {"turns": "many"}}, r"two.toml: \[pair\].*turns"),
        ({"pair": {"turn": 3}}, 'Did you mean "turns"'),
        ({"node": {"sends": "left", "hears": "rigth"}}, r"\[node\] hears: no such instrument"),
        ({"node": {"sends": "left", "hears": "left"}}, "instruments without a role.*right"),
        ({"shape": "pair_shape:Shapes"}, "cannot import"),
        ({"shape": "waveforms"}, 'did you mean "waveform"'),
    ],
)
def test_what_its_tables_do_not_allow_is_refused_with_its_place(folder: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bench_of({**read_toml(folder / "two.toml"), **change}, folder / "two.toml")


def test_a_file_of_the_first_edition_is_refused_with_the_lines_to_change(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(
        'name = "x"\nshape = "waveform"\n[awg]\nuse = "a:B"\n[scope]\nuse = "c:D"\n[safe.awg]\nslew_v_per_s = 2.0\n'
        "[waveform]\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        read_bench(path)
    for line in ("[awg] becomes [instruments.awg]", 'add [node] drive = "awg", read = "scope"', "slew = "):
        assert line in caught.value.todo
