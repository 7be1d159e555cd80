"""Who may import whom. The picture stands in docs/explanation/architecture.md; this test is the law."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPOSITION = {
    "build",
    "commands",
    "demo",
    "guardian",
    "nn",
}  # folders of hil/ that put things together; cli.py and __main__.py besides
COLUMNS = {"drivers", "sim_devices", "calibration"}
OF_SYSTEMS = ("fcntl", "filelock", "grp", "msvcrt", "psutil", "pty", "pwd", "resource", "termios", "tty", "winreg")
ONLY_IN = {
    "deap": {"hil/search"},
    "pyvisa": {"drivers/links/visa_link.py"},
    "pyvisa_py": {"drivers/links/visa_link.py"},
    "serial": {"drivers/links/serial_link.py"},
    "nicegui": {"hil/monitor"},
    "dask": {"hil/search"},
    "distributed": {"hil/search"},
    "dask_jobqueue": {"hil/search"},
    "pickle": set(),
    "pint": {"hil/units.py"},
    "pandas": {"hil/commands/run.py", "hil/commands/export.py"},
    "nir": {"hil/build/nir_graph.py", "hil/commands/export.py"},
    "mlflow": {"hil/loggers/mlflow.py"},
    "wandb": {"hil/loggers/wandb.py"},
    "nidaqmx": {"drivers/nidaqmx.py", "sim_devices/transports/grpc.py"},
    "slmsuite": {"drivers/slmsuite.py"},
    "moku": {"drivers/moku_go.py"},
    "pypylon": {"drivers/genicam.py"},
    "pymeasure": {"drivers/pymeasure.py"},
    "qcodes": {"drivers/qcodes.py"},
    **{name: {"hil/system.py"} for name in OF_SYSTEMS},
}


def sources() -> list[Path]:
    return sorted(p for top in ("hil", *COLUMNS) for p in (ROOT / top).rglob("*.py"))


@cache
def looked(path: Path) -> tuple[set[str], set[str]]:
    """(every module named by an import statement, inside functions too; calls that open, read, write or parse a file)."""
    named: set[str] = set()
    opens: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            named |= {f"{module}.{alias.name}" for alias in node.names} | {module}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            opens.add("open")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in OPENERS:
            opens.add(f"{ast.unparse(node.func.value)}.{node.func.attr}")
    return named, opens


def room(dotted: str) -> str:
    """contracts, composition, hil (its column), drivers, sim_devices, calibration, or "" for what is not ours.

    Folders say it: a file at the top of hil/ is a contract, a folder of hil/ a subject, but for those that compose.
    """
    parts = dotted.split(".")
    if parts[0] in COLUMNS:
        return parts[0]
    if parts[0] != "hil" or len(parts) == 1:
        return ""
    if parts[1] in COMPOSITION or parts[1] in ("cli", "__main__", "__init__"):
        return "composition"
    return "contracts" if (ROOT / "hil" / f"{parts[1]}.py").is_file() else "hil" if (ROOT / "hil" / parts[1]).is_dir() else ""


def test_imports_stay_in_their_column() -> None:
    said = []
    for path in sources():
        own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        allowed = {
            "contracts": {"contracts"},
            "composition": {"contracts", "composition", "hil", *COLUMNS},
            "hil": {"contracts", "hil"},
        }.get(own, {"contracts", own})
        wrong = {name for name in looked(path)[0] if room(name) and room(name) not in allowed}
        said += [f"{path.relative_to(ROOT)} ({own or 'package'}) may not import {sorted(wrong)}"] if wrong else []
    assert not said, "\n".join(said)


def test_foreign_packages_stay_in_their_place() -> None:
    said = []
    for path in sources():
        relative = str(path.relative_to(ROOT))
        for name in looked(path)[0]:
            places = ONLY_IN.get(name.split(".")[0])
            if places is not None and not any(relative.startswith(place) for place in places):
                said.append(f"{relative} may not import {name}")
    assert not said, "\n".join(said)


OPENERS = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "touch",
    "fromfile",
    "rmtree",
    "copytree",
    "loads",
    "load",
}
MAY_OPEN = {  # what is no file of a run, a search, a comparison or a calibration, and why
    "hil/files.py": "the one place",
    "hil/toml.py": "the one place for TOML",
    "hil/system.py": "the one place for descriptors, and what the kernel says of a process",
    "hil/feedback/feedback.py": "files of feedback, given by the user",
    "hil/data/files.py": "data sets: archives of the user's or of a mirror",
    "hil/data/array_file.py": "members of an archive that hil/files.py has opened",
    "hil/data/image_folder.py": "images in a stream that hil/files.py has opened",
    "hil/guardian": "its own record and charge",
    "drivers/lock.py": "lock files of instruments, by descriptor",
    "drivers/links/scripted.py": "a transcript that the user plays",
    "drivers/safe.py": "a state, as text",
    "sim_devices/bench/control.py": "a wire",
    "hil/conformance": "values in memory",
}
TEXTS = {
    "os.open": {"hil/cli.py", "hil/host/spawned.py", "hil/host/worker.py"},
    "json.loads": {"hil/run/checkpoint.py", "hil/run/journal.py"},
    "np.load": {"hil/data/event_files.py"},
}  # of text that this process made, or has checked


OURS = {  # calls of these names that open nothing by themselves
    "toml.loads", "RunFolder.open", "supervisor.open", "bench.how.open",
    "Recorded.open", "checkpoint.load", "Certificate.load", "safetensors.torch.load",
    "safetensors.numpy.load", "self._link.read_text", "self._inner.read_text", "port.open", "cls.load",
    "Feedback.load", "Passport.load", "hil.load", "self._memory[call.channel].load",
}  # fmt: skip


def test_files_are_opened_in_one_place() -> None:
    said = []
    for path in sources():
        relative = str(path.relative_to(ROOT))
        if not any(relative.startswith(place) for place in MAY_OPEN):
            wrong = {call for call in looked(path)[1] - OURS if relative not in TEXTS.get(call, set())}
            said += [f"{relative} opens files by {sorted(wrong)}: hil/files.py does"] if wrong else []
    assert not said, "\n".join(said)
