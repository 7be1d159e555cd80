"""Packages of instrument makers and labs, which hil does not need: imported when a device that uses one is opened."""

from __future__ import annotations

import importlib
from typing import Any

from hil.errors import UNTOUCHED, ConfigError


def needed(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its name.
        extra: of hil that installs it.

    Raises:
        ConfigError: it is not installed, or cannot be imported; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the package {module.partition('.')[0]} cannot be imported", where=f"extra {extra}", got=str(error),
            allowed="an installed package", outputs=UNTOUCHED, todo=f"pip install 'hil[{extra}]'",
        ) from error  # fmt: skip
