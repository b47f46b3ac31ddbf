"""Augmentation as a function on a batch that is already in memory, on its device.

`augment` warps patches of people into network inputs and target heatmaps. Which warp is an `Augmentation`,
and its constructors make every stage: random in training, the identity in validation, fixed bins when
collecting, the agent's draws in joint training. A new augmentation is a field of `Augmentation` and a line
in `augment`, or in `deformation` where it is an affine warp; an entry of `KINDS` lets the agent choose it.
Ranges are the paper's (Peng et al., CVPR 2018, section 4 and the release that came with it).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from data.annotations import annotated
from data.geometry import mirror_points, transform_points
from data.heatmap import predict_points, render_heatmaps
from data.kinds import KINDS, Kind

RANDOM_SCALE_STD, RANDOM_SCALE_LIMIT = 0.25, 0.5  # log2
RANDOM_ROTATION_STD, RANDOM_ROTATION_LIMIT = 30.0, 60.0  # degrees
RANDOM_ROTATION_PROBABILITY = 0.4
FLIP_PROBABILITY = 0.5
COLOR_RANGE = (0.6, 1.4)

ROUNDING = 1e-5  # relative: how exactly an augmentation's float32 numbers say how far a crop reaches
SUPERSAMPLING = 2  # samples per crop pixel and axis, so that shrinking crops have no aliasing


@dataclass(frozen=True)
class PersonBatch:
    """People as the loader hands them out; N people.

    patch       u8 [N, 3, P, P]     RGB, the square round the centre whose side is `margin` times the box's;
                                    black beyond the photograph
    center      f32 [N, 2] px       middle of the person's box
    scale       f32 [N]             side of the box / 200 px
    points      f32 [N, 16, 2] px   (0, 0) where not annotated
    normalizer  f32 [N] px          reference length of PCK
    width       f32 [N] px          of the photograph
    index       int64 [N]           row in the table of people
    margin      float               side of the patch / side of the box
    """

    patch: Tensor
    center: Tensor
    scale: Tensor
    points: Tensor
    normalizer: Tensor
    width: Tensor
    index: Tensor
    margin: float

    def __len__(self) -> int:
        return len(self.index)

    def _map(self, function) -> "PersonBatch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return PersonBatch(
            **{
                name: function(value) if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
        )

    def to(self, device: torch.device) -> "PersonBatch":
        """The same people on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "PersonBatch":
        """The same people in page-locked memory; a `DataLoader` calls this."""
        return self._map(Tensor.pin_memory)


