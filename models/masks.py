"""Occlusion: masks over cells of the neck's grid, drawn from an agent's distribution; targets of pretraining.

A grid of `side` x `side` cells covers the crop; cell k is in row k // side and column k % side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models import MASKED_CELLS


def draw_cells(shares: Tensor, noise: Tensor) -> Tensor:
    """Draw `MASKED_CELLS` different cells per person, without replacement, in order of drawing.

    The result is that of `torch.multinomial` on the CPU, which divides by exponential noise, too; but the
    noise may be on any device and for any part of a batch.

    Args:
        shares: [N, cells] float, each row a distribution over more than `MASKED_CELLS` cells.
        noise: [N, cells] float, samples of the exponential distribution, on the same device.

    Returns:
        int64 [N, MASKED_CELLS].
    """
    return (shares / noise).topk(MASKED_CELLS, dim=1).indices


def cell_mask(cells: Tensor, side: int) -> Tensor:
    """A mask for `StackedHourglass`: f32 [N, 1, side, side], 0 at the cells int64 [N, M], 1 elsewhere."""
    mask = torch.ones(len(cells), side * side, device=cells.device)
    return mask.scatter_(1, cells, 0.0).view(-1, 1, side, side)


def joint_votes(points: Tensor, res: int, side: int) -> Tensor:
    """The distribution of a person's joints over cells: each joint inside the crop is a vote for its cell.

    Args:
        points: [N, K, 2] px of the crop's heatmaps, whose side is `res`; (0, 0) where not annotated.
        side: cells per side of the grid.

    Returns:
        f32 [N, side * side], each row a distribution; uniform if no joint has 0 < x < res and 0 < y < res.

    The occlusion agent is pretrained on these. The paper (Peng, Tang et al., CVPR 2018, arXiv:1805.09707)
    does not give its weights of joints: here they are equal.
    """
    inside = ((points > 0) & (points < res)).all(dim=-1)
    column, row = (points * side / res).floor().long().clamp(0, side - 1).unbind(dim=-1)
    votes = F.one_hot(row * side + column, side * side) * inside[..., None]
    votes = votes.sum(dim=1).float()
    votes = torch.where(inside.any(dim=1, keepdim=True), votes, 1.0)
    return votes / votes.sum(dim=1, keepdim=True)
