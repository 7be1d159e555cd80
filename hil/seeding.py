"""Chance is an argument: every random number comes from a generator named by (seed, step, stream).

    key = BLAKE2b-64( seed | step | stream )          a counter-based key, so no order of calls can change a draw

Two streams of the same step, or one stream at two steps, are independent; the same triple gives the same numbers in any
process, in any order, before or after a resume.
"""

from __future__ import annotations

import hashlib

import torch


def key(seed: int, step: int, stream: str) -> int:
    """A 63-bit key for (seed, step, stream)."""
    digest = hashlib.blake2b(f"{seed}|{step}|{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, step: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator keyed by (seed, step, stream).

    >>> torch.rand(1, generator=generator(0, 3, "noise")) == torch.rand(1, generator=generator(0, 3, "noise"))
    tensor([True])
    """
    return torch.Generator(device=device).manual_seed(key(seed, step, stream))
