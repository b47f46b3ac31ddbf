"""Occlusion in a run: what a pose network finds under masks."""

import torch
from torch import Tensor, nn

from data.augmentation import Augmentation
from models import NETWORKS
from models.occlusion import cell_mask
from utils.metrics import PckCounter
from utils.process import progress
from utils.runs import Run


def grid_side(run: Run) -> int:
    """Cells of the crop's grid along a side: the size of the pose network's neck."""
    return run.opt.in_res // NETWORKS[run.opt.network].stride


@torch.no_grad()
def occlusion_grid(run: Run, network: nn.Module) -> tuple[Tensor, float]:
    """PCK of the validation people with each single cell masked, f64 [side, side], and without a mask.

    Un-augmented, without the flip test; the network is put in eval mode.
    """
    network.eval()
    side = grid_side(run)
    plain = PckCounter(run.dataset.threshold)
    masked = [PckCounter(run.dataset.threshold) for _ in range(side * side)]
    for people in progress(run.loader(run.dataset.valid, "identity"), "occlusion", run.opt.bs):
        sample = run.augment(people, Augmentation.identity(len(people)))
        plain.add(run.forward(network, sample.image)[-1], sample)
        for cell, counter in enumerate(masked):
            mask = cell_mask(torch.full((len(people), 1), cell, device=run.device), side)
            counter.add(run.forward(network, sample.image, mask)[-1], sample)
    grid = torch.tensor([counter.read() for counter in masked], dtype=torch.float64)
    return grid.view(side, side), plain.read()
