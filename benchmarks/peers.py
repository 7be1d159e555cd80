"""Peers of a benchmark: each works in a process of its own, with one thread, and answers a line of JSON by another."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Peer:
    """A script of this folder at work, until the `with` block ends.

    Args:
        script: its name.
        arguments: what the script takes.
        python: interpreter of the peer's environment.
        path: folder of modules that the environment lacks.
    """

    def __init__(self, script: str, *arguments: object, python: Path | str = sys.executable, path: Path | str = "") -> None:
        self._process = subprocess.Popen(
            [str(python), str(HERE / script), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(path)},
        )  # fmt: skip

    def ask(self, question: Any) -> Any:
        """Return the answer to a JSON value. Raises: RuntimeError: the peer ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: told below
            print(json.dumps(question), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
