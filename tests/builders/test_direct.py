"""Benches without instruments: opened, trained on, refused where they claim to have some."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from calibration.certificate import Certificate
from calibration.mesh.clements import haar
from calibration.mesh.crosstalk import model_of
from calibration.mesh.phase_reading import fidelity
from calibration.mesh.sequence import voltages
from hil.build.bench import open_bench, serve_bench
from hil.build.shapes.direct import DirectBench
from hil.build.training import built
from hil.cli import out, run
from hil.commands.calibrate import calibrate
from hil.config.bench import bench_of, read_bench
from hil.config.experiment import read_experiment
from hil.errors import ConfigError
from hil.training.loop import train
from sim_devices.mzi_mesh import MZIMesh

ROOT = Path(__file__).parents[2]
MESH, CAMERA = (ROOT / "benches" / name for name in ("mzi_mesh.toml", "slm_camera.toml"))


@pytest.mark.parametrize(("path", "widths"), [(MESH, (12, 6, 30)), (CAMERA, (64, 256, 4))])
def test_the_shipped_benches_open(path: Path, widths: tuple[int, int, int]) -> None:
    bench = read_bench(path)
    assert isinstance(bench, DirectBench)
    with open_bench(bench) as opened:
        assert opened.device is not None
        spec = opened.device.spec
        assert spec.params is not None
        assert (spec.inputs.size, spec.outputs.size, spec.params.size) == widths
        assert spec.provenance == "twin"
        assert opened.resources == {}
        assert opened.instruments["node"].serial.startswith("SIM-")


def test_another_specimen_has_another_serial_number() -> None:
    def serial(specimen: int) -> str:
        table = read_bench(MESH).model_dump()
        table["virtual"]["node"]["specimen"] = specimen
        with open_bench(bench_of(table, Path("test"))) as opened:
            return opened.instruments["node"].serial

    assert serial(11) == serial(11) != serial(12)


def test_a_calibrated_mesh_is_programmed_from_its_certificate(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(MESH.read_text(encoding="utf-8").replace("modes = 6", "modes = 3"), encoding="utf-8")
    saved = calibrate(path, tmp_path / "calibrations", 0, out)
    found = {step.name: step for step in Certificate.load(saved).steps}
    chip, target = MZIMesh(modes=3, specimen=11), haar(3, torch.Generator().manual_seed(1))
    assert float(fidelity(chip.unitary(voltages(model_of(found, chip.v_max_v), target)), target)) > 0.999


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ('[instruments.camera]\nuse = "drivers.camera:Camera"\n', "instruments.camera"),
        ('[instruments.heaters]\nuse = "x:Y"\nresource = "/dev/ttyACM0"\n', "instruments.heaters"),
    ],
)
def test_instruments_are_refused(tmp_path: Path, more: str, named: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(MESH.read_text(encoding="utf-8") + more, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"no instruments of the mesh shape(.|\n)*\[{named}\]"):
        read_bench(path)


def test_a_file_without_its_node_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text('name = "x"\nshape = "camera"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="virtual is missing"):
        read_bench(path)


def test_a_node_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(CAMERA.read_text(encoding="utf-8").replace('"camera"', '"mesh"'), encoding="utf-8")
    bench = read_bench(path)
    with pytest.raises(ConfigError, match="not the shape of a mesh"), open_bench(bench):
        pass


def test_nothing_is_served_and_there_is_no_wire() -> None:
    with pytest.raises(ConfigError, match="nothing to serve"):
        serve_bench(read_bench(MESH), out)
    with pytest.raises(ConfigError, match="no wire"), open_bench(read_bench(MESH), wire=True):
        pass


@pytest.mark.parametrize(
    ("file", "sets", "least"),
    [
        ("digits_camera_phyll.toml", ("data.train_examples=600", "train.epochs=2"), 0.7),
        ("digits_mesh_pat.toml", ("data.train_examples=600", "train.epochs=8"), 0.5),
    ],
)
def test_a_node_of_many_channels_is_trained_through(file: str, sets: tuple[str, ...], least: float) -> None:
    path = ROOT / "experiments" / file
    with built(read_experiment(path, sets)) as made:
        assert made.model is None  # no curve
        for _ in train(made.training):
            pass
        assert made.training.best.score > least


def test_a_synapse_that_does_not_read_the_answer_is_refused() -> None:
    path = ROOT / "experiments" / "digits_mesh_pat.toml"
    refused = pytest.raises(ConfigError, match=r"does not read what the device answers(.|\n)*answers = 12")
    with refused, built(read_experiment(path, ("network.answers=11",))):
        pass


def test_a_training_reads_its_files_once_and_nothing_that_it_wrote(tmp_path: Path, files_read: Counter[str]) -> None:
    (tmp_path / "bench.toml").write_bytes(MESH.read_bytes())
    (tmp_path / "e.toml").write_text(
        '[data]\ntrain_examples = 64\n[network]\nwidths = [64, 12, 10]\nanswers = 6\n[device]\nbench = "bench.toml"\n'
        '[encode]\noverflow = "clip"\n[decode]\nzero = 0.0\nscale = 1e-4\n[learner]\nuse = "adfa"\n[train]\nepochs = 1\n',
        encoding="utf-8",
    )
    assert run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "r")]) == 0
    assert files_read == {"e.toml": 1, "bench.toml": 1}
