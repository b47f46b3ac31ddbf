"""Photographs -> patches.

A patch is the square round a person's box with margin for the augmentations in use, resampled once, with
anti-aliasing, to a fixed size. `PatchLoader` hands out batches of them from worker processes.
"""

import hashlib
import math
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.annotations import People
from data.augment import PersonBatch
from data.cache import PatchFile, PatchMemory
from data.errors import DataError
from data.geometry import PIXELS_PER_SCALE
from data.photographs import UNREADABLE, open_lazily, to_rgb

DENSITY = 1.25  # patch px per px of the un-augmented crop: what zooming in can still resolve
RIM = 1  # px of a patch on every side beyond the farthest crops: what bilinear sampling sees there
FILTER_REACH = 4  # px of the decoded photograph that the resampling filter sees beyond the patch, at most
VERSION = 1  # of a patch's pixels: raise it with each change of them, or caches hand out the old ones

WORKER_GRACE = 2  # s that a process which loads goes on after SIGTERM


def patch_res(in_res: int, margin: float) -> int:
    """Side of a patch in px, with its rim, for crops of `in_res` px that reach over `margin` box sides."""
    return math.ceil(DENSITY * margin * in_res) + 2 * RIM


def read_patch(
    path: Path, center: np.ndarray, scale: float, margin: float, res: int, upright: bool = False
) -> tuple[np.ndarray, int]:
    """One person's patch.

    Args:
        path: the photograph. upright: turn it as its EXIF orientation says; annotations ignore that.
        center: [2] px. scale: box side / 200 px. margin: patch side / box side. res: patch side in px.

    Returns:
        (u8 [res, res, 3] RGB, black beyond the photograph; the photograph's width in px).

    Raises:
        `data.photographs.UNREADABLE`: the file is missing or is not a complete photograph, or the box is
            absurd.
    """
    side = margin * PIXELS_PER_SCALE * float(scale)
    with open_lazily(path, upright) as photo:
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
    start = [float(middle) * zoom - side * zoom / 2 for middle in center]
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
    return patch, width


def _fade_cut_pixels(photo: Image.Image, width: float, height: float) -> Image.Image:
    """A photograph decoded small, darker where its last pixels lie partly beyond `width` or `height` px."""
    across, down = width - (photo.width - 1), height - (photo.height - 1)
    if across == down == 1:
        return photo
    pixels = np.array(photo)
    pixels[:, -1] = np.rint(pixels[:, -1] * across)
    pixels[-1] = np.rint(pixels[-1] * down)
    return Image.fromarray(pixels)


class Patches(Dataset):
    """The patches of a table of people, a whole batch at an index.

    An index is a list of rows and the item a `PersonBatch`, or the `DataError` that says which photograph
    does not decode: returned, since a worker process would bury it in a traceback; `PatchLoader` raises it.

    people, root: the table, and the folder its photographs' paths start from. in_res: side of the crops in
    px. margin: see `data.augmentation.MARGINS`. upright: see `read_patch`. cache: has
    the same patches, decoded.
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

        A photograph counts by its path below the root, its size and the time of its last change.
        """
        what = (VERSION, PIL.__version__, self.people.fingerprint, self.res, self.margin, self.upright)
        digest = hashlib.sha256(repr(what).encode())
        for image in dict.fromkeys(self.people.image.tolist()):
            with suppress(OSError):  # where it cannot be found it does not decode either, which says so
                found = (self.root / image).stat()
                digest.update(f" {found.st_size} {found.st_mtime_ns}".encode())
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
                    path, people.center[k], people.scale[k], self.margin, self.res, self.upright
                )
            except UNREADABLE as error:
                reason = " ".join(str(error).split())
                expected = f"expected a complete photograph ({reason})"
                raise DataError(
                    f"{path}: the photograph of person {row} does not decode: {expected}"
                ) from error
        return torch.from_numpy(patch), torch.from_numpy(width)


