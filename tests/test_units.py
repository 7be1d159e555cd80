"""A quantity is one number and one unit: what is taken, to the last bit, and what is refused, with what to write instead."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from drivers.keysight_33600 import Keysight33600
from hil.config.experiment import read_experiment
from hil.errors import ConfigError
from hil.settings import arguments
from hil.units import Unbounded, finite, quantity
from sim_devices.bench.wiring import Cable
from sim_devices.tabulated import Tabulated

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("3.5 V", "volt", 3.5), ("12.4 ns", "second", 12.4e-9), ("1.1 mV", "volt", 1.1e-3), ("3.5V", "volt", 3.5),
        ("\u22121 V", "volt", -1.0), ("-1e\u22123 V", "volt", -1e-3), (" +.5\u00a0V ", "volt", 0.5), ("2. V", "volt", 2.0),
        ("50 Ohm", "ohm", 50.0), ("50 ohms", "ohm", 50.0), ("1 k\u03a9", "ohm", 1e3), ("1 k\u2126", "ohm", 1e3),
        ("10 MOhm", "ohm", 1e7), ("10 kOhm", "ohm", 1e4), ("7 \u00b5V", "volt", 7e-6), ("7 \u03bcV", "volt", 7e-6),
        ("7 uV", "volt", 7e-6), ("20 MSa/s", "hertz", 2e7), ("5 kSa/s", "hertz", 5e3), ("5 Sa/s", "hertz", 5.0),
        ("5 MV", "volt", 5e6), ("24 h", "second", 86400.0), ("90 deg", "radian", math.pi / 2),
        ("90 \u00b0", "radian", math.pi / 2), ("2 nA/Hz**0.5", "ampere / hertz ** 0.5", 2e-9),
        ("3 V/(ms)", "volt / second", 3e3), ("9 s\u207b\u00b9", "hertz", 9.0), ("300 K", "kelvin", 300.0),
        ("0.5", "1", 0.5), ("-2", "dimensionless", -2.0), ("7 counts", "counts", 7.0), ("7 a.u.", "a.u.", 7.0),
        ("25 degC", "degC", 25.0), ("1.5 V", "mV", 1500.0),
    ],
)  # fmt: skip
def test_what_is_taken(text: str, unit: str, value: float) -> None:
    assert quantity(text, unit, "here") == value


@pytest.mark.parametrize(
    ("text", "unit", "todo"),
    [
        ("1,5 V", "volt", 'not a comma: "1.5 V"'), ("-3,52 V", "volt", '"-3.52 V"'), ("50,0 ohm", "ohm", '"50.0 ohm"'),
        ("12,5 MHz", "hertz", '"12.5 Hz"'), ("1,000 V", "volt", '"1000 V" or "1.000 V"'),
        ("1.000,5 V", "volt", "decimal point"), ("1,000,000 Hz", "hertz", "without separators"),
        ("1 000 V", "volt", "one number"), ("1_5 V", "volt", "one number"), ("1'000 V", "volt", "one number"),
        ("3 5 V", "volt", "one number"), ("3.5 V 2", "volt", "nothing after"), ("5 V - 2 V", "volt", "no arithmetic"),
        ("2*3 V", "volt", "no arithmetic"), ("9**9**9 V", "volt", "no arithmetic"),
        ("1 V*9**9**9", "volt", "no arithmetic"), ("1 V**9**9", "volt", "no arithmetic"),
        ("1/3 V", "volt", "no arithmetic"), ("5 V # typical", "volt", "nothing after"), ("5 V\n2", "volt", "nothing after"),
        ("0x10 V", "volt", "one number"), ("V", "volt", "a number before"), ("ten V", "volt", "a number before"),
        ("", "volt", "a number before"), ("\u0663 V", "volt", "a number before"), ("3.5", "volt", 'name the unit: "3.5 V"'),
        ("nan V", "volt", "finite"), ("inf V", "volt", "finite"), ("-Infinity V", "volt", "finite"),
        ("HighZ", "volt", "finite"), ("1e999 V", "volt", "out of the range"), ("1e-999 V", "volt", "out of the range"),
        ("1e99999999 V", "volt", "out of the range"), ("6.28 rad/s", "hertz", "2 pi"), ("60 rpm", "hertz", "2 pi"),
        ("1 Hz", "radian / second", "2 pi"), ("5 mv", "volt", "write MV or mV"), ("5 hz", "hertz", "write Hz"),
        ("50 OHM", "ohm", "write ohm"), ("5 S", "second", "write s"), ("5 A", "volt", "another kind"),
        ("9 counts/s", "hertz", "another kind"), ("9600 Bd", "hertz", "another kind"), ("5 Vs", "volt", "no unit"),
        ("5 Vpp", "volt", "no unit"), ("5 Hzs", "hertz", "no unit"), ("5 kmillivolts", "volt", "no unit"),
        ("20 degC", "kelvin", "offset"), ("20 \u00b0C", "kelvin", "offset"), ("68 degF", "kelvin", "offset"),
        ("3 dBm", "watt", "logarithm"), ("3 dB", "1", "logarithm"), ("2 dozen V", "volt", "one unit"),
        ("10 %", "1", "fraction"), ("10 %", "volt", "fraction"), ("5 V", "a.u.", "without quotes"),
        ("5 V V", "volt", "one unit"), ("5 k V", "volt", "one unit"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, unit: str, todo: str) -> None:
    with pytest.raises(ConfigError) as caught:
        quantity(text, unit, "[awg] low")
    assert todo in caught.value.todo
    assert caught.value.where == "[awg] low"


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 10**400, -(10**5000), True, None, [1.0], b"1 V"],
    ids=lambda value: type(value).__name__,
)
def test_numbers_are_looked_at_too(value: object) -> None:
    with pytest.raises(ConfigError, match="here"):
        quantity(value, "volt", "here")


def test_a_text_is_bounded() -> None:
    for text in ("1" * 100_000 + " V", "1 " + "V*" * 50_000 + "V", "(" * 100_000, "1 " + "(" * 90 + "V"):
        with pytest.raises(ConfigError) as caught:
            quantity(text, "volt", "here")
        assert len(str(caught.value)) < 600


def test_generated_texts() -> None:
    """The same as benchmarks/hostile.py does, on a sample."""
    spec = importlib.util.spec_from_file_location("quantities", ROOT / "benchmarks" / "hostility" / "quantities.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.measure(quick=True) == {"quantities_tried": module.TRIED_QUICK, "quantities_wrong": 0}


# ---- settings of a class --------------------------------------------------------------------------------------------------


class Box:
    def __init__(
        self, *, load_ohm: Unbounded = 50.0, open_ohm: Unbounded | None = None, high_v: float = 1.0, hold_s: float = math.inf,
        gains: tuple[float, ...] = (), depth: float = 1.0,
    ) -> None: ...  # fmt: skip


@pytest.mark.parametrize("text", ["HighZ", "highz", "High-Z", "HiZ", "INFinity", "INF", "inf", " infinity "])
def test_words_for_an_open_circuit(text: str) -> None:
    for target in (Keysight33600, Cable):
        assert arguments(target, {"load": text}, "[awg]", skip=("scpi",)) == {"load_ohm": math.inf}
    assert arguments(Box, {"load": text, "open": text}, "[box]") == {"load_ohm": math.inf, "open_ohm": math.inf}
    with pytest.raises(ConfigError, match='or "HighZ" alone'):
        arguments(Box, {"load_ohm": f"{text} ohm"}, "[box]")
    for table in ({"high": text}, {"hold": text}, {"high_v": text}):
        with pytest.raises(ConfigError, match="finite"):
            arguments(Box, table, "[box]")


@pytest.mark.parametrize(
    "table",
    [
        {"high": math.inf}, {"high_v": math.inf}, {"high_v": math.nan}, {"load": -math.inf}, {"load": math.nan},
        {"hold_s": math.nan}, {"depth": math.inf}, {"depth": 10**400}, {"gains": [1.0, math.nan]}, {"gains": [math.inf]},
        {"high_v": True}, {"high": True},
    ],
)  # fmt: skip
def test_numbers_of_a_table(table: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(table))):
        arguments(Box, table, "[box]")


def test_numbers_that_may_be_infinite() -> None:
    assert arguments(Box, {"load": math.inf, "hold_s": math.inf}, "[box]") == {"load_ohm": math.inf, "hold_s": math.inf}
    for table in ({"load": "50 ohm", "load_ohm": 60.0}, {"high_v": 1, "high": "2 V"}):
        with pytest.raises(ConfigError, match="twice"):
            arguments(Box, table, "[box]")


# ---- overrides, and what instruments say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["train.epochs=1,5", "train.epochs=3 # 5", "train.epochs=3\nbatch = 2", "train.epochs=", "train.epochs=1e1"]
)
def test_an_override_is_one_value(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text('[network]\nwidths = [64, 10]\n[device]\nuse = "x:Y"\n[learner]\nuse = "adfa"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="epochs"):
        read_experiment(path, [text])


@pytest.mark.parametrize("drive", [["1_0 V", 20.0, 30.0], [0.0, "1,5 V", 2.0], [0.0, 1.0, 10**400], [0.0, math.nan, 2.0]])
def test_the_points_of_a_curve_are_quantities(drive: list[float]) -> None:
    with pytest.raises(ConfigError, match="not a curve; got drive"):
        Tabulated(drive=drive, reading=[0.0, 1.0, 2.0])


def test_the_numbers_of_an_instrument() -> None:
    assert [finite(text) for text in ("+3", "-1.5E-03", " 5.", ".5", "+1.0e+3\n")] == [3.0, -1.5e-3, 5.0, 0.5, 1000.0]
    for text in ("1_5", "1,5", "nan", "inf", "1e999", "1e-999", "0x10", "", "1 2", "1e5e5", "\u0661"):
        with pytest.raises(ValueError, match=r"number"):
            finite(text)
