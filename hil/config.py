"""Experiment and bench files: TOML in, checked values out. An unknown key is an error that names the nearest one.

seed = 0
[data]       use = "digits"
[network]    widths = [64, 100, 100, 10]             or  use = "conv" or "module:function" and its settings
             feedback = { norm = 2.0 }               closes the loop of a spiking network; left out: none
[device]     bench = "benches/mzm_awg_scope.toml"      or  use, or chip = "module:Class" and its settings
[encode]     gain = "1.1 V", overflow = "fold", period = "7 V"
[decode]     zero, scale; left out: taken from the transfer curve that every run measures first
[learner]    use = "adfa" or "module:Class", and its settings
[optimizer]  use = "Adam", lr = 1e-3
[train]      epochs = 5, batch = 128, checkpoint_every_s = 60
             on = "cuda"      where the host computes: "cpu", "cuda", "cuda:1", "mps" or "auto"
[sentinel]   every = 20, policy = ["servo", "recalibrate", "stop"]     a look at the node now and then; see docs/drift.md
[alarm]      command = "notify-send hil" or ["my-alarm", "--loud"], on = ["fault", "end"]; see hil/run/alarms.py
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from hil import toml
from hil.errors import ConfigError, nearest
from hil.files import read_text, there
from hil.naming import (
    CHIPS,
    KINDS,
    LEARNERS,
    SHAPES,
    SYNAPSES,
    UNTOUCHED,
    Choice,
    choice,
    construct,
    keeps,
    resolve,
    shortened,
    twin_choice,
    unknown,
)
from hil.units import quantity

M = TypeVar("M", bound=BaseModel)
GIVEN = ("scpi", "link", "expect", "provenance", "care")  # what a bench gives to a driver; the rest are its settings


class Table(BaseModel):
    """A table of a file, which knows where it stands once the whole file was checked."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    _place: str = PrivateAttr(default="")

    @property
    def place(self) -> str:
        """File and section, for messages: "experiment.toml: [learner]"."""
        return self._place

    def settle(self, place: str) -> None:
        """Called once, with the place, when the whole file has been checked; a table that names a class finds it now.

        Raises:
            ConfigError: there is no such class, or it does not take these settings.
        """
        self._place = place

    def changed(self, **settings: Any) -> Self:
        """The same table with other settings, checked. Raises: ConfigError."""
        made = checked(type(self), {**self.model_dump(exclude_none=True), **settings}, self.place)
        made.settle(self.place)
        return made

    def quantity(self, key: str, unit: str) -> float:
        """The value of `key` in `unit`. Raises: ConfigError: it is of another kind."""
        return quantity(getattr(self, key), "dimensionless" if unit == "1" else unit, f"{self._place} {key}")


class Section(Table):
    """A table whose keys are all known; another one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Using(Table):
    """A table whose `use` names a class; the other keys are that class's settings."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str
    _choice: Choice | None = PrivateAttr(default=None)

    def settings(self) -> dict[str, Any]:
        """As they are written."""
        return dict(self.model_extra or {})

    @property
    def choice(self) -> Choice:
        """The class, and its settings checked."""
        assert self._choice is not None, "only a table of a file that was read knows its class"
        return self._choice

    def settle(self, place: str) -> None:
        super().settle(place)
        self._choice = self.chosen(place)

    def chosen(self, place: str) -> Choice:
        """Find the class and check the settings. Raises: ConfigError."""
        return choice(self.use, self.settings(), place)


class LearnerTable(Using):
    """A rule that learns: one of LEARNERS, or "module:Class"."""

    def chosen(self, place: str) -> Choice:
        made = resolve(self.use, place, LEARNERS)
        keeps(made, ("Settings", "build", "step", "predict"), "a Learner", self.use, place)
        found = choice(self.use, self.settings(), place, made=made.Settings)
        return Choice(self.use, made, {"settings": found.build()}, place)

    @property
    def rule(self) -> Any:
        """The class of the learner."""
        return self.choice.made

    @property
    def options(self) -> Any:
        """An object of the learner's class Settings."""
        return self.choice.settings["settings"]


class TwinTable(Using):
    """A twin: one of TWINS, or "module:Class"."""

    def chosen(self, place: str) -> Choice:
        return twin_choice(self.use, self.settings(), place)


class Data(Section, strict=True):
    """shift: training images are moved by up to so many pixels either way, anew each time; validation and test never are."""

    use: str = "digits"
    shift: Annotated[int, Field(ge=0)] = 0
    dir: str | None = None
    train_examples: Annotated[int, Field(gt=0)] | None = None


