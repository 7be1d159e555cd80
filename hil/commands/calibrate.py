"""hil calibrate: open the bench as a training does, do the steps of its shape, save what was found, say what comes next.

    calibrate   good              <bench>-<time>.toml, .safetensors, .html; exit code 0
                not good          the same under …-failed, refused by everything that uses calibrations. NotCalibrated, exit
                                  code 3: the fault is the bench's, its outputs are safe, and a script that would train stops
                a fault, Ctrl-C   nothing is saved; Stopped or Interrupted
    check       holds             exit code 0
                in files          damaged, failed, other settings: ConfigError, exit code 2
                bench or clock    other instruments, stale, a twin that no longer fits: NotCalibrated, exit code 3

A fault of a measurement (MeasurementError) is a finding of its step; whatever else an instrument or a wire does ends it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from calibration.certificate import FAILED, Certificate, Instrument, TwinChoice
from calibration.fault import problem_of
from calibration.sequence import Found, Procedure, Subject, calibrated
from calibration.step import Estimate, Step
from calibration.twin_check import TwinCheck, compare_twin
from calibration.validity import Difference, aged, instruments_differ, settings_differ
from calibration.waveform.twin_fit import network_of
from hil import __version__
from hil.build.bench import Opened, open_bench, provenance_of
from hil.build.calibration import age_of, settings_of
from hil.build.node import Node, resilient_node
from hil.config.bench import BenchFile, read_bench
from hil.config.read import find
from hil.config.resolve import UNTOUCHED, construct, resolve, twin_choice
from hil.device import Device, Provenance, answered
from hil.devices.recovery import EventListener
from hil.errors import (
    ConfigError,
    ForeignError,
    GuardianLost,
    HilError,
    InstrumentError,
    Interrupted,
    LinkError,
    MeasurementError,
    NotCalibrated,
    Stopped,
)
from hil.foreign import foreign
from hil.hints import counted, quoted
from hil.report.calibration.words import step_name
from hil.report.certificate import render, sentence_of
from hil.run.signals import Stopping
from hil.training.progress import telling
from hil.twin import Fittable

FOLDER = Path("calibrations")
OPENING, TWIN, CHECK = "open", "twin", "honesty"  # "honesty": as certificates call the step
CORRECTED = "sim_devices.corrected:Corrected"
WORSE = 2.0  # a certified twin may be off by so many times what it was when it was fitted


@dataclass
class Findings:
    """The results of a calibration so far.

    Args:
        twin: the fitted one.
        outputs_after: what is known of the outputs once the bench is closed.
    """

    steps: list[Step] = field(default_factory=list)
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    provenance: Provenance = "unknown"
    twin: TwinChoice | None = None
    outputs_after: str = "safe; whatever was opened is closed again"


def calibrate(path: Path, out: Path, seed: int, console: Console) -> Path:
    """Calibrate the bench of the file `path`; returns the certificate's path.

    Raises:
        NotCalibrated: the calibration is not valid; what was found is saved, under a name that says so.
        Refused: nothing was driven. Stopped, Interrupted: nothing was saved. UnsafeOutputs.
    """
    bench = read_bench(path)
    procedures, settings, most_s = sequence(bench), settings_of(bench), bench.calibration.max_age_s
    nominal = _nominal(bench)
    taken_at, found = datetime.now().astimezone().isoformat(timespec="seconds"), Findings(provenance=provenance_of(bench))
    with (
        _ending(path, found),
        Stopping(attended=True) as stopping,
        closing(_steps(bench, procedures, seed, found, console)) as steps,
        stopping.working(),
    ):
        for step in steps:
            found.steps.append(step)
            for line in told(len(found.steps), step):
                console.print(line, markup=False, soft_wrap=True)
            if stopping.asked:
                raise Interrupted(f"stopped by {stopping.asked} after step {len(found.steps)}, {step.name}; nothing was saved")
    made = Certificate(
        bench.name, bench.shape, taken_at, found.provenance, seed, {"hil": __version__, "torch": torch.__version__},
        found.instruments, settings, tuple(found.steps), nominal, found.twin, most_s,
    )  # fmt: skip
    saved = made.save(out)
    for line in _verdict(made, saved, render(saved), path):
        console.print(line, markup=False, soft_wrap=True)
    if not made.good:
        raise _not_good(made, path, found.outputs_after)
    return saved


def sequence(bench: BenchFile) -> tuple[Procedure, ...]:
    """The procedures of the bench's shape, or those that its file names.

    Raises:
        ConfigError: there are none.
    """
    place, named = f"{bench.calibration.place} procedures", bench.sequence
    if not named:
        raise ConfigError(
            f"nothing is known about calibrating this {bench.shape} bench", where=bench.place, outputs=UNTOUCHED,
            todo='name your own steps: [calibration] procedures = "module:function"',
        )  # fmt: skip
    listed: Any = construct(resolve(named, place), {}, place)
    wrong = [each for each in listed if not isinstance(each, Procedure)] if isinstance(listed, tuple) else [listed]
    if wrong:
        raise ConfigError(
            "these are not procedures", where=place, got=type(wrong[0]).__name__,
            allowed="a function without arguments that returns a tuple of Procedure", outputs=UNTOUCHED,
            todo="see docs/how-to/calibrate.md",
        )  # fmt: skip
    found: tuple[Procedure, ...] = listed
    return found


def told(number: int, step: Step) -> Iterator[str]:
    """A step, as a colleague would say it."""
    skipped = any(problem.kind == "skipped" for problem in step.problems)
    bad = len(step.success) - sum(step.success)
    channels = f", {bad} of {len(step.success)} channels" if len(step.success) > 1 and bad else ""
    verdict = "ok" if step.good else "-" if skipped else f"FAILED{channels}"
    yield f"{number:>2} {step_name(step.name):<17} {step.said:<76} {verdict}"
    for problem in () if skipped else step.problems:
        yield f"   {'~' if step.good else '!'} {problem.kind}: {problem.what} ({problem.evidence})"
        yield f"     {problem.todo}"


def check(path: Path, folder: Path, console: Console) -> None:
    """Say what changed since the bench of the file `path` was calibrated, and whether the calibration still holds.

    Args:
        path: of the bench file.
        folder: where the newest calibration of this bench is looked for if the bench file names none.
        console: where people are told.

    Raises:
        ConfigError, NotCalibrated: it does not; see above. LinkError, InstrumentError: of the bench.
    """
    bench = read_bench(path)
    file = newest(bench, folder)
    certificate = Certificate.load_good(file)
    console.print(f"checking {file}, {age_of(certificate)} old", markup=False, soft_wrap=True)
    found = [*aged(certificate, datetime.now().astimezone(), bench.calibration.max_age_s)]
    found += settings_differ(certificate, settings_of(bench))
    with ExitStack() as stack:
        opened, device = _opened(bench, console, stack)
        found += instruments_differ(certificate, opened.instruments)
        worse = _worse(certificate, device, console) if device is not None and certificate.twin else ""
    for difference in found:
        console.print(f" {'!' if difference.refuses else '~'} {difference}", markup=False, soft_wrap=True)
    if not found:
        console.print("   the same instruments, firmware and settings", markup=False)
    _judged(file, found, worse, path, opened.guard.outputs_after)
    console.print("it holds", markup=False)


def newest(bench: BenchFile, folder: Path) -> Path:
    """The calibration that the bench file names, else the newest good one of this bench in `folder`.

    Raises:
        ConfigError: there is none.
    """
    if bench.calibration.use is not None:
        return find(bench.calibration.use, bench.file)
    listed = [p for p in sorted(folder.glob("*.toml")) if not p.stem.endswith(FAILED)]
    read = [(Certificate.load(p, sweeps=False), p) for p in listed]
    mine = [(made.taken, p) for made, p in read if made.bench == bench.name and made.good]
    if not mine:
        raise ConfigError(
            "there is no calibration of this bench", where=str(bench.file), got=f"none in {folder}", outputs=UNTOUCHED,
            todo=f"make one: hil calibrate {quoted(bench.file)}",
        )  # fmt: skip
    return max(mine)[1]


def _steps(
    bench: BenchFile, procedures: Sequence[Procedure], seed: int, found: Findings, console: Console
) -> Generator[Step, None, None]:
    """Do every step with the bench open; a bench that cannot be opened for what it measures is the only step."""
    with ExitStack() as stack:
        try:
            opened, device = _opened(bench, console, stack)
        except MeasurementError as error:
            yield _faulted(OPENING, error)
            return
        found.outputs_after = opened.guard.outputs_after
        for name, line in opened.resources.items():
            console.print(f"{name:<7} {line}", markup=False, soft_wrap=True)
        if device is None:
            raise ConfigError(
                "a chip of neurons has no steps that hil calibrate could do", where=bench.place, got=bench.shape,
                allowed="a bench with one node", outputs=found.outputs_after, todo="calibrate a bench with one node",
            )  # fmt: skip
        found.instruments = opened.instruments
        found.provenance = answered(opened.provenance, device.spec.provenance)
        nominal = None if opened.twin is None else opened.twin.choice.build()
        fittable = _fittable(nominal)
        if nominal is not None and fittable is None:
            console.print(f"twin    {type(nominal).__name__} does not say what is unknown of it, so it is not fitted")
        listed = [*procedures]
        if fittable is not None and CHECK not in {procedure.name for procedure in procedures}:
            use = opened.twin.use if opened.twin is not None else ""
            listed.append(Procedure(CHECK, partial(_twin_check, use), needs=(TWIN,)))
        patient = [_patient(each, found.outputs_after) for each in listed]
        for step in calibrated(patient, Subject(device, fittable, seed, bench.calibration.network)):
            if step.name == TWIN and step.good and fittable is not None and opened.twin is not None:
                found.twin = _model(opened.twin.use, fittable, step)
            yield step


def _fittable(twin: object) -> Fittable | None:
    return twin if isinstance(twin, Fittable) else None


def _opened(bench: BenchFile, console: Console, stack: ExitStack) -> tuple[Opened, Device | None]:
    """The bench, and its device climbing the recovery ladder by itself as in training."""
    opened = stack.enter_context(open_bench(bench))
    node = Node(opened.device, opened.chip, None, opened.facts, opened.resources, opened.patience, opened.guard.beat)
    return opened, resilient_node(node, _telling(console)).source


def _telling(console: Console) -> EventListener:
    def said(kind: str, **facts: object) -> None:
        for line in telling(kind, facts):
            console.print(line, markup=False, soft_wrap=True)

    return said


def _patient(procedure: Procedure, outputs: str) -> Procedure:
    """Return `procedure`, with a fault of a measurement as its finding."""

    def run(subject: Subject, found: Found) -> Step:
        try:
            with foreign(
                f"calibration, procedure {procedure.name}", outputs=outputs, todo="correct that code; then calibrate again"
            ):
                return procedure.run(subject, found)
        except MeasurementError as error:
            return _faulted(procedure.name, error)

    return replace(procedure, run=run)


def _faulted(name: str, error: MeasurementError) -> Step:
    return Step(name, f"ended by a fault: {error.what}", success=(False,), problems=(problem_of(error),))


def _settings(nominal: Fittable, step: Step) -> dict[str, Any]:
    known = nominal.settings()
    return dict(nominal.remade({name: e.value for name, e in step.estimates.items() if name in known}).settings())


def _model(use: str, nominal: Fittable, step: Step) -> TwinChoice:
    """The fitted twin, with the network that stands on top of it, if one does."""
    settings, network = _settings(nominal, step), network_of(step)
    return TwinChoice(use, settings) if network is None else TwinChoice(CORRECTED, {"of": use, "base": settings, **network})


def _twin_check(use: str, subject: Subject, found: Found) -> Step:
    """Check how well the fitted twin predicts the node, on probes that it was not fitted to."""
    assert subject.nominal is not None  # or this is not among the procedures
    model = _model(use, subject.nominal, found[TWIN])
    seen = compare_twin(subject.device, twin_choice(model.use, model.settings, "the fitted twin").build())
    unit = subject.device.spec.outputs.unit
    figures = {name: float(getattr(seen, name)) for name in ("bias", "spread", "correlation", "noise", "points", "swing")}
    return Step(CHECK, _said(seen, unit), residual_rms=seen.error, residual_unit=unit, figures=figures)


def _said(seen: TwinCheck, unit: str) -> str:
    off, noise = (str(Estimate(value, 0.0, unit)) for value in (_rounded(seen.error), _rounded(seen.noise)))
    share = f" ({100 * seen.error / seen.swing:.2g} % of peak to peak)" if seen.swing else ""
    return f"model against measured curve: rms error {off}{share}; noise of a reading {noise}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _worse(certificate: Certificate, device: Device, console: Console) -> str:
    """Say why the certified twin does not stand for the node any more, or ""."""
    assert certificate.twin is not None  # asked by who looked
    model = certificate.twin
    twin = twin_choice(model.use, model.settings, f"{certificate.name}: [twin]").build()
    seen, before = compare_twin(device, twin), certificate.step(CHECK)
    unit = device.spec.outputs.unit
    console.print(f"   {_said(seen, unit)}", markup=False, soft_wrap=True)
    then = 0.0 if before is None or before.residual_rms is None else before.residual_rms
    most = max(WORSE * then, seen.noise)
    if seen.error <= most:
        return ""
    off, allowed, once = (str(Estimate(_rounded(value), 0.0, unit)) for value in (seen.error, most, then))
    return f"model against measured curve: rms error {off}, {allowed} allowed, {once} when calibrated"


def _judged(file: Path, found: Sequence[Difference], worse: str, path: Path, outputs: str) -> None:
    """Raises: NotCalibrated, ConfigError: it does not hold."""
    again = f"calibrate again: hil calibrate {quoted(path)}"
    on_bench = [str(each) for each in found if each.kind in ("serial", "age")] + [worse] * bool(worse)
    in_files = [str(each) for each in found if each.kind == "setting"]
    if on_bench:
        raise NotCalibrated(
            "the calibration does not hold any more", where=str(file), got="; ".join([*on_bench, *in_files]), outputs=outputs,
            todo=again,
        )  # fmt: skip
    if in_files:
        raise ConfigError(
            "the calibration was made under other settings", where=str(file), got="; ".join(in_files), outputs=outputs,
            todo=f"undo the change in {path}, or {again}",
        )  # fmt: skip


def _nominal(bench: BenchFile) -> TwinChoice | None:
    """The data sheet's twin, with every setting that it says it has."""
    table = bench.twin
    if table is None:
        return None
    twin = _fittable(table.choice.build())
    if twin is None:
        return TwinChoice(table.use, table.settings(), tuple(table.settings()))
    spread = {name: unknown.spread for name, unknown in twin.unknowns().items()}
    return TwinChoice(table.use, dict(twin.settings()), tuple(table.choice.settings), spread)


