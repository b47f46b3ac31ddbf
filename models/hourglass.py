"""The stacked hourglass: a pose network of several hourglasses, each of which predicts heatmaps."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models import NETWORKS
from models.layers import Features, Residual, check_sides, initialize, pool, residuals, upsample


class Hourglass(nn.Module):
    """One hourglass: four levels down to the neck and up again, with a skip at each.

    Args:
        num_modules: residual blocks at each position.
        chan: channels throughout, an even number.

    Source: Newell et al., ECCV 2016, arXiv:1603.06937.
    """

    def __init__(self, num_modules: int, chan: int):
        super().__init__()
        self.down1 = residuals(num_modules, chan)
        self.down2 = residuals(num_modules, chan)
        self.down3 = residuals(num_modules, chan)
        self.down4 = residuals(num_modules, chan)
        self.up1 = residuals(num_modules, chan)
        self.up2 = residuals(num_modules, chan)
        self.up3 = residuals(num_modules, chan)
        self.up4 = residuals(num_modules, chan)
        self.skip1 = residuals(num_modules, chan)
        self.skip2 = residuals(num_modules, chan)
        self.skip3 = residuals(num_modules, chan)
        self.skip4 = residuals(num_modules, chan)
        self.neck = residuals(num_modules, chan)

    def encode(self, x: Tensor) -> Features:
        """The down path: [N, chan, H, W] -> skip1..skip4 and neck, at 1, 1/2, 1/4, 1/8, 1/16."""
        skip1 = self.skip1(x)
        x = self.down1(pool(x))
        skip2 = self.skip2(x)
        x = self.down2(pool(x))
        skip3 = self.skip3(x)
        x = self.down3(pool(x))
        skip4 = self.skip4(x)
        neck = self.neck(self.down4(pool(x)))
        return skip1, skip2, skip3, skip4, neck

    def decode(self, features: Features) -> Tensor:
        """The up path: the output of `encode` -> [N, chan, H, W]."""
        skip1, skip2, skip3, skip4, x = features
        x = upsample(self.up4(x)) + skip4
        x = upsample(self.up3(x)) + skip3
        x = upsample(self.up2(x)) + skip2
        return upsample(self.up1(x)) + skip1

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[N, chan, H, W] -> [N, chan, H, W]; H and W are multiples of 16.

        mask: [N, 1, H/16, W/16]; the output of `encode` is multiplied by it, enlarged to each map's size.
        """
        features = self.encode(x)
        if mask is not None:
            features = tuple(
                feature * F.interpolate(mask.to(feature.dtype), size=feature.shape[-2:], mode="nearest")
                for feature in features
            )
        return self.decode(features)


class StackedHourglass(nn.Module):
    """The pose network; it maps an image to one set of heatmaps per stack.

    Parameters have the names and the order of the networks released with the paper.

    Args:
        num_stacks: number of hourglasses.
        num_modules: residual blocks at each position of an hourglass, and after it.
        num_classes: heatmaps per stack, one for each joint.
        chan: channels of the hourglasses, an even number.

    Source: Newell et al., ECCV 2016, arXiv:1603.06937, in the form of Peng, Tang et al., CVPR 2018,
    arXiv:1805.09707.
    """

    stride: ClassVar[int] = NETWORKS["hourglass"].stride

    def __init__(self, num_stacks: int = 2, num_modules: int = 1, num_classes: int = 16, chan: int = 256):
        super().__init__()
        self.feature_channels = (chan,) * 5
        stacks, gaps = range(num_stacks), range(num_stacks - 1)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64)
        self.residual1 = Residual(64, 128)
        self.residual2 = Residual(128, 128)
        self.residual3 = Residual(128, chan)
        self.hg = nn.ModuleList(Hourglass(num_modules, chan) for _ in stacks)
        self.post_res = nn.ModuleList(residuals(num_modules, chan) for _ in stacks)
        self.linear = nn.ModuleList(
            nn.Sequential(nn.Conv2d(chan, chan, 1), nn.BatchNorm2d(chan), nn.ReLU(inplace=True))
            for _ in stacks
        )
        self.out_conv = nn.ModuleList(nn.Conv2d(chan, num_classes, 1) for _ in stacks)
        self.forth_conv = nn.ModuleList(nn.Conv2d(chan, chan, 1) for _ in gaps)
        self.in_conv = nn.ModuleList(nn.Conv2d(num_classes, chan, 1) for _ in gaps)
        initialize(self)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Heatmaps of each stack; all are trained, the last ones are the prediction.

        Args:
            image: [N, 3, H, W] float, RGB in 0..1; H and W are multiples of 64.
            mask: [N, 1, H/64, W/64] float, 0 where a cell of the neck is masked, else 1. The neck and the
                four skips of each hourglass are multiplied by it, enlarged to their sizes.

        Returns:
            `num_stacks` tensors [N, num_classes, H/4, W/4].

        Raises:
            ValueError: H or W is not a multiple of 64; the mask has another shape; or, in training mode, the
                batch is a single image of 64 x 64 px: the neck has one value per channel, which cannot be
                normalized.
        """
        x = self._stem(image)
        grid = (len(image), 1, image.shape[-2] // self.stride, image.shape[-1] // self.stride)
        if mask is not None and mask.shape != grid:
            raise ValueError(f"the mask has the shape {tuple(mask.shape)}, expected {grid}")
        heatmaps = []
        for i, hourglass in enumerate(self.hg):
            y = self.linear[i](self.post_res[i](hourglass(x, mask)))
            heatmaps.append(self.out_conv[i](y))
            if i < len(self.forth_conv):
                x = x + self.forth_conv[i](y) + self.in_conv[i](heatmaps[i])
        return heatmaps

    def features(self, image: Tensor) -> Features:
        """The half pass: runs the network only up to the first neck, for the agents.

        It changes neither the mode nor the gradients. To train only the agent, call this in `eval()` mode
        (in training mode a half pass updates running statistics) and under `torch.no_grad()`.

        Args:
            image: as for `forward`.

        Returns:
            skip1, skip2, skip3, skip4 and neck of the first hourglass: [N, chan, h, w] with
            (h, w) = (H, W) / 4, 8, 16, 32 and 64.

        Raises:
            ValueError: as for `forward`.
        """
        return self.hg[0].encode(self._stem(image))

    def _stem(self, image: Tensor) -> Tensor:
        check_sides(image, self.stride)
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        x = pool(self.residual1(x))
        return self.residual3(self.residual2(x))
