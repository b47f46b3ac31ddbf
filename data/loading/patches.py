"""Photographs -> patches.

A patch is the square around a person's box with margin for the augmentations in use, resampled once, with
anti-aliasing, to a fixed size.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data import DataError
from data.crops import PersonBatch
from data.geometry import PIXELS_PER_SCALE
from data.loading.cache import PatchFile, PatchMemory
from data.loading.orientation import (
    exif_orientation,
    fitting_orientation,
    stored_point,
    turn_upright,
    upright_size,
)
from data.loading.photographs import UNREADABLE, map_files, open_lazily, read_end, to_rgb
from data.people import People

DENSITY = 1.25  # patch px per px of the un-augmented crop: what zooming in can still resolve
RIM = 1  # px of a patch on every side beyond the farthest crops: what bilinear sampling sees there
FILTER_REACH = 4  # px of the decoded photograph that the resampling filter sees beyond the patch, at most
VERSION = 2  # of a patch's pixels and of the cache's files: raise it with each change of them


def patch_res(in_res: int, margin: float) -> int:
    """Side of a patch in px, with its rim, for crops of `in_res` px that reach over `margin` box sides."""
    return math.ceil(DENSITY * margin * in_res) + 2 * RIM


def read_patch(
    path: Path,
    center: np.ndarray,
    scale: float,
    margin: float,
    res: int,
    upright: bool = False,
    size: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, int]:
    """One person's patch.

    Args:
        path: the photograph. center: [2] px. scale: box side / 200 px. margin: patch side / box side.
        res: patch side in px. upright: turn the photograph as its EXIF orientation says; else it is only
        turned if the annotation file's `size` requires it, see `fitting_orientation`.

    Returns:
        (u8 [res, res, 3] RGB, black beyond the photograph; the photograph's width in px).

    Raises:
        `UNREADABLE`: the file is missing or is not a complete photograph, or the box is absurd.
        DataError: the photograph does not have the annotation file's size.
    """
    side = margin * PIXELS_PER_SCALE * float(scale)
    with open_lazily(path) as photo:
        orientation = exif_orientation(photo) if upright else fitting_orientation(photo, size)
        center = stored_point(center, photo.size, orientation)
        width, height = photo.size
        # A JPEG decodes straight to a half, quarter or eighth: never to less than the patch needs.
        draft = photo.draft("RGB", (math.ceil(width * res / side), math.ceil(height * res / side)))
        photo = to_rgb(photo)
    zoom = 1.0 if draft is None else draft[1][2] / width  # decoded px per px of the photograph
    shrink = int(side * zoom / res)
    if shrink >= 2:
        photo, zoom = photo.reduce(shrink), zoom / shrink
    photo = _fade_cut_pixels(photo, width * zoom, height * zoom)

    patch = np.zeros((res, res, 3), dtype=np.uint8)
    step = side * zoom / res  # decoded px per px of the patch
    start = [middle * zoom - side * zoom / 2 for middle in center]
    # Only what the photograph covers is resampled: beyond the filter's reach of it all is black.
    first = [max(0, math.floor((-FILTER_REACH - left) / step)) for left in start]
    last = [
        min(res, math.ceil((length + FILTER_REACH - left) / step))
        for left, length in zip(start, photo.size, strict=True)
    ]
    if first[0] < last[0] and first[1] < last[1]:
        left, top = (edge + step * k for edge, k in zip(start, first, strict=True))
        right, bottom = (edge + step * k for edge, k in zip(start, last, strict=True))
        x, y = math.floor(left) - FILTER_REACH, math.floor(top) - FILTER_REACH
        window = photo.crop((x, y, math.ceil(right) + FILTER_REACH, math.ceil(bottom) + FILTER_REACH))
        covered = window.resize(
            (last[0] - first[0], last[1] - first[1]),
            Image.Resampling.BICUBIC,
            box=(left - x, top - y, right - x, bottom - y),
        )
        patch[first[1] : last[1], first[0] : last[0]] = covered
    return turn_upright(patch, orientation), upright_size((width, height), orientation)[0]


def _fade_cut_pixels(photo: Image.Image, width: float, height: float) -> Image.Image:
    """A photograph decoded small, darker where its last pixels lie partly beyond `width` or `height` px."""
    across, down = width - (photo.width - 1), height - (photo.height - 1)
    if across == down == 1:
        return photo
    pixels = np.array(photo)
    pixels[:, -1] = np.rint(pixels[:, -1] * across)
    pixels[-1] = np.rint(pixels[-1] * down)
    return Image.fromarray(pixels)


def _state(path: Path) -> bytes:
    try:
        size, modified, end = read_end(path)
    except OSError:  # where it cannot be read it does not decode either, which says so
        return b""
    return f" {size} {modified} ".encode() + end


class Patches(Dataset):
    """The patches of a table of people, a whole batch at an index.

    An index is a list of rows and the item a `PersonBatch`, or the `DataError` that says which photograph
    does not decode: returned, since a worker process would bury it in a traceback; `PatchLoader` raises it.

    people, root: the table, and the folder its photographs' paths start from. in_res: side of the crops in
    px. margin: see `data.augmentation.MARGINS`. upright: see `read_patch`. cache: has the same patches,
    decoded.
    """

    def __init__(
        self,
        people: People,
        root: Path,
        in_res: int,
        margin: float,
        upright: bool = False,
        cache: PatchFile | PatchMemory | None = None,
    ) -> None:
        self.people, self.root, self.upright, self.cache = people, root, upright, cache
        self.res = patch_res(in_res, margin)
        self.margin = margin * self.res / (self.res - 2 * RIM)

    def __len__(self) -> int:
        return len(self.people)

    @property
    def fingerprint(self) -> str:
        """8 hexadecimal digits that say what the pixels follow from: people, photographs, sides and decoder.

        A photograph counts by its path below the root, its size, its modification time and its last KB, since
        another one can have the same size and time.
        """
        what = (VERSION, PIL.__version__, self.people.fingerprint, self.res, self.margin, self.upright)
        digest = hashlib.sha256(repr(what).encode())
        digest.update(np.ascontiguousarray(self.people.size))
        images = dict.fromkeys(self.people.image.tolist())
        for state in map_files(lambda image: _state(self.root / image), images):
            digest.update(state)
        return digest.hexdigest()[:8]

    def __getitem__(self, rows: list[int]) -> PersonBatch | DataError:
        people = self.people[np.asarray(rows)]
        try:
            patch, width = self._decode(rows, people) if self.cache is None else self.cache.read(rows)
        except DataError as error:
            return error
        return PersonBatch(
            patch=patch.permute(0, 3, 1, 2),
            center=torch.from_numpy(people.center),
            scale=torch.from_numpy(people.scale),
            points=torch.from_numpy(people.points),
            normalizer=torch.from_numpy(people.normalizer),
            width=width,
            index=torch.tensor(rows),
            margin=self.margin,
        )

    def _decode(self, rows: list[int], people: People) -> tuple[Tensor, Tensor]:
        """Patches u8 [N, P, P, 3] and photographs' widths f32 [N] px of these rows, the `people`."""
        patch = np.empty((len(rows), self.res, self.res, 3), dtype=np.uint8)
        width = np.empty(len(rows), dtype=np.float32)
        for k, row in enumerate(rows):
            path = self.root / people.image[k]
            try:
                patch[k], width[k] = read_patch(
                    path,
                    people.center[k],
                    people.scale[k],
                    self.margin,
                    self.res,
                    self.upright,
                    tuple(people.size[k].tolist()),
                )
            except UNREADABLE as error:
                reason = " ".join(str(error).split())
                expected = f"expected a complete photograph ({reason})"
                raise DataError(
                    f"{path}: the photograph of person {row} cannot be decoded: {expected}"
                ) from error
        return torch.from_numpy(patch), torch.from_numpy(width)
