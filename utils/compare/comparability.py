"""Checks that runs can be compared: the same people, initial checkpoint, number of updates and options."""

import logging
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from models import NETWORKS
from options.parser import RECIPE, recipe_flags
from utils.compare.run_logs import RunLog
from utils.records.checkpoint import checkpoint_identity, common_hash
from utils.system.errors import UserError

log = logging.getLogger("compare")


def check_same(runs: dict[Path, RunLog], value_of: Callable[[RunLog], object], message: str) -> None:
    """Raise a `UserError` if runs differ in a value that their logs record.

    value_of: returns the value of a run. message: format string of the error; its arguments are the folders
    of two runs and their values.
    """
    known = {folder: value_of(run) for folder, run in runs.items() if value_of(run)}
    for folder, value in known.items():
        first, expected = next(iter(known.items()))
        if value != expected:
            raise UserError(message.format(folder, first, value, expected))


def check_people(runs: dict[Path, RunLog]) -> None:
    """Raise a `UserError` unless all runs were trained and validated on the same people."""
    for split, what in (("valid", "validated"), ("train", "trained")):
        message = "{0} was " + what + " on other people than {1}: expected the same people"
        check_same(runs, lambda run, split=split: run.people.get(split), message)


def check_origins(runs: dict[Path, RunLog], checkpoint: Path | None) -> str | None:
    """Name and hash of the checkpoint that all runs started from; None if the logs do not record it.

    checkpoint: the expected checkpoint; None: any, if all runs share it.

    Raises:
        UserError: the runs did not start from one checkpoint, or `checkpoint` cannot be read.
    """
    try:
        expected = None if checkpoint is None else checkpoint_identity(checkpoint)
    except OSError as error:
        raise UserError(f"--from_checkpoint {checkpoint} cannot be read: {error.strerror}") from error
    recorded = [origin for run in runs.values() for origin in run.origins]
    compared = common_hash(*recorded, *([expected] if expected else []))
    started = {
        folder: {origin[compared]: origin["checkpoint"] for origin in run.origins}
        for folder, run in runs.items()
    }

    def described(folder: Path) -> str:
        return ", ".join(f"{name} ({value})" if value else name for value, name in started[folder].items())

    if expected is not None:
        for folder, hashes in started.items():
            if expected[compared] not in hashes:
                found = "does not record its initial checkpoint"
                if hashes:
                    found = f"started from {described(folder)}"
                raise UserError(
                    f"{folder} {found}: expected --from_checkpoint {checkpoint} ({expected[compared]})"
                )
        return f"{checkpoint.name} ({expected[compared]})"
    known = [folder for folder, hashes in started.items() if hashes]
    unknown = [folder for folder in runs if folder not in known]
    if unknown:
        which = f"{len(unknown)} of {len(runs)} runs, such as {unknown[0]},"
        log.warning("%s do not record their initial checkpoint: assuming it is the same", which)
    common = list(started[known[0]]) if known else []
    for folder in known:
        common = [value for value in common if value in started[folder]]
        if not common:
            raise UserError(
                f"{folder} started from {described(folder)}, {known[0]} from {described(known[0])}: "
                "expected one checkpoint for all"
            )
    if not common:
        return None
    name = started[known[0]][common[-1]]
    return f"{name} ({common[-1]})" if common[-1] else name


def common_epochs(runs: dict[Path, RunLog], first: int, last: int | None) -> list[int]:
    """The epochs that all runs have, from `first` to `last` (None: no limit).

    Raises:
        UserError: there are none, or a run ends before another one.
    """
    limit = math.inf if last is None else last
    within = {folder: {epoch for epoch in run.pck if first <= epoch <= limit} for folder, run in runs.items()}
    epochs = sorted(set.intersection(*within.values()))
    if not epochs:
        to = "on" if last is None else f"to {last}"
        raise UserError(f"found no epoch from {first} {to} that all runs have: expected at least one")
    ends = {folder: max(run_epochs) for folder, run_epochs in within.items()}
    shortest = min(ends, key=ends.get)
    for folder, end in ends.items():
        if end > epochs[-1]:
            raise UserError(
                f"{shortest} ends with epoch {ends[shortest]}, {folder} with epoch {end}: "
                f"use --to_epoch {epochs[-1]} to compare the epochs that both have"
            )
    return epochs


def check_updates(runs: dict[Path, RunLog], epochs: list[int]) -> None:
    """Raise a `UserError` unless all pose networks have had the same number of updates by each epoch."""
    for epoch in epochs:
        message = f"{{0}} has made {{2}} updates by epoch {epoch}, {{1}} {{3}}: expected the same number"
        check_same(runs, lambda run, epoch=epoch: run.updates.get(epoch), message)


def differing_options(runs: dict[str, RunLog], epoch: int) -> dict[str, dict[str, str]]:
    """The options in which arms differ: flag -> arm -> value in an epoch, where its log records the flag.

    runs: a run of each arm, by the arm's name. Options are the network's size and `recipe_flags`, without the
    seed.
    """
    options = {arm: _recorded(run.options[epoch]) for arm, run in runs.items()}
    flags = dict.fromkeys(flag for one in options.values() for flag in one)
    found = {flag: {arm: one[flag] for arm, one in options.items() if flag in one} for flag in flags}
    return {flag: values for flag, values in found.items() if len(set(values.values())) > 1}


def _recorded(options: dict[str, str]) -> dict[str, str]:
    sizes = dict.fromkeys(flag for network in NETWORKS.values() for flag in network.sizes)
    flags = ("network", "in_res", *sizes, *recipe_flags(options.get("lr_schedule", "step")))
    return {flag: options[flag] for flag in flags if flag in options and flag != "seed"}


def check_recipe(arm: str, runs: dict[Path, RunLog], epochs: list[int]) -> None:
    """Raise a `UserError` unless all epochs of an arm were trained with the same values of `recipe_flags`.

    Only flags that the logs record are checked. The seed may differ between runs, but not within a run.
    """
    for flag in (*RECIPE, "nEpochs"):
        known = [
            (folder, epoch, run.options[epoch][flag])
            for folder, run in runs.items()
            for epoch in epochs
            if flag in run.options[epoch]
            and flag in recipe_flags(run.options[epoch].get("lr_schedule", "step"))
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
