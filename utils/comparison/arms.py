"""Arms of an experiment that may be compared, their scores and how these differ by pairs of runs."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from utils.comparison.checks import check_origins, check_people, check_same, check_updates, common_epochs
from utils.comparison.runs import read_grids, read_run
from utils.errors import UserError
from utils.grids import grid_summary
from utils.metrics import TABLE_COLUMNS

log = logging.getLogger("compare")

CONFIDENCE = 0.95
LATE = 10  # epochs that are averaged beside the last one alone, which varies more


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone.

    pck: f64 [runs, epochs, columns of `TABLE_COLUMNS`], shares. grids: f64 [runs, columns of a grid], shares;
    no columns if there are no grids.
    """

    name: str
    seeds: list[str]
    pck: np.ndarray
    grids: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Shares [runs, columns of a comparison]: of the last epoch, of late ones, of the grid."""
        late = [self.pck[:, -LATE:, -1:].mean(axis=1)] if self.pck.shape[1] > 1 else []
        return np.concatenate([self.pck[:, -1], *late, self.grids], axis=1)


@dataclass(frozen=True)
class Comparison:
    """Arms beside each other, over the epochs of all of their runs.

    reference: the arm that the others are compared with. people: data set and fingerprints. columns: what
    `Arm.scores` has. origin: the checkpoint that all went on from; updates: those of each pose network in the
    end. grid_people: the end of the grids' names. What logs do not say is empty or None.
    """

    arms: list[Arm]
    reference: Arm
    metric_name: str
    people: dict[str, str]
    epochs: list[int]
    columns: list[str]
    origin: str | None
    updates: int | None
    grid_people: str

    @property
    def others(self) -> list[Arm]:
        """The arms that are compared with the reference."""
        return [arm for arm in self.arms if arm is not self.reference]


@dataclass(frozen=True)
class Difference:
    """An arm minus the reference, in shares: means over pairs of runs, and half their 95 % intervals.

    Each is an array over columns or epochs; NaN where there is no pair, or for the interval only one.
    """

    mean: np.ndarray
    half: np.ndarray
    pairs: int


def paired_difference(values: np.ndarray) -> Difference:
    """Mean and Student's interval of the pairs' differences [pairs, ...]."""
    pairs, nothing = len(values), np.full(values.shape[1:], math.nan)
    if pairs < 2:
        return Difference(values[0] if pairs else nothing, nothing, pairs)
    error = values.std(axis=0, ddof=1) / math.sqrt(pairs)
    return Difference(values.mean(axis=0), stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1) * error, pairs)


def pair_values(reference: Arm, arm: Arm, values: Callable[[Arm], np.ndarray]) -> np.ndarray:
    """`values` [runs, ...] of an arm minus those of the reference, for each seed that both have."""
    common = [seed for seed in reference.seeds if seed in arm.seeds]
    first, second = (values(one)[[one.seeds.index(seed) for seed in common]] for one in (reference, arm))
    return second - first


def read_arms(
    named: Sequence[tuple[str, list[Path]]],
    reference: str | None = None,
    from_epoch: int = 0,
    to_epoch: int | None = None,
    from_checkpoint: Path | None = None,
) -> Comparison:
    """Arms by name, with the folders of their runs, from one epoch to another (None: the last).

    reference: an arm's name; None: the first. from_checkpoint: what every run must have gone on from; None:
    they must agree.

    Raises:
        UserError: a folder has no log, an arm has no runs or a seed twice, or the runs may not be compared.
    """
    names = [name for name, _ in named]
    if any(not folders for _, folders in named):
        raise UserError("--arm: expected a name and at least one folder")
    if len(set(names)) < len(names):
        raise UserError(f"--arm: expected a name for each arm, found one twice: {', '.join(names)}")
    if reference is not None and reference not in names:
        raise UserError(f"--reference {reference}: expected one of the arms, {', '.join(names)}")
    runs = {folder: read_run(folder) for _, folders in named for folder in folders}
    for name, folders in named:
        seeds = [runs[folder].seed for folder in folders]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"arm {name} has a seed twice: {', '.join(seeds)}")
    origin = check_origins(runs, from_checkpoint)
    check_same(runs, lambda run: run.metric_name, "{0} has other scores than {1}: {2}, not {3}")
    check_people(runs)
    epochs = common_epochs(runs, from_epoch, to_epoch)
    check_updates(runs, epochs)
    people, grids = common_grids(list(runs), epochs[-1])
    arms = [
        Arm(
            name,
            [runs[folder].seed for folder in folders],
            np.array([[runs[folder].pck[epoch] for epoch in epochs] for folder in folders]),
            np.array([list(grids[folder].values()) for folder in folders]),
        )
        for name, folders in named
    ]
    run = next(iter(runs.values()))
    late = [f"Mean, epochs {epochs[-LATE:][0]} to {epochs[-1]}"] if len(epochs) > 1 else []
    columns = [*TABLE_COLUMNS, *late, *next(iter(grids.values()))]
    chosen = arms[names.index(reference) if reference else 0]
    return Comparison(
        arms,
        chosen,
        run.metric_name,
        run.people,
        epochs,
        columns,
        origin,
        run.updates.get(epochs[-1]),
        people,
    )


def common_grids(folders: list[Path], epoch: int) -> tuple[str, dict[Path, dict[str, float]]]:
    """Whom the grids of an epoch are of, and their summaries by folder; empty ones where a run has none."""
    grids = {folder: read_grids(folder, epoch) for folder in folders}
    common = sorted(set.intersection(*(set(found) for found in grids.values())))
    if not common:
        lacking = [folder for folder in folders if not grids[folder]]
        if len(lacking) < len(folders):
            which = f"{lacking[0]} has no grid" if lacking else "the runs have no grid of the same people"
            log.warning("%s at epoch %d: grids are left out (--eval_grid true makes them)", which, epoch)
        return "", {folder: {} for folder in folders}
    return common[0], {folder: grid_summary(found[common[0]]) for folder, found in grids.items()}
