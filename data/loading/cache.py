"""Caches of decoded patches: in a file, or on the training device.

Both return patches u8 [N, P, P, 3] and the widths of the photographs f32 [N] px for rows of the table of
people, bit for bit as decoded.
"""

import io
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from data import DataError
from data.crops import PersonBatch


class PatchFile:
    """The patches of all people of a table, in a file of three consecutive .npy arrays.

    They are the patches u8 [N, P, P, 3], the widths <f4 [N] and the checksums <u4 [N], CRC-32 of each patch
    and its width; `np.load(path, mmap_mode="r")` returns the first. Batches are read, not memory-mapped,
    since a mapped file that is truncated would crash the process.

    path: the file, whose name must identify its content. people, res: N and P. size: of the file in bytes.
    """

    def __init__(self, path: Path, people: int, res: int) -> None:
        self.path, self.shape = path, (people, res, res, 3)
        self._patches_head = _head("|u1", self.shape)
        self._widths_head, self._sums_head = _head("<f4", (people,)), _head("<u4", (people,))
        self._patch_size = 3 * res * res
        self._widths_start = len(self._patches_head) + people * self._patch_size
        self._sums_start = self._widths_start + len(self._widths_head) + 4 * people
        self.size = self._sums_start + len(self._sums_head) + 4 * people
        self._widths = self._sums = np.empty(0)

    def write(self, file: BinaryIO, batches: Iterable[PersonBatch]) -> None:
        """Write to an open, empty file; the batches hold all people once, in order, on the CPU."""
        file.write(self._patches_head)
        widths, sums = [], []
        for people in batches:
            patch = people.patch.permute(0, 2, 3, 1).contiguous().numpy()
            file.write(patch)
            widths.extend(people.width.tolist())
            sums.extend(map(_checksum, patch, people.width.tolist()))
        for head, values, dtype in ((self._widths_head, widths, "<f4"), (self._sums_head, sums, "<u4")):
            file.write(head)
            file.write(np.array(values, dtype))

    def open(self) -> None:
        """Check that the file is complete and has this shape; required before the first `read`.

        Raises:
            DataError: it is incomplete, has another shape, or cannot be read.
        """
        with self._opened() as file:
            size = os.fstat(file.fileno()).st_size
            fits = size == self.size and file.read(len(self._patches_head)) == self._patches_head
            file.seek(self._widths_start)
            columns = file.read(self.size - self._widths_start)
        sums = self._sums_start - self._widths_start
        fits &= columns.startswith(self._widths_head) and columns.startswith(self._sums_head, sums)
        if not fits:
            expected = f"expected {self.size} bytes with {self.shape[0]} patches of {self.shape[1]} px"
            raise DataError(f"{self.path} is not a complete cache ({size} bytes, {expected}): delete it")
        self._widths = np.frombuffer(columns, "<f4", self.shape[0], len(self._widths_head))
        self._sums = np.frombuffer(columns, "<u4", self.shape[0], sums + len(self._sums_head))

    def read(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Patches and widths of the people in `rows`, on the CPU.

        Raises:
            DataError: the file was deleted or truncated since it was opened, or a checksum is wrong.
        """
        patch = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        with self._opened() as file:
            for one, row in zip(patch, rows, strict=True):
                file.seek(len(self._patches_head) + row * self._patch_size)
                if file.readinto(one) < self._patch_size:
                    raise DataError(f"{self.path} was truncated while it was in use: delete it")
                if _checksum(one, self._widths[row]) != self._sums[row]:
                    raise DataError(f"{self.path} is damaged (wrong checksum of person {row}): delete it")
        return torch.from_numpy(patch), torch.from_numpy(self._widths[rows].astype(np.float32))

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error


class PatchMemory:
    """The patches of all people of a table, on a device.

    batches: all people, once each. people, res: N and P.
    """

    def __init__(self, batches: Iterable[PersonBatch], people: int, res: int, device: torch.device) -> None:
        self.patch = torch.empty(people, res, res, 3, dtype=torch.uint8, device=device)
        self.width = torch.empty(people, device=device)
        for batch in batches:
            rows = batch.index.to(device)
            self.patch[rows] = batch.patch.to(device).permute(0, 2, 3, 1)
            self.width[rows] = batch.width.to(device)

    @staticmethod
    def size(people: int, res: int) -> int:
        """The size of N patches of P x P px, in bytes."""
        return people * (3 * res * res + 4)

    def read(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Patches and widths of the people in `rows`, on the device."""
        index = torch.tensor(rows, device=self.patch.device)
        return self.patch.index_select(0, index), self.width.index_select(0, index)


def _checksum(patch: np.ndarray, width: float) -> int:
    return zlib.crc32(np.array(width, "<f4"), zlib.crc32(patch))


def _head(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of an array of this type and shape."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue()
