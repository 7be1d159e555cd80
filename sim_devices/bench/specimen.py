"""A specimen: what left the factory under one data sheet, its parameters hidden from who calibrates it.

    theta_i ~ N( sheet_i, spread_i )          drawn again while outside [low_i, high_i]; a periodic one is wrapped into them

Each parameter has a generator of its own, (seed, 0, "specimen <name>"): a new one does not move the others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hil.errors import ConfigError
from hil.seeding import generator
from hil.twin import Fittable, Unknown

CABLE = {"delay_s": Unknown(0.0, 1e-3, 0.5e-9, "s")}  # cut to length by hand: ten centimetres


def specimen(sheet: Mapping[str, float], unknowns: Mapping[str, Unknown], seed: int) -> dict[str, float]:
    """Return `sheet` with a specimen's own value of every one of `unknowns`.

    Raises:
        ConfigError: the sheet's value lies outside of the limits that it gives itself.
    """
    return {**sheet, **{name: _drawn(name, sheet[name], unknown, seed) for name, unknown in unknowns.items()}}


def node_specimen(twin: object, seed: int, where: str) -> dict[str, float]:
    """The settings of a specimen of `twin`.

    Raises:
        ConfigError: the twin does not say what is unknown of it.
    """
    if not isinstance(twin, Fittable):
        raise ConfigError(
            "there are no specimens of this node", where=where, got=type(twin).__name__,
            allowed="a twin with unknowns(), see hil/twin.py", todo="remove specimen from [virtual]",
        )  # fmt: skip
    return specimen(twin.settings(), twin.unknowns(), seed)


def _drawn(name: str, middle: float, unknown: Unknown, seed: int) -> float:
    if unknown.period is None and not unknown.low <= middle <= unknown.high:
        raise ConfigError(
            f"no specimen can be drawn: {name} is outside of its limits", where="specimen", got=f"{middle:g} {unknown.unit}",
            allowed=f"{unknown.low:g} to {unknown.high:g} {unknown.unit}",
        )  # fmt: skip
    rng = generator(seed, 0, f"specimen {name}")
    while True:
        value = middle + unknown.spread * float(torch.randn((), generator=rng, dtype=torch.float64))
        if unknown.period is not None:
            return unknown.low + (value - unknown.low) % unknown.period
        if unknown.low < value < unknown.high:
            return value
