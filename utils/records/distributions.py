"""The collected distributions: text files with one row per person and one number per bin.

The first line is `#` and a JSON object that describes the source of the rows; files of the 2018 release have
no such line. If bins were measured more than once, a second file has the PCK of each measurement.
"""

import io
import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.kinds import KINDS
from utils.records.checkpoint import common_hash
from utils.system.errors import UserError
from utils.system.files import write_file

log = logging.getLogger(__name__)

SUM_TOLERANCE = 0.05  # the release's rows are rounded to two digits
_WORDS = {
    "repeats": "--repeats",
    "fingerprint": "people with the fingerprint",
    "weights": "a checkpoint with the hash of weights",
    "sha256": "a checkpoint with the sha256",
}


def distribution_path(folder: Path, split: str, kind: str) -> Path:
    """The path of `train_scales.txt` and so on; split is "train" or "val", kind "scale" or "rotation"."""
    return folder / f"{split}_{kind}s.txt"


def pck_path(folder: Path, split: str, kind: str) -> Path:
    """The path of the PCK from which the rows were made, `train_scales_pck.txt` and so on."""
    return folder / f"{split}_{kind}s_pck.txt"


def write_distributions(path: Path, rows: Tensor, source: dict) -> None:
    """Write rows [N, bins] with six decimals, below a line that describes their source.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    np.savetxt(text, rows.numpy(), fmt="%.6f", header=json.dumps(source))
    write_file(path, text.getvalue())


def read_distributions(path: Path, source: dict) -> Tensor:
    """The rows of a file, each divided by its sum.

    Args:
        source: the expected source, as passed to `write_distributions`; its "people" is the number of rows.

    Returns:
        f32 [N, bins].

    Raises:
        UserError: the file is missing, truncated, damaged, or has another source.
    """
    text, _ = read_checked(path, source)
    rows = _parse(path, text, len(KINDS[source["kind"]].means), source["people"])
    sums = rows.sum(axis=1)
    bad = ~((rows >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE))
    if bad.any():
        row = int(bad.argmax())
        raise UserError(
            f"{path}: row {row} (from 0) is {rows[row].tolist()}, expected probabilities that sum to 1"
        )
    return torch.from_numpy(rows / sums[:, None]).float()


def write_pck(path: Path, pck: Tensor, source: dict) -> None:
    """Write PCK [R, N, bins] of R measurements; each person's row has one measurement after another.

    source: that of `write_distributions` with `repeats`, R; anything else in it is recorded, too.

    Raises:
        UserError: the file cannot be written.
    """
    write_distributions(path, pck.transpose(0, 1).flatten(1), source)


def read_pck(path: Path, source: dict) -> Tensor:
    """The PCK f32 [R, N, bins] of a file of `write_pck`; arguments and errors: see `read_distributions`."""
    text, found = read_checked(path, source)
    repeats, bins = found.get("repeats", 1), len(KINDS[source["kind"]].means)
    rows = _parse(path, text, repeats * bins, source["people"])
    if not ((rows >= 0) & (rows <= 1)).all():
        raise UserError(f"{path} is damaged: expected PCK from 0 to 1")
    return torch.from_numpy(rows).float().view(-1, repeats, bins).transpose(0, 1)


def read_checked(path: Path, source: dict) -> tuple[str, dict]:
    """The text of a file, and its source as recorded; {} if it is not.

    source: the kind, and any part of the expected source.

    Raises:
        UserError: the file is missing or no text, or has another source.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        script = f"collect-{source['kind']}-distri.py"
        raise UserError(f"{path} does not exist: run {script} first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: expected a text file") from error
    return text, _check_source(path, text, source)


def _check_source(path: Path, text: str, source: dict) -> dict:
    """Check the source of a file with this text, and return it as recorded; {} if it is not."""
    header = text.partition("\n")[0]
    if not header.startswith("#"):
        log.warning(
            "%s has no record of its people and network: assuming those of this run",
            path,
        )
        return {}
    try:
        found = dict(json.loads(header[1:]))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: its first line is damaged: {header[:60]}") from error
    if "fingerprint" in source and "fingerprint" not in found:
        log.warning(
            "%s has no fingerprint of its %s people: assuming those of this run",
            path,
            found.get("people"),
        )
        found["fingerprint"] = source["fingerprint"]
    found.setdefault("repeats", 1)
    compared = common_hash(found, source)
    others = {"checkpoint", "weights", "sha256"} - {compared}  # the file's name is no part of its identity
    differing = [name for name in source if name not in others and found.get(name) != source[name]]
    if differing:
        name = differing[0]
        what = _WORDS.get(name, name)
        raise UserError(
            f"{path} was collected for {what} {found.get(name)}, this run has {source[name]}: "
            f"collect-{source['kind']}-distri.py --overwrite true collects it again"
        )
    return found


def _parse(path: Path, text: str, columns: int, people: int) -> np.ndarray:
    """Numbers f64 [people, columns] of the lines that are not comments."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    if lines and not text.endswith("\n"):
        raise UserError(f"{path} is truncated: its last line is incomplete")
    rows = np.empty((len(lines), columns))
    for row, line in enumerate(lines):
        try:
            numbers = [float(number) for number in line.split(" ")]
        except ValueError:
            numbers = []
        if len(numbers) != columns:
            raise UserError(f"{path}: row {row} (from 0) is {line[:80]!r}, expected {columns} numbers")
        rows[row] = numbers
    if len(rows) != people:
        raise UserError(f"{path} has {len(rows)} rows, expected one for each of {people} people")
    return rows
