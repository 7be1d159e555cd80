"""Chunks leave memory whole and in order, on any file system; memory is used again, never by two at once."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hil.errors import RunError
from hil.tape import chunks as tracks
from hil.tape.chunks import Copies, Track, written
from hil.tape.format import CHUNKS, chunk_path, make_arrays, read_items

SIZE = CHUNKS["input"][0]


def track(folder: Path, room: Any = lambda needed: None) -> Track:
    make_arrays(folder)
    return Track(folder, "input", room)


def values(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def held(folder: Path, count: int) -> bytes:
    return read_items(folder, "input", 0, count).tobytes()


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_appended_is_there_however_it_is_cut(tmp_path: Path, cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if cached:
        monkeypatch.setattr(tracks, "PAST_CACHE", 0)
    x, mine = values(2 * SIZE + 77), track(tmp_path)
    for a, b in ((0, 5), (5, SIZE - 1), (SIZE - 1, SIZE + 3), (SIZE + 3, 2 * SIZE + 77)):  # the last one spans two chunks
        mine.append(x[a:b])
    assert not chunk_path(tmp_path, "input", 2).exists()
    mine.settle()
    assert held(tmp_path, len(x)) == x.tobytes()
    assert np.fromfile(chunk_path(tmp_path, "input", 2), np.float32)[77:].any() == np.False_
    more = values(SIZE, 1)
    mine.append(more)
    mine.settle()
    assert held(tmp_path, len(x) + SIZE) == x.tobytes() + more.tobytes()


def test_what_is_settled_is_on_the_disk_and_so_is_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, brought = track(tmp_path), []
    monkeypatch.setattr(tracks, "synced", lambda path: brought.append(path))
    for number in range(tracks.SYNC_CHUNKS + 3):
        mine.append(values(SIZE, number))
    chunks = [chunk_path(tmp_path, "input", number) for number in range(tracks.SYNC_CHUNKS + 4)]
    assert brought == chunks[: tracks.SYNC_CHUNKS]
    mine.append(values(5))
    mine.settle()
    assert brought == [*chunks, tmp_path / "input"]
    mine.settle()  # nothing new, nothing to bring
    assert len(brought) == len(chunks) + 1


def test_it_goes_back_into_a_chunk_and_on_from_there(tmp_path: Path) -> None:
    x, mine = values(SIZE + 100), track(tmp_path)
    mine.append(x)
    mine.settle()
    mine.append(values(2 * SIZE, 1))
    assert chunk_path(tmp_path, "input", 2).exists()
    mine.go_to(SIZE + 40)
    assert not chunk_path(tmp_path, "input", 2).exists()
    mine.append(x[SIZE + 40 :])
    mine.settle()
    assert held(tmp_path, len(x)) == x.tobytes()
    other = Track(tmp_path, "input", lambda needed: None)
    os.truncate(chunk_path(tmp_path, "input", 1), 4096)
    with pytest.raises(RunError, match="4096 bytes"):
        other.go_to(SIZE + 40)


def test_a_file_system_that_has_only_its_cache_gets_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, real = [], os.open

    def refusing(path: Any, flag: int, *rest: int) -> int:
        flags.append(flag)
        if tracks.PAST_CACHE and flag & tracks.PAST_CACHE:
            raise OSError(errno.EINVAL, "no such thing here")
        return real(path, flag, *rest)

    monkeypatch.setattr(tracks, "PAST_CACHE", 1 << 14)
    mine, x = track(tmp_path), values(2 * SIZE)
    monkeypatch.setattr(tracks.os, "open", refusing)
    mine.append(x)
    monkeypatch.undo()
    mine.settle()
    assert held(tmp_path, len(x)) == x.tobytes()
    assert [bool(flag & (1 << 14)) for flag in flags] == [True, False, False]  # tried once


def test_any_other_fault_is_raised_and_a_chunk_is_asked_for_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    mine = track(tmp_path, asked.append)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(tracks.os, "pwrite", full)
    with pytest.raises(OSError, match="full"):
        mine.append(values(SIZE))
    assert asked == [4 * SIZE]


def test_a_file_is_overwritten_in_place_and_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload, real = mmap.mmap(-1, 1 << 16), os.pwrite
    payload.write(values(1 << 14).tobytes())
    monkeypatch.setattr(tracks.os, "pwrite", lambda file, view, at: real(file, view[:5000], at))  # as an interrupted one does
    path = tmp_path / "x"
    path.write_bytes(b"." * (1 << 16))
    inode = path.stat().st_ino
    written(path, payload, 0)
    assert (path.read_bytes(), path.stat().st_ino) == (payload[:], inode)


@pytest.mark.parametrize(
    "x",
    [torch.randn(3, 5), torch.randn(4, 6).t(), torch.randn(3, requires_grad=True), torch.tensor(2.5), torch.empty(0, 3),
     torch.arange(3), torch.randn(2, 2, dtype=torch.float64), torch.randn(8)[::2], torch.full((2,), -0.0)],
)  # fmt: skip
def test_a_copy_is_what_the_tensor_was(x: torch.Tensor) -> None:
    copies = Copies(1 << 20)
    wanted = x.detach().float().numpy().copy()
    found = copies.of(x)
    with torch.no_grad():
        x.zero_()
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


def test_memory_is_used_again_only_when_nobody_looks() -> None:
    copies = Copies(1 << 20)
    a, b = copies.of(torch.zeros(5, 5)), copies.of(torch.ones(5, 5))
    assert not np.shares_memory(a, b)
    copies.done(a)
    c, d = copies.of(torch.full((5, 5), 2.0)), copies.of(torch.full((5, 5), 3.0))
    assert c is a
    assert c.tolist() == np.full((5, 5), 2.0).tolist()
    assert not np.shares_memory(b, d)
    assert b.tolist() == np.ones((5, 5)).tolist()


def test_no_more_memory_is_kept_than_was_said() -> None:
    copies = Copies(4096)
    for held_ in [copies.of(torch.zeros(256)) for _ in range(10)]:
        copies.done(held_)
    assert sum(map(len, copies._idle.values())) == 4


def test_shapes_that_come_once_do_not_pile_up() -> None:
    copies = Copies(1 << 20)
    for length in range(1, 100):
        copies.done(copies.of(torch.ones(length)))
        assert copies.of(torch.ones(length)).shape == (length,)
    assert len(copies._idle) == tracks.SHAPES
