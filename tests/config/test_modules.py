"""Whose modules are run: those that the user names, beside the file that names them; none that merely lie about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import toml

from hil import child
from hil.cli import run
from hil.config import modules
from hil.config.resolve import resolve
from hil.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
LAB = "class Thing:\n    where = {!r}\n"
STRAY = "open(__file__ + '.ran', 'w').close()\nraise SystemExit('a module that lies about was imported')\n"
HIDING = (
    "json",
    "random",
    "torch",
    "numpy",
    "pathlib",
    "drivers",
    "calibration",
    "queue",
    "tomllib",
    "rich",
    "selectors",
    "socket",
)
EARLY = ("multiprocessing", "contextlib", "pkgutil")  # imported by `python -m` itself, before anything of ours


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test finds its own modules."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("_found", "_folders", "_also"):
        monkeypatch.setattr(modules, name, type(getattr(modules, name))())
    for name in [name for name in sys.modules if "of_tests" in name]:
        monkeypatch.delitem(sys.modules, name)


def lab(folder: Path, name: str = "my_lab_of_tests") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(LAB.format(str(folder)), encoding="utf-8")
    return f"{name}:Thing"


@pytest.mark.parametrize("more", ["", ": [device]", ": [device] use", " (learner on device)", " (a on b): [learner]"])
def test_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    use = lab(tmp_path / "beside")
    lab(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "beside" / "e.toml"
    file.write_text("", encoding="utf-8")
    assert resolve(use, f"{file}{more}").where == str(tmp_path / "beside")


def test_then_in_the_working_directory_or_beside_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use = lab(tmp_path / "here")
    (tmp_path / "e.toml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    assert resolve(use, f"{tmp_path / 'e.toml'}: [device]").where == str(tmp_path / "here")
    lab(tmp_path / "base")
    modules.also(tmp_path / "base" / "base.toml")
    assert resolve(use, f"{tmp_path / 'e.toml'}: [device]").where == str(tmp_path / "base")
    modules.begin()
    assert resolve(use, "no file: [device]").where == str(tmp_path / "here")


def test_a_package_and_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "pack_of_tests").mkdir()
    (tmp_path / "pack_of_tests" / "inner.py").write_text("from helper_of_tests import Thing\n", encoding="utf-8")
    lab(tmp_path, "helper_of_tests")
    (tmp_path / "e.toml").write_text("", encoding="utf-8")
    assert resolve("pack_of_tests.inner:Thing", f"{tmp_path / 'e.toml'}: [device]").where == str(tmp_path)


@pytest.mark.parametrize("name", ["json", "random", "sim_devices", "torch", "statistics"])
def test_nothing_that_is_installed_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lab(tmp_path, name)
    (tmp_path / "e.toml").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot import"):
        resolve(f"{name}:Thing", f"{tmp_path / 'e.toml'}: [device]")


def run_folder(tmp_path: Path, table: object) -> Path:
    folder = tmp_path / "run"
    lab(folder)
    (folder / "run.lock").write_text("{}", encoding="utf-8")
    (folder / "config.toml").write_text("", encoding="utf-8")
    if table is not None:
        (folder / modules.ORIGINS).write_text(json.dumps(table), encoding="utf-8")
    return folder


def test_a_run_folder_remembers_where_its_files_came_from(tmp_path: Path) -> None:
    use = lab(tmp_path / "origin")
    folder = run_folder(tmp_path, None)
    (folder / modules.ORIGINS).write_bytes(modules.origins({"config.toml": [tmp_path / "origin" / "e.toml"]}))
    assert resolve(use, f"{folder / 'config.toml'}: [device]").where == str(tmp_path / "origin")


@pytest.mark.parametrize("table", [None, [], {"config.toml": 7}, {"config.toml": [None, "\0"]}, {"bench.toml": ["/"]}])
def test_nothing_in_a_run_folder_itself_is_imported(tmp_path: Path, table: object) -> None:
    folder = run_folder(tmp_path, table)
    with pytest.raises(ConfigError, match="cannot import"):
        resolve("my_lab_of_tests:Thing", f"{folder / 'config.toml'}: [device]")


def test_folders_that_nobody_named_come_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = [entry for entry in sys.path if entry and Path(entry).name != "tests"]
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "script"), str(tmp_path / "named"), *before])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "named"))
    found = child.search_path()
    assert found[0] == str(tmp_path / "named")
    assert found.index(str(tmp_path / "script")) > found.index(os.path.realpath(os.path.dirname(os.__file__)))
    assert "" not in found
    assert str(Path.cwd()) not in found or str(Path.cwd()) in map(os.path.realpath, before)
    assert child.command("hil.guardian")[1:] == ["-P", "-m", "hil.guardian"]


EXPERIMENT = toml(16, "64, 3, 10", 'use = "lab_in_tests:Node"', train="epochs = 1\nbatch = 8\nthreads = 1")
NODE = "from sim_devices.mach_zehnder import MachZehnder\nclass Node(MachZehnder):\n    pass\n"


def hide(folder: Path, names: tuple[str, ...] = HIDING) -> None:
    for name in names:
        (folder / f"{name}.py").write_text(STRAY, encoding="utf-8")


def strays(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.ran")]


def test_a_stray_module_is_not_run_and_the_own_one_is_found(tmp_path: Path) -> None:
    """The command itself, as `python -m hil` from a folder full of namesakes; then the same run goes on from elsewhere."""
    here, beside = tmp_path / "here", tmp_path / "beside"
    here.mkdir()
    beside.mkdir()
    hide(here)
    hide(beside)
    (beside / "lab_in_tests.py").write_text(NODE, encoding="utf-8")
    (beside / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "hil", "train", str(beside / "e.toml"), "--run", str(tmp_path / "r")]
    said = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert not strays(here)
    assert not strays(beside)


CHILDREN = {
    "bench": "from sim_devices.bench.served import spawn\n"
    "from sim_devices.bench.description import VirtualBench, VirtualBox\n"
    "spawn(VirtualBench((VirtualBox('awg', 'sim_devices.instruments.keysight_33600:Keysight33600', {}),))).stop()\n",
    "guardian": "from hil.guardian.client import guarded\n"
    "with guarded(['TCPIP::127.0.0.1::9::SOCKET'], silence_s=60.0, patience_s=1.0) as guard:\n    guard.watch([])\n",
    "pool": "from hil.search.pool import Pool\nfrom hil.search.evaluator import read_jobs\n"
    "pool = Pool(read_jobs, '[]', 1)\nlist(pool._submitted([[]]))[0][0].exception()\npool.close()\n",
}


@pytest.mark.cold
def test_children_import_nothing_that_lies_about(tmp_path: Path) -> None:
    """The program itself is started with a safe path, as `hil` is; what it starts must have one too."""
    hide(tmp_path, (*HIDING, *EARLY))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HIL_LOCKS": str(tmp_path / "l")}
    said = subprocess.run(
        [sys.executable, "-P", "-c", "".join(CHILDREN.values())],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert not strays(tmp_path)


@pytest.mark.parametrize("key", ["device", "learner", "optimizer"])
def test_looking_imports_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    folder = tmp_path / "runs" / "r"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'[{key}]\nuse = "stray_of_tests:Thing"\n[alarm]\ncommand = "touch {tmp_path}/rang"\n', encoding="utf-8"
    )
    (folder / "bench.toml").write_text(
        'name = "b"\nshape = "waveform"\n[instruments.awg]\nuse = "stray_of_tests:Thing"\n', encoding="utf-8"
    )
    (folder / "summary.json").write_text('{"status": "done"}', encoding="utf-8")
    (folder / "journal.jsonl").write_text("", encoding="utf-8")
    for place in (tmp_path, folder):
        (place / "stray_of_tests.py").write_text(STRAY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command in (["status", folder], ["status", folder, "--log"], ["status"], ["report", folder], ["list", "runs"],
                    ["replay", "--help"], ["resume", "--help"]):  # fmt: skip
        assert run([str(a) for a in command]) == 0, capsys.readouterr().err
    assert not strays(folder)
    assert not strays(tmp_path)
    assert not (tmp_path / "rang").exists()
