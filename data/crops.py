"""Augmentation as a function on a batch that is already in memory, on its device.

`augment` warps patches of people into network inputs and target heatmaps, as an `Augmentation` says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from data.augmentation import Augmentation, crop_to_box, deformation, reach
from data.geometry import mirror_points, transform_points
from data.heatmap import locate_points, predict_points, render_heatmaps
from data.kinds import KINDS
from data.people import annotated
from data.skeleton import MPII, Skeleton

ROUNDING = 1e-5  # relative: how exactly an augmentation's float32 numbers say how far a crop reaches
Rows = TypeVar("Rows", Tensor, Augmentation)
SUPERSAMPLING = 2  # samples per crop pixel and axis, so that shrinking crops have no aliasing
AT_ONCE = 2  # people that one thread samples together


@dataclass(frozen=True)
class PersonBatch:
    """People as the loader hands them out; N people.

    patch       u8 [N, 3, P, P]     RGB, the square around the centre whose side is `margin` times the box's;
                                    black beyond the photograph
    center      f32 [N, 2] px       middle of the person's box
    scale       f32 [N]             side of the box / 200 px
    points      f32 [N, K, 2] px    (0, 0) where not annotated
    normalizer  f32 [N] px          reference length of PCK
    width       f32 [N] px          of the photograph
    index       int64 [N]           row in the table of people
    margin      float               side of the patch / side of the box

    Where several ranks share a batch, these are the people of one of them:

    before, after   int             people of the batch that stand before and after these
    counted         float           how often each counts: less than once where other ranks have them, too
    """

    patch: Tensor
    center: Tensor
    scale: Tensor
    points: Tensor
    normalizer: Tensor
    width: Tensor
    index: Tensor
    margin: float
    before: int = 0
    after: int = 0
    counted: float = 1.0

    def __len__(self) -> int:
        return len(self.index)

    @property
    def total(self) -> int:
        """People of the whole batch."""
        return self.before + len(self) + self.after

    @property
    def count(self) -> float:
        """As how many people these count; the sum over ranks is `total`."""
        return self.counted * len(self)

    @property
    def weight(self) -> float:
        """These people's part of the whole batch, by number; the sum over ranks is 1."""
        return self.count / self.total

    def local_rows(self, whole: Rows) -> Rows:
        """These people's rows of what was drawn for the whole batch."""
        return whole[self.before : self.before + len(self)]

    def _map(self, function: Callable[[Tensor], Tensor]) -> "PersonBatch":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: function(tensor) for name, tensor in tensors.items()})

    def to(self, device: torch.device) -> "PersonBatch":
        """The same people on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "PersonBatch":
        """The same people in page-locked memory; a `DataLoader` calls this."""
        return self._map(Tensor.pin_memory)


@dataclass(frozen=True)
class Sample:
    """Augmented people, M crops: what the network sees, what it should answer, and what metrics need.

    image: f32 [M, 3, in_res, in_res] in 0..1, RGB. heatmap: f32 [M, K, out_res, out_res]. center [M, 2],
    scale [M], rotation [M] (degrees): the box that was cropped. deformation: [M, 2, 2], see there. points:
    [M, K, 2] px. normalizer: [M] px. Where a person was mirrored, center and points are those of the
    mirrored photograph.
    """

    image: Tensor
    heatmap: Tensor
    center: Tensor
    scale: Tensor
    rotation: Tensor
    deformation: Tensor
    points: Tensor
    normalizer: Tensor

    def predict(self, heatmaps: Tensor) -> Tensor:
        """Joints f32 [M, K, 2] px of the photographs, from the network's maps [M, K, H, H] of the crops."""
        return predict_points(heatmaps, self.center, self.scale, self.rotation, self.deformation)

    def locate(self, heatmaps: Tensor) -> Tensor:
        """The same joints, not rounded, f64 [M, K, 2] px of the photographs."""
        return locate_points(heatmaps, self.center, self.scale, self.rotation, self.deformation)

    def in_crop(self, points: Tensor, res: int) -> Tensor:
        """Points [M, K, 2] px of the photographs in px of the crops, whose side is `res`."""
        box = (self.center, self.scale, self.rotation)
        return transform_points(points, *box, res, deformation=self.deformation)


