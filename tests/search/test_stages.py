"""What follows the generations, and searches of other kinds: robust, of spikes, on a bench."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_search import BASE, FILE, write
from torch import Tensor

from drivers.waveform.device import Waveform
from hil.cli import run
from hil.commands.search import start
from hil.errors import BudgetSpent, Disconnected, RunError, Stopped, UnsafeOutputs
from hil.feedback.feedback import Feedback, Sine
from hil.run.folder import RunFolder
from hil.search import plain_trainer
from hil.search.budget import FILE as LEDGER
from hil.search.budget import Budget, Ledger
from hil.search.evaluator import Here
from hil.search.history import History
from hil.search.jobs import Job, Outcome, Recipe
from hil.search.plain_trainer import OneByOne
from hil.search.stages import StageRow, Trial, claims, halving, on_bench, rank_correlation, seeds, told
from hil.training.state import Training

QUIET = Console(quiet=True)
ROOT = Path(__file__).resolve().parents[2]


class Known:
    """A trainer that knows how good a recipe is: as good as its rate."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.trained: list[Job] = []
        self._ledger = ledger

    def train(self, jobs: Sequence[Job]) -> list[Outcome]:
        self.trained += jobs
        if self._ledger is not None:
            self._ledger.grant(100 * len(jobs))
        return [Outcome(job.recipe.lr, (job.recipe.lr,), 100, wall_s=60.0, where="real") for job in jobs]


def recipes(count: int) -> dict[str, Recipe]:
    return {f"r{k}": Recipe(Feedback(Sine(phase=0.1 * k)), (k + 1) / 100) for k in range(count)}


def empty(folder: Path) -> History:
    return History(RunFolder(folder))


def drain(points: Any) -> Any:
    """What a stage returns."""
    while True:
        try:
            next(points)
        except StopIteration as end:
            return end.value


def test_halving_spends_longer_trainings_on_fewer(tmp_path: Path) -> None:
    known = Known()
    names = drain(halving(recipes(9), [(1, 8), (2, 4), (4, 2)], 2, 0, Here(known), 4, empty(tmp_path)))
    assert names == ["r7", "r6"]
    assert {epochs: len([job for job in known.trained if job.epochs == epochs]) for epochs in (1, 2, 4)} == {1: 16, 2: 8, 4: 4}
    assert len({job.seed for job in known.trained}) == 6  # no seed of one rung selects in another


def test_the_bench_stops_with_its_budget_and_goes_on_with_what_it_has(tmp_path: Path) -> None:
    ledger, trial = Ledger(tmp_path, 250), Trial("bench", recipes(5), seeds(0, 1, "bench"), 1)
    known = Known(ledger)
    rows, why = drain(on_bench(trial, Here(known), Budget(ledger), empty(tmp_path)))
    assert len(rows) == len(known.trained) == 2
    assert "200 of 250 device passes, and a candidate takes 100" in why
    again = Ledger(tmp_path, 320)  # a resume, with a larger budget
    rows, why = drain(on_bench(trial, Here(Known(again)), Budget(again), empty(tmp_path)))
    assert len(rows) == 3
    assert again.spent == 300
    (tmp_path / "free").mkdir()
    free = Ledger(tmp_path / "free")
    rows, why = drain(on_bench(trial, Here(Known(free)), Budget(free, hours=0.07), empty(tmp_path)))
    assert (len(rows), free.spent, why[:22]) == (5, 200, "")
    assert rank_correlation([StageRow(f"r{k}", (float(k),)) for k in range(5)], rows) == pytest.approx(1.0)
    assert rank_correlation(rows[:2], rows) is None


def test_a_claim_is_one_beyond_two_standard_errors() -> None:
    winner = StageRow("found", (0.9, 0.92, 0.91, 0.93))
    random = [StageRow("a", (0.8, 0.82, 0.81, 0.83)), StageRow("b", (0.7, 0.7, 0.7, 0.7)), StageRow("c", (0.95, 0.9, 0.9, 0.9))]
    near = [StageRow("near", (0.91, 0.9, 0.92, 0.92)), StageRow("far", (0.1, 0.1, 0.1, 0.1))]
    over_random, over_hand = claims(winner, ("the best hand-made g", near), ("random Fourier series", random))
    assert over_random.difference == pytest.approx(0.1)
    assert over_random.holds
    assert "near" in over_hand.over
    assert "cannot be told apart" in told(over_hand)


def test_a_fault_of_the_bench_is_no_candidate_that_diverged() -> None:
    def broken(job: Job) -> Any:
        raise Disconnected("the wire is cut", where="bench")

    with pytest.raises(Disconnected):
        OneByOne(broken).train([Job("j/0", recipes(1)["r0"], 0, 1)])


def test_twin_first_then_the_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "[halving]\nepochs = [1, 2]\nkeep = [4, 2]\n[bench]\ntop = 2\nspread = 2\n"
    more += 'device = { use = "mach_zehnder", v_pi_v = 3.7 }\n'
    path = write(tmp_path, FILE + more)
    assert run(["search", str(path), "--run", str(tmp_path / "r")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"4 candidates, [\d,]+ passes, rank correlation of twin and bench", said)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row["mean"] for row in summary["bench"]["rows"]}
    stages = [json.loads(line)["stage"] for line in (tmp_path / "r" / "stages.jsonl").read_text(encoding="utf-8").splitlines()]
    assert stages == ["halving 1", "halving 2", "choice", "twin", "bench", "confirmation"]
    assert len(rows) == 4
    assert summary["winner"] in rows
    assert "rank correlation with the twin" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def test_several_objectives_with_other_devices(tmp_path: Path) -> None:
    text = FILE.replace("elites = 2", 'elites = 2\nobjectives = ["accuracy", "robustness", "steps", "passes"]\ntarget = 0.3')
    folder = RunFolder.create(tmp_path / "run")
    summary = start(write(tmp_path, text + "[[others]]\nv_pi_v = 4.5\n"), folder, QUIET)
    assert summary["front"]
    row = json.loads((folder.path / "generations.jsonl").read_text(encoding="utf-8").splitlines()[-1])["genomes"][0]
    accuracy, robustness, steps, passes = row["fitness"]
    assert 0 < robustness <= 1
    assert steps >= -4.5  # of four, but for the luck of the seeds
    assert passes < 0 < accuracy


