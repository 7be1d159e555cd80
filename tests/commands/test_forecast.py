"""hil doctor EXPERIMENT: how long an epoch takes, and what takes it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from drivers.waveform.device import Stats
from hil.build.training import built
from hil.cli import run
from hil.commands.forecast import Forecast, forecast, stats_of
from hil.commands.loop_check import of_instruments, shares
from hil.config.experiment import read_experiment
from hil.devices.meter import metered
from hil.wrapper import Wrapper
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

TWIN = """
[data]
use = "digits"
[network]
widths = [64, 16, 10]
[device]
use = "mach_zehnder"
[encode]
overflow = "clip"
[learner]
use = "adfa"
[train]
batch = 100
"""


def test_an_epoch_is_predicted_from_some_steps_and_nothing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "twin.toml"
    path.write_text(TWIN, encoding="utf-8")
    heard = io.StringIO()
    found = forecast(path, ["train.batch=200"], Console(file=heard, width=200))
    assert (found.steps, found.pieces) == (8, 1)
    assert found.epoch_s >= 7.18 * found.step_s + found.part_s  # and what a change of the batch costs, on a busy machine much
    assert set(found.shares) == {"device", "host"}
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.bottleneck in heard.getvalue()
    assert [one.name for one in tmp_path.iterdir()] == ["twin.toml"]


@pytest.mark.parametrize("fresh", [True, False])
def test_a_run_keeps_into_how_many_pieces_it_cuts(tmp_path: Path, fresh: bool) -> None:
    path = tmp_path / "twin.toml"
    path.write_text(TWIN, encoding="utf-8")
    with built(read_experiment(path), fresh=fresh) as made:
        assert made.experiment.network.pieces == (1 if fresh else None)


def test_what_the_instruments_did_is_told_apart() -> None:
    spent = {"upload_s": 2.0, "wait_s": 3.0, "read_s": 4.0, "settings_s": 0.0, "played_s": 0.5}
    parts = shares(of_instruments(spent), 10.0, "host")
    assert parts == pytest.approx({
        "upload": 0.2, "trigger": 0.25, "acquisition": 0.05, "download": 0.4, "settings": 0.0, "host": 0.1,
    })  # fmt: skip
    assert Forecast(1.0, 1.0, 1.0, 1, 1.0, 2, parts).bottleneck == "download"


def test_what_a_waveform_device_counts_is_found_under_what_wraps_it() -> None:
    class Counting(Simulated):
        stats = Stats(shots=3)

    inner = Counting(MachZehnder())
    assert stats_of(metered(Wrapper(inner))) is Counting.stats
    assert stats_of(metered(Simulated(MachZehnder()))) is None


def test_an_experiment_has_no_passport(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "twin.toml"
    path.write_text(TWIN, encoding="utf-8")
    assert run(["doctor", str(path), "--json", str(tmp_path / "passport.json")]) == 2
    assert "an experiment has no passport" in capsys.readouterr().err
    assert not (tmp_path / "passport.json").exists()
