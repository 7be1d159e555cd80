"""A lane of a population is an ordinary run, to rounding."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from small_search import BASE, FILE, write

from hil.build.search import SearchBuilder
from hil.config.experiment import experiment_of
from hil.config.search import SearchFile, read_search
from hil.errors import ConfigError
from hil.feedback.feedback import Box, Constant, Feedback, Fourier, Function, Gaussian, Shaped, Sine, Tabulated
from hil.feedback.functions import FAMILIES
from hil.search.batched_functions import stacked
from hil.search.batched_trainer import Batch, TwinPopulation
from hil.search.jobs import Job, Recipe
from hil.search.plain_trainer import OneByOne
from hil.training.loop import train
from hil.training.state import Training

FUNCTIONS: list[Function] = [
    Sine(phase=1.2),
    Fourier((0.5, -0.25), (0.0, 0.75), 2.0),
    Fourier((0.3,), (0.7,), 1.5),
    Box(0.7, 0.2),
    Gaussian(0.8, -0.1),
    Constant(-0.5),
    Tabulated((-3.0, -1.0, 0.5, 3.0), (0.0, 1.0, -1.0, 0.5)),
    Tabulated((-2.0, 0.5, 3.0), (1.0, -1.0, 0.5)),
    Shaped(Sine(), 2.0, 0.3, 1.5),
    Shaped(Box(1.0), -1.0, 0.3),
    FAMILIES["arctan_slope"](),
]


def search_builder(folder: Path, base: str = BASE, text: str = FILE) -> SearchBuilder:
    path = write(folder, text, base)
    return SearchBuilder(read_search(path), experiment_of(tomllib.loads(base), path))


def jobs(functions: Sequence[Function], rates: Sequence[float], epochs: int = 2, seed: int = 3) -> list[Job]:
    pairs = zip(functions, rates, strict=True)
    return [Job(f"j/{k}", Recipe(Feedback(g, scale=0.3), lr), seed, epochs) for k, (g, lr) in enumerate(pairs)]


def alone(builder: SearchBuilder, job: Job) -> Training:
    with builder.candidate(job, builder.data()) as made:
        for _ in train(made.training):
            pass
        return made.training


@pytest.mark.parametrize("mixed", [False, True])
def test_stacked_functions_are_the_functions(mixed: bool) -> None:
    pre = torch.linspace(-4, 4, 2 * 33).view(2, 33)
    for g in FUNCTIONS if not mixed else [None]:
        chosen = FUNCTIONS if g is None else [g, g]
        together = stacked(chosen)(pre.expand(len(chosen), -1, -1).contiguous())
        for lane, one in zip(together, chosen, strict=True):
            torch.testing.assert_close(lane, one(pre), atol=2e-6, rtol=1e-5)


COSINE = 'use = "cosine"\n'
STEPS = 'use = "StepLR"\nstep_size = 3\nevery = "step"\n'
EPOCHS = 'use = "ExponentialLR"\ngamma = 0.5\n[augment]\nshift = 1\nflip = 0.5\ncutout = 2\nnoise = 0.1\n'


@pytest.mark.parametrize(
    ("change", "rates", "schedule"),
    [
        ("", (5e-3, 5e-3), COSINE),
        ("", (2e-3, 8e-3), COSINE),
        ('use = "SGD"\nmomentum = 0.9\n', (0.1, 0.02), STEPS),
        ("", (2e-3, 8e-3), EPOCHS),
    ],
    ids=["one rate", "rates of their own", "SGD", "augmented"],
)
def test_a_lane_ends_with_the_weights_of_an_ordinary_run(
    tmp_path: Path, change: str, rates: tuple[float, float], schedule: str
) -> None:
    base = BASE.replace("[train]\n", f"[schedule]\n{schedule}[train]\n").replace("[optimizer]\n", f"[optimizer]\n{change}")
    builder = search_builder(tmp_path, base)
    asked = jobs([FUNCTIONS[0], FUNCTIONS[8]], rates)
    batch = Batch(builder.course(builder.data()), asked, "cpu")
    outcomes = batch.train()
    for lane, job in enumerate(asked):
        training = alone(builder, job)
        for number, layer in enumerate(training.net.stack):
            expected = dict(layer.synapse.named_parameters())
            torch.testing.assert_close(batch.weights[number][lane], expected["weight"].detach(), atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(batch.biases[number][lane], expected["bias"].detach(), atol=2e-5, rtol=1e-4)
        assert outcomes[lane].passes == training.device_passes


def test_outcomes_are_those_of_the_ordinary_loop(tmp_path: Path) -> None:
    text = FILE.replace("[search]\n", "[search]\ntarget = 0.3\n") + "[[others]]\nv_pi_v = 4.5\n[[others]]\nphase_rad = 0.5\n"
    builder = search_builder(tmp_path, text=text, base=BASE.replace('use = "adfa"', 'use = "adfa"\nloss = "mse"'))
    data = builder.data()
    asked = jobs(FUNCTIONS, [5e-3] * len(FUNCTIONS))
    together = TwinPopulation(builder.course(data)).train(asked)
    one_by_one = OneByOne(lambda job: builder.candidate(job, data), 0.3).train(asked)
    assert len({found.curve for found in together}) > 3
    for mine, theirs in zip(together, one_by_one, strict=True):
        assert mine.curve == pytest.approx(theirs.curve, abs=0.02)  # two of a hundred may lie on the edge
        assert mine.robustness == pytest.approx(theirs.robustness, abs=0.02)
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-3)
        if mine.curve == theirs.curve:
            assert (mine.passes, mine.steps) == (theirs.passes, theirs.steps)


@pytest.mark.parametrize(
    ("optimizer", "left_out"),
    [("", True), ('use = "SGD"\n', False), ("weight_decay = 0.1\n", False), ('use = "AdamW"\n', True)],
)
def test_the_scale_is_searched_only_where_steps_depend_on_it(tmp_path: Path, optimizer: str, left_out: bool) -> None:
    genes = "scale = [0.05, 0.5]\namplitude = [0.5, 2.0]\n"
    text = FILE.replace("scale = [0.05, 0.5]\n", genes)
    builder = search_builder(tmp_path, BASE.replace("[optimizer]\n", f"[optimizer]\n{optimizer}"), text)
    assert builder.left_out == (("scale", "amplitude") if left_out else ())
    assert ("scale" in {gene.name for gene in builder.space(builder.data()).dimensions}) is not left_out
    clipped = search_builder(tmp_path, text=FILE.replace("scale = [0.05, 0.5]\n", f"{genes}clip = 1.0\n"))
    assert clipped.left_out == ("scale",)
    lr = 0.5 if "SGD" in optimizer else 0.01
    small, large = (Job(f"j/{scale}", Recipe(Feedback(Sine(phase=1.2), scale=scale), lr), 3, 2) for scale in (0.1, 1.6))
    batch = Batch(builder.course(builder.data()), [small, large], "cpu")
    batch.train()
    assert torch.allclose(*batch.weights[0], atol=2e-3) is left_out


@pytest.mark.parametrize("rates", [(5e-3,) * 6, (1e-3, 2e-3, 4e-3, 6e-3, 8e-3, 1e-2)], ids=["one rate", "rates of their own"])
def test_a_race_stops_the_worst_and_changes_nobody_else(tmp_path: Path, rates: tuple[float, ...]) -> None:
    text = FILE.replace("epochs = 1", "epochs = 4").replace("[search]", '[search]\nobjectives = ["loss"]')
    text += "[race]\nepochs = [1, 3]\nkeep = [0.5, 0.5]\n"
    builder = search_builder(tmp_path, text=text)
    plain = jobs(FUNCTIONS[:6], rates, epochs=4)
    asked = [dataclasses.replace(job, races=number > 0) for number, job in enumerate(plain)]
    free, raced = builder.trainer().train(plain), builder.trainer().train(asked)
    assert raced[0].stopped_at is None  # it does not race, and of the other five 3 and then 2 go on
    assert sorted(found.stopped_at or 4 for found in raced[1:]) == [1, 1, 3, 4, 4]
    for one, whole in zip(raced, free, strict=True):
        seen = len(one.curve)
        assert seen == (one.stopped_at or 4)
        assert one.curve == pytest.approx(whole.curve[:seen], abs=0.02)
        assert one.passes == whole.passes // 4 * seen
    for one, whole in zip(raced, free, strict=True):
        if one.stopped_at is None:
            assert one.loss == pytest.approx(whole.loss, rel=1e-3)
    data = builder.data()
    alone = OneByOne(lambda job: builder.candidate(job, data), race=builder.race).train(asked)
    assert [found.stopped_at for found in alone] == [found.stopped_at for found in raced]
    assert [found.loss for found in alone] == pytest.approx([found.loss for found in raced], rel=1e-3)


def test_one_that_diverges_does_not_touch_the_others(tmp_path: Path) -> None:
    builder = search_builder(tmp_path, BASE.replace("[optimizer]\n", '[optimizer]\nuse = "SGD"\n'))
    trainer = TwinPopulation(builder.course(builder.data()))
    sound, wild = jobs([Sine(), Sine()], [1.0, 1e39])
    apart = Job("j/2", sound.recipe, sound.seed, sound.epochs)
    found = trainer.train([sound, wild, apart])
    assert found[1].died_at is not None
    assert found[1].accuracy == 0.0
    assert found[0].died_at is None
    assert found[0].accuracy == found[2].accuracy
    assert OneByOne(lambda job: builder.candidate(job, builder.data())).train([wild])[0].died_at == found[1].died_at


def test_a_drive_that_the_device_would_refuse_ends_a_candidate(tmp_path: Path) -> None:
    builder = search_builder(tmp_path, BASE.replace('overflow = "fold"\nperiod = 7.0', "gain = 3.0"))
    asked = jobs([Sine()], [0.5])
    together = TwinPopulation(builder.course(builder.data())).train(asked)
    alone_ = OneByOne(lambda job: builder.candidate(job, builder.data())).train(asked)
    assert together[0].died_at is not None
    assert together[0].died_at == alone_[0].died_at


ELECTRODES = BASE.replace(
    '"mach_zehnder"\ndrift_rad_per_rts = 0.02', '"builders.electrodes:ElectrodesTwin"\nnoise_v = 0.0'
).replace("widths = [64, 12, 8, 10]", "widths = [64, 7, 10]")


@pytest.mark.parametrize(
    ("encode", "dies"),
    [("gain = [0.2, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1]", False), ("gain = [0.1, 0.1, 0.1, 0.1, 0.1, 9.0, 0.1]", True)],
)
def test_limits_of_each_channel_are_kept_in_a_population(tmp_path: Path, encode: str, dies: bool) -> None:
    builder = search_builder(tmp_path, ELECTRODES.replace('overflow = "fold"\nperiod = 7.0', encode))
    asked = jobs([Sine(), Constant(1.0)], [5e-3, 5e-3], epochs=1)
    together = TwinPopulation(builder.course(builder.data())).train(asked)
    alone_ = OneByOne(lambda job: builder.candidate(job, builder.data())).train(asked)
    assert [(one.died_at is not None) for one in together] == [dies, dies]
    assert [one.died_at for one in together] == [one.died_at for one in alone_]
    assert [one.accuracy for one in together] == pytest.approx([one.accuracy for one in alone_], abs=0.02)


def test_a_population_does_not_watch_steps(tmp_path: Path) -> None:
    builder = search_builder(
        tmp_path, ELECTRODES.replace("noise_v = 0.0", "step_v = 5.0").replace('overflow = "fold"\nperiod = 7.0', "gain = 0.1")
    )
    with pytest.raises(ConfigError, match="steps of a population"):
        builder.course(builder.data())


def test_a_population_does_not_share_channels_in_time(tmp_path: Path) -> None:
    builder = search_builder(
        tmp_path, BASE.replace('"mach_zehnder"', '"iq_modulator"').replace('overflow = "fold"\nperiod = 7.0', "gain = 0.1")
    )
    with pytest.raises(ConfigError, match="several channels in time"):
        builder.course(builder.data())


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('use = "adfa"', 'use = "dfa"', "got dfa, device mach_zehnder, Adam"),
        ("lr = 5e-3", 'use = "Adagrad"\nlr = 5e-3', "got adfa, device mach_zehnder, Adagrad"),
        ("[64, 12, 8, 10]", '[64, 12, 8, 10]\nweights = "standardised"', "got StandardisedLinear, .*network"),
        ("[64, 12, 8, 10]", "[64, 12, 8, 10]\nbias = false", "got Linear without a bias"),
        ("[train]\n", "[train]\naccumulate = 2\n", "got .train. accumulate = 2;"),
        ("[train]\n", "[train]\naccumulate = 2\nclip_norm = 1.0\n", "got .train. accumulate = 2, .train. clip_norm = 1.0;"),
        ("[train]\n", '[train]\nclass_weights = "balanced"\n', "got .train. class_weights;"),
        ("[train]\n", '[schedule]\nuse = "ReduceLROnPlateau"\n[train]\n', "got .schedule. ReduceLROnPlateau;"),
    ],
)
def test_what_is_no_population_is_refused(tmp_path: Path, old: str, new: str, found: str) -> None:
    builder = search_builder(tmp_path, BASE.replace(old, new))
    with pytest.raises(ConfigError, match=f"search.toml: .evaluate. by: .*{found}") as refusal:
        builder.course(builder.data())
    assert refusal.value.todo == 'write by = "one" in [evaluate]'


@pytest.mark.parametrize("line", ["patience = 3", 'from = "runs/first"', "budget_passes = 9"])
def test_a_search_says_itself_how_long_and_from_where(tmp_path: Path, line: str) -> None:
    builder = search_builder(tmp_path, BASE.replace("[train]\n", f"[train]\n{line}\n"))
    with pytest.raises(ConfigError, match=f"says itself how long; got {line.replace(chr(34), '')}"):
        builder.space(builder.data())


def test_the_test_split_is_not_in_what_a_search_sees(tmp_path: Path) -> None:
    from hil.data.dataset import load

    data, whole = search_builder(tmp_path).data(), load("digits")
    seen = torch.cat([data.train.x, data.validation.x, data.test.x])
    assert len(seen) == 456
    assert not any(bool((seen == example).all(1).any()) for example in whole.test.x[:40])
    assert SearchFile(base="x").train.held > 0
