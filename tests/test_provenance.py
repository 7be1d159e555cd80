"""Who answered: known from the bench file and the device together, or "unknown"; hardware only if nothing speaks against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

import hil.build.bench
from calibration.certificate import Certificate, Instrument
from hil.build.bench import provenance_of
from hil.cli import run
from hil.commands import calibrate
from hil.config.bench import read_bench
from hil.device import Port, Provenance, Spec, answered
from hil.errors import Misaligned
from hil.report.certificate import render
from sim_devices.mach_zehnder import MachZehnder
from sim_devices.simulated import Simulated

ROOT = Path(__file__).resolve().parent.parent
BENCH = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8")
HARDWARE = {
    "awg": Instrument("Keysight", "33622A", "MY1", "A.02"),
    "scope": Instrument("Keysight", "DSOX3024T", "MY2", "07.50"),
}


@pytest.mark.parametrize("kind", get_args(Provenance))
def test_hardware_is_what_both_call_so(kind: Provenance) -> None:
    assert answered("real", kind) == answered(kind, "real") == kind
    assert answered("unknown", kind) == answered(kind, "unknown") == ("unknown" if kind == "real" else kind)
    assert answered("twin", kind) != "real"
    assert answered("replay", kind) == "replay"


def test_nobody_is_hardware_by_default() -> None:
    port = Port("p", 0.0, 1.0)
    assert Spec(port, port).provenance == "unknown"
    assert calibrate.Findings().provenance == "unknown"
    assert hil.build.bench.Opened(None, None, {}, {}, hil.build.bench.Unguarded()).provenance == "unknown"


class Boastful(MachZehnder):
    """A twin that calls itself real."""

    @property
    def spec(self) -> Spec:
        return replace(super().spec, provenance=SAYS["it"])


SAYS: dict[str, Provenance] = {"it": "real"}


@pytest.mark.parametrize("says", get_args(Provenance))
def test_a_twin_is_a_twin_whatever_it_says(
    says: Provenance, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAYS, "it", says)
    assert Simulated(Boastful()).spec.provenance == "twin"
    (tmp_path / "e.toml").write_text(
        "seed = 1\n[data]\ntrain_examples = 16\n[network]\nwidths = [64, 3, 10]\n[device]\n"
        f'use = "{__name__}:Boastful"\n[encode]\noverflow = "fold"\nperiod = "7 V"\n[learner]\nuse = "adfa"\n'
        "[train]\nepochs = 1\nbatch = 8\n",
        encoding="utf-8",
    )
    assert run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "r")]) == 0
    assert "(twin, seed 1" in capsys.readouterr().out
    assert json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))["provenance"] == "twin"
    assert "Hardware answered" not in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def test_a_bench_file_and_who_answered(tmp_path: Path) -> None:
    virtual, spiking = tmp_path / "virtual.toml", tmp_path / "spiking.toml"
    virtual.write_text(BENCH, encoding="utf-8")
    spiking.write_text(
        'name = "b"\nshape = "spiking"\n[instruments.board]\nuse = "drivers.spiking.device:SpikingBoard"\n'
        '[node]\nboard = "board"\n[virtual]\n',
        encoding="utf-8",
    )
    for path in (virtual, spiking, ROOT / "benches" / "mzi_mesh.toml"):
        bench = read_bench(path)
        assert provenance_of(bench) == provenance_of(bench, HARDWARE) == "twin"
    real = read_bench(virtual).model_copy(update={"virtual": None})
    simulated = {**HARDWARE, "scope": Instrument("KEYSIGHT", "DSOX3024T", "SIM-3024-0001", "07.50")}
    assert provenance_of(real) == "unknown"
    assert provenance_of(real, {}) == "unknown"
    assert provenance_of(real, HARDWARE) == "real"
    assert provenance_of(real, simulated) == "twin"


@pytest.mark.parametrize(("virtual", "kind", "badge"), [(True, "twin", "twin"), (False, "unknown", "origin unknown")])
def test_a_calibration_that_failed_at_opening_is_no_hardware(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, virtual: bool, kind: str, badge: str
) -> None:
    text = BENCH
    if not virtual:
        text = text.partition("\n[virtual]")[0]
        for name in ("awg", "scope"):
            text = text.replace(f"[instruments.{name}]\n", f'[instruments.{name}]\nresource = "TCPIP::127.0.0.1::1::SOCKET"\n')

    @contextmanager
    def unopenable(*arguments: Any, **named: Any) -> Iterator[None]:
        raise Misaligned("the marker is not where it must be", where="scope", todo="look at the cable")
        yield

    monkeypatch.setattr(calibrate, "open_bench", unopenable)
    (tmp_path / "b.toml").write_text(text, encoding="utf-8")
    assert run(["calibrate", str(tmp_path / "b.toml"), "--out", str(tmp_path / "c")]) == 3
    printed = capsys.readouterr().out
    assert f"s ({kind})" in printed
    assert "NOT VALID" in printed
    (saved,) = (tmp_path / "c").glob("*.toml")
    assert Certificate.load(saved).provenance == kind
    page = render(saved).read_text(encoding="utf-8")
    assert badge in page
    assert "Hardware answered" not in page


@pytest.mark.parametrize(
    "summary", [{"status": "done"}, {"provenance": None}, {"provenance": ["real"]}, {"provenance": "hardware"}]
)
def test_a_summary_that_does_not_know_is_not_hardware(tmp_path: Path, summary: dict[str, Any]) -> None:
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert run(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "origin unknown" in page
    assert "Hardware answered" not in page
