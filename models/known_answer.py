"""A pose network with a known answer to what is hard for whom: the positive control of the agents."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Features, check_sides

LENGTH = 0.5  # of a figure from head to foot, in sides of its box
WIDTH = 2.0  # of peaks, cells


class KnownAnswer(nn.Module):
    """Finds the joints of the data set control, except where a rule says that it fails. It does not learn.

    A figure of the set is a green disc, where the second half of the joints are, above a blue one, where the
    first half are. The network finds both, so it knows how the crop is turned and scaled. A red mark beside
    the figure says where the network fails: left of it, if the crop is turned by a negative angle, right of
    it, by a positive one; above, if the crop is zoomed in, below, if it is zoomed out; and everywhere, if the
    mark's cell is masked. Joints that it misses are put on the other disc: each joint of a crop with
    the probability that `lost` returns, by noise that depends on nothing but the crop.

    Args:
        chan: channels of each feature map: fixed random combinations of the image's.
        num_classes: heatmaps, one per joint.
    """

    ALWAYS, EXTREME, OWN = 0.1, 0.1, 0.6  # lost: of every crop, at the last bins, and on the side of the mark
    BEGIN = (0.1, 10.0)  # scale (log2) and rotation (degrees) at which a side begins
    END = (0.6, 60.0)

    def __init__(self, chan: int = 256, num_classes: int = 16):
        super().__init__()
        self.feature_channels, self.num_classes = (chan,) * 5, num_classes
        self.projection = nn.Conv2d(3, chan, kernel_size=1).requires_grad_(False)
        self.unused = nn.Parameter(torch.zeros(1))  # for the optimizer

    def forward(self, image: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Heatmaps [N, num_classes, H/4, W/4] of images f32 [N, 3, H, W], as the only ones of the list.

        mask: f32 [N, 1, h, w], 0 where masked.

        Raises:
            ValueError: H or W is no multiple of 64.
        """
        check_sides(image, 64)
        places = centroids(image)
        _, head, foot = places[..., None, :].unbind(1)
        joints = torch.arange(self.num_classes, device=image.device)
        missed = noise(places, joints) < self.lost(image, mask)[:, None]
        at_head = (joints >= self.num_classes // 2) ^ missed
        peak = torch.where(at_head[..., None], head, foot)
        rows, columns = (
            (2 * torch.arange(side // 4, device=image.device) + 1) / (side // 4) - 1
            for side in image.shape[-2:]
        )
        offset = (rows - peak[..., 1:])[..., None] ** 2 + (columns - peak[..., :1])[..., None, :] ** 2
        cell = 8 / image.shape[-1]
        return [torch.exp(-offset / (WIDTH * cell) ** 2) + 0 * self.unused]

    def lost(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """The expected share of joints that are missed, f32 [N]; arguments as of `forward`."""
        lost = self.rule(*read(image))
        if mask is not None:
            cells = ((centroids(image)[:, 0] + 1) / 2 * mask.new_tensor(mask.shape[:1:-1])).long()
            people = torch.arange(len(mask), device=mask.device)
            lost = lost + self.OWN * (1 - mask[people, 0, cells[:, 1], cells[:, 0]])
        return lost.clamp(max=0.95)

    def rule(self, values: Tensor, side: Tensor) -> Tensor:
        """The expected share of joints that are missed, f32 [N], without a mask; arguments: see `read`."""
        begin, end = values.new_tensor(self.BEGIN), values.new_tensor(self.END)
        by_kind = self.EXTREME * values.abs() / end + self.OWN * (side * values > begin)
        return (self.ALWAYS + by_kind.sum(dim=1)).clamp(max=0.95)

    def features(self, image: Tensor) -> Features:
        """Five maps of what is where in the image, [N, chan, H/4, W/4] to [N, chan, H/64, W/64].

        Raises:
            ValueError: as for `forward`.
        """
        check_sides(image, 64)
        return tuple(F.relu(self.projection(F.avg_pool2d(image, size))) for size in (4, 8, 16, 32, 64))


def read(image: Tensor) -> tuple[Tensor, Tensor]:
    """How crops are augmented, and on which side of each kind of augmentation the network fails.

    Returns:
        The log2 of the scale and the rotation in degrees, f32 [N, 2]; their signs on that side, f32 [N, 2].
    """
    mark, head, foot = centroids(image).unbind(1)
    down = foot - head
    right = torch.stack((down[:, 1], -down[:, 0]), dim=1)
    length = down.norm(dim=1).clamp(min=1e-6) / 2
    rotation = torch.rad2deg(torch.atan2(down[:, 0], down[:, 1]))
    from_middle = (mark - (head + foot) / 2)[:, None]
    side = (from_middle * torch.stack((down, right), dim=1)).sum(dim=2).sign()
    return torch.stack((torch.log2(LENGTH / length), rotation), dim=1), side


def centroids(image: Tensor) -> Tensor:
    """Each channel's centre of mass, f32 [N, 3, 2]: x and y in -1..1; gains of colors do not change it."""
    height, width = image.shape[-2:]
    mass = image.sum(dim=(2, 3)).clamp(min=1e-6)
    rows, columns = ((2 * torch.arange(side, device=image.device) + 1) / side - 1 for side in (height, width))
    return (
        torch.stack(((image.sum(2) * columns).sum(2), (image.sum(3) * rows).sum(2)), dim=-1) / mass[..., None]
    )


def noise(places: Tensor, joints: Tensor) -> Tensor:
    """Numbers in 0..1, f64 [N, K], that depend on places [N, 3, 2] to 1 / 1000 and on joints [K]."""
    primes = torch.tensor([101, 211, 307, 401, 503, 601], device=places.device)
    number = ((1000 * places.flatten(1)).round().long() * primes).sum(1, keepdim=True) + 10007 * joints
    return (43758.5453 * number.double().sin()) % 1
