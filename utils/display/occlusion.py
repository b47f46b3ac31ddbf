"""Showing occlusion: tables and pictures of what masks cost."""

import logging
from pathlib import Path

from torch import nn

from utils.display.plots import plot_cells
from utils.display.sections import Grid, Section
from utils.files import write_file
from utils.occlusion import occlusion_grid
from utils.runs import Run

log = logging.getLogger(__name__)


def report_cells(run: Run, network: nn.Module, path: Path) -> list[Section]:
    """Log PCK with each single cell masked, and return it for a page.

    Its text goes to `path`, a picture to its `.png` twin.

    Raises:
        UserError: a file cannot be written.
    """
    grid, plain = occlusion_grid(run, network)
    side = len(grid)
    title = f"{run.dataset.metric_name} with one of {side} x {side} cells masked, as they lie in the crop"
    rows = ["".join(f"{100 * value:>8.2f}" for value in row) for row in grid]
    means = f"mean of all {100 * grid.mean():.2f}, without a mask {100 * plain:.2f}"
    text = "\n".join([title, *rows, means])
    log.info("%s", text)
    write_file(path, text + "\n")
    plot_cells(path.with_name(path.name.removesuffix(".txt") + ".png"), grid, f"{title}\n{means}")
    names = [str(number + 1) for number in range(side)]
    note = f"{title}; in %, without the flip test; {means}."
    return [Section("With one cell masked", note, grid=Grid("", names, names, grid.tolist()))]
