"""The command line. Exit codes: 0 done · 2 bad arguments or configuration · 3 fault, outputs safe, run resumable ·
4 outputs not known to be safe · 130 interrupted.
"""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from hil.errors import ConfigError, HilError, Interrupted, Refused, RunError, Stopped, UnsafeOutputs
from hil.files import slug
from hil.hints import quoted

app = cyclopts.App(
    name="hil",
    help="Train physical neural networks with the hardware in the loop.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `run` says what became of the outputs
)
NEXT = (
    ("hil compare experiments/compare_digits.toml", "which learner suits this node?"),
    ("hil serve benches/mzm_awg_scope.toml", "open the same bench from your own scripts"),
)
out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    # torch is imported by the commands: its idle threads then give up their core after a short spin. On two cores with five
    # busy processes a short spin was measured four times faster than torch's endless one; with two it went either way, and
    # on an idle machine it cost nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    code = run(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and closed: one more Ctrl-C must not change the exit code
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; every expected error is printed, none is a traceback."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        errors.print(f"hil: {error}\nNothing was opened; no output was touched. See: hil --help", markup=False)
        return 2
    except HilError as error:
        errors.print("\n\n".join(str(e) for e in story(error)), markup=False)
        return exit_code(error)
    except KeyboardInterrupt:
        errors.print(
            "stopped at once; whatever was opened is closed, its outputs safe.\n"
            "Next: hil list runs shows what can be resumed: everything up to its last committed step."
        )
        return 130
    return 0


def exit_code(error: HilError) -> int:
    """What the shell gets for `error`."""
    if isinstance(error, UnsafeOutputs):
        return 4
    if isinstance(error, Interrupted):
        return 130
    return 2 if isinstance(error, Refused) else 3


def story(error: HilError) -> list[HilError]:
    """`error`, then what ended the run if that is another one, then the last fault and the one at the root of it; each once."""
    found: list[HilError] = []
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, HilError):
            found.append(at)
        at = at.__cause__ or at.__context__
    stops = [e for e in found[1:-1] if isinstance(e, Stopped | Interrupted)]
    last = [after for stop, after in pairwise(found) if isinstance(stop, Stopped) and after is not found[-1]]
    return [error, *stops[:1], *last[:1], *(found[-1:] if found[-1] is not error else [])]


@app.command
def train(
    experiment: Path,
    /,
    *,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
    run: Annotated[Path | None, Parameter(name="--run")] = None,
    record: Annotated[bool, Parameter(name="--record", negative=())] = False,
    wire: Annotated[bool, Parameter(name="--wire", negative=())] = False,
) -> None:
    """Train what EXPERIMENT.toml describes.

    Parameters
    ----------
    experiment
        The experiment file.
    set
        section.key=value, over what the file says; may be given several times.
    run
        The run folder, new or empty; by default a new one under runs/.
    record
        Keep every shot of every device on a tape in the run folder, for hil replay; the same as --set train.record=true.
    wire
        Keep what is said to every instrument in wire/ in the run folder; the same as --set train.wire=true.
    """
    from hil.config import dump, read_experiment
    from hil.files import write_atomic
    from hil.run.folder import RunFolder

    chosen = read_experiment(experiment, (*set, *["train.record=true"] * record, *["train.wire=true"] * wire))
    kept = {}
    if chosen.device.bench is not None:
        from hil.certified import bench_files

        kept = bench_files(chosen.device.bench, experiment)
    folder = RunFolder.create(run or _fresh(chosen.name or experiment.stem))
    with folder.owned():
        try:
            for name, payload in kept.items():
                write_atomic(folder.path / name, payload)
            folder.write_config(dump(chosen))
            _execute(folder, experiment, None)
        except (HilError, KeyboardInterrupt) as error:
            noted = (folder.path / "journal.jsonl").exists() and not isinstance(error, Refused)
            if not noted and not any(folder.checkpoints.glob("*")):
                shutil.rmtree(folder.path, ignore_errors=True)  # nothing ran: leave no empty folder behind
            raise


@app.command
def search(
    search: Path,
    /,
    *,
    run: Annotated[Path | None, Parameter(name="--run")] = None,
    cluster: Annotated[str | None, Parameter(name="--cluster")] = None,
) -> None:
    """Search the feedback that a node learns best with, as SEARCH.toml describes.

    Parameters
    ----------
    search
        The search file, see hil/search_file.py.
    run
        The run folder, new or empty; by default a new one under runs/.
    cluster
        local:N, slurm:N, or the address of a Dask scheduler; by default processes of this machine.
    """
    from hil.run.folder import RunFolder
    from hil.search_file import read_search
    from hil.searching import start

    name = read_search(search).name or search.stem
    folder = RunFolder.create(run or _fresh(name))
    with folder.owned():
        try:
            summary = start(search, folder, out, cluster)
        except Refused:
            if not (folder.path / "evaluations.jsonl").exists():
                shutil.rmtree(folder.path, ignore_errors=True)  # nothing ran: leave no empty folder behind
            raise
        _searched(folder, summary)


