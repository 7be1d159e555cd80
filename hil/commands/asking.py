"""hil pause, hil stop, hil off: what a person asks of a run that another process trains, and what came of it."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from hil.hints import quoted
from hil.run import control, glance

WAIT_S = 60.0  # a step may be long; whoever asked looks again later
LOOK_S = 0.1


def asked(run: Path, what: control.What, out: Console, wait_s: float = WAIT_S) -> None:
    """Ask, and say what came of it.

    Args:
        run: its folder.
        what: "pause", "stop" or "off".
        out: where people are told.
        wait_s: how long it is waited for the end of the step, and for the outputs.

    Raises:
        RunError: nobody is at work there, or somebody else; nothing was asked.
    """
    control.ask(run, what, f"hil {what}")
    end, going_on = time.monotonic() + wait_s, ("at work",) if what == "pause" else ("at work", "paused")
    while (found := control.standing(run))[0] in going_on or found[1] in ("on", glance.UNKNOWN):
        if time.monotonic() > end or (what == "off" and found[0] not in going_on):
            break
        time.sleep(LOOK_S)
    state, outputs = found
    if state in going_on:
        out.print(f"asked   the step is not at its end; look again: hil status {quoted(run)}", soft_wrap=True)
    else:
        out.print(f"state   {state}; its outputs: {outputs}", soft_wrap=True)
    out.print(f"next    hil resume {quoted(run)}", soft_wrap=True)
