"""A photograph's file -> its pixels, upright, shrunk, as quickly as the decoders of JPEG can."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import io

from data.loading.orientation import (
    AS_STORED,
    exif_orientation,
    fitting_orientation,
    turn_upright,
    upright_size,
)
from data.loading.photographs import open_lazily, to_rgb


def decode(
    path: Path, shrink: int = 1, upright: bool = False, size: tuple[int, int] = (0, 0)
) -> tuple[np.ndarray, int]:
    """A photograph in RGB, shrunk by a power of two.

    A pixel of the shrunk photograph is the mean of `shrink` x `shrink` pixels. One of the last column or row
    that lies partly beyond the photograph is darker, since what is beyond is black.

    upright: turn the photograph as its EXIF orientation says; else it is only turned if the annotation file's
    `size` requires it, see `fitting_orientation`.

    Returns:
        (u8 [H, W, 3]; the width of the photograph before it was shrunk, px).

    Raises:
        `UNREADABLE`: the file is missing or is not a complete photograph.
        DataError: the photograph does not have the annotation file's size.
    """
    with open_lazily(path) as photo:
        orientation = exif_orientation(photo) if upright else fitting_orientation(photo, size)
        width, height = upright_size(photo.size, orientation)
        pixels = draft = None
        if shrink == 1 and photo.format == "JPEG" and photo.mode == "RGB" and hasattr(io, "decode_jpeg"):
            # The same pixels as Pillow's, quicker; what fails here fails there with a reason. torchvision
            # has announced that it will be removed.
            photo.fp.seek(0)
            with suppress(RuntimeError):
                stored = torch.from_numpy(np.fromfile(photo.fp, dtype=np.uint8))
                pixels = io.decode_jpeg(stored).permute(1, 2, 0).numpy()
        elif orientation == AS_STORED:  # a JPEG decodes straight to a half, quarter or eighth
            draft = photo.draft("RGB", (max(1, width // shrink), max(1, height // shrink)))
        if pixels is None:
            pixels = np.asarray(to_rgb(photo))
    pixels = turn_upright(pixels, orientation)
    rest = shrink if draft is None else round(shrink * draft[1][2] / width)
    if rest > 1:
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(rest))
    return pixels if shrink == 1 else _fade_cut_pixels(pixels, width / shrink, height / shrink), width


def _fade_cut_pixels(pixels: np.ndarray, width: float, height: float) -> np.ndarray:
    """A shrunk photograph, darker where its last pixels lie partly beyond `width` or `height` px."""
    beyond = (pixels.shape[1] - width, pixels.shape[0] - height)
    if any(beyond):
        pixels = np.array(pixels)
        for last, share in zip((pixels[:, -1], pixels[-1]), beyond, strict=True):
            last[:] = np.rint(last * (1 - share))
    return pixels
