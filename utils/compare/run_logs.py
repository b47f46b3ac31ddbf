"""What a run has left to compare it by: its event log, with the tables of its evaluations."""

import math
from dataclasses import dataclass
from pathlib import Path

from utils.evaluation.grids import TABLES
from utils.evaluation.metrics import TABLE_COLUMNS
from utils.records.events import EVENTS, current_events, read_events
from utils.system.errors import UserError

INITIAL = {"checkpoint": "initial weights", "weights": "", "sha256": ""}  # where a run was not loaded


@dataclass(frozen=True)
class RunLog:
    """What a run's event log says; people, origins and updates are empty where an earlier version wrote it.

    people: data set and fingerprints. origins: the identities of the checkpoints that the run has gone on
    from, the latest last. pck: shares of each epoch, by column of `TABLE_COLUMNS`. updates: of the pose
    network after each epoch, those before the run's start included. options: those that each epoch was
    trained with, as text.
    """

    metric_name: str
    seed: str
    people: dict[str, str]
    origins: list[dict[str, str]]
    pck: dict[int, list[float]]
    updates: dict[int, int]
    options: dict[int, dict[str, str]]


def read_run(folder: Path) -> RunLog:
    """The log of a run; an epoch that was trained again counts once.

    Raises:
        UserError: the folder has no log of a training of the pose network.
    """
    path = folder / EVENTS
    try:
        events = current_events(read_events(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: expected the folder of a training run") from error
    start, way, pck, updates = {}, [], {}, {}
    for event in events:
        if event["kind"] == "start":
            start = event
        elif event["kind"] == "epoch" and "pck" in event:
            epoch = event["epoch"]
            # A start counts once it has trained an epoch; one that goes on from none of this log begins anew.
            if not way or way[-1] is not start:
                way = [*(way if epoch - 1 in pck else []), start]
            shares = [event["pck"][column] for column in TABLE_COLUMNS]
            pck[epoch] = [math.nan if share is None else share for share in shares]
            if "updates" in event:
                updates[epoch] = event["updates"]
    if not pck:
        raise UserError(f"{path} has no epoch of a pose network")
    last = way[-1]
    return RunLog(
        last["measure"],
        last["options"]["seed"],
        last.get("people", {}),
        origins(way),
        pck,
        updates,
        epoch_options(events),
    )


def origins(starts: list[dict]) -> list[dict[str, str]]:
    """The identities of the checkpoints that these starts went on from; empty if one does not say."""
    if not all("pose" in start for start in starts):
        return []
    return [start["pose"] or INITIAL for start in starts]


def epoch_options(events: list[dict]) -> dict[int, dict[str, str]]:
    """The options that each epoch was trained with, of `current_events`; none where no start is told."""
    options, found = {}, {}
    for event in events:
        if event["kind"] == "start":
            options = event["options"]
        elif event["kind"] == "epoch":
            found[event["epoch"]] = options
    return found


def read_tables(folder: Path, epoch: int) -> dict[tuple[str, str], dict[str, float]]:
    """What a run's evaluations of an epoch have found: shares by column, of each table and whom it is of.

    Of several evaluations the latest counts.
    """
    path = folder / EVENTS
    return {
        (event["kind"], event["of"]): TABLES[event["kind"]].summary(event)
        for event in current_events(read_events(path) if path.exists() else [])
        if event["kind"] in TABLES and event["epoch"] == epoch
    }
