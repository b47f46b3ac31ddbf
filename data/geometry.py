"""The crop transform: between the photograph and a person's square box.

Coordinates are continuous: x = 0 is the left edge of a photograph's first pixel column, so the middle of
pixel i lies at i + 0.5. A box has a `center` (px of the photograph), a `scale` (its side is 200 * scale px)
and a `rotation` (degrees; the crop shows the photograph turned counter-clockwise by it). A crop of `res` px
covers the box exactly: 0 and `res` are its edges. This is the convention of the MPII annotations' `scale`
and of the stacked-hourglass training code that introduced the 200 px unit (Newell et al., ECCV 2016).
"""

import torch
from torch import Tensor

from data.skeleton import MIRROR

PIXELS_PER_SCALE = 200.0


def transform_points(
    points: Tensor,
    center: Tensor,
    scale: Tensor,
    rotation: Tensor,
    res: int,
    inverse: bool = False,
    deformation: Tensor | None = None,
) -> Tensor:
    """Carry points from the photograph into the crop, or back; nothing is rounded.

    Args:
        points: [N, K, 2] (x, y) in px of the photograph (of the crop, if `inverse`).
        center: [N, 2] px. scale: [N], box side / 200 px. rotation: [N] degrees.
        res: side of the crop in px (256 for the image, 64 for heatmaps).
        deformation: [N, 2, 2], linear, about the crop's middle: from the crop's plane to the plane in which
            it is only zoomed and turned. Without it nothing is deformed.

    Returns:
        [N, K, 2] float64.
    """
    points, center = points.double(), center.double().unsqueeze(1)
    zoom = (res / (PIXELS_PER_SCALE * scale.double())).view(-1, 1, 1)
    angle = torch.deg2rad(-rotation.double()).view(-1, 1)
    if inverse:
        points = _multiply(deformation, points - res / 2)
        return _rotate(points, -angle) / zoom + center
    points = _rotate((points - center) * zoom, angle)
    if deformation is not None:
        deformation = torch.linalg.inv_ex(deformation.double()).inverse  # `inv` would wait for a GPU
    return _multiply(deformation, points) + res / 2


def _multiply(matrix: Tensor | None, points: Tensor) -> Tensor:
    """[N, K, 2] times [N, 2, 2]; without a matrix the points themselves."""
    return points if matrix is None else points @ matrix.to(points.dtype).mT


def _rotate(points: Tensor, angle: Tensor) -> Tensor:
    """[N, K, 2] turned about the origin by `angle` [N, 1] (radians, from x towards y)."""
    x, y = points.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos * x - sin * y, sin * x + cos * y), dim=-1)


def mirror_points(points: Tensor, width: Tensor) -> Tensor:
    """The joints of the mirrored photograph.

    Args:
        points: [N, 16, 2] px, MPII order. width: [N] px of the photograph.

    Returns:
        [N, 16, 2]: x becomes width - x, left and right joints change places. A joint that is not annotated,
        (0, 0), becomes (width, 0): still not annotated.
    """
    x, y = points.unbind(-1)
    return torch.stack((width.view(-1, 1) - x, y), dim=-1)[:, MIRROR]
