"""Answers of a port with `bits` are kept as the whole numbers of the device, and replayed bit for bit."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hil.device import Port, Spec
from hil.errors import ContractError
from hil.tape.format import BYTES, FLOAT, WORDS, packed, unpacked
from hil.tape.recorder import recorded
from hil.tape.replay import reels, replay
from hil.tape.writer import Tape

SIZE = 500


class Camera:
    """Answers with frames of its codes."""

    def __init__(self, port: Port, codes: Tensor) -> None:
        self.spec = Spec(Port("display", 0, 255, "1", 4), port, provenance="twin")
        self._frames = iter(port.of_own(codes))

    def forward(self, x: Tensor) -> Tensor:
        return next(self._frames)

    def close(self) -> None: ...


def codes(bits: int, shots: int = 4) -> Tensor:
    rng = np.random.default_rng(bits)
    return torch.from_numpy(rng.integers(0, 1 << bits, (shots, 8, SIZE)).astype(np.float32))


def record(path: Path, device: Camera, shots: int) -> list[Tensor]:
    with Tape(path) as tape:
        tape.begin({})
        recorder = recorded(device, tape, "node", "{}", {})
        return [recorder.forward(torch.full((8, 4), float(k))).clone() for k in range(shots)]


@pytest.mark.parametrize(("bits", "scale"), [(8, 1.0), (8, 3.0), (16, 1.0), (16, 0.1), (8, tuple(np.linspace(0.3, 7, SIZE)))])
def test_it_takes_a_byte_or_two_a_value_and_is_replayed_bit_for_bit(tmp_path: Path, bits: int, scale: float) -> None:
    port = Port("camera", 0, 1e6, "1", SIZE, scale=scale, bits=bits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wanted = record(tmp_path, Camera(port, codes(bits)), 4)
    (reel,) = reels(tmp_path)
    assert set(reel.rows["kind"]) == {BYTES if bits == 8 else WORDS}
    assert reel.head.floats == 0
    assert (reel.head.nbytes - reel.head.length("input") * 4) / (4 * 8 * SIZE) <= 1.1 * bits / 8
    again = replay(reel)
    assert again.spec.outputs == port
    for k, answer in enumerate(wanted):
        assert torch.equal(again.forward(torch.full((8, 4), float(k))).view(torch.int32), answer.view(torch.int32))


def test_an_answer_that_is_no_whole_number_is_kept_whole_and_told_of_once(tmp_path: Path) -> None:
    frames = codes(8)
    frames[1, 0, 0], frames[2, 3, 7], frames[3, 1, 1] = 0.5, 256.0, -0.0
    port = Port("camera", 0, 1000, "1", SIZE, bits=8)
    with pytest.warns(RuntimeWarning, match="kept as float32") as told:
        wanted = record(tmp_path, Camera(port, frames), 4)
    assert len(told) == 1
    (reel,) = reels(tmp_path)
    assert list(reel.rows["kind"]) == [BYTES, FLOAT, FLOAT, FLOAT]
    assert reel.head.floats == 3
    again = replay(reel)
    for k, answer in enumerate(wanted):
        assert torch.equal(again.forward(torch.full((8, 4), float(k))).view(torch.int32), answer.view(torch.int32))


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.sampled_from([8, 16]), st.floats(1e-3, 1e3))
def test_whatever_the_answer_nothing_is_lost(values: list[float], bits: int, scale: float) -> None:
    spec = Spec(Port("d", 0, 1), Port("c", 0, 1, "1", len(values), scale=scale, bits=bits))
    answer = np.array([values], np.float32)
    kind, stored = packed(answer, spec)
    found = unpacked(kind, stored, answer.shape, spec)
    assert np.array_equal(found.view(np.uint32), answer.view(np.uint32))


def test_other_bits_are_refused() -> None:
    with pytest.raises(ContractError, match="8 or 16"):
        Port("camera", 0, 255, bits=12)
