"""hil schema: every shipped file names a schema that accepts it; a slip anywhere in one is caught as it is by the reader."""

from __future__ import annotations

import copy
import functools
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pages import DOCS, ROOT

from hil.cli import run
from hil.commands import schema

SHIPPED = sorted([*(ROOT / "experiments").glob("*.toml"), *(ROOT / "benches").glob("*.toml")])
SCHEMAS = DOCS / "reference" / "schemas"


def validator(path: Path) -> Draft202012Validator:
    """Of the schema that the first line of a file names, relative to it, as an editor finds it."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("#:schema "), path
    return named((path.parent / first.removeprefix("#:schema ")).resolve())


@functools.cache
def named(path: Path) -> Draft202012Validator:
    return Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_a_shipped_file_is_as_its_schema_says(path: Path) -> None:
    found = validator(path)
    assert found.schema["title"] == f"hil: {schema.kind_of(tomllib.loads(path.read_text(encoding='utf-8')))} file"
    assert not [error.message for error in found.iter_errors(tomllib.loads(path.read_text(encoding="utf-8")))]


def places(table: Any) -> Iterator[dict[str, Any]]:
    """Every table in a table."""
    if isinstance(table, dict):
        yield table
    for part in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        yield from places(part)


@pytest.mark.parametrize(
    ("file", "free"),
    [
        ("benches/mzm_awg_scope.toml", 0), ("benches/spiking_board.toml", 0), ("benches/slm_camera.toml", 0),
        ("benches/mzi_mesh.toml", 0), ("experiments/compare_digits.toml", 0),
        ("benches/mesh_levels.toml", 1),  # what a laser holds, by the names of its driver
        ("experiments/digits_drift.toml", 2),  # a setting of the data, and of the optimiser, which torch knows
        ("experiments/digits_board_spide.toml", 3),  # and of the schedule
        ("experiments/search_mzm_digits.toml", 1),  # a gene
    ],
)  # fmt: skip
def test_an_unknown_key_in_any_table_is_caught(file: str, free: int) -> None:
    path, missed = ROOT / file, []
    found, table = validator(path), tomllib.loads(path.read_text(encoding="utf-8"))
    for number in range(len(list(places(table)))):
        changed = copy.deepcopy(table)
        list(places(changed))[number]["eopchs"] = 3
        missed += [number] if found.is_valid(changed) else []
    assert len(missed) == free


@pytest.mark.parametrize(
    ("file", "section", "key", "value"),
    [
        ("experiments/demo.toml", "train", "epochs", 0), ("experiments/demo.toml", "train", "epochs", "3"),
        ("experiments/demo.toml", "encode", "overflow", "wrap"), ("experiments/demo.toml", "learner", "use", "adfaa"),
        ("experiments/demo.toml", "learner", "loss", "mae"), ("experiments/digits_adfa_twin.toml", "device", "noise", "loud"),
        ("benches/mzm_awg_scope.toml", "twin", "v_pi", True), ("benches/mzm_awg_scope.toml", "node", "drive", 1),
    ],
)  # fmt: skip
def test_a_wrong_value_is_caught(file: str, section: str, key: str, value: object) -> None:
    table = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))
    found = validator(ROOT / file)
    assert found.is_valid(table)
    table[section][key] = value
    assert not found.is_valid(table)


def test_quantities_may_be_written_either_way_and_own_classes_take_any_setting() -> None:
    found = validator(ROOT / "experiments" / "digits_adfa_twin.toml")
    table = tomllib.loads((ROOT / "experiments" / "digits_adfa_twin.toml").read_text(encoding="utf-8"))
    for device in (
        {"use": "mach_zehnder", "v_pi_v": 3.5},
        {"use": "mach_zehnder", "v_pi": "3.5 V"},
        {"use": "rig:Rig", "x": 1},
    ):
        assert found.is_valid({**table, "device": device})
        assert found.is_valid({**table, "device": [device, device]})
    assert not found.is_valid({**table, "device": {"use": "mach_zehnder", "x": 1}})
    assert not found.is_valid({**table, "device": {"bench": "b.toml", "use": "mach_zehnder"}})


def test_the_command_writes_what_is_shipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "--out", str(tmp_path / "all")]) == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "all").iterdir()}
    assert written == {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.iterdir()}, "not current: make reference"
    assert "#:schema" in capsys.readouterr().out
    assert run(["schema", "search", "--out", str(tmp_path / "one")]) == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["search.schema.json"]
    for name in ("experiment", "bench.spiking"):  # of whose parts the others are made
        Draft202012Validator.check_schema(json.loads(written[f"{name}.schema.json"]))
