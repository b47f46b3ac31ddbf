"""Photographs of every kind -> RGB, and what many of them can be told by without decoding them."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

UNREADABLE = (OSError, ValueError, OverflowError, SyntaxError, Image.DecompressionBombError)
"""What opening, decoding and `to_rgb` raise for a file that is missing or is not a complete photograph."""

Item = TypeVar("Item")
Result = TypeVar("Result")
END = 1024  # bytes of a file that `read_end` reads
AT_ONCE = 16  # files that are read together, since those of a network disk are mostly waited for
WHITE_16 = 65535
WHITES = {"I": (255, WHITE_16), "F": (1, 255, WHITE_16)}
"""What 32-bit grey calls white, of integers and of floats: a file does not say which."""


@contextmanager
def open_lazily(path: Path) -> Iterator[Image.Image]:
    """The photograph in a file as it is stored, not yet decoded.

    Raises:
        `UNREADABLE`: the file is missing or is not a photograph.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, not too large
        photo = Image.open(path)
    with photo:
        yield photo


def to_rgb(photo: Image.Image) -> Image.Image:
    """A photograph of any mode in RGB, 8 bits a channel.

    Of 16-bit grey 65535 is white; of 32-bit grey it is the least of `WHITES` that no pixel exceeds.
    Transparent pixels are black, as what lies beyond a photograph is.

    Raises:
        `UNREADABLE`: it does not decode, its 32-bit values are negative, above 65535 or no numbers, or its
        colors have no RGB.
    """
    if photo.mode.startswith("I;16"):
        return _grey(np.asarray(photo), WHITE_16)
    if photo.mode in WHITES:
        values = np.asarray(photo)
        low, high = values.min(), values.max()
        if not 0 <= low <= high <= WHITE_16:
            raise ValueError(f"grey values from {low:g} to {high:g}, expected 0 to 1, 255 or 65535")
        return _grey(values, next(white for white in WHITES[photo.mode] if high <= white))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "black"), photo)
    photo.load()
    return photo if photo.mode == "RGB" else photo.convert("RGB")


def read_end(path: Path) -> tuple[int, int, bytes]:
    """Size in bytes, modification time in ns and the last KB of a file.

    Raises:
        OSError: it is missing or cannot be read. ValueError: no file can have such a name.
    """
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        file.seek(max(0, status.st_size - END))
        return status.st_size, status.st_mtime_ns, file.read(END)


def map_files(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What a function that reads files returns for each item, computed in threads."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, items))


def _grey(values: np.ndarray, white: int) -> Image.Image:
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8)).convert("RGB")
