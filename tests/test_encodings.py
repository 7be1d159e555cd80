"""Files that a person writes are UTF-8, whatever the locale says; another encoding is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.links.scripted import read_transcript
from hil.commands import compare
from hil.config.bench import read_bench
from hil.config.experiment import read_experiment
from hil.config.read import read_toml
from hil.config.search import read_search
from hil.errors import HilError
from hil.feedback.feedback import Feedback
from hil.feedback.functions import Sine

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = '# \u00b5V, \u03a9\n[network]\nwidths = [64, 10]\n[device]\nuse = "mach_zehnder"\n[learner]\nuse = "adfa"\n'
READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "experiment": (read_experiment, EXPERIMENT),
    "bench": (
        read_bench,
        (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8").replace("Arbitrary", "\u00c4ther"),
    ),
    "search": (read_search, "# \u00fc\n" + (ROOT / "experiments" / "search_mzm_digits.toml").read_text(encoding="utf-8")),
    "comparison": (compare.read, "# \u00e9\n" + (ROOT / "experiments" / "compare_digits.toml").read_text(encoding="utf-8")),
    "feedback": (Feedback.load, "# \u00e9\n" + Feedback(Sine(1.3, 1.2)).text()),
    "transcript": (read_transcript, '{"t": 0.0, "kind": "write", "text": "\u00e9"}\n'),
}


@pytest.mark.parametrize("kind", READERS)
def test_other_encodings_are_named(tmp_path: Path, kind: str) -> None:
    read, text = READERS[kind]
    path = tmp_path / f"{kind}.toml"
    path.write_bytes(text.encode("utf-8"))
    plain = read(path)
    for payload in (text.encode("utf-8-sig"), text.replace("\n", "\r\n").encode("utf-8-sig")):
        path.write_bytes(payload)
        assert read(path) == plain
    for encoding, named in (("utf-16", "UTF-16"), ("utf-32", "UTF-32"), ("latin-1", "Latin-1"), ("cp1252", "Windows-1252")):
        path.write_bytes(text.replace("\u03a9", "").encode(encoding))
        with pytest.raises(HilError, match=named) as caught:
            read(path)
        assert "UTF-8" in caught.value.allowed
        assert str(path) in caught.value.where


def test_the_locale_does_not_matter(tmp_path: Path) -> None:
    """A process in the C locale, where Python's own default is ASCII, reads and writes the same."""
    for kind, (_, text) in READERS.items():
        (tmp_path / f"{kind}.toml").write_bytes(text.encode("utf-8"))
    script = (
        "import sys; from pathlib import Path; from hil.config.bench import read_bench;"
        "from hil.config.experiment import read_experiment; from hil.commands import compare;"
        "from hil.config.search import read_search; from hil.feedback.feedback import Feedback; p = Path(sys.argv[1]);"
        "read_experiment(p / 'experiment.toml'); read_bench(p / 'bench.toml'); read_search(p / 'search.toml');"
        "compare.read(p / 'comparison.toml'); Feedback.load(p / 'feedback.toml').save(p / 'written.toml');"
        "print(sys.flags.utf8_mode, sys.stdout.encoding)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "0"
    assert read_toml(tmp_path / "written.toml")["g"]["family"] == "sine"
