"""What is read on from growing files, and what the curves show of it; without a server."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from monitor_folders import made

from hil.errors import RunError
from hil.metric import named
from hil.monitor import live, run_curves
from hil.monitor.live import LiveRun
from hil.monitor.overview import Query
from hil.run.index import Entry
from hil.run.journal import Journal


def commit(told: Journal, step: int) -> None:
    told.commit(step, 1, step, 1.0 / step, 10 * step, 0.1 * step)


def test_only_what_was_appended_is_read_and_a_torn_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    run = LiveRun(tmp_path)
    assert not run.update()
    path.write_bytes(b'{"epoch":1,"split":"train"}\n{"epoch":2,')
    assert run.update()
    assert [line["epoch"] for line in run.metrics] == [1]
    with path.open("ab") as file:
        file.write(b'"split":"train"}\nnonsense\n[1]\n')
    assert run.update()
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    assert not run.update()


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch":1}\n{"epoch":2}\n', encoding="utf-8")
    run = LiveRun(tmp_path)
    run.update()
    other = tmp_path / "other"
    other.write_text('{"epoch":1}\n{"epoch":7}\n{"epoch":8}\n', encoding="utf-8")
    other.replace(path)
    assert run.update()
    assert [line["epoch"] for line in run.metrics] == [1, 7, 8]


def test_commits_after_a_resume_replace_those_that_it_voids(tmp_path: Path) -> None:
    told, run = Journal(tmp_path / "journal.jsonl"), LiveRun(tmp_path)
    told.note("start", batches_per_epoch=10)
    for step in range(1, 9):
        commit(told, step)
    run.update()
    told.note("resume", step=5, batches_per_epoch=10)
    commit(told, 6)
    told.close()
    run.update()
    assert [record["step"] for record in run.commits] == [1, 2, 3, 4, 5, 6]
    assert run.last is not None
    assert run.last["step"] == 6


def test_a_long_journal_is_kept_evenly(tmp_path: Path) -> None:
    told, run = Journal(tmp_path / "journal.jsonl"), LiveRun(tmp_path)
    for step in range(1, 5 * live.COMMITS):
        commit(told, step)
    told.close()
    run.update()
    steps = [record["step"] for record in run.commits]
    assert live.COMMITS <= len(steps) <= 2 * live.COMMITS
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 8  # twice the stride, where it was doubled
    assert run.last is not None
    assert run.last["step"] == 5 * live.COMMITS - 1


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="metrics"):
        LiveRun(tmp_path).update()


def test_the_curves_have_the_units_of_the_metric(tmp_path: Path) -> None:
    run = LiveRun(made(tmp_path / "run", epochs=4))
    run.update()
    shown = run_curves.score(run.metrics, named("accuracy"))
    assert [one["name"] for one in shown["series"]] == ["train", "validation"]
    assert 90 < shown["series"][0]["data"][-1][1] < 100
    assert shown["yAxis"]["name"] == "accuracy (%)"
    busy = run_curves.busy(run.commits, 60.0)
    assert busy is not None
    assert abs(busy - 0.75) < 0.03
    duty = run_curves.duty(run.commits, run.events, run.first_s)
    assert {one["name"] for one in duty["series"]} == {"device busy", "fault", "recovered"}
    json.dumps(duty, allow_nan=False)


def test_what_a_browser_asks_for_is_checked() -> None:
    assert Query.read({"sort": "__class__", "page": -1, "descending": "x", "text": ["a"]}) == Query(
        text="['a']", descending=False
    )
    assert Query.read(None).sort == "started"
    entries = [Entry(Path(name), "run", name, "done", seed=seed) for name, seed in (("b", None), ("a", 2), ("c", 1))]
    for descending, names in ((False, ["c", "a", "b"]), (True, ["a", "c", "b"])):
        assert [entry.name for entry in Query(sort="seed", descending=descending).chosen(entries)] == names
