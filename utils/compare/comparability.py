"""Checks that runs can be compared: the same people, initial checkpoint, number of updates and options."""

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
    """Check that runs agree in a value, as far as their logs record it.

    of: the value of a run. complaint: format string of the error, for a folder, another one, and the value of
    each.

    Raises:
        UserError: two runs differ.
    """
    known = {folder: of(run) for folder, run in runs.items() if of(run)}
    for folder, value in known.items():
        first, expected = next(iter(known.items()))
        if value != expected:
            raise UserError(complaint.format(folder, first, value, expected))


def check_people(runs: dict[Path, RunLog]) -> None:
    """Check that runs have the same people.

    Raises:
        UserError: two were trained or validated on different people.
    """
    for split, what in (("valid", "validated"), ("train", "trained")):
        complaint = "{0} was " + what + " on other people than {1}: expected the same people"
        check_same(runs, lambda run, split=split: run.people.get(split), complaint)


def check_origins(runs: dict[Path, RunLog], checkpoint: Path | None) -> str | None:
    """Name and hash of the checkpoint that all runs started from; None if the logs do not record it.

    checkpoint: the checkpoint expected; None: any one that all runs share.

    Raises:
        UserError: the runs did not start from one checkpoint, or `checkpoint` cannot be read.
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
                found = f"started from {told(folder)}" if hashes else "does not record its initial checkpoint"
                raise UserError(
                    f"{folder} {found}: expected --from_checkpoint {checkpoint} ({expected[compared]})"
                )
        return f"{checkpoint.name} ({expected[compared]})"
    known = [folder for folder, hashes in started.items() if hashes]
    silent = [folder for folder in runs if folder not in known]
    if silent:
        log.warning(
            "%d of %d runs, such as %s, do not record their initial checkpoint: assuming it is the same",
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
    """The epochs from `first` to `last` (None: no limit) that all runs have.

    Raises:
        UserError: there are none, or one run ends before another.
    """
    limit = math.inf if last is None else last
    within = {folder: {epoch for epoch in run.pck if first <= epoch <= limit} for folder, run in runs.items()}
    epochs = sorted(set.intersection(*within.values()))
    if not epochs:
        to = "on" if last is None else f"to {last}"
        raise UserError(f"found no epoch from {first} {to} that all runs have: expected at least one")
    for folder, there in within.items():
        longer = max(there)
        if longer > epochs[-1]:
            shorter = min(within, key=lambda folder: max(within[folder]))
            raise UserError(
                f"{shorter} ends with epoch {max(within[shorter])}, {folder} with epoch {longer}: "
                f"use --to_epoch {epochs[-1]} to compare the epochs that both have"
            )
    return epochs


def check_updates(runs: dict[Path, RunLog], epochs: list[int]) -> None:
    """Check that all runs have made the same number of updates of the pose network by each epoch.

    Raises:
        UserError: two runs differ.
    """
    for epoch in epochs:
        complaint = f"{{0}} has made {{2}} updates by epoch {epoch}, {{1}} {{3}}: expected the same number"
        check_same(runs, lambda run, epoch=epoch: run.updates.get(epoch), complaint)


def check_recipe(arm: str, runs: dict[Path, RunLog], epochs: list[int]) -> None:
    """Check that all epochs of an arm were trained with the same flags of `RECIPE`, as far as recorded.

    The seed may differ between runs, but not within one.

    Raises:
        UserError: two epochs differ.
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
                    f"expected one value; use --to_epoch {last} or --from_epoch {epoch} to compare a part"
                )
            if old != new and flag != "seed":
                raise UserError(
                    f"arm {arm}: {before} was trained with --{flag} {old}, {folder} with {new}: expected "
                    "runs that differ only in their seed"
                )
