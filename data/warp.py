"""Patches -> crops: one linear sample per pixel and a filter, or four samples where the crop shrinks much."""

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINKS = 1.85  # px of the patch per px of the crop from which on a single sample would miss detail
CENTER = 20  # weight of a pixel whose four neighbours have 1: 2 / 24 is the variance of a pixel's square
PLACES = ((0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1))  # from a pixel's middle, in quarters of its side
"""Where a pixel is sampled: once, or at the other four."""


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
    weights = torch.where(shrinks, 4, CENTER + 4)  # sums of those of `_average` and of `_smooth`
    gains = (gains / (255 * weights)[:, None])[..., None, None]
    at = ((2 * torch.arange(-1, res + 1, device=patch.device) + 1) / res - 1)[:, None]
    image = matrix.new_empty(crops, 3, res, res)
    if patch.device.type == "cuda":  # few calls for many people at once
        patch, (lines, down) = patch.float(), _lines(matrix, middle, torch.full_like(middle, patch_res), at)
        for some in (slice(first, first + n) for first in range(0, crops, n)):
            once, finely = (sample(patch, lines[some], down[some], at) for sample in (_smooth, _average))
            sampled = torch.where(shrinks[some, None, None, None], finely, once)
            torch.mul(sampled, gains[some], out=image[some]).clamp_(max=1)
        return image

    # A CPU is quickest with what stays in its cache: only what a crop sees, and one crop at a time.
    reach = matrix.abs().sum(dim=2)
    first = ((middle - reach).floor() - 2).clamp(min=0)
    last = ((middle + reach).ceil() + 2).clamp(max=patch_res)
    lines, down = _lines(matrix, middle - first, last - first, at)
    windows, fine = torch.cat((first, last), dim=1).long().tolist(), shrinks.tolist()
    for row, (left, top, right, lower) in enumerate(windows):
        seen = patch[row % n, None, :, top:lower, left:right].float()
        sampled = (_average if fine[row] else _smooth)(seen, lines[row, None], down[row, None], at)
        torch.mul(sampled, gains[row], out=image[row, None]).clamp_(max=1)
    return image


def _lines(matrix: Tensor, middle: Tensor, size: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The line through a crop's middle on which it is sampled, for each of `PLACES`, and the way down.

    matrix [M, 2, 2] and middle [M, 2] map -1..1 of the crops to px of pictures whose size is [M, 2] px. at:
    [res + 2, 1], the pixels' middles in -1..1, and those of a further pixel at either end.

    Returns:
        (lines [M, 5, 1, 2 * res + 4], x and y in turn, in -1..1 of the pictures; the way from the crop's
        middle to its lower edge, [M, 1, 2 * res + 4], as often.) So one call computes a grid from the two.
    """
    across, down = (2 * matrix / size[..., None]).mT.unbind(dim=1)
    quarters = torch.tensor(PLACES, device=at.device) / (2 * (len(at) - 2))
    start = (
        (2 * middle / size - 1)[:, None] + quarters[:, :1] * across[:, None] + quarters[:, 1:] * down[:, None]
    )
    lines = start[:, :, None] + at * across[:, None, None]
    return lines.view(len(matrix), len(PLACES), 1, -1), down.repeat(1, len(at))[:, None]


def _smooth(picture: Tensor, lines: Tensor, down: Tensor, at: Tensor) -> Tensor:
    """Crops [M, 3, res, res] of pictures f32 [M, 3, H, W], sampled once per pixel, times `CENTER` + 4.

    Each pixel is added to its four neighbours. This brings a sample at the middle of a pixel close to the
    mean over the pixel's square: along either axis it has the same variance.
    """
    crop = _sample(picture, lines[:, 0], down, at)
    rows = crop[..., 1:-1, :]
    total = crop[..., :-2, 1:-1] + crop[..., 2:, 1:-1]
    return total.add_(rows[..., :-2]).add_(rows[..., 2:]).add_(rows[..., 1:-1], alpha=CENTER)


def _average(picture: Tensor, lines: Tensor, down: Tensor, at: Tensor) -> Tensor:
    """Crops [M, 3, res, res] of pictures f32 [M, 3, H, W], sampled four times per pixel, times 4."""
    first, *others = lines[:, 1:, :, 2:-2].unbind(dim=1)
    total = _sample(picture, first, down[..., 2:-2], at[1:-1])
    for line in others:
        total += _sample(picture, line, down[..., 2:-2], at[1:-1])
    return total


def _sample(picture: Tensor, line: Tensor, down: Tensor, at: Tensor) -> Tensor:
    """Samples f32 [M, 3, K, L] of pictures f32 [M, 3, H, W]: of a line [M, 1, 2 * L], at [K, 1] ways down."""
    grid = torch.addcmul(line, at, down).view(len(line), len(at), -1, 2)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
