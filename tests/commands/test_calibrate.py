"""hil calibrate, and what the saved calibration does to a training: believed, refused, kept.

Most of it is on a bench without a wire: `open_bench` opens a simulated node; the last ones go through served instruments.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import small_calibration
from small import toml
from torch import Tensor

import hil.build.bench
from calibration.certificate import Certificate, Instrument
from hil.build.bench import Opened
from hil.cli import run
from hil.commands import calibrate
from hil.config.bench import BenchFile, bench_of
from hil.errors import Disconnected, Misaligned
from sim_devices.simulated import Simulated

ROOT = Path(__file__).resolve().parents[2]
BENCH = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8").replace(
    '"sim_devices.mach_zehnder:MachZehnder"\nv_pi = "3.5 V"', '"small_calibration:Modulator"\nv_pi = "3.5 V"'
) + '\n[calibration]\nprocedures = "small_calibration:steps"\n'  # fmt: skip
EXPERIMENT = toml(device='bench = "b.toml"', learner="pat", train="epochs = 2\nbatch = 32\ncheckpoint_every = 1")
WHO = {"awg": Instrument("Keysight", "33622A", "MY1", "A.02"), "scope": Instrument("Keysight", "DSOX3024T", "MY2", "07.50")}


class Silent:
    """A guardian of nothing."""

    def beat(self) -> None: ...

    def rest(self, error: BaseException | None) -> None: ...

    outputs_after = "off, read back"


@dataclass
class Table:
    """The bench without a wire. node: what is on it. opened: how often. raises: instead of opening, or at the next shot."""

    node: small_calibration.Modulator
    instruments: Mapping[str, Instrument] = field(default_factory=lambda: WHO)
    opened: int = 0
    closed: int = 0
    unopenable: Exception | None = None
    shot: Exception | None = None

    @contextmanager
    def open(self, bench: BenchFile, run: Path | None = None, wire: bool = False) -> Iterator[Opened]:
        if self.unopenable is not None:
            raise self.unopenable
        self.opened += 1
        device = OnTable(self)
        lines = {name: str(who) for name, who in self.instruments.items()}
        guard: Any = Silent()
        try:
            yield Opened(device, None, {"bench": bench.name}, lines, guard, bench.twin, instruments=self.instruments)
        finally:
            self.closed += 1


class OnTable(Simulated):
    def __init__(self, table: Table) -> None:
        super().__init__(table.node, 5)
        self._table = table

    def forward(self, x: Tensor) -> Tensor:
        if self._table.shot is not None:
            raise self._table.shot
        return super().forward(x)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    made = Table(small_calibration.Modulator(v_pi_v=3.61, phase_rad=-1.2, low_v=-4.0, high_v=4.0))
    monkeypatch.setattr(hil.build.bench, "open_bench", made.open)
    monkeypatch.setattr(calibrate, "open_bench", made.open)
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.toml").write_text(BENCH, encoding="utf-8")
    (tmp_path / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    return tmp_path


def hil_(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(a) for a in arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def saved(here: Path) -> Path:
    (path,) = (here / "calibrations").glob("*.toml")
    return path


def used(here: Path, more: str = "") -> None:
    """Let the bench file name the only calibration there is."""
    name = f'[calibration]\nuse = "calibrations/{saved(here).name}"\n{more}'
    (here / "b.toml").write_text(
        (here / "b.toml").read_text(encoding="utf-8").replace("[calibration]\n", name), encoding="utf-8"
    )


def summary(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.drawn
def test_a_good_bench(here: Path, table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = hil_(capsys, "calibrate", "b.toml")
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split()[1] for line in lines if re.match(r" \d ", line)] == ["floor", "transfer", "twin", "model"]
    assert all(line.endswith(" ok") for line in lines if re.match(r" \d ", line))
    assert "All 4 calibration steps passed; the model predicts a reading to " in out
    for part in (
        "saved   calibrations/mzm_awg_scope-",
        "valid for awg MY1, scope MY2",
        "under [calibration]:  use = ",
        "a training on this bench then",
    ):
        assert part in out
    made = Certificate.load(saved(here))
    assert made.twin is not None
    assert made.nominal is not None
    assert made.nominal.settings["v_pi_v"] == 3.5
    assert made.twin.settings["v_pi_v"] == pytest.approx(3.61, abs=0.01)
    assert made.twin.settings["phase_rad"] == pytest.approx(-1.2, abs=0.02)
    assert made.settings["awg"]["high_v"] == 4.0
    assert "virtual" not in made.settings
    page = saved(here).with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4  # the main one, and the sweeps of three steps
    (verdict,) = (line for line in lines if line.startswith("All 4"))
    assert verdict in page.replace("\xa0", " ")
    assert made.max_age_s == 86400
    assert made.nominal.stated == ("v_pi_v",)
    assert made.nominal.spread["v_pi_v"] == 0.1
    assert not re.search(r"""(src|href)=["']https?://""", page)
    assert (table.opened, table.closed) == (1, 1)


