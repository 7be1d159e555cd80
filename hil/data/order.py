"""The order of examples and their splits: the same on every machine, for ever.

permutation    the stable argsort of a raw PCG64 stream, which numpy promises never to change, keyed by its name
stratified     the same, every class in step: the k-th of n examples of a class stands at (k + 1/2) / n of the way
splits         train, validation, test: the first, the next, the last of that order

[data.split]   validation = 0.1      a share of the examples that are not in a split yet; or a file that is the split
               test = "later.csv"
               group = "patient"     a column: the examples of one group are all in one split
               order = "kept"        nothing is shuffled, as for a series in time
               seed = 1              another draw
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hil import seeding
from hil.errors import UNTOUCHED, ConfigError, DataError
from hil.settings import check

Order = NDArray[np.int64]
Parts = NDArray[np.int8]
PLACE = "[data.split]"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Division:
    """Settings that say how examples are split.

    Args:
        validation: a share of all, or the file that is the validation split.
        test: alike.
        group: the column, or array, that names the group of an example; "": none.
        order: "shuffled", "kept", or None for what the source says.
        seed: of the draw.
    """

    validation: float | str = 0.1
    test: float | str = 0.1
    group: str = ""
    order: Literal["shuffled", "kept"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the shares."""
        check(self, PLACE)
        shares = [one for one in (self.validation, self.test) if not isinstance(one, str)]
        if not all(0 < share < 1 for share in shares) or sum(shares) >= 1:
            raise ConfigError(
                "these shares leave no training split, or an empty one", where=PLACE,
                got=f"validation = {self.validation}, test = {self.test}", allowed="each above 0, together below 1",
                outputs=UNTOUCHED, todo="correct the shares",
            )  # fmt: skip


def permutation(count: int, stream: str) -> Order:
    """The numbers below `count` in an order that `stream` alone decides."""
    return np.argsort(np.random.PCG64(seeding.key(0, 0, stream)).random_raw(count), kind="stable")


def stratified(labels: NDArray[np.integer], classes: int, stream: str) -> Order:
    """A permutation in which the k-th of n examples of a class stands at (k + 1/2) / n of the way."""
    order = permutation(len(labels), stream)
    way = np.empty(len(labels))
    for label in range(classes):
        places = np.flatnonzero(labels[order] == label)
        way[places] = (np.arange(len(places)) + 0.5) / max(len(places), 1)
    return order[np.argsort(way, kind="stable")]


def divided(
    how: Division,
    part: Parts,
    group: NDArray[np.generic] | None,
    labels: NDArray[np.integer] | None,
    kept: bool,
    name: str,
) -> tuple[Order, Order, Order]:
    """Choose which examples, in which order, make the training, the validation and the test split.

    Args:
        how: as the user wants it.
        part: (n,), 1 and 2 for examples that the source itself puts into validation and test, else 0.
        group: (n,), or None.
        labels: (n,) classes, so that every split gets its share of each; None: there are none.
        kept: the order of the source, unless the user wants another one.
        name: of the data, for messages.

    Raises:
        DataError: a split would be empty.
    """
    pool = np.flatnonzero(part == 0)
    given = {split: np.flatnonzero(part == number) for number, split in enumerate(SPLITS) if number}
    shares = {split: getattr(how, split) for split in given if not len(given[split])}
    counts = {split: round(share * len(pool)) for split, share in shares.items() if not isinstance(share, str)}
    stream = f"split {how.seed}" if how.order == "shuffled" or (how.order is None and not kept) else None
    if group is None:
        drawn = _of_examples(pool, None if labels is None else labels[pool], counts, stream)
    else:
        drawn = _of_groups(pool, group[pool], counts, stream)
    found = (drawn["train"], *(drawn[split] if split in counts else given[split] for split in given))
    for split, examples in zip(SPLITS, found, strict=True):
        if not len(examples):
            more = "" if group is None else f" in {len(np.unique(group[pool]))} groups"
            raise DataError(
                f"the {split} split is empty", where=name, got=f"{len(part):,} examples{more}", allowed="at least one example",
                outputs=UNTOUCHED, todo=f"give more examples, or a larger share in {PLACE}",
            )  # fmt: skip
    return found[0], found[1], found[2]


def _of_examples(
    pool: Order, labels: NDArray[np.integer] | None, counts: dict[str, int], stream: str | None
) -> dict[str, Order]:
    if stream is None:
        drawn = np.arange(len(pool))
    elif labels is None:
        drawn = permutation(len(pool), stream)
    else:
        drawn = stratified(labels, int(labels.max(initial=-1)) + 1, stream)
    order, held, last = pool[drawn], counts.get("validation", 0), counts.get("test", 0)
    train = len(order) - held - last
    return {"train": order[:train], "validation": order[train : train + held], "test": order[train + held :]}


def _of_groups(pool: Order, group: NDArray[np.generic], counts: dict[str, int], stream: str | None) -> dict[str, Order]:
    """Whole groups: the last are the test split, the ones before them validation, each at least one and about its share."""
    names, first, which = np.unique(group, return_index=True, return_inverse=True)
    turn = np.argsort(first, kind="stable") if stream is None else permutation(len(names), stream)
    members = [pool[which == number] for number in turn]
    found = {}
    for split in ("test", "validation"):
        taken: list[Order] = []
        while split in counts and members and (not taken or sum(map(len, taken)) + len(members[-1]) / 2 <= counts[split]):
            taken.insert(0, members.pop())
        found[split] = np.concatenate([pool[:0], *taken])
    return {"train": np.concatenate([pool[:0], *members]), **found}
