"""The command line.

Exit codes: 0 done · 2 bad arguments or configuration · 3 fault, outputs safe, run resumable · 4 outputs not known to be
safe · 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TextIO, cast, get_args

import cyclopts
from cyclopts import Parameter, validators
from rich.table import Table

from hil import __version__
from hil.commands.explain import TRACEBACK, brief_thread, brief_unraisable, explain
from hil.commands.terminal import Level, Terminal
from hil.config import modules
from hil.errors import UNTOUCHED, ConfigError, HilError, Refused, RunError
from hil.files import new_path
from hil.hints import quoted
from hil.run.signals import Handling, Interrupts
from hil.system import HANGUP
from hil.telling import Teller

app = cyclopts.App(
    name="hil",
    help="Train physical neural networks with the hardware in the loop. With --traceback, anywhere on the line, or "
    "HIL_TRACEBACK=1 in the environment, an error shows its traceback. With --log-level quiet, or HIL_LOG=quiet, warnings and "
    "errors alone are shown; with debug every event of a run as well.",
    version=__version__,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `run` says what became of the outputs
)
app.register_install_completion_command(help="Let the shell complete commands and options of hil: bash, zsh, fish.")
LEVEL = "--log-level"
UNATTENDED = ("train", "resume", "search", "compare")  # commands that go on without their terminal
WIDE = 120  # columns of a terminal that has room for everything
PRINTING = ("status", "list", "describe", "report", "--help", "-h", "--version")  # commands that hold nothing while they wait


def console(stream: TextIO | None, level: Level = "normal") -> Terminal:
    """A console that shows its text on `stream`, and neither blocks nor raises: a display may go away, a run goes on."""
    teller = stream if isinstance(stream, Teller) else Teller(stream)
    known = teller.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Terminal(file=cast(IO[str], teller), width=None if known else 160, breaks=known, level=level)


out = console(sys.stdout)


Trust = Annotated[bool, Parameter(name="--trust", negative=())]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    # torch is imported by the commands: its idle threads then give up their core after a short spin. On two cores with five
    # busy processes a short spin was measured four times faster than torch's endless one; with two it went either way, and
    # on an idle machine it cost nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    _keep_low_descriptors()
    threading.excepthook, sys.unraisablehook = brief_thread, brief_unraisable
    sys.stdout, sys.stderr = cast(TextIO, Teller(sys.stdout)), cast(TextIO, Teller(sys.stderr))  # for all that prints
    code = run(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and closed: one more Ctrl-C must not change the exit code
    sys.exit(code)


def _keep_low_descriptors() -> None:
    """A program started with >&- has no descriptor 1: the next file opened would get it, and all that prints would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; every error is printed, none is a traceback unless that is asked for."""
    global out
    whole = TRACEBACK in arguments or os.environ.get("HIL_TRACEBACK", "") not in ("", "0")
    out, errors = console(sys.stdout), console(sys.stderr)
    modules.begin()
    with Interrupts() as interrupts:
        try:
            arguments, level = leveled([word for word in arguments if word != TRACEBACK])
            out = console(sys.stdout, level)
            shown = cast(Teller, out.file)
            shown.patient = (
                bool(set(arguments[:1]) & set(PRINTING)) or not arguments or bool(set(arguments) & set(PRINTING[-3:]))
            )
            with Handling((HANGUP,) if HANGUP and arguments[:1] in ([name] for name in UNATTENDED) else (), lambda *_: None):
                app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            shown.drain()
            code = 0
        except BaseException as error:  # noqa: BLE001 (whatever it is: it ends the command)
            interrupts.deaf, cast(Teller, out.file).patient = True, False
            cast(Teller, out.file).drain()  # before what is said about the error
            errors.copy = out.copy
            code = explain(error, errors, interrupts.heard)
            if whole or out.level == "debug":
                errors.print("".join(traceback.format_exception(error)), markup=False, soft_wrap=True)
        interrupts.deaf = True
        out.leave()
        cast(Teller, errors.file).drain()
    return code


def leveled(arguments: Sequence[str]) -> tuple[list[str], Level]:
    """Take --log-level out of the arguments; what it says, or else HIL_LOG.

    Raises:
        ConfigError: another word than a level.
    """
    rest, said, where = list(arguments), os.environ.get("HIL_LOG", "") or "normal", "HIL_LOG"
    for word in [word for word in rest if word == LEVEL or word.startswith(f"{LEVEL}=")]:
        place, where = rest.index(word), LEVEL
        said = word.partition("=")[2] or "".join(rest[place + 1 : place + 2])
        del rest[place : place + (1 if "=" in word else 2)]
    if said not in get_args(Level):
        raise ConfigError(
            "there is no such level", where=where, got=said or "nothing", allowed=", ".join(get_args(Level)),
            outputs=UNTOUCHED, todo=f"write {LEVEL} quiet, normal or debug",
        )  # fmt: skip
    level: Level = said  # type: ignore[assignment]
    return rest, level


@app.command
def train(
    experiment: Path,
    /,
    *,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
    run: Annotated[Path | None, Parameter(name="--run")] = None,
    record: Annotated[bool, Parameter(name="--record", negative=())] = False,
    wire: Annotated[bool, Parameter(name="--wire", negative=())] = False,
    tag: Annotated[tuple[str, ...], Parameter(name="--tag", negative=())] = (),
    note: Annotated[str, Parameter(name="--note")] = "",
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
    tag
        A tag of the run, for hil list runs; may be given several times. hil note changes it later.

    Note:
        A note on the run.
    """
    from hil.build.calibration import kept_files
    from hil.commands import train as training
    from hil.config.experiment import read_experiment
    from hil.config.read import dump
    from hil.files import write_atomic
    from hil.run import notes
    from hil.run.folder import RunFolder

    notes.checked(tag, note, "hil train --tag")
    chosen = read_experiment(experiment, (*set, *["train.record=true"] * record, *["train.wire=true"] * wire))
    kept = kept_files(chosen, [experiment])
    folder = RunFolder.create(run or new_path(Path("runs"), chosen.name or experiment.stem))
    with folder.owned():
        try:
            out.keep(folder.path, f"hil train {quoted(experiment)}")
            for name, payload in kept.items():
                write_atomic(folder.path / name, payload)
            folder.write_config(dump(chosen))
            if tag or note:
                notes.changed(folder.path, note or None, tag)
            _execute(folder, lambda: training.launch(folder, chosen, out))
        except (HilError, KeyboardInterrupt) as error:
            noted = (folder.path / "journal.jsonl").exists() and not isinstance(error, Refused)
            if not noted and not any(folder.checkpoints.glob("*")):
                out.leave()
                folder.discard()  # nothing ran: leave no empty folder behind
            raise


