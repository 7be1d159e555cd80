from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hil.errors import ConfigError
from hil.feedback.feedback import (
    FAMILIES,
    ArctanSlope,
    Box,
    Constant,
    Feedback,
    Fourier,
    Function,
    Gaussian,
    Shaped,
    Sine,
    Tabulated,
    correlation,
    from_table,
    matrix,
    to_table,
)
from hil.seeding import generator

EXAMPLES: list[Function] = [
    Fourier((0.5, -0.25), (0.0, 0.75), 2.0),
    Sine(2.0, 0.5, -1.0, 0.25),
    Box(0.5, 1.0),
    Gaussian(0.7, -1.0),
    ArctanSlope(3.0, 0.5),
    Constant(-2.0),
    Tabulated((-1.0, 0.0, 2.0), (0.0, 1.0, -1.0)),
    Shaped(Sine(1.0, 2.0), 3.0, 0.5, 1.25),
]
PRE = torch.linspace(-3, 3, 121, dtype=torch.float64)


def expected(g: Function, a: float) -> float:
    """Every family once more, from its formula, by the math module."""
    match g:
        case Fourier(sin, cos, half):
            angles = [k * math.pi * a / half for k in range(1, len(sin) + 1)]
            return sum(p * math.sin(t) + q * math.cos(t) for p, q, t in zip(sin, cos, angles, strict=True))
        case Sine(amplitude, frequency, phase, offset):
            return offset + amplitude * math.sin(frequency * a + phase)
        case Box(half_width, centre):
            return float(abs(a - centre) < half_width)
        case Gaussian(width, centre):
            return math.exp(-((a - centre) ** 2) / (2 * width**2))
        case ArctanSlope(alpha, centre):
            return alpha / 2 / (1 + (math.pi / 2 * alpha * (a - centre)) ** 2)
        case Constant(value):
            return value
        case Tabulated(x, y):
            a = min(max(a, x[0]), x[-1])
            i = max(k for k in range(len(x) - 1) if x[k] <= a)
            return y[i] + (y[i + 1] - y[i]) * (a - x[i]) / (x[i + 1] - x[i])
        case Shaped(of, amplitude, offset, clip):
            assert clip is not None
            return min(max(offset + amplitude * expected(of, a), -clip), clip)


def test_every_family_is_tried() -> None:
    assert {type(g) for g in EXAMPLES} == set(FAMILIES.values())


@pytest.mark.parametrize("g", EXAMPLES, ids=lambda g: type(g).__name__)
def test_value_is_the_formula(g: Function) -> None:
    before = PRE.clone()
    assert g(PRE).tolist() == pytest.approx([expected(g, a) for a in PRE.tolist()], abs=1e-12)
    assert torch.equal(PRE, before)  # computed in place, but not in the caller's tensor


@pytest.mark.parametrize("g", EXAMPLES, ids=lambda g: type(g).__name__)
def test_shape_and_dtype_are_those_of_the_pre_activation(g: Function) -> None:
    pre = torch.zeros(2, 3, 4)
    assert g(pre).shape == pre.shape
    assert g(pre).dtype == torch.float32


@pytest.mark.parametrize("g", EXAMPLES, ids=lambda g: type(g).__name__)
def test_a_function_survives_its_table(g: Function) -> None:
    assert from_table(to_table(g)) == g


def test_arctan_slope_is_the_slope_of_arctan() -> None:
    a = PRE.clone().requires_grad_(True)
    (torch.arctan(math.pi / 2 * 2.0 * a) / math.pi).sum().backward()
    assert torch.allclose(ArctanSlope(2.0)(PRE), a.grad)  # type: ignore[arg-type]


def test_random_fourier_is_normalised_and_reproducible() -> None:
    g = Fourier.random(generator(0, 0, "g"), terms=4, half_period=2.0)
    assert sum(c * c for c in g.sin + g.cos) == pytest.approx(1.0)
    assert g == Fourier.random(generator(0, 0, "g"), terms=4, half_period=2.0)
    assert g != Fourier.random(generator(1, 0, "g"), terms=4, half_period=2.0)
    period = torch.linspace(-2, 2, 4001, dtype=torch.float64)[:-1]
    assert float(g(period).square().mean()) == pytest.approx(0.5, abs=1e-6)  # as a unit sine


