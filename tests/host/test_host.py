"""A host keeps its device safe: whoever ends, hangs or lies, and whatever is sent."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import rig
import torch
from torch import Tensor

import hil
from hil.device import Recoverable
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient, whole_batch
from hil.errors import (
    ConfigError,
    ContractError,
    Desync,
    DirtySession,
    Disconnected,
    Ended,
    ForeignError,
    LinkTimeout,
    NotAReading,
    OpenFailed,
    OutOfRange,
    RunError,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.host import device_pb2 as pb
from hil.host.charge import Limits, Recipe
from hil.host.client import Hosted, connected, hosted
from hil.host.held import HeldDevice, guards
from hil.host.session import Session
from hil.host.supervisor import checked
from hil.host.wire import Parcel, Stub

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUICK = Limits(silence_s=120.0, deadline_s=0.6, patience_s=5.0)
ONE = torch.ones(1, 2)


@pytest.fixture(scope="module", autouse=True)
def _found() -> Iterator[None]:
    """A host finds tests/host/rig.py as a module of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        yield


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rig") / "rig.log"


@pytest.fixture(scope="module")
def device(log: Path) -> Iterator[Hosted]:
    """One host for all tests that leave it as they found it."""
    with hosted(Recipe("rig:Rig", {"log": str(log), "slow_s": 1.5}), QUICK) as found:
        yield found


def asked(fault: float) -> Tensor:
    return torch.full((1, 2), fault)


def whats(log: Path) -> list[str]:
    return [what for _, _, what in rig.events(log)] if log.exists() else []


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- calls ---------------------------------------------------------------------------------------------------------------


def test_a_shot_comes_back_in_its_shape(device: Hosted) -> None:
    assert device.spec.provenance == "twin"
    assert device.spec.inputs.name == "dac"
    assert not device.unguarded
    x = torch.rand(7, 2)
    assert torch.equal(device.forward(x), 2 * x)
    assert device.forward(torch.empty(0, 2)).shape == (0, 2)
    assert isinstance(device, Recoverable)
    assert device.snapshot() == {}
    assert "rig:Rig" in device.identify()
    assert device.verify().endswith("open")


def test_a_large_array_travels_in_parts(device: Hosted) -> None:
    x = torch.rand(1_000_003, 2)
    assert torch.equal(device.forward(x), 2 * x)


@pytest.mark.parametrize("bad", [21.0, -1.01, float("nan"), float("inf")])
def test_what_is_out_of_range_is_refused_before_anything_is_sent(device: Hosted, log: Path, bad: float) -> None:
    before = whats(log)
    with pytest.raises(OutOfRange):
        device.forward(torch.tensor([[0.0, bad]]))
    with pytest.raises(OutOfRange, match="channels"):
        device.forward(torch.zeros(1, 3))
    assert whats(log) == before


def test_the_host_refuses_it_too(device: Hosted, log: Path) -> None:
    """A client in another language may not have checked."""
    before = whats(log)
    stub = Stub(device._host.channel)
    for values, shape in (([0.0, 21.0], [1, 2]), ([0.0, float("nan")], [1, 2]), ([0.0] * 3, [1, 3])):
        data = torch.tensor(values).numpy().tobytes()
        answer = stub["Shot"](Parcel(pb.Part(call=device._host.call(), shape=shape, dtype="float32"), data))
        assert answer.head.fault.kind == "OutOfRange"
    torn = stub["Shot"](Parcel(pb.Part(call=device._host.call(), shape=[2, 2], dtype="float32"), bytes(8)))
    assert torn.head.fault.kind == "Desync"
    assert whats(log) == before


def test_limits_of_each_channel_are_kept_by_the_host() -> None:
    port = {"name": "dac", "low": [0.0, -1.0], "high": [0.1, 1.0], "unit": "V", "size": 2}
    checked(port, [1, 2], torch.tensor([0.1, -1.0]).numpy().tobytes())
    with pytest.raises(OutOfRange):
        checked(port, [1, 2], torch.tensor([0.2, 0.0]).numpy().tobytes())
    with pytest.raises(OutOfRange):
        checked(port, [1, 2], torch.tensor([0.0, float("nan")]).numpy().tobytes())


