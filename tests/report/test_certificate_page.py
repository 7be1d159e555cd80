"""The page of a calibration: sweeps become figures by their names and shapes, in bounded size."""

from __future__ import annotations

import numpy as np
import pytest
from test_report import Page

from hil.report.certificate import contents
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
    table = {"good": False, "step": [step, "no table", {"name": "twin", "estimates": {"v_pi_v": {"value": 3.5, "sigma": 0.0}}}],
             "belief": {"use": "a:B", "settings": {"v_pi_v": 3.4}}}  # fmt: skip
    text = page("certificate.html", contents("x", table, {}, ["a note"]))
    for part in ("Not good", "&lt;b&gt;", "1 &lt; 2", "channels not good", "a note", "3.4", "origin unknown"):
        assert part in text, part
    assert "<i>" not in text.split("</style>")[1]
    assert Page(text).open == []  # every element is closed
