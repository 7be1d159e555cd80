"""Train the heaters of a mesh in the loop, beside weights that an ideal model computed and that were then programmed.

    python benchmarks/programmed_mesh.py [--specimens 0 1 2 3 4] [--parts ideal pat stays spsa] [--modes 8] [--quick] [--record]

experiments/digits_heaters_pat.toml, 992 heaters, or with 8 modes the mesh of digits_heaters_spsa.toml, 56 heaters, which is
SPSA's alone (its readout by its gradient); losses, crosstalk, coupler errors and noise are on; each specimen of the chip with
the seed of its number. The ideal model is the chip with its heater table (static phases, rad/V^2, self-heating) and nothing
else: no crosstalk, coupler errors, losses, gains, noise. Its weights are programmed in three ways: its voltages as they are; by
a table that takes all other heaters as half on (calibration/mesh/fit.py); and with the true crosstalk matrix undone, which is
more than a calibration finds. "readout fitted" trains the host's readout on the chip after that, the heaters as they are. Of
every run the epoch is chosen on the validation split, and the test split is read once for each line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from programmed import HEAD, Found, accuracy, line_of, scored, tested, trained
from recording import record
from torch import Tensor

from calibration.mesh.clements import MeshLayout
from calibration.mesh.fit import MeshModel
from hil.build.training import Built, built
from hil.config.experiment import read_experiment
from sim_devices.mzi_mesh import MZIMesh

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
FILES = {rule: FOLDER / f"digits_heaters_{rule}.toml" for rule in ("pat", "spsa")}
ERRORS = ("crosstalk", "coupler_rad", "gain_spread", "mzi_loss_db", "noise")
IDEAL = tuple(f"device.{name}=0.0" for name in ERRORS)
SMALL = ("device.modes=8", "decode.zero=1e-5", "decode.scale=1e-5")
SIZE: list[str] = []
STAYS = ("params.lr=0",)
PARAMS = "layers.0.params"
SPSA_EPOCHS = 1 / 3  # 10 to 30
Line = tuple[str, Found]


def opened(specimen: int, epochs: int, *more: str, rule: str = "pat") -> AbstractContextManager[Built]:
    fixed = (f"device.specimen={specimen}", f"seed={specimen}", f"train.epochs={epochs}", "train.threads=1", *SIZE)
    return built(read_experiment(FILES[rule], [*fixed, *more]))


def programmings(chip: MZIMesh, ideal: MZIMesh, params: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Name and parameters of the ways in which the phases of an ideal mesh are programmed on a chip."""
    yield "voltages as they are", params
    curvature = torch.full_like(chip.phase0, chip.self_heating)
    table = chip.phase0, chip.matrix * chip.v_max_v**2, curvature, chip.couplers, chip.v_max_v
    model = MeshModel(MeshLayout.rectangle(chip.modes), *table)
    phases = ideal.phases((params + 1) / 2 * chip.v_max_v)
    for name, undone in (("heater table", False), ("crosstalk undone", True)):
        volts = model.volts(model.shares(phases, undone))
        yield name, (2 * volts / chip.v_max_v - 1).clamp(-1, 1)


def ideal_lines(specimen: int, epochs: int) -> Iterator[Line]:
    """Train an ideal model; test its weights in itself, then programmed on the chip in each way."""
    with opened(specimen, epochs, *IDEAL) as made:
        weights, ideal = trained(made.training), made.node.twin
        yield "ideal model, in itself", Found(accuracy(made.training), 0, 0, 0, 0)
    assert isinstance(ideal, MZIMesh)
    with opened(specimen, epochs) as made:
        chip, training = made.node.twin, made.training
        assert isinstance(chip, MZIMesh)
        ways = list(programmings(chip, ideal, weights[PARAMS]))
        for name, params in ways:
            yield f"ideal model, {name}", tested(training, {**weights, PARAMS: params})
    with opened(specimen, max(1, epochs // 3), *STAYS) as made:
        made.training.net.load_state_dict({**weights, PARAMS: ways[-1][1]})
        yield "the last, readout fitted", scored(made.training)


def pat_lines(specimen: int, epochs: int) -> Iterator[Line]:
    with opened(specimen, epochs) as made:
        yield "PAT in the loop", scored(made.training)


def stays_lines(specimen: int, epochs: int) -> Iterator[Line]:
    with opened(specimen, epochs, *STAYS) as made:
        yield "PAT, heaters stay as drawn", scored(made.training)


def spsa_lines(specimen: int, epochs: int) -> Iterator[Line]:
    with opened(specimen, round(epochs * SPSA_EPOCHS), rule="spsa") as made:
        yield "SPSA in the loop", scored(made.training)


PARTS = {"ideal": ideal_lines, "pat": pat_lines, "stays": stays_lines, "spsa": spsa_lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--specimens", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--parts", nargs="*", default=["ideal", "pat", "stays"], choices=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="one specimen, two epochs")
    parser.add_argument("--record", action="store_true", help="write the table into RESULTS.md")
    parser.add_argument("--modes", type=int, choices=(8, 32), default=32)
    given = parser.parse_args()
    SIZE.extend(SMALL if given.modes == 8 else ())
    torch.set_num_threads(1)
    specimens, epochs = ([0], 2) if given.quick else (given.specimens, 30)
    found = [dict(shown(specimen, epochs, given.parts)) for specimen in specimens]
    lines = [*HEAD, *(line_of(f"{given.modes} waveguides", name, [one[name] for one in found]) for name in found[0])]
    print("\n".join(lines))
    if given.record:
        record("Heaters of a mesh, trained in the loop or programmed", lines)


def shown(specimen: int, epochs: int, parts: Sequence[str]) -> Iterator[Line]:
    for part in parts:
        for line in PARTS[part](specimen, epochs):
            print(json.dumps([specimen, line[0], *line[1]]), flush=True)
            yield line


if __name__ == "__main__":
    main()
