"""What ended a command: its text for people, and its exit code for the shell; the codes stand in hil/cli.py."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import cyclopts

from hil.commands.terminal import Terminal
from hil.errors import ForeignError, HilError, Interrupted, Refused, Stopped, UnsafeOutputs
from hil.foreign import own_lines, said

TRACEBACK = "--traceback"


def explain(error: BaseException, errors: Terminal, interrupted: bool = False) -> int:
    """Print what ended a command, and return its exit code.

    Args:
        error: what ended it.
        errors: where people are told.
        interrupted: Ctrl-C was pressed, whatever became of that.
    """
    if isinstance(error, cyclopts.CycloptsError):
        text, code = f"hil: {error}\nNothing was opened; no output was touched. See: hil --help", 2
    elif isinstance(error, HilError):
        text, code = "\n\n".join(str(e) for e in story(error)), exit_code(error)
    elif interrupted or isinstance(error, KeyboardInterrupt):
        text, code = (
            "stopped at once; whatever was opened is closed, its outputs safe.\n"
            "Next: hil list runs shows what can be resumed: everything up to its last committed step.",
            130,
        )
    else:
        text, code = str(unforeseen(error)), 3
    errors.print(text, markup=False, soft_wrap=True)
    return code


def unforeseen(error: BaseException) -> HilError:
    """Map an exception that nothing below has mapped: it is of the user's code, if its innermost lines are there."""
    lines = own_lines(error)
    whose = "code that is not hil's" if lines else "a fault of hil itself, which its authors want to hear of"
    return ForeignError(
        f"{type(error).__name__} where hil did not expect any: {whose}", where="hil", got=said(error), at=lines,
        outputs="whatever was opened is closed again; hil status RUN says what was read back",
        todo=f"the same command with {TRACEBACK} shows where it was raised; hil list runs shows what can be resumed",
    )  # fmt: skip


def brief_thread(args: Any) -> None:
    """threading.excepthook: an exception that ended a thread, in a line or two."""
    if args.exc_type is not SystemExit and sys.stderr is not None:
        error = args.exc_value if args.exc_value is not None else args.exc_type()
        name = args.thread.name if args.thread is not None else "?"
        at = "".join(f"\nAt: {line}" for line in own_lines(error))
        sys.stderr.write(f"the thread {name} ended with {type(error).__name__}: {said(error)}{at}\n")


def brief_unraisable(args: Any) -> None:
    """sys.unraisablehook: an exception that Python cannot raise, as of a __del__, in a line or two."""
    if sys.stderr is not None:
        at = "".join(f"\nAt: {line}" for line in own_lines(args.exc_value))
        sys.stderr.write(f"ignored: {type(args.exc_value).__name__}: {said(args.exc_value)}{at}\n")


def exit_code(error: HilError) -> int:
    """Return what the shell gets for `error`."""
    if isinstance(error, UnsafeOutputs):
        return 4
    if isinstance(error, Interrupted):
        return 130
    return 2 if isinstance(error, Refused) else 3


def story(error: HilError) -> list[HilError]:
    """`error`, then what ended the run if that is another one, then the last fault and the one at the root of it; each once."""
    found: list[HilError] = []
    at: BaseException | None = error
    seen: set[int] = set()  # a foreign exception may be its own cause
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, HilError):
            found.append(at)
        at = at.__cause__ or at.__context__
    stops = [e for e in found[1:-1] if isinstance(e, Stopped | Interrupted)]
    last = [after for stop, after in pairwise(found) if isinstance(stop, Stopped) and after is not found[-1]]
    return [error, *stops[:1], *last[:1], *(found[-1:] if found[-1] is not error else [])]
