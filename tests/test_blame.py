"""What is wrong in a bench file is said to be wrong there, not in the experiment that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from drivers.keysight_33600 import Keysight33600
from hil.cli import run
from hil.commands.train import _told
from hil.config.resolve import blaming, construct
from hil.errors import ConfigError, OutOfRange, Refused, RunError
from sim_devices.lif_array import Neuron
from sim_devices.mach_zehnder import MachZehnder

BENCH = Path(__file__).resolve().parent.parent / "benches" / "mzm_awg_scope.toml"
EXPERIMENT = '[network]\nwidths = [64, 10]\n[device]\nbench = "table 3.toml"\n[learner]\nuse = "adfa"\n'


class Wire:
    """Stands for a conversation; the settings are refused before anything is said."""

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        (Keysight33600, {"scpi": Wire(), "low_v": -400.0}), (Keysight33600, {"scpi": Wire(), "load_ohm": 0.1}),
        (Keysight33600, {"scpi": Wire(), "dac_bits": 99}), (Keysight33600, {"scpi": Wire(), "low_v": 1.0, "high_v": 1.0}),
        (MachZehnder, {"v_pi_v": 0.0}), (MachZehnder, {"extinction_db": -1.0}), (Neuron, {"v_th": -1.0}),
    ],
)  # fmt: skip
def test_a_setting_that_its_class_refuses_names_the_section(target: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught, _told(None, Path("e.toml"), None):  # type: ignore[arg-type]
        construct(target, settings, "table 3.toml: [awg]")
    assert caught.value.where.startswith("table 3.toml: [awg]")


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (OutOfRange("x", where="port dac"), "b.toml: [awg]: port dac"), (ConfigError("x"), "b.toml: [awg]"),
        (ConfigError("x", where="c.toml: [scope]"), "c.toml: [scope]"), (RunError("x", where="runs/a"), "runs/a"),
    ],
)  # fmt: skip
def test_a_place_that_is_known_is_kept(error: Refused, where: str) -> None:
    with pytest.raises(Refused), blaming("b.toml: [awg]"):
        raise error
    assert error.where == where


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("[waveform]", {"waveform": {"symbol_rate": "0 Hz"}}),
        ("[instruments.awg] low", {"instruments": {"awg": {"low": "-1,5 V"}}}),
        ("[virtual]", {"virtual": {"awg": {"dac_bits": 99}}}),
        ("[virtual.cable] delay", {"virtual": {"cable": {"delay": "1 m"}}}),
    ],
)
def test_the_message_of_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, settings: dict[str, Any]
) -> None:
    bench = tomllib.loads(BENCH.read_text(encoding="utf-8"))
    for name, table in settings.items():
        for key, value in table.items():
            bench[name][key] = bench[name][key] | value if isinstance(value, dict) else value
    (tmp_path / "table 3.toml").write_text(tomli_w.dumps(bench), encoding="utf-8")
    (tmp_path / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    assert run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "r")]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert f"table 3.toml: {section}" in first
    assert "e.toml: " not in first.replace("table 3.toml: ", "")
