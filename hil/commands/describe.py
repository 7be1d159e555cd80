"""`hil describe`: shows a table of a file, a data set, a metric, an optimiser, or a class with its settings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from hil.commands import keys
from hil.config.resolve import CHIPS, LEARNERS, SHAPES, SYNAPSES, TWINS, resolve
from hil.config.training import FUNCTIONS, OPTIMISER_GIVEN, OURS, optimisers, schedule_given, schedulers
from hil.data import sources
from hil.data.kinds import MADE, OWN
from hil.errors import UNTOUCHED, ConfigError
from hil.metric import METRICS

GAP = re.compile(r" {3,}(?![ =])")
MARKUP = re.compile(r":\w+:(?=`)|`+_?|\\[()]")
TENSOR = ", or torch.Tensor"
IN_FILES = {  # of what torch takes as an object
    **dict.fromkeys(FUNCTIONS, 'a function: "module:function"'),
    "schedulers": "a list of tables, each with a use",
    "milestones": "a list of whole numbers",
}
MOVES = {**optimisers(), **OURS, **schedulers()}
NAMES = {**LEARNERS, **TWINS, **CHIPS, **SYNAPSES, **MADE, **OWN, **MOVES}


def lines(name: str, width: int) -> Iterator[str]:
    """Yield the lines that describe `name`.

    Args:
        name: "train" or "[train]", a kind of file, a shape, a data set, a metric, an optimiser or a scheduler of torch, a short
            name of ours, or "module:Class".
        width: of the terminal, in characters.

    Raises:
        ConfigError: there is nothing of that name.
    """
    if name not in (*NAMES, *sources.NAMES, *METRICS) and ":" not in name and not any(_tables(name)):
        raise _unknown(name)
    same: dict[int, list[tuple[str, keys.Table]]] = {}
    for kind, table in _tables(name):
        same.setdefault(id(table.made), []).append((kind, table))
    for listed in same.values():
        yield from _table([f"{table.head}   in {article(kind)} file" for kind, table in listed], listed[0][1], width)
    yield from _data(name, width)
    yield from _metric(name, width)
    if name in MOVES:
        yield from _move(name, width)
    elif name in NAMES or ":" in name:
        yield from _class(name, width)


def heads() -> list[str]:
    """Return every table of every kind of file, by its head without brackets, each once."""
    return list(dict.fromkeys(_bare(table.head) for kind in keys.files() for table in keys.tables(kind)))


def _tables(name: str) -> Iterator[tuple[str, keys.Table]]:
    """Tables of that head, in any kind of file; all of a shape; or all of a kind of file."""
    wanted = _bare(name)
    for kind in keys.files():
        for table in keys.tables(kind):
            head, _, of = table.head.partition(" of ")
            whole = (wanted in SHAPES and wanted in of.split(", ")) or (wanted == kind and head == keys.TOP)
            if whole or wanted == _bare(head):
                yield kind, table


def _bare(head: str) -> str:
    return head.partition(" of ")[0].replace("[", "").replace("]", "")


def article(kind: str) -> str:
    """The kind of a file with its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _table(heads: Sequence[str], table: keys.Table, width: int) -> Iterator[str]:
    yield from (*heads, "")
    yield from filled(table.says, width)
    yield ""
    yield from settings(table.keys, width)
    yield ""


def settings(listed: tuple[keys.Key, ...], width: int) -> Iterator[str]:
    """Yield for each key its name, default and kind, and below what it means."""
    longest = max((len(key.name) for key in listed), default=0)
    for key in listed:
        default = f"default {key.default}" if key.default not in (keys.REQUIRED, keys.NONE, keys.DEFAULTS) else key.default
        told = "" if key.default in (keys.NONE, keys.DEFAULTS) else f"; {default}"
        yield from filled(f"  {key.name:<{longest}}   {key.kind}{told}", width, "  " + " " * longest + "   ")
        yield from filled(f"      {key.meaning}", width, "      ") if key.meaning else ()


def filled(text: str, width: int, hang: str = "") -> list[str]:
    """Break a paragraph at words."""
    return textwrap.wrap(text, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)


