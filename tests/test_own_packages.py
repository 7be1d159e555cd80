"""`drivers`, `sim_devices` and `calibration` of somebody else: hil's own are imported, or hil refuses and says whose it found.

That `python -m hil` imports none of the folder that it is started in, tests/config/test_modules.py shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from hil import own_packages
from hil.config import modules
from hil.config.resolve import resolve
from hil.errors import ConfigError
from hil.foreign import mapped

SCRIPT = "import hil\nhil.HilError\nimport drivers.safe, calibration.validity\nprint(drivers.__file__, calibration.__file__)\n"


def python(folder: Path, *arguments: str, **surroundings: str) -> subprocess.CompletedProcess[str]:
    """A Python started in `folder`, in which hil is installed last, as an editable installation is."""
    editable = folder.parent / "editable"
    editable.mkdir(exist_ok=True)
    (editable / "sitecustomize.py").write_text(
        f"import sys\nfrom importlib.machinery import PathFinder\nsys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]\n"
        f"class Last(PathFinder):\n    @classmethod\n    def find_spec(cls, name, path=None, target=None):\n"
        f"        return PathFinder.find_spec(name, [{str(ROOT)!r}], target) if path is None else None\n"
        "sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Last)\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([surroundings.pop("PYTHONPATH", ""), str(editable)]).strip(os.pathsep)
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, **surroundings, "PYTHONPATH": path},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """The folder of somebody who has drivers, and a module calibration, of their own."""
    folder = tmp_path / "lab"
    (folder / "drivers").mkdir(parents=True)
    (folder / "drivers" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "drivers" / "my_awg.py").write_text("class MyAwg: pass\n", encoding="utf-8")
    (folder / "calibration.py").write_text("slope = 3\n", encoding="utf-8")
    return folder


def test_a_folder_in_pythonpath_is_refused_by_name(lab: Path) -> None:
    done = python(lab, "-m", "hil", "list", "learners", PYTHONPATH=str(lab))
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"got {lab / 'drivers'}; allowed: {ROOT / 'drivers'}" in done.stderr
    assert f"Next: rename {lab / 'drivers'}, or take {lab} out of PYTHONPATH." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_beside_them_is_refused_when_it_first_uses_hil(lab: Path) -> None:
    (lab / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = python(lab, "script.py")
    if done.returncode == 0:  # an editable installation finds its own packages before the folder of the script
        assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("drivers", "calibration")]
        return
    assert 'Python finds another "drivers" in the place of hil\'s own' in done.stderr
    assert f"Next: rename {lab / 'drivers'}, for example to my_drivers" in done.stderr


def test_folders_of_data_are_no_packages(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    for name in own_packages.NAMES:
        (folder / name).mkdir(parents=True)
    child = "import subprocess; from hil import child\n"
    child += "subprocess.run(child.command('drivers.safe'), env=child.environment(), check=True)\n"
    (folder / "script.py").write_text(SCRIPT + child, encoding="utf-8")
    done = python(folder, "script.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("drivers", "calibration")]


def test_one_that_was_imported_before(monkeypatch: pytest.MonkeyPatch, lab: Path) -> None:
    monkeypatch.setitem(sys.modules, "calibration", type(sys)("calibration"))
    sys.modules["calibration"].__file__ = str(lab / "calibration.py")
    with pytest.raises(ConfigError) as caught:
        own_packages.check()
    assert caught.value.got == str(lab / "calibration.py")


def test_another_distribution_has_overwritten_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both are installed into one folder: what was installed last has its __init__.py there."""
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(own_packages, "HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", {name: one for name, one in sys.modules.items() if name != "drivers"})
    with pytest.raises(ConfigError, match='another "drivers"') as caught:
        own_packages.check()
    assert "virtual environment without that package" in caught.value.todo


def test_a_package_beside_the_experiment(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab / "e.toml").write_text("", encoding="utf-8")
    (lab / "lone_rig.py").write_text("from calibration import slope\n", encoding="utf-8")
    for use in ("drivers.my_awg:MyAwg", "calibration:Slope", "lone_rig:Rig"):
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(modules, "_found", {})
        with pytest.raises(ConfigError, match="cannot import") as caught:
            resolve(use, f"{lab / 'e.toml'}: [device]")
        assert "is a package of hil" in caught.value.todo
        assert str(lab) in caught.value.todo


def test_a_slip_in_the_name_of_a_driver_of_ours_is_none_of_this(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot import") as caught:
        resolve("drivers.keysight_33601:Keysight33600", f"{tmp_path / 'e.toml'}: [device]")
    assert "rename" not in caught.value.todo


def test_an_attribute_that_the_own_module_would_have() -> None:
    import calibration

    with pytest.raises(AttributeError) as caught:
        calibration.slope  # type: ignore[attr-defined]  # noqa: B018
    assert '"calibration" is a package of hil' in mapped(caught.value, "node").todo


def test_it_takes_a_few_milliseconds_at_most(lab: Path) -> None:
    code = "import hil, time; begun = time.process_time(); hil._check(); print(time.process_time() - begun)"
    found = [float(python(lab.parent, "-c", code).stdout) for _ in range(3)]
    assert min(found) < 5e-3
