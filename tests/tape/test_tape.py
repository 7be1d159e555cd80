"""A tape holds every shot, bit for bit, whatever ends the run; damage is named, never read over."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from hil.device import Port, Spec, Streaming
from hil.errors import ContractError, LinkTimeout, RunError
from hil.tape import writer as taping
from hil.tape.format import BITS, CHUNKS, FLOAT, FORMAT, PROGRAM, RESET, TERNARY, Reel, chunk_path
from hil.tape.recorder import Recorder, recorded
from hil.tape.writer import Needs, ReelWriter, Shot, Tape

STATIC = Spec(Port("drive", -9.0, 9.0, "V"), Port("reading", -9.0, 9.0, "V"), provenance="twin")
SPIKING = Spec(Port("current", -9.0, 9.0), Port("spikes", -1.0, 1.0), Port("thresholds", 0.0, 9.0), True, "twin")


class Echo:
    """Answers `scale` times the drive; fails when told to."""

    def __init__(self, spec: Spec = STATIC, scale: float = 2.0) -> None:
        self.spec, self.scale, self.fails = spec, scale, False

    def program(self, params: Tensor) -> None: ...

    def reset(self) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        if self.fails:
            raise LinkTimeout("no answer")
        return x * self.scale

    def close(self) -> None: ...


class Stream(Echo):
    """One worker, as the benches have."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(1)

    def submit(self, x: Tensor) -> Future[Tensor]:
        return self.pool.submit(self.forward, x.clone())


def started(path: Path) -> Tape:
    tape = Tape(path)
    tape.begin({"facts": {}})
    return tape