@app.command
def search(
    search: Path,
    /,
    *,
    run: Annotated[Path | None, Parameter(name="--run")] = None,
    cluster: Annotated[str | None, Parameter(name="--cluster")] = None,
) -> None:
    """Search the feedback that a node learns best with, or its operating point, as SEARCH.toml describes.

    Parameters
    ----------
    search
        The search file, see hil/config/search.py.
    run
        The run folder, new or empty; by default a new one under runs/.
    cluster
        local:N, slurm:N, or the address of a Dask scheduler; by default processes of this machine.
    """
    from hil.commands.search import begin
    from hil.config.search import read_search
    from hil.run.folder import RunFolder

    file = read_search(search)
    folder = RunFolder.create(run or new_path(Path("runs"), file.name or search.stem))
    with folder.owned():
        try:
            out.keep(folder.path, f"hil search {quoted(search)}")
            summary = begin(file, folder, out, cluster)
        except Refused:
            if not (folder.path / "evaluations.jsonl").exists():
                out.leave()
                folder.discard()  # nothing ran: leave no empty folder behind
            raise
        _searched(folder, summary)


def _searched(folder: Any, summary: Mapping[str, Any]) -> None:
    """Report a finished search."""
    from hil.report.search import render

    page = render(folder.path)
    feedback = "feedback" in summary
    found = folder.path / (summary["feedback"] if feedback else summary["found"])
    out.print(
        f"done in {summary['wall_s']:.0f} s, {summary['evaluations']:,} trainings, {summary['diverged']} of them diverged."
    )
    out.print(f"found   {found}\nrun     {folder.path}\nreport  {page}", soft_wrap=True)
    told = f'[learner] feedback = "{found}"   in any experiment' if feedback else f"hil train {quoted(found)}"
    out.print(f"next    {told}", soft_wrap=True, markup=False)


