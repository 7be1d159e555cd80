"""Recordings of event cameras, and spikes in HDF5: the same events from every format, what is refused, a net that learns."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from hil.commands.terminal import Terminal
from hil.commands.train import launch
from hil.config import modules
from hil.config.experiment import read_experiment
from hil.config.read import dump
from hil.data.dataset import Dataset, load
from hil.data.event_folder import EventFolder
from hil.data.made.moving_dots import WAYS, MovingDots
from hil.errors import ConfigError, DataError
from hil.files import write_atomic
from hil.run.folder import RunFolder

Counts = NDArray[np.float32]
STEPS, SIDE, STEP_US = 6, 8, 2_000
TALL = np.array([[0, 3, 1, 0], [9_000, 2, 7, 1]])  # t, x, y, p


def events_of(counts: Counts) -> NDArray[np.int64]:
    """Counts (steps, 2, rows, columns) -> events (n, 4) in the order of time: t, x, y, p."""
    found = [
        (step * STEP_US + 1 + n, x, y, 1 - off)
        for step, off, y, x in np.argwhere(counts).tolist()
        for n in range(int(counts[step, off, y, x]))
    ]
    return np.array(sorted(found))


def atis(events: NDArray[np.int64]) -> bytes:
    return b"".join(struct.pack(">BBBH", x, y, p << 7 | t >> 16, t & 0xFFFF) for t, x, y, p in events.tolist())


def aedat(events: NDArray[np.int64]) -> bytes:
    told = b"#!AER-DAT2.0\r\n# made by a test\r\n"
    return told + b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for t, x, y, p in events.tolist())


def npz(path: Path, events: NDArray[np.int64]) -> None:
    np.savez(path, **dict(zip("txyp", events.T, strict=True)))


def written(folder: Path, suffix: str, number: int = 40) -> Path:
    """A folder of recordings by class; every one begins at 0 and ends at STEPS * STEP_US."""
    made = MovingDots(number=number, side=SIDE, steps=STEPS, dots=1, noise=0.0).examples()
    counts = made.read(np.arange(number))
    for way in WAYS:
        (folder / way).mkdir(parents=True)
    for n, (one, way) in enumerate(zip(counts, made.targets, strict=True)):
        one[0, 0, 0, 0], one[-1, 1, -1, -1] = 1, 1
        events = events_of(one)
        events[0, 0], events[-1, 0] = 0, STEPS * STEP_US
        path = folder / str(way) / f"{n:03}{suffix}"
        if suffix == ".npz":
            npz(path, events)
        else:
            path.write_bytes((atis if suffix == ".bin" else aedat)(events))
    return folder


def read(use: Path, **settings: object) -> Dataset:
    return load(str(use), sequence=True, **settings)  # type: ignore[arg-type]


def test_every_format_gives_the_same_examples(tmp_path: Path) -> None:
    sets = [
        read(written(tmp_path / suffix[1:], suffix), steps=STEPS, size=[SIDE, SIDE]) for suffix in (".bin", ".aedat", ".npz")
    ]
    assert sets[0].classes == tuple(sorted(WAYS))
    assert sets[0].shape == (STEPS, 2, SIDE, SIDE)
    assert len({one.checksum for one in sets}) == 1
    x = np.concatenate([sets[0].train.x.numpy(), sets[0].validation.x.numpy(), sets[0].test.x.numpy()])
    made = MovingDots(number=40, side=SIDE, steps=STEPS, dots=1, noise=0.0).examples().read(np.arange(40))
    assert np.abs(np.sort(x.sum((1, 2))) - np.sort(made.sum((1, 2, 3, 4)))).max() <= 2  # the first and the last event


def test_steps_of_equal_duration_or_of_equally_many_events_and_pooled_pixels(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    npz(tmp_path / "one" / "a.npz", np.array([[5, 0, 1, 1], [6, 3, 2, 0], [8, 1, 0, 1], [1_005, 3, 3, 1]]))

    def frames(**settings: object) -> Counts:
        return EventFolder(steps=2, size=(4, 4), **settings).examples(tmp_path).read(np.array([0]))[0]  # type: ignore[arg-type, no-any-return]

    time, number = frames(), frames(by="number")
    assert time.sum((1, 2, 3)).tolist() == [3, 1]
    assert number.sum((1, 2, 3)).tolist() == [2, 2]
    assert [tuple(map(int, at)) for at in np.argwhere(number)] == [(0, 0, 1, 0), (0, 1, 2, 3), (1, 0, 0, 1), (1, 0, 3, 3)]
    pooled = frames(pool=2)
    assert pooled.shape == (2, 2, 2, 2)
    assert pooled[0, 0].tolist() == [[2, 0], [0, 0]]


def test_time_of_a_long_recording_of_atis_goes_on(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    later = struct.pack(">BBBH", 0, 240, 0, 0)
    (tmp_path / "one" / "a.bin").write_bytes(atis(np.array([[0, 1, 1, 1]])) + later + atis(np.array([[0, 2, 2, 1]])))
    x = EventFolder(steps=2).examples(tmp_path).read(np.array([0]))[0]
    assert [tuple(map(int, at)) for at in np.argwhere(x)] == [(0, 0, 1, 1), (1, 0, 2, 2)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.bin", b"123456", "whole number of events"),
        ("a.bin", b"", "without events"),
        ("a.bin", atis(np.array([[1, 200, 3, 1]])), "row 3, column 200 at event 1"),
        ("a.aedat", b"AEDAT", "AEDAT 2.0"),
        ("a.aedat", b"#!AER-DAT2.0", "header without an end"),
        ("a.aedat", b"#!AER-DAT2.0\r\n1234", "4 bytes after the header"),
        ("a.npz", b"PK\x03\x04", "damaged"),
        ("a.txt", b"", "no recording"),
    ],
)
def test_a_damaged_recording_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.bin").write_bytes(atis(TALL))
    (tmp_path / "one" / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        read(tmp_path)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: e.update(p=e["p"] + 1), r"p\[1\] = 2"),
        (lambda e: e.update(t=e["t"] / 2), "t float64"),
        (lambda e: e.update(x=e["x"][1:]), "one for each event"),
        (lambda e: e.pop("y"), "t, x, y, p"),
    ],
)
def test_arrays_that_are_no_recording(tmp_path: Path, change: Callable[[dict[str, Counts]], object], says: str) -> None:
    (tmp_path / "one").mkdir()
    arrays = dict(zip("txyp", TALL.T, strict=True))
    change(arrays)  # type: ignore[arg-type]
    np.savez(tmp_path / "one" / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=says):
        read(tmp_path, size=[8, 8])


def test_the_size_of_the_picture_must_be_known_and_divide(tmp_path: Path) -> None:
    folder = written(tmp_path / "r", ".npz")
    with pytest.raises(ConfigError, match="how large"):
        read(folder)
    with pytest.raises(ConfigError, match="rows and columns"):
        read(folder, size=[8])
    with pytest.raises(ConfigError, match="divisor"):
        read(folder, size=[8, 8], pool=3)


EXPERIMENT = """
[data]
use = "recordings"
steps = 6
size = [8, 8]
sequence = true
[network]
widths = [128, 60, 4]
[device]
chip = "lif"
leak = 0.5
[learner]
use = "saf_e"
time_steps = 6
[optimizer]
use = "Adam"
lr = 3e-3
[train]
epochs = 6
batch = 24
threads = 1
"""


def test_a_spiking_net_learns_from_recordings(tmp_path: Path) -> None:
    written(tmp_path / "recordings", ".bin", 240)
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    made = RunFolder.create(tmp_path / "run")
    made.write_config(dump(experiment := read_experiment(path)))
    write_atomic(made.path / modules.ORIGINS, modules.origins({"config.toml": [path]}))
    launch(made, experiment, Terminal(quiet=True))
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["test_accuracy"] > 0.7  # chance 0.25


# ---- spikes in HDF5 --------------------------------------------------------------------------------------------------------


def spikes(path: Path, change: Callable[[h5py.File], object] = lambda file: None) -> Path:
    """Forty examples of four channels; class 1 is class 0 played backwards. What `change` does to the file is done last."""
    with h5py.File(path, "w") as file:
        kind, whole = h5py.vlen_dtype(np.float16), h5py.vlen_dtype(np.uint16)
        times, units = file.create_dataset("spikes/times", 40, kind), file.create_dataset("spikes/units", 40, whole)
        for n in range(40):
            times[n] = np.array([0.0, 0.25, 0.5, 0.75]) + 0.001 * (n // 2)
            units[n] = np.arange(4) if n % 2 == 0 else np.arange(4)[::-1]
        file["labels"] = np.arange(40) % 2
        file["extra/keys"] = ["up", "down"]
        file["extra/speaker"] = np.arange(40) // 10
        change(file)
    return path


def test_spikes_become_counts_of_steps_and_channels(tmp_path: Path) -> None:
    data = read(spikes(tmp_path / "s.h5"), steps=4, duration="1 s", units=4)
    assert (data.shape, data.classes) == ((4, 4), ("down", "up"))
    for x, y in zip(data.train.x, data.train.y, strict=True):
        assert x.tolist() == (np.eye(4)[::-1] if data.classes[int(y)] == "down" else np.eye(4)).tolist()
    pooled = read(tmp_path / "s.h5", steps=4, duration="1 s", units=4, pool=2)
    assert pooled.shape == (4, 2)
    with pytest.raises(ConfigError, match="divisor"):
        read(tmp_path / "s.h5", units=4, pool=3)


def test_neither_recordings_nor_images_have_a_group(tmp_path: Path) -> None:
    folder = written(tmp_path / "r", ".bin")
    with pytest.raises(DataError, match="recordings have no column"):
        read(folder, split={"group": "speaker"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.pop("labels"), "labels"),
        (lambda f: (f.pop("labels"), f.create_dataset("labels", data=np.full(40, 2))), "2 at example 0"),
        (lambda f: (f.pop("labels"), f.create_dataset("labels", data=np.zeros(39, int))), "one of each for each"),
        (lambda f: f["spikes/times"].__setitem__(3, [2.0] * 4), "example 3.*2 s in channel"),
        (lambda f: f["spikes/times"].__setitem__(3, [float("nan")] * 4), "nan s"),
        (lambda f: f["spikes/units"].__setitem__(5, [0, 1, 2, 700]), "example 5.*channel 700"),
        (lambda f: f["spikes/units"].__setitem__(5, [0, 1]), "one channel for each spike"),
    ],
)
def test_damaged_spikes_are_named(tmp_path: Path, change: Callable[[h5py.File], object], says: str) -> None:
    with pytest.raises(DataError, match=f"(?s){says}"):
        read(spikes(tmp_path / "s.h5", change), steps=4, duration="1 s", units=4)
