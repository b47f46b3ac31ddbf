"""The arms of an experiment: their scores, and the differences between them by pairs of runs."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from utils.compare.comparability import (
    check_origins,
    check_people,
    check_recipe,
    check_same,
    check_updates,
    common_epochs,
)
from utils.compare.run_logs import read_run, read_tables
from utils.evaluation.grids import TABLES
from utils.evaluation.metrics import TABLE_COLUMNS
from utils.records.events import EVENTS
from utils.system.errors import UserError

log = logging.getLogger("compare")

CONFIDENCE = 0.95
LATE = 10  # last epochs to average: a single epoch varies more


@dataclass(frozen=True)
class Arm:
    """The runs of an arm, which differ only in their seeds.

    pck: f64 [runs, epochs, columns of `TABLE_COLUMNS`], shares. tables: f64 [runs, columns of the tables that
    evaluations of the last epoch have logged], shares.
    """

    name: str
    seeds: list[str]
    pck: np.ndarray
    tables: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Shares [runs, columns of a comparison]: the last epoch, the mean of late epochs, the tables."""
        late = [self.pck[:, -LATE:, -1:].mean(axis=1)] if self.pck.shape[1] > 1 else []
        return np.concatenate([self.pck[:, -1], *late, self.tables], axis=1)


@dataclass(frozen=True)
class Comparison:
    """Several arms, over the epochs that all of their runs have.

    reference: the arm that the others are compared with. people: data set and fingerprints. columns: names of
    the columns of `Arm.scores`. origin: the checkpoint that all runs started from. updates: optimizer steps
    of each pose network at the last epoch. table_people: name of an evaluation's table -> the people
    evaluated. What the logs do not record is empty or None.
    """

    arms: list[Arm]
    reference: Arm
    metric_name: str
    people: dict[str, str]
    epochs: list[int]
    columns: list[str]
    origin: str | None
    updates: int | None
    table_people: dict[str, str]

    @property
    def others(self) -> list[Arm]:
        """The arms that are compared with the reference."""
        return [arm for arm in self.arms if arm is not self.reference]


@dataclass(frozen=True)
class Difference:
    """An arm minus the reference, in shares: the mean over pairs of runs, and half its 95 % interval.

    Both are arrays over columns or epochs; the mean is NaN without a pair, the interval with fewer than two.
    """

    mean: np.ndarray
    half: np.ndarray
    pairs: int


def paired_difference(values: np.ndarray) -> Difference:
    """Mean and Student's t interval of the differences of pairs [pairs, ...]."""
    pairs, nothing = len(values), np.full(values.shape[1:], math.nan)
    if pairs < 2:
        return Difference(values[0] if pairs else nothing, nothing, pairs)
    error = values.std(axis=0, ddof=1) / math.sqrt(pairs)
    return Difference(values.mean(axis=0), stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1) * error, pairs)


def pair_values(reference: Arm, arm: Arm, values: Callable[[Arm], np.ndarray]) -> np.ndarray:
    """`values` [runs, ...] of an arm minus those of the reference, for each seed that both arms have."""
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
    """Read the runs of arms from their folders, and check that they can be compared.

    named: (name, folders of the runs) of each arm. reference: name of an arm; None: the first. from_epoch,
    to_epoch: first and last epoch; None: the last. from_checkpoint: the checkpoint from which every run must
    have started; None: any one that all share.

    Raises:
        UserError: a folder has no log, an arm has no runs or a seed twice, or the runs cannot be compared.
    """
    names = [name for name, _ in named]
    if any(not folders for _, folders in named):
        raise UserError("--arm has no folder: expected a name and at least one folder")
    if len(set(names)) < len(names):
        raise UserError(f"--arm: found a name twice in {', '.join(names)}: expected different names")
    if reference is not None and reference not in names:
        raise UserError(f"--reference {reference}: expected one of the arms, {', '.join(names)}")
    runs = {folder: read_run(folder) for _, folders in named for folder in folders}
    for name, folders in named:
        seeds = [runs[folder].seed for folder in folders]
        if len(set(seeds)) < len(seeds):
            raise UserError(f"arm {name} has a seed twice: {', '.join(seeds)}: expected one run per seed")
    origin = check_origins(runs, from_checkpoint)
    check_same(runs, lambda run: run.metric_name, "{0} has other scores than {1}: {2}, not {3}")
    check_people(runs)
    epochs = common_epochs(runs, from_epoch, to_epoch)
    check_updates(runs, epochs)
    for name, folders in named:
        check_recipe(name, {folder: runs[folder] for folder in folders}, epochs)
    people, tables = common_tables(list(runs), epochs[-1])
    arms = [
        Arm(
            name,
            [runs[folder].seed for folder in folders],
            np.array([[runs[folder].pck[epoch] for epoch in epochs] for folder in folders]),
            np.array([list(tables[folder].values()) for folder in folders]),
        )
        for name, folders in named
    ]
    run = next(iter(runs.values()))
    late = [f"Mean, epochs {epochs[-LATE:][0]} to {epochs[-1]}"] if len(epochs) > 1 else []
    columns = [*TABLE_COLUMNS, *late, *next(iter(tables.values()))]
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


def common_tables(folders: list[Path], epoch: int) -> tuple[dict[str, str], dict[Path, dict[str, float]]]:
    """The evaluation tables of an epoch that all runs have: people by table name, and columns by folder."""
    found, people = {folder: read_tables(folder, epoch) for folder in folders}, {}
    for name in TABLES:
        whose = [{end for table, end in tables if table == name} for tables in found.values()]
        common = sorted(set.intersection(*whose))
        if common:
            people[name] = common[0]
        elif any(whose) or any(any(folder.glob(f"*lr-*-{epoch}-{name}*.txt")) for folder in folders):
            lacking = next((folder for folder, there in zip(folders, whose, strict=True) if not there), None)
            which = "the runs were evaluated on different people"
            if lacking:
                which = f"{lacking} has no such table in its {EVENTS}: evaluate it again"
            log.warning("results of --eval_%s true at epoch %d are not compared: %s", name, epoch, which)
    columns = {
        folder: {column: value for key in people.items() for column, value in tables[key].items()}
        for folder, tables in found.items()
    }
    return people, columns
