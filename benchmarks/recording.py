"""A figure counts when RESULTS.md says how it was made: command, date, versions, machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def record(title: str, lines: Sequence[str]) -> None:
    """Append a section to RESULTS.md."""
    command = " ".join(["python", os.path.relpath(sys.argv[0], RESULTS.parent.parent), *sys.argv[1:]])
    packages = ", ".join(f"{name} {version(name)}" for name in ("hil", "torch", "numpy", "pyvisa-py"))
    machine = f"Python {platform.python_version()} · {os.cpu_count()} cores, {platform.machine()}"
    made = f"{datetime.now(UTC):%Y-%m-%d} · `{command}` · {packages}, {machine}"
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(f"\n## {title}\n\n{made}\n\n" + "\n".join(lines) + "\n")
