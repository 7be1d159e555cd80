"""The saved calibration: what goes in comes out, damage is called what it is, and what differs is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
from small_calibration import Modulator, steps

from calibration.certificate import Certificate, Instrument, TwinChoice, digest
from calibration.fault import problem_of
from calibration.sequence import Subject, calibrated
from calibration.step import Estimate, Problem, Step
from calibration.twin_check import compare_twin
from calibration.validity import aged, instruments_differ, settings_differ, span
from hil.errors import ConfigError, RunError, Saturated
from sim_devices.simulated import Simulated

AWG = Instrument("Keysight", "33622A", "MY1", "A.02")
SCOPE = Instrument("Keysight", "DSOX3024T", "MY2", "07.50")
SETTINGS = {"awg": {"use": "drivers.x:Y", "low_v": -4.0, "high_v": 4.0}, "waveform": {"symbol_rate_hz": 1e8, "names": ["a"]}}
TAKEN = "2026-11-22T01:45:12+00:00"


@pytest.fixture(scope="module")
def measured() -> Certificate:
    node, nominal = Modulator(v_pi_v=3.61, phase_rad=-1.2), Modulator()
    done = tuple(calibrated(steps(), Subject(Simulated(node), nominal)))
    fitted = nominal.remade({name: e.value for name, e in done[-1].estimates.items()})
    return Certificate(
        "my bench/1", "waveform", TAKEN, "twin", 3, {"hil": "0.1.0"}, {"awg": AWG, "scope": SCOPE}, SETTINGS, done,
        TwinChoice("small_calibration:Modulator", nominal.settings()),
        TwinChoice("small_calibration:Modulator", fitted.settings()),
    )  # fmt: skip


def failed(measured: Certificate) -> Certificate:
    bad = dataclasses.replace(
        measured.steps[1], success=(True, False), problems=(Problem("hysteresis", 'it\'s\n"bad"', "1 > 0", "look"),)
    )
    return dataclasses.replace(measured, steps=(measured.steps[0], bad, measured.steps[2]))


def test_it_comes_back_as_it_was(measured: Certificate, tmp_path: Path) -> None:
    path = measured.save(tmp_path / "new" / "folder")
    assert path.name == "my-bench-1-20261122-014512.toml"
    assert sorted(p.name for p in path.parent.iterdir()) == [path.with_suffix(".safetensors").name, path.name]
    again = Certificate.load(path)
    assert again.good
    for a, b in zip(measured.steps, again.steps, strict=True):
        assert list(a.raw) == list(b.raw)  # in their order
        assert all(torch.equal(a.raw[name], b.raw[name]) and a.raw[name].dtype == b.raw[name].dtype for name in a.raw)
        assert dataclasses.replace(a, raw={}) == dataclasses.replace(b, raw={})
    assert dataclasses.replace(again, steps=()) == dataclasses.replace(measured, steps=())
    assert again.step("twin") is not None
    assert again.step("delay") is None


def test_two_in_one_second_are_two_files(measured: Certificate, tmp_path: Path) -> None:
    names = [measured.save(tmp_path).name, measured.save(tmp_path).name, failed(measured).save(tmp_path).name]
    names.append(failed(measured).save(tmp_path).name)
    stem = "my-bench-1-20261122-014512"
    assert names == [f"{stem}.toml", f"{stem}-1.toml", f"{stem}-failed.toml", f"{stem}-1-failed.toml"]
    assert all(Certificate.load(tmp_path / name) for name in names)


def test_a_bad_one_is_readable_and_never_relied_on(measured: Certificate, tmp_path: Path) -> None:
    path = failed(measured).save(tmp_path)
    assert not Certificate.load(path).good
    renamed = path.rename(tmp_path / "good.toml")
    with pytest.raises(ConfigError, match="failed") as caught:
        Certificate.load_good(renamed)
    assert "transfer" in caught.value.got
    nothing = dataclasses.replace(measured, steps=())
    assert not nothing.good
    assert not dataclasses.replace(measured, instruments={}).good


@pytest.mark.parametrize(
    ("hurt", "parts"),
    [
        (lambda text: text[: len(text) // 2], ["not TOML", "changed after"]),
        (lambda text: text.replace("good = true", "good = false"), ["changed after"]),
        (lambda text: text.replace('serial = "MY1"', 'serial = "MY3"'), ["changed after"]),
        (lambda text: text.replace("format = 1", "format = 2"), ["format = 1", "not a calibration of this format"]),
        (lambda text: "", ["not a calibration of this format"]),
        (lambda text: "a.b = 1\n" * 2, ["not TOML"]),
    ],
)
def test_damage(measured: Certificate, tmp_path: Path, hurt: Callable[[str], str], parts: list[str]) -> None:
    path = measured.save(tmp_path)
    path.write_text(hurt(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Certificate.load(path)
    said = str(caught.value)
    assert str(path) in said
    assert any(part in said for part in parts), said
    assert "Outputs: untouched" in said
    assert "hil calibrate" in said


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('taken_at = "2026-11-22T01:45:12+00:00"', 'taken_at = "yesterday"', "taken_at"),
        ('taken_at = "2026-11-22T01:45:12+00:00"', 'taken_at = "2026-11-22T01:45:12"', "taken_at"),
        ('provenance = "twin"', 'provenance = "mock"', "provenance"),
        ('serial = "MY1"', "serial = 1", "[instruments.awg]"),
        ("seed = 3", "seed = true", "seed"),
        ('unit = "rad"', "", "[step twin]"),
        ("success = [\n    true,\n]", "success = [\n    false,\n]", "good"),
        ("took_s = ", "took_h = ", "took_s"),
    ],
)
def test_a_well_summed_file_that_makes_no_sense(measured: Certificate, tmp_path: Path, old: str, new: str, place: str) -> None:
    """As another program might write it."""
    import tomllib

    path = measured.save(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    text = text.replace(old, new, 1)
    table = {key: value for key, value in tomllib.loads(text).items() if key != "sha256"}
    lines = [
        f'sha256 = "{digest(table)}"' if line.startswith("sha256") else line for line in text.split("\n[", 1)[0].split("\n")
    ]
    path.write_text("\n".join(lines) + "\n[" + text.split("\n[", 1)[1], encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Certificate.load(path)
    assert place in str(caught.value)


def test_the_sweeps_belong_to_it(measured: Certificate, tmp_path: Path) -> None:
    path = measured.save(tmp_path)
    sweeps = path.with_suffix(".safetensors")
    payload = sweeps.read_bytes()
    sweeps.write_bytes(payload[:-1])
    with pytest.raises(ConfigError, match="not the sweeps of this calibration"):
        Certificate.load(path)
    assert Certificate.load_good(path).steps[0].raw == {}  # what is relied on does not need them
    sweeps.unlink()
    with pytest.raises(ConfigError, match="missing"):
        Certificate.load(path)
    sweeps.write_bytes(payload)
    for file in (path, sweeps):
        file.rename(tmp_path / f"mine{file.suffix}")
    assert Certificate.load(tmp_path / "mine.toml").steps[1].raw  # renamed together


def test_where_it_cannot_be_written(measured: Certificate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be saved"):
        measured.save(tmp_path / "file")
    with pytest.raises(ConfigError, match="no such calibration"):
        Certificate.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Certificate.load(tmp_path)


def test_what_differs(measured: Certificate) -> None:
    now = {"awg": {**SETTINGS["awg"], "high_v": 3.0}, "scope": {"channel": 1}, "waveform": {"symbol_rate_hz": 1e8}}
    assert [str(d) for d in settings_differ(measured, now)] == [
        "[awg] high_v: 3.0 now, 4.0 when calibrated", "[scope] channel: 1 now, not given when calibrated",
        "[waveform] names: not given now, ['a'] when calibrated",
    ]  # fmt: skip
    assert not list(settings_differ(measured, SETTINGS))
    newer, other = dataclasses.replace(SCOPE, firmware="07.60"), dataclasses.replace(AWG, serial="MY9")
    found = list(instruments_differ(measured, {"awg": other, "scope": newer}))
    assert [(d.kind, d.refuses) for d in found] == [("serial", True), ("firmware", False)]
    assert "MY9 now" in str(found[0])
    assert [d.kind for d in instruments_differ(measured, {"awg": AWG})] == ["serial"]
    then = datetime.fromisoformat(TAKEN)
    for hours, most_h, kinds in ((1, 2, []), (3, 2, ["age"]), (-1, 2, ["age"]), (-0.01, 2, [])):
        found = list(aged(measured, then + timedelta(hours=hours), most_h * 3600.0))
        assert [d.kind for d in found] == kinds, hours
    assert [span(s) for s in (5, 150, 26 * 3600, 12 * 86400)] == ["5 s", "2 min", "26 h", "12 days"]


def test_honesty_tells_a_right_twin_from_a_wrong_one() -> None:
    node = Modulator(v_pi_v=3.6)
    right, wrong = compare_twin(Simulated(node), node), compare_twin(Simulated(node), Modulator(v_pi_v=3.2, laser_w=1.1e-3))
    assert right.error < right.noise
    assert right.correlation > 0.99999
    assert wrong.error > 10 * wrong.noise
    assert wrong.correlation < 0.97
    assert wrong.bias < 0  # it promises more light than there is


def test_a_fault_becomes_a_problem() -> None:
    problem = problem_of(Saturated("at a rail", where="scope", got="3 of 4", allowed="none", todo="choose a larger range"))
    assert (problem.kind, problem.what, problem.todo) == ("clipped", "scope: at a rail", "choose a larger range")
    assert problem.evidence == "3 of 4; allowed: none"
    assert Step("x", "y", problems=(problem,), estimates={"a": Estimate(1.0, 0.1)}).good


def test_limits_of_each_channel_come_back_and_are_compared(measured: Certificate, tmp_path: Path) -> None:
    bench = {"dac": {"low_v": (-1.2, -0.7), "high_v": (0.6, 0.3)}}
    again = Certificate.load(dataclasses.replace(measured, settings=bench).save(tmp_path))
    assert list(settings_differ(again, bench)) == []
    (found,) = settings_differ(again, {"dac": {"low_v": (-1.2, -0.6), "high_v": (0.6, 0.3)}})
    assert found.refuses
    assert str(found).startswith("[dac] low_v: [-1.2, -0.6] now, [-1.2, -0.7] when calibrated")