@app.command
def resume(
    run: Path,
    /,
    *,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    changed: Annotated[bool, Parameter(name="--changed", negative=())] = False,
    cluster: Annotated[str | None, Parameter(name="--cluster")] = None,
    trust: Trust = False,
) -> None:
    """Go on with an interrupted, faulted or killed run, or with a search; finish or lengthen a run that ended.

    A run goes on from its newest checkpoint, a search from its history. Of a finished run, what is missing is made.

    Parameters
    ----------
    run
        The run folder.
    set
        section.key=value, from here on: train.epochs=20 trains longer, a finished run too; others that change no number.
    from_
        Another checkpoint of that run, its checkpoints/step-….json; those after it are dropped and made again.
    changed
        The changes made in the run's config.toml or bench.toml since are meant.
    cluster
        For a search: as of hil search.
    trust
        The folder may be executed although it is another user's, or others may write to it.
    """
    from hil.commands import train as training
    from hil.commands.anew import set_anew
    from hil.commands.trust import check as trusted
    from hil.run import resume as going_on
    from hil.run.folder import RunFolder

    trusted(run, trust)
    if (run / "search.toml").is_file():
        from hil.commands.search import carry_on

        if set:
            raise ConfigError(
                "a search goes on as it was begun", where="hil resume --set", got=" ".join(set), allowed="no --set",
                outputs="untouched; nothing was opened", todo="start a new search, with another SEARCH.toml",
            )  # fmt: skip
        found = RunFolder.open(run)
        summary = found.read_json("summary.json")
        if summary.get("status") == "done" and not summary.get("ended_early"):  # by its budget, which may be raised
            raise RunError(
                "this search is finished", where=str(run), outputs="untouched; nothing was opened",
                todo=f"look at it: hil report {quoted(run)}",
            )  # fmt: skip
        with found.owned():
            out.keep(run, f"hil resume {quoted(run)}")
            _searched(found, carry_on(found, out, cluster))
        return
    found_run = going_on.inspect(run, verify=False)  # it is a run folder
    if status_word(run) == "paused":
        _resume_paused(run, bool(set or from_ or changed))
        return
    folder = RunFolder(found_run.path)
    with folder.owned():
        out.keep(run, f"hil resume {quoted(run)}")
        anew = set_anew(folder, set, changed, from_) if set else []
        plan = going_on.plan(going_on.inspect(run), from_, changed)
        for line in [*anew, *plan.said]:
            out.print(f"resume  {line}", markup=False, soft_wrap=True)
        if plan.finish == ("report.html",):
            out.print(f"report  {training.report(folder)}", soft_wrap=True)
        else:
            _execute(folder, lambda: training.resume(folder, plan.start, out))


def status_word(run: Path) -> str:
    """The state of a run in a word, see hil/run/status.py."""
    from hil.run import status as standing

    return standing.brief(run)


