"""Closing of several things: each is tried, whatever the others raise."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hil.errors import UnsafeOutputs


def close_all(closes: Iterable[Callable[[], None]]) -> None:
    """Call each of `closes`, whatever the others raise.

    Raises:
        UnsafeOutputs: an output is not known to be safe; a link that does not close must not hide that.
        Exception: the first one, of whatever kind, if there is no such.
    """
    failed: list[BaseException] = []
    for close in closes:
        try:
            close()
        except BaseException as error:  # noqa: BLE001 - the next one has to be made safe too
            failed.append(error)
    if failed:
        raise next((one for one in failed if isinstance(one, UnsafeOutputs)), failed[0])