def _verdict(made: Certificate, saved: Path, page: Path, path: Path) -> Iterator[str]:
    who = ", ".join(f"{name} {instrument.serial}" for name, instrument in made.instruments.items())
    yield f"done in {sum(step.took_s for step in made.steps):.0f} s ({made.provenance})"
    yield sentence_of(saved)
    yield f"saved   {saved}" + (f"   valid for {who}" if made.good else "   for you to look at; no training uses it")
    yield f"report  {page}"
    if made.good:
        then = "uses the fitted model" if made.twin else "checks that the bench is the one that was calibrated"
        yield f'next    write into {path}, under [calibration]:  use = "{saved}"'
        yield f"        a training on this bench then {then}"


def _not_good(made: Certificate, path: Path, outputs: str) -> NotCalibrated:
    bad = [step_name(step.name) for step in made.steps if not step.good]
    first = next((problem for step in made.steps for problem in step.problems if not step.good), None)
    return NotCalibrated(
        "the calibration is NOT VALID", where=str(path), got=f"failed or not done: {', '.join(bad)}",
        allowed="every step passed", outputs=outputs,
        todo=f"{first.todo if first else 'look at the report'}; then calibrate again: hil calibrate {quoted(path)}",
    )  # fmt: skip


@contextmanager
def _ending(path: Path, found: Findings) -> Iterator[None]:
    """Say what a fault ended, and what is safe, around everything that opens and closes instruments."""
    try:
        yield
    except Interrupted as error:
        error.where, error.outputs, error.todo = str(path), found.outputs_after, f"hil calibrate {quoted(path)}"
        raise
    except (LinkError, InstrumentError, MeasurementError, GuardianLost, ForeignError) as error:
        if not found.instruments:
            raise  # it was not opened; the error says all
        raise _stopped(path, found, error) from error


def _stopped(path: Path, found: Findings, error: HilError) -> Stopped:
    return Stopped(
        f"a fault ended the calibration after {counted(len(found.steps), 'step')}; nothing was saved", where=str(path),
        outputs=found.outputs_after, todo=f"remove the cause, then: hil calibrate {quoted(path)}",
    )  # fmt: skip
