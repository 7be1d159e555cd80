"""One checker for all settings: kinds, ranges, nested lists, and what it leaves to the class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import torch
from pydantic import Field

from hil.errors import ConfigError
from hil.settings import Count, NotNegative, Positive, Share, arguments, check, parameters
from sim_devices.mach_zehnder import MachZehnder

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass(frozen=True)
class Rule:
    steps: Count
    rate_hz: Positive = 1.0
    share: Share = 0.0
    floor: NotNegative = 0.0
    loss: Literal["mse", "cross_entropy"] = "mse"
    scale: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = "auto"
    layers: tuple[Count, ...] | Count | None = None
    names: Sequence[str] = ()
    table: Mapping[str, float] | None = None
    named: bool = False

    def __post_init__(self) -> None:
        check(self, "[learner]")


@dataclass(frozen=True)
class Longer(Rule):
    """A field of the base is read where the base stands."""

    more: int = 0


GOOD = {"steps": 3, "rate": "2 kHz", "layers": [4, 5], "names": ["a"], "table": {"x": 1}, "scale": 2, "named": True}


@pytest.mark.parametrize("kind", [Rule, Longer])
def test_what_is_taken(kind: Any) -> None:
    assert arguments(kind, GOOD, "[learner]") == {
        "steps": 3, "rate_hz": 2000.0, "layers": (4, 5), "names": ["a"], "table": {"x": 1.0}, "scale": 2.0, "named": True,
    }  # fmt: skip
    assert kind(3, layers=[4, 5]) == kind(3, layers=(4, 5))


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"steps": 0}, ["steps makes no sense", "got 0", "positive whole number"]),
        ({"steps": "3"}, ["wrong kind", '"3"', "positive whole number"]), ({"steps": True}, ["wrong kind", "True"]),
        ({"steps": 3.0}, ["wrong kind"]), ({"steps": 10**400}, ["without end"]),
        ({"rate_hz": 0.0}, ["rate_hz makes no sense", "positive number"]), ({"rate_hz": math.inf}, ["never NaN or infinite"]),
        ({"share": 1.0}, ["0 or more, below 1"]), ({"floor": -1}, ["0 or more"]), ({"loss": "hinge"}, ["no such loss", "mse"]),
        ({"scale": 11}, ["above 0, up to 10, or auto"]), ({"scale": "large"}, ["scale makes no sense"]),
        ({"layers": [4, 0]}, ["layers", "list of positive whole numbers"]), ({"layers": [4, True]}, ["layers"]),
        ({"layers": "45"}, ["wrong kind"]), ({"names": "ab"}, ["a list of texts"]), ({"names": [1]}, ["a list of texts"]),
        ({"table": {"x": "1"}}, ["a table"]), ({"table": {"x": math.nan}}, ["never NaN"]), ({"named": 1}, ["true or false"]),
        ({"named": "yes"}, ["true or false"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Rule, Longer])
def test_what_is_refused(kind: Any, wrong: dict[str, Any], parts: list[str]) -> None:
    """In a file, with the place; and in Python."""
    with pytest.raises(ConfigError) as caught:
        arguments(kind, {"steps": 3, **wrong}, "e.toml: [learner]")
    with pytest.raises(ConfigError) as made:
        kind(**{"steps": 3, **wrong})
    for part in parts:
        assert part in str(caught.value)
        assert part in str(made.value)
    assert caught.value.where == f"e.toml: [learner] {next(iter(wrong))}"
    assert made.value.where == f"[learner] {next(iter(wrong))}"


def test_a_range_holds_for_a_text_with_a_unit() -> None:
    for text in ("0 Hz", "-3 kHz"):
        with pytest.raises(ConfigError, match="rate_hz makes no sense"):
            arguments(Rule, {"steps": 1, "rate": text}, "[learner]")
    with pytest.raises(ConfigError, match=r'a frequency, e\.g\. "1\.5 Hz"'):
        arguments(Rule, {"steps": 1, "rate": "3 V"}, "[learner]")


def test_keys() -> None:
    with pytest.raises(ConfigError, match="no steps"):
        arguments(Rule, {}, "[learner]")
    with pytest.raises(ConfigError, match='Did you mean "share"'):
        arguments(Rule, {"steps": 1, "shares": 0.1}, "[learner]")
    with pytest.raises(ConfigError, match="twice"):
        arguments(Rule, {"steps": 1, "rate": "1 Hz", "rate_hz": 1.0}, "[learner]")
    with pytest.raises(ConfigError, match="apart"):
        arguments(Rule, {"steps": 1, "aport": 1}, "[learner]", besides=("apart",))
    with pytest.raises(ConfigError, match="unknown key"):
        arguments(Rule, {"steps": 1}, "[learner]", skip=("steps",))


def test_what_is_left_to_the_class() -> None:
    """Annotations that are no settings; NaN is refused all the same."""

    class Foreign:
        def __init__(self, a: torch.Tensor, b: Fraction, c: list[torch.Tensor], d: object = None, *, f: int = 0) -> None: ...

    table = {"a": [1, "x"], "b": "1/3", "c": "text", "d": {"x": [1]}}
    assert arguments(Foreign, table, "[x]") == table
    for key in table:
        with pytest.raises(ConfigError, match="never NaN"):
            arguments(Foreign, {key: [math.nan]}, "[x]")
    with pytest.raises(ConfigError, match="whole number"):
        arguments(Foreign, {"f": 1.5}, "[x]")


def test_units_of_parameters() -> None:
    known = parameters(MachZehnder)
    assert (known["v_pi_v"].unit, known["v_pi_v"].alias) == ("volt", "v_pi")
    assert known["rin_db_per_hz"].unit is None
    drift = {"drift": "2 rad/s"}
    assert arguments(MachZehnder, drift, "[twin]") == {"drift_rad_per_s": 2.0}  # the first of two
