"""drivers/qcodes.py and drivers/pymeasure.py with the simulated instruments of those packages.

pip install "hil[qcodes,pymeasure]"
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from extras import needs

from drivers.make_safe import make_safe
from drivers.pymeasure import PyMeasure
from drivers.qcodes import QCoDeS
from drivers.safe import SafeState
from drivers.scpi import Identity
from hil.conformance import check_device
from hil.errors import InstrumentError

PARABOLA: dict[str, Any] = {
    "instruments": {"mock": {"of": "qcodes.instrument_drivers.mock_instruments:MockParabola"}},
    "drive": ["mock.x", "mock.y"], "read": ["mock.parabola", "mock.skewed_parabola"], "low": (-1.2, -0.7), "high": (0.6, 0.3),
    "reading_low": 0.0, "reading_high": 10.0, "max_step": 0.5, "step_s": 1e-6, "hold": {"mock.z": 0.5}, "safe": {"mock.z": 0.0},
}  # fmt: skip
FAKE: dict[str, Any] = {
    "instruments": {"fake": {"of": "pymeasure.instruments.fakes:SwissArmyFake", "wait": 0.0}},
    "drive": ["fake.output_voltage"], "read": ["fake.output_voltage", "fake.voltage"], "low": -1.0, "high": 3.0,
    "reading_low": -10.0, "reading_high": 10.0,
}  # fmt: skip


def test_parameters_of_qcodes() -> None:
    needs("qcodes")
    check_device(lambda: QCoDeS(**PARABOLA))
    device = QCoDeS(**PARABOLA)
    assert device.spec.provenance == "twin"
    assert torch.allclose(device.forward(torch.tensor([[0.6, -0.5]]))[0, 0], torch.tensor(0.36 + 0.25 + 0.25))
    mock = device._opened["mock"]
    parameters = [mock.x, mock.y, mock.z]
    device.close()
    assert [one.cache() for one in parameters] == [0.0, 0.0, 0.0]


def test_properties_of_pymeasure() -> None:
    needs("pymeasure")
    device = PyMeasure(**FAKE)
    assert device.spec.provenance == "twin"
    assert device.forward(torch.tensor([[0.0], [2.0]])).tolist() == [[0.0, 10.0], [2.0, 10.0]]
    fake = device._opened["fake"]
    device.close()
    assert fake.output_voltage == 0.0
    with pytest.raises(InstrumentError, match="has no tiem"):
        PyMeasure(**{**FAKE, "hold": {"fake.tiem": 1.0}})


def test_a_fake_of_pymeasure_beside_a_node() -> None:
    needs("pymeasure")
    from drivers.pymeasure import Adapter

    holds = {"level": {"of": "output_voltage", "low": -1, "high": 3, "unit": "V"}}
    fake = Adapter("fake", driver=FAKE["instruments"]["fake"]["of"], holds=holds, options={"wait": 0.0}, address_as="")
    assert fake.simulated
    assert fake.identity == Identity("", "SwissArmyFake", "", "")
    fake.rest_at({"level": 0.0})
    fake.hold("level", 2.0)
    assert fake.read_back("level") == 2.0
    (outcome,) = make_safe([fake.safe_state()], 0.0)  # another fake, but the same talk
    assert outcome.verified, outcome.why
    fake.close()


def test_a_mock_of_qcodes_beside_a_node() -> None:
    needs("qcodes")
    from drivers.qcodes import Adapter

    holds = {"x": {"of": "x", "low": -1, "high": 1, "unit": "V", "slew_per_s": 20.0}}
    of = PARABOLA["instruments"]["mock"]["of"]
    mock = Adapter("mock", driver=of, holds=holds, setup={"z": 0.5}, address_as="", called="gate")
    assert mock.simulated
    mock.rest_at({"x": 0.0})
    mock.hold("x", 0.7)
    assert mock.read_back("x") == 0.7
    (outcome,) = make_safe([SafeState.from_json(mock.safe_state().to_json())], 0.0)
    assert outcome.verified, outcome.why
    parameter = mock._instrument.x
    mock.close()
    assert parameter.cache() == 0.0
