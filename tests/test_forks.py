"""Tests in forks are reported as in one process, also where a fork ends in the middle of them; see forks.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

if not hasattr(os, "fork"):
    pytest.skip("this system has no forks", allow_module_level=True)

CONFTEST = """
import sys
sys.path.insert(0, {tests!r})
from forks import Forks

def pytest_configure(config):
    config.pluginmanager.register(Forks(2, ()))
"""
FILE = """
import os, signal, time, warnings
import pytest

@pytest.fixture(scope="session")
def shared():
    yield
    with open("ended", "a") as file:
        file.write("x")

def test_good(shared, tmp_path):
    warnings.warn("careful")

def test_bad(shared):
    print("said before")
    assert {"a": 1} == {"a": 2}

def test_not_here():
    pytest.skip("no such card")

def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)

def test_after(shared, capfd):
    os.system("echo out")
    assert capfd.readouterr().out == "out\\n"

@pytest.mark.timeout(0.5)
def test_takes_long():
    time.sleep(60)
"""


def begun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.format(tests=str(Path(__file__).parent)), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-rs",
        "--junitxml",
        "all.xml",
        "--basetemp",
        "made",
        *words,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def test_all_is_reported(tmp_path: Path) -> None:
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(FILE, encoding="utf-8")
    done = begun(tmp_path)
    assert done.returncode == 1, done.stderr
    assert "6 failed, 4 passed, 2 skipped, 2 warnings" in done.stdout
    for told in (
        "said before", "{'a': 1} != {'a': 2}", "a fork ended with exit code -9 in this test", "no such card",
        "UserWarning: careful", "Timeout (>0.5s)",
    ):  # fmt: skip
        assert told in done.stdout, told
    suite = ElementTree.parse(tmp_path / "all.xml").getroot()[0]
    assert sorted((case.get("name"), [part.tag for part in case]) for case in suite) == sorted([
        ("test_good", []), ("test_bad", ["failure"]), ("test_not_here", ["skipped"]), ("test_dies", ["failure"]),
        ("test_after", []), ("test_takes_long", ["failure"]),
    ] * 2)  # fmt: skip
    assert (tmp_path / "ended").read_text(encoding="utf-8") in ("x", "xx")  # of one fork, or of two


def test_the_first_failure_may_end_it_and_threads_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(FILE, encoding="utf-8")
    done = begun(tmp_path, "-x")
    assert done.returncode == 1
    assert "stopping after 1 failures" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
    (tmp_path / "test_one.py").write_text(thread + FILE, encoding="utf-8")
    done = begun(tmp_path)
    assert done.returncode == 4, done.stdout
    assert "2 threads run in the process that has collected" in done.stderr
