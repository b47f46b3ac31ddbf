"""The processes of one run, which torchrun starts: its ranks. Without torchrun there is one, rank 0.

All ranks read the same files and make the same draws for whole batches, of which each takes its rows; after
every step they hold the same networks. Rank 0 alone writes files and talks to the user.
"""

import os
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)  # with which ranks wait for rank 0, which writes caches and pages


def rank() -> int:
    """This process's number."""
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def world() -> int:
    """How many ranks there are."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_torchelastic_launched() else 0


def local_world() -> int:
    """How many ranks there are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def meet(device: torch.device) -> None:
    """Connect the ranks: with NCCL between GPUs, with gloo between CPUs. A second call does nothing."""
    if world() > 1 and not dist.is_initialized():
        on_gpu = device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE, device_id=device if on_gpu else None
        )


def part() -> None:
    """Disconnect the ranks: the run is at its end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Go on when all ranks have arrived here."""
    gathered(None)


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over ranks, each of which must call this; the tensor itself where there is one.

    Wherever it is: on a rank that had no batch, it may be on the CPU while the others' are on GPUs.
    """
    if world() == 1:
        return tensor
    on_cpu = tensor.cpu().clone()
    dist.all_reduce(on_cpu)
    return on_cpu.to(tensor.device)


def gathered(value: Any) -> list:
    """What each rank has, in their order; each of them must call this."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def parallel(network: nn.Module, sync_bn: bool = False) -> nn.Module:
    """What a network is trained through: its gradients become means over ranks. Alone, the network itself.

    sync_bn: batch statistics are those of all ranks' rows, on GPUs; else of each rank's own.
    """
    if world() == 1:
        return network
    if sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # in place: no network here is a single layer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the flag has another name from PyTorch 2.14 on
        # Buffers follow after each step (`share_buffers`), so that half passes and validation see them, too.
        return DistributedDataParallel(network, broadcast_buffers=False)


def share_buffers(network: nn.Module) -> None:
    """Every rank takes over the batch statistics of rank 0's network."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if world() > 1 and buffers:
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(flat, 0)
        for buffer, values in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def lost(error: BaseException) -> bool:
    """Whether an error says that another rank has ended."""
    return dist.is_initialized() and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))
    )