@dataclass(frozen=True)
class Augmentation:
    """What is done to each of N people, on the CPU.

    log2_scale: f32 [N], added to log2 of the box's scale (above 0 zooms out). rotation: f32 [N], degrees.
    flip: bool [N], mirror left and right. color: f32 [N, 3], gains of red, green and blue. The identity of a
    field is what changes nothing.
    """

    log2_scale: Tensor = field(metadata={"identity": 0.0})
    rotation: Tensor = field(metadata={"identity": 0.0})
    flip: Tensor = field(metadata={"identity": False})
    color: Tensor = field(metadata={"identity": (1.0, 1.0, 1.0)})

    def __len__(self) -> int:
        return len(self.log2_scale)

    @staticmethod
    def identity(n: int) -> "Augmentation":
        """Nothing is done to n people."""
        values = {one.name: torch.tensor(one.metadata["identity"]) for one in fields(Augmentation)}
        return Augmentation(**{name: torch.stack(n * [value]) for name, value in values.items()})

    @staticmethod
    def random(n: int, generator: Generator) -> "Augmentation":
        """The random augmentation that the adversarial one is compared with.

        log2 scale: N(0, 0.25) clipped to +-0.5; rotation: N(0, 30) clipped to +-60 degrees with probability
        0.4, else 0; mirrored with probability 0.5; each color channel times U(0.6, 1.4).
        """
        log2_scale = (RANDOM_SCALE_STD * torch.randn(n, generator=generator)).clamp(
            -RANDOM_SCALE_LIMIT, RANDOM_SCALE_LIMIT
        )
        rotation = (RANDOM_ROTATION_STD * torch.randn(n, generator=generator)).clamp(
            -RANDOM_ROTATION_LIMIT, RANDOM_ROTATION_LIMIT
        )
        rotated = torch.rand(n, generator=generator) < RANDOM_ROTATION_PROBABILITY
        flip = torch.rand(n, generator=generator) < FLIP_PROBABILITY
        low, high = COLOR_RANGE
        color = low + (high - low) * torch.rand(n, 3, generator=generator)
        identity = Augmentation.identity(n)
        return replace(identity, log2_scale=log2_scale, rotation=rotation * rotated, flip=flip, color=color)

    @staticmethod
    def fixed(n: int, log2_scale: float, rotation: float) -> "Augmentation":
        """The same change of scale (log2) and the same rotation (degrees) for n people."""
        identity = Augmentation.identity(n)
        return replace(
            identity, log2_scale=identity.log2_scale + log2_scale, rotation=identity.rotation + rotation
        )

    @staticmethod
    def bins(kind: str, n: int) -> "Augmentation":
        """All K bin means of the `kind` of that name for n people.

        K * n rows; row k * n + j is bin k of person j.
        """
        means = torch.tensor(KINDS[kind].means).repeat_interleave(n)
        return replace(Augmentation.identity(len(means)), **{KINDS[kind].field: means})

    @staticmethod
    def drawn(bins: dict[str, Tensor], generator: Generator) -> "Augmentation":
        """The agent's choice: each person's bin [N] (int64) of each kind, with its Gaussian round the mean.

        A Gaussian is clamped to one standard deviation. Neither flip nor color is changed.
        """
        values = {KINDS[kind].field: _around(KINDS[kind], chosen, generator) for kind, chosen in bins.items()}
        people = len(next(iter(values.values())))
        return replace(Augmentation.identity(people), **values)

    @staticmethod
    def cat(augmentations: list["Augmentation"]) -> "Augmentation":
        """Several augmentations of the same people, one after another."""
        names = [one.name for one in fields(Augmentation)]
        return Augmentation(*(torch.cat([getattr(one, name) for one in augmentations]) for name in names))

    def only(self, *names: str) -> "Augmentation":
        """The named fields of this augmentation; the others do nothing."""
        identity = Augmentation.identity(len(self))
        return replace(identity, **{name: getattr(self, name) for name in names})

    def to(self, device: torch.device) -> "Augmentation":
        """The same augmentation on `device`."""
        return Augmentation(*(getattr(self, one.name).to(device, non_blocking=True) for one in fields(self)))


def _around(kind: Kind, chosen: Tensor, generator: Generator) -> Tensor:
    noise = torch.randn(len(chosen), generator=generator).clamp(-1, 1)
    return torch.tensor(kind.means)[chosen] + kind.std * noise


def deformation(augmentation: Augmentation) -> Tensor:
    """Affine warps beside scale and rotation: f32 [N, 2, 2], from the crop's plane to the plane before them.

    They are about the crop's middle. Each kind of this sort sets its entries below; none does today.
    """
    matrix = torch.eye(2, device=augmentation.log2_scale.device).repeat(len(augmentation), 1, 1)
    return matrix


def crop_to_box(augmentation: Augmentation) -> Tensor:
    """The linear part of the map from a crop to the person's box: f32 [N, 2, 2].

    It is about their common middle; both have the sides -1 and 1.
    """
    angle = torch.deg2rad(-augmentation.rotation)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((cos, sin, -sin, cos), dim=1).view(-1, 2, 2)
    return 2 ** augmentation.log2_scale[:, None, None] * (turn @ deformation(augmentation))


def reach(augmentation: Augmentation) -> Tensor:
    """How far each crop reaches over its box: f32 [N], side of the square round it / side of the box."""
    return crop_to_box(augmentation).abs().sum(dim=2).amax(dim=1)


