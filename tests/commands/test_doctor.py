"""hil doctor: what it finds is what is there, a fault ends it safely, passports are read strictly and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hil
from hil.cli import run
from hil.commands.doctor import told
from hil.commands.loop_check import Probe, latencies, quality, ramped
from hil.commands.passport import MOST_BYTES, Figure, Passport, changes
from hil.device import ArraySpec, Device
from hil.devices.meter import metered
from hil.devices.stepped import stepped
from hil.errors import ConfigError
from sim_devices.spiking_array import TwinChip

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "benches" / "mzm_awg_scope.toml"
RIG = '''
import torch
import hil

class Rig:
    """Four channels; notes what it holds; raises at the row that it is told."""

    def __init__(self, log: str, raises: int = 0) -> None:
        self.spec = hil.Spec(hil.Port("dac", -1, 1, "V", 4), hil.Port("adc", -1, 1, "V", 4), provenance="real")
        self.log, self.raises, self.rows = log, raises, 0

    def held(self, volts):
        with open(self.log, "a") as file:
            file.write(f"{volts:g} ")

    def forward(self, x):
        for row in x:
            self.rows += 1
            if self.rows == self.raises:
                raise OSError("the amplifier is gone")
        self.held(float(x.abs().max()))
        return x / 2

    def safe(self):
        self.held(0.0)

    def close(self):
        self.safe()
'''


class Converter:
    """y = clip( shape(x) + noise ), in steps of q: a loop whose figures are known. Two channels."""

    def __init__(self, *, noise_v: float = 0.0, step_v: float = 0.0, gain: float = 1.0, bend: float = 0.0, most: float = 1e9):
        self.spec = hil.Spec(hil.Port("dac", -1, 1, "V", 2, max_step=most), hil.Port("adc", -2, 2, "V", 2), provenance="twin")
        self._noise_v, self._step_v, self._gain, self._bend = noise_v, step_v, gain, bend
        self._rng = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        y = self._gain * x + self._bend * x.square() + self._noise_v * torch.randn(x.shape, generator=self._rng)
        return (y if not self._step_v else (y / self._step_v).round() * self._step_v).clamp(-2, 2)

    def close(self) -> None: ...


def found(device: Device, ideal: Callable[[Tensor], Tensor] | None = None) -> dict[str, Figure]:
    probe = Probe(metered(stepped(device)))
    latencies(probe)
    return quality(probe, ramped(probe), ideal)


def near(figure: Figure, value: float, times: float = 5.0) -> bool:
    assert figure.value is not None
    return abs(figure.value - value) <= times * figure.spread


# ---- the figures are those of the loop ------------------------------------------------------------------------------------


def test_noise_and_effective_bits_are_those_of_the_converter() -> None:
    seen = found(Converter(noise_v=0.01))
    assert near(seen["noise"], 0.01)
    assert near(seen["enob"], math.log2(4 / (0.01 * math.sqrt(12))))
    assert near(seen["enob_of_swing"], math.log2(2 / (0.01 * math.sqrt(12))))
    eight_bits = found(Converter(step_v=4 / 256))
    assert eight_bits["noise"].value == 0.0
    assert eight_bits["enob"].value == pytest.approx(8.0, abs=0.01)  # its steps are what is left
    assert found(Converter())["enob"].value is None  # no noise, no steps: nothing that a number could come from


def test_linearity_is_that_of_the_curve_and_the_twin_is_judged_by_what_it_says() -> None:
    bend = 0.5
    parabola = bend * (4 / 45) ** 0.5 / 2 * 100  # rms of b x^2 - b / 3 over -1 to 1, of a swing of 2, in percent
    seen = found(Converter(noise_v=1e-3, bend=bend), lambda x: x + bend * x.square() + 0.02)
    assert seen["linearity"].value == pytest.approx(parabola, rel=0.05)
    assert near(seen["twin_error"], 0.02)
    assert near(found(Converter(noise_v=1e-3))["linearity"], 0.0)
    still = found(Converter(noise_v=1e-3, gain=0.0))["linearity"]
    assert still.value is None
    assert "does not move" in still.note


def test_readings_at_the_rails_are_counted() -> None:
    assert found(Converter(gain=1.5))["saturated"].value == 0.0
    share = found(Converter(gain=4.0))["saturated"].value
    assert share == pytest.approx(50.0, abs=4.0)


def test_steps_stay_inside_the_limits_of_the_port() -> None:
    """`stepped` refuses a step that is too large, so an answer shows that none was asked for."""
    seen = found(Converter(noise_v=1e-3, most=0.125))
    assert (seen["drive_low"].value, seen["drive_high"].value) == (-1.0, 1.0)
    assert near(seen["linearity"], 0.0)


def test_what_does_not_apply_to_spikes_says_so() -> None:
    seen = found(TwinChip().array(ArraySpec(4)))
    assert seen["enob"].value is seen["saturated"].value is seen["twin_error"].value is None
    assert all(seen[name].note for name in ("enob", "saturated", "twin_error"))
    assert seen["reading_high"].value == 1.0


# ---- benches and devices --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passport(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the virtual waveform bench, measured once."""
    path = tmp_path_factory.mktemp("passports") / "before.json"
    assert run(["doctor", str(BENCH), "--json", str(path)]) == 0
    return path