def augment(
    people: PersonBatch,
    augmentation: Augmentation,
    in_res: int = 256,
    out_res: int = 64,
    skeleton: Skeleton = MPII,
) -> Sample:
    """Warp people as the augmentation says.

    Args:
        people: N people. augmentation: N rows, or C * N rows for C crops of each, row c * N + j for person j.
        in_res, out_res: sides of the image and of the heatmaps in px. skeleton: of the people's joints.

    Returns:
        A `Sample` of C * N crops, on the people's device.

    Raises:
        ValueError: a crop reaches beyond its patch.
    """
    _check_reach(people, augmentation)
    augmentation = augmentation.to(people.patch.device)
    crops = len(augmentation) // len(people)
    flip, width = augmentation.flip, people.width.repeat(crops)
    center, points = people.center.repeat(crops, 1), people.points.repeat(crops, 1, 1)
    scale = people.scale.repeat(crops) * 2**augmentation.log2_scale

    mirrored_center = torch.stack((width - center[:, 0], center[:, 1]), dim=1)
    center = torch.where(flip[:, None], mirrored_center, center)
    points = torch.where(flip[:, None, None], mirror_points(points, width, skeleton), points)

    image = _warp(people, augmentation, in_res)
    image.mul_(augmentation.color[:, :, None, None] / 255).clamp_(0, 1)

    box, deformed = (center, scale, augmentation.rotation), deformation(augmentation)
    cells = transform_points(points, *box, out_res, deformation=deformed)
    heatmap = render_heatmaps(cells * annotated(points)[..., None], out_res)
    return Sample(image, heatmap, *box, deformed, points, people.normalizer.repeat(crops))


def _check_reach(people: PersonBatch, augmentation: Augmentation) -> None:
    """Refuse what the patches do not hold.

    Raises:
        ValueError: a crop reaches beyond its patch.
    """
    reached = reach(augmentation)
    farthest = reached.max().item()
    if not farthest <= people.margin * (1 + ROUNDING):
        crop = reached.argmax()
        values = ", ".join(
            f"{kind.name} {getattr(augmentation, kind.field)[crop]:g}" for kind in KINDS.values()
        )
        raise ValueError(
            f"crop {crop} ({values}) reaches over {farthest:.4g} sides of its box, and the patch holds "
            f"{people.margin:.4g}: load people with the margin of this augmentation"
        )


def _warp(people: PersonBatch, augmentation: Augmentation, res: int) -> Tensor:
    """The crops, f32 [K * N, 3, res, res] in 0..255, sampled from the patches, some people at a time."""
    n = len(people)
    matrix = crop_to_box(augmentation) / people.margin
    matrix[:, 0] *= 1 - 2 * augmentation.flip[:, None].float()
    matrix = matrix.view(-1, n, 2, 2)
    image = matrix.new_empty(len(matrix), n, 3, res, res)

    # One CPU thread is quicker with little memory, which stays in cache; others are with few calls.
    single_thread = image.device.type == "cpu" and torch.get_num_threads() == 1
    at_once = AT_ONCE if single_thread else n
    for first in range(0, n, at_once):
        some = slice(first, first + at_once)
        patch = people.patch[some].float()
        for k in range(len(matrix)):
            image[k, some] = _sample(patch, matrix[k, some], res)
    return image.flatten(0, 1)


def _sample(patch: Tensor, matrix: Tensor, res: int) -> Tensor:
    """Crops f32 [N, 3, res, res] of patches f32 [N, 3, P, P]; the matrices [N, 2, 2] map crops to patches."""
    fine = SUPERSAMPLING * res
    middles = (2 * torch.arange(fine, device=matrix.device) + 1) / fine - 1  # from edge to edge in -1..1
    # A row of crop pixels takes several rows of samples, each as long as itself: their mean has no strides.
    across, down = middles.view(res, SUPERSAMPLING).T, middles.view(res, SUPERSAMPLING, 1, 1)
    grid = matrix.new_empty(len(matrix), res, SUPERSAMPLING, SUPERSAMPLING, res, 2)
    for axis in range(2):
        along_x, along_y = matrix[:, axis].view(-1, 2, 1, 1, 1, 1).unbind(1)
        torch.add(along_x * across, along_y * down, out=grid[..., axis])
    grid = grid.view(len(matrix), -1, res, 2)
    samples = F.grid_sample(patch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return samples.view(len(matrix), 3, res, -1, res).mean(dim=3)
