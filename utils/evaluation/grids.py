"""The tables of --eval_grid and --eval_occlusion, as text, and their summaries for comparisons.

`--eval_grid true`: PCK under each of the 7 x 7 means of scale and rotation bins. `--eval_occlusion true`: PCK
with each single cell of the crop masked.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from data.kinds import KINDS

SCALES, ROTATIONS = KINDS["scale"].means, KINDS["rotation"].means


def format_grid(grid: Tensor, metric_name: str) -> str:
    """Shares [7, 7] as a table in %, with a title and the mean; rows: scales, columns: rotations."""
    title = f"{metric_name} by scale (rows, log2) and rotation (columns, degrees)"
    head = " " * 8 + "".join(f"{rotation:>8g}" for rotation in ROTATIONS)
    rows = [
        f"{scale:>8g}" + "".join(f"{100 * value:>8.2f}" for value in row)
        for scale, row in zip(SCALES, grid, strict=True)
    ]
    return "\n".join([title, head, *rows, f"mean of all {100 * grid.mean():.2f}"])


def format_cells(grid: Tensor, plain: float, metric_name: str) -> tuple[str, str, str]:
    """Title, rows and means of a table in %; grid: shares [side, side] by masked cell. plain: no mask."""
    side = len(grid)
    title = f"{metric_name} with one of {side} x {side} cells masked, as they lie in the crop"
    rows = "\n".join("".join(f"{100 * value:>8.2f}" for value in row) for row in grid)
    return title, rows, f"mean of all {100 * grid.mean():.2f}, without a mask {100 * plain:.2f}"


def grid_summary(event: dict) -> dict[str, float]:
    """The mean of a grid, its middle, which is not augmented, and the mean of its four corners."""
    grid = np.array(event["shares"], dtype=float)  # null becomes NaN
    middle = len(SCALES) // 2, len(ROTATIONS) // 2
    return {
        "Grid mean": grid.mean(),
        "Grid middle": grid[middle],
        "Grid corners": grid[np.ix_([0, -1], [0, -1])].mean(),
    }


def cells_summary(event: dict) -> dict[str, float]:
    """The mean over masked cells, the lowest PCK of a cell, and PCK without a mask."""
    grid = np.array(event["shares"], dtype=float)
    return {"Masked mean": grid.mean(), "Worst cell": grid.min(), "Not masked": float(event["plain"])}


class Table(NamedTuple):
    """A table of an evaluation. summary: event of the log -> columns for comparisons. note: explains them."""

    summary: Callable[[dict], dict[str, float]]
    note: str


TABLES = {
    "grid": Table(
        grid_summary,
        "7 x 7 scales and rotations, without the flip test; its middle is not augmented, its corners have "
        "the largest of both.",
    ),
    "occlusion": Table(
        cells_summary,
        "a single cell of the crop masked, without the flip test: mean of all cells, the one that costs "
        "most, and no mask.",
    ),
}
"""By the kind of their events."""
