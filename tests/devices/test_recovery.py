"""The ladder on devices that fail as they are told: which rung, how often, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from hil import errors
from hil.commands.explain import story
from hil.device import ArraySpec, Port, Spec
from hil.devices.recovery import ROWS, Ladder, Patience, Rung, row_of
from hil.devices.resilient import Resilient, ResilientChip, ResilientStream, resilient, whole_batch
from hil.errors import (
    BadBlock,
    CommandRefused,
    DirtySession,
    Disconnected,
    Ended,
    HilError,
    InstrumentError,
    LinkTimeout,
    Misaligned,
    MissedTrigger,
    NotAReading,
    OutOfRange,
    Overload,
    Saturated,
    Stopped,
    Unrepeatable,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.training.progress import telling

SPEC = Spec(Port("drive", -1.0, 1.0), Port("reading", -1.0, 1.0))


class Bench:
    """A device whose next calls fail with `faults`, one each; every call of it is in `calls`."""

    def __init__(self, *faults: HilError, broken: Sequence[str] = ()) -> None:
        self.faults, self.broken, self.calls = list(faults), set(broken), list[str]()

    spec = SPEC

    def _call(self, name: str) -> str:
        self.calls.append(name)
        if name in self.broken:
            raise Disconnected(f"{name} fails")
        return name

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append("shot")
        if self.faults:
            raise self.faults.pop(0)
        return x * 2

    def program(self, params: Tensor) -> None:
        self._call("program")

    def reset(self) -> None:
        self._call("reset")

    def clear(self) -> None:
        self._call("clear")

    def reopen(self) -> None:
        self._call("reopen")

    def identify(self) -> str:
        return self._call("identify")

    def reinstate(self) -> None:
        self._call("reinstate")

    def verify(self) -> str:
        return self._call("verify")

    def close(self) -> None:
        self._call("close")


class Clock:
    def __init__(self) -> None:
        self.now_s, self.slept = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def around(bench: Bench, patience: Patience | None = None) -> tuple[Resilient, list[tuple[str, dict[str, object]]], Clock]:
    told: list[tuple[str, dict[str, object]]] = []
    clock = Clock()

    def hear(kind: str, **facts: object) -> None:
        told.append((kind, facts))

    device = resilient(bench, lambda inner: Ladder(inner, patience, hear, clock=clock, sleep=clock.sleep))
    assert isinstance(device, Resilient)
    return device, told, clock


FULL = ["reinstate", "verify", "shot"]


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        (LinkTimeout("silent"), ["clear", "identify", *FULL]),
        (BadBlock("short"), ["clear", "identify", *FULL]),
        (Disconnected("gone"), ["reopen", "identify", *FULL]),
        (DirtySession("again"), ["shot"]),
        (CommandRefused("-350"), FULL),
        (InstrumentError("front panel"), FULL),
        (NotAReading("hole"), ["shot"]),
        (Misaligned("late"), ["shot"]),
        (MissedTrigger("none"), ["shot"]),
        (Saturated("once"), ["shot"]),
    ],
)
def test_a_fault_needs_the_rungs_of_its_row_and_then_the_whole_shot(fault: HilError, way: list[str]) -> None:
    bench = Bench(fault)
    device, told, _ = around(bench)
    assert device.forward(torch.ones(2, 3)).equal(torch.full((2, 3), 2.0))
    assert bench.calls == ["shot", *way]
    assert [kind for kind, _ in told] == ["recovering", "recovery"]
    assert device.recovered == 1


@pytest.mark.parametrize(
    "fault",
    [OutOfRange("too much"), WrongInstrument("another"), UnsafeOutputs("unknown"), Ended("over"), Unrepeatable("noise")],
)
def test_what_cannot_be_mended_is_not_tried(fault: HilError) -> None:
    bench = Bench(fault)
    device, told, _ = around(bench)
    with pytest.raises(type(fault)):
        device.forward(torch.ones(1, 1))
    assert bench.calls == ["shot"]
    assert [kind for kind, _ in told] == ["lost"]


@pytest.mark.parametrize(
    ("faults", "tried"),
    [
        ([BadBlock("short"), Ended("over")], ["clear"]),
        ([NotAReading("hole"), Disconnected("gone"), WrongInstrument("another")], ["repeat", "reopen"]),
        ([Saturated("once"), Saturated("twice")], ["repeat"]),
        ([Overload("tripped")], []),
    ],
)
def test_the_fault_that_lasts_is_the_one_that_is_told(faults: list[HilError], tried: list[str]) -> None:
    """With what was tried, in the journal and at the end; and beside it the one that it began with."""
    last = faults[-1]
    device, told, _ = around(Bench(*faults))
    with pytest.raises(HilError) as raised:
        device.forward(torch.ones(1, 1))
    assert raised.value is last
    kind, facts = told[-1]
    assert (kind, facts["error"], facts["tried"]) == ("lost", type(last).__name__, tried)
    assert next(telling(kind, facts)).startswith(
        f" ! {last.what}: {'not recovered by' if tried else 'trying again cannot help'}"
    )
    stopped = Stopped("a fault ended the run")
    stopped.__cause__ = last
    assert story(stopped) == [stopped, last, *([faults[0]] if len(faults) > 1 else [])]


def test_a_shot_that_saturates_again_ends_the_ladder() -> None:
    device, told, _ = around(Bench(Saturated("once"), Saturated("twice")))
    with pytest.raises(Saturated, match="repeat ×1"):
        device.forward(torch.ones(1, 1))
    assert [kind for kind, _ in told] == ["recovering", "recovering", "lost"]


def test_each_failure_climbs_one_rung() -> None:
    bench = Bench(*(MissedTrigger("none") for _ in range(4)))
    device, _, _ = around(bench)
    device.forward(torch.ones(1, 1))
    assert [c for c in bench.calls if c in ("clear", "reopen", "shot")] == [
        "shot",
        "shot",
        "shot",
        "clear",
        "shot",
        "reopen",
        "shot",
    ]


def test_a_symptom_of_another_kind_does_not_end_what_its_cause_needs() -> None:
    bench = Bench(MissedTrigger("none"), Misaligned("not ours"), Misaligned("not ours"), Misaligned("not ours"))
    device, _, _ = around(bench)
    assert device.forward(torch.ones(1, 1)).item() == 2.0
    assert [c for c in bench.calls if c in ("clear", "reopen")] == ["clear", "reopen"]
    device, _, clock = around(Bench(MissedTrigger("none"), *(Misaligned("not ours") for _ in range(9))))
    with pytest.raises(Misaligned, match="restore ×1, clear ×1, reopen ×1"):  # the top once, and not until patience ends
        device.forward(torch.ones(1, 1))
    assert clock.slept == []
    device, _, _ = around(Bench(*(Misaligned("not ours") for _ in range(4))))
    with pytest.raises(Misaligned, match="clear ×1 in"):  # alone it has its own top
        device.forward(torch.ones(1, 1))


def test_reopening_is_tried_until_patience_ends_with_growing_pauses() -> None:
    bench = Bench(Disconnected("gone"), broken=["reopen"])
    device, _, clock = around(bench, Patience(patience_s=20.0))
    with pytest.raises(Disconnected, match=r"reopen ×\d+ in 2\d"):
        device.forward(torch.ones(1, 1))
    assert 20.0 <= clock.now_s < 32.0
    assert max(clock.slept) <= 1.0, "beats must go on while waiting"
    assert bench.calls.count("reopen") == 8  # after 0, 0.2, 0.6, 1.4, 3, 6.2, 12.6, 22.6 s
    assert "identify" not in bench.calls


def test_a_bench_that_comes_back_is_used_again() -> None:
    bench = Bench(Disconnected("gone"), broken=["identify"])
    clock = Clock()

    def comes_back(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now_s > 5:
            bench.broken.clear()

    device = resilient(bench, lambda inner: Ladder(inner, clock=clock, sleep=comes_back))
    assert device.forward(torch.ones(1, 2)).equal(torch.full((1, 2), 2.0))


def test_too_many_recoveries_end_the_run() -> None:
    bench = Bench(NotAReading("hole"))
    device, _, _ = around(bench, Patience(most=1))
    device.forward(torch.ones(1, 1))
    bench.faults.append(NotAReading("hole"))
    with pytest.raises(InstrumentError, match="too many"):
        device.forward(torch.ones(1, 1))


def test_every_error_of_the_tree_has_a_row_or_is_no_fault_of_a_bench() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, HilError)]
    without = {kind.__name__ for kind in kinds if row_of(kind("x")).why == "not a fault"}
    assert without == {"HilError", "NotCalibrated", "Stopped", "Interrupted"}
    assert len({row.error for row in ROWS}) == len(ROWS)
    assert all(row.first is None or row.first <= row.last for row in ROWS)


def test_after_the_computer_slept_the_wires_are_opened_anew() -> None:
    bench, slept = Bench(), [0.0]
    device = resilient(bench, lambda inner: Ladder(inner, asleep=lambda: slept[0]))
    device.forward(torch.ones(1, 1))
    slept[0] = 3600.0
    device.forward(torch.ones(1, 1))
    device.forward(torch.ones(1, 1))
    assert bench.calls == ["shot", "reopen", "identify", *FULL, "shot"]


class Stream(Bench):
    """One worker; a fault makes it dirty for those that wait, until it is cleared."""

    def __init__(self, *faults: HilError) -> None:
        super().__init__(*faults)
        self.worker, self.dirty = ThreadPoolExecutor(1), False

    def submit(self, x: Tensor) -> Future[Tensor]:
        return self.worker.submit(self._shot, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.submit(x).result()

    def _shot(self, x: Tensor) -> Tensor:
        if self.dirty:
            raise DirtySession("after a fault")
        if float(x[0, 0]) == 3.0 and self.faults:
            self.dirty = True
            raise self.faults.pop()
        return x * 2

    def clear(self) -> None:
        self.dirty = False


def test_streamed_answers_keep_their_order_through_a_fault() -> None:
    device, told, _ = around(Stream(BadBlock("short")))
    assert isinstance(device, ResilientStream)
    waiting = [device.submit(torch.full((1, 2), float(k))) for k in range(12)]
    assert [float(answer.result()[0, 0]) for answer in waiting] == [2.0 * k for k in range(12)]
    assert next(facts["error"] for kind, facts in told if kind == "recovering") == "BadBlock"


class Membranes(Bench):
    """An array that integrates; a lost one begins from nothing, as after a reboot. drift: added at each reset."""

    def __init__(self, *faults: HilError, drift: float = 0.0) -> None:
        super().__init__(*faults)
        self.level, self.drift, self.resets = torch.zeros(1), drift, 0

    spec = Spec(Port("current", -9.0, 9.0), Port("spikes", 0.0, 99.0), temporal=True)

    def reset(self) -> None:
        self.resets += 1
        self.level = torch.full((1,), self.drift * self.resets)

    def forward(self, x: Tensor) -> Tensor:
        if self.faults and float(x[0, 0, 0]) == 3.0:
            self.level = torch.full((1,), float("nan"))
            raise self.faults.pop()
        self.level = self.level + x.sum()
        return self.level.expand_as(x).clone()


class Chip(Bench):
    def __init__(self, *arrays: Membranes) -> None:
        super().__init__()
        self.arrays = list(arrays)

    def array(self, spec: ArraySpec) -> Membranes:
        return self.arrays.pop(0)


def sequence(chip: ResilientChip, act: Callable[[float], None] | None = None) -> list[float]:
    first, second = chip.array(ArraySpec(1)), chip.array(ArraySpec(1))
    first.reset(), second.reset()
    found = []
    for k in range(5):
        y = first.forward(torch.full((1, 1, 1), float(k)))
        found.append(float(second.forward(torch.full((1, 1, 1), float(k)) + 0 * y)[0, 0, 0]))
    return found


def test_a_temporal_device_repeats_from_its_last_reset() -> None:
    whole = sequence(ResilientChip(Chip(Membranes(), Membranes()), Ladder(Bench())))
    chip = Chip(Membranes(LinkTimeout("silent")), Membranes(LinkTimeout("silent")))
    assert sequence(ResilientChip(chip, Ladder(chip))) == whole == [0.0, 1.0, 3.0, 6.0, 10.0]


def test_a_node_with_memory_begins_its_sequence_again() -> None:
    """Shot 3 breaks off: what it left behind is in no answer, and the batch is played once more from its beginning."""
    inner = Membranes(LinkTimeout("silent"))
    device = resilient(inner, lambda rungs: Ladder(rungs))
    asked: list[float] = []

    def batch() -> list[float]:
        device.reset()  # type: ignore[attr-defined]
        asked.append(0.0)
        return [float(device.forward(torch.full((1, 1, 1), float(k)))[0, 0, 0]) for k in range(5)]

    assert whole_batch(batch) == [0.0, 1.0, 3.0, 6.0, 10.0]
    assert len(asked) == 2


def test_a_noisy_array_makes_the_whole_batch_repeat() -> None:
    chip = Chip(Membranes(LinkTimeout("silent"), drift=0.5), Membranes())
    made = ResilientChip(chip, Ladder(chip))
    first = made.array(ArraySpec(1))
    undone: list[int] = []

    def batch() -> float:
        first.reset()
        return [float(first.forward(torch.full((1, 1, 1), float(k)))[0, 0, 0]) for k in range(5)][-1]

    assert whole_batch(batch, lambda: undone.append(1)) == 11.5  # the third reset: 1.5, and 0 + 1 + 2 + 3 + 4
    assert undone == [1]


class Memristors(Bench):
    """Reads back what it holds; the next read and the next write fail with `faults`, one each."""

    reads_back = True

    def held(self) -> Tensor:
        self.forward(torch.zeros(1))
        return torch.ones(2)

    def rewrite(self, params: Tensor, which: Tensor) -> None:
        self.forward(params)


def test_what_is_read_back_and_written_once_more_is_so_after_a_recovery() -> None:
    bench = Memristors(LinkTimeout("silent"))
    device, _, _ = around(bench)
    assert device.held().tolist() == [1.0, 1.0]
    bench.faults.append(Disconnected("gone"))
    device.rewrite(torch.ones(2), torch.ones(2, dtype=torch.bool))
    assert bench.calls == ["shot", "clear", "identify", *FULL, "shot", "reopen", "identify", *FULL]


def test_a_device_without_rungs_is_left_alone() -> None:
    class Plain:
        spec = SPEC

        def forward(self, x: Tensor) -> Tensor:
            return x

    plain = Plain()
    assert resilient(plain, lambda inner: Ladder(inner)) is plain  # type: ignore[arg-type, comparison-overlap]
    assert Rung.REPEAT < Rung.RESTORE < Rung.CLEAR < Rung.REOPEN
