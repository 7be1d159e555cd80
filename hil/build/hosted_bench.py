"""A bench file as a device that a host owns: hil host BENCH.toml.

Closing it leaves the outputs off and read back, as the end of a run does; the bench's guardian watches over it besides.
"""

from __future__ import annotations

from contextlib import ExitStack

from hil.build.open_bench import Bench, open_bench_file
from hil.wrapper import Wrapper


class HostedBench(Wrapper):
    """An opened bench. Args: path: of the bench file."""

    closes_safe = True

    def __init__(self, path: str) -> None:
        with ExitStack() as stack:
            bench: Bench = stack.enter_context(open_bench_file(path))
            super().__init__(bench)
            self._bench, self._stack = bench, stack.pop_all()

    def beat(self) -> None:
        """Tell the guardian of the bench that the trainer makes progress."""
        self._bench.node.beat()

    def close(self) -> None:
        """Outputs off, read back. May be called twice. Raises: UnsafeOutputs: they are not known to be off."""
        self._stack.close()
