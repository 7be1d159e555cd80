"""hil describe: every table, data set and name of ours, in 80 columns, every key with its meaning."""

from __future__ import annotations

import pytest
from pages import DOCS

from hil.cli import run
from hil.commands import describe, keys
from hil.data import sources


def test_every_name_is_described_in_80_columns() -> None:
    for name in (*describe.heads(), *keys.files(), *keys.shapes(), *sources.NAMES, *describe.NAMES):
        lines = list(describe.lines(name, 80))
        assert len(lines) > 3, name
        assert max(map(len, lines)) <= 80, name


def test_every_key_says_what_it_means() -> None:
    silent = [
        f"{kind} {t.head} {key.name}" for kind in keys.files() for t in keys.tables(kind) for key in t.keys if not key.meaning
    ]
    assert not silent


def test_the_table_of_every_key_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "reference")
    import generate

    assert (DOCS / "reference" / "keys.md").read_text() == generate.page(), "not current: make reference"
    assert "|  |\n" not in generate.page()  # a key without a meaning


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train", ["[train]   in an experiment file", "[train]   in a search file", "default 128", "examples in a step"]),
        ("[encode]", ["[encode]   in an experiment file", "quantity, unit of the drive, or a list of them"]),
        ("bench.device", ["[bench.device]   in a search file"]),
        ("vector", ["[node] of vector   in a bench file", "[vector] of vector", "[virtual.NAME] of vector"]),
        ("digits", ["1,437 train", "Alpaydin"]),
        ("mach_zehnder", ["quantity, V; default 3.5", "half-wave voltage"]),
        ("adfa", ["feedback", "sine"]),
    ],
)
def test_what_is_said(name: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", name]) == 0
    out = capsys.readouterr().out
    for part in parts:
        assert part in out


def test_an_unknown_name_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", "sentinle"]) == 2
    err = capsys.readouterr().err
    assert "did you mean sentinel" in err
    assert "Outputs: untouched" in err
