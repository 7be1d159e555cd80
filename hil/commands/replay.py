"""A recorded run once more, from its tape: no bench is opened, and the numbers must be the same.

    as recorded    shot by shot; metric lines, weights at every kept checkpoint, results and diagnostics are compared
    with --set     another learner on the recorded answers; refused at the first input that was never recorded

Times differ, and so do device_passes where a fault broke a step off: its shots were counted, and are not on the tape. A run
that was killed, interrupted or ended by a fault is repeated up to where its tape ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from hil.build.calibration import twin_choice_of
from hil.build.node import Node
from hil.build.training import Built, built
from hil.config.experiment import Experiment, experiment_of
from hil.config.read import dump, override, read_toml
from hil.config.resolve import UNTOUCHED
from hil.errors import ConfigError, HilError, Interrupted, ReplayDiffers, RunError, Stopped, TapeEnded
from hil.files import loads, read_object, read_text, there, write_atomic
from hil.hints import quoted
from hil.metric import told
from hil.run import checkpoint
from hil.run.checkpoint import Checkpoint
from hil.run.folder import RunFolder
from hil.run.signals import Stopping
from hil.run.summary import FILE, test_said
from hil.tape.format import damaged
from hil.tape.recorder import NODE
from hil.tape.replay import Order, ReplayChip, reels, replay
from hil.training import diagnostics, session
from hil.training.loop import Epoch, TrainingStep
from hil.training.progress import TrainingDisplay
from hil.training.state import DEVICE, Training
from sim_devices.twin import Twin

TIMES = frozenset({
    "wall_s", "device_s", "host_s", "samples_per_s", "device_passes", "device_programs", "device_writes", "device_reads",
    "device_tries", "device_missed",
})  # fmt: skip
FACTS: Mapping[str, type] = {"facts": dict, "measured": bool, "threads": int, "versions": dict}  # of tape.json
Lines = dict[tuple[int, str], dict[str, Any]]
RESULTS = ("test_loss", "best_epoch", "steps")  # and the scores by the metric


@dataclass(frozen=True)
class Recorded:
    """A run on disk, with its tape.

    Args:
        done: it came to its end.
        facts: of tape.json.
    """

    folder: RunFolder
    facts: Mapping[str, Any]
    done: bool

    @property
    def tape(self) -> Path:
        """Folder of the tape."""
        return self.folder.path / "tape"

    @classmethod
    def open(cls, path: Path) -> Recorded:
        """Raises: RunError: no run, no tape, or a damaged one."""
        folder = RunFolder.open(path)
        reels(folder.path / "tape")  # damage is said before anything begins
        where = folder.path / "tape" / "tape.json"
        try:
            facts = read_object(where)
        except RunError as error:
            raise damaged(where, error.got or error.what, "the file that hil wrote") from error
        wrong = [name for name, kind in FACTS.items() if type(facts.get(name)) is not kind]
        layers = facts.get("measured_layers", [])  # numbers, from 0, of those whose zero and scale were measured
        strange = not isinstance(facts.get("swept", False), bool) or facts["threads"] < 1 or not _numbers(layers)
        if wrong or strange:
            raise damaged(where, f"another {', '.join(wrong) or 'swept, threads or layers'}", "the file that hil wrote")
        return cls(folder, facts, folder.read_json(FILE).get("status") == "done")


@dataclass
class Compared:
    """The differences that were found while a run was repeated.

    Args:
        weights: checkpoints that were compared.
        astray: by their place, what differs; of a place that the run came to twice, the last time counts, as of the run
            itself.
    """

    weights: int = 0
    astray: dict[tuple[int, int], str] = field(default_factory=dict)
    lines: int = 0
    shots: int = 0
    differences: list[str] = field(default_factory=list)
    ended: str = ""

    def verdict(self, run: Path) -> str:
        """A sentence for the user.

        Raises:
            ReplayDiffers: not everything is the same.
        """
        self.differences[:0] = [text for text in self.astray.values() if text]
        if self.differences:
            more = f" ({len(self.differences) - 1} more)" if len(self.differences) > 1 else ""
            raise ReplayDiffers(
                f"the replay differs: {self.differences[0]}{more}", where=str(run), outputs="none; a replay drives nothing",
                allowed="the same numbers, bit for bit", todo="see whether the data, the code or torch changed since then",
            )  # fmt: skip
        return (
            f"identical: {self.shots:,} shots, {self.lines} metric lines, the weights of {self.weights} checkpoints"
            f"{', results and diagnostics' if not self.ended else f'; {self.ended}'}"
        )


def repeat(run: Path, overrides: Sequence[str], target: Path | None, console: Console) -> str:
    """Train again from the tape of `run`, in `target` or a folder that is gone afterwards; returns what to tell.

    Raises:
        ReplayDiffers: with overrides, an input that was never recorded; without, anything that is not as it was.
        RunError, ConfigError: nothing was repeated. Interrupted.
    """
    recorded = Recorded.open(run)
    experiment = _experiment(recorded, overrides)
    then = recorded.facts["versions"].get("torch")
    if then != torch.__version__:
        console.print(f"recorded with torch {then}, this is {torch.__version__}: last bits may differ", markup=False)
    with _folder(target) as folder, folder.owned():
        write_atomic(folder.path / "replayed.toml", dump(experiment).encode())  # no config.toml: nobody resumes it on a bench
        try:
            if overrides:
                return _another(recorded, experiment, folder, console)
            return _same(recorded, experiment, folder, console).verdict(run)
        except Interrupted as error:
            error.todo = f"hil replay {quoted(run)}"
            raise
        except Stopped as stopped:
            end = _cause(stopped)
    raise end  # out here, so that it is told once


def _same(recorded: Recorded, experiment: Experiment, folder: RunFolder, console: Console) -> Compared:
    found, training = Compared(), None
    node = _node(recorded, experiment, "strict")
    try:
        swept = bool(recorded.facts.get("swept", recorded.facts["measured"]))
        with Stopping(attended=True) as stopping, built(experiment, node=node, fresh=swept, begins=True) as made:
            training = made.training
            points = _points(recorded.folder)
            if made.transfer is not None:
                folder.write_json("diagnostics.json", made.first_diagnostics())
            with TrainingDisplay(training, console) as live:

                def show(point: TrainingStep | Epoch) -> None:
                    live(point)
                    _compare_weights(training, points, found)

                summary = session.run(training, folder, stopping, made.labels, experiment.train.checkpoint_every, show)
            _compare_end(recorded, folder, summary, found)
            _diagnose(recorded, folder, made, float(summary["wall_s"]), found)
    except (TapeEnded, Stopped) as end:
        cause = end.__cause__ if isinstance(end, Stopped) else end
        if recorded.done or (isinstance(cause, ReplayDiffers) and not isinstance(cause, TapeEnded)):
            raise
        reached = 0 if training is None else training.step
        found.ended = f"the tape ends after step {reached:,}, as the run did not come to its end"
    _compare_lines(_lines(recorded.folder, recorded.done), _lines(folder), found, recorded.done)
    found.shots = sum(device.shots for device in _devices(node))
    left = sum(len(reel) for reel in reels(recorded.tape)) - found.shots
    if left and not found.ended:
        found.differences.append(f"{left} recorded shots were not asked for")
    return found


def _another(recorded: Recorded, experiment: Experiment, folder: RunFolder, console: Console) -> str:
    node = _node(recorded, experiment, "any")
    with Stopping(attended=True) as stopping, built(experiment, node=node, begins=True) as made:
        for line in made.introduction():
            console.print(line, markup=False, soft_wrap=True)
        with TrainingDisplay(made.training, console) as live:
            summary = session.run(made.training, folder, stopping, made.labels, experiment.train.checkpoint_every, live)
    return (
        f"done from the tape. test {test_said(summary)} ({summary['provenance']}, seed {summary['seed']}, weights of "
        f"epoch {summary['best_epoch']} by validation). Every input was recorded; no diagnostics"
    )


def _diagnose(recorded: Recorded, folder: RunFolder, made: Built, wall_s: float, found: Compared) -> None:
    """The shots of the diagnostics, too."""
    try:
        diagnostics.write(folder, made.training, made.model, wall_s, made.settled)
    except TapeEnded:
        found.ended = "the tape ends in the diagnostics, where the run was stopped"
        return
    before, after = recorded.folder.read_json("diagnostics.json"), folder.read_json("diagnostics.json")
    later = {"honesty"} - before.keys()  # runs recorded by an earlier hil have none
    for key in sorted((before.keys() | after.keys()) - {"time"} - later):
        if not _equal(*(_unwritten(key, facts.get(key)) for facts in (before, after))):
            found.differences.append(f"{key} in diagnostics.json")


def _unwritten(key: str, value: Any) -> Any:
    """Leave out how often channels were written: a tape holds no reads, so nothing is verified in a replay."""
    if key != "programmed" or not isinstance(value, list):
        return value
    return [{name: part for name, part in table.items() if name != "writes"} for table in value]


def _compare_weights(training: Training, points: Mapping[tuple[int, int], Checkpoint], found: Compared) -> None:
    then = points.get((training.epoch, training.batch))
    if then is None:
        return
    at = (training.epoch, training.batch)
    found.weights += at not in found.astray
    now = training.checkpoint().tensors
    learned = sorted(name for name in now.keys() | then.tensors if not name.startswith(f"{DEVICE}."))  # a tape has no state
    different = [name for name in learned if not _same_bits(now.get(name), then.tensors.get(name))]
    more = f" after step {training.step:,}, and {len(different) - 1} more tensors"
    found.astray[at] = different[0] + more if different else ""


def _compare_lines(then: Lines, now: Lines, found: Compared, whole: bool) -> None:
    if whole and then.keys() != now.keys():
        (epoch, split), *_ = sorted(then.keys() ^ now.keys())
        found.differences.append(f"the metric line of epoch {epoch}, {split}, is in one of them only")
    both = sorted(then.keys() & now.keys())
    found.lines = len(both)
    for place in both:
        a, b = then[place], now[place]
        for key in sorted((a.keys() | b.keys()) - TIMES):
            if not _equal(a.get(key), b.get(key)):
                epoch, split = place
                found.differences.append(f"{key} ({split} of epoch {epoch}) is {b.get(key)}, {a.get(key)} was recorded")


def _compare_end(recorded: Recorded, folder: RunFolder, summary: Mapping[str, Any], found: Compared) -> None:
    then = recorded.folder.read_json(FILE)
    scores = tuple(f"{split}_{told(then).name}" for split in ("test", "validation"))
    found.differences += [
        f"{key} is {summary.get(key)}, {then.get(key)} was recorded"
        for key in (*scores, *RESULTS)
        if recorded.done and not _equal(summary.get(key), then.get(key))
    ]
    best = recorded.folder.checkpoints / "best.json"
    if best.is_file():
        a, b = (checkpoint.load(f.checkpoints / "best.json").tensors for f in (recorded.folder, folder))
        found.weights += 1
        if a.keys() != b.keys() or not all(_same_bits(a[name], b[name]) for name in a):
            found.differences.append("the best weights")


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value)


def _cause(stopped: Stopped) -> HilError:
    """Return the cause without "resume it": a replay is not resumed."""
    cause = stopped.__cause__
    if not isinstance(cause, ReplayDiffers):
        stopped.todo = "remove the cause, then replay again"
        return stopped
    at = stopped.what.split(";")[0].removeprefix("a fault ended the run ")
    return type(cause)(
        f"{cause.what} ({at})", where=cause.where, got=cause.got, allowed=cause.allowed, outputs=cause.outputs,
        todo=cause.todo,
    )  # fmt: skip


def _experiment(recorded: Recorded, overrides: Sequence[str]) -> Experiment:
    """Return the experiment as it ran: what was measured is measured again, from the tape."""
    path = recorded.folder.config
    table = read_toml(path)
    if recorded.facts["measured"]:
        table.pop("decode", None)
        for number, layer in enumerate(table.get("device", {}).get("layers", ())):
            if number in recorded.facts.get("measured_layers", ()):
                layer.pop("decode", None)
    if any(text.replace(" ", "").startswith("learner.use=") for text in overrides):
        table["learner"] = {}  # the settings are those of the other learner
    for text in overrides:
        if text.partition("=")[0].strip().startswith(("device", "projection")):
            raise ConfigError(
                "the device of a replay is on its tape, and no other is opened", where=f"--set {text}", outputs=UNTOUCHED,
                todo="change the learner, the optimiser or the loop, or train on the other device: hil train",
            )  # fmt: skip
        override(table, text)
    experiment = experiment_of(table, path, bench=recorded.folder.path / "bench.toml")
    threads = experiment.train.threads or recorded.facts["threads"]
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"record": False, "threads": threads})})


def _node(recorded: Recorded, experiment: Experiment, order: Order) -> Node:
    found = reels(recorded.tape)
    facts = {**recorded.facts["facts"], "recorded": str(recorded.folder.path)}
    if [reel.name for reel in found] == [NODE]:
        return Node(replay(found[0], order), None, _belief(experiment), facts, {}, provenance="replay")
    if experiment.device.layers:
        parts = tuple(Node(replay(reel, order), None, None, facts, {}, provenance="replay") for reel in found)
        return Node(None, None, None, facts, {}, provenance="replay", parts=parts)
    return Node(None, ReplayChip(found, order), _belief(experiment), facts, {}, provenance="replay")


def _belief(experiment: Experiment) -> Twin | None:
    found = experiment.device.model if experiment.bench is None else twin_choice_of(experiment.bench, kept=True)
    twin: Twin | None = None if found is None else found.build()
    return twin


def _devices(node: Node) -> list[Any]:
    return node.chip.devices if isinstance(node.chip, ReplayChip) else [part.source for part in node.parts or (node,)]


@contextmanager
def _folder(target: Path | None) -> Iterator[RunFolder]:
    if target is not None:
        yield RunFolder.create(target)
        return
    with TemporaryDirectory(prefix="hil-replay-") as name:
        yield RunFolder.create(Path(name))


def _points(folder: RunFolder) -> dict[tuple[int, int], Checkpoint]:
    """The checkpoints that were kept, by epoch and batch."""
    found = [checkpoint.load(path) for path in checkpoint.listed(folder.checkpoints)]
    return {(point.facts["epoch"], point.facts["batch"]): point for point in found}


def _lines(folder: RunFolder, whole: bool = True) -> Lines:
    """Read metrics.jsonl, by epoch and split.

    Args:
        folder: of the run.
        whole: a line that cannot be read is damage, and not the end of a killed run.
    """
    path = folder.path / "metrics.jsonl"
    found: Lines = {}
    for number, line in enumerate(read_text(path).splitlines() if there(path) else [], 1):
        try:
            facts = loads(line, str(path))
            found[int(facts["epoch"]), str(facts["split"])] = facts
        except (RunError, ValueError, KeyError, TypeError, OverflowError) as error:
            if not whole:
                break
            raise RunError("a damaged file", where=f"{path}, line {number}", got=line[:60], allowed="a JSON object") from error
    return found


def _same_bits(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.detach().cpu().contiguous().numpy().tobytes() == b.detach().cpu().contiguous().numpy().tobytes()


def _equal(a: object, b: object) -> bool:
    """Equal, NaN to NaN."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return a == b
