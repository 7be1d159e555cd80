"""A program that switches an output on under a guardian, and then does what it is told. Imports no torch, so it starts fast.

    python guardian_child.py '{"resource": ..., "wire": "visa" | "frames" | "own", "run": ..., "then": ...}'
    stdout    "on GUARDIAN_PID", once the output is on; then, where it comes so far, how it ended

then: beats   gives signs of life for ever           idle    none, for ever
      close   waits for a line, leaves               forked  leaves a forked process behind that has all its files, beats
      dead    beats until it raises                  stuck   leaves, and its close() cannot verify
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from drivers.links.link import Trust
from drivers.links.serial_link import SerialLink
from drivers.links.visa_link import VisaLink
from drivers.safe import OFF, SafeState, Step
from drivers.scpi import Expect, Scpi
from drivers.scpi_talk import OVER_VISA
from drivers.spiking.session import FrameSession
from drivers.spiking.talk import board
from hil import frame_protocol as wire
from hil.errors import HilError, UnsafeOutputs
from hil.guardian.client import Guard, guarded


def generator(told: dict[str, Any], guard: Guard, stack: ExitStack) -> Callable[[], None]:
    """Output 1 of a generator on; gives how to switch it off."""
    scpi = Scpi(VisaLink(told["resource"], beat=guard.beat))
    who = scpi.identify()
    expect = Expect(who.maker, who.model, told.get("serial", who.serial))
    steps = (Step(":OUTP1 0", ":OUTP1?", OFF),)

    def close() -> None:
        if told["then"] == "stuck":
            raise UnsafeOutputs("it says nothing")
        assert not scpi.ask_bool(":OUTP1 0;:OUTP1?")

    stack.push(guard.leaving(close))
    guard.watch([SafeState("awg", told["resource"], OVER_VISA, expect, steps)])
    assert scpi.ask_bool(":OUTP1 1;:OUTP1?")
    return lambda: None


def spiking(told: dict[str, Any], guard: Guard, stack: ExitStack) -> Callable[[], None]:
    """A board armed."""
    guard.watch([board("board", told["resource"], Expect("HIL"))])
    session = FrameSession(SerialLink(told["resource"], beat=guard.beat))
    stack.push(guard.leaving(lambda: None))
    session.ask(wire.Kind.ARM, wire.ARM.pack(0.0))
    return lambda: session._link.write(wire.frame(wire.Kind.STEP, 1, bytes(4000))[0])  # the head of a frame, and no more


def own(told: dict[str, Any], guard: Guard, stack: ExitStack) -> Callable[[], None]:
    """An output that is a file, "1" for on; the module beside it knows how to talk to it."""
    output = Path(told["resource"])
    sys.path.append(str(output.parent))
    stack.push(guard.leaving(lambda: output.write_text("0", encoding="utf-8") and None))
    steps = (Step("0", "?", OFF),)
    guard.watch([SafeState("rig", told["resource"], "rig_talk:over_file", Expect(), steps, shared=False)])
    output.write_text("1", encoding="utf-8")
    return lambda: None


OPENED = {"visa": generator, "frames": spiking, "own": own}


def main() -> int:
    told = json.loads(sys.argv[1])
    times = {"silence_s": told.get("silence_s", 60.0), "patience_s": told.get("patience_s", 2.0)}
    try:
        with guarded([told["resource"]], run=Path(told["run"]), **times) as guard, ExitStack() as stack:
            half_way = OPENED[told["wire"]](told, guard, stack)
            if told["then"] == "forked" and os.fork() == 0:
                os.closerange(1, 3)  # whoever started this one need not wait for that one
                time.sleep(8)
                os._exit(0)
            half_way()
            print("on", guard.pid, flush=True)
            go_on(told["then"], Trust("nothing", guard.beat))
    except HilError as error:
        print(type(error).__name__, flush=True)
        return 3
    print("left", flush=True)
    return 0


def go_on(then: str, trust: Trust) -> None:
    while then in ("beats", "forked", "dead"):
        with trust.transaction():  # as every use of a wire does
            time.sleep(0.005)
    while then == "idle":
        time.sleep(0.01)
    sys.stdin.readline()


if __name__ == "__main__":
    sys.exit(main())
