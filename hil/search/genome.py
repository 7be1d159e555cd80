"""The space of feedbacks: genes of g, of the matrices B and of the learning rate.

Free genes are the dimensions of the search; fixed ones are the same for every genome. A free gene is a range, logarithmic for
scales, rates and widths, or one of several texts.

g and -g are the same to a search, as B and -B are equally likely. Of such a pair one genome is canonical:

    fourier, spline     the coefficient, or the knot, of the largest magnitude is positive
    sine                the phase is in [-pi/2, pi/2)

Genes that change nothing are left out of a space (`redundant`): the steps of an optimiser that is scale-free (Adam) do not
depend on the scale of B, nor on the amplitude of g unless an offset or a clip gives g a scale of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hil.errors import ConfigError
from hil.feedback.feedback import Feedback
from hil.search.families import FAMILIES, LOGARITHMIC, WHOLE, family, shaped
from hil.search.jobs import Recipe
from hil.search.space import Dimension, Genome, Shares, Value
from hil.settings import no_such

OF_B = ("distribution", "scale", "rank", "sparsity")
SHAPE = ("amplitude", "offset", "clip")
SIGNED = {"fourier": ("sin", "cos"), "spline": ("y",), "sine": ("phase",)}  # genes that say the sign of g


def stem(name: str) -> str:
    """The gene without its number or layer: "sin3" -> "sin", "scale_2" -> "scale"."""
    return name.rstrip("0123456789").rstrip("_")


@dataclass(frozen=True, slots=True)
class FeedbackSpace:
    """A Space: what the values of a genome mean for a feedback.

    Args:
        kind: of g, one of FAMILIES.
        dimensions: the free genes.
        fixed: the others.
        layers: hidden layers of the network.
        terms, knots, reach: of the family.
    """

    kind: str
    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Value]
    layers: int
    terms: int = 4
    knots: int = 9
    reach: float = 3.0

    def values(self, genome: Genome) -> dict[str, Value]:
        """Return every gene, free or fixed, in its own unit."""
        free = {gene.name: value for gene, value in zip(self.dimensions, genome.values, strict=True)}
        return {**self.fixed, **free}

    def recipe(self, genome: Genome) -> Recipe:
        """Return the recipe that the genome means."""
        values = self.values(genome)
        numbers = {name: float(value) for name, value in values.items() if not isinstance(value, str)}
        g = shaped(family(self.kind, self.terms, self.knots, self.reach).make(numbers), numbers)
        of_b = {name: found for name in OF_B if (found := self._per_layer(name, values)) is not None}
        table = {**of_b, "g": {"family": "constant"}}
        matrices = Feedback.from_table(table, "genome")
        return Recipe(Feedback(g, matrices.distribution, matrices.scale, matrices.rank, matrices.sparsity), float(values["lr"]))

    def canonical(self, shares: Shares) -> Shares:
        """Return the shares of g or of -g that stand for both; the same ones where -g is not in the space."""
        signed = [place for place, gene in enumerate(self.dimensions) if stem(gene.name) in SIGNED.get(self.kind, ())]
        turned = [place for place, gene in enumerate(self.dimensions) if gene.name == "offset"]
        if not signed or not self._has_both_signs:
            return shares
        numbers = list(shares)
        if self.kind == "sine":
            (place,) = signed
            if 0.25 <= numbers[place] < 0.75:
                return shares
            numbers[place] = (numbers[place] + 0.5) % 1.0
        else:
            largest = max(signed, key=lambda place: abs(numbers[place] - 0.5))
            if numbers[largest] >= 0.5:
                return shares
            turned += signed
        for place in turned:
            numbers[place] = 1.0 - numbers[place]
        return tuple(numbers)

    @property
    def _has_both_signs(self) -> bool:
        """True if every gene that a change of the sign moves has a range that allows it."""
        for name, value in self.fixed.items():
            if (stem(name) in SIGNED.get(self.kind, ()) or name == "offset") and value != 0.0:
                return False
        found = [gene for gene in self.dimensions if stem(gene.name) in (*SIGNED.get(self.kind, ()), "offset")]
        if self.kind == "sine" and not any(gene.name == "phase" and gene.high == math.pi for gene in found):
            return False
        return all(gene.low == -gene.high for gene in found)

    def _per_layer(self, name: str, values: Mapping[str, Value]) -> Value | list[Value] | None:
        if f"{name}_1" in values:
            return [values[f"{name}_{layer}"] for layer in range(1, self.layers + 1)]
        return values.get(name)


def space(
    kind: str,
    written: Mapping[str, Any],
    otherwise: Mapping[str, Value],
    layers: int,
    terms: int = 4,
    knots: int = 9,
    reach: float = 3.0,
    where: str = "[genome]",
) -> FeedbackSpace:
    """Make the space that a search file describes.

    Args:
        kind: of g, one of FAMILIES.
        written: gene -> a value (fixed), [low, high] (free), or a list of texts (free, one of them).
        otherwise: values of lr and of B where nothing is written.
        layers: hidden layers of the network.
        terms: of a Fourier series.
        knots: of a spline.
        reach: of a spline, in units of the pre-activation.
        where: file and table, for messages.

    Raises:
        ConfigError: no such family or gene, or a range that makes no sense.
    """
    if kind not in FAMILIES:
        raise no_such("family", kind, FAMILIES, where)
    ranges = family(kind, terms, knots, reach).ranges
    of_layers = [f"{name}_{layer}" for name in OF_B for layer in range(1, layers + 1)]
    known = (*ranges, *SHAPE, *OF_B, *of_layers, "lr")
    for name in written:
        if name not in known:
            raise no_such("gene", name, known, f"{where} genes")
    entries: dict[str, Any] = {**otherwise, **ranges, **_written(written, otherwise, layers)}
    free, fixed = [], {}
    for name, entry in entries.items():
        if isinstance(entry, list | tuple):
            free.append(_free(name, entry, f"{where} genes {name}"))
        else:
            fixed[name] = entry
    if not free:
        raise ConfigError("no gene is free", where=where, todo="give at least one gene a range: lr = [1e-3, 1e-2]")
    return FeedbackSpace(kind, tuple(free), fixed, layers, terms, knots, reach)


def redundant(written: Mapping[str, Any]) -> list[str]:
    """Return the free genes among those of a search file that change no step of an optimiser that is scale-free."""
    shaped_alone = written.get("offset", 0.0) == 0.0 and "clip" not in written
    return [
        name
        for name, entry in written.items()
        if isinstance(entry, list | tuple) and (stem(name) == "scale" or (name == "amplitude" and shaped_alone))
    ]


def _written(written: Mapping[str, Any], otherwise: Mapping[str, Value], layers: int) -> dict[str, Any]:
    """A gene of one layer gives every layer one of its own; the others keep the value of all."""
    found = dict(written)
    for name in OF_B:
        own = [f"{name}_{layer}" for layer in range(1, layers + 1)]
        if any(key in written for key in own):
            shared = found.pop(name, otherwise.get(name))
            for key in own:
                if key not in found and shared is None:
                    raise ConfigError(f"{key} is missing", where="[genome] genes", got=", ".join(written))
                found.setdefault(key, shared)
    return found


def _free(name: str, entry: Sequence[Any], where: str) -> Dimension:
    if entry and all(isinstance(item, str) for item in entry):
        return Dimension(name, choices=tuple(entry))
    numbers = [float(item) for item in entry if isinstance(item, int | float) and not isinstance(item, bool)]
    logarithmic = stem(name) in LOGARITHMIC
    if len(numbers) != 2 or len(entry) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise ConfigError("not a range", where=where, got=repr(list(entry)), allowed="[low, high], low below high")
    if logarithmic and numbers[0] <= 0:
        raise ConfigError("a logarithmic range begins above 0", where=where, got=repr(list(entry)))
    return Dimension(name, numbers[0], numbers[1], logarithmic=logarithmic, whole=stem(name) in WHOLE)
