"""[data] of an experiment file: what the examples are, and how they are split.

[data]         use = "table.csv", target = "species", standardise = true       see hil/data/kinds.py for what may be named
[data.split]   validation = 0.1, test = "later.csv", group = "patient"         see hil/data/order.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from hil.config.read import Section, Table, Using
from hil.config.resolve import blaming

if TYPE_CHECKING:
    from hil.data.examples import Reading
    from hil.data.kinds import Named


class SplitTable(Section, strict=True):
    """[data.split]: how examples of one's own are split; see hil/data/order.py.

    Args:
        validation, test: a share of all, or the file that is the split.
        group: a column, or array: the examples of one group are all in one split.
        order: "kept" as the source has it; left out: shuffled, unless they are a series.
        seed: another draw.
    """

    validation: float | str = 0.1
    test: float | str = 0.1
    group: str = ""
    order: Literal["shuffled", "kept"] | None = None
    seed: int = 0


class Data(Using):
    """[data]: the data set, and how much of it is used; the other keys are settings of what `use` names.

    Args:
        use: a name, a file, a folder or "module:function"; see hil/data/kinds.py.
        dir: where its files are; left out, of a published set: a cache folder, downloaded once.
        train_examples: so many of the training split; left out: all.
        targets: what they are; left out: text and whole numbers are classes, other numbers are numbers.
        classes: names of the classes, in order; left out: those that occur, sorted.
        shape: of an example, as [1, 28, 28], with time [10, 2, 28, 28]; left out: as the source has it.
        sequence: the first axis of an example is time, and stays; of an image of a published set, each row is a step.
        standardise: every input gets mean 0 and standard deviation 1 over the training split.
        stream: read examples when they are wanted; left out: if the memory cannot hold them.
        split: how the examples are split; a published set comes with its splits.
        checksum: of its content; another content is refused. A run writes it down.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)
    use: str = "digits"
    dir: str | None = None
    train_examples: Annotated[int, Field(gt=0)] | None = None
    targets: Literal["auto", "classes", "numbers"] | None = None
    classes: list[str] | None = None
    shape: list[int] | None = None
    sequence: bool | None = None
    standardise: bool | None = None
    stream: bool | None = None
    split: SplitTable | None = None
    checksum: str | None = None
    _named: Named | None = PrivateAttr(default=None)

    def settle(self, place: str) -> None:
        """Find what `use` names and check all settings; nothing is read yet."""
        from hil.data.kinds import named  # imports torch, and a command that only reads a bench needs none of it

        Table.settle(self, place)
        with blaming(place):
            self._named = named(self.use, self.settings(), place, Path(self.dir) if self.dir else None)
            self.reading()

    @property
    def named(self) -> Named:
        """The source that `use` names, its settings checked."""
        assert self._named is not None, "only a table of a file that was read knows its data"
        return self._named

    def reading(self) -> Reading:
        """Return what is done with the examples. Raises: ConfigError."""
        from hil.data.examples import Reading
        from hil.data.order import Division

        division = Division() if self.split is None else Division(**self.split.model_dump())
        lists, flags = (tuple(self.classes or ()), tuple(self.shape or ())), (bool(self.sequence), bool(self.standardise))
        return Reading(self.targets or "auto", *lists, *flags, self.stream, division)
