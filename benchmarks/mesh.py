"""Meshes and scattering media that the calibration never saw: what is reached, and whether the stated uncertainties are true.

    python benchmarks/mesh.py [--quick] [--meshes N] [--modes N] [--media N] [--crosstalk SHARE] [--record]

Every mesh and every medium is a specimen of its own, drawn from a number that the calibration does not get; it sees the Device
alone. For a mesh, fidelities are taken twice: as measured through powers by the calibration, and on fresh random unitaries from
the twin's true matrix; both leave out the phases of the outputs (calibration/mesh/sequence.py). Coverage is the share of the
crosstalk matrix's elements whose true value lies within one stated standard deviation. For a medium: correlation of predicted
and measured light on unseen patterns, and focus over what even illumination would allow. Times are of the CPU, one thread;
memory is the most that the process held. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from recording import record

from calibration.camera.sequence import camera
from calibration.mesh.clements import haar
from calibration.mesh.crosstalk import model_of
from calibration.mesh.phase_reading import fidelity
from calibration.mesh.sequence import mesh, phases_of, voltages
from calibration.sequence import Subject, calibrated
from calibration.step import Step
from sim_devices.mzi_mesh import MZIMesh
from sim_devices.scattering import Scattering
from sim_devices.simulated import Simulated

FIRST = 1000  # specimens of the tests and benches are below
TARGETS = 10


def mesh_of(specimen: int, modes: int, crosstalk: float) -> dict[str, Any]:
    """One hidden mesh."""
    chip, begin = MZIMesh(modes=modes, specimen=specimen, crosstalk=crosstalk), time.process_time()
    found = {step.name: step for step in calibrated(mesh(), Subject(Simulated(chip, seed=specimen), seed=0))}
    took_s = time.process_time() - begin
    facts: dict[str, Any] = {"specimen": specimen, "good": good(found), "took_s": took_s, "problems": problems(found)}
    if not found["crosstalk"].good:
        return facts
    raw, model = found["crosstalk"].raw, model_of(found, chip.v_max_v)
    off = (raw["matrix"] - chip.matrix * chip.v_max_v**2) / raw["matrix_sigma"]
    rng = torch.Generator().manual_seed(specimen)
    targets = [haar(modes, rng) for _ in range(TARGETS)]
    plain = [model.volts(model.shares(phases_of(model, one[None])[0], compensated=False)) for one in targets]
    return {
        **facts, **found["mesh"].figures, "chi2": found["crosstalk"].figures["chi2"],
        "coverage": float((off.abs() < 1).double().mean()),
        "true": [float(fidelity(chip.unitary(voltages(model, one)), one)) for one in targets],
        "true_uncompensated": [float(fidelity(chip.unitary(v), one)) for v, one in zip(plain, targets, strict=True)],
    }  # fmt: skip


def problems(found: dict[str, Step]) -> str:
    """The first two problems of each step."""
    return "; ".join(f"{step.name}: {one.what}, {one.evidence}" for step in found.values() for one in step.problems[:2])


def medium_of(specimen: int) -> dict[str, Any]:
    """One hidden medium, with its modulator and camera."""
    twin, begin = Scattering(specimen=specimen), time.process_time()
    found = {step.name: step for step in calibrated(camera(), Subject(Simulated(twin, seed=specimen), seed=0))}
    took_s = time.process_time() - begin
    facts = {"specimen": specimen, "good": good(found), "took_s": took_s, "problems": problems(found)}
    if "correlation" not in found["transmission"].estimates:
        return facts
    focus = found["transmission"].estimates["enhancement"].value
    return {**facts, **found["transmission"].figures, "focus_share": focus / found["transmission"].figures["enhancement_ideal"]}


def good(found: dict[str, Step]) -> bool:
    return all(step.good for step in found.values())


def middle_and_worst(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "worst": min(values)} if values else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--meshes", type=int, default=20)
    parser.add_argument("--modes", type=int, default=6)
    parser.add_argument("--media", type=int, default=20)
    parser.add_argument("--crosstalk", type=float, default=0.05)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    meshes, media = (3, 3) if options.quick else (options.meshes, options.media)
    chips = []
    for specimen in range(FIRST, FIRST + meshes):
        chips.append(mesh_of(specimen, options.modes, options.crosstalk))
        print({k: v for k, v in chips[-1].items() if not isinstance(v, list)}, flush=True)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    seen = []
    for specimen in range(FIRST, FIRST + media):
        seen.append(medium_of(specimen))
        print(seen[-1], flush=True)
    done, known = [c for c in chips if "true" in c], [m for m in seen if "correlation_median" in m]
    result = {
        "meshes": meshes, "modes": options.modes, "crosstalk": options.crosstalk, "good_meshes": sum(c["good"] for c in chips),
        "fidelity": middle_and_worst([f for c in done for f in c["true"]]),
        "fidelity_measured": middle_and_worst([c["fidelity_worst"] for c in done]),
        "fidelity_uncompensated": middle_and_worst([f for c in done for f in c["true_uncompensated"]]),
        "chi2": [min((c["chi2"] for c in done), default=0.0), max((c["chi2"] for c in done), default=0.0)],
        "coverage": statistics.mean(c["coverage"] for c in done) if done else 0.0,
        "mesh_s": statistics.median(c["took_s"] for c in chips) if chips else 0.0,
        "mesh_peak_gb": peak_gb,
        "media": media, "good_media": sum(m["good"] for m in seen),
        "correlation": {
            "median": statistics.median(m["correlation_median"] for m in known) if known else 0.0,
            "worst": min((m["correlation_worst"] for m in known), default=0.0),
        },
        "focus_share": middle_and_worst([m["focus_share"] for m in known]),
        "medium_s": statistics.median(m["took_s"] for m in seen) if seen else 0.0,
    }  # fmt: skip
    if options.record:
        rows = [f"| {name} | {value} |" for name, value in result.items()]
        record("Meshes and scattering media", ["| what | found |", "|---|---|", *rows])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
