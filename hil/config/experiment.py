"""Experiment and bench files: TOML in, checked values out. An unknown key is an error that names the nearest one.

seed = 0
[data]       use = "digits", "table.csv", "x.npz", "pictures/" or "module:function", and its settings; see hil/data/kinds.py
[augment]    shift = 2, flip = 0.5, cutout = 8, noise = 0.05     of training examples, anew each time they are shown
[network]    widths = [64, 100, 100, 10]             or  use = "conv" or "module:function" and its settings
             feedback = { norm = 2.0 }               closes the loop of a spiking network; left out: none
[device]     bench = "benches/mzm_awg_scope.toml"      or  use, or chip = "module:Class" and its settings, or host = "lab:50551"
[[device]]   several of them, one a hidden layer, each with [device.encode] and [device.decode] of its own
[projection] bench, use or host: a node that projects the error onto the hidden layers; left out: the host does
[encode]     gain = "1.1 V", overflow = "fold", period = "7 V"
[decode]     zero, scale; left out: taken from the transfer curve that every run measures first
[params]     start = "uniform", lr = 0.05     what is programmed on the device is trained; left out: nothing is
[task]       metric = "r2"; left out: what the targets of the data ask for, see hil/config/task.py
[learner]    use = "adfa" or "module:Class", and its settings
[optimizer]  use = "Adam", lr = 1e-3
[schedule]   use = "cosine", or a scheduler of torch.optim and its settings: use = "StepLR", step_size = 3, every = "epoch"
[train]      epochs = 5, batch = 128, checkpoint_every_s = 60
             patience = 5, accumulate = 4, clip_norm = 1.0, class_weights = "balanced", from = "runs/first"
             on = "cuda"      where the host computes: "cpu", "cuda", "cuda:1", "mps" or "auto"
[sentinel]   every = 20, policy = ["servo", "recalibrate", "stop"]     a look at the node; see docs/how-to/correct_drift.md
[log]        to = ["csv", "tensorboard"]      also "mlflow", "wandb": logs/ in the run folder, see hil/loggers/
[alarm]      command = "notify-send hil" or ["my-alarm", "--loud"], on = ["fault", "end"]; see hil/run/alarms.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr

from hil.config.bench import BenchFile, read_bench
from hil.config.data import Data
from hil.config.device import DecodeTable, DeviceTable, EncodeTable, ParamsTable, ProjectionTable
from hil.config.read import Section, Using, checked, find, of_kind, override, read_toml, value_text
from hil.config.resolve import (
    LEARNERS,
    SYNAPSES,
    UNTOUCHED,
    Choice,
    choice,
    keeps,
    resolve,
)
from hil.config.task import TaskTable
from hil.config.training import AugmentTable, OptimizerTable, ScheduleTable, TrainTable
from hil.config.watch import AlarmTable, SentinelTable
from hil.errors import ConfigError, RunError
from hil.loggers.logger import LoggerName

COPIES = {"device": "bench.toml", "projection": "projection.toml"}  # in a run folder: of the bench files that tables name
KEPT = {"bench.toml": "calibration.toml", "projection.toml": "projection_calibration.toml"}  # a calibration beside a copy
MOVED = {("train", "schedule"): ("schedule", "use"), ("data", "shift"): ("augment", "shift")}


class LearnerTable(Using):
    """A rule that learns.

    Args:
        use: the rule: a name of `hil list learners`, or "module:Class"; other keys are its settings, see `hil describe adfa`.
    """

    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"use": LEARNERS}

    def chosen(self) -> Choice:
        """Find the learner and check its settings.

        Raises:
            ConfigError: it is no Learner, or a setting makes no sense.
        """
        made = resolve(self.use, self.place, LEARNERS)
        keeps(made, ("Settings", "build", "step", "predict"), "a Learner", self.use, self.place)
        found = choice(self.use, self.own_settings(), self.place, made=made.Settings)
        return Choice(self.use, made, {"settings": found.build()}, self.place)

    @property
    def refit(self) -> bool:
        """True of readout = "ridge": the last synapse is fitted once training is over, whatever rule trained it."""
        return self.settings().get("readout") == "ridge"

    def own_settings(self) -> dict[str, Any]:
        """Return the settings that are the rule's own."""
        return {key: value for key, value in self.settings().items() if not (self.refit and key == "readout")}

    @property
    def rule(self) -> Any:
        """The class of the learner."""
        return self.choice.made

    @property
    def options(self) -> Any:
        """An object of the learner's class Settings."""
        return self.choice.settings["settings"]


