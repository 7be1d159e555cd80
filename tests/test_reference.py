"""The pages of docs/reference/ that list keys and errors are held against the code, so that neither moves alone."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, PAGES, blocks, rows, title
from pydantic import BaseModel

from hil import errors
from hil.build.shapes import direct, frame, spiking, vector, waveform
from hil.build.virtual import BenchTable
from hil.commands.compare import Comparison
from hil.commands.explain import exit_code
from hil.config import bench, experiment, search

FILES = (
    experiment.Experiment, bench.BenchFile, waveform.WaveformBench,
    vector.VectorBench, frame.FrameBench, spiking.SpikingBench, direct.DirectBench, search.SearchFile, Comparison,
)  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_blocks_of_toml_have_tables_and_keys_that_exist(page: Path) -> None:
    """A page shows parts of files, so a part is held against what any of our files may have there."""
    for block in blocks(page):
        if block.language == "toml":
            table = tomllib.loads(block.text)
            own = ":" in str(table.get("shape", ""))  # [node] and [virtual] are those of the page's own shape
            for key, value in table.items():
                assert any(key in model.model_fields for model in FILES), f"{title(page)}: {key}"
                wrong = [] if own and key in ("node", "virtual") else list(strange(value, key))
                assert not wrong, f"{title(page)}: {wrong}"


def strange(value: object, key: str) -> Iterator[str]:
    """Keys of a table that no file of ours has there. A table whose keys are settings of a class may have any."""
    kinds = [kind for model in FILES if key in model.model_fields for kind in tables_of(model.model_fields[key].annotation)]
    strict = [
        kind
        for kind in kinds
        if kind.model_config.get("extra") != "allow" and kind not in (waveform.VirtualTable, vector.VirtualTable, BenchTable)
    ]
    if isinstance(value, Mapping) and kinds and kinds == strict:
        yield from (f"[{key}] {name}" for name in value if not any(name in allowed(kind) for kind in kinds))


def allowed(kind: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


def tables_of(annotation: Any) -> Iterator[type[BaseModel]]:
    for kind in [annotation, *getattr(annotation, "__args__", ())]:
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield kind


def test_the_check_of_tables_finds_the_form_of_the_first_edition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pages.ROOT", tmp_path)
    for text in ("[awg]\ntimeout_s = 5.0", "[guardian]\nsilence = 3", "[train]\nepoch = 3", "[safe.awg]\nslew_v_per_s = 2.0"):
        (tmp_path / "page.md").write_text(f"```toml\n{text}\n```\n", encoding="utf-8")
        with pytest.raises(AssertionError):
            test_blocks_of_toml_have_tables_and_keys_that_exist(tmp_path / "page.md")


def test_every_error_is_listed_with_its_parent_and_exit_code() -> None:
    page = DOCS / "reference" / "errors.md"
    listed = {
        cells[0].strip("`"): cells for cells in rows(page.read_text(encoding="utf-8")) if re.fullmatch(r"`\w+`", cells[0])
    }
    tree = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, errors.HilError)}
    assert set(listed) == set(tree)
    for name, (_, parent, code, meaning) in listed.items():
        base = tree[name].__base__
        assert parent.strip("`") == ("" if name == "HilError" else base.__name__), name  # type: ignore[union-attr]
        assert int(code) == exit_code(tree[name]("x")), name
        assert meaning


def test_the_glossary_is_in_order_and_explains_each_word_once() -> None:
    words = [cells[0] for cells in rows((DOCS / "reference" / "glossary.md").read_text(encoding="utf-8"))]
    assert words == sorted(words, key=str.casefold)
    assert len(set(words)) == len(words)
    told = "node device twin shot pass rung sample specimen certificate shape port guardian sentinel"
    assert set(told.split()) <= set(words)
