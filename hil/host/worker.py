"""The worker: its process is started by hil/host/starter.py; owns the device, answers its host's calls one after the other.

    {"call", "do": "open", "recipe", "unguarded", "search_path", "deadline_s", "patience_s"} -> {"call", "facts"}
    {"call", "do": "forward", "shape"} body     -> {"call", "shape"} body
    {"call", "do": "program", "shape"} body     -> {"call"}
    {"call", "do": "reset" | "close" | "beat"}  -> {"call"}
    {"call", "do": "safe", "anew"}              -> {"call", "verified", "facts"}
    {"call", "do": "snapshot"}                  -> {"call", "state"}
    {"call", "do": "restore", "state"}          -> {"call"}
    any                                         -> {"call", "fault": {...}}

A pipe that only the host can write to ends with the host: then the device is made safe here, and this process ends, 3 safe or
4 not known. The device may be in a call then: it has `deadline_s` to come back; if it does not, `safe()` is tried from another
thread, and the process ends whatever that does. What the device prints goes to another pipe, never between messages.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np

from hil import system
from hil.errors import Desync, Disconnected, HilError, UnsafeOutputs
from hil.foreign import mapped
from hil.host.charge import Recipe
from hil.host.faults import table_of
from hil.host.frames import Bytes, Wire
from hil.host.held import HeldDevice
from hil.snapshot import packed, unpacked

SAFE, UNKNOWN = 3, 4  # exit statuses


class Work:
    """The loop of a worker.

    Args:
        wire: to the host.
        alive: descriptor that is at its end when the host has ended.
        report: descriptor on which it is said how the outputs were left, once the host has ended.
    """

    def __init__(self, wire: Wire, alive: int, report: int) -> None:
        self._wire, self._alive, self._report = wire, alive, report
        self._held: HeldDevice | None = None
        self._deadline_s = self._patience_s = 10.0
        self._idle = threading.Event()
        self._idle.set()
        self._leaving = threading.Lock()  # whoever has it says how the outputs were left, and ends the process

    def run(self) -> None:
        """Answer until the host has gone; does not return."""
        threading.Thread(target=self._watch, name="host watched", daemon=True).start()
        while True:
            try:
                head, body = self._wire.receive()
            except (OSError, Disconnected, Desync):
                break
            self._idle.clear()
            try:
                answer, data = self._answered(head, body)
            except SystemExit as error:  # the device's code ends its process; the outputs come first
                with contextlib.suppress(HilError):
                    self._safe()
                os._exit(error.code if isinstance(error.code, int) else 1)
            finally:
                self._idle.set()
            try:
                self._wire.send({"call": head.get("call"), **answer}, data)
            except (OSError, ValueError):
                break
        self._leave()

    def _answered(self, head: Mapping[str, Any], body: Bytes) -> tuple[dict[str, Any], Bytes]:
        try:
            return self._done(head, body)
        except HilError as error:
            return {"fault": table_of(error)}, b""
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - told whole
            return {"fault": table_of(mapped(error, "worker"))}, b""

    def _done(self, head: Mapping[str, Any], body: Bytes) -> tuple[dict[str, Any], Bytes]:
        do = head["do"]
        if do == "open":
            self._deadline_s, self._patience_s = head["deadline_s"], head["patience_s"]
            sys.path.extend(folder for folder in head["search_path"] if folder not in sys.path)
            self._held = HeldDevice(Recipe(**head["recipe"]), head["unguarded"])
            return {"facts": self._held.facts()}, b""
        held = self._held
        if held is None:
            raise Desync("the device is not open", where="worker", got=str(do))
        if do == "forward":
            shape, answer = held.forward(head["shape"], body)
            return {"shape": shape}, answer
        if do == "safe":
            verified = held.safe(head["anew"])
            return {"verified": verified}, b""
        if do == "snapshot":
            return {"state": packed(held.snapshot())}, b""
        if do == "program":
            held.program(head["shape"], body)
        elif do == "reset":
            held.reset()
        elif do == "beat":
            held.beat()
        elif do == "restore":
            held.restore(unpacked(head["state"]))
        elif do == "close":
            held.close()
        else:
            raise Desync("no such call", where="worker", got=str(do))
        return {}, b""

    def _safe(self) -> int:
        """Make safe and close; return the exit status."""
        if self._held is None:
            return SAFE
        try:
            verified = self._held.safe()
            self._held.close()
        except UnsafeOutputs:
            return UNKNOWN
        return SAFE if verified else UNKNOWN

    def _watch(self) -> None:
        """Wait for the end of the host, and see to it that this process ends too."""
        with contextlib.suppress(OSError):
            os.read(self._alive, 1)
        silence()  # nobody reads what is printed any more, and an exception of print() must not keep safe() from its work
        if self._idle.wait(self._deadline_s):
            self._leave()
        safe = threading.Thread(target=self._leave, name="making safe", daemon=True)
        safe.start()
        safe.join(self._patience_s)
        os._exit(UNKNOWN)

    def _leave(self) -> None:
        """Make safe, say so, and end the process; whoever comes second waits for that."""
        with self._leaving:
            silence()
            timer = threading.Timer(self._patience_s, lambda: os._exit(UNKNOWN))
            timer.daemon = True
            timer.start()
            status = self._safe()
            with contextlib.suppress(OSError):
                os.write(self._report, json.dumps({"outputs": "safe" if status == SAFE else "unknown"}).encode() + b"\n")
            os._exit(status)


def silence() -> None:
    """Drop what this process prints from now on."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(nowhere, number)


def begin(end: socket.socket, alive: int, output: int) -> None:
    """Become a worker, in a process that was just forked or spawned; does not return.

    Args:
        end: of the socket to the host.
        alive: see Work.
        output: where the device prints.
    """
    if system.POSIX:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    report = os.dup(1)
    os.dup2(output, 1, inheritable=True)
    os.dup2(output, 2, inheritable=True)
    os.close(output)
    sys.stdout, sys.stderr = printer(1), printer(2)
    faulthandler.enable()  # says where a library crashed
    random.seed()
    np.random.seed()  # noqa: NPY002 - a fork has the generators of the process that it was forked from
    Work(Wire(end), alive, report).run()


def printer(number: int) -> TextIO:
    """A stream that writes whole lines to a descriptor, and closes it never."""
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", "replace", line_buffering=True, write_through=True)
