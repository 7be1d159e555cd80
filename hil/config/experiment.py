"""Experiment and bench files: TOML in, checked values out. An unknown key is an error that names the nearest one.

seed = 0
[data]       use = "digits"
[network]    widths = [64, 100, 100, 10]             or  use = "conv" or "module:function" and its settings
             feedback = { norm = 2.0 }               closes the loop of a spiking network; left out: none
[device]     bench = "benches/mzm_awg_scope.toml"      or  use, or chip = "module:Class" and its settings, or host = "lab:50551"
[[device]]   several of them, one a hidden layer, each with [device.encode] and [device.decode] of its own
[encode]     gain = "1.1 V", overflow = "fold", period = "7 V"
[decode]     zero, scale; left out: taken from the transfer curve that every run measures first
[learner]    use = "adfa" or "module:Class", and its settings
[optimizer]  use = "Adam", lr = 1e-3
[train]      epochs = 5, batch = 128, checkpoint_every_s = 60
             on = "cuda"      where the host computes: "cpu", "cuda", "cuda:1", "mps" or "auto"
[sentinel]   every = 20, policy = ["servo", "recalibrate", "stop"]     a look at the node; see docs/how-to/correct_drift.md
[alarm]      command = "notify-send hil" or ["my-alarm", "--loud"], on = ["fault", "end"]; see hil/run/alarms.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr

from hil.config.bench import BenchFile, read_bench
from hil.config.device import DecodeTable, DeviceTable, EncodeTable
from hil.config.read import Section, Using, checked, find, of_kind, override, read_toml
from hil.config.resolve import (
    LEARNERS,
    SYNAPSES,
    UNTOUCHED,
    Choice,
    choice,
    keeps,
    resolve,
)
from hil.config.watch import AlarmTable, SentinelTable
from hil.errors import ConfigError, RunError


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
        found = choice(self.use, self.settings(), self.place, made=made.Settings)
        return Choice(self.use, made, {"settings": found.build()}, self.place)

    @property
    def rule(self) -> Any:
        """The class of the learner."""
        return self.choice.made

    @property
    def options(self) -> Any:
        """An object of the learner's class Settings."""
        return self.choice.settings["settings"]


class Data(Section, strict=True):
    """[data]: the data set, how much of it is used, and how it is augmented.

    Args:
        use: the data set; `hil list datasets` shows them.
        dir: a folder with the files; none: a cache folder, downloaded once.
        train_examples: use so many training examples; none: all.
        shift: training images are moved by up to so many pixels either way, anew each time; validation and test never are.
    """

    use: str = "digits"
    shift: Annotated[int, Field(ge=0)] = 0
    dir: str | None = None
    train_examples: Annotated[int, Field(gt=0)] | None = None


class FeedbackTable(Section, strict=True):
    """[network.feedback]: a synapse from the last hidden layer back to the first.

    Args:
        use: its kind.
        norm: its largest Frobenius norm.
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
        pieces: a batch is cut into so many pieces when the device can stream.
        feedback: closes the loop of a spiking network.
    """

    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"use": SYNAPSES}
    use: str = "dense"
    pieces: Annotated[int, Field(ge=1, strict=True)] = 1
    feedback: FeedbackTable | None = None

    def chosen(self) -> Choice:
        """Find what makes the synapses and check its settings."""
        return choice(
            self.use, self.settings(), self.place, SYNAPSES, skip=("shape",) if "shape" not in self.settings() else ()
        )


