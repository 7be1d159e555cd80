"""Names in a file resolved to objects: an import path to what it names, a table to the keyword arguments of that.

use = "module:Class"         an import path, or one of our short names
v_pi = "3.5 V"               the parameter v_pi_v, its unit stated by its name
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from hil.config import modules
from hil.config.modules import imported
from hil.errors import UNTOUCHED as UNTOUCHED
from hil.errors import ConfigError, ForeignError, Refused, RunError, nearest
from hil.foreign import foreign, said
from hil.own_packages import confused
from hil.settings import arguments, shortened

# Our short names. Text alone: nothing is imported before it is named.
LEARNERS = {
    "adfa": "hil.learners.adfa:ADFA",
    "dfa": "hil.learners.dfa:DFA",
    "backprop": "hil.learners.backprop:Backprop",
    "pat": "hil.learners.pat:PAT",
    "spsa": "hil.learners.spsa:SPSA",
    "pepg": "hil.learners.pepg:PEPG",
    "cma_es": "hil.learners.cma_es:CMAES",
    "genetic": "hil.learners.genetic:Genetic",
    "node_perturbation": "hil.learners.node_perturbation:NodePerturbation",
    "host_and_device": "hil.learners.host_and_device:HostAndDevice",
    "mono_forward": "hil.learners.mono_forward:MonoForward",
    "last_layer": "hil.learners.last_layer:LastLayer",
    "ridge": "hil.learners.ridge:Ridge",
    "reservoir": "hil.learners.reservoir:Reservoir",
    "deep_reservoir": "hil.learners.deep_reservoir:DeepReservoir",
    "bptt_memory": "hil.learners.through_memory:BPTTMemory",
    "pat_memory": "hil.learners.through_memory:PATMemory",
    "adfa_snn": "hil.learners.adfa_snn:ADFASNN",
    "saf_e": "hil.learners.saf:SAFE",
    "saf_f": "hil.learners.saf:SAFF",
    "ottt_a": "hil.learners.ottt:OTTTA",
    "ottt_o": "hil.learners.ottt:OTTTO",
    "spike_representation": "hil.learners.spike_representation:SpikeRepresentation",
    "bptt": "hil.learners.bptt:BPTT",
    "ff": "hil.learners.forward_forward:ForwardForward",
    "ffgaf": "hil.learners.ffgaf:FFGAF",
    "phyll": "hil.learners.phyll:PhyLL",
    "ff_memory": "hil.learners.forward_forward_memory:ForwardForwardMemory",
    "phyll_memory": "hil.learners.phyll_memory:PhyLLMemory",
    "spide": "hil.learners.spide:SPIDE",
}
TWINS = {
    "mach_zehnder": "sim_devices.mach_zehnder:MachZehnder",
    "iq_modulator": "sim_devices.iq_modulator:IqModulator",
    "tabulated": "sim_devices.tabulated:Tabulated",
    "dopant_network": "sim_devices.dopant_network:DopantNetwork",
    "crossbar": "sim_devices.crossbar:Crossbar",
    "written": "sim_devices.written:Written",
    "mzi_mesh": "sim_devices.mzi_mesh:MZIMesh",
    "microring_bank": "sim_devices.microring_bank:MicroringBank",
    "phase_mask_camera": "sim_devices.phase_mask_camera:PhaseMaskCamera",
    "scattering": "sim_devices.scattering:Scattering",
    "delay_loop": "sim_devices.delay_loop:DelayLoop",
    "fibre_loop": "sim_devices.fibre_loop:FibreLoop",
    "coupled_nodes": "sim_devices.coupled_nodes:CoupledNodes",
    "memristive_network": "sim_devices.memristive_network:MemristiveNetwork",
}
CHIPS = {"lif": "sim_devices.spiking_array:TwinChip"}
SYNAPSES = {
    "dense": "hil.synapses:dense",
    "conv": "hil.synapses:conv",
    "behind_devices": "hil.synapses:behind_devices",
    "masks": "hil.synapses:masks",
}
SHAPES = {
    "waveform": "hil.build.shapes.waveform:WaveformShape",
    "vector": "hil.build.shapes.vector:VectorShape",
    "frame": "hil.build.shapes.frame:FrameShape",
    "spiking": "hil.build.shapes.spiking:SpikingShape",
    "mesh": "hil.build.shapes.direct:MeshShape",
    "camera": "hil.build.shapes.direct:CameraShape",
}
DRIVERS = {  # in a file by their paths; the values are where each is found
    path: path
    for path in (
        "drivers.keysight_33600:Keysight33600",
        "drivers.keysight_infiniivision:InfiniiVision",
        "drivers.siglent_sdg:SiglentSDG",
        "drivers.rigol_dg:RigolDG",
        "drivers.tektronix_afg31000:TektronixAFG31000",
        "drivers.keysight_m8195a:KeysightM8195A",
        "drivers.picoscope:PicoScope5000",
        "drivers.red_pitaya:RedPitaya",
        "drivers.siglent_sds:SiglentSDS",
        "drivers.rigol_scope:RigolScope",
        "drivers.tektronix_mso:TektronixMSO",
        "drivers.tektronix_tbs:TektronixTBS",
        "drivers.rohde_schwarz_rtb:RohdeSchwarzRTB",
        "drivers.keysight_e36300:KeysightE36312A",
        "drivers.keysight_n7776c:KeysightN7776C",
        "drivers.keithley_2400:Keithley2400",
        "drivers.keithley_2450:Keithley2450",
        "drivers.keithley_dmm6500:KeithleyDMM6500",
        "drivers.keithley_dmm6500:KeithleyDMM6500Current",
        "drivers.keysight_b2900:KeysightB2900",
        "drivers.keysight_8164:Keysight8164",
        "drivers.qontrol:Qontrol",
        "drivers.thorlabs_pm100d:ThorlabsPM100D",
        "drivers.dac_board:DacBoard",
        "drivers.ni_card:NICard",
        "drivers.spiking.device:SpikingBoard",
    )
}
SIMULATED = {
    path: path
    for path in (
        "sim_devices.instruments.keysight_33600:Keysight33600",
        "sim_devices.instruments.keysight_infiniivision:InfiniiVision",
        "sim_devices.instruments.siglent_sdg:SiglentSDG",
        "sim_devices.instruments.rigol_dg:RigolDG",
        "sim_devices.instruments.tektronix_afg31000:TektronixAFG31000",
        "sim_devices.instruments.keysight_m8195a:KeysightM8195A",
        "sim_devices.instruments.picoscope:PicoScope",
        "sim_devices.instruments.red_pitaya:RedPitaya",
        "sim_devices.instruments.siglent_sds:SiglentSDS",
        "sim_devices.instruments.rigol_scope:RigolScope",
        "sim_devices.instruments.tektronix_mso:TektronixMSO",
        "sim_devices.instruments.tektronix_tbs:TektronixTBS",
        "sim_devices.instruments.rohde_schwarz_rtb:RohdeSchwarzRTB",
        "sim_devices.instruments.keysight_e36300:KeysightE36312A",
        "sim_devices.instruments.keysight_n7776c:KeysightN7776C",
        "sim_devices.instruments.keithley_2400:Keithley2400",
        "sim_devices.instruments.keithley_2450:Keithley2450",
        "sim_devices.instruments.keithley_dmm6500:KeithleyDMM6500",
        "sim_devices.instruments.keysight_b2900:KeysightB2900",
        "sim_devices.instruments.keysight_8164:Keysight8164",
        "sim_devices.instruments.qontrol:Qontrol",
        "sim_devices.instruments.thorlabs_pm100d:ThorlabsPM100D",
        "sim_devices.instruments.dac_board:DacBoard",
        "sim_devices.instruments.ni_card:NICard",
    )
}
STRATEGIES = {
    "genetic": "hil.search.genetic:Genetic",
    "random": "hil.search.random_and_cma:Random",
    "cma": "hil.search.random_and_cma:CMA",
    "ipop": "hil.search.random_and_cma:IPOP",
}
TWIN_PARTS = ("spec", "rest", "respond", "ideal")
DEVICE_PARTS = ("spec", "forward", "close")


@dataclass(frozen=True)
class Choice:
    """A class that a table names with `use`, found, and its settings checked.

    Args:
        use: as it is written.
        made: the class or function.
        settings: its keyword arguments, in SI units.
        place: of the table.
        kind, parts: what the object must be, and have.
    """

    use: str
    made: Any
    settings: Mapping[str, Any]
    place: str
    kind: str = ""
    parts: tuple[str, ...] = ()

    def build(self, **given: Any) -> Any:
        """The object, made with its settings and what is `given` besides.

        Raises:
            ConfigError: it refuses its settings, or is not of the kind that is needed.
        """
        found = construct(self.made, {**given, **self.settings}, self.place)
        if self.parts:
            self._no_device(found)
            keeps(found, self.parts, self.kind, self.use, self.place)
        return found

    def _no_device(self, found: Any) -> None:
        """Close a device that came where a twin is built. Raises: ConfigError: the function did not say what it returns."""
        of = type(found)
        if self.parts == TWIN_PARTS and not _has(of, "respond") and all(_has(of, part) for part in DEVICE_PARTS[1:]):
            with foreign(self.place):
                found.close()
            raise ConfigError(
                f'"{self.use}" returns a device, and its first line does not say so', where=self.place,
                got=f"a function without an annotation, which returned {of.__name__}",
                outputs="as close() of the device left them",
                todo="write what it returns: def rig() -> hil.Functions for hil.from_functions(...), or the name of your class",
            )  # fmt: skip

    def changed(self, **settings: Any) -> Choice:
        """Return the same with other settings, as `build` takes them."""
        return replace(self, settings={**self.settings, **settings})


def choice(
    use: str,
    settings: Mapping[str, Any],
    place: str,
    short: Mapping[str, str] = {},
    *,
    skip: Sequence[str] = (),
    parts: tuple[str, ...] = (),
    kind: str = "",
    made: Any = None,
    besides: Sequence[str] = (),
) -> Choice:
    """Find what `use` names, and check `settings` against what it takes.

    Args:
        use: a short name, or "module:Class".
        settings: by name, as they are written.
        place: file and table, for messages.
        short: our short names.
        skip: parameters that are given when it is built.
        parts: what the object must have.
        kind: how an object with these parts is called.
        made: what takes the settings, if known.
        besides: other keys of the table, to be offered for a misspelt one.

    Raises:
        ConfigError: no such class, an unknown setting, or a value of the wrong kind.
    """
    found = resolve(use, place, short) if made is None else made
    return Choice(use, found, arguments(found, settings, place, skip, besides), place, kind, parts)


def twin_choice(use: str, settings: Mapping[str, Any], place: str, made: Any = None) -> Choice:
    """A twin, by name, or of the class that was found already. Raises: ConfigError."""
    if isinstance(settings.get("of"), str):  # a twin on top of another: that may be a class of the user's too
        under, base = resolve(settings["of"], place), settings.get("base", {})
        if isinstance(base, Mapping):
            settings = {**settings, "base": arguments(under, base, f"{place} base", finite=False)}
    return choice(use, settings, place, TWINS, parts=TWIN_PARTS, kind="a Twin", made=made)


def node_choice(use: str, settings: Mapping[str, Any], place: str) -> Choice:
    """A Twin or a Device, told apart by what the class has; a function says which in its return annotation.

    Raises:
        ConfigError: the class is neither.
    """
    made = resolve(use, place, TWINS)
    of = announced(made)
    if of is None or _has(of, "respond"):
        return twin_choice(use, settings, place, made)
    if _has(of, "forward") and _has(of, "close"):
        return choice(use, settings, place, made=made, parts=DEVICE_PARTS, kind="a Device")
    missing = ", ".join(f"no {part}" for part in ("respond", "forward", "close") if not _has(of, part))
    raise ConfigError(
        f'"{use}" is neither a Twin nor a Device', where=place, got=missing, outputs=UNTOUCHED,
        allowed=f"a Twin: {', '.join(TWIN_PARTS)}; a Device: {', '.join(DEVICE_PARTS)}",
        todo="name another module:Class, or give it what is missing (hil.conformance checks it)",
    )  # fmt: skip


def _has(of: type, part: str) -> bool:
    return callable(getattr(of, part, None))


def announced(made: Any) -> type | None:
    """Return what a call of `made` gives: itself, if it is a class, or the class that a function says it returns.

    None if it does not say.
    """
    if isinstance(made, type):
        return made
    try:
        found = get_type_hints(made).get("return")
    except Exception:  # noqa: BLE001 - annotations of the user's may name anything
        return None
    return found if isinstance(found, type) else None


def resolve(use: str, where: str, short: Mapping[str, str] = {}) -> Any:
    """The object that `use` names: "module:Class", or one of our short names.

    Raises:
        ConfigError: no such module or name; the nearest short name is offered.
    """
    path = short.get(use, use)
    module, colon, name = path.partition(":")
    if not colon:
        hint = nearest(use, short)
        *package, last = use.split(".")
        if package:
            raise ConfigError(
                f'"{use}" has no colon between module and class', where=where, allowed=", ".join([*short, "module:Class"]),
                outputs=UNTOUCHED, todo=f'write "{".".join(package)}:{last}"',
            )  # fmt: skip
        raise ConfigError(
            f'"{use}" is not known', where=where, allowed=", ".join(short) + " or module:Class", outputs=UNTOUCHED,
            todo=f'did you mean "{hint}"?' if hint else "choose one of these",
        )  # fmt: skip
    try:
        with foreign(where):  # a foreign module may fail in any way while it is imported
            return getattr(imported(module, where), name)
    except ForeignError as mapped:
        error = mapped.__cause__
        got, allowed, todo = _not_imported(error, module, name, where)
        raise ConfigError(
            f'cannot import "{path}"', where=where, got=got, at=mapped.at, allowed=allowed, outputs=UNTOUCHED, todo=todo,
        ) from error  # fmt: skip


def _not_imported(error: BaseException | None, module: str, name: str, where: str) -> tuple[str, str, str]:
    """What was found instead, what is allowed, and what to do: no such module, nothing of that name in it, or it fails."""
    got, allowed = f"{type(error).__name__}: {said(error)}", "module:Class"
    taken = confused(error, modules.folders(where))
    if taken:
        return got, allowed, taken
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{module}.".startswith(f"{missing}."):
        folders = list(dict.fromkeys(modules.folders(where)))
        files = {path.stem for folder in folders for path in Path(folder).glob("*.py")}
        near = nearest(module, sorted(files))
        places = "a module that is installed, or in " + " or ".join(folders)
        return f"no module {missing}", places, f'did you mean "{near}:{name}"?' if near else (
            f"write {module.partition('.')[0]}.py into one of these folders, or install the package that has it"
        )  # fmt: skip
    if missing:
        return f"{module} imports {missing}, which is not there", allowed, f"install {missing}, or correct that import"
    if isinstance(error, AttributeError) and module in sys.modules and not hasattr(sys.modules[module], name):
        own = sorted(key for key, part in vars(sys.modules[module]).items() if getattr(part, "__module__", "") == module)
        near = nearest(name, own)
        told = f'did you mean "{module}:{near}"?' if near else "name a class of that module"
        return f"no {name} in {module}", ", ".join(own) or allowed, told
    return got, allowed, f"correct {module}, which fails when it is imported"


@contextmanager
def blaming(place: str) -> Iterator[None]:
    """Blame `place`, a file and its section, for every refusal in here that names no file."""
    try:
        yield
    except Refused as error:
        if not isinstance(error, RunError) and not located(error.where):
            section = place.rpartition(": ")[2]
            error.where = f"{place}: {error.where}" if error.where else place
            error.where = error.where.replace(f"{section}: {section}", section)  # said by both
        raise


def located(where: str) -> bool:
    """True if the place of an error names the file, or a section of one."""
    return ".toml" in where or ": [" in where


def construct(target: Callable[..., Any], settings: Mapping[str, Any], where: str) -> Any:
    """`target(**settings)`, for a target and settings that come from a file.

    Raises:
        ConfigError: it refuses them in words of its own. Refused: it refuses them in ours.
    """
    try:
        with foreign(where), blaming(where):
            return target(**settings)
    except ForeignError as mapped:
        error = mapped.__cause__
        given = ", ".join(f"{key} = {shortened(value)}" for key, value in settings.items() if key != "params") or "no settings"
        raise ConfigError(
            "these settings are refused", where=where, got=f"{given}: {mapped.got or type(error).__name__}", at=mapped.at,
            outputs=UNTOUCHED, todo="correct the settings of this section",
        ) from error  # fmt: skip


def keeps(found: object, parts: tuple[str, ...], kind: str, use: str, where: str) -> None:
    """Refuse what a file names and is not what the section needs."""
    missing = [part for part in parts if getattr(found, part, None) is None]
    if missing:
        raise ConfigError(
            f'"{use}" is not {kind}', where=where, got="no " + ", ".join(missing), allowed=f"{kind}: {', '.join(parts)}",
            outputs=UNTOUCHED, todo="name another module:Class, or give it what is missing (hil.conformance checks it)",
        )  # fmt: skip
