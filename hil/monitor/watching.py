"""What the pages look at: the entries of the index, read in a thread, at most once a second, and only while somebody looks.

They are read once at the start: many folders take about a second, which a browser needs for the page itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hil.monitor.gate import Role
from hil.run.index import Entry, Index
from hil.system import own

REFRESH_S = 1.0


class Watching:
    """The entries of `index`, shared by all pages.

    Args:
        index: of runs, searches, comparisons and calibrations.
        refresh_s: entries that are younger are not read again, s.
    """

    def __init__(self, index: Index, refresh_s: float = REFRESH_S) -> None:
        self._index, self._refresh_s = index, refresh_s
        self._entries: dict[str, Entry] = {}
        self._read_at = -refresh_s
        self._reading = asyncio.Lock()
        self._first: Future[list[Entry]] | None = ThreadPoolExecutor(1).submit(index.entries)

    @property
    def ready(self) -> bool:
        """Whether the folders were read once."""
        return self._first is None or self._first.done()

    async def entries(self) -> Sequence[Entry]:
        """Return all entries, as the files say now."""
        async with self._reading:
            if time.monotonic() - self._read_at >= self._refresh_s:
                first = self._first
                found = await (asyncio.wrap_future(first) if first else asyncio.to_thread(self._index.entries))
                self._first = None
                self._entries = {key(entry.path): entry for entry in found}
                self._read_at = time.monotonic()
        return list(self._entries.values())

    def forget(self) -> None:
        """Read anew at the next look."""
        self._read_at = -self._refresh_s

    async def named(self, name: str) -> Entry | None:
        """Return the entry whose `key` is `name`; a path never comes from a browser."""
        await self.entries()
        return self._entries.get(name)


def key(path: Path) -> str:
    """Return the name of an entry in addresses of pages."""
    return hashlib.blake2s(os.path.abspath(path).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def may_change(role: Role, path: Path) -> bool:
    """Whether a holder of this role may change what is at `path`: it belongs to this account, and can be written to."""
    try:
        return role == "change" and own(path.stat()) and os.access(path, os.W_OK)
    except OSError:
        return False
