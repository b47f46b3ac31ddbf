"""A plain and slow reading of whole photographs in float64, and how close a crop comes to it."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def plain_crop(
    pixels: np.ndarray, center: Sequence[float], scale: float, rotation: float, res: int
) -> np.ndarray:
    """The crop f64 [res, res, 3] in 0..1: each value a mean of many samples, linear between pixels.

    pixels: u8 [height, width, 3], black beyond. center: px. scale: box side / 200 px. rotation: degrees.
    """
    framed = np.pad(pixels / 255, ((1, 1), (1, 1), (0, 0)))  # black beyond
    height, width = framed.shape[:2]
    step = 200 * scale / res  # px of the photograph a crop pixel
    samples = max(4, int(np.ceil(step)))
    cos, sin = step * np.cos(np.deg2rad(rotation)), step * np.sin(np.deg2rad(rotation))
    across = (np.arange(res * samples) + 0.5) / samples - res / 2
    crop = np.empty((res, res, 3))
    for row in range(res):
        u, v = np.meshgrid(across, across[row * samples : (row + 1) * samples])
        # The crop shows the photograph turned counter-clockwise; half a pixel and the frame's one: + 0.5.
        x = (center[0] + cos * u - sin * v + 0.5).clip(0, width - 1)
        y = (center[1] + sin * u + cos * v + 0.5).clip(0, height - 1)
        left, top = x.astype(int).clip(max=width - 2), y.astype(int).clip(max=height - 2)
        a, b = (x - left)[..., None], (y - top)[..., None]
        upper = (1 - a) * framed[top, left] + a * framed[top, left + 1]
        lower = (1 - a) * framed[top + 1, left] + a * framed[top + 1, left + 1]
        fine = (1 - b) * upper + b * lower
        crop[row] = fine.reshape(samples, res, samples, 3).mean(axis=(0, 2))
    return crop


def psnr(crop: Tensor, plain: np.ndarray) -> float:
    """How close a crop [3, res, res] is to `plain_crop`'s [res, res, 3], both in 0..1: dB."""
    error = np.square(crop.permute(1, 2, 0).double().numpy() - plain).mean()
    return -10 * np.log10(error + 1e-12)