def test_a_table_holds_its_ends_and_passes_nan() -> None:
    g = Tabulated((0.0, 1.0), (2.0, 4.0))
    values = g(torch.tensor([-5.0, 0.0, 0.25, 1.0, 9.0, float("nan")]))
    assert values[:5].tolist() == [2.0, 2.0, 2.5, 4.0, 4.0]
    assert values[5].isnan()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"family": "sinus"}, ["sinus", "did you mean sine?"]),
        ({}, ["family"]),
        ({"family": "expression", "expression": "sin(a)"}, ["unknown family of g", "fourier, sine, box", "Next: "]),
        ({"family": "sine", "phse": 1.0}, ["phse", 'Did you mean "phase"?']),
        ({"family": "sine", "phase": "0.6"}, ["phase", '"0.6"']),
        ({"family": "sine", "phase": True}, ["phase"]),
        ({"family": "sine", "phase": math.nan}, ["finite"]),
        ({"family": "gaussian", "width": 0.0}, ["width", "positive"]),
        ({"family": "fourier", "sin": [1.0]}, ["missing", "cos"]),
        ({"family": "fourier", "sin": [1.0], "cos": []}, ["coefficients"]),
        ({"family": "tabulated", "x": [0.0, 0.0], "y": [1.0, 2.0]}, ["rising"]),
        ({"family": "tabulated", "x": "ab", "y": [1.0, 2.0]}, ["wrong kind"]),
    ],
)
def test_a_wrong_function_is_explained(table: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        from_table(table)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def rms(b: Tensor) -> float:
    return float(b.square().mean().sqrt())


@pytest.mark.parametrize("distribution", ["uniform", "normal", "sign", "orthogonal"])
@pytest.mark.parametrize(("rank", "sparsity"), [(None, 0.0), (4, 0.0), (None, 0.5), (4, 0.5)])
def test_scale_rank_and_sparsity_of_b(distribution: str, rank: int | None, sparsity: float) -> None:
    b = matrix(600, 20, distribution, generator(3, 0, "b"), 0.3, rank, sparsity)  # type: ignore[arg-type]
    assert b.shape == (600, 20)
    assert b.dtype == torch.float32
    assert rms(b) == pytest.approx(0.3, rel=0.12)
    assert int(torch.linalg.matrix_rank(b)) == (rank or 20)
    if rank is None:
        assert float((b == 0).float().mean()) == pytest.approx(sparsity, abs=0.02)


def test_distributions_are_what_they_are_called() -> None:
    rng = generator(0, 0, "b")
    assert float(matrix(400, 50, "uniform", rng).abs().max()) <= math.sqrt(3)
    assert set(matrix(50, 10, "sign", rng, 0.5).unique().tolist()) == {-0.5, 0.5}
    tall, wide = matrix(50, 10, "orthogonal", rng), matrix(10, 50, "orthogonal", rng)
    assert torch.allclose(tall.t() @ tall / 50, torch.eye(10), atol=1e-5)
    assert torch.allclose(wide @ wide.t() / 50, torch.eye(10), atol=1e-5)


def test_b_depends_on_the_generator_alone() -> None:
    assert torch.equal(matrix(7, 3, "normal", generator(1, 0, "b")), matrix(7, 3, "normal", generator(1, 0, "b")))
    state = torch.get_rng_state()
    matrix(7, 3, "orthogonal", generator(1, 0, "b"), rank=2, sparsity=0.2)
    assert torch.equal(state, torch.get_rng_state())


WHOLE = Feedback(Fourier((0.1, 1e-7), (-0.3, 2.0), 1.5), "sign", (0.1, 0.2), rank=3, sparsity=0.25)


@pytest.mark.parametrize("feedback", [WHOLE, *(Feedback(g) for g in EXAMPLES)], ids=lambda f: type(f.g).__name__)
def test_a_feedback_survives_its_file(feedback: Feedback, tmp_path: Path) -> None:
    feedback.save(tmp_path / "g.toml")
    assert Feedback.load(tmp_path / "g.toml") == feedback
    assert Feedback.from_table(feedback.to_table()) == feedback


def test_scales_are_per_layer() -> None:
    one, other = Feedback(Sine(), "sign", (0.1, 0.4)).matrices([5, 6], 3, generator(0, 0, "b"))
    assert (rms(one), rms(other)) == (pytest.approx(0.1), pytest.approx(0.4))
    assert (one.shape, other.shape) == ((5, 3), (6, 3))
    with pytest.raises(ConfigError, match="2 scales for 3 hidden layers"):
        Feedback(Sine(), "sign", (0.1, 0.4)).matrices([5, 6, 7], 3, generator(0, 0, "b"))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, ["g is missing"]),
        ({"g": {"family": "sine"}, "sparcity": 0.1}, ["sparcity", 'Did you mean "sparsity"?']),
        ({"g": {"family": "sine"}, "distribution": "gaussian"}, ["gaussian", "uniform, normal, sign, orthogonal"]),
        ({"g": {"family": "sine"}, "scale": -1.0}, ["scale makes no sense", "positive"]),
        ({"g": {"family": "sine"}, "scale": [0.1, 0.0]}, ["scale makes no sense", "positive"]),
        ({"g": {"family": "sine"}, "rank": 0}, ["rank"]),
        ({"g": {"family": "sine"}, "rank": 2.5}, ["rank", "wrong kind"]),
        ({"g": {"family": "sine"}, "sparsity": 1.0}, ["sparsity"]),
    ],
)
def test_a_wrong_feedback_is_explained(table: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        Feedback.from_table(table)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


@pytest.mark.parametrize("text", ["[g\nfamily=1", "\x00"])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        Feedback.load(path)
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        Feedback.load(tmp_path / "absent.toml")


def test_correlation_is_the_cosine_without_the_means() -> None:
    a = torch.tensor([1.0, 2.0, 4.0])
    assert correlation(a, 3 * a) == pytest.approx(1.0)
    assert correlation(a, -a) == pytest.approx(-1.0)
    assert correlation(a, a + 10) == pytest.approx(1.0)
    quadrature = torch.linspace(0, 2 * math.pi, 1001)[:-1]
    assert correlation(quadrature.sin(), quadrature.cos()) == pytest.approx(0.0, abs=1e-6)


def test_a_constant_has_no_correlation() -> None:
    a = torch.rand(1000, generator=generator(0, 0, "a"))
    assert correlation(Constant(0.1)(a), a) == 0.0
    assert correlation(torch.zeros(4), torch.ones(4)) == 0.0
