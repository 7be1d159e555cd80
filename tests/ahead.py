"""The site of the documentation, built while the tests are collected, which keeps only one core busy.

`python tests/ahead.py FOLDER` builds FOLDER/site and then writes FOLDER/said.json, [exit code, output], by which the forks of
the process that collects learn of its end: it is no child of theirs.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WITHIN_S = 110.0
FOLDER = "HIL_TESTS_AHEAD"


def begin() -> None:
    """Begin it; to be called before the process forks."""
    folder = os.environ[FOLDER] = tempfile.mkdtemp(prefix="site")
    ours, process = os.getpid(), subprocess.Popen([sys.executable, __file__, folder])

    def end() -> None:
        if os.getpid() == ours:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)


def build(folder: Path) -> None:
    """Build it in this process's time."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    (folder / "said.part").write_text(json.dumps([done.returncode, done.stdout + done.stderr]), encoding="utf-8")
    (folder / "said.part").replace(folder / "said.json")


def site(folder: Path) -> Path:
    """Return the built site; warnings are errors.

    Args:
        folder: where it is built if it was not begun.
    """
    if begun := os.environ.get(FOLDER):
        folder = Path(begun)
    else:
        build(folder)
    end = time.monotonic() + WITHIN_S
    while not (folder / "said.json").exists():
        assert time.monotonic() < end, "the site was not built in time"
        time.sleep(0.1)
    code, said = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    assert code == 0, said
    return folder / "site"


if __name__ == "__main__":
    build(Path(sys.argv[1]))
