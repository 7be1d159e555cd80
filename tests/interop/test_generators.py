"""hil/search/gest.py: generators of Xopt drive our trials, and Xopt and libEnsemble are driven by ours.

pip install "hil[interop]"
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from extras import needs
from rich.console import Console

from hil.commands.search import carry_on, start
from hil.run.folder import RunFolder
from hil.search.genetic import Genetic
from hil.search.history import EVALUATIONS, GENERATIONS, same
from hil.search.random_and_cma import CMA, IPOP, Random

needs("xopt")

QUIET = Console(quiet=True)
ROOT = Path(__file__).resolve().parents[2]
FILE = f"""
base = "{ROOT / "experiments" / "narma10_delay_loop.toml"}"
set = ["data.number=5", "data.steps=400", "data.split.validation=0.4", "data.split.test=0.2"]
[search]
strategy = "xopt.generators.GENERATOR"
trials = 10
[search.space]
device.phase = ["0 rad", "3.14 rad"]
encode.gain = {{ low = "0.02 V", high = "2 V", log = true }}
[train]
epochs = 1
score = 1
held = 1
[evaluate]
workers = 1
[confirm]
seeds = 2
candidates = 1
random = 0
hand_made = false
"""
SEQUENTIAL = 'population = 1\nrandom_first = 4\n[search.generator]\nnumerical_optimizer = { name = "LBFGS", max_time = 600.0 }'
GENERATORS = {
    "random:RandomGenerator": "population = 4",
    "ga.nsga2:NSGA2Generator": "population = 4",
    "ga.cnsga:CNSGAGenerator": "population = 4",
    "sequential.neldermead:NelderMeadGenerator": "population = 1\nrandom_first = 1",
    "bayesian.upper_confidence_bound:UpperConfidenceBoundGenerator": SEQUENTIAL,
}


def history(folder: Path) -> list[list[dict[str, Any]]]:
    return [
        [same(json.loads(line)) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in (EVALUATIONS, GENERATIONS)
    ]


@pytest.mark.parametrize("name", GENERATORS)
def test_it_drives_our_trials_and_a_resume_repeats_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "search.toml"
    path.write_text(
        FILE.replace("GENERATOR", name).replace("trials = 10", f"trials = 10\n{GENERATORS[name]}"), encoding="utf-8"
    )
    whole, cut = RunFolder.create(tmp_path / "whole"), tmp_path / "cut"
    start(path, whole, QUIET)
    assert sum(len(line["genomes"]) for line in history(whole.path)[1]) == 10
    cut.mkdir()
    for kept in ("config.toml", "search.toml"):
        (cut / kept).write_bytes((whole.path / kept).read_bytes())
    lines = (whole.path / EVALUATIONS).read_text(encoding="utf-8").splitlines(keepends=True)
    (cut / EVALUATIONS).write_text("".join(lines[:6]), encoding="utf-8")
    carry_on(RunFolder(cut), QUIET)
    assert history(cut) == history(whole.path)


def banana(point: dict[str, Any], **other: Any) -> dict[str, float]:
    return {"f": (1 - point["x"]) ** 2 + 10 * (point["y"] - point["x"] ** 2) ** 2}


@pytest.mark.parametrize("kind", [Genetic, CMA, IPOP, Random])
def test_ours_drives_the_trials_of_xopt(kind: Any) -> None:
    from pandas import DataFrame
    from xopt import VOCS, Evaluator

    vocs = VOCS(variables={"x": [-2.0, 2.0], "y": [-2.0, 2.0]}, objectives={"f": "MINIMIZE"}, constants={"a": 1.0})
    evaluator, found = Evaluator(function=banana), list[float]()
    generator = kind(vocs, seed=1)
    while len(found) < 300:
        points = generator.suggest(None)
        values = [float(value) for value in evaluator.evaluate_data(DataFrame(points))["f"]]
        generator.ingest([{**point, "f": value} for point, value in zip(points, values, strict=True)])
        found += values
    generator.finalize()
    assert min(found) < 0.1 < found[0]


@pytest.mark.parametrize("kind", [Genetic, CMA])
def test_libensemble_is_driven_by_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    needs("libensemble")
    from gest_api.vocs import VOCS
    from libensemble import Ensemble
    from libensemble.alloc_funcs.start_only_persistent import only_persistent_gens
    from libensemble.specs import AllocSpecs, ExitCriteria, GenSpecs, LibeSpecs, SimSpecs

    monkeypatch.chdir(tmp_path)
    vocs = VOCS(variables={"x": [-2.0, 2.0], "y": [-2.0, 2.0]}, objectives={"f": "MINIMIZE"})
    ensemble = Ensemble(
        parse_args=False,
        libE_specs=LibeSpecs(comms="threads", nworkers=3, disable_log_files=True),
        gen_specs=GenSpecs(generator=kind(vocs, 1, 12), vocs=vocs, batch_size=12, initial_batch_size=12),
        sim_specs=SimSpecs(simulator=banana, vocs=vocs),
        alloc_specs=AllocSpecs(alloc_f=only_persistent_gens),
        exit_criteria=ExitCriteria(sim_max=240),
    )
    history, _, flag = ensemble.run()
    done = history[history["sim_ended"]]
    assert (flag, len(done)) == (0, 240)
    assert done["f"].min() < 0.01
