"""A command that a message tells the user to type can be typed, whatever the path is called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hil.errors import HilError
from hil.hints import quoted
from hil.run.folder import RunFolder
from hil.run.resume import inspect

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("first run", "it's", "a;b", "$HOME", "two  blanks", "(old)", "*")


@pytest.mark.parametrize("name", [*NAMES, "plain", "runs/x-1"])
def test_the_shell_gives_back_the_path(name: str) -> None:
    assert shlex.split(f"hil resume {quoted(Path(name))} --changed") == ["hil", "resume", name, "--changed"]


def test_a_path_is_no_option() -> None:
    assert [quoted(name) for name in ("-x", "--run", "a-b")] == ["./-x", "./--run", "a-b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_folder_with_such_a_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    folder = RunFolder.create(path)
    folder.write_config('[network]\nwidths = [64, 10]\n[device]\nuse = "x:Y"\n[learner]\nuse = "adfa"\n')
    (path / "checkpoints" / "step-000001.json").write_text("{}", encoding="utf-8")
    with pytest.raises(HilError) as again:
        RunFolder.create(path)
    (path / "summary.json").write_text("no JSON", encoding="utf-8")
    hints = [again.value.todo, inspect(path).last_good, *(damage.todo for damage in inspect(path).damages)]
    commands = [shlex.split(hint[hint.index("hil ") :])[:3] for hint in hints if re.search("hil (resume|train|report) ", hint)]
    assert commands
    assert all(str(path) in command[2] for command in commands)


def test_every_hint_quotes_its_paths() -> None:
    """The law for all of them: no command in a message has a value in it that is not quoted."""
    commands = "resume|report|train|calibrate|use|replay|status|compare|search|doctor|serve"
    bare = re.compile(rf"hil (?:{commands})(?: [A-Za-z-]+)* \{{(?!quoted\()|\}} --[a-z]+ \{{(?!quoted\()")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for top in ("hil", "drivers", "calibration", "sim_devices")
        for path in sorted((ROOT / top).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert not found, "\n".join(found)
