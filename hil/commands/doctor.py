"""hil doctor: open a bench, or a device of one's own, send known drives round the loop, and write its passport.

    identify       who answers, with serial number and firmware; the settings are read back with the first shot
    measure        loop_check.py
    close          outputs safe, read back, before anything is said of the result
    passport       passport.py; compared with an older one if that is named

A fault in the loop ends it: no rung of the recovery ladder is climbed, so that none hides a fault. Stopped, exit code 3.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from drivers.spiking.session import LineTraffic
from drivers.waveform.device import Stats
from hil import __version__
from hil.build.bench import Paced
from hil.build.node import Node
from hil.build.open_node import bench_node
from hil.build.own_device import own_node
from hil.commands.loop_check import (
    Counts,
    Figures,
    Probe,
    Timed,
    large_shots,
    latencies,
    of_instruments,
    over_blocks,
    quality,
    ramped,
    shares,
    speed,
)
from hil.commands.passport import Change, Figure, Passport, changes, check_free, verdict
from hil.config.bench import BenchFile, read_bench
from hil.config.device import DeviceTable
from hil.config.read import checked
from hil.device import ArraySpec, Device, answered
from hil.devices.meter import metered
from hil.devices.stepped import stepped
from hil.errors import (
    UNTOUCHED,
    ConfigError,
    ForeignError,
    GuardianLost,
    HilError,
    InstrumentError,
    LinkError,
    MeasurementError,
    Stopped,
)
from hil.hints import quoted
from hil.host.client import Hosted
from sim_devices.simulated import Simulated

NEURONS = 8  # of an array that is cut from a chip
TRIPS = 8  # questions to a host, to see what a call costs without the device
PACKAGES = ("torch", "numpy")
WIRES = ("pyvisa", "pyvisa-py", "pyserial")


def doctor(
    what: str, settings: Mapping[str, Any], json_: Path | None, against: Path | None, out: Console
) -> tuple[Passport, list[Change]]:
    """Measure what `what` names, or read its passport, and say what was found and what changed.

    Args:
        what: a bench file, "module:Class", or a passport, a .json file.
        settings: of the class.
        json_: where the passport is written, or None; a new file.
        against: an older passport, or None.
        out: where people are told.

    Returns:
        the passport, and what changed since the older one.

    Raises:
        Refused: nothing was opened. Stopped, and other HilError: a fault; the outputs are safe. UnsafeOutputs.
    """
    before = None if against is None else Passport.load(against)
    if json_ is not None:
        check_free(json_)
    found = Passport.load(Path(what)) if what.endswith(".json") else examine(what, settings, out)
    for line in told(found):
        out.print(line, soft_wrap=True)
    if json_ is not None:
        found.save(json_)
        out.print(f"saved   {json_}", soft_wrap=True)
    if before is None:
        return found, []
    changed = changes(before, found)
    for change in changed:
        out.print(f" ~ {change.name:<26} {change.before:<24} -> {change.now}", soft_wrap=True)
    out.print(verdict(before, found, changed), soft_wrap=True)
    return found, changed


def examine(what: str, settings: Mapping[str, Any], out: Console) -> Passport:
    """Open what `what` names, measure it, and close it, its outputs safe.

    Raises: as `doctor`.
    """
    if what.endswith(".toml"):
        if settings:
            raise ConfigError(
                "a bench has its settings in its file", where="hil doctor --set", got=", ".join(settings), outputs=UNTOUCHED,
                todo="change the file",
            )  # fmt: skip
        bench = read_bench(Path(what))
        return _examined(what, bench.name, bench.shape, lambda stack: bench_node(bench, False, None, False, stack), bench, out)
    place = f"hil doctor {quoted(what)}"
    table = checked(DeviceTable, {**settings, "use": what}, place)
    table.settle(place)
    if table.kind == "device":
        return _examined(what, what, "device", lambda stack: own_node(table, None, stack), None, out)
    return _examined(what, what, "twin", lambda stack: _twin(table), None, out)


def _twin(table: DeviceTable) -> Node:
    assert table.choice is not None  # it names a class
    twin = table.choice.build()
    return Node(stepped(Simulated(twin)), None, twin, {}, {}, provenance="twin")


def _examined(
    what: str, name: str, shape: str, opened: Callable[[ExitStack], Node], bench: BenchFile | None, out: Console
) -> Passport:
    taken_at = datetime.now().astimezone().isoformat(timespec="seconds")
    with ending(what) as begun, ExitStack() as stack:
        node = opened(stack)
        begun.append(node)
        for who, line in node.resources.items():
            out.print(f"{who:<7} {line}", soft_wrap=True)
        for line in node.beware:
            out.print(f" ~ {line}", soft_wrap=True)
        node.attend()
        device = _device(node)
        provenance = answered(node.provenance, device.spec.provenance)
        figures, parts = _measured(device, node, bench)
    out.print(f"outputs {node.outputs_after or 'none: nothing leaves this process'}", soft_wrap=True)
    return Passport(name, shape, taken_at, provenance, node.instruments, _versions(bench), figures, parts)


def _device(node: Node) -> Device:
    """The node; of a chip an array of NEURONS."""
    if node.chip is not None:
        return node.chip.array(ArraySpec(NEURONS))
    assert node.source is not None  # one of them was opened
    return node.source


def _versions(bench: BenchFile | None) -> dict[str, str]:
    wires = WIRES if bench is not None and bench.instruments else ()
    return {"python": platform.python_version(), "hil": __version__, **{name: version(name) for name in (*PACKAGES, *wires)}}


def _measured(device: Device, node: Node, bench: BenchFile | None) -> tuple[Figures, dict[str, float]]:
    """Measure the loop. Raises: as the device."""
    probe = Probe(metered(device), lambda: _counted(device, node))
    single = latencies(probe)
    ramp = ramped(probe)
    quarter, whole = large_shots(probe, ramp)
    if bench is not None and isinstance(bench.how, Paced) and "records" in whole.spent[0]:
        pace_s, reads = bench.how.pace(bench)
        rests = device.spec.memory  # between sequences, which the rate of the symbols does not tell
        figures = speed(single, quarter, whole, *((None, 1.0) if rests else (pace_s, whole.spent[0]["records"] / reads)))
        rates, parts = _of_waveform(whole)
    else:
        figures = speed(single, quarter, whole, None, 1.0)
        rates, parts = {"upload_rate": _line_rate(whole)}, _of_others(device, single, whole)
    ideal: Callable[[Tensor], Tensor] | None = None if node.twin is None else node.twin.ideal
    return figures | rates | quality(probe, ramp, ideal), parts


def _counted(device: Device, node: Node) -> Counts:
    """What a waveform device, or a board, says that it did so far."""
    stats, traffic = getattr(device, "stats", None), getattr(node.chip, "traffic", None)
    return asdict(stats) if isinstance(stats, Stats) else asdict(traffic) if isinstance(traffic, LineTraffic) else {}


def _line_rate(whole: Timed) -> Figure:
    if not whole.spent or "bytes_up" not in whole.spent[0]:
        return Figure("B/s", note="the device does not count what it sends")
    rates = [spent["bytes_up"] / seconds for spent, seconds in zip(whole.spent, whole.seconds, strict=True)]
    return Figure("B/s", *over_blocks(rates, statistics.median), "of all the time of a shot")


def _of_waveform(whole: Timed) -> tuple[Figures, dict[str, float]]:
    """Tell where the time of a shot goes."""
    spent = {name: statistics.fmean(shot[name] for shot in whole.spent) for name in whole.spent[0]}
    found = of_instruments(spent)
    played_s, parts = found["acquisition"], shares(found, statistics.fmean(whole.seconds), "host")
    rates = over_blocks([shot["bytes_up"] / shot["upload_s"] for shot in whole.spent], statistics.median)
    playing = over_blocks([100 * played_s / seconds for seconds in whole.seconds], statistics.median)
    return {
        "upload_rate": Figure("B/s", *rates, "of the records, their commands included"),
        "playing": Figure("%", *playing, "of the time, the generator plays: symbols, markers, guards, rests"),
    }, parts


def _of_others(device: Device, single: Timed, whole: Timed) -> dict[str, float]:
    """A host is asked what a call costs without the device; a twin is all host; of others is known what grows with a shot."""
    inner = getattr(device, "inner", device)
    if isinstance(inner, Hosted):
        trips = []
        for _ in range(TRIPS):
            began = time.perf_counter()
            inner.identify()
            trips.append(time.perf_counter() - began)
        return shares({"host": statistics.median(trips)}, whole.median_s, "settling and acquisition")
    if isinstance(inner, Simulated):
        return {"host": 1.0}
    return shares({"latency": single.median_s}, whole.median_s, "samples")


def told(passport: Passport) -> Iterator[str]:
    """A passport, as a colleague would say it."""
    packages = ", ".join(f"{name} {text}" for name, text in passport.versions.items())
    yield f"{passport.name}: {passport.shape}, {passport.provenance}; {packages}"
    for name, figure in passport.figures.items():
        yield f"   {name:<26} {figure!s:<24} {figure.note}".rstrip()
    if passport.parts:
        listed = ", ".join(f"{name} {share:.0%}" for name, share in passport.parts.items())
        achieved, due = (passport.figures[name] for name in ("samples_per_s", "samples_per_s_predicted"))
        yield f"bottleneck: {passport.bottleneck} ({listed}); {achieved} achieved, {due} predicted"


@contextmanager
def ending(what: str) -> Iterator[list[Node]]:
    """Say what a fault ended, once something was opened, and what is safe."""
    begun: list[Node] = []
    try:
        yield begun
    except (LinkError, InstrumentError, MeasurementError, GuardianLost, ForeignError) as error:
        if not begun:
            raise  # it was not opened; the error says all
        raise _stopped(what, begun[0].outputs_after) from error


def _stopped(what: str, outputs: str) -> HilError:
    return Stopped(
        "a fault in the loop ended the check; there is no passport", where=what, outputs=outputs,
        todo=f"remove the cause, then: hil doctor {quoted(what)}",
    )  # fmt: skip
