"""Data, course, trainers, evaluators and strategy of a search, from its file.

What every candidate is trained by stands in the run folder's config.toml, complete, with the decoding that was measured once.
A worker builds its trainer from the texts of config.toml and search.toml, so it may be another process or another machine. What
is searched is a feedback, or settings of the experiment and of its bench: see operating_point.py.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from hil import toml
from hil.build import stand_in
from hil.build.network import chain_of
from hil.build.operating_point import Tables, check_ends
from hil.build.optimizing import optimiser, plan_of, schedule_of
from hil.build.prepared import dataset
from hil.build.task import as_examples, task_for
from hil.build.training import Built, built, elsewhere
from hil.config.bench import BenchFile
from hil.config.device import DeviceTable
from hil.config.experiment import Experiment, experiment_of
from hil.config.read import checked, dump
from hil.config.resolve import STRATEGIES, UNTOUCHED, keeps, resolve
from hil.config.search import SearchFile, SearchTable
from hil.data.dataset import Dataset
from hil.devices.meter import Allow, no_budget
from hil.errors import ConfigError
from hil.files import loads
from hil.foreign import foreign
from hil.learners.adfa import ADFA, read_feedback
from hil.learners.adfa_snn import ADFASNN
from hil.search.batched_trainer import Course, TwinPopulation
from hil.search.breeding import Operators
from hil.search.cluster import Cluster
from hil.search.evaluator import Evaluator, Here, Stop, read_jobs, said
from hil.search.families import FAMILIES
from hil.search.generator import Generator
from hil.search.genetic import Genetic
from hil.search.genome import redundant, space, stem
from hil.search.gest import Foreign
from hil.search.jobs import Job, Objective, OperatingPoint, Recipe, Trainer
from hil.search.loop import SearchPlan
from hil.search.operating_point import OperatingSpace, operating_space
from hil.search.plain_trainer import Candidate, OneByOne
from hil.search.pool import Pool
from hil.search.racing import Race
from hil.search.random_and_cma import CMA, IPOP, Random
from hil.search.space import Genome, Problem, Space, Value
from hil.search.splits import carved
from hil.task import LossName, Task
from sim_devices.twin import Twin

Place = Literal["twin", "bench"]
OF_HOST = ("distribution", "rank", "sparsity")  # of matrices that the host draws
SCALE_FREE = ("Adam", "AdamW", "NAdam", "Adamax", "RMSprop", "Adagrad", "Rprop")


@dataclass(frozen=True)
class SearchBuilder:
    """Builder of all that is needed to train candidates.

    Args:
        file: the search.
        experiment: its base, complete.
        bench: of the stage [bench], a run folder's copy, or None.
    """

    file: SearchFile
    experiment: Experiment
    bench: BenchFile | None = None

    @classmethod
    def of(cls, text: str) -> SearchBuilder:
        """The inverse of `text`."""
        table = loads(text, "a search")
        file, path, near = toml.loads(table["search"]), Path(table["file"]), Path(table["near"])
        return cls(checked(SearchFile, file, str(path)), experiment_of(toml.loads(table["experiment"]), path, near))

    def text(self) -> str:
        """Write all that a worker needs that trains on the twin."""
        near = self.experiment.near.resolve()
        return json.dumps(
            {"search": dump(self.file), "experiment": dump(self.experiment), "file": str(near), "near": str(near)}
        )

    def data(self) -> Dataset:
        """Read once. Raises: ConfigError, DataError."""
        return self._data

    @cached_property
    def _data(self) -> Dataset:
        return self._carved(self.experiment)

    def _carved(self, experiment: Experiment) -> Dataset:
        table = self.file.train
        whole = experiment.data.model_copy(update={"train_examples": None})
        # Sequences are split as sequences: the steps of one are never both learned from and judged by.
        return as_examples(carved(dataset(whole), table.examples, table.score, table.held), experiment.learner)

    @cached_property
    def task(self) -> Task:
        """The task that the candidates learn. Raises: ConfigError, DataError."""
        return task_for(self.experiment.task, self.experiment.learner, self._data)

    def base(self) -> Recipe:
        """The feedback and the rate that the experiment has without a search.

        Raises:
            ConfigError: its learner has no feedback, or it is trained in a way that a search does not know.
        """
        learner = self.experiment.learner
        feedback = getattr(learner.options, "feedback", None)
        if feedback is None:
            raise ConfigError(
                "this learner has no feedback to be searched", where=learner.place, got=learner.use,
                allowed="adfa, adfa_snn, or another with a setting feedback", outputs=UNTOUCHED,
            )  # fmt: skip
        if stand_in.asked(self.experiment):
            raise ConfigError(
                "a feedback is searched for a node, not for what takes its place", where=self.experiment.device.place,
                got="instead", allowed="a base without it", outputs=UNTOUCHED, todo="remove instead from the base",
            )  # fmt: skip
        drawn = [name for name in self.file.genome.genes if stem(name) in OF_HOST]
        if self.experiment.projection is not None and drawn:
            raise ConfigError(
                "a device that projects has its own matrices B", where=f"{self.file.genome.place} genes",
                got=", ".join(drawn), allowed="the other genes, with [projection]", outputs=UNTOUCHED,
                todo="remove these genes, or [projection] from the base",
            )  # fmt: skip
        self._check_trained_alike()
        return Recipe(read_feedback(feedback), self.experiment.optimizer.lr)

    def _check_trained_alike(self) -> None:
        """Refuse what a base asks of a training that a search decides itself. Raises: ConfigError."""
        train = self.experiment.train
        own = {"patience": train.patience, "from": train.start_from, "budget_passes": train.budget_passes}
        found = [f"{name} = {value}" for name, value in own.items() if value is not None]
        if found:
            raise ConfigError(
                "a search trains every candidate from its first weights, and says itself how long", where=train.place,
                got=", ".join(found), allowed=f"a base without {', '.join(own)}", outputs=UNTOUCHED,
                todo="remove them from the base",
            )  # fmt: skip

    def space(self, data: Dataset) -> Space:
        """Return what is searched.

        Raises:
            ConfigError: a gene or a setting that makes no sense.
        """
        written = self.file.search.space
        if written:
            self._check_trained_alike()
            found = operating_space(written, f"{self.file.search.place[:-1]}.space]")
            check_ends(self._tables, found, data)
            return found
        return self._feedback_space(data)

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self.experiment, f"{self.file.search.place[:-1]}.space]")

    def with_settings(self, settings: Mapping[str, Any]) -> Experiment:
        """Return the base with other settings. Raises: ConfigError: the checker of the files refuses it."""
        return self._tables.experiment(settings)

    def check(self, found: Space, genome: Genome, name: str) -> None:
        """Refuse a point of [search.space] that the checker of the files refuses, before it is trained.

        Args:
            found: the space.
            genome: the point.
            name: what it is called in messages.

        Raises:
            ConfigError: names the point and the key.
        """
        if isinstance(found, OperatingSpace):
            settings = found.recipe(genome).settings
            self._tables.check(settings, name, None if _of_data(settings) else self._data)

    def _feedback_space(self, data: Dataset) -> Space:
        table, base = self.file.genome, self.base()
        found = base.feedback.to_table()
        otherwise: dict[str, Value] = {"lr": base.lr}
        layers = len(chain_of(self.experiment.network, self.experiment.seed, data).hidden)
        for name in ("distribution", "scale", "rank", "sparsity"):
            value: Any = found.get(name)
            if isinstance(value, list):
                otherwise |= {f"{name}_{layer}": each for layer, each in enumerate(value, 1)}
            elif value is not None:
                otherwise[name] = value
        where = self.file.genome.place
        genes = {name: entry for name, entry in table.genes.items() if name not in self.left_out}
        return space(table.family, genes, otherwise, layers, table.terms, table.knots, table.reach, where)

    @cached_property
    def left_out(self) -> tuple[str, ...]:
        """The free genes that are not searched, because the steps of the optimiser do not depend on them.

        Both learners of aDFA move a hidden layer by e B * g alone, so this holds for an optimiser whose steps do not change if
        the gradient of a parameter is multiplied by a number. A weight decay that is added to the gradient, and a limit on the
        norm of all gradients, do depend on it.
        """
        table = self.experiment.optimizer
        options = table.choice.settings
        coupled = options.get("weight_decay", 0) and table.use != "AdamW" and not options.get("decoupled_weight_decay", False)
        if (
            table.use not in SCALE_FREE or coupled or options.get("initial_accumulator_value", 0)
            or self.experiment.train.clip_norm is not None or self.experiment.learner.rule not in (ADFA, ADFASNN)
        ):  # fmt: skip
            return ()
        return tuple(redundant(self.file.genome.genes))

    def trainer(self, place: Place = "twin", stop: Stop = lambda: "", allow: Allow = no_budget) -> Trainer:
        """Return what trains the candidates at `place`.

        Args:
            place: on a twin, or on the bench of the stage [bench].
            stop: as in OneByOne.
            allow: of the bench, as in Metered.

        Raises:
            ConfigError: a population is not what this experiment can be trained as.
        """
        data, target = self.data(), self.file.search.target
        if place == "bench" or not self.file.by_population:
            return OneByOne(lambda job: self.candidate(job, data, place, allow), target, stop, self.race)
        return TwinPopulation(self.course(data), self.file.evaluate.device)

    def course(self, data: Dataset) -> Course:
        """Return what the candidates of a population share.

        Raises:
            ConfigError: another learner than aDFA, a network that is not linear, or a node that is no twin or limits steps.
        """
        experiment, device, learner = self.experiment, self.experiment.device, self.experiment.learner
        if learner.rule is not ADFA or device.kind != "twin" or experiment.optimizer.use not in ("Adam", "AdamW", "SGD"):
            raise self._one_by_one(
                "a population is trained by aDFA on a twin, with Adam, AdamW or SGD",
                f"{learner.use}, device {device.use or 'no twin'}, {experiment.optimizer.use}",
            )
        train, loss, plan = experiment.train, self.task.lowered(learner.options.loss), plan_of(experiment, data.shape)
        more = {
            f"[schedule] {experiment.schedule.use}": experiment.schedule.scored,
            f"[train] accumulate = {train.accumulate}": train.accumulate > 1,
            f"[train] clip_norm = {train.clip_norm}": train.clip_norm is not None,
            "[train] class_weights": train.class_weights is not None,
            f"the loss {loss.name}": loss.function is not None,
            'readout = "ridge"': learner.refit,
            "[projection]": experiment.projection is not None,
        }
        if any(more.values()):
            raise self._one_by_one(
                "a population takes plain steps, by a loss and at rates that it knows beforehand",
                ", ".join(name for name, asked in more.items() if asked),
            )
        self._linear(experiment.seed)  # refused here, not in a worker
        with built(experiment, given=data) as made:
            layer = made.training.net.stack[0]
        assert layer.encode is not None  # a layer with a node has one
        twins = [_twin(device.changed(**other)) for other in ({}, *self.file.others)]
        if twins[0].spec.inputs.slews:
            raise self._one_by_one(
                "the steps of a population's drives are not watched",
                f"port {twins[0].spec.inputs.name}, whose steps are limited",
            )
        size = twins[0].spec.inputs.size
        widths = [synapse.out_features for synapse in self._linear(experiment.seed)[:-1]]
        if size is not None and any(width != size for width in widths):
            raise self._one_by_one(
                "a population does not share a twin of several channels in time", f"layers of {widths} on {size} channels",
                "layers as wide as the twin",
            )  # fmt: skip
        return Course(
            data, self._linear, twins[0], layer.encode, layer.decode, lambda groups: optimiser(experiment.optimizer, groups),
            lambda optimizer, epochs: schedule_of(
                experiment.schedule, optimizer, dataclasses.replace(plan, epochs=epochs), len(data.train), self.task.metric
            ), plan.batch,
            cast(LossName, loss.name), plan.augment, tuple(twins[1:]), self.file.search.target, self.task, self.race,
        )  # fmt: skip

    def model(self) -> Callable[[Tensor], Tensor]:
        """The twin's noiseless response, drive -> reading, for a report."""
        return _twin(self.experiment.device).ideal

    def _linear(self, seed: int) -> list[nn.Linear]:
        found = chain_of(self.experiment.network, seed, self._data).synapses
        linear = [synapse for synapse in found if type(synapse) is nn.Linear and synapse.bias is not None]
        if len(linear) < len(found):
            other = next(
                (type(synapse).__name__ for synapse in found if type(synapse) is not nn.Linear), "Linear without a bias"
            )
            raise self._one_by_one(
                "a population needs linear synapses with a bias", f"{other}, {self.experiment.network.place}", "widths = [...]"
            )
        return linear

    def _one_by_one(self, why: str, got: str, otherwise: str = "") -> ConfigError:
        """Say what a population is not trained by, and what else would be allowed besides the ordinary loop."""
        return ConfigError(
            why, where=f"{self.file.evaluate.place} by", got=got, allowed=f'by = "one"{otherwise and f"; {otherwise}"}',
            outputs=UNTOUCHED, todo='write by = "one" in [evaluate]',
        )  # fmt: skip

    @contextmanager
    def candidate(self, job: Job, data: Dataset, place: Place = "twin", allow: Allow = no_budget) -> Iterator[Candidate]:
        """The ordinary built experiment for a job; closed at the end."""
        experiment = self.asked(job, place)
        if isinstance(job.recipe, OperatingPoint) and _of_data(job.recipe.settings):
            data = self._carved(experiment)
        scored = data if job.split == "score" else dataclasses.replace(data, validation=data.test)
        with ExitStack() as stack:
            try:
                made = stack.enter_context(built(experiment, given=scored, allow=allow))
            except ConfigError as error:  # what only an instrument, simulated or real, knows to refuse
                if isinstance(job.recipe, OperatingPoint):
                    raise self._tables.named(error, f"job {job.key}", job.recipe.settings) from error
                raise
            others = tuple(
                elsewhere(made, experiment.model_copy(update={"device": experiment.device.changed(**other)}), stack)
                for other in (self.file.others if place == "twin" else ())
            )
            yield Candidate(made.training, others, made.labels.provenance)

    def asked(self, job: Job, place: Place = "twin") -> Experiment:
        """The experiment of a job. A setting that is searched stands over what the job says: its seed, its epochs."""
        base, stage = self.experiment, self.file.bench
        if isinstance(job.recipe, OperatingPoint):
            base = self._tables.experiment(job.recipe.settings)
            own = {"seed": job.seed, "train.epochs": job.epochs}
            given = {name: value for name, value in own.items() if name not in job.recipe.settings}
            train = {"threads": 1, **({"epochs": given["train.epochs"]} if "train.epochs" in given else {})}
            return base.model_copy(update={
                "train": base.train.model_copy(update=train), **({"seed": given["seed"]} if "seed" in given else {}),
            })  # fmt: skip
        changed: dict[str, Any] = {
            "seed": job.seed,
            "learner": base.learner.changed(feedback=job.recipe.feedback.to_table()),
            "optimizer": base.optimizer.model_copy(update={"lr": job.recipe.lr}),
            "train": base.train.model_copy(update={"epochs": job.epochs, "threads": 1}),
        }
        if place == "twin":
            return base.model_copy(update=changed)
        assert stage is not None  # who asks for the bench has one
        changed |= {"device": stage.device, "encode": stage.encode or base.encode, "decode": None}  # measured there, anew
        found = base.model_copy(update=changed)
        return found if self.bench is None else found.on_bench(self.bench, kept=True)

    def evaluator(self, cluster: str | None = None, stop: Stop = lambda: "", allow: Allow = no_budget) -> Evaluator:
        """Return who trains candidates: a cluster, processes of this machine, or this process, which alone has a bench.

        Args:
            cluster: as of `hil search`.
            stop: as in OneByOne.
            allow: of the bench, as in Metered.

        Raises:
            ConfigError: a cluster for a bench.
        """
        workers = self.file.evaluate.workers or os.cpu_count() or 1
        if cluster is not None and self.experiment.served:
            raise ConfigError(
                "a cluster has no bench", where=f"--cluster {cluster}", got="a base on a bench", allowed="no --cluster",
                outputs=UNTOUCHED, todo="leave --cluster out",
            )  # fmt: skip
        if cluster is not None:
            return Cluster(work, self.text(), cluster, self.file.slurm, stop, self.file.evaluate.join_s)
        if workers > 1 and self.file.evaluate.device == "cpu" and not self.experiment.served:
            return Pool(work, self.text(), workers, stop)
        return Here(self.trainer(stop=stop, allow=allow))

    def problem(self, found: Space) -> Problem:
        """Return what a generator is told of the search."""
        return Problem(found.dimensions, {one.name: "MINIMIZE" if one.sign < 0 else "MAXIMIZE" for one in self.objectives})

    def generator(self, found: Space) -> Generator:
        """Return who suggests the points.

        Raises:
            ConfigError: no such generator, or it does not take this search.
        """
        table, seed, problem = self.file.search, self.file.seed, self.problem(found)
        if table.strategy == "random":
            return Random(problem, seed, table.size)
        if table.strategy == "ipop":
            return IPOP(problem, seed)
        if table.strategy == "cma":
            return CMA(problem, seed, table.size)
        if table.strategy == "genetic":
            return Genetic(problem, seed, table.size, table.elites, _operators(table), found.canonical)
        place = f"{table.place} strategy"
        made = resolve(table.strategy, place, STRATEGIES)
        keeps(made, ("suggest", "ingest"), "a generator", table.strategy, place)
        first = Random(problem, seed, table.random_first).suggest() if table.random_first else []

        def make(**given: Any) -> Generator:  # whoever is made may keep its settings, or change them
            found: Generator = made(**copy.deepcopy(table.generator), **given)
            return found

        return Foreign(make, problem, seed, table.population, first, place)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Objectives of the search; the first decides where one must.

        A loss beyond twice that of the best constant answer counts as that.

        Raises:
            ConfigError: "loss" of a readout that is fitted at the end.
        """
        names = self.file.search.objectives
        if "loss" in names and self.experiment.learner.refit:
            raise ConfigError(
                "the loss is that of the readout before its fit", where=f"{self.file.search.place} objectives", got='"loss"',
                allowed='"accuracy" with readout = "ridge"', outputs=UNTOUCHED,
            )  # fmt: skip
        return tuple(Objective(name, 2 * self.task.guess(self._data.train.y)["loss"]) for name in names)

    @property
    def race(self) -> Race:
        """Return how candidates are stopped early: by their loss where that is the first objective, else by their merit."""
        table, first = self.file.race, self.objectives[0]
        by = first if first.name == "loss" else Objective("accuracy")
        return Race() if table is None else Race(table.epochs, table.keep, by)

    def plan(self) -> SearchPlan:
        """Return the size of the search."""
        file, table = self.file, self.file.search
        passes, hours = (
            (None, None) if self.experiment.served else (table.budget_passes, table.budget_h)
        )  # a bench has a ledger
        return SearchPlan(
            file.seed, table.genomes, file.train.epochs, file.train.repeats, file.chunk, passes, hours, file.race is not None,
            file.fresh_seeds,
        )  # fmt: skip

    def most_steps(self, data: Dataset) -> int:
        """Return the steps of a training of all epochs on `data`."""
        return self.file.train.epochs * math.ceil(len(data.train) / self.experiment.train.batch)


def completed(file: SearchFile, experiment: Experiment) -> Experiment:
    """The experiment with what is measured once for all candidates: the zero and scale of a reading."""
    if file.search.space or file.genome.family not in FAMILIES or experiment.device.chip is not None:
        return experiment  # of settings, each candidate measures its own
    with built(experiment, given=SearchBuilder(file, experiment).data()) as made:
        found: Built = made
        return found.experiment


def work(text: str, jobs: str) -> str:
    """Train jobs in a worker: jobs as JSON -> outcomes as JSON."""
    with foreign("a candidate", outputs="none; the node is a twin"):  # what another process raises must be known here
        return said(_trainer(text).train(read_jobs(jobs)))


@lru_cache(maxsize=2)
def _trainer(text: str) -> Trainer:
    """A worker trains many chunks of one search: files and data are read once."""
    return SearchBuilder.of(text).trainer()


def _of_data(settings: Mapping[str, Any]) -> bool:
    """True if settings change what is learned from."""
    return any(name.partition(".")[0] == "data" for name in settings)


def _twin(device: DeviceTable) -> Twin:
    assert device.choice is not None  # a population is trained on a twin
    twin: Twin = device.choice.build()
    return twin


def _operators(table: SearchTable) -> Operators:
    names = [field.name for field in dataclasses.fields(Operators)]
    return Operators(**{name: getattr(table, name) for name in names})
