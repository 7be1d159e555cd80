"""An error of hil/errors.py as a table of JSON values, and back: the same class, with all that it says.

{"kind": "LinkTimeout", "what", "where", "got", "allowed", "outputs", "todo", "at": [...], "suspect_shots"?}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hil import errors
from hil.errors import Changed, HilError
from hil.host import device_pb2 as pb

TEXTS = ("what", "where", "got", "allowed", "outputs", "todo")


def table_of(error: HilError) -> dict[str, Any]:
    """The error as JSON values; a subclass that is not hil's goes by its nearest kind that is."""
    kind = next(k.__name__ for k in type(error).__mro__ if k.__module__ == errors.__name__)
    table: dict[str, Any] = {
        "kind": kind,
        **{name: str(getattr(error, name)) for name in TEXTS},
        "at": [str(line) for line in error.at],
    }
    if isinstance(error, Changed) and error.suspect_shots is not None:
        table["suspect_shots"] = error.suspect_shots
    return table


def error_of(table: Mapping[str, Any]) -> HilError:
    """The error that a table tells of; a kind that is not known becomes a ForeignError that names it."""
    named = getattr(errors, str(table.get("kind", "")), None)
    kind = named if isinstance(named, type) and issubclass(named, HilError) else None
    texts = {name: str(table.get(name, "")) for name in TEXTS}
    if kind is None:
        texts["what"] = f"{table.get('kind', 'an error')}: {texts['what']}"
    what = texts.pop("what")
    error = (kind or errors.ForeignError)(what, at=tuple(str(line) for line in table.get("at", ())), **texts)
    if isinstance(error, Changed) and table.get("suspect_shots") is not None:
        error.suspect_shots = int(table["suspect_shots"])
    return error


def message_of(error: HilError) -> pb.Fault:
    """The error as a message."""
    return pb.Fault(**table_of(error))


def raise_from(answer: Any) -> None:
    """Raise the error that an answer holds, if it holds one."""
    if answer.HasField("fault"):
        fault = answer.fault
        table = {name: getattr(fault, name) for name in ("kind", *TEXTS)}
        more = {"suspect_shots": fault.suspect_shots} if fault.HasField("suspect_shots") else {}
        raise error_of({**table, "at": tuple(fault.at), **more})
