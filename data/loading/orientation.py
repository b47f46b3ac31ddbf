"""Photographs that their camera stored turned or mirrored, as the orientation tag (EXIF) tells.

Patches are cut from the stored pixels and then turned: reduced decoding and resampling need not know of it.
"""

import numpy as np
from PIL import ExifTags, Image

from data import DataError
from data.loading.photographs import UNREADABLE

# Of the orientations 1 to 8: which mirror the stored columns or rows, and which then exchange both.
_MIRROR_X, _MIRROR_Y, _TRANSPOSE = (2, 3, 7, 8), (3, 4, 6, 7), (5, 6, 7, 8)
AS_STORED = 1


def exif_orientation(photo: Image.Image) -> int:
    """The orientation tag of a photograph that is not yet decoded, 1 to 8; 1 where it has none.

    A TIFF's is 1: Pillow itself decodes it upright.
    """
    if "exif" not in photo.info:  # asking a PNG for what it lacks decodes it
        return AS_STORED
    try:
        orientation = photo.getexif().get(ExifTags.Base.Orientation)
    except UNREADABLE:  # of the tags: the pixels may be good
        return AS_STORED
    return orientation if orientation in range(1, 9) else AS_STORED


def fitting_orientation(photo: Image.Image, size: tuple[int, int]) -> int:
    """The orientation to turn a photograph by, so that it has the annotation file's size.

    As stored if that fits, or where the file gives no size, 0; as its orientation tag says if only that fits.

    Raises:
        DataError: neither fits.
    """
    width, height = size
    if not (width and height) or photo.size == (width, height):
        return AS_STORED
    orientation = exif_orientation(photo)
    if upright_size(photo.size, orientation) != (width, height):
        stored = "{} x {} px".format(*photo.size)
        raise DataError(f"{photo.filename} has {stored}, but the annotation file gives {width} x {height} px")
    return orientation


def upright_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a photograph after it is turned."""
    return stored[::-1] if orientation in _TRANSPOSE else stored


def stored_point(point: np.ndarray, stored: tuple[int, int], orientation: int) -> list[float]:
    """Where a point (x, y) px of the upright photograph lies in the stored one of `stored` px."""
    x, y = point[::-1] if orientation in _TRANSPOSE else point
    width, height = stored
    return [
        width - float(x) if orientation in _MIRROR_X else float(x),
        height - float(y) if orientation in _MIRROR_Y else float(y),
    ]


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, 3] turned upright: a view."""
    pixels = pixels[:, ::-1] if orientation in _MIRROR_X else pixels
    pixels = pixels[::-1] if orientation in _MIRROR_Y else pixels
    return pixels.swapaxes(0, 1) if orientation in _TRANSPOSE else pixels
