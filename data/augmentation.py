"""Augmentations: what is done to people, and how far it reaches.

The constructors of `Augmentation` make every stage: random in training, the identity in validation, fixed
bins when collecting, the agent's draws in joint training. A new augmentation is a field of it and a line of
`data.crops.augment`, or of `deformation` where it is an affine warp; an entry of `KINDS` lets the agent
choose it, and random augmentation draw it.
Ranges are the paper's (Peng et al., CVPR 2018, section 4, and the release that came with it).
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

    def __getitem__(self, rows: slice) -> "Augmentation":
        """The augmentation of some of the people."""
        return self._map(lambda values: values[rows])

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Augmentation":
        return Augmentation(**{name: function(values) for name, values in vars(self).items()})

    @staticmethod
    def identity(n: int) -> "Augmentation":
        """Nothing is done to n people."""
        values = (torch.tensor(one.metadata["identity"]) for one in fields(Augmentation))
        return Augmentation(*(torch.stack(n * [value]) for value in values))

    @staticmethod
    def random(n: int, generator: Generator) -> "Augmentation":
        """The random augmentation that the adversarial one is compared with.

        A value of each kind from the kind's random distribution; mirrored with probability 0.5; each color
        channel times U(0.6, 1.4).
        """
        values = {kind.field: _at_random(kind, n, generator) for kind in KINDS.values()}
        mirrored = Augmentation.mirrored(n, generator)
        low, high = COLOR_RANGE
        color = low + (high - low) * torch.rand(n, 3, generator=generator)
        return replace(mirrored, color=color, **values)

    @staticmethod
    def mirrored(n: int, generator: Generator) -> "Augmentation":
        """Each of n people is mirrored with probability 0.5; nothing else is done."""
        flip = torch.rand(n, generator=generator) < FLIP_PROBABILITY
        return replace(Augmentation.identity(n), flip=flip)

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
        """The agent's choice: each person's bin [N] (int64) of each kind, with its Gaussian around the mean.

        A Gaussian is clamped to one standard deviation. Neither flip nor color is changed.
        """
        values = {KINDS[kind].field: _around(KINDS[kind], chosen, generator) for kind, chosen in bins.items()}
        people = len(next(iter(values.values())))
        return replace(Augmentation.identity(people), **values)

    @staticmethod
    def cat(augmentations: list["Augmentation"]) -> "Augmentation":
        """Several augmentations of the same people, one after another."""
        columns = zip(*(vars(one).values() for one in augmentations), strict=True)
        return Augmentation(*map(torch.cat, columns))

    def with_draws(self, drawn: "Augmentation") -> "Augmentation":
        """What an agent draws, of every kind, in place of this augmentation's own values.

        The agent draws for people who are not mirrored. For one whom this augmentation mirrors, a value of an
        odd kind changes its sign: the crop is then the mirror image of the one that the agent has in mind.
        """
        sign = torch.where(self.flip, -1.0, 1.0)
        values = {
            kind.field: getattr(drawn, kind.field) * (sign if kind.odd else 1.0) for kind in KINDS.values()
        }
        return replace(self, **values)

    def only(self, *names: str) -> "Augmentation":
        """The named fields of this augmentation; the others do nothing."""
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
    """Affine warps beside scale and rotation: f32 [N, 2, 2], from the crop's plane to the plane before them.

    They are about the crop's middle. Each kind of this sort sets its entries below; none does today.
    """
    matrix = torch.eye(2, device=augmentation.log2_scale.device).repeat(len(augmentation), 1, 1)
    return matrix


def crop_to_box(augmentation: Augmentation) -> Tensor:
    """The linear map from crops to the people's boxes, f32 [N, 2, 2]: about the middle, in -1..1 of both."""
    axes = crop_axes(augmentation.rotation, deformation(augmentation))
    return 2 ** augmentation.log2_scale[:, None, None] * axes


def reach(augmentation: Augmentation) -> Tensor:
    """How far each crop reaches over its box: f32 [N], side of the square around it / side of the box."""
    return crop_to_box(augmentation).abs().sum(dim=2).amax(dim=1)


def _widest(values: dict[str, Iterable[float]]) -> float:
    """The widest reach of all combinations of these values of fields of `Augmentation`."""
    combinations = torch.cartesian_prod(*(torch.tensor(list(each)) for each in values.values()))
    columns = dict(zip(values, combinations.view(-1, len(values)).T, strict=True))
    return reach(replace(Augmentation.identity(len(combinations)), **columns)).max().item()


_RANDOM = _widest({kind.field: kind.random_range for kind in KINDS.values()})
MARGINS = {
    "identity": 1.0,
    "random": _RANDOM,
    **{kind.name: _widest({kind.field: kind.means}) for kind in KINDS.values()},
    # The same patches give the random crops that the agent's are compared with.
    "drawn": max(_RANDOM, _widest({kind.field: kind.extremes for kind in KINDS.values()})),
}
"""Side of the patch / side of the box that each way of augmenting needs."""
