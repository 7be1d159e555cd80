"""Common tables of all bench files: TOML in, checked values out. A shape adds tables of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from hil.config.read import Holds, Section, Using, checked, of_kind, read_toml
from hil.config.resolve import (
    DRIVERS,
    SHAPES,
    TWINS,
    UNTOUCHED,
    Choice,
    choice,
    construct,
    keeps,
    resolve,
    twin_choice,
)
from hil.devices.recovery import Patience
from hil.errors import ConfigError

GIVEN = (
    "scpi",
    "link",
    "expect",
    "provenance",
    "care",
    "auxiliaries",
    "address",
    "called",
    "beat",
)  # what a bench gives to a driver; the rest are its settings
HOLDS = ("holdable", "hold", "read_back", "rest_at", "safe_state", "reset")  # drivers/auxiliaries.py: Holdable


class TwinTable(Using):
    """[twin]: the model of a node.

    Args:
        use: what is believed of the node: a short name, or "module:Class"; other keys are its settings. References (PAT,
            backprop) differentiate it.
    """

    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"use": TWINS}

    def chosen(self) -> Choice:
        """Find the class of the twin and check its settings."""
        return twin_choice(self.use, self.settings(), self.place)


class InstrumentTable(Using):
    """An instrument of a bench; what is no key of this table is a setting of its driver.

    Args:
        use: the driver, "module:Class"; other keys are its settings.
        timeout_s: longest silence of the instrument; none: 5 s.
        resource: its address: a VISA resource, or a serial port; `hil list resources` shows those that answer. A virtual
            instrument has none.
        baud: bits per second of a serial port; none: what its driver says, or 9600.
        maker: how *IDN? must begin.
        model: how the model in *IDN? must begin.
        serial: the whole serial number; another instrument is refused.
        set: what an instrument without a role in [node] holds, by the names of its driver; "output" is on unless it says.
        safe: what it holds when it is safe; "output" is off unless it says.
        settle_s: wait after it was set, before it is read back.
        tolerance: largest difference of what is read back, in the unit of each setting: one number, or one by name; none: 1 %
            of the value, at least a thousandth of the range.
    """

    timeout_s: Annotated[float, Field(gt=0, lt=3600, strict=True)] | None = None
    resource: str | None = None
    baud: Annotated[int, Field(ge=300, le=12_000_000, strict=True)] | None = None
    maker: str | None = None
    model: str | None = None
    serial: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    safe: dict[str, Any] = Field(default_factory=dict)
    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"use": DRIVERS}
    settle_s: Annotated[float | str, Holds(unit="s")] = 0.0
    tolerance: float | dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _settles(cls, table: Any) -> Any:
        """`settle` is the name without the unit."""
        if not isinstance(table, Mapping) or "settle" not in table or "settle_s" in table:
            return table
        return {("settle_s" if key == "settle" else key): value for key, value in table.items()}

    def chosen(self) -> Choice:
        """Find the driver and check its settings; one that is to hold something must be able to."""
        found = choice(self.use, self.settings(), self.place, skip=GIVEN)
        if self.set:
            keeps(found.made, HOLDS, "a driver that holds what it was set to", self.use, self.place)
        return found


class LogTable(Section, strict=True):
    """[log] of a bench file: transcripts.

    Args:
        wire: every run on this bench keeps transcripts of what is said to its instruments.
    """

    wire: bool = False


class GuardianTable(Section, strict=True):
    """[guardian]: the process that makes safe when the trainer cannot.

    Args:
        silence_s: no use of any instrument for so long means that the trainer hangs; it must exceed the longest legal wait.
        patience_s: how long it is tried to make an instrument safe that does not answer.
    """

    silence_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    patience_s: Annotated[float, Field(ge=0, le=3_600)] = 10.0


class PanelTable(Section, strict=True):
    """[panel]: how often the instruments' settings are read back, and what a change by somebody else leads to.

    Args:
        every: of use, between two comparisons of what the instruments hold; 0: after every record; 60 s at most.
        policy: "restore" sets the bench up again and repeats the shot, "stop" ends the run.
        lock: lock their front panels.
    """

    every: Annotated[float | str, Holds(unit="s")] = "2 s"
    policy: Literal["restore", "stop"] = "restore"
    lock: bool = True


class CalibrationTable(Section, strict=True):
    """[calibration] of a bench file: which one it is used with.

    Args:
        use: the file of the calibration that this bench is used with.
        max_age: an older one is stale.
        policy: what to do about one that does not fit.
        procedures: "module:function" with the steps of hil calibrate, instead of those of the shape.
        network: where the twin's physics is not enough, a network may stand on top of it, and both are judged together.
    """

    use: str | None = None
    max_age: Annotated[float | str, Holds(unit="s")] = "24 h"
    policy: Literal["refuse", "warn"] = "refuse"
    procedures: str | None = None
    network: bool = False

    @property
    def max_age_s(self) -> float:
        """`max_age` in seconds."""
        return self.quantity("max_age", "second")

    def settle(self, place: str) -> None:
        """Check the largest age. Raises: ConfigError: it is no time above 0."""
        super().settle(place)
        if not self.max_age_s > 0:
            raise ConfigError(
                "not an age", where=f"{place} max_age", got=f"{self.max_age}", allowed='above 0, as "24 h"',
                outputs=UNTOUCHED, todo="correct the value",
            )  # fmt: skip


class StartTable(Section):
    """[start] of a bench file: the order in which instruments without a role are started.

    Args:
        order: names of instruments without a role in [node], the first is set and switched on first; those that it does not
            name come last.
    """

    order: tuple[str, ...] = ()


class SafeTable(Section):
    """[safe] of a bench file: the order in which outputs are made safe.

    Args:
        order: names of instruments, the first is made safe first; those that it does not name come last.
    """

    order: tuple[str, ...] = ()


class BenchFile(Section):
    """The common part of all bench files: named instruments, and a shape that makes a node of them.

    A shape adds tables of its own: see Shape in hil/build/bench.py.

    Args:
        name: of the bench, for results and file names.
        shape: how the instruments become a node; or "module:Shape".
        instruments: one table for each instrument.
        twin: what is believed of the node.
        start: the order in which instruments without a role are started.
        safe: the order in which outputs are made safe.
        recovery: how long a fault is worked on.
        log: transcripts.
        guardian: the process that makes safe when the trainer cannot.
        panel: what is done about another hand at the instruments.
        calibration: the calibration that the bench is used with.
    """

    name: str
    shape: str
    instruments: dict[str, InstrumentTable] = Field(default_factory=dict)
    twin: TwinTable | None = None
    start: StartTable = Field(default_factory=StartTable)
    safe: SafeTable = Field(default_factory=SafeTable)
    recovery: Annotated[dict[str, Any], Holds(Patience)] = Field(default_factory=dict)
    log: LogTable = Field(default_factory=LogTable)
    guardian: GuardianTable = Field(default_factory=GuardianTable)
    panel: PanelTable = Field(default_factory=PanelTable)
    calibration: CalibrationTable = Field(default_factory=CalibrationTable)
    _file: Path = PrivateAttr(default=Path("bench.toml"))
    _how: Any = PrivateAttr(default=None)

    @property
    def file(self) -> Path:
        """Path that it was read from."""
        return self._file

    def kept_in(self, copy: Path) -> Self:
        """The same bench as a run folder keeps it, as if it were read from `copy`."""
        made = self.model_copy()
        made._file = copy
        return made

    @property
    def how(self) -> Any:
        """The Shape."""
        return self._how()

    @property
    def sequence(self) -> str:
        """The calibration procedures, "module:function": those that the file names, else those of its shape; "" if none are."""
        return self.calibration.procedures or str(self.how.calibration)

    @property
    def simulated(self) -> bool:
        """True if its instruments are simulated; a shape that can be says so."""
        return getattr(self, "virtual", None) is not None

    @property
    def remembers(self) -> bool:
        """True if its node is analog and its state lasts in time; a shape that has such nodes says so."""
        return False

    def settle(self, place: str) -> None:
        """Check what holds for every shape.

        Raises:
            ConfigError: [start] or [safe] names an instrument that the bench does not have.
        """
        super().settle(place)
        for key, order in (("start", self.start.order), ("safe", self.safe.order)):
            wrong = [name for name in order if name not in self.instruments]
            if wrong:
                raise ConfigError(
                    "no such instrument", where=f"{place}: [{key}] order", got=", ".join(wrong), outputs=UNTOUCHED,
                    allowed=", ".join(self.instruments), todo="name instruments of this bench",
                )  # fmt: skip

    def agree(self) -> None:
        """Check what relates tables to each other, once all of them were checked. Raises: ConfigError."""


def read_bench(path: Path) -> BenchFile:
    """The bench in `path`, as its shape has it. Raises: ConfigError."""
    table = read_toml(path)
    of_kind(table, "bench", path)
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
    construct(made, {}, f"{path}: shape")  # refused here
    found: BenchFile = checked(made.Bench, table, str(path))
    found._file, found._how = path, made
    found.agree()
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
