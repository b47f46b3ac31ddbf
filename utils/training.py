"""Training a network: optimizer, learning rate, history and checkpoints."""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop

from data.loading.loader import PatchLoader
from utils.records.epochs import Retention, later_best, refuse_to_overwrite
from utils.records.history import History
from utils.run import Run
from utils.schedule import Schedule
from utils.system import ranks
from utils.system.errors import UserError

log = logging.getLogger(__name__)

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "rmsprop": partial(RMSprop, alpha=0.99, eps=1e-8),
    "adam": Adam,
    "adamw": AdamW,
}
"""Those of --optimizer; all but rmsprop, the paper's, with PyTorch's defaults."""


def used_resources(run: Run, loader: PatchLoader, seconds: float) -> dict[str, float]:
    """Speed and memory of an epoch of training, for its row in the history.

    Args:
        loader: the loader of its batches, after the last of them. seconds: the duration of the epoch.

    Returns:
        images_per_second; waiting_share, the share of the time spent waiting for batches; and on a GPU
        gpu_memory, the peak memory of tensors, GiB.
    """
    used = {"images_per_second": loader.people / seconds, "waiting_share": loader.waited / seconds}
    if run.device.type == "cuda":
        used["gpu_memory"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    return used


class Learner:
    """A network in training, with the paper's optimizer unless another of `OPTIMIZERS` is named.

    network: the network. parallel: its wrapper for the forward pass, which averages gradients over ranks.
    history: one row per finished epoch. epoch: the next epoch to train, from 0. schedule: the learning rate
    over time, for loops that set it before each step; constant unless it is replaced.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        sync_bn: bool = False,
        weight_decay: float = 0.0,
        optimizer: str = "rmsprop",
    ) -> None:
        self.network, self.parallel = network, ranks.parallel(network, sync_bn)
        self._losses = 0.0  # of all steps since they were last checked
        self._weight_decay, self._optimizer_name = weight_decay, optimizer
        self.optimizer = OPTIMIZERS[optimizer](network.parameters(), lr=lr, weight_decay=weight_decay)
        self.history, self.epoch, self.schedule = History(), 0, Schedule(lr)

    def restore(self, checkpoint: dict, path: Path) -> None:
        """Restore optimizer, history and epoch from a checkpoint, read from `path`.

        The weights must have been loaded before. The weight decay remains that of this learner.

        Raises:
            UserError: the optimizer state is of another optimizer, or does not fit this network.
        """
        theirs = checkpoint.get("optimizer_name", "rmsprop")  # earlier versions had no other
        if theirs != self._optimizer_name:
            raise UserError(
                f"{path} was trained with --optimizer {theirs}, this run has {self._optimizer_name}, which "
                f"cannot resume from it: use --optimizer {theirs}"
            )
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} has no optimizer state for this network: it can be evaluated, but not resumed from"
            ) from error
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self._weight_decay
        self.history, self.epoch = History.of_checkpoint(checkpoint), checkpoint["epoch"] + 1

    def require_epochs(self, epochs: int) -> None:
        """Raise a `UserError` if --nEpochs leaves no epoch to train; it says which value to use."""
        if self.epoch >= epochs:
            raise UserError(
                f"nothing to train: --nEpochs {epochs} includes the {self.epoch} epochs of the checkpoint; "
                f"use --nEpochs {self.epoch + 10} to train 10 more"
            )

    @property
    def updates(self) -> int:
        """The number of optimizer steps so far, including those before a restored checkpoint."""
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self, loss: Tensor, weight: float = 1.0) -> Tensor:
        """Take one optimizer step on a scalar loss, and return the loss, detached.

        weight: this rank's share of the batch (`PersonBatch.weight`); `loss` is the mean over that share.

        Raises:
            UserError: the loss is not finite; the network is unchanged. Only on the CPU: to avoid waiting
                for a GPU, `require_finite` checks later there.
        """
        self._losses = self._losses + loss.detach()
        if loss.device.type == "cpu":
            self._check(self._losses)
        (loss * (weight * ranks.world())).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # here, so that gradients take no memory until the next step
        ranks.share_buffers(self.network)
        return loss.detach()

    def require_finite(self) -> None:
        """Raise a `UserError` if a loss of any rank was not finite, so that the network may be broken.

        Every rank must call this, and waits for its GPU.
        """
        self._check(ranks.total(torch.as_tensor(self._losses)))
        self._losses = 0.0

    def _check(self, losses: float | Tensor) -> None:
        if not math.isfinite(losses):
            raise UserError(
                f"the loss is {float(losses)} in epoch {self.epoch}, so training stops: "
                "try a smaller learning rate"
            )

    def checkpoint(self, run: Run) -> dict:
        """A checkpoint as `utils.records.checkpoint` describes it; the history must have this epoch's row.

        Raises:
            UserError: a loss was not finite, so the network must not be saved.
        """
        self._check(self._losses)
        return {
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": self._optimizer_name,
            "train_history": self.history.rows,
            "epoch": self.epoch,
            "seed": run.opt.seed,
            "network": run.network_size,
            "skeleton": asdict(run.skeleton),
            "trained_joints": run.trained_joints.tolist(),
            "people": run.people,
            "recipe": run.opt.recipe,
        }


def fresh_or_resumed(
    run: Run, learner: Learner, checkpoint: dict | None, path: Path | None, resume_flag: str
) -> Retention:
    """Resume a learner from a checkpoint of the same stage, or check that it may start from scratch.

    Returns:
        The object that deletes the files of earlier epochs.

    Raises:
        UserError: the folder has results of an earlier run, the optimizer state does not fit, or there is
            nothing to train.
    """
    if checkpoint is None:
        superseded = refuse_to_overwrite(run.folder, run.opt.overwrite, resume_flag)
    else:
        learner.restore(checkpoint, path)
        warn_of_other_people(run, checkpoint, path)
        warn_of_other_recipe(run, checkpoint, path)
        superseded = later_best(run.folder, learner.epoch)
    learner.require_epochs(run.opt.nEpochs)
    return Retention(run.opt.keep, superseded, resume_flag)


def warn_of_other_people(run: Run, checkpoint: dict, path: Path) -> None:
    """Log a warning if a checkpoint was trained or validated on other people than those of this run."""
    recorded = checkpoint.get("people", run.people)
    for split in ("train", "valid"):
        if recorded[split] != run.people[split]:
            log.warning(
                "%s was trained or validated on other people: its %s people are from %s and have the "
                "fingerprint %s, not %s",
                path,
                split,
                recorded["dataset"],
                recorded[split],
                run.people[split],
            )


def warn_of_other_recipe(run: Run, checkpoint: dict, path: Path) -> None:
    """Log a warning if a checkpoint was trained with other values of the flags of `opt.recipe`."""
    earlier = {"seed": checkpoint.get("seed", run.opt.seed), "agent_rule": "published"}  # of old versions
    recorded = earlier | checkpoint.get("recipe", {})
    differing = [flag for flag in recorded if getattr(run.opt, flag, recorded[flag]) != recorded[flag]]
    if differing:
        theirs, ours = (
            " ".join(f"--{flag} {values[flag]}" for flag in differing) for values in (recorded, vars(run.opt))
        )
        log.warning("%s was trained with %s, this run resumes with %s", path, theirs, ours)