def test_the_passport_of_a_bench(passport: Path) -> None:
    made = Passport.load(passport)
    assert (made.name, made.shape, made.provenance) == ("mzm_awg_scope", "waveform", "twin")
    assert made.instruments["awg"].model == "33622A"
    assert made.instruments["scope"].firmware.startswith("07.50")
    assert {"hil", "torch", "python", "pyvisa"} <= set(made.versions)
    value = {name: figure.value for name, figure in made.figures.items()}
    assert all(number is not None for number in value.values())
    assert 0 < value["latency_median"] <= value["latency_worst"]  # type: ignore[operator]
    assert (value["drive_low"], value["drive_high"]) == (-4.0, 4.0)
    assert 2e-4 < value["noise"] < 1e-3  # type: ignore[operator]
    assert value["twin_error"] < 0.01  # type: ignore[operator]
    assert 15 < value["linearity"] < 50  # type: ignore[operator]  # a modulator bends
    assert set(made.parts) == {"upload", "trigger", "acquisition", "download", "settings", "host"}
    assert sum(made.parts.values()) == pytest.approx(1.0)
    assert f"bottleneck: {made.bottleneck}" in list(told(made))[-1]


def test_a_bench_without_a_wire(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(ROOT / "benches" / "mzi_mesh.toml")]) == 0
    said = capsys.readouterr().out
    assert "bottleneck: host" in said
    assert "outputs none" in said


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "checked_rig.py").write_text(RIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_rests_of_a_node_that_remembers_are_in_the_prediction(tmp_path: Path) -> None:
    assert run(["doctor", "benches/delay_loop_awg_scope.toml", "--json", str(tmp_path / "it.json")]) == 0
    figures = Passport.load(tmp_path / "it.json").figures
    achieved, predicted = (figures[name].value for name in ("samples_per_s", "samples_per_s_predicted"))
    assert achieved is not None
    assert predicted is not None
    assert 1 / 4 < predicted / achieved < 4  # by the rate of the symbols alone it would be seven times as fast


def test_a_device_of_ones_own(rig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "checked_rig:Rig", "--set", f"log={rig / 'log'}", "--json", "rig.json"]) == 0
    made = Passport.load(rig / "rig.json")
    assert made.provenance == "real"
    assert made.figures["linearity"].value == pytest.approx(0.0, abs=1e-4)
    assert set(made.parts) == {"host", "settling and acquisition"}
    assert (rig / "log").read_text(encoding="utf-8").split()[-1] == "0"
    assert "outputs safe" in capsys.readouterr().out