def test_nan_in_an_answer_is_no_reading(device: Hosted) -> None:
    with pytest.raises(NotAReading, match="1 of 2"):
        device.forward(asked(rig.NAN))


def test_what_the_device_prints_never_reaches_the_messages(device: Hosted) -> None:
    assert torch.equal(device.forward(asked(rig.PRINT)), 2 * asked(rig.PRINT))


def test_an_exception_of_the_device_names_its_line_and_makes_safe(device: Hosted, log: Path) -> None:
    with pytest.raises(ForeignError, match="the camera says no") as found:
        device.forward(asked(rig.RAISE))
    assert any("rig.py" in line and "RuntimeError" in line for line in found.value.at)
    assert found.value.outputs.startswith("safe")
    assert whats(log)[-1] == "safe"


def test_every_kind_of_error_comes_across_whole() -> None:
    from hil import errors
    from hil.host.faults import message_of, raise_from

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.HilError)]
    assert len(kinds) > 30
    for kind in kinds:
        error = kind("what", where="a", got="b", allowed="c", outputs="d", todo="e", at=("f", "g"))
        if isinstance(error, errors.Changed):
            error.suspect_shots = 3
        with pytest.raises(kind) as found:
            raise_from(pb.Done(fault=message_of(error)))
        assert type(found.value) is kind
        assert vars(found.value) == vars(error)


# ---- faults of the worker ------------------------------------------------------------------------------------------------


def test_a_forward_that_hangs_is_ended_and_the_host_serves_again(device: Hosted, log: Path) -> None:
    with pytest.raises(LinkTimeout, match="takes too long") as found:
        device.forward(asked(rig.HANG))
    assert found.value.outputs.startswith("safe")
    assert whats(log)[-3:] == [f"on {rig.HANG}", "open", "safe"]
    assert torch.equal(device.forward(ONE), 2 * ONE)


def test_a_late_answer_is_never_taken_for_the_next(device: Hosted) -> None:
    with pytest.raises(LinkTimeout):
        device.forward(asked(rig.SLOW))
    time.sleep(1.0)  # the slow answer would be there now
    x = torch.rand(3, 2)
    assert torch.equal(device.forward(x), 2 * x)


def test_a_call_that_safe_has_overtaken_drives_nothing(device: Hosted, log: Path) -> None:
    late = Parcel(pb.Part(call=device._host.call(), shape=[1, 2], dtype="float32"), bytes(8))
    device.safe()
    answer = Stub(device._host.channel)["Shot"](late)
    assert answer.head.fault.kind == "DirtySession"
    assert whats(log)[-1] == "safe"
    assert torch.equal(device.forward(ONE), 2 * ONE)


def test_an_answer_to_another_call_is_refused() -> None:
    from hil.host.wire import gathered, parts

    messages = list(parts([1, 2], bytes(8), pb.Call(number=4)))
    assert gathered(messages, 4)[1] == [1, 2]
    with pytest.raises(Desync):
        gathered(messages, 5)
    with pytest.raises(Desync):
        gathered([*messages[:0]], 4)


@pytest.mark.parametrize("fault", [rig.ABORT, rig.SEGFAULT, rig.LEAVE])
def test_a_worker_that_ends_is_replaced_by_one_that_makes_safe(device: Hosted, log: Path, fault: float) -> None:
    with pytest.raises(Disconnected, match="ended during forward") as found:
        device.forward(asked(fault))
    assert any(word in found.value.got for word in ("SIGABRT", "SIGSEGV", "status 7"))
    assert whats(log)[-2:] == ["open", "safe"]
    assert torch.equal(device.forward(ONE), 2 * ONE)