def drives(count: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(3)
    return [torch.randn(1 + k % 3, 5, generator=rng) for k in range(count)]


def same(a: Tensor, b: np.ndarray) -> bool:  # type: ignore[type-arg]
    return a.shape == b.shape and a.numpy().tobytes() == b.tobytes()


def contents(reel: Reel) -> list[tuple[object, ...]]:
    """All but times."""
    return [
        (reel.drive(k).tobytes(), reel.answer(k).tobytes(), reel.key(k), int(reel.rows[k]["flags"]), reel.shape(k))
        for k in range(len(reel))
    ]


def test_every_shot_comes_back_bit_for_bit(tmp_path: Path) -> None:
    asked = [*drives(20), torch.tensor([[-0.0, float("inf"), 1e-42]]), torch.empty(0, 5), torch.randn(2, 3, 4, 1)]
    with started(tmp_path) as tape:
        device = recorded(Echo(), tape, "node", "", {})
        got = [device.forward(x) for x in asked]
    reel = Reel(tmp_path, "node")
    assert len(reel) == len(asked)
    for k, (x, y) in enumerate(zip(asked, got)):
        assert same(x, reel.drive(k))
        assert same(y, reel.answer(k))
    assert set(reel.rows["provenance"]) == {1}
    assert (np.diff(reel.rows["time_ns"]) >= 0).all()
    assert reel.drive(0).tobytes() == asked[0].numpy().tobytes()  # backwards, too


def test_spikes_are_bits_and_nothing_else_is(tmp_path: Path) -> None:
    zeros = torch.zeros(3, 2, 7)
    fired = (torch.arange(42).view(3, 2, 7) % 3 == 0).float()
    couples = torch.randint(-1, 2, (3, 2, 7)).float()
    asked = [zeros, fired, couples, fired * 0.5, torch.full((1, 1, 3), -0.0)]
    with started(tmp_path) as tape:
        device = recorded(Echo(SPIKING, 1.0), tape, "array-1", "", {})
        for x in asked:
            device.forward(x)
    reel = Reel(tmp_path, "array-1")
    assert reel.rows["kind"].tolist() == [BITS, BITS, TERNARY, FLOAT, FLOAT]
    assert all(same(x, reel.answer(k)) for k, x in enumerate(asked))
    assert reel.head.length("spikes") == 2 * 6 + 2 * 6  # 42 spikes in 6 bytes


def test_flags_settings_and_history_are_kept(tmp_path: Path) -> None:
    with started(tmp_path) as tape:
        device = recorded(Echo(SPIKING), tape, "array-1", "", {})
        x = torch.ones(1, 1, 2)
        device.program(torch.ones(2))
        device.reset()
        device.forward(x)
        device.forward(x)
        device.reset()
        device.forward(x)
        device.program(torch.zeros(2))
        device.reset()
        device.forward(x)
    reel = Reel(tmp_path, "array-1")
    assert reel.rows["flags"].tolist() == [PROGRAM | RESET, 0, RESET, PROGRAM | RESET]
    assert reel.key(0) == reel.key(2)  # the same since the reset
    assert len({reel.key(0), reel.key(1), reel.key(3)}) == 3  # other history, other thresholds


def test_a_shot_that_failed_is_not_on_the_tape(tmp_path: Path) -> None:
    echo = Echo()
    with started(tmp_path) as tape:
        device = recorded(echo, tape, "node", "", {})
        device.reset()
        echo.fails = True
        with pytest.raises(LinkTimeout):
            device.forward(torch.ones(1, 1))
        echo.fails = False
        device.forward(torch.ones(1, 1))
    assert Reel(tmp_path, "node").rows["flags"].tolist() == [RESET]


def test_a_streaming_device_stays_one_and_is_recorded_before_anybody_sees_the_answer(tmp_path: Path) -> None:
    asked = drives(30)
    with started(tmp_path) as tape:
        device = recorded(Stream(), tape, "node", "", {})
        assert isinstance(device, Streaming)
        waiting = []
        for x in asked:
            mine = x.clone()
            waiting.append(device.submit(mine))
            mine.zero_()
        for answer in waiting:
            answer.result().zero_()  # whatever is done with an answer, the tape has the measured one
        marks = tape.flush()
        tape.mark()
        assert Reel(tmp_path, "node").head.shots == 30
        assert marks == {}
        assert tape.flush() == {"node": (30, 0)}
    reel = Reel(tmp_path, "node")
    assert reel.head.streaming
    assert all(same(x, reel.drive(k)) and same(2 * x, reel.answer(k)) for k, x in enumerate(asked))


def test_a_full_queue_makes_the_shot_wait_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, slow = [0], ReelWriter.add

    def add(self: ReelWriter, shots: Sequence[Shot]) -> None:
        time.sleep(0.002 * len(shots))
        seen[0] = max(seen[0], len(self._tape._queue))
        slow(self, shots)

    monkeypatch.setattr(ReelWriter, "add", add)
    monkeypatch.setattr(taping, "GATHER_BYTES", 500)
    monkeypatch.setattr(taping, "QUEUE_BYTES", 1000)
    with started(tmp_path) as tape:
        device = recorded(Echo(), tape, "node", "", {})
        for _ in range(40):
            device.forward(torch.ones(5, 10))  # 400 bytes
    assert 1 <= seen[0] <= 3  # the one that waits has not been put yet
    assert len(Reel(tmp_path, "node")) == 40


def test_a_run_that_is_fast_does_not_gather_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taping, "GATHER_S", 60.0)
    monkeypatch.setattr(taping, "GATHER_BYTES", 1000)
    with started(tmp_path) as tape:
        device = recorded(Echo(), tape, "node", "", {})
        end = time.monotonic() + 30
        while tape._reels["node"]._tracks["index"].used < 20:
            device.forward(torch.ones(5, 10))  # 400 bytes
            assert time.monotonic() < end
    assert len(Reel(tmp_path, "node")) >= 20


def test_shots_of_several_arrays_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taping, "GATHER_S", 60.0)  # all of them at once, at the end
    asked = drives(24)
    with started(tmp_path) as tape:
        devices = [recorded(Echo(), tape, f"array-{n}", "", {}) for n in range(3)]
        for k, x in enumerate(asked):
            devices[k % 3].forward(x)
    for n in range(3):
        reel = Reel(tmp_path, f"array-{n}")
        assert all(same(x, reel.drive(k)) for k, x in enumerate(asked[n::3]))