def test_spiking_networks_are_searched_one_by_one(tmp_path: Path) -> None:
    base = BASE.replace('use = "mach_zehnder"\ndrift_rad_per_rts = 0.02', 'chip = "lif"').replace('"adfa"', '"adfa_snn"')
    base = base.replace('overflow = "fold"\nperiod = 7.0', "gain = 2.0").replace("[decode]\nzero = 0.18\nscale = 0.18\n", "")
    text = FILE.replace("[evaluate]\n", '[evaluate]\nby = "one"\n').replace("generations = 3", "generations = 1")
    folder = RunFolder.create(tmp_path / "run")
    summary = start(write(tmp_path, text.replace("population = 6", "population = 4"), base), folder, QUIET)
    assert summary["held_accuracy"] > 0
    with pytest.raises(Exception, match="a population is trained by aDFA"):
        start(write(tmp_path, FILE, base), RunFolder.create(tmp_path / "other"), QUIET)


def test_a_bench_that_breaks_ends_the_search_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, FILE + '[bench]\ntop = 1\nspread = 1\ndevice = { use = "mach_zehnder" }\n')
    inner = OneByOne.train

    def breaks(self: OneByOne, jobs: Sequence[Job]) -> list[Outcome]:
        raise Disconnected("the wire is cut", where="bench")

    monkeypatch.setattr(OneByOne, "train", breaks)
    with pytest.raises(Stopped, match="what was finished is committed"):
        start(path, RunFolder.create(tmp_path / "run"), QUIET)
    monkeypatch.setattr(OneByOne, "train", inner)
    assert run(["resume", str(tmp_path / "run")]) == 0


def test_outputs_that_are_not_safe_stay_the_loudest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, FILE + '[bench]\ntop = 1\nspread = 1\ndevice = { use = "mach_zehnder" }\n')

    def unsafe(self: OneByOne, jobs: Sequence[Job]) -> list[Outcome]:
        raise UnsafeOutputs("the output could not be read back", where="awg")

    monkeypatch.setattr(OneByOne, "train", unsafe)
    assert run(["search", str(path), "--run", str(tmp_path / "run")]) == 4


def test_ctrl_c_in_a_candidate_of_the_bench_ends_it_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, FILE + '[bench]\ntop = 1\nspread = 1\ndevice = { use = "mach_zehnder" }\n')
    inner, made = plain_trainer.train, []

    def interrupted(training: Training) -> Iterator[Any]:
        for point in inner(training):
            if len(made) < 1:
                os.kill(os.getpid(), signal.SIGINT)
            made.append(point)
            yield point

    monkeypatch.setattr(plain_trainer, "train", interrupted)
    assert run(["search", str(path), "--run", str(tmp_path / "run")]) == 130
    assert len(made) == 1
    assert run(["resume", str(tmp_path / "run")]) == 0


def test_a_search_on_a_served_bench_spends_its_passes_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mzm.toml").write_text((ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8"), encoding="utf-8")
    text = (
        FILE.replace("generations = 3", "generations = 1") + '[bench]\ntop = 2\nspread = 0\ndevice = { bench = "mzm.toml" }\n'
    )
    sent: list[int] = []
    submit = Waveform.submit

    def counted(self: Waveform, x: Tensor) -> Future[Tensor]:
        sent.append(x.numel())
        return submit(self, x)

    monkeypatch.setattr(Waveform, "submit", counted)
    path = write(tmp_path, text)
    start(path, RunFolder.create(tmp_path / "free"), QUIET)
    free = Ledger(tmp_path / "free")
    assert free.spent == sum(sent) > 0
    one = free.spent // 2
    for budget, spent, done in ((one, one, 1), (one - 1, None, 0)):
        sent.clear()
        path.write_text(text + f"budget_passes = {budget}\n", encoding="utf-8")
        summary = start(path, RunFolder.create(tmp_path / str(budget)), QUIET)
        assert summary["bench"]["passes"] == sum(sent) <= budget
        assert spent is None or sum(sent) == spent
        assert len(summary["bench"]["rows"]) == done
        assert "the budget is spent" in summary["bench"]["ended_early"] or "passes" in summary["bench"]["ended_early"]


def test_a_ledger_outlives_its_process_but_not_damage(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 100)
    ledger.begin("bench/a")
    ledger.grant(60)
    with pytest.raises(BudgetSpent, match="40 of 100 are left"):
        ledger.grant(41)
    (tmp_path / LEDGER).write_text(
        (tmp_path / LEDGER).read_text(encoding="utf-8") + '["bench/a", 2', encoding="utf-8"
    )  # died while it wrote
    again = Ledger(tmp_path, 100)
    again.grant(40)
    assert (again.spent, Ledger(tmp_path).spent) == (100, 100)
    (tmp_path / LEDGER).write_text('["bench/a", 10]\n["bench/a", -3]\n', encoding="utf-8")
    with pytest.raises(RunError, match="line 2"):
        Ledger(tmp_path)
