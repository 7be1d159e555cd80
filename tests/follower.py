"""A reader who does what a tutorial says, block after block: writes its files, types its commands, compares what is printed.

In a block of expected lines a number stands for any number, and "…" for anything; other lines may be printed between them.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pages import ROOT, blocks

INTERRUPTED = "# then press Ctrl-C"  # ends a line that the reader interrupts once it shows an epoch or an address
REFUSED = "# is refused"  # ends a line that fails
Typed = Callable[[Sequence[str]], tuple[int, str]]


def typed(words: Sequence[str]) -> tuple[int, str]:
    """Run `hil` with these words in a process of its own: exit code, and what it printed."""
    done = subprocess.run([sys.executable, "-m", "hil", *words], capture_output=True, text=True, env=surroundings())
    return done.returncode, done.stdout + done.stderr


def surroundings() -> dict[str, str]:
    """An activated environment in which hil is installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


@dataclass
class Reader:
    """Args:
    folder: where the reader begins.
    hil: how a line that begins with `hil` is run.
    skipped: beginnings of lines that are not typed, and whose output is not compared.
    ran: the lines that were typed.
    """

    folder: Path
    hil: Typed = typed
    skipped: tuple[str, ...] = ()
    ran: list[str] = field(default_factory=list)

    def follow(self, page: Path) -> None:
        printed = None
        for block in blocks(page):
            if block.file:
                printed = None
                (self.folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "sh":
                said = [self._line(line) for line in block.text.splitlines()]
                printed = None if None in said else "\n".join(map(str, said))
            elif block.language == "text" and printed is not None:
                compare(block.text, printed, page.name)

    def _line(self, line: str) -> str | None:
        if line.startswith(self.skipped):
            return None
        self.ran.append(line)
        if INTERRUPTED in line:
            return self._interrupted(line.removesuffix(INTERRUPTED).strip())
        words = shlex.split(line, comments=True)
        if words[0] == "cd":
            self.folder = self.folder / words[1]
            return ""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            code, text = self.hil(words[1:]) if words[0] == "hil" else shell(line)
        finally:
            os.chdir(before)
        assert (code == 0) != line.endswith(REFUSED), f"{line}\n{text}"
        return text

    def _interrupted(self, line: str) -> str:
        command = [sys.executable, "-u", "-m", *shlex.split(line)]
        with subprocess.Popen(
            command, cwd=self.folder, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            said = []
            for text in process.stdout:
                said.append(text)
                if re.search(r"epoch +\d+/|::", text):
                    process.send_signal(signal.SIGINT)
                    break
            said.append(process.stdout.read())
        assert process.returncode in (0, 130), "".join(said)
        return "".join(said)


def shell(line: str) -> tuple[int, str]:
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=surroundings(), timeout=100)
    return done.returncode, done.stdout + done.stderr


def compare(expected: str, printed: str, page: str) -> None:
    """Find each line of `expected` in what was printed, in order."""
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for line in filter(None, (" ".join(line.split()) for line in expected.splitlines())):
        pattern = re.compile("".join(_part(part) for part in re.split(r"(…|-?\d[\d,.]*)", line)))
        assert any(pattern.search(one) for one in lines), f"{page}: not printed: {line}\n{printed}"


def _part(part: str) -> str:
    return ".*" if part == "…" else r"-?\d[\d,.]*" if re.fullmatch(r"-?\d[\d,.]*", part) else re.escape(part)