def _resume_paused(run: Path, otherwise: bool) -> None:
    """Ask the process that waits to go on."""
    from hil.run.control import ask

    if otherwise:
        raise ConfigError(
            "a paused run goes on as it was", where="hil resume", got="--set, --from or --changed", allowed="none of them",
            outputs=UNTOUCHED, todo=f"stop it first: hil stop {quoted(run)}",
        )  # fmt: skip
    ask(run, "resume", "hil resume")
    out.print(f"resume  the process that was paused goes on; watch it: hil status --watch {quoted(run)}", soft_wrap=True)


def _execute(folder: Any, trained: Callable[[], Mapping[str, Any]]) -> None:
    """Train, and report."""
    from hil.commands import train as training

    with folder.owned():
        summary = trained()
        page = training.report(folder)
    for line in training.lines(folder, summary, page):
        out.print(line, soft_wrap=True, markup=False)


@app.command
def use(
    run: Path,
    /,
    *,
    rounds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
    split: Literal["validation", "test"] = "validation",
    sentinel: bool = True,
    trust: Trust = False,
) -> None:
    """Put a finished run's network to use: its best weights, frozen, through its device, round after round.

    The sentinel of its [sentinel] table looks in between. Nothing in the run folder changes.

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
    trust
        As of hil resume.
    """
    from hil.commands.trust import check as trusted
    from hil.commands.use import in_use

    trusted(run, trust)
    for found in in_use(run, rounds, sentinel, split, out):
        out.print(f" round {found.number:>3}   {split} {found.shown}", markup=False)