@dataclass(frozen=True)
class Sample:
    """Augmented people, M crops: what the network sees, what it should answer, and what metrics need.

    image: f32 [M, 3, in_res, in_res] in 0..1, RGB. heatmap: f32 [M, 16, out_res, out_res]. center [M, 2],
    scale [M], rotation [M] (degrees): the box that was cropped. deformation: [M, 2, 2], see there. points:
    [M, 16, 2] px. normalizer: [M] px. Where a person was mirrored, center and points are those of the
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

    def in_crop(self, points: Tensor, res: int) -> Tensor:
        """Points [M, K, 2] px of the photographs in px of the crops, whose side is `res`."""
        box = (self.center, self.scale, self.rotation)
        return transform_points(points, *box, res, deformation=self.deformation)


def _widest(values: dict[str, Iterable[float]]) -> float:
    """The widest reach of all combinations of these values of fields of `Augmentation`."""
    combinations = torch.cartesian_prod(*(torch.tensor(list(each)) for each in values.values()))
    columns = combinations.view(-1, len(values)).T
    return (
        reach(replace(Augmentation.identity(len(combinations)), **dict(zip(values, columns, strict=True))))
        .max()
        .item()
    )


MARGINS = {
    "identity": 1.0,
    # A turned square is widest at 45 degrees.
    "random": _widest({"log2_scale": [RANDOM_SCALE_LIMIT], "rotation": [min(RANDOM_ROTATION_LIMIT, 45.0)]}),
    **{kind.name: _widest({kind.field: kind.means}) for kind in KINDS.values()},
    "drawn": _widest(
        {
            kind.field: [mean + side * kind.std for mean in kind.means for side in (-1, 0, 1)]
            for kind in KINDS.values()
        }
    ),
}
"""Side of the patch / side of the box that each way of augmenting needs."""


def augment(people: PersonBatch, augmentation: Augmentation, in_res: int = 256, out_res: int = 64) -> Sample:
    """Warp people as the augmentation says.

    Args:
        people: N people. augmentation: N rows, or K * N rows for K crops of each, row k * N + j for person j.
        in_res, out_res: sides of the image and of the heatmaps in px.

    Returns:
        A `Sample` of K * N crops, on the people's device.

    Raises:
        ValueError: a crop reaches beyond its patch.
    """
    middle, augmentation = _within_reach(people, augmentation), augmentation.to(people.patch.device)
    crops = len(augmentation) // len(people)
    flip, width = augmentation.flip, people.width.repeat(crops)
    center, points = people.center.repeat(crops, 1), people.points.repeat(crops, 1, 1)
    scale = people.scale.repeat(crops) * 2**augmentation.log2_scale

    mirrored_center = torch.stack((width - center[:, 0], center[:, 1]), dim=1)
    center = torch.where(flip[:, None], mirrored_center, center)
    points = torch.where(flip[:, None, None], mirror_points(points, width), points)

    image = _warp(middle, augmentation, in_res)
    image.mul_(augmentation.color[:, :, None, None] / 255).clamp_(0, 1)

    box, deformed = (center, scale, augmentation.rotation), deformation(augmentation)
    cells = transform_points(points, *box, out_res, deformation=deformed)
    heatmap = render_heatmaps(cells * annotated(points)[..., None], out_res)
    return Sample(image, heatmap, *box, deformed, points, people.normalizer.repeat(crops))


def _within_reach(people: PersonBatch, augmentation: Augmentation) -> PersonBatch:
    """The same people with as much of the middle of their patches as the crops reach: less to convert.

    Raises:
        ValueError: a crop reaches beyond its patch.
    """
    res, reached = people.patch.shape[-1], reach(augmentation)
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
    # Bilinear sampling sees half a pixel further.
    cut = max(0, int((res * (1 - farthest / people.margin) - 1) / 2))
    patch = people.patch[:, :, cut : res - cut, cut : res - cut]
    return replace(people, patch=patch, margin=people.margin * (res - 2 * cut) / res)


def _warp(people: PersonBatch, augmentation: Augmentation, res: int) -> Tensor:
    """The crops, f32 [K * N, 3, res, res] in 0..255, sampled from the patches.

    The K crops of a person are laid one above another in its sampling grid, so that no patch is copied.
    """
    n, crops = len(people), len(augmentation) // len(people)
    matrix = crop_to_box(augmentation) / people.margin
    matrix[:, 0] *= 1 - 2 * augmentation.flip[:, None].float()

    fine = SUPERSAMPLING * res
    steps = (
        2 * torch.arange(fine, device=matrix.device) + 1
    ) / fine - 1  # middles, from edge to edge in -1..1
    grid = matrix.new_empty(n, crops, fine, fine, 2)
    for axis in range(2):
        along_x, along_y = matrix[:, axis].view(crops, n, 2, 1, 1).transpose(0, 1).unbind(2)
        torch.add(along_x * steps, along_y * steps[:, None], out=grid[..., axis])

    patch = people.patch.float()
    grid = grid.view(n, crops * fine, fine, 2)
    image = F.grid_sample(patch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # At a half, bilinear shrinking is the mean of 2 x 2 samples, and on the CPU quicker than pooling.
    image = F.interpolate(image, scale_factor=1 / SUPERSAMPLING, mode="bilinear", align_corners=False)
    return image.view(n, 3, crops, res, res).permute(2, 0, 1, 3, 4).reshape(crops * n, 3, res, res)
