"""The buffer that drivers/nidaqmx.py plays, and what is said where the package is not installed."""

from __future__ import annotations

import numpy as np
import pytest

from drivers.nidaqmx import _ramp, buffer
from drivers.packages import needed
from hil.device import Port
from hil.errors import ConfigError


def test_a_row_ramps_then_holds() -> None:
    played = buffer(np.array([[1.0], [-1.0]]), np.array([0.0]), 2, 4)
    assert played.tolist() == [[0.5, 1.0, 1.0, 1.0, 0.0, -1.0, -1.0, -1.0]]
    assert buffer(np.array([[1.0]]), np.array([0.0]), 0, 2).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("limit", [{"max_step": 0.1}, {"slew_per_s": 100.0}, {"max_step": 0.3, "slew_per_s": (90.0, 5.0)}])
def test_no_step_of_any_channel_is_larger_than_allowed(limit: dict[str, float]) -> None:
    port = Port("gates", [-1.2, -0.7], [0.6, 0.3], "V", 2, **limit)  # type: ignore[arg-type]
    low, high = np.asarray(port.low), np.asarray(port.high)
    rows = np.random.default_rng(1).uniform(low, high, (50, 2))
    rows[3], rows[4] = low, high
    ramp = _ramp(port, 1e3)
    played = buffer(rows, np.zeros(2), ramp, ramp + 3)
    most = np.asarray(port.step_limit(1e-3)).reshape(-1, 1)
    assert (np.abs(np.diff(played, axis=1, prepend=0.0)) <= most * (1 + 1e-9)).all()
    assert (played.min(1) >= low).all()
    assert (played.max(1) <= high).all()


def test_without_limits_there_is_no_ramp() -> None:
    assert _ramp(Port("gates", -1, 1, "V", 2), 1e3) == 0


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'hil\[nidaqmx\]'"):
        needed("no_such_package_of_a_lab", "nidaqmx")
