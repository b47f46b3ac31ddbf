"""Photographs that are stored turned or mirrored, according to their EXIF orientation.

Pixels are turned after they are decoded and before anything else sees them.
"""

import numpy as np
from PIL import ExifTags, Image

from data import DataError
from data.loading.photographs import UNREADABLE

# Orientations (1 to 8) that mirror the stored columns, or the rows, and those that then exchange the two.
_MIRROR_X, _MIRROR_Y, _TRANSPOSE = (2, 3, 7, 8), (3, 4, 6, 7), (5, 6, 7, 8)
AS_STORED = 1


def exif_orientation(photo: Image.Image) -> int:
    """The EXIF orientation of a photograph that is not decoded yet, 1 to 8; 1 without such a tag.

    TIFF files give 1, since Pillow decodes them upright.
    """
    if "exif" not in photo.info:  # `getexif` would decode a PNG without the tag
        return AS_STORED
    try:
        orientation = photo.getexif().get(ExifTags.Base.Orientation)
    except UNREADABLE:  # of the tags: the pixels may be good
        return AS_STORED
    return orientation if orientation in range(1, 9) else AS_STORED


def fitting_orientation(photo: Image.Image, size: tuple[int, int]) -> int:
    """The orientation with which a photograph has the annotation file's size (0: the file gives none).

    `AS_STORED` if that fits or there is no size; the photograph's EXIF orientation if only that fits.

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


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, 3] turned upright: a view."""
    pixels = pixels[:, ::-1] if orientation in _MIRROR_X else pixels
    pixels = pixels[::-1] if orientation in _MIRROR_Y else pixels
    return pixels.swapaxes(0, 1) if orientation in _TRANSPOSE else pixels
