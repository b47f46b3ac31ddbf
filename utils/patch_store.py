"""The patch caches of a run: in a folder, where later runs find them too, or in the memory of a device."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

from data.crops import PersonBatch
from data.loading.cache import PatchFile, PatchMemory
from data.loading.loader import PatchLoader
from utils.system import ranks
from utils.system.devices import free_memory
from utils.system.errors import UserError
from utils.system.files import new_file, remove_abandoned
from utils.system.process import progress

log = logging.getLogger(__name__)

GB = 1e9


class Caches:
    """The caches of a run, one for each split and augmentation.

    place: a folder, or the device in whose memory they stay until the run ends.
    """

    def __init__(self, place: Path | torch.device) -> None:
        self.place = place
        self._in_memory: dict[str, PatchMemory] = {}

    def get(self, name: str, decoder: PatchLoader) -> PatchFile | PatchMemory:
        """The patches of a decoder's people, decoded now unless they are cached; all ranks must call this.

        name: data set, split, augmentation and resolution, for the file's name. decoder: yields all people
        in order, on the CPU.

        Raises:
            UserError: there is no space for them, or the folder cannot be written to.
            DataError: a photograph does not decode, or the file is damaged.
        """
        patches = decoder.patches
        key = f"{name}-{patches.fingerprint}"
        if isinstance(self.place, Path):
            cache = PatchFile(self.place / f"{key}.npy", patches.windows.side)
            if ranks.local_rank() == 0:
                remove_abandoned(self.place, "*.npy.*")
            if cache.path.exists():
                log.info("cache: %s", cache.path)
            for builds in (
                ranks.rank() == 0,
                ranks.local_rank() == 0,
            ):  # the second: folders that machines do not share
                if builds and not cache.path.exists():
                    build_file(cache, name, decoder)
                ranks.wait()
            cache.open()
            return cache
        if key not in self._in_memory:
            self._in_memory[key] = build_memory(self.place, name, decoder)
        return self._in_memory[key]


def build_file(cache: PatchFile, name: str, decoder: PatchLoader) -> None:
    """Decode all people into a file; see `Caches.get`. If several processes do so, the last file stays."""
    folder, size = cache.path.parent, f"{cache.size / GB:.3g} GB"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}") from error
    if cache.size > free:
        raise UserError(
            f"{cache.path} needs {size}, and its disk has {free / GB:.3g} GB free: free some space, or use"
            " --cache with another folder"
        )
    log.info("cache: writing %s (%s)", cache.path, size)
    with new_file(cache.path) as file:
        _reserve(file, cache.size)
        cache.write(file, _decoded(name, decoder))


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserve disk space for a file before it is written, if the file system can.

    Raises:
        OSError: the disk is full.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise  # any other error: the file system cannot reserve space


def build_memory(device: torch.device, name: str, decoder: PatchLoader) -> PatchMemory:
    """Decode all people into the memory of a device; see `Caches.get`."""
    sides = decoder.patches.windows.side
    size, free = PatchMemory.size(sides), free_memory(device)
    if size > free:
        raise UserError(
            f"--cache gpu: {name} needs {size / GB:.3g} GB of memory, {device} has {free / GB:.3g} GB free: "
            "use --cache with a folder instead"
        )
    log.info("cache: %s (%.3g GB) in the memory of %s", name, size / GB, device)
    return PatchMemory(_decoded(name, decoder), sides, device)


def _decoded(name: str, decoder: PatchLoader) -> Iterator[PersonBatch]:
    with torch.random.fork_rng(devices=[]):  # a `DataLoader` draws from PyTorch's global random numbers
        yield from progress(decoder, f"cache {name}", decoder.batch_size)
