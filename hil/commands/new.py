"""hil new: write a skeleton that works, with its test and its experiment, into the current folder.

    a file of skeletons/, or one of our templates      the words of `Skeleton.words` replaced, whole ones
    NAME                                               a module, and in files an instrument: my_rig
    Name                                               its class: MyRig

The skeletons are the files that the how-tos of docs/how-to/ explain; tests/commands/test_new.py holds both equal.
"""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from hil.errors import UNTOUCHED, ConfigError, RunError
from hil.files import open_to_write, read_text, there, written
from hil.foreign import HERE

Kind = Literal["device", "bench", "twin", "learner", "data"]
SKELETONS = Path(__file__).parent / "skeletons"


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The files of a kind.

    Args:
        parts: name of the file that is written -> the file that it is made from.
        words: word in these files -> what stands in its place. {name} and {made} are the module and the class.
        then: commands to go on with, each with what it does; NAME is the name.
    """

    parts: Mapping[str, Path]
    words: Mapping[str, str]
    then: tuple[tuple[str, str], ...]


def _single(module: str, made: str, tested: str = "the published checks judge it") -> Skeleton:
    """A class in one file, its test and an experiment."""
    names = {"{name}.py": f"{module}.py", "test_{name}.py": f"test_{module}.py", "{name}.toml": f"{module}.toml"}
    then = ("pytest test_NAME.py", tested), ("hil train NAME.toml", "a run of a few seconds")
    return Skeleton({new: SKELETONS / old for new, old in names.items()}, {module: "{name}", made: "{made}"}, then)


KINDS: Mapping[Kind, Skeleton] = {
    "device": _single("my_rig", "MyRig"),
    "twin": _single("diode", "Diode"),
    "learner": _single("random_feedback", "RandomFeedback"),
    "data": _single("recordings", "Recordings", "every example is read, checked and split"),
    "bench": Skeleton(
        {
            "{name}.py": HERE / "drivers" / "template.py",
            "simulated_{name}.py": HERE / "sim_devices" / "instruments" / "template.py",
            "test_{name}.py": SKELETONS / "test_acme_g1.py",
            "{name}_shape.py": SKELETONS / "level_shape.py",
            "{name}.toml": SKELETONS / "g1.toml",
            "{name}_digits.toml": SKELETONS / "g1_digits.toml",
        },
        {
            "sim_devices.instruments.template": "simulated_{name}",
            "drivers/template.py": "{name}.py",
            "level_shape": "{name}_shape",
            "acme_g1": "{name}",
            "AcmeG1": "{made}",
            "g1": "{name}",
        },
        (
            ("pytest test_NAME.py", "the published checks judge the driver"),
            ("hil doctor NAME.toml", "how fast, how clean and how linear the loop is"),
            ("hil train NAME_digits.toml", "a run of a few seconds"),
        ),
    ),
}


def new(kind: Kind, name: str, out: Console) -> None:
    """Write the skeleton of `kind` into the current folder; nothing is overwritten.

    Args:
        kind: of the skeleton.
        name: of the module; the class is called after it.
        out: where people are told.

    Raises:
        ConfigError: the name cannot be one, or means something already. RunError: a file is there, or cannot be written.
    """
    skeleton = KINDS[kind]
    made = _class_of(name)
    files = {Path(path.format(name=name)): read_text(of, error=ConfigError) for path, of in skeleton.parts.items()}
    _check_files(name, files)
    _check_name(name, made, files)
    _write({path: _renamed(text, skeleton.words, name, made) for path, text in files.items()})
    for path in files:
        out.print(f"wrote   {path}", soft_wrap=True)
    for command, what in skeleton.then:
        out.print(f"next    {command.replace('NAME', name):<40} {what}", soft_wrap=True)


def _class_of(name: str) -> str:
    """my_rig -> MyRig. Raises: ConfigError: not the name of a module."""
    made = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    if not (name.isidentifier() and name.isascii() and made.isidentifier() and len(name) <= 60) or _reserved(name, made):
        raise ConfigError(
            "this cannot be the name of a module and of a class", where="hil new", got=f'"{name}"',
            allowed="letters a to z, digits and _, a letter first, no word of Python", outputs=UNTOUCHED,
            todo="choose another name, as my_rig: it makes my_rig.py with the class MyRig",
        )  # fmt: skip
    return made


def _reserved(name: str, made: str) -> bool:
    return any(keyword.iskeyword(word) or keyword.issoftkeyword(word) for word in (name, made))


def _check_files(name: str, files: Mapping[Path, str]) -> None:
    """Raises: RunError: one is there already."""
    found = [str(path) for path in files if there(path)]
    if found:
        raise RunError(
            "nothing is overwritten", where=f"hil new {name}", got=f"{', '.join(found)} in this folder", outputs=UNTOUCHED,
            todo="choose another name, or work in an empty folder",
        )  # fmt: skip


def _check_name(name: str, made: str, files: Mapping[Path, str]) -> None:
    """Raises: ConfigError: the module would hide another one, or be hidden by it; or the class one that the files use."""
    taken = ""
    if any(re.search(rf"\b{made}\b", text) for path, text in files.items() if path.suffix == ".py"):
        taken = f"the class {made} would hide what these files call so"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        taken = f"there is a module {name} already, installed or in this folder"
    if taken:
        raise ConfigError(
            "this name is taken", where=f"hil new {name}", got=taken, outputs=UNTOUCHED,
            todo=f"choose another name, as my_{name}",
        )  # fmt: skip


def _renamed(text: str, words: Mapping[str, str], name: str, made: str) -> str:
    """Replace whole words; "_" is between words, so that acme_g1 in test_acme_g1 is one."""
    longest_first = sorted(words, key=len, reverse=True)
    pattern = rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])"
    return re.sub(pattern, lambda found: words[found[0]].format(name=name, made=made), text)


def _write(files: Mapping[Path, str]) -> None:
    """Write all or none. Raises: RunError."""
    with contextlib.ExitStack() as undone:
        for path, text in files.items():
            with _told(path):
                file = open_to_write(path, os.O_EXCL)
                undone.callback(path.unlink, missing_ok=True)
                try:
                    written(file, text.encode("utf-8"))
                finally:
                    os.close(file)
        undone.pop_all()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write: {error.strerror or error}", where=str(path), allowed="a folder that you may write to",
            outputs=UNTOUCHED, todo="change to another folder",
        ) from error  # fmt: skip
