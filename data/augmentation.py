"""Augmentations of people, and the margins that patches need for them.

Each stage uses a constructor of `Augmentation`: random in training, the identity in validation, fixed bins in
collection, the agent's draws in joint training. A new augmentation is a field and a line in
`data.crops.augment`, or in `deformation` if it is an affine warp; with an entry in `KINDS` the agent chooses
it and random augmentation draws it.

Source of the ranges: Peng et al., CVPR 2018, section 4, and its published code.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Generator, Tensor

from data.geometry import crop_axes
from data.kinds import KINDS, Kind

FLIP_PROBABILITY = 0.5
COLOR_RANGE = (0.6, 1.4)


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of each of N people, on the CPU.

    log2_scale: f32 [N], added to log2 of the box's scale (above 0 zooms out). rotation: f32 [N], degrees.
    flip: bool [N], mirror left and right. color: f32 [N, 3], gains of red, green and blue. The identity of a
    field is the value that changes nothing.
    """

    log2_scale: Tensor = field(metadata={"identity": 0.0})
    rotation: Tensor = field(metadata={"identity": 0.0})
    flip: Tensor = field(metadata={"identity": False})
    color: Tensor = field(metadata={"identity": (1.0, 1.0, 1.0)})

    def __len__(self) -> int:
        return len(self.log2_scale)

    def __getitem__(self, rows: slice) -> "Augmentation":
        """The augmentation of some of the people."""
        return self._map(lambda values: values[rows])

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Augmentation":
        return Augmentation(**{name: function(values) for name, values in vars(self).items()})

    @staticmethod
    def identity(n: int) -> "Augmentation":
        """The augmentation that changes nothing, for n people."""
        values = (torch.tensor(one.metadata["identity"]) for one in fields(Augmentation))
        return Augmentation(*(torch.stack(n * [value]) for value in values))

    @staticmethod
    def random(n: int, generator: Generator) -> "Augmentation":
        """Random augmentation, the reference that adversarial augmentation is compared with.

        Each kind from its random distribution; mirroring with probability 0.5; gains of colors from U(0.6,
        1.4).
        """
        values = {kind.field: _at_random(kind, n, generator) for kind in KINDS.values()}
        mirrored = Augmentation.mirrored(n, generator)
        low, high = COLOR_RANGE
        color = low + (high - low) * torch.rand(n, 3, generator=generator)
        return replace(mirrored, color=color, **values)

    @staticmethod
    def mirrored(n: int, generator: Generator) -> "Augmentation":
        """Only mirroring, with probability 0.5 for each of n people."""
        flip = torch.rand(n, generator=generator) < FLIP_PROBABILITY
        return replace(Augmentation.identity(n), flip=flip)

    @staticmethod
    def fixed(n: int, log2_scale: float, rotation: float) -> "Augmentation":
        """The same scale (log2) and rotation (degrees) for n people."""
        identity = Augmentation.identity(n)
        return replace(
            identity, log2_scale=identity.log2_scale + log2_scale, rotation=identity.rotation + rotation
        )

    @staticmethod
    def bins(kind: str, n: int) -> "Augmentation":
        """The means of all K bins of a kind, by its name: K * n rows, row k * n + j is bin k of person j."""
        means = torch.tensor(KINDS[kind].means).repeat_interleave(n)
        return replace(Augmentation.identity(len(means)), **{KINDS[kind].field: means})

    @staticmethod
    def drawn(bins: dict[str, Tensor], generator: Generator) -> "Augmentation":
        """The agent's draws: kind -> each person's bin, int64 [N], whose clamped Gaussian is sampled."""
        values = {KINDS[kind].field: _around(KINDS[kind], chosen, generator) for kind, chosen in bins.items()}
        people = len(next(iter(values.values())))
        return replace(Augmentation.identity(people), **values)

    @staticmethod
    def cat(augmentations: list["Augmentation"]) -> "Augmentation":
        """Several augmentations of the same people, concatenated."""
        columns = zip(*(vars(one).values() for one in augmentations), strict=True)
        return Augmentation(*map(torch.cat, columns))

    def with_draws(self, drawn: "Augmentation") -> "Augmentation":
        """Replace the values of all kinds by an agent's draws.

        The agent draws for people who are not mirrored. If this augmentation mirrors a person, values of odd
        kinds change their sign, so the crop is the mirror image of the one that the agent has chosen.
        """
        sign = torch.where(self.flip, -1.0, 1.0)
        values = {
            kind.field: getattr(drawn, kind.field) * (sign if kind.odd else 1.0) for kind in KINDS.values()
        }
        return replace(self, **values)

    def only(self, *names: str) -> "Augmentation":
        """The named fields of this augmentation; the others are the identity."""
        identity = Augmentation.identity(len(self))
        return replace(identity, **{name: getattr(self, name) for name in names})

    def to(self, device: torch.device) -> "Augmentation":
        """The same augmentation on `device`."""
        return self._map(lambda values: values.to(device, non_blocking=True))


def _at_random(kind: Kind, n: int, generator: Generator) -> Tensor:
    values = kind.random_std * torch.randn(n, generator=generator)
    values = values.clamp(-kind.random_limit, kind.random_limit)
    if kind.random_probability < 1:
        values *= torch.rand(n, generator=generator) < kind.random_probability
    return values


def _around(kind: Kind, chosen: Tensor, generator: Generator) -> Tensor:
    noise = torch.randn(len(chosen), generator=generator).clamp(-1, 1)
    return torch.tensor(kind.means)[chosen] + kind.std * noise


def deformation(augmentation: Augmentation) -> Tensor:
    """Further affine warps about the center of the crop, such as shear: f32 [N, 2, 2], warped to not warped.

    A kind that needs one sets its entries here; there is none yet.
    """
    matrix = torch.eye(2, device=augmentation.log2_scale.device).repeat(len(augmentation), 1, 1)
    return matrix


def crop_to_box(augmentation: Augmentation) -> Tensor:
    """The linear map from crops to boxes, f32 [N, 2, 2]: about the center, in -1..1 of both."""
    axes = crop_axes(augmentation.rotation, deformation(augmentation))
    return 2 ** augmentation.log2_scale[:, None, None] * axes


def reach(augmentation: Augmentation) -> Tensor:
    """The margin that each crop needs: f32 [N], side of the square around it / side of the box."""
    return crop_to_box(augmentation).abs().sum(dim=2).amax(dim=1)


def _widest(values: dict[str, Iterable[float]]) -> float:
    """The largest `reach` of all combinations of values of these fields."""
    combinations = torch.cartesian_prod(*(torch.tensor(list(each)) for each in values.values()))
    columns = dict(zip(values, combinations.view(-1, len(values)).T, strict=True))
    return reach(replace(Augmentation.identity(len(combinations)), **columns)).max().item()


_RANDOM = _widest({kind.field: kind.random_range for kind in KINDS.values()})
MARGINS = {
    "identity": 1.0,
    "random": _RANDOM,
    **{kind.name: _widest({kind.field: kind.means}) for kind in KINDS.values()},
    # including random crops, which the agent's are compared with
    "drawn": max(_RANDOM, _widest({kind.field: kind.extremes for kind in KINDS.values()})),
}
"""Side of the patch / side of the box that each kind of augmentation needs."""
