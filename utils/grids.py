"""The file of `--eval_grid true`: PCK under each of the 7 x 7 means of scale and rotation bins, as text."""

from pathlib import Path

import numpy as np
from torch import Tensor

from data.kinds import KINDS
from utils.errors import UserError

SCALES, ROTATIONS = KINDS["scale"].means, KINDS["rotation"].means


def format_grid(grid: Tensor, metric_name: str) -> str:
    """Shares [7, 7] as a table in %, a row a scale and a column a rotation; a title above, the mean below."""
    title = f"{metric_name} by scale (rows, log2) and rotation (columns, degrees)"
    head = " " * 8 + "".join(f"{rotation:>8g}" for rotation in ROTATIONS)
    rows = [
        f"{scale:>8g}" + "".join(f"{100 * value:>8.2f}" for value in row)
        for scale, row in zip(SCALES, grid, strict=True)
    ]
    return "\n".join([title, head, *rows, f"mean of all {100 * grid.mean():.2f}"])


def read_grid(path: Path) -> np.ndarray:
    """The shares f64 [7, 7] of a file that holds `format_grid`'s text.

    Raises:
        UserError: it cannot be read, or is no such table.
    """
    try:
        rows = path.read_text(encoding="utf-8").splitlines()[2 : 2 + len(SCALES)]
        numbers = np.array([[float(word) for word in row.split()] for row in rows])
        if not np.array_equal(numbers[:, 0], SCALES):
            raise ValueError("other scales")
        return numbers[:, 1:].reshape(len(SCALES), len(ROTATIONS)) / 100
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path} is no table of --eval_grid true: evaluate the checkpoint again") from error


def grid_summary(grid: np.ndarray) -> dict[str, float]:
    """Of a grid [7, 7]: its mean; its middle, which is not augmented; the mean of its four corners."""
    middle = len(SCALES) // 2, len(ROTATIONS) // 2
    return {
        "Grid mean": grid.mean(),
        "Grid middle": grid[middle],
        "Grid corners": grid[np.ix_([0, -1], [0, -1])].mean(),
    }
