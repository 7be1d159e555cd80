"""What is programmed on a device goes out when it changes, in steps that are allowed, and is counted."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hil.device import Port, Spec
from hil.devices.meter import metered
from hil.devices.programming import Programming, Verify
from hil.encoding import Levels
from hil.errors import ContractError, NotAReading, OutOfRange
from hil.slew import Slew


class Heaters:
    """Two heaters; sent: all that was programmed, in order."""

    def __init__(self, slew: Slew | None = None, **limits: float) -> None:
        params = Port("heaters", (0.0, 0.0), (8.0, 5.0), "V", 2, **limits)
        self.spec = Spec(Port("drive", -1, 1), Port("light", -10, 10), params, provenance="twin")
        self.sent: list[Tensor] = []
        self.fails = 0
        if slew is not None:
            self.slew = slew

    def program(self, params: Tensor) -> None:
        port = self.spec.params
        assert port is not None
        port.check(params)
        self.sent.append(params.clone())
        if self.fails:
            self.fails -= 1
            raise ContractError("the heaters did not answer", where="heaters")

    def forward(self, x: Tensor) -> Tensor:
        return x

    def close(self) -> None:
        """Nothing to close."""


def test_only_a_change_is_sent_and_every_change_is_counted() -> None:
    inner = Heaters()
    device = metered(inner)
    for levels in ([1.0, 2.0], [1.0, 2.0], [1.0, 3.0]):
        device.program(torch.tensor(levels))
    assert [one.tolist() for one in inner.sent] == [[1.0, 2.0], [1.0, 3.0]]
    assert (device.count.programs, device.count.writes) == (2, 3)
    assert device.programmed == [1.0, 3.0]


@pytest.mark.parametrize("slew", [None, Slew("refuses")])
def test_a_step_is_kept_from_rest_and_in_between(slew: Slew | None) -> None:
    inner = Heaters(slew, max_step=0.5)
    device = metered(inner)
    device.program(torch.tensor([4.0, 1.0]))
    device.program(torch.tensor([0.0, 5.0]))
    whole = torch.stack([torch.zeros(2), *inner.sent])
    assert float(max((b - a).abs().max() for a, b in pairwise(whole))) <= 0.5 + 1e-6
    assert len(inner.sent) == 16
    assert inner.sent[7].tolist() == [4.0, 1.0]
    assert inner.sent[-1].tolist() == [0.0, 5.0]
    assert device.count.programs == 2


def test_a_device_that_ramps_is_asked_once() -> None:
    inner = Heaters(Slew("ramps", 1e-3), slew_per_s=1.0)
    metered(inner).program(torch.tensor([4.0, 1.0]))
    assert len(inner.sent) == 1


class Time:
    """A clock that goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("slew", "limits", "rate", "each"),
    [
        (None, {"slew_per_s": 20.0}, None, (20.0, 20.0)),
        (None, {"slew_per_s": 20.0, "max_step": 0.1}, (50.0, 5.0), (10.0, 5.0)),
        (Slew("refuses", 5e-3), {}, 8.0, (8.0, 8.0)),
        (Slew("ramps", 5e-3), {"slew_per_s": 20.0}, 8.0, (8.0, 8.0)),
    ],
    ids=["of the port", "both", "of the encoding", "slower than the device ramps"],
)
def test_a_step_that_is_too_fast_becomes_a_ramp_that_keeps_the_rate(
    slew: Slew | None, limits: dict[str, float], rate: float | tuple[float, float] | None, each: tuple[float, float]
) -> None:
    inner, time = Heaters(slew, **limits), Time()
    programming, sent = Programming(inner, time, time.sleep), [(time.now, torch.zeros(2))]
    programming.slow(rate)
    send = inner.program

    def noted(params: Tensor) -> None:
        send(params)
        sent.append((time.now, params))

    inner.program = noted  # type: ignore[method-assign]
    for levels, later_s in (([4.0, 1.0], 0.0), ([0.0, 5.0], 0.0), ([0.02, 5.0], 9.0)):
        time.now += later_s
        programming.to(torch.tensor(levels))
        assert inner.sent[-1].tolist() == pytest.approx(levels)
    step_s, most = (5e-3 if slew else 10e-3), torch.tensor(each)
    assert len(sent) > 20
    for first, (begin_s, begin) in enumerate(sent):
        for end_s, end in sent[first + 1 :]:
            assert bool(((end - begin).abs() <= most * (end_s - begin_s + step_s) * (1 + 1e-5) + 1e-6).all())
    assert time.now - 109.0 < 2.2 * 4 / float(most[0]) + 2 * 4 / float(most[1])  # no slower than it must be
    assert programming.written is not None
    assert programming.written.tolist() == [3, 2]


def test_a_rate_comes_before_what_it_limits_and_makes_sense() -> None:
    programming = Programming(Heaters(), Time(), lambda _: None)
    programming.slow(1000.0)
    programming.to(torch.tensor([4.0, 1.0]))
    with pytest.raises(ContractError, match="before anything"):
        programming.slow(1.0)
    port = Heaters().spec.params
    assert port is not None
    with pytest.raises(ContractError, match="rate is above 0"):
        Levels.onto(port, slew_per_s=0.0)


