"""The rates are those of torch, whatever the schedule, and a run that is resumed has them to the last bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from hil.build.optimizing import scheduler_of
from hil.config.read import checked
from hil.config.training import ScheduleTable
from hil.errors import ConfigError, RunError
from hil.metric import METRICS
from hil.training.schedule import Cosine, Stepped

EPOCHS, MOVES = 6, 4
SCORES = [0.1, 0.3, 0.3, 0.2, 0.3, 0.4]
TABLES: list[dict[str, Any]] = [
    {"use": "StepLR", "step_size": 2},
    {"use": "StepLR", "step_size": 5, "every": "step"},
    {"use": "MultiStepLR", "milestones": [1, 4], "gamma": 0.3},
    {"use": "ConstantLR", "total_iters": 3},
    {"use": "LinearLR", "every": "step", "total_iters": 7},
    {"use": "ExponentialLR", "gamma": 0.9},
    {"use": "CosineAnnealingLR", "T_max": 6},
    {"use": "CosineAnnealingWarmRestarts", "T_0": 5, "T_mult": 2, "every": "step"},
    {"use": "PolynomialLR", "total_iters": 5, "power": 2.0},
    {"use": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    {"use": "OneCycleLR", "max_lr": 0.5, "total_steps": EPOCHS * MOVES},
    {"use": "ReduceLROnPlateau", "patience": 0, "factor": 0.5},
    {"use": "LambdaLR", "lr_lambda": "math:exp2"},
    {
        "use": "SequentialLR", "milestones": [2],
        "schedulers": [{"use": "LinearLR", "total_iters": 2}, {"use": "CosineAnnealingLR", "T_max": 4}],
    },
    {"use": "ChainedScheduler", "schedulers": [{"use": "ExponentialLR", "gamma": 0.9}, {"use": "StepLR", "step_size": 2}]},
]  # fmt: skip


def optimizer() -> SGD:
    one, two = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    return SGD([{"params": [one], "lr": 0.1}, {"params": [two], "lr": 0.02}], 0.1, momentum=0.9)


def stepped(table: dict[str, Any], of: SGD, metric: str = "accuracy") -> Stepped:
    told = checked(ScheduleTable, table, "e.toml: [schedule]")
    return Stepped(
        of, lambda one: scheduler_of(told.choice, METRICS[metric], one), told.by_step, told.scored, told.model_dump(mode="json")
    )


def groups(of: SGD) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in of.param_groups]


def course(schedule: Stepped, of: SGD, first: int = 0) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Number and settings of each step from `first` on, before it."""
    for step in range(first, EPOCHS * MOVES):
        schedule.begin(step, EPOCHS * MOVES)
        yield step, groups(of)
        of.step()
        schedule.moved()
        if step % MOVES == MOVES - 1:
            schedule.epoch_done(SCORES[step // MOVES])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table['use']} {table.get('every', '')}".strip())
def test_a_resume_anywhere_has_the_rates_of_torch(table: dict[str, Any]) -> None:
    of = optimizer()
    whole, states = [], []
    schedule = stepped(table, of)
    schedule.tried(EPOCHS, MOVES)
    for step, found in course(schedule, of):
        whole.append(found)
        states.append(json.loads(json.dumps(schedule.state())))
        assert len(whole) == step + 1
    assert len({json.dumps(found) for found in whole}) > 1
    for step, state in enumerate(states):
        again = optimizer()
        resumed = stepped(table, again)
        resumed.tried(EPOCHS, MOVES)
        resumed.restore(state, SCORES[: step // MOVES])
        assert [found for _, found in course(resumed, again, step)] == whole[step:]


def test_the_rates_are_those_of_a_loop_without_hil() -> None:
    for kind, settings, every in (
        (lr_scheduler.StepLR, {"step_size": 2}, "epoch"),
        (lr_scheduler.CosineAnnealingLR, {"T_max": 24}, "step"),
        (lr_scheduler.OneCycleLR, {"max_lr": 0.5, "total_steps": 24}, "step"),
    ):
        plain, of = optimizer(), optimizer()
        told = kind(plain, **settings)  # type: ignore[operator]
        expected = []
        for step in range(EPOCHS * MOVES):
            expected.append(groups(plain))
            plain.step()
            if every == "step" or step % MOVES == MOVES - 1:
                told.step()
        schedule = stepped({"use": kind.__name__, **settings, "every": every}, of)
        assert [found for _, found in course(schedule, of)] == expected


@pytest.mark.parametrize("metric", ["accuracy", "nrmse"])
def test_a_plateau_is_one_of_the_metric(metric: str) -> None:
    of = optimizer()
    schedule = stepped({"use": "ReduceLROnPlateau", "patience": 1, "factor": 0.5}, of, metric)
    for score, rate in ((0.5, 0.1), (0.6, 0.1), (0.6, 0.1), (0.4, 0.05), (0.7, 0.05)):
        schedule.epoch_done(1 - score if METRICS[metric].lower else score)
        assert of.param_groups[0]["lr"] == rate


def test_changed_settings_go_on_where_they_would_be() -> None:
    of = optimizer()
    schedule = stepped({"use": "StepLR", "step_size": 1, "gamma": 0.5}, of)
    for _ in range(3):
        schedule.epoch_done(0.0)
    assert of.param_groups[0]["lr"] == 0.0125
    other = optimizer()
    changed = stepped({"use": "StepLR", "step_size": 1, "gamma": 0.1}, other)
    changed.restore(schedule.state(), SCORES[:3])
    assert other.param_groups[0]["lr"] == pytest.approx(1e-4)
    for found in (optimizer(), optimizer()):
        Cosine(found).restore(schedule.state(), SCORES[:3])
        assert found.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("change", [{"rates": [0.1, 0.02]}, {"told": -1}, {"told": "x"}, {"told": None}])
def test_a_state_that_comes_to_other_rates_is_refused(change: dict[str, Any]) -> None:
    schedule = stepped({"use": "StepLR", "step_size": 1, "every": "step"}, optimizer())
    schedule.moved()
    with pytest.raises(ValueError, match=r"rates|told"):
        stepped({"use": "StepLR", "step_size": 1, "every": "step"}, optimizer()).restore({**schedule.state(), **change}, [])


def test_cosine_is_the_formula() -> None:
    of = optimizer()
    schedule = Cosine(of)
    for step in range(10):
        schedule.begin(step, 10)
        factor = 0.5 * (1 + math.cos(math.pi * step / 10))
        assert [group["lr"] for group in of.param_groups] == [0.1 * factor, 0.02 * factor]


def test_a_rate_below_zero_ends_the_trial() -> None:
    with pytest.raises(RunError, match=r"-0\.1"):
        stepped({"use": "StepLR", "step_size": 1, "gamma": -1.0}, optimizer()).tried(3, 1)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"use": "StepRL"}, 'did you mean "StepLR"'),
        ({"use": "StepLR", "step_sise": 3}, 'Did you mean "step_size"'),
        ({"use": "StepLR", "step_size": "3"}, "step_size"),
        ({"use": "StepLR", "step_size": 3, "last_epoch": 4}, "last_epoch"),
        ({"use": "StepLR", "step_size": 3, "every": "batch"}, "every"),
        ({"use": "ReduceLROnPlateau", "every": "step"}, "known after an epoch"),
        ({"use": "ReduceLROnPlateau", "mode": "min"}, "mode"),
        ({"use": "cosine", "every": "step"}, "counts nothing"),
        ({"use": "cosine", "T_max": 5}, "T_max"),
        ({"use": "SequentialLR", "milestones": [2]}, "made of other schedulers"),
        ({"use": "ChainedScheduler", "schedulers": [{"use": "StepRL"}]}, "schedulers 1"),
        ({"use": "LambdaLR", "lr_lambda": "math:nothing"}, "lr_lambda"),
        ({"use": "builtins:dict"}, "takes no settings"),
        ({"use": "hil.data.augment:Augment"}, "not a scheduler|optimizer"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        stepped(table, optimizer())
