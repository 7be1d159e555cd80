"""Every instrument of the table of supported ones is known by name: to the nearest-name hint, the schemas and the listings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hil.config.resolve import DRIVERS, SIMULATED

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "reference" / "supported.md").read_text(encoding="utf-8")
BOXES = {path.stem for path in (ROOT / "sim_devices" / "instruments").glob("*.py")}
DEVICES = {"drivers.moku_go:MokuGo"}  # a Device of its own, in a host: no instrument of a bench
SUPPORTED = sorted(set(re.findall(r"`(drivers\.\w+:\w+)`", TABLE)) - DEVICES)


@pytest.mark.parametrize("path", SUPPORTED)
def test_a_supported_instrument_is_known_and_so_is_its_simulated_one(path: str) -> None:
    module = path.partition(":")[0].rpartition(".")[2]
    assert path in DRIVERS
    if module in BOXES:
        assert any(one.startswith(f"sim_devices.instruments.{module}:") for one in SIMULATED)