class OptimizerTable(Using, strict=True):
    """[optimizer]: an optimiser of torch.optim.

    Args:
        use: a class of torch.optim, or "module:Class"; other keys are its settings.
        lr: learning rate.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)
    use: str = "Adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3

    def chosen(self) -> Choice:
        """Find the optimiser of torch and check its settings."""
        import torch  # slow to import, and a command that only reads a bench needs none of it

        known = {name: f"torch.optim:{name}" for name in torch.optim.__all__ if name[0].isupper() and name != "Optimizer"}
        return choice(self.use, self.settings(), self.place, known, skip=("params", "lr"))


class TrainTable(Section, strict=True):
    """[train]: how long, in which steps, and where. A run may be resumed elsewhere: change it in its config.toml.

    Args:
        epochs: passes over the training split.
        batch: examples in a step.
        schedule: of the learning rate.
        budget_passes: device passes after which training ends; none: no bound.
        checkpoint_every: steps between checkpoints, besides those of every epoch.
        checkpoint_every_s: a checkpoint after so long.
        threads: of torch on the host; none: by the size of the network.
        on: where the host computes: "cpu", "cuda", "cuda:1", "mps" or "auto"; not called device, which is the node.
        record: keep every shot of every device on a tape in the run folder, for `hil replay`.
        wire: keep what is said to every instrument in wire/ there.
    """

    epochs: Annotated[int, Field(gt=0)] = 5
    batch: Annotated[int, Field(gt=0)] = 128
    schedule: Literal["constant", "cosine"] = "constant"
    budget_passes: Annotated[int, Field(gt=0)] | None = None
    checkpoint_every: Annotated[int, Field(gt=0)] | None = None
    checkpoint_every_s: Annotated[float, Field(gt=0)] = 60.0
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    record: bool = False
    wire: bool = False
    on: str = "cpu"


class Experiment(Section):
    """A whole experiment file.

    Args:
        seed: everything that is drawn depends on it.
        name: of the run folder; empty: the name of the file.
        data: what is learned from.
        network: the synapses.
        device: what answers.
        encode: from pre-activation to drive.
        decode: from reading to output; none: taken from the transfer curve that every run measures first.
        learner: the rule.
        optimizer: of the synapses.
        train: how long, and where.
        sentinel: looks at the node for drift; none: nobody does.
        alarm: a command that is run when something happens.
    """

    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    name: str = ""
    data: Data = Field(default_factory=Data)
    network: NetworkTable
    device: DeviceTable
    encode: EncodeTable = Field(default_factory=EncodeTable)
    decode: DecodeTable | None = None
    learner: LearnerTable
    optimizer: OptimizerTable = Field(default_factory=OptimizerTable)
    train: TrainTable = Field(default_factory=TrainTable)
    sentinel: SentinelTable | None = None
    alarm: AlarmTable = Field(default_factory=AlarmTable)
    _near: Path = PrivateAttr(default=Path("experiment.toml"))
    _bench: BenchFile | None = PrivateAttr(default=None)
    _kept: bool = PrivateAttr(default=False)

    @property
    def near(self) -> Path:
        """The file that names of other files are relative to."""
        return self._near

    @property
    def bench(self) -> BenchFile | None:
        """Bench file that [device] bench names, read; None without one."""
        return self._bench

    @property
    def served(self) -> bool:
        """A process beside this one answers, so that it wants a core for itself."""
        return self._bench is not None or any(one.kind in ("device", "host") for one in (self.device, *self.device.layers))

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
    """Of the config.toml of a run that a script made with hil.train: nothing but the script can build it again."""
    script = table.get("python")
    if script is None:
        return None
    return RunError(
        "this run was made from Python, which alone can build its network and its device", where=where, outputs=UNTOUCHED,
        todo=f"run the script again with the same run folder, and it goes on: {script}",
    )  # fmt: skip


def experiment_of(table: Mapping[str, Any], path: Path, near: Path | None = None, bench: Path | None = None) -> Experiment:
    """The experiment that `table`, read from `path`, describes. Arguments and errors as of `read_experiment`."""
    if error := made_in_python(table, str(path)):
        raise error
    near = near or path
    learner = table.get("learner")
    if isinstance(learner, dict) and str(learner.get("feedback", "")).endswith(".toml"):  # a run holds all that it depends on
        feedback = read_toml(find(str(learner["feedback"]), near))
        table = {**table, "learner": {**learner, "feedback": feedback}}
    found = checked(Experiment, table, str(path))
    found._near = near
    for name in () if found.device.layers else ("encode", "decode"):
        if getattr(found.device, name) is not None:
            raise ConfigError(
                f"one device for all layers has its {name} in a section of its own", where=found.device.place,
                got=f"[device.{name}]",
                allowed=f"[{name}], or [[device]] with a device a layer", outputs=UNTOUCHED, todo=f"write it as [{name}]",
            )  # fmt: skip
    if found.device.bench is not None:
        kept = bench is not None and bench.is_file()
        return found.on_bench(read_bench(bench if bench is not None and kept else find(found.device.bench, near)), kept)
    return found
