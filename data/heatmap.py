"""Heatmaps: joints -> target maps, and maps -> joints.

A target is the published method's: exp(-d^2 / 9) on a 7 x 7 patch around the cell that holds the joint.
Decoding keeps the arithmetic with which published hourglass numbers were measured (Newell et al., ECCV 2016):
1-based maxima, a quarter cell towards the larger neighbour, truncation to whole pixels of the photograph.
"""

import torch
from torch import Tensor

from data.geometry import transform_points
from data.skeleton import MPII, Skeleton

PATCH_RADIUS = 3
PEAK_WIDTH = 9.0  # the target is exp(-d^2 / PEAK_WIDTH), d in cells


def render_heatmaps(points: Tensor, res: int = 64) -> Tensor:
    """Target maps of joints.

    Args:
        points: [N, K, 2] in px of the map (0 and `res` are its edges). res: side of the map.

    Returns:
        f32 [N, K, res, res] (row y, column x), with 1 in cell (floor(x), floor(y)). All 0 for a joint with
        x <= 0, y <= 0, x > res or y > res; at exactly `res` the peak is cut off and its slope stays.
    """
    inside = ((points > 0) & (points <= res)).all(dim=-1)
    step = torch.arange(-PATCH_RADIUS, PATCH_RADIUS + 1, device=points.device)
    slope = torch.exp(-step.double().square() / PEAK_WIDTH)
    bump = (slope[:, None] * slope).float()
    x, y = ((points * inside[..., None]).long()[..., None] + step).unbind(dim=-2)  # cells, [N, K, 7]
    seen = inside[..., None] & (x >= 0) & (x < res), (y >= 0) & (y < res)
    values = bump * (seen[1][..., :, None] & seen[0][..., None, :])
    cells = y.clamp(0, res - 1)[..., :, None] * res + x.clamp(0, res - 1)[..., None, :]
    maps = torch.zeros(*points.shape[:2], res * res, device=points.device)
    maps.scatter_add_(2, cells.flatten(2), values.flatten(2))  # what is cut off adds 0 to some cell
    return maps.view(*points.shape[:2], res, res)


def mirror_heatmaps(heatmaps: Tensor, skeleton: Skeleton = MPII) -> Tensor:
    """Maps [N, K, H, W] of the mirrored image as maps of the image: left and right change places."""
    return heatmaps.flip(-1)[:, skeleton.mirror]


def decode_heatmaps(heatmaps: Tensor) -> Tensor:
    """[N, K, H, W] -> [N, K, 2]: 1-based (x, y) of each map's maximum, in cells.

    The first one in row-major order where several are equal; (0, 0) where the maximum is not above 0.
    """
    width = heatmaps.shape[-1]
    flat = heatmaps.flatten(2)
    peak = flat.amax(dim=-1, keepdim=True)
    cells = torch.arange(flat.shape[-1], device=flat.device)
    first = torch.where(flat == peak, cells, flat.shape[-1] - 1).amin(dim=-1)
    xy = torch.stack((first % width + 1, first // width + 1), dim=-1)
    return (xy * (peak > 0)).to(heatmaps.dtype)


def predict_points(
    heatmaps: Tensor,
    center: Tensor,
    scale: Tensor,
    rotation: Tensor,
    deformation: Tensor | None = None,
) -> Tensor:
    """Joints in the photograph, from the maps of a crop.

    Args:
        heatmaps: [N, K, H, H] of the box with `center` [N, 2] px, `scale` [N], `rotation` [N] degrees.
        deformation: [N, 2, 2], see `data.geometry.crop_axes`.

    Returns:
        f32 [N, K, 2], px of the photograph: the `whole_pixels` of what `locate_points` returns.
    """
    return whole_pixels(locate_points(heatmaps, center, scale, rotation, deformation))


def locate_points(
    heatmaps: Tensor,
    center: Tensor,
    scale: Tensor,
    rotation: Tensor,
    deformation: Tensor | None = None,
) -> Tensor:
    """Joints in the photograph, not rounded; arguments as of `predict_points`.

    Returns:
        f64 [N, K, 2], px of the photograph. Each maximum is moved a quarter of a cell towards its larger
        neighbour, if it does not lie on the border, then to the cell's middle.
    """
    res = heatmaps.shape[-1]
    peak = decode_heatmaps(heatmaps)
    refined = peak + 0.25 * _slope_sign(heatmaps, peak.long()) + 0.5
    box = (center, scale, rotation)
    return transform_points(refined - 1, *box, res, inverse=True, deformation=deformation)


def whole_pixels(points: Tensor) -> Tensor:
    """The 1-based pixels that hold points [..., 2], as f32: published hourglass numbers are of these."""
    return (points.trunc() + 1).float()


def _slope_sign(heatmaps: Tensor, peak: Tensor) -> Tensor:
    """[N, K, 2]: sign of right minus left and of lower minus upper neighbour of `peak` (1-based)."""
    res = heatmaps.shape[-1]
    interior = ((peak > 1) & (peak < res)).all(dim=-1, keepdim=True)
    x, y = (peak - 1).clamp(1, res - 2).unbind(-1)
    flat = heatmaps.flatten(2)

    def value(row: Tensor, column: Tensor) -> Tensor:
        return flat.gather(-1, (row * res + column).unsqueeze(-1)).squeeze(-1)

    across = value(y, x + 1) - value(y, x - 1)
    down = value(y + 1, x) - value(y - 1, x)
    return torch.stack((across, down), dim=-1).sign() * interior
