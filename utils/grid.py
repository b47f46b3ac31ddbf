"""How robust a pose network is: PCK under every pair of a scale and a rotation bin's mean."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from data.augment import BIN_MEANS, Augmentation, augment
from utils.files import write_file
from utils.loops import progress
from utils.metrics import PckCounter
from utils.plots import plot_grid
from utils.runs import Run

log = logging.getLogger(__name__)


@torch.no_grad()
def evaluation_grid(run: Run, network: nn.Module) -> Tensor:
    """PCK f64 [7, 7] of the validation people, a row a scale bin and a column a rotation bin.

    Without the flip test; the network is put in eval mode.
    """
    network.eval()
    scales, rotations = BIN_MEANS["scale"], BIN_MEANS["rotation"]
    counters = [[PckCounter(run.dataset.threshold) for _ in rotations] for _ in scales]
    for people in progress(run.loader(run.dataset.valid, "drawn"), "grid", run.opt.bs):
        for i, scale in enumerate(scales):
            for j, rotation in enumerate(rotations):
                augmentation = Augmentation.fixed(len(people), scale, rotation)
                sample = augment(people, augmentation, run.opt.in_res, run.opt.out_res)
                counters[i][j].add(run.forward(network, sample.image)[-1], sample)
    return torch.tensor([[counter.mean for counter in row] for row in counters], dtype=torch.float64)


def report_grid(run: Run, network: nn.Module, path: Path) -> Tensor:
    """Log the grid and return it; write it to the text file `path` and, as a picture, to its `.png` twin.

    Raises:
        UserError: a file cannot be written.
    """
    grid = evaluation_grid(run, network)
    measure = run.dataset.score
    title = f"{measure} by scale (rows, log2) and rotation (columns, degrees)"
    head = " " * 8 + "".join(f"{rotation:>8g}" for rotation in BIN_MEANS["rotation"])
    rows = [
        f"{scale:>8g}" + "".join(f"{100 * value:>8.2f}" for value in row)
        for scale, row in zip(BIN_MEANS["scale"], grid, strict=True)
    ]
    text = "\n".join([title, head, *rows, f"mean of all {100 * grid.mean():.2f}"])
    log.info("%s", text)
    write_file(path, text + "\n")
    plot_grid(path.with_name(path.name.removesuffix(".txt") + ".png"), grid, measure)
    return grid
