"""The crop transform: between the photograph and a person's square box.

Coordinates are continuous: x = 0 is the left edge of a photograph's first pixel column, so the middle of
pixel i lies at i + 0.5. A box has a `center` (px of the photograph), a `scale` (its side is 200 * scale px)
and a `rotation` (degrees; the crop shows the photograph turned counter-clockwise by it). A crop of `res` px
covers the box exactly: 0 and `res` are its edges. This is the convention of the MPII annotations' `scale`
and of the stacked-hourglass training code that introduced the 200 px unit (Newell et al., ECCV 2016).
"""

import torch
from torch import Tensor

from data.skeleton import MPII, Skeleton

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
    """Map points from the photograph into the crop, or back; nothing is rounded.

    Args:
        points: [N, K, 2] (x, y) in px of the photograph (of the crop, if `inverse`).
        center: [N, 2] px. scale: [N], box side / 200 px. rotation: [N] degrees.
        res: side of the crop in px (256 for the image, 64 for heatmaps).
        deformation: [N, 2, 2], see `crop_axes`.

    Returns:
        [N, K, 2] float64.
    """
    points, center = points.double(), center.double().unsqueeze(1)
    zoom = (res / (PIXELS_PER_SCALE * scale.double())).view(-1, 1, 1)
    axes = crop_axes(rotation.double(), deformation)
    if inverse:
        return (points - res / 2) @ axes.mT / zoom + center
    axes = torch.linalg.inv_ex(axes).inverse  # `inv` would wait for a GPU
    return (points - center) * zoom @ axes.mT + res / 2


def crop_axes(rotation: Tensor, deformation: Tensor | None = None) -> Tensor:
    """The linear map from crops to the photograph, without the zoom: for pixels and points alike.

    Args:
        rotation: [N] degrees. deformation: [N, 2, 2], linear, about the crop's middle: from the crop's plane
            to the plane in which it is only zoomed and turned; none if None.

    Returns:
        [N, 2, 2] of the type of `rotation`; its columns are the crop's x and y axes in the photograph.
    """
    angle = torch.deg2rad(rotation)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((cos, -sin, sin, cos), dim=-1).view(-1, 2, 2)
    return turn if deformation is None else turn @ deformation.to(turn.dtype)


def mirror_points(points: Tensor, width: Tensor, skeleton: Skeleton = MPII) -> Tensor:
    """The joints of the mirrored photograph.

    Args:
        points: [N, K, 2] px, in the order of the skeleton. width: [N] px of the photograph.

    Returns:
        [N, K, 2]: x becomes width - x, left and right joints change places. A joint that is not annotated,
        (0, 0), becomes (width, 0): still not annotated.
    """
    x, y = points.unbind(-1)
    return torch.stack((width.view(-1, 1) - x, y), dim=-1)[:, skeleton.mirror]
