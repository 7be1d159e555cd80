"""The bytes of a data set: shipped in the package, lying in a folder, or downloaded once from a mirror.

A file is known by the SHA-256 of its uncompressed bytes. Whether it is gzipped is told by its first two bytes, 1f 8b
(RFC 1952), not by its name; neither an IDX file nor a CIFAR-10 batch can begin with them.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import re
import tarfile
import tempfile
import zlib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from hil.data.sources import Card
from hil.errors import DataError
from hil.files import read_bytes

DOWNLOAD_TIMEOUT_S = 30.0
IDX_NAME = re.compile("(train|t10k|test)(images|labels)(?:idx[13]?)?(?:ubyte|bin)?")


class Content(NamedTuple):
    """The uncompressed bytes of a file, and where they came from."""

    data: bytes
    where: str


def home() -> Path:
    """The folder that keeps data sets: $HIL_DATA, or a cache folder of the user."""
    import pooch

    chosen = os.environ.get("HIL_DATA")
    return Path(chosen) if chosen else Path(pooch.os_cache("hil"))


def shipped(card: Card) -> dict[str, Content]:
    """The one file that comes with the package, by its name in `card.sums`."""
    packed = files("hil.data").joinpath("digits.csv.gz")
    return {name: Content(_unzipped(packed.read_bytes(), str(packed)), str(packed)) for name in card.sums}


def contents_of(card: Card, folder: Path | None) -> dict[str, Content]:
    """Return all files of a card, by their names in `card.sums`; from `folder` only, or from `home()`, then the mirrors.

    Raises:
        DataError: files are missing, unreadable, damaged, or no mirror has them.
    """
    root = home() if folder is None else folder
    found = _found(card, root)
    if folder is None and len(found) < len(card.sums):
        _download(card, root / card.name, [name for name in card.sums if name not in found])
        found = _found(card, root)
    missing = [name for name in card.sums if name not in found]
    pickled = next((place / name for place in _places(card, root) for name in card.pickles if (place / name).exists()), None)
    if missing and pickled is not None:
        raise DataError(
            f"this is the Python version of {card.name}; its files are pickles, which can run any program, and are not read",
            where=str(pickled), got=pickled.name, allowed=f"the binary version: {card.archive}, packed or unpacked",
            todo=f"get {card.mirrors[0]} into {root}, or leave out [data] dir to have it downloaded once",
        )  # fmt: skip
    if missing:
        raise DataError(
            f"{len(missing)} of {len(card.sums)} files of {card.name} are missing",
            where=str(root),
            got=f"no {missing[0]}",
            allowed=f"in this folder or in {card.name}/, plain or .gz" + (f", or {card.archive}" if card.archive else ""),
            todo=f"put them there, or leave out [data] dir to have them downloaded once (from {card.mirrors[0]})",
        )
    return found


def _found(card: Card, root: Path) -> dict[str, Content]:
    """The files of a card that lie under `root`, by name."""
    places = _places(card, root)
    for place in places:
        if card.archive and (place / card.archive).is_file():
            return _members(card, place / card.archive)
    there = [path for place in places for path in _listed(place) if path.is_file()]
    found = {}
    for name in card.sums:
        if of_it := [path for path in there if _plain(path.name) == _plain(name)]:
            found[name] = _content(of_it[0])
    return found


def _places(card: Card, root: Path) -> list[Path]:
    """List folders in which a card's files may lie, the nearest to its own name first.

    These are its own, `root`, those of torchvision (MNIST/raw, FashionMNIST/raw), of an archive that was unpacked, and of
    Kaggle, which gives each file a folder.
    """
    own = [path for path in _listed(root) if path.is_dir() and _plain(path.name) == _plain(card.name)]
    places = [*own, root]
    inside = [place / name for place in places for name in ("raw", card.folder) if name]
    names = {_plain(name) for name in card.sums}
    single = [path for place in places for path in _listed(place) if path.is_dir() and _plain(path.name) in names]
    return [place for place in (*places, *inside, *single) if place.is_dir()]


def _listed(folder: Path) -> list[Path]:
    """List the content of a folder, a file before its .gz; nothing if it cannot be read."""
    try:
        return sorted(folder.iterdir(), key=lambda path: (path.suffix == ".gz", path.name))
    except OSError:
        return []


def _plain(name: str) -> str:
    """One text for all spellings of a file or a folder: "train-images.idx3-ubyte.gz" and "Train_Images_IDX3_UByte" are one."""
    letters = "".join(c for c in name.lower().removesuffix(".gz") if c.isalnum())
    idx = IDX_NAME.fullmatch(letters)
    return letters if idx is None else f"{'t10k' if idx[1] == 'test' else idx[1]}{idx[2]}"


def _content(path: Path) -> Content:
    return Content(_unzipped(read_bytes(path, error=DataError), str(path)), str(path))


def _unzipped(data: bytes, where: str) -> bytes:
    """Known by its first bytes, not by its name: neither IDX nor CIFAR-10 can begin as gzip does."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged("a damaged or truncated gzip file", where, f"{len(data):,} bytes: {error}", "a whole one") from error


def _members(card: Card, archive: Path) -> dict[str, Content]:
    """Read from the archive in memory; nothing is unpacked on disk."""
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name, source = Path(member.name).name, tar.extractfile(member)
                if name in card.sums and source is not None:
                    found[name] = Content(source.read(), f"{archive}: {name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise damaged("a damaged or truncated archive", str(archive), str(error), "a whole .tar.gz") from error
    return found


def _download(card: Card, folder: Path, missing: list[str]) -> None:
    """Fetch what is missing from the first mirror that has it right; a file gets its name only after its sum was checked."""
    for name in [card.archive] if card.archive else missing:
        tried: list[str] = []
        if not any(_fetched(card, folder, name, mirror, tried) for mirror in card.mirrors):
            raise DataError(
                f"{name} could not be downloaded",
                where=card.name,
                got="; ".join(tried),
                todo=f"get it by other means, put it into {folder}, or name its folder in [data] dir",
            )


def _fetched(card: Card, folder: Path, name: str, mirror: str, tried: list[str]) -> bool:
    import pooch

    url = mirror if card.archive else f"{mirror}{name}.gz"
    target = folder / (name if card.archive else f"{name}.gz")
    logging.getLogger(__name__).warning("downloading %s into %s", url, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
            fresh = Path(part) / target.name
            pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT_S)(url, str(fresh), None)
            contents = _members(card, fresh) if card.archive else {name: _content(fresh)}
            for member in card.sums if card.archive else [name]:
                check_sum(contents.get(member, Content(b"", f"{fresh.name}: no {member}")), card.sums[member])
            fresh.replace(target)
    except (OSError, DataError) as error:  # requests raises OSErrors
        tried.append(f"{url}: {error.what if isinstance(error, DataError) else error}")
        return False
    return True


def check_sum(content: Content, expected: str) -> str:
    """The SHA-256 of the content, or DataError if it is not the expected one."""
    got = hashlib.sha256(content.data).hexdigest()
    if got != expected:
        raise damaged("the content is not the published one", content.where, f"SHA-256 {got}", expected)
    return got


def damaged(fault: str, where: str, got: str, allowed: str) -> DataError:
    """The error of a file that is there, and wrong."""
    return DataError(fault, where=where, got=got, allowed=allowed, todo="remove this file and get it again")
