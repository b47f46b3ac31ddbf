"""Training a network: its optimiser, rate, history and checkpoints."""

import logging
import math
from pathlib import Path

from torch import Tensor, nn
from torch.optim import RMSprop

from utils.checkpoint import SUFFIX
from utils.errors import UserError
from utils.history import History
from utils.runs import Run

log = logging.getLogger(__name__)

LR_STEPS = ((100, 0.2), (140, 0.5))
"""From each of these epochs on, the pose network's learning rate is multiplied by the factor."""


def scheduled_lr(lr: float, epoch: int) -> float:
    """The pose network's rate in an epoch: a function of the epoch alone, so that resuming keeps it."""
    return lr * math.prod(factor for start, factor in LR_STEPS if epoch >= start)


class Learner:
    """A network in training: with the paper's optimiser, the rows of its epochs, and its coming epoch."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.network = network
        self.optimizer = RMSprop(network.parameters(), lr=lr, alpha=0.99, eps=1e-8)
        self.history, self.epoch = History(), 0

    def restore(self, checkpoint: dict, path: Path) -> None:
        """Go on after the epoch of a checkpoint, read from `path`; its weights are loaded already.

        Raises:
            UserError: its optimiser is not of this network.
        """
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} has no optimiser state that fits: it can be evaluated, but not continued"
            ) from error
        self.history, self.epoch = History.of_checkpoint(checkpoint), checkpoint["epoch"] + 1

    def set_lr(self, lr: float) -> None:
        """The learning rate of the coming steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self, loss: Tensor) -> float:
        """One step of the optimiser down the gradient of a scalar loss, whose value is returned.

        Raises:
            UserError: the loss is not finite; nothing was changed.
        """
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss is {value} in epoch {self.epoch}: training stops; try a smaller learning rate"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return value

    def checkpoint(self, run: Run) -> dict:
        """What `utils.checkpoint` describes, once the history has this epoch's row."""
        return {
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "train_history": self.history.rows,
            "epoch": self.epoch,
            "generator": run.generator.get_state(),
            "seed": run.opt.seed,
            "network": run.network_size,
        }


def restore_draws(run: Run, checkpoint: dict) -> None:
    """Go on with a checkpoint's random numbers; with another --seed, or a released file, draws start anew."""
    if checkpoint.get("seed") == run.opt.seed:
        run.generator.set_state(checkpoint["generator"])
    else:
        log.info("draws start anew from --seed %d", run.opt.seed)


def refuse_to_overwrite(folder: Path, overwrite: bool, resume_flag: str) -> None:
    """A run from the start must not replace the checkpoints of an earlier one unasked.

    Raises:
        UserError: the folder has checkpoints, and `overwrite` is not set.
    """
    there = sorted(folder.glob(f"*{SUFFIX}"))
    if there and not overwrite:
        raise UserError(
            f"{folder} has checkpoints already, {there[0].name} for one: {resume_flag} goes on from one, "
            "--overwrite true starts again, another --exp_id keeps both"
        )


def warn_of_later(folder: Path, name: str) -> None:
    """Say so if the epoch to come, whose checkpoint is `name`, has been trained before."""
    path = folder / (name + SUFFIX)
    if path.exists():
        log.warning("%s is there already: it and later epochs are replaced as training reaches them", path)


def remove_earlier(folder: Path) -> None:
    """Remove an earlier run's checkpoints, predictions and pages, once nothing stops the new one any more."""
    for pattern in (f"*{SUFFIX}", "*-preds*.mat", "*-grid.*", "web/*.html"):
        for path in folder.glob(pattern):
            path.unlink()
