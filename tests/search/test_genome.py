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
from hil.search.breeding import keyed
from hil.search.generator import Generator
from hil.search.genetic import Genetic, fronts
from hil.search.genome import FeedbackSpace, space
from hil.search.hypervolume import hypervolume
from hil.search.importance import LEAST, by_chance, importance
from hil.search.jobs import Objective, Outcome, Recipe
from hil.search.loop import SearchPlan
from hil.search.random_and_cma import CMA, IPOP, Random
from hil.search.space import Dimension, Genome, Problem, Shares, shares_of

OTHERWISE = {"lr": 1e-3, "distribution": "uniform", "scale": 0.1, "sparsity": 0.0}


def made(kind: str = "fourier", **genes: object) -> FeedbackSpace:
    return space(kind, genes, OTHERWISE, layers=2)


def at(found: FeedbackSpace, shares: Shares) -> Genome:
    return Genome(tuple(gene.value(share) for gene, share in zip(found.dimensions, shares, strict=True)))


def problem(found: FeedbackSpace, objectives: int = 1) -> Problem:
    return Problem(found.dimensions, {f"f{number}": "MAXIMIZE" for number in range(objectives)})


def test_a_genome_means_a_recipe() -> None:
    found = made(
        offset=[-1.0, 1.0], lr=[1e-4, 1e-2], rank=[1, 10], distribution=["normal", "sign"], sparsity=[0.0, 0.5], clip=2.0
    )
    names = [gene.name for gene in found.dimensions]
    shares = dict.fromkeys(names, 0.5) | {"sin1": 1.0, "offset": 0.75, "rank": 1.0, "distribution": 0.99}
    recipe = found.recipe(at(found, tuple(shares[name] for name in names)))
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
    recipe = found.recipe(at(found, (0.5,) * len(found.dimensions)))
    assert recipe.feedback.scale == pytest.approx((0.1, 0.1))
    assert recipe.feedback.rank == (1, 3)
    shapes = [b.shape for b in recipe.feedback.matrices([6, 5], 4, torch.Generator().manual_seed(0))]
    assert shapes == [(6, 4), (5, 4)]


@pytest.mark.parametrize("kind", ["fourier", "sine", "box", "gaussian", "spline"])
def test_every_corner_of_every_family_is_a_feedback(kind: str) -> None:
    found = made(kind, amplitude=[0.1, 10.0], clip=[0.2, 5.0])
    for share in (0.0, 0.5, 1.0):
        feedback = found.recipe(at(found, (share,) * len(found.dimensions))).feedback
        assert Feedback.from_table(feedback.to_table()) == feedback
        assert torch.isfinite(feedback.g(torch.linspace(-5, 5, 50))).all()


