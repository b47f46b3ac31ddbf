"""Batches of people on the training device, decoded by worker processes or read from a cache."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator
from torch.utils.data import DataLoader, Sampler

from data import DataError
from data.crops import PersonBatch
from data.loading.cache import PatchFile, PatchMemory
from data.loading.patches import Patches
from data.loading.workers import loaded, prepare
from data.people import People


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
    `DataError` for a photograph that does not decode, a cache that is gone, or processes that fail.
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
            worker_init_fn=prepare,
        )

    def __len__(self) -> int:
        return len(self.loader.sampler)

    def __iter__(self) -> Iterator[PersonBatch]:
        batches = loaded(self.loader) if self.loader.num_workers else iter(self.loader)
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
