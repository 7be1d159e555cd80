"""What the fuzzer is turned on: a name, valid samples, and a function that reads bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hil.errors import HilError


class OutOfLimits(Exception):
    """Something was sent that the limits forbid."""


def as_it_is(data: bytes, draw: random.Random) -> bytes:
    return data


@dataclass(frozen=True)
class Target:
    """samples: valid inputs. run: reads one input, the same way every time. allowed: the errors that it may end in.

    mend: makes what was damaged pass the first check, such as a checksum, so that the next one is reached.
    """

    name: str
    samples: Sequence[bytes]
    run: Callable[[bytes], object]
    allowed: tuple[type[HilError], ...] = ()
    mend: Callable[[bytes, random.Random], bytes] = as_it_is
