"""Parameters of any package as a Device: steps, rest, holding, read-back; with a package of this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from drivers.parameters import Package, Parameters
from drivers.pymeasure import PyMeasure
from drivers.qcodes import QCoDeS
from hil.conformance import check_device
from hil.errors import ConfigError, InstrumentError, NotAReading, OutOfRange, UnsafeOutputs

LOG: list[tuple[str, Any]] = []


class Box:
    """Two gates, a switch and a current."""

    def __init__(self, **begin: float) -> None:
        self.gate_1, self.gate_2, self.on, self.spoiled = 0.0, 0.0, False, None
        for name, value in begin.items():
            setattr(self, name, value)

    @property
    def current(self) -> Any:
        return self.gate_1 + 2 * self.gate_2 if self.spoiled is None else self.spoiled


class Mine:
    stuck: ClassVar[set[str]] = set()

    def begin(self, name: str, table: Mapping[str, Any]) -> tuple[Any, bool]:
        return Box(**table), True

    def put(self, instrument: Any, parameter: str, value: Any) -> None:
        LOG.append((parameter, value))
        if parameter not in self.stuck:
            setattr(instrument, parameter, value)

    def get(self, instrument: Any, parameter: str) -> Any:
        return getattr(instrument, parameter)

    def close(self, instrument: Any) -> None:
        LOG.append(("close", None))


class Boxes(Parameters):
    package: ClassVar[Package] = Mine()


def boxes(begin: Mapping[str, float] | None = None, **more: Any) -> Boxes:
    LOG.clear()
    settings: dict[str, Any] = {"low": (-1.2, -0.7), "high": (0.6, 0.3), "max_step": 0.1, "step_s": 1e-6, **more}
    return Boxes(
        {"box": begin or {}}, ["box.gate_1", "box.gate_2"], ["box.current"], reading_low=-10, reading_high=10,
        hold={"box.on": True}, safe={"box.on": False}, **settings,
    )  # fmt: skip


def test_it_keeps_the_contract() -> None:
    check_device(boxes, sent=lambda device: len(LOG))


def test_it_goes_in_steps_holds_and_ends_at_rest() -> None:
    device = boxes({"gate_1": 0.55})  # left so by whoever had it before
    assert LOG[-2:] == [("on", False), ("on", True)]
    x = torch.tensor([[0.6, -0.7], [-1.2, 0.3]])
    assert torch.allclose(device.forward(x), torch.tensor([[-0.8], [-0.6]]))
    device.close()
    device.close()
    assert LOG[-2:] == [("on", False), ("close", None)]
    for name, low, high, first in (("gate_1", -1.2, 0.6, 0.55), ("gate_2", -0.7, 0.3, 0.0)):
        values = np.array([first, *(value for parameter, value in LOG if parameter == name)])
        assert np.abs(np.diff(values)).max() <= 0.1 + 1e-9
        assert low <= values.min()
        assert values.max() <= high
        assert values[-1] == 0.0


def test_what_is_out_of_limits_is_refused() -> None:
    device = boxes()
    sent = len(LOG)
    with pytest.raises(OutOfRange, match="channel 2"):
        device.forward(torch.tensor([[0.4, 0.4]]))
    assert len(LOG) == sent


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"hold": {"box.gate_1": 0.1}}, "set by hold"),
        ({"safe": {"box.gate_2": 0.1}}, "set by safe"),
        ({"drive": ["box.gate_1", "box.gate_1"]}, "driven by two inputs"),
    ],
)
def test_tables_that_contradict_each_other_are_refused_before_anything_is_opened(more: dict[str, Any], said: str) -> None:
    LOG.clear()
    with pytest.raises(ConfigError, match=said):
        Boxes(**{
            "instruments": {"box": {}}, "drive": ["box.gate_1", "box.gate_2"], "read": ["box.current"], "low": -1, "high": 1,
            "reading_low": -1, "reading_high": 1, **more,
        })  # fmt: skip
    assert not LOG


def test_parameters_that_do_not_take_their_safe_value_are_unsafe() -> None:
    Mine.stuck.add("on")
    try:
        with pytest.raises(UnsafeOutputs, match=r"box\.on = 3"):
            boxes({"on": 3})
    finally:
        Mine.stuck.clear()
    assert LOG[-1] == ("close", None)


def test_faults_of_the_package_are_told() -> None:
    device = boxes()
    box = device._opened["box"]
    box.spoiled = float("nan")
    with pytest.raises(NotAReading):
        device.forward(torch.zeros(1, 2))
    box.spoiled = "no signal"
    with pytest.raises(InstrumentError, match="ValueError"):
        device.forward(torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="other"):
        Boxes({"box": {}}, ["other.gate"], ["box.current"], -1, 1, -1, 1)
    assert LOG[-1] == ("close", None)


@pytest.mark.parametrize(("kind", "module"), [(PyMeasure, "pymeasure"), (QCoDeS, "qcodes")])
def test_a_package_that_is_missing_is_named(kind: type[Parameters], module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigError, match="pip install"):
        kind({"box": {"of": "nowhere:Box"}}, ["box.a"], ["box.b"], -1, 1, -1, 1)
