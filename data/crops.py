"""Augmentation as a function on a batch that is already in memory, on its device.

`augment` warps patches of people into network inputs and target heatmaps, as an `Augmentation` says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from data.augmentation import Augmentation, crop_to_box, deformation, reach
from data.geometry import mirror_points, transform_points
from data.heatmap import locate_points, predict_points, render_heatmaps
from data.kinds import KINDS
from data.people import annotated
from data.skeleton import MPII, Skeleton
from data.warp import warp

ROUNDING = 1e-5  # relative: how exactly an augmentation's float32 numbers say how far a crop reaches
Rows = TypeVar("Rows", Tensor, Augmentation)


@dataclass(frozen=True)
class PersonBatch:
    """People as the loader hands them out; N people.

    patch       u8 [N, 3, P, P]     RGB, the square round the box whose side is `margin` times the box's;
                                    black beyond the photograph, and below and to the right of smaller ones
    box         f32 [N, 3] px       middle (x, y) and side of the person's box in the patch
    center      f32 [N, 2] px       middle of the person's box
    scale       f32 [N]             side of the box / 200 px
    points      f32 [N, K, 2] px    (0, 0) where not annotated
    normalizer  f32 [N] px          reference length of PCK
    width       f32 [N] px          of the photograph
    index       int64 [N]           row in the table of people
    margin      float               side of the square that the patch holds / side of the box

    Where several ranks share a batch, these are the people of one of them:

    before, after   int             people of the batch that stand before and after these
    counted         float           how often each counts: less than once where other ranks have them, too
    """

    patch: Tensor
    box: Tensor
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

    to_box = crop_to_box(augmentation)
    to_box[:, 0] *= 1 - 2 * flip[:, None].float()
    image = warp(people.patch, people.box, to_box, augmentation.color, in_res)

    box, deformed = (center, scale, augmentation.rotation), deformation(augmentation)
    cells = transform_points(points, *box, out_res, deformation=deformed)
    heatmap = render_heatmaps(cells * annotated(points)[..., None], out_res)
    return Sample(image, heatmap, *box, deformed, points, people.normalizer.repeat(crops))


def _check_reach(people: PersonBatch, augmentation: Augmentation) -> None:
    """Raise a `ValueError` if a crop reaches beyond its patch."""
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
