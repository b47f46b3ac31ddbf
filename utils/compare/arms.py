"""The arms of an experiment: their scores, and their differences over pairs of runs with the same seed."""

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
    differing_options,
)
from utils.compare.run_logs import RunLog, read_run, read_tables
from utils.evaluation.grids import TABLES
from utils.records.events import EVENTS
from utils.system.errors import UserError

log = logging.getLogger("compare")

CONFIDENCE = 0.95
LATE = 10  # number of last epochs to average: a single epoch varies more


@dataclass(frozen=True)
class Arm:
    """The runs of an arm, which differ only in their seeds.

    pck: f64 [runs, epochs, columns of the results table], shares. tables: f64 [runs, columns of the
    evaluation tables of the last epoch], shares.
    """

    name: str
    seeds: list[str]
    pck: np.ndarray
    tables: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Shares [runs, `Comparison.columns`]: of the last epoch, the mean of late epochs, of the tables."""
        late = [self.pck[:, -LATE:, -1:].mean(axis=1)] if self.pck.shape[1] > 1 else []
        return np.concatenate([self.pck[:, -1], *late, self.tables], axis=1)


@dataclass(frozen=True)
class Comparison:
    """Several arms, over the epochs that all of their runs have.

    reference: the arm that the others are compared with. people: data set and fingerprints. columns: names of
    the columns of `Arm.scores`. origin: the checkpoint that all runs started from. updates: optimizer steps
    of the pose network at the last epoch. table_people: name of an evaluation table -> the people evaluated.
    options: see `differing_options`.
    Fields that the logs do not record are empty or None.
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
    options: dict[str, dict[str, str]]

    @property
    def others(self) -> list[Arm]:
        """The arms that are compared with the reference."""
        return [arm for arm in self.arms if arm is not self.reference]


@dataclass(frozen=True)
class Difference:
    """An arm minus the reference, in shares: the mean over pairs of runs, and half its 95 % interval.

    Both are arrays over columns or epochs. The mean is NaN without pairs, the interval with fewer than two.
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
    """`values` [runs, ...] of an arm minus the reference's, for each seed that both have: [pairs, ...]."""
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
    to_epoch: first and last epoch; None: the last. from_checkpoint: the checkpoint that every run must have
    started from; None: any, if all runs share it.

    Raises:
        UserError: a folder has no log, an arm has no runs or a seed twice, or the runs cannot be compared.
    """
    runs = _read_runs(named, reference)
    origin = check_origins(runs, from_checkpoint)
    check_same(runs, lambda run: run.metric_name, "{0} has other scores than {1}: {2}, not {3}")
    check_same(runs, lambda run: ", ".join(run.columns), "{0} has other joints than {1}: {2}, not {3}")
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
    first_run = next(iter(runs.values()))
    late = [f"Mean, epochs {epochs[-LATE:][0]} to {epochs[-1]}"] if len(epochs) > 1 else []
    columns = [*first_run.columns, *late, *next(iter(tables.values()))]
    return Comparison(
        arms,
        reference=next((arm for arm in arms if arm.name == reference), arms[0]),
        metric_name=first_run.metric_name,
        people=first_run.people,
        epochs=epochs,
        columns=columns,
        origin=origin,
        updates=first_run.updates.get(epochs[-1]),
        table_people=people,
        options=differing_options({name: runs[folders[0]] for name, folders in named}, epochs[-1]),
    )


def _read_runs(named: Sequence[tuple[str, list[Path]]], reference: str | None) -> dict[Path, RunLog]:
    """The logs of all runs by folder, after checks of names, folders and seeds; see `read_arms`."""
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
    return runs


def common_tables(folders: list[Path], epoch: int) -> tuple[dict[str, str], dict[Path, dict[str, float]]]:
    """The evaluation tables of an epoch that all runs have.

    Returns:
        Table name -> people evaluated, and folder -> shares by column.
    """
    found, people = {folder: read_tables(folder, epoch) for folder in folders}, {}
    for name in TABLES:
        whose = [{end for table, end in tables if table == name} for tables in found.values()]
        common = sorted(set.intersection(*whose))
        if common:
            people[name] = common[0]
        elif any(whose) or any(any(folder.glob(f"*lr-*-{epoch}-{name}*.txt")) for folder in folders):
            lacking = next((folder for folder, names in zip(folders, whose, strict=True) if not names), None)
            which = "the runs were evaluated on different people"
            if lacking:
                which = f"{lacking} has no such table in its {EVENTS}: evaluate it again"
            log.warning("results of --eval_%s true at epoch %d are not compared: %s", name, epoch, which)
    columns = {
        folder: {column: value for key in people.items() for column, value in tables[key].items()}
        for folder, tables in found.items()
    }
    return people, columns