def test_a_fault_in_the_loop_ends_it_with_the_outputs_off(rig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", f"log={rig / 'log'}", "raises=150", "--json", "rig.json"]
    assert run(["doctor", "checked_rig:Rig", *words]) == 3
    said = capsys.readouterr().err
    assert "the amplifier is gone" in said
    assert "checked_rig.py" in said
    held = (rig / "log").read_text(encoding="utf-8").split()
    assert "1" in held  # it had been driven
    assert held[-1] == "0"
    assert not (rig / "rig.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.toml"], "no such file"),
        (["nobody"], "not known"),
        (["checked_rig:Rig", "--set", "lgo=x"], "log"),
        (["checked_rig:Rig", "--json", "log"], "nothing is overwritten"),
        (["checked_rig:Rig", "--against", "nowhere.json"], "cannot read"),
        ([str(BENCH), "--set", "a=1"], "in its file"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(
    words: list[str], said: str, rig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rig / "log").write_text("", encoding="utf-8")
    assert run(["doctor", *words]) == 2
    assert said in capsys.readouterr().err
    assert (rig / "log").read_text(encoding="utf-8") == ""


# ---- passports as files, and compared -------------------------------------------------------------------------------------


def test_two_passports_are_compared(passport: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Passport.load(passport)
    assert run(["doctor", str(passport), "--against", str(passport)]) == 0
    assert f"none of {len(before.figures)} figures changed" in capsys.readouterr().out
    noise, scope = before.figures["noise"], before.instruments["scope"]
    assert noise.value is not None
    later = replace(
        before,
        figures={**before.figures, "noise": replace(noise, value=2 * noise.value), "enob": Figure("bit", note="none")},
        instruments={**before.instruments, "scope": replace(scope, firmware="07.60")},
    )
    later.save(tmp_path / "later.json")
    assert run(["doctor", str(tmp_path / "later.json"), "--against", str(passport)]) == 0
    said = capsys.readouterr().out
    assert "figures changed by more than 3 times their spread" in said
    assert "noise, enob" in said
    assert "not the same: scope" in said
    assert [change.name for change in changes(before, later)] == ["scope", "noise", "enob"]


def test_a_change_within_the_spread_is_none() -> None:
    assert not Figure("V", 1.0, 0.1).differs(Figure("V", 1.4, 0.1))
    assert Figure("V", 1.0, 0.1).differs(Figure("V", 1.5, 0.1))
    assert Figure("V", 1.0).differs(Figure("V", 1.0 + 1e-9))
    assert not Figure("V").differs(Figure("V", note="does not apply either"))


def test_a_passport_comes_back_as_it_was_and_is_not_overwritten(passport: Path, tmp_path: Path) -> None:
    made = Passport.load(passport)
    made.save(tmp_path / "again.json")
    assert Passport.load(tmp_path / "again.json") == made
    with pytest.raises(hil.HilError, match="overwritten"):
        made.save(tmp_path / "again.json")


DAMAGES: dict[str, Callable[[str], str]] = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no object": lambda text: "[]",
    "another format": lambda text: text.replace("hil passport 1", "hil passport 2"),
    "NaN": lambda text: text.replace('"spread": 0.0', '"spread": NaN', 1),
    "infinity": lambda text: text.replace('"spread": 0.0', '"spread": 1e999', 1),
    "a spread below 0": lambda text: text.replace('"spread": 0.0', '"spread": -1.0', 1),
    "text for a number": lambda text: text.replace('"spread": 0.0', '"spread": "0"', 1),
    "an unknown key": lambda text: text.replace('"spread": 0.0', '"sprd": 0.0', 1),
    "a share above 1": lambda text: json.dumps({**json.loads(text), "parts": {"host": 2.0}}),
    "a number for a version": lambda text: json.dumps({**json.loads(text), "versions": {"hil": 1}}),
    "a list for figures": lambda text: json.dumps({**json.loads(text), "figures": [1]}),
    "a list for an instrument": lambda text: json.dumps({**json.loads(text), "instruments": {"awg": []}}),
    "no name": lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "name"}),
    "nested without end": lambda text: "[" * 100_000,
    "too large": lambda text: text + " " * MOST_BYTES,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_passport_is_refused(damage: str, passport: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = passport.read_text(encoding="utf-8")
    damaged = DAMAGES[damage](text)
    assert damaged != text
    path = tmp_path / "damaged.json"
    path.write_text(damaged, encoding="utf-8")
    with pytest.raises(ConfigError):
        Passport.load(path)
    assert run(["doctor", str(BENCH), "--against", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
