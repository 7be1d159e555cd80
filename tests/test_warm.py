"""What comes from warm.py is to the system what a started program is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from small import until
from warm import VARIABLE, Warm

from hil import child

pytestmark = pytest.mark.skipif(not os.environ.get(VARIABLE), reason="every process is started")
KEYS = ("SigBlk", "SigIgn", "SigCgt", "Threads", "Umask", "NSsid")


def kept(pid: int) -> dict[str, object]:
    """What the kernel says of a process that waits for its first line; its session by whether it has one of its own."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    said: dict[str, object] = {key: value.split() for key, _, value in lines if key in KEYS}
    for key in ("SigBlk", "SigIgn", "SigCgt"):  # of the signals that have a name: the others belong to the C library
        said[key] = int(str(said[key][0]), 16) & ((1 << 31) - 1)  # type: ignore[index]
    said["NSsid"] = os.getsid(pid) == pid
    return {**said, "files": sorted(os.listdir(f"/proc/{pid}/fd")), "folder": os.readlink(f"/proc/{pid}/cwd")}


def waiting(folder: Path, keep: int) -> subprocess.Popen[bytes]:
    """A bench that waits for its description."""
    process = subprocess.Popen(
        child.command("sim_devices.bench.served"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, pass_fds=[keep],
        env=child.environment({"HIL_MARK": "1"}), start_new_session=True,
    )  # fmt: skip
    term = 1 << (signal.SIGTERM - 1)
    assert until(lambda: int(str(kept(process.pid)["SigCgt"])) & term != 0)
    return process


def test_a_forked_process_has_what_a_started_one_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    keep = os.open(tmp_path, os.O_RDONLY)
    try:
        forked = waiting(tmp_path, keep)
        monkeypatch.setattr(Warm, "cold", True)
        started = waiting(tmp_path, keep)
        assert (forked._server is None, started._server is None) == (False, True)  # type: ignore[attr-defined]
        assert kept(forked.pid) == kept(started.pid)
        assert kept(forked.pid)["files"] == sorted(map(str, (0, 1, 2, keep)))
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(keep)
    for process in (forked, started):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(30) == process.poll() == -signal.SIGKILL
        assert process.communicate() == (b"", None)


def test_a_forked_command_gets_its_arguments_and_says_how_it_ended(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text("[learner]\n", encoding="utf-8")
    done = subprocess.run(
        [*child.command("hil"), "train", "e.toml", "--run", "r"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "e.toml" in done.stderr
    assert subprocess.run([*child.command("hil"), "--version"], capture_output=True, text=True).stdout.strip()