def test_a_worker_that_is_woken_for_nothing_stays(tmp_path: Path) -> None:
    """As when the queue is full of shots that are on their way already: the next ones must still be written."""
    with started(tmp_path) as tape:
        device = recorded(Echo(), tape, "node", "", {})
        for _ in range(3):
            with tape._change:
                tape._due = True
                tape._change.notify_all()
            time.sleep(0.05)
            assert tape._worker.is_alive()
            device.forward(torch.ones(1, 1))
    assert len(Reel(tmp_path, "node")) == 3


def test_a_shot_after_the_end_is_refused_and_not_lost_in_silence(tmp_path: Path) -> None:
    with started(tmp_path) as tape:
        device = recorded(Echo(), tape, "node", "", {})
        device.forward(torch.ones(1, 1))
    with pytest.raises(RunError, match="after the tape was closed"):
        device.forward(torch.ones(1, 1))
    assert len(Reel(tmp_path, "node")) == 1


def test_what_was_flushed_is_readable_and_the_torn_tail_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = started(tmp_path / "a")
    device = recorded(Echo(), tape, "node", "", {})
    asked = drives(9)
    for x in asked[:6]:
        device.forward(x)
    tape.flush()
    shutil.copytree(tmp_path / "a", tmp_path / "torn")  # what a SIGKILL leaves
    for x in asked[6:]:
        device.forward(x)
    tape.close()
    tape.close()
    for name in ("input", "output", "index"):  # values came to the disk, the JSON did not
        shutil.copytree(tmp_path / "a" / "node" / name, tmp_path / "torn" / "node" / name, dirs_exist_ok=True)
    torn, whole = (Reel(tmp_path / name, "node") for name in ("torn", "a"))
    assert len(torn) == 6
    assert contents(torn) == contents(whole)[:6]


def test_a_tape_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("input", "spikes"):
        monkeypatch.setitem(cast(dict[str, tuple[int, ...]], CHUNKS), name, (25,))  # many, and some of them cut by a flush
    asked = drives(12)
    for name in ("whole", "broken"):
        tape = started(tmp_path / name)
        device = recorded(Echo(SPIKING), tape, "array-1", "", {})
        device.reset()
        for x in asked[:6]:
            device.forward(x[None])
        device.reset()
        tape.mark()
        marks = json.loads(json.dumps(tape.flush()))
        if name == "broken":
            device.forward(asked[11][None])  # of a step that never became whole
            tape.close()
            tape = Tape(tmp_path / name)
            tape.begin({"other": "facts are those of the beginning"})
            device = recorded(Echo(SPIKING), tape, "array-1", "", {})
            device.reset()  # while the network is built anew
            device.forward(asked[3][None])
            tape.cut(marks)
        for x in asked[6:]:
            device.forward(x[None])
        tape.close()
    whole, broken = (Reel(tmp_path / name, "array-1") for name in ("whole", "broken"))
    assert contents(whole) == contents(broken)
    assert whole.head.same_device(broken.head)
    assert len(whole) == 12


def test_a_batch_that_is_made_again_is_on_the_tape_once(tmp_path: Path) -> None:
    asked = drives(6)
    for name, broken in (("whole", []), ("again", asked[2:4])):
        with started(tmp_path / name) as tape:
            device = recorded(Echo(SPIKING), tape, "array-1", "", {})
            device.reset()
            device.forward(asked[0][None])
            tape.mark()
            before = tape.place()
            device.reset()
            for x in broken:
                device.forward(x[None])
            if broken:
                tape.cut(before)
                device.reset()
            for x in asked[2:]:
                device.forward(x[None])
            assert tape.flush() == {"array-1": (1, 0)}  # the last whole step
    assert contents(Reel(tmp_path / "whole", "array-1")) == contents(Reel(tmp_path / "again", "array-1"))


def test_going_on_is_refused_without_a_tape_and_with_another_device(tmp_path: Path) -> None:
    with started(tmp_path) as tape:
        recorded(Echo(), tape, "node", "", {}).forward(torch.ones(1, 1))
    tape = Tape(tmp_path)
    with pytest.raises(RunError, match="another one than on the tape"):
        recorded(Echo(), tape, "node", "other settings", {})
    recorded(Echo(), tape, "node", "", {})
    with pytest.raises(RunError, match="not recorded from its beginning"):
        tape.cut(None)
    with pytest.raises(RunError, match="damaged tape"):
        tape.cut({"node": [2, 0]})
    tape.close()
    assert len(Reel(tmp_path, "node")) == 1  # nothing was lost in trying


