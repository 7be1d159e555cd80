"""Kinds of sources that [data] use may name, and how each becomes a data set.

    digits, mnist, ...         published sets, see hil/data/sources.py; their splits are the publisher's; with sequence = true
                               an image is the sequence of its rows
    mackey_glass, ...          sets that are made from a formula, see hil/data/made/
    table.csv .tsv .txt        columns with names; target, inputs
    x.npz, x.npy               arrays of numpy
    x.h5                       spikes in HDF5, as the Heidelberg sets are
    pictures/                  a folder of images by class, or of recordings of an event camera
    "module:function"          of your own, called with the other keys: see hil/data/objects.py for what it may return

A file and a module are looked for beside the file that names them, then in the working directory. The other keys of the table
are the settings of what `use` names, and checked as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hil.config import modules
from hil.config.resolve import Choice, blaming, choice
from hil.data import event_files
from hil.data.class_folder import first_suffix
from hil.data.dataset import Dataset, usable
from hil.data.examples import Examples, Reading, by_rows, dataset_of, joined, standardised
from hil.data.objects import examples_of
from hil.data.published import published
from hil.data.sources import NAMES, describe
from hil.errors import UNTOUCHED, ConfigError, DataError, nearest
from hil.settings import unknown

MADE = {
    "mackey_glass": "hil.data.made.mackey_glass:MackeyGlass",
    "lorenz": "hil.data.made.lorenz:Lorenz",
    "narma5": "hil.data.made.narma:Narma5",
    "narma10": "hil.data.made.narma:Narma10",
    "narma20": "hil.data.made.narma:Narma20",
    "memory_capacity": "hil.data.made.memory_capacity:MemoryCapacity",
    "channel_equalisation": "hil.data.made.channel:ChannelEqualisation",
    "parity": "hil.data.made.parity:Parity",
    "vowels": "hil.data.made.vowels:Vowels",
    "spoken_vowels": "hil.data.made.spoken_vowels:SpokenVowels",
    "moving_dots": "hil.data.made.moving_dots:MovingDots",
}
FILES = {
    ".csv": "hil.data.csv_file:CsvFile",
    ".tsv": "hil.data.csv_file:CsvFile",
    ".txt": "hil.data.csv_file:CsvFile",
    ".npz": "hil.data.array_file:NpzFile",
    ".npy": "hil.data.array_file:NpyFile",
    ".h5": "hil.data.spike_file:SpikeFile",
    ".hdf5": "hil.data.spike_file:SpikeFile",
}
IMAGES, EVENTS = "hil.data.image_folder:ImageFolder", "hil.data.event_folder:EventFolder"
OWN = {
    "file.csv": FILES[".csv"], "file.npz": FILES[".npz"], "file.npy": FILES[".npy"], "file.h5": FILES[".h5"],
    "images/": IMAGES, "events/": EVENTS,
}  # fmt: skip
PARTS = ("validation", "test")
PYTHON = "hil.load"
COMMON = ("use", "train_examples", "dir", "checksum", *Reading.__dataclass_fields__)


@dataclass(frozen=True)
class Named:
    """A source that a table names, its settings checked; nothing is read yet.

    Args:
        kind: "published", "made", "file" or "python".
        choice: the class or function, and its settings; None for a published set.
        near: the file of the table, for files that it names: "experiment.toml: [data]".
        folder: looked into first, or None.
    """

    use: str
    kind: str
    choice: Choice | None
    near: str
    folder: Path | None

    def dataset(self, how: Reading) -> Dataset:
        """Read it.

        Raises:
            DataError: a file is missing or damaged, or a row is bad. ConfigError: the settings do not fit.
        """
        if self.choice is None:
            if replace(how, standardise=False, sequence=False) != Reading():
                raise ConfigError(
                    "a published set comes with its splits and classes", where=self.near, got=_changed(how), outputs=UNTOUCHED,
                    allowed="train_examples, dir, standardise, sequence",
                    todo="take these keys out, or read a file of your own",
                )  # fmt: skip
            found = published(describe(self.use), self.folder)
            found = by_rows(found) if how.sequence else found
            return standardised(found) if how.standardise else found
        with blaming(self.near):
            given = self._given(how)
            return usable(given) if isinstance(given, Dataset) else dataset_of(given, how)

    def _given(self, how: Reading) -> Dataset | Examples:
        assert self.choice is not None  # the caller has looked
        group = how.split.group
        if self.kind == "file":
            own = [self.use, *(value for value in (getattr(how.split, part) for part in PARTS) if isinstance(value, str))]
            source = self.choice.build()
            parts = [source.examples(found_at(name, self.near, self.folder), group) for name in own]
            numbers = [0, *(PARTS.index(part) + 1 for part in PARTS if isinstance(getattr(how.split, part), str))]
            return parts[0] if len(parts) == 1 else joined([parts[0], *map(Examples.within, parts[1:], numbers[1:])])
        if any(isinstance(getattr(how.split, part), str) for part in PARTS) or (group and self.kind == "made"):
            raise ConfigError(
                "only a file is split by other files, or by a column", where=f"{self.near} split", outputs=UNTOUCHED,
                got=", ".join(f"{part} = {getattr(how.split, part)}" for part in (*PARTS, "group")), allowed="shares",
                todo="give shares",
            )  # fmt: skip
        if self.kind == "made":
            made: Examples = self.choice.build().examples()
            return made
        value = self.choice.build()
        if not isinstance(value, Dataset):
            return examples_of(value, self.use, group, how.stream)
        if how != Reading():
            raise ConfigError(
                "a whole data set comes with its splits and classes", where=self.near, got=_changed(how), outputs=UNTOUCHED,
                allowed="train_examples", todo="take these keys out, or return (x, y)",
            )  # fmt: skip
        return value


def named(use: str, settings: Mapping[str, Any], near: str, folder: Path | None = None) -> Named:
    """Find what `use` names, and check the settings.

    Args:
        use: as above.
        settings: the other keys.
        near: file and table.
        folder: looked into first for a file; of a published set, where its files are.

    Raises:
        ConfigError: there is no such data, or an unknown setting.
    """
    if folder is not None and not folder.is_absolute():
        places = [Path(one) / folder for one in modules.folders(near)]
        folder = next((place for place in places if place.is_dir()), folder)
    kind, path = _kind(use, near, folder)
    if kind == "published":
        nothing_more(settings, near)
        return Named(use, kind, None, near, folder)
    return Named(use, kind, choice(use, settings, near, {use: path}, besides=COMMON), near, folder)


def nothing_more(settings: Mapping[str, Any], near: str) -> None:
    """Raises: ConfigError: a setting is given, and there are none."""
    if settings:
        key, value = next(iter(settings.items()))
        raise unknown(near, key, value, COMMON)


def _kind(use: str, near: str, folder: Path | None) -> tuple[str, str]:
    """The kind of source, and the import path of its class."""
    if use in NAMES:
        return "published", use
    if use in MADE:
        return "made", MADE[use]
    suffix = Path(use).suffix.lower()
    if suffix in FILES:
        return "file", FILES[suffix]
    places = _places(use, near, folder)
    if places or use.endswith(("/", "\\")):
        return "file", EVENTS if places and first_suffix(places[0]) in event_files.SUFFIXES else IMAGES
    if ":" in use:
        return "python", use
    known = (*NAMES, *MADE)
    hint = nearest(use, known)
    raise ConfigError(
        "no such data set", where=f"{near} use" if near else "[data] use", got=repr(use), outputs=UNTOUCHED,
        allowed=f"{', '.join(known)}; a file {' '.join(FILES)}; a folder of images or events; module:function",
        todo=f'did you mean "{hint}"?' if hint else "choose one of these",
    )  # fmt: skip


def _places(name: str, near: str, folder: Path | None) -> list[Path]:
    """Where a file or folder of that name is."""
    try:
        places = [Path(name)] if Path(name).is_absolute() else [Path(one) / name for one in _folders(near, folder)]
        return [place for place in places if place.exists()]
    except (OSError, ValueError):  # no name that a file can have
        return []


def _folders(near: str, folder: Path | None) -> list[str]:
    return [*([str(folder)] if folder else []), *modules.folders(near)]


def found_at(name: str, near: str, folder: Path | None) -> Path:
    """The file or folder that a table names. Raises: DataError: there is none."""
    found = _places(name, near, folder)
    if found:
        return found[0]
    looked = [Path(name)] if Path(name).is_absolute() else [Path(one) / name for one in _folders(near, folder)]
    beside = [path.name for path in looked[0].parent.glob(f"*{Path(name).suffix}")] if looked[0].parent.is_dir() else []
    hint = nearest(Path(name).name, beside)
    raise DataError(
        "no such file", where=near or "[data] use", got=f'"{name}", looked for at {", ".join(dict.fromkeys(map(str, looked)))}',
        outputs=UNTOUCHED, todo=f'did you mean "{hint}"?' if hint else "give its path from the file that names it",
    )  # fmt: skip


def of_object(value: Any, how: Reading, name: str) -> Dataset:
    """A data set from what Python holds. Raises: DataError, ConfigError."""
    return value if isinstance(value, Dataset) else dataset_of(examples_of(value, name, how.split.group, how.stream), how)


def _changed(how: Reading) -> str:
    plain = Reading()
    return ", ".join(name for name in Reading.__dataclass_fields__ if getattr(how, name) != getattr(plain, name)) or "group"
