"""Choice of where the host computes: [train] on = "cpu", "cuda", "cuda:1", "mps", or "auto", the first of cuda, mps, cpu.

On an accelerator are: synapses, what a learner keeps, optimiser state, the examples, and a twin with its state. A real device
takes the drives from there and its answers go back there (`hil.device.plain`); a checkpoint is the same whatever wrote it.

What is drawn once (weights, feedback matrices, the order of examples, the fabrication of a twin) is drawn on the CPU and moved,
so that it is the same everywhere. What is drawn at every step (noise, dropout, negatives, shifts) is drawn where it is used.

Examples: the whole data set lives on the accelerator if it takes no more than a quarter of what is free there; else it stays in
the host's memory, and a batch at a time is sent from pinned pages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hil.errors import ConfigError
from hil.system import keep_memory

LARGEST_SHARE = 0.25  # of the free memory, for the examples; the rest is for the network, its traces and its optimiser
ALLOWED = '"cpu", "cuda", "cuda:1", "mps", "auto"'


def named(on: str, where: str) -> torch.device:
    """The device of torch that [train] `on` means.

    Raises:
        ConfigError: no such name, or this machine (or this build of torch) does not have it.
    """
    place = f"{where}: [train] on"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", on):
        raise ConfigError(
            "no such place to compute", where=place, got=f'"{on}"', allowed=ALLOWED, outputs="untouched; nothing was opened",
            todo="write one of these",
        )  # fmt: skip
    chosen = torch.device(_first() if on == "auto" else on)
    lacking = _lacking(chosen)
    if lacking:
        raise ConfigError(
            f'"{on}" is not there', where=place, got=f"torch {torch.__version__}: {lacking}",
            allowed='what this machine has, now "' + '", "'.join(present()) + '", or "auto"',
            outputs="untouched; nothing was opened",
            todo='write on = "auto", or install a torch that is built for your accelerator: https://pytorch.org/get-started',
        )  # fmt: skip
    return chosen


def present() -> tuple[str, ...]:
    """The names that this machine and this build of torch have."""
    cards = tuple(f"cuda:{number}" for number in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    return ("cpu", *cards, *(("mps",) if torch.backends.mps.is_available() else ()))


def settled(place: torch.device) -> None:
    """Convolutions on `place` repeatable, and rounded as float32, for the life of this process; nothing to do on the CPU.

    They are otherwise free to add in any order, so that a resumed run would not go on with the same numbers, and to round to
    10 bits, which moves spikes at the threshold. Of other operations torch says itself which are not repeatable on a GPU.
    """
    if place.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Whatever default a user's program has set for itself: what is made here is float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def holds(size: int, place: torch.device) -> bool:
    """True if examples of `size` bytes fit on `place`, beside all else that has to be there."""
    return place.type != "cpu" and size <= LARGEST_SHARE * _free_bytes(place)


def sent(values: torch.Tensor, place: torch.device) -> torch.Tensor:
    """`values` on `place`; from the host's memory to a GPU by way of pinned pages, while the host goes on."""
    if values.device.type == "cpu" and place.type == "cuda":
        return values.pin_memory().to(place, non_blocking=True)
    return values.to(place)


def title(place: torch.device) -> str:
    """Name the device of torch for results: "cpu", or "cuda:0, NVIDIA H100"."""
    return f"{place}, {torch.cuda.get_device_name(place)}" if place.type == "cuda" else str(place)


def _first() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _lacking(place: torch.device) -> str:
    """Say why there is no `place` here, or ""."""
    if place.type == "mps":
        if torch.backends.mps.is_available():
            return ""
        return "no Apple GPU that it can use" if torch.backends.mps.is_built() else "built without mps"
    if place.type == "cpu":
        return ""
    if not torch.cuda.is_available():
        built = bool(torch.backends.cuda.is_built())  # type: ignore[no-untyped-call]
        return "no GPU that it can use" if built else "built without cuda"
    count = torch.cuda.device_count()
    return f"{count} of them, counted from 0" if (place.index or 0) >= count else ""


def _free_bytes(place: torch.device) -> int:
    if place.type == "cuda":
        return int(torch.cuda.mem_get_info(place)[0])
    return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())


SMALL = 4_000_000  # multiplications a layer and batch, below which a second thread costs more than it brings


def set_up_torch(threads: int) -> None:
    """Prepare this process for long computing, with `threads` threads of torch and memory that is kept."""
    torch.set_num_threads(threads)
    keep_memory()


def default_threads(served: bool, weights: int, batch: int) -> int:
    """Return how many torch threads suit: one beside a served bench or for small networks, else one per core.

    Two processes with two threads each thrash on two cores. `weights`: of the largest layer.
    """
    largest = weights * batch
    return 1 if served or largest < SMALL else max(1, os.cpu_count() or 1)