class BatchRows(Sampler[list[int]]):
    """The rows (int64 [N]) of each batch: in order, or as a generator shuffles them anew for each epoch.

    Drawn in the main process, so that it does not depend on the number of workers. A shuffled epoch leaves
    out a last batch of one person: batch statistics need two.

    Several ranks share each shuffled batch in equal parts; of one that is too small for that, each has all.
    Batches in order are dealt out to them whole, so that no figure depends on the number of ranks.
    """

    def __init__(
        self, rows: np.ndarray, batch_size: int, generator: Generator | None, rank: int = 0, world: int = 1
    ) -> None:
        self.rows, self.batch_size, self.generator = torch.from_numpy(rows), batch_size, generator
        self.rank, self.world = rank, world
        self.alone = generator is not None and batch_size > 1 and len(rows) % batch_size == 1

    def __len__(self) -> int:
        batches = math.ceil(len(self.rows) / self.batch_size)
        return batches - self.alone if self.generator else len(range(self.rank, batches, self.world))

    def __iter__(self) -> Iterator[list[int]]:
        if self.generator is None:
            for rows in self.rows.split(self.batch_size)[self.rank :: self.world]:
                yield rows.tolist()
            return
        order = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
        for batch, rows in enumerate(order.split(self.batch_size)[: len(self)]):
            share = self.share(batch)
            yield rows[share["before"] : len(rows) - share["after"]].tolist()

    def share(self, batch: int) -> dict[str, float]:
        """What this rank has of a batch: `before`, `after` and `counted` of a `PersonBatch`."""
        people = min(self.batch_size, len(self.rows) - batch * self.batch_size)
        if self.generator is None:
            return {}
        if people < 2 * self.world:
            return {"before": 0, "after": 0, "counted": 1 / self.world}
        first, end = (people * number // self.world for number in (self.rank, self.rank + 1))
        return {"before": first, "after": people - end, "counted": 1.0}


class PatchLoader:
    """Batches of people on the training device.

    Args:
        people, root: the table, and the folder its photographs' paths start from.
        in_res: side of the crops in px. margin: see `data.augmentation.MARGINS`.
        batch_size: people in a batch. workers: processes that decode; 0 decodes in this one.
        device: where batches go. generator: shuffles each epoch; without one people come in order.
        rows: int64 [N], who is loaded; without it everyone.
        rank, world: this process's number, and how many share the batches; see `BatchRows`.
        cache: has everyone's patches, decoded; then no processes are started.

    people: how many an epoch has. waited: s that the last iteration has waited for batches. Iterating raises
    `DataError` for a photograph that does not decode, or a cache that is gone.
    """

    def __init__(
        self,
        people: People,
        root: Path,
        in_res: int,
        margin: float,
        batch_size: int,
        workers: int,
        device: torch.device,
        generator: Generator | None = None,
        rows: np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
        cache: PatchFile | PatchMemory | None = None,
    ) -> None:
        self.device, self.batch_size, self.waited = device, batch_size, 0.0
        self.patches = Patches(people, root, in_res, margin, cache=cache)
        if cache is not None:
            workers = 0  # a process that hands over a patch takes longer than reading it
        rows = np.arange(len(people)) if rows is None else rows
        self.people = len(rows)
        self.loader = DataLoader(
            self.patches,
            sampler=BatchRows(rows, batch_size, generator, rank, world),
            batch_size=None,
            num_workers=workers,
            pin_memory=device.type == "cuda" and not isinstance(cache, PatchMemory),
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_main_process,
        )

    def __len__(self) -> int:
        return len(self.loader.sampler)

    def __iter__(self) -> Iterator[PersonBatch]:
        with _signals_wait():
            batches = iter(self.loader)
        if isinstance(self.patches.cache, PatchFile):
            batches = _in_advance(batches)
        self.waited, asked = 0.0, time.monotonic()
        for number, batch in enumerate(batches):
            self.waited += time.monotonic() - asked
            if isinstance(batch, DataError):
                raise DataError(*batch.args)  # raising `batch` itself would keep frame and workers alive
            yield replace(batch, **self.loader.sampler.share(number)).to(self.device)
            asked = time.monotonic()


def _in_advance(batches: Iterator[PersonBatch]) -> Iterator[PersonBatch]:
    """The same batches; a thread gets the next while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


@contextmanager
def _signals_wait() -> Iterator[None]:
    """SIGINT and SIGTERM arrive afterwards: what their handlers raise is lost in the midst of a fork."""
    arrived = []
    handlers = {
        number: signal.signal(number, lambda number, frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in arrived:
        signal.raise_signal(number)


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Job systems signal a whole process group: a worker outlives the main process's handling of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(WORKER_GRACE))
