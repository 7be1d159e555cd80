"""Sets that are made from a formula: they follow it, and are the same on every machine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from hil.cli import run
from hil.data.dataset import Dataset, load
from hil.data.kinds import MADE, OWN
from hil.data.made import lorenz, mackey_glass, narma
from hil.data.made.channel import PATHS
from hil.data.made.moving_dots import MovingDots
from hil.data.made.spoken_vowels import SpokenVowels, band_edges
from hil.data.made.vowels import FORMANTS_HZ, VOWELS
from hil.data.sources import NAMES
from hil.errors import ConfigError
from hil.metric import METRICS

CHECKSUMS = {
    "mackey_glass": "2075328d8fdf",
    "lorenz": "e5c4ca004b08",
    "narma5": "854b9cc6b359",
    "narma10": "0003d3043f0b",
    "narma20": "ce0ab6db6633",
    "memory_capacity": "669d01198691",
    "channel_equalisation": "d0de31304529",
    "parity": "a46b4acb30e9",
    "vowels": "bf2b26a408e7",
    "spoken_vowels": "468430ba8977",
    "moving_dots": "3bf01dfb1c3b",
}


@pytest.mark.parametrize("name", MADE)
def test_a_set_is_what_it_always_was(name: str) -> None:
    assert load(name).checksum.startswith(CHECKSUMS[name])
    assert not load(name, seed=1).checksum.startswith(CHECKSUMS[name])


def together(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    parts = (data.train, data.validation, data.test)
    return torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])


def test_mackey_glass_is_predicted_from_its_past_and_chaotic() -> None:
    x, y = together(load("mackey_glass", number=3000, window=5, ahead=3))
    assert x.shape == (3000, 5)
    assert y.shape == (3000, 1)
    assert torch.equal(x[1:, :-1], x[:-1, 1:])  # a window moves on by a second
    assert torch.equal(y[:-3, 0], x[3:, -1])  # what is to be predicted is the newest value three windows later
    assert 0.2 < float(x.min()) < 0.5 < 1.2 < float(x.max()) < 1.4  # the range of the attractor, e.g. Jaeger 2001
    one, other = (mackey_glass.series(2500, 17, seed) for seed in (0, 1))
    assert np.abs(one[:5] - other[:5]).max() < 0.01  # two beginnings that are close
    assert np.abs(one - other).max() > 0.4


def test_mackey_glass_keeps_its_equation_between_steps() -> None:
    """At the fixed point 1 nothing moves: 0.2 / 2 = 0.1."""
    fixed = mackey_glass.BETA / (1 + 1.0) - mackey_glass.GAMMA
    assert fixed == pytest.approx(0)
    calm = mackey_glass.series(2000, 4, 0)  # a short delay: the fixed point attracts
    assert calm[-1] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_narma_keeps_its_equation(n: int) -> None:
    u = np.random.default_rng(0).uniform(0, 0.5, 60)
    found = narma.answer(u, n)
    y = np.concatenate([[0.0], found])  # y(t) at place t
    for t in range(22, 59):
        due = 0.3 * y[t] + 0.05 * y[t] * y[t - n + 1 : t + 1].sum() + 1.5 * u[t - n + 1] * u[t]
        assert y[t + 1] == pytest.approx(np.tanh(due + 0.01) + 0.2 if n == 20 else due + 0.1, rel=1e-11)


def test_sequences_go_on_where_the_last_one_ended() -> None:
    for name in ("narma10", "lorenz", "memory_capacity", "mackey_glass"):
        whole, cut = (load(name, number=n, steps=s, window=1, sequence=True) for n, s in ((12, 20), (24, 10)))
        pieces = [torch.cat([part for split in (d.train, d.validation, d.test) for part in split.x]) for d in (whole, cut)]
        assert torch.equal(*pieces)
        assert whole.train.y.shape[:2] == whole.train.x.shape[:2]


def test_symbols_may_be_numbers_a_step() -> None:
    data = load("channel_equalisation", number=10, steps=20, window=1, sequence=True, targets="numbers")
    assert data.train.y.shape == (8, 20, 1)
    assert set(data.train.y.flatten().tolist()) == {-3.0, -1.0, 1.0, 3.0}


def test_lorenz_keeps_its_equation_and_its_butterfly() -> None:
    x = 20 * lorenz.series(5000, 0)
    assert 17 < x.max() < 21
    assert -21 < x.min() < -17
    assert all(value == pytest.approx(0, abs=1e-12) for value in lorenz.slope((72**0.5, 72**0.5, 27.0)))  # a fixed point


def test_the_memory_is_asked_for_what_was() -> None:
    data = load("memory_capacity", number=300, delays=4, window=6)
    x, y = together(data)
    assert torch.equal(y, x.flip(1)[:, 1:5])
    assert METRICS["memory_capacity"].of(y, y) == pytest.approx(4)
    assert METRICS["memory_capacity"].of(torch.rand(300, 4), y) < 0.2


def test_narma10_is_in_its_range() -> None:
    x, target = together(load("narma10"))
    assert float(x.max()) < 0.5
    assert 0.1 < float(target.mean()) < 0.6


def test_the_middle_of_the_window_tells_the_symbol_of_a_clean_channel() -> None:
    """Without noise the sum of the paths is close to the symbol: the others shift it by 0.7 at most."""
    assert sum(abs(share) for share in PATHS if share != 1.0) < 0.75
    data = load("channel_equalisation", snr_db=200.0)
    assert data.classes == ("-3", "-1", "1", "3")
    x, y = together(data)
    sent = torch.tensor([-3.0, -1.0, 1.0, 3.0])[y]
    now = x[:, -3]  # d(t - 2) has arrived in full two values before the newest
    assert float(torch.corrcoef(torch.stack([now, sent]))[0, 1]) > 0.95
    others = [float(torch.corrcoef(torch.stack([x[:, place], sent]))[0, 1]) for place in range(10) if place != 7]
    assert max(map(abs, others)) < 0.3
    noisy, _ = together(load("channel_equalisation", snr_db=20.0))
    snr = (x.square().mean() / (noisy - x).square().mean()).item()
    assert 10 * np.log10(snr) == pytest.approx(20.0, abs=0.3)


@pytest.mark.parametrize("delay", [0, 2])
def test_parity_is_that_of_the_bits(delay: int) -> None:
    x, y = together(load("parity", bits=3, delay=delay))
    assert x.shape[1] == 3 + delay
    assert set(x.unique().tolist()) == {0.0, 1.0}
    odd = x[:, :3].sum(1).long() % 2  # the newest `delay` bits do not count
    assert torch.equal(y, odd)
    with pytest.raises(ConfigError, match="bits that count"):
        load("parity", bits=3, window=2)


def test_a_speaker_is_in_one_split_and_vowels_are_where_they_were_measured() -> None:
    data = load("vowels", speakers=60)
    x, y = together(data)
    assert data.classes == tuple(sorted(VOWELS))
    assert Counter(y.tolist()) == dict.fromkeys(range(10), 120)
    assert all(len(part) % 20 == 0 for part in (data.train, data.validation, data.test))
    mean = torch.exp(x[y == data.classes.index("IY")]).mean(0) * 1e3
    assert mean.numpy() == pytest.approx(FORMANTS_HZ[:, :, 0].mean(0), rel=0.03)


def test_spoken_vowels_have_the_formants_of_their_vowels() -> None:
    """In the middle of an utterance the loudest band above the voice is that of a formant; the same speaker in one split."""
    made = SpokenVowels(speakers=6, frames=24, bands=30, snr_db=60.0).examples()
    x = made.read(np.arange(len(made)))
    assert x.shape == (120, 24, 30)
    tops = band_edges(30)[1:-1]
    for name in ("AA", "IY", "ER"):
        formants = FORMANTS_HZ[:, :, VOWELS.index(name)]
        for speaker in range(3):
            one = x[(made.targets == name) & (made.group == speaker)][:, 10:13].mean((0, 1))
            heard = np.interp(formants[speaker], tops, one)
            between = np.interp(np.sqrt(formants[speaker, :1] * formants[speaker, 1:2]), tops, one)
            assert heard[0] > between
    data = load("spoken_vowels", speakers=20, frames=20, sequence=True)
    assert data.train.x.shape[1:] == (20, 12)
    assert all(len(part) % 20 == 0 for part in (data.train, data.validation, data.test))


def test_an_utterance_begins_and_ends_in_the_noise() -> None:
    loud = SpokenVowels(speakers=3, snr_db=40.0).examples()
    energy = loud.read(np.arange(60)).max(2)
    assert (energy[:, 12] > energy[:, -1] + 2).all()
    assert len(set((energy > -4).argmax(1).tolist())) > 3  # at different times


def test_a_published_image_is_a_sequence_of_its_rows() -> None:
    flat, rows = load("digits"), load("digits", sequence=True)
    assert rows.train.x.shape == (1437, 8, 8)
    assert rows.shape == (8, 8)
    assert torch.equal(rows.test.x.flatten(1), flat.test.x)
    assert rows.checksum != flat.checksum
    even = load("digits", sequence=True, standardise=True)
    assert torch.allclose(even.train.x.mean((0, 1)), torch.zeros(8), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "classes"), [("mackey_glass", False), ("narma10", False), ("channel_equalisation", True), ("parity", True)]
)
def test_a_series_may_be_cut_into_sequences(name: str, classes: bool) -> None:
    data = load(name, number=30, window=1, steps=12, sequence=True)
    assert data.train.x.shape == (24, 12, 1)
    assert data.train.y.shape == ((24, 12) if classes else (24, 12, 1))
    assert data.shape == (12, 1)
    with pytest.raises(ConfigError, match="has no window"):
        load(name, window=3, steps=12, sequence=True)
    with pytest.raises(ConfigError, match="steps makes no sense; got -1; allowed: whole number, 0 or more"):
        load(name, window=1, steps=-1, sequence=True)


def test_all_sets_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "datasets"]) == 0
    listed = capsys.readouterr().out
    for name in (*NAMES, *MADE, *OWN):
        assert f" {name} " in listed
        assert run(["describe", name]) == 0
        assert capsys.readouterr().out.strip()


def test_dots_leave_events_that_a_sum_over_time_mixes_up() -> None:
    """A dot to the right: "on" in front of it, "off" behind it, and for each pixel as many of both in a round."""
    made = MovingDots(number=60, dots=1, noise=0.0, steps=20, side=10).examples()
    x = torch.from_numpy(made.read(np.arange(60))).double()
    assert x.shape == (60, 20, 2, 10, 10)
    assert 0.5 < float(x[:, :, 0].sum() / x[:, :, 1].sum()) < 2
    here = torch.arange(10.0)

    def place(counts: torch.Tensor, axis: int) -> torch.Tensor:
        """The angle of the mean place on the ring, from (n, time, side, side)."""
        turn = torch.polar(torch.ones(10), here * (2 * np.pi / 10)).to(torch.complex128)
        return (counts.sum(-axis).to(torch.complex128) @ turn).angle()

    for name, axis, sign in (("right", 2, 1), ("left", 2, -1), ("down", 1, 1), ("up", 1, -1)):
        some = x[torch.from_numpy(made.targets == name)]
        ahead = place(some[:, :, 0], axis) - place(some[:, :, 1], axis)  # of "on" before "off"
        assert bool((torch.sin(ahead) * sign > 0).all())
    total = x.sum(1)
    assert torch.equal(total[:, 0].sum((1, 2)), total[:, 1].sum((1, 2)))


def test_events_keep_their_time_axis() -> None:
    data = load("moving_dots", number=40, side=6, steps=5, sequence=True)
    assert data.train.x.shape[1:] == (5, 2 * 6 * 6)
    assert data.shape == (5, 2, 6, 6)
    flat = load("moving_dots", number=40, side=6, steps=5)
    assert torch.equal(data.train.x.flatten(1), flat.train.x)
