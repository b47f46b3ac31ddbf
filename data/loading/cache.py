"""Caches of decoded patches: in a file, or on the training device.

Both return patches u8 [N, P, P, 3], P the largest side of them, and the widths of the photographs f32 [N] px
for rows of the table of people, bit for bit as decoded.
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

    They are the pixels of all patches, one after another, u8; the widths <f4 [N]; and the checksums <u4 [N],
    CRC-32 of each patch and its width. Batches are read, not memory-mapped, since a mapped file that is
    truncated would crash the process.

    path: the file, whose name must identify its content. sides: int64 [N] px, of the patches. size: of the
    file in bytes.
    """

    def __init__(self, path: Path, sides: np.ndarray) -> None:
        self.path, self.sides, people = path, sides, len(sides)
        self._ends = np.cumsum(3 * sides**2)
        self._patches_head = _head("|u1", int(self._ends[-1]))
        self._widths_head, self._sums_head = _head("<f4", people), _head("<u4", people)
        self._widths_start = len(self._patches_head) + int(self._ends[-1])
        self._sums_start = self._widths_start + len(self._widths_head) + 4 * people
        self.size = self._sums_start + len(self._sums_head) + 4 * people
        self._widths = self._sums = np.empty(0)

    def write(self, file: BinaryIO, batches: Iterable[PersonBatch]) -> None:
        """Write to an open, empty file; the batches hold all people once, in order, on the CPU."""
        file.write(self._patches_head)
        widths, sums = [], []
        for people in batches:
            for row, padded, width in zip(*_columns(people), strict=True):
                side = self.sides[row]
                patch = np.ascontiguousarray(padded[:side, :side])
                file.write(patch)
                widths.append(width)
                sums.append(_checksum(patch, width))
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
            expected = f"expected {self.size} bytes with {len(self.sides)} patches"
            raise DataError(f"{self.path} is not a complete cache ({size} bytes, {expected}): delete it")
        self._widths = np.frombuffer(columns, "<f4", len(self.sides), len(self._widths_head))
        self._sums = np.frombuffer(columns, "<u4", len(self.sides), sums + len(self._sums_head))

    def read(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Patches and widths of the people in `rows`, on the CPU.

        Raises:
            DataError: the file was deleted or truncated since it was opened, or a checksum is wrong.
        """
        sides = self.sides[rows]
        patch = np.zeros((len(rows), *2 * [sides.max()], 3), dtype=np.uint8)
        with self._opened() as file:
            for padded, row, side in zip(patch, rows, sides, strict=True):
                one = np.empty((side, side, 3), dtype=np.uint8)
                file.seek(len(self._patches_head) + int(self._ends[row]) - one.size)
                if file.readinto(one) < one.size:
                    raise DataError(f"{self.path} was truncated while it was in use: delete it")
                if _checksum(one, self._widths[row]) != self._sums[row]:
                    raise DataError(f"{self.path} is damaged (wrong checksum of person {row}): delete it")
                padded[:side, :side] = one
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

    batches: all people, once each. sides: int64 [N] px, of the patches.
    """

    def __init__(self, batches: Iterable[PersonBatch], sides: np.ndarray, device: torch.device) -> None:
        self.sides, self._ends = sides, np.cumsum(3 * sides**2)
        self.patch = torch.empty(int(self._ends[-1]), dtype=torch.uint8, device=device)
        self.width = torch.empty(len(sides), device=device)
        for people in batches:
            for row, padded, width in zip(*_columns(people), strict=True):
                side = self.sides[row]
                self._patch(row).copy_(torch.from_numpy(padded[:side, :side]))
                self.width[row] = width

    @staticmethod
    def size(sides: np.ndarray) -> int:
        """The size of patches with these sides, in bytes."""
        return int((3 * sides**2 + 4).sum())

    def read(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Patches and widths of the people in `rows`, on the device."""
        largest = int(self.sides[rows].max())
        patch = self.patch.new_zeros(len(rows), largest, largest, 3)
        for padded, row in zip(patch, rows, strict=True):
            side = int(self.sides[row])
            padded[:side, :side] = self._patch(row)
        index = torch.tensor(rows, device=self.patch.device)
        return patch, self.width.index_select(0, index)

    def _patch(self, row: int) -> Tensor:
        """A person's patch [side, side, 3], a view."""
        side, end = int(self.sides[row]), int(self._ends[row])
        return self.patch[end - 3 * side * side : end].view(side, side, 3)


def _columns(people: PersonBatch) -> tuple[list[int], np.ndarray, list[float]]:
    """The rows of people on the CPU, their patches [N, P, P, 3] and the widths of their photographs."""
    return people.index.tolist(), people.patch.permute(0, 2, 3, 1).numpy(), people.width.tolist()


def _checksum(patch: np.ndarray, width: float) -> int:
    return zlib.crc32(np.array(width, "<f4"), zlib.crc32(patch))


def _head(dtype: str, length: int) -> bytes:
    """The header of a .npy file of an array of this type and length."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": (length,)})
    return head.getvalue()
