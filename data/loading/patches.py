"""Photographs -> patches.

A patch is the square around a person's box with margin for the augmentations in use, in the photograph's own
pixels or in fewer; `Windows` has where it lies and how large it is.
"""

import hashlib
from pathlib import Path

import numpy as np
import PIL
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torch.utils.data import Dataset

from data import DataError
from data.crops import PersonBatch
from data.loading.cache import PatchFile, PatchMemory
from data.loading.decoding import decode
from data.loading.photographs import UNREADABLE, map_files, read_end
from data.loading.windows import Windows
from data.people import People

VERSION = 3  # of a patch's pixels and of the cache's files: raise it with each change of them


def read_patch(
    path: Path,
    shrink: int,
    corner: np.ndarray,
    length: int,
    patch: np.ndarray,
    upright: bool = False,
    size: tuple[int, int] = (0, 0),
) -> int:
    """Read one person's patch from the window that `shrink`, `corner` and `length` describe, see `Windows`.

    path: the photograph. patch: u8 [side, side, 3], black; receives the pixels in RGB, and stays black beyond
    the photograph. upright, size: whether it is turned, see `decode`.

    Returns:
        The photograph's width in px.

    Raises:
        `UNREADABLE`: the file is missing or is not a complete photograph.
        DataError: the photograph does not have the annotation file's size.
    """
    photo, width = decode(path, shrink, upright, size)
    resampled = len(patch) < length
    window = np.zeros((length, length, 3), dtype=np.uint8) if resampled else patch
    (left, top), (right, lower) = corner, corner + length
    seen = photo[max(0, top) : max(0, lower), max(0, left) : max(0, right)]
    rows, columns = seen.shape[:2]
    window[max(0, -top) :, max(0, -left) :][:rows, :columns] = seen
    if resampled:
        # PyTorch resizes bytes several times as fast as Pillow. `[None]` is the tensor's: NumPy's has
        # a stride of 0, with which the result would not be in channels_last, and slow to copy.
        pixels = torch.from_numpy(window)[None].permute(0, 3, 1, 2)
        pixels = F.interpolate(pixels, patch.shape[:2], mode="bicubic", antialias=True)
        patch[:] = pixels[0].permute(1, 2, 0).numpy()
    return width


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
    px. margin: see `data.augmentation.MARGINS`. upright: see `decode`. cache: has the same patches,
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
        self.in_res, self.margin = in_res, margin
        self.windows = Windows.of(people.center, people.scale, margin, in_res)

    def __len__(self) -> int:
        return len(self.people)

    @property
    def fingerprint(self) -> str:
        """8 hexadecimal digits that say what the pixels follow from: people, photographs, sides and decoders.

        A photograph counts by its path below the root, its size, its modification time and its last KB, since
        another one can have the same size and time.
        """
        decoders = (VERSION, PIL.__version__, torch.__version__, torchvision.__version__)
        what = (*decoders, self.people.fingerprint, self.in_res, self.margin, self.upright)
        digest = hashlib.sha256(repr(what).encode())
        digest.update(np.ascontiguousarray(self.people.size))
        images = dict.fromkeys(self.people.image.tolist())
        for state in map_files(lambda image: _state(self.root / image), images):
            digest.update(state)
        return digest.hexdigest()[:8]

    def __getitem__(self, rows: list[int]) -> PersonBatch | DataError:
        index = np.asarray(rows)
        people, windows = self.people[index], self.windows[index]
        try:
            read = self._decode if self.cache is None else self.cache.read
            patch, width = read(rows)
        except DataError as error:
            return error
        return PersonBatch(
            patch=patch.permute(0, 3, 1, 2),
            box=torch.from_numpy(windows.box),
            center=torch.from_numpy(people.center),
            scale=torch.from_numpy(people.scale),
            points=torch.from_numpy(people.points),
            normalizer=torch.from_numpy(people.normalizer),
            width=width,
            index=torch.from_numpy(index),
            margin=self.margin,
        )

    def _decode(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Patches u8 [N, P, P, 3] and photographs' widths f32 [N] px of the people in `rows`."""
        windows = self.windows[np.asarray(rows)]
        patch = np.zeros((len(rows), *2 * [windows.side.max()], 3), dtype=np.uint8)
        width = np.empty(len(rows), dtype=np.float32)
        for k, (row, side) in enumerate(zip(rows, windows.side, strict=True)):
            path, part = self.root / self.people.image[row], patch[k, :side, :side]
            window = (int(windows.shrink[k]), windows.corner[k], int(windows.length[k]))
            try:
                size = tuple(self.people.size[row].tolist())
                width[k] = read_patch(path, *window, part, self.upright, size)
            except UNREADABLE as error:
                reason = " ".join(str(error).split())
                expected = f"expected a complete photograph ({reason})"
                raise DataError(
                    f"{path}: the photograph of person {row} cannot be decoded: {expected}"
                ) from error
        return torch.from_numpy(patch), torch.from_numpy(width)
