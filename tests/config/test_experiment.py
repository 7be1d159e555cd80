"""Wrong files get an answer that names the place, what was found, what is allowed, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hil.commands import compare
from hil.config.bench import read_bench
from hil.config.experiment import read_experiment
from hil.config.read import dump, find
from hil.config.resolve import resolve
from hil.config.search import base_experiment, read_search
from hil.errors import ConfigError
from hil.settings import arguments
from hil.units import quantity

GOOD = """
seed = 3
[network]
widths = [64, 30, 10]
[device]
use = "mach_zehnder"
v_pi = "3.5 V"
[learner]
use = "adfa"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_and_writes_back_the_same(tmp_path: Path) -> None:
    experiment = read_experiment(write(tmp_path, GOOD))
    assert experiment.device.settings() == {"v_pi": "3.5 V"}
    assert read_experiment(write(tmp_path, dump(experiment))) == experiment


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + '[data]\nuze = "digits"', ["wrong.toml: [data]", "uze", 'Did you mean "use"?', "nothing was opened"]),
        (GOOD.replace("[network]", "[netwrok]"), ["netwrok", 'Did you mean "network"?']),
        (GOOD.replace("seed = 3", "seed = -3"), ["seed", "-3", "greater than or equal to 0"]),
        (GOOD + "[train]\nepochs = 0", ["[train]", "epochs", "0", "greater than 0"]),
        ("seed = 3 3", ["not a TOML file", "line 1"]),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_experiment(write(tmp_path, text))
    for part in parts:
        assert part in str(caught.value)


def test_missing_file_offers_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"wrong\.toml"):
        read_experiment(tmp_path / "wron.toml")


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    experiment = read_experiment(path, ["train.epochs=7", "learner.use=dfa", 'device.v_pi="4 V"'])
    assert (experiment.train.epochs, experiment.learner.use, experiment.device.settings()["v_pi"]) == (7, "dfa", "4 V")
    for wrong in ("train.epochs", "=3", "seed.x=3"):
        with pytest.raises(ConfigError, match="--set"):
            read_experiment(path, [wrong])


def test_units_at_the_edge() -> None:
    assert quantity("10 mV", "V", "here") == pytest.approx(0.01)
    assert quantity(3, "V", "here") == 3.0
    for wrong in ("10 mA", "ten volts", True, None, [1]):
        with pytest.raises(ConfigError, match="here"):
            quantity(wrong, "V", "here")


class Box:
    def __init__(self, *, high_v: float, delay_s: float = 0.0, count: int = 1) -> None:
        self.high_v = high_v


def test_arguments_parse_by_the_unit_in_the_name() -> None:
    assert arguments(Box, {"high": "20 mV", "delay_s": "3 ns"}, "[box]") == {"high_v": 0.02, "delay_s": pytest.approx(3e-9)}
    assert arguments(Box, {"high_v": 2, "count": 4}, "[box]") == {"high_v": 2, "count": 4}
    with pytest.raises(ConfigError, match='Did you mean "delay'):
        arguments(Box, {"high": 1, "dellay": 1}, "[box]")
    with pytest.raises(ConfigError, match="no high_v"):
        arguments(Box, {}, "[box]")
    with pytest.raises(ConfigError, match="volt"):
        arguments(Box, {"high": "3 s"}, "[box]")


def test_resolve_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "adfa"'):
        resolve("adfaa", "[learner]", {"adfa": "hil.errors:HilError"})
    with pytest.raises(ConfigError, match="cannot import"):
        resolve("hil.errors:NoSuch", "[learner]", {})


def test_find_looks_beside_and_above(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    experiment = write(tmp_path / "experiments", GOOD)
    (tmp_path / "bench.toml").write_text("", encoding="utf-8")
    assert find("bench.toml", experiment) == tmp_path / "bench.toml"
    with pytest.raises(ConfigError, match="not found"):
        find("no.toml", experiment)


def test_the_shipped_files_are_valid() -> None:
    root = Path(__file__).resolve().parents[2]
    for path in (root / "benches").glob("*.toml"):
        read_bench(path)
    for path in (root / "experiments").glob("*.toml"):
        if path.name.startswith(("compare_", "ablation_")):
            assert list(compare.cells(compare.read(path), path, Path("unused")))
        elif path.name.startswith("search_"):
            base_experiment(read_search(path), path)
        else:
            read_experiment(path)
