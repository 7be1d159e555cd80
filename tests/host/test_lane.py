"""The short way of shots between a trainer and its host: who is heard, and that a late or wrong answer is never read."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rig
import torch

from hil.errors import ContractError, Disconnected, OutOfRange
from hil.host.charge import Limits, Recipe
from hil.host.client import Hosted, hosted
from hil.host.frames import Bytes, Wire
from hil.host.lane import Lane, LaneLost, Lanes

TOKEN = "0123456789abcdef" * 2
QUICK = Limits(silence_s=120.0, deadline_s=5.0, patience_s=5.0)
ONE = torch.ones(1, 2)
DRIVEN: list[int] = []


def drive(token: str, number: int, shape: list[int], data: Bytes) -> tuple[list[int], Bytes]:
    DRIVEN.append(number)
    if number == 13:
        raise OutOfRange("a value out of range", where="port dac", got="channel 2")
    if number == 14:
        raise ZeroDivisionError
    time.sleep(0.3 if number == 15 else 0.0)
    return shape, bytes(data)[::-1]


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    DRIVEN.clear()
    found = Lanes(TOKEN, drive)
    yield found
    found._listener.close()


def ask(lane: Lane, number: int, within_s: float = 5.0) -> tuple[list[int], memoryview]:
    assert lane.take()
    return lane.ask(number, [2, 1], b"abcdefgh", time.monotonic() + within_s)


def test_a_shot_goes_there_and_back_and_a_fault_leaves_the_lane_open(lanes: Lanes) -> None:
    lane = Lane(lanes.port, TOKEN)
    assert ask(lane, 1) == ([2, 1], b"hgfedcba")
    with pytest.raises(OutOfRange, match="channel 2"):
        ask(lane, 13)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        ask(lane, 14)
    assert ask(lane, 2)[1] == b"hgfedcba"
    lane.close()
    lane.close()
    assert not lane.take()


def test_one_call_at_a_time(lanes: Lanes) -> None:
    lane = Lane(lanes.port, TOKEN)
    assert lane.take()
    assert not lane.take()
    lane.close()


def test_a_late_answer_closes_the_lane(lanes: Lanes) -> None:
    lane = Lane(lanes.port, TOKEN)
    with pytest.raises(TimeoutError):
        ask(lane, 15, 0.05)
    assert not lane.take()


def test_strangers_are_not_heard(lanes: Lanes) -> None:
    for token in ("f" * 32, "\u00ff" * 16, TOKEN[:-1]):
        stranger = Lane(lanes.port, token)
        if len(token.encode()) < len(TOKEN):
            stranger._wire._end.shutdown(socket.SHUT_WR)
        with pytest.raises(LaneLost):
            ask(stranger, 3)
    assert DRIVEN == []


@pytest.mark.parametrize(
    "head", [{"call": 4}, {"call": "4", "shape": [2]}, {"call": 4, "shape": [-2]}, {"call": 4, "shape": 2}]
)
def test_what_is_no_shot_drives_nothing(lanes: Lanes, head: dict[str, object]) -> None:
    lane = Lane(lanes.port, TOKEN)
    lane._wire.send(head, bytes(8))
    answer, _ = lane._wire.receive(time.monotonic() + 5.0)
    assert answer["fault"]["kind"] == "Desync"
    assert DRIVEN == []
    lane._wire._end.sendall(b"\xff" * 64)
    with pytest.raises((Disconnected, OSError)):
        lane._wire.receive(time.monotonic() + 5.0)


def test_an_answer_to_another_call_closes_the_lane() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    lane = Lane(listener.getsockname()[1], TOKEN)
    end, _ = listener.accept()
    end.recv(len(TOKEN))
    Wire(end).send({"call": 6, "shape": [2, 1]}, bytes(8))
    with pytest.raises(LaneLost, match="call 6, not 7"):
        ask(lane, 7)
    assert not lane.take()
    end.close()
    listener.close()


# ---- with a host ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    log = tmp_path_factory.mktemp("rig") / "rig.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        with hosted(Recipe("rig:Rig", {"log": str(log), "slow_s": 0.4}), QUICK) as found:
            yield found


def test_without_the_lane_shots_go_by_grpc(device: Hosted) -> None:
    assert device._host.lane is not None
    device._host.lane.close()
    for rows in (3, 200_003):  # one message, and parts
        x = torch.rand(rows, 2)
        assert torch.equal(device.forward(x), 2 * x)
    device.reopen()
    assert device._host.lane is not None
    assert device._host.lane._open
    assert torch.equal(device.forward(ONE), 2 * ONE)


def test_calls_of_two_threads_do_not_mix(device: Hosted) -> None:
    wrong = []

    def drive() -> None:
        for _ in range(40):
            x = torch.rand(5, 2)
            if not torch.equal(device.forward(x), 2 * x):
                wrong.append(x)

    threads = [threading.Thread(target=drive) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong


def test_a_ctrl_c_in_a_shot_leaves_no_answer_behind(device: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device._host.lane is not None
    wire = device._host.lane._wire

    def interrupted(until_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wire, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        device.forward(torch.full((1, 2), rig.SLOW))
    monkeypatch.undo()
    x = torch.rand(4, 2)
    assert torch.equal(device.forward(x), 2 * x)
    device.reopen()


def test_a_session_that_is_over_and_a_closed_device_drive_nothing(device: Hosted) -> None:
    assert device.local is not None
    with pytest.raises(LaneLost):
        ask(Lane(device.local.lane, "0" * 32), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_closed", True)
        with pytest.raises(ContractError, match="closed"):
            device.forward(ONE)