def test_nothing_out_of_range_is_sent_and_what_is_held_is_not_believed_after_it() -> None:
    inner = Heaters(max_step=0.5)
    device = metered(inner)
    for wrong in ([8.5, 1.0], [float("nan"), 1.0]):
        with pytest.raises(OutOfRange):
            device.program(torch.tensor(wrong))
    assert inner.sent == []
    assert device.count.writes == 0


def test_after_a_fault_it_is_programmed_again_and_no_step_is_too_large() -> None:
    inner = Heaters()
    device = metered(inner)
    device.program(torch.tensor([1.0, 1.0]))
    inner.fails = 1
    with pytest.raises(ContractError, match="did not answer"):
        device.program(torch.tensor([2.0, 1.0]))
    assert device.programmed is None
    device.program(torch.tensor([1.0, 1.0]))  # nobody knows what they hold
    assert [one.tolist() for one in inner.sent] == [[1.0, 1.0], [2.0, 1.0], [1.0, 1.0]]
    stepping = Heaters(max_step=0.5)
    device, stepping.fails = metered(stepping), 1
    with pytest.raises(ContractError, match="did not answer"):
        device.program(torch.tensor([1.0, 1.0]))
    with pytest.raises(OutOfRange, match="too large"):  # from 0.5 V, or from rest: this is allowed from one of them alone
        device.program(torch.tensor([1.0, 1.0]))
    assert len(stepping.sent) == 1


def test_a_resume_programs_what_was_held_and_does_not_count_it() -> None:
    inner = Heaters()
    device = metered(inner)
    device.program(torch.tensor([1.0, 2.0]))
    held, counted = device.programmed, device.count.writes
    device.restore({})
    assert device.programmed is None
    device.reprogram(held)
    assert [one.tolist() for one in inner.sent] == [[1.0, 2.0], [1.0, 2.0]]
    assert device.count.writes == counted
    device.program(torch.tensor([1.0, 2.0]))
    assert len(inner.sent) == 2


class Memristors(Heaters):
    """Two channels of which a write makes `share` of the way; written: how often each was."""

    def __init__(self, share: float = 1.0, reads_back: bool = True) -> None:
        super().__init__()
        self.share, self.reads_back = share, reads_back
        self.levels, self.written = torch.zeros(2), torch.zeros(2)

    def program(self, params: Tensor) -> None:
        super().program(params)
        self.rewrite(params, torch.ones(2, dtype=torch.bool))

    def held(self) -> Tensor:
        return self.levels

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        self.levels = torch.where(which, self.levels + self.share * (params - self.levels), self.levels)
        self.written += which


def test_what_is_off_is_written_once_more_until_it_is_near_and_all_of_it_is_counted() -> None:
    inner = Memristors(share=0.5)
    device = metered(inner)
    device.verify(Verify(tolerance=0.1, tries=5))
    device.program(torch.tensor([4.0, 0.6]))  # off by 2.0 of 0.8, and by 0.3 of 0.5
    assert inner.levels.tolist() == pytest.approx([3.5, 0.3])
    assert inner.written.tolist() == [3, 1]
    counted = device.count
    assert (counted.programs, counted.writes, counted.reads, counted.tries, counted.missed) == (1, 4, 6, 2, 0)
    device.program(torch.tensor([4.0, 0.6]))
    assert counted.reads == 6  # it is held: nothing is asked


def test_a_channel_that_never_comes_is_given_up_and_counted() -> None:
    device = metered(Memristors(share=0.01))
    device.verify(Verify(tolerance=0.1, tries=3))
    device.program(torch.tensor([8.0, 0.0]))
    assert (device.count.writes, device.count.reads, device.count.tries, device.count.missed) == (5, 8, 3, 1)
    assert device.programmed == [8.0, 0.0]


def test_a_level_that_is_no_number_or_cannot_be_read_is_told() -> None:
    inner = Memristors()
    device = metered(inner)
    device.verify(Verify(0.1, 1))
    inner.held = lambda: torch.tensor([math.nan, 0.0])  # type: ignore[method-assign]
    with pytest.raises(NotAReading, match="no level"):
        device.program(torch.ones(2))
    assert device.programmed is None
    blind = metered(Memristors(reads_back=False))
    blind.verify(Verify(0.1, 1))
    with pytest.raises(ContractError, match="cannot be read back"):
        blind.program(torch.ones(2))


def test_a_resume_verifies_what_could_not_be_restored() -> None:
    for state, reads in (({}, 2), ({"count": 1}, 0)):
        inner = Memristors()
        asked: list[int] = []
        inner.held = lambda levels=inner, asked=asked: asked.append(2) or levels.levels  # type: ignore[method-assign]
        device = metered(inner)
        device.verify(Verify(0.1, 1))
        device.restore(state)
        device.reprogram([1.0, 2.0])
        assert sum(asked) == reads
        assert device.count.writes == 0
