from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hil.seeding import generator, key

SEEDS, STEPS, STREAMS = st.integers(-(2**63), 2**63), st.integers(0, 2**40), st.text(max_size=8)


def draw(seed: int, step: int, stream: str) -> list[float]:
    return torch.rand(4, generator=generator(seed, step, stream)).tolist()


def test_the_same_triple_gives_the_same_numbers_in_any_order() -> None:
    first = draw(3, 7, "noise")
    draw(3, 8, "noise")
    torch.rand(5)
    assert draw(3, 7, "noise") == first


def test_keys_are_pinned() -> None:
    """It is the number of another process; a change of it breaks the replay of every run ever recorded."""
    assert key(0, 0, "noise") == 6537236483532332146


@given(SEEDS, STEPS, STREAMS, SEEDS, STEPS, STREAMS)
def test_other_triples_have_other_keys(s: int, n: int, a: str, t: int, m: int, b: str) -> None:
    assert (key(s, n, a) == key(t, m, b)) == ((s, n, a) == (t, m, b))


@given(SEEDS, STEPS, STREAMS)
def test_keys_fit_a_generator(seed: int, step: int, stream: str) -> None:
    assert 0 <= key(seed, step, stream) < 2**63
    generator(seed, step, stream)


def test_streams_do_not_resemble_each_other() -> None:
    draws = torch.stack([torch.randn(4000, generator=generator(0, n, s)) for n in range(5) for s in ("noise", "order")])
    apart = torch.corrcoef(draws) - torch.eye(len(draws))
    assert float(apart.abs().max()) < 0.07


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw(0, 0, "noise")
    assert torch.equal(before, torch.get_rng_state())
