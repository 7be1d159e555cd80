"""Images in folders by class, as hil/data/class_folder.py lists them.

An example is (1, rows, columns) if the images are grey, (3, rows, columns) if they are coloured, with values from 0 to 1. All
have the size of the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.data.class_folder import listed
from hil.data.examples import Examples
from hil.data.order import Order
from hil.errors import UNTOUCHED, DataError
from hil.files import opened
from hil.settings import check

SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".pbm")
GREY = {"1": 1.0, "L": 255.0, "I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0}  # mode of Pillow -> the value of white


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A folder of images by class.

    Args:
        colour: three channels or one; None: as the first image has it, and then all must.
    """

    colour: bool | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check(self, "[data]")

    def examples(self, path: Path, group: str = "") -> Examples:
        """List the folder; the images are read when they are wanted.

        Args:
            path: of the folder.
            group: refused, an image has none.

        Raises:
            DataError: naming the file.
        """
        found = listed(path, SUFFIXES, "image", group)
        files = [file for file, _, _ in found]
        first = image_of(_opened(files[0]), self.colour, str(files[0]))
        colour = first.shape[0] == 3

        def read(which: Order) -> NDArray[np.float32]:
            return np.stack([self._read(files[number], colour, first.shape) for number in which.tolist()])

        return Examples(
            path.name, first.shape, read, np.array([label for _, label, _ in found]), lambda row: str(files[row]), str(path),
            np.array([part for _, _, part in found], np.int8), stored=True,
        )  # fmt: skip

    def _read(self, file: Path, colour: bool, shape: tuple[int, ...]) -> NDArray[np.float32]:
        image = _opened(file)
        if self.colour is None and (image.mode not in GREY) != colour:
            raise DataError(
                "grey and coloured images", where=str(file), got=f"mode {image.mode}", outputs=UNTOUCHED,
                allowed="coloured as the first image" if colour else "grey as the first image",
                todo="write colour = false in [data] to have all grey, or colour = true",
            )  # fmt: skip
        found = image_of(image, colour, str(file))
        if found.shape != shape:
            raise DataError(
                "an image of another size", where=str(file), got=f"{found.shape[1]} x {found.shape[2]} (rows x columns)",
                allowed=f"{shape[1]} x {shape[2]}, as the first image has", outputs=UNTOUCHED, todo="bring all to one size",
            )  # fmt: skip
        return found


def image_of(image: Any, colour: bool | None, where: str) -> NDArray[np.float32]:
    """An image of Pillow -> float32 (channels, rows, columns), from 0 to 1.

    Args:
        image: of Pillow.
        colour: three channels or one; None: as the image has it.
        where: its file.

    Raises:
        DataError: it is damaged, or of a kind that has no fixed white.
    """
    try:
        if image.mode in ("I", "F"):
            raise DataError(
                "an image without a largest value", where=where, got=f"mode {image.mode}", outputs=UNTOUCHED,
                allowed="8 or 16 bits", todo="save it with 8 or 16 bits, or as an array in a .npz file",
            )  # fmt: skip
        colour = image.mode not in GREY if colour is None else colour
        if colour:
            return np.moveaxis(np.asarray(image.convert("RGB"), np.float32) / np.float32(255), 2, 0)
        plain = image if image.mode in GREY else image.convert("L")
        return np.asarray(plain, np.float32)[None] / np.float32(GREY[plain.mode])
    except (OSError, ValueError, SyntaxError) as error:
        raise _damaged(where, str(error)) from error


def _opened(file: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    with opened(file, DataError) as stream:
        try:
            image = Image.open(stream)
            image.load()
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
            raise _damaged(str(file), str(error)) from error
    return image


def _damaged(where: str, got: str) -> DataError:
    return DataError(
        "not an image, or a damaged one", where=where, got=got[:200], allowed=", ".join(SUFFIXES), outputs=UNTOUCHED,
        todo="replace it, or take it out",
    )  # fmt: skip