class FeedbackTable(Section, strict=True):
    """A synapse from the last hidden layer back to the first: its kind, its largest Frobenius norm, a factor on its first
    weights, and the side of its kernel if it is "conv"."""

    use: Literal["dense", "conv"] = "dense"
    norm: Annotated[float, Field(gt=0)] = 2.0
    scale: Annotated[float, Field(gt=0)] = 0.1
    kernel: Annotated[int, Field(gt=0)] = 3


class NetworkTable(Using):
    """Linear synapses of these widths; or `use`, a function of the other keys that returns the list of synapses."""

    use: str = "dense"
    pieces: Annotated[int, Field(ge=1, strict=True)] = 1
    feedback: FeedbackTable | None = None

    def chosen(self, place: str) -> Choice:
        return choice(self.use, self.settings(), place, SYNAPSES, skip=("shape",) if "shape" not in self.settings() else ())


class DeviceTable(Table):
    """A bench file, a class, or a chip that gives every layer an array of its own; a network without it is refused."""

    model_config = ConfigDict(extra="allow", frozen=True)
    bench: str | None = None
    use: str | None = None
    chip: str | None = None
    _choice: Choice | None = PrivateAttr(default=None)

    def settings(self) -> dict[str, Any]:
        """As they are written."""
        return dict(self.model_extra or {})

    @property
    def choice(self) -> Choice | None:
        """The class of a twin or of a chip, and its settings checked; None for a bench."""
        return self._choice

    def settle(self, place: str) -> None:
        super().settle(place)
        given = [name for name in ("bench", "use", "chip") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                "one device is needed", where=place, got=" and ".join(given) or "none", outputs=UNTOUCHED,
                allowed='bench = "benches/….toml", use = "module:Class" for a node, or chip = "module:Class" for neurons',
            )  # fmt: skip
        if self.use is not None:
            self._choice = twin_choice(self.use, self.settings(), place)
        elif self.chip is not None:
            self._choice = _chip_choice(self.chip, self.settings(), place)


def _chip_choice(use: str, settings: Mapping[str, Any], place: str) -> Choice:
    """A chip. One whose class has Settings is made of them and a seed; any other of its settings alone."""
    made = resolve(use, place, CHIPS)
    of = getattr(made, "Settings", None)
    found = choice(use, settings, place, made=made if of is None else of)
    keywords = found.settings if of is None else {"settings": found.build()}
    return Choice(use, made, keywords, place, "a Chip", ("array", "close"))


class EncodeTable(Section, strict=True):
    gain: float | str = 1.0
    offset: float | str = 0.0
    overflow: Literal["refuse", "clip", "fold"] = "refuse"
    period: float | str | None = None


class DecodeTable(Section, strict=True):
    zero: float | str
    scale: float | str


class OptimizerTable(Using, strict=True):
    """An optimiser of torch.optim, or "module:Class"; lr is its learning rate."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)
    use: str = "Adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3

    def chosen(self, place: str) -> Choice:
        import torch  # slow to import, and a command that only reads a bench needs none of it

        known = {name: f"torch.optim:{name}" for name in torch.optim.__all__ if name[0].isupper() and name != "Optimizer"}
        return choice(self.use, self.settings(), place, known, skip=("params", "lr"))


class TrainTable(Section, strict=True):
    """on: where the host computes; not called device, which is the node. A run may be resumed elsewhere: change it in its
    config.toml. record: every shot of every device onto a tape in the run folder, for hil replay. wire: what is said to every
    instrument into wire/ there."""

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


Rung = Literal["log", "rescale", "servo", "recalibrate", "roll_back", "stop"]


class SentinelTable(Section, strict=True):
    """every: steps between looks, at least. policy: what is done about a drift, in this order; see calibration/sentinel.py.
    warn, act: by what share of its half swing the node's answers may differ from the reference. period: of the node in its
    drive's unit; left out: that of [encode], or of the twin. margin: of a node without one, kept free at both rails.
    """

    every: Annotated[int, Field(gt=0)] = 20
    policy: Rung | list[Rung] = ["servo", "rescale", "recalibrate", "stop"]
    warn: Annotated[float, Field(gt=0, lt=1)] = 0.005
    act: Annotated[float, Field(gt=0, lt=1)] = 0.01
    period: float | str | None = None
    margin: float | str = 0.0


class AlarmTable(Section, strict=True):
    """A command that is run when something happens to the run. timeout_s: it is ended then. every_s: of one kind at most one in
    so many seconds. stalled_s: "stalled" is when no step or shot was finished for so long."""

    command: str | list[str] | None = None
    on: list[Literal["fault", "recovered", "end", "unsafe", "stalled"]] = ["fault", "end", "unsafe", "stalled"]
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    every_s: Annotated[float, Field(ge=0)] = 60.0
    stalled_s: Annotated[float, Field(gt=0)] = 600.0


class Experiment(Section):
    """A whole experiment file."""

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
        """What [device] bench names, read."""
        return self._bench

    @property
    def kept(self) -> bool:
        """The bench is a run folder's copy, and its calibration lies beside it."""
        return self._kept

    def on_bench(self, bench: BenchFile, kept: bool = False) -> Self:
        """The same experiment on a bench that was read from another file. kept: a run folder's copy."""
        made = self.model_copy()
        made._bench, made._kept = bench, kept
        return made