def _searched(folder: Any, summary: Mapping[str, Any]) -> None:
    """Report a finished search."""
    from hil.search.report import render

    page = render(folder.path)
    found = folder.path / summary["feedback"]
    out.print(
        f"done in {summary['wall_s']:.0f} s, {summary['evaluations']:,} trainings, {summary['diverged']} of them diverged."
    )
    out.print(f"found   {found}\nrun     {folder.path}\nreport  {page}", soft_wrap=True)
    out.print(f'next    [learner] feedback = "{found}"   in any experiment', soft_wrap=True, markup=False)


@app.command
def resume(
    run: Path,
    /,
    *,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    changed: Annotated[bool, Parameter(name="--changed", negative=())] = False,
    cluster: Annotated[str | None, Parameter(name="--cluster")] = None,
) -> None:
    """Go on with an interrupted, faulted or killed run, from its newest checkpoint, or with a search, from its history; finish
    what a finished one lacks.

    Parameters
    ----------
    run
        The run folder.
    from_
        Another checkpoint of that run, its checkpoints/step-….json; those after it are dropped and made again.
    changed
        The changes made in the run's config.toml or bench.toml since are meant.
    cluster
        For a search: as of hil search.
    """
    from hil import launch
    from hil.run import condition
    from hil.run.folder import RunFolder

    if (run / "search.toml").is_file():
        from hil.searching import carry_on

        found = RunFolder.open(run)
        if found.read_json("summary.json").get("status") == "done":
            raise RunError(
                "this search is finished", where=str(run), outputs="untouched; nothing was opened",
                todo=f"look at it: hil report {quoted(run)}",
            )  # fmt: skip
        with found.owned():
            _searched(found, carry_on(found, out, cluster))
        return
    condition.inspect(run, verify=False)  # it is a run folder
    folder = RunFolder(run)
    with folder.owned():
        plan = condition.plan(condition.inspect(run), from_, changed)
        for line in plan.said:
            out.print(f"resume  {line}", markup=False, soft_wrap=True)
        if plan.finish == ("report.html",):
            out.print(f"report  {launch.report(folder)}", soft_wrap=True)
        else:
            _execute(folder, folder.config, plan.start)


def _execute(folder: Any, origin: Path, start: Path | None) -> None:
    """Train what the folder's config.toml says, from `start` if given, and report."""
    from hil import launch

    with folder.owned():
        summary = launch.launch(folder, origin, start, out)
        page = launch.report(folder)
    out.print(
        f"done in {summary['wall_s']:.0f} s. test {summary['test_accuracy']:.1%} "
        f"({summary['provenance']}, seed {summary['seed']}, weights of epoch {summary['best_epoch']} by validation). "
        f"{summary['device_passes']:,} node evaluations."
    )
    out.print(f"run     {folder.path}\nreport  {page}", soft_wrap=True)
    for command, why in NEXT:
        if Path(command.split()[-1]).exists():  # a suggestion that cannot be followed from here is none
            out.print(f"next    {command:<46} {why}", soft_wrap=True)


@app.command
def use(
    run: Path,
    /,
    *,
    rounds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
    split: Literal["validation", "test"] = "validation",
    sentinel: bool = True,
) -> None:
    """Put a finished run's network to use: its best weights, frozen, through its device, round after round; the sentinel of its
    [sentinel] table looks in between. Nothing in the run folder changes.

    Parameters
    ----------
    run
        The run folder.
    rounds
        How often all examples go through the device.
    split
        Which examples.
    sentinel
        --no-sentinel: let the node drift.
    """
    from hil.using import in_use

    for found in in_use(run, rounds, sentinel, split, out):
        out.print(f" round {found.number:>3}   {split} {found.accuracy:.1%}", markup=False)


@app.command
def replay(
    run: Path,
    /,
    *,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
    run_: Annotated[Path | None, Parameter(name="--run")] = None,
) -> None:
    """Repeat a recorded run from its tape, without any bench, and say whether every number is the same.

    Parameters
    ----------
    run
        The folder of a run that was trained with --record.
    set
        section.key=value: train another learner on the recorded answers instead, where its inputs were recorded.
    run_
        A folder to keep the repetition in; by default it is gone afterwards.
    """
    from hil.replaying import repeat

    out.print(repeat(run, set, run_, out), soft_wrap=True, markup=False)


@app.command
def report(*runs: Path) -> None:
    """Write report.html into each run folder, from what is in it; or the page of a calibration beside its file."""
    from hil.report import render
    from hil.report.certificate import render as render_certificate
    from hil.run.folder import RunFolder
    from hil.search.report import render as render_search

    if not runs:
        raise ConfigError(
            "which run?",
            where="hil report",
            got="no folder",
            allowed="run folders, or calibrations/….toml",
            todo="hil report RUN; hil list runs shows them",
        )
    for path in runs:
        if path.suffix == ".toml":
            out.print(f"report  {render_certificate(path)}", soft_wrap=True)
            continue
        searched = (RunFolder.open(path).path / "search.toml").is_file()
        out.print(f"report  {(render_search if searched else render)(path)}", soft_wrap=True)


