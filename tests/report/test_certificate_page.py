"""The page of a calibration: sweeps become figures by their names and shapes, in bounded size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_report import Page

from hil.report.calibration.camera import camera
from hil.report.calibration.mesh import mesh
from hil.report.calibration.record import Measured, Record, StepRecord
from hil.report.calibration.vector import vector
from hil.report.calibration.verdict import verdict
from hil.report.calibration.waveform import waveform
from hil.report.calibration.words import parameters
from hil.report.certificate import contents, render
from hil.report.page import page
from hil.report.sweep_figures import drawn, label, panels

pytestmark = pytest.mark.drawn
X = np.linspace(-1.0, 1.0, 50)


def test_the_first_of_a_length_is_the_axis() -> None:
    (panel,) = panels({"drive_v": np.concatenate([X, X[::-1]]), "reading_v": np.ones(100), "fitted_v": np.zeros(100)})
    assert (panel.axis, list(panel.curves), list(panel.residuals)) == ("drive_v", ["reading_v", "fitted_v"], ["residual_v"])
    assert panel.residuals["residual_v"].tolist() == [1.0] * 100
    (panel,) = panels({"x_1": X, "many_v": np.ones((4, 50)), "residual_v": X})
    assert list(panel.curves) == ["many_v"]
    assert list(panel.residuals) == ["residual_v"]
    rng = np.random.default_rng(0)
    alone = list(panels({"base": rng.normal(size=9), "slope": rng.normal(size=9), "share": np.ones((3, 9))}))
    assert [(panel.axis, list(panel.curves)) for panel in alone] == [("index_1", ["base"]), ("index_1", ["slope"])]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("drive_v", ("drive", "V")), ("peak_ratio_1", ("peak ratio", "")), ("snr_db", ("snr", "dB")), ("alone", ("alone", "")),
     ("odd_name", ("odd name", ""))],
)  # fmt: skip
def test_names_and_units(name: str, shown: tuple[str, str]) -> None:
    assert label(name) == shown


def test_figures_stay_small() -> None:
    rng = np.random.default_rng(0)
    big = {"drive_v": np.linspace(0, 1, 200_000), "reading_v": rng.normal(size=200_000)}
    (curve,) = drawn("transfer", big)
    found = list(drawn("mesh", {f"m{k}": rng.normal(size=(120, 90)) for k in range(12)}))
    (hole,) = drawn("hole", {"m": np.array([[1.0, np.nan], [np.inf, 0.0]])})
    assert curve.title == "reading over drive"
    assert len(curve.svg) < 400_000
    assert len(found) == 8
    assert all(len(figure.svg) < 400_000 for figure in found)
    assert "<svg" in hole.svg


def test_a_page_of_anything() -> None:
    """Whatever a file may lack, the page says what it has; text is escaped."""
    step = {"name": "<b>", "said": "1 < 2", "success": [True, False], "problem": [{"kind": "stuck", "what": "<i>"}]}
    odd = {"name": "dark", "success": "yes", "raw": "rest_v", "estimates": {"rest": 3, "noise": {"value": "x"}}, "figures": [1]}
    fit = {"name": "twin", "estimates": {"v_pi_v": {"value": 3.5, "sigma": 0.0}}}
    table = {"good": False, "step": [step, odd, "no table", fit],
             "belief": {"use": "a:B", "settings": {"v_pi_v": 3.4}}}  # fmt: skip
    text = page("certificate.html", contents("x", table, {}, ["a note"]))
    for part in ("NOT VALID", "&lt;b&gt;", "1 &lt; 2", "channels that failed", "a note", "3.4", "origin unknown"):
        assert part in text, part
    assert "<i>" not in text.split("</style>")[1]
    assert Page(text).open == []  # every element is closed


SHEET, KEPT = "data sheet, MachZehnder", "not measured by any step: the expected value is kept"
BELIEF = {"use": "sim_devices.mach_zehnder:MachZehnder", "settings": {"v_pi_v": 3.5, "dark_a": 5e-9, "phase_rad": 0.0},
          "stated": ["v_pi_v"], "spread": {"v_pi_v": 0.1, "dark_a": 1.5e-9, "phase_rad": 0.3}}  # fmt: skip


def found(**values: tuple[float, float, str]) -> StepRecord:
    return StepRecord("twin", estimates={key: Measured(*one) for key, one in values.items()})


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("v_pi_v", (3.52, 0.01, "V"), ("3.520 ± 0.010 V", "3.50 ± 0.10 V", "bench file", "+0.57 %, as expected")),
        ("v_pi_v", (3.9, 0.01, "V"), ("3.900 ± 0.010 V", "3.50 ± 0.10 V", "bench file", "+11 %, unusual")),
        ("v_pi_v", (7.0, 0.01, "V"), ("7.000 ± 0.010 V", "3.50 ± 0.10 V", "bench file", "+1e+02 %, far off")),
        ("phase_rad", (0.2, 0.01, "rad"), ("0.200 ± 0.010 rad", "0.00 ± 0.30 rad", SHEET, "0.200 ± 0.010 rad, as expected")),
        ("dark_a", (5e-9, 1.5e-9, "A"), ("5.0 ± 1.5 nA", "5.0 ± 1.5 nA", SHEET, KEPT)),
    ],
)  # fmt: skip
def test_a_parameter_stands_beside_what_was_expected_and_where_that_is_from(
    key: str, value: tuple[float, float, str], shown: tuple[str, ...]
) -> None:
    (row,) = parameters(found(**{key: value}), BELIEF)
    assert (row.found, row.expected, row.source, row.beside) == shown
    (old,) = parameters(found(**{key: value}), {"use": "a:B", "settings": BELIEF["settings"]})  # of an earlier hil
    assert old.source == "bench file or data sheet"
    assert "expected" not in old.beside


def calibration(**changes: object) -> dict[str, object]:
    steps = [{"name": name, "success": [True]} for name in ("dark", "twin")]
    check = {"name": "honesty", "success": [True], "residual_rms": 1.8e-3, "residual_unit": "V",
             "figures": {"noise": 4.3e-4, "swing": 0.36}}  # fmt: skip
    return {"good": True, "taken_at": "2026-11-30T12:00:00+01:00", "max_age_s": 86400.0, "step": [*steps, check], **changes}


def test_the_verdict_is_one_sentence() -> None:
    def said(**changes: object) -> str:
        table = calibration(**changes)
        return verdict(table, Record.of(table, {})).sentence

    model = "the model predicts a reading to 1.8 mV rms (0.5 % of peak to peak), noise of a reading 430 µV"
    assert said() == (
        f"All 3 calibration steps passed; {model}; valid for this bench and these settings until 2026-12-01 12:00 UTC+01:00."
    )
    assert "older than max_age in the bench file allows" in said(max_age_s="x")
    problem = {"kind": "clipped", "what": "the converter clips", "evidence": "9 % of readings", "todo": "widen the range"}
    failed = [{"name": "dark", "success": [False], "problem": [problem]},
              {"name": "twin", "success": [False], "problem": [{"kind": "skipped"}]}]  # fmt: skip
    assert said(step=failed, good=False) == (
        "NOT VALID, no training uses this calibration: dark failed (1 of 2 calibration steps, 1 not done): the converter clips "
        "(9 % of readings). What to do: widen the range; then calibrate again."
    )
    assert said(step=failed).startswith("NOT VALID")  # whatever `good` says
    assert said(good=False).startswith("NOT VALID")
    assert said(step=[]).startswith("NOT VALID")


T = np.linspace(0.0, 5e-9, 60)
POLE = 1 - np.exp(-np.clip(T - 2e-9, 0, None) * 2 * np.pi * 500e6)
EDGE = StepRecord("delay", sweeps={"edge_time_s": np.stack([T, T + 4e-11]), "edge_reading_v": np.stack([POLE, POLE])})
SETTLED = StepRecord(
    "settling", estimates={"bandwidth_hz": Measured(5e8, 5e6, "Hz"), "settle_s": Measured(2.2e-9, 2.2e-11, "s")}
)


def test_main_figures_say_their_key_number() -> None:
    steps = {
        "delay": EDGE, "settling": SETTLED,
        "dark": StepRecord("dark", sweeps={
            "averaged": 2.0 ** np.arange(8), "allan_v": np.array([8, 6, 4, 3, 2, 1, 2, 3]) * 1e-5, "rest_v": np.zeros(1024),
        }),
        "bias": StepRecord("bias", estimates={"drift_rad_per_s": Measured(2e-3, 1e-4, "rad/s")}, figures={"drift_chi2": 5.0},
                           sweeps={"time_s": X, "phase_rad": 2e-3 * X}),
    }  # fmt: skip
    drawn = {figure.name: figure.told for figure in waveform(Record(steps))}
    assert list(drawn) == ["allan", "step-response", "drift"]
    assert "10 to 90 % take 699.4 ± 7.0 ps" in drawn["step-response"]
    assert "at 32 readings, beyond which slow noise dominates" in drawn["allan"]
    assert "2.00 ± 0.10 mrad/s, and it walks besides (reduced chi² 5.0)" in drawn["drift"]


def test_sweeps_that_make_no_sense_are_left_out() -> None:
    drive = {"drive_v": X, "reading_v": X, "fitted_v": X}
    for change in ({"fitted_v": X[:9]}, {"fitted_v": np.full(50, np.nan)}, {"fitted_v": np.ones((2, 25))}):
        assert not list(waveform(Record({"twin": StepRecord("twin", sweeps={**drive, **change})})))
    assert [f.name for f in waveform(Record({"twin": StepRecord("twin", sweeps=drive)}))] == ["transfer"]
    for make in (mesh, camera, vector):
        names = ("mesh", "crosstalk", "photodiodes", "dark frame", "flat field", "phase table", "registration", "transmission",
                 "rest", "settling", "inputs", "repeats")  # fmt: skip
        wrong = {
            key: np.ones(3) for key in ("matrix", "powers", "spots", "places", "readings", "levels", "means", "dark", "noise")
        }
        assert not list(make(Record({name: StepRecord(name, sweeps=wrong) for name in names})))


def test_damaged_sweeps_give_a_page_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(
        'taken_at = "yesterday"\ngood = true\n[[step]]\nname = "dark"\nsuccess = [true]\nraw = ["rest_v"]\n', encoding="utf-8"
    )
    (tmp_path / "old.safetensors").write_bytes(b"nothing")
    text = render(path).read_text(encoding="utf-8")
    assert "old.safetensors, which holds the sweeps, cannot be read" in text
    assert "the figures are left out" in text
    assert "at an unknown time" in text
