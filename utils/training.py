"""Pieces of training that stages share: rates, resuming, saving an epoch."""

import math
from pathlib import Path

from torch import Generator, nn
from torch.optim import Optimizer, RMSprop

from utils.checkpoint import SUFFIX
from utils.errors import UserError

LR_STEPS = ((100, 0.2), (140, 0.5))
"""From each of these epochs on, the pose network's learning rate is multiplied by the factor."""


def scheduled_lr(lr: float, epoch: int) -> float:
    """The learning rate of an epoch: a function of the epoch alone, so that resuming keeps it."""
    return lr * math.prod(factor for start, factor in LR_STEPS if epoch >= start)


def rmsprop(network: nn.Module, lr: float) -> RMSprop:
    """The paper's optimiser."""
    return RMSprop(network.parameters(), lr=lr, alpha=0.99, eps=1e-8)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of the coming steps."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def resume(checkpoint: dict, optimizer: Optimizer, generator: Generator) -> None:
    """Put back what continuing exactly needs beside the weights; a released file lacks the generator's state.

    Raises:
        UserError: the checkpoint's optimiser is not of this network.
    """
    try:
        optimizer.load_state_dict(checkpoint["optimizer"])
    except (KeyError, ValueError) as error:
        raise UserError(
            "the checkpoint has no optimiser state that fits: it can be evaluated, but not continued"
        ) from error
    if "generator" in checkpoint:
        generator.set_state(checkpoint["generator"])


def refuse_to_overwrite(folder: Path, overwrite: bool, resume_flag: str) -> None:
    """A run from the start must not replace the checkpoints of an earlier one unasked.

    Raises:
        UserError: the folder has checkpoints.
    """
    there = sorted(folder.glob(f"*{SUFFIX}"))
    if there and not overwrite:
        raise UserError(
            f"{folder} has checkpoints already, {there[0].name} for one: {resume_flag} goes on from one, "
            "--overwrite true starts again, another --exp_id keeps both"
        )
