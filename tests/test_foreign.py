"""Exceptions of the user's code, of torch and of data become our errors: place, lines of that code, outputs, exit code."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
import torch
from small import toml

from hil import cli
from hil.commands import explain
from hil.data.dataset import Dataset, Split, load, usable
from hil.device import Port, Spec
from hil.devices.meter import check_answer
from hil.errors import ContractError, DataError, ForeignError, HilError
from hil.foreign import foreign, own_lines, said

EXPERIMENT = toml(device='use = "my_lab:Node"', encode='overflow = "clip"', learner="my_lab:Mine")
LAB = """
import torch
from sim_devices.mach_zehnder import MachZehnder
from hil.learners.dfa import DFA

CALLS = [0]

class Odd(Exception):
    def __str__(self):
        raise ValueError("no words")
    __repr__ = __str__

class Node(MachZehnder):
    def __init__(self):
        super().__init__(v_pi_v=3.5)
        {init}

    def respond(self, *arguments, **more):
        CALLS[0] += 1
        answer, state = super().respond(*arguments, **more)
        if CALLS[0] > 3:
            {respond}
        return answer, state

class Mine(DFA):
    @classmethod
    def build(cls, *arguments):
        {build}
        return super().build(*arguments)

    def step(self, *arguments):
        if CALLS[0] > 3:
            {step}
        return super().step(*arguments)

    def predict(self, *arguments):
        {predict}
        return super().predict(*arguments)

    def state_dict(self, *arguments, **more):
        {state_dict}
        return super().state_dict(*arguments, **more)
