"""Memory that is freed is kept for what comes next, where the C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from hil.system import keep_memory

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytearray(b"x") * (1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults(4)
keep_memory()
faults(1)
print(plain, faults(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_large_block_is_not_cleared_anew() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60).stdout
    plain, kept = map(int, told.split())
    assert plain > 1000  # so there was something to save
    assert kept < plain / 50
