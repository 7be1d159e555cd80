"""A search over a regression or over sequences: candidates are compared as single runs are, in a population as one by one."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from small_search import BASE, FILE, write

from hil.build.search import SearchBuilder
from hil.config.experiment import experiment_of
from hil.config.search import read_search
from hil.data.dataset import Dataset, Split
from hil.errors import ConfigError
from hil.feedback.feedback import Feedback, Sine
from hil.search.jobs import Job, Recipe
from hil.search.plain_trainer import OneByOne

NUMBERS = (
    BASE.replace("[64, 12, 8, 10]", "[4, 12, 8, 1]")
    .replace("[encode]", "[encode]\ngain = 4.0")
    .replace("batch = 64", "batch = 16")
)


def builder(folder: Path, base: str = NUMBERS) -> SearchBuilder:
    path = write(folder, FILE, base)
    made = SearchBuilder(read_search(path), experiment_of(tomllib.loads(base), path))
    x = torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    y = torch.sin(math.pi * x.sum(1, keepdim=True))
    splits = [Split(x[part], y[part]) for part in (slice(256), slice(256, 328), slice(328, None))]
    made.__dict__["_data"] = Dataset("sine of a sum", *splits, (), (4,), "made here", "0")
    return made


def job(lr: float, epochs: int = 8) -> Job:
    return Job(f"j/{lr}", Recipe(Feedback(Sine(phase=1.2), scale=0.3), lr), 3, epochs)


def test_a_lane_of_a_population_is_an_ordinary_run(tmp_path: Path) -> None:
    found = builder(tmp_path)
    jobs = [job(5e-3), job(2e-2)]
    lanes = found.trainer().train(jobs)
    alone = OneByOne(lambda one: found.candidate(one, found.data())).train(jobs)
    assert found.task.metric.merit_title == "1 - NRMSE"
    for lane, other in zip(lanes, alone, strict=True):
        assert lane.curve == pytest.approx(other.curve, abs=1e-4)
        assert 0 < other.curve[-1] < 1
    assert lanes[0].accuracy != lanes[1].accuracy


def test_the_last_step_of_a_candidate_may_be_a_fit(tmp_path: Path) -> None:
    plain, fitted = builder(tmp_path), builder(tmp_path, NUMBERS.replace('"adfa"', '"adfa"\nreadout = "ridge"'))
    one, other = (OneByOne(lambda asked, made=made: made.candidate(asked, made.data())).train([job(5e-3)])[0]  # type: ignore[misc]
                  for made in (plain, fitted))  # fmt: skip
    assert other.accuracy > one.accuracy
    assert other.curve[:-1] == one.curve[:-1]
    assert other.passes == one.passes + (256 + 72) * 20
    with pytest.raises(ConfigError, match=r'plain steps.*got readout = "ridge";'):
        fitted.trainer()


@pytest.mark.parametrize("each_step", [False, True])
def test_a_search_learns_sequences_as_a_run_does(tmp_path: Path, each_step: bool) -> None:
    x = np.random.default_rng(0).normal(size=(600, 3, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=(x.sum(2 if each_step else (1, 2)) > 0).astype(np.int64))
    base = BASE.replace("[64, 12, 8, 10]", "[4, 12, 8, 2]" if each_step else "[12, 12, 8, 2]")
    base += f'[data]\nuse = "{tmp_path / "x.npz"}"\nsequence = true\n'
    path = write(tmp_path, FILE, base)
    found = SearchBuilder(read_search(path), experiment_of(tomllib.loads(base), path))
    one = job(5e-3, epochs=1)
    (lane,) = found.trainer().train([one])
    (alone,) = OneByOne(lambda asked: found.candidate(asked, found.data())).train([one])
    assert lane.curve == pytest.approx(alone.curve, abs=1e-4)
    assert lane.passes == (256 + 100) * 20 * (3 if each_step else 1)
    assert found.most_steps(found.data()) == 256 * (3 if each_step else 1) / 64
