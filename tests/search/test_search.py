"""hil search: the same history whoever evaluates and however often it is stopped; what was found is a file to use."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acts import Kill, counted, killed, survive
from rich.console import Console
from small import Command, until
from small_search import BASE, FILE, lethal, write
from warm import blank

from hil.build.search import SearchBuilder
from hil.cli import run
from hil.commands.search import carry_on, start
from hil.config.experiment import Experiment, read_experiment
from hil.config.search import read_search
from hil.errors import ConfigError, Interrupted, RunError, Stopped
from hil.feedback.feedback import Feedback
from hil.run.folder import RunFolder
from hil.search.archive import Archive
from hil.search.evaluator import Chunk, Here, chunked, missing
from hil.search.history import EVALUATIONS, GENERATIONS, SEARCH, STAGES, History, same
from hil.search.jobs import Outcome
from hil.search.pool import Pool

QUIET = Console(quiet=True)
SMALLEST = FILE
for was, less in (
    ("population = 6", "population = 4"), ("generations = 3", "generations = 2"), ("examples = 256", "examples = 64"),
    ("chunk = 3", "chunk = 2"), ("candidates = 2", "candidates = 1"), ("random = 2", "random = 1"),
):  # fmt: skip
    SMALLEST = SMALLEST.replace(was, less)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [same(json.loads(line)) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def history(folder: Path) -> tuple[list[Any], ...]:
    evaluations = sorted(lines(folder, EVALUATIONS), key=lambda line: line["key"])
    return evaluations, lines(folder, GENERATIONS), lines(folder, STAGES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was never stopped, in one process."""
    folder = tmp_path_factory.mktemp("whole")
    start(write(folder), RunFolder.create(folder / "run"), QUIET)
    return folder / "run"


@pytest.mark.drawn
def test_a_search_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr, call-overload, index]  # noqa: NPY002
    assert run(["search", str(write(tmp_path)), "--run", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().out
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # type: ignore[union-attr, call-overload, index]  # noqa: NPY002
    for text in ("generation   3/3", "best", "median", "diversity", "evaluations/s", "left", "over the best hand-made g"):
        assert text in said
    assert history(tmp_path / "r") == history(whole)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    assert summary["status"] == "done"
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    for text in ("Fitness over generations", "true derivative", "Confirmation", "held examples"):
        assert text in page
    assert not re.search(r"(src|href)=\"http", page)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)  # drawn once
    assert run(["resume", str(tmp_path / "r")]) == 2  # it is finished
    assert run(["report", str(tmp_path / "r")]) == 0
    found = tmp_path / "r" / summary["feedback"]
    assert Feedback.load(found) == Feedback.from_table(summary["recipe"]["feedback"])
    assert "standard_error" in found.read_text(encoding="utf-8")
    used = BASE.replace('use = "adfa"', f'use = "adfa"\nfeedback = "r/{summary["feedback"]}"').replace(
        "[train]", "[train]\nepochs = 1"
    )
    (tmp_path / "e.toml").write_text(used, encoding="utf-8")
    capsys.readouterr()
    assert run(["train", str(tmp_path / "e.toml"), "--run", str(tmp_path / "t")]) == 0
    found.unlink()  # a run holds all that it depends on
    assert "provenance" in (tmp_path / "t" / "config.toml").read_text(encoding="utf-8")


def cut(whole: Path, folder: Path, evaluations: int, torn: int, generations: int, stages: int) -> RunFolder:
    """What a killed process may have left."""
    folder.mkdir()
    (folder / "config.toml").write_bytes((whole / "config.toml").read_bytes())
    (folder / SEARCH).write_bytes((whole / SEARCH).read_bytes())
    for name, count in ((EVALUATIONS, evaluations), (GENERATIONS, generations), (STAGES, stages)):
        text = (whole / name).read_text(encoding="utf-8").splitlines(keepends=True)
        rest = text[count][:torn] if count < len(text) else ""
        (folder / name).write_text("".join(text[:count]) + rest, encoding="utf-8")
    return RunFolder(folder)


@pytest.mark.parametrize(
    ("evaluations", "torn", "generations", "stages"),
    [(0, 0, 0, 0), (0, 5, 0, 0), (4, 0, 0, 0), (6, 40, 0, 0), (14, 3, 2, 0), (18, 0, 3, 0), (22, 9, 3, 1)],
)
def test_a_search_goes_on_from_wherever_it_was_cut(
    tmp_path: Path, whole: Path, evaluations: int, torn: int, generations: int, stages: int
) -> None:
    folder = cut(whole, tmp_path / "run", evaluations, torn, generations, stages)
    carry_on(folder, QUIET)
    assert history(folder.path) == history(whole)


def test_a_race_goes_on_from_wherever_it_was_cut_and_ends_with_its_budget(tmp_path: Path) -> None:
    text = FILE.replace("epochs = 1\n", "epochs = 2\n").replace("random = 2", "random = 0\nhand_made = false")
    text = text.replace("elites = 2", 'elites = 2\nobjectives = ["loss"]\nbudget_passes = 100_000')
    path = write(tmp_path, text + "[race]\nepochs = [1]\n")
    start(path, RunFolder.create(tmp_path / "whole"), QUIET)
    first, *rest = lines(tmp_path / "whole", GENERATIONS)
    assert len(rest) == 1  # of 3 generations, as a raced one takes 71,200 passes and a whole one 85,440
    assert [row["stopped_at"] for row in first["genomes"]].count([1]) == 2  # of each chunk of 3 the worst
    assert not any(row["stopped_at"] == [1] for row in rest[0]["genomes"][:2])  # the elites
    assert first["best"] == pytest.approx(-min(row["loss"][0] for row in first["genomes"]))
    folder = cut(tmp_path / "whole", tmp_path / "run", 4, 9, 0, 0)
    carry_on(folder, QUIET)
    assert history(folder.path) == history(tmp_path / "whole")


def test_ctrl_c_commits_and_resume_goes_on(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Chunk] = []
    inner = Here.evaluate

    def counted(self: Here, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Outcome]]]:
        for chunk, outcomes in inner(self, chunks):
            asked.append(chunk)
            if len(asked) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield chunk, outcomes

    monkeypatch.setattr(Here, "evaluate", counted)
    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        start(write(tmp_path), RunFolder.create(tmp_path / "run"), QUIET)
    assert len(asked) == 3
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    assert run(["resume", str(tmp_path / "run")]) == 0
    assert history(tmp_path / "run") == history(whole)
    keys = [job.key for chunk in asked for job in chunk]
    assert len(keys) == len(set(keys))  # nothing was trained twice