@app.command
def replay(
    run: Path,
    /,
    *,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
    run_: Annotated[Path | None, Parameter(name="--run")] = None,
    trust: Trust = False,
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
    trust
        As of hil resume.
    """
    from hil.commands.replay import repeat
    from hil.commands.trust import check as trusted

    trusted(run, trust)
    out.print(repeat(run, set, run_, out), soft_wrap=True, markup=False)


@app.command
def report(*runs: Path) -> None:
    """Write report.html into each run folder, from what is in it; or the page of a calibration beside its file.

    Every figure of the page is written besides, as SVG, PDF and CSV: into figures/ of the run folder, or NAME.figures/ of a
    calibration.
    """
    from hil.report import render
    from hil.report.certificate import render as render_certificate
    from hil.report.search import render as render_search
    from hil.run.folder import RunFolder

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
def export(
    *runs: Path,
    to: Literal["csv", "parquet", "xarray", "safetensors", "nir"] = "csv",
    out_: Annotated[Path | None, Parameter(name="--out")] = None,
    trust: Trust = False,
) -> None:
    """Write the metrics of runs as one table for other programs, or the weights of a run; the run folders stay as they are.

    Parameters
    ----------
    runs
        The run folders.
    to
        csv, parquet, xarray (netCDF): a row an epoch and split. safetensors: the best weights. nir: a spiking network.
    out_
        The file, a new one; by default named after the run, in the working directory.
    trust
        As of hil resume; for nir, which builds the network that the folder names.
    """
    from hil.commands.export import export as exported
    from hil.commands.trust import check as trusted

    if to == "nir":
        for run in runs:
            trusted(run, trust)
    out.print(f"wrote   {exported(runs, to, out_)}", soft_wrap=True)


@app.command
def status(
    run: Path | None = None, /, *,
    log: Annotated[bool, Parameter(name="--log", negative=())] = False,
    watch: Annotated[bool, Parameter(name="--watch", negative=())] = False,
) -> None:  # fmt: skip
    """Show what a run is doing, or how it ended and how to go on; read from its files alone.

    Parameters
    ----------
    run
        The run folder; by default the newest one under runs/.
    log
        Everything that happened, a line each: time, kind, message.
    watch
        Show it again and again, with what the run prints, until it ends. Ctrl-C ends the watching alone.
    """
    from hil.commands import watch as watching
    from hil.run import status as standing

    path = run or standing.newest(Path("runs"))
    if watch:
        watching.watch(path, out)
        return
    for line in standing.log(path) if log else watching.lines(path):
        out.print(line, markup=False, soft_wrap=True)


@app.command
def pause(run: Path, /) -> None:
    """Pause a run after its step: it is committed, its outputs are safe and its bench is closed; hil resume RUN goes on.

    Parameters
    ----------
    run
        The run folder; another process trains it.
    """
    from hil.commands import asking

    asking.asked(run, "pause", out)


@app.command
def stop(run: Path, /) -> None:
    """Stop a run after its step, as the first Ctrl-C does: committed, outputs safe, resumable.

    Parameters
    ----------
    run
        The run folder; another process trains it.
    """
    from hil.commands import asking

    asking.asked(run, "stop", out)


@app.command
def off(run: Path, /) -> None:
    """Switch the outputs of a run off now; a process that does not obey is killed, and its guardian or host does it.

    Parameters
    ----------
    run
        The run folder; another process trains it.
    """
    from hil.commands import asking

    asking.asked(run, "off", out)


@app.command
def note(
    run: Path,
    text: str | None = None,
    /,
    *,
    tag: Annotated[tuple[str, ...], Parameter(name="--tag", negative=())] = (),
    untag: Annotated[tuple[str, ...], Parameter(name="--untag", negative=())] = (),
) -> None:
    """Write a note on a run, or tags; show them. They change nothing else of it.

    Parameters
    ----------
    run
        The folder of a run, a search or a comparison.
    text
        The note, in place of the one before; "" removes it.
    tag
        A tag to add; may be given several times.
    untag
        A tag to remove.
    """
    from hil.run import notes

    kept = notes.changed(run, text, tag, untag) if text is not None or tag or untag else notes.read(run)
    out.print(f"tags    {', '.join(kept.tags) or 'none'}", soft_wrap=True)
    out.print(f"note    {kept.note or 'none'}", soft_wrap=True)


@app.command
def monitor(
    *runs: Path,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 0,
    read_only: Annotated[bool, Parameter(name="--read-only", negative=())] = False,
) -> None:
    """Serve a live web page about runs, searches, comparisons and calibrations, on this computer alone, until Ctrl-C.

    Parameters
    ----------
    runs
        Folders of runs; by default runs/, compare/ and calibrations/.
    port
        To listen at; by default a free one.
    read_only
        The page may look, and change nothing: no buttons, no tags, no notes.
    """
    from hil.commands.monitor import monitor as watch

    watch(runs, port, read_only, out)


@app.command
def compare(comparison: Path, /, *, out_: Annotated[Path | None, Parameter(name="--out")] = None, trust: Trust = False) -> None:
    """Train several learners on several devices with several seeds, on equal terms, and say which is better, if any is.

    Finished runs are not repeated: give the same command again after an interruption.

    Parameters
    ----------
    comparison
        The comparison file, see hil/commands/compare.py.
    out_
        The folder of the results; compare/<name> by default.
    trust
        As of hil resume, for runs that were begun in that folder.
    """
    from hil.commands import compare as comparing
    from hil.report.ablation import ablation

    file = comparing.read(comparison)
    target = out_ or Path("compare") / (file.name or comparison.stem)
    standings = comparing.run(file, comparison, target, out, trust)
    for table in comparing.tables(standings, out.width):
        out.print(table)
        out.print()
    for line in (*standings.findings(), *(worth.told for worth in ablation(standings))):
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
    from hil.commands import calibrate as calibration

    folder = out_ or calibration.FOLDER
    if check:
        calibration.check(bench, folder, out)
    else:
        calibration.calibrate(bench, folder, seed, out)


@app.command
def doctor(
    what: str,
    /,
    *,
    json: Annotated[Path | None, Parameter(name="--json")] = None,
    against: Annotated[Path | None, Parameter(name="--against")] = None,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
) -> None:
    """Check a loop: who answers, how fast, how clean and how linear it is, and what changed since an older passport.

    Of an experiment: train a few steps, keep nothing of them, and say how long an epoch will take, and what takes the time.

    Parameters
    ----------
    what
        A bench file, an experiment file, module:Class of a device or a twin, or a passport that was written before.
    json
        Write the passport to this file, a new one.
    against
        An older passport: say which figures changed by more than their spread.
    set
        key=value, settings of the class: JSON values, or text with its unit; of an experiment section.key=value.
    """
    if what.endswith(".toml"):
        from hil.commands.forecast import forecast, of_experiment

        if of_experiment(what, json or against):
            forecast(Path(what), set, out)
            return
    from hil.commands.doctor import doctor as examined
    from hil.commands.host import settings_of

    examined(what, settings_of(set), json, against, out)


@app.command
def transcript(bench: Path, /, *, out_: Annotated[Path, Parameter(name="--out")]) -> None:
    """Talk once to each instrument of a bench and write down every word: a real box's transcript becomes a test.

    Outputs go on for a moment, near the middle of their limits. The transcripts say which driver and settings they belong to.

    Parameters
    ----------
    bench
        A bench file of shape waveform or vector.
    out_
        A new folder for the transcripts.
    """
    from hil.commands.transcript import transcribe

    transcribe(bench, out_, out)


@app.command
def memory(
    experiment: Path,
    /,
    *,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
    steps: Annotated[int, Parameter(validator=validators.Number(gte=10))] = 5000,
    washout: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    delays: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative=())] = (60, 20, 10),
    streams: int = 500,
    length: int = 50,
    alike: int = 10,
    seed: int = 0,
    json: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Say what a node with memory keeps of its inputs: information processing capacity, kernel and generalisation rank.

    Parameters
    ----------
    experiment
        An experiment with such a node. Its mask, encoding and policy between sequences are used; nothing is trained.
    set
        section.key=value, changes of the experiment.
    steps
        Steps of the input for the capacities.
    washout
        Steps before them; 0: as many as the largest delay.
    delays
        The largest delay of functions of degree 1, 2, 3, ...
    streams
        Inputs for the ranks.
    length
        Steps of each.
    alike
        Last steps that are the same in all of them, for the generalisation rank.
    seed
        Of all inputs.
    json
        Write what was found to this file, a new one.
    """
    from hil.commands.memory import Asked
    from hil.commands.memory import memory as measured

    measured(experiment, set, Asked(steps, washout, delays, streams, length, alike, seed=seed), json, out)


@app.command
def serve(bench: Path, /) -> None:
    """Serve the virtual bench of BENCH.toml until Ctrl-C; any VISA client can open the resources that it prints."""
    from hil.build.bench import serve_bench
    from hil.config.bench import read_bench

    serve_bench(read_bench(bench), out)


@app.command
def host(
    what: str | None = None,
    /,
    *,
    set: Annotated[tuple[str, ...], Parameter(name="--set", consume_multiple=True, negative=())] = (),
    listen: str = "127.0.0.1:0",
    keys: Path | None = None,
    silence_s: float = 60.0,
    deadline_s: float = 30.0,
    patience_s: float = 10.0,
) -> None:
    """Own a device that no second program can open, serve it to a trainer, and make it safe whenever that ends or hangs.

    Parameters
    ----------
    what
        A bench file, or module:Class of a device. Left out: make keys.
    set
        key=value, settings of the class: JSON values in SI units, or text.
    listen
        Address and port. Any other address than this computer's own needs keys.
    keys
        The folder of keys, for a trainer on another computer. Without WHAT they are made there.
    silence_s
        Without a sign of life of the trainer for so long, the outputs are made safe.
    deadline_s
        The longest time that the device may take for a batch.
    patience_s
        The longest time that it may take to be made safe.
    """
    from hil.commands import host as hosting
    from hil.host.charge import Limits

    if what is None and keys is not None:
        hosting.keys_made(keys, out)
        return
    if what is None:
        raise ConfigError(
            "nothing to host", where="hil host", allowed="BENCH.toml, module:Class, or --keys FOLDER to make keys"
        )
    limits = Limits(silence_s, deadline_s, patience_s)
    hosting.host(what, hosting.settings_of(set), listen, keys, limits, out)


@app.command
def new(kind: Literal["device", "bench", "twin", "learner", "data"], name: str, /) -> None:
    """Write a skeleton that works, with its test and an experiment, into the current folder; nothing is overwritten.

    Parameters
    ----------
    kind
        device: a class that drives and reads your rig. bench: a driver, its simulated instrument, a shape, and the bench
        file. twin: the physics of a node. learner: a rule. data: examples, read one by one.
    name
        Of the module; the class is called after it: my_rig has MyRig.
    """
    from hil.commands.new import new as write

    write(kind, name, out)


@app.command(name="list")
def list_(
    what: Literal["devices", "learners", "datasets", "resources", "runs"] | None = None,
    folder: Path | None = None,
    /,
    *,
    tag: Annotated[tuple[str, ...], Parameter(name="--tag", negative=())] = (),
    sort: Literal["begun", "name", "state", "learner", "device", "value"] = "begun",
    json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """List what there is: devices, learners, data sets, VISA resources, runs.

    Parameters
    ----------
    what
        Left out: all but resources.
    folder
        For runs: where they are, with all folders below; by default runs/ and compare/.
    tag
        For runs: those with this tag alone, with all of them if several are given.
    sort
        For runs: the newest, or the best value, first.
    json
        For runs: print a JSON list.
    """
    from hil.commands import list as listing

    if what == "runs":
        found = listing.runs(folder, tag, sort)
        if json:
            out.file.write(listing.as_json(found))
        else:
            out.print(listing.table(found, out.width))
            for line in listing.damages(found):
                out.print(line, markup=False, soft_wrap=True)
        return
    if folder or tag or json or sort != "begun":
        raise ConfigError(
            "this is for runs", where="hil list", got=f"hil list {what or ''}".strip(), outputs=UNTOUCHED,
            allowed="hil list runs [FOLDER] [--tag T] [--sort S] [--json]", todo="write runs before it",
        )  # fmt: skip
    for kind in [what] if what else ["devices", "learners", "datasets", "runs"]:
        notes: list[str] = []
        if kind == "runs":
            table = listing.table(listing.runs(), out.width)
            table.title = kind
        else:
            rows, notes = listing.rows(kind)
            table = Table(box=None, header_style="dim", title=kind)
            left_out = {"class"} if out.width < WIDE else set()  # hil describe NAME says it
            shown = [k for k, column in enumerate(rows[0]) if column not in left_out]
            for k in shown:
                table.add_column(rows[0][k], no_wrap=rows[0][k] != "what")
            for row in rows[1:]:
                table.add_row(*(row[k] for k in shown))
        table.title_justify = "left"
        out.print(table)
        for note in notes:
            out.print(note, markup=False, soft_wrap=True)
        out.print()


@app.command
def describe(name: str, /) -> None:
    """Describe a table of a file ("train"), a data set, or module:Class (or one of our short names), with all its settings."""
    from hil.commands import describe as describing

    for line in describing.lines(name, out.width):
        out.print(line, markup=False, soft_wrap=True)


@app.command
def schema(
    kind: Literal["experiment", "bench", "search", "compare"] | None = None, /, *,
    out_: Annotated[Path, Parameter(name="--out")] = Path("schemas"),
) -> None:  # fmt: skip
    """Write JSON schemas of the files, so that an editor completes and underlines them.

    Parameters
    ----------
    kind
        Of file; by default all.
    out_
        The folder; files of these names in it are replaced.
    """
    from hil.commands import schema as schemas

    for path in schemas.write(kind, out_):
        out.print(f"{path}", soft_wrap=True)
    out.print(f"next    first line of a file:   #:schema {out_ / schemas.name(kind or 'experiment')}", soft_wrap=True)
