"""The event log of a training run: `log.jsonl` in its folder, one JSON object per line.

`kind` is
"start": stage, time (s since 1970), measure, epoch (the first to be trained), epochs (total number), people
    (data set, and fingerprints of the training and validation people), pose (the identity of the
    --load_prefix_pose checkpoint, or null), options (name -> text);
"batch": epoch, batch, batches (number per epoch), and the means of the epoch so far, by name;
"epoch": a row of the history, updates (optimizer steps so far), and for the pose network pck and auc (column
    -> share);
"end": time;
"grid", "occlusion": the result of --eval_<kind> true: checkpoint (its name), epoch, of (suffix of the files'
    names that tells which people were evaluated, or ""), people (see "start"), shares (rows of PCK), and for
    occlusion plain (PCK without a mask).
A resumed run has several starts: an epoch logged after a start replaces the same and later epochs before it.
"""

import json
import math
from pathlib import Path

from utils.system.errors import UserError

EVENTS = "log.jsonl"
EVALUATIONS = ("grid", "occlusion")


class EventLog:
    """Appends events to a file and flushes each of them.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            torn = path.exists() and not path.read_bytes().endswith(b"\n")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
        if torn:  # a run was killed while writing a line: the next event starts a new one
            self._file.write("\n")

    def add(self, event: dict) -> None:
        """Write one event; a number that is not finite, which JSON lacks, becomes null."""
        try:
            self._file.write(json.dumps(_finite(event), allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_events(path: Path) -> list[dict]:
    """The events of a log file, without lines that are incomplete because a run was killed.

    Raises:
        OSError: it cannot be read.
    """
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "kind" in event:
            events.append(event)
    return events


def current_events(events: list[dict]) -> list[dict]:
    """The events without those of epochs that were trained again after a later start.

    Epochs are replaced when the later start has finished one, batches as soon as it has logged one.
    """
    earlier: list[dict] = []
    latest: list[dict] = []
    for event in events:
        kind = event["kind"]
        if kind == "start":
            earlier, latest = earlier + latest, []
        elif kind in ("batch", "epoch") and all(other["kind"] != kind for other in latest):
            gone = ("batch",) if kind == "batch" else ("batch", "epoch", *EVALUATIONS)
            earlier = [old for old in earlier if old["kind"] not in gone or old["epoch"] < event["epoch"]]
        latest.append(event)
    return earlier + latest