"""
PLACES = ("init", "respond", "build", "step", "predict", "state_dict")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    return tmp_path


def write(lab: Path, **bodies: str) -> None:
    (lab / "my_lab.py").write_text(LAB.format(**{place: bodies.get(place, "pass") for place in PLACES}), encoding="utf-8")
    sys.modules.pop("my_lab", None)


def train(capsys: pytest.CaptureFixture[str], *more: str, first: str = "train") -> tuple[int, str]:
    code = cli.run([first, *(["e.toml", "--run", "r"] if first == "train" else ["r"]), *more])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "body", "parts"),
    [
        ("respond", "raise Odd()", ["node", "Odd", "__str__ of Odd raises ValueError", "my_lab.py:", "raise Odd()"]),
        ("respond", "raise SystemExit(0)", ["node", "SystemExit"]),
        ("respond", "raise GeneratorExit", ["node", "GeneratorExit"]),
        ("respond", "return self.respond(*arguments)", ["node", "RecursionError"]),
        ("respond", "answer = answer.double()", ["node", "no measurement", "float64"]),
        ("respond", "answer = answer[:, 1:]", ["node", "no measurement", "shape"]),
        ("respond", "answer = answer * float('nan')", ["node", "NaN or infinite"]),
        ("respond", "answer = answer.to('meta')", ["node", "meta"]),
        ("respond", "answer = answer.tolist()", ["node", "a list"]),
        ("step", "torch.zeros(2, 3) @ torch.zeros(2, 3)", ["learner Mine, step 4", "mat1 and mat2", "torch.zeros(2, 3) @"]),
        ("step", "raise MemoryError", ["learner Mine, step 4", "MemoryError", "make [train] batch"]),
        ("step", "return {'accuracy': 1.0}", ["learner Mine", 'at least "loss"']),
        ("step", "import warnings; warnings.simplefilter('error'); warnings.warn('old')", ["UserWarning", "old"]),
        ("predict", "return {}['scores']", ["learner Mine, predicting 180 examples", "KeyError", "{}['scores']"]),
        ("state_dict", "1 / (CALLS[0] < 6)", ["ZeroDivisionError", "my_lab.py:"]),
    ],
)
def test_in_a_run(lab: Path, capsys: pytest.CaptureFixture[str], place: str, body: str, parts: list[str]) -> None:
    write(lab, **{place: body})
    code, err = train(capsys)
    assert code == 3, err
    for part in (*parts, "Outputs: none; the node is a twin", "Next: ", "hil resume"):
        assert part in err, err
    assert "Traceback" not in err
    summary = json.loads((lab / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "fault"
    write(lab)
    code, err = train(capsys, first="resume")  # the code is corrected
    assert code == 0, err


@pytest.mark.parametrize(
    ("place", "body", "parts"),
    [
        ("init", "raise Odd()", ["[device]", "__str__ of Odd raises", "my_lab.py:", "raise Odd()"]),
        ("init", "raise SystemExit(0)", ["[device]", "SystemExit"]),
        ("build", "torch.zeros(2)[5]", ["[learner] my_lab:Mine", "IndexError", "torch.zeros(2)[5]"]),
        ("build", "raise GeneratorExit", ["[learner] my_lab:Mine", "GeneratorExit"]),
        ("state_dict", "1 / 0", ["before the first step", "ZeroDivisionError", "my_lab.py:"]),
        ("init", "self.v_pi = None.x", ["[device]", "NoneType"]),
    ],
)
def test_before_a_run(lab: Path, capsys: pytest.CaptureFixture[str], place: str, body: str, parts: list[str]) -> None:
    write(lab, **{place: body})
    code, err = train(capsys)
    assert code == 2, err
    for part in (*parts, "Outputs: ", "Next: "):
        assert part in err, err
    assert "Traceback" not in err
    assert not (lab / "r").exists()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_traceback_is_shown_if_asked_for(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    write(lab, step="raise Odd()")
    if how == "environment":
        monkeypatch.setenv("HIL_TRACEBACK", "1")
    code, err = train(capsys, *(["--traceback"] if how == "option" else []))
    assert code == 3
    assert "Traceback (most recent call last)" in err
    assert "my_lab.Odd" in err


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), SystemExit(0), RecursionError("deep"), GeneratorExit()])
def test_what_nobody_expected_is_a_fault_of_hil(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    from hil.commands import list as listing

    monkeypatch.setattr(listing, "rows", {}.__getitem__)
    assert cli.run(["list", "devices"]) == 3
    err = capsys.readouterr().err
    for part in ("KeyError", "fault of hil", "Outputs: ", "--traceback"):
        assert part in err

    def raising(kind: str) -> object:
        raise error

    monkeypatch.setattr(listing, "rows", raising)
    assert cli.run(["list", "devices"]) == 3
    assert f"{type(error).__name__} where hil did not expect any" in capsys.readouterr().err


def test_a_cause_that_is_its_own_cause_ends() -> None:
    error, other = ForeignError("a"), ValueError("b")
    error.__cause__, other.__context__ = other, error
    assert explain.story(error) == [error]


@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16])
def test_another_default_dtype_of_the_users_program_changes_nothing(
    lab: Path, capsys: pytest.CaptureFixture[str], default: torch.dtype
) -> None:
    write(lab)
    assert train(capsys)[0] == 0
    whole = json.loads((lab / "r" / "summary.json").read_text(encoding="utf-8"))["test_loss"]
    (lab / "r").rename(lab / "before")
    source = (lab / "my_lab.py").read_text(
        encoding="utf-8"
    ) + f"\ntorch.set_default_dtype({default})\ntorch.set_grad_enabled(False)\n"
    (lab / "my_lab.py").write_text(
        source.replace("CALLS[0] += 1", f"CALLS[0] += 1; torch.set_default_dtype({default})"), encoding="utf-8"
    )
    sys.modules.pop("my_lab", None)
    torch.set_default_dtype(default)
    try:
        code, err = train(capsys)
        assert torch.get_default_dtype() is default
    finally:
        torch.set_default_dtype(torch.float32)
    assert code == 0, err
    assert torch.is_grad_enabled()
    assert json.loads((lab / "r" / "summary.json").read_text(encoding="utf-8"))["test_loss"] == whole


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (0, True + 1)])
def test_whole_numbers_are_limits(low: float, high: float) -> None:
    port = Port("dac", low, high, "1", 4)
    assert (type(port.low), type(port.high)) == (float, float)
    assert torch.tensor(port.low).dtype == torch.float32


@pytest.mark.parametrize("low", ["0", None, True, 1 + 0j, [[0.0]], ["0"], {0.0: 1}])
def test_what_is_no_number_is_no_limit(low: object) -> None:
    with pytest.raises(ContractError, match="a limit is a number"):
        Port("dac", low, 255.0, size=1)  # type: ignore[arg-type]


def test_what_a_node_may_answer() -> None:
    spec = Spec(Port("in", -1, 1), Port("out", -1, 1))
    check_answer(torch.zeros(3, 4), torch.zeros(3, 4), spec, "node")
    check_answer(torch.full((3, 4), 3e38), torch.zeros(3, 4), spec, "node")  # the sum is infinite, no value is
    for wrong in (torch.zeros(3, 4, dtype=torch.int64), torch.zeros(4), torch.full((3, 4), -torch.inf), None):
        with pytest.raises(ContractError, match="no measurement"):
            check_answer(wrong, torch.zeros(3, 4), spec, "node")


def digits(**changes: object) -> Dataset:
    data = load("digits")
    small = {name: Split(split.x[:20], split.y[:20]) for name, split in
             (("train", data.train), ("validation", data.validation), ("test", data.test))}  # fmt: skip
    return Dataset(**{**{name: getattr(data, name) for name in data.__slots__}, **small, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(20, 64), torch.zeros(20)),  # float targets
        (torch.zeros(20, 64), torch.full((20,), 10)),  # a class that there is not
        (torch.zeros(20, 64), torch.zeros(20, 1, dtype=torch.int64)),
        (torch.zeros(20, 64), torch.zeros(19, dtype=torch.int64)),
        (torch.zeros(20, 64, dtype=torch.float64), torch.zeros(20, dtype=torch.int64)),
        (torch.full((20, 64), torch.nan), torch.zeros(20, dtype=torch.int64)),
        (torch.zeros(20, 63), torch.zeros(20, dtype=torch.int64)),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_data_that_nobody_can_train_on(x: torch.Tensor, y: torch.Tensor, split: str) -> None:
    usable(digits())
    with pytest.raises(DataError, match=split):
        usable(digits(**{split: Split(x, y)}))


def test_places_and_lines() -> None:
    with pytest.raises(ForeignError) as caught, foreign("here"):
        json.loads("{")
    assert caught.value.at[-1].endswith('json.loads("{")')  # of this file, not of the library that raised
    assert "tests/test_foreign.py:" in caught.value.at[-1]
    for ours in (ContractError("ours"), KeyboardInterrupt()):
        with pytest.raises(type(ours)), foreign("here"):
            raise ours
    with pytest.raises(HilError), foreign("here", ContractError):
        raise StopIteration
    assert said("x" * 1000).endswith("...")
    assert own_lines(ValueError()) == ()


def test_an_exception_in_a_thread_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", explain.brief_thread)
    thread = threading.Thread(target=lambda: {}["x"], name="cooling")
    thread.start()
    thread.join()
    err = capsys.readouterr().err
    assert err.startswith("the thread cooling ended with KeyError: 'x'\nAt: ")
    assert "Traceback" not in err
