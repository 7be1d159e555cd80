"""A device of two functions: nothing out of limits is written, and whatever goes wrong, its outputs are safe at once."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import hil
from hil.conformance import check_device
from hil.errors import ContractError, ForeignError, OutOfRange, UnsafeOutputs

DAC, ADC = hil.Port("dac", -1, 1, "V", size=2), hil.Port("adc", -5, 5, "V", size=3)


class Rig:
    """Keeps what was written; answers with three values."""

    def __init__(self) -> None:
        self.written: list[list[float]] = []
        self.made_safe = 0
        self.answer: Any = None

    def write(self, values: np.ndarray) -> None:
        assert values.shape == (2,)
        assert values.dtype == np.float32
        self.written.append(values.tolist())
        values[:] = 99.0  # the device's own copy

    def read(self) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return [*self.written[-1], 0.5] if self.answer is None else self.answer

    def safe(self) -> None:
        self.made_safe += 1

    def device(self, **more: Any) -> Any:
        return hil.from_functions(self.write, self.read, DAC, ADC, self.safe, **more)


def test_example_after_example() -> None:
    rig = Rig()
    x = torch.tensor([[0.25, -0.5], [1.0, 0.0]])
    device = rig.device()
    answer = device.forward(x)
    assert answer.tolist() == [[0.25, -0.5, 0.5], [1.0, 0.0, 0.5]]
    assert answer.dtype == torch.float32
    assert x.tolist() == [[0.25, -0.5], [1.0, 0.0]]
    assert rig.made_safe == 0


@pytest.mark.parametrize("wrong", [1.001, -7.0, float("nan"), float("inf")])
def test_nothing_is_written_of_a_batch_that_is_out_of_limits(wrong: float) -> None:
    rig = Rig()
    with pytest.raises(OutOfRange):
        rig.device().forward(torch.tensor([[0.0, 0.0], [0.0, wrong]]))
    assert rig.written == []


@pytest.mark.parametrize("shape", [(2, 3), (2,), (1, 2, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    rig = Rig()
    with pytest.raises((OutOfRange, ContractError)):
        rig.device().forward(torch.zeros(shape))
    assert rig.written == []


@pytest.mark.parametrize(
    "answer",
    [[0.0, 0.0], 1.0, [[0.0], [0.0], [0.0]], [0.0, float("nan"), 0.0], [0.0, 0.0, float("-inf")], [1j, 0, 0], [1e300, 0, 0]],
)
def test_what_is_no_measurement_is_refused_and_outputs_are_safe(answer: Any) -> None:
    rig = Rig()
    rig.answer, device = answer, rig.device()
    with pytest.raises(ContractError, match="no measurement"):
        device.forward(torch.zeros(1, 2))
    assert rig.made_safe == 1


@pytest.mark.parametrize("answer", [None.__class__, "1 V", ["a", "b", "c"], [[0.0], [0.0, 1.0], 2.0]])
def test_what_is_no_number_is_refused_and_outputs_are_safe(answer: Any) -> None:
    rig = Rig()
    rig.answer, device = answer, rig.device()
    with pytest.raises((ContractError, ForeignError)):
        device.forward(torch.zeros(1, 2))
    assert rig.made_safe == 1


@pytest.mark.parametrize("error", [RuntimeError("no light"), SystemExit(3), MemoryError(), ZeroDivisionError()])
def test_an_error_of_the_users_names_their_line_and_outputs_are_safe(error: BaseException) -> None:
    rig = Rig()
    rig.answer, device = error, rig.device()
    with pytest.raises(ForeignError) as caught:
        device.forward(torch.zeros(3, 2))
    assert len(rig.written) == 1
    assert rig.made_safe == 1
    assert "in read: raise self.answer" in str(caught.value)
    assert "safe, by the safe() that was given" in str(caught.value)


def test_ctrl_c_inside_a_function_makes_safe_and_stays_a_ctrl_c() -> None:
    rig = Rig()
    rig.answer, device = KeyboardInterrupt(), rig.device()
    with pytest.raises(KeyboardInterrupt):
        device.forward(torch.zeros(1, 2))
    assert rig.made_safe == 1


def test_a_safe_that_fails_is_the_loudest() -> None:
    rig = Rig()
    rig.answer = RuntimeError("no light")

    def stuck() -> None:
        raise OSError("relay stuck")

    device = hil.from_functions(rig.write, rig.read, DAC, ADC, stuck)
    with pytest.raises(UnsafeOutputs, match="relay stuck") as caught:
        device.forward(torch.zeros(1, 2))
    assert isinstance(caught.value.__cause__, ForeignError | OSError)
    with pytest.raises(UnsafeOutputs):
        device.close()


def test_closed_twice_is_made_safe_once_and_cannot_be_driven() -> None:
    rig = Rig()
    device = rig.device()
    device.close()
    device.close()
    assert rig.made_safe == 1
    with pytest.raises(ContractError, match="closed"):
        device.forward(torch.zeros(1, 2))
    del device
    gc.collect()
    assert rig.made_safe == 1


def test_forgotten_or_at_the_end_of_python_it_is_made_safe() -> None:
    rig = Rig()
    rig.device().forward(torch.zeros(1, 2))
    gc.collect()
    assert rig.made_safe == 1
    code = (
        "import hil, torch\np = hil.Port('p', 0, 1)\n"
        "d = hil.from_functions(lambda v: None, lambda: [0.0], p, p, lambda: print('made safe', flush=True))\n"
        "d.forward(torch.zeros(1, 1))\nraise SystemExit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 7
    assert done.stdout == "made safe\n"


def test_who_answers_is_unknown_until_told() -> None:
    assert Rig().device().spec.provenance == "unknown"
    assert Rig().device(provenance="real").spec.provenance == "real"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"write": 3}, "write makes no sense"),
        ({"read": None}, "read makes no sense"),
        ({"inputs": (0, 5)}, "inputs makes no sense"),
        ({"outputs": "adc"}, "outputs makes no sense"),
        ({"safe": "off"}, "safe makes no sense"),
        ({"settle_s": -1}, "settle_s makes no sense"),
        ({"settle_s": float("nan")}, "settle_s makes no sense"),
        ({"provenance": "hardware"}, "provenance makes no sense"),
    ],
)
def test_arguments_are_checked(change: dict[str, Any], said: str) -> None:
    rig = Rig()
    given = {"write": rig.write, "read": rig.read, "inputs": DAC, "outputs": ADC, **change}
    with pytest.raises(ContractError, match=said):
        hil.from_functions(**given)


def test_it_keeps_the_contract_of_a_device() -> None:
    held = np.zeros(2)

    def write(values: np.ndarray) -> None:
        held[:] = values

    check_device(lambda: hil.from_functions(write, lambda: np.tanh(held), DAC, hil.Port("adc", -5, 5, "V", 2)))
