"""hil describe: every table, data set and name of ours, in 80 columns, every key with its meaning."""

from __future__ import annotations

import re

import pytest
from pages import DOCS

from hil.cli import run
from hil.commands import describe, keys
from hil.config.training import OptimizerTable, ScheduleTable, optimisers
from hil.data import sources
from hil.errors import ConfigError


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


def test_the_pages_that_are_made_from_the_code_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "reference")
    import generate

    assert (DOCS / "reference" / "keys.md").read_text(encoding="utf-8") == generate.page(), "not current: make reference"
    assert (DOCS / "reference" / "cli.md").read_text(encoding="utf-8") == generate.commands(), "not current: make reference"
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
        ("Adam", ['an optimiser of torch: [optimizer] use = "Adam"', "betas", "a list of numbers; default [0.9, 0.999]"]),
        ("StepLR", ['a schedule of torch: [schedule] use = "StepLR"', "step_size   whole number; required", "default 0.1"]),
        ("LambdaLR", ['lr_lambda   a function: "module:function"; required']),
        ("cosine", ['a schedule: [schedule] use = "cosine"', "half a cosine", "hil describe schedule"]),
    ],
)
def test_what_is_said(name: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", name]) == 0
    out = capsys.readouterr().out
    for part in parts:
        assert part in out


@pytest.mark.parametrize("name", describe.MOVES)
def test_an_optimiser_and_a_schedule_show_what_a_file_may_give(name: str) -> None:
    """Every setting that is shown is one that the table takes, and none that it takes is left out."""
    table, head = (OptimizerTable, "optimizer") if name in optimisers() else (ScheduleTable, "schedule")
    lines = list(describe.lines(name, 80))
    assert f'[{head}] use = "{name}"' in " ".join(lines)
    shown = {found[1] for line in lines if (found := re.match(r"  (\w+) +\S", line))}
    parts = {"schedulers": [{"use": "ExponentialLR", "gamma": 0.9}]} if "schedulers" in shown else {}
    with pytest.raises(ConfigError, match="unknown key") as told:
        table.model_validate({"use": name, "no_such_setting": 1, **parts}).settle("here.toml")
    assert shown == set(filter(None, (told.value.allowed or "").split(", ")))


def test_an_unknown_name_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", "sentinle"]) == 2
    err = capsys.readouterr().err
    assert "did you mean sentinel" in err
    assert "Outputs: untouched" in err
