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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from hil import toml
from hil.errors import ConfigError, nearest
from hil.files import read_text, there
from hil.naming import KINDS, UNTOUCHED, shortened, unknown

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A table of a file; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Using(BaseModel):
    """A table whose `use` names a class; the other keys are that class's settings, checked when it is built."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str

    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


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


class NetworkTable(BaseModel):
    """Linear synapses of these widths; or `use`, a function of the other keys that returns the list of synapses."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str = "dense"
    pieces: Annotated[int, Field(ge=1, strict=True)] = 1
    feedback: FeedbackTable | None = None

    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DeviceTable(BaseModel):
    """A bench file, a class, or a chip that gives every layer an array of its own; a network without it is refused."""

    model_config = ConfigDict(extra="allow", frozen=True)
    bench: str | None = None
    use: str | None = None
    chip: str | None = None

    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EncodeTable(Section, strict=True):
    gain: float | str = 1.0
    offset: float | str = 0.0
    overflow: Literal["refuse", "clip", "fold"] = "refuse"
    period: float | str | None = None


class DecodeTable(Section, strict=True):
    zero: float | str
    scale: float | str


class OptimizerTable(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)
    use: str = "Adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3

    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


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
    data: Data = Data()
    network: NetworkTable
    device: DeviceTable
    encode: EncodeTable = EncodeTable()
    decode: DecodeTable | None = None
    learner: Using
    optimizer: OptimizerTable = OptimizerTable()
    train: TrainTable = TrainTable()
    sentinel: SentinelTable | None = None
    alarm: AlarmTable = AlarmTable()


class InstrumentTable(Using):
    """An instrument of a bench: its driver in `use`, its address, who it must be, how long it may be silent; the rest are the
    driver's settings."""

    timeout_s: Annotated[float, Field(gt=0, lt=3600, strict=True)] | None = None
    resource: str | None = None
    maker: str | None = None
    model: str | None = None
    serial: str | None = None


class VirtualTable(Section):
    """The simulated side of a bench: which boxes, which node, how they are served. linger_s: how long it outlives its parent.
    log_path: a file that is told what the outputs do. faults: see docs/virtual_bench.md. specimen: the node and the cable stray
    from these tables as a specimen does, drawn from this number; left out: they are as they stand here."""

    seed: Annotated[int, Field(strict=True)] = 0
    specimen: Annotated[int, Field(ge=0, strict=True)] | None = None
    transport: Literal["hislip", "socket"] = "hislip"
    linger_s: Annotated[float, Field(ge=0, strict=True)] = 0.0
    log_path: str | None = None
    faults: list[dict[str, Any]] = []
    awg: Using
    scope: Using
    node: Using
    cable: dict[str, Any] = {}


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


class SlewTable(Section, strict=True):
    """slew_v_per_s: the drive goes down no faster than this before the output goes off; left out: off at once."""

    slew_v_per_s: Annotated[float, Field(gt=0)] | None = None


class WaveformSafe(Section):
    """order: of the instruments that drive something."""

    order: tuple[Literal["awg"], ...] = ("awg",)
    awg: SlewTable = SlewTable()


class SpikingSafe(Section):
    order: tuple[Literal["board"], ...] = ("board",)


class SpikingBench(Section):
    """A bench of the spiking shape: a board of neurons on a serial line. virtual: the simulated board, instead of a port."""

    name: str
    shape: Literal["spiking"]
    board: InstrumentTable
    recovery: dict[str, Any] = {}
    log: LogTable = LogTable()
    virtual: dict[str, Any] | None = None
    safe: SpikingSafe = SpikingSafe()
    guardian: GuardianTable = GuardianTable()
    panel: PanelTable = PanelTable()
    calibration: CalibrationTable = CalibrationTable()


class BenchFile(Section):
    """A bench of the waveform shape: AWG -> node -> scope."""

    name: str
    shape: Literal["waveform"] = "waveform"
    awg: InstrumentTable
    scope: InstrumentTable
    waveform: dict[str, Any]
    recovery: dict[str, Any] = {}
    log: LogTable = LogTable()
    twin: Using | None = None
    virtual: VirtualTable | None = None
    safe: WaveformSafe = WaveformSafe()
    guardian: GuardianTable = GuardianTable()
    panel: PanelTable = PanelTable()
    calibration: CalibrationTable = CalibrationTable()


class DirectTable(Section):
    """The node of a bench that has no instruments. seed: of its noise."""

    seed: Annotated[int, Field(strict=True)] = 0
    node: Using


class DirectBench(Section):
    """A bench of many channels at once: a mesh of interferometers, or a modulator, a medium and a camera. There are no drivers
    for heater boards, modulators and cameras yet, so it is virtual, and its twin is called directly."""

    name: str
    shape: Literal["mesh", "camera"]
    virtual: DirectTable
    twin: Using | None = None
    calibration: CalibrationTable = CalibrationTable()

    @property
    def log(self) -> LogTable:
        """There is no wire."""
        return LogTable()


Bench = BenchFile | SpikingBench | DirectBench


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


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in `path`, with `section.key=value` overrides applied.

    Raises:
        ConfigError: names file, section, key, what was found and what is allowed.
    """
    table = read_toml(path)
    for text in overrides:
        override(table, text)
    learner = table.get("learner")
    if isinstance(learner, dict) and str(learner.get("feedback", "")).endswith(".toml"):  # a run holds all that it depends on
        learner["feedback"] = read_toml(find(str(learner["feedback"]), path))
    return checked(Experiment, table, str(path))


def read_bench(path: Path) -> Bench:
    """Raises: ConfigError."""
    table = read_toml(path)
    if table.get("shape") == "spiking":
        return checked(SpikingBench, table, str(path))
    if table.get("shape") in ("mesh", "camera"):
        return checked(DirectBench, _without_instruments(table, str(path)), str(path))
    return checked(BenchFile, table, str(path))


def _without_instruments(table: dict[str, Any], where: str) -> dict[str, Any]:
    shape, virtual = table["shape"], table.get("virtual")
    parts = {**table, **{f"virtual.{key}": value for key, value in (virtual if isinstance(virtual, dict) else {}).items()}}
    boxes = [
        name
        for name, part in parts.items()
        if isinstance(part, dict) and {"use", "resource"} & set(part) and name not in ("twin", "virtual.node", "calibration")
    ]
    if boxes or virtual is None:
        raise ConfigError(
            f"there are no instruments of the {shape} shape yet, so such a bench is virtual", where=where,
            got=", ".join(f"[{name}]" for name in boxes) or "no [virtual.node]", outputs=UNTOUCHED,
            allowed="[virtual.node], a twin that is called directly",
            todo="remove these tables" if boxes else f"add [virtual.node], as in benches/ for shape = \"{shape}\"",
        )  # fmt: skip
    return table


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
        return model.model_validate(table)
    except pydantic.ValidationError as error:
        faults = error.errors(include_url=False)
        first = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])  # a misspelt key explains a missing one
        raise _explained(model, first, where, error.error_count()) from None


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