@pytest.mark.timeout(600)  # dozens of processes, on a busy machine
def test_killed_at_every_write_it_ends_with_the_same_history(tmp_path: Path, whole: Path) -> None:
    """Before it, half way through it, and before what was written takes its name; in turns at the first and far on.

    One figure stands for all, which are written one after another when nothing else changes any more.
    """
    path, acts = write(tmp_path, SMALLEST), tmp_path / "acts"
    found = counted(acts, "search", path, "--run", tmp_path / "unharmed")
    kinds = [kind for kind in found if kind.startswith(("write", "half", "replace", "fsync feedback"))]
    kinds = [kind for kind in kinds if not re.search(r"\.(functions|likeness)\.|\.pdf\.", kind)]
    assert any("generations.svg" in kind for kind in kinds)
    assert {"half of a write evaluations.jsonl", "write stages.jsonl", "replace .summary.json.N.part"} <= set(kinds)

    def start(run: Path, kill_at: Kill | None) -> int:
        begun = (run / "config.toml").exists()
        return killed(acts, kill_at, *(("resume", run) if begun else ("search", path, "--run", run)))

    def finished(run: Path) -> bool:
        summary = run / "summary.json"
        return summary.exists() and json.loads(summary.read_text(encoding="utf-8"))["status"] == "done"

    kills = [(kind, found[kind] // 3 if number % 2 else 0) for number, kind in enumerate(kinds)]
    survive(start, finished, lambda run: history(run) == history(tmp_path / "unharmed"), tmp_path, kills)


@pytest.mark.timeout(300)
def test_a_killed_search_leaves_no_worker_and_two_go_on_with_the_history_of_one(tmp_path: Path, whole: Path) -> None:
    command = Command("search", write(tmp_path, FILE.replace("workers = 1", "workers = 2")), "--run", tmp_path / "run")
    assert until((tmp_path / "run" / EVALUATIONS).exists)
    workers = [int(pid) for pid in Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text(encoding="utf-8").split()]
    assert len(workers) >= 2
    command.kill()
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    carry_on(RunFolder.open(tmp_path / "run"), QUIET)
    assert history(tmp_path / "run") == history(whole)


def test_a_history_of_another_search_is_refused(tmp_path: Path, whole: Path) -> None:
    folder = cut(whole, tmp_path / "run", 12, 0, 2, 0)
    text = (folder.path / SEARCH).read_text(encoding="utf-8")
    (folder.path / SEARCH).write_text(text.replace("population = 6", "population = 7"), encoding="utf-8")
    with pytest.raises(RunError, match="another search"):
        carry_on(folder, QUIET)


def test_a_damaged_line_is_named(tmp_path: Path, whole: Path) -> None:
    folder = cut(whole, tmp_path / "run", 3, 0, 0, 0)
    text = (folder.path / EVALUATIONS).read_text(encoding="utf-8")
    (folder.path / EVALUATIONS).write_text("{broken\n" + text, encoding="utf-8")
    with pytest.raises(RunError) as error:
        History(folder)
    assert "line 1" in str(error.value)


def test_a_worker_that_dies_is_replaced_and_its_chunk_done_once_more(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are forks here, so that they begin at once."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda how: fork)
    builder = SearchBuilder(read_search(write(tmp_path)), _experiment(whole))
    space = builder.space(builder.data())
    from hil.search.loop import SearchPlan, _jobs

    genomes = [builder.problem(space).genome(point) for point in builder.generator(space).suggest(None)]
    chunks = chunked(_jobs(SearchPlan(0, 6, 1), space, genomes, 0, [1], Archive([], 1)), 2)
    pool = Pool(lethal, str(tmp_path / "marker"), 1)
    found = list(pool.evaluate(chunks))
    pool.close()
    assert sorted(job.key for chunk, _ in found for job in chunk) == sorted(job.key for chunk in chunks for job in chunk)
    assert missing(chunks, {job.key for chunk, _ in found for job in chunk}) == []
    pool = Pool(lethal, str(tmp_path / "marker.always"), 1)
    with pytest.raises(Stopped, match="died twice"):
        list(pool.evaluate(chunks))
    pool.close()
    pool = Pool(lethal, str(tmp_path / "marker"), 1, lambda: "SIGINT")
    with pytest.raises(Interrupted, match="SIGINT"):  # at once, whatever a chunk may take
        list(pool.evaluate(chunks))
    pool.close()


def _experiment(whole: Path) -> Experiment:
    return read_experiment(whole / "config.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("population = 6", "populaton = 6", 'Did you mean "population"'),
        ("elites = 2", "elites = 6", "fewer than the population"),
        ('base = "base.toml"', 'base = "bas.toml"', "not found"),
        ("terms = 2", 'family = "forier"', "did you mean fourier"),
        ("held = 100", "held = 2000", "not enough examples"),
        ("elites = 2", 'elites = 2\nobjectives = ["accuracy", "steps"]', "target"),
        ("elites = 2", 'elites = 2\nobjectives = ["robustness"]', "other devices"),
        ("[confirm]", "[race]\nepochs = [1]\n[confirm]", "rising epochs below 1"),
        ("lr = [1e-3, 1e-2]", "rl = [1e-3, 1e-2]", "unknown gene"),
    ],
)
def test_a_wrong_file_is_refused_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    assert run(["search", str(write(tmp_path, FILE.replace(old, new))), "--run", str(tmp_path / "r")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_an_unknown_learner_of_feedback_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, base=BASE.replace('"adfa"', '"backprop"'))
    with pytest.raises(ConfigError, match="no feedback"):
        start(path, RunFolder.create(tmp_path / "run"), QUIET)


def test_a_base_with_a_device_that_projects_is_searched_but_for_its_matrices(tmp_path: Path) -> None:
    base = BASE + '[projection]\nuse = "scattering"\nmacropixels = 36\npixels = 64\nplanes = 2\n'
    path = write(tmp_path, FILE.replace("scale = ", 'distribution = ["normal", "sign"]\nscale = '), base)
    with pytest.raises(ConfigError, match="has its own matrices B"):
        start(path, RunFolder.create(tmp_path / "refused"), QUIET)
    with pytest.raises(ConfigError, match=r"plain steps.*got \[projection\]"):
        start(write(tmp_path, FILE, base), RunFolder.create(tmp_path / "population"), QUIET)
    text = SMALLEST.replace("[evaluate]\n", '[evaluate]\nby = "one"\n').replace("generations = 2", "generations = 1")
    text = text.replace("random = 1", "random = 0\nhand_made = false").replace("examples = 64", "examples = 16")
    text = text.replace("score = 100", "score = 8").replace("held = 100", "held = 8")
    start(write(tmp_path, text, base), RunFolder.create(tmp_path / "run"), QUIET)
    forward = (16 + 8) * 20  # examples times neurons
    assert all(line["outcome"]["passes"] > forward for line in lines(tmp_path / "run", EVALUATIONS))  # shots that project, too


def test_a_search_reads_its_files_once_and_nothing_that_it_wrote(tmp_path: Path, files_read: Counter[str]) -> None:
    assert run(["search", str(write(tmp_path)), "--run", str(tmp_path / "r")]) == 0
    assert files_read == {"search.toml": 1, "base.toml": 1}
