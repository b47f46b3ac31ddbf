"""The tables that evaluations add, as text, and what a comparison takes from them.

`--eval_grid true`: PCK under each of the 7 x 7 means of scale and rotation bins. `--eval_occlusion true`: PCK
with each single cell of the crop masked. A file's name ends with the name of its table, and whom it is of.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from data.kinds import KINDS
from utils.system.errors import UserError

SCALES, ROTATIONS = KINDS["scale"].means, KINDS["rotation"].means
_MEANS = re.compile(r"mean of all [\d.]+, without a mask ([\d.]+)")


def format_grid(grid: Tensor, metric_name: str) -> str:
    """Shares [7, 7] as a table in %, a row a scale and a column a rotation; a title above, the mean below."""
    title = f"{metric_name} by scale (rows, log2) and rotation (columns, degrees)"
    head = " " * 8 + "".join(f"{rotation:>8g}" for rotation in ROTATIONS)
    rows = [
        f"{scale:>8g}" + "".join(f"{100 * value:>8.2f}" for value in row)
        for scale, row in zip(SCALES, grid, strict=True)
    ]
    return "\n".join([title, head, *rows, f"mean of all {100 * grid.mean():.2f}"])


def parse_grid(text: str) -> np.ndarray:
    """The shares f64 [7, 7] of `format_grid`'s text.

    Raises:
        ValueError, IndexError: it is no such text.
    """
    numbers = _numbers(text.splitlines()[2 : 2 + len(SCALES)])
    if not np.array_equal(numbers[:, 0], SCALES):
        raise ValueError("other scales")
    return numbers[:, 1:].reshape(len(SCALES), len(ROTATIONS)) / 100


def format_cells(grid: Tensor, plain: float, metric_name: str) -> tuple[str, str, str]:
    """Title, rows and means of a table in %: shares [side, side] with that cell masked, and without any."""
    side = len(grid)
    title = f"{metric_name} with one of {side} x {side} cells masked, as they lie in the crop"
    rows = "\n".join("".join(f"{100 * value:>8.2f}" for value in row) for row in grid)
    return title, rows, f"mean of all {100 * grid.mean():.2f}, without a mask {100 * plain:.2f}"


def parse_cells(text: str) -> tuple[np.ndarray, float]:
    """The shares f64 [side, side] and without a mask, of `format_cells`' three parts, a line each or more.

    Raises:
        ValueError, IndexError: it is no such text.
    """
    _, *rows, means = text.splitlines()
    match, grid = _MEANS.fullmatch(means), _numbers(rows) / 100
    if match is None or grid.shape != (len(rows), len(rows)):
        raise ValueError("no means, or no square of cells")
    return grid, float(match[1]) / 100


def _numbers(rows: list[str]) -> np.ndarray:
    return np.array([[float(word) for word in row.split()] for row in rows])


def grid_summary(grid: np.ndarray) -> dict[str, float]:
    """Of a grid [7, 7]: its mean; its middle, which is not augmented; the mean of its four corners."""
    middle = len(SCALES) // 2, len(ROTATIONS) // 2
    return {
        "Grid mean": grid.mean(),
        "Grid middle": grid[middle],
        "Grid corners": grid[np.ix_([0, -1], [0, -1])].mean(),
    }


def cells_summary(grid: np.ndarray, plain: float) -> dict[str, float]:
    """Of the cells [side, side]: their mean, the one that costs most, and PCK without a mask."""
    return {"Masked mean": grid.mean(), "Worst cell": grid.min(), "Not masked": plain}


class Table(NamedTuple):
    """A table of an evaluation: what a comparison takes from its text, by column, and a note on that."""

    summary: Callable[[str], dict[str, float]]
    note: str


TABLES = {
    "grid": Table(
        lambda text: grid_summary(parse_grid(text)),
        "7 x 7 scales and rotations, without the flip test; its middle is not augmented, its corners have "
        "the largest of both.",
    ),
    "occlusion": Table(
        lambda text: cells_summary(*parse_cells(text)),
        "a single cell of the crop masked, without the flip test: mean of all cells, the one that costs "
        "most, and no mask.",
    ),
}


def read_summary(path: Path, name: str) -> dict[str, float]:
    """Shares by column, of a file of `--eval_<name> true`.

    Raises:
        UserError: it cannot be read, or is no such table.
    """
    try:
        return TABLES[name].summary(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path} is no table of --eval_{name} true: evaluate the checkpoint again") from error
