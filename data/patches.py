"""Photographs -> patches: the only place that reads images.

A patch is the square round a person's box with margin for the augmentations in use, resampled once, with
anti-aliasing, to a fixed size. `PatchLoader` hands out batches of them from worker processes.
"""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler

from data.annotations import People
from data.augment import PersonBatch
from data.errors import DataError
from data.geometry import PIXELS_PER_SCALE

DENSITY = 1.25  # patch px per px of the un-augmented crop: what zooming in can still resolve
FILTER_REACH = 4  # px of the decoded photograph that the resampling filter sees beyond the patch, at most

WORKER_GRACE = 2  # s that a process which loads goes on after SIGTERM


def patch_res(in_res: int, margin: float) -> int:
    """Side of a patch in px for crops of `in_res` px, a multiple of 8."""
    return 8 * math.ceil(DENSITY * margin * in_res / 8)


def read_patch(
    path: Path, center: np.ndarray, scale: float, margin: float, res: int
) -> tuple[np.ndarray, int]:
    """One person's patch.

    Args:
        path: the photograph; its EXIF orientation is ignored, as annotations do.
        center: [2] px. scale: box side / 200 px. margin: patch side / box side. res: patch side in px.

    Returns:
        (u8 [res, res, 3] RGB, black beyond the photograph; the photograph's width in px).

    Raises:
        OSError, ValueError, SyntaxError: the file is missing or is not a whole image.
        OverflowError: the box is absurd.
    """
    side = margin * PIXELS_PER_SCALE * float(scale)
    with Image.open(path) as photo:
        width, height = photo.size
        zoom = 1.0  # decoded px per px of the photograph
        # A JPEG decodes straight to a half, quarter or eighth: never to less than the patch needs.
        draft = photo.draft("RGB", (math.ceil(width * res / side), math.ceil(height * res / side)))
        if draft is not None:
            zoom = draft[1][2] / width
        photo = photo.convert("RGB")
    shrink = int(side * zoom / res)
    if shrink >= 2:
        photo, zoom = photo.reduce(shrink), zoom / shrink

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


class Patches(Dataset):
    """The patches of a table of people, a whole batch at an index.

    An index is a list of rows and the item a `PersonBatch`, or the `DataError` that says which photograph
    does not decode: returned, since a worker process would bury it in a traceback; `PatchLoader` raises it.
    """

    def __init__(self, people: People, root: Path, in_res: int, margin: float) -> None:
        self.people, self.root, self.margin = people, root, margin
        self.res = patch_res(in_res, margin)

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, rows: list[int]) -> PersonBatch | DataError:
        people = self.people[np.asarray(rows)]
        patch = np.empty((len(rows), self.res, self.res, 3), dtype=np.uint8)
        width = np.empty(len(rows), dtype=np.float32)
        for k, row in enumerate(rows):
            path = self.root / people.image[k]
            try:
                patch[k], width[k] = read_patch(
                    path, people.center[k], people.scale[k], self.margin, self.res
                )
            except (OSError, ValueError, OverflowError, SyntaxError, Image.DecompressionBombError) as error:
                reason = " ".join(str(error).split())
                wanted = f"wanted a whole image file ({reason})"
                return DataError(f"{path}: the photograph of person {row} does not decode: {wanted}")
        return PersonBatch(
            patch=torch.from_numpy(patch).permute(0, 3, 1, 2),
            center=torch.from_numpy(people.center),
            scale=torch.from_numpy(people.scale),
            points=torch.from_numpy(people.points),
            normalizer=torch.from_numpy(people.normalizer),
            width=torch.from_numpy(width),
            index=torch.tensor(rows),
            margin=self.margin,
        )


class BatchRows(Sampler[list[int]]):
    """The rows (int64 [N]) of each batch: in order, or as a generator shuffles them anew for each epoch.

    Drawn in the main process, so that it does not depend on the number of workers. A shuffled epoch leaves
    out a last batch of one person: batch statistics need two.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, generator: Generator | None) -> None:
        self.rows, self.batch_size, self.generator = torch.from_numpy(rows), batch_size, generator
        self.alone = generator is not None and batch_size > 1 and len(rows) % batch_size == 1

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_size) - self.alone

    def __iter__(self) -> Iterator[list[int]]:
        order = self.rows
        if self.generator is not None:
            order = order[torch.randperm(len(order), generator=self.generator)]
        for rows in order.split(self.batch_size)[: len(self)]:
            yield rows.tolist()


class PatchLoader:
    """Batches of people on the training device.

    Args:
        people, root: the table, and the folder its photographs' paths start from.
        in_res: side of the crops in px. margin: see `data.augment.MARGINS`.
        batch_size: people a batch. workers: processes that decode; 0 decodes in this one.
        device: where batches go. generator: shuffles each epoch; without one people come in order.
        rows: int64 [N], who is loaded; without it everyone.

    Iterating raises `DataError` for a photograph that does not decode.
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
    ) -> None:
        self.device = device
        rows = np.arange(len(people)) if rows is None else rows
        self.loader = DataLoader(
            Patches(people, root, in_res, margin),
            sampler=BatchRows(rows, batch_size, generator),
            batch_size=None,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_main_process,
        )

    def __len__(self) -> int:
        return len(self.loader.sampler)

    def __iter__(self) -> Iterator[PersonBatch]:
        with _signals_wait():
            batches = iter(self.loader)
        for batch in batches:
            if isinstance(batch, DataError):
                raise DataError(*batch.args)  # raising `batch` itself would keep frame and workers alive
            yield batch.to(self.device)


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
