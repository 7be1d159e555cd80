"""A genetic algorithm over the trained parameters: a population whose fitness is measured on the device.

    generation   the elites, and children: parents by tournament, crossover and mutation by DEAP's operators
    fitness      minus the loss of the batch of the step; of an elite, its mean over all its generations
    m            the best of the generation: the weights of the network

Each genome is searched inside bounds: what is programmed on a device in -1 to 1, a weight of the host in -reach to reach. The
first generation is the network as it was made, and genomes drawn from all of the space. The first `on_twin` generations are
judged by a model of the node, which asks no device.

The direction given to the optimiser is minus the move to m, so that [optimizer] use = "SGD", lr = 1 makes that move, and no
other does: an experiment with another is refused.

Sources: Chen et al., Nature 577, 341 (2020), control voltages of a dopant network found by a genetic algorithm; Deb & Agrawal,
Complex Syst. 9, 115 (1995) (crossover); Deb & Goyal, Comput. Sci. Inform. 26, 30 (1996) (mutation). Our reading: tournaments,
and elites whose mean is kept, as the batches of two generations differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hil.errors import UNTOUCHED, ConfigError
from hil.learner import Programs
from hil.learners.dfa import needed
from hil.learners.parts.one_pass import OnePass
from hil.learners.parts.probe import Probe, split, trained
from hil.network import Network
from hil.search.breeding import Individual, Operators, child, keyed, selected
from hil.settings import Count, Natural, Positive, Share, check
from hil.task import Loss, LossName, Task, as_task


@dataclass(frozen=True)
class GeneticSettings:
    """[learner] of an experiment.

    Args:
        population: genomes of every step, each costs a pass.
        elites: of these, kept and measured again.
        reach: bound of each weight of the host.
        tournament: contestants of a selection.
        crossover_rate, mutation_rate: how often each happens to a child.
        crossover_eta, mutation_eta: larger stays closer to the parents.
        gene_rate: share of the parameters that a mutation moves; left out: one of them on average.
        on_twin: generations at the beginning that a model of the node judges.
        loss: "cross_entropy" or "mse"; left out: that of the task.
    """

    population: Annotated[int, Field(ge=4)] = 24
    elites: Count = 3
    reach: Positive = 3.0
    tournament: Count = 3
    crossover_rate: Share = 0.9
    crossover_eta: Positive = 5.0
    mutation_rate: Share = 0.9
    mutation_eta: Positive = 10.0
    gene_rate: Share | None = None
    on_twin: Natural = 0
    loss: LossName | None = None

    def __post_init__(self) -> None:
        check(self, "[learner]")
        if self.elites >= self.population:
            raise ConfigError(
                "a generation of elites alone has no children", where="[learner] elites", got=str(self.elites),
                allowed=f"below population = {self.population}", outputs=UNTOUCHED, todo="lower elites, or raise population",
            )  # fmt: skip

    @property
    def programs(self) -> Programs:
        """The first generations need the twin with anything programmed on it."""
        return "model" if self.on_twin else "losses"

    def operators(self) -> Operators:
        """How children are made."""
        return Operators(
            self.tournament, crossover_rate=self.crossover_rate, crossover_eta=self.crossover_eta,
            mutation_rate=self.mutation_rate, mutation_eta=self.mutation_eta, gene_rate=self.gene_rate,
        )  # fmt: skip


class Genetic(OnePass):
    """The genetic learner.

    Args:
        start: genome of the network as it was made, (n,), shares of the bounds.
        reach: bound of each parameter, (n,).
        settings: as in an experiment.
        outputs: of the network.
        loss: of the task.
        rng: draws the first generation.
        model: of the node, (drive, levels) -> reading; None: no generation is judged by it.

    State: the buffers `population` (P, n), the next generation as shares, 0 to 1, of the bounds; `losses` (P,), their mean
    losses so far, `seen` (P,), over so many generations; `generation`.
    """

    Settings: ClassVar[type[GeneticSettings]] = GeneticSettings
    programs: ClassVar[Programs] = "losses"
    moved_by: ClassVar[Mapping[str, object]] = {"use": "SGD", "lr": 1.0}
    reach: Tensor
    population: Tensor
    losses: Tensor
    seen: Tensor
    generation: Tensor

    def __init__(
        self, start: Tensor, reach: Tensor, settings: GeneticSettings, outputs: int, loss: Loss, rng: torch.Generator,
        model: Callable[..., Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.settings, self.outputs, self.loss, self.model = settings, outputs, loss, model
        population = torch.rand(settings.population, len(start), generator=rng)
        population[0] = start
        self.register_buffer("reach", reach, persistent=False)
        self.register_buffer("population", population)
        self.register_buffer("losses", torch.zeros(settings.population, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(settings.population, dtype=torch.int64))
        self.register_buffer("generation", torch.tensor(0))

    @classmethod
    def build(
        cls, net: Network, settings: GeneticSettings, task: Task | int, rng: torch.Generator,
        model: Callable[..., Tensor] | None = None,
    ) -> Genetic:  # fmt: skip
        """Build it from settings.

        Raises:
            ConfigError: generations on a twin, and there is no model of the node.
        """
        asked, on_devices = as_task(task), {id(params) for params in net.programmed}
        weights = trained(net)
        reach = torch.cat([
            torch.full((weight.numel(),), 1.0 if id(weight) in on_devices else settings.reach) for weight in weights
        ])  # fmt: skip
        flat = torch.cat([weight.detach().flatten() for weight in weights]).cpu()
        start = ((flat / reach + 1) / 2).clamp(0, 1)
        judge = needed(model, "genetic with on_twin") if settings.on_twin else None
        return cls(start, reach, settings, asked.outputs, asked.lowered(settings.loss), rng, judge)

    @torch.no_grad()
    def step(self, net: Network, x: Tensor, label: Tensor, rng: torch.Generator) -> Mapping[str, float]:
        """Measure a generation, a pass for each genome, then fill every `.grad`: minus the move to the best; breed the next.

        Returns:
            "loss", "accuracy", "overflow", means over all passes; "best": mean loss of the best.
        """
        net.train()
        net.zero_grad(set_to_none=True)
        on_twin, begins = int(self.generation) < self.settings.on_twin, int(self.generation) == self.settings.on_twin
        if begins:
            self.seen.zero_()  # what the twin said of the elites is not what the device says
        values = (2 * self.population - 1) * self.reach
        with Probe(net, x, label, self.outputs, self.loss, self.model if on_twin else None) as probe:
            shapes = [weight.shape for weight in probe.weights]
            found = torch.tensor([probe.loss_at(split(one, shapes)) for one in values], dtype=torch.float64)
        self.losses.copy_((self.losses * self.seen + found.to(self.losses)) / (self.seen + 1))
        self.seen += 1
        self.generation += 1
        ranked = sorted(range(len(values)), key=self.losses.tolist().__getitem__)  # stable: the earlier wins a tie
        best = float(self.losses[ranked[0]])
        for weight, wanted in zip(probe.weights, split(values[ranked[0]], shapes), strict=True):
            weight.grad = weight.detach() - wanted
        self._breed(ranked, rng)
        return {**probe.metrics, "best": best}

    def _breed(self, ranked: list[int], rng: torch.Generator) -> None:
        """Put the elites and their children in the place of the population.

        Args:
            ranked: numbers of the genomes, the best first.
            rng: of the step.
        """
        number = int(torch.randint(2**62, (), generator=rng, device=rng.device))
        operators, losses = self.settings.operators(), self.losses.tolist()
        parents = [Individual(tuple(row), (-loss,)) for row, loss in zip(self.population.tolist(), losses, strict=True)]
        elites = ranked[: self.settings.elites]
        with keyed(number, 0, "breeding"):
            children = []
            for _ in range(len(parents) - len(elites)):
                mother, father = selected(parents, 2, operators.tournament)
                children.append(child(mother.shares, father.shares, operators))
        kept = self.population[elites]
        self.population.copy_(torch.cat([kept, torch.tensor(children).to(kept)]))
        for of in (self.losses, self.seen):
            before = of[elites]
            of.zero_()
            of[: len(elites)] = before