class InstrumentTable(Using):
    """An instrument of a bench: its driver in `use`, its address, who it must be, how long it may be silent; the rest are the
    driver's settings."""

    timeout_s: Annotated[float, Field(gt=0, lt=3600, strict=True)] | None = None
    resource: str | None = None
    maker: str | None = None
    model: str | None = None
    serial: str | None = None

    def chosen(self, place: str) -> Choice:
        return choice(self.use, self.settings(), place, skip=GIVEN)


class LogTable(Section, strict=True):
    """wire: every run on this bench keeps transcripts of what is said to its instruments."""

    wire: bool = False


class GuardianTable(Section, strict=True):
    """Who makes safe when the trainer cannot. silence_s: no use of any instrument for so long means that the trainer hangs; it
    must exceed the longest legal wait. patience_s: how long it is tried to make an instrument safe that does not answer."""

    silence_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    patience_s: Annotated[float, Field(ge=0, le=3_600)] = 10.0


class PanelTable(Section, strict=True):
    """How often the instruments are asked what they hold, and what a change by another hand leads to. every: of use, "2 s".
    policy: "restore" sets the bench up again and repeats the shot, "stop" ends the run. lock: lock their front panels."""

    every: float | str = "2 s"
    policy: Literal["restore", "stop"] = "restore"
    lock: bool = True


class CalibrationTable(Section, strict=True):
    """use: the file of the calibration that this bench is used with. max_age: beyond it, it is stale. policy: what to do about
    one that does not fit. procedures: "module:function" with the steps of hil calibrate, instead of those of the shape.
    network: where the twin's physics is not enough, a network may stand on top of it, and both are judged together."""

    use: str | None = None
    max_age: float | str = "24 h"
    policy: Literal["refuse", "warn"] = "refuse"
    procedures: str | None = None
    network: bool = False


class SafeTable(Section):
    """order: names of instruments, the first is made safe first; those that it does not name come last."""

    order: tuple[str, ...] = ()


class BenchFile(Section):
    """What the files of all benches have in common: named instruments, and a shape that makes a node of them.

    A shape adds tables of its own: see hil/build/shapes/shape.py.
    """

    name: str
    shape: str
    instruments: dict[str, InstrumentTable] = {}
    twin: TwinTable | None = None
    safe: SafeTable = Field(default_factory=SafeTable)
    recovery: dict[str, Any] = {}
    log: LogTable = Field(default_factory=LogTable)
    guardian: GuardianTable = Field(default_factory=GuardianTable)
    panel: PanelTable = Field(default_factory=PanelTable)
    calibration: CalibrationTable = Field(default_factory=CalibrationTable)
    _file: Path = PrivateAttr(default=Path("bench.toml"))
    _how: Any = PrivateAttr(default=None)

    @property
    def file(self) -> Path:
        """Where it was read from."""
        return self._file

    @property
    def how(self) -> Any:
        """The Shape."""
        return self._how

    @property
    def simulated(self) -> bool:
        """Its instruments are simulated; a shape that can be says so."""
        return getattr(self, "virtual", None) is not None

    def settle(self, place: str) -> None:
        super().settle(place)
        wrong = [name for name in self.safe.order if name not in self.instruments]
        if wrong:
            raise ConfigError(
                "no such instrument", where=f"{place}: [safe] order", got=", ".join(wrong), outputs=UNTOUCHED,
                allowed=", ".join(self.instruments), todo="name instruments of this bench",
            )  # fmt: skip


