"""What is learned: losses with their exact error, metrics with their direction, and what does not fit is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hil.errors import ConfigError, ContractError, DataError
from hil.metric import METRICS, Metric, named, told
from hil.task import Loss, as_task, asked_for, takes_task, task_of

RNG = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(12, 3, generator=RNG)
NUMBERS = torch.randn(12, 3, generator=RNG)
CLASSES = torch.tensor([0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])


def absolute(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).abs().mean()


@pytest.mark.parametrize(
    ("loss", "target"),
    [(Loss("mse"), NUMBERS), (Loss("own", absolute), NUMBERS), (Loss("mse"), CLASSES), (Loss("cross_entropy"), CLASSES)],
)
def test_the_error_is_the_gradient_of_the_loss(loss: Loss, target: Tensor) -> None:
    point = OUTPUTS.clone().requires_grad_(True)
    value = loss.of(point, target)
    (exact,) = torch.autograd.grad(value, point)
    error, metrics = loss.judge(OUTPUTS.clone(), target)
    assert torch.allclose(error, exact, atol=1e-6)
    assert metrics["loss"] == pytest.approx(float(value.detach()), rel=1e-5)
    assert ("accuracy" in metrics) == (target is CLASSES)


def test_losses_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="no such loss"):
        Loss("hinge")
    with pytest.raises(ContractError, match="a loss of classes"):
        Loss("cross_entropy").judge(OUTPUTS.clone(), NUMBERS)
    with pytest.raises(ContractError, match="one number a batch"):
        Loss("own", lambda outputs, target: outputs - target).judge(OUTPUTS, NUMBERS)
    with pytest.raises(ContractError, match="does not depend on the outputs"):
        Loss("own", lambda outputs, target: target.sum()).judge(OUTPUTS, NUMBERS)


def test_metrics_of_numbers() -> None:
    mean = NUMBERS.mean(0).expand_as(NUMBERS)
    assert METRICS["nrmse"].of(mean, NUMBERS) == pytest.approx(1)
    assert METRICS["nrmse"].of(NUMBERS, NUMBERS) == 0
    halfway = METRICS["nrmse"].of((mean + NUMBERS) / 2, NUMBERS)
    assert halfway == pytest.approx(0.5)
    assert METRICS["r2"].of((mean + NUMBERS) / 2, NUMBERS) == pytest.approx(1 - halfway**2)
    scaled = torch.tensor([1.0, 1000.0, 1e-3])  # every output counts by its own spread
    assert METRICS["nrmse"].of(OUTPUTS * scaled, NUMBERS * scaled) == pytest.approx(METRICS["nrmse"].of(OUTPUTS, NUMBERS))


def test_metrics_of_classes() -> None:
    always_two = torch.tensor([[0.0, 0.0, 1.0]]).expand(12, 3)
    assert METRICS["accuracy"].of(always_two, CLASSES) == pytest.approx(10 / 12)
    assert METRICS["balanced_accuracy"].of(always_two, CLASSES) == pytest.approx(1 / 3)
    assert METRICS["symbol_error_rate"].of(always_two, CLASSES) == pytest.approx(2 / 12)
    assert METRICS["bit_error_rate"].of(always_two, CLASSES) == pytest.approx((1 + 2) / 24)  # 00 and 01 read as 10


def test_symbols_and_bits_of_numbers() -> None:
    symbols = torch.tensor([[-3.0], [-1.0], [1.0], [3.0], [1.0]])
    read = torch.tensor([[-9.0], [-1.9], [-0.1], [2.1], [0.4]])
    assert METRICS["symbol_error_rate"].of(read, symbols) == pytest.approx(1 / 5)  # -0.1 is nearest to -1
    assert math.isnan(METRICS["bit_error_rate"].of(read, symbols))  # four levels are no bits
    assert METRICS["bit_error_rate"].of(read, symbols.sign()) == pytest.approx(1 / 5)


def test_which_way_is_better() -> None:
    nrmse, accuracy = METRICS["nrmse"], METRICS["accuracy"]
    assert nrmse.better(0.1, 0.2)
    assert not nrmse.better(0.2, 0.2)
    assert nrmse.better(7.0, None)
    assert not nrmse.better(math.nan, None)
    assert accuracy.better(0.2, 0.1)
    assert (nrmse.best([0.3, 0.1]), nrmse.worst([0.3, 0.1]), accuracy.best([0.3, 0.1])) == (0.1, 0.3, 0.3)
    assert (nrmse.merit(0.25), nrmse.merit(7.0), accuracy.merit(0.25)) == (0.75, 0.0, 0.25)
    assert (accuracy.said(0.5), nrmse.said(0.12342), METRICS["bit_error_rate"].said(0.5)) == (
        "50.0%", "NRMSE 0.1234", "bit error rate 50.0%",
    )  # fmt: skip


def test_a_task_follows_from_its_targets() -> None:
    numbers, classes = task_of(NUMBERS, ()), task_of(CLASSES, ("a", "b", "c"))
    assert (numbers.kind, numbers.outputs, numbers.loss.name, numbers.metric.name) == ("numbers", 3, "mse", "nrmse")
    assert (classes.kind, classes.outputs, classes.loss.name, classes.metric.name) == (
        "classes",
        3,
        "cross_entropy",
        "accuracy",
    )
    assert as_task(3) == classes
    assert numbers.guess(NUMBERS)["nrmse"] == pytest.approx(1)
    assert classes.guess(CLASSES)["accuracy"] == pytest.approx(10 / 12)
    for kind, metric in (("classes", None), (None, METRICS["accuracy"])):
        with pytest.raises(ConfigError):
            task_of(NUMBERS, (), kind, None, () if metric is None else (metric,))
    with pytest.raises(ConfigError, match="cross_entropy is not for numbers"):
        task_of(NUMBERS, (), loss=Loss("cross_entropy"))


def test_targets_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(DataError, match="validation targets cannot be judged by nrmse"):
        task_of(NUMBERS, ()).fits("validation", torch.ones(5, 3))
    bits = task_of(NUMBERS, (), metrics=(METRICS["bit_error_rate"],))
    with pytest.raises(DataError, match="bit_error_rate"):
        bits.fits("train", NUMBERS)
    bits.fits("train", NUMBERS.sign())


def test_outputs_of_another_shape_are_refused_and_not_broadcast() -> None:
    for wrong in (OUTPUTS[:, :1], OUTPUTS[:1], OUTPUTS[:, 0]):
        with pytest.raises(ContractError, match="do not fit the targets"):
            task_of(NUMBERS, ()).score(wrong, NUMBERS)


def test_a_build_says_by_its_argument_what_it_takes() -> None:
    task = task_of(CLASSES, ("a", "b", "c"))
    assert asked_for(lambda net, settings, task, rng, model: None, task) is task
    assert asked_for(lambda net, settings, classes, rng, model: None, task) == 3
    assert not takes_task(lambda net, settings, classes, rng, model: None)


def test_the_metric_of_a_summary() -> None:
    assert told({}).name == "accuracy"
    assert told({"metric": "nrmse", "better": "lower"}) is METRICS["nrmse"]
    own = told({"metric": "spread", "better": "lower"})
    assert own == named("spread", True)
    assert isinstance(own, Metric)
    with pytest.raises(ContractError, match="only the name"):
        own.of(OUTPUTS, NUMBERS)
