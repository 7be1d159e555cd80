"""hil pause, hil stop, hil off: what a person asks of a run that another process trains, and what came of it."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from hil.hints import quoted
from hil.run import control, glance, status

WAIT_S = 60.0  # a step may be long; whoever asked looks again later


def asked(run: Path, what: control.What, out: Console, wait_s: float = WAIT_S) -> None:
    """Ask, and say what came of it.

    Args:
        run: its folder.
        what: "pause", "stop" or "off".
        out: where people are told.
        wait_s: how long it is waited for the end of the step.

    Raises:
        RunError: nobody is at work there, or somebody else; nothing was asked.
    """
    outputs = control.ask(run, what, f"hil {what}")
    if what == "off":
        out.print(f"off     {status.brief(run)}; its outputs: {outputs}", soft_wrap=True)
    else:
        end, goal = time.monotonic() + wait_s, ("paused",) if what == "pause" else ()
        while (state := status.brief(run)) == "at work" or (state == "paused" and state not in goal):
            if time.monotonic() > end:
                out.print(f"asked   it is at work still; look again: hil status {quoted(run)}", soft_wrap=True)
                return
            time.sleep(0.1)
        out.print(f"state   {state}; its outputs: {_outputs(run, state)}", soft_wrap=True)
    out.print(f"next    hil resume {quoted(run)}", soft_wrap=True)


def _outputs(run: Path, state: str) -> str:
    """What is known of the outputs once they were read back, which a moment is waited for."""
    end = time.monotonic() + control.OFF_S
    while (found := control.outputs_after(run, alive=state == "paused")) in ("on", glance.UNKNOWN) and time.monotonic() < end:
        time.sleep(0.05)
    return found