def test_a_worker_that_ends_while_nobody_asks_it_is_replaced_at_once(device: Hosted, log: Path) -> None:
    device.forward(ONE)
    os.kill(rig.events(log)[-1][1], signal.SIGKILL)
    until(lambda: whats(log)[-2:] == ["open", "safe"])
    assert torch.equal(device.forward(ONE), 2 * ONE)


def test_the_ladder_brings_worker_and_host_back(tmp_path: Path) -> None:
    log, told = tmp_path / "log", list[str]()
    with hosted(Recipe("rig:Programmed", {"log": str(log), "once": str(tmp_path / "once")}), QUICK) as device:
        x = torch.ones(1, 1, 2)
        device.program(torch.ones(3))
        device.reset()
        assert torch.equal(device.forward(x), 6 * x)
        assert device.snapshot() == {"count": 1}
        device.restore({"count": 5})
        assert torch.equal(device.forward(x), 6 * x + 5)
        with pytest.raises(OutOfRange):
            device.program(torch.full((3,), 2.0))
        device.safe()
        with pytest.raises(DirtySession, match=r"program\(\) and reset\(\)"):
            device.forward(x)
        whole = resilient(device, lambda d: Ladder(d, Patience(5.0), lambda kind, **facts: told.append(kind)))
        assert torch.equal(whole_batch(lambda: whole.forward(x)), 6 * x), "programmed again, and reset"
        assert torch.equal(whole_batch(lambda: whole.forward(x * rig.ABORT)), 6 * x * rig.ABORT), "it aborts once"
        assert told.count("recovery") == 2
        assert device.local is not None
        killer = threading.Thread(target=killed_inside, args=(log, device.local.pid))
        killer.start()
        (tmp_path / "once").unlink()
        assert torch.equal(whole_batch(lambda: whole.forward(x * rig.HANG)), 6 * x * rig.HANG), (
            "its host is killed while it hangs, once"
        )
        killer.join()
        assert told[-1] == "recovery"
    events = rig.events(log)
    hung = next(n for n, e in enumerate(events) if e[2] == f"on {rig.HANG}")
    assert [what for _, _, what in events[hung + 1 : hung + 4]] == ["safe", "closed", "open"], "one process at a time has it"
    assert events[hung + 1][1] == events[hung][1], "the worker made it safe by itself"


def killed_inside(log: Path, host: int) -> None:
    """Kill a host when its worker hangs in forward."""
    until(lambda: f"on {rig.HANG}" in whats(log))
    os.kill(host, signal.SIGKILL)


# ---- who may open what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["rig:Unsafe", "rig:unannounced"])
def test_a_device_that_nobody_can_make_safe_is_refused_before_it_is_opened(tmp_path: Path, use: str) -> None:
    log = tmp_path / "log"
    with pytest.raises(ConfigError, match="nobody could make this device safe"):
        HeldDevice(Recipe(use, {"log": str(log)}), False)
    assert not log.exists()
    held = HeldDevice(Recipe(use, {"log": str(log)}), True)
    assert held.facts()["safe"] is (use == "rig:unannounced")
    held.safe()
    assert whats(log)[-1] == ("safe" if use == "rig:unannounced" else "closed")


@pytest.mark.parametrize(
    ("use", "said"), [("rig:Array", "let forward() of rig:Array return"), ("rig:Bare", "give rig:Bare a spec")]
)
def test_what_is_no_device_is_told_where_to_mend_it(tmp_path: Path, use: str, said: str) -> None:
    held = HeldDevice(Recipe(use, {"log": str(tmp_path / "log")}), False)
    with pytest.raises(ContractError, match=re.escape(said)):
        held.forward([1, 2], bytearray(8))


def test_a_close_that_is_declared_safe_is_believed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    held = HeldDevice(Recipe("rig:Closing", {"log": str(log)}), False)
    assert held.facts()["safe"]
    assert held.safe()
    held.forward([1, 2], bytearray(8))
    held.close()
    assert whats(log) == ["open", "closed", "open", "on 0.0", "closed"]


