"""One thread a process: the suite runs served benches beside itself, and two torch processes with two threads each thrash."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before torch is imported, and for every process that a test starts

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script: hil keeps that, tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def machine_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The lock folder of a machine that this test process has for itself, as tests use the same addresses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIL_MACHINE_LOCKS", str(tmp_path_factory.mktemp("machine") / "locks"))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bench", default=None, help="a bench file: run tests/hardware on it, outputs will be driven")
