"""The search beside what it is to be compared with. The last line is one JSON object.

    python benchmarks/search.py [--parts throughput node operating_point spikes] [--repeats 5] [--quick] [--record]

throughput   population_vs_pool   time of 64 ordinary trainings in a process pool over that of the same 64 as populations, on
                                  as many processes, all cores, started and warm; rounds interleaved, median of their ratios
             same_accuracy        largest difference of an accuracy between the two, as a fraction of the scored examples
node         a node of which only a curve is known (experiments/search_tabulated.toml): held accuracy after the genetic
             algorithm, CMA-ES and random search at equal evaluations, and backpropagation through the exact curve, same seeds

operating_point   experiments/search_narma10_operating_point.toml, 40 trials of bias, gain and drive of a delay loop by each
             strategy; seeds of the search 0 to repeats - 1
             nrmse       of the point that was found, on held sequences and five fresh seeds of mask and noise
             lowered     1 - that over the median of five points at random, on the same sequences and seeds
             same_history   of a search that is killed (SIGKILL) at its 20th trial and resumed, as of one that is not; of all

spikes       experiments/search_mnist_snn.toml, then the whole of MNIST with the feedback that was found, 5 seeds, test;
             hours; not among the default parts. HIL_DATA names the folder of the data

Searches live in runs/search-benchmark/; a finished one is not repeated and an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from killing.searches import history
from recording import record
from rich.console import Console

from hil.build.search import SearchBuilder, completed, work
from hil.build.training import built
from hil.commands.search import carry_on, start
from hil.config.experiment import experiment_of, read_experiment
from hil.config.read import checked
from hil.config.search import SearchFile, read_search
from hil.run.folder import RunFolder
from hil.search.evaluator import chunked
from hil.search.hand_made import hand_made, random_fourier
from hil.search.history import EVALUATIONS, SEARCH
from hil.search.jobs import Job
from hil.search.pool import Pool
from hil.training.loop import Epoch, train

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "runs" / "search-benchmark"
DIGITS = ROOT / "experiments" / "digits_adfa_twin.toml"
TABULATED = ROOT / "experiments" / "search_tabulated.toml"
OPERATING = ROOT / "experiments" / "search_narma10_operating_point.toml"
SPIKES = ROOT / "experiments" / "search_mnist_snn.toml"
SNN = ROOT / "experiments" / "mnist_adfa_snn.toml"
STRATEGIES = ("genetic", "cma", "random")
POPULATION = 64


def throughput(rounds: int, epochs: int) -> dict[str, Any]:
    """64 trainings both ways on the same number of processes."""
    workers = os.cpu_count() or 1
    builders = {}
    for by, chunk in (("population", POPULATION // workers), ("one", 1)):
        table = {"base": str(DIGITS), "evaluate": {"by": by, "chunk": chunk, "workers": workers}}
        file = checked(SearchFile, table, "benchmark")
        builders[by] = SearchBuilder(file, completed(file, read_experiment(DIGITS)))
    base = builders["one"].base()
    recipes = [*hand_made(base).values(), *random_fourier(base, 0, POPULATION).values()][:POPULATION]
    jobs = [Job(f"j/{k}", recipe, 1, epochs) for k, recipe in enumerate(recipes)]
    pools = {by: Pool(work, builder.text(), workers) for by, builder in builders.items()}
    seconds: dict[str, list[float]] = {by: [] for by in builders}
    found: dict[str, dict[str, float]] = {}
    for number in range(rounds + 1):
        for by, pool in pools.items():
            begin = time.perf_counter()
            size = builders[by].file.evaluate.chunk
            asked = (
                jobs if number else [dataclasses.replace(job, epochs=1) for job in jobs[: 2 * workers]]
            )  # the first warms up
            done = [pair for chunk, out in pool.evaluate(chunked(asked, size)) for pair in zip(chunk, out, strict=True)]
            if number:
                seconds[by].append(time.perf_counter() - begin)
                found[by] = {job.key: outcome.accuracy for job, outcome in done}
    for pool in pools.values():
        pool.close()
    ratios = [one / many for one, many in zip(seconds["one"], seconds["population"], strict=True)]
    differences = [abs(found["one"][key] - found["population"][key]) for key in found["one"]]
    return {
        "population_vs_pool": round(statistics.median(ratios), 2),
        "population_s": round(statistics.median(seconds["population"]), 2),
        "pool_s": round(statistics.median(seconds["one"]), 2),
        "same_accuracy": max(differences),
        "workers": workers,
    }


def searched(strategy: str, repeat: int, quick: bool) -> dict[str, Any]:
    """The summary of one search; made, gone on with, or read."""
    folder = FOLDER / ("quick" if quick else "full") / f"{strategy}-{repeat}"
    summary: dict[str, Any] = RunFolder(folder).read_json("summary.json") if folder.exists() else {}
    if summary.get("status") == "done":
        return summary
    if (folder / SEARCH).exists():
        return carry_on(RunFolder(folder), Console(quiet=True))
    text = TABULATED.read_text(encoding="utf-8").replace("seed = 0", f"seed = {repeat}", 1)
    text = text.replace("[search]\n", f'[search]\nstrategy = "{strategy}"\n').replace(
        'base = "', f'base = "{TABULATED.parent}/'
    )
    text = text.replace(
        "[confirm]\n", f"[confirm]\nhand_made = {str(strategy == 'genetic' and repeat == 0).lower()}\nrandom = 0\n"
    )
    if quick:
        text = text.replace("generations = 8", "generations = 2").replace("epochs = 10\nseeds = 5", "epochs = 4\nseeds = 2")
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{strategy}-{repeat}.toml"
    path.write_text(text, encoding="utf-8")
    return start(path, RunFolder.create(folder), Console(quiet=True))


def backprop(repeat: int, quick: bool) -> float:
    """Held accuracy of backpropagation through the exact curve, on the seeds that confirmed the genetic search of `repeat`."""
    folder = FOLDER / ("quick" if quick else "full") / f"genetic-{repeat}"
    target = folder / "backprop.json"
    if not target.exists():
        confirmed = json.loads((folder / "stages.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        builder = SearchBuilder(read_search(folder / SEARCH), read_experiment(folder / "config.toml"))
        data = builder.data()
        held = dataclasses.replace(data, validation=data.test)
        accuracies = []
        for seed in confirmed["seeds"]:
            table = builder.experiment.model_dump(exclude_none=True)
            table |= {"seed": seed, "learner": {"use": "backprop"}}
            table["train"] |= {"epochs": confirmed["epochs"], "threads": 1}
            with built(experiment_of(table, folder / "config.toml"), given=held) as made:
                points = [point for point in train(made.training) if isinstance(point, Epoch)]
            accuracies.append(points[-1].validation["accuracy"])
        target.write_text(json.dumps(accuracies), encoding="utf-8")
    return statistics.mean(json.loads(target.read_text(encoding="utf-8")))


def node(repeats: int, quick: bool) -> dict[str, Any]:
    """Every strategy, `repeats` searches each."""
    found: dict[str, list[float]] = {name: [] for name in (*STRATEGIES, "backprop", "best hand-made")}
    for repeat in range(repeats):
        for strategy in STRATEGIES:
            summary = searched(strategy, repeat, quick)
            found[strategy].append(summary["held_accuracy"])
            print(f"{strategy} {repeat}: held {summary['held_accuracy']:.4f}, {summary['evaluations']} trainings", flush=True)
        found["backprop"].append(backprop(repeat, quick))
        print(f"backprop {repeat}: {found['backprop'][-1]:.4f}", flush=True)
    genetic = searched("genetic", 0, quick)
    found["best hand-made"].append(genetic["held_accuracy"] - genetic["claims"][-1]["difference"])
    return {
        name: {
            "mean": round(statistics.mean(values), 4),
            "std": round(statistics.stdev(values), 4) if len(values) > 1 else None,
            "worst": round(min(values), 4),
            "repeats": len(values),
        }
        for name, values in found.items()
    }


def operating_point(repeats: int, quick: bool) -> dict[str, Any]:
    """Every strategy, `repeats` searches each; those of the genetic algorithm are made a second time, killed and resumed."""
    found: dict[str, dict[str, list[float]]] = {name: {"nrmse": [], "lowered": []} for name in ("genetic", "cma", "random")}
    same = True
    for repeat in range(repeats):
        for strategy, figures in found.items():
            folder = FOLDER / ("quick" if quick else "full") / f"operating-{strategy}-{repeat}"
            path = FOLDER / f"operating-{strategy}-{repeat}.toml"
            FOLDER.mkdir(parents=True, exist_ok=True)
            text = OPERATING.read_text(encoding="utf-8").replace("seed = 0", f"seed = {repeat}", 1)
            text = text.replace('base = "', f'base = "{OPERATING.parent}/').replace(
                "[search]\n", f'[search]\nstrategy = "{strategy}"\n'
            )
            path.write_text(text + "\n[evaluate]\nworkers = 1\n", encoding="utf-8")
            if RunFolder(folder).read_json("summary.json").get("status") != "done":
                again = (folder / SEARCH).exists()
                carry_on(RunFolder(folder), Console(quiet=True)) if again else start(
                    path, RunFolder.create(folder), Console(quiet=True)
                )
            rows = {row["name"]: 1 - row["mean"] for row in history(folder)[2][-1]["rows"]}
            figures["nrmse"].append(rows["found"])
            random = statistics.median(value for name, value in rows.items() if name.startswith("random"))
            figures["lowered"].append(1 - rows["found"] / random)
            print(f"{strategy} {repeat}: NRMSE {rows['found']:.4f}, median of random points {random:.4f}", flush=True)
            if strategy == "genetic":
                same = same and history(killed_at(path, folder, 20)) == history(folder)
    return {"same_history": same, **{
        name: {
            "nrmse": round(statistics.mean(figures["nrmse"]), 4),
            "std": round(statistics.stdev(figures["nrmse"]), 4) if repeats > 1 else None,
            "worst": round(max(figures["nrmse"]), 4),
            "lowered": round(statistics.mean(figures["lowered"]), 4),
            "lowered_worst": round(min(figures["lowered"]), 4),
            "searches": repeats,
        }
        for name, figures in found.items()
    }}  # fmt: skip


def killed_at(path: Path, whole: Path, trials: int) -> Path:
    """The folder of a search that is killed once so many trials are on disk, and resumed to its end."""
    run = whole.with_name(f"{whole.name}-killed")
    if run.exists():
        run.rename(run.with_name(f"{run.name}-{time.monotonic_ns()}"))
    lines = trials * read_search(path).train.repeats
    process = subprocess.Popen([sys.executable, "-m", "hil", "search", str(path), "--run", str(run)], cwd=ROOT)
    log = run / EVALUATIONS
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < lines):
        time.sleep(0.02)
    if process.poll() is not None:
        raise SystemExit(f"the search ended with {process.returncode} before it was killed")
    process.kill()
    process.wait()
    print(f"killed with {len(log.read_bytes().splitlines())} trainings on disk", flush=True)
    subprocess.run([sys.executable, "-m", "hil", "resume", str(run)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return run


def spikes(seeds: int, quick: bool) -> dict[str, Any]:
    """Search, then train with what was found; runs that are done are read."""
    folder = FOLDER / ("quick" if quick else "full") / "spikes"
    summary: dict[str, Any] = RunFolder(folder).read_json("summary.json") if folder.exists() else {}
    if summary.get("status") != "done":
        again = (folder / SEARCH).exists()
        summary = carry_on(RunFolder(folder), Console()) if again else start(SPIKES, RunFolder.create(folder), Console())
    table = ["data.train_examples=2000", "train.epochs=1"] if quick else []
    scores = []
    for seed in range(seeds):
        run = folder.parent / f"spikes-{seed}"
        sets = [f"seed={seed}", f"learner.feedback={folder / summary['feedback']}", f"optimizer.lr={summary['recipe']['lr']}"]
        begun = (run / "config.toml").exists()
        command = ["resume", str(run)] if begun else ["train", str(SNN), "--run", str(run)]
        done = RunFolder(run).read_json("summary.json") if begun else {}
        if done.get("status") != "done":
            rest = [] if begun else [f"--set={text}" for text in (*sets, "train.threads=1", *table)]
            subprocess.run([sys.executable, "-m", "hil", *command, *rest], cwd=ROOT, check=True)
            done = RunFolder(run).read_json("summary.json")
        scores.append(done["test_accuracy"])
        print(f"seed {seed}: test {scores[-1]:.4f}", flush=True)
    return {"mean": statistics.mean(scores), "worst": min(scores), "seeds": len(scores), "feedback": summary["feedback"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=("throughput", "node", "operating_point", "spikes"), default=["throughput", "node"]
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short, honest searches that show that everything works")
    parser.add_argument("--record", action="store_true", help="append the figures to RESULTS.md")
    chosen = parser.parse_args()
    result: dict[str, Any] = {"quick": chosen.quick}
    if "throughput" in chosen.parts:
        result |= throughput(1 if chosen.quick else 3, 1 if chosen.quick else 4)
    if "node" in chosen.parts:
        result["node"] = node(1 if chosen.quick else chosen.repeats, chosen.quick)
    if "operating_point" in chosen.parts:
        result["operating_point"] = operating_point(1 if chosen.quick else chosen.repeats, chosen.quick)
    if "spikes" in chosen.parts:
        result["spikes"] = spikes(1 if chosen.quick else chosen.repeats, chosen.quick)
    if chosen.record:
        record("Search", ["```", json.dumps(result), "```"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
