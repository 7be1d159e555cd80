"""[device], [[device]], [projection], [encode], [decode], [params]: what answers, and what is between it and the network.

[device]     bench = "b.toml"                   the instruments of a bench file
             use = "module:Class", settings     a Twin, called directly, or a Device, owned by a host
             chip = "module:Class", settings    neurons
             host = "lab-pc:50551"              a device that `hil host` serves there
[[device]]   use or host, one a hidden layer, each with [device.encode] and [device.decode] of its own
[params]     start, bits, slew, lr              what is programmed on the device is trained; [device.params] of one of several
[projection] bench, use or host, as [device]    projects the error onto the hidden layers
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, PrivateAttr, SerializerFunctionWrapHandler, model_serializer, model_validator

from hil.config.bench import GuardianTable, TwinTable
from hil.config.read import Holds, Section, Table
from hil.config.resolve import CHIPS, DEVICE_PARTS, TWINS, UNTOUCHED, Choice, choice, node_choice, resolve
from hil.devices.recovery import Patience
from hil.errors import ConfigError
from hil.settings import unknown

Inside = Annotated[float, Field(ge=-1, le=1)]
Quantities = float | str | list[float | str]
"""One for all channels, or one for each."""


class EncodeTable(Section, strict=True):
    """[encode]: from pre-activation to drive, drive = gain pre + offset.

    Args:
        gain: drive for each unit of pre-activation; a list has one for each channel.
        offset: drive at pre-activation 0; a list has one for each channel.
        overflow: what happens to a drive outside the limits; what is clipped or folded is counted.
        period: of the node, for "fold"; a list has one for each channel.
    """

    gain: Annotated[Quantities, Holds(unit="unit of the drive")] = 1.0
    offset: Annotated[Quantities, Holds(unit="unit of the drive")] = 0.0
    overflow: Literal["refuse", "clip", "fold"] = "refuse"
    period: Annotated[Quantities | None, Holds(unit="unit of the drive")] = None


class DecodeTable(Section, strict=True):
    """[decode]: from reading to output, (reading - zero) / scale; left out: measured.

    Args:
        zero: reading that becomes 0.
        scale: reading above zero that becomes 1.
    """

    zero: Annotated[float | str, Holds(unit="unit of the reading")]
    scale: Annotated[float | str, Holds(unit="unit of the reading")]


class ParamsTable(Section, strict=True):
    """[params]: what is programmed on the device is trained, as parameters from -1 to 1 over the range of each channel.

    Args:
        size: how many; none: as many as the twin or the bench file says.
        low: where -1 is, not below the limits of the device; a list has one for each channel; none: these limits.
        high: where 1 is, likewise.
        bits: of the converter that sets them, so of 2^bits levels from low to high; 0: any level.
        slew: largest rate of a channel, approached in steps; a list has one for each; none: any that the device allows.
        start: the first value, -1 to 1; a list has one for each channel; "uniform": drawn.
        lr: learning rate of these parameters; none: that of [optimizer]. 0: they stay as they are, whatever is learned.
        tolerance: how far a channel may be off when it is read back, as a share of its range; none: nothing is verified.
        tries: how often those channels are written once more.
    """

    size: Annotated[int, Field(ge=1)] | None = None
    low: Annotated[Quantities | None, Holds(unit="unit of what is programmed")] = None
    high: Annotated[Quantities | None, Holds(unit="unit of what is programmed")] = None
    bits: Annotated[int, Field(ge=0, le=20)] = 0
    slew: Annotated[Quantities | None, Holds(unit="unit of what is programmed, per s")] = None
    start: Literal["uniform"] | Inside | list[Inside] = 0.0
    lr: Annotated[float, Field(ge=0)] | None = None
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None
    tries: Annotated[int, Field(ge=1, le=100)] = 5


class HostTable(GuardianTable):
    """[device.guardian]: when the process that owns a device of one's own makes it safe.

    Args:
        silence_s: the trainer makes no progress for so long: it hangs, and the device is made safe.
        patience_s: how long making it safe may take.
        deadline_s: a shot that takes longer hangs: its process is ended, and a fresh one makes the device safe.
    """

    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0


Kind = Literal["bench", "twin", "device", "chip", "host", "layers"]
ALLOWED = 'bench = "benches/….toml", use = "module:Class" for a node{}, or host = "computer:port"'


class NodeTable(Table):
    """A table that names one node: a bench file, a class, or a host elsewhere.

    Args:
        bench: path of a bench file.
        use: a twin, by a short name or "module:Class", or a Device, "module:Class"; other keys are its settings.
        host: "computer:port" of a device that `hil host` serves there.
        keys: the folder with this computer's keys, for a host on another one.
        unguarded: take a device that nobody can make safe; every result says so.
        guardian: of a device of one's own, or on a host: when it is made safe; none: the defaults.
        recovery: of the same: how long a fault is worked on.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"bench": {}, "use": TWINS, "host": {}}
    kinds: ClassVar[tuple[Kind, ...]] = ("bench", "host")  # besides `use`, which names a twin or a device
    allowed: ClassVar[str] = ALLOWED.format("")
    bench: str | None = None
    use: str | None = None
    host: str | None = None
    keys: str | None = None
    unguarded: Annotated[bool, Field(strict=True)] = False
    guardian: HostTable | None = None
    recovery: Annotated[dict[str, Any], Holds(Patience)] = Field(default_factory=dict)
    _choice: Choice | None = PrivateAttr(default=None)
    _patience: Choice | None = PrivateAttr(default=None)
    _kind: Kind = PrivateAttr(default="twin")

    def settings(self) -> dict[str, Any]:
        """Return the settings as they are written."""
        return dict(self.model_extra or {})

    @property
    def kind(self) -> Kind:
        """The kind of device that the table names."""
        return self._kind

    @property
    def choice(self) -> Choice | None:
        """The class of a twin, a device or a chip, and its settings checked; None for a bench and a host."""
        return self._choice

    @property
    def model(self) -> Choice | None:
        """The twin that is the node, or that models it; None for a bench, whose file may name one, and for a chip."""
        return self._choice if self._kind == "twin" else None

    @property
    def patience(self) -> Patience:
        """Settings of the recovery of a device of one's own."""
        assert self._patience is not None  # it was read from a file
        found: Patience = self._patience.build()
        return found

    def settle(self, place: str) -> None:
        """Find the class of the node, unless a bench or a host names it.

        Raises:
            ConfigError: not exactly one device is named, or by a class or setting that makes no sense.
        """
        super().settle(place)
        given = [name for name in ("use", *self.kinds) if getattr(self, name)]
        if len(given) != 1:
            raise ConfigError(
                "one device is needed", where=place, got=" and ".join(given) or "none", outputs=UNTOUCHED, allowed=self.allowed
            )
        self._patience = choice("Patience", self.recovery, f"{place[:-1]}.recovery]", made=Patience)
        if self.use is not None:
            self._choice = node_choice(self.use, self.settings(), place)
            self._kind = "device" if self._choice.parts == DEVICE_PARTS else "twin"
        else:
            self._kind = next(kind for kind in self.kinds if kind == given[0])

    @model_serializer(mode="wrap")
    def _brief(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as it would be without being written."""
        known = type(self).model_fields
        return {key: value for key, value in handler(self).items() if key not in known or value not in (None, False, {}, [])}

    def _only_known(self, place: str) -> None:
        """Refuse settings where there is no class that takes them."""
        for key, value in self.settings().items():
            raise unknown(place, key, value, type(self).model_fields)


class DeviceTable(NodeTable):
    """[device]: a bench file, a class, a chip that gives every layer an array of its own, or a host elsewhere.

    Args:
        chip: a source of neurons for a spiking network: "lif" or "module:Class"; other keys are its settings.
        twin: of a device of one's own, or on a host: its model, for references and reports.
        instead: what takes the place of the node once its transfer curve is known, which shows what the physics is worth. A
            "wire" is linear from the range of the drive to that of the reading, a "dead" node gives one reading; drives are
            clipped.
        encode: of one of several devices: as [encode], which is used if it is left out.
        decode: of one of several devices: as [decode]; none: measured.
        params: of one of several devices: as [params]; none: nothing is trained on it.
        layers: several devices, one a hidden layer: [[device]] in a file.
    """

    known: ClassVar[Mapping[str, Mapping[str, str]]] = {"bench": {}, "use": TWINS, "chip": CHIPS, "host": {}}
    kinds: ClassVar[tuple[Kind, ...]] = ("bench", "chip", "host", "layers")
    allowed: ClassVar[str] = ALLOWED.format(', chip = "module:Class" for neurons')
    chip: str | None = None
    twin: TwinTable | None = None
    instead: Literal["wire", "dead"] | None = None
    encode: EncodeTable | None = None
    decode: DecodeTable | None = None
    params: ParamsTable | None = None
    layers: list[DeviceTable] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _one_a_layer(cls, table: Any) -> Any:
        """[[device]] is one device a hidden layer."""
        return {"layers": table} if isinstance(table, list) else table

    @property
    def model(self) -> Choice | None:
        """The twin that is the node, or that models it; None for a bench, whose file may name one, and for a chip."""
        return super().model or (None if self.twin is None else self.twin.choice)

    def settle(self, place: str) -> None:
        """Find the class of the node or the chip, unless a bench or a host names it.

        Raises:
            ConfigError: not exactly one of bench, use, chip and host, or a class or setting that makes no sense.
        """
        super().settle(place)
        if self.chip is not None:
            self._choice = _chip_choice(self.chip, self.settings(), place)
            self._guarded(place)
        elif self.use is None:
            self._only_known(place)
        for layer in self.layers:
            if wrong := [kind for kind in self.kinds if kind != "host" and getattr(layer, kind)]:
                raise ConfigError(
                    "a network with a device a layer takes single devices", where=place, got=wrong[0], outputs=UNTOUCHED,
                    allowed="use or host in each [[device]]", todo="serve a bench with hil host, and name its host",
                )  # fmt: skip

    def _guarded(self, place: str) -> None:
        """Refuse a chip that may drive something: it lives in the trainer, and nobody could make it safe."""
        assert self._choice is not None
        if getattr(self._choice.made, "provenance", "") != "twin" and not self.unguarded:
            raise ConfigError(
                "nobody could make this chip safe if the trainer died", where=place, got=f'chip = "{self.chip}"',
                allowed='a class with provenance = "twin", which drives nothing; a bench with a shape of your own',
                outputs=UNTOUCHED,
                todo="write a shape (docs/how-to/add_a_shape.md), or unguarded = true, which every result then carries",
            )  # fmt: skip


class ProjectionTable(NodeTable):
    """[projection]: a node that projects the error onto the hidden layers in place of the matrices B.

    Args:
        levels: the two drives of a class, of the sign - and +; none: a quarter and three quarters of the range of the drive.
        planes: of signs that the error is sent as, two shots each. 2: three values, -1, 0 and 1 times the largest one; every
            further plane halves the distance of the values.
    """

    levels: Annotated[tuple[float | str, float | str] | None, Holds(unit="unit of the drive")] = None
    planes: Annotated[int, Field(ge=2, le=12, strict=True)] = 5

    def settle(self, place: str) -> None:
        """Find the class of the node, unless a bench or a host names it. Raises: ConfigError."""
        super().settle(place)
        if self.use is None:
            self._only_known(place)


def _chip_choice(use: str, settings: Mapping[str, Any], place: str) -> Choice:
    """A chip. One whose class has Settings is made of them and a seed; any other of its settings alone."""
    made = resolve(use, place, CHIPS)
    of = getattr(made, "Settings", None)
    found = choice(use, settings, place, made=made if of is None else of)
    keywords = found.settings if of is None else {"settings": found.build()}
    return Choice(use, made, keywords, place, "a Chip", ("array", "close"))
