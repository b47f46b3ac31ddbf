"""`--compile true`: PyTorch compiles the networks, and a GPU replays them as CUDA graphs, without Python.

A graph is of one number of crops, so only full batches run compiled. What leaves a graph has to be copied
before the next one runs: graphs share their memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from models import PoseNetwork

HOW = {"mode": "reduce-overhead", "dynamic": False}


def compile_passes(network: nn.Module) -> None:
    """Compile a network's forward pass, and of a pose network the half pass, once they are first run.

    In place: its parameters keep their names, and it is called as before.
    """
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
