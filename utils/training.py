"""Training a network: its optimiser, rate, history and checkpoints."""

import logging
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import RMSprop

from data.loading.loader import PatchLoader
from utils.records.epochs import KeptEpochs, later_best, refuse_to_overwrite
from utils.records.history import History
from utils.run import Run
from utils.system import ranks
from utils.system.errors import UserError

log = logging.getLogger(__name__)

LR_STEPS = ((100, 0.2), (140, 0.5))
"""From each of these epochs on, the pose network's learning rate is multiplied by the factor."""


def scheduled_lr(lr: float, epoch: int) -> float:
    """The pose network's rate in an epoch: a function of the epoch alone, so that resuming keeps it."""
    return lr * math.prod(factor for start, factor in LR_STEPS if epoch >= start)


def used_resources(run: Run, loader: PatchLoader, seconds: float) -> dict[str, float]:
    """What an epoch of training has used, for its row in the history.

    Args:
        loader: its batches, which are at their end. seconds: what it took.

    Returns:
        images_per_second; waiting_share, the part of the time in which it waited for batches to be loaded;
        and on a GPU gpu_memory, the most that tensors took, GiB.
    """
    used = {"images_per_second": loader.people / seconds, "waiting_share": loader.waited / seconds}
    if run.device.type == "cuda":
        used["gpu_memory"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    return used


class Learner:
    """A network in training: with the paper's optimiser, the rows of its epochs, and its coming epoch.

    parallel: what the network is trained through, so that all ranks learn from each other's rows.
    """

    def __init__(
        self, network: nn.Module, lr: float, sync_bn: bool = False, weight_decay: float = 0.0
    ) -> None:
        self.network, self.parallel = network, ranks.parallel(network, sync_bn)
        self._losses = 0.0  # of all steps since they were last checked
        self._weight_decay = weight_decay
        self.optimizer = RMSprop(network.parameters(), lr=lr, alpha=0.99, eps=1e-8, weight_decay=weight_decay)
        self.history, self.epoch = History(), 0

    def restore(self, checkpoint: dict, path: Path) -> None:
        """Resume after the epoch of a checkpoint, read from `path`; its weights are loaded already.

        The weight decay stays this learner's own.

        Raises:
            UserError: its optimiser is not of this network.
        """
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} has no optimiser state that fits: it can be evaluated, but not resumed from"
            ) from error
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self._weight_decay
        self.history, self.epoch = History.of_checkpoint(checkpoint), checkpoint["epoch"] + 1

    def require_epochs(self, epochs: int) -> None:
        """Refuse to train up to an epoch that is done.

        Raises:
            UserError: there is nothing to train; the message says what to ask for.
        """
        if self.epoch >= epochs:
            raise UserError(
                f"nothing to train: --nEpochs {epochs} includes the {self.epoch} epochs that the checkpoint "
                f"was trained for; --nEpochs {self.epoch + 10} trains 10 more"
            )

    @property
    def updates(self) -> int:
        """Steps of the optimiser so far, those before the checkpoint that it was restored from included."""
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    def set_lr(self, lr: float) -> None:
        """The learning rate of the coming steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self, loss: Tensor, weight: float = 1.0) -> Tensor:
        """One step of the optimiser down the gradient of a scalar loss, which is returned without its graph.

        weight: this rank's part of the batch (`PersonBatch.weight`), of which `loss` is the mean.

        Raises:
            UserError: the loss is not finite; nothing was changed. A GPU is not waited for: there
                `require_finite` finds it later.
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
        """See that every loss of every rank was finite; each rank must call this, and waits for its GPU.

        Raises:
            UserError: one had: the network may be broken.
        """
        self._check(ranks.total(torch.as_tensor(self._losses)))
        self._losses = 0.0

    def _check(self, losses: float | Tensor) -> None:
        if not math.isfinite(losses):
            raise UserError(
                f"the loss is {float(losses)} in epoch {self.epoch}: training stops; "
                "try a smaller learning rate"
            )

    def checkpoint(self, run: Run) -> dict:
        """What `utils.records.checkpoint` describes, once the history has this epoch's row.

        Raises:
            UserError: a loss was not finite: a broken network is not saved.
        """
        self._check(self._losses)
        return {
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "train_history": self.history.rows,
            "epoch": self.epoch,
            "seed": run.opt.seed,
            "network": run.network_size,
            "people": run.people,
            "recipe": run.opt.recipe,
        }


def resume(run: Run, learner: Learner, checkpoint: dict, path: Path) -> None:
    """Resume exactly where a checkpoint ended; its weights are loaded already.

    Raises:
        UserError: its optimiser is not of this network.
    """
    learner.restore(checkpoint, path)
    say_other_people(run, checkpoint, path)
    say_other_recipe(run, checkpoint, path)


def fresh_or_resumed(
    run: Run, learner: Learner, checkpoint: dict | None, path: Path | None, resume_flag: str
) -> KeptEpochs:
    """Resume a learner from a checkpoint of its own stage, or, without one, see that it may start afresh.

    Returns:
        What keeps track of the epochs' files.

    Raises:
        UserError: an earlier run's results are in the way, the optimiser does not fit, or there is nothing to
            train.
    """
    if checkpoint is None:
        superseded = refuse_to_overwrite(run.folder, run.opt.overwrite, resume_flag)
    else:
        resume(run, learner, checkpoint, path)
        superseded = later_best(run.folder, learner.epoch)
    learner.require_epochs(run.opt.nEpochs)
    return KeptEpochs(run.opt.keep, superseded)


def say_other_people(run: Run, checkpoint: dict, path: Path) -> None:
    """Log a warning if a checkpoint was trained or validated on other people than this run's."""
    recorded = checkpoint.get("people", run.people)
    for split in ("train", "valid"):
        if recorded[split] != run.people[split]:
            log.warning(
                "%s was trained or validated on other people: its %s people were those of %s with the "
                "fingerprint %s, not %s",
                path,
                split,
                recorded["dataset"],
                recorded[split],
                run.people[split],
            )


def say_other_recipe(run: Run, checkpoint: dict, path: Path) -> None:
    """Log a warning if a checkpoint was trained with other values of the flags of `opt.recipe`."""
    recorded = {"seed": checkpoint.get("seed", run.opt.seed)} | checkpoint.get("recipe", {})
    differing = [flag for flag in recorded if getattr(run.opt, flag, recorded[flag]) != recorded[flag]]
    if differing:
        theirs, ours = (
            " ".join(f"--{flag} {values[flag]}" for flag in differing) for values in (recorded, vars(run.opt))
        )
        log.warning("%s was trained with %s, this run resumes with %s", path, theirs, ours)
