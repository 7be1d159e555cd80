"""A device of one's own, or one that `hil host` serves elsewhere: owned by a host, which makes it safe by itself.

    [device] use = "my_lab:Rig"            a host is started for it, and ends with the run
    [device] host = "lab-pc:50551"         one that runs already

A device of one's own has one owner on a machine: its lock is that of an instrument. It is named by the class and those of its
settings that may tell one device from another, texts and whole numbers; a limit or a time does not. The host holds the lock
too, or one of its own where it cannot inherit that (hil/host/locks.py), so nobody opens the device while a host still makes it
safe for a trainer that is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from drivers import lock
from drivers.lock import Owned, Owner
from hil import system
from hil.build.node import Node
from hil.config.device import HostTable, NodeTable
from hil.errors import RunError
from hil.host.charge import Limits, Recipe
from hil.host.client import Hosted, connected, hosted
from hil.host.held import HeldDevice
from hil.run.outputs import HELD

LOG = "host.jsonl"  # in a run folder: what the host did; host-2.jsonl of the second layer's
PAUSE_S = 0.2
UNGUARDED = "nobody can make this device safe if the trainer ends: its file says unguarded = true"


def own_node(table: NodeTable, run: Path | None, stack: ExitStack, number: int = 0) -> Node:
    """Open a device of one's own, or one that is served elsewhere.

    Args:
        table: that names it.
        run: the run folder, or None.
        stack: closes the device, its outputs safe.
        number: of its layer, from 1; 0: it stands behind all layers.

    Raises:
        ConfigError: nobody could make it safe, or its class refuses its settings. RunError: another program has it.
        OpenFailed: it does not open. UnsafeOutputs: on closing it.
    """
    device = _connected(table, stack) if table.kind == "host" else _hosted(table, run, stack, number)
    twin = None if table.model is None else table.model.build()
    facts: dict[str, Any] = {"host": table.host} if table.kind == "host" else {"use": table.use, **table.settings()}
    beware: tuple[str, ...] = ()
    if device.unguarded:
        facts["unguarded"] = True
        beware = (UNGUARDED,)
    return Node(
        device, None, twin, facts, {f"device {number}".removesuffix(" 0"): device.description}, table.patience, device.beat,
        beware=beware, provenance=device.spec.provenance, rest=lambda error: device.close(),
        outputs_after=HELD,
    )  # fmt: skip


def _connected(table: NodeTable, stack: ExitStack) -> Hosted:
    keys = None if table.keys is None else Path(table.keys)
    return stack.enter_context(connected(str(table.host), keys, unguarded=table.unguarded))


def _hosted(table: NodeTable, run: Path | None, stack: ExitStack, number: int) -> Hosted:
    assert table.choice is not None  # it names a class
    recipe = Recipe(table.choice.use, table.choice.settings, table.place)
    waits = table.guardian or HostTable()
    limits = Limits(waits.silence_s, waits.deadline_s, waits.patience_s)
    return hosted_recipe(recipe, limits, run, stack, number, table.unguarded, recipe.settings)


def hosted_recipe(
    recipe: Recipe, limits: Limits, run: Path | None, stack: ExitStack, number: int, unguarded: bool, telling: Mapping[str, Any]
) -> Hosted:  # fmt: skip
    """Own what `recipe` makes, and start a host for it.

    Args:
        recipe: of the device.
        limits: of the host.
        run: the run folder, or None.
        stack: ends the host, outputs safe.
        number: of its layer, from 1; 0: it stands behind all layers.
        unguarded: one that cannot be made safe is opened all the same.
        telling: the settings that tell it from another device; numbers that are not whole do not.

    Raises:
        ConfigError, RunError, OpenFailed: as `own_node`.
    """
    HeldDevice(recipe, unguarded)  # what nobody can make safe is refused here, before a process is started
    log = None if run is None else run.resolve() / (LOG if number < 2 else f"host-{number}.jsonl")
    name = _name(recipe.use, telling)
    owned = stack.enter_context(_owned(name, run, limits.patience_s))
    keep = tuple(owned.files.values()) if system.INHERITS else (lock.machine_file(f"{name}::HOST"),)
    return stack.enter_context(hosted(recipe, limits, log=log, unguarded=unguarded, keep=keep))


def _name(use: str, settings: Mapping[str, Any]) -> str:
    """The name of a device for its locks."""
    telling = {key: value for key, value in settings.items() if not isinstance(value, float)}
    said = json.dumps(telling, sort_keys=True, default=str).encode()
    return f"DEVICE::{use}::{hashlib.blake2b(said, digest_size=4).hexdigest()}"


def _owned(name: str, run: Path | None, patience_s: float) -> Owned:
    """Lock the device of this name; wait for a host that still makes it safe for a trainer that is gone.

    Raises:
        RunError: another program has it.
    """
    owner = Owner(
        os.getpid(), "" if run is None else str(run.resolve()), datetime.now().astimezone().isoformat(timespec="seconds"),
        " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
    )  # fmt: skip
    end = time.monotonic() + patience_s
    while True:
        try:
            return lock.take([name], owner)
        except RunError:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE_S)
