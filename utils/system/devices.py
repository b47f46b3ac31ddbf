"""The device of a run, its precision, memory and random generators."""

import ctypes
import logging
import os
import re
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from utils.system import ranks
from utils.system.errors import UserError

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def choose_device(gpu_id: int) -> torch.device:
    """The GPU with this index; the CPU for -1, or with a log line if CUDA is not available.

    With several ranks on a machine, each rank takes the GPU with its local rank.

    Raises:
        UserError: CUDA is available, but this GPU does not exist.
    """
    if gpu_id < 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        log.info("no CUDA GPU is available: running on the CPU")
        return torch.device("cpu")
    if ranks.local_world() > torch.cuda.device_count():
        raise UserError(
            f"{ranks.local_world()} ranks: this machine has only {torch.cuda.device_count()} GPUs"
        )
    if ranks.world() > 1:
        gpu_id = ranks.local_rank()
    if gpu_id >= torch.cuda.device_count():
        raise UserError(f"--gpu_id {gpu_id}: this machine has GPUs 0 to {torch.cuda.device_count() - 1}")
    torch.cuda.set_device(gpu_id)  # loaders pin memory on the current device
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", gpu_id)


@cache
def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next batch; a second call does nothing.

    By default glibc returns large blocks at once, and the system clears each page of new ones: close to half
    of the time of a forward pass without gradients. Has no effect with other C libraries.
    """
    libc = ctypes.CDLL(None) if hasattr(os, "register_at_fork") else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        os.register_at_fork(before=lambda: libc.malloc_trim(0))  # loaders' processes would make it be copied


def require_compiler(device: torch.device) -> None:
    """Raise a `UserError` if PyTorch's compiler does not work, as without Triton or on an old GPU."""
    log.info("networks are compiled on their first run, which takes minutes")
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"--compile true: PyTorch's compiler does not work here ({reason}): remove it"
        ) from error


def set_precision(precision: str) -> None:
    """Set how CUDA multiplies fp32 numbers: exactly, or as TF32 for "tf32". `Run.passes` handles "bf16".

    Uses the older names of these switches: PyTorch's compiler reads them and fails if the newer are set.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch 2.9 recommends the newer ones
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"


class Streams:
    """The random generators of a training run: one per purpose, each reseeded at every epoch.

    So no draw depends on the number of earlier ones, and resuming needs no generator states. The purpose
    `order` shuffles the training people, `random` is for random augmentation; agents have their own.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self._generators = seed, {}
        self.start(0)

    def __getitem__(self, purpose: str) -> Generator:
        """The generator of a purpose; it is the same object in every epoch."""
        if purpose not in self._generators:
            self._generators[purpose] = Generator()
            self._begin(purpose)
        return self._generators[purpose]

    def start(self, epoch: int) -> None:
        """Begin an epoch: reseed each generator with a function of seed, epoch and purpose."""
        self._epoch = epoch
        for purpose in self._generators:
            self._begin(purpose)

    def _begin(self, purpose: str) -> None:
        words = np.random.SeedSequence((self.seed, self._epoch, *purpose.encode())).generate_state(1)
        self._generators[purpose].manual_seed(int(words[0]))


def free_memory(device: torch.device) -> int:
    """The free memory of a device in bytes; `sys.maxsize` if the system of a CPU does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    available = re.search(r"MemAvailable: +(\d+) kB", meminfo.read_text() if meminfo.exists() else "")
    return 1024 * int(available[1]) if available else sys.maxsize
