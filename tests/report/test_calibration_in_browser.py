"""The page of a calibration in Chromium: nothing is wider than the window, no error, and everybody can read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from barriers import barriers
from browsing import CHROMIUM, NONE
from playwright.sync_api import Browser
from small_calibration import Modulator, steps

from calibration.certificate import Certificate, Instrument, TwinChoice
from calibration.sequence import Subject, calibrated
from hil.report.certificate import render
from sim_devices.simulated import Simulated

pytestmark = [pytest.mark.skipif(not CHROMIUM, reason=NONE), pytest.mark.xdist_group("reports in a browser")]


@pytest.fixture(scope="module", params=["valid", "failed"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, drawing: object) -> Path:
    twin = Modulator(v_pi_v=3.6, low_v=-4.0, high_v=4.0)
    procedures = steps() if request.param == "valid" else steps()[1:]  # a step whose needs are not met
    found = tuple(calibrated(procedures, Subject(Simulated(twin, 5), Modulator(v_pi_v=3.5, low_v=-4.0, high_v=4.0))))
    who = {"scope": Instrument("Keysight", "DSOX3024T", "MY2", "07.50")}
    nominal = TwinChoice("small_calibration:Modulator", {"v_pi_v": 3.5}, ("v_pi_v",), {"v_pi_v": 0.1})
    settings = {"scope": {"use": "drivers.keysight_infiniivision:InfiniiVision", "range_v": 0.5}}
    certificate = Certificate(
        "table", "waveform", "2026-11-30T12:00:00+00:00", "twin", 0, {"hil": "0"}, who, settings, found, nominal,
        max_age_s=86400.0,
    )  # fmt: skip
    assert certificate.good is (request.param == "valid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", drawing)
        return render(certificate.save(tmp_path_factory.mktemp("calibrations")))


def test_the_page_fits_and_can_be_read(made: Path, browser: Browser) -> None:
    said: list[str] = []
    with browser.new_context(bypass_csp=True) as context:
        shown = context.new_page()
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.goto(made.as_uri())
        shown.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        for scheme, widths in (("light", (390, 1400)), ("dark", (1400, 390))):
            shown.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for width in widths:
                shown.set_viewport_size({"width": width, "height": 900})
                assert shown.evaluate("document.documentElement.scrollWidth") <= width, (scheme, width)
            assert barriers(shown, impacts=("serious", "critical")) == [], scheme
    assert said == []
