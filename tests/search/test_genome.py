"""Genomes, DEAP's chance, strategies."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
import torch

from hil.errors import ConfigError
from hil.feedback.feedback import Feedback, Fourier, Shaped, Tabulated
from hil.search.archive import Archive
from hil.search.deap_random import keyed
from hil.search.genetic import Genetic, fronts
from hil.search.genome import Gene, Genome, Space, space
from hil.search.hypervolume import hypervolume
from hil.search.importance import LEAST, by_chance, importance
from hil.search.jobs import Objective, Outcome, Recipe
from hil.search.random_and_cma import CMA, IPOP, Random
from hil.search.strategy import Operators, Strategy

OTHERWISE = {"lr": 1e-3, "distribution": "uniform", "scale": 0.1, "sparsity": 0.0}


def made(kind: str = "fourier", **genes: object) -> Space:
    return space(kind, genes, OTHERWISE, layers=2)


def test_a_genome_means_a_recipe() -> None:
    found = made(
        offset=[-1.0, 1.0], lr=[1e-4, 1e-2], rank=[1, 10], distribution=["normal", "sign"], sparsity=[0.0, 0.5], clip=2.0
    )
    names = [gene.name for gene in found.genes]
    shares = dict.fromkeys(names, 0.5) | {"sin1": 1.0, "offset": 0.75, "rank": 1.0, "distribution": 0.99}
    recipe = found.recipe(Genome(tuple(shares[name] for name in names)))
    assert recipe.lr == pytest.approx(1e-3)
    assert recipe.feedback.rank == 10
    assert recipe.feedback.distribution == "sign"
    assert recipe.feedback.sparsity == pytest.approx(0.25)
    g = recipe.feedback.g
    assert isinstance(g, Shaped)
    assert (g.offset, g.clip) == (0.5, 2.0)
    assert isinstance(g.of, Fourier)
    assert (g.of.sin, g.of.cos) == ((1.0, 0.0, 0.0, 0.0), (0.0,) * 4)
    assert Recipe.of(recipe.table()) == recipe


def test_a_layer_may_have_genes_of_its_own() -> None:
    found = made(scale_2=[0.01, 1.0], rank_1=1, rank_2=[1, 4])
    recipe = found.recipe(Genome((0.5,) * len(found.genes)))
    assert recipe.feedback.scale == pytest.approx((0.1, 0.1))
    assert recipe.feedback.rank == (1, 3)
    shapes = [b.shape for b in recipe.feedback.matrices([6, 5], 4, torch.Generator().manual_seed(0))]
    assert shapes == [(6, 4), (5, 4)]


@pytest.mark.parametrize("kind", ["fourier", "sine", "box", "gaussian", "spline"])
def test_every_corner_of_every_family_is_a_feedback(kind: str) -> None:
    found = made(kind, amplitude=[0.1, 10.0], clip=[0.2, 5.0])
    for share in (0.0, 0.5, 1.0):
        feedback = found.recipe(Genome((share,) * len(found.genes))).feedback
        assert Feedback.from_table(feedback.to_table()) == feedback
        assert torch.isfinite(feedback.g(torch.linspace(-5, 5, 50))).all()


def test_a_spline_goes_through_its_knots() -> None:
    found = space("spline", {}, OTHERWISE, 1, knots=5, reach=2.0)
    shares = (0.0, 1.0, 0.5, 0.75, 0.25)
    g = found.recipe(Genome(shares)).feedback.g
    assert isinstance(g, Tabulated)
    assert g(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == pytest.approx([2 * share - 1 for share in shares], abs=1e-6)


def test_equal_shares_for_choices_and_whole_numbers() -> None:
    shares = np.linspace(0, 1, 1201)
    for gene, count in ((Gene("distribution", choices=("normal", "sign", "uniform")), 3), (Gene("rank", 1, 4), 4)):
        _, times = np.unique([gene.value(float(share)) for share in shares], return_counts=True)
        assert len(times) == count
        assert np.ptp(times) <= 2


@pytest.mark.parametrize(
    ("genes", "said"),
    [
        ({"ofset": [0.0, 1.0]}, "offset"),
        ({"lr": [1e-2, 1e-3]}, "not a range"),
        ({"lr": [0.0, 1e-3]}, "logarithmic"),
        ({"offset": [0.0, float("nan")]}, "not a range"),
        ({"scale_3": 0.1}, "unknown gene"),
    ],
)
def test_wrong_genes_are_refused(genes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        made(**genes)
    assert said in str(error.value)


def test_the_global_generators_are_given_back() -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    with keyed(0, 1, "x"):
        inside = random.random(), np.random.rand()  # noqa: NPY002
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002
    with keyed(0, 1, "x"):
        assert (random.random(), np.random.rand()) == inside  # noqa: NPY002
    before = random.getstate()
    with pytest.raises(ZeroDivisionError), keyed(0, 1, "x"):
        random.choice([0]) / 0
    assert random.getstate() == before


def climb(strategy: Strategy, generations: int = 15) -> tuple[float, list[list[Genome]]]:
    """The best of -|x - 0.7|^2, and everything asked."""
    best, asked = -math.inf, []
    for number in range(generations):
        genomes = strategy.ask(number)
        worth = {genome: (-sum((x - 0.7) ** 2 for x in genome.numbers),) for genome in genomes}
        strategy.tell(number, worth)
        best = max(best, *(value for (value,) in worth.values()))
        asked.append(genomes)
    return best, asked


def test_both_climb_better_than_chance_and_always_the_same() -> None:
    found = made(offset=[-1.0, 1.0])
    makers = {
        "genetic": lambda seed: Genetic(found, seed, 20, 2, Operators()),
        "cma": lambda seed: CMA(found, seed, 20),
        "ipop": lambda seed: IPOP(found, seed),
        "random": lambda seed: Random(found, seed, 20),
    }
    best = {name: [climb(make(seed))[0] for seed in range(3)] for name, make in makers.items()}
    assert min(best["genetic"]) > max(best["random"])
    assert min(best["cma"]) > max(best["random"])
    assert min(best["ipop"]) > max(best["random"])  # with half the evaluations
    for make in makers.values():
        random.seed(1)
        first = climb(make(4))[1]
        random.seed(2)
        np.random.seed(7)  # noqa: NPY002
        assert climb(make(4))[1] == first
        assert climb(make(5))[1] != first
        assert all(0 <= x <= 1 for genomes in first for genome in genomes for x in genome.numbers)


def test_cma_begins_anew_with_twice_as_many_where_it_has_nothing_more_to_learn() -> None:
    found, rng = made("sine", offset=[-1.0, 1.0]), np.random.default_rng(0)
    for worth in (lambda genome: -sum((x - 0.7) ** 2 for x in genome.numbers), lambda genome: float(rng.random())):
        strategy, sizes = IPOP(found, 0), []
        for number in range(120):
            genomes = strategy.ask(number)
            sizes.append(len(genomes))
            strategy.tell(number, {genome: (worth(genome),) for genome in genomes})
            if sizes[-1] == 28:
                break
        assert list(dict.fromkeys(sizes))[:3] == [7, 14, 28]
        assert strategy.restarts >= 2
    strategy, centre = IPOP(found, 0), []
    for number in range(2):  # a generation that the budget cut teaches nothing
        genomes = strategy.ask(number)
        strategy.tell(number, dict.fromkeys(genomes[:3], (0.0,)))
        centre.append(strategy._strategy.centroid.tolist())
    assert centre == [[0.5] * 3] * 2


def test_elites_come_again_and_a_lucky_one_is_found_out() -> None:
    strategy = Genetic(made(), 0, 8, 2, Operators())
    first = strategy.ask(0)
    worth = {genome: (float(place),) for place, genome in enumerate(first)}
    strategy.tell(0, worth)
    second = strategy.ask(1)
    assert second[:2] == [first[7], first[6]]
    strategy.tell(1, {genome: (-5.0 if genome == first[7] else 1.0,) for genome in second})
    assert first[7] not in strategy.ask(2)[:2]


def test_several_objectives_keep_a_front() -> None:
    strategy = Genetic(made("gaussian"), 0, 16, 4, Operators())
    for number in range(12):
        genomes = strategy.ask(number)
        strategy.tell(
            number, {genome: (genome.numbers[0], 1 - genome.numbers[0] - genome.numbers[1] ** 2) for genome in genomes}
        )
    last = [genome.numbers for genome in strategy.ask(12)[:4]]
    assert max(y for _, y in last) < 0.05  # the front is where the second gene is 0
    assert max(x for x, _ in last) - min(x for x, _ in last) > 0.5  # and all along the first
    assert fronts([(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.4, 0.4)]) == [0, 1, 2]


def test_a_function_and_its_negative_are_one_genome() -> None:
    pre, rng = torch.linspace(-3, 3, 41), np.random.default_rng(0)
    for kind, more in (("fourier", {}), ("spline", {"offset": [-0.5, 0.5]}), ("sine", {"offset": [-0.5, 0.5]})):
        found = made(kind, **more)
        for _ in range(20):
            genome = Genome(tuple(rng.random(len(found.genes)).tolist()))
            stands = found.canonical(genome)
            assert found.canonical(stands) == stands
            mine, other = found.recipe(genome).feedback.g(pre), found.recipe(stands).feedback.g(pre)
            sign = 1.0 if stands == genome else -1.0
            torch.testing.assert_close(other, sign * mine, atol=1e-5, rtol=1e-4)
        asked = Genetic(found, 0, 12, 2, Operators()).ask(0)
        assert all(found.canonical(genome) == genome for genome in asked)
    for lone in (made("fourier", offset=[0.0, 1.0]), made("sine", phase=[0.0, 1.0]), made("spline", y3=0.5), made("gaussian")):
        low = Genome((0.1,) * len(lone.genes))
        assert lone.canonical(low) == low  # -g is not in the space


def test_importance_finds_the_gene_that_mattered() -> None:
    found, rng = made("sine"), np.random.default_rng(0)
    genomes = [Genome(tuple(rng.random(2))) for _ in range(200)]
    values = importance(found, genomes, [(genome.numbers[1] - 0.5) ** 2 for genome in genomes])
    assert next(iter(values)) == "phase"
    assert values["phase"] > 0.7
    assert values["frequency"] < 0.1


def test_importance_needs_enough_genomes_and_chance_stays_below_what_is_drawn_for_it() -> None:
    found, rng = made("sine"), np.random.default_rng(1)
    few = [Genome(tuple(rng.random(2))) for _ in range(LEAST - 1)]
    assert importance(found, few, list(rng.random(len(few)))) == {}
    drawn = []
    for _ in range(100):
        genomes = [Genome(tuple(rng.random(2))) for _ in range(LEAST)]
        drawn += importance(found, genomes, list(rng.random(LEAST))).values()
    assert 0.02 < np.mean(np.array(drawn) > by_chance(LEAST)) < 0.25  # one standard deviation
    assert np.mean(np.array(drawn) > 2 * by_chance(LEAST)) < 0.08


def test_the_hypervolume_is_that_of_a_package_which_computes_it() -> None:
    moocore = pytest.importorskip("moocore")
    points = np.random.default_rng(0).random((40, 2))
    expected = moocore.hypervolume(points, ref=np.array([0.2, 0.1]), maximise=True)
    assert hypervolume([(a, b) for a, b in points], (0.2, 0.1)) == pytest.approx(expected)
    assert hypervolume([(0.1, 0.9)], (0.2, 0.1)) == 0.0


def test_cma_refuses_a_single_number() -> None:
    with pytest.raises(ConfigError, match="CMA-ES"):
        CMA(made("sine", phase=0.0), 0, 8)


def test_a_family_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError) as refusal:
        made("tree")
    assert all(word in str(refusal.value) for word in ("unknown family", "fourier, sine, box", "Next: "))


def test_fitness_is_without_the_luck_of_the_seeds() -> None:
    archive, luck = Archive([Objective("accuracy")], 10), [0.0, 0.2, -0.1]
    worth = {Genome((k / 10,)): 0.5 + k / 100 for k in range(9)}
    groups = [list(worth)[:4], [*list(worth)[2:4], *list(worth)[4:6]], [*list(worth)[3:5], *list(worth)[6:]]]
    for seed, genomes in enumerate(groups):
        for genome in genomes:
            for _ in range(20):  # so that little is left to the second sum
                archive.add(genome, seed, Outcome(worth[genome] + luck[seed]))
    archive.add(Genome((0.95,)), 1, Outcome(0.0, died_at=3))
    assert archive.best(9) == sorted(worth, key=lambda genome: -worth[genome])
    assert archive.fitness(Genome((0.95,))) == (0.0,)
    assert archive.fitness(Genome((0.8,)))[0] == pytest.approx(0.58 + sum(luck) / 3, abs=0.01)
    lone = Archive([Objective("accuracy")], 10)
    lone.add(Genome((0.1,)), 0, Outcome(0.7))
    assert lone.fitness(Genome((0.1,))) == (0.7,)


def test_the_luck_of_the_seeds_is_the_least_squares_solution_and_grows_with_the_seeds_only() -> None:
    rng, genomes, seeds = np.random.default_rng(3), 2000, 60
    archive, design, target = Archive([Objective("accuracy")], 10), [], []
    for number in range(genomes):
        for seed in rng.choice(seeds, 2 + number % 3, replace=False):
            value = float(rng.uniform())
            archive.add(Genome((number / genomes,)), int(seed), Outcome(value))
            if number < 40:
                design.append([*(float(k == number) for k in range(40)), *(float(k == seed) for k in range(seeds))])
                target.append(value)
    began = time.process_time()
    archive.fitness(Genome((0.0,)))
    assert time.process_time() - began < 1.0  # dense in the genomes it takes a minute
    few = Archive([Objective("accuracy")], 10)
    for number in range(40):
        for seed, outcome in archive._found[Genome((number / genomes,))]:
            few.add(Genome((number / genomes,)), seed, outcome)
    design += [[0.0] * 40 + [float(k == seed) for k in range(seeds)] for seed in range(seeds)]
    solved = np.linalg.lstsq(np.array(design), np.array([*target, *[0.0] * seeds]), rcond=None)[0][40:]
    for genome in few.genomes:
        wanted = np.mean([outcome.accuracy - solved[seed] for seed, outcome in few._found[genome]])
        assert few.fitness(genome)[0] == pytest.approx(wanted, abs=2e-9)


def test_one_lucky_evaluation_is_trusted_less_than_many_good_ones() -> None:
    archive = Archive([Objective("accuracy")], 10)
    for place, values in enumerate([[0.5], [0.5], [0.8], [0.78] * 5]):
        for seed, value in enumerate(values):
            archive.add(Genome((place / 10,)), seed, Outcome(value))
    assert archive.best(2) == [Genome((0.3,)), Genome((0.2,))]
