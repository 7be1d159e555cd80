"""Who may import whom. The picture stands in docs/architecture.md; this test is the law."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = {
    "device",
    "errors",
    "network",
    "encoding",
    "learner",
    "feedback",
    "functions",
    "plain_table",
    "synapses",
    "chance",
    "sentinel",
    "toml",
    "unknowns",
    "files",
    "frame_protocol",
    "hints",
    "telling",
    "units",
    "wrappers",
    "conformance",
}
ENTRY = {"__main__", "__init__"}
COMPOSITION = {
    "cli",
    "config",
    "naming",
    "certified",
    "calibrating",
    "bench",
    "direct_bench",
    "experiment",
    "nodes",
    "architecture",
    "listing",
    "launch",
    "comparison",
    "guardian",
    "replaying",
    "search_file",
    "workshop",
    "watching",
    "using",
    "searching",
    *ENTRY,
}
COLUMNS = {"drivers", "sim_devices", "calibration"}
ONLY_IN = {
    "deap": {"hil/search"},
    "pyvisa": {"drivers/visa_link.py"},
    "pyvisa_py": {"drivers/visa_link.py"},
    "serial": {"drivers/serial_link.py"},
    "nicegui": {"hil/monitor"},
    "dask": {"hil/search"},
    "distributed": {"hil/search"},
    "dask_jobqueue": {"hil/search"},
    "pickle": set(),
    "pint": {"hil/units.py"},
}


def sources() -> list[Path]:
    return sorted(p for top in ("hil", *COLUMNS) for p in (ROOT / top).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module named by an import statement, inside functions too; relative ones are refused."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return found


def room(dotted: str) -> str:
    """contracts, composition, hil (its column), drivers, sim_devices, calibration, or "" for what is not ours."""
    parts = dotted.split(".")
    if parts[0] in COLUMNS:
        return parts[0]
    if parts[0] != "hil" or len(parts) == 1:
        return ""
    if parts[1] in CONTRACTS:
        return "contracts"
    return "composition" if parts[1] in COMPOSITION else "hil"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stay_in_their_column(path: Path) -> None:
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    allowed = {
        "contracts": {"contracts"},
        "composition": {"contracts", "composition", "hil", *COLUMNS},
        "hil": {"contracts", "hil"},
    }.get(own, {"contracts", own})
    wrong = {name for name in imports(path) if room(name) and room(name) not in allowed}
    assert not wrong, f"{path.relative_to(ROOT)} ({own or 'package'}) may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_foreign_packages_stay_in_their_place(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    for name in imports(path):
        places = ONLY_IN.get(name.split(".")[0])
        assert places is None or any(relative.startswith(p) for p in places), f"{relative} may not import {name}"
