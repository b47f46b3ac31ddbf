"""`--compile true`: PyTorch compiles the networks, and a GPU replays them as CUDA graphs, without Python.

A graph is of one number of crops, so only full batches run compiled. What leaves a graph has to be copied
before the next one runs: graphs share their memory.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from models import PoseNetwork
from utils.system.errors import UserError

log = logging.getLogger(__name__)

HOW = {"mode": "reduce-overhead", "dynamic": False}
LIMIT = 64  # of what is compiled of a function: sizes, modes and masks, where PyTorch's 8 may not do


def require_compiler(device: torch.device) -> None:
    """See that PyTorch's compiler works for a device.

    Raises:
        UserError: it does not, for want of a C compiler, of Triton, or of a GPU that is new enough.
    """
    log.info("networks are compiled when they first run, which takes minutes")
    try:
        torch.compile(lambda x: x + 1, **HOW)(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"--compile true: PyTorch's compiler does not work here ({reason})") from error


def compile_passes(network: nn.Module) -> None:
    """Compile a network's forward pass, and of a pose network the half pass, once they are first run.

    In place: its parameters keep their names, and it is called as before. (A copy of the network would share
    the half pass.)
    """
    torch._dynamo.config.recompile_limit = LIMIT
    network.compile(**HOW)
    if isinstance(network, PoseNetwork):
        network.features = torch.compile(network.features, **HOW)


@contextmanager
def eager(wanted: bool) -> Iterator[None]:
    """Networks run as if they were not compiled, if that is wanted."""
    if not wanted:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
