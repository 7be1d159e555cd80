"""The packages of hil besides `hil`: whose they are, and what to say where another one of that name was found.

`drivers`, `sim_devices` and `calibration` are names that a lab has too. Python imports what it finds first, so a folder in
PYTHONPATH, a file beside the user's script, or another installed package can stand in the place of hil's own.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hil.errors import ConfigError

NAMES = ("drivers", "sim_devices", "calibration")
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the folder that holds hil and these packages
MARK = "PART_OF_HIL"  # stands in the __init__.py of each


def leave_working_directory() -> None:
    """Take the folder that `python -m` was started in off the search path: a json.py there is not Python's."""
    if not sys.flags.safe_path:
        begin = sys.path.pop(0)
        if os.path.realpath(begin) == os.path.realpath(HOME) and HOME not in sys.path:
            sys.path.append(HOME)  # a checkout that is not installed


def check() -> None:
    """Import hil's own packages, which are small, so that no later change of the search path puts others in their place.

    Raises:
        ConfigError: another package or module of that name was imported before, or comes first in the search path.
    """
    for name in NAMES:
        if name not in sys.modules:
            _import(name)
        elif not hasattr(sys.modules[name], MARK):
            raise hidden(name, _place(sys.modules[name]))


def _import(name: str) -> None:
    """Raises: ConfigError."""
    from importlib import import_module
    from importlib.util import find_spec

    spec, own = find_spec(name), os.path.join(HOME, name, "__init__.py")
    if spec is None or spec.origin is None:  # a folder of data, found before an editable installation: on the path hil's wins
        sys.path.append(HOME)
        spec = find_spec(name)
    found = spec.origin if spec is not None else None
    if found is None or os.path.realpath(found) != os.path.realpath(own):
        raise hidden(name, found)
    if not hasattr(import_module(name), MARK):  # another installed package has overwritten the file
        del sys.modules[name]
        raise hidden(name, found)


def _place(module: object) -> str | None:
    """The file of a module, or the folder of a package without one."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)


def hidden(name: str, found: str | None) -> ConfigError:
    """The error that `found` stands in the place of hil's own package `name`: its path, or None if there is nothing."""
    from hil.errors import UNTOUCHED, ConfigError

    folder = os.path.dirname(found) if found and os.path.basename(found).startswith("__init__.") else found or "nothing"
    entry = os.path.dirname(folder)
    named = [os.path.realpath(one) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    if found is None:
        todo = "install hil again: its installation is not complete"
    elif os.path.realpath(entry) == os.path.realpath(HOME) or "site-packages" in entry.split(os.sep):
        todo = "another installed package has this name too: install hil into a virtual environment without that package"
    elif os.path.realpath(entry) in named:
        todo = f"rename {folder}, or take {entry} out of PYTHONPATH"
    else:
        todo = f"rename {folder}, for example to my_{name}, and correct the imports of it in your programs"
    return ConfigError(
        f'Python finds another "{name}" in the place of hil\'s own', where="search path of Python",
        got=folder, allowed=os.path.join(HOME, name), outputs=UNTOUCHED, todo=todo,
    )  # fmt: skip


def confused(error: BaseException | None, folders: Sequence[str] | None = None) -> str:
    """What to do if the user's code got a package of hil where it may have meant its own module of that name; "" otherwise.

    Args:
        error: of an import or of an attribute that is not there.
        folders: where modules of the user's lie: one of them must hold the name. None if that is not known.
    """
    name = ""
    if isinstance(error, ImportError) and error.name is not None:
        name = error.name.partition(".")[0]
    elif isinstance(error, AttributeError):
        name = next((one for one in NAMES if error.obj is not None and error.obj is sys.modules.get(one)), "")
    if name not in NAMES:
        return ""
    yours = [os.path.join(folder, name + end) for folder in folders or () if folder != HOME for end in ("", ".py")]
    if folders is not None and not any(map(os.path.exists, yours)):
        return ""
    what = next(filter(os.path.exists, yours), "it")
    return f'"{name}" is a package of hil, and Python takes that one. To use your own, rename {what}, for example to my_{name}'
