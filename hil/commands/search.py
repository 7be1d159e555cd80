"""One search, from its file or its run folder to what it found: generations, halving, choice, bench, confirmation, artefact.

    hil search SEARCH.toml     a new run folder: config.toml (the base, complete), search.toml, then `carry_on`
    hil resume RUN             `carry_on`: what the folder's history holds is not done again

A search of a feedback ends with a file in feedback/. One of settings ends with found.toml, the base with the best settings, and
beside it found_bench.toml if the base is on a bench. summary.json says what was found; diagnostics.json what the report draws
over it: the node's true derivative, the pre-activations that the winner visits, and how alike every g is to it there.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hil import __version__
from hil.build.calibration import bench_files, certified
from hil.build.search import SearchBuilder, completed
from hil.commands.train import display_noted
from hil.config import modules
from hil.config.bench import read_bench
from hil.config.experiment import COPIES, Experiment, read_experiment
from hil.config.read import dump, find, value_text
from hil.config.resolve import UNTOUCHED
from hil.config.search import SearchFile, base_experiment, read_search
from hil.data.dataset import Dataset
from hil.errors import BudgetSpent, ConfigError, HilError, Interrupted, Refused, Stopped, UnsafeOutputs
from hil.feedback.feedback import Function, correlation, to_table
from hil.files import there, write_atomic
from hil.foreign import foreign
from hil.hints import quoted
from hil.learners.adfa import slope
from hil.run.control import Listening
from hil.run.folder import RunFolder
from hil.run.signals import Stopping
from hil.search.archive import Archive
from hil.search.artefact import save
from hil.search.budget import Bounded, Budget, Ledger
from hil.search.cluster import check_address
from hil.search.evaluator import Evaluator, Here, Stop
from hil.search.hand_made import hand_made, random_fourier
from hil.search.history import SEARCH, History
from hil.search.importance import importance
from hil.search.jobs import AnyRecipe, Job, OperatingPoint, Recipe
from hil.search.loop import Notice, Point, search
from hil.search.progress import SearchDisplay
from hil.search.random_and_cma import Random
from hil.search.space import Dimension, Genome, Space
from hil.search.stages import (
    Claim,
    StageRow,
    Trial,
    claims,
    halving,
    noted,
    on_bench,
    rank_correlation,
    seeds,
    told,
    tried,
)
from hil.seeding import key

CLOSED = "none in use: a bench is opened for one candidate, and closed after it, its outputs off"
FOUND, FOUND_BENCH = "found.toml", "found_bench.toml"
DRAWN, GRID = 2000, 241  # pre-activations kept for the report; points of a drawn curve
Names = Generator[Point, None, list[str]]


def start(path: Path, folder: RunFolder, console: Console, cluster: str | None = None) -> dict[str, Any]:
    """Begin the search of the file `path` in `folder`. Otherwise as `begin`."""
    return begin(read_search(path), folder, console, cluster)


def begin(file: SearchFile, folder: RunFolder, console: Console, cluster: str | None = None) -> dict[str, Any]:
    """Begin a search in `folder`, and return its summary.

    Raises:
        Refused: nothing was trained. Stopped, Interrupted: the search is committed and resumable.
    """
    if cluster is not None:
        check_address(cluster)
    path = file.file
    base = find(file.base, path)
    modules.also(path, base)
    experiment = base_experiment(file, path)
    named = {name: [base, path] for name in ("config.toml", SEARCH, FOUND)}
    stage = None if file.bench is None or file.bench.device.bench is None else read_bench(find(file.bench.device.bench, path))
    if stage is not None and experiment.bench is not None:
        raise ConfigError(
            "a search on a bench needs no stage on a bench", where=file.bench.place if file.bench is not None else str(path),
            got=f"[bench], and a base on {experiment.bench.file}", allowed="one of them", outputs=UNTOUCHED,
            todo="remove [bench], or let [device] of the base be a twin",
        )  # fmt: skip
    benches = {COPIES["device"]: stage or experiment.bench, COPIES["projection"]: experiment.projection_bench}
    for copy, bench in benches.items():
        if bench is None:
            continue
        certified(bench)  # in order now, or refused: the copy is used as one that was
        for name, payload in bench_files(bench, copy).items():
            write_atomic(folder.path / name, payload)
        named[copy] = [bench.file, base, path]
    named[FOUND_BENCH] = named.get(COPIES["device"], [])
    write_atomic(folder.path / modules.ORIGINS, modules.origins(named))
    experiment = completed(file, experiment)
    write_atomic(folder.path / SEARCH, dump(file).encode())
    folder.write_config(dump(experiment))  # last: a run begins with it, so that a search killed before may be begun again
    kept = {copy: None if bench is None else bench.kept_in(folder.path / copy) for copy, bench in benches.items()}
    projecting = kept[COPIES["projection"]]
    found = experiment.kept_in(folder.config).projected_on(projecting, projecting is not None)
    if stage is None and experiment.bench is not None:
        copied = kept[COPIES["device"]]
        assert copied is not None  # that of the experiment
        found = found.on_bench(copied, kept=True)
    return _carried(SearchBuilder(file, found, None if stage is None else kept[COPIES["device"]]), folder, console, cluster)


def carry_on(folder: RunFolder, console: Console, cluster: str | None = None) -> dict[str, Any]:
    """Go on with the search in `folder` from whatever was committed. Raises: as `start`."""
    if cluster is not None:
        check_address(cluster)
    copy = folder.path / COPIES["device"]
    file = read_search(folder.path / SEARCH)
    stage = read_bench(copy) if file.bench is not None and there(copy) else None
    builder = SearchBuilder(file, read_experiment(folder.config, bench=copy), stage)
    return _carried(builder, folder, console, cluster)


def _carried(builder: SearchBuilder, folder: RunFolder, console: Console, cluster: str | None) -> dict[str, Any]:
    file = builder.file
    if cluster is not None:
        console.print(f"cluster {cluster}, for a worker of which {file.evaluate.join_s:g} s are waited", markup=False)
    with (
        display_noted(console, folder),
        Stopping() as stopping,
        Listening(folder.path, stopping, folder.note),
        ExitStack() as stack,
    ):
        running = SearchRun(builder, folder, History(folder), cluster, stack, lambda: stopping.asked)
        for line in running.introduction():
            console.print(line, markup=False, soft_wrap=True)
        try:
            with foreign("search", outputs=CLOSED), SearchDisplay(console) as live:
                for point in running.points():
                    live(point)
                    if stopping.asked:
                        raise Interrupted(f"stopped by {stopping.asked}")
        except Interrupted as error:
            running.conclude("interrupted")
            raise Interrupted(
                f"{error.what}; what was finished is committed", where=str(folder.path), outputs=CLOSED,
                todo=f"hil resume {quoted(folder.path)}",
            ) from error  # fmt: skip
        except UnsafeOutputs:
            running.conclude("fault")
            raise
        except Refused:
            raise
        except HilError as error:
            running.conclude("fault")
            raise Stopped(
                "a fault ended the search; what was finished is committed", where=str(folder.path),
                outputs=error.outputs or CLOSED,
                todo=f"remove the cause, then: hil resume {quoted(folder.path)}",
            ) from error  # fmt: skip
        return running.conclude("done")


class SearchRun:
    """A search while it runs.

    Args:
        stack: closes what is opened.
        stop: why it should, or "".
    """

    def __init__(
        self,
        builder: SearchBuilder,
        folder: RunFolder,
        history: History,
        cluster: str | None,
        stack: ExitStack,
        stop: Stop,
    ) -> None:
        self._builder, self._folder, self._history, self._stop = builder, folder, history, stop
        self._file, self._served = builder.file, builder.experiment.served
        self.data: Dataset = builder.data()
        self.space: Space = builder.space(self.data)
        self._judged = builder.task.metric.merit_title
        self._archive = Archive(builder.objectives, builder.most_steps(self.data))
        self._base = None if self._file.search.space else builder.base()
        self._generator = builder.generator(self.space)
        builder.trainer()  # refused here, not in a worker
        self._evaluator = self._evaluating(cluster)
        stack.callback(self._evaluator.close)
        self._begin = time.perf_counter()
        self._before = float(folder.read_json("summary.json").get("wall_s", 0.0))
        self._found: dict[str, Any] = {}

    def _evaluating(self, cluster: str | None) -> Evaluator:
        """Who trains the candidates; on a bench, within the budget, shot by shot."""
        table, history = self._file.search, self._history
        if not self._served:
            return self._builder.evaluator(cluster, self._stop)
        ledger = Ledger(self._folder.path, table.budget_passes)
        bench = self._builder.evaluator(cluster, self._stop, ledger.grant)
        return Bounded(bench, Budget(ledger, table.budget_h), lambda: list(history.outcomes.values()))

    def introduction(self) -> list[str]:
        """Say in a few lines what is searched, by whom it is trained, and on what."""
        file, data = self._file, self.data
        optimizer, names = self._builder.experiment.optimizer.use, ", ".join(self._builder.left_out)
        left_out = [f"        {names}: left out, as the steps of {optimizer} do not depend on it"] if names else []
        free = ", ".join(one.name if self._base else _ranged(one) for one in self.space.dimensions)
        return [
            f"search  {file.search.strategy}, {file.search.genomes} {'genomes' if self._base else 'trials'}, for "
            + " and ".join(self._judged if name == "accuracy" else name for name in file.search.objectives),
            f"genome  {self.space.kind}: {free}" if self._base else f"space   {free}",
            *left_out,
            f"data    {data.name}: {len(data.train):,} to train · {len(data.validation):,} to score · {len(data.test):,} held; "
            "the test split is not touched",
        ]

    def points(self) -> Iterator[Point]:
        """Go through all stages, and yield what is to be shown."""
        file, builder = self._file, self._builder
        try:
            yield from search(
                builder.plan(), self.space, builder.problem(self.space), self._generator, self._evaluator, self._archive,
                self._history, partial(builder.check, self.space),
            )  # fmt: skip
        except BudgetSpent as error:
            yield self._ended_early("its last generation", error)
        end = getattr(self._generator, "finalize", None)
        if end is not None:
            end()
        if not len(self._archive):
            raise BudgetSpent(
                "the budget ended before the first candidate was trained", where=str(self._folder.path),
                outputs=CLOSED, todo="raise budget_passes or budget_h in [search]",
            )  # fmt: skip
        names = self._top(max(file.confirm.candidates, file.bench.top if file.bench else 1))
        names = yield from self._within_budget(self._halved(names), names)
        names = yield from self._within_budget(self._chosen(names), names)
        if file.bench is not None:
            names = yield from self._benched(names)
        yield from self._confirmed(names[0])

    def _within_budget(self, stage: Names, names: list[str]) -> Names:
        """Go through a stage; where the budget of the bench ends within it, the names stay as they were."""
        try:
            return (yield from stage)
        except BudgetSpent as error:
            yield self._ended_early("the rest of this stage", error)
            return names

    def _ended_early(self, what: str, error: BudgetSpent) -> Notice:
        """Note that the search may go on where its budget ended, once that is raised."""
        self._found["ended_early"] = error.what
        return Notice(f"left out   {what}: {error.what}")

    def _recipe(self, name: str) -> AnyRecipe:
        genome = next(genome for genome in self._archive.genomes if genome.digest() == name)
        return self.space.recipe(genome)

    def _top(self, count: int) -> list[str]:
        """The front if there are several objectives, then the best by the first."""
        front = self._archive.front() if len(self._file.search.objectives) > 1 else []
        names = [genome.digest() for genome in (*front, *self._archive.best(count))]
        return list(dict.fromkeys(names))[:count]

    def _halved(self, names: list[str]) -> Names:
        table = self._file.halving
        if table is None:
            return names
        recipes = {name: self._recipe(name) for name in self._top(table.keep[0])}
        rungs = list(zip(table.epochs, table.keep, strict=True))
        names = yield from halving(
            recipes, rungs, table.repeats, self._file.seed, self._evaluator, self._file.chunk, self._history
        )
        return names

    @property
    def _epochs(self) -> int:
        """Return the epochs of a confirmation: its own, or those of the last rung, or those of the search."""
        halved = self._file.halving
        return self._file.confirm.epochs or (halved.epochs[-1] if halved else self._file.train.epochs)

    def _chosen(self, names: list[str]) -> Names:
        table = self._file.confirm
        entering = {name: self._recipe(name) for name in names[: table.candidates]}
        trial = Trial("choice", entering, seeds(self._file.seed, table.seeds, "choice"), self._epochs)
        rows = yield from tried(trial, self._evaluator, self._file.chunk, self._history)
        noted(trial, rows, self._history)
        rows = sorted(rows, key=lambda row: -row.mean)
        yield Notice(f"choice     {rows[0].name} of {len(rows)}, mean {rows[0].mean:.2%} over {table.seeds} fresh seeds")
        return [*(row.name for row in rows), *names[table.candidates :]]

    def _benched(self, names: list[str]) -> Names:
        """The twin's best and some spread over the rest, on both. Returns the names, the bench's best first."""
        table = self._file.bench
        assert table is not None  # asked for
        top = names[: table.top]
        entering = {name: self._recipe(name) for name in dict.fromkeys([*top, *self._spread(table.spread, top)])}
        epochs = table.epochs or self._file.train.epochs
        drawn = seeds(self._file.seed, table.seeds, "bench")
        on_twin = yield from tried(Trial("twin", entering, drawn, epochs), self._evaluator, self._file.chunk, self._history)
        trial = Trial("bench", entering, drawn, epochs)
        ledger = Ledger(self._history.folder.path, table.budget_passes)
        bench = Here(self._builder.trainer("bench", self._stop, ledger.grant))
        rows, short = yield from on_bench(trial, bench, Budget(ledger, table.budget_h), self._history)
        agreement = rank_correlation(on_twin, rows)
        noted(Trial("twin", entering, drawn, epochs), on_twin, self._history)
        noted(trial, rows, self._history, rank_correlation=agreement, ended_early=short, where=self._where(trial))
        self._found["bench"] = {
            "rank_correlation": agreement, "rows": [row.table() for row in rows], "ended_early": short, "passes": ledger.spent,
        }  # fmt: skip
        shown = "unknown" if agreement is None else f"{agreement:+.2f}"
        ends = f"; {short}" if short else ""
        yield Notice(f"bench      {len(rows)} candidates, {ledger} passes, rank correlation of twin and bench {shown}{ends}")
        ranked = [row.name for row in sorted(rows, key=lambda row: -row.mean) if row.name in top]
        return list(dict.fromkeys([*ranked, *names]))

    def _where(self, trial: Trial) -> str:
        outcomes = [self._history.outcomes[job.key] for job in trial.jobs if job.key in self._history.outcomes]
        return outcomes[0].where if outcomes else ""

    def _spread(self, count: int, besides: list[str]) -> list[str]:
        """Return genomes at equal distances in the ranking: a correlation among the best alone would say little."""
        ranked = [genome.digest() for genome in self._archive.best(len(self._archive)) if genome.digest() not in besides]
        return [ranked[(len(ranked) - 1) * (k + 1) // count] for k in range(count)] if ranked else []

    def _rivals(self) -> tuple[tuple[str, Mapping[str, AnyRecipe]], tuple[str, Mapping[str, AnyRecipe]]]:
        """Return rivals of which the best counts, and others of which the median does, each with what they are called."""
        table, seed = self._file.confirm, self._file.seed
        if self._base is not None:
            by_hand = hand_made(self._base) if table.hand_made else {}
            return ("the best hand-made g", by_hand), ("random Fourier series", random_fourier(self._base, seed, table.random))
        problem = self._builder.problem(self.space)
        drawn = Random(problem, key(seed, 0, "rivals")).suggest(table.random) if table.random else []
        random = {f"random {number}": problem.genome(point) for number, point in enumerate(drawn, 1)}
        for name, genome in random.items():
            self._builder.check(self.space, genome, f"the rival {name}")
        return (
            ("the settings of the base", {"base": OperatingPoint({})} if table.hand_made else {}),
            ("random point", {name: self.space.recipe(genome) for name, genome in random.items()}),
        )

    def _confirmed(self, name: str) -> Iterator[Point]:
        """The winner and its rivals on fresh seeds and held examples; writes the artefact and what the report needs."""
        file, table = self._file, self._file.confirm
        recipe = self._recipe(name)
        (best_called, best), (median_called, middle) = self._rivals()
        trial = Trial(
            "confirmation", {"found": recipe, **best, **middle}, seeds(file.seed, table.seeds, "confirm"), self._epochs, "held"
        )
        self._found |= {
            "winner": name, "recipe": recipe.table(), "judged_by": self._judged,
            "front": [genome.digest() for genome in self._archive.front()],
        }  # fmt: skip
        try:
            rows = yield from tried(trial, self._evaluator, file.chunk, self._history)
        except BudgetSpent as error:
            yield self._ended_early("the confirmation", error)
            yield from self._saved(recipe, {"genome": name})
            return
        winner = rows[0]
        made = claims(
            winner, (best_called, [row for row in rows if row.name in best]),
            (median_called, [row for row in rows if row.name in middle]),
        )  # fmt: skip
        beside = {row.name: trial.recipes[row.name] for row in _best_rivals(rows[1:])}
        drawn = {name: to_table(one.feedback.g) for name, one in beside.items() if isinstance(one, Recipe)}
        noted(trial, rows, self._history, winner=name, claims=[_claimed(claim) for claim in made], drawn=drawn)
        self._found |= {
            "held_accuracy": winner.mean, "held_error": winner.error, "claims": [_claimed(claim) for claim in made],
        }  # fmt: skip
        spread = 100 * (winner.error or 0.0)
        yield Notice(
            f"found      {name}: {winner.mean:.2%} ± {spread:.2f}, {table.seeds} seeds, {len(self.data.test)} held examples"
            f"{'' if self._judged == 'accuracy' else f' ({self._judged})'}"
        )
        for claim in made:
            yield Notice(f"           {told(claim)}")
        yield from self._saved(recipe, self._provenance(name, winner, made))

    def _saved(self, recipe: AnyRecipe, provenance: Mapping[str, object]) -> Iterator[Point]:
        """Write what was found, as a file to use."""
        if isinstance(recipe, Recipe):
            path = save(self._folder.path, self._file.name or "feedback", recipe, provenance)
            self._found["feedback"] = str(path.relative_to(self._folder.path))
        else:
            experiment = self._builder.with_settings(recipe.settings)
            if experiment.bench is not None:
                write_atomic(self._folder.path / FOUND_BENCH, dump(experiment.bench).encode())
                experiment = _naming(experiment, FOUND_BENCH)
            write_atomic(self._folder.path / FOUND, dump(experiment).encode())
            self._found |= {"found": FOUND, "settings": {name: value_text(value) for name, value in recipe.settings.items()}}
            for name, value in self._found["settings"].items():
                yield Notice(f"           {name} = {value}")
        self._diagnose(recipe)

    def _answered_by(self) -> str:
        """Who trained the candidates: a bench says so of itself."""
        found = {outcome.where for outcome in self._history.outcomes.values()} if self._served else set()
        return "twin" if not self._served else found.pop() if len(found) == 1 else "unknown"

    def _provenance(self, name: str, row: StageRow, made: list[Claim]) -> Mapping[str, object]:
        experiment, file = self._builder.experiment, self._file
        return {
            "search": str(self._folder.path),
            "strategy": file.search.strategy,
            "genome": name,
            "data": experiment.data.use,
            "checksum": self.data.checksum,
            "device": experiment.device.model_dump(exclude_none=True),
            "encode": experiment.encode.model_dump(exclude_none=True),
            "answered_by": self._where(Trial("confirmation", {"found": self._recipe(name)}, seeds(
                file.seed, file.confirm.seeds, "confirm"), self._epochs, "held")),
            "learner": experiment.learner.use,
            "seed": file.seed,
            "epochs": self._epochs,
            "confirmed_on_seeds": list(seeds(file.seed, file.confirm.seeds, "confirm")),
            "held_examples": len(self.data.test),
            self._judged: row.mean,
            "standard_error": row.error,
            "compared": [f"{claim.over}: {100 * claim.difference:+.2f} ± {100 * claim.error:.2f} points" for claim in made],
            "versions": {"hil": __version__, "torch": torch.__version__, "deap": version("deap")},
        }  # fmt: skip

    @torch.no_grad()
    def _diagnose(self, recipe: AnyRecipe) -> None:
        """Train the winner once more and look: pre-activations, true derivative, likeness of every g."""
        job = Job("look", recipe, self._file.seed, self._file.train.epochs)
        genomes = self._archive.genomes
        fitness = [self._archive.fitness(genome)[0] for genome in genomes]
        found: dict[str, Any] = {"importance": dict(importance(self.space, genomes, fitness))}
        if self._builder.experiment.device.chip is None and self._file.by_population:
            found |= self._looked(job)
        self._folder.write_json("diagnostics.json", found)

    def _looked(self, job: Job) -> dict[str, Any]:
        from hil.training.loop import train

        with self._builder.candidate(job, self.data) as made:
            training = made.training
            for _ in train(training):
                pass
            trace = training.net.forward(self.data.validation.x)
            model = self._builder.model()
            layers, alike = [], {}
            for number, layer in enumerate(training.net.stack[:-1]):
                pre = trace.pre[number].flatten()
                kept = pre[:: max(1, len(pre) // DRAWN)][:DRAWN]
                reach = float(pre.abs().quantile(0.999)) if len(pre) < 2**24 else float(kept.abs().max())
                grid = torch.linspace(-reach, reach, GRID)
                share, edges = torch.histogram(pre.clamp(-reach, reach), 60)
                layers.append(
                    {
                        "grid": grid.tolist(), "slope": slope(layer, model, grid).tolist(),
                        "shares": (share / share.sum()).tolist(), "edges": edges.tolist(),
                    }
                )  # fmt: skip
                if number == 0:
                    true = slope(layer, model, kept)
                    for genome in self._archive.genomes:
                        alike[genome.digest()] = correlation(self._g(genome)(kept), true)
        return {"layers": layers, "likeness": alike}

    def _g(self, genome: Genome) -> Function:
        recipe = self.space.recipe(genome)
        assert isinstance(recipe, Recipe)  # a population is of feedbacks
        return recipe.feedback.g

    def conclude(self, status: str) -> dict[str, Any]:
        """Write summary.json and return it."""
        generations = self._history.generations
        summary = {
            "status": status,
            "kind": "search",
            "name": self._file.name or self._folder.path.name,
            "strategy": self._file.search.strategy,
            "provenance": self._answered_by(),
            "seed": self._file.seed,
            "generations": len(generations),
            "evaluations": len(self._history.outcomes),
            "diverged": sum(found.died_at is not None for found in self._history.outcomes.values()),
            "device_passes": sum(found.passes for found in self._history.outcomes.values()),
            **self._found,
            "wall_s": self._before + time.perf_counter() - self._begin,
            "versions": {
                "hil": __version__, "torch": torch.__version__, "deap": version("deap"),
                "python": platform.python_version(),
            },
        }  # fmt: skip
        self._folder.write_json("summary.json", summary)
        return summary


def _ranged(one: Dimension) -> str:
    """A dimension for people."""
    if one.choices:
        return f"{one.name} one of {len(one.choices)}"
    low, high = one.ends
    return f"{one.name} {low:.4g} to {high:.4g}"


def _naming(experiment: Experiment, bench: str) -> Experiment:
    """The experiment with the name of another bench file in [device]."""
    return experiment.model_copy(update={"device": experiment.device.model_copy(update={"bench": bench})})


def _best_rivals(rows: list[StageRow]) -> list[StageRow]:
    return sorted(rows, key=lambda row: -row.mean)[:3]


def _claimed(claim: Claim) -> dict[str, Any]:
    return {"over": claim.over, "difference": claim.difference, "error": claim.error, "holds": claim.holds}