def read_toml(path: Path) -> dict[str, Any]:
    """Raises: ConfigError: no such file, or not TOML; the message gives the line."""
    try:
        return toml.loads(read_text(path, toml.MOST_BYTES, ConfigError))
    except ConfigError as error:
        if there(path):
            error.outputs, error.todo = UNTOUCHED, error.todo or "give the path of a TOML file that you may read"
            raise
        near = nearest(path.name, (p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else ())
        hint = f'did you mean "{path.parent / near}"?' if near else "give the path of a TOML file"
        raise ConfigError("no such file", where=str(path), outputs=UNTOUCHED, todo=hint) from error
    except ValueError as error:
        raise ConfigError(
            "not a TOML file", where=str(path), got=str(error), outputs=UNTOUCHED, todo="mend that line"
        ) from error


def read_experiment(
    path: Path, overrides: Sequence[str] = (), near: Path | None = None, bench: Path | None = None
) -> Experiment:
    """The experiment in `path`, every class that it names found and every setting checked.

    Args:
        overrides: section.key=value, over what the file says.
        near: the file that names of other files are relative to, if it is not `path`.
        bench: the bench file of a run folder, instead of the one that [device] names.

    Raises:
        ConfigError: names file, section, key, what was found and what is allowed.
    """
    table = read_toml(path)
    for text in overrides:
        override(table, text)
    return experiment_of(table, path, near, bench)


def experiment_of(table: Mapping[str, Any], path: Path, near: Path | None = None, bench: Path | None = None) -> Experiment:
    """The experiment that `table`, read from `path`, describes. Arguments and errors as of `read_experiment`."""
    near = near or path
    learner = table.get("learner")
    if isinstance(learner, dict) and str(learner.get("feedback", "")).endswith(".toml"):  # a run holds all that it depends on
        feedback = read_toml(find(str(learner["feedback"]), near))
        table = {**table, "learner": {**learner, "feedback": feedback}}
    found = checked(Experiment, table, str(path))
    found._near = near
    if found.device.bench is not None:
        kept = bench is not None and bench.is_file()
        return found.on_bench(read_bench(bench if bench is not None and kept else find(found.device.bench, near)), kept)
    return found


def read_bench(path: Path) -> BenchFile:
    """The bench in `path`, as its shape has it. Raises: ConfigError."""
    table = read_toml(path)
    return bench_of(table, path)


def bench_of(table: Mapping[str, Any], path: Path) -> BenchFile:
    """The bench that `table`, read from `path`, describes. Raises: ConfigError."""
    _of_this_edition(table, path)
    shape = table.get("shape")
    if not isinstance(shape, str):
        raise ConfigError(
            "shape is missing" if shape is None else "shape is no text", where=str(path), outputs=UNTOUCHED,
            allowed=", ".join(SHAPES) + " or module:Shape", todo='add shape = "waveform", or another of these',
        )  # fmt: skip
    made = resolve(shape, f"{path}: shape", SHAPES)
    keeps(made, ("Bench", "open"), "a Shape", shape, f"{path}: shape")
    how = construct(made, {}, f"{path}: shape")
    found: BenchFile = checked(how.Bench, table, str(path))
    found._file, found._how = path, how
    return found


OF_ALL = frozenset(BenchFile.model_fields) | {"virtual", "node"}


def _of_this_edition(table: Mapping[str, Any], path: Path) -> None:
    """Refuse a bench file whose instruments are tables of their own, and say which lines to change."""
    parts = {key: value for key, value in table.items() if isinstance(value, Mapping) and key not in OF_ALL}
    old = [key for key, value in parts.items() if {"use", "resource"} & set(value)]
    if not old:
        return
    safe = table.get("safe")
    slew = [key for key in safe if key in old] if isinstance(safe, Mapping) else []
    lines = [f"[{key}] becomes [instruments.{key}]" for key in old]
    lines += [f'[safe.{key}] slew_v_per_s becomes slew = "… V/s" in [instruments.{key}]' for key in slew]
    roles = {"awg": 'drive = "awg"', "scope": 'read = "scope"', "board": 'board = "board"'}
    node = ", ".join(roles[key] for key in old if key in roles)
    lines += [f"add [node] {node}"] if node and "node" not in table else []
    raise ConfigError(
        "an instrument has no table of its own any more", where=str(path), got=", ".join(f"[{key}]" for key in old),
        outputs=UNTOUCHED, allowed="[instruments.NAME], and what each is for in [node]", todo="; ".join(lines),
    )  # fmt: skip


def dump(model: BaseModel) -> str:
    """TOML text that reads back to the same values; None is left out, as TOML has no such value."""
    return tomli_w.dumps(_without_none(model.model_dump()))


def find(name: str, near: Path) -> Path:
    """A file named in an experiment: as given, or beside the experiment or one of the folders above it.

    Raises:
        ConfigError: it is in none of them.
    """
    places = [Path(name)] if Path(name).is_absolute() else [folder / name for folder in (Path.cwd(), *near.resolve().parents)]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f'file "{name}" not found', where=str(near), got=f"nothing at {places[0]}", outputs=UNTOUCHED,
        todo="give a path relative to the experiment file or to the folder you are in",
    )  # fmt: skip


