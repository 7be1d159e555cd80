"""Functions g that people choose: what a search has to be at least as good as."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hil.feedback.feedback import ArctanSlope, Box, Constant, Feedback, Fourier, Function, Gaussian, Sine
from hil.search.jobs import Recipe
from hil.seeding import generator

HAND_MADE: Mapping[str, Function] = {
    "sine": Sine(),
    "cosine": Sine(phase=math.pi / 2),
    "sine, phase 1.2": Sine(phase=1.2),
    "sine, frequency 1.3, phase 1.2": Sine(frequency=1.3, phase=1.2),
    "gaussian, width 0.5": Gaussian(0.5),
    "gaussian, width 1": Gaussian(1.0),
    "box, half width 0.5": Box(0.5),
    "box, half width 1": Box(1.0),
    "arctan slope": ArctanSlope(),
    "constant": Constant(),
}


def hand_made(like: Recipe) -> dict[str, Recipe]:
    """Return well-known functions, each with the matrices and the rate of `like`."""
    return {name: with_g(like, g) for name, g in HAND_MADE.items()}


def random_fourier(like: Recipe, seed: int, count: int, terms: int = 4, half_period: float = 2.0) -> dict[str, Recipe]:
    """Random truncated Fourier series, as the papers on aDFA use them."""
    rngs = (generator(seed, number, "random fourier") for number in range(count))
    return {
        f"random Fourier {number + 1}": with_g(like, Fourier.random(rng, terms, half_period)) for number, rng in enumerate(rngs)
    }


def with_g(like: Recipe, g: Function) -> Recipe:
    """Return the recipe `like` with another g; B and lr stay."""
    found = like.feedback
    return Recipe(Feedback(g, found.distribution, found.scale, found.rank, found.sparsity), like.lr)
