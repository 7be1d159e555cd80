"""Examples that are read when they are wanted: a tensor without memory of its own.

    x[which], x[a:b]      are read, and are ordinary tensors, as long as they are no more than READ_BYTES
    torch.split(x, n)     parts that are read when they are used
    x.flatten(1)          read when it is wanted: the values of an example in a row
    x.flatten(0, 1)       read when it is wanted: every step of a sequence as an example
    anything else         reads all of x; refused if that is more than the memory can hold

Everything that takes examples batch by batch works on it as on any other tensor, and memory stays flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as trees

from hil.data.order import Order
from hil.errors import UNTOUCHED, DataError
from hil.system import free_memory

READ_BYTES = 1 << 26  # at once
MEMORY_SHARE = 0.5  # of what is free, for all that is read at once
OTHERWISE = 1 << 30
Read = Callable[[Order], NDArray[np.float32]]
aten = torch.ops.aten


class Streamed(Tensor):
    """float32 (n, ...) of which nothing is in memory.

    Args:
        read: the numbers of examples -> float32 (as many, ...).
        which: the examples, in order.
        shape: of one example.
        title: of the data, for messages.
    """

    read: Read
    which: Order
    one: tuple[int, ...]
    title: str

    @staticmethod
    def __new__(cls, read: Read, which: Order, shape: Sequence[int], title: str) -> Streamed:
        """Make the tensor without storage."""
        made: Streamed = Tensor._make_wrapper_subclass(cls, (len(which), *shape), dtype=torch.float32)
        made.read, made.which, made.one, made.title = read, which, tuple(shape), title
        return made

    def part(self, which: Order) -> Tensor:
        """Return these examples: read, or to be read if they are many."""
        few = 4 * len(which) * math.prod(self.one) <= READ_BYTES
        made = Streamed(self.read, which, self.one, self.title)
        return made.whole() if few else made

    def shaped(self, shape: Sequence[int]) -> Streamed:
        """Return the same numbers, to be read as `shape`: as many examples, or every step of a sequence as one."""
        steps, rest = shape[0] // max(1, len(self)), tuple(shape[1:])

        def read(which: Order) -> NDArray[np.float32]:
            rows, step = np.divmod(which, steps)
            found = np.empty((len(which), *rest), np.float32)
            known, at = np.unique(rows, return_inverse=True)  # an example is read once for all of its steps
            few = max(1, READ_BYTES // max(1, 4 * math.prod(self.one)))
            for first in range(0, len(known), few):
                held = self.read(known[first : first + few]).reshape(-1, steps, *rest)
                here = (at >= first) & (at < first + few)
                found[here] = held[at[here] - first, step[here]]
            return found

        which = (self.which[:, None] * steps + np.arange(steps)).reshape(-1)
        return Streamed(read, which, rest, self.title)

    def whole(self) -> Tensor:
        """Read all examples into memory. Raises: DataError: it cannot hold them."""
        free = int(MEMORY_SHARE * free_memory(OTHERWISE))
        if self.nbytes > max(free, READ_BYTES):
            raise DataError(
                "all examples are needed at once, and the memory cannot hold them", where=self.title,
                got=f"{self.nbytes:,} bytes", allowed=f"up to {free:,}", outputs=UNTOUCHED,
                todo="take fewer with [data] train_examples, or a learner that takes them batch by batch",
            )  # fmt: skip
        step = max(1, READ_BYTES // max(1, 4 * math.prod(self.one)))
        parts = [torch.from_numpy(self.read(self.which[at : at + step])) for at in range(0, len(self.which), step)]
        return torch.cat(parts) if parts else torch.empty(self.shape, dtype=torch.float32)

    def __deepcopy__(self, memo: object) -> Streamed:
        """Return itself: nothing of it can change."""
        return self

    def __repr__(self, **kwargs: object) -> str:  # type: ignore[override]
        """Say what it is, without reading it."""
        return f"Streamed({self.title}, {tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer an operation of torch."""
        x = args[0] if args else None
        if isinstance(x, Streamed):
            if func is aten.detach.default:
                return Streamed(x.read, x.which, x.one, x.title)
            if func is aten.index.Tensor and len(args[1]) == 1 and args[1][0].ndim == 1:
                return x.part(x.which[args[1][0].cpu().numpy()])
            if func is aten.view.default and list(args[1]) in (
                [len(x), math.prod(x.one)], [len(x) * math.prod(x.one[:1]), *x.one[1:]]
            ):  # fmt: skip
                return x.shaped(args[1])
            if func is aten.slice.Tensor and (len(args) < 2 or args[1] == 0):
                return x.part(x.which[slice(*args[2:5])])
            if func is aten.split.Tensor and (len(args) < 3 or args[2] == 0):
                return [Streamed(x.read, x.which[at : at + args[1]], x.one, x.title) for at in range(0, len(x), args[1])]
        return func(
            *trees.tree_map_only(Streamed, Streamed.whole, args),
            **trees.tree_map_only(Streamed, Streamed.whole, dict(kwargs or {})),
        )