def override(table: dict[str, Any], text: str) -> None:
    """Set `section.key=value` in `table`; a value that is not TOML is a string.

    Raises:
        ConfigError: it is not of that form.
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > toml.MOST_PARTS:
        raise ConfigError(
            "not an override", where=f"--set {shortened(text)}", allowed="section.key=value", outputs=UNTOUCHED,
            todo="write it so, without spaces, or in quotes: --set train.epochs=3",
        )  # fmt: skip
    try:
        read = toml.loads(f"value = {value}")
        # a bare word is a string, --set learner.use=dfa; so is what TOML would read in part only: "3 # 5", two lines
        parsed = read["value"] if len(read) == 1 and ("#" not in value or not _scalar(read["value"])) else value.strip()
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    except ValueError as error:
        raise ConfigError(
            "not a value", where=f"--set {shortened(text)}", got=str(error), allowed="section.key=value", outputs=UNTOUCHED,
            todo="write a shorter one",
        ) from error  # fmt: skip
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(
                f"{key} is a value, not a section", where=f"--set {text}", allowed="section.key=value", outputs=UNTOUCHED,
                todo=f"write {key}=value",
            )  # fmt: skip
    table[keys[-1]] = parsed


def _scalar(value: object) -> bool:
    """A value of TOML whose text has no quotes that could hold a #."""
    return not isinstance(value, str | list | dict)


def checked(model: type[M], table: Mapping[str, Any], where: str) -> M:
    """`table` as a `model`.

    Raises:
        ConfigError: the first unknown key with the nearest known one, or the first wrong value.
    """
    try:
        found = model.model_validate(table)
    except pydantic.ValidationError as error:
        faults = error.errors(include_url=False)
        first = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])  # a misspelt key explains a missing one
        raise _explained(model, first, where, error.error_count()) from None
    for path, part in _tables(found):
        part.settle(f"{where}: [{path}]" if path else where)
    return found


def _tables(value: object, path: str = "") -> Iterator[tuple[str, Table]]:
    """Every table of a file with the name of its section, the whole file first."""
    if isinstance(value, Table):
        yield path, value
        for name in type(value).model_fields:
            yield from _tables(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _tables(part, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tables(part, path)


def _explained(model: type[BaseModel], fault: Any, where: str, count: int) -> ConfigError:
    path = [str(part) for part in fault["loc"]]
    if len(path) > 1 and path[-1] in KINDS:  # one of the kinds that the key before it may have
        path.pop()
    allowed = "a section with keys of its own" if fault["type"] == "model_type" else fault["msg"]
    section = f"{where}: [{'.'.join(path[:-1])}]" if len(path) > 1 else where
    if fault["type"] == "extra_forbidden":
        return unknown(section, path[-1], fault["input"], _fields(model, path[:-1]))
    more = f" ({count - 1} more after this one)" if count > 1 else ""
    if fault["type"] == "missing":
        return ConfigError(
            f"{path[-1]} is missing{more}", where=section, outputs=UNTOUCHED, todo=f"add {path[-1]} to the file",
        )  # fmt: skip
    return ConfigError(
        f"{path[-1]} = {shortened(fault['input'])}: wrong value{more}", where=section, allowed=allowed,
        outputs=UNTOUCHED, todo="correct the value",
    )  # fmt: skip


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys allowed in the section `path` of `model`."""
    for part in path:
        if part.isdigit():  # a place in a list of tables
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return list(model.model_fields)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list | tuple) else value


SMALL = 4_000_000  # multiplications a layer and batch, below which a second thread costs more than it brings


def default_threads(served: bool, weights: int, batch: int) -> int:
    """One torch thread beside a served bench (two processes with two threads each thrash on two cores) and for small networks
    (weights: of the largest layer); else every core."""
    largest = weights * batch
    return 1 if served or largest < SMALL else max(1, os.cpu_count() or 1)
