"""A search file: which experiment, which genomes, how they are bred, who trains them, and what follows.

base = "digits_adfa_twin.toml"        the experiment that every candidate is trained by; set = ["section.key=value"] changes it
seed = 0
[search]     strategy = "genetic"     or "random", "cma", "ipop" (CMA-ES with restarts), or "module:Class", of another package;
             population, generations or trials, elites, operators and rates
             budget_passes, budget_h
             objectives = ["accuracy"]        also "loss", "robustness", "passes", "steps"; several: NSGA-II and a Pareto front
             target = 0.9             the accuracy that "passes" and "steps" count to
[search.space]                        settings instead of a feedback: device.gain = [0.1, 1.2]; hil/search/operating_point.py
[search.generator]                    settings of "module:Class"
[genome]     family = "fourier"       sine, box, gaussian, spline; terms, knots, reach
[genome.genes]                        gene = value (fixed), [low, high] (free), ["normal", "sign"] (free, one of these)
             lr, scale, rank, sparsity, distribution (of all layers, or scale_1, scale_2, ...), amplitude, offset, clip, and
             the family's own: hil/search/families.py
[train]      epochs, repeats = 1      seeds a genome and generation; examples to train, score, and hold for the confirmation
[evaluate]   by = "population"        or "one": the ordinary loop, for any learner; workers = 2, chunk = 16, device = "cpu"
             join_s = 600             so long a cluster without any worker is waited for
[race]       epochs = [1], keep = [0.5]    the worst of a generation are trained no further: successive halving
[[others]]                            settings of other devices of the same kind, for "robustness"
[halving]    epochs = [8, 16], keep = [16, 4]         longer trainings for fewer
[confirm]    seeds = 10, candidates = 4, random = 9   the winner on fresh seeds and held examples, beside rivals
[bench]      device = { bench = "…" } top = 3, spread = 2, seeds, epochs, budget_passes, budget_h
[slurm]      settings of dask_jobqueue.SLURMCluster, for --cluster slurm:N
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from hil.config.device import DeviceTable, EncodeTable
from hil.config.experiment import Experiment, read_experiment
from hil.config.read import Section, checked, find, of_kind, read_toml
from hil.config.resolve import STRATEGIES, UNTOUCHED
from hil.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
ObjectiveName = Literal["accuracy", "loss", "robustness", "passes", "steps"]


class SearchTable(Section):
    """[search]: how genomes are proposed; see the module for what counts.

    Args:
        strategy: who proposes them: "genetic", "random", "cma", "ipop", which is CMA-ES with restarts, or "module:Class", a
            generator of another package by the interface of gest-api.
        population: genomes a generation; None: 32, or as many as a generator of another package likes. "ipop" chooses its own.
        generations: how many; population times generations is the number of genomes that are evaluated, with any strategy.
        trials: genomes that are evaluated, instead of population times generations.
        space: what is searched instead of a feedback: settings of the experiment and its bench, "table.key" -> [low, high],
            { low, high, log, whole } or { choices }.
        generator: settings of a generator of another package.
        random_first: points at random that such a generator is told of first, if it needs data to begin with.
        budget_passes: device passes after which no generation begins; on a bench no shot beyond it is sent. None: no limit.
        budget_h: hours of training after which no generation begins, on a bench no training; None: no limit.
        elites: the best that are kept as they are.
        objectives: what is maximised; several: NSGA-II. "accuracy" is the merit by the metric of the task, 0 to 1: accuracy of
            classes, 1 - NRMSE of numbers and never below 0. "loss" is the mean loss of the task over the scored examples, and
            less is better: cross-entropy of classes, mse of numbers.
        target: the merit that "passes" and "steps" count to.
        tournament: contestants of a selection.
        crossover: how two parents make a child.
        crossover_rate: how often.
        crossover_eta: of SBX; larger stays closer.
        blend: of the other one.
        mutation: how a child is changed.
        mutation_rate: how often.
        mutation_eta: of the polynomial; larger stays closer.
        sigma: of the Gaussian.
        gene_rate: share of genes moved by a mutation; None: one gene on average.
    """

    strategy: Literal["genetic", "random", "cma", "ipop"] | str = "genetic"
    population: Count | None = None
    generations: Count = 15
    trials: Count | None = None
    space: dict[str, Any] = Field(default_factory=dict)
    generator: dict[str, Any] = Field(default_factory=dict)
    random_first: Annotated[int, Field(ge=0)] = 0
    budget_passes: Count | None = None
    budget_h: Rate | None = None
    elites: Annotated[int, Field(ge=0)] = 4
    objectives: Annotated[tuple[ObjectiveName, ...], Field(min_length=1)] = ("accuracy",)
    target: Share | None = None
    tournament: Count = 3
    crossover: Literal["sbx", "blend"] = "sbx"
    crossover_rate: Share = 0.9
    crossover_eta: Rate = 10.0
    blend: Rate = 0.4
    mutation: Literal["polynomial", "gaussian"] = "polynomial"
    mutation_rate: Share = 0.7
    mutation_eta: Rate = 15.0
    sigma: Rate = 0.1
    gene_rate: Share | None = None

    @property
    def foreign(self) -> bool:
        """Another package proposes them."""
        return self.strategy not in STRATEGIES

    @property
    def size(self) -> int:
        """Genomes of a generation of ours."""
        return 32 if self.population is None else self.population

    @property
    def genomes(self) -> int:
        """How many are evaluated."""
        return self.trials or self.size * self.generations


class GenomeTable(Section):
    """[genome]: the family of g, and its genes.

    Args:
        family: one of hil/search/families.py.
        terms: of a Fourier series.
        knots: of a spline.
        reach: of a spline, in units of the pre-activation.
        genes: name -> a value (fixed), [low, high] (free), or a list of texts (free, one of them).
    """

    family: str = "fourier"
    terms: Annotated[int, Field(ge=1, le=32)] = 4
    knots: Annotated[int, Field(ge=3, le=64)] = 9
    reach: Rate = 3.0
    genes: dict[str, Any] = Field(default_factory=dict)


class LessonTable(Section):
    """[train]: how long a candidate is trained, and on what.

    Args:
        epochs: of a training.
        repeats: seeds a genome and generation.
        seeds: of each generation "fresh" ones, or the "same" for all; None: "fresh" for a feedback, "same" for settings.
        examples: to train on; None: all that are left.
        score: examples that the accuracy is measured on.
        held: examples that only the confirmation sees.
    """

    epochs: Count = 4
    repeats: Count = 1
    seeds: Literal["fresh", "same"] | None = None
    examples: Count | None = None
    score: Count = 300
    held: Count = 300


class EvaluateTable(Section):
    """[evaluate]: who trains the candidates.

    Args:
        by: "population", many at once on a twin, or "one", the ordinary loop; None: "population" for a feedback, "one" for
            settings.
        workers: processes; 0: one a core.
        chunk: candidates that go out together; None: 16 of a population or of a race, else 1.
        device: of torch.
        join_s: how long a cluster without any worker is waited for.
    """

    by: Literal["population", "one"] | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    chunk: Count | None = None
    device: str = "cpu"
    join_s: Rate = 600.0


class RaceTable(Section):
    """[race]: the worst candidates of a generation are stopped early; rivals are those of a chunk.

    Args:
        epochs: after which each rung is judged, rising, fewer than [train] epochs.
        keep: share of the rivals that go on after each rung.
    """

    epochs: Annotated[tuple[Count, ...], Field(min_length=1)]
    keep: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.5,)


class HalvingTable(Section):
    """[halving]: longer trainings for fewer candidates.

    Args:
        epochs: of each rung.
        keep: candidates that enter each rung.
        repeats: seeds a candidate and rung.
    """

    epochs: Annotated[tuple[Count, ...], Field(min_length=1)]
    keep: Annotated[tuple[Count, ...], Field(min_length=1)]
    repeats: Count = 1


class ConfirmTable(Section):
    """[confirm]: the winner on fresh seeds and held examples, beside rivals.

    Args:
        seeds: how many.
        candidates: best ones of the search.
        random: rivals drawn at random: Fourier series, or points of [search.space].
        hand_made: also those of hil/search/hand_made.py; of settings, those of the base.
        epochs: of a training; None: as in [train].
    """

    seeds: Annotated[int, Field(ge=2)] = 10
    candidates: Count = 4
    random: Annotated[int, Field(ge=0)] = 9
    hand_made: bool = True
    epochs: Count | None = None


class BenchStage(Section):
    """[bench]: the best candidates on a bench.

    Args:
        device: as [device] of an experiment.
        encode: as [encode]; None: the base's.
        top: candidates from the front.
        spread: others, from the whole range of accuracy.
        seeds: how many.
        epochs: of a training; None: as in [train].
        budget_passes: node evaluations that may be spent; None: no limit.
        budget_h: hours that may be spent; None: no limit.
    """

    device: DeviceTable
    encode: EncodeTable | None = None
    top: Count = 3
    spread: Annotated[int, Field(ge=0)] = 2
    seeds: Count = 1
    epochs: Count | None = None
    budget_passes: Count | None = None
    budget_h: Rate | None = None


class SearchFile(Section):
    """A whole search file.

    Args:
        base: the experiment that every candidate is trained by; beside this file, or in a folder above it.
        name: of the run folder; empty: the name of the file.
        seed: of everything.
        set: changes of the base, "section.key=value".
        search: how genomes are proposed.
        genome: the family of g, and its genes.
        train: how long a candidate is trained, and on what.
        evaluate: who trains the candidates.
        others: settings of other devices of the same kind, for "robustness".
        race: the worst of a generation are stopped early; none: all are trained to the end.
        halving: longer trainings for fewer; none: none.
        confirm: the winner on fresh seeds.
        bench: the best candidates on a bench; none: on the twin alone.
        slurm: settings of dask_jobqueue.SLURMCluster, for --cluster slurm:N.
    """

    base: str
    name: str = ""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    set: tuple[str, ...] = ()
    search: SearchTable = Field(default_factory=SearchTable)
    genome: GenomeTable = Field(default_factory=GenomeTable)
    train: LessonTable = Field(default_factory=LessonTable)
    evaluate: EvaluateTable = Field(default_factory=EvaluateTable)
    others: tuple[dict[str, Any], ...] = ()
    race: RaceTable | None = None
    halving: HalvingTable | None = None
    confirm: ConfirmTable = Field(default_factory=ConfirmTable)
    bench: BenchStage | None = None
    slurm: dict[str, Any] = Field(default_factory=dict)
    _file: Path = PrivateAttr(default=Path("search.toml"))

    @property
    def file(self) -> Path:
        """Path that it was read from."""
        return self._file

    @property
    def by_population(self) -> bool:
        """Many candidates are trained at once, on a twin."""
        return self.evaluate.by == "population" or (self.evaluate.by is None and not self.search.space)

    @property
    def fresh_seeds(self) -> bool:
        """Each generation has seeds of its own."""
        return self.train.seeds == "fresh" or (self.train.seeds is None and not self.search.space)

    @property
    def chunk(self) -> int:
        """Candidates that go out together."""
        return self.evaluate.chunk or (16 if self.by_population or self.race is not None else 1)


def read_search(path: Path) -> SearchFile:
    """The search in `path`.

    Raises:
        ConfigError: names file, table, key, what was found and what is allowed.
    """
    table = read_toml(path)
    of_kind(table, "search", path)
    file = checked(SearchFile, table, str(path))
    file._file = path
    rules = (
        (
            "[search] population",
            file.search.population,
            file.search.foreign or file.search.size >= 4,
            "4 or more, of genetic, random and cma",
        ),
        (
            "[search] elites",
            file.search.elites,
            file.search.strategy != "genetic" or file.search.elites < file.search.size,
            "fewer than the population",
        ),
        (
            "[search] generator, random_first",
            f'strategy = "{file.search.strategy}" with settings of another generator',
            file.search.foreign or not (file.search.generator or file.search.random_first),
            'strategy = "module:Class" with them',
        ),
        (
            "[search] trials",
            f'strategy = "{file.search.strategy}" without a number of trials',
            not file.search.foreign or file.search.trials is not None,
            "trials = 40, or another number",
        ),
        (
            "[search.space]",
            "[genome] beside it",
            not file.search.space or file.genome.model_dump() == GenomeTable().model_dump(),
            "the settings of [search.space], or the genes of a feedback: two searches",
        ),
        (
            "[search.space]",
            "[bench] beside it",
            not file.search.space or file.bench is None,
            "a base whose [device] names the bench: its settings are searched there",
        ),
        (
            "[evaluate] by",
            '"population" with [search.space]',
            not (file.search.space and file.by_population),
            '"one", or nothing',
        ),
        (
            "[halving] keep",
            None if file.halving is None else list(file.halving.keep),
            file.halving is None or _falls(file.halving),
            "as many as epochs, fewer and fewer",
        ),
        (
            "[race] epochs, keep",
            None if file.race is None else f"{list(file.race.epochs)}, {list(file.race.keep)}",
            file.race is None or _rises(file.race, file.train.epochs),
            f"rising epochs below {file.train.epochs}, the epochs of [train], and a share to keep for each",
        ),
        (
            "[evaluate] chunk",
            "1 with a [race]",
            file.race is None or file.chunk > 1,
            "2 or more, as the rivals of a race are the candidates of a chunk",
        ),
        (
            "[search] objectives",
            "robustness without [[others]]",
            "robustness" not in file.search.objectives or bool(file.others),
            "other devices in [[others]]",
        ),
        (
            "[search] objectives",
            "steps or passes without a target",
            file.search.target is not None or not {"steps", "passes"} & set(file.search.objectives),
            "target = an accuracy",
        ),
    )
    for place, got, good, allowed in rules:
        if not good:
            raise ConfigError("makes no sense", where=f"{path}: {place}", got=str(got), allowed=allowed, outputs=UNTOUCHED)
    return file


def base_experiment(file: SearchFile, path: Path) -> Experiment:
    """The experiment that the search is based on. Raises: ConfigError."""
    return read_experiment(find(file.base, path), file.set)


def _rises(table: RaceTable, most: int) -> bool:
    rungs = (*table.epochs, most)
    return len(table.keep) == len(table.epochs) and all(a < b for a, b in pairwise(rungs))


def _falls(table: HalvingTable) -> bool:
    return len(table.keep) == len(table.epochs) and all(a > b for a, b in zip(table.keep, table.keep[1:], strict=False))