@app.command
def status(run: Path | None = None, /, *, log: Annotated[bool, Parameter(name="--log", negative=())] = False) -> None:
    """What a run is doing, or how it ended and how to go on; read from its files alone.

    Parameters
    ----------
    run
        The run folder; by default the newest one under runs/.
    log
        Everything that happened, a line each: time, kind, message.
    """
    from hil.guardian.record import outputs_of
    from hil.run import status as standing

    path = run or standing.newest(Path("runs"))
    found = None if log else standing.read(path)
    for line in standing.log(path) if found is None else standing.lines(found):
        out.print(line, markup=False, soft_wrap=True)
    if found is not None and not (found.owner and found.owner.alive) and (outputs := outputs_of(path)):
        todo = "; hil resume makes them safe first, or switch them off at the instrument" if outputs == "unknown" else ""
        out.print(f"outputs {outputs}{todo}", soft_wrap=True)


@app.command
def compare(comparison: Path, /, *, out_: Annotated[Path | None, Parameter(name="--out")] = None) -> None:
    """Train several learners on several devices with several seeds, on equal terms, and say which is better, if any is.

    Finished runs are not repeated: give the same command again after an interruption.

    Parameters
    ----------
    comparison
        The comparison file, see hil/comparison.py.
    out_
        The folder of the results; compare/<name> by default.
    """
    from hil import comparison as comparing

    file = comparing.read(comparison)
    target = out_ or Path("compare") / (file.name or comparison.stem)
    standings = comparing.run(file, comparison, target, out)
    for table in comparing.tables(standings):
        out.print(table)
        out.print()
    for line in standings.findings():
        out.print(line, soft_wrap=True, markup=False)
    out.print(f"results {target / 'table.json'}\nreport  {target / 'compare.html'}", soft_wrap=True)


@app.command
def calibrate(
    bench: Path,
    /,
    *,
    out_: Annotated[Path | None, Parameter(name="--out")] = None,
    check: Annotated[bool, Parameter(name="--check", negative=())] = False,
    seed: int = 0,
) -> None:
    """Find out what the bench of BENCH.toml really is, and save it for hil train.

    Parameters
    ----------
    bench
        The bench file.
    out_
        The folder of calibrations; calibrations/ by default.
    check
        Measure nothing anew: say what changed since the bench was calibrated, and whether the calibration still holds.
    seed
        Of the order of drives.
    """
    from hil import calibrating

    folder = out_ or calibrating.FOLDER
    if check:
        calibrating.check(bench, folder, out)
    else:
        calibrating.calibrate(bench, folder, seed, out)


@app.command
def serve(bench: Path, /) -> None:
    """Serve the virtual bench of BENCH.toml until Ctrl-C; any VISA client can open the resources that it prints."""
    from hil.bench import serve_bench
    from hil.config import read_bench

    serve_bench(read_bench(bench), str(bench), out)


@app.command(name="list")
def list_(what: Literal["devices", "learners", "datasets", "resources", "runs"] | None = None, /) -> None:
    """What there is: devices, learners, data sets, VISA resources, runs."""
    from hil import listing

    kinds = [what] if what else ["devices", "learners", "datasets", "runs"]
    for kind in kinds:
        table = Table(title=kind, title_justify="left", box=None, header_style="dim")
        rows = listing.rows(kind)
        for column in rows[0]:
            table.add_column(column)
        for row in rows[1:]:
            table.add_row(*row)
        out.print(table)
        out.print()


@app.command
def describe(name: str, /) -> None:
    """What module:Class (or one of our short names) is, and its settings with units and defaults."""
    from hil.experiment import LEARNERS
    from hil.naming import resolve
    from hil.nodes import CHIPS, TWINS

    target = resolve(name, f"hil describe {name}", {**LEARNERS, **TWINS, **CHIPS})
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        raise ConfigError(
            "nothing to describe", where=f"hil describe {name}", got=type(target).__name__, allowed="a class, or a function",
            outputs="untouched; nothing was opened", todo="hil list shows what there is",
        )  # fmt: skip
    out.print(f"{target.__module__}:{target.__name__}\n", style="bold")
    module = inspect.getmodule(target)
    for text in (inspect.getdoc(module), inspect.getdoc(target)):
        out.print(f"{text or ''}\n", markup=False)
    settings = getattr(target, "Settings", target)
    made = (
        {f.name: f.default_factory() for f in fields(settings) if f.default_factory is not MISSING}
        if is_dataclass(settings)
        else {}
    )
    for name, parameter in _parameters(settings).items():
        default = made.get(name, parameter.default)
        shown = "required" if default is parameter.empty else f"default {default!r}"
        out.print(f"  {name:<24} {inspect.formatannotation(parameter.annotation).strip(chr(39)):<28} {shown}", markup=False)


def _parameters(settings: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(settings).parameters
    except ValueError:  # some classes written in C do not say what they take
        return {}


def _fresh(name: str) -> Path:
    """A run folder that does not exist yet, in runs/ whatever the name holds."""
    stem = Path("runs") / f"{slug(name, 'run')}-{datetime.now():%Y%m%d-%H%M%S}"
    tries = (stem if n == 0 else stem.with_name(f"{stem.name}-{n}") for n in range(1000))
    return next(path for path in tries if not path.exists())
