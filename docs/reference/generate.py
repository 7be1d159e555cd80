"""Writes what is made from the code: keys.md, cli.md and schemas/. `make reference` runs it; a test holds them current."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from hil.cli import app
from hil.commands import keys, schema
from hil.config.bench import InstrumentTable, TwinTable
from hil.config.resolve import CHIPS, LEARNERS, SIMULATED, SYNAPSES, resolve
from hil.data.kinds import EVENTS, FILES, IMAGES, MADE

HERE = Path(__file__).resolve().parent
TITLES = {
    "experiment": ("The experiment file", "[What it says](experiment_file.md)."),
    "bench": ("The bench file", "[What it says](bench_file.md). `of waveform`: in a bench file of that shape."),
    "search": (
        "The search file",
        "What it says of [a feedback](../how-to/search_feedback.md) and of "
        "[an operating point](../how-to/search_operating_point.md).",
    ),
    "compare": ("The comparison file", "`hil compare` trains every learner on every device with every seed."),
}
CLASSES = {
    "Data": (
        "`[data] use = …` of an experiment, besides the keys of `[data]`.",
        {"a table: .csv, .tsv, .txt": FILES[".csv"], "a .npz file": FILES[".npz"], "a .npy file": FILES[".npy"]}
        | {"spikes in HDF5, .h5": FILES[".h5"], "a folder of images": IMAGES, "a folder of recordings": EVENTS, **MADE},
    ),
    "Learners": ("`[learner] use = …` of an experiment.", LEARNERS),
    "Synapses": ("`[network] use = …` of an experiment.", SYNAPSES),
    "Twins": ("`[device] use = …` of an experiment, `[twin]` and `[virtual.node]` of a bench file.", TwinTable.known["use"]),
    "Chips": ("`[device] chip = …` of an experiment.", CHIPS),
    "Drivers": ("`[instruments.NAME] use = …` of a bench file.", InstrumentTable.known["use"]),
    "Adapters of packages": (
        '`[instruments.NAME] use = "drivers.pymeasure:Adapter"` of a bench file, or `"drivers.qcodes:Adapter"`.',
        {"Adapter": "drivers.pymeasure:Adapter", "holds.NAME of an Adapter": "drivers.parameter:Parameter"},
    ),
    "Simulated instruments": ("`[virtual.NAME] use = …` of a bench file.", SIMULATED),
}
HEAD = """# Every table and key

Generated from the models that read the files; `hil describe train` shows a table in the terminal. An unknown key is refused,
and the nearest known one is named.

A quantity takes one number and one unit in quotes, under its name without the unit (`high = "4 V"`), or a number in the unit
that ends its name (`high_v = 4.0`). A key whose default is "none" may be left out; "its defaults" are those of the table.

An editor with Taplo (in VS Code: Even Better TOML) completes and underlines, if the first line of a file names its schema, as
the shipped files do. `hil schema` writes the schemas into a folder: `#:schema schemas/experiment.schema.json`.
"""
COMMANDS = """# Commands

Generated from `hil/cli.py`; `--help` after a command shows the same in the terminal. `--traceback`, anywhere on the line, shows
the traceback of an error. `hil --install-completion` lets the shell complete commands and options.

| exit code | means |
|---|---|
| 0 | done |
| 2 | your file or command is wrong, or something was refused; nothing was sent |
| 3 | a fault; outputs safe, the run can be resumed |
| 4 | outputs *not* known to be safe |
| 130 | interrupted; outputs safe, the run can be resumed |

A command that drives no output never ends with 4. What stands in brackets may be left out. The classes of errors:
[errors and exit codes](errors.md).
"""
DRIVING = ("train", "search", "resume", "use", "compare", "calibrate", "doctor", "host")  # commands that may drive outputs


def page() -> str:
    """The text of keys.md."""
    return "\n".join([HEAD, *_files(), *_classes()])


def _files() -> Iterator[str]:
    for kind, (title, note) in TITLES.items():
        yield f"## {title}\n\n{note}\n"
        heads: dict[int, list[str]] = {}
        tables = {id(table.made): table for table in reversed(list(keys.tables(kind)))}
        for table in keys.tables(kind):
            heads.setdefault(id(table.made), []).append(table.head)
        others = {id(table.made) for other in list(TITLES)[: list(TITLES).index(kind)] for table in keys.tables(other)}
        for made, listed in heads.items():
            if made not in others:  # [device] of an experiment stands in other files too, and is listed once
                yield from _table(f"### {', '.join(listed)}", tables[made].says, tables[made].keys)


def _classes() -> Iterator[str]:
    for title, (note, known) in CLASSES.items():
        yield f"## {title}\n\n{note}\n"
        for name, path in known.items():
            made = resolve(path, "reference")
            head = f"{name}" if name != path else path
            says = (inspect.getdoc(inspect.getmodule(made)) or "").partition("\n")[0]
            yield from _table(f"### {head}", says, tuple(keys.keys(made)))


def _table(head: str, says: str, listed: tuple[keys.Key, ...]) -> Iterator[str]:
    yield f"{head}\n\n{says}\n"
    if listed:
        yield "| key | value | default | meaning |\n|---|---|---|---|"
        for key in listed:
            bare = key.default in (keys.REQUIRED, keys.NONE, keys.DEFAULTS)
            default = key.default if bare else f"`{key.default}`"
            yield f"| `{key.name}` | {_cell(key.kind)} | {_cell(default)} | {_cell(key.meaning)} |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> str:
    """The text of cli.md."""
    whole = app.generate_docs(output_format="markdown")
    parts = re.split(r"^(?=## hil [a-z])", whole, flags=re.M)[1:]
    return "\n".join([COMMANDS, *(_command(part) for part in parts)])


def _command(part: str) -> str:
    """A command: how it is called, its arguments, its exit codes."""
    name = part.split()[2].strip("`")
    part = re.sub(r"^(hil \w+) -m \S+", r"\1", part, flags=re.M)  # under python -m pytest, cyclopts takes that for the program
    part = part.replace("```console", "```text").replace("**Parameters**", "**Options**")
    part = re.sub(r" *\*\[default: (False|\(\))\]\*| *\*\*\[required\]\*\*", "", part)
    called = re.search(r"^\* `([A-Z]+)", part, re.M)
    part = part.replace("[ARGS", f"[{called[1]}" if called else "[ARGS")
    codes = "0, 2, 3, 4, 130" if name in DRIVING else "0, 2, 3, 130"
    return part.rstrip() + f"\n\nExit codes: {codes}.\n"


def main() -> None:
    """Write them."""
    (HERE / "keys.md").write_text(page(), encoding="utf-8")
    (HERE / "cli.md").write_text(commands(), encoding="utf-8")
    schema.write(None, HERE / "schemas")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    main()