def test_a_spline_goes_through_its_knots() -> None:
    found = space("spline", {}, OTHERWISE, 1, knots=5, reach=2.0)
    shares = (0.0, 1.0, 0.5, 0.75, 0.25)
    g = found.recipe(at(found, shares)).feedback.g
    assert isinstance(g, Tabulated)
    assert g(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == pytest.approx([2 * share - 1 for share in shares], abs=1e-6)


def test_equal_shares_for_choices_and_whole_numbers() -> None:
    shares = np.linspace(0, 1, 1201)
    choices = Dimension("distribution", choices=("normal", "sign", "uniform"))
    for gene, count in ((choices, 3), (Dimension("rank", 1, 4, whole=True), 4)):
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


def climb(generator: Generator, found: FeedbackSpace, generations: int = 15) -> tuple[float, list[list[Shares]]]:
    """The best of -|x - 0.7|^2 over the shares, and everything suggested."""
    best, asked = -math.inf, []
    for _ in range(generations):
        points = generator.suggest(None)
        shares = [shares_of(found, problem(found).genome(point)) for point in points]
        worth = [-sum((x - 0.7) ** 2 for x in one) for one in shares]
        generator.ingest([{**point, "f0": value} for point, value in zip(points, worth, strict=True)])
        best = max(best, *worth)
        asked.append(shares)
    return best, asked


def test_both_climb_better_than_chance_and_always_the_same() -> None:
    found = made(offset=[-1.0, 1.0])
    told = problem(found)
    makers = {
        "genetic": lambda seed: Genetic(told, seed, 20, 2),
        "cma": lambda seed: CMA(told, seed, 20),
        "ipop": lambda seed: IPOP(told, seed),
        "random": lambda seed: Random(told, seed, 20),
    }
    best = {name: [climb(make(seed), found)[0] for seed in range(3)] for name, make in makers.items()}
    assert min(best["genetic"]) > max(best["random"])
    assert min(best["cma"]) > max(best["random"])
    assert min(best["ipop"]) > max(best["random"])  # with half the evaluations
    for make in makers.values():
        random.seed(1)
        first = climb(make(4), found)[1]
        random.seed(2)
        np.random.seed(7)  # noqa: NPY002
        assert climb(make(4), found)[1] == first
        assert climb(make(5), found)[1] != first
        assert all(0 <= x <= 1 for points in first for point in points for x in point)


def test_cma_begins_anew_with_twice_as_many_where_it_has_nothing_more_to_learn() -> None:
    found, rng = made("sine", offset=[-1.0, 1.0]), np.random.default_rng(0)
    for worth in (lambda shares: -sum((x - 0.7) ** 2 for x in shares), lambda shares: float(rng.random())):
        generator, sizes = IPOP(problem(found), 0), []
        for _ in range(120):
            points = generator.suggest(None)
            sizes.append(len(points))
            shares = [shares_of(found, problem(found).genome(point)) for point in points]
            generator.ingest([{**point, "f0": worth(one)} for point, one in zip(points, shares, strict=True)])
            if sizes[-1] == 28:
                break
        assert list(dict.fromkeys(sizes))[:3] == [7, 14, 28]
        assert generator.restarts >= 2


def test_cma_gives_a_generation_in_pieces_and_learns_once_all_of_it_has_come_back() -> None:
    found = made("sine", offset=[-1.0, 1.0])
    whole, pieces = CMA(problem(found), 0, 7), CMA(problem(found), 0, 7)
    points = whole.suggest()
    assert [*pieces.suggest(4), *pieces.suggest(3)] == points
    with pytest.raises(ValueError, match="0 points are left"):
        pieces.suggest(1)
    results = [{**point, "f0": float(place)} for place, point in enumerate(points)]
    whole.ingest(results)
    pieces.ingest(results[3:])
    assert pieces._strategy.centroid.tolist() == [0.5] * 3  # a part teaches nothing
    pieces.ingest(results[:3])
    assert pieces._strategy.centroid.tolist() == whole._strategy.centroid.tolist() != [0.5] * 3
    with pytest.raises(ValueError, match="7 points are left"):
        pieces.suggest(8)


def told(points: list[dict[str, object]], *values: float) -> list[dict[str, object]]:
    return [{**point, "f0": value} for point, value in zip(points, values, strict=True)]


def test_elites_come_again_and_a_lucky_one_is_found_out() -> None:
    generator = Genetic(problem(made()), 0, 8, 2)
    first = generator.suggest()
    generator.ingest(told(first, *range(8)))
    second = generator.suggest()
    assert second[:2] == [first[7], first[6]]
    generator.ingest(told(second, *(-5.0 if point == first[7] else 1.0 for point in second)))
    assert first[7] not in generator.suggest()[:2]


def test_who_asks_for_points_one_by_one_gets_children_of_the_best() -> None:
    found = made("sine")
    generator, best = Genetic(problem(found), 0, 8, 2), []
    for _ in range(80):
        (point,) = generator.suggest(1)
        shares = shares_of(found, problem(found).genome(point))
        best.append(-sum((x - 0.7) ** 2 for x in shares))
        generator.ingest(told([point], best[-1]))
    assert sum(best[-20:]) > 0.2 * sum(best[:20])  # both are negative
    other = Genetic(problem(found), 1, 8, 2)
    other.ingest(told([{"frequency": 1.0, "phase": 0.5}], 1.0))  # a point of somebody else's
    assert other.suggest()[0] == {"frequency": 1.0, "phase": 0.5}
    with pytest.raises(ValueError, match="a result without 'phase'"):
        other.ingest([{"frequency": 1.0, "f0": 1.0}])
    with pytest.raises(ValueError, match="between"):
        other.ingest([{"frequency": 100.0, "phase": 0.0, "f0": 1.0}])
    with pytest.raises(ValueError, match="num_points"):
        other.suggest(0)


def test_several_objectives_keep_a_front() -> None:
    found = made("gaussian")
    generator = Genetic(problem(found, 2), 0, 16, 4)

    def shares(points: list[dict[str, object]]) -> list[Shares]:
        return [shares_of(found, problem(found).genome(point)) for point in points]

    for _ in range(12):
        points = generator.suggest()
        generator.ingest([{**point, "f0": x, "f1": 1 - x - y**2} for point, (x, y) in zip(points, shares(points), strict=True)])
    last = shares(generator.suggest()[:4])
    assert max(y for _, y in last) < 0.05  # the front is where the second gene is 0
    assert max(x for x, _ in last) - min(x for x, _ in last) > 0.5  # and all along the first
    assert fronts([(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.4, 0.4)]) == [0, 1, 2]


def test_a_function_and_its_negative_are_one_genome() -> None:
    pre, rng = torch.linspace(-3, 3, 41), np.random.default_rng(0)
    for kind, more in (("fourier", {}), ("spline", {"offset": [-0.5, 0.5]}), ("sine", {"offset": [-0.5, 0.5]})):
        found = made(kind, **more)
        for _ in range(20):
            shares = tuple(rng.random(len(found.dimensions)).tolist())
            stands = found.canonical(shares)
            assert found.canonical(stands) == stands
            mine, other = (found.recipe(at(found, one)).feedback.g(pre) for one in (shares, stands))
            sign = 1.0 if stands == shares else -1.0
            torch.testing.assert_close(other, sign * mine, atol=1e-5, rtol=1e-4)
        asked = Genetic(problem(found), 0, 12, 2, canonical=found.canonical).suggest()
        for point in asked:
            shares = shares_of(found, problem(found).genome(point))
            assert found.canonical(shares) == pytest.approx(shares)
    for lone in (made("fourier", offset=[0.0, 1.0]), made("sine", phase=[0.0, 1.0]), made("spline", y3=0.5), made("gaussian")):
        low = (0.1,) * len(lone.dimensions)
        assert lone.canonical(low) == low  # -g is not in the space


def test_importance_finds_the_gene_that_mattered() -> None:
    found, rng = made("sine"), np.random.default_rng(0)
    shares = [tuple(rng.random(2)) for _ in range(200)]
    values = importance(found, [at(found, one) for one in shares], [(one[1] - 0.5) ** 2 for one in shares])
    assert next(iter(values)) == "phase"
    assert values["phase"] > 0.7
    assert values["frequency"] < 0.1


def test_importance_needs_enough_genomes_and_chance_stays_below_what_is_drawn_for_it() -> None:
    found, rng = made("sine"), np.random.default_rng(1)
    few = [at(found, tuple(rng.random(2))) for _ in range(LEAST - 1)]
    assert importance(found, few, list(rng.random(len(few)))) == {}
    drawn = []
    for _ in range(100):
        genomes = [at(found, tuple(rng.random(2))) for _ in range(LEAST)]
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
        CMA(problem(made("sine", phase=0.0)), 0, 8)


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


def test_a_generator_is_told_each_objective_in_its_own_direction() -> None:
    archive = Archive([Objective("loss", 2.0), Objective("accuracy"), Objective("passes")], 10)
    archive.add(Genome((0.1,)), 0, Outcome(0.7, loss=0.3, passes=40))
    assert archive.fitness(Genome((0.1,))) == (-0.3, 0.7, -40.0)
    assert archive.results(Genome((0.1,))) == {"loss": 0.3, "accuracy": 0.7, "passes": 40.0}


def test_no_generation_begins_beyond_the_hours_or_the_passes() -> None:
    done = [Outcome(0.5, passes=100, wall_s=1800.0)] * 3
    for plan, spent in (
        (SearchPlan(0, 9, 1), False), (SearchPlan(0, 9, 1, hours=1.5), True), (SearchPlan(0, 9, 1, hours=1.6), False),
        (SearchPlan(0, 9, 1, passes=300), True), (SearchPlan(0, 9, 1, passes=301), False),
    ):  # fmt: skip
        assert plan.spent(done) is spent