def test_a_bad_bench_is_saved_under_another_name_and_refused(
    here: Path, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "b.toml").write_text(BENCH.replace(":steps", ":broken"), encoding="utf-8")
    code, out, err = hil_(capsys, "calibrate", "b.toml")
    assert code == 3
    for part in ("NOT VALID", "clipped: scope: the converter sat at a rail", "choose a larger range", "no training uses it"):
        assert part in out
    assert " 3 twin              not done: needs transfer" in out
    for part in ("the calibration is NOT VALID", "transfer", "Outputs: off, read back", "Next: choose a larger range"):
        assert part in err
    assert saved(here).stem.endswith("-failed")
    page = saved(here).with_suffix(".html").read_text(encoding="utf-8")
    assert "NOT VALID" in page
    assert "What to do: choose a larger range" in page
    used(here)
    for command in (("train", "e.toml"), ("calibrate", "b.toml", "--check")):
        code, _, err = hil_(capsys, *command)
        assert code == 2
        assert "this calibration failed" in err
    assert table.opened == 1
    assert not (here / "runs").exists() or not any((here / "runs").iterdir())


def test_a_bench_that_does_not_open(here: Path, table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    """A measurement that fails is a finding; a wire that does is a fault, as everywhere."""
    table.unopenable = Misaligned("the marker is not where it must be", where="scope", todo="look at the cable")
    code, out, _ = hil_(capsys, "calibrate", "b.toml")
    assert code == 3
    assert " 1 open" in out
    assert "look at the cable" in out
    assert saved(here).stem.endswith("-failed")
    table.unopenable = Disconnected("the other end closed", where="awg", outputs="unknown")
    code, out, err = hil_(capsys, "calibrate", "b.toml", "--out", "other")
    assert (code, out) == (3, "")
    assert "the other end closed" in err
    assert not (here / "other").exists()


def test_a_lost_wire_and_ctrl_c_save_nothing(
    here: Path, table: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table.shot = Disconnected("the other end closed", where="awg")
    code, _, err = hil_(capsys, "calibrate", "b.toml")
    assert code == 3
    for part in ("ended the calibration after 0 steps", "nothing was saved", "the other end closed", "hil calibrate b.toml"):
        assert part in err
    table.shot = None

    def interrupting(subject: Any, found: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return small_calibration.floor(subject, found)

    first, *rest = small_calibration.steps()
    monkeypatch.setattr(small_calibration, "steps", lambda: (replace(first, run=interrupting), *rest))
    code, out, err = hil_(capsys, "calibrate", "b.toml")
    assert code == 130
    assert "stopped by SIGINT after step 1, floor; nothing was saved" in err
    assert "Outputs: off, read back" in err
    assert " 2 " not in out
    assert not (here / "calibrations").exists()
    assert table.opened == table.closed == 2


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("procedures", "procedure", ["[calibration]", "procedure", 'Did you mean "procedures"?']),
        (":steps", ":stairs", ["[calibration] procedures", "cannot import"]),
        (":steps", ":nothing", ["[calibration] procedures", "not procedures"]),
        (":steps", ":Modulator", ["not procedures"]),
        ("[calibration]\n", '[calibration]\npolicy = "ignore"\n', ["[calibration]", "policy", "'refuse' or 'warn'"]),
        ("[calibration]\n", '[calibration]\nuse = "nowhere.toml"\n', ["nowhere.toml", "not found"]),
        ("[calibration]\n", '[calibration]\nuse = "b.toml"\n', ["not a calibration of this format"]),
        ("[calibration]\n", '[calibration]\nmax_age = "3 V"\nuse = "%s"\n', ["max_age", "3 V", "a time"]),
        ("[calibration]\n", '[calibration]\nmax_age = 0\nuse = "%s"\n', ["max_age", "above 0"]),
    ],
)
def test_wrong_turns(
    here: Path, table: Table, capsys: pytest.CaptureFixture[str], old: str, new: str, parts: list[str]
) -> None:
    if "%s" in new:
        assert hil_(capsys, "calibrate", "b.toml")[0] == 0
        new = new.replace("%s", f"calibrations/{saved(here).name}")
    opened = table.opened
    (here / "b.toml").write_text(BENCH.replace(old, new), encoding="utf-8")
    command = ("train", "e.toml") if "use" in new else ("calibrate", "b.toml")
    code, _, err = hil_(capsys, *command)
    assert code == 2, err
    for part in (*parts, "Outputs: untouched", "Next: "):
        assert part in err or (part == "Next: " and "max_age" in err), err
    assert table.opened == opened


def test_training_believes_it_and_the_run_needs_nothing_outside(
    here: Path, table: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hil_(capsys, "train", "e.toml", "--run", "sheet")[0] == 0
    assert hil_(capsys, "calibrate", "b.toml")[0] == 0
    used(here)
    code, out, err = hil_(capsys, "train", "e.toml", "--run", "whole")
    assert code == 0, err
    assert "calibration mzm_awg_scope-" in out
    assert "twin    model against measured curve: rms error " in out
    sheet, whole = summary(here / "sheet")["twin_honesty"], summary(here / "whole")["twin_honesty"]
    assert sheet["nrmse"] > 0.05
    assert whole["nrmse"] < 0.002
    assert whole["correlation"] > 0.9999
    assert "the twin is off by" in (here / "whole" / "report.html").read_text(encoding="utf-8")

    from hil.training import session
    from hil.training.loop import TrainingStep, train

    def interrupted(training: object) -> object:
        for point in train(training):  # type: ignore[arg-type]
            if isinstance(point, TrainingStep) and point.step == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield point

    monkeypatch.setattr(session, "train", interrupted)
    assert hil_(capsys, "train", "e.toml", "--run", "parts")[0] == 130
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr(hil.build.bench, "open_bench", table.open)
    shutil.rmtree(here / "calibrations")
    (here / "b.toml").unlink()
    code, _, err = hil_(capsys, "resume", "parts")
    assert code == 0, err
    kept = ("test_loss", "device_passes", "steps", "twin_honesty")
    assert [summary(here / "whole")[k] for k in kept] == [summary(here / "parts")[k] for k in kept]
    best = [(here / name / "checkpoints" / "best.safetensors").read_bytes() for name in ("whole", "parts")]
    assert best[0] == best[1]


def test_what_does_not_fit_is_refused_or_said(
    here: Path, table: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hil_(capsys, "calibrate", "b.toml")[0] == 0
    used(here)
    fits = (here / "b.toml").read_text(encoding="utf-8")
    opened = table.opened
    wrong = {
        'high = "4 V"': ('high = "3 V"', "[awg] high_v: 3.0 now, 4.0 when calibrated"),
        "[calibration]\n": ('[calibration]\nmax_age = "0.001 s"\n', "age: "),
        'symbol_rate = "100 MHz"': ('symbol_rate = "50 MHz"', "[waveform] symbol_rate_hz: 50000000.0 now"),
    }
    for old, (new, part) in wrong.items():
        (here / "b.toml").write_text(fits.replace(old, new), encoding="utf-8")
        code, _, err = hil_(capsys, "train", "e.toml", "--run", "r")
        assert code == 2, err
        for each in (part, "does not hold here", "Outputs: untouched", "hil calibrate", 'policy = "warn"'):
            assert each in err, err
    assert table.opened == opened
    assert not (here / "r").exists()

    (here / "b.toml").write_text(fits, encoding="utf-8")
    table.instruments = {**WHO, "awg": replace(WHO["awg"], serial="MY9")}
    code, _, err = hil_(capsys, "train", "e.toml", "--run", "r")
    assert code == 3
    for each in ("the calibration is of other instruments", "MY9", "MY1", "off, read back", "connect those"):
        assert each in err, err
    table.instruments = {**table.instruments, "scope": replace(WHO["scope"], firmware="07.60")}
    (here / "b.toml").write_text(fits.replace("[calibration]\n", '[calibration]\npolicy = "warn"\n'), encoding="utf-8")
    code, out, err = hil_(capsys, "train", "e.toml", "--run", "r")
    assert code == 0, err
    assert out.count("beware  calibration ") == 2
    told = [json.loads(line) for line in (here / "r" / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["message"].split(": ")[1] for line in told if line["kind"] == "beware"] == ["awg", "scope firmware"]


def test_a_resume_refuses_nothing_for_its_age_but_other_instruments_and_another_calibration(
    here: Path, table: Table, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hil_(capsys, "calibrate", "b.toml")[0] == 0
    used(here, 'max_age = "20 s"\n')
    from hil.training import session

    def at_once(training: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        yield from real(training)  # type: ignore[arg-type]

    real = session.train
    monkeypatch.setattr(session, "train", at_once)
    assert hil_(capsys, "train", "e.toml", "--run", "r")[0] == 130
    monkeypatch.setattr(session, "train", real)
    table.instruments = {**WHO, "awg": replace(WHO["awg"], serial="MY9")}
    assert hil_(capsys, "resume", "r")[0] == 3
    table.instruments = WHO
    kept = here / "r" / "calibration.toml"
    mine = kept.read_bytes()
    assert hil_(capsys, "calibrate", "b.toml", "--out", "later", "--seed", "4")[0] == 0
    (later,) = (here / "later").glob("*.toml")
    kept.write_bytes(later.read_bytes())
    code, _, err = hil_(capsys, "resume", "r")
    assert code == 2
    assert "calibration.toml" in err
    kept.write_bytes(mine)
    monkeypatch.setattr("calibration.validity.age_s", lambda certificate, now: 1e6)
    code, out, err = hil_(capsys, "resume", "r")
    assert code == 0, err
    assert "beware  calibration calibration.toml: age: 12 days old now, at most 20 s allowed when calibrated" in out


def test_check(here: Path, table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = hil_(capsys, "calibrate", "b.toml", "--check")
    assert code == 2
    assert "no calibration of this bench" in err
    assert hil_(capsys, "calibrate", "b.toml")[0] == 0
    code, out, err = hil_(capsys, "calibrate", "b.toml", "--check")
    assert code == 0, err
    assert out.rstrip().endswith("it holds")
    table.instruments = {**WHO, "scope": replace(WHO["scope"], firmware="07.60")}
    code, out, _ = hil_(capsys, "calibrate", "b.toml", "--check")
    assert code == 0
    assert "~ scope firmware: 07.60 now, 07.50 when calibrated" in out
    table.node = table.node.remade({"phase_rad": -1.0})  # the bias has walked
    code, out, err = hil_(capsys, "calibrate", "b.toml", "--check")
    assert code == 3
    assert "does not hold any more" in err
    assert re.search(r"model against measured curve: rms error [\d.]+ mV, [\d.]+ [mµ]V allowed", err)
    table.node, table.instruments = table.node.remade({"phase_rad": -1.2}), WHO
    (here / "b.toml").write_text(BENCH.replace('range = "0.5 V"', 'range = "0.6 V"'), encoding="utf-8")
    code, _, err = hil_(capsys, "calibrate", "b.toml", "--check")
    assert code == 2
    assert "[scope] range_v: 0.6 now, 0.5 when calibrated" in err
    assert table.opened == table.closed


def test_a_board_has_no_steps(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = hil_(capsys, "calibrate", ROOT / "benches" / "spiking_board.toml")
    assert code == 2
    assert "calibrating this spiking bench" in err


def test_the_page_of_what_is_left(here: Path, table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    assert hil_(capsys, "calibrate", "b.toml")[0] == 0
    path = saved(here)
    path.with_suffix(".safetensors").unlink()
    path.with_suffix(".html").unlink()
    code, out, _ = hil_(capsys, "report", path)
    assert code == 0
    assert str(path.with_suffix(".html")) in out.replace("calibrations/", str(here / "calibrations") + "/", 1)
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "cannot be read" in page
    assert "<svg" not in page
    assert "v_pi_v" in page
    for wrong in ("b.toml", "nowhere.toml"):
        assert hil_(capsys, "report", wrong)[0] == 2


def test_through_instruments(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Served instruments, a real wire, a guardian: the same, with who really answered."""
    code, out, err = hil_(capsys, "calibrate", "b.toml")
    assert code == 0, err
    made = Certificate.load_good(saved(here))
    assert made.instruments["awg"].model == "33622A"
    assert made.instruments["scope"].serial in out
    assert made.twin is not None
    assert made.twin.settings["v_pi_v"] == pytest.approx(3.52, abs=0.005)  # what the bench file hides in [virtual.node]
    used(here)
    code, out, err = hil_(capsys, "train", "e.toml", "--run", "r", "--record")
    assert code == 0, err
    assert summary(here / "r")["twin_honesty"]["nrmse"] < 0.005
    code, out, err = hil_(capsys, "replay", "r")  # the recorded run believed the calibrated twin: so does its repetition
    assert code == 0, err
    assert "identical" in out


def test_a_bench_can_be_made_of_its_table() -> None:
    """Any TOML of a bench: who uses it, and what of it decides whether a calibration holds."""
    import tomllib

    from hil.build.calibration import settings_of

    bench = bench_of(tomllib.loads(BENCH), Path("b.toml"))
    found = settings_of(bench)
    assert set(found) == {"awg", "scope", "waveform"}
    assert found["scope"]["range_v"] == 0.5
    assert "serial" not in found["awg"]
    assert found["waveform"]["settle"] == 0.5  # a default counts as if it were written
    assert bench.twin is not None
    assert (bench.twin.use, bench.twin.settings()) == ("small_calibration:Modulator", {"v_pi": "3.5 V"})
