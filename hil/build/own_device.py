"""A device of one's own, or one that is served elsewhere: owned by a host, which makes it safe by itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from hil.config.experiment import DeviceTable

if TYPE_CHECKING:
    from hil.build.node import Node


def own_node(table: DeviceTable, run: Path | None, stack: ExitStack, name: str) -> Node:
    raise NotImplementedError
