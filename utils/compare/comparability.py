"""Whether runs may be compared: the same people, start and number of updates. A refusal is a `UserError`."""

import logging
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from options.parser import RECIPE
from utils.compare.run_logs import RunLog
from utils.records.checkpoint import checkpoint_identity, common_hash
from utils.system.errors import UserError

log = logging.getLogger("compare")


def check_same(runs: dict[Path, RunLog], of: Callable[[RunLog], object], complaint: str) -> None:
    """Runs agree in something, as far as their logs say it.

    complaint: with places for a run, another, and what each has.

    Raises:
        UserError: two do not.
    """
    known = {folder: of(run) for folder, run in runs.items() if of(run)}
    for folder, value in known.items():
        first, expected = next(iter(known.items()))
        if value != expected:
            raise UserError(complaint.format(folder, first, value, expected))


def check_people(runs: dict[Path, RunLog]) -> None:
    """Runs are of the same people.

    Raises:
        UserError: two were trained or validated on different people.
    """
    for split, what in (("valid", "validated"), ("train", "trained")):
        complaint = "{0} was " + what + " on other people than {1}: they cannot be compared"
        check_same(runs, lambda run, split=split: run.people.get(split), complaint)


def check_origins(runs: dict[Path, RunLog], checkpoint: Path | None) -> str | None:
    """Name and hash of the checkpoint that all runs have gone on from: this one, or any.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        expected = None if checkpoint is None else checkpoint_identity(checkpoint)
    except OSError as error:
        raise UserError(f"--from_checkpoint {checkpoint} cannot be read: {error.strerror}") from error
    everywhere = [pose for run in runs.values() for pose in run.origins]
    compared = common_hash(*everywhere, *([expected] if expected else []))
    started = {
        folder: {pose[compared]: pose["checkpoint"] for pose in run.origins} for folder, run in runs.items()
    }

    def told(folder: Path) -> str:
        return ", ".join(f"{name} ({value})" if value else name for value, name in started[folder].items())

    if expected is not None:
        for folder, hashes in started.items():
            if expected[compared] not in hashes:
                found = f"started from {told(folder)}" if hashes else "does not say what it started from"
                raise UserError(
                    f"{folder} {found}: expected --from_checkpoint {checkpoint} ({expected[compared]})"
                )
        return f"{checkpoint.name} ({expected[compared]})"
    known = [folder for folder, hashes in started.items() if hashes]
    silent = [folder for folder in runs if folder not in known]
    if silent:
        log.warning(
            "%d of %d runs do not say which checkpoint they started from, %s for one: assumed to be the same",
            len(silent),
            len(runs),
            silent[0],
        )
    common = list(started[known[0]]) if known else []
    for folder in known:
        common = [value for value in common if value in started[folder]]
        if not common:
            raise UserError(
                f"{folder} started from {told(folder)}, {known[0]} from {told(known[0])}: "
                "expected one checkpoint for all"
            )
    if not common:
        return None
    name = started[known[0]][common[-1]]
    return f"{name} ({common[-1]})" if common[-1] else name


def common_epochs(runs: dict[Path, RunLog], first: int, last: int | None) -> list[int]:
    """The epochs of all runs, from one to another.

    Raises:
        UserError: there are none, or one run ends before another.
    """
    limit = math.inf if last is None else last
    within = {folder: {epoch for epoch in run.pck if first <= epoch <= limit} for folder, run in runs.items()}
    epochs = sorted(set.intersection(*within.values()))
    if not epochs:
        to = "on" if last is None else f"to {last}"
        raise UserError(f"no epoch from {first} {to} is in all of the runs")
    for folder, there in within.items():
        longer = max(there)
        if longer > epochs[-1]:
            shorter = min(within, key=lambda folder: max(within[folder]))
            raise UserError(
                f"{shorter} ends with epoch {max(within[shorter])}, {folder} with epoch {longer}: "
                f"--to_epoch {epochs[-1]} compares them as far as both go"
            )
    return epochs


def check_updates(runs: dict[Path, RunLog], epochs: list[int]) -> None:
    """Runs have made as many updates of the pose network by each epoch.

    Raises:
        UserError: two have not.
    """
    for epoch in epochs:
        complaint = f"{{0}} has made {{2}} updates by epoch {epoch}, {{1}} {{3}}: they cannot be compared"
        check_same(runs, lambda run, epoch=epoch: run.updates.get(epoch), complaint)


def check_recipe(arm: str, runs: dict[Path, RunLog], epochs: list[int]) -> None:
    """The epochs of an arm's runs were trained with the same flags of `RECIPE`, as far as their logs say it.

    The seed is each run's own.

    Raises:
        UserError: two epochs were not.
    """
    for flag in RECIPE:
        known = [
            (folder, epoch, run.options[epoch][flag])
            for folder, run in runs.items()
            for epoch in epochs
            if flag in run.options[epoch]
        ]
        for (before, last, old), (folder, epoch, new) in pairwise(known):
            if old != new and before == folder:
                raise UserError(
                    f"{folder} was trained with --{flag} {old} in epoch {last}, {new} in epoch {epoch}: "
                    f"expected one value; --to_epoch {last} or --from_epoch {epoch} compares a part"
                )
            if old != new and flag != "seed":
                raise UserError(
                    f"arm {arm}: {before} was trained with --{flag} {old}, {folder} with {new}: expected "
                    "runs that differ only in their seed"
                )