def test_steps_that_a_device_does_not_keep_itself_are_refused_in_its_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"
    held = HeldDevice(Recipe("rig:Gates", {"log": str(log)}), False)
    facts = held.facts()
    assert (facts["slew_by"], facts["inputs"]["max_step"]) == ("refuses", [0.5])
    with pytest.raises(OutOfRange, match="from row 1 to row 2"):
        held.forward([2, 2], bytearray(torch.tensor([[0.5, 0.5], [0.5, 1.1]]).numpy().tobytes()))
    held.forward([1, 2], bytearray(torch.full((1, 2), 0.5).numpy().tobytes()))
    held.safe()
    with pytest.raises(OutOfRange, match="what the channels hold"):
        held.forward([1, 2], bytearray(torch.ones(1, 2).numpy().tobytes()))
    held.close()
    assert "on 1.0" not in whats(log)


def test_functions_without_a_safe_are_no_guarded_device() -> None:
    port = hil.Port("dac", -1, 1, "V", 2)
    values = torch.zeros(2).numpy()
    assert guards(hil.from_functions(lambda v: None, lambda: values, port, port, lambda: None))
    assert not guards(hil.from_functions(lambda v: None, lambda: values, port, port))


def test_a_refusal_of_the_host_is_raised_by_the_trainer(tmp_path: Path) -> None:
    with pytest.raises(OpenFailed, match="no such camera") as found, hosted(Recipe("rig:Refusing", {"log": os.devnull}), QUICK):
        pass
    assert any("rig.py" in line for line in found.value.at)


@pytest.mark.parametrize(
    ("recipe", "said"), [(Recipe("rig:Nothing"), "cannot import"), (Recipe("rig:Rig", {"log": os.devnull, "hue": 3}), "hue")]
)
def test_what_makes_no_sense_is_refused(recipe: Recipe, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        HeldDevice(recipe, False)


def test_outputs_that_cannot_be_made_safe_are_the_loudest(tmp_path: Path) -> None:
    held = HeldDevice(Recipe("rig:Stuck", {"log": str(tmp_path / "log")}), False)
    held.opened()
    with pytest.raises(UnsafeOutputs, match="no answer from the shutter"):
        held.safe()


def test_another_device_is_not_driven(device: Hosted) -> None:
    first = device._first
    device._first = pb.Description(device="other:Rig")
    try:
        with pytest.raises(WrongInstrument):
            device.identify()
    finally:
        device._first = first


def test_a_second_trainer_is_refused(device: Hosted) -> None:
    assert device.local is not None
    with pytest.raises(RunError, match="another trainer"), connected(f"127.0.0.1:{device.local.port}"):
        pass
    with grpc.insecure_channel(f"127.0.0.1:{device.local.port}") as channel:
        answer = Stub(channel)["Safe"](pb.Call(token="guessed", number=1))
        assert answer.fault.kind == "RunError"
    assert torch.equal(device.forward(ONE), 2 * ONE)


def test_plain_text_to_another_computer_is_refused() -> None:
    with pytest.raises(ConfigError, match="plain text"), connected("192.0.2.1:5510"):
        pass


# ---- the end of the trainer ----------------------------------------------------------------------------------------------


def test_a_beat_is_sent_some_times_in_a_silence(device: Hosted) -> None:
    before = device._host.number
    for _ in range(10_000):
        device.beat()
    assert device._host.number - before <= 2


def test_a_session_has_one_trainer_and_ends_once() -> None:
    session = Session("", 0.1)
    with session.call("one", begins=True):
        assert session.silent_s() == 0.0
    with pytest.raises(RunError), session.call("two", begins=True):
        pass
    session.end(Ended("silence", where="host"))
    session.settle("safe")
    with pytest.raises(Ended) as found, session.call("one", begins=True):
        pass
    assert found.value.outputs == "safe"
    with session.call("two", begins=True):
        assert session.held