def prose(text: str, width: int) -> Iterator[str]:
    """A docstring: paragraphs are filled; formulas and tables, which are indented, keep their lines where they fit."""
    for paragraph in text.split("\n\n"):
        written = paragraph.splitlines()
        if any(line.startswith(" ") for line in written):
            for line in written:
                yield from [line] if len(line) <= width else _broken(line, width)
        else:
            yield from filled(" ".join(written), width)
        yield ""


def _broken(line: str, width: int) -> Iterator[str]:
    """A formula, and below it what stands beside it."""
    begins = " " * min(len(line) - len(line.lstrip()), width // 4)
    for number, part in enumerate(GAP.split(line.strip())):
        yield from filled(begins + "    " * (number > 0) + part, width, begins + "        ")


def _data(name: str, width: int) -> Iterator[str]:
    if name in sources.NAMES:
        card = sources.describe(name)
        yield from (f'{name}   a data set: [data] use = "{name}"', "", *filled(card.line, width), "")
        yield from (*filled(f"classes: {', '.join(card.classes)}", width), "", *filled(f"source: {card.source}", width), "")
        told = (line for file, checksum in card.sums.items() for line in (f"  {checksum}", f"    {file}"))
        yield from ("SHA-256 of its files, unpacked:", *told, "")


def _metric(name: str, width: int) -> Iterator[str]:
    if name in METRICS:
        found = METRICS[name]
        yield from (f'{name}   a metric: [task] metric = "{name}"', "")
        yield from filled(f"{_summary(found.of)} Of {' or '.join(found.kinds)}; {found.way}.", width)
        yield ""


def _move(name: str, width: int) -> Iterator[str]:
    """An optimiser or a schedule: what a file may give it. Of torch the first sentence of each of its texts."""
    made = resolve(name, f"hil describe {name}", MOVES)
    head, kind = ("optimizer", "an optimiser") if name in optimisers() else ("schedule", "a schedule")
    given = OPTIMISER_GIVEN if head == "optimizer" else schedule_given(made)
    yield from filled(f'{name}   {kind}{"" if name in OURS else " of torch"}: [{head}] use = "{name}"', width)
    yield from ("", *filled(_first((inspect.getdoc(made) or "").partition("\n\n")[0]) + ".", width), "")
    listed = tuple(
        dataclasses.replace(key, kind=IN_FILES.get(key.name, key.kind.replace(TENSOR, "")), meaning=_first(key.meaning))
        for key in keys.keys(made)
        if key.name not in given
    )
    yield from (*settings(listed, width), *[""] * bool(listed), f"Other keys of [{head}]: hil describe {head}")


def _first(text: str) -> str:
    """The first sentence of a text of torch, without its markup, and without the default, which the signature says."""
    plain = re.split(r"\s*\(?\b[Dd]efault: ", MARKUP.sub("", " ".join(text.split())))[0]
    return re.split(r"(?<!})\. ", plain)[0].rstrip(".")


def _class(name: str, width: int) -> Iterator[str]:
    where = f"hil describe {name}"
    target = resolve(name, where, NAMES)
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        raise ConfigError(
            "nothing to describe", where=where, got=type(target).__name__, allowed="a class, or a function",
            outputs=UNTOUCHED, todo="hil list shows what there is",
        )  # fmt: skip
    yield from (f"{target.__module__}:{target.__name__}", "")
    for text in dict.fromkeys((inspect.getdoc(inspect.getmodule(target)), _summary(target))):
        yield from prose(text, width) if text else ()
    yield from settings(tuple(keys.keys(target)), width)


def _summary(target: Any) -> str:
    """The docstring up to its arguments, which are listed with their kinds."""
    return (inspect.getdoc(target) or "").partition("\nArgs:")[0].strip()


def _unknown(name: str) -> ConfigError:
    from hil.settings import no_such

    known = [*heads(), *sources.NAMES, *METRICS, *NAMES]
    error = no_such("name", name, known, f"hil describe {name}")
    error.outputs = UNTOUCHED
    error.allowed = "a table (hil describe train), a data set, a metric, a learner, a device, or module:Class"
    return error
