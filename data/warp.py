"""Patches -> crops: one linear sample per pixel and a filter, or four samples where the crop shrinks much."""

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINKS = 1.85  # px of the patch per px of the crop from which on a single sample would miss detail
SMOOTHING = 1 / 24  # share of each neighbour along an axis: 2 / 24 is the variance of a pixel's square
CACHED = 2**16  # px of crops that a CPU filters together, so that they stay in its cache
PLACES = ((0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1))  # from a pixel's middle, in quarters of its side
MIDDLE, QUARTERS = slice(0, 1), slice(1, 5)
"""Of `PLACES`, where one sample is taken, and where four are."""


def warp(patch: Tensor, box: Tensor, matrix: Tensor, gains: Tensor, res: int) -> Tensor:
    """Crops of people's patches.

    Args:
        patch: u8 [N, 3, P, P]. box: f32 [N, 3], middle (x, y) and side of the person's box, px of the patch.
        matrix: f32 [C * N, 2, 2], of crop c of person j in row c * N + j: from the crop to the box, in -1..1
            of both. gains: f32 [C * N, 3], of the colors. res: side of the crops in px.

    Returns:
        f32 [C * N, 3, res, res] in 0..1.
    """
    n, patch_res, crops = len(patch), patch.shape[-1], len(matrix)
    box = box.repeat(crops // n, 1)
    middle, matrix = box[:, :2], matrix * (box[:, 2] / 2)[:, None, None]  # px of the patch
    shrinks = matrix.norm(dim=1).amax(dim=1) > SHRINKS * res / 2
    at = ((2 * torch.arange(res, device=patch.device) + 1) / res - 1)[:, None]
    image = matrix.new_empty(crops, 3, res, res)
    if patch.device.type == "cuda":  # few calls for many people at once
        patch, (lines, down) = patch.float(), _lines(matrix, middle, torch.full_like(middle, patch_res), at)
        for some in (slice(first, first + n) for first in range(0, crops, n)):
            once, finely = (
                _sample(patch, lines[some, places], down[some], at) for places in (MIDDLE, QUARTERS)
            )
            sampled = torch.where(shrinks[some, None, None, None], finely, once)
            _smooth(sampled, shrinks[some], gains[some], image[some])
        return image

    # A CPU is quickest with what stays in its cache: only what a crop sees, and a few crops at once.
    reach = matrix.abs().sum(dim=2)
    first = ((middle - reach).floor() - 1).clamp(min=0)
    last = ((middle + reach).ceil() + 1).clamp(max=patch_res)
    lines, down = _lines(matrix, middle - first, last - first, at)
    windows, fine = torch.cat((first, last), dim=1).long().tolist(), shrinks.tolist()
    at_once = max(1, CACHED // res**2)
    for some in (slice(first, first + at_once) for first in range(0, crops, at_once)):
        sampled = []
        for row in range(crops)[some]:
            left, top, right, lower = windows[row]
            seen = patch[row % n, None, :, top:lower, left:right].float()
            places = QUARTERS if fine[row] else MIDDLE
            sampled.append(_sample(seen, lines[row, None, places], down[row, None], at))
        sampled = torch.cat(sampled) if at_once > 1 else sampled[0]
        _smooth(sampled, shrinks[some], gains[some], image[some])
    return image


def _lines(matrix: Tensor, middle: Tensor, size: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The line through a crop's middle on which it is sampled, for each of `PLACES`, and the way down.

    matrix [M, 2, 2] and middle [M, 2] map -1..1 of the crops to px of pictures whose size is [M, 2] px. at:
    [res, 1], the pixels' middles in -1..1.

    Returns:
        (lines [M, 5, 1, 2 * res], x and y in turn, in -1..1 of the pictures; the way from the crop's middle
        to its lower edge, [M, 1, 2 * res], as often.) So one call computes a grid from the two.
    """
    across, down = (2 * matrix / size[..., None]).mT.unbind(dim=1)
    quarters = torch.tensor(PLACES, device=at.device) / (2 * len(at))
    start = (
        (2 * middle / size - 1)[:, None] + quarters[:, :1] * across[:, None] + quarters[:, 1:] * down[:, None]
    )
    lines = start[:, :, None] + at * across[:, None, None]
    return lines.view(len(matrix), len(PLACES), 1, -1), down.repeat(1, len(at))[:, None]


def _sample(picture: Tensor, lines: Tensor, down: Tensor, at: Tensor) -> Tensor:
    """Crops f32 [M, 3, res, res] of pictures f32 [M, 3, H, W]: means over the P lines [M, P, 1, 2 * res]."""
    samples = []
    for line in lines.unbind(dim=1):
        grid = torch.addcmul(line, at, down).view(-1, len(at), len(at), 2)
        samples.append(
            F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
        )
    return samples[0] if len(samples) == 1 else torch.stack(samples).mean(dim=0)


def _smooth(crop: Tensor, fine: Tensor, gains: Tensor, out: Tensor) -> None:
    """Filter crops f32 [M, 3, H, W] in 0..255 but for `fine` ones [M], color them, and scale to 0..1.

    The filter adds a pixel's four neighbours; beyond the border pixels repeat. It brings a sample at the
    middle of a pixel close to the mean over the pixel's square: along either axis it has the same variance.
    gains: [M, 3]. out: receives the crops.
    """
    width, near = crop.shape[-1], torch.empty_like(crop)
    rows, sums = crop.flatten(2), near.flatten(2)  # long runs of memory are quickest
    torch.add(rows[..., : -2 * width], rows[..., 2 * width :], out=sums[..., width:-width])
    torch.add(rows[..., :width], rows[..., width : 2 * width], out=sums[..., :width])
    torch.add(rows[..., -width:], rows[..., -2 * width : -width], out=sums[..., -width:])
    edges = [near[..., edge] + crop[..., edge] + crop[..., inner] for edge, inner in ((0, 1), (-1, -2))]
    run = crop.view(-1)
    near.view(-1)[1:-1].add_(run[:-2]).add_(run[2:])
    near[..., 0], near[..., -1] = edges  # where a row's neighbours in memory are those of another row
    gains, share = gains[..., None, None] / 255, (SMOOTHING * ~fine)[:, None, None, None]
    torch.mul(crop, gains * (1 - 4 * share), out=out).addcmul_(near, gains * share).clamp_(max=1)
