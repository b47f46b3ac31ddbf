"""Reads the event log of a run for comparison, including the tables of its evaluations."""

import math
from dataclasses import dataclass
from pathlib import Path

from utils.evaluation.average_precision import COLUMNS
from utils.evaluation.grids import TABLES
from utils.records.events import EVENTS, current_events, read_events
from utils.system.errors import UserError

INITIAL = {"checkpoint": "initial weights", "weights": "", "sha256": ""}  # a run without a checkpoint


@dataclass(frozen=True)
class RunLog:
    """The content of a run's event log. Logs of earlier versions lack people, origins and updates.

    people: data set and fingerprints. origins: identities of the checkpoints that the run started or resumed
    from, the latest last. columns: titles of the results table, the mean of PCK last; before the joints,
    average precision where the run has it. pck: epoch -> shares by column. updates: epoch -> optimizer
    steps of the pose network so far. options: epoch -> the options it was trained with, as text.
    """

    metric_name: str
    seed: str
    people: dict[str, str]
    origins: list[dict[str, str]]
    columns: list[str]
    pck: dict[int, list[float]]
    updates: dict[int, int]
    options: dict[int, dict[str, str]]


def read_run(folder: Path) -> RunLog:
    """Read the log of a run; for an epoch that was trained again, only the last training counts.

    Raises:
        UserError: the folder has no log of a pose network's training.
    """
    path = folder / EVENTS
    try:
        events = current_events(read_events(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: expected the folder of a training run") from error
    start, starts, pck, updates = {}, [], {}, {}
    for event in events:
        if event["kind"] == "start":
            start = event
        elif event["kind"] == "epoch" and "pck" in event:
            epoch = event["epoch"]
            # A start counts once it has finished an epoch. Without the epoch before, it is the run's first.
            if not starts or starts[-1] is not start:
                starts = [*(starts if epoch - 1 in pck else []), start]
            precision = {name: event[column] for name, column in COLUMNS.items() if column in event}
            pck[epoch] = precision | event["pck"]
            if "updates" in event:
                updates[epoch] = event["updates"]
    if not pck:
        raise UserError(f"{path} has no epoch of a pose network: expected a run of stage 1 or 3")
    last, columns = starts[-1], list(pck[max(pck)])
    shares = {epoch: [table.get(column) for column in columns] for epoch, table in pck.items()}
    return RunLog(
        last["measure"],
        last["options"]["seed"],
        last.get("people", {}),
        [start["pose"] or INITIAL for start in starts] if all("pose" in start for start in starts) else [],
        columns,
        {epoch: [math.nan if share is None else share for share in row] for epoch, row in shares.items()},
        updates,
        epoch_options(events),
    )


def epoch_options(events: list[dict]) -> dict[int, dict[str, str]]:
    """Epoch -> the options it was trained with, {} if the log lacks the start; events: `current_events`."""
    options, found = {}, {}
    for event in events:
        if event["kind"] == "start":
            options = event["options"]
            if "agent_lr" in options:  # joint training, which had one rule before it recorded which
                options = {"agent_rule": "published"} | options
        elif event["kind"] == "epoch":
            found[event["epoch"]] = options
    return found


def read_tables(folder: Path, epoch: int) -> dict[tuple[str, str], dict[str, float]]:
    """The tables of an epoch's evaluations: (table, people evaluated) -> shares by column.

    The latest of several evaluations counts.
    """
    path = folder / EVENTS
    return {
        (event["kind"], event["of"]): TABLES[event["kind"]].summary(event)
        for event in current_events(read_events(path) if path.exists() else [])
        if event["kind"] in TABLES and event["epoch"] == epoch
    }
