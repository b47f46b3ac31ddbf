"""The learning rate of the pose network: a function of the update alone, so that resuming keeps it."""

import argparse
import logging
import math
from dataclasses import dataclass

from utils.system.errors import UserError

log = logging.getLogger(__name__)

ONECYCLE_WARMUP = 0.3
"""The warm-up's share of a one-cycle schedule (`pct_start` of `torch.optim.lr_scheduler.OneCycleLR`)."""
FIRST, LAST = 1 / 25, 1 / 25e4
"""The first rate of a warm-up, and the last of a one-cycle schedule, as shares of the highest: PyTorch's."""


@dataclass(frozen=True)
class Schedule:
    """A learning rate over time; without a schedule's arguments it is constant.

    lr: the rate before the first step, or the highest rate of a curve. kind: "step", "onecycle" or "cosine".
    steps: (epoch, factor) of "step": from that epoch on, the rate is multiplied by the factor.
    start, epochs: first epoch and length of a curve, in epochs. warmup: the length of its rise, in epochs.
    """

    lr: float
    kind: str = "step"
    steps: tuple[tuple[int, float], ...] = ()
    start: int = 0
    epochs: int = 0
    warmup: float = 0.0

    def rate(self, epoch: int, batch: int, batches: int) -> float:
        """The rate of the update on batch `batch` (from 0) of the `batches` in an epoch (from 0)."""
        if self.kind == "step":
            return self.lr * math.prod(factor for start, factor in self.steps if epoch >= start)
        time, onecycle = epoch - self.start + batch / batches, self.kind == "onecycle"
        if time < self.warmup:
            risen = time / self.warmup
            return self.lr * between(FIRST, 1, half_cosine(risen) if onecycle else risen)
        fallen = (time - self.warmup) / (self.epochs - self.warmup)
        return self.lr * between(1, LAST if onecycle else 0, half_cosine(fallen))


def between(first: float, last: float, share: float) -> float:
    """The number at a share of the way from `first` to `last`."""
    return first + (last - first) * share


def half_cosine(share: float) -> float:
    """A share of the way, with a slow start and a slow end."""
    return (1 - math.cos(math.pi * share)) / 2


def pose_schedule(opt: argparse.Namespace, epoch: int, first: int) -> Schedule:
    """The pose network's schedule, as the flags say.

    Args:
        epoch: the epoch with which this run starts. first: the first epoch of a curve, unless
            --schedule_start names another.

    Raises:
        UserError: the curve would start after this run, or has no time left after its warm-up.
    """
    if opt.lr_schedule == "step":
        pairs = (step.split(":") for step in opt.lr_steps.split())
        steps = tuple((int(start), float(factor)) for start, factor in pairs)
        if opt.nEpochs <= steps[0][0]:
            steady = "the learning rate stays at %g: --nEpochs %d ends before the first of --lr_steps %s"
            log.warning(steady, opt.lr, opt.nEpochs, opt.lr_steps)
        return Schedule(opt.lr, steps=steps)
    start = first if opt.schedule_start is None else opt.schedule_start
    if start > epoch:
        raise UserError(f"--schedule_start {start}: this run starts with epoch {epoch}: use that or less")
    epochs, warmup = opt.nEpochs - start, opt.warmup
    if warmup is None:
        warmup = ONECYCLE_WARMUP * epochs if opt.lr_schedule == "onecycle" else 0.0
    if warmup >= epochs:
        raise UserError(
            f"--warmup {warmup:g}: the schedule has {epochs} epochs, {start} to {opt.nEpochs - 1}: "
            "expected fewer for its warm-up"
        )
    return Schedule(opt.lr, opt.lr_schedule, start=start, epochs=epochs, warmup=warmup)
