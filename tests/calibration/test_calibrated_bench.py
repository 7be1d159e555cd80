"""The waveform steps through drivers, VISA and simulated instruments, on a specimen that they do not know."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from calibration.sequence import Subject, calibrated
from calibration.waveform.sequence import waveform
from hil.build.bench import open_bench
from hil.build.shapes.waveform import OnPlant
from hil.commands.calibrate import calibrate
from hil.config.bench import bench_of
from hil.config.read import read_toml
from hil.devices.recovery import Ladder
from hil.devices.resilient import resilient
from sim_devices.mach_zehnder import MachZehnder

BENCH = Path("benches/mzm_awg_scope.toml")
NO_STEPS = ("iq_bias_laser", "spiking_board", "integrating_board", "phase_mask_camera")  # `hil calibrate` refuses them
LEFT_OUT = (*NO_STEPS, "pxi_dopant_network")  # whose package may not be installed
SHEET = MachZehnder(v_pi_v=3.5)


def test_a_specimen_is_found_through_the_wire() -> None:
    table = read_toml(BENCH)
    bench = bench_of({**table, "virtual": {**table["virtual"], "specimen": 17, "seed": 17}}, BENCH)
    with open_bench(bench) as opened:
        assert isinstance(opened.device, OnPlant)
        plant = opened.device.control
        steps = {s.name: s for s in calibrated(waveform(), Subject(resilient(opened.device, Ladder), SHEET, 1))}
        assert all(step.good for step in steps.values()), [(s.name, s.problems) for s in steps.values() if not s.good]
        found = {**steps["twin"].estimates, "delay_s": steps["delay"].estimates["delay_s"]}
        where = {"phase_rad": "state.0", "delay_s": "cable.delay_s"}
        for name, estimate in found.items():
            truth = plant.get(where.get(name, f"node.{name}"))
            assert estimate.away(truth) < 4, (name, str(estimate), truth)
    assert steps["dark"].figures["step"] == 0.5 / 1024  # the converter has ten bits
    assert 0.5e-3 < steps["twin"].figures["drive_step"] < 4e-3  # the generator has twelve, over 8 V: 1.95 mV
    assert found["delay_s"].sigma < 1e-11
    assert found["bandwidth_hz"].sigma < 0.005 * found["bandwidth_hz"].value
    assert 0.8 < steps["twin"].figures["chi2"] < 1.2


def test_a_coarse_converter_in_slower_records_is_no_obstacle() -> None:
    """Eight bits with noise below a step, and ten million symbols a second: drift and curve are found all the same."""
    path = Path("benches/siglent_rigol.toml")
    table = read_toml(path)
    bench = bench_of({**table, "virtual": {**table["virtual"], "specimen": 2, "seed": 2}}, path)
    with open_bench(bench) as opened:
        assert isinstance(opened.device, OnPlant)
        steps = {s.name: s for s in calibrated(waveform(), Subject(resilient(opened.device, Ladder), SHEET, 2))}
        assert all(step.good for step in steps.values()), [(s.name, s.problems) for s in steps.values() if not s.good]
        found = steps["twin"].estimates
        for name, where in {"v_pi_v": "node.v_pi_v", "phase_rad": "state.0", "drift_rad_per_s": "node.drift_rad_per_s"}.items():
            truth = opened.device.control.get(where)
            assert found[name].away(truth) < 4, (name, str(found[name]), truth)
        assert steps["noise"].figures["repeated"] > 0.05 * steps["noise"].figures["step"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(p for p in Path("benches").glob("*.toml") if p.stem not in LEFT_OUT), ids=lambda p: p.stem
)
def test_every_bench_that_is_shipped_calibrates(path: Path, tmp_path: Path) -> None:
    assert calibrate(path, tmp_path, 0, Console(file=io.StringIO())).exists()
