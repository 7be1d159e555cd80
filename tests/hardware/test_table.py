"""A bench as it stands on the table: `pytest tests/hardware --bench benches/my_table.toml`. Outputs are driven over their port.

Without --bench the shipped virtual bench is used, so that these tests cannot rot.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hil.build.bench import open_bench
from hil.config.bench import BenchFile, read_bench
from hil.errors import OutOfRange
from hil.training.transfer_curve import measure

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--bench") or ROOT / "benches" / "mzm_awg_scope.toml")


def test_the_bench_answers_to_its_drive(path: Path) -> None:
    """Opens, refuses what is out of range, shows a transfer curve with a swing, gives the same answer twice within its noise,
    and ends with its outputs read back as off."""
    bench = read_bench(path)
    assert isinstance(bench, BenchFile)
    with open_bench(bench) as opened:
        device = opened.device
        assert device is not None
        try:
            port = device.spec.inputs
            with pytest.raises(OutOfRange):
                device.forward(torch.full((1, 4), port.high * 1.01 + 0.01))
            curve = measure(device, points=64, repeats=4)
            assert curve.decode().scale > 0
            again = measure(device, points=64, repeats=4)
            apart = (again.mean - curve.mean).abs().max()
            assert apart < 10 * curve.spread.mean() + 0.02 * (curve.mean.max() - curve.mean.min())
        finally:
            device.close()  # raises UnsafeOutputs if the output cannot be read back as off