@pytest.mark.parametrize(
    "damage",
    ["chunk gone", "chunk cut", "index gone", "index altered", "json cut", "json gone", "json altered", "answer altered",
     "drive altered", "array gone"],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    with started(tmp_path) as tape:
        device = recorded(Echo(), tape, "node", "", {})
        for x in drives(5):
            device.forward(x)
    head, folder = tmp_path / "node.json", tmp_path / "node"
    what, how = damage.split()
    array = {"chunk": "output", "answer": "output", "drive": "input"}.get(what, "index")
    victim = head if what == "json" else chunk_path(folder, array, 0)
    payload = bytearray(victim.read_bytes())
    if what == "array":
        shutil.rmtree(folder / "spikes")
    elif how == "gone":
        victim.unlink()
    elif how == "cut":
        victim.write_bytes(payload[: len(payload) // 2])
    elif what == "json":
        victim.write_text(head.read_text(encoding="utf-8").replace('"shots": 5', '"shots": 4'), encoding="utf-8")
    else:
        payload[40] ^= 1
        victim.write_bytes(payload)
    with pytest.raises(RunError, match="damaged tape") as caught:
        contents(Reel(tmp_path, "node"))
    assert "--record" in str(caught.value)


def test_a_tape_of_another_format_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with started(tmp_path) as tape:
        recorded(Echo(), tape, "node", "", {}).forward(drives(1)[0])
    head = tmp_path / "node.json"
    for other in (1, 3, 5):
        head.write_text(head.read_text(encoding="utf-8").replace(f'"format": {FORMAT}', f'"format": {other}'), encoding="utf-8")
        with pytest.raises(RunError, match=f"format {other}: a tape of another version of hil, .* this one has {FORMAT}"):
            Reel(tmp_path, "node")
        head.write_text(head.read_text(encoding="utf-8").replace(f'"format": {other}', f'"format": {FORMAT}'), encoding="utf-8")


def test_a_full_disk_ends_the_run_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = Needs.of([800, 400], 1, False, 100, 1000, 3)
    assert (needs.epoch, needs.run) == (1200 * 8 * 1000, 1200 * 8 * 3000)
    assert "9.6 MB an epoch" in needs.check(tmp_path / "not" / "yet")
    tape = started(tmp_path)
    device = recorded(Echo(), tape, "node", "", {})
    device.forward(torch.ones(1, 1))
    tape.flush()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(taping.shutil, "disk_usage", lambda path: usage._replace(free=taping.RESERVE_BYTES + 10))
    with pytest.raises(RunError, match="cannot hold the tape"):
        needs.check(tmp_path)
    device.forward(torch.ones(10, 10))
    with pytest.raises(RunError, match="cannot hold the tape"):
        tape.flush()
    with pytest.raises(RunError, match="cannot hold the tape"):
        device.forward(torch.ones(1, 1))
    with pytest.raises(RunError, match="cannot hold the tape"):
        tape.close()
    assert len(Reel(tmp_path, "node")) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "tape"]


def test_closing_never_hides_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = started(tmp_path)
    recorded(Echo(), tape, "node", "", {}).forward(torch.ones(1, 1))
    monkeypatch.setattr(taping, "RESERVE_BYTES", 1 << 60)
    cause = LinkTimeout("the cause")
    tape.__exit__(LinkTimeout, cause, None)
    assert len(Reel(tmp_path, "node")) == 0


def test_an_answer_that_is_not_float32_is_refused(tmp_path: Path) -> None:
    with started(tmp_path) as tape:
        device = recorded(Echo(), tape, "node", "", {})
        assert isinstance(device, Recorder)
        with pytest.raises(ContractError, match="float64"):
            device.forward(torch.ones(1, 1, dtype=torch.float64))