class FeedbackTable(Section, strict=True):
    """[network.feedback]: a synapse from the last hidden layer back to the first.

    Args:
        use: its kind.
        norm: largest Frobenius norm of its weights, of the kernel if it is "conv".
        scale: a factor on its first weights.
        kernel: side of its kernel, if it is "conv".
    """

    use: Literal["dense", "conv"] = "dense"
    norm: Annotated[float, Field(gt=0)] = 2.0
    scale: Annotated[float, Field(gt=0)] = 0.1
    kernel: Annotated[int, Field(gt=0)] = 3


class NetworkTable(Using):
    """[network]: the synapses, each with the device of its layer behind it.

    Args:
        use: makes the synapses: a name, or "module:function"; other keys are its arguments, as widths = [64, 100, 10].
        pieces: a batch is cut into so many pieces when the device can stream; None: as is measured when a run begins.
        feedback: closes the loop of a spiking network.
    """

    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"use": SYNAPSES}
    use: str = "dense"
    pieces: Annotated[int, Field(ge=1, strict=True)] | None = None
    feedback: FeedbackTable | None = None

    def chosen(self) -> Choice:
        """Find what makes the synapses and check its settings."""
        return choice(
            self.use, self.settings(), self.place, SYNAPSES, skip=("shape",) if "shape" not in self.settings() else ()
        )


class LogsTable(Section, strict=True):
    """[log] of an experiment: who is told of the run besides the run folder; each writes to logs/ there, none can end the run.

    Args:
        to: "csv", "tensorboard", "mlflow", "wandb", the last three through their own packages.
        project: what runs are grouped under, in MLflow and wandb.
    """

    to: list[LoggerName] = Field(default_factory=list)
    project: str = "hil"


class Experiment(Section):
    """A whole experiment file.

    Args:
        seed: everything that is drawn depends on it.
        name: of the run folder; empty: the name of the file.
        data: what is learned from.
        network: the synapses.
        device: what answers.
        projection: a node that projects the error onto the hidden layers; none: matrices on the host do.
        encode: from pre-activation to drive.
        decode: from reading to output; none: taken from the transfer curve that every run measures first.
        params: what is programmed on the device and trained; none: nothing is.
        task: what the targets are; none: what the data ask for.
        learner: the rule.
        optimizer: of the synapses.
        schedule: of the learning rate.
        augment: of training examples.
        train: how long, and where.
        sentinel: looks at the node for drift; none: nobody does.
        log: who is told besides the run folder.
        alarm: a command that is run when something happens.
        script: how the script is run that made the run by hil.train; "" for a run from a file.
    """

    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    name: str = ""
    script: str = ""
    data: Data = Field(default_factory=Data)
    augment: AugmentTable = Field(default_factory=AugmentTable)
    network: NetworkTable
    device: DeviceTable
    projection: ProjectionTable | None = None
    encode: EncodeTable = Field(default_factory=EncodeTable)
    decode: DecodeTable | None = None
    params: ParamsTable | None = None
    task: TaskTable | None = None
    learner: LearnerTable
    optimizer: OptimizerTable = Field(default_factory=OptimizerTable)
    schedule: ScheduleTable = Field(default_factory=ScheduleTable)
    train: TrainTable = Field(default_factory=TrainTable)
    sentinel: SentinelTable | None = None
    log: LogsTable = Field(default_factory=LogsTable)
    alarm: AlarmTable = Field(default_factory=AlarmTable)
    _near: Path = PrivateAttr(default=Path("experiment.toml"))
    _bench: BenchFile | None = PrivateAttr(default=None)
    _kept: bool = PrivateAttr(default=False)
    _projection_bench: BenchFile | None = PrivateAttr(default=None)
    _projection_kept: bool = PrivateAttr(default=False)

    @property
    def near(self) -> Path:
        """The file that names of other files are relative to."""
        return self._near

    @property
    def bench(self) -> BenchFile | None:
        """Bench file that [device] bench names, read; None without one."""
        return self._bench

    @property
    def projection_bench(self) -> BenchFile | None:
        """Bench file that [projection] bench names, read; None without one."""
        return self._projection_bench

    @property
    def projection_kept(self) -> bool:
        """The same as `kept`, of the bench of [projection]."""
        return self._projection_kept

    @property
    def served(self) -> bool:
        """A process beside this one answers, so that it wants a core for itself."""
        nodes = [self.device, *self.device.layers, *([] if self.projection is None else [self.projection])]
        return self._bench is not None or any(one.kind in ("bench", "device", "host") for one in nodes)

    @property
    def measures(self) -> bool:
        """The zero and scale of a reading are still to be measured."""
        return self.decode is None and not all(layer.decode for layer in self.device.layers or (self.device,))

    @property
    def kept(self) -> bool:
        """The bench is a run folder's copy, and its calibration lies beside it."""
        return self._kept

    def kept_in(self, copy: Path) -> Self:
        """The same experiment as a run folder keeps it, as if it were read from `copy`."""
        made = self.model_copy()
        made._near = copy
        return made

    def on_bench(self, bench: BenchFile, kept: bool = False) -> Self:
        """The same experiment on a bench that was read from another file.

        Args:
            bench: its file, read.
            kept: a run folder's copy.
        """
        made = self.model_copy()
        made._bench, made._kept = bench, kept
        return made

    def projected_on(self, bench: BenchFile | None, kept: bool = False) -> Self:
        """The same, of the bench of [projection]; None: it names none."""
        made = self.model_copy()
        made._projection_bench, made._projection_kept = bench, kept
        return made


