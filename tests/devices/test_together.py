"""While one device of a network is in a call, the others are beaten for, and not otherwise."""

from __future__ import annotations

import time

import pytest
import torch

from hil.device import Port, Spec
from hil.devices import together
from hil.devices.together import Attended, Together
from hil.errors import GuardianLost


class Slow:
    spec = Spec(Port("dac", -1, 1, "V"), Port("adc", -1, 1, "V"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.1)
        return x

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "EVERY_S", 0.01)


def test_beats_come_during_a_call_and_only_then() -> None:
    beats: list[float] = []
    with Together() as all_of_them:
        all_of_them.add(lambda: beats.append(time.monotonic()))
        device = Attended(Slow(), all_of_them)
        time.sleep(0.05)
        assert not beats
        device.forward(torch.zeros(1, 2))
        time.sleep(0.03)  # one that was on its way
        count = len(beats)
        assert count >= 3
        time.sleep(0.1)
        assert len(beats) == count


def test_one_wait_is_beaten_for_no_longer_than_its_bound() -> None:
    beats: list[float] = []
    with Together(most_s=0.03) as all_of_them:
        all_of_them.add(lambda: beats.append(time.monotonic()))
        with all_of_them.waiting():
            time.sleep(0.2)
        assert 1 <= len(beats) <= 4


def test_a_device_that_is_lost_keeps_no_beat_from_the_next() -> None:
    beats: list[float] = []

    def lost() -> None:
        raise GuardianLost("nobody listens")

    with Together() as all_of_them:
        all_of_them.add(lost)
        all_of_them.add(lambda: beats.append(time.monotonic()))
        Attended(Slow(), all_of_them).forward(torch.zeros(1, 2))
    assert beats
