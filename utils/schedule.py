"""The learning rate of the pose network: a function of epoch and batch, so resuming does not change it."""

import argparse
import logging
import math
from dataclasses import dataclass

from utils.system.errors import UserError

log = logging.getLogger(__name__)

ONECYCLE_WARMUP = 0.3
"""Warm-up / length of a one-cycle schedule (`pct_start` of `torch.optim.lr_scheduler.OneCycleLR`)."""
FIRST, LAST = 1 / 25, 1 / 25e4
"""First rate of a warm-up and last rate of a one-cycle schedule / highest rate, as in PyTorch."""


@dataclass(frozen=True)
class Schedule:
    """A learning rate over time; constant by default.

    lr: the initial rate of "step", or the highest rate of a curve. kind: "step", "onecycle" or "cosine".
    steps: for "step", (epoch, factor): from that epoch on, the rate is multiplied by the factor. start,
    epochs: first epoch of a curve, and its length in epochs. warmup: the length of its warm-up, in epochs.
    """

    lr: float
    kind: str = "step"
    steps: tuple[tuple[int, float], ...] = ()
    start: int = 0
    epochs: int = 0
    warmup: float = 0.0

    def rate(self, epoch: int, batch: int, batches: int) -> float:
        """The rate for batch `batch` of `batches` in an epoch; batches and epochs are counted from 0."""
        if self.kind == "step":
            return self.lr * math.prod(factor for start, factor in self.steps if epoch >= start)
        time, onecycle = epoch - self.start + batch / batches, self.kind == "onecycle"
        if time < self.warmup:
            progress = time / self.warmup
            return self.lr * interpolate(FIRST, 1, half_cosine(progress) if onecycle else progress)
        progress = (time - self.warmup) / (self.epochs - self.warmup)
        return self.lr * interpolate(1, LAST if onecycle else 0, half_cosine(progress))


def interpolate(first: float, last: float, progress: float) -> float:
    """Linear interpolation: `first` at progress 0, `last` at 1."""
    return first + (last - first) * progress


def half_cosine(progress: float) -> float:
    """Progress in 0..1 along half a cosine, which starts and ends slowly."""
    return (1 - math.cos(math.pi * progress)) / 2


def pose_schedule(opt: argparse.Namespace, epoch: int, first: int) -> Schedule:
    """The pose network's schedule from the flags.

    Args:
        epoch: the first epoch of this run. first: the first epoch of a curve, unless --schedule_start is
        given.

    Raises:
        UserError: the curve would start after this run, or is not longer than its warm-up.
    """
    if opt.lr_schedule == "step":
        pairs = (step.split(":") for step in opt.lr_steps.split())
        steps = tuple((int(start), float(factor)) for start, factor in pairs)
        if opt.nEpochs <= steps[0][0]:
            log.warning(
                "the learning rate stays at %g: --nEpochs %d ends before the first of --lr_steps %s, and "
                "published results come after drops: use a larger --nEpochs or earlier --lr_steps",
                *(opt.lr, opt.nEpochs, opt.lr_steps),
            )
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
