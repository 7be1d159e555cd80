"""Install hil as somebody else does: build wheel and sdist, install the wheel where no compiler and no repository are, run it.

    python benchmarks/install.py [--keep FOLDER]

Needs pip's index for the packages that hil depends on, with the versions of constraints.txt. In a virtual environment of its
own and an empty working directory it runs `hil --help`, `hil list learners` and `python -m hil.demo`; PATH names the programs
of that environment alone, so no compiler. In the unpacked sdist it runs some tests with the interpreter of this script.
Last line: JSON with install_s, demo_s, test_accuracy, wheel_bytes, sdist_bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def timed(command: list[str], folder: Path, surroundings: dict[str, str]) -> tuple[float, str]:
    """Run it; wall time in s, and what it printed. Raises: CalledProcessError."""
    print("$", *command, file=sys.stderr)
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=surroundings, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - begin, done.stdout


def installed(folder: Path, wheel: Path) -> tuple[float, Path]:
    """Install the wheel into an environment in `folder`: wall time in s, and the folder of its programs."""
    venv.create(folder / "environment", with_pip=True)
    programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # or pip may find hil there already
    install_s, _ = timed([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], folder, alone)
    return install_s, programs


def measured(folder: Path) -> dict[str, float]:
    timed([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], ROOT, dict(os.environ))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    install_s, programs = installed(folder, wheel)
    bare = {"PATH": str(programs), "HOME": str(folder / "home"), "LANG": "C.UTF-8"}
    bare |= {name: os.environ[name] for name in ("SYSTEMROOT", "TEMP") if name in os.environ}  # Windows runs nothing without
    empty = folder / "empty"
    empty.mkdir()
    for words in (["hil", "--version"], ["hil", "--help"], ["hil", "list", "learners"]):
        print(timed([str(programs / words[0]), *words[1:]], empty, bare)[1].split("\n")[0], file=sys.stderr)
    demo_s, said = timed([str(programs / "python"), "-m", "hil.demo", "--run", "demo"], empty, bare)
    print(said, file=sys.stderr)
    summary = json.loads((empty / "demo" / "summary.json").read_text(encoding="utf-8"))
    assert (empty / "demo" / "report.html").stat().st_size > 0
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    tests = ["tests/test_distribution.py", "tests/test_layers.py"]
    inside = {**os.environ, "PYTHONPATH": str(unpacked)}
    print(timed([sys.executable, "-m", "pytest", "-n0", *tests], unpacked, inside)[1], file=sys.stderr)
    return {
        "install_s": round(install_s, 1), "demo_s": round(demo_s, 1), "test_accuracy": summary["test_accuracy"],
        "wheel_bytes": wheel.stat().st_size, "sdist_bytes": sdist.stat().st_size,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a new folder that is left behind")
    chosen = parser.parse_args()
    if chosen.keep is not None:
        chosen.keep.mkdir(parents=True)
        print(json.dumps(measured(chosen.keep.resolve())))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder))))


if __name__ == "__main__":
    main()