def read_experiment(
    path: Path, overrides: Sequence[str] = (), near: Path | None = None, bench: Path | None = None
) -> Experiment:
    """Read the experiment in `path`; find every class that it names, and check every setting.

    Args:
        path: of the file.
        overrides: section.key=value, over what the file says.
        near: the file that names of other files are relative to, if it is not `path`.
        bench: the bench file of a run folder, instead of the one that [device] names.

    Raises:
        ConfigError: names file, section, key, what was found and what is allowed.
    """
    table = read_toml(path)
    of_kind(table, "experiment", path)
    for text in overrides:
        override(table, text)
    return experiment_of(table, path, near, bench)


def made_in_python(table: Mapping[str, Any], where: str) -> RunError | None:
    """Return an error if a script made this config.toml with hil.train: nothing but the script can build its run again."""
    script = table.get("python")
    if script is None:
        return None
    return RunError(
        "this run was made from Python, which alone can build its network and its device", where=where,
        got=str(table.get("because", "")), outputs=UNTOUCHED,
        todo=f"run the script again with the same run folder, and it goes on: {script}",
    )  # fmt: skip


def experiment_of(table: Mapping[str, Any], path: Path, near: Path | None = None, bench: Path | None = None) -> Experiment:
    """The experiment that `table`, read from `path`, describes. Arguments and errors as of `read_experiment`."""
    near = near or path
    found = without_benches(table, path, near)
    if found.projection is not None and found.projection.bench is not None:
        copy = None if bench is None else bench.with_name(COPIES["projection"])
        found = found.projected_on(_bench_of(found.projection.bench, near, copy), copy is not None and copy.is_file())
    if found.device.bench is not None:
        return found.on_bench(_bench_of(found.device.bench, near, bench), bench is not None and bench.is_file())
    return found


def without_benches(table: Mapping[str, Any], path: Path, near: Path) -> Experiment:
    """The same, but for the bench files that it names, which are not read."""
    if error := made_in_python(table, str(path)):
        raise error
    for (section, key), to in MOVED.items():
        told = table.get(section)
        if isinstance(told, Mapping) and key in told:
            raise ConfigError(
                f"{key} has moved to [{to[0]}]", where=f"{path}: [{section}]", got=f"{key} = {value_text(told[key])}",
                allowed=f"[{to[0]}] {to[1]}", outputs=UNTOUCHED, todo=f"write [{to[0]}] {to[1]} = {value_text(told[key])}",
            )  # fmt: skip
    learner = table.get("learner")
    if isinstance(learner, dict) and str(learner.get("feedback", "")).endswith(".toml"):  # a run holds all that it depends on
        feedback = read_toml(find(str(learner["feedback"]), near))
        table = {**table, "learner": {**learner, "feedback": feedback}}
    found = checked(Experiment, table, str(path))
    found._near = near
    epochs = getattr(found.learner.rule, "epochs", None)
    if epochs is not None and "epochs" not in found.train.model_fields_set:  # a readout in closed form asks for one
        found = found.model_copy(update={"train": found.train.model_copy(update={"epochs": epochs})})
    for name in () if found.device.layers else ("encode", "decode", "params"):
        if getattr(found.device, name) is not None:
            raise ConfigError(
                f"one device for all layers has its {name} in a section of its own", where=found.device.place,
                got=f"[device.{name}]",
                allowed=f"[{name}], or [[device]] with a device a layer", outputs=UNTOUCHED, todo=f"write it as [{name}]",
            )  # fmt: skip
    return found


def _bench_of(name: str, near: Path, copy: Path | None) -> BenchFile:
    """The bench file of this name, or a run folder's copy of it where there is one."""
    return read_bench(copy if copy is not None and copy.is_file() else find(name, near))
