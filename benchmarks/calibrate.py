"""How well a bench can be calibrated that nobody knows, and what is said of one that lies.

    python benchmarks/calibrate.py [--quick] [--parts hidden,deceived,drift,deploy] [--benches N] [--bench FILE] [--first N]
                                   [--record]

hidden     specimens of the waveform bench, served over HiSLIP, calibrated blind, held against the truth: hidden_benches.py
deceived   hysteresis, stuck channel, clipping, wrong load, wrong delay, wrong node: deceived_benches.py
drift      a bias that walks by V_pi / 2, in training and in use, with and without the sentinel: drift.py, docs/images/drift.png
deploy     weights learned in silico and in the loop, on hidden benches: deployment.py, docs/images/deployment.png

Last line: JSON with the keys of every part that was done.

"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import deployment
import drift
import torch
from deceived_benches import LIES, deceive
from hidden_benches import BENCH, Bench, calibrate, summary, table
from recording import record

Lines = list[str]
Found = tuple[Mapping[str, object], Lines]


def hidden(options: argparse.Namespace) -> Found:
    """Every bench, one after the other."""
    benches: list[Bench] = []
    for number in range(options.first, options.first + options.benches):
        bench = calibrate(number, options.bench)
        benches.append(bench)
        missed = [p.name for p in bench.parameters if not p.recovered]
        bad = [f"{step.name}: {p.kind}" for step in bench.steps for p in step.problems if not step.good]
        print(f"bench {number}: {'ok' if bench.good else '; '.join(bad)}, {bench.took_s:.1f} s", *missed, flush=True)
    return summary(benches), table(benches)


def deceived(options: argparse.Namespace) -> Found:
    """Every lie, and what was said to it."""
    rows = ["| bench | reported | by the step | evidence | |", "|---|---|---|---|---|"]
    told = []
    with tempfile.TemporaryDirectory() as folder:
        for number, lie in enumerate(LIES[2:3] if options.quick else LIES):
            told.append(deceive(lie, Path(folder) / str(number)))
            last, said = told[-1], told[-1].problem
            rows.append(
                f"| {lie.name} | {said.kind if said else 'nothing'} | {last.where} | {said.evidence if said else ''} "
                f"| {'right' if last.right else 'WRONG'} |"
            )
            print(rows[-1], flush=True)
    saved = sum(each.saved_good for each in told)
    return {"deceived": len(told), "deceived_right": sum(each.right for each in told), "deceived_saved_good": saved}, rows


def drifted(options: argparse.Namespace) -> Found:
    """The bias walks."""
    return drift.drift(
        options.seeds, drift.QUICK if options.quick else drift.FULL, PICTURES / "drift.png" if options.record else None
    )


def deploy(options: argparse.Namespace) -> Found:
    """Four ways to the weights."""
    with tempfile.TemporaryDirectory() as folder:
        found = [
            deployment.one(number, Path(folder), 1 if options.quick else deployment.EPOCHS)
            for number in range(options.first, options.first + options.seeds)
        ]
    benches = [each for each in found if each is not None]
    if options.record:
        deployment.drawn(benches, PICTURES / "deployment.png")
    return deployment.summary(benches)


PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images"
PARTS: Mapping[str, Callable[[argparse.Namespace], Found]] = {
    "hidden": hidden, "deceived": deceived, "drift": drifted, "deploy": deploy,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", help="of " + ", ".join(PARTS) + "; left out: all, or with --quick the first two")
    parser.add_argument("--benches", type=int, default=20)
    parser.add_argument(
        "--bench", type=Path, default=BENCH, help="file of a modulator's bench, of hidden; left out: %(default)s"
    )
    parser.add_argument("--seeds", type=int, default=5, help="of drift; benches of deploy")
    parser.add_argument("--first", type=int, default=0, help="number of the first specimen")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md")
    parser.add_argument(
        "--quick", action="store_true", help="one bench, one lie; of parts that are named one seed and short trainings"
    )
    options = parser.parse_args()
    if options.quick:
        options.benches = options.seeds = 1
    options.parts = options.parts or ",".join(list(PARTS)[:2] if options.quick else PARTS)
    torch.set_num_threads(1)  # the served bench needs the other core
    figures: dict[str, object] = {}
    lines: Lines = []
    for part in options.parts.split(","):
        found, said = PARTS[part](options)
        figures |= found
        lines += [f"{part}:", "", *said, ""]
    text = json.dumps(figures)
    print("\n".join(lines))
    if options.record:
        blind = {"hidden", "deceived"} & set(options.parts.split(","))
        record(
            "Calibration of benches that nobody knows" if blind else "Drift of the bias, and deployment", [*lines, f"`{text}`"]
        )
    print(text)


if __name__ == "__main__":
    main()
