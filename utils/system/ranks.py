"""The ranks of a run: the processes that torchrun starts. Without torchrun there is only rank 0.

All ranks read the same files and draw the same random numbers for global batches, of which each rank takes
its rows; after every step their networks are equal. Only rank 0 writes files, logs and prints.
"""

import os
import sys
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)  # how long ranks wait for rank 0, which writes caches and pages


def rank() -> int:
    """The rank of this process."""
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def world() -> int:
    """The number of ranks."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def local_rank() -> int:
    """The rank of this process on its machine."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_torchelastic_launched() else 0


def local_world() -> int:
    """The number of ranks on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def launcher() -> list[str]:
    """The words of the command line that started the ranks, up to the script.

    Of torchrun's flags only the numbers of machines and of ranks are known.
    """
    if not dist.is_torchelastic_launched():
        return sys.orig_argv[: -len(sys.argv)]
    machines = ["--nnodes", str(world() // local_world())] if world() > local_world() else []
    return ["torchrun", *machines, "--nproc_per_node", str(local_world())]


def init(device: torch.device) -> None:
    """Connect the ranks: with NCCL between GPUs, with gloo between CPUs. A second call does nothing."""
    if world() > 1 and not dist.is_initialized():
        on_gpu = device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE, device_id=device if on_gpu else None
        )


def shutdown() -> None:
    """Disconnect the ranks at the end of the run."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all ranks have reached this call."""
    gathered(None)


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, each of which must call this; with one rank the tensor itself.

    The devices may differ: a rank without a batch may have it on the CPU, while others have it on GPUs.
    """
    if world() == 1:
        return tensor
    on_cpu = tensor.cpu().clone()
    dist.all_reduce(on_cpu)
    return on_cpu.to(tensor.device)


def gathered(value: Any) -> list:
    """The values of all ranks, in order of rank; every rank must call this."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def parallel(network: nn.Module, sync_bn: bool = False) -> nn.Module:
    """A wrapper of a network that averages gradients over ranks; with one rank the network itself.

    sync_bn: compute batch statistics over the rows of all ranks (GPUs only), not of each rank alone.
    """
    if world() == 1:
        return network
    if sync_bn:
        synchronize_statistics(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the flag has another name from PyTorch 2.14 on
        # Buffers follow after each step (`share_buffers`), so that half passes and validation see them, too.
        return DistributedDataParallel(network, broadcast_buffers=False)


def synchronize_statistics(network: nn.Module) -> None:
    """Replace batch normalisations, in place, by those that compute their statistics over all ranks."""
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    if any(type(module).__module__.startswith("timm.") for module in network.modules()):
        from timm.layers import convert_sync_batchnorm as convert  # keeps activations, which are in timm's
    convert(network)  # in place: no network here is a single layer


def share_buffers(network: nn.Module) -> None:
    """Copy the batch statistics of rank 0's network to all ranks."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if world() > 1 and buffers:
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(flat, 0)
        for buffer, values in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def peer_lost(error: BaseException) -> bool:
    """Whether an error was caused by the end of another rank."""
    return dist.is_initialized() and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))
    )
