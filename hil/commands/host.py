"""hil host: serve a device, or a real bench, to a trainer on this computer or on another one.

A bench file is opened as for a run, in the worker: its own guardian watches over its instruments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from hil import child
from hil.config.modules import folders
from hil.errors import UNTOUCHED, ConfigError, UnsafeOutputs
from hil.files import loads, there
from hil.host.charge import Charge, Limits, Recipe
from hil.host.keys import make_keys
from hil.host.process import serve
from hil.host.server import check_listen
from hil.host.starter import starter

BENCH = "hil.build.hosted_bench:HostedBench"


def recipe_of(what: str, settings: Mapping[str, Any]) -> Recipe:
    """Find how what `hil host` names is made. Raises: ConfigError: no bench file and no module:Class."""
    if what.endswith(".toml"):
        path = Path(what).resolve()
        if not there(path):
            raise ConfigError("no such file", where=what, outputs=UNTOUCHED, todo="name a bench file")
        return Recipe(BENCH, {"path": str(path), **settings}, str(path))
    if ":" not in what:
        raise ConfigError(
            "nothing to host", where="hil host", got=what, allowed="BENCH.toml, or module:Class",
            outputs=UNTOUCHED,
        )  # fmt: skip
    return Recipe(what, settings, f"hil host {what}")


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """Read key=value words. Raises: ConfigError: no key, or no value."""
    found: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not key.isidentifier() or not sign:
            raise ConfigError("no setting", where="hil host --set", got=word, allowed="key=value", outputs=UNTOUCHED)
        try:
            found[key] = loads(value, word, ConfigError)
        except ConfigError:  # text need not be quoted
            found[key] = value
    return found


def host(what: str, settings: Mapping[str, Any], listen: str, keys: Path | None, limits: Limits, out: Console) -> None:
    """Serve until Ctrl-C, one trainer after the other.

    Args:
        what: a bench file, or "module:Class".
        settings: of the class.
        listen: address and port.
        keys: folder of keys, for trainers on other computers.
        limits: how long is waited.
        out: where people are told.

    Raises:
        HilError: the device cannot be opened. UnsafeOutputs: the outputs are not known to be safe.
    """
    check_listen(listen, keys)
    recipe = recipe_of(what, settings)
    charge = Charge(recipe, limits, [*child.search_path(), *folders(recipe.place)], listen=listen)

    def begun(port: int, token: str, lane: int) -> None:
        address = f"{listen.rpartition(':')[0]}:{port}"
        out.print(f"host    {recipe.use} at {address}, process {os.getpid()}", soft_wrap=True)
        out.print(f'next    hil.host.client.connected("{address}"' + (", keys)" if keys else ")"), soft_wrap=True)

    if serve(charge, starter(), begun, keys=keys) != 0:
        raise UnsafeOutputs(
            "the device could not be made safe", where=f"hil host {what}", outputs="not known to be safe",
            todo="switch the outputs off at the device",
        )  # fmt: skip


def keys_made(folder: Path, out: Console) -> None:
    """Make keys for both ends. Raises: ConfigError: the folder has some, or there is no openssl."""
    for file in make_keys(folder):
        out.print(f"keys    {file}", soft_wrap=True)
    out.print("next    copy ca.crt and trainer.* to the trainer's computer, over a way that you trust", soft_wrap=True)
